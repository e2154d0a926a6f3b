//! Which reader reads a camera, and the compatible one with its real process: redirects, TLS, what
//! happens when the process dies, and what is remembered.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ocelli::config::Config;
use ocelli::config::source::{ReaderSetting, Source, SourceOptions};
use ocelli::journal::Journal;
use ocelli::source::{ReaderKind, SourceFaultKind, Sources, Subscription};
use ocelli_protocol::digest::Digest;
use ocelli_testkit::within;
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::source_rtsp::{Cameras, fault, recovery, scripted, units};
use crate::support::{readers, sources};

fn camera(url: &str, options: SourceOptions) -> Source {
    Source::configured(url, options).unwrap()
}

fn with_reader(url: &str, reader: ReaderSetting) -> Source {
    camera(url, SourceOptions { reader: Some(reader), ..SourceOptions::default() })
}

fn reader(subscription: &Subscription) -> (ReaderKind, String) {
    let status = subscription.reader().status().unwrap();
    assert!(status.since.ends_with('Z'), "{}", status.since);
    (status.kind, status.reason)
}

#[tokio::test]
async fn a_subscribers_camera_is_strict_unless_it_joins_a_configured_one() {
    // Nothing listens there.
    let url = "rtsp://127.0.0.1:1/a";
    let named = Source::parse(url, None, None, false).unwrap().of_subscriber();
    let sources = sources();
    let mut alone = sources.subscribe(&named);
    let told = fault(&mut alone).await;
    assert_eq!(told.kind, SourceFaultKind::Unreachable, "{told}");
    let (kind, reason) = reader(&alone);
    assert_eq!(kind, ReaderKind::Strict);
    assert!(reason.contains("subscriptions.compatible"), "{reason}");
    drop(alone);

    let mut configured = sources.subscribe(&with_reader(url, ReaderSetting::Compatible));
    let mut joined = sources.subscribe(&named);
    assert_eq!(sources.live_readers(), 1);
    for subscription in [&mut configured, &mut joined] {
        let told = fault(subscription).await;
        assert_eq!(told.kind, SourceFaultKind::Unreachable, "{told}");
        assert_eq!(reader(subscription).0, ReaderKind::Compatible);
    }
}

/// A server that redirects every request to `url`.
async fn redirecting(url: String) -> SocketAddr {
    let answer = format!("RTSP/1.0 302 Moved\r\nCSeq: {{cseq}}\r\nLocation: {url}\r\n\r\n");
    scripted(Box::leak(answer.into_boxed_str())).await
}

#[tokio::test]
async fn a_redirect_within_the_camera_is_followed_by_the_compatible_reader_and_remembered() {
    let cameras = Cameras::start(&[], &[("/high", "people-576-high.mp4")]);
    let door = redirecting(cameras.url("/high")).await;
    let url = format!("rtsp://{door}/high");
    let folder = tempfile::tempdir().unwrap();
    for run in 0..2 {
        let journal = within(free_journal(folder.path())).await;
        let sources = Sources::new(readers(), journal.clone(), &Config::default());
        let mut subscription = sources.subscribe(&with_reader(&url, ReaderSetting::Auto));
        if run == 0 {
            // The strict reader's fault comes first, and names the reason.
            let fault = fault(&mut subscription).await;
            assert_eq!(fault.kind, SourceFaultKind::Protocol, "{fault}");
        }
        let units = units_after_faults(&mut subscription, 25).await;
        assert!(units > 0);
        let (kind, reason) = reader(&subscription);
        assert_eq!(kind, ReaderKind::Compatible);
        assert!(reason.contains("302"), "{reason}");
        drop((subscription, sources));
        journal.flush().await.unwrap();
    }
}

/// Opens a journal as soon as the one who had it has let go of it: a reader that is dropped ends a
/// moment later.
async fn free_journal(folder: &Path) -> Journal {
    let mut tries = tokio::time::interval(std::time::Duration::from_millis(10));
    loop {
        tries.tick().await;
        if let Ok(journal) = Journal::open(folder) {
            return journal;
        }
    }
}

/// Reads units, whatever is told in between.
async fn units_after_faults(subscription: &mut Subscription, count: usize) -> usize {
    recovery(subscription).await;
    units(subscription, count).await.len()
}

