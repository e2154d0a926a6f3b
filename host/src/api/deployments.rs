//! Deployments over HTTP, and the list of pipelines.
//!
//! A deployment is answered once the new version is active or has failed. It goes on if the client
//! does not wait for that.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::access::Caller;
use super::body;
use super::control::{Control, Refusal};
use super::extract::{InPath, InQuery};
use super::problem::Problem;
use super::state::ApiState;
use crate::config::{LOCAL_CALLER, OciReference, OciReferenceError};
use crate::deploy::{
    Component, ConfigStatus, DeployError, DeployRequest, DescribedPipeline, NamedPipeline, Outcome,
    Record,
};
use crate::session::SessionSettings;
use crate::session::rollout::{MAX_SHADOW, Shadow, StateHandover};
use crate::telemetry::otlp::TraceParent;

/// Components that are uploaded at the same time. Each may have `deploy.max_component_mb`, 128 MiB
/// at the most.
pub(super) const MAX_UPLOADS: usize = 4;

/// The time for the upload of a component: 64 MiB over a line of 5 Mbit/s take 107 s.
const UPLOAD: Duration = Duration::from_secs(180);

/// Deployments in a list unless the client sets `limit`.
const LISTED: usize = 20;

/// Most deployments in a list: the most that a history may have (`deploy.history`).
const MAX_LISTED: usize = 10_000;

/// The name of a component for which the client gives none.
pub(super) const UNNAMED: &str = "component";

/// Most characters of a component's name.
const MAX_NAME: usize = 200;

/// Most characters of the client's name in a deployment's `by`.
const MAX_PRODUCT: usize = 40;

/// Deployments as the API needs them.
pub trait DeploymentControl: Clone + Send + Sync + 'static {
    /// Most bytes of a component.
    fn component_bytes(&self) -> usize;

    /// Gives a session another pipeline, or the same one with other settings. Returns once the new
    /// version is active or has failed: the record says which.
    fn deploy(
        &self,
        request: DeployRequest,
    ) -> impl Future<Output = Result<Record, DeployError>> + Send;

    /// Gives a session its previous version. Returns as [`deploy`](Self::deploy) does.
    fn rollback(
        &self,
        session: &str,
        by: &str,
    ) -> impl Future<Output = Result<Record, DeployError>> + Send;

    /// The last `limit` deployments of a session, the newest first.
    fn deployments(
        &self,
        session: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Record>, DeployError>> + Send;

    /// The settings of a session's pipeline; `None` if there is no session of this name.
    fn settings(&self, session: &str) -> Option<SessionSettings>;

    /// The config in force, and how what runs differs from it.
    fn config(&self) -> ConfigStatus;

    /// All pipelines in the data directory and built in, sorted by name.
    fn pipelines(&self) -> impl Future<Output = Result<Vec<NamedPipeline>, DeployError>> + Send;

    /// What a pipeline says of itself, whether a session runs it or not.
    fn described(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<DescribedPipeline, DeployError>> + Send;

    /// Checks a component and puts it into the data directory under this name, in the place of the
    /// one before. If the folder is watched, it is then deployed to the sessions that use it.
    /// `by` asks for it.
    fn put_pipeline(
        &self,
        name: &str,
        component: Bytes,
        by: &str,
    ) -> impl Future<Output = Result<NamedPipeline, DeployError>> + Send;
}

/// What a request says of the running version's state.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RequestedState {
    Keep,
    Fresh,
}

/// The query of `PUT /v1/sessions/{id}/pipeline`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeployParameters {
    #[serde(default)]
    shadow: u32,
    #[serde(default)]
    shadow_only: bool,
    threshold: Option<f64>,
    state: Option<RequestedState>,
    settings: Option<String>,
    name: Option<String>,
    pipeline: Option<String>,
}

