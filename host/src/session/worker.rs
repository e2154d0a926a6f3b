//! One worker process: started with its descriptors, spoken to over its socket, and ended in time.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use command_fds::{CommandFdExt, FdMapping};
use ocelli_protocol::process::worker as descriptor;
use ocelli_protocol::wire::{self, WireError};
use ocelli_protocol::worker::{FromWorker, ToWorker};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::Programs;
use super::cgroup::{ControlGroups, GroupLimits, WorkerGroup};
use crate::inference::InferenceAttachment;
use crate::source::AccessUnit;

/// Messages of a worker that wait to be handled. A worker that sends faster is held up by its
/// socket.
const INBOX: usize = 32;

/// Bytes of a line of standard error that are logged.
const MAX_LINE: usize = 2 << 10;

/// Lines of standard error that are logged in a second: a panic with its backtrace, and the
/// allocator's last words.
const MAX_LINES: u32 = 200;

/// What a worker sent, or how its connection ended.
pub(crate) type ReceivedMessage = Result<(FromWorker, Vec<u8>), WireError>;

/// A running worker. It is killed when this is dropped.
pub(crate) struct WorkerProcess {
    child: Child,
    group: Option<WorkerGroup>,
    /// Its messages, the end of the connection last.
    pub(crate) inbox: mpsc::Receiver<ReceivedMessage>,
}

impl WorkerProcess {
    /// Starts a worker for a session. `component` is the compiled component, `granted` its
    /// end of the socket for keys of Redis.
    pub(super) fn start(
        programs: &Programs,
        session: &str,
        attachment: &InferenceAttachment,
        component: &OwnedFd,
        granted: OwnedFd,
    ) -> anyhow::Result<(Self, WorkerSender)> {
        let (ours, theirs) =
            std::os::unix::net::UnixStream::pair().context("making the worker's socket")?;
        ours.set_nonblocking(true)?;
        let mapping = |parent_fd: OwnedFd, child_fd| FdMapping { parent_fd, child_fd };
        let mappings = vec![
            mapping(theirs.into(), descriptor::HOST),
            mapping(attachment.socket.try_clone()?, descriptor::INFERENCE),
            mapping(attachment.memory.try_clone()?, descriptor::TENSORS),
            mapping(component.try_clone()?, descriptor::COMPONENT),
            mapping(granted, descriptor::REDIS),
        ];
        let mut command = Command::new(&programs.worker);
        command
            // For the process list alone, which then shows `ocelli-worker SESSION`.
            .arg0("ocelli-worker")
            .arg(session)
            .fd_mappings(mappings)?
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child =
            command.spawn().with_context(|| format!("starting {}", programs.worker.display()))?;
        // Closes our copies of what the child inherited, its end of the socket above all.
        drop(command);
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(log_lines(stderr, session.to_owned()));
        }
        let (read, write) = UnixStream::from_std(ours)?.into_split();
        let (sender, inbox) = mpsc::channel(INBOX);
        tokio::spawn(receive_all(read, sender));
        Ok((Self { child, group: None, inbox }, WorkerSender(write)))
    }

    /// Puts the process into a control group of its own. To be called before it is told what to
    /// run.
    pub(super) async fn enter_group(
        &mut self,
        groups: ControlGroups,
        limits: GroupLimits,
    ) -> anyhow::Result<()> {
        let pid = self.pid().context("the worker has ended")?;
        // The kernel may take some ten milliseconds over it.
        let entered = tokio::task::spawn_blocking(move || {
            let group = groups.create(limits)?;
            group.admit(pid)?;
            std::io::Result::Ok(group)
        });
        self.group = Some(entered.await??);
        Ok(())
    }

    /// Whether the process is in a control group of its own.
    pub(super) fn is_in_group(&self) -> bool {
        self.group.is_some()
    }

    /// The process's number while it lives.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends the process without asking it.
    pub(crate) fn kill(&mut self) {
        // It fails only where the process has ended already.
        let _ = self.child.start_kill();
    }

    /// Waits until the process has ended by itself, kills it after `grace`, and tells how it ended
    /// and whether its control group's memory was used up. Its messages are thrown away: a worker
    /// that waits for room to send would never end.
    pub(crate) async fn end(mut self, grace: Duration) -> (String, bool) {
        self.inbox.close();
        while self.inbox.try_recv().is_ok() {}
        let status = match tokio::time::timeout(grace, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                let _ = self.child.start_kill();
                self.child.wait().await
            }
        };
        let mut status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let out_of_memory = self.group.as_ref().is_some_and(WorkerGroup::is_out_of_memory);
        if out_of_memory {
            status += ": killed by its memory limit (control group)";
        }
        (status, out_of_memory)
    }
}

