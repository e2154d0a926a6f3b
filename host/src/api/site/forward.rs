//! A request for a session that another host has is answered by that host's words.
//!
//! The request goes on once: whoever gets it from a host of the site answers it itself, or says
//! that the session is not its own. Method, path, query, body and answer pass as they are; see
//! [`headers`](super::headers) for what does not.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::stream::{self, StreamExt};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use ocelli_protocol::worker::RequestKind;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use url::Url;

use super::Site;
use super::headers::{self, FORWARDED_BY, OwnToken};
use crate::api::client_address;
use crate::api::control::{Control, Refusal};
use crate::api::gate;
use crate::api::problem::Problem;
use crate::api::request_id::RequestId;
use crate::api::state::ApiState;
use crate::cluster::CameraOwner;
use crate::util::http_client::{HttpClient, HttpFault, read};

/// Limit for a connection to another host of the site, TLS included: they are near.
const CONNECT: Duration = Duration::from_secs(2);

/// Between two looks at whether a host that has not answered yet still lives. Its lease ends within
/// seconds where it does not.
const LOOK: Duration = Duration::from_millis(500);

/// Limit for a host that is asked whether it has something.
const HAS: Duration = Duration::from_secs(5);

/// Hosts that are asked at the same time whether they have something.
const ASKED_AT_ONCE: usize = 16;

/// Most bytes of a pipeline's answer: as many as a worker may give, and what JSON adds.
const MAX_ANSWER: u64 = 16 << 20;

/// Seconds after which a session between two hosts may be asked for again.
const RETRY_S: u64 = 1;

/// The path of WebSockets.
const SOCKET: &str = "/v1/ws";

/// Most bytes of a message of another host: a picture.
const MAX_MESSAGE: usize = 64 << 20;

/// A WebSocket of another host.
pub(super) type PeerSocket = WebSocketStream<TokioIo<Upgraded>>;

/// The site, and the way to its other hosts.
pub(in crate::api) struct SiteLink {
    site: Arc<dyn Site>,
    client: HttpClient,
}

/// Another host of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct OtherHost {
    pub(in crate::api) name: String,
    pub(in crate::api) address: String,
}

/// Where a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) enum SessionPlace {
    Here,
    At(OtherHost),
}

/// Why another host has not answered.
#[derive(Debug, thiserror::Error)]
pub(in crate::api) enum OwnerFault {
    /// There is no connection to it, or it broke.
    #[error("host {host} cannot be reached at {address}: {cause}")]
    Unreachable { host: String, address: String, cause: String },
    /// It took too long, or its lease ended meanwhile.
    #[error("host {host} at {address} does not answer")]
    Silent { host: String, address: String },
    /// It does not have the session any more.
    #[error("session {session:?} has just left host {host}")]
    Moved { host: String, session: String },
    /// It does not know the caller's token.
    #[error(
        "host {0} does not know the token: one of the site (`ocelli token add`) every host knows, \
         one of a config all need; and [server] base_path is part of [cluster] address"
    )]
    OtherTokens(String),
}

impl From<OwnerFault> for Problem {
    fn from(fault: OwnerFault) -> Self {
        let detail = fault.to_string();
        match fault {
            OwnerFault::Unreachable { .. } => {
                Self::new(StatusCode::BAD_GATEWAY, "owner_unreachable", detail).retry_after(RETRY_S)
            }
            OwnerFault::Silent { .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "owner_unreachable", detail)
                    .retry_after(RETRY_S)
            }
            OwnerFault::Moved { .. } => {
                Self::unavailable("between_hosts", detail).retry_after(RETRY_S)
            }
            OwnerFault::OtherTokens(_) => {
                Self::new(StatusCode::BAD_GATEWAY, "owner_refuses", detail)
            }
        }
    }
}

impl From<OwnerFault> for Refusal {
    fn from(fault: OwnerFault) -> Self {
        let code = match &fault {
            OwnerFault::Unreachable { .. } | OwnerFault::Silent { .. } => "owner_unreachable",
            OwnerFault::Moved { .. } => "between_hosts",
            OwnerFault::OtherTokens(_) => "owner_refuses",
        };
        Self { code, message: fault.to_string() }
    }
}

