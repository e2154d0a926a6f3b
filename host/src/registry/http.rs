//! Requests to a registry, over TCP or TLS, by hyper: each on a connection of its own, each answer
//! with a bound on its bytes and its time.
//!
//! A registry leads its clients on: to a place where they get a token, and to one where a component
//! lies. The host follows over TLS alone, unless the registry itself is asked without, and not into
//! this machine or its link, unless the registry itself is there.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use hyper::{Method, Response, StatusCode};
use serde::Deserialize;
use url::{Host, Url};

use super::error::{RegistryFault, words};
use crate::util::http_client::{self, HttpClient, HttpFault, request};

/// For a connection, its TLS included.
const CONNECT: Duration = Duration::from_secs(10);

/// For an answer that is no component.
pub(super) const ANSWER: Duration = Duration::from_secs(30);

/// For a component, either way: 64 MiB over a line of 5 Mbit/s take 107 s.
pub(super) const TRANSFER: Duration = Duration::from_secs(180);

/// Most bytes of an answer that is no component. A manifest of one has 600, with annotations more;
/// tokens of cloud services have some thousand.
pub(super) const MAX_ANSWER: u64 = 256 << 10;

/// Most bytes of an answer that says why there is none.
const MAX_REFUSAL: u64 = 16 << 10;

/// Redirections of one request. Registries with a store elsewhere need one.
const MAX_REDIRECTIONS: usize = 4;

/// The name that the registry of Docker Hub goes by, and its address.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// One request, without what every request has.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// What it is about, for errors: "the manifest".
    pub(super) what: &'static str,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    pub(super) fn get(what: &'static str, url: Url) -> Self {
        let (method, headers, body) = (Method::GET, HeaderMap::new(), Bytes::new());
        Self { what, method, url, headers, body }
    }
}

/// The way to a registry, and to where it leads.
pub(super) struct Http {
    /// Its root: `https://registry.example/`.
    pub(super) base: Url,
    /// Whether it is at a loopback address by its name.
    local: bool,
    /// Whether it is asked without TLS because of that alone: its address is held to it.
    assumed_plain: bool,
    client: HttpClient,
}

impl Http {
    /// To the registry of this name. `plain`: whether without TLS; `None`: at a loopback address.
    pub(super) fn new(
        registry: &str,
        plain: Option<bool>,
        ca: Option<PathBuf>,
    ) -> Result<Self, RegistryFault> {
        let place = if registry == HUB.0 { HUB.1 } else { registry };
        let parse = |scheme: &str| {
            let url = Url::parse(&format!("{scheme}://{place}/"));
            url.map_err(|error| RegistryFault::Setting(error.to_string()))
        };
        let base = parse("https")?;
        let local = match base.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        let base = if plain.unwrap_or(local) { parse("http")? } else { base };
        Ok(Self {
            base,
            local,
            assumed_plain: local && plain.is_none(),
            client: HttpClient::new(ca),
        })
    }

