//! One worker with everything that belongs to it, from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::usage::GuestUsage;
use ocelli_protocol::wire::WireError;
use ocelli_protocol::worker::{Description, FrameResult, FromWorker, ToWorker, WorkerLimits};

use super::fault::{StartError, WorkerFault};
use super::handshake::{Handshake, HandshakeState};
use super::monitor::WorkerMonitor;
use super::process::{SentCounts, WorkerExit, WorkerProcess, WorkerSender};
use super::usage::{Usage, UsageLimit};
use super::validate::{self, LimitExceeded};
use crate::inference::InferenceAttachment;

/// A started worker. Dropping it kills the process.
pub(crate) struct WorkerHandle {
    process: WorkerProcess,
    /// `None` once it is given away.
    sender: Option<WorkerSender>,
    sent: Arc<SentCounts>,
    monitor: WorkerMonitor,
    handshake: HandshakeState,
    usage: UsageLimit,
    /// Bytes, as of the last heartbeat.
    guest_memory: u64,
    /// What it reported at its end.
    used: Option<GuestUsage>,
    /// Each worker has its own: requests and shared memory that another worker left behind cannot
    /// reach this one.
    _attachment: InferenceAttachment,
}

impl WorkerHandle {
    pub(super) fn new(
        process: WorkerProcess,
        sender: WorkerSender,
        monitor: WorkerMonitor,
        handshake: HandshakeState,
        attachment: InferenceAttachment,
        usage: UsageLimit,
    ) -> Self {
        let sent = sender.sent();
        Self {
            process,
            sender: Some(sender),
            sent,
            monitor,
            handshake,
            usage,
            guest_memory: 0,
            used: None,
            _attachment: attachment,
        }
    }

    /// The next message that is not a log line, with its payload. Checks the worker's health as
    /// long as it waits. After an error the worker is of no more use. May be dropped at any time.
    pub(crate) async fn next(&mut self) -> Result<(FromWorker, Vec<u8>), WorkerFault> {
        loop {
            tokio::select! {
                received = self.process.receive() => {
                    let (message, payload) = received?;
                    let Some(message) = self.monitor.receive(message) else { continue };
                    match message {
                        FromWorker::Heartbeat { guest_memory, .. } => {
                            self.guest_memory = guest_memory;
                        }
                        FromWorker::Used(used) => {
                            self.used = Some(used);
                            continue;
                        }
                        _ => {}
                    }
                    return Ok((message, payload));
                }
                () = self.monitor.check_due() => {
                    self.monitor.check_health(self.sent.units())?;
                    if let Some(usage) = self.process.pid().and_then(Usage::of) {
                        self.usage.check(usage)?;
                    }
                }
            }
        }
    }

    /// Handles a message of a worker that is not ready yet.
    pub(crate) fn handshake(&mut self, message: FromWorker) -> Result<Handshake, StartError> {
        self.handshake.on_message(message)
    }

    /// Fails if a model that its pipeline needs is not offered now as it needs it.
    pub(crate) fn check_models(&self) -> Result<(), StartError> {
        self.handshake.check_models()
    }

    /// Checks a result against the worker's limits.
    pub(crate) fn validate(&self, result: &FrameResult) -> Result<(), LimitExceeded> {
        validate::result(result, self.monitor.limits())
    }

    /// Sends a message. Fails once the sender was taken.
    pub(crate) async fn send(
        &mut self,
        message: &ToWorker,
        payload: &[u8],
    ) -> Result<(), WireError> {
        match &mut self.sender {
            Some(sender) => sender.send(message, payload).await,
            None => Err(WireError::Closed),
        }
    }

    /// The way to the worker, once. Dropping it ends the worker.
    pub(crate) fn take_sender(&mut self) -> Option<WorkerSender> {
        self.sender.take()
    }

    /// What it was sent.
    pub(crate) fn sent(&self) -> &SentCounts {
        &self.sent
    }

    /// What it may use.
    pub(crate) fn limits(&self) -> &WorkerLimits {
        self.monitor.limits()
    }

    /// The first 12 hexadecimal digits of the component's SHA-256.
    pub(crate) fn deployment(&self) -> &str {
        self.monitor.deployment()
    }

    /// Its sandbox, once it has reported it.
    pub(crate) fn confinement(&self) -> Option<&Confinement> {
        self.handshake.confinement()
    }

    /// Its pipeline, once it has described it.
    pub(crate) fn description(&self) -> Option<&Description> {
        self.handshake.description()
    }

    /// Bytes of the component's linear memories together, as of the last heartbeat.
    pub(crate) fn guest_memory(&self) -> u64 {
        self.guest_memory
    }

    /// What its component had used when it was done with its source, or failed.
    pub(crate) fn used(&self) -> Option<GuestUsage> {
        self.used
    }

    /// The process's id while it lives.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Whether the process is in a control group of its own.
    pub(crate) fn is_in_group(&self) -> bool {
        self.process.is_in_group()
    }

    /// Sends SIGKILL; [`end`](Self::end) waits for the exit.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Closes the connection, which ends the worker after the frame in hand, and kills it after
    /// `grace`. A sender that was taken has to be dropped before.
    pub(crate) async fn end(self, grace: Duration) -> WorkerExit {
        drop(self.sender);
        self.process.end(grace).await
    }
}
