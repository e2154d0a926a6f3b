//! What a worker says, held against what it may say. It has done so itself before; but a worker
//! that was taken over by its stream or its pipeline may say anything, and what it says goes to
//! every subscriber.

use ocelli_protocol::limit::{Limit, MAX_DETECTIONS, MAX_OUTPUT_BYTES};
use ocelli_protocol::worker::{Description, Detection, Event, FrameResult, WorkerLimits};

/// Bytes of a cause that are kept and told: a wasm backtrace and the last words before it.
const MAX_CAUSE: usize = 16 << 10;

/// Bytes of a pipeline's name, and of its version.
const MAX_NAME: usize = 200;

/// Checks the size of a result: the limit that it breaks, and how.
pub(crate) fn result(result: &FrameResult, limits: &WorkerLimits) -> Result<(), (Limit, String)> {
    let most = limits.events_per_frame as usize;
    check_limit(Limit::Events, "events of one frame", result.events.len(), most)?;
    let attachments = result.events.iter().map(|event| event.attachments.len()).sum();
    check_limit(
        Limit::Attachments,
        "attachments",
        attachments,
        limits.attachments_per_frame as usize,
    )?;
    let lists = result.detections.iter().chain(result.events.iter().map(|event| &event.detections));
    for list in lists {
        check_limit(Limit::Detections, "detections", list.len(), MAX_DETECTIONS)?;
    }
    for event in &result.events {
        check_limit(
            Limit::EventBytes,
            "bytes of one event",
            event.payload_bytes(),
            limits.event_bytes as usize,
        )?;
    }
    let attached: usize =
        result.events.iter().flat_map(|event| &event.attachments).map(|image| image.len()).sum();
    let events: usize = result.events.iter().map(Event::payload_bytes).sum();
    let detections: usize = result.detections.iter().flatten().map(Detection::payload_bytes).sum();
    check_limit(
        Limit::OutputBytes,
        "bytes of one frame's output",
        attached + events + detections,
        MAX_OUTPUT_BYTES,
    )
}

/// Checks what a pipeline says of itself.
pub(crate) fn description(description: &Description) -> Result<(), String> {
    let long = |text: &str| text.len() > MAX_NAME;
    if long(&description.name) || long(&description.version) {
        return Err(format!("a pipeline's name and version have at most {MAX_NAME} bytes"));
    }
    Ok(())
}

/// A cause, cut where it is too long to be kept.
pub(crate) fn truncate_cause(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_CAUSE));
    text
}

fn check_limit(limit: Limit, what: &str, found: usize, most: usize) -> Result<(), (Limit, String)> {
    if found <= most {
        return Ok(());
    }
    Err((limit, format!("limit {limit}: a result with {found} {what}: at most {most} are taken")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ocelli_protocol::worker::{Rect, Timestamps};

    pub(in crate::session) fn limits() -> WorkerLimits {
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
            width: 1,
            height: 1,
            detections,
            events,
            timestamps: stations,
        };
        result(&made, &limits()).err().map(|(limit, message)| {
            assert!(message.starts_with(&format!("limit {limit}: ")), "{message}");
            limit
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
        assert_eq!(truncate_cause("é".repeat(MAX_CAUSE)).len(), MAX_CAUSE);
        assert_eq!(truncate_cause("short".into()), "short");
    }
}
