//! Refuses web pages of other origins, except those in the config. A browser's same-origin policy
//! stops neither a WebSocket nor a POST, and without tokens any page in this machine's browser
//! could send them.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::gate::Gate;
use super::problem::Problem;
use crate::config::ServerConfig;

/// Methods and headers that pages of the config's origins may use.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("Authorization, Content-Type, Last-Event-ID, X-Request-Id");

/// Where a proxy says by which scheme it was asked.
const PROXYS_SCHEME: &str = "x-forwarded-proto";

/// Headers of an answer that they may read.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Location, Retry-After, WWW-Authenticate, X-Request-Id");

/// Seconds for which a browser may cache the answer to a preflight request.
const REMEMBERED: HeaderValue = HeaderValue::from_static("600");

/// The origin of a request.
#[derive(Debug, PartialEq, Eq)]
enum RequestOrigin {
    /// A program, which sends no `Origin`, or a page of the API's own origin.
    Here,
    /// A page of one of the config's origins.
    Allowed(HeaderValue),
    /// A page of another origin.
    Foreign,
}

/// Refuses a request of a foreign page. Answers pages of the config's origins with CORS headers.
pub(super) async fn check(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let config = gate.config();
    let refused = |code, detail| Problem::new(StatusCode::FORBIDDEN, code, detail).into_response();
    if gate.keys.open() && !asked_by_name(request.headers(), &config.server) {
        return refused(
            "foreign_host",
            "without tokens this host is asked as localhost, by a loopback address, or by a name \
                of `[server] hosts` alone",
        );
    }
    match from(request.headers(), gate.scheme, &config.server) {
        RequestOrigin::Here => next.run(request).await,
        RequestOrigin::Foreign => refused(
            "foreign_origin",
            "a page of another origin may not use this API unless `[server] origins` names it; a \
                reverse proxy in front must pass on the Host header, and where it ends TLS send \
                X-Forwarded-Proto",
        ),
        RequestOrigin::Allowed(origin) => {
            let asks = request.method() == Method::OPTIONS
                && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
            let mut response =
                if asks { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
            let mut set = |name: HeaderName, value| response.headers_mut().append(name, value);
            set(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            set(header::VARY, HeaderValue::from_static("Origin"));
            if asks {
                set(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
                set(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
                set(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED);
            } else {
                set(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            }
            response
        }
    }
}

/// `scheme` is that of the host's own port. A proxy in front of it that ends TLS says so in
/// `X-Forwarded-Proto`, which no page may set for another origin.
fn from(headers: &HeaderMap, scheme: &str, server: &ServerConfig) -> RequestOrigin {
    let Some(value) = headers.get(header::ORIGIN) else { return RequestOrigin::Here };
    let origin = value.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let scheme = asked_by(headers, scheme);
    let own = origin.split_once("://").zip(host).is_some_and(|((by, of), host)| {
        by.eq_ignore_ascii_case(scheme) && of.eq_ignore_ascii_case(host)
    });
    if own {
        RequestOrigin::Here
    } else if server.origins.iter().any(|allowed| allowed.as_str() == origin) {
        RequestOrigin::Allowed(value.clone())
    } else {
        RequestOrigin::Foreign
    }
}

/// The scheme of a request: that of the host's own port, or what a proxy says.
pub(super) fn asked_by<'a>(headers: &'a HeaderMap, own: &'a str) -> &'a str {
    headers.get(PROXYS_SCHEME).map_or(own, |by| by.to_str().unwrap_or_default())
}

/// Whether the `Host` header has a name of this host. A page of evil.example, whose name resolves
/// to 127.0.0.1, has the same origin as the API there; but its requests name evil.example.
fn asked_by_name(headers: &HeaderMap, server: &ServerConfig) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    // Every browser sends it.
    let Some(host) = hosts.next() else { return true };
    let host = host.to_str().unwrap_or_default().to_ascii_lowercase();
    let name = match host.rfind(']') {
        Some(end) => host.get(..=end).unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    hosts.next().is_none()
        && (name == "localhost"
            || name.ends_with(".localhost")
            || literal.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
            || server.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
            || server.origins.iter().any(|origin| origin.host() == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> ServerConfig {
        ServerConfig {
            origins: vec!["https://dash.example".parse().unwrap()],
            hosts: vec!["Cams.local".into()],
            ..ServerConfig::default()
        }
    }

    #[test]
    fn the_own_origin_programs_and_named_origins_pass_and_no_other() {
        let case = |origin: Option<&'static str>, host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            origin.map(|origin| headers.insert(header::ORIGIN, origin.parse().unwrap()));
            from(&headers, "http", &server())
        };
        assert_eq!(case(None, "127.0.0.1:8001"), RequestOrigin::Here);
        assert_eq!(case(Some("http://127.0.0.1:8001"), "127.0.0.1:8001"), RequestOrigin::Here);
        assert_eq!(case(Some("http://Cams.example"), "cams.example"), RequestOrigin::Here);
        let dash = RequestOrigin::Allowed(HeaderValue::from_static("https://dash.example"));
        assert_eq!(case(Some("https://dash.example"), "127.0.0.1:8001"), dash);
        for foreign in [
            "http://127.0.0.1:3000",
            "https://127.0.0.1:8001",
            "https://evil.example",
            "http://dash.example",
            "https://dash.example:8443",
            "https://dash.example.evil.com",
            "https://dash.example/",
            "null",
            "",
        ] {
            assert_eq!(case(Some(foreign), "127.0.0.1:8001"), RequestOrigin::Foreign, "{foreign}");
        }
        assert_eq!(case(Some("null"), ""), RequestOrigin::Foreign);
    }

    #[test]
    fn a_page_of_another_scheme_is_of_another_origin() {
        let case = |origin: &'static str, own, forwarded: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("cams.example"));
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            forwarded.map(|by| headers.insert(PROXYS_SCHEME, HeaderValue::from_static(by)));
            from(&headers, own, &server())
        };
        for (scheme, other) in [("http", "https"), ("https", "http")] {
            let page =
                |by| if by == "http" { "http://cams.example" } else { "https://cams.example" };
            assert_eq!(case(page(scheme), scheme, None), RequestOrigin::Here);
            assert_eq!(case(page(other), scheme, None), RequestOrigin::Foreign);
            assert_eq!(case(page(other), scheme, Some(other)), RequestOrigin::Here);
            assert_eq!(case(page(scheme), scheme, Some(other)), RequestOrigin::Foreign);
        }
    }

    #[test]
    fn a_name_that_somebody_lets_resolve_to_this_machine_is_not_its_own() {
        let case = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            asked_by_name(&headers, &server())
        };
        for own in [
            "127.0.0.1:8001",
            "127.8.9.1",
            "[::1]:8001",
            "[::ffff:127.0.0.1]",
            "LOCALHOST:8001",
            "a.localhost",
            "cams.LOCAL:80",
            "dash.example",
        ] {
            assert!(case(own), "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:8001",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "evillocalhost",
            "",
        ] {
            assert!(!case(foreign), "{foreign}");
        }
        assert!(asked_by_name(&HeaderMap::new(), &server()));
        let mut two = HeaderMap::new();
        two.append(header::HOST, HeaderValue::from_static("localhost"));
        two.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert!(!asked_by_name(&two, &server()));
    }
}
