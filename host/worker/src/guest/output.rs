//! From a component's types to the protocol's, within bounds.

use ocelli_protocol::limit::{ATTRIBUTE_BYTES, Limit, MAX_DETECTIONS, MAX_OUTPUT_BYTES};
use ocelli_protocol::worker::{
    Attribute, Description, Detection, Event, ModelNeed, Rect, WorkerLimits,
};
use wasmtime::component::ResourceTable;

use super::limits::LimitExceeded;
use super::state::InstanceState;
use super::versions::newest::{exported, frames, results};
use crate::host_link::truncate;

impl results::Host for InstanceState {}

/// Most bytes that a call returns in lists and texts, as Wasmtime counts them when it takes them
/// over. A frame's texts, embeddings and attachments together are held to the same figure once
/// more. With both, a result stays below [`ocelli_protocol::wire::MAX_MESSAGE`].
pub const MAX_RESULT_BYTES: usize = MAX_OUTPUT_BYTES;

/// Most bytes of a snapshot: what a message's payload holds.
pub const MAX_SNAPSHOT: usize = ocelli_protocol::wire::MAX_PAYLOAD;

/// What a component returned for one frame.
#[derive(Debug, Default)]
pub struct Output {
    /// None where it did not look at the frame.
    pub detections: Option<Vec<Detection>>,
    /// What happened.
    pub events: Vec<Event>,
}

/// Takes over what `process` returned. An output out of bounds, or with an attachment that does not
/// exist, is an error.
pub fn output(
    table: &mut ResourceTable,
    output: results::Output,
    limits: &WorkerLimits,
) -> wasmtime::Result<Output> {
    let mut room = OutputBudget {
        bytes: MAX_RESULT_BYTES,
        attachments: limits.attachments_per_frame as usize,
        limits,
    };
    let detections = output.detections.map(|found| detections(found, &mut room)).transpose()?;
    let most = limits.events_per_frame as usize;
    check_count(Limit::Events, "events of one frame", output.events.len(), most)?;
    let events = output.events.into_iter().map(|event| take_event(table, event, &mut room));
    Ok(Output { detections, events: events.collect::<wasmtime::Result<_>>()? })
}

/// What a frame's output may still take.
struct OutputBudget<'a> {
    bytes: usize,
    attachments: usize,
    limits: &'a WorkerLimits,
}

impl OutputBudget<'_> {
    fn spend(&mut self, bytes: usize) -> Result<(), LimitExceeded> {
        let over = || format!("the output of one frame has more than {MAX_RESULT_BYTES} bytes");
        let rest = self.bytes.checked_sub(bytes);
        self.bytes = rest.ok_or_else(|| LimitExceeded::new(Limit::OutputBytes, over()))?;
        Ok(())
    }

    fn attach(&mut self, count: usize) -> Result<(), LimitExceeded> {
        let most = self.limits.attachments_per_frame;
        let over = || format!("the events of one frame have more than {most} attachments");
        let rest = self.attachments.checked_sub(count);
        self.attachments = rest.ok_or_else(|| LimitExceeded::new(Limit::Attachments, over()))?;
        Ok(())
    }
}

fn take_event(
    table: &mut ResourceTable,
    event: results::Event,
    room: &mut OutputBudget<'_>,
) -> wasmtime::Result<Event> {
    let texts = event.kind.len() + event.data.len();
    let bytes = texts + event.detections.iter().map(bytes).sum::<usize>();
    let most = room.limits.event_bytes;
    if bytes > most as usize {
        let message =
            format!("an event of {bytes} bytes without its attachments: at most {most} are taken");
        return Err(LimitExceeded::new(Limit::EventBytes, message).into());
    }
    room.spend(texts)?;
    room.attach(event.attachments.len())?;
    let attachments = event.attachments.into_iter().map(|image| {
        let image = table.delete(image)?;
        room.spend(image.jpeg.len())?;
        Ok(image.jpeg)
    });
    let attachments = attachments.collect::<wasmtime::Result<_>>()?;
    Ok(Event {
        kind: event.kind,
        detections: detections(event.detections, room)?,
        data: event.data,
        attachments,
    })
}

fn detections(
    found: Vec<results::Detection>,
    room: &mut OutputBudget<'_>,
) -> wasmtime::Result<Vec<Detection>> {
    check_count(Limit::Detections, "detections", found.len(), MAX_DETECTIONS)?;
    found.into_iter().map(|detection| take_detection(detection, room)).collect()
}

/// Bytes of a detection's texts, attributes and embedding.
fn bytes(detection: &results::Detection) -> usize {
    let attributes = detection
        .attributes
        .iter()
        .map(|a| a.name.len() + a.value.len() + ATTRIBUTE_BYTES)
        .sum::<usize>();
    detection.label.len() + attributes + detection.embedding.as_ref().map_or(0, |e| e.len() * 4)
}

fn take_detection(
    detection: results::Detection,
    room: &mut OutputBudget<'_>,
) -> wasmtime::Result<Detection> {
    room.spend(bytes(&detection))?;
    let area = detection.box_;
    let numbers = [detection.score, area.x, area.y, area.width, area.height];
    if !numbers.iter().chain(detection.embedding.iter().flatten()).all(|number| number.is_finite())
    {
        wasmtime::bail!(
            "a detection {:?} with a number that is not finite",
            truncate(&detection.label)
        );
    }
    let attribute =
        |a: results::Attribute| Attribute { name: a.name, value: a.value, score: a.score };
    Ok(Detection {
        label: detection.label,
        score: detection.score,
        area: rect(area),
        track: detection.track,
        attributes: detection.attributes.into_iter().map(attribute).collect(),
        embedding: detection.embedding,
    })
}

fn check_count(limit: Limit, what: &str, count: usize, most: usize) -> Result<(), LimitExceeded> {
    if count > most {
        return Err(LimitExceeded::new(limit, format!("{count} {what}: at most {most} are taken")));
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
