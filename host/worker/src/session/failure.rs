//! A failure that ends the worker, with the step that failed.

use ocelli_protocol::decode_device::DeviceFault;
use ocelli_protocol::limit::Limit;
use ocelli_protocol::worker::{FromWorker, WorkerStage};

use crate::counters::SharedCounters;
use crate::guest::instance::CallError;
use crate::host_link::HostLink;
use crate::video::DecoderError;

/// Why the worker cannot go on.
#[derive(Debug)]
pub(super) struct WorkerFailure {
    pub(super) stage: WorkerStage,
    /// The limit that was run into, if any.
    limit: Option<Limit>,
    pub(super) message: String,
}

impl WorkerFailure {
    /// A failure at this step, without a limit behind it.
    pub(super) fn new(stage: WorkerStage, message: impl Into<String>) -> Self {
        Self { stage, limit: None, message: message.into() }
    }

    /// The failure that any error is at this step.
    pub(super) fn at<E: std::fmt::Debug>(stage: WorkerStage) -> impl Fn(E) -> Self {
        move |error| Self::new(stage, format!("{error:?}"))
    }

    /// The failure that a device is which does not decode.
    pub(super) fn of_device(fault: DeviceFault) -> Self {
        Self::new(WorkerStage::Device, fault.to_string())
    }

    /// The failure of a decoder that cannot go on.
    pub(super) fn of_decoder(error: DecoderError) -> Self {
        match error {
            DecoderError::Device(fault) => Self::of_device(fault),
            error => Self::new(WorkerStage::Decode, format!("{error:?}")),
        }
    }

    /// The failure that a component's error is at this step.
    pub(super) fn of_call(stage: WorkerStage) -> impl Fn(CallError) -> Self {
        move |error| match error {
            CallError::Refused(message) => Self::new(stage, message),
            CallError::Trap { limit, message } => Self { stage, limit, message },
        }
    }

    /// Sends the failure to the host.
    pub(super) fn report(&self, host: &HostLink, counters: &SharedCounters) {
        host.send(&FromWorker::Used(counters.usage()));
        host.fail(self.stage, self.limit, counters.snapshot(), &self.message);
    }
}
