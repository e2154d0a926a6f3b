//! One inference process and the packet socket to it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use command_fds::{CommandFdExt, FdMapping};
use ocelli_protocol::inference::{
    Attach, Configure, FromHost, MAX_PACKET, PacketError, ToHost, packet_pair, receive, send_with,
};
use ocelli_protocol::ledger::Ledger;
use ocelli_protocol::process::inference::HOST;
use serde::Serialize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Interest};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::config::Sandbox;

/// How long loading the library and warming the preloaded models may take. A large model on a slow disk takes tens of
/// seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a dead process's pipe may take to run empty: it could have left it open to a process of its own.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Lines of standard error that are kept to explain a death.
const KEPT_LINES: usize = 20;

/// Bytes of a line of standard error that are kept.
const KEPT_BYTES: usize = 500;

/// A running inference process. It is killed when this is dropped.
pub(super) struct Child {
    process: tokio::process::Child,
    socket: AsyncFd<OwnedFd>,
    stderr: Arc<Mutex<VecDeque<String>>>,
    stderr_reader: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts the process and waits until it says that it is ready.
    pub(super) async fn start(
        program: &Path,
        configure: &Configure,
        sandbox: Sandbox,
    ) -> anyhow::Result<Self> {
        let (ours, theirs) = packet_pair()?;
        rustix::fs::fcntl_setfl(&ours, rustix::fs::fcntl_getfl(&ours)? | rustix::fs::OFlags::NONBLOCK)?;
        let mut command = Command::new(program);
        command
            .fd_mappings(vec![FdMapping { parent_fd: theirs, child_fd: HOST }])?
            .env_clear()
            .env("ORT_DISABLE_TELEMETRY", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut process = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        // The mapping keeps our copy of the child's end open; it closes here, so that the child's death is seen.
        drop(command);
        let stderr = Arc::new(Mutex::new(VecDeque::new()));
        let stderr_reader =
            process.stderr.take().map(|pipe| tokio::spawn(keep_lines(pipe, Arc::clone(&stderr))));
        #[expect(
            deprecated,
            reason = "unsound for types that lie about their descriptor; OwnedFd does not, and the \
            replacement is unsafe"
        )]
        let socket = AsyncFd::new(ours)?;
        let mut child = Self { process, socket, stderr, stderr_reader };
        let ledger = Ledger::create(configure.threads as usize)?;
        child.send(&FromHost::Configure(configure.clone()), &[ledger.fd()]).await?;
        match tokio::time::timeout(READY_TIMEOUT, child.receive()).await {
            Ok(Ok(ToHost::Ready { version, confinement, .. })) => {
                if !confinement.is_complete() {
                    let lacks = confinement.lacks();
                    if sandbox == Sandbox::Required {
                        bail!(
                            "it is not confined as session_processes.sandbox = \"required\" wants: {lacks}"
                        );
                    }
                    tracing::warn!(target: "ocelli::inference", "the inference process is not fully confined: {lacks}");
                }
                tracing::info!(target: "ocelli::inference", pid = child.pid(), "ONNX Runtime {version} is ready");
                Ok(child)
            }
            Ok(Ok(ToHost::Failed { message })) => bail!("{message}"),
            Ok(Ok(other)) => bail!("it spoke out of turn: {other:?}"),
            Ok(Err(PacketError::Closed)) => bail!("{}", child.death().await),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => bail!("it was not ready within {} s", READY_TIMEOUT.as_secs()),
        }
    }

    /// The process's number while it lives.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Announces a session and passes its descriptors.
    pub(super) async fn attach(&self, session: &super::Attached) -> Result<(), PacketError> {
        let attach = Attach {
            session: session.name.clone(),
            number: session.number,
            generation: 0,
            service: session.service,
            suspect: None,
        };
        self.send(&FromHost::Attach(attach), &[session.socket.as_fd(), session.memory.as_fd()]).await
    }

    /// Waits for the process to end, and tells how it ended with the last that it wrote. Cancel-safe.
    pub(super) async fn death(&mut self) -> String {
        let status = match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => format!("its status is not known: {error}"),
        };
        // Its last words may still be in the pipe.
        if let Some(reader) = &mut self.stderr_reader {
            let _ = tokio::time::timeout(LAST_WORDS, reader).await;
            self.stderr_reader = None;
        }
        let lines = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.is_empty() {
            return status;
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        format!("{status}; it wrote last: {}", lines.join(" | "))
    }

    async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), PacketError> {
        self.on_socket(Interest::WRITABLE, |socket| send_with(socket, message, descriptors)).await
    }

    async fn receive(&self) -> Result<ToHost, PacketError> {
        let mut buffer = vec![0; MAX_PACKET];
        self.on_socket(Interest::READABLE, |socket| receive(socket, &mut buffer)).await
    }

    /// Runs a call on the socket each time it may go on, until the call does not block.
    async fn on_socket<T>(
        &self,
        interest: Interest,
        mut call: impl FnMut(BorrowedFd<'_>) -> Result<T, PacketError>,
    ) -> Result<T, PacketError> {
        let called = self.socket.async_io(interest, |socket| match call(socket.as_fd()) {
            Err(PacketError::Io(rustix::io::Errno::WOULDBLOCK)) => Err(io::ErrorKind::WouldBlock.into()),
            other => Ok(other),
        });
        called.await.unwrap_or_else(|error| {
            Err(PacketError::Io(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)))
        })
    }
}

/// Logs a child's standard error line by line, and keeps the last lines.
async fn keep_lines(pipe: impl AsyncRead + Unpin, kept: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(mut line)) = lines.next_line().await {
        tracing::debug!(target: "ocelli::inference", "{line}");
        line.truncate(line.floor_char_boundary(KEPT_BYTES));
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}
