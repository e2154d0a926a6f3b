//! One connection for each request, over TCP or TLS, by hyper.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::error::{Error, Problem};

/// Limit for a connection, and for an answer that the host has in memory.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Wait for `100 Continue` before a large body is sent anyway (RFC 9110, 10.1.1): some proxies do
/// not know it.
const GO_ON: Duration = Duration::from_secs(1);

/// Longest answer in bytes: five times that of ten thousand deployments' records.
const MAX_ANSWER: usize = 64 << 20;

/// A host's address and the headers of every request.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    base: Url,
    headers: HeaderMap,
    /// None: plain TCP.
    tls: Option<Arc<ClientConfig>>,
}

/// A request's content.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) media_type: Option<&'static str>,
    pub(crate) bytes: Bytes,
    /// Whether the request waits for `100 Continue`.
    pub(crate) ask_first: bool,
}

impl Endpoint {
    pub(crate) fn new(url: &str) -> Result<Self, Error> {
        let base = Url::parse(url).map_err(|_| Error::Url(url.into()))?;
        let tls = match base.scheme() {
            "http" => None,
            "https" => Some(trusting(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())?),
            _ => return Err(Error::Url(url.into())),
        };
        Ok(Self { base, headers: HeaderMap::new(), tls })
    }

    /// Sends this header with every request.
    pub(crate) fn set_header(&mut self, name: HeaderName, mut value: HeaderValue) {
        value.set_sensitive(name == AUTHORIZATION);
        self.headers.insert(name, value);
    }

    /// Trusts these certificates instead of the well-known ones.
    pub(crate) fn trust(&mut self, pem: &[u8]) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        // A file may have other content, and certificates that are no roots.
        let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
        let (known, _) = roots.add_parsable_certificates(certificates);
        if known == 0 {
            return Err(Error::NoCertificate);
        }
        if self.tls.is_some() {
            self.tls = Some(trusting(roots)?);
        }
        Ok(())
    }

    /// The URL of a path, whose segments are percent-encoded.
    pub(crate) fn url(&self, path: &[&str]) -> Result<Url, Error> {
        let mut url = self.base.clone();
        let refused = Error::Url(self.base.to_string());
        url.path_segments_mut().map_err(|()| refused)?.pop_if_empty().extend(path);
        Ok(url)
    }

    /// Sends a request. Returns the answer's head; its body is still to be read.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        content: Content,
    ) -> Result<Response<Incoming>, Error> {
        let stream = timeout(PATIENCE, self.connect(url)).await;
        let stream = stream.map_err(|_| Error::TimedOut(PATIENCE))?.map_err(Error::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The task ends with the request, or with the WebSocket that it becomes.
        tokio::spawn(connection.with_upgrades());
        let ask_first = content.ask_first && !content.bytes.is_empty();
        let (go, wait) = oneshot::channel();
        let wait = ask_first.then(|| Box::pin(timeout(GO_ON, wait)));
        let media_type = content.media_type;
        let mut request = Request::new(RequestBody { wait, bytes: content.bytes });
        *request.method_mut() = method;
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        *request.uri_mut() = target.parse().map_err(|_| Error::Url(url.to_string()))?;
        let host = url.host_str().unwrap_or_default();
        let authority = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        let authority =
            HeaderValue::from_str(&authority).map_err(|_| Error::Url(url.to_string()))?;
        request.headers_mut().extend(self.headers.clone());
        request.headers_mut().extend(headers);
        request.headers_mut().insert(HOST, authority);
        if let Some(media_type) = media_type {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        if ask_first {
            request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
            let go = Mutex::new(Some(go));
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE
                    && let Some(go) = go.lock().take()
                {
                    // The wait may be over.
                    let _ = go.send(());
                }
            });
        }
        Ok(sender.send_request(request).await?)
    }

    async fn connect(&self, url: &Url) -> io::Result<Box<dyn Stream>> {
        let nowhere = || io::Error::new(io::ErrorKind::InvalidInput, "the URL names no host");
        let port = url.port_or_known_default().ok_or_else(nowhere)?;
        let host = url.host().ok_or_else(nowhere)?;
        let stream = match host {
            url::Host::Domain(name) => TcpStream::connect((name, port)).await?,
            url::Host::Ipv4(address) => TcpStream::connect((address, port)).await?,
            url::Host::Ipv6(address) => TcpStream::connect((address, port)).await?,
        };
        // Without Nagle's delay: requests are short and waited for.
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = match host {
            url::Host::Domain(name) => {
                ServerName::try_from(name.to_owned()).map_err(io::Error::other)?
            }
            url::Host::Ipv4(address) => IpAddr::V4(address).into(),
            url::Host::Ipv6(address) => IpAddr::V6(address).into(),
        };
        Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?))
    }
}

