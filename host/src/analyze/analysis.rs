//! The answer to a request.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::AnalysisError;
use super::factory::ImageResult;
use crate::event::{Detection, Event};

/// A pipeline's result for one image, as `POST /v1/analyze/{pipeline}` returns it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Analysis {
    /// Name of the pipeline.
    pub pipeline: String,
    /// The component that made the result: the first 12 hexadecimal digits of its SHA-256.
    pub deployment: String,
    /// Size of the image in pixels.
    #[schemars(range(min = 1))]
    pub width: u32,
    /// Size of the image in pixels.
    #[schemars(range(min = 1))]
    pub height: u32,
    /// Objects in the image, each with its area in pixels.
    pub detections: Vec<Detection>,
    /// Events that the pipeline emitted for the image.
    pub events: Vec<Event>,
    /// Milliseconds of each stage.
    pub latency_ms: AnalysisLatency,
}

/// Milliseconds of each stage of an image, with 2 decimals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "AnalysisLatency")]
pub struct AnalysisLatency {
    /// From the image's arrival until a worker was given it.
    #[schemars(range(min = 0))]
    pub queued: f64,
    /// From there until the image was decoded.
    #[schemars(range(min = 0))]
    pub decode: f64,
    /// From there until the last inference had answered, the pipeline's `init` included; 0 without
    /// inference.
    #[schemars(range(min = 0))]
    pub inference: f64,
    /// From there until the pipeline had returned.
    #[schemars(range(min = 0))]
    pub pipeline: f64,
    /// From the image's arrival to its result.
    #[schemars(range(min = 0))]
    pub total: f64,
}

impl Analysis {
    /// `queued` and `total`: see [`AnalysisLatency`].
    pub(super) fn new(
        pipeline: &str,
        found: ImageResult,
        queued: Duration,
        total: Duration,
    ) -> Self {
        let stages = crate::event::Latency::of(&found.timestamps);
        let latency_ms = AnalysisLatency {
            queued: milliseconds(queued),
            decode: stages.decode,
            inference: if stages.inference > 0.0 { stages.wait + stages.inference } else { 0.0 },
            pipeline: stages.pipeline,
            total: milliseconds(total),
        };
        Self {
            pipeline: pipeline.to_owned(),
            deployment: found.deployment,
            width: found.width,
            height: found.height,
            detections: found.detections,
            events: found.events,
            latency_ms,
        }
    }

    /// Its bytes as JSON.
    pub(super) fn bytes(&self) -> usize {
        serde_json::to_vec(self).map_or(0, |text| text.len())
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

/// The outcome of one image of a request with several, in the order of the request.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageOutcome {
    /// The file's name in the request, if it had one.
    pub filename: Option<String>,
    /// The result, or why there is none.
    pub outcome: Result<Analysis, AnalysisError>,
}
