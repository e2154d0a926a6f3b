//! One inference process: its start, its packet socket, its in-flight table, and its end.
//!
//! [`spawn`] starts the process in a task of its own. The task returns an [`InferenceProcess`] to
//! the supervisor, carries messages both ways, and reports the process's end.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use command_fds::{CommandFdExt, FdMapping};
use ocelli_protocol::in_flight::InFlightTable;
use ocelli_protocol::inference::{
    Attach, Configure, FromHost, LoadedModel, PacketError, ToHost, packet_pair,
};
use ocelli_protocol::limit::truncate_line;
use ocelli_protocol::process::inference::HOST;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::{InferenceProgram, SessionEndpoint};
use crate::config::Sandbox;
use crate::util::packet_socket::PacketSocket;

/// How long loading the library and warming the preloaded models may take. A large model on a slow
/// disk takes tens of seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// Time to drain a dead process's pipe: a process that it started could hold the pipe open.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines of standard error kept to explain a crash.
const TAIL_LINES: usize = 20;

/// Maximum length of such a line in bytes.
const MAX_LINE_BYTES: u64 = 500;

/// Lines of standard error that an error quotes: a sanitizer's or an allocator's last words are one
/// or two, a panic has three.
const QUOTED_LINES: usize = 3;

/// Messages queued for a process: enough to announce all sessions and catalog versions.
const COMMAND_QUEUE: usize = 1024;

/// Loaded models of one process that are shown: the catalog has some dozens, and a changed one
/// comes again.
const MAX_MODELS: usize = 500;

/// A command to a process.
pub(super) enum ProcessCommand {
    /// A message without descriptors.
    Send(FromHost),
    Attach(Attach, Arc<SessionEndpoint>),
}

/// An event of a process. Its end is the last one.
pub(super) enum ProcessEvent {
    /// The process is ready, or failed to start. A failure is the last event.
    Started(anyhow::Result<InferenceProcess>),
    Loaded(LoadedModel),
    Drained,
    Died(ProcessDeath),
}

/// How a process ended.
#[derive(Debug, Clone)]
pub(super) struct ProcessDeath {
    /// Its exit status, in words.
    status: String,
    /// The last lines that it wrote to standard error.
    lines: Vec<String>,
}

impl ProcessDeath {
    /// In one line, with everything that is known.
    pub(super) fn in_full(&self) -> String {
        self.with(&self.lines)
    }

    /// In one line that is short enough for an error of a frame.
    pub(super) fn in_short(&self) -> String {
        let from = self.lines.len().saturating_sub(QUOTED_LINES);
        self.with(self.lines.get(from..).unwrap_or_default())
    }

    fn with(&self, lines: &[String]) -> String {
        match lines {
            [] => format!("{}; it wrote nothing", self.status),
            lines => format!("{}; it wrote last: {}", self.status, lines.join(" | ")),
        }
    }
}

/// A process that is ready. It is killed when this is dropped.
pub(super) struct InferenceProcess {
    pub(super) pid: u32,
    /// The version of ONNX Runtime, like `1.28.0`.
    pub(super) version: String,
    /// The models loaded so far.
    pub(super) models: Vec<LoadedModel>,
    pub(super) in_flight: InFlightTable,
    orders: mpsc::Sender<ProcessCommand>,
    kill: Arc<Notify>,
}

impl InferenceProcess {
    /// Sends a command. False if the queue is full or the process has ended.
    pub(super) fn command(&self, order: ProcessCommand) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// Adds a model that it says it has loaded. The text is the process's own.
    pub(super) fn add_model(&mut self, mut model: LoadedModel) {
        model.fell_back = model.fell_back.as_deref().map(truncate_line).map(str::to_owned);
        if self.models.len() >= MAX_MODELS {
            self.models.remove(0);
        }
        self.models.push(model);
    }

    /// Kills the process. [`ProcessEvent::Died`] follows.
    pub(super) fn kill(&self) {
        self.kill.notify_one();
    }
}

