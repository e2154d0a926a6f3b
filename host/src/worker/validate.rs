//! Bounds on what a worker sends. It keeps to them itself; but a worker that its stream or its
//! pipeline controls may send anything, and what it sends goes to every subscriber.

use ocelli_protocol::limit::{Limit, MAX_DETECTIONS, MAX_OUTPUT_BYTES};
use ocelli_protocol::worker::{
    Description, Detection, Event, FrameResult, FromWorker, WorkerLimits,
};

use super::fault::WorkerFault;
use crate::util::line;

/// Bytes of a pipeline's name, and of its version.
const MAX_NAME: usize = 200;

/// A result breaks a limit.
#[derive(Debug, thiserror::Error)]
#[error("limit {limit}: a result with {found} {unit}: at most {most} are taken")]
pub(crate) struct LimitExceeded {
    pub(crate) limit: Limit,
    unit: &'static str,
    found: usize,
    most: usize,
}

/// Checks the size of a result.
pub(super) fn result(result: &FrameResult, limits: &WorkerLimits) -> Result<(), LimitExceeded> {
    let most = limits.events_per_frame as usize;
    check_limit(Limit::Events, "events of one frame", result.events.len(), most)?;
    let attachments = result.events.iter().map(|event| event.attachments.len()).sum();
    let most = limits.attachments_per_frame as usize;
    check_limit(Limit::Attachments, "attachments", attachments, most)?;
    let lists = result.detections.iter().chain(result.events.iter().map(|event| &event.detections));
    for list in lists {
        check_limit(Limit::Detections, "detections", list.len(), MAX_DETECTIONS)?;
    }
    let most = limits.event_bytes as usize;
    for event in &result.events {
        check_limit(Limit::EventBytes, "bytes of one event", event.payload_bytes(), most)?;
    }
    let images = result.events.iter().flat_map(|event| &event.attachments);
    let attached: usize = images.map(|image| image.len()).sum();
    let events: usize = result.events.iter().map(Event::payload_bytes).sum();
    let detections: usize = result.detections.iter().flatten().map(Detection::payload_bytes).sum();
    check_limit(
        Limit::OutputBytes,
        "bytes of one frame's output",
        attached + events + detections,
        MAX_OUTPUT_BYTES,
    )
}

/// Checks a pipeline's description of itself.
pub(super) fn description(description: &Description) -> Result<(), WorkerFault> {
    let is_long = |text: &str| text.len() > MAX_NAME;
    if is_long(&description.name) || is_long(&description.version) {
        let reason = format!("a pipeline's name and version have at most {MAX_NAME} bytes");
        return Err(WorkerFault::ProtocolViolation(reason));
    }
    Ok(())
}

/// Bounds and cleans the error texts of a message: they go to the log, the status, and the journal.
pub(super) fn truncate_texts(message: &mut FromWorker) {
    match message {
        FromWorker::FrameFailed { message: text, .. }
        | FromWorker::Failed { message: text, .. }
        | FromWorker::DryRunResult { outcome: Some(Err(text)), .. }
        | FromWorker::Restored(Err(text))
        | FromWorker::Analyzed { outcome: Err((_, text)), .. } => *text = line::text(text),
        FromWorker::Heartbeat { damage: Some(text), .. }
        | FromWorker::Finished { damage: Some(text), .. } => *text = line::line(text),
        _ => {}
    }
}

fn check_limit(
    limit: Limit,
    unit: &'static str,
    found: usize,
    most: usize,
) -> Result<(), LimitExceeded> {
    if found <= most { Ok(()) } else { Err(LimitExceeded { limit, unit, found, most }) }
}

#[cfg(test)]
pub(crate) mod tests;
