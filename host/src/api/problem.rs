//! Error answers as RFC 9457 problem details, and the status of each of the host's errors.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ocelli_protocol::component;
use ocelli_protocol::limit::Limit;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::control::Refusal;
use super::request_id::RequestId;
use super::resume::ResumeError;
use crate::analyze::{AnalysisError, AnalysisErrorKind};
use crate::config::ShownProblem;
use crate::deploy::{CompileError, DeployError, Outcome, PipelineError, Record};
use crate::event::CODE;
use crate::session::SessionError;
use crate::session::rollout::Step;
use crate::util::shown::without_folders;

/// An error answer (RFC 9457). Without `type`, which stands for `about:blank`; `code` distinguishes
/// problems.
#[derive(Debug, JsonSchema)]
#[schemars(with = "Body<'static>")]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    limit: Option<&'static str>,
    more: Box<More>,
    /// Seconds after which the client may try again.
    retry_after: Option<u64>,
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
    /// `X-Request-Id` of the answer. A problem within an answer has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(flatten)]
    more: &'a More,
}

/// Members that some problems have.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct More {
    /// With `after_ahead`: the number in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    /// With `invalid_config` all that would be wrong, with `config_not_applied` all that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    config_problems: Option<Vec<ShownProblem>>,
    /// The deployment that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<Record>,
    /// With `after_ahead`: the number of the last event.
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<u64>,
    /// With `after_ahead`: the first number in the journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<u64>,
    /// The problems of a component.
    #[serde(skip_serializing_if = "Option::is_none")]
    problems: Option<Vec<component::Problem>>,
    /// The step at which a deployment failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<Step>,
    /// With `config_not_editable` and `camera_read_only`: what a person would paste into the config
    /// instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    toml: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let detail = without_folders(&detail.into());
        Self { status, code, detail, limit: None, more: Box::default(), retry_after: None }
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// A request that is not valid.
    pub(super) fn bad(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// The host cannot serve the request now.
    pub(super) fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
    }

    /// The host's own fault. Files and folders are for the log alone.
    pub(super) fn internal(error: impl ToString) -> Self {
        let error = error.to_string();
        let request_id = RequestId::current();
        tracing::error!(
            target: "ocelli::api",
            request_id = request_id.as_ref().map(RequestId::as_str),
            "answered with an internal error: {error}"
        );
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error)
    }

    /// A deployment that began and has failed.
    pub(super) fn failed(record: Record, outcome: Outcome) -> Self {
        let (status, code) = match (outcome, record.step) {
            (Outcome::Refused, Step::Admit) => {
                (StatusCode::INSUFFICIENT_STORAGE, "not_enough_memory")
            }
            (Outcome::Refused, Step::Compile) => (StatusCode::UNPROCESSABLE_ENTITY, "not_compiled"),
            (Outcome::Refused, _) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_pipeline"),
            _ => (StatusCode::CONFLICT, outcome.name()),
        };
        let detail = record
            .reason
            .clone()
            .unwrap_or_else(|| format!("the deployment failed at {}", record.step));
        let more = More {
            step: Some(record.step),
            problems: record.check.as_ref().map(|check| check.problems.clone()),
            deployment: Some(record.for_clients()),
            ..More::default()
        };
        Self { more: Box::new(more), ..Self::new(status, code, detail) }
    }

    /// With what would be wrong with a config.
    pub(super) fn with_config_problems(mut self, problems: Vec<ShownProblem>) -> Self {
        self.more.config_problems = Some(problems);
        self
    }

    /// With a part of a config that a person would paste into the file instead.
    pub(super) fn with_toml(mut self, toml: Option<String>) -> Self {
        self.more.toml = toml;
        self
    }

    /// A number of an event that there has not been.
    pub(super) fn ahead(detail: impl Into<String>, after: u64, newest: u64) -> Self {
        let more = More { after: Some(after), newest: Some(newest), ..More::default() };
        Self { more: Box::new(more), ..Self::bad("after_ahead", detail) }
    }

    /// The request may be sent again after so many seconds.
    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    fn body<'a>(&'a self, request_id: Option<&'a str>) -> Body<'a> {
        Body {
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            limit: self.limit,
            request_id,
            more: &self.more,
        }
    }
}