fn trusting(roots: RootCertStore) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// The header with the client's name.
pub(crate) const WHO: HeaderName = USER_AGENT;

/// Reads an answer to its end, whatever it is.
pub(crate) async fn read_file(answer: Response<Incoming>) -> Result<Bytes, Error> {
    if !answer.status().is_success() {
        return Err(read_problem(answer).await);
    }
    read_bytes(answer).await
}

/// Reads an answer to its end. Returns its JSON, null if it has none.
pub(crate) async fn read(answer: Response<Incoming>) -> Result<Value, Error> {
    let status = answer.status();
    let body = read_file(answer).await?;
    if body.is_empty() && status == StatusCode::NO_CONTENT {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&body).map_err(|_| Error::InvalidAnswer("its answer is not JSON".into()))
}

/// Reads an error answer.
pub(crate) async fn read_problem(answer: Response<Incoming>) -> Error {
    let status = answer.status();
    match read_bytes(answer).await {
        Ok(body) => Problem::parse(status, &body).into(),
        Err(error) => error,
    }
}

async fn read_bytes(answer: Response<Incoming>) -> Result<Bytes, Error> {
    match Limited::new(answer.into_body(), MAX_ANSWER).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => Error::Http(*error),
            Err(_) => Error::InvalidAnswer(format!("more than {MAX_ANSWER} bytes")),
        }),
    }
}

/// A TCP or TLS connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A body of known length that may wait for `100 Continue`.
struct RequestBody {
    wait: Option<Pin<Box<tokio::time::Timeout<oneshot::Receiver<()>>>>>,
    bytes: Bytes,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(wait) = &mut self.wait {
            // `100 Continue` has come, or the wait is over.
            let _ = ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_in_paths() {
        let url = |base: &str| {
            Endpoint::new(base).unwrap().url(&["v1", "sessions", "a/b;c ü"]).unwrap().to_string()
        };
        let path = "/v1/sessions/a%2Fb;c%20%C3%BC";
        assert_eq!(url("http://host:1"), format!("http://host:1{path}"));
        assert_eq!(url("http://host/cams/"), format!("http://host/cams{path}"));
    }

    #[test]
    fn what_is_no_address_of_a_host_is_refused() {
        for url in ["host:1", "127.0.0.1:8001", "ftp://host", "", "mailto:a@b"] {
            assert!(matches!(Endpoint::new(url), Err(Error::Url(_))), "{url}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let mut host = Endpoint::new("https://host").unwrap();
        assert!(matches!(host.trust(b"-----BEGIN NOTHING-----"), Err(Error::NoCertificate)));
    }

    #[tokio::test]
    async fn a_host_that_is_not_there_cannot_be_connected_to() {
        // Nothing listens on port 1 of a machine that runs tests.
        let host = Endpoint::new("http://127.0.0.1:1").unwrap();
        let content = Content { media_type: None, bytes: Bytes::new(), ask_first: false };
        let url = host.url(&["readyz"]).unwrap();
        let sent = host.send(Method::GET, &url, HeaderMap::new(), content).await;
        assert!(matches!(sent, Err(Error::Connect(_))), "{sent:?}");
    }
}
