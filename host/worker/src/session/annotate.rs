//! Draws what a pipeline made of a frame into its picture: `ocelli pipeline run --annotate`.

use std::collections::VecDeque;

use ocelli_protocol::worker::{Detection, Event, FrameResult};
use serde_json::{Map, Value};

use crate::video::{Canvas, Frame, FrameError, Jpeg, ShownBox};

/// How long an event stays in the pictures, in nanoseconds: long enough to be read.
const SHOWN_NS: u64 = 2_000_000_000;

/// Events in a picture. Of more the newest are shown.
const MAX_EVENTS: usize = 6;

/// Shapes of the settings that are drawn: more hide the picture.
const MAX_SHAPES: usize = 64;

/// How deep in the settings shapes are looked for: the SDK has them in a list of the first level.
const MAX_DEPTH: usize = 4;

/// Most corners of a shape: one with more is not drawn.
const MAX_CORNERS: usize = 256;

/// Letters of an event's data: what fits beside its kind in a line.
const MAX_DATA: usize = 60;

const ZONE: [u8; 3] = [255, 255, 255];
const EVENT: [u8; 3] = [255, 232, 64];
const FAULT: [u8; 3] = [255, 96, 96];
const FRAME: [u8; 3] = [200, 200, 200];

/// See the module's documentation.
pub(super) struct Annotator {
    shapes: Vec<Shape>,
    /// What was found in the last frame that the pipeline looked at.
    found: Vec<Detection>,
    /// Until when each event is shown, and its text.
    events: VecDeque<(u64, String)>,
}

/// A zone or a line.
struct Shape {
    name: String,
    corners: Vec<(f32, f32)>,
    is_closed: bool,
}

impl Annotator {
    /// For a pipeline with these settings. What in them has the form of the SDK's zones and lines
    /// is drawn: an object with a `polygon`, a list of places `[x, y]`, with two of them as `ends`,
    /// or with the places `from` and `to`.
    pub(super) fn new(settings: &Map<String, Value>) -> Self {
        let mut shapes = Vec::new();
        collect_shapes(settings, MAX_DEPTH, &mut shapes);
        Self { shapes, found: Vec::new(), events: VecDeque::new() }
    }

    /// The frame as a picture, with the shapes, what was found, and what happened. On a frame that
    /// the pipeline did not look at, the boxes of the last one that it did.
    pub(super) fn draw(
        &mut self,
        frame: &Frame,
        outcome: &Result<FrameResult, String>,
    ) -> Result<Jpeg, FrameError> {
        let mut canvas = Canvas::of(&frame.picture)?;
        if let Ok(result) = outcome {
            self.take(frame.presentation_ns, result);
        }
        self.events.retain(|(until, _)| *until > frame.presentation_ns);
        for shape in &self.shapes {
            shape.draw(&mut canvas);
        }
        let rows = i64::from(canvas.text_rows());
        for found in &self.found {
            let shown = ShownBox::of(found);
            canvas.outline(&shown);
            let (x, y) = (found.area.x as i64, found.area.y as i64 - rows);
            canvas.text((x, y), &label(found), shown.colour());
        }
        let bottom = i64::from(canvas.size().1) - rows;
        for ((_, text), row) in self.events.iter().rev().zip(1..) {
            canvas.text((0, bottom - row * rows), text, EVENT);
        }
        let seconds = frame.presentation_ns as f64 / 1e9;
        canvas.text((0, bottom), &format!("frame {}  {seconds:.3} s", frame.number), FRAME);
        if let Err(error) = outcome {
            canvas.text((0, 0), &format!("error: {error}"), FAULT);
        }
        canvas.jpeg()
    }

    /// Takes in what a frame brought.
    fn take(&mut self, now_ns: u64, result: &FrameResult) {
        if let Some(found) = &result.detections {
            self.found.clone_from(found);
        }
        for event in &result.events {
            self.events.push_back((now_ns.saturating_add(SHOWN_NS), event_text(event)));
        }
        let extra = self.events.len().saturating_sub(MAX_EVENTS);
        self.events.drain(..extra);
    }
}

