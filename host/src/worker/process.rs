//! One worker process: started with its descriptors, reached over its socket, and ended in time.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Buf;
use command_fds::{CommandFdExt, FdMapping};
use ocelli_protocol::decode_device::DecodeDevice;
use ocelli_protocol::gate::{Gate, Request};
use ocelli_protocol::process::{GrantedDirectory, worker as descriptor};
use ocelli_protocol::wire::{self, WireError};
use ocelli_protocol::worker::{FromWorker, ToWorker};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};

use super::cgroup::{ControlGroup, ControlGroups, GroupLimits};
use super::inbox::{Inbox, InboxError};
use crate::inference::InferenceAttachment;
use crate::source::ReaderPrograms;
use crate::telemetry;

/// The programs of the child processes.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Path of `ocelli-worker`, which runs one pipeline.
    pub worker: PathBuf,
    /// Path of `ocelli-inference`, which runs models.
    pub inference: PathBuf,
    /// Path of `ocelli-compile`, which compiles one component.
    pub compile: PathBuf,
    /// Those that read sources.
    pub readers: ReaderPrograms,
}

impl Programs {
    /// Looks for the programs in the folder of the running one.
    pub fn find() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("asking for this program's path")?;
        let find = |name: &str| {
            let path = own.with_file_name(name);
            anyhow::ensure!(path.is_file(), "{} is missing: `./x build` makes it", path.display());
            Ok(path)
        };
        Ok(Self {
            worker: find("ocelli-worker")?,
            inference: find("ocelli-inference")?,
            compile: find("ocelli-compile")?,
            readers: ReaderPrograms {
                strict: find("ocelli-rtsp")?,
                compatible: find("ocelli-ingest")?,
            },
        })
    }
}

/// What the process of a session may use beside what each has.
pub(super) struct Granted<'a> {
    /// What decodes.
    pub(super) device: &'a DecodeDevice,
    pub(super) directories: Vec<OpenDirectory>,
}

/// A folder that a session is granted.
pub(super) struct OpenDirectory {
    pub(super) folder: OwnedFd,
    pub(super) granted: GrantedDirectory,
}

/// A running worker. It is killed when this is dropped.
pub(super) struct WorkerProcess {
    child: Child,
    group: Option<ControlGroup>,
    inbox: Inbox<OwnedReadHalf>,
}

/// How a worker ended.
pub(crate) struct WorkerExit {
    /// The exit status in words.
    pub(crate) status: String,
    /// The kernel killed it because its control group's memory was used up.
    pub(crate) out_of_memory: bool,
}

impl WorkerProcess {
    /// Starts `program` for a session. `gate` says which messages it may send, `component` is the
    /// compiled component, `redis` the worker's end of the socket for keys of Redis, `directories`
    /// what it was granted.
    pub(super) fn start(
        program: &Path,
        session: &str,
        gate: Gate,
        attachment: &InferenceAttachment,
        component: &OwnedFd,
        redis: OwnedFd,
        granted: Granted<'_>,
    ) -> anyhow::Result<(Self, WorkerSender)> {
        let (ours, theirs) =
            std::os::unix::net::UnixStream::pair().context("making the worker's socket")?;
        ours.set_nonblocking(true)?;
        let mapping = |parent_fd: OwnedFd, child_fd| FdMapping { parent_fd, child_fd };
        let mut mappings = vec![
            mapping(theirs.into(), descriptor::HOST),
            mapping(attachment.socket.try_clone()?, descriptor::INFERENCE),
            mapping(attachment.memory.try_clone()?, descriptor::TENSORS),
            mapping(component.try_clone()?, descriptor::COMPONENT),
            mapping(redis, descriptor::REDIS),
        ];
        let Granted { device, directories } = granted;
        // The processor is no argument, as no folder is one.
        let device = (!device.is_cpu()).then(|| device.argument());
        let folders = directories.iter().map(|directory| directory.granted.argument());
        let arguments: Vec<String> = device.into_iter().chain(folders).collect();
        let folders = directories.into_iter().map(|directory| directory.folder);
        let numbers = descriptor::DIRECTORIES..;
        mappings.extend(folders.zip(numbers).map(|(folder, number)| mapping(folder, number)));
        let mut command = Command::new(program);
        command
            // For the process list alone, which then shows `ocelli-worker SESSION`.
            .arg0("ocelli-worker")
            .arg(session)
            .args(arguments)
            .fd_mappings(mappings)?
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child =
            command.spawn().with_context(|| format!("starting {}", program.display()))?;
        // Closes our copies of what the child inherited, its end of the socket above all.
        drop(command);
        if let Some(stderr) = child.stderr.take() {
            let session = session.to_owned();
            tokio::spawn(telemetry::child_lines(stderr, move |line| {
                tracing::warn!(target: "ocelli::worker", session, "{line}");
            }));
        }
        let (read, write) = UnixStream::from_std(ours)?.into_split();
        let sender = WorkerSender::new(write);
        let inbox = Inbox::new(read, gate, sender.sent());
        Ok((Self { child, group: None, inbox }, sender))
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

    /// The process's id while it lives.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The next message with its payload. May be dropped at any time. After an error no message
    /// follows.
    pub(super) async fn receive(&mut self) -> Result<(FromWorker, Vec<u8>), InboxError> {
        self.inbox.next().await
    }

    /// Sends SIGKILL; [`end`](Self::end) waits for the exit.
    pub(super) fn kill(&mut self) {
        // It fails only if the process has ended already.
        let _ = self.child.start_kill();
    }

    /// Waits until the process has ended by itself, and kills it after `grace`. Closes the
    /// connection first: a worker whose messages are not read would wait for ever to send the next
    /// one.
    pub(super) async fn end(self, grace: Duration) -> WorkerExit {
        let Self { mut child, group, inbox } = self;
        drop(inbox);
        let status = match tokio::time::timeout(grace, child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                // It fails only if the process has ended already.
                let _ = child.start_kill();
                child.wait().await
            }
        };
        let mut status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let out_of_memory = group.as_ref().is_some_and(ControlGroup::is_out_of_memory);
        if out_of_memory {
            status += ": killed by its memory limit (control group)";
        }
        WorkerExit { status, out_of_memory }
    }
}

