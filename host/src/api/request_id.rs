//! An id for each request: in the header `X-Request-Id` of its answer, in the body of an error, and
//! in the log, so that a client's error leads to the host's line about it.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use super::{client_address, gate};

/// The header of a client's or a proxy's own id, and of every answer.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Most bytes of a client's id: twice a W3C trace context, the longest that is in use.
const MAX_BYTES: usize = 128;

/// Bytes of a path in the log: a line stays a line.
const MAX_PATH: usize = 200;

/// Characters of a method in the log: anybody may send one of their own.
const MAX_METHOD: usize = 16;

/// The log target of requests.
const TARGET: &str = "ocelli::requests";

tokio::task_local! {
    static CURRENT: RequestId;
}

/// The id of a request: ASCII letters, digits and `-_.:=+/@`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    /// The client's own, if there is one and it is plain enough for a log; else a new one. Two
    /// headers count as none: nothing says which one a proxy has logged.
    fn of(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(HEADER).iter();
        let own = given.next().filter(|_| given.next().is_none());
        own.and_then(|own| own.to_str().ok()).filter(|own| is_plain(own)).map_or_else(
            || Self(format!("{:032x}", rand::random::<u128>()).into()),
            |own| Self(own.into()),
        )
    }

    /// That of the request for which this task works, if it works for one.
    pub(super) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// What goes on with this task's request in another task.
    pub(super) fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
        let id = Self::current();
        async move {
            match id {
                Some(id) => CURRENT.scope(id, work).await,
                None => work.await,
            }
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_plain(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:=+/@".contains(&byte);
    !id.is_empty() && id.len() <= MAX_BYTES && id.bytes().all(plain)
}

/// Gives a request its id, and its answer the header.
pub(super) async fn identify(request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let begun = Instant::now();
    let method: String = request.method().as_str().chars().take(MAX_METHOD).collect();
    let peer = client_address::shown(gate::peer(&request));
    let path = request.uri().path();
    let path = path.get(..path.floor_char_boundary(MAX_PATH)).unwrap_or_default().to_owned();
    let mut response = CURRENT.scope(id.clone(), next.run(request)).await;
    tracing::debug!(
        target: TARGET,
        request_id = id.as_str(), %method, path, %peer, status = response.status().as_u16(),
        ms = begun.elapsed().as_millis() as u64, "answered"
    );
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HEADER, HeaderValue::from_bytes(line).unwrap());
        }
        RequestId::of(&headers).as_str().to_owned()
    }

    #[test]
    fn a_plain_id_is_kept_and_any_other_is_replaced() {
        let longest = "a".repeat(MAX_BYTES);
        let amazons = "Root=1-67891233-abcdef012345678912345678";
        for kept in ["a", "3f2504e0-4f89-11d3-9a0c-0305e82c3301", amazons, &longest] {
            assert_eq!(of(&[kept.as_bytes()]), kept);
        }
        let long = "a".repeat(10 << 10);
        let wrong: [&[&[u8]]; 8] = [
            &[],
            &[b""],
            &[b"a b"],
            &[b"a\tb"],
            &["ü".as_bytes()],
            &[b"<script>"],
            &[long.as_bytes()],
            &[b"a", b"a"],
        ];
        for lines in wrong {
            let id = of(lines);
            assert!(id.len() == 32 && is_plain(&id), "{id}");
            assert_ne!(id, of(lines), "each request has its own");
        }
    }

    #[tokio::test]
    async fn work_without_a_request_has_no_id() {
        assert_eq!(RequestId::current(), None);
        assert_eq!(RequestId::carried(async { RequestId::current() }).await, None);
        let id = RequestId("a".into());
        let elsewhere = CURRENT.sync_scope(id.clone(), || {
            tokio::spawn(RequestId::carried(async { RequestId::current() }))
        });
        assert_eq!(elsewhere.await.unwrap(), Some(id));
        assert_eq!(RequestId::current(), None);
    }
}
