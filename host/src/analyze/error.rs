//! Why a picture was not analysed.

use ocelli_protocol::limit::Limit;
use ocelli_protocol::worker::AnalysisFault;
use strum::VariantArray;

use crate::deploy::DeployError;

/// The kinds of faults.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr, VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum AnalysisErrorKind {
    /// `analyze.workers` is 0.
    #[strum(serialize = "analysis_disabled")]
    Disabled,
    /// No such pipeline.
    UnknownPipeline,
    /// The pipeline cannot be compiled or started.
    InvalidPipeline,
    /// A model that the pipeline needs is missing or another than it needs.
    ModelMissing,
    /// All workers are kept for other pipelines.
    NoWorkers,
    /// As many pictures wait as may.
    Busy,
    /// As many jobs are kept as may.
    JobsFull,
    /// No answer in time.
    Timeout,
    /// A file without a byte.
    EmptyImage,
    /// Neither a JPEG nor a PNG file.
    UnsupportedImage,
    /// Damaged, or not all of it.
    DamagedImage,
    /// More bytes or pixels than are allowed.
    ImageTooLarge,
    /// The pipeline refused its settings.
    InvalidSettings,
    /// The pipeline answered the picture with an error.
    PipelineFailed,
    /// The pipeline trapped, or ran into a limit.
    PipelineTrapped,
    /// The worker died over the picture.
    PipelineCrashed,
    /// The result is more than a result may be, or holds what JSON has no value for.
    InvalidResult,
    /// The results of a request are together more than is kept.
    AnswerTooLarge,
    /// The host stops.
    ShuttingDown,
}

impl AnalysisErrorKind {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// A stable name for programs: `code` in a problem, `outcome` in the metrics.
    pub fn code(self) -> &'static str {
        self.into()
    }
}

/// Why a picture was not analysed, or a job not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", kind.code())]
pub struct AnalysisError {
    /// For programs.
    pub kind: AnalysisErrorKind,
    /// For a person.
    pub message: String,
    /// The limit that the pipeline ran into, where it was one.
    pub limit: Option<Limit>,
    /// Seconds after which it may be worth trying again, where it may.
    pub retry_after_s: Option<u64>,
}

impl AnalysisError {
    /// A fault that trying again does not mend.
    pub fn new(kind: AnalysisErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), limit: None, retry_after_s: None }
    }

    /// A fault that is over some seconds later.
    pub fn temporary(
        kind: AnalysisErrorKind,
        message: impl Into<String>,
        retry_after_s: u64,
    ) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::new(kind, message) }
    }

    /// What a worker says.
    pub(super) fn from_worker(fault: AnalysisFault, message: String) -> Self {
        let kind = match fault {
            AnalysisFault::UnsupportedImage => AnalysisErrorKind::UnsupportedImage,
            AnalysisFault::DamagedImage => AnalysisErrorKind::DamagedImage,
            AnalysisFault::ImageTooLarge => AnalysisErrorKind::ImageTooLarge,
            AnalysisFault::InvalidSettings => AnalysisErrorKind::InvalidSettings,
            AnalysisFault::PipelineFailed => AnalysisErrorKind::PipelineFailed,
            AnalysisFault::PipelineTrapped(_) => AnalysisErrorKind::PipelineTrapped,
        };
        let limit = if let AnalysisFault::PipelineTrapped(limit) = fault { limit } else { None };
        Self { limit, ..Self::new(kind, message) }
    }

    /// No answer within this many milliseconds.
    pub(super) fn timeout(timeout_ms: u32) -> Self {
        Self::new(
            AnalysisErrorKind::Timeout,
            format!("no answer within {timeout_ms} ms (analyze.timeout_ms)"),
        )
    }

    /// The host stops.
    pub(super) fn shutting_down() -> Self {
        Self::new(AnalysisErrorKind::ShuttingDown, "the host is stopping")
    }
}

impl From<DeployError> for AnalysisError {
    fn from(error: DeployError) -> Self {
        let unknown = matches!(error, DeployError::Pipeline(_));
        let kind = if unknown {
            AnalysisErrorKind::UnknownPipeline
        } else {
            AnalysisErrorKind::InvalidPipeline
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_code_of_its_own() {
        let codes = [
            "analysis_disabled",
            "unknown_pipeline",
            "invalid_pipeline",
            "model_missing",
            "no_workers",
            "busy",
            "jobs_full",
            "timeout",
            "empty_image",
            "unsupported_image",
            "damaged_image",
            "image_too_large",
            "invalid_settings",
            "pipeline_failed",
            "pipeline_trapped",
            "pipeline_crashed",
            "invalid_result",
            "answer_too_large",
            "shutting_down",
        ];
        assert!(AnalysisErrorKind::ALL.iter().map(|kind| kind.code()).eq(codes));
    }
}