/// As a part of an answer.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.body(None).serialize(serializer)
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

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        let status = match &error {
            DeployError::Session(SessionError::Unknown(_)) => StatusCode::NOT_FOUND,
            DeployError::Pipeline(PipelineError::NotAName(_) | PipelineError::Reference(..)) => {
                StatusCode::BAD_REQUEST
            }
            DeployError::Registry(error) => match error.code() {
                "unknown_pipeline" => StatusCode::NOT_FOUND,
                "component_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_pipeline" => StatusCode::UNPROCESSABLE_ENTITY,
                _ => StatusCode::BAD_GATEWAY,
            },
            DeployError::RegistryNotAllowed(_) => StatusCode::FORBIDDEN,
            DeployError::InvalidName(_) | DeployError::Shadow(_) => StatusCode::BAD_REQUEST,
            DeployError::Pipeline(_) => StatusCode::NOT_FOUND,
            DeployError::Compile(CompileError::File { .. } | CompileError::Start { .. }) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            DeployError::Compile(_) | DeployError::Undescribed { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            DeployError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            DeployError::StorageFull(_) => StatusCode::INSUFFICIENT_STORAGE,
            DeployError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            // The state of the session does not allow it.
            _ => StatusCode::CONFLICT,
        };
        let mut problem = Self::new(status, error.code(), error.to_string());
        match &error {
            DeployError::UnderWay { step, .. } => problem.more.step = Some(*step),
            DeployError::Compile(error) => {
                problem.more.step = Some(error.step());
                problem.more.problems = error.report().map(|check| check.problems.clone());
            }
            _ => {}
        }
        problem
    }
}

impl From<ResumeError> for Problem {
    fn from(refused: ResumeError) -> Self {
        let message = refused.to_string();
        let ResumeError::Ahead { after, span, .. } = refused else {
            return Self::internal(message);
        };
        let more = More {
            after: Some(after),
            oldest: Some(span.oldest),
            newest: Some(span.newest),
            ..More::default()
        };
        Self { more: Box::new(more), ..Self::bad("after_ahead", message) }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            "unknown_session" => StatusCode::NOT_FOUND,
            "internal" => StatusCode::INTERNAL_SERVER_ERROR,
            "timeout" => StatusCode::GATEWAY_TIMEOUT,
            "site_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            // The state of the session does not allow it.
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, refusal.code, refusal.message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let id = RequestId::current();
        let body = self.body(id.as_ref().map(RequestId::as_str));
        let mut response = (self.status, Json(body)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"ocelli\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            let hop = HeaderValue::from_static("Upgrade");
            response.headers_mut().insert(header::CONNECTION, hop);
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn no_error_shows_where_the_host_keeps_its_files() {
        let data = PathBuf::from("/srv/ocelli/data");
        let gone = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let record = Record {
            reason: Some(format!("{}/cache/1: no room", data.display())),
            ..Record::default()
        };
        let problems = [
            Problem::from(DeployError::Pipeline(PipelineError::Unknown {
                name: "eye".into(),
                looked: vec![data.join("pipelines/eye.wasm"), "/usr/lib/eye.wasm".into()],
            })),
            DeployError::Pipeline(PipelineError::NoFile { path: data.join("eye.wasm") }).into(),
            DeployError::Compile(CompileError::File {
                pipeline: "eye".into(),
                path: data.join("cache"),
                source: gone(),
            })
            .into(),
            DeployError::Internal(format!("storing: {}: full", data.join("x").display())).into(),
            Problem::internal(format!("{}: {}", data.display(), gone())),
            Problem::failed(record, Outcome::Refused),
        ];
        for problem in problems {
            let text = serde_json::to_string(&problem).unwrap();
            assert!(!text.contains("/srv") && !text.contains("/usr"), "{text}");
        }
        let long = "e".repeat(300);
        let refused = DeployError::InvalidName(PipelineError::NotAName(long));
        assert_eq!(Problem::from(refused).status, StatusCode::BAD_REQUEST);
    }
}
