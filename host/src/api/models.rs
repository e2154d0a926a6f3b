//! What models there are.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::control::Control;
use super::state::ApiState;

/// The models of the newest catalog, and the devices that really run them.
pub(super) async fn list<C: Control>(State(state): State<Arc<ApiState<C>>>) -> Response {
    Json(state.control.models()).into_response()
}
