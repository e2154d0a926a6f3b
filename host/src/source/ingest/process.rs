//! One reader process (`ocelli-ingest` or `ocelli-rtsp`): started with its descriptors, read with
//! bounds, ended in time.

use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use command_fds::{CommandFdExt, FdMapping};
use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::inference::packet_pair;
use ocelli_protocol::ingest::{
    Damage, FromIngest, IngestFault, IngestUnit, Input, Open, StreamInfo,
};
use ocelli_protocol::process::ingest as descriptor;
use ocelli_protocol::rtsp::{self, FromReader, MAX_PICTURE};
use ocelli_protocol::wire::{self, WireError};
use parking_lot::Mutex;
use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use crate::config::Sandbox;
use crate::source::ReaderPrograms;
use crate::telemetry;
use crate::util::messages;

/// Private memory of a process that reads a file (RLIMIT_DATA), in bytes. The index of a recording
/// of 24 h at 25 pictures a second takes about 100 MB, the largest picture and its copy 32 MB.
const FILE_MEMORY: u64 = 256 << 20;

/// The same of one that reads a camera: what a picture's budget of bytes
/// ([`PICTURE_BUDGET`](ocelli_protocol::rtsp::PICTURE_BUDGET)) makes in the buffers of a library,
/// some times over.
pub(super) const CAMERA_MEMORY: u64 = 128 << 20;

/// How long one read of the network may take in the process. Longer than any silence after which
/// the host gives a session up: the host judges, and names the cause.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// Longest message without its payload, in bytes: a stream's parameter sets and the list of what is
/// left out.
const MAX_MESSAGE: usize = 64 << 10;

/// From the start of the process to its report on the sandbox: loading libavformat takes some 50
/// ms, on an overloaded machine seconds.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long a process that has closed its socket may take to exit.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// Starts reader processes. Clones share what they have logged.
#[derive(Clone, Debug)]
pub(in crate::source) struct IngestLauncher {
    inner: Arc<LauncherInner>,
}

#[derive(Debug)]
struct LauncherInner {
    programs: ReaderPrograms,
    sandbox: Mutex<Sandbox>,
    /// The missing measures of the sandbox have been logged.
    has_warned: AtomicBool,
}

/// What a reader process gets beside the socket to the host.
pub(in crate::source) struct Descriptors {
    /// Its end of the network socket.
    pub(in crate::source) network: OwnedFd,
    /// The file, or `/dev/null`.
    pub(in crate::source) file: OwnedFd,
}

impl Descriptors {
    /// Of a process that reads a file.
    pub(in crate::source) fn of_file(file: File) -> std::io::Result<Self> {
        Ok(Self { network: packet_pair()?.1, file: file.into() })
    }

    /// Of a process that reads a camera through this socket.
    pub(in crate::source) fn of_camera(network: OwnedFd) -> std::io::Result<Self> {
        Ok(Self { network, file: File::open("/dev/null")?.into() })
    }
}

impl IngestLauncher {
    /// Starts nothing yet.
    pub(in crate::source) fn new(programs: ReaderPrograms, sandbox: Sandbox) -> Self {
        let (sandbox, has_warned) = (Mutex::new(sandbox), AtomicBool::new(false));
        Self { inner: Arc::new(LauncherInner { programs, sandbox, has_warned }) }
    }

    /// Takes the config's policy for processes that start from now on.
    pub(in crate::source) fn set_sandbox(&self, sandbox: Sandbox) {
        *self.inner.sandbox.lock() = sandbox;
    }

