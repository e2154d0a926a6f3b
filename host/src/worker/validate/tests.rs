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
    let stations = Timestamps { received: 0, decoded: 0, submitted: 0, inferred: 0, emitted: 0 };
    let made = FrameResult {
        frame: 1,
        presentation_ns: 0,
        capture_ns: 0,
        capture_clock: CaptureClock::Host,
        width: 1,
        height: 1,
        detections,
        events,
        basis: None,
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
fn a_cause_is_cut_at_a_character_and_cleaned() {
    let truncated = |text: String| {
        let mut message = FromWorker::Restored(Err(text));
        truncate_texts(&mut message);
        let FromWorker::Restored(Err(text)) = message else { unreachable!() };
        text
    };
    assert_eq!(truncated("é".repeat(1 << 20)).chars().count(), line::MAX_TEXT);
    assert_eq!(truncated("short\u{1b}[2J\n at 1".into()), "short [2J\n at 1");
}