/// The task's side of a [`InferenceProcess`].
struct ProcessTask {
    process: tokio::process::Child,
    socket: PacketSocket,
    orders: mpsc::Receiver<ProcessCommand>,
    kill: Arc<Notify>,
    stderr: StderrTail,
}

/// The last lines of a process's standard error.
struct StderrTail {
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// Starts a process in a task of its own, which sends its events under `key`.
pub(super) fn spawn(
    program: Arc<InferenceProgram>,
    configure: Configure,
    key: u64,
    said: mpsc::Sender<(u64, ProcessEvent)>,
) {
    tokio::spawn(async move {
        match start(&program, configure).await {
            Ok((child, keeper)) => {
                report(&said, key, ProcessEvent::Started(Ok(child))).await;
                keeper.run(key, said).await;
            }
            Err(error) => report(&said, key, ProcessEvent::Started(Err(error))).await,
        }
    });
}

/// Starts a process and waits until ONNX Runtime is loaded and the preloaded models are warm.
async fn start(
    program: &InferenceProgram,
    configure: Configure,
) -> anyhow::Result<(InferenceProcess, ProcessTask)> {
    let (ours, theirs) = packet_pair()?;
    let mut command = Command::new(&program.path);
    command
        .fd_mappings(vec![FdMapping { parent_fd: theirs, child_fd: HOST }])?
        .env_clear()
        .env("ORT_DISABLE_TELEMETRY", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut process =
        command.spawn().with_context(|| format!("starting {}", program.path.display()))?;
    // The mapping holds our copy of the child's end. Close it, or the child's death stays unseen.
    drop(command);
    let pid = process.id().context("the inference process has ended")?;
    let mut stderr = StderrTail::keep(process.stderr.take());
    let socket = PacketSocket::new(ours)?;
    let in_flight = InFlightTable::create(usize::try_from(configure.threads)?)?;
    socket.send(&FromHost::Configure(configure), &[in_flight.fd()]).await?;
    let (version, models) = match tokio::time::timeout(READY_TIMEOUT, socket.receive()).await {
        Ok(Ok(ToHost::Ready { version, confinement, models })) => {
            if !confinement.is_complete() {
                let lacks = confinement.missing_text();
                if program.sandbox == Sandbox::Required {
                    bail!(
                        "it is not confined as session_processes.sandbox = \"required\" wants: \
                         {lacks}"
                    );
                }
                tracing::warn!(
                    target: "ocelli::inference",
                    "the inference process is not fully confined: {lacks}"
                );
            }
            tracing::info!(target: "ocelli::inference", pid, "ONNX Runtime {version} is ready");
            (version, models)
        }
        Ok(Ok(ToHost::Failed { message })) => bail!("{}", truncate_line(&message)),
        Ok(Ok(_)) => bail!("it spoke out of turn"),
        Ok(Err(PacketError::Closed)) => {
            bail!("{}", stderr.death(process.wait().await).await.in_full())
        }
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => bail!("it was not ready within {} s", READY_TIMEOUT.as_secs()),
    };
    let (orders, waiting) = mpsc::channel(COMMAND_QUEUE);
    let kill = Arc::<Notify>::default();
    let child =
        InferenceProcess { pid, version, models, in_flight, orders, kill: Arc::clone(&kill) };
    Ok((child, ProcessTask { process, socket, orders: waiting, kill, stderr }))
}

impl ProcessTask {
    /// Carries messages until the process has ended. Dropping the [`InferenceProcess`] kills it.
    async fn run(mut self, key: u64, said: mpsc::Sender<(u64, ProcessEvent)>) {
        let mut listens = true;
        let mut next = None;
        let status = loop {
            tokio::select! {
                status = self.process.wait() => break status,
                () = self.kill.notified() => self.end(),
                order = self.orders.recv(), if next.is_none() => match order {
                    Some(order) => next = Some(order),
                    None => {
                        self.end();
                        // So that the process is reaped.
                        let _ = self.process.wait().await;
                        return;
                    }
                },
                sent = send(&self.socket, next.as_ref()), if next.is_some() => {
                    next = None;
                    if let Err(error) = sent && !matches!(error, PacketError::Closed) {
                        tracing::error!(
                            target: "ocelli::inference",
                            "the inference process cannot be told: {error}"
                        );
                        self.end();
                    }
                }
                received = self.socket.receive(), if listens => match received {
                    Ok(ToHost::Loaded(model)) => {
                        report(&said, key, ProcessEvent::Loaded(model)).await;
                    }
                    Ok(ToHost::Drained) => report(&said, key, ProcessEvent::Drained).await,
                    Ok(ToHost::Failed { message }) => {
                        tracing::error!(
                            target: "ocelli::inference",
                            "the inference process gives up: {}",
                            truncate_line(&message)
                        );
                    }
                    // It ends, or has closed its side: its end is waited for.
                    Err(PacketError::Closed) => listens = false,
                    Ok(ToHost::Ready { .. }) | Err(_) => {
                        tracing::error!(
                            target: "ocelli::inference",
                            "the inference process broke the protocol"
                        );
                        listens = false;
                        self.end();
                    }
                },
            }
        };
        let death = self.stderr.death(status).await;
        report(&said, key, ProcessEvent::Died(death)).await;
    }

    fn end(&mut self) {
        // It fails only where the process has ended already.
        let _ = self.process.start_kill();
    }
}

/// Sending fails while the host ends. The event is dropped then, a started process with it.
async fn report(to: &mpsc::Sender<(u64, ProcessEvent)>, key: u64, said: ProcessEvent) {
    let _ = to.send((key, said)).await;
}

async fn send(socket: &PacketSocket, order: Option<&ProcessCommand>) -> Result<(), PacketError> {
    match order {
        Some(ProcessCommand::Send(message)) => socket.send(message, &[]).await,
        Some(ProcessCommand::Attach(attach, place)) => {
            let descriptors = [place.socket.as_fd(), place.memory.as_fd()];
            socket.send(&FromHost::Attach(attach.clone()), &descriptors).await
        }
        None => Ok(()),
    }
}

impl StderrTail {
    fn keep(pipe: Option<tokio::process::ChildStderr>) -> Self {
        let lines = Arc::<Mutex<VecDeque<String>>>::default();
        let reader = pipe.map(|pipe| tokio::spawn(collect_tail(pipe, Arc::clone(&lines))));
        Self { lines, reader }
    }

    async fn death(&mut self, status: std::io::Result<std::process::ExitStatus>) -> ProcessDeath {
        // Its last words may still be in the pipe.
        if let Some(reader) = self.reader.take() {
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, reader).await;
        }
        let status = match status {
            Ok(status) => status.to_string(),
            Err(error) => format!("its status is not known: {error}"),
        };
        let lines = self.lines.lock().iter().cloned().collect();
        ProcessDeath { status, lines }
    }
}

/// Logs a child's standard error line by line, and keeps the last lines. A line longer than the
/// bound counts as several.
async fn collect_tail(pipe: impl AsyncRead + Unpin, kept: Arc<Mutex<VecDeque<String>>>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut pipe).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        // A flood must not hold a thread of the host.
        tokio::task::coop::consume_budget().await;
        if text.is_empty() {
            continue;
        }
        tracing::debug!(target: "ocelli::inference", "{text}");
        let mut kept = kept.lock();
        if kept.len() == TAIL_LINES {
            kept.pop_front();
        }
        kept.push_back(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_quotes_the_last_lines_that_the_process_wrote() {
        let lines = (1..=5).map(|line| format!("line {line}")).collect();
        let death = ProcessDeath { status: "signal: 6 (SIGABRT)".into(), lines };
        assert_eq!(
            death.in_short(),
            "signal: 6 (SIGABRT); it wrote last: line 3 | line 4 | line 5"
        );
        assert!(death.in_full().contains("line 1"));
    }
}
