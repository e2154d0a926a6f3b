//! Connections: from the listener, through TLS if there is a certificate, to the routes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Uri;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::audit::AuditLog;
use super::connections::{ConnectionSlot, Connections};
use super::tls;
use crate::config::BasePath;

/// Limit for the head of a request: from the first byte of a connection, and between two requests.
const HEAD: Duration = Duration::from_secs(30);

/// Most bytes of a request's head, and of what is read ahead of a body.
const HEAD_BYTES: usize = 32 << 10;

/// Most lines of a request's head.
const HEAD_LINES: usize = 100;

/// Milliseconds without an acknowledgement of sent data after which the connection is closed: the
/// client is gone, or takes nothing. Longer than a subscriber's limit, so that a subscriber gets
/// its reason first.
const UNTAKEN_MS: u32 = 60_000;

/// Bytes that the kernel takes for a client before the host waits for it; it doubles them for its
/// own needs. Its own choice grows to megabytes, in which pictures would wait where a link is slow.
/// 128 KiB in each round trip of 50 ms are 2.5 MB a second.
const SEND_BUFFER: usize = 128 << 10;

/// Pause after an error of the listener, usually a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The answer to a plain request on a TLS port.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close\r\n\
    Content-Length: 106\r\n\r\n\
    {\"title\":\"Bad Request\",\"status\":400,\"code\":\"tls_required\",\"detail\":\"this port speaks HTTPS: ask https://\"}";

/// What all connections share.
pub(super) struct ApiListener {
    pub(super) audit: AuditLog,
    pub(super) router: Router,
    /// Removed from the paths of requests.
    pub(super) base: BasePath,
    /// The current certificate. `None`: plain HTTP.
    pub(super) tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// Cancelled when no more requests are accepted.
    pub(super) stop: CancellationToken,
    /// Cancelled when requests under way are dropped.
    pub(super) abort: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl ApiListener {
    /// Accepts connections until the host stops.
    pub(super) async fn serve(self, listener: TcpListener) {
        let connections = Arc::new(Connections::new(self.audit.clone()));
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_the_clients(&error) => continue,
                Err(error) => {
                    tracing::error!("taking a connection: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            self.begin(stream, connections.open(peer));
        }
    }

    fn begin(&self, stream: TcpStream, slot: ConnectionSlot) {
        // Without Nagle's delay. An error here means that the connection is gone.
        let _ = stream.set_nodelay(true);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNTAKEN_MS);
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
        let (router, stop, abort) = (self.router.clone(), self.stop.clone(), self.abort.clone());
        let acceptor = self.tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.borrow())));
        let (slot, base) = (Arc::new(slot), self.base.clone());
        self.tasks.spawn(async move {
            let served = async {
                let Some(acceptor) = acceptor else {
                    return exchange(stream, &slot, router, &base, &stop).await;
                };
                let secured = timeout(tls::HANDSHAKE, secured(acceptor, stream));
                if let Some(Ok(Some(stream))) = stop.run_until_cancelled(secured).await {
                    exchange(stream, &slot, router, &base, &stop).await;
                }
            };
            tokio::select! {
                () = served => {}
                () = slot.displaced() => {}
                () = abort.cancelled() => {}
            }
        });
    }
}

/// The TLS handshake. A client that sends plain HTTP gets a plain answer that says so.
async fn secured(
    acceptor: TlsAcceptor,
    mut stream: TcpStream,
) -> Option<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    let mut first = [0];
    stream.peek(&mut first).await.ok()?;
    // Methods are capital letters; TLS begins with 22.
    if first.iter().all(u8::is_ascii_uppercase) {
        let _ = stream.write_all(PLAIN).await;
        return None;
    }
    match acceptor.accept(stream).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!("TLS handshake: {error}");
            None
        }
    }
}

/// Serves the requests of one connection. Each has its slot, which a WebSocket keeps.
async fn exchange<S>(
    stream: S,
    slot: &Arc<ConnectionSlot>,
    router: Router,
    base: &BasePath,
    stop: &CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (slot, peer) = (Arc::clone(slot), slot.peer());
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(Arc::clone(&slot));
        if let Some(uri) = below(base, request.uri()) {
            *request.uri_mut() = uri;
        }
        // A router is always ready.
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_LINES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, "connection: {error}");
    }
}

/// A request's URI as the routes have it, without the base path. `None`: it is that already, of a
/// proxy that removes the path itself, or of a client at the host's own port.
fn below(base: &BasePath, uri: &Uri) -> Option<Uri> {
    let rest = base.strip(uri.path_and_query()?.as_str())?;
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{slash}{rest}").parse().ok();
    Uri::from_parts(parts).ok()
}

/// Errors of a connection that closed before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_path_is_removed_where_a_path_has_it() {
        let base: BasePath = "/cams".parse().unwrap();
        let below = |uri: &str| below(&base, &uri.parse().unwrap()).map(|uri| uri.to_string());
        for (uri, expected) in [
            ("/cams", Some("/")),
            ("/cams/", Some("/")),
            ("/cams?a=/cams", Some("/?a=/cams")),
            ("/cams/v1/sessions/a%2Fb?x=%20", Some("/v1/sessions/a%2Fb?x=%20")),
            ("/cams/cams/x", Some("/cams/x")),
            ("/cams//evil.example/", Some("//evil.example/")),
            ("/camsx", None),
            ("/v1/sessions", None),
            ("/", None),
        ] {
            assert_eq!(below(uri).as_deref(), expected, "{uri}");
        }
    }

    #[test]
    fn the_answer_to_plain_http_is_a_whole_problem() {
        let text = std::str::from_utf8(PLAIN).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len()).trim_end().to_owned()),
            "{}",
            body.len()
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(body).unwrap()["code"],
            "tls_required"
        );
    }
}
