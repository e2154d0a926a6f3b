//! What a frame brought, as a line of JSON.

use ocelli_protocol::digest::Digest;
use ocelli_protocol::worker::FrameResult;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::event::{self, AttachmentRef, Detection, DetectionSource, InvalidResult};

/// The outcome of a frame. Numbers are rounded as in the messages of a host.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FrameLine {
    pub(crate) frame: u64,
    /// Presentation time of the picture in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) presentation_ns: Option<i64>,
    /// Width of the frame in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) width: Option<u32>,
    /// Height of the frame in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) height: Option<u32>,
    /// `None`: the pipeline did not look at the frame.
    pub(crate) detections: Option<Vec<Detection>>,
    /// What the detections rest on, where the pipeline says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<DetectionSource>,
    /// Milliseconds since the frame on which a model ran last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model_age_ms: Option<u64>,
    pub(crate) events: Vec<EventLine>,
    /// Why the frame failed, in the pipeline's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Milliseconds in the component and in the host functions that it called, without inference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) guest_ms: Option<f64>,
    /// Milliseconds that it waited for inferences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inference_ms: Option<f64>,
}

/// An event of a frame.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EventLine {
    pub(crate) kind: String,
    detections: Vec<Detection>,
    data: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<AttachmentRef>,
}

impl EventLine {
    /// What else it says, besides its kind and its detections.
    pub(crate) fn data(&self) -> &Map<String, Value> {
        &self.data
    }

    /// One with this data, a JSON object.
    #[cfg(test)]
    pub(crate) fn example(kind: &str, data: &str) -> Self {
        let data = serde_json::from_str(data).unwrap();
        Self { kind: kind.into(), detections: Vec::new(), data, attachments: Vec::new() }
    }
}

impl FrameLine {
    /// A frame in which nothing was found.
    #[cfg(test)]
    pub(crate) fn example(frame: u64) -> Self {
        Self {
            presentation_ns: Some(0),
            width: Some(64),
            height: Some(48),
            detections: Some(Vec::new()),
            error: None,
            ..Self::failed(frame, String::new())
        }
    }

    /// A frame's result, checked as before it goes to subscribers.
    pub(super) fn of(result: &FrameResult, deployment: &str) -> Result<Self, InvalidResult> {
        let found = event::detections(result, deployment)?;
        let events = result.events.iter().map(|one| {
            let told = event::event(one, result, deployment)?;
            let pictures = one.attachments.iter().map(|bytes| AttachmentRef {
                digest: Digest::of(bytes).to_string(),
                media_type: "image/jpeg",
                bytes: bytes.len(),
            });
            Ok(EventLine {
                kind: told.kind,
                detections: told.detections,
                data: told.data,
                attachments: pictures.collect(),
            })
        });
        Ok(Self {
            frame: result.frame,
            presentation_ns: Some(result.presentation_ns),
            width: Some(result.width),
            height: Some(result.height),
            source: found.as_ref().and_then(|found| found.source),
            model_age_ms: found.as_ref().and_then(|found| found.model_age_ms),
            detections: found.map(|found| found.detections),
            events: events.collect::<Result<_, _>>()?,
            error: None,
            guest_ms: None,
            inference_ms: None,
        })
    }

    /// A frame whose `process` returned an error.
    pub(super) fn failed(frame: u64, error: String) -> Self {
        Self {
            frame,
            presentation_ns: None,
            width: None,
            height: None,
            detections: None,
            source: None,
            model_age_ms: None,
            events: Vec::new(),
            error: Some(error),
            guest_ms: None,
            inference_ms: None,
        }
    }

    /// The same with its times in nanoseconds.
    pub(super) fn timed(self, guest_ns: u64, inference_ns: Option<u64>) -> Self {
        Self {
            guest_ms: Some(milliseconds(guest_ns)),
            inference_ms: inference_ns.map(milliseconds),
            ..self
        }
    }

    /// The same without times, which no two runs share.
    pub(crate) fn untimed(self) -> Self {
        Self { guest_ms: None, inference_ms: None, ..self }
    }
}

/// With 3 decimals.
fn milliseconds(nanoseconds: u64) -> f64 {
    ((nanoseconds + 500) / 1000) as f64 / 1000.0
}
