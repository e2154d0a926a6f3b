//! Requests about the host and its sessions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::control::{Control, Refusal};
use super::extract::InPath;
use super::problem::Problem;
use super::state::ApiState;
use crate::event::{HostStatus, PartState};
use crate::monitor::prometheus_text::prometheus_text;

/// `GET /healthz`: the process answers.
pub(super) async fn health() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// The answer of `GET /readyz`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Readiness {
    status: ReadinessLevel,
    host: HostStatus,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum ReadinessLevel {
    Ready,
    Degraded,
}

/// `GET /readyz`: the cameras have been started, and their subscribers get detections at least. So
/// a full disk is `degraded` and no reason to send subscribers elsewhere.
pub(super) async fn ready<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
) -> Result<Response, Problem> {
    state.check_running()?;
    if !state.ready.load(Ordering::Acquire) {
        return Err(Problem::unavailable("starting", "the host is starting its cameras"));
    }
    let host = state.hub.host();
    if host.inference.state == PartState::Failed {
        let reason = host.inference.reason.unwrap_or_default();
        return Err(Problem::unavailable("inference_failed", &reason));
    }
    let status = if host.is_well() { ReadinessLevel::Ready } else { ReadinessLevel::Degraded };
    Ok(Json(Readiness { status, host }).into_response())
}

/// The formats of metrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics`: OpenMetrics for a client that names it, the Prometheus text format for others.
pub(super) async fn metrics<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    headers: HeaderMap,
) -> Response {
    let open_metrics = state.control.metrics().await;
    let (kind, text) = if prefers_open_metrics(&headers) {
        (OPEN_METRICS, open_metrics)
    } else {
        (PROMETHEUS_TEXT, prometheus_text(&open_metrics))
    };
    ([(header::CONTENT_TYPE, kind), (header::VARY, "Accept")], text).into_response()
}

/// Whether the client names OpenMetrics, and wants it no less than plain text.
fn prefers_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (mut open, mut plain) = (0.0f32, 0.0f32);
    for range in accepted.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let weight = weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0));
        match kind.as_str() {
            "application/openmetrics-text" => open = open.max(weight),
            "text/plain" => plain = plain.max(weight),
            _ => {}
        }
    }
    open > 0.0 && open >= plain
}

pub(super) async fn session<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    InPath(id): InPath,
) -> Result<Response, Problem> {
    let status = state.control.session(&id).ok_or_else(|| Refusal::unknown(&id))?;
    Ok(Json(status).into_response())
}

/// Answers with the session's status after the request.
pub(super) async fn restart<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    InPath(id): InPath,
) -> Result<Response, Problem> {
    state.control.restart(&id).await?;
    let status = state.control.session(&id).ok_or_else(|| Refusal::unknown(&id))?;
    Ok((StatusCode::ACCEPTED, Json(status)).into_response())
}

/// Answers when the session's process is gone. It ends too if the client goes away.
pub(super) async fn stop<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    InPath(id): InPath,
) -> Result<StatusCode, Problem> {
    let control = state.control.clone();
    let stopped = state.tasks.spawn(async move { control.stop(&id).await });
    stopped.await.map_err(Problem::internal)??;
    Ok(StatusCode::NO_CONTENT)
}

/// The models of the newest catalog, and the devices that really run them.
pub(super) async fn models<C: Control>(State(state): State<Arc<ApiState<C>>>) -> Response {
    Json(state.control.models()).into_response()
}

pub(super) async fn no_such_path(uri: Uri) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_path",
        format!("there is nothing at {}", uri.path()),
    )
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not for {}; the Allow header says what is", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", detail)
}
