//! What a request is answered.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::AnalysisError;
use super::factory::ImageResult;
use crate::event::{Detection, Event};

/// What a pipeline found in a picture, as `POST /v1/analyze/{pipeline}` tells it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Analysis {
    /// The pipeline's name.
    pub pipeline: String,
    /// The deployment that found it: the first 12 hexadecimal digits of a component's SHA-256.
    pub deployment: String,
    /// Size of the picture in pixels.
    #[schemars(range(min = 1))]
    pub width: u32,
    /// Size of the picture in pixels.
    #[schemars(range(min = 1))]
    pub height: u32,
    /// What was found.
    pub detections: Vec<Detection>,
    /// What happened.
    pub events: Vec<Event>,
    /// Milliseconds that each station took.
    pub latency_ms: AnalysisLatency,
}

/// Milliseconds on a picture's way, 2 decimals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "AnalysisLatency")]
pub struct AnalysisLatency {
    /// From its arrival until a worker was given it.
    #[schemars(range(min = 0))]
    pub queued: f64,
    /// From there to the decoded picture.
    #[schemars(range(min = 0))]
    pub decode: f64,
    /// From there, the pipeline's `init` included, to the last inference's answer; 0 where there
    /// was none.
    #[schemars(range(min = 0))]
    pub inference: f64,
    /// From there until the pipeline returned.
    #[schemars(range(min = 0))]
    pub pipeline: f64,
    /// From its arrival to its result.
    #[schemars(range(min = 0))]
    pub total: f64,
}

impl Analysis {
    /// `queued` and `total` are as [`AnalysisLatency`] has them.
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

    /// Bytes that it takes as JSON.
    pub(super) fn bytes(&self) -> usize {
        serde_json::to_vec(self).map_or(0, |text| text.len())
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

/// What became of one picture of a request with several, in the order of the request.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageOutcome {
    /// As the request named it.
    pub filename: Option<String>,
    /// What was found, or why nothing was.
    pub outcome: Result<Analysis, AnalysisError>,
}