#[tokio::test]
async fn a_redirect_elsewhere_reaches_nothing() {
    let elsewhere = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let place = elsewhere.local_addr().unwrap();
    let door = redirecting(format!("rtsp://{place}/high")).await;
    let source = with_reader(&format!("rtsp://{door}/high"), ReaderSetting::Compatible);
    let mut subscription = sources().subscribe(&source);
    let fault = fault(&mut subscription).await;
    assert_eq!(fault.kind, SourceFaultKind::Protocol, "{fault}");
    assert!(fault.message.contains(&format!("leads to {place}")), "{fault}");
    let connection = std::time::Duration::from_millis(100);
    assert!(tokio::time::timeout(connection, elsewhere.accept()).await.is_err());
}

/// Speaks TLS with a certificate that signs itself, before a server without TLS.
async fn tls_before(port: u16) -> (SocketAddr, Digest) {
    let certificate = rcgen::generate_simple_self_signed(["camera".to_owned()]).unwrap();
    let fingerprint = Digest::of(certificate.cert.der());
    let key =
        PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut inner = acceptor.accept(connection).await?;
                let mut outer = TcpStream::connect(("127.0.0.1", port)).await?;
                tokio::io::copy_bidirectional(&mut inner, &mut outer).await
            });
        }
    });
    (address, fingerprint)
}

#[tokio::test]
async fn a_camera_with_tls_plays_once_its_certificate_is_pinned() {
    let cameras = Cameras::start(&[], &[("/high", "people-576-high.mp4")]);
    let (address, fingerprint) = tls_before(cameras.port).await;
    let url = format!("rtsps://{address}/high?enableSrtp");
    let mut refused = sources().subscribe(&camera(&url, SourceOptions::default()));
    let fault = fault(&mut refused).await;
    assert_eq!(fault.kind, SourceFaultKind::Certificate, "{fault}");
    let advice = format!("certificate_sha256 = \"{fingerprint}\"");
    assert!(fault.message.contains(&advice), "{fault}");

    let certificate_sha256 = Some(fingerprint.to_string());
    let options = SourceOptions { certificate_sha256, ..SourceOptions::default() };
    let mut subscription = sources().subscribe(&camera(&url, options));
    assert_eq!(units(&mut subscription, 30).await.len(), 30);
    let (kind, reason) = reader(&subscription);
    assert_eq!(kind, ReaderKind::Compatible);
    assert!(reason.contains("TLS"), "{reason}");
}

/// The processes that read the camera at this port of this machine.
fn ingest_processes(port: u16) -> Vec<Pid> {
    let own = std::process::id();
    let children = format!("/proc/{own}/task");
    let tasks = std::fs::read_dir(children).unwrap().filter_map(Result::ok);
    let of_task = |task: std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("children")).unwrap_or_default()
    };
    let children: Vec<i32> = tasks
        .flat_map(|task| {
            let children = of_task(task);
            children.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    let name = format!("ocelli-ingest\0127.0.0.1:{port}\0");
    let is_ingest = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == name)
    };
    children.into_iter().filter(is_ingest).filter_map(Pid::from_raw).collect()
}

#[tokio::test]
async fn a_process_that_is_killed_is_replaced_and_numbers_go_on() {
    let cameras = Cameras::start(&[], &[("/high", "people-576-high.mp4")]);
    let source = with_reader(&cameras.url("/high"), ReaderSetting::Compatible);
    let mut subscription = sources().subscribe(&source);
    let last = units(&mut subscription, 5).await.pop().unwrap().header.number;
    let [pid] = ingest_processes(cameras.port)[..] else { panic!("one process reads the camera") };
    kill_process(pid, Signal::KILL).unwrap();
    let fault = fault(&mut subscription).await;
    assert_eq!(fault.kind, SourceFaultKind::Reader, "{fault}");
    assert!(fault.message.contains("signal: 9"), "{fault}");
    let unit = recovery(&mut subscription).await;
    assert!(unit.header.key && unit.header.discontinuity);
    assert!(unit.header.number > last);
    assert!(!ingest_processes(cameras.port).contains(&pid));
    drop(subscription);
}
