//! The gate of every request: who asks, how often, and with which right.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{ConnectInfo, RawPathParams, Request, State};
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::access::{Caller, Right};
use super::audit::{AuditDetail, AuditLog};
use super::connections::ConnectionSlot;
use super::control::Refusal;
use super::keys::{AuthError, Keys, TokenSources};
use super::limits::{RateLimits, site};
use super::logins::{CookieKind, LoginKey, Logins};
use super::origin;
use super::problem::Problem;
use super::site::OwnToken;
use crate::config::{BasePath, Config};
use crate::util::bucket::RateLimit;

/// The prefix of the token in a subprotocol. Browsers can set no headers for a WebSocket.
const SUBPROTOCOL: &str = "ocelli.bearer.";

/// Invalid tokens from one address: ten at once, then ten a minute. So many lines of the log about
/// requests without any.
const FAILURES: RateLimit = RateLimit { burst: 10.0, per_second: 10.0 / 60.0 };

/// Seconds of its rate that a caller may save up: with the defaults 2000 requests, one for each
/// connection of an address. All displays behind one proxy come back in the same second.
const SAVED: f64 = 20.0;

/// What a page sends with a change, which no form and no link can.
const BY_PAGE: (&str, &str) = ("x-ocelli", "1");

/// Seconds until a connection may have become free.
const RETRY_S: u64 = 5;

/// The right that a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// None: for monitoring of the process.
    Nothing,
    Caller,
    /// A right, without a session; the route leaves out sessions that the caller does not see.
    May(Right),
    /// A right to the session `{id}` of the path.
    OfSession(Right),
    /// As [`OfSession`](Self::OfSession), of a request that the host of a site answers which has the
    /// session.
    AtOwner(Right),
    /// A right, from a caller that sees all sessions.
    OfAll(Right),
}

impl Need {
    fn right(self) -> Option<Right> {
        match self {
            Self::Nothing | Self::Caller => None,
            Self::May(right)
            | Self::OfSession(right)
            | Self::AtOwner(right)
            | Self::OfAll(right) => Some(right),
        }
    }
}

/// Tokens and rate limits of the API.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) keys: Arc<Keys>,
    pub(super) logins: Logins,
    pub(super) audit: AuditLog,
    pub(super) sources: TokenSources,
    /// `http` or `https`: what the host's own port speaks.
    pub(super) scheme: &'static str,
    /// The path of the host's addresses, as it was at the start.
    pub(super) base: BasePath,
    failures: RateLimits<IpAddr>,
    /// Log lines about requests that show nothing to guess with.
    strangers: RateLimits<IpAddr>,
    requests: RateLimits<String>,
}

/// The gate of one route.
#[derive(Debug, Clone)]
pub(super) struct RouteGuard {
    pub(super) gate: Arc<Gate>,
    /// The action's name in the log.
    pub(super) action: &'static str,
    pub(super) need: Need,
}

impl Gate {
    /// `loopback`: the host listens on a loopback address.
    pub(super) fn new(sources: TokenSources, loopback: bool, scheme: &'static str) -> Self {
        let keys = Keys::new(&sources.all(), loopback, Timestamp::now());
        Self {
            keys: Arc::new(keys),
            base: sources.config().server.base_path.clone(),
            logins: Logins::default(),
            audit: AuditLog::default(),
            sources,
            scheme,
            failures: RateLimits::default(),
            strangers: RateLimits::default(),
            requests: RateLimits::default(),
        }
    }

    /// The config that is in force.
    pub(super) fn config(&self) -> Arc<Config> {
        self.sources.config()
    }

    /// Takes over the tokens of config and site at once, for a caller that has just changed them.
    pub(super) fn take_over_tokens(&self) {
        self.keys.refresh(&self.sources, Timestamp::now());
    }