/// What a pipeline on another host was asked for came to.
pub(in crate::api) enum RemoteAnswer {
    Answer(Value),
    /// The other host's code and words.
    Refused(String, String),
}

impl SiteLink {
    pub(in crate::api) fn new(site: Arc<dyn Site>) -> Self {
        let client = HttpClient::new(site.authorities());
        Self { site, client }
    }

    pub(in crate::api) fn site(&self) -> &dyn Site {
        &*self.site
    }

    /// Where a session is. `forwarded`: the request comes from a host of the site.
    pub(in crate::api) fn place(
        &self,
        session: &str,
        forwarded: bool,
    ) -> Result<SessionPlace, Problem> {
        let owner = self.site.owner(session);
        if forwarded && !matches!(owner, CameraOwner::Here | CameraOwner::Unknown) {
            let detail = format!("host {} does not have session {session:?}", self.site.host());
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "not_owner", detail));
        }
        match owner {
            // Who subscribes may have had a session made here.
            CameraOwner::Here | CameraOwner::Unknown => Ok(SessionPlace::Here),
            CameraOwner::At { host, address } => {
                Ok(SessionPlace::At(OtherHost { name: host, address }))
            }
            CameraOwner::Nobody => Err(self.between(session)),
        }
    }

    /// The problem that no host runs a session of the site at this moment.
    fn between(&self, session: &str) -> Problem {
        let why = self.site.fault(session).map(|fault| format!(": {fault}")).unwrap_or_default();
        let detail = format!("no host of the site runs session {session:?} at this moment{why}");
        Problem::unavailable("between_hosts", detail).retry_after(RETRY_S)
    }

    /// Whether this host or another one of the site has, or should have, the session.
    pub(in crate::api) fn knows(&self, session: &str) -> bool {
        self.site.owner(session) != CameraOwner::Unknown
    }

    /// A host of the site; `None`: this one. `forwarded`: the request comes from a host of the site.
    pub(in crate::api) fn host(
        &self,
        name: &str,
        forwarded: bool,
    ) -> Result<Option<OtherHost>, Problem> {
        if name == self.site.host() {
            return Ok(None);
        }
        let address = self.site.address(name).filter(|_| !forwarded);
        let address = address.ok_or_else(|| unknown_host(name))?;
        Ok(Some(OtherHost { name: name.to_owned(), address }))
    }

    /// The other hosts that live.
    pub(super) fn others(&self) -> Vec<OtherHost> {
        let hosts = self.site.status().hosts.into_iter().filter(|host| !host.here);
        hosts.map(|host| OtherHost { name: host.id, address: host.address }).collect()
    }

    /// Has another host answer a request.
    pub(in crate::api) async fn forward(
        &self,
        host: &OtherHost,
        session: &str,
        request: Request,
    ) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let given = self.headers(&parts);
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let answer = self.exchange(host, parts.method.clone(), path, given, body).await?;
        match answer.status() {
            StatusCode::MISDIRECTED_REQUEST => {
                let (host, session) = (host.name.clone(), session.to_owned());
                Err(OwnerFault::Moved { host, session }.into())
            }
            StatusCode::UNAUTHORIZED => Err(OwnerFault::OtherTokens(host.name.clone()).into()),
            _ => Ok(passed_on(answer)),
        }
    }

    /// Has other hosts answer a request for something of which it is not known who has it: the
    /// first that has it. `None`: nobody has.
    pub(in crate::api) async fn ask_everyone(&self, parts: &Parts) -> Option<Response> {
        if is_forwarded(&parts.headers) {
            return None;
        }
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let ask = |host: OtherHost| async move {
            let (method, headers) = (parts.method.clone(), self.headers(parts));
            let asked = self.exchange(&host, method, path, headers, Body::empty());
            timeout(HAS, asked).await.ok()?.ok()
        };
        let mut answers =
            std::pin::pin!(stream::iter(self.others()).map(ask).buffer_unordered(ASKED_AT_ONCE));
        let mut later = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Some(answer)
                    if answer.status().is_success()
                        || answer.status() == StatusCode::RANGE_NOT_SATISFIABLE =>
                {
                    return Some(passed_on(answer));
                }
                // It is not there yet, or that host is busy.
                Some(answer) if answer.headers().contains_key(header::RETRY_AFTER) => {
                    later = Some(answer);
                }
                _ => {}
            }
        }
        later.map(passed_on)
    }

    /// Asks the pipeline of a session that another host has.
    pub(in crate::api) async fn ask(
        &self,
        host: &OtherHost,
        kind: RequestKind,
        session: &str,
        words: &Value,
        caller: HeaderMap,
    ) -> Result<RemoteAnswer, OwnerFault> {
        let what = match kind {
            RequestKind::Query => "query",
            RequestKind::Command => "command",
        };
        let name = utf8_percent_encode(session, NON_ALPHANUMERIC);
        let path = format!("/v1/sessions/{name}/{what}");
        let body = Body::from(words.to_string());
        let mut headers = caller;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.exchange(host, Method::POST, &path, headers, body).await?;
        let status = answer.status();
        if status == StatusCode::MISDIRECTED_REQUEST {
            let (host, session) = (host.name.clone(), session.to_owned());
            return Err(OwnerFault::Moved { host, session });
        }
        let mut told = json_of(host, answer, MAX_ANSWER).await?;
        if status.is_success() {
            return Ok(RemoteAnswer::Answer(
                told.get_mut("answer").map(Value::take).unwrap_or_default(),
            ));
        }
        let text = |key: &str| told.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(RemoteAnswer::Refused(text("code"), text("detail")))
    }

    /// What another host answers to a question, as JSON of at most so many bytes.
    pub(super) async fn get(
        &self,
        host: &OtherHost,
        path: &str,
        caller: HeaderMap,
        most: u64,
    ) -> Result<Value, OwnerFault> {
        let answer = self.exchange(host, Method::GET, path, caller, Body::empty()).await?;
        let status = answer.status();
        let told = json_of(host, answer, most).await?;
        if status.is_success() {
            return Ok(told);
        }
        let detail = told.get("detail").and_then(Value::as_str).unwrap_or_default();
        Err(unreachable(host, format!("it answers {status} {detail}")))
    }

    /// Opens a WebSocket of another host.
    pub(super) async fn socket(
        &self,
        host: &OtherHost,
        caller: HeaderMap,
    ) -> Result<PeerSocket, OwnerFault> {
        let key = generate_key();
        let mut headers = caller;
        for (name, value) in [
            (header::CONNECTION, "Upgrade"),
            (header::UPGRADE, "websocket"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let failed = |cause: &dyn std::fmt::Display| unreachable(host, cause.to_string());
        let value = HeaderValue::from_str(&key).map_err(|error| failed(&error))?;
        headers.insert(header::SEC_WEBSOCKET_KEY, value);
        let answer = self.exchange(host, Method::GET, SOCKET, headers, Body::empty()).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            return Err(OwnerFault::OtherTokens(host.name.clone()));
        }
        let accepted = answer.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        let expected = derive_accept_key(key.as_bytes());
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS
            || accepted.is_none_or(|accepted| accepted != expected.as_str())
        {
            return Err(failed(&format!("it opens no WebSocket: {}", answer.status())));
        }
        let upgraded = hyper::upgrade::on(answer).await;
        let upgraded = TokioIo::new(upgraded.map_err(|error| failed(&HttpFault::broken(&error)))?);
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
    }

    /// The headers that name this host and a caller.
    pub(in crate::api) fn of_caller(
        &self,
        token: &OwnToken,
        client: std::net::SocketAddr,
    ) -> HeaderMap {
        let id = RequestId::current();
        let id = id.as_ref().map(RequestId::as_str);
        headers::of_caller(token, self.site.host(), Some(client.ip()), id)
    }

    fn headers(&self, parts: &Parts) -> HeaderMap {
        let token = parts.extensions.get::<OwnToken>().cloned().unwrap_or_default();
        let caller = self.of_caller(&token, gate::peer_of(&parts.extensions));
        headers::of_request(&parts.headers, caller)
    }

    /// Sends a request to another host. Returns the head of its answer; the body is still to come.
    async fn exchange(
        &self,
        host: &OtherHost,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Incoming>, OwnerFault> {
        let failed = |cause: &dyn std::fmt::Display| unreachable(host, cause.to_string());
        let url = Url::parse(&host.address).map_err(|error| failed(&error))?;
        let connected = self.client.connect(&url, CONNECT, |_| Ok(())).await;
        let mut connection = connected.map_err(|fault| match fault {
            HttpFault::Late(_) => silent(host),
            fault => failed(&fault),
        })?;
        let authority = url.host_str().unwrap_or_default();
        let authority = url.port().map_or(authority.into(), |port| format!("{authority}:{port}"));
        let authority = HeaderValue::try_from(authority).map_err(|error| failed(&error))?;
        headers.insert(header::HOST, authority);
        let mut request = Request::new(body);
        *request.method_mut() = method;
        let target = format!("{}{path}", url.path().trim_end_matches('/'));
        *request.uri_mut() = target.parse().map_err(|error| failed(&error))?;
        *request.headers_mut() = headers;
        tokio::select! {
            answer = connection.send_request(request) => {
                answer.map_err(|error| failed(&HttpFault::broken(&error)))
            }
            () = self.gone(&host.name) => Err(silent(host)),
        }
    }

    /// Waits until a host is no member of the site any more.
    async fn gone(&self, host: &str) {
        while self.site.address(host).is_some() {
            sleep(LOOK).await;
        }
    }
}

/// Passes a request on to the host that has the session of its path.
pub(in crate::api) async fn to_owner<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    parameters: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(link) = &state.site else { return Ok(next.run(request).await) };
    let session = parameters.iter().next().map(|(_, value)| value).unwrap_or_default();
    match link.place(session, is_forwarded(request.headers()))? {
        SessionPlace::Here => {
            let session = session.to_owned();
            let answer = next.run(request).await;
            // It is on its way here, or has been ended here.
            if answer.status() == StatusCode::NOT_FOUND
                && link.knows(&session)
                && state.control.session(&session).is_none()
            {
                return Err(link.between(&session));
            }
            Ok(answer)
        }
        SessionPlace::At(host) => {
            tracing::debug!(
                target: "ocelli::cluster", session, host = host.name,
                peer = client_address::shown(gate::peer(&request)), "forwarded"
            );
            link.forward(&host, session, request).await
        }
    }
}

