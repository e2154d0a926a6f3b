//! From a component's types to the protocol's, within bounds.

use ocelli_protocol::worker::{Attribute, Description, Detection, Event, ModelNeed, Rect};
use wasmtime::component::ResourceTable;

use super::bindings::exports::ocelli::pipeline::pipeline as exported;
use super::bindings::ocelli::pipeline::{frames, results};
use super::state::State;

impl results::Host for State {}

/// Most detections or events of one frame. Beyond that a pipeline is at fault, not a camera.
const MAX_PER_FRAME: usize = 1000;

/// Most bytes of a frame's texts, embeddings and attachments together.
const MAX_BYTES: usize = 2 << 20;

/// What a component returned for one frame.
#[derive(Debug, Default)]
pub struct Output {
    /// None where it did not look at the frame.
    pub detections: Option<Vec<Detection>>,
    /// What happened.
    pub events: Vec<Event>,
}

/// Takes over what `process` returned. An output out of bounds, or with an attachment that does not exist, is an error.
pub fn output(table: &mut ResourceTable, output: results::Output) -> wasmtime::Result<Output> {
    let mut left = MAX_BYTES;
    let detections = output.detections.map(|found| detections(found, &mut left)).transpose()?;
    check_count("events", output.events.len())?;
    let events = output.events.into_iter().map(|event| take_event(table, event, &mut left));
    Ok(Output { detections, events: events.collect::<wasmtime::Result<_>>()? })
}

fn take_event(table: &mut ResourceTable, event: results::Event, left: &mut usize) -> wasmtime::Result<Event> {
    spend(left, event.kind.len() + event.data.len())?;
    let attachments = event.attachments.into_iter().map(|image| {
        let image = table.delete(image)?;
        spend(left, image.jpeg.len())?;
        Ok(image.jpeg)
    });
    let attachments = attachments.collect::<wasmtime::Result<_>>()?;
    Ok(Event {
        kind: event.kind,
        detections: detections(event.detections, left)?,
        data: event.data,
        attachments,
    })
}

fn detections(found: Vec<results::Detection>, left: &mut usize) -> wasmtime::Result<Vec<Detection>> {
    check_count("detections", found.len())?;
    found.into_iter().map(|detection| take_detection(detection, left)).collect()
}

fn take_detection(detection: results::Detection, left: &mut usize) -> wasmtime::Result<Detection> {
    let attributes = detection.attributes.iter().map(|a| a.name.len() + a.value.len()).sum::<usize>();
    spend(
        left,
        detection.label.len() + attributes + detection.embedding.as_ref().map_or(0, |e| e.len() * 4),
    )?;
    let area = detection.box_;
    let numbers = [detection.score, area.x, area.y, area.width, area.height];
    if !numbers.iter().chain(detection.embedding.iter().flatten()).all(|number| number.is_finite()) {
        wasmtime::bail!("a detection {:?} with a number that is not finite", detection.label);
    }
    let attribute = |a: results::Attribute| Attribute { name: a.name, value: a.value, score: a.score };
    Ok(Detection {
        label: detection.label,
        score: detection.score,
        area: rect(area),
        track: detection.track,
        attributes: detection.attributes.into_iter().map(attribute).collect(),
        embedding: detection.embedding,
    })
}

fn check_count(what: &str, count: usize) -> wasmtime::Result<()> {
    if count > MAX_PER_FRAME {
        wasmtime::bail!("{count} {what} of one frame: at most {MAX_PER_FRAME} are taken");
    }
    Ok(())
}

fn spend(left: &mut usize, bytes: usize) -> wasmtime::Result<()> {
    match left.checked_sub(bytes) {
        Some(rest) => *left = rest,
        None => wasmtime::bail!("a frame's output of more than {MAX_BYTES} bytes"),
    }
    Ok(())
}

/// The protocol's rectangle of a component's.
pub fn rect(area: frames::Rect) -> Rect {
    Rect { x: area.x, y: area.y, width: area.width, height: area.height }
}

/// The protocol's description of a component's.
pub fn description(description: exported::Description) -> Description {
    let need = |need: exported::ModelNeed| ModelNeed { name: need.name, inputs: need.inputs };
    Description {
        name: description.name,
        version: description.version,
        models: description.models.into_iter().map(need).collect(),
        settings_schema: description.settings_schema,
    }
}
