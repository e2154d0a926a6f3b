//! The tokens of the site over HTTP: made, listed and revoked at any host, for all.

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

use super::overview::link;
use crate::api::access::{Caller, Role};
use crate::api::audit::AuditDetail;
use crate::api::body;
use crate::api::control::Control;
use crate::api::extract::InPath;
use crate::api::problem::Problem;
use crate::api::state::ApiState;
use crate::api::tokens::{MadeToken, check_first, is_admin, refused};
use crate::cluster::SiteTokenError;
use crate::config::{TokenRequest, check_session_id};
use crate::shape::TIME;

/// A token of the site as admins see it: not its hash.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SiteToken")]
pub(in crate::api) struct SiteTokenView<'a> {
    name: &'a str,
    role: Role,
    /// The sessions that a viewer sees; null: all.
    sessions: Option<&'a [String]>,
    /// When it ends, as RFC 3339 writes it; null: never.
    expires: Option<String>,
    /// Whether that is over.
    expired: bool,
    /// Who made it.
    by: &'a str,
    /// When it was made: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    made: &'a str,
    /// Whether the config of the host that answers has a token of this name or text, which counts
    /// there in its place.
    overridden: bool,
    /// Browsers that are logged in with it at the host that answers.
    logins: usize,
}

/// `GET /v1/cluster/tokens`.
pub(in crate::api) async fn list<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
) -> Result<Response, Problem> {
    let known = Arc::clone(&link(&state)?.site().tokens().borrow());
    let (config, now) = (state.gate.config(), Timestamp::now());
    let tokens = known.iter().map(|site| {
        let token = &site.token;
        SiteTokenView {
            name: &token.name,
            role: token.role,
            sessions: token.sessions.as_deref(),
            expires: token.expires.map(|expires| expires.to_string()),
            expired: token.expires.is_some_and(|expires| expires <= now),
            by: &site.by,
            made: &site.made,
            overridden: site.is_overridden(&config.server.tokens),
            logins: state.gate.logins.count(&token.name, Instant::now()),
        }
    });
    Ok(Json(json!({"tokens": tokens.collect::<Vec<_>>()})).into_response())
}

/// `POST /v1/cluster/tokens`.
pub(in crate::api) async fn make<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (site, gate) = (link(&state)?.site(), &state.gate);
    let wanted: TokenRequest = body::json(request).await?;
    let TokenRequest { name, role, sessions, .. } = wanted.clone();
    check_first(gate.keys.open(), role)?;
    for session in sessions.iter().flatten() {
        check_session_id(session).map_err(|error| {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", error.to_string())
        })?;
    }
    if gate.config().server.tokens.iter().any(|token| token.name == name) {
        let detail = format!("this host's config has a token {name:?}, which would count here");
        return Err(Problem::new(StatusCode::CONFLICT, "exists", detail));
    }
    let (text, token) = wanted.make().map_err(refused)?;
    site.make_token(token, caller.name.to_string()).await?;
    gate.take_over_tokens();
    let detail = AuditDetail(json!({"name": name, "role": role}));
    let made = Json(MadeToken { name: &name, token: &text });
    let private = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, private, Extension(detail), made).into_response())
}

/// `DELETE /v1/cluster/tokens/{name}`: what it opened at this host has ended with the answer, at
/// the others it ends as they hear of it.
pub(in crate::api) async fn revoke<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    InPath(name): InPath,
) -> Result<StatusCode, Problem> {
    let site = link(&state)?.site();
    let _turn = state.revoking.lock().await;
    let (known, now) = (Arc::clone(&site.tokens().borrow()), Timestamp::now());
    let config = state.gate.config();
    let site_tokens = known.iter().map(|site| &site.token);
    let mut admins = site_tokens.clone().filter(|token| is_admin(token, now));
    let mut others = config.server.tokens.iter().chain(site_tokens.filter(|it| it.name != name));
    if admins.any(|token| token.name == name) && !others.any(|token| is_admin(token, now)) {
        let detail = "no other admin's token would be left: make one first";
        return Err(Problem::new(StatusCode::CONFLICT, "no_admin", detail));
    }
    if !site.revoke_token(&name).await? {
        let detail = format!("the site has no token {name:?}");
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown_token", detail));
    }
    state.gate.take_over_tokens();
    Ok(StatusCode::NO_CONTENT)
}

impl From<SiteTokenError> for Problem {
    fn from(error: SiteTokenError) -> Self {
        let detail = error.to_string();
        match error {
            SiteTokenError::Exists(_) => Self::new(StatusCode::CONFLICT, "exists", detail),
            SiteTokenError::TooMany(_) => {
                Self::new(StatusCode::CONFLICT, "too_many_tokens", detail)
            }
            SiteTokenError::TooLarge(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
            }
            SiteTokenError::Site(error) => error.into(),
        }
    }
}