    /// The cookie's kind for this request.
    pub(super) fn cookie(&self, headers: &HeaderMap) -> CookieKind<'_> {
        let secure = origin::asked_by(headers, self.scheme).eq_ignore_ascii_case("https");
        CookieKind { secure, base: self.base.as_str() }
    }

    /// The caller, and the login that the request came by. A token counts before a cookie.
    fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: SocketAddr,
        action: &'static str,
    ) -> Result<(Caller, Option<LoginKey>, OwnToken), Problem> {
        let token = presented(headers);
        if token.is_none()
            && !self.keys.open()
            && !headers.contains_key(header::AUTHORIZATION)
            && let Some(id) = self.cookie(headers).id(headers)
        {
            let login = self.logins.find(id, tokio::time::Instant::now());
            let login = login.filter(|(_, it)| self.keys.has(&it.token, Timestamp::now()));
            return login
                .map(|(key, login)| (login.caller, Some(key), login.kept))
                .ok_or_else(|| self.refused(AuthError::LoggedOut, peer, action));
        }
        let caller = self.keys.authenticate(token.as_deref(), Timestamp::now());
        let own = || OwnToken(token.as_deref().map(Into::into));
        caller
            .map(|caller| (caller, None, own()))
            .map_err(|error| self.refused(error, peer, action))
    }

    /// The caller of a token.
    pub(super) fn check_token(
        &self,
        token: &str,
        peer: SocketAddr,
        action: &'static str,
    ) -> Result<Caller, Problem> {
        let caller = self.keys.authenticate(Some(token), Timestamp::now());
        caller.map_err(|error| self.refused(error, peer, action))
    }

    /// The answer to a request without a valid token. A valid token is accepted however often the
    /// address sent invalid ones. Who shows none, or the cookie of a login that is over, has not
    /// guessed: a page learns so that it has to ask for a token.
    fn refused(&self, error: AuthError, peer: SocketAddr, action: &'static str) -> Problem {
        let guesses = matches!(error, AuthError::Wrong | AuthError::Expired(_));
        let limits = if guesses { &self.failures } else { &self.strangers };
        let limited_for = limits.take(site(peer.ip()), FAILURES, Instant::now()).err();
        if let Some(wait) = limited_for.filter(|_| guesses) {
            let detail = "too many requests with an invalid token came from this address";
            return limited(wait, detail);
        }
        let (reason, detail) = match error {
            AuthError::Missing => (
                "no token".to_owned(),
                "a token is needed: Authorization: Bearer TOKEN, or the cookie of POST /v1/login",
            ),
            AuthError::Wrong => ("unknown token".to_owned(), "the token is not one of this host's"),
            AuthError::Expired(name) => {
                (format!("token {name:?} has expired"), "the token has expired")
            }
            AuthError::LoggedOut => {
                ("no such login".to_owned(), "the login is over: POST /v1/login begins another")
            }
        };
        if limited_for.is_none() {
            self.audit.unknown(peer, action, &reason);
        }
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// Makes a caller's connection count as one: the last answer on it if there is no place.
    pub(super) fn take_place(&self, slot: Option<&ConnectionSlot>) -> Option<Response> {
        slot.and_then(|slot| slot.admit(&self.config().server).err()).map(|_| no_place())
    }

    /// Who a limit is for: a token, or without tokens an address.
    pub(super) fn key(&self, caller: &Caller, peer: SocketAddr) -> String {
        if self.keys.open() { site(peer.ip()).to_string() } else { caller.name.to_string() }
    }

    /// Checks the caller's rate.
    pub(super) fn check_rate(&self, caller: &Caller, peer: SocketAddr) -> Result<(), Problem> {
        let per_second = f64::from(self.config().server.requests_per_second);
        if per_second <= 0.0 {
            return Ok(());
        }
        let pace = RateLimit { burst: SAVED * per_second, per_second };
        let taken = self.requests.take(self.key(caller, peer), pace, Instant::now());
        taken.map_err(|wait| {
            limited(wait, "more requests than `[server] requests_per_second` allows")
        })
    }
}

/// Passes a request on to its route, with the [`Caller`] as an extension, or answers with a
/// problem.
pub(super) async fn pass(
    State(RouteGuard { gate, action, need }): State<RouteGuard>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if need == Need::Nothing {
        return Ok(next.run(request).await);
    }
    let peer = peer(&request);
    let (caller, login, token) = gate.authenticate(request.headers(), peer, action)?;
    let slot = request.extensions().get::<Arc<ConnectionSlot>>();
    if let Some(full) = gate.take_place(slot.map(|slot| &**slot)) {
        return Ok(full);
    }
    gate.check_rate(&caller, peer)?;
    if login.is_some() && !asked_by_page(&request) {
        let detail = "a change by the cookie of a login needs the header X-Ocelli: 1";
        return Err(Problem::new(StatusCode::FORBIDDEN, "header_missing", detail));
    }
    let parameters =
        parameters.map_err(|rejection| Problem::bad("bad_path", rejection.body_text()))?;
    let subject = parameters.iter().next().map(|(_, value)| value).unwrap_or_default();
    permit(&caller, need, subject)
        .inspect_err(|_| gate.audit.denied(&caller, peer, action, subject))?;
    let deed = need
        .right()
        .filter(|right| *right >= Right::Operate && !request.method().is_safe())
        .map(|_| gate.audit.begin(&caller, peer, action, subject));
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(token);
    login.map(|login| request.extensions_mut().insert(login));
    let response = next.run(request).await;
    if let Some(mut deed) = deed {
        if let Some(AuditDetail(given)) = response.extensions().get() {
            deed = deed.given(given);
        }
        deed.finish(response.status().as_u16());
    }
    Ok(response)
}

