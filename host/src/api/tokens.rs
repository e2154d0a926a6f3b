//! The tokens of the config: who may use the API, new ones, and those that go.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::access::{Caller, Role};
use super::audit::AuditDetail;
use super::body;
use super::config::ConfigControl;
use super::control::Control;
use super::extract::InPath;
use super::problem::Problem;
use super::state::ApiState;
use crate::config::edit::{ConfigChange, ConfigEdit, EditError};
use crate::config::{Token, TokenRequest, TokenRequestError};

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

/// A token that was made, the only time that it is shown.
#[derive(Serialize)]
pub(super) struct MadeToken<'a> {
    pub(super) name: &'a str,
    pub(super) token: &'a str,
}

/// Checks the role of a token that may be the first.
pub(super) fn check_first(first: bool, role: Role) -> Result<(), Problem> {
    if first && role != Role::Admin {
        let detail = "from the first token on everyone needs one, so it has to be an admin's";
        return Err(Problem::new(StatusCode::CONFLICT, "no_admin", detail));
    }
    Ok(())
}

/// Whether a token is an admin's, and has not ended.
pub(super) fn is_admin(token: &Token, now: Timestamp) -> bool {
    token.role == Role::Admin && token.expires.is_none_or(|expires| expires > now)
}

/// `POST /v1/tokens`. The caller that makes a host's first token needs it from then on, and is
/// logged in with it.
pub(super) async fn make<C: ConfigControl>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let gate = &state.gate;
    let (cookie, first) = (gate.cookie(request.headers()), gate.keys.open());
    let wanted: TokenRequest = body::json(request).await?;
    let TokenRequest { name, role, .. } = wanted.clone();
    check_first(first, role)?;
    let (text, token) = wanted.make().map_err(refused)?;
    let (change, by) = (ConfigChange::add_token(&token), caller.name.to_string());
    let edit = state.control.edit_config(ConfigEdit { change, of: None, by });
    edit.await.map_err(|error| by_hand(error, &name, role))?;
    gate.take_over_tokens();
    let detail = AuditDetail(json!({"name": name, "role": role}));
    let made = Json(MadeToken { name: &name, token: &text });
    let private = [(header::CACHE_CONTROL, "no-store")];
    let response = (StatusCode::CREATED, private, Extension(detail), made);
    let maker = gate.keys.authenticate(Some(&text), Timestamp::now()).ok().filter(|_| first);
    let login =
        maker.map(|maker| gate.logins.begin(&maker, token.hash, state.kept(&text), Instant::now()));
    match login.transpose().map_err(Problem::internal)? {
        Some(id) => Ok(([(header::SET_COOKIE, cookie.set(&id))], response).into_response()),
        None => Ok(response.into_response()),
    }
}

/// `DELETE /v1/tokens/{name}`: what it opened ends at once.
pub(super) async fn revoke<C: ConfigControl>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
) -> Result<StatusCode, Problem> {
    let _turn = state.revoking.lock().await;
    let (config, now) = (state.gate.config(), Timestamp::now());
    let admins = config.server.tokens.iter().filter(|token| is_admin(token, now));
    let mut others = admins.clone().filter(|token| token.name != name);
    if admins.clone().any(|token| token.name == name) && others.next().is_none() {
        let detail = "no other admin's token would be left: make one first, or edit the config";
        return Err(Problem::new(StatusCode::CONFLICT, "no_admin", detail));
    }
    let (change, by) = (ConfigChange::RemoveToken { name }, caller.name.to_string());
    state.control.edit_config(ConfigEdit { change, of: None, by }).await?;
    state.gate.take_over_tokens();
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn refused(error: TokenRequestError) -> Problem {
    match error {
        TokenRequestError::Random(error) => Problem::internal(error),
        error => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", error.to_string())
        }
    }
}

/// Where the host does not write its config, the command makes a token: an entry for the config
/// without its token would be of no use.
fn by_hand(error: EditError, name: &str, role: Role) -> Problem {
    let EditError::NotEditable { reason, .. } = error else { return error.into() };
    let role = role.name();
    let detail = format!(
        "{reason}; `ocelli token new {name:?} --role {role}` makes a token and its entry for the \
            config"
    );
    Problem::new(StatusCode::CONFLICT, "config_not_editable", detail)
}
