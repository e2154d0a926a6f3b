//! The address of a request's client, which a trusted reverse proxy says in `X-Forwarded-For`.
//!
//! Each proxy on the way adds the address from which it was asked at the end of the list. So the
//! list is read from its end, for as long as those who wrote it are trusted: what a client has put
//! in front counts for nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;

use super::gate::{self, Gate};
use crate::config::TrustedProxy;

const HEADER: &str = "x-forwarded-for";

/// Puts the client's address in the place of a trusted proxy's.
pub(super) async fn find(
    State(gate): State<Arc<Gate>>,
    mut request: Request,
    next: Next,
) -> Response {
    let trusted = &gate.config().server.trusted_proxies;
    if !trusted.is_empty() {
        let client = client(gate::peer(&request), request.headers(), trusted);
        request.extensions_mut().insert(ConnectInfo(client));
    }
    next.run(request).await
}

/// Of a client behind a proxy the port is not known: 0.
fn client(peer: SocketAddr, headers: &HeaderMap, trusted: &[TrustedProxy]) -> SocketAddr {
    let is_proxy = |address: IpAddr| trusted.iter().any(|proxy| proxy.contains(address));
    let lines = headers.get_all(HEADER).iter().map(|line| line.to_str().unwrap_or_default());
    let named = lines.flat_map(|line| line.split(',')).map(str::trim);
    let mut client = peer;
    for name in named.rev() {
        if !is_proxy(client.ip()) {
            break;
        }
        // Who is trusted and says nothing that can be read is as far as the way is known.
        let Some(address) = address(name) else { break };
        client = SocketAddr::new(address, 0);
    }
    client
}

/// Some proxies add the port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// An address in a log.
pub(super) fn shown(peer: SocketAddr) -> String {
    if peer.port() == 0 { peer.ip().to_string() } else { peer.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HEADER, line.parse().unwrap());
        }
        let trusted = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap());
        shown(client(peer.parse().unwrap(), &headers, &trusted))
    }

    #[test]
    fn a_trusted_proxy_says_who_its_client_is() {
        assert_eq!(of("127.0.0.1:9", &["203.0.113.7"]), "203.0.113.7");
        assert_eq!(of("[::ffff:127.0.0.1]:9", &["203.0.113.7"]), "203.0.113.7");
        assert_eq!(of("[fd00::1]:9", &["2001:db8::7"]), "2001:db8::7");
        assert_eq!(of("127.0.0.1:9", &["203.0.113.7:5555"]), "203.0.113.7");
        assert_eq!(of("127.0.0.1:9", &["[2001:db8::7]:5555"]), "2001:db8::7");
        assert_eq!(of("127.0.0.1:9", &["[2001:db8::7]"]), "2001:db8::7");
        assert_eq!(of("127.0.0.1:9", &["203.0.113.7, 10.1.2.3", "10.9.9.9"]), "203.0.113.7");
        assert_eq!(of("127.0.0.1:9", &["10.0.0.5"]), "10.0.0.5", "a client among the proxies");
    }

    #[test]
    fn what_a_client_writes_itself_counts_for_nothing() {
        assert_eq!(of("203.0.113.7:9", &["127.0.0.1"]), "203.0.113.7:9", "no proxy");
        assert_eq!(of("127.0.0.1:9", &["127.0.0.1, 203.0.113.7"]), "203.0.113.7");
        assert_eq!(of("127.0.0.1:9", &["198.51.100.1", "203.0.113.7"]), "203.0.113.7");
        assert_eq!(of("127.0.0.1:9", &["203.0.113.7, unknown"]), "127.0.0.1:9");
        assert_eq!(of("127.0.0.1:9", &["nonsense, 10.0.0.5"]), "10.0.0.5");
        for nothing in [&[][..], &[""], &[","], &["x".repeat(9000).as_str()]] {
            assert_eq!(of("127.0.0.1:9", nothing), "127.0.0.1:9");
        }
    }
}