pub(super) async fn deploy<C: DeploymentControl>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(session): InPath,
    InQuery(parameters): InQuery<DeployParameters>,
    request: Request,
) -> Result<Response, Problem> {
    let DeployParameters {
        shadow: frames,
        shadow_only: only,
        threshold,
        state: requested,
        settings,
        name,
        pipeline,
    } = parameters;
    let shadow = Shadow { frames, only, threshold };
    name.as_deref().map_or(Ok(()), check_name)?;
    if frames > MAX_SHADOW {
        return Err(Problem::bad(
            "bad_query",
            format!("shadow: {frames} is more than {MAX_SHADOW} frames"),
        ));
    }
    if threshold.is_some_and(|threshold| !(0.0..=1.0).contains(&threshold)) {
        return Err(Problem::bad("bad_query", "threshold: it is 0 to 1"));
    }
    if frames == 0 && shadow.is_condition() {
        let detail = "shadow_only and threshold need frames to compare on: shadow";
        return Err(Problem::bad("bad_query", detail));
    }
    let settings = settings.as_deref().map(body::settings).transpose()?;
    let by = by(&caller, request.headers());
    let trace = trace_parent(request.headers());
    let bytes = upload(&state, request).await?;
    let component = match (pipeline, name) {
        (None, name) if !bytes.is_empty() => {
            Component::Bytes { name: name.unwrap_or_else(|| UNNAMED.into()), bytes }
        }
        (Some(pipeline), None) if bytes.is_empty() && OciReference::is_meant_by(&pipeline) => {
            let reference = pipeline.parse::<OciReference>();
            let malformed =
                |error: OciReferenceError| Problem::bad("bad_query", format!("pipeline: {error}"));
            Component::Reference(reference.map_err(malformed)?)
        }
        (Some(pipeline), None) if bytes.is_empty() => Component::Pipeline(pipeline),
        _ => {
            let detail = "the body is the component, with `name` for its name; or it is empty, and \
                          `pipeline` names one in the data directory, built in, or in a registry";
            return Err(Problem::bad("bad_request", detail));
        }
    };
    let handover = requested.map(|requested| match requested {
        RequestedState::Keep => StateHandover::Keep,
        RequestedState::Fresh => StateHandover::Fresh,
    });
    let request = DeployRequest { session, component, settings, shadow, handover, by, trace };
    let control = state.control.clone();
    deployed(async move { control.deploy(request).await }).await
}

/// Checks the name that a client gives a component.
pub(super) fn check_name(name: &str) -> Result<(), Problem> {
    if name.chars().count() > MAX_NAME || name.contains(char::is_control) {
        let detail = format!("name: at most {MAX_NAME} characters that can be shown");
        return Err(Problem::bad("bad_query", detail));
    }
    Ok(())
}

/// Within which trace a request is made. A header that is none is left out, as its standard wants it.
fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get("traceparent")?.to_str().ok()?.trim().parse().ok()
}

pub(super) async fn rollback<C: DeploymentControl>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(session): InPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (by, control) = (by(&caller, &headers), state.control.clone());
    deployed(async move { control.rollback(&session, &by).await }).await
}

pub(super) async fn config<C: Control + DeploymentControl>(
    State(state): State<Arc<ApiState<C>>>,
) -> Response {
    Json(state.control.config()).into_response()
}

/// The query of `GET /v1/sessions/{id}/deployments`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    limit: Option<usize>,
}

pub(super) async fn list<C: Control + DeploymentControl>(
    State(state): State<Arc<ApiState<C>>>,
    InPath(session): InPath,
    InQuery(Limit { limit }): InQuery<Limit>,
) -> Result<Response, Problem> {
    let limit = limit.unwrap_or(LISTED);
    if !(1..=MAX_LISTED).contains(&limit) {
        return Err(Problem::bad("bad_query", format!("limit is 1 to {MAX_LISTED}")));
    }
    let deployments = state.control.deployments(&session, limit).await?;
    // A session that has ended has a history; an unknown one has none.
    if deployments.is_empty() && state.control.session(&session).is_none() {
        return Err(Refusal::unknown(&session).into());
    }
    let deployments: Vec<_> = deployments.into_iter().map(Record::for_clients).collect();
    Ok(Json(json!({"deployments": deployments})).into_response())
}

pub(super) async fn settings<C: DeploymentControl>(
    State(state): State<Arc<ApiState<C>>>,
    InPath(session): InPath,
) -> Result<Response, Problem> {
    let settings = state.control.settings(&session).ok_or_else(|| Refusal::unknown(&session))?;
    Ok(Json(settings).into_response())
}

