//! Programs that a measurement starts. None outlives the bench.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};

/// How long a child may take to end in order before it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// A running child: killed when it is dropped, and when this program dies.
pub struct Running {
    name: &'static str,
    /// For its pipes.
    pub child: Child,
    pid: u32,
}

impl Running {
    /// Starts a program. Must be called on the main thread: the kernel ends the child with the
    /// *thread* that started it.
    pub fn start(name: &'static str, mut command: Command) -> Result<Self> {
        // Newer versions of ONNX Runtime phone home unless told not to before they are loaded.
        command.env("ORT_DISABLE_TELEMETRY", "1").kill_on_drop(true);
        end_with_parent(&mut command);
        let child = command.spawn();
        let child = child
            .with_context(|| format!("starting {name}: {:?}", command.as_std().get_program()))?;
        let pid = child.id().with_context(|| format!("{name} has ended at once"))?;
        Ok(Self { name, child, pid })
    }

    /// Its process number, which stays its own until [`Running::stop`].
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// An error that tells how it ended, once it has.
    pub async fn ended(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => anyhow::anyhow!("{} has ended: {status}", self.name),
            Err(error) => anyhow::anyhow!("cannot wait for {}: {error}", self.name),
        }
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(mut self) -> Result<()> {
        if self.child.id().is_some() {
            terminate(self.pid, Signal::TERM)?;
        }
        match tokio::time::timeout(GRACE, self.child.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => {
                self.child.kill().await.with_context(|| format!("killing {}", self.name))?;
                anyhow::bail!(
                    "{} did not end within {} s and was killed",
                    self.name,
                    GRACE.as_secs()
                )
            }
        }
    }
}

/// Sends a signal to a process.
pub fn terminate(pid: u32, signal: Signal) -> Result<()> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a process number")?;
    kill_process(target, signal).with_context(|| format!("sending {signal:?} to process {pid}"))
}

/// For a child whose output is not wanted.
pub fn quiet(command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::null());
}

#[allow(unsafe_code)]
fn end_with_parent(command: &mut Command) {
    // SAFETY: the closure runs in the forked child before exec and makes one system call; it
    // neither allocates nor locks.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}
