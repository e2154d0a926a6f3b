//! What models there are.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};

use super::{Control, State};

/// The models of the newest generation, and what they really run on.
pub(super) async fn list<C: Control>(Extract(state): Extract<Arc<State<C>>>) -> Response {
    Json(state.control.models()).into_response()
}
