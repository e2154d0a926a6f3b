//! Running other programs: with progress, for their output, and as children that never outlive a task.

use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// Does `work` between two lines of progress, the second with the time it took.
pub(crate) fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {title} ...");
    let started = Instant::now();
    let done = work()?;
    eprintln!("    done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(done)
}

/// Runs a program with this terminal; its failure is an error that names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a program with this terminal and returns how it ended.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("cannot run `{}`", shown(command)))
}

/// Runs a program and returns what it printed; its failure is an error with what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run `{}`", shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}: {}", shown(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// True if the program exists and ends well; it prints nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A long-running child of a task: it gets SIGTERM when this program ends, however that happens, and SIGKILL when the
/// value is dropped without [`Service::stop`].
pub(crate) struct Service {
    name: &'static str,
    child: tokio::process::Child,
}

impl Service {
    /// Starts the program. Must be called on the main thread: the kernel signals the child when the *thread* that started
    /// it ends.
    pub(crate) fn start(name: &'static str, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        end_with_parent(&mut command);
        let child = command.spawn();
        let child = child.with_context(|| format!("cannot start {name}: `{}`", shown(command.as_std())))?;
        Ok(Self { name, child })
    }

    /// What the child prints, where its command said `Stdio::piped()`; once.
    pub(crate) fn stdout(&mut self) -> Option<tokio::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits until the child ends by itself, which is always an error.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => anyhow::anyhow!("{} ended: {status}", self.name),
            Err(error) => anyhow::anyhow!("cannot wait for {}: {error}", self.name),
        }
    }

    /// Asks the child to end, and kills it when it has not within `grace`.
    pub(crate) async fn stop(mut self, grace: Duration) {
        // No id: it has ended and is reaped already.
        let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else { return };
        // It can only fail if the child has just ended, which is what it asks for.
        let _ = kill_process(pid, Signal::TERM);
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            eprintln!("x: {} did not end within {} s and was killed", self.name, grace.as_secs());
            let _ = self.child.kill().await;
        }
    }
}

#[allow(unsafe_code)]
fn end_with_parent(command: &mut tokio::process::Command) {
    // SAFETY: the closure runs in the forked child before exec and makes one system call; it neither allocates nor locks.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}