impl Shape {
    fn draw(&self, canvas: &mut Canvas) {
        let (width, height) = canvas.size();
        // Places are in parts of the picture. Those that cannot be are in pixels.
        let in_parts = self.corners.iter().all(|&(x, y)| x <= 1.0 && y <= 1.0);
        let (wide, high) = if in_parts { (width as f32, height as f32) } else { (1.0, 1.0) };
        let corners: Vec<_> = self.corners.iter().map(|&(x, y)| (x * wide, y * high)).collect();
        for pair in corners.windows(2) {
            if let [from, to] = *pair {
                canvas.line(from, to, ZONE);
            }
        }
        if let (Some(&first), Some(&last), true) = (corners.first(), corners.last(), self.is_closed)
        {
            canvas.line(last, first, ZONE);
        }
        if let Some(&(x, y)) = corners.first() {
            canvas.text((x as i64, y as i64), &self.name, ZONE);
        }
    }
}

/// Looks for shapes in an object and in what it contains.
fn collect_shapes(settings: &Map<String, Value>, depth: usize, shapes: &mut Vec<Shape>) {
    let ends = || Some(vec![place(settings.get("from")?)?, place(settings.get("to")?)?]);
    let of = |key: &str| settings.get(key).and_then(places);
    let listed = of("ends").filter(|ends| ends.len() == 2);
    for (corners, is_closed) in [(of("polygon"), true), (listed, false), (ends(), false)] {
        if let (Some(corners), true) = (corners, shapes.len() < MAX_SHAPES) {
            let name = settings.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            shapes.push(Shape { name, corners, is_closed });
        }
    }
    let Some(deeper) = depth.checked_sub(1) else { return };
    for value in settings.values() {
        match value {
            Value::Object(object) => collect_shapes(object, deeper, shapes),
            Value::Array(list) => {
                let objects = list.iter().filter_map(Value::as_object);
                objects.for_each(|object| collect_shapes(object, deeper, shapes));
            }
            _ => {}
        }
    }
}

/// A list of two places and more, if the value is one.
fn places(value: &Value) -> Option<Vec<(f32, f32)>> {
    let list = value.as_array()?;
    if !(2..=MAX_CORNERS).contains(&list.len()) {
        return None;
    }
    list.iter().map(place).collect()
}

/// A place, if the value is one.
fn place(value: &Value) -> Option<(f32, f32)> {
    match value.as_array()?.as_slice() {
        [x, y] => Some((x.as_f64()? as f32, y.as_f64()? as f32)),
        _ => None,
    }
}

/// A detection in words.
fn label(found: &Detection) -> String {
    let mut text = format!("{} {:.2}", found.label, found.score);
    if let Some(track) = found.track {
        text += &format!(" #{track}");
    }
    for attribute in &found.attributes {
        text += &format!(" {}", attribute.value);
    }
    text
}

/// An event in words.
fn event_text(event: &Event) -> String {
    let mut text = event.kind.clone();
    for found in &event.detections {
        text += &format!(" {}", found.label);
        if let Some(track) = found.track {
            text += &format!(" #{track}");
        }
    }
    // What stands there already is not said twice.
    let said = |name: &str| !event.detections.is_empty() && matches!(name, "label" | "track");
    let data: Map<String, Value> = serde_json::from_str(&event.data).unwrap_or_default();
    let mut rest = String::new();
    for (name, value) in data.iter().filter(|(name, _)| !said(name)) {
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        rest += &format!(" {name}={shown}");
    }
    text.extend(rest.chars().take(MAX_DATA));
    text
}

#[cfg(test)]
mod tests {
    use ocelli_protocol::worker::{CaptureClock, Decode, Rect, Timestamps};

    use super::*;
    use crate::video::clips::units;
    use crate::video::{Stream, still};

