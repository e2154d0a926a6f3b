//! The open connections: a small pool without an authenticated request yet, and those of callers.
//!
//! A connection begins as a stranger's. The first request that is authenticated makes it a
//! caller's, with a place under `[server] max_connections`, which it has until it ends. When there
//! is no room for another stranger, the oldest of the address that has the most is closed. So a
//! client that opens connections and sends no valid request takes no place of a caller's, and new
//! connections of other addresses are served.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::audit::AuditLog;
use super::limits::site;
use crate::config::ServerConfig;

/// Connections without an authenticated request. A handshake and a request take some round trips:
/// all displays of a site that come back in the same second pass through so many. One takes up to
/// 64 KiB, so that all of them take 16 MiB.
pub(super) const MAX_STRANGERS: usize = 256;

/// The least time between two log lines about connections that were turned away.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

/// Counts the open connections, by address.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<Open>,
    audit: AuditLog,
}

#[derive(Debug, Default)]
struct Open {
    callers: usize,
    callers_by_site: HashMap<IpAddr, usize>,
    /// By number: the oldest first.
    strangers: BTreeMap<u64, Stranger>,
    next: u64,
    turned_away: TurnedAway,
}

#[derive(Debug)]
struct Stranger {
    site: IpAddr,
    /// Cancelled when it has to go.
    displaced: CancellationToken,
}

/// An open connection in the count, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    connections: Arc<Connections>,
    peer: SocketAddr,
    number: u64,
    displaced: CancellationToken,
}

/// There is no place for a caller's connection.
#[derive(Debug)]
pub(super) struct NoPlace;

impl Connections {
    pub(super) fn new(audit: AuditLog) -> Self {
        Self { audit, ..Self::default() }
    }

    /// Takes a connection in, as a stranger's. Another one may go for it.
    pub(super) fn open(self: &Arc<Self>, peer: SocketAddr) -> ConnectionSlot {
        let (site, displaced) = (site(peer.ip()), CancellationToken::new());
        let mut open = self.open.lock();
        if open.strangers.len() >= MAX_STRANGERS
            && let Some(gone) = open.longest_of_the_most().and_then(|it| open.strangers.remove(&it))
        {
            gone.displaced.cancel();
            let reason = "they had sent no valid request";
            open.turned_away.note(&self.audit, gone.site, reason, Instant::now());
        }
        let number = open.next;
        open.next += 1;
        open.strangers.insert(number, Stranger { site, displaced: displaced.clone() });
        ConnectionSlot { connections: Arc::clone(self), peer, number, displaced }
    }
}

impl Open {
    /// The oldest stranger of the address that has the most strangers.
    fn longest_of_the_most(&self) -> Option<u64> {
        let mut by_site = HashMap::<IpAddr, (usize, u64)>::new();
        for (&number, stranger) in &self.strangers {
            by_site.entry(stranger.site).or_insert((0, number)).0 += 1;
        }
        let most = by_site.values().max_by_key(|(count, oldest)| (*count, u64::MAX - oldest));
        most.map(|(_, oldest)| *oldest)
    }
}

impl ConnectionSlot {
    /// Makes the connection a caller's, which it stays.
    pub(super) fn admit(&self, limits: &ServerConfig) -> Result<(), NoPlace> {
        let mut open = self.connections.open.lock();
        let Some(stranger) = open.strangers.get(&self.number) else {
            // A caller's already, or about to be closed.
            return if self.displaced.is_cancelled() { Err(NoPlace) } else { Ok(()) };
        };
        let site = stranger.site;
        let here = open.callers_by_site.get(&site).copied().unwrap_or_default();
        if open.callers >= limits.max_connections || here >= limits.max_connections_per_address {
            let reason = "as many connections as `[server] max_connections` and \
                          max_connections_per_address allow";
            let audit = &self.connections.audit;
            open.turned_away.note(audit, site, reason, Instant::now());
            return Err(NoPlace);
        }
        open.strangers.remove(&self.number);
        open.callers += 1;
        open.callers_by_site.insert(site, here + 1);
        Ok(())
    }

    /// Waits until the connection has to make room for another one.
    pub(super) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }

    /// The client's address.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        if open.strangers.remove(&self.number).is_some() || self.displaced.is_cancelled() {
            return;
        }
        open.callers -= 1;
        let site = site(self.peer.ip());
        if let Some(here) = open.callers_by_site.get_mut(&site) {
            *here -= 1;
            if *here == 0 {
                open.callers_by_site.remove(&site);
            }
        }
    }
}

/// Logs connections that were turned away, at most one line a minute.
#[derive(Debug, Default)]
struct TurnedAway {
    logged: Option<Instant>,
    since: u64,
}

impl TurnedAway {
    fn note(&mut self, audit: &AuditLog, peer: IpAddr, reason: &str, now: Instant) {
        self.since += 1;
        if self.logged.is_none_or(|logged| now.saturating_duration_since(logged) >= BETWEEN_LINES) {
            audit.turned_away(peer, self.since, reason);
            *self = Self { logged: Some(now), since: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 1).into()
    }

    fn limits(most: usize, of_one: usize) -> ServerConfig {
        ServerConfig {
            max_connections: most,
            max_connections_per_address: of_one,
            ..ServerConfig::default()
        }
    }

    #[test]
    fn a_callers_place_is_free_again_when_its_connection_ends() {
        let connections = Arc::<Connections>::default();
        let caller = |peer| {
            let slot = connections.open(peer);
            slot.admit(&limits(3, 2)).map(|()| slot)
        };
        let mapped = "[::ffff:192.0.2.1]:9".parse().unwrap();
        let (one, two) = (caller(address(1)), caller(mapped));
        assert!(one.is_ok() && two.is_ok() && caller(address(1)).is_err(), "two of one address");
        let three = caller(address(2));
        assert!(three.is_ok() && caller(address(3)).is_err(), "three altogether");
        one.as_ref().unwrap().admit(&limits(0, 0)).unwrap();
        drop(one);
        assert!(caller(address(1)).is_ok());
        drop((two, three));
        let open = connections.open.lock();
        assert!(open.callers == 0 && open.callers_by_site.is_empty() && open.strangers.is_empty());
    }

    #[test]
    fn the_oldest_stranger_of_the_address_with_the_most_goes_first_and_a_caller_never() {
        let connections = Arc::<Connections>::default();
        let caller = connections.open(address(1));
        caller.admit(&ServerConfig::default()).unwrap();
        let elsewhere = connections.open(address(2));
        let flood: Vec<_> = (1..MAX_STRANGERS).map(|_| connections.open(address(1))).collect();
        let gone = |slot: &ConnectionSlot| slot.displaced.is_cancelled();
        assert!(!flood.iter().any(gone));
        let later: Vec<_> = (0..10).map(|_| connections.open(address(1))).collect();
        let displaced: Vec<_> = flood.iter().map(gone).collect();
        assert!(displaced[..10].iter().all(|gone| *gone) && !displaced[10..].contains(&true));
        assert!(!gone(&caller) && !gone(&elsewhere) && !later.iter().any(gone));
        assert!(flood[0].admit(&ServerConfig::default()).is_err(), "it is being closed");
        elsewhere.admit(&ServerConfig::default()).unwrap();
        drop((flood, later, elsewhere, caller));
        let open = connections.open.lock();
        assert!(open.callers == 0 && open.strangers.is_empty());
    }
}