/// Whether a request comes from a host of the site.
pub(in crate::api) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED_BY)
}

pub(super) fn unknown_host(name: &str) -> Problem {
    let detail = format!("the site has no host {name:?} that lives");
    Problem::new(StatusCode::NOT_FOUND, "unknown_host", detail)
}

fn unreachable(host: &OtherHost, cause: String) -> OwnerFault {
    OwnerFault::Unreachable { host: host.name.clone(), address: host.address.clone(), cause }
}

fn silent(host: &OtherHost) -> OwnerFault {
    OwnerFault::Silent { host: host.name.clone(), address: host.address.clone() }
}

async fn json_of(
    host: &OtherHost,
    answer: Response<Incoming>,
    most: u64,
) -> Result<Value, OwnerFault> {
    if answer.status() == StatusCode::UNAUTHORIZED {
        return Err(OwnerFault::OtherTokens(host.name.clone()));
    }
    let body = read(answer.into_body(), most).await;
    let body = body.map_err(|fault| unreachable(host, fault.to_string()))?;
    let body = body.ok_or_else(|| unreachable(host, "its answer is too long".to_owned()))?;
    serde_json::from_slice(&body)
        .map_err(|_| unreachable(host, "it does not answer as an Ocelli host does".to_owned()))
}

/// An answer as the client gets it.
fn passed_on(answer: Response<Incoming>) -> Response {
    let (parts, body) = answer.into_parts();
    let mut passed = Response::new(Body::new(body));
    *passed.status_mut() = parts.status;
    *passed.headers_mut() = headers::end_to_end(&parts.headers);
    passed
}
