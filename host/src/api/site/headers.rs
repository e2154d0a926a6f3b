//! The headers of a request that goes on to another host, and of its answer.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::api::request_id;

/// The header of a request that a host of the site has passed on: its name. Whoever gets it answers
/// itself.
pub(in crate::api) const FORWARDED_BY: HeaderName = HeaderName::from_static("ocelli-forwarded-by");

/// Who asks, by what this host found out itself.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Headers of one connection (RFC 9110, 7.6.1), in either direction.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a request tells this host alone: by which name, page, proxy and login it was asked. All of
/// it has been judged here.
const OWN: [&str; 12] = [
    "host",
    "cookie",
    "origin",
    "referer",
    "expect",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-ocelli",
    "x-request-id",
    "ocelli-forwarded-by",
];

/// Headers of browsers about how a page asks, and of WebSockets.
const OF_BROWSERS: &str = "sec-";

/// The token by which a request was let in, for hosts that it goes on to: they know the same tokens.
/// `None`: a host without tokens was asked.
#[derive(Clone, Default)]
pub(in crate::api) struct OwnToken(pub(in crate::api) Option<Arc<str>>);

/// It is a secret.
impl fmt::Debug for OwnToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "OwnToken" } else { "no token" })
    }
}

impl OwnToken {
    fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0.as_deref()?)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// The headers that name this host, the request and its caller, and nothing else.
pub(super) fn of_caller(
    token: &OwnToken,
    host: &str,
    client: Option<IpAddr>,
    request_id: Option<&str>,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(FORWARDED_BY, host);
    if let Some(client) = client {
        set(FORWARDED_FOR, &client.to_string());
    }
    if let Some(id) = request_id {
        set(request_id::HEADER, id);
    }
    if let Some(token) = token.header() {
        headers.insert(header::AUTHORIZATION, token);
    }
    headers
}

/// The headers of a request as they go on, with those of [`of_caller`].
pub(super) fn of_request(given: &HeaderMap, caller: HeaderMap) -> HeaderMap {
    let mut headers = end_to_end(given);
    for name in OWN {
        headers.remove(name);
    }
    // The token may have come in another way, and two headers count as none.
    headers.remove(header::AUTHORIZATION);
    let browsers: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(OF_BROWSERS)).cloned().collect();
    for name in browsers {
        headers.remove(name);
    }
    headers.extend(caller);
    headers
}

/// Headers without those of one connection.
pub(super) fn end_to_end(given: &HeaderMap) -> HeaderMap {
    let listed = given.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let listed: Vec<String> = listed
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut headers = HeaderMap::with_capacity(given.len());
    for (name, value) in given {
        let hop = HOP_BY_HOP.contains(&name.as_str())
            || listed.iter().any(|listed| listed == name.as_str());
        if !hop {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_is_of_one_connection_or_of_this_host_alone_does_not_go_on() {
        let given = map(&[
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic abc"),
            ("host", "b.example"),
            ("cookie", "ocelli=secret"),
            ("origin", "https://b.example"),
            ("referer", "https://b.example/ui/"),
            ("sec-fetch-site", "same-origin"),
            ("sec-websocket-protocol", "ocelli.bearer.secret"),
            ("x-forwarded-for", "10.9.9.9, 10.8.8.8"),
            ("x-forwarded-proto", "https"),
            ("x-ocelli", "1"),
            ("x-request-id", "the-clients"),
            ("ocelli-forwarded-by", "nobody"),
            ("authorization", "Bearer given"),
            ("authorization", "Bearer twice"),
            ("accept", "image/jpeg"),
            ("accept", "*/*"),
            ("range", "bytes=0-9"),
            ("content-type", "application/json"),
            ("last-event-id", "7"),
            ("traceparent", "00-1-2-01"),
        ]);
        let token = OwnToken(Some("own".into()));
        let caller = of_caller(&token, "b", Some([10, 0, 0, 7].into()), Some("id-1"));
        let on = of_request(&given, caller);
        let expected = map(&[
            ("accept", "image/jpeg"),
            ("accept", "*/*"),
            ("range", "bytes=0-9"),
            ("content-type", "application/json"),
            ("last-event-id", "7"),
            ("traceparent", "00-1-2-01"),
            ("ocelli-forwarded-by", "b"),
            ("x-forwarded-for", "10.0.0.7"),
            ("x-request-id", "id-1"),
            ("authorization", "Bearer own"),
        ]);
        assert_eq!(on, expected);
        assert!(on[header::AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn without_a_token_there_is_no_header_of_one_and_it_is_never_shown() {
        let caller = of_caller(&OwnToken(None), "b", None, None);
        assert_eq!(caller, map(&[("ocelli-forwarded-by", "b")]));
        assert!(!format!("{:?}", OwnToken(Some("hush".into()))).contains("hush"));
        assert_eq!(of_caller(&OwnToken(Some("a\nb".into())), "b", None, None), caller);
    }

    #[test]
    fn an_answer_keeps_what_is_for_the_client() {
        let answer = map(&[
            ("connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("content-type", "image/jpeg"),
            ("retry-after", "1"),
            ("ocelli-frame", "7"),
        ]);
        let kept =
            map(&[("content-type", "image/jpeg"), ("retry-after", "1"), ("ocelli-frame", "7")]);
        assert_eq!(end_to_end(&answer), kept);
    }
}