    /// Starts an `ocelli-ingest` and has it open `input` within `limit`. `name` is for the process
    /// list and the log; everyone on the machine sees it.
    pub(in crate::source) async fn open(
        &self,
        name: &str,
        input: Input,
        descriptors: Descriptors,
        limit: Duration,
    ) -> Result<(IngestProcess, StreamInfo), IngestError> {
        let program = &self.inner.programs.compatible;
        let mut process = self.start(program, name, descriptors).map_err(IngestError::Start)?;
        let read_timeout_ms = u32::try_from(READ_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
        let (memory, longest) = match &input {
            Input::Camera { .. } => (CAMERA_MEMORY, MAX_PICTURE),
            Input::File { .. } => (FILE_MEMORY, wire::MAX_PAYLOAD),
        };
        let open = Open { input, memory, read_timeout_ms };
        process.longest = longest;
        // A process that has ended already says so by its status.
        let _ = process.send(&open).await;
        match process.receive_ingest(START_LIMIT).await? {
            (FromIngest::SandboxReport(confinement), _) => self.admit(&confinement)?,
            (other, _) => return Err(process.broke_off(&other)),
        }
        match process.receive_ingest(limit).await? {
            (FromIngest::Opened(stream), _) => Ok((process, stream)),
            (FromIngest::Failed(fault), _) => Err(IngestError::Failed(fault)),
            (other, _) => Err(process.broke_off(&other)),
        }
    }

    /// Starts an `ocelli-rtsp` and has it begin with `open`.
    pub(super) async fn start_strict(
        &self,
        name: &str,
        open: &rtsp::OpenCamera,
        descriptors: Descriptors,
    ) -> Result<IngestProcess, IngestError> {
        let program = &self.inner.programs.strict;
        let mut process = self.start(program, name, descriptors).map_err(IngestError::Start)?;
        // A process that has ended already says so by its status.
        let _ = process.send(open).await;
        match process.receive(START_LIMIT, |_| 0).await? {
            (FromReader::SandboxReport(confinement), _) => self.admit(&confinement)?,
            (other, _) => return Err(process.broke_off(&other)),
        }
        Ok(process)
    }

    fn start(
        &self,
        program: &Path,
        name: &str,
        descriptors: Descriptors,
    ) -> std::io::Result<IngestProcess> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mapping = |parent_fd: OwnedFd, child_fd| FdMapping { parent_fd, child_fd };
        let mappings = vec![
            mapping(theirs.into(), descriptor::HOST),
            mapping(descriptors.network, descriptor::NETWORK),
            mapping(descriptors.file, descriptor::FILE),
        ];
        let program_name = program.file_name().unwrap_or(program.as_os_str()).to_owned();
        let mut command = Command::new(program);
        command
            // For the process list alone, which then shows `ocelli-ingest NAME`.
            .arg0(&program_name)
            .arg(name)
            .fd_mappings(mappings)
            .map_err(std::io::Error::other)?
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        // Closes our copies of what the child inherited, its end of the socket above all.
        drop(command);
        if let Some(stderr) = child.stderr.take() {
            let name = format!("{} {name}", program_name.to_string_lossy());
            tokio::spawn(telemetry::child_lines(stderr, move |line| {
                warn!(target: "ocelli::source", "{name}: {line}");
            }));
        }
        Ok(IngestProcess { child, socket: UnixStream::from_std(ours)?, longest: 0 })
    }

    fn admit(&self, confinement: &Confinement) -> Result<(), IngestError> {
        if confinement.is_complete() {
            return Ok(());
        }
        let missing = confinement.missing_text();
        if *self.inner.sandbox.lock() == Sandbox::Required {
            return Err(IngestError::Sandbox(missing));
        }
        if !self.inner.has_warned.swap(true, Ordering::Relaxed) {
            warn!(target: "ocelli::source", "reader processes run without {missing}");
        }
        Ok(())
    }
}

/// Why a reader process is of no more use.
#[derive(Debug, thiserror::Error)]
pub(in crate::source) enum IngestError {
    #[error("the reader process cannot be started: {0}")]
    Start(std::io::Error),
    /// Its sandbox is not what the config requires.
    #[error("session_processes.sandbox = \"required\", but the reader process runs without {0}")]
    Sandbox(String),
    /// It sent what it may not send.
    #[error("the reader process broke its protocol: {0}")]
    Protocol(String),
    /// Either the camera or the process itself sends too much.
    #[error("sends more pictures and packets in a second than are taken")]
    Flood,
    /// It said nothing for this time.
    #[error("the reader process said nothing for {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// It has ended, with this status.
    #[error("the reader process ended: {0}")]
    Exited(String),
    /// It needed more memory than it may have.
    #[error("the reader process needed more memory than it may have")]
    OutOfMemory,
    /// It reports that it cannot read the input.
    #[error("{}", .0.reason)]
    Failed(IngestFault),
}

