//! `POST /v1/probe`: what a camera is, before it is added, or why it does not play.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::access::{Caller, Right};
use super::audit::AuditDetail;
use super::body;
use super::control::{Control, Refusal};
use super::insight::InsightControl;
use super::problem::Problem;
use super::state::ApiState;
use crate::config::source::{ReaderSetting, Source, SourceOptions, Transport};
use crate::probe::{ProbeError, ProbeReport};

/// Seconds after which a probe may have ended: most take two after the first picture.
const RETRY_S: u64 = 5;

/// The body of the request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbeRequest {
    session: Option<String>,
    source: Option<String>,
    transport: Option<Transport>,
    reader: Option<ReaderSetting>,
    certificate_sha256: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Probe")]
pub(super) struct ProbeAnswer {
    #[serde(flatten)]
    report: ProbeReport,
    /// Results in a second that this machine has room for, with one inference for each: at most
    /// the camera's rate. Null before a model has run.
    #[schemars(range(min = 0))]
    suggested_rate: Option<f64>,
    /// A picture of it as a data URL, a JPEG file; null: there is none, or it has more than 2 MiB.
    picture: Option<String>,
}

/// What is probed.
enum ProbeTarget {
    Session(String),
    Source(Source),
}

impl ProbeRequest {
    fn target(self) -> Result<ProbeTarget, Problem> {
        let options = self.transport.is_some() || self.reader.is_some();
        match (self.session, self.source) {
            (Some(session), None) if !options && self.certificate_sha256.is_none() => {
                Ok(ProbeTarget::Session(session))
            }
            (None, Some(source)) => {
                let options = SourceOptions {
                    transport: self.transport,
                    reader: self.reader,
                    certificate_sha256: self.certificate_sha256,
                    ..SourceOptions::default()
                };
                let source = Source::configured(&source, options);
                let invalid = |error: crate::config::source::SourceError| {
                    Problem::bad("invalid_source", error.to_string())
                };
                Ok(ProbeTarget::Source(source.map_err(invalid)?))
            }
            _ => {
                Err(Problem::bad("bad_request", "name a `session`, or a `source` with its options"))
            }
        }
    }
}

pub(super) async fn probe<C: Control + InsightControl>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let request: ProbeRequest = body::json(request).await?;
    let (source, detail) = match request.target()? {
        ProbeTarget::Session(id) => {
            let source = state.control.source(&id).filter(|_| caller.sees(&id));
            (source.ok_or_else(|| Refusal::unknown(&id))?, json!({"session": id}))
        }
        ProbeTarget::Source(source) => {
            let detail = json!({"source": source.to_string()});
            let trusted = caller.may(Right::Administer);
            (if trusted { source } else { state.control.admitted(source)? }, detail)
        }
    };
    let (report, picture) = state.control.probe(&source).await?;
    let suggested_rate = if report.plays {
        state.control.suggested_rate(report.measured.rate()).await
    } else {
        None
    };
    let picture =
        picture.map(|file| format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(file)));
    let answer = ProbeAnswer { report, suggested_rate, picture };
    Ok((Extension(AuditDetail(detail)), Json(answer)).into_response())
}

impl From<ProbeError> for Problem {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::NotAllowed | ProbeError::ReaderNotAllowed => {
                Self::new(StatusCode::FORBIDDEN, "source_not_allowed", error.to_string())
            }
            ProbeError::Busy => Self::unavailable("busy", error.to_string()).retry_after(RETRY_S),
            ProbeError::Internal(error) => Self::internal(format!("{error:#}")),
        }
    }
}
