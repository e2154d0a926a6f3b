//! Error answers as RFC 9457 problem details.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ocelli_protocol::component;
use ocelli_protocol::limit::Limit;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::control::Refusal;
use crate::analyze::{AnalysisError, AnalysisErrorKind};
use crate::deploy::Record;
use crate::event::CODE;
use crate::session::rollout::Step;

/// An error answer (RFC 9457). Without `type`, which stands for `about:blank`; `code` distinguishes
/// problems.
#[derive(Debug, JsonSchema)]
#[schemars(with = "Body<'static>")]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// A stable code for programs.
    pub(super) code: &'static str,
    /// The reason, for a person.
    pub(super) detail: String,
    /// The limit that the pipeline exceeded.
    pub(super) limit: Option<&'static str>,
    /// Further members of some problems.
    pub(super) more: Box<More>,
    /// Seconds after which the client may try again.
    pub(super) retry_after: Option<u64>,
}

/// A problem as JSON.
#[derive(Debug, Serialize, JsonSchema)]
struct Body<'a> {
    title: &'a str,
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    /// A stable code for programs.
    #[schemars(regex(pattern = CODE))]
    code: &'a str,
    /// The reason, for a person.
    detail: &'a str,
    /// The limit that the pipeline exceeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Limit")]
    limit: Option<&'a str>,
    #[serde(flatten)]
    more: &'a More,
}

/// Members that some problems have.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct More {
    /// With `after_ahead`: the number in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<u64>,
    /// The deployment that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deployment: Option<Record>,
    /// With `after_ahead`: the number of the last event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) newest: Option<u64>,
    /// With `after_ahead`: the first number in the journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) oldest: Option<u64>,
    /// The problems of a component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problems: Option<Vec<component::Problem>>,
    /// The step at which a deployment failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<Step>,
}

impl Problem {
    /// A request that is not valid.
    pub(super) fn bad(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            limit: None,
            more: Box::default(),
            retry_after: None,
        }
    }
}

/// As an answer, or a part of one.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = Body {
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            limit: self.limit,
            more: &self.more,
        };
        body.serialize(serializer)
    }
}

impl From<AnalysisError> for Problem {
    fn from(fault: AnalysisError) -> Self {
        let status = match fault.kind {
            AnalysisErrorKind::EmptyImage => StatusCode::BAD_REQUEST,
            AnalysisErrorKind::Disabled => StatusCode::FORBIDDEN,
            AnalysisErrorKind::UnknownPipeline => StatusCode::NOT_FOUND,
            AnalysisErrorKind::ImageTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            AnalysisErrorKind::UnsupportedImage => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            AnalysisErrorKind::DamagedImage | AnalysisErrorKind::InvalidSettings => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            // The host or the pipeline failed, not the request.
            AnalysisErrorKind::InvalidPipeline
            | AnalysisErrorKind::PipelineFailed
            | AnalysisErrorKind::PipelineTrapped
            | AnalysisErrorKind::PipelineCrashed
            | AnalysisErrorKind::InvalidResult
            | AnalysisErrorKind::AnswerTooLarge => StatusCode::INTERNAL_SERVER_ERROR,
            AnalysisErrorKind::ModelMissing
            | AnalysisErrorKind::NoWorkers
            | AnalysisErrorKind::Busy
            | AnalysisErrorKind::JobsFull
            | AnalysisErrorKind::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            AnalysisErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        };
        Self {
            limit: fault.limit.map(Limit::name),
            retry_after: fault.retry_after_s,
            ..Self::new(status, fault.kind.code(), fault.message)
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            "unknown_session" => StatusCode::NOT_FOUND,
            "timeout" => StatusCode::GATEWAY_TIMEOUT,
            // The state of the session does not allow it.
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, refusal.code, refusal.message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