/// Checks the caller's right. A session that the caller does not see does not exist for it.
fn permit(caller: &Caller, need: Need, session: &str) -> Result<(), Problem> {
    if let Need::OfSession(_) | Need::AtOwner(_) = need
        && !caller.sees(session)
    {
        return Err(Refusal::unknown(session).into());
    }
    let forbidden = |what: &str| Problem::new(StatusCode::FORBIDDEN, "forbidden", what);
    match need.right() {
        Some(right) if !caller.may(right) => Err(forbidden(&format!(
            "this needs the right to {right}, which the token's role has not"
        ))),
        _ if matches!(need, Need::OfAll(_)) && !caller.sees_all() => {
            Err(forbidden("this needs a token that sees all sessions"))
        }
        _ => Ok(()),
    }
}

/// Whether a request is no change, or one that a page of this host makes by itself.
fn asked_by_page(request: &Request) -> bool {
    let (name, value) = BY_PAGE;
    request.method().is_safe() || request.headers().get(name).is_some_and(|it| it == value)
}

/// The address of the request's client.
pub(super) fn peer(request: &Request) -> SocketAddr {
    peer_of(request.extensions())
}

/// The address of the client of a request with these extensions.
pub(super) fn peer_of(extensions: &Extensions) -> SocketAddr {
    let connection = extensions.get::<ConnectInfo<SocketAddr>>();
    connection.map_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), |ConnectInfo(peer)| *peer)
}

/// The request's token: in its header, or in a subprotocol of a browser's WebSocket.
fn presented(headers: &HeaderMap) -> Option<String> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    if let Some(value) = all.next() {
        // Two headers count as none: a proxy may have read the other one.
        let text = value.to_str().ok().filter(|_| all.next().is_none())?;
        let (scheme, token) = text.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix(SUBPROTOCOL).map(str::to_owned))
}

/// The last answer on a connection that gets no place among the callers'.
fn no_place() -> Response {
    let detail = "as many connections are open as `[server] max_connections` and \
                  max_connections_per_address allow";
    let problem = Problem::unavailable("too_many_connections", detail).retry_after(RETRY_S);
    ([(header::CONNECTION, "close")], problem).into_response()
}

fn limited(wait: Duration, detail: &str) -> Problem {
    let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).retry_after(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_in_the_header_or_in_a_subprotocol_and_in_no_other_way() {
        let presented = |lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().unwrap());
            }
            presented(&headers)
        };
        assert_eq!(presented(&[("authorization", "Bearer abc")]).as_deref(), Some("abc"));
        assert_eq!(presented(&[("authorization", "bEARER  abc ")]).as_deref(), Some("abc"));
        assert_eq!(
            presented(&[("sec-websocket-protocol", "ocelli.v1, ocelli.bearer.abc")]).as_deref(),
            Some("abc")
        );
        assert_eq!(
            presented(&[
                ("sec-websocket-protocol", "x"),
                ("sec-websocket-protocol", "ocelli.bearer.abc")
            ])
            .as_deref(),
            Some("abc")
        );
        assert_eq!(
            presented(&[
                ("sec-websocket-protocol", "ocelli.bearer.a"),
                ("authorization", "Bearer b")
            ])
            .as_deref(),
            Some("b")
        );
        for none in [
            vec![],
            vec![("authorization", "Basic abc")],
            vec![("authorization", "abc")],
            vec![("authorization", "Bearer a"), ("authorization", "Bearer b")],
            vec![("cookie", "token=abc")],
            vec![("sec-websocket-protocol", "ocelli.v1")],
        ] {
            assert_eq!(presented(&none), None, "{none:?}");
        }
    }
}
