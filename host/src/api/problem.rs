//! Error answers as RFC 9457 problem details.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ocelli_protocol::component;
use ocelli_protocol::limit::Limit;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::Refusal;
use crate::analyze::{AnalysisError, AnalysisErrorKind};
use crate::deploy::Record;
use crate::event::CODE;
use crate::session::rollout::Step;

/// An error answer as RFC 9457 has it. `type` is left out, which stands for `about:blank`: `code`
/// tells problems apart.
#[derive(Debug, JsonSchema)]
#[schemars(with = "Body<'static>")]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// Stable, for programs.
    pub(super) code: &'static str,
    /// For a person.
    pub(super) detail: String,
    /// The limit that a pipeline ran into, where it was one.
    pub(super) limit: Option<&'static str>,
    /// Further members.
    pub(super) more: Box<More>,
    /// Seconds after which it may be worth trying again, where it may.
    pub(super) retry_after: Option<u64>,
}

/// A problem as it is told.
#[derive(Debug, Serialize, JsonSchema)]
struct Body<'a> {
    title: &'a str,
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    /// Stable, for programs.
    #[schemars(regex(pattern = CODE))]
    code: &'a str,
    /// For a person.
    detail: &'a str,
    /// The limit that the pipeline ran into.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Limit")]
    limit: Option<&'a str>,
    #[serde(flatten)]
    more: &'a More,
}

/// What some problems tell besides.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct More {
    /// With `after_ahead`: what was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<u64>,
    /// The deployment that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deployment: Option<Record>,
    /// With `after_ahead`: the last event that there was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) newest: Option<u64>,
    /// With `after_ahead`: the first event that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) oldest: Option<u64>,
    /// What is wrong with a component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problems: Option<Vec<component::Problem>>,
    /// Where a deployment failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<Step>,
}

impl Problem {
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

/// As it is told: an answer, or a part of one.
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
            // The picture was as it should be; what it met was not.
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
            // The session is not in a state in which this could be done.
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
