//! Converts a component's types into the protocol's, within bounds.

use ocelli_protocol::limit::{Limit, MAX_DETECTIONS, MAX_OUTPUT_BYTES, truncate_line};
use ocelli_protocol::worker::{Attribute, Basis, Detection, Event, Rect, Source, WorkerLimits};
use wasmtime::component::ResourceTable;

use super::limits::LimitExceeded;
use super::newest::{frames, results};

/// Most bytes that a call returns in lists and texts, as Wasmtime counts them when it takes them
/// over. A frame's texts, embeddings and attachments together are held to the same figure once
/// more. With both, a result stays below [`ocelli_protocol::wire::MAX_MESSAGE`].
pub(super) const MAX_RESULT_BYTES: usize = MAX_OUTPUT_BYTES;

/// Most bytes of a snapshot: a message's payload.
pub(super) const MAX_SNAPSHOT: usize = ocelli_protocol::wire::MAX_PAYLOAD;

/// The output of a component for one frame.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// `None` if the component skipped the frame.
    pub detections: Option<Vec<Detection>>,
    /// The frame's events, in the component's order.
    pub events: Vec<Event>,
    /// What the detections rest on.
    pub basis: Option<Basis>,
}

/// Converts the output of `process`. An output over a limit, or with an attachment that does not
/// exist, is an error.
pub(super) fn output(
    table: &mut ResourceTable,
    output: results::Output,
    limits: &WorkerLimits,
) -> wasmtime::Result<Output> {
    let attachments = limits.attachments_per_frame as usize;
    let mut budget = OutputBudget { bytes: MAX_RESULT_BYTES, attachments, limits };
    let detections = output.detections.map(convert_detections);
    budget.take_detections(detections.as_deref().unwrap_or_default())?;
    let most = limits.events_per_frame as usize;
    check_count(Limit::Events, "events of one frame", output.events.len(), most)?;
    let events = output.events.into_iter().map(|event| convert_event(table, event, &mut budget));
    let basis = output.basis.filter(|_| detections.is_some()).map(convert_basis);
    Ok(Output { detections, events: events.collect::<wasmtime::Result<_>>()?, basis })
}

/// The rest of what one frame's output may have.
struct OutputBudget<'a> {
    bytes: usize,
    attachments: usize,
    limits: &'a WorkerLimits,
}

impl OutputBudget<'_> {
    fn take_bytes(&mut self, bytes: usize) -> Result<(), LimitExceeded> {
        let over = || format!("the output of one frame has more than {MAX_RESULT_BYTES} bytes");
        let rest = self.bytes.checked_sub(bytes);
        self.bytes = rest.ok_or_else(|| LimitExceeded::new(Limit::OutputBytes, over()))?;
        Ok(())
    }

    fn take_attachments(&mut self, count: usize) -> Result<(), LimitExceeded> {
        let most = self.limits.attachments_per_frame;
        let over = || format!("the events of one frame have more than {most} attachments");
        let rest = self.attachments.checked_sub(count);
        self.attachments = rest.ok_or_else(|| LimitExceeded::new(Limit::Attachments, over()))?;
        Ok(())
    }

    fn take_detections(&mut self, detections: &[Detection]) -> wasmtime::Result<()> {
        check_count(Limit::Detections, "detections", detections.len(), MAX_DETECTIONS)?;
        for detection in detections {
            self.take_bytes(detection.payload_bytes())?;
            let Rect { x, y, width, height } = detection.area;
            let numbers = [detection.score, x, y, width, height];
            if !numbers
                .iter()
                .chain(detection.embedding.iter().flatten())
                .all(|number| number.is_finite())
            {
                wasmtime::bail!(
                    "a detection {:?} with a number that is not finite",
                    truncate_line(&detection.label)
                );
            }
        }
        Ok(())
    }
}

fn convert_event(
    table: &mut ResourceTable,
    event: results::Event,
    budget: &mut OutputBudget<'_>,
) -> wasmtime::Result<Event> {
    let results::Event { kind, detections, data, attachments } = event;
    let detections = convert_detections(detections);
    let mut event = Event { kind, detections, data, attachments: Vec::new() };
    let (bytes, most) = (event.payload_bytes(), budget.limits.event_bytes);
    if bytes > most as usize {
        let message =
            format!("an event of {bytes} bytes without its attachments: at most {most} are taken");
        return Err(LimitExceeded::new(Limit::EventBytes, message).into());
    }
    budget.take_bytes(event.kind.len() + event.data.len())?;
    budget.take_attachments(attachments.len())?;
    for image in attachments {
        let image = table.delete(image)?;
        budget.take_bytes(image.jpeg.len())?;
        event.attachments.push(image.jpeg);
    }
    budget.take_detections(&event.detections)?;
    Ok(event)
}

fn convert_detections(detections: Vec<results::Detection>) -> Vec<Detection> {
    let attribute =
        |a: results::Attribute| Attribute { name: a.name, value: a.value, score: a.score };
    let convert = |detection: results::Detection| Detection {
        label: detection.label,
        score: detection.score,
        area: rect(detection.box_),
        track: detection.track,
        attributes: detection.attributes.into_iter().map(attribute).collect(),
        embedding: detection.embedding,
    };
    detections.into_iter().map(convert).collect()
}

fn convert_basis(results::Basis { source, model_age }: results::Basis) -> Basis {
    let source = match source {
        results::Source::Model => Source::Model,
        results::Source::Flow => Source::Flow,
        results::Source::Predicted => Source::Predicted,
    };
    Basis { source, model_age_ns: model_age }
}

fn check_count(limit: Limit, what: &str, count: usize, most: usize) -> Result<(), LimitExceeded> {
    if count > most {
        return Err(LimitExceeded::new(limit, format!("{count} {what}: at most {most} are taken")));
    }
    Ok(())
}

pub(super) fn rect(area: frames::Rect) -> Rect {
    Rect { x: area.x, y: area.y, width: area.width, height: area.height }
}
