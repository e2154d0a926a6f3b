//! Error answers as RFC 9457 problem details.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ocelli_protocol::limit::Limit;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Refusal;
use crate::analyze::{Fault, Kind};

/// An error answer. `type` is left out, which stands for `about:blank`: `code` tells problems apart.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// Stable, for programs.
    pub(super) code: &'static str,
    /// For a person.
    pub(super) detail: String,
    /// The limit that a pipeline ran into, where it was one.
    pub(super) limit: Option<&'static str>,
    /// Further members.
    pub(super) more: Map<String, Value>,
    /// Seconds after which it may be worth trying again, where it may.
    pub(super) retry_after: Option<u64>,
}

/// A problem as it is told.
#[derive(Debug, Serialize)]
pub(super) struct Body<'a> {
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a str>,
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), limit: None, more: Map::new(), retry_after: None }
    }

    /// As it is told: an answer, or a part of one.
    pub(super) fn body(&self) -> Body<'_> {
        Body {
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            limit: self.limit,
            more: &self.more,
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let status = match fault.kind {
            Kind::EmptyImage => StatusCode::BAD_REQUEST,
            Kind::Disabled => StatusCode::FORBIDDEN,
            Kind::UnknownPipeline => StatusCode::NOT_FOUND,
            Kind::ImageTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::UnsupportedImage => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::DamagedImage | Kind::InvalidSettings => StatusCode::UNPROCESSABLE_ENTITY,
            // The picture was as it should be; what it met was not.
            Kind::InvalidPipeline
            | Kind::PipelineFailed
            | Kind::PipelineTrapped
            | Kind::PipelineCrashed
            | Kind::InvalidResult
            | Kind::AnswerTooLarge => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::ModelMissing | Kind::NoWorkers | Kind::Busy | Kind::JobsFull | Kind::ShuttingDown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
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
        let mut response = (self.status, Json(self.body())).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
