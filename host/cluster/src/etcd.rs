//! etcd, as this crate uses it: keys under a site's prefix, transactions, one lease, watches.
//!
//! A request goes to one server and is limited to [`REQUEST`]. A server that does not answer in that
//! time, or not as one of a working cluster, is left for the next, with its connection: so a frozen
//! server costs one request, not each third one, as balancing over all connections would.

pub(crate) mod keys;
mod watching;

use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{
    Certificate, Client, ConnectOptions, Error, GetOptions, GetResponse, Identity, KeyValue,
    TlsOptions, Txn, TxnResponse,
};
use parking_lot::Mutex;
use tonic::Code;

use crate::lease::{REQUEST, TTL};
use crate::member::CoordError;
use crate::site::{SiteError, SiteOptions, SiteTls};

pub(crate) use watching::Event;

/// Keys in one answer: with entries of cameras it stays far below gRPC's 4 MB.
const PAGE: i64 = 500;

/// How many servers are asked for a page: one that is late is no reason to begin anew.
const READ_TRIES: usize = 3;

/// Why etcd did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No answer, or none from a working cluster. A change may have been made.
    Unavailable(String),
    Denied(String),
    /// The lease is not there.
    LeaseGone,
    /// The revision that was asked for is no more.
    Compacted,
    TooLarge,
}

impl Fault {
    /// Says it to those who asked for `key`.
    pub(crate) fn about(self, key: &str) -> CoordError {
        match self {
            Self::Unavailable(reason) => CoordError::Unavailable(reason),
            Self::Denied(reason) => CoordError::Denied(reason),
            Self::LeaseGone => CoordError::NotMember,
            Self::Compacted => CoordError::Unavailable("compacted".into()),
            Self::TooLarge => CoordError::TooLarge(key.to_owned()),
        }
    }

    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Unavailable(reason) | Self::Denied(reason) => reason.clone(),
            Self::LeaseGone => "etcd does not have the lease".into(),
            Self::Compacted => "the revision is compacted".into(),
            Self::TooLarge => "too large".into(),
        }
    }
}

/// A key with its value, as etcd has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Without the site's prefix.
    pub(crate) key: String,
    pub(crate) value: Bytes,
    pub(crate) lease: i64,
    pub(crate) created: u64,
    pub(crate) modified: u64,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Whether its comparisons held.
    pub(crate) held: bool,
    /// The revision of its changes, if it made any.
    pub(crate) revision: u64,
}

/// A site's etcd servers. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Etcd {
    inner: Arc<Inner>,
}

struct Inner {
    prefix: String,
    options: ConnectOptions,
    servers: Vec<Server>,
    /// The server that is asked.
    current: AtomicUsize,
}

struct Server {
    url: String,
    client: Mutex<Option<Client>>,
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Etcd").field("prefix", &self.inner.prefix).finish_non_exhaustive()
    }
}

impl Etcd {
    /// Connects only when something is asked.
    pub(crate) fn new(options: &SiteOptions) -> Result<Self, SiteError> {
        let scheme = if options.tls.is_some() { "https://" } else { "http://" };
        let bad = |url: &str, why: &str| Err(SiteError::Address(url.to_owned(), why.to_owned()));
        for url in &options.etcd {
            if !url.starts_with(scheme) {
                return bad(url, &format!("an etcd server here begins with {scheme}"));
            }
        }
        if options.etcd.is_empty() {
            return bad("", "a site has at least one etcd server");
        }
        let connect = ConnectOptions::new()
            .with_connect_timeout(REQUEST)
            // A server that is cut off from the others says so instead of showing what it last knew.
            .with_require_leader(true);
        let connect = match &options.tls {
            Some(tls) => connect.with_tls(read_tls(tls)?),
            None => connect,
        };
        let server = |url: &String| Server { url: url.clone(), client: Mutex::new(None) };
        let servers: Vec<_> = options.etcd.iter().map(server).collect();
        // Hosts begin with different servers, the same host always with the same.
        let sum = options.host.bytes().map(usize::from).sum::<usize>();
        Ok(Self {
            inner: Arc::new(Inner {
                prefix: options.prefix(),
                options: connect,
                current: AtomicUsize::new(sum % servers.len()),
                servers,
            }),
        })
    }

