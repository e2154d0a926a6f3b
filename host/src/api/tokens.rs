//! `GET /v1/tokens`: who may use the API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::access::Role;
use super::control::Control;
use super::state::ApiState;

/// A token as admins see it: not its hash.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Token")]
pub(super) struct TokenView<'a> {
    name: &'a str,
    role: Role,
    /// The sessions that a viewer sees; null: all.
    sessions: Option<&'a [String]>,
    /// When it ends, as RFC 3339 writes it; null: never.
    expires: Option<String>,
    /// Whether that is over.
    expired: bool,
    /// Browsers that are logged in with it.
    logins: usize,
}

/// `GET /v1/tokens`.
pub(super) async fn list<C: Control>(State(state): State<Arc<ApiState<C>>>) -> Response {
    let (config, now) = (state.gate.config(), Timestamp::now());
    let tokens = config.server.tokens.iter().map(|token| TokenView {
        name: &token.name,
        role: token.role,
        sessions: token.sessions.as_deref(),
        expires: token.expires.map(|expires| expires.to_string()),
        expired: token.expires.is_some_and(|expires| expires <= now),
        logins: state.gate.logins.count(&token.name, Instant::now()),
    });
    Json(json!({"tokens": tokens.collect::<Vec<_>>()})).into_response()
}