/// What an `ocelli-ingest` sends once its input is open.
#[derive(Debug)]
pub(in crate::source) enum IngestItem {
    /// The next access unit in decoding order.
    Unit(IngestUnit, Bytes),
    Damage(Damage),
    /// A camera is there, and has sent no picture.
    Alive,
    /// The end of a file.
    Ended,
}

/// A running process. It is killed when this is dropped.
#[derive(Debug)]
pub(in crate::source) struct IngestProcess {
    child: Child,
    socket: UnixStream,
    /// Most bytes of a picture.
    longest: usize,
}

impl IngestProcess {
    /// What it sends next. After an error, and after a call that was given up, it is of no more
    /// use.
    pub(in crate::source) async fn next(
        &mut self,
        limit: Duration,
    ) -> Result<IngestItem, IngestError> {
        match self.receive_ingest(limit).await? {
            (FromIngest::Unit(unit), payload) => Ok(IngestItem::Unit(unit, payload.into())),
            (FromIngest::Damage(damage), _) => Ok(IngestItem::Damage(damage)),
            (FromIngest::Alive, _) => Ok(IngestItem::Alive),
            (FromIngest::Ended, _) => Ok(IngestItem::Ended),
            (FromIngest::Failed(fault), _) => Err(IngestError::Failed(fault)),
            (other, _) => Err(self.broke_off(&other)),
        }
    }

    /// Sends it a message.
    pub(super) async fn send(&mut self, message: &impl Serialize) -> Result<(), WireError> {
        self.socket.write_all(&wire::encode(message, 0)?).await?;
        Ok(())
    }

    async fn receive_ingest(
        &mut self,
        limit: Duration,
    ) -> Result<(FromIngest, Vec<u8>), IngestError> {
        let longest = self.longest;
        self.receive(limit, |message| match message {
            FromIngest::Unit(_) => longest,
            _ => 0,
        })
        .await
    }

    /// Its next message and the payload, which is no longer than `payload` says. After an error,
    /// and after a call that was given up, the process is of no more use.
    pub(super) async fn receive<M: DeserializeOwned>(
        &mut self,
        limit: Duration,
        payload: impl FnOnce(&M) -> usize,
    ) -> Result<(M, Vec<u8>), IngestError> {
        let received =
            timeout(limit, messages::receive(&mut self.socket, MAX_MESSAGE, payload)).await;
        match received {
            Ok(Ok(received)) => Ok(received),
            // One that dies in the middle of a message has not chosen to.
            Ok(Err(WireError::Closed | WireError::Io(_))) => Err(self.exited().await),
            Ok(Err(error)) => {
                self.kill();
                Err(IngestError::Protocol(error.to_string()))
            }
            Err(_) => Err(IngestError::Silent(limit)),
        }
    }

    /// A message that may not come now. The reason has only its beginning.
    pub(super) fn broke_off(&mut self, message: &impl fmt::Debug) -> IngestError {
        const SHOWN: usize = 100;
        self.kill();
        IngestError::Protocol(format!("out of turn: {:.SHOWN$}", format!("{message:?}")))
    }

    fn kill(&mut self) {
        // It fails only if the process has ended already.
        let _ = self.child.start_kill();
    }

    /// Lets it end by itself, for a bounded time.
    pub(super) async fn end(self, limit: Duration) {
        let Self { mut child, socket, .. } = self;
        drop(socket);
        let _ = timeout(limit, child.wait()).await;
    }

