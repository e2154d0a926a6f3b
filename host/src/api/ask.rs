//! `POST /v1/sessions/{id}/query` and `/command`: a pipeline asked over HTTP, as the messages `query`
//! and `command` of a WebSocket ask it.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use ocelli_protocol::worker::RequestKind;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::access::Caller;
use super::audit::AuditDetail;
use super::control::{Control, Refusal};
use super::extract::InPath;
use super::limits::CallerSlot;
use super::message::MAX_MESSAGE;
use super::problem::Problem;
use super::site::{RemoteAnswer, SessionPlace};
use super::state::ApiState;
use super::{body, gate};

/// Queries and commands of one client that wait for their pipelines: of a WebSocket, and of a token
/// over HTTP.
pub(super) const ASKED: usize = 16;

/// Seconds until one of them may have been answered: most take less.
const RETRY_S: u64 = 1;

/// `POST /v1/sessions/{id}/query`.
pub(super) async fn query<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(session): InPath,
    request: Request,
) -> Result<Response, Problem> {
    let query = read(&state, request, &caller).await?;
    answer(&state, RequestKind::Query, &session, query).await
}

/// `POST /v1/sessions/{id}/command`.
pub(super) async fn command<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(session): InPath,
    request: Request,
) -> Result<Response, Problem> {
    let command = read(&state, request, &caller).await?;
    let given = Extension(AuditDetail(command.0.clone()));
    // A command that was refused is in the audit log with its words as well.
    Ok((given, answer(&state, RequestKind::Command, &session, command).await).into_response())
}

/// The words for the pipeline, and the place that they wait in.
async fn read<C: Control>(
    state: &ApiState<C>,
    request: Request,
    caller: &Caller,
) -> Result<(Value, CallerSlot), Problem> {
    let place = state.asked.enter(state.gate.key(caller, gate::peer(&request)), ASKED);
    let place = place.ok_or_else(|| {
        let detail = format!("{ASKED} queries and commands wait for their answers");
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail)
            .retry_after(RETRY_S)
    })?;
    let too_large = || {
        let detail = format!("a query or a command has at most {MAX_MESSAGE} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    };
    let too_slow = |_| {
        let detail = "the query or the command took too long to arrive";
        Problem::new(StatusCode::REQUEST_TIMEOUT, "upload_timeout", detail)
    };
    let bytes = timeout(state.timing.message, body::collect(request, MAX_MESSAGE)).await;
    let bytes = bytes.map_err(too_slow)??.ok_or_else(too_large)?;
    let value = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::bad("bad_json", format!("the body is not JSON: {error}")))?;
    Ok((value, place))
}

async fn answer<C: Control>(
    state: &ApiState<C>,
    kind: RequestKind,
    session: &str,
    (words, _place): (Value, CallerSlot),
) -> Result<Response, Problem> {
    let answer = state.control.ask(session, kind, words).await?;
    Ok(Json(json!({"session": session, "answer": answer})).into_response())
}

/// Why a pipeline has not answered: the words of this host or of another one.
#[derive(Debug)]
pub(super) struct AskRefusal {
    pub(super) code: Cow<'static, str>,
    pub(super) message: String,
}

impl From<Refusal> for AskRefusal {
    fn from(Refusal { code, message }: Refusal) -> Self {
        Self { code: code.into(), message }
    }
}

/// Asks the pipeline of a session, whichever host of the site has it. `onward`: the headers of a
/// request to another host.
pub(super) async fn anywhere<C: Control>(
    state: &ApiState<C>,
    kind: RequestKind,
    session: &str,
    words: Value,
    onward: HeaderMap,
) -> Result<Value, AskRefusal> {
    if let Some(link) = &state.site {
        let place = link.place(session, false);
        let place = place.map_err(|problem| AskRefusal {
            code: problem.code().into(),
            message: problem.detail().to_owned(),
        })?;
        if let SessionPlace::At(host) = place {
            let answer = link.ask(&host, kind, session, &words, onward).await;
            return match answer.map_err(Refusal::from)? {
                RemoteAnswer::Answer(answer) => Ok(answer),
                RemoteAnswer::Refused(code, message) => {
                    Err(AskRefusal { code: code.into(), message })
                }
            };
        }
    }
    Ok(state.control.ask(session, kind, words).await?)
}
