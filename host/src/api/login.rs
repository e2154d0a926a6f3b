//! `POST /v1/login`, `POST /v1/logout` and `GET /v1/me`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::access::{Caller, Role, Scope};
use super::body;
use super::connections::ConnectionSlot;
use super::control::Control;
use super::gate;
use super::logins::LoginKey;
use super::problem::Problem;
use super::state::ApiState;
use crate::config::TokenHash;

/// Most bytes of a login: a token has 50, and may be of the operator's making.
const MAX_BODY: usize = 4 << 10;

/// The actions' names in the log.
const LOGIN: &str = "login";
const LOGOUT: &str = "logout";

/// The body of `POST /v1/login`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginRequest {
    token: String,
}

/// `POST /v1/login`: a token for a cookie. A wrong token counts as a guess.
pub(super) async fn log_in<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    request: Request,
) -> Result<Response, Problem> {
    let gate = &state.gate;
    let (peer, cookie) = (gate::peer(&request), gate.cookie(request.headers()));
    let slot = request.extensions().get::<Arc<ConnectionSlot>>().cloned();
    let body = body::collect(request, MAX_BODY).await?.ok_or_else(|| {
        let detail = format!("a login has at most {MAX_BODY} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    })?;
    // The error's own text may contain the token.
    let LoginRequest { token } = serde_json::from_slice(&body)
        .map_err(|_| Problem::bad("bad_body", "expected {\"token\":\"...\"}"))?;
    let caller = gate.check_token(&token, peer, LOGIN)?;
    if let Some(full) = gate.take_place(slot.as_deref()) {
        return Ok(full);
    }
    gate.check_rate(&caller, peer)?;
    let entry = gate.audit.begin(&caller, peer, LOGIN, "");
    if gate.keys.open() {
        // Everyone is let in as it is.
        entry.finish("not needed");
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let kept = state.kept(&token);
    let begun = gate.logins.begin(&caller, TokenHash::of(&token), kept, Instant::now());
    let id = begun.map_err(Problem::internal)?;
    entry.finish(StatusCode::NO_CONTENT.as_u16());
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie.set(&id))]).into_response())
}

/// `POST /v1/logout`: ends the login of the cookie, and every connection that it opened. By a token
/// there is nothing to end.
pub(super) async fn log_out<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    login: Option<Extension<LoginKey>>,
    request: Request,
) -> Response {
    let cookie = state.gate.cookie(request.headers());
    if let Some(Extension(login)) = login {
        state.gate.logins.end(login);
        let entry = state.gate.audit.begin(&caller, gate::peer(&request), LOGOUT, "");
        entry.finish(StatusCode::NO_CONTENT.as_u16());
    }
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie.remove())]).into_response()
}

/// Who asks.
#[derive(Serialize, JsonSchema)]
pub(super) struct Me<'a> {
    /// The token's name; "local" on a host without tokens.
    name: &'a str,
    role: Role,
    /// The sessions that the caller sees; null: all.
    sessions: Option<&'a BTreeSet<String>>,
    /// Whether the host has tokens. Without, everyone who reaches it is an admin.
    login: bool,
}

/// `GET /v1/me`.
pub(super) async fn me<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let sessions = match &caller.scope {
        Scope::All => None,
        Scope::Named(sessions) => Some(sessions),
    };
    let (name, login) = (&*caller.name, !state.gate.keys.open());
    let me = Me { name, role: caller.role, sessions, login };
    ([(header::CACHE_CONTROL, "no-store")], Json(me)).into_response()
}