    /// The whole key of what lies at `key` in the site.
    pub(crate) fn key(&self, key: &str) -> String {
        format!("{}{key}", self.inner.prefix)
    }

    /// Asks one server, at most [`REQUEST`].
    async fn call<T, F>(&self, ask: impl FnOnce(Client) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call_within(REQUEST, ask).await.map(|(answer, _)| answer)
    }

    /// Asks one server, and says which.
    async fn call_within<T, F>(
        &self,
        limit: Duration,
        ask: impl FnOnce(Client) -> F,
    ) -> Result<(T, usize), Fault>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let current = self.inner.current.load(Ordering::Relaxed);
        let Some(server) = self.inner.servers.get(current) else {
            return Err(Fault::Unavailable("no server".into()));
        };
        let asked = async {
            let client = self.client(server).await?;
            ask(client).await
        };
        let fault = match tokio::time::timeout(limit, asked).await {
            Ok(Ok(answer)) => return Ok((answer, current)),
            Ok(Err(error)) => fault(&server.url, &error),
            Err(_) => Fault::Unavailable(format!(
                "{}: no answer within {} ms",
                server.url,
                limit.as_millis()
            )),
        };
        if let Fault::Unavailable(_) = fault {
            self.leave(current);
        }
        Err(fault)
    }

    async fn client(&self, server: &Server) -> Result<Client, Error> {
        if let Some(client) = server.client.lock().clone() {
            return Ok(client);
        }
        // One server each: this only prepares the connection.
        let client = Client::connect([&server.url], Some(self.inner.options.clone())).await?;
        Ok(server.client.lock().get_or_insert(client).clone())
    }

    /// A server did not do as it should: drops its connection, and lets the next one be asked.
    fn leave(&self, server: usize) {
        if let Some(server) = self.inner.servers.get(server) {
            *server.client.lock() = None;
        }
        let next = (server + 1) % self.inner.servers.len().max(1);
        // An error says that somebody else was faster.
        let _ =
            self.inner.current.compare_exchange(server, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks for a lease of [`TTL`].
    pub(crate) async fn grant(&self) -> Result<i64, Fault> {
        let seconds = i64::try_from(TTL.as_secs()).unwrap_or(i64::MAX);
        let granted = self
            .call(|client| async move { client.lease_client().grant(seconds, None).await })
            .await?;
        if granted.ttl() < seconds {
            let reason = format!("a lease of {} s was granted, not {seconds}", granted.ttl());
            return Err(Fault::Unavailable(reason));
        }
        Ok(granted.id())
    }

    /// Renews a lease, waiting no longer than `limit`.
    pub(crate) async fn renew(&self, lease: i64, limit: Duration) -> Result<(), Fault> {
        let ask =
            |client: Client| async move { client.lease_client().keep_alive(lease).await.map(drop) };
        self.call_within(limit.min(REQUEST), ask).await.map(drop)
    }

    pub(crate) async fn revoke(&self, lease: i64) -> Result<(), Fault> {
        self.call(|client| async move { client.lease_client().revoke(lease).await.map(drop) }).await
    }

    pub(crate) async fn transact(&self, txn: Txn) -> Result<Outcome, Fault> {
        let answer: TxnResponse =
            self.call(|client| async move { client.kv_client().txn(txn).await }).await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        Ok(Outcome { held: answer.succeeded(), revision: unsigned(revision) })
    }

    /// What lies at `key`.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Entry>, Fault> {
        let key = self.key(key);
        let mut answer =
            self.call(|client| async move { client.kv_client().get(key, None).await }).await?;
        Ok(answer.take_kvs().into_iter().find_map(|pair| self.entry(pair)))
    }

    /// All that lies at keys which begin with one of `prefixes`, as it was at one revision, and that.
    pub(crate) async fn read(&self, prefixes: &[&str]) -> Result<(Vec<Entry>, u64), Fault> {
        let mut entries = Vec::new();
        let mut revision = 0;
        for prefix in prefixes {
            let mut from = self.key(prefix).into_bytes();
            let end = end_of(&from);
            loop {
                let options = GetOptions::new()
                    .with_range(end.clone())
                    .with_limit(PAGE)
                    .with_revision(revision);
                let mut answer = self.page(&from, &options).await?;
                if revision == 0 {
                    revision = answer.header().map_or(0, |header| header.revision());
                }
                let more = answer.more();
                let pairs = answer.take_kvs();
                if let Some(last) = pairs.last() {
                    from = last.key().to_vec();
                    from.push(0);
                }
                entries.extend(pairs.into_iter().filter_map(|pair| self.entry(pair)));
                if !more {
                    break;
                }
            }
        }
        Ok((entries, unsigned(revision)))
    }

    /// Asks up to [`READ_TRIES`] servers for one page.
    async fn page(&self, from: &[u8], options: &GetOptions) -> Result<GetResponse, Fault> {
        let mut tries = 1;
        loop {
            let (from, options) = (from.to_vec(), options.clone());
            let ask =
                |client: Client| async move { client.kv_client().get(from, Some(options)).await };
            match self.call(ask).await {
                Err(Fault::Unavailable(_)) if tries < READ_TRIES => tries += 1,
                answer => return answer,
            }
        }
    }

    /// `None` for what is not of the site, and for keys that are no text.
    fn entry(&self, pair: KeyValue) -> Option<Entry> {
        let (lease, created, modified) =
            (pair.lease(), unsigned(pair.create_revision()), unsigned(pair.mod_revision()));
        let (key, value) = pair.into_key_value();
        let key = String::from_utf8(key).ok()?;
        let key = key.strip_prefix(&self.inner.prefix)?.to_owned();
        Some(Entry { key, value: value.into(), lease, created, modified })
    }
}