    /// How it ended. It is killed if it has closed its socket and goes on.
    async fn exited(&mut self) -> IngestError {
        let deadline = Instant::now() + EXIT_GRACE;
        let status = match timeout_at(deadline, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.kill();
                self.child.wait().await
            }
        };
        match status {
            // Rust's allocator aborts where the system has no more; nothing else there does.
            Ok(status) if status.signal() == Some(Signal::ABORT.as_raw()) => {
                IngestError::OutOfMemory
            }
            Ok(status) => IngestError::Exited(status.to_string()),
            Err(error) => IngestError::Exited(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Opens a file with a shell in the place of the program, for which its only argument, the
    /// file's name, is the script. A script that was just written is not executed itself: a child
    /// of another test may have it open for writing still.
    async fn opened(script: &str, sandbox: Sandbox) -> Result<StreamInfo, IngestError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{script}").unwrap();
        let shell = Path::new("/bin/sh").to_owned();
        let programs = ReaderPrograms { strict: shell.clone(), compatible: shell };
        let launcher = IngestLauncher::new(programs, sandbox);
        let descriptors = Descriptors::of_file(File::open("/dev/null").unwrap()).unwrap();
        let input = Input::File { ending: "mp4".to_owned() };
        let limit = Duration::from_millis(200);
        let name = file.path().to_str().unwrap();
        launcher.open(name, input, descriptors, limit).await.map(|(_, stream)| stream)
    }

    /// A shell's words for a message without a payload on the host's socket.
    fn print(message: &FromIngest) -> String {
        let bytes = wire::encode(message, 0).unwrap();
        let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
        format!("printf '{octal}' >&{}", descriptor::HOST)
    }

    fn report(confinement: Confinement) -> String {
        print(&FromIngest::SandboxReport(confinement))
    }

    #[tokio::test]
    async fn a_process_that_dies_is_told_by_its_status() {
        for script in ["exit 3".to_owned(), report(Confinement::default()) + "; exit 3"] {
            let error = opened(&script, Sandbox::BestEffort).await.unwrap_err();
            assert_eq!(error.to_string(), "the reader process ended: exit status: 3");
        }
        let error = opened("kill -SEGV $$", Sandbox::BestEffort).await.unwrap_err();
        assert!(error.to_string().contains("signal: 11"), "{error}");
    }

    #[tokio::test]
    async fn a_message_out_of_turn_and_one_that_is_none_break_the_protocol() {
        for script in [
            print(&FromIngest::Ended),
            report(Confinement::default()) + "; " + &print(&FromIngest::Alive),
            "printf '\\377\\377\\377\\377\\377\\377\\377\\377' >&3".to_owned(),
            "printf '\\001\\000\\000\\000\\000\\000\\000\\000\\177' >&3".to_owned(),
        ] {
            // It goes on: the host does not wait for its end.
            let error = opened(&(script + "; sleep 60"), Sandbox::BestEffort).await.unwrap_err();
            assert!(matches!(error, IngestError::Protocol(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn a_process_that_hangs_is_given_up_within_the_limit() {
        let script = report(Confinement::default()) + "; sleep 60";
        let error = opened(&script, Sandbox::BestEffort).await.unwrap_err();
        assert!(matches!(error, IngestError::Silent(_)), "{error}");
    }

    #[tokio::test]
    async fn a_sandbox_with_something_missing_is_refused_where_the_config_requires_it() {
        let script = report(Confinement::default()) + "; sleep 60";
        let error = opened(&script, Sandbox::Required).await.unwrap_err();
        assert!(matches!(error, IngestError::Sandbox(_)), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_told() {
        let programs = ReaderPrograms::beside(Path::new("/nonexistent/ocelli"));
        let launcher = IngestLauncher::new(programs, Sandbox::BestEffort);
        let descriptors = Descriptors::of_file(File::open("/dev/null").unwrap()).unwrap();
        let input = Input::File { ending: String::new() };
        let opened = launcher.open("clip", input, descriptors, EXIT_GRACE).await;
        assert!(matches!(opened, Err(IngestError::Start(_))));
    }
}
