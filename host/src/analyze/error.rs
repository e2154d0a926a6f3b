//! Why an image was not analysed.

use ocelli_protocol::limit::Limit;
use ocelli_protocol::worker::AnalysisFault;
use strum::VariantArray;

use crate::deploy::DeployError;

/// The kinds of errors.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr, VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum AnalysisErrorKind {
    /// `analyze.workers` is 0.
    #[strum(serialize = "analysis_disabled")]
    Disabled,
    /// There is no pipeline of this name.
    UnknownPipeline,
    /// The pipeline cannot be compiled or started.
    InvalidPipeline,
    /// A model that the pipeline needs is missing or another than it needs.
    ModelMissing,
    /// All workers are reserved for other pipelines.
    NoWorkers,
    /// The queue or the memory for images is full.
    Busy,
    /// The store of jobs is full.
    JobsFull,
    /// The worker did not answer within `analyze.timeout_ms`.
    Timeout,
    /// The file is empty.
    EmptyImage,
    /// The file is neither a JPEG nor a PNG image.
    UnsupportedImage,
    /// The file is damaged or incomplete.
    DamagedImage,
    /// More bytes than `analyze.max_image_mb` or more pixels than `analyze.max_megapixels`.
    ImageTooLarge,
    /// The pipeline refused its settings.
    InvalidSettings,
    /// The pipeline returned an error for the image.
    PipelineFailed,
    /// The pipeline trapped, or ran into a limit.
    PipelineTrapped,
    /// The worker ended while it analysed the image.
    PipelineCrashed,
    /// The result exceeds a limit or has a value that JSON cannot express.
    InvalidResult,
    /// The results of one request, or of all jobs, exceed their limit.
    AnswerTooLarge,
    /// The host is stopping.
    ShuttingDown,
}

impl AnalysisErrorKind {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// A stable name for programs: `code` in a problem, `outcome` in the metrics.
    pub fn code(self) -> &'static str {
        self.into()
    }
}

/// Why an image was not analysed, or a job not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", kind.code())]
pub struct AnalysisError {
    /// Its [`code`](AnalysisErrorKind::code) is stable, for programs.
    pub kind: AnalysisErrorKind,
    /// The cause in words, for people.
    pub message: String,
    /// The limit that the pipeline exceeded, if that is the cause.
    pub limit: Option<Limit>,
    /// Seconds until a retry may succeed; `None`: a retry fails as well.
    pub retry_after_s: Option<u64>,
}

impl AnalysisError {
    /// An error that a retry does not mend.
    pub fn new(kind: AnalysisErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), limit: None, retry_after_s: None }
    }

    /// An error that a retry after some seconds may mend.
    pub fn temporary(
        kind: AnalysisErrorKind,
        message: impl Into<String>,
        retry_after_s: u64,
    ) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::new(kind, message) }
    }

    /// The error that a worker reported for an image.
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

    /// No answer within `timeout_ms`.
    pub(super) fn timeout(timeout_ms: u32) -> Self {
        Self::new(
            AnalysisErrorKind::Timeout,
            format!("no answer within {timeout_ms} ms (analyze.timeout_ms)"),
        )
    }

    /// The host is stopping.
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