pub(super) async fn pipelines<C: DeploymentControl>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let mut pipelines = state.control.pipelines().await?;
    for pipeline in &mut pipelines {
        pipeline.sessions.retain(|session| caller.sees(session));
    }
    Ok(Json(json!({"pipelines": pipelines})).into_response())
}

/// For whoever may set the settings: a component that is new costs the host its compilation.
pub(super) async fn schema<C: DeploymentControl>(
    State(state): State<Arc<ApiState<C>>>,
    InPath(name): InPath,
) -> Result<Response, Problem> {
    Ok(Json(state.control.described(&name).await?).into_response())
}

pub(super) async fn put_pipeline<C: DeploymentControl>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let component = upload(&state, request).await?;
    if component.is_empty() {
        return Err(Problem::bad("bad_request", "the body is the component: it is empty"));
    }
    let (by, control) = (by(&caller, &headers), state.control.clone());
    let put = async move { control.put_pipeline(&name, component, &by).await };
    let pipeline = to_its_end(put).await?;
    Ok(Json(pipeline).into_response())
}

/// Runs a deployment to its end. Answers with its record, or with a problem if it has failed.
async fn deployed(
    doing: impl Future<Output = Result<Record, DeployError>> + Send + 'static,
) -> Result<Response, Problem> {
    let record = to_its_end(doing).await?;
    match record.outcome() {
        None | Some(Outcome::Healthy | Outcome::Superseded | Outcome::Compared) => {
            Ok(Json(record.for_clients()).into_response())
        }
        Some(outcome) => Err(Problem::failed(record, outcome)),
    }
}

/// Runs it to its end even if the client goes away. The host's stop does not wait for it: its
/// session ends then, and with it the deployment.
async fn to_its_end<T: Send + 'static>(
    doing: impl Future<Output = Result<T, DeployError>> + Send + 'static,
) -> Result<T, Problem> {
    Ok(tokio::spawn(doing).await.map_err(Problem::internal)??)
}

/// Reads a body that is a component, or empty. A body whose header says that it is too large is not
/// read.
pub(super) async fn upload<C: DeploymentControl>(
    state: &ApiState<C>,
    request: Request,
) -> Result<Bytes, Problem> {
    let most = state.control.component_bytes();
    let too_large = || {
        let detail =
            format!("the component has more than {} MiB (deploy.max_component_mb)", most >> 20);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "component_too_large", detail)
    };
    if body::length(request.headers()).is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let _turn = state.uploads.try_acquire().map_err(|_| {
        let detail = format!("{MAX_UPLOADS} components are being sent already");
        Problem::unavailable("busy", detail).retry_after(1)
    })?;
    let body = tokio::time::timeout(UPLOAD, body::collect(request, most)).await;
    let late = |_| {
        let detail = format!("the component took longer than {} s to arrive", UPLOAD.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, "upload_timeout", detail)
    };
    body.map_err(late)??.ok_or_else(too_large)
}

/// The client as the history shows it: the token's name, or "operator" without tokens, and the
/// first product of the User-Agent, if there is one.
pub(super) fn by(caller: &Caller, headers: &HeaderMap) -> String {
    let name = if *caller.name == *LOCAL_CALLER { "operator" } else { &caller.name };
    let agent =
        headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let ordinary =
        |character: &char| character.is_ascii_alphanumeric() || "-_.".contains(*character);
    let product: String = agent.chars().take_while(ordinary).take(MAX_PRODUCT).collect();
    if product.is_empty() { name.to_owned() } else { format!("{name} ({product})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_told_by_the_product_and_nothing_else_of_what_a_client_says() {
        let by = |agent: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, agent.parse().unwrap());
            by(&Caller::local(), &headers)
        };
        assert_eq!(by("curl/8.5.0 (x; y)"), "operator (curl)");
        assert_eq!(by("<script>"), "operator");
        assert_eq!(super::by(&Caller::local(), &HeaderMap::new()), "operator");
        let ann = Caller { name: "ann".into(), ..Caller::local() };
        assert_eq!(super::by(&ann, &HeaderMap::new()), "ann");
        let long: &'static str = "a".repeat(200).leak();
        assert_eq!(by(long).len(), "operator ()".len() + MAX_PRODUCT);
    }
}
