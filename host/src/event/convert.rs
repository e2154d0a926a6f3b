//! From what a worker reports to what subscribers get. Numbers are rounded here, so that a message
//! is compact and two runs over one file give the same bytes.

use std::collections::HashSet;

use ocelli_protocol::digest::Digest;
use ocelli_protocol::worker as protocol;
use serde_json::{Map, Value};

use super::time::rfc3339;
use super::wire::{
    AttachmentRef, Attribute, Attributes, Detection, Detections, Event, HOST_KINDS, Latency,
};
use crate::journal::events::{Attachment, EventDraft};

/// Why a worker's result cannot be published: JSON has no such value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidResult {
    /// Infinite, or not a number.
    #[error("a detection of frame {frame} labelled {label:?} has a {what} that is not finite")]
    NotFinite {
        frame: u64,
        label: String,
        /// Which of its numbers.
        what: &'static str,
    },
    /// An event like one of the host's own would deceive whoever acts on those.
    #[error("an event of frame {frame} has the kind {kind:?}, which the host's own events have")]
    HostsKind { frame: u64, kind: String },
    #[error("the data of event {kind:?} of frame {frame} is not a JSON object: {reason}")]
    Data { frame: u64, kind: String, reason: String },
}

/// The detections of a frame; none where the pipeline did not look at it. `deployment` says which
/// one it was.
pub fn detections(
    result: &protocol::FrameResult,
    deployment: &str,
) -> Result<Option<Detections>, InvalidResult> {
    let Some(found) = &result.detections else { return Ok(None) };
    Ok(Some(Detections {
        frame: result.frame,
        presentation_ns: result.presentation_ns,
        time: rfc3339(result.capture_ns),
        clock: result.capture_clock.into(),
        deployment: deployment.to_owned(),
        width: result.width,
        height: result.height,
        detections: all(found, result.frame)?,
        source: result.basis.map(|basis| basis.source.into()),
        model_age_ms: result.basis.map(|basis| basis.model_age_ns / 1_000_000),
        latency_ms: Latency::of(&result.timestamps),
    }))
}

/// One of a frame's events. `deployment` says which one it was.
pub fn event(
    event: &protocol::Event,
    result: &protocol::FrameResult,
    deployment: &str,
) -> Result<Event, InvalidResult> {
    if HOST_KINDS.contains(&event.kind.as_str()) {
        return Err(InvalidResult::HostsKind { frame: result.frame, kind: event.kind.clone() });
    }
    let data = match event.data.trim() {
        "" => Map::new(),
        text => serde_json::from_str::<Map<String, Value>>(text).map_err(|error| {
            InvalidResult::Data {
                frame: result.frame,
                kind: event.kind.clone(),
                reason: error.to_string(),
            }
        })?,
    };
    Ok(Event {
        time_ns: result.capture_ns,
        clock: result.capture_clock.into(),
        kind: event.kind.clone(),
        deployment: deployment.to_owned(),
        frame: Some(result.frame),
        detections: all(&event.detections, result.frame)?,
        data,
        attachments: Vec::new(),
        clip: false,
    })
}

/// A journal's draft of an event, with these pictures and the clip of this number.
pub(super) fn draft(mut event: Event, pictures: Vec<Vec<u8>>, clip: Option<u64>) -> EventDraft {
    event.clip = clip.is_some();
    let attachments: Vec<Attachment> = pictures
        .into_iter()
        .map(|bytes| Attachment { digest: Digest::of(&bytes), bytes: bytes.into() })
        .collect();
    event.attachments = attachments
        .iter()
        .map(|Attachment { digest, bytes }| AttachmentRef {
            digest: digest.to_string(),
            media_type: "image/jpeg",
            bytes: bytes.len(),
        })
        .collect();
    // Strings, finite numbers and JSON itself: nothing to refuse.
    let body = serde_json::to_string(&event).unwrap_or_default().into_boxed_str();
    let time_ms = i64::try_from(event.time_ns / 1_000_000).unwrap_or(i64::MAX);
    EventDraft { kind: event.kind, time_ms, body, attachments, clip }
}

fn all(found: &[protocol::Detection], frame: u64) -> Result<Vec<Detection>, InvalidResult> {
    found.iter().map(|detection| one(detection, frame)).collect()
}

fn one(found: &protocol::Detection, frame: u64) -> Result<Detection, InvalidResult> {
    let not_finite = |what| InvalidResult::NotFinite { frame, label: found.label.clone(), what };
    let area = [found.area.x, found.area.y, found.area.width, found.area.height];
    if !area.iter().all(|side| side.is_finite()) {
        return Err(not_finite("box"));
    }
    if !found.score.is_finite()
        || !found.attributes.iter().all(|attribute| attribute.score.is_finite())
    {
        return Err(not_finite("score"));
    }
    if !found.embedding.iter().flatten().all(|element| element.is_finite()) {
        return Err(not_finite("embedding"));
    }
    let mut attributes = Vec::with_capacity(found.attributes.len());
    let mut names = HashSet::with_capacity(found.attributes.len());
    for attribute in &found.attributes {
        // A JSON object has each name once: the first one said counts.
        if names.insert(attribute.name.as_str()) {
            let value =
                Attribute { value: attribute.value.clone(), score: rounded(attribute.score, 4) };
            attributes.push((attribute.name.clone(), value));
        }
    }
    Ok(Detection {
        label: found.label.clone(),
        score: rounded(found.score, 4),
        area: area.map(|side| rounded(side, 2)),
        track: found.track,
        attributes: Attributes(attributes),
        embedding: found.embedding.clone(),
    })
}

fn rounded(number: f32, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    // Adding zero turns -0 into 0.
    (f64::from(number) * scale).round() / scale + 0.0
}

impl Latency {
    /// What the stations' times amount to. A station that lies before the one before it, as one
    /// that was never reached does, counts 0.
    pub fn of(stations: &protocol::Timestamps) -> Self {
        let between = |from: u64, to: u64| {
            // Hundredths of a millisecond, rounded to the nearest.
            let hundredths = (to.saturating_sub(from) + 5_000) / 10_000;
            hundredths as f64 / 100.0
        };
        Self {
            decode: between(stations.received, stations.decoded),
            wait: between(stations.decoded, stations.submitted),
            inference: between(stations.submitted, stations.inferred),
            pipeline: between(stations.inferred, stations.emitted),
            total: between(stations.received, stations.emitted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_event_of_a_pipeline_has_a_kind_of_the_hosts() {
        let result = protocol::FrameResult {
            frame: 7,
            presentation_ns: 0,
            capture_ns: 0,
            capture_clock: protocol::CaptureClock::Host,
            width: 1,
            height: 1,
            detections: None,
            events: Vec::new(),
            basis: None,
            timestamps: protocol::Timestamps::default(),
        };
        let of_kind = |kind: &str| {
            let detections = Vec::new();
            let (data, attachments) = (String::new(), Vec::new());
            let made = protocol::Event { kind: kind.into(), detections, data, attachments };
            event(&made, &result, "d")
        };
        for kind in HOST_KINDS {
            let refused = of_kind(kind).unwrap_err();
            assert_eq!(refused, InvalidResult::HostsKind { frame: 7, kind: kind.into() });
            assert!(refused.to_string().contains(kind));
        }
        assert_eq!(of_kind("alerted").unwrap().kind, "alerted");
    }
}
