//! `POST /v1/discover`: ONVIF cameras in this machine's networks.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::body;
use super::problem::Problem;
use super::state::ApiState;
use crate::discover::{CameraLogin, DiscoveredCamera, discover as search};

/// Seconds after which most searches have ended.
const RETRY_S: u64 = 10;

/// The body of the request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiscoverRequest {
    user: Option<String>,
    password: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Discovery")]
pub(super) struct DiscoverAnswer {
    /// The cameras that have answered, by their addresses.
    cameras: Vec<DiscoveredCamera>,
}

/// One search at a time: it asks every camera of the networks.
pub(super) async fn discover<C>(
    State(state): State<Arc<ApiState<C>>>,
    request: Request,
) -> Result<Response, Problem> {
    let DiscoverRequest { user, password } = body::json(request).await?;
    let login = user.map(|user| CameraLogin { user, password: password.unwrap_or_default() });
    let _turn = state
        .searches
        .try_acquire()
        .map_err(|_| Problem::unavailable("busy", "a search is under way").retry_after(RETRY_S))?;
    let cameras = search(login.as_ref()).await.map_err(Problem::internal)?;
    Ok(Json(DiscoverAnswer { cameras }).into_response())
}
