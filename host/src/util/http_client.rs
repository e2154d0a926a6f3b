//! HTTP/1.1 to servers elsewhere, over TCP or TLS, by hyper.
//!
//! Such a server is a stranger: whoever asks it judges each address that its name stands for, and
//! the connection goes to that very address; answers are read to a bound; nothing is followed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::authorities;
use super::line::line;

/// For one address of a name that has several: the next one is to get its turn as well.
const ATTEMPT: Duration = Duration::from_secs(3);

const AGENT: &str = concat!("ocelli/", env!("CARGO_PKG_VERSION"));

/// Why a server cannot be asked. Names no place: a URL may hold a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpFault {
    /// What it is asked by does not do.
    #[error("{0}")]
    Setting(String),
    /// There is no connection.
    #[error("it cannot be reached: {0}")]
    Away(String),
    /// Connecting took longer than this.
    #[error("connecting to it took longer than {} s", .0.as_secs())]
    Late(Duration),
    /// Its name stands for an address that is not connected to.
    #[error("{address}: {cause}")]
    Refused { address: IpAddr, cause: &'static str },
    /// It ends a connection, or does not speak HTTP.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl HttpFault {
    pub(crate) fn broken(error: &hyper::Error) -> Self {
        Self::Broken(chain(error))
    }
}

/// A connection on which requests are sent, one after the other.
pub(crate) type HttpConnection = http1::SendRequest<Full<Bytes>>;

/// How servers are connected to.
#[derive(Default)]
pub(crate) struct HttpClient {
    /// A PEM file of the certificate authorities that are trusted. `None`: the system's.
    ca: Option<PathBuf>,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl HttpClient {
    pub(crate) fn new(ca: Option<PathBuf>) -> Self {
        Self { ca, tls: OnceCell::new() }
    }

    /// Connects to the host of a URL within this time, TLS included, by the first of its addresses
    /// that is admitted and answers. `admits` says why an address is not.
    pub(crate) async fn connect<B>(
        &self,
        url: &Url,
        limit: Duration,
        admits: impl Fn(IpAddr) -> Result<(), &'static str> + Send,
    ) -> Result<http1::SendRequest<B>, HttpFault>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = timeout(limit, self.stream(url, admits)).await;
        let stream = stream.map_err(|_| HttpFault::Late(limit))??;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| HttpFault::broken(&error))?;
        // It ends with the sender, or with the WebSocket that it becomes.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    async fn stream(
        &self,
        url: &Url,
        admits: impl Fn(IpAddr) -> Result<(), &'static str> + Send,
    ) -> Result<Box<dyn Stream>, HttpFault> {
        let away = |error: std::io::Error| HttpFault::Away(chain(&error));
        let nowhere = || HttpFault::Setting("the URL names no host".to_owned());
        let port = url.port_or_known_default().ok_or_else(nowhere)?;
        let host = url.host().ok_or_else(nowhere)?;
        let (addresses, name): (Vec<SocketAddr>, ServerName<'static>) = match host {
            Host::Domain(name) => {
                let addresses = lookup_host((name, port)).await.map_err(away)?;
                let name = ServerName::try_from(name.to_owned());
                (addresses.collect(), name.map_err(|_| nowhere())?)
            }
            Host::Ipv4(address) => (vec![(address, port).into()], IpAddr::V4(address).into()),
            Host::Ipv6(address) => (vec![(address, port).into()], IpAddr::V6(address).into()),
        };
        let mut failed = HttpFault::Away("its name has no address".to_owned());
        for address in addresses {
            if let Err(cause) = admits(address.ip()) {
                failed = HttpFault::Refused { address: address.ip(), cause };
                continue;
            }
            match timeout(ATTEMPT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // A request is written as head and body, and none waits for the other's answer.
                    stream.set_nodelay(true).map_err(away)?;
                    if url.scheme() == "http" {
                        return Ok(Box::new(stream));
                    }
                    let tls = TlsConnector::from(self.tls().await?);
                    let stream = tls.connect(name.clone(), stream).await.map_err(away)?;
                    return Ok(Box::new(stream));
                }
                Ok(Err(error)) => failed = away(error),
                Err(_) => failed = HttpFault::Late(ATTEMPT),
            }
        }
        Err(failed)
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>, HttpFault> {
        self.tls.get_or_try_init(|| trust(self.ca.clone())).await.cloned()
    }
}

/// What is trusted, read anew.
async fn trust(ca: Option<PathBuf>) -> Result<Arc<ClientConfig>, HttpFault> {
    let roots = tokio::task::spawn_blocking(move || match ca {
        Some(file) => authorities::of_file(&file).map_err(|error| error.to_string()),
        None => authorities::of_system().ok_or_else(|| {
            "this machine has no certificate authorities (package ca-certificates): set ca"
                .to_owned()
        }),
    });
    let roots = roots.await.map_err(|error| HttpFault::Setting(error.to_string()))?;
    let roots = roots.map_err(HttpFault::Setting)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpFault::Setting(error.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// A TCP or TLS connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A request to the place that a URL names. `None`: the URL is none for HTTP.
pub(crate) fn request(
    method: Method,
    url: &Url,
    headers: HeaderMap,
    body: Bytes,
) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    *request.uri_mut() = target.parse().ok()?;
    let host = url.host_str()?;
    let authority = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
    let authority = HeaderValue::from_str(&authority).ok()?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(HOST, authority);
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    Some(request)
}

/// Reads the body of an answer to its end. `None`: it has more than `most` bytes, and is not read
/// further.
pub(crate) async fn read(mut body: Incoming, most: u64) -> Result<Option<Vec<u8>>, HttpFault> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| HttpFault::broken(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > most {
            return Ok(None);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes))
}

/// Another's own words: cleaned, and cut to so many characters.
pub(crate) fn words(text: &str, most: usize) -> String {
    let text = line(text);
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// An error with its causes, on one line. Some libraries say the cause in the error already.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    line(&text)
}
