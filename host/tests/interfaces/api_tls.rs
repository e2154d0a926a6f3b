//! HTTPS with certificates made here, against a client that is rustls itself.

use std::path::Path;
use std::sync::Arc;

use ocelli::analyze::Analyses;
use ocelli::api::{Server, Timing};
use ocelli::config::{Config, ServerConfig as Section, Tls};
use ocelli::event::Hub;
use ocelli_testkit::within;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::Log;

#[derive(Clone)]
struct Double(Analyses);

no_sessions!(Double, 0);
no_deployments!(Double);
no_insight!(Double);
no_config!(Double);

/// Somebody who vouches for certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for localhost and its key, in PEM.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// Over since 2001.
    fn issue_expired(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// Of a client that believes this authority alone.
    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }
}

fn files(folder: &Path) -> Tls {
    Tls { certificate: folder.join("cert.pem"), key: folder.join("key.pem") }
}

fn write(folder: &Path, (certificate, key): &(String, String)) {
    let Tls { certificate: certificate_file, key: key_file } = files(folder);
    std::fs::write(certificate_file, certificate).unwrap();
    std::fs::write(key_file, key).unwrap();
}

async fn serve(tls: Tls) -> anyhow::Result<Server> {
    let server = Section { tls: Some(tls), ..Section::default() };
    let config = watch::channel(Arc::new(Config { server, ..Config::default() })).1;
    let analyses = Analyses::start(&Default::default(), Box::new(crate::support::NoPipelines));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Server::start(
        listener,
        Hub::new(crate::support::events()),
        Double(analyses),
        Timing::default(),
        config,
    )
}

/// A running host with a certificate of this authority.
async fn start(authority: &Authority) -> (Server, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &authority.issue());
    (serve(files(folder.path())).await.unwrap(), folder)
}

/// The host's log, with every look at the certificate's files.
fn log() -> (Log, tracing::subscriber::DefaultGuard) {
    Log::begin(tracing::Level::DEBUG)
}

/// Looks after each of the host's looks at its files, until what is seen is right.
async fn after_looks(log: &Log, mut look: impl AsyncFnMut() -> bool) {
    let looks = async {
        for count in 1.. {
            log.says("the files of the certificate were looked at", count).await;
            if look().await {
                break;
            }
        }
    };
    within(looks).await;
}

async fn connect(
    server: &Server,
    connector: &TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.address()).await?;
    within(connector.connect(ServerName::try_from("localhost").unwrap(), stream)).await
}

/// One request and its status, on a connection that stays.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        assert!(within(stream.read_buf(&mut answer)).await.unwrap() > 0, "the answer ends");
    }
    String::from_utf8(answer).unwrap().lines().next().unwrap().to_owned()
}

/// The certificate that new connections are shown.
async fn shown(server: &Server, connector: &TlsConnector) -> Vec<u8> {
    let stream = connect(server, connector).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn https_is_spoken_and_websockets_go_over_it() {
    let authority = Authority::new();
    let (server, _folder) = start(&authority).await;
    assert_eq!(server.scheme(), "https");
    let connector = authority.connector();
    let mut stream = connect(&server, &connector).await.unwrap();
    assert_eq!(ask(&mut stream).await, "HTTP/1.1 200 OK");
    assert_eq!(ask(&mut stream).await, "HTTP/1.1 200 OK", "the connection is kept");
    let stream = connect(&server, &connector).await.unwrap();
    let url = format!("wss://localhost:{}/v1/ws", server.address().port());
    let (mut socket, _) = within(tokio_tungstenite::client_async(url, stream)).await.unwrap();
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    socket.send(Message::text("{\"type\":\"ping\"}")).await.unwrap();
    let answer = within(socket.next()).await.unwrap().unwrap();
    assert!(answer.to_text().unwrap().contains("pong"), "{answer}");
    within(server.stop()).await;
}

#[tokio::test]
async fn whoever_believes_another_authority_does_not_connect() {
    let (server, _folder) = start(&Authority::new()).await;
    let error = connect(&server, &Authority::new().connector()).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_new_certificate_is_taken_over_and_open_connections_stay() {
    let (log, _guard) = log();
    let authority = Authority::new();
    let (server, folder) = start(&authority).await;
    let connector = authority.connector();
    let mut open = connect(&server, &connector).await.unwrap();
    assert_eq!(ask(&mut open).await, "HTTP/1.1 200 OK");
    let before = shown(&server, &connector).await;
    write(folder.path(), &authority.issue());
    after_looks(&log, async || shown(&server, &connector).await != before).await;
    assert_eq!(ask(&mut open).await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_bad_pair_leaves_the_one_before_in_use() {
    let (log, _guard) = log();
    let authority = Authority::new();
    let (server, folder) = start(&authority).await;
    let connector = authority.connector();
    let before = shown(&server, &connector).await;
    let (certificate, _) = authority.issue();
    let (_, key) = authority.issue();
    write(folder.path(), &(certificate, key));
    let refused = async || {
        assert_eq!(shown(&server, &connector).await, before);
        log.text().contains("the certificate is not changed")
    };
    after_looks(&log, refused).await;
    write(folder.path(), &authority.issue());
    after_looks(&log, async || shown(&server, &connector).await != before).await;
}

#[tokio::test]
async fn files_that_are_no_pair_keep_the_host_from_starting_and_are_named_without_what_they_hold() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.issue();
    let (_, other) = authority.issue();
    let cut = key[..key.len() / 2].to_owned();
    for (pair, says) in [
        ((String::new(), key.clone()), "cert.pem holds no certificate"),
        ((certificate.clone(), String::new()), "key.pem: it holds none in PEM"),
        ((certificate.clone(), cut.clone()), "key.pem: it"),
        ((certificate.clone(), certificate.clone()), "key.pem: it holds none in PEM"),
        ((certificate.clone(), other), "does not fit the certificate"),
        ((certificate.replace("MI", "!!"), key.clone()), "cert.pem"),
    ] {
        write(folder.path(), &pair);
        let error = format!("{:#}", serve(files(folder.path())).await.unwrap_err());
        assert!(error.contains(says), "{says}: {error}");
        let secret = key.lines().nth(1).unwrap();
        assert!(!error.contains(secret), "{error}");
    }
    write(folder.path(), &(certificate, key));
    std::fs::remove_file(files(folder.path()).key).unwrap();
    let error = format!("{:#}", serve(files(folder.path())).await.unwrap_err());
    assert!(error.contains("key.pem"), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_clients_and_the_host_serves_the_next() {
    let (log, _guard) = log();
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &authority.issue_expired());
    let server = serve(files(folder.path())).await.unwrap();
    let connector = authority.connector();
    let error = connect(&server, &connector).await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("expired"), "{error}");
    write(folder.path(), &authority.issue());
    after_looks(&log, async || connect(&server, &connector).await.is_ok()).await;
}

#[tokio::test]
async fn plain_http_to_a_tls_port_is_told_what_to_do() {
    let (server, _folder) = start(&Authority::new()).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 512];
    let length = within(stream.read(&mut answer)).await.unwrap();
    let answer = std::str::from_utf8(&answer[..length]).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("tls_required"), "{answer}");
}
