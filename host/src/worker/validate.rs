//! Bounds on what a worker sends. It keeps to them itself; but a worker that its stream or its
//! pipeline controls may send anything, and what it sends goes to every subscriber.

use ocelli_protocol::limit::{Limit, MAX_DETECTIONS, MAX_OUTPUT_BYTES};
use ocelli_protocol::worker::{
    Description, Detection, Event, FrameResult, FromWorker, WorkerLimits,
};

use super::fault::WorkerFault;

/// Bytes of an error's text: a wasm backtrace and the last words before it.
const MAX_CAUSE: usize = 16 << 10;

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

/// Cuts the error texts of a message: they go to the log, the status, and the journal.
pub(super) fn truncate_texts(message: &mut FromWorker) {
    match message {
        FromWorker::FrameFailed { message: text, .. }
        | FromWorker::Failed { message: text, .. }
        | FromWorker::DryRunResult { outcome: Some(Err(text)), .. }
        | FromWorker::Restored(Err(text))
        | FromWorker::Analyzed { outcome: Err((_, text)), .. } => truncate_cause(text),
        _ => {}
    }
}

fn truncate_cause(text: &mut String) {
    text.truncate(text.floor_char_boundary(MAX_CAUSE));
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
pub(crate) mod tests {
    use super::*;
    use ocelli_protocol::worker::{CaptureClock, Rect, Timestamps};

    pub(crate) fn limits() -> WorkerLimits {
        WorkerLimits {
            memory: 0,
            open_files: 0,
            guest_memory: 0,
            call_cpu_ms: 0,
            call_timeout_ms: 0,
            host_call_ms: 0,
            inference_timeout_ms: 0,
            events_per_frame: 2,
            event_bytes: 100,
            attachments_per_frame: 1,
            log_lines_per_second: 0,
            image_pixels: 0,
            store_bytes: 1 << 20,
            store_keys: 1000,
        }
    }

    fn event(bytes: usize, attachments: &[usize]) -> Event {
        Event {
            kind: "k".repeat(bytes),
            detections: Vec::new(),
            data: String::new(),
            attachments: attachments.iter().map(|length| vec![0; *length]).collect(),
        }
    }

    fn detection(label: usize) -> Detection {
        Detection {
            label: "l".repeat(label),
            score: 0.5,
            area: Rect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 },
            track: None,
            attributes: Vec::new(),
            embedding: None,
        }
    }

    fn broken(detections: Option<Vec<Detection>>, events: Vec<Event>) -> Option<Limit> {
        let stations =
            Timestamps { received: 0, decoded: 0, submitted: 0, inferred: 0, emitted: 0 };
        let made = FrameResult {
            frame: 1,
            capture_ns: 0,
            capture_clock: CaptureClock::Host,
            width: 1,
            height: 1,
            detections,
            events,
            timestamps: stations,
        };
        result(&made, &limits()).err().map(|exceeded| {
            assert!(
                exceeded.to_string().starts_with(&format!("limit {}: ", exceeded.limit)),
                "{exceeded}"
            );
            exceeded.limit
        })
    }

    #[test]
    fn what_is_just_within_its_limits_is_taken() {
        let detections = vec![detection(10); MAX_DETECTIONS];
        assert_eq!(broken(Some(detections), vec![event(100, &[1000]), event(100, &[])]), None);
    }

    #[test]
    fn each_limit_that_is_broken_is_named() {
        assert_eq!(broken(None, vec![event(1, &[]); 3]), Some(Limit::Events));
        assert_eq!(broken(None, vec![event(101, &[])]), Some(Limit::EventBytes));
        assert_eq!(broken(None, vec![event(1, &[1]); 2]), Some(Limit::Attachments));
        assert_eq!(
            broken(Some(vec![detection(1); MAX_DETECTIONS + 1]), vec![]),
            Some(Limit::Detections)
        );
        assert_eq!(
            broken(Some(vec![detection(MAX_OUTPUT_BYTES + 1)]), vec![]),
            Some(Limit::OutputBytes)
        );
        let attribute = ocelli_protocol::worker::Attribute {
            name: String::new(),
            value: String::new(),
            score: 0.5,
        };
        let nameless =
            Detection { attributes: vec![attribute; MAX_OUTPUT_BYTES / 64 + 1], ..detection(1) };
        assert_eq!(broken(Some(vec![nameless]), vec![]), Some(Limit::OutputBytes));
        let large = vec![event(1, &[MAX_OUTPUT_BYTES])];
        assert_eq!(broken(None, large), Some(Limit::OutputBytes));
    }

    #[test]
    fn a_cause_is_cut_at_a_character() {
        let truncated = |mut text: String| {
            truncate_cause(&mut text);
            text
        };
        assert_eq!(truncated("é".repeat(MAX_CAUSE)).len(), MAX_CAUSE);
        assert_eq!(truncated("short".into()), "short");
    }
}