    /// Whether a URL is the registry's own: what it is told stays with it.
    pub(super) fn owns(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Sends a request, to the registry with `login`, and follows where it leads if it asks for
    /// something.
    pub(super) async fn send(
        &mut self,
        mut call: Call,
        login: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, RegistryFault> {
        for _ in 0..=MAX_REDIRECTIONS {
            let answer = self.exchange(&call, login).await?;
            // The login is the registry's: nobody else who asks for one is met with it.
            if answer.status() == StatusCode::UNAUTHORIZED && !self.owns(&call.url) {
                let status = answer.status();
                return Err(RegistryFault::Status { what: call.what, status, said: String::new() });
            }
            let leads_on = answer.status().is_redirection() && call.method == Method::GET;
            let location = answer.headers().get(LOCATION).filter(|_| leads_on);
            let Some(location) = location else { return Ok(answer) };
            call.url = self.resolve(&call, location)?;
        }
        Err(RegistryFault::strange(call.what, "it leads on without end"))
    }

    /// Sends a request to the one place that it is for.
    pub(super) async fn send_here(
        &mut self,
        call: &Call,
    ) -> Result<Response<Incoming>, RegistryFault> {
        self.exchange(call, None).await
    }

    /// The place that an answer names, if the host may go there.
    pub(super) fn resolve(
        &self,
        call: &Call,
        location: &HeaderValue,
    ) -> Result<Url, RegistryFault> {
        let place = location.to_str().ok().and_then(|place| call.url.join(place).ok());
        let place = place.ok_or_else(|| RegistryFault::strange(call.what, "no Location"))?;
        self.admit(&place)?;
        Ok(place)
    }

    /// Checks that a place may be asked.
    pub(super) fn admit(&self, url: &Url) -> Result<(), RegistryFault> {
        let cause = match url.scheme() {
            "https" => return Ok(()),
            "http" if self.base.scheme() == "http" => return Ok(()),
            "http" => "it is asked over TLS, and this is without",
            _ => "this is no place on the web",
        };
        Err(RegistryFault::Astray { place: shown(url), cause })
    }

    async fn exchange(
        &mut self,
        call: &Call,
        login: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, RegistryFault> {
        let fault = |fault| RegistryFault::at(|| shown(&call.url), fault);
        let admits = |address| self.reaches(&call.url, address);
        let connected = self.client.connect(&call.url, CONNECT, admits).await;
        let mut connection = connected.map_err(fault)?;
        let mut headers = call.headers.clone();
        if let Some(login) = login.filter(|_| self.owns(&call.url)) {
            headers.insert(AUTHORIZATION, login.clone());
        }
        let request = request(call.method.clone(), &call.url, headers, call.body.clone());
        let strange = || RegistryFault::strange(call.what, "a URL that is none");
        let sent = connection.send_request(request.ok_or_else(strange)?).await;
        sent.map_err(|error| fault(HttpFault::broken(&error)))
    }

    /// Checks that an address may be connected to; the error says why not.
    fn reaches(&self, url: &Url, address: IpAddr) -> Result<(), &'static str> {
        if self.owns(url) {
            let kept = !self.assumed_plain || address.to_canonical().is_loopback();
            return kept.then_some(()).ok_or("this is no loopback address");
        }
        let inside = match address.to_canonical() {
            IpAddr::V4(inner) => {
                inner.is_loopback() || inner.is_unspecified() || inner.is_link_local()
            }
            IpAddr::V6(inner) => {
                inner.is_loopback() || inner.is_unspecified() || inner.is_unicast_link_local()
            }
        };
        (self.local || !inside).then_some(()).ok_or("this is this machine's own")
    }
}

/// Reads an answer to its end. `None`: it has more than `most` bytes, and is not read further.
pub(super) async fn read(
    answer: Response<Incoming>,
    most: u64,
) -> Result<Option<Vec<u8>>, RegistryFault> {
    let read = http_client::read(answer.into_body(), most).await;
    read.map_err(|fault| RegistryFault::at(String::new, fault))
}

/// The fault of an answer with another status than the expected one.
pub(super) async fn refusal(
    what: &'static str,
    answer: Response<Incoming>,
    logged_in: bool,
) -> RegistryFault {
    let status = answer.status();
    let body = read(answer, MAX_REFUSAL).await.ok().flatten().unwrap_or_default();
    let said = said(&body);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            RegistryFault::Login { status, logged_in, said }
        }
        _ => RegistryFault::Status { what, status, said },
    }
}

/// A place for a message, without what may be secret: a login, or a signature in the query.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Where a URL cannot have them, it has none.
    let _ = (url.set_username(""), url.set_password(None));
    words(url.as_str())
}

/// The registry's reason, in its own words (OCI distribution specification, "Error codes").
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct RefusalBody {
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        #[serde(default)]
        message: String,
    }
    let refusal = serde_json::from_slice::<RefusalBody>(body).ok();
    let reason = refusal.and_then(|refusal| refusal.errors.into_iter().next());
    reason.map(|reason| words(&reason.message)).unwrap_or_default()
}