/// The way to a worker. Dropping it tells the worker to end after the frame in hand, whatever was
/// sent before.
pub(crate) struct WorkerSender(OwnedWriteHalf);

impl WorkerSender {
    /// Sends a message.
    pub(crate) async fn send(
        &mut self,
        message: &ToWorker,
        payload: &[u8],
    ) -> Result<(), WireError> {
        self.0.write_all(&wire::encode(message, payload.len())?).await?;
        self.0.write_all(payload).await?;
        Ok(())
    }

    /// A way that leads to the other end.
    #[cfg(test)]
    pub(super) fn pair() -> (Self, OwnedReadHalf) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Self(ours.into_split().1), theirs.into_split().0)
    }

    /// Sends an access unit.
    pub(super) async fn send_unit(&mut self, unit: &Arc<AccessUnit>) -> Result<(), WireError> {
        self.send(&ToWorker::Unit(unit.header.clone()), &unit.data).await
    }
}

/// Reads messages until the connection ends or breaks; says which, then stops.
async fn receive_all(mut from: OwnedReadHalf, to: mpsc::Sender<ReceivedMessage>) {
    loop {
        let received = receive(&mut from).await;
        let over = received.is_err();
        if to.send(received).await.is_err() || over {
            return;
        }
    }
}

async fn receive(from: &mut OwnedReadHalf) -> ReceivedMessage {
    let mut header = [0; wire::HEADER];
    if let Err(error) = from.read_exact(&mut header).await {
        let closed = error.kind() == std::io::ErrorKind::UnexpectedEof;
        return Err(if closed { WireError::Closed } else { error.into() });
    }
    let (message, length) = wire::decode_header(header)?;
    let mut bytes = vec![0; message];
    from.read_exact(&mut bytes).await?;
    let message = wire::decode(&bytes)?;
    // Nothing is allocated for bytes that no message has.
    let bound = if matches!(message, FromWorker::Snapshot { .. }) { wire::MAX_PAYLOAD } else { 0 };
    if length > bound {
        return Err(WireError::TooLong { what: "payload", length, bound });
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Ok((message, payload))
}

/// Logs what a worker writes to its standard error: nothing, unless something went badly wrong.
async fn log_lines(stderr: tokio::process::ChildStderr, session: String) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    let (mut second, mut logged, mut left_out) = (Instant::now(), 0, 0_u64);
    loop {
        line.clear();
        // A read costs one unit of the task's budget for hundreds of short lines, so a flood would
        // hold a thread of the host.
        tokio::task::coop::consume_budget().await;
        if second.elapsed() >= Duration::from_secs(1) {
            if left_out > 0 {
                tracing::warn!(target: "ocelli::worker", session, "{left_out} lines of standard \
                    error are left out");
            }
            (second, logged, left_out) = (Instant::now(), 0, 0);
        }
        // A line longer than the bound is logged in pieces.
        match (&mut lines).take(MAX_LINE as u64).read_until(b'\n', &mut line).await {
            Ok(1..) if logged >= MAX_LINES => left_out += 1,
            Ok(1..) => {
                logged += 1;
                let text = String::from_utf8_lossy(&line);
                tracing::warn!(target: "ocelli::worker", session, "{}", text.trim_end());
            }
            _ => return,
        }
    }
}
