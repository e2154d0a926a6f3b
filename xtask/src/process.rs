//! Running other programs: with progress, for their output, and as children that never outlive a
//! task.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};

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

/// A long-running child of a task: it gets SIGTERM when this program ends, however that happens,
/// and SIGKILL when the value is dropped without [`ServiceLevel::stop`].
pub(crate) struct Service {
    name: &'static str,
    child: Child,
    /// Ready to be read when the child has ended.
    ended: OwnedFd,
}

impl Service {
    /// Starts the program. Must be called on the main thread: the kernel signals the child when the
    /// *thread* that started it ends.
    pub(crate) fn start(name: &'static str, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null());
        end_with_parent(&mut command);
        let child = command.spawn();
        let child = child.with_context(|| format!("cannot start {name}: `{}`", shown(&command)))?;
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok(Self { name, child, ended })
    }

    /// What the child prints, where its command said `Stdio::piped()`; once.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The error that it is for most children to have ended by themselves.
    pub(crate) fn has_ended(&mut self) -> anyhow::Error {
        match self.status() {
            Ok(status) => anyhow::anyhow!("{} ended: {status}", self.name),
            Err(error) => error,
        }
    }

    /// Asks the child to end, and kills it when it has not within `grace`; how it ended.
    pub(crate) fn stop(mut self, grace: Duration) -> Result<ExitStatus> {
        // It can only fail if the child has just ended, which is what it asks for.
        let _ = pidfd_send_signal(&self.ended, Signal::TERM);
        if let [false] = wait_for([&self.ended], Some(grace))? {
            eprintln!("x: {} did not end within {} s and was killed", self.name, grace.as_secs());
            self.child.kill()?;
        }
        self.status()
    }

    fn status(&mut self) -> Result<ExitStatus> {
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))
    }
}

impl AsFd for Service {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both do nothing to one that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until one of several can be read, or `limit` has passed: which of them can.
pub(crate) fn wait_for<const N: usize>(
    sources: [&dyn AsFd; N],
    limit: Option<Duration>,
) -> Result<[bool; N]> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut polled = sources.map(|source| PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match poll(&mut polled, left.map(Timespec::try_from).transpose()?.as_ref()) {
            // A signal that was caught.
            Err(Errno::INTR) => {}
            done => {
                done?;
                return Ok(polled.map(|source| !source.revents().is_empty()));
            }
        }
    }
}

#[allow(unsafe_code)]
fn end_with_parent(command: &mut Command) {
    // SAFETY: the closure runs in the forked child before exec and makes one system call; it
    // neither allocates nor locks.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}
