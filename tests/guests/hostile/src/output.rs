//! More than anybody can read: events, texts, log lines, and values that are none.

use std::mem::ManuallyDrop;

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::{Detection, Event, Frame, Output, Rect, log};

/// A megabyte.
pub(crate) const LARGE: usize = 1_000_000;

/// 100 MB.
pub(crate) const HUGE: usize = 100_000_000;

/// Log lines for each frame.
const LINES: usize = 4000;

fn events(events: Vec<Event>) -> Output {
    Output::found(Vec::new()).with_events(events)
}

/// Ten thousand events of one frame.
pub(crate) fn many_events() -> Output {
    events((0..10_000).map(|number| Event::new(format!("event-{number}"))).collect())
}

/// Ten thousand detections of one frame.
pub(crate) fn many_detections() -> Output {
    let area = BBox::from_xywh(0.0, 0.0, 1.0, 1.0);
    let detections = (0..10_000).map(|_| Detection::new("x", 0.5, area)).collect();
    Output::found(detections)
}

/// An event with a hundred pictures of a corner of the frame.
pub(crate) fn many_attachments(frame: &Frame) -> Result<Output, String> {
    let corner = Rect { x: 0.0, y: 0.0, width: 16.0, height: 16.0 };
    let pictures = (0..100).map(|_| frame.image(Some(corner), 50));
    let attachments = pictures.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    Ok(events(vec![Event { attachments, ..Event::new("pictures") }]))
}

/// One event with so many bytes of data.
pub(crate) fn event_of(bytes: usize) -> Output {
    event_data(between("{\"text\":\"", bytes, "\"}"))
}

/// An event with this data.
pub(crate) fn event_data(data: impl Into<String>) -> Output {
    events(vec![Event { data: data.into(), ..Event::new("data") }])
}

/// So many bytes between two texts, held once.
fn between(before: &str, bytes: usize, after: &str) -> String {
    let mut text = String::with_capacity(bytes + before.len() + after.len());
    text.push_str(before);
    text.extend(std::iter::repeat_n("xxxxxxxxxxxxxxxx", bytes / 16));
    text.push_str(after);
    text
}

/// Opening brackets without end.
pub(crate) fn deep_json() -> String {
    format!("{{\"a\":{}", "[".repeat(100_000))
}

/// A thousand detections with one text of a megabyte, which the component holds once.
#[allow(unsafe_code)]
pub(crate) fn shared_text() -> Output {
    let text = ManuallyDrop::new("x".repeat(1 << 20));
    let share = || {
        // SAFETY: none: the strings share what each believes to own. Nothing here reads or drops
        // one of them; the host copies them, or refuses to and ends the component, before they
        // would be freed.
        unsafe { String::from_raw_parts(text.as_ptr().cast_mut(), text.len(), text.capacity()) }
    };
    let area = BBox::from_xywh(0.0, 0.0, 1.0, 1.0);
    let detections = (0..1000).map(|_| Detection::new(share(), 0.5, area)).collect();
    events(vec![Event { detections, ..Event::new("shared") }])
}

/// A detection whose score is not a number.
pub(crate) fn nan_score() -> Output {
    let detection = Detection::new("nobody", f32::NAN, BBox::from_xywh(0.0, 0.0, 1.0, 1.0));
    Output::found(vec![detection])
}

/// Thousands of lines for the log, half of them by way of standard error.
pub(crate) fn flood_the_log() {
    for line in 0..LINES / 2 {
        log::warn("flood", &format!("line {line} of a flood"));
        eprintln!("line {line} of a flood");
    }
}

/// One line for the log that is larger than the log may get.
pub(crate) fn log_a_huge_line() {
    log::warn("flood", &"x".repeat(HUGE / 2));
}

/// 100 MB of JSON.
pub(crate) fn huge_answer() -> String {
    between("\"", HUGE, "\"")
}