fn read_tls(tls: &SiteTls) -> Result<TlsOptions, SiteError> {
    let identity = Identity::from_pem(SiteTls::read(&tls.certificate)?, SiteTls::read(&tls.key)?);
    let ca = Certificate::from_pem(SiteTls::read(&tls.ca)?);
    Ok(TlsOptions::new().ca_certificate(ca).identity(identity))
}

/// The first key after all that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // etcd's word for "no end".
    vec![0]
}

/// etcd's revisions are signed, and never negative.
fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

/// etcd's comparisons take revisions as it sends them.
pub(crate) fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn fault(url: &str, error: &Error) -> Fault {
    let status = match error {
        Error::GRpcStatus(status) => status,
        Error::LeaseKeepAliveError(reason) if reason == "lease not found" => {
            return Fault::LeaseGone;
        }
        Error::TransportError(error) => return Fault::Unavailable(chain(url, error)),
        other => return Fault::Unavailable(format!("{url}: {other}")),
    };
    let said = || match std::error::Error::source(status) {
        Some(source) => chain(url, source),
        None => format!("{url}: {}", status.message()),
    };
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Fault::Denied(said()),
        // The certificate has no common name, or there is none.
        Code::InvalidArgument if status.message().contains("user name is empty") => {
            Fault::Denied(said())
        }
        Code::OutOfRange if status.message().contains("compacted") => Fault::Compacted,
        Code::NotFound if status.message().contains("lease") => Fault::LeaseGone,
        Code::InvalidArgument if status.message().contains("too large") => Fault::TooLarge,
        // Larger than what etcd's gRPC takes, which is a little more than what etcd does.
        Code::ResourceExhausted if status.message().contains("larger than max") => Fault::TooLarge,
        _ => Fault::Unavailable(said()),
    }
}

/// An error with what caused it: only the last one says that a certificate is wrong.
fn chain(url: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("{url}: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.ends_with(&said) {
            // Writing to a string does not fail.
            let _ = write!(text, ": {said}");
        }
        source = error.source();
    }
    // With TLS 1.3 a client's certificate is refused only after the handshake.
    if url.starts_with("https://") && text.ends_with("connection closed") {
        text.push_str(", as by a server that does not accept this host's certificate");
    }
    text
}
