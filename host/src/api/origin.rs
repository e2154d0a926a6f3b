//! Keeps web pages of other origins out. The API has no tokens yet and listens on loopback, where every page that the
//! machine's browser shows could otherwise open a WebSocket to it or have a session restarted: neither of the two is
//! held back by the browser's same-origin policy.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// Refuses a request that a page of another origin than this API's made. Programs send no `Origin`.
pub(super) async fn check(request: Request, next: Next) -> Response {
    if same_origin(request.headers()) {
        return next.run(request).await;
    }
    let detail = "a page of another origin may not use this API; a reverse proxy in front must pass on the Host header";
    Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail).into_response()
}

fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match text(header::ORIGIN) {
        None => true,
        Some(origin) => {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_some_and(|authority| {
                text(header::HOST).is_some_and(|host| host.eq_ignore_ascii_case(authority))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_origin_and_programs_pass_and_no_other() {
        let case = |origin: Option<&'static str>, host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            origin.map(|origin| headers.insert(header::ORIGIN, origin.parse().unwrap()));
            same_origin(&headers)
        };
        assert!(case(None, "127.0.0.1:8001"));
        assert!(case(Some("http://127.0.0.1:8001"), "127.0.0.1:8001"));
        assert!(case(Some("https://Cams.example"), "cams.example"));
        assert!(!case(Some("http://127.0.0.1:3000"), "127.0.0.1:8001"));
        assert!(!case(Some("https://evil.example"), "127.0.0.1:8001"));
        assert!(!case(Some("null"), "127.0.0.1:8001"));
        assert!(!case(Some(""), "127.0.0.1:8001"));
    }
}