    fn settings(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    fn result(frame: u64, detections: Option<Vec<Detection>>, events: Vec<Event>) -> FrameResult {
        FrameResult {
            frame,
            presentation_ns: 0,
            capture_ns: 0,
            capture_clock: CaptureClock::Host,
            width: 1,
            height: 1,
            detections,
            events,
            basis: None,
            timestamps: Timestamps::default(),
        }
    }

    fn person() -> Detection {
        Detection {
            label: "person".into(),
            score: 0.875,
            area: Rect { x: 10.0, y: 20.0, width: 100.0, height: 200.0 },
            track: Some(3),
            attributes: Vec::new(),
            embedding: None,
        }
    }

    fn entered() -> Event {
        let data = r#"{"zone":"gate","track":3}"#.into();
        Event { kind: "entered".into(), detections: vec![person()], data, attachments: Vec::new() }
    }

    #[test]
    fn zones_and_lines_are_found_wherever_the_settings_have_them() {
        let annotator = Annotator::new(&settings(
            r#"{"zones": [{"name": "gate", "polygon": [[0, 0], [1, 0], [1, 1]]},
                          {"name": "bad", "polygon": [[0, 0], [1]]}],
                "lines": [{"name": "way", "ends": [[0, 0.5], [1, 0.5]]}],
                "count": {"from": [0.5, 0], "to": [0.5, 1]}, "polygon": 3}"#,
        ));
        let found: Vec<_> = annotator
            .shapes
            .iter()
            .map(|shape| (shape.name.as_str(), shape.corners.len(), shape.is_closed))
            .collect();
        assert_eq!(found, [("", 2, false), ("way", 2, false), ("gate", 3, true)]);
        let many = r#"{"polygon": [[0, 0], [1, 0]]},"#.repeat(MAX_SHAPES + 5);
        let many = format!(r#"{{"zones": [{}]}}"#, many.trim_end_matches(','));
        assert_eq!(Annotator::new(&settings(&many)).shapes.len(), MAX_SHAPES);
    }

    #[test]
    fn words_say_what_was_found_and_what_happened() {
        assert_eq!(label(&person()), "person 0.88 #3");
        assert_eq!(event_text(&entered()), "entered person #3 zone=gate");
        let bare = Event { detections: Vec::new(), data: r#"{"track":3}"#.into(), ..entered() };
        assert_eq!(event_text(&bare), "entered track=3");
    }

    #[test]
    fn boxes_stay_until_the_next_look_and_events_for_two_seconds() {
        let mut stream = Stream::new(Decode::All);
        let mut frames = Vec::new();
        for (header, data) in units("people-576-high.mp4").iter().take(30) {
            stream.push(header, data, &mut |frame| frames.push(frame)).unwrap();
        }
        let mut annotator = Annotator::new(&Map::new());
        let looked = Ok(result(0, Some(vec![person()]), vec![entered(); 9]));
        let jpeg = annotator.draw(&frames[0], &looked).unwrap();
        let picture = still(&jpeg.bytes, u32::MAX).unwrap();
        assert_eq!((picture.width(), picture.height()), (768, 576));
        assert_eq!((annotator.found.len(), annotator.events.len()), (1, MAX_EVENTS));
        for frame in &frames[1..] {
            annotator.draw(frame, &Ok(result(frame.number, None, Vec::new()))).unwrap();
            let is_shown = frame.presentation_ns < SHOWN_NS;
            assert_eq!(annotator.events.is_empty(), !is_shown, "{}", frame.presentation_ns);
            assert_eq!(annotator.found.len(), 1);
        }
        assert!(frames.last().unwrap().presentation_ns > SHOWN_NS);
        annotator.draw(&frames[0], &Err("no".into())).unwrap();
        annotator.draw(&frames[0], &Ok(result(1, Some(Vec::new()), Vec::new()))).unwrap();
        assert!(annotator.found.is_empty());
    }
}