/// What was written to a worker.
#[derive(Debug, Default)]
pub(crate) struct SentCounts {
    units: AtomicU64,
    /// Since its start, each before it was written: an answer never comes first.
    requests: [AtomicU64; Request::COUNT],
}

impl SentCounts {
    /// How often it was sent a request since its start.
    pub(super) fn requests(&self, request: Request) -> u64 {
        self.requests.get(request as usize).map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// Access units since the worker was activated, or since its start if it was never on standby.
    pub(crate) fn units(&self) -> u64 {
        self.units.load(Ordering::Relaxed)
    }

    /// Whether the worker was sent the end of its file.
    pub(crate) fn has_ended(&self) -> bool {
        self.requests(Request::EndOfStream) > 0
    }
}

/// The way to a worker. Dropping it tells the worker to end after the frame in hand, whatever was
/// sent before.
pub(crate) struct WorkerSender {
    socket: OwnedWriteHalf,
    sent: Arc<SentCounts>,
}

impl WorkerSender {
    fn new(socket: OwnedWriteHalf) -> Self {
        Self { socket, sent: Arc::default() }
    }

    /// A way that leads to the other end.
    #[cfg(test)]
    pub(crate) fn pair() -> (Self, OwnedReadHalf) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Self::new(ours.into_split().1), theirs.into_split().0)
    }

    /// What it has sent.
    pub(super) fn sent(&self) -> Arc<SentCounts> {
        Arc::clone(&self.sent)
    }

    /// Sends a message; waits as long as the worker's socket is full.
    pub(crate) async fn send(
        &mut self,
        message: &ToWorker,
        payload: &[u8],
    ) -> Result<(), WireError> {
        let request = Request::of(message);
        if let Some(count) = request.and_then(|request| self.sent.requests.get(request as usize)) {
            count.fetch_add(1, Ordering::Release);
        }
        if request == Some(Request::Activate) {
            // The worker counts from here on, too.
            self.sent.units.store(0, Ordering::Relaxed);
        }
        let written = self.write(message, payload).await;
        if request == Some(Request::Unit) {
            self.sent.units.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    async fn write(&mut self, message: &ToWorker, payload: &[u8]) -> Result<(), WireError> {
        let head = wire::encode(message, payload.len())?;
        // In one call: the worker wakes once.
        Ok(self.socket.write_all_buf(&mut Buf::chain(head.as_slice(), payload)).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::unit;

    #[tokio::test]
    async fn units_are_counted_from_the_activation_on_and_the_end_is_known() {
        let (mut sender, _worker) = WorkerSender::pair();
        let sent = sender.sent();
        let header = unit(0, true, 1).header.clone();
        let unit = ToWorker::Unit(header);
        sender.send(&unit, &[0]).await.unwrap();
        sender.send(&ToWorker::Snapshot, &[]).await.unwrap();
        assert_eq!((sent.units(), sent.has_ended()), (1, false));
        sender.send(&ToWorker::Activate { after: None }, &[]).await.unwrap();
        assert_eq!(sent.units(), 0);
        sender.send(&unit, &[0]).await.unwrap();
        sender.send(&ToWorker::EndOfStream, &[]).await.unwrap();
        assert_eq!((sent.units(), sent.has_ended()), (1, true));
    }
}
