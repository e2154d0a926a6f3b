//! Live sources against a real RTSP server: Debian's gst-rtsp-server, started by
//! `tests/cameras/rtsp_cameras.py`; and against servers that are none, or bad ones.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ocelli::config::source::{Source, Transport};
use ocelli::source::{AccessUnit, SourceEvent, SourceFault, SourceFaultKind, Subscription};
use ocelli_protocol::clock;
use ocelli_protocol::worker::Codec;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::support::{sources, strict};

/// Far above what any step takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running server; killed when dropped.
pub(super) struct Cameras {
    child: Child,
    pub(super) port: u16,
}

impl Cameras {
    pub(super) fn start(options: &[&str], mounts: &[(&str, &str)]) -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
        let mounts = mounts
            .iter()
            .map(|(path, clip)| format!("{path}={}", tests.join("clips").join(clip).display()));
        let mut child = Command::new("/usr/bin/python3")
            .arg(tests.join("cameras/rtsp_cameras.py"))
            .args(["--port", "0"])
            .args(options)
            .args(mounts)
            .stdout(Stdio::piped())
            .spawn()
            .expect("/usr/bin/python3 starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| line.unwrap().strip_prefix("READY ")?.trim().parse().ok());
        let Some(port) = port else {
            let _ = child.kill();
            panic!(
                "the RTSP server did not start: are python3-gi and gir1.2-gst-rtsp-server-1.0 \
                    installed?"
            );
        };
        Self { child, port }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("rtsp://127.0.0.1:{}{path}", self.port)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// As a power cut would.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Cameras {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn source(url: &str, transport: Transport) -> Source {
    strict(url, transport)
}

fn subscribe(url: &str) -> Subscription {
    sources().subscribe(&source(url, Transport::Tcp))
}

async fn next(subscription: &mut Subscription) -> SourceEvent {
    timeout(DEADLINE, subscription.next()).await.expect("an event within the deadline")
}

pub(super) async fn units(subscription: &mut Subscription, count: usize) -> Vec<Arc<AccessUnit>> {
    let mut units = Vec::new();
    while units.len() < count {
        match next(subscription).await {
            SourceEvent::Unit(unit) => units.push(unit),
            SourceEvent::Up => {}
            other => panic!("{other:?}"),
        }
    }
    units
}

pub(super) async fn fault(subscription: &mut Subscription) -> SourceFault {
    loop {
        match next(subscription).await {
            SourceEvent::Down(fault) => return fault,
            SourceEvent::Up | SourceEvent::Unit(_) => {}
            SourceEvent::Damaged(_) | SourceEvent::Ended => panic!("what files alone have"),
        }
    }
}

/// Up, and the first unit after it.
pub(super) async fn recovery(subscription: &mut Subscription) -> Arc<AccessUnit> {
    let mut up = false;
    loop {
        match next(subscription).await {
            SourceEvent::Unit(unit) if up => return unit,
            SourceEvent::Unit(_) => {}
            SourceEvent::Up => up = true,
            SourceEvent::Down(_) => up = false,
            SourceEvent::Damaged(_) | SourceEvent::Ended => panic!("what files alone have"),
        }
    }
}

/// Passes connections on, and tells of each that comes in. Its port stays its own while servers
/// behind it come and go.
struct Relay {
    port: u16,
    /// The server's port. While there is none, connections are closed at once.
    to: watch::Sender<Option<u16>>,
    connections: mpsc::UnboundedReceiver<()>,
}

impl Relay {
    async fn start(to: Option<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (to, target) = watch::channel(to);
        let (sender, connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                let _ = sender.send(());
                let Some(to) = *target.borrow() else { continue };
                tokio::spawn(async move {
                    let mut outer = TcpStream::connect(("127.0.0.1", to)).await?;
                    tokio::io::copy_bidirectional(&mut inner, &mut outer).await
                });
            }
        });
        Self { port, to, connections }
    }

    /// Waits for a connection.
    async fn connected(&mut self) {
        timeout(DEADLINE, self.connections.recv())
            .await
            .expect("a connection within the deadline")
            .unwrap();
    }

    /// How many connections came that nobody waited for.
    fn others(&mut self) -> usize {
        std::iter::from_fn(|| self.connections.try_recv().ok()).count()
    }
}

/// Answers every request with `answer`, in which `{cseq}` is replaced.
pub(super) async fn scripted(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n")
                && connection.read_buf(&mut request).await.is_ok_and(|read| read > 0)
            {}
            let request = String::from_utf8_lossy(&request).into_owned();
            let cseq = request.lines().find_map(|line| line.strip_prefix("CSeq: ")).unwrap_or("0");
            let _ = connection.write_all(answer.replace("{cseq}", cseq).as_bytes()).await;
        }
    });
    address
}

fn sdp(media: &str) -> &'static str {
    let body = format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n{media}");
    let head = "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nContent-Type: application/sdp\r\n";
    Box::leak(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_boxed_str())
}

/// Types of the NAL units in an access unit in Annex B form with four-byte start codes.
fn nal_types(codec: Codec, data: &[u8]) -> Vec<u8> {
    let starts = data.windows(5).filter(|window| window.starts_with(&[0, 0, 0, 1]));
    starts
        .map(|window| if codec == Codec::H264 { window[4] & 0x1f } else { (window[4] >> 1) & 0x3f })
        .collect()
}

#[tokio::test]
async fn every_codec_comes_over_tcp_and_udp_from_a_key_unit_on() {
    let cameras = Cameras::start(
        &[],
        &[
            ("/baseline", "people-576-baseline.mp4"),
            ("/high", "people-1080-high-b3.mp4"),
            ("/hevc", "people-576-hevc.mp4"),
            ("/mjpeg", "people-576-mjpeg.avi"),
        ],
    );
    let sources = sources();
    for transport in [Transport::Tcp, Transport::Udp] {
        for (path, codec) in [
            ("/baseline", Codec::H264),
            ("/high", Codec::H264),
            ("/hevc", Codec::H265),
            ("/mjpeg", Codec::Mjpeg),
        ] {
            let mut subscription = sources.subscribe(&source(&cameras.url(path), transport));
            assert_eq!(next(&mut subscription).await, SourceEvent::Up);
            // Two seconds and more: a GOP at the least.
            let units = units(&mut subscription, 50).await;
            assert!(units[0].header.key, "{path} {transport:?}");
            let mut shown = Vec::new();
            for (number, unit) in units.iter().enumerate() {
                let header = &unit.header;
                assert_eq!((header.number, header.codec), (number as u64, codec));
                let age = clock::wall_ns().abs_diff(header.capture_ns);
                assert!(age < 60_000_000_000, "{path}: captured {age} ns away from now");
                assert!(clock::monotonic_ns() >= header.received_ns);
                shown.push(header.presentation_ns.unwrap());
                let types = nal_types(codec, &unit.data);
                match codec {
                    Codec::Mjpeg => assert!(header.key && unit.data.starts_with(&[0xff, 0xd8])),
                    Codec::H264 if header.key => {
                        assert!([7, 8, 5].iter().all(|t| types.contains(t)), "{types:?}")
                    }
                    Codec::H265 if header.key => {
                        assert!([32, 33, 34].iter().all(|t| types.contains(t)), "{types:?}");
                    }
                    Codec::H264 | Codec::H265 => assert!(!types.contains(&5)),
                }
            }
            assert!(
                units.iter().filter(|unit| unit.header.key).count() >= 2,
                "{path}: every GOP has its key unit"
            );
            shown.sort();
            assert!(shown.windows(2).all(|pair| pair[0] < pair[1]), "{path}: {shown:?}");
        }
    }
}

#[tokio::test]
async fn capture_time_follows_the_cameras_own_clock() {
    let cameras = Cameras::start(&[], &[("/cam", "people-576-baseline.mp4")]);
    let mut subscription = subscribe(&cameras.url("/cam"));
    // By the sender report, capture times are exactly as far apart as presentation times; times of
    // receipt never are. The first report comes within seconds.
    let mut offset = i64::MIN;
    let mut alike = 0;
    while alike < 8 {
        let header = units(&mut subscription, 1).await.remove(0).header.clone();
        assert!(header.number < 300, "the camera's clock is never followed");
        let last = std::mem::replace(
            &mut offset,
            header.capture_ns as i64 - header.presentation_ns.unwrap(),
        );
        alike = if offset.abs_diff(last) < 1_000 { alike + 1 } else { 0 };
    }
}

#[tokio::test]
async fn digest_lets_the_right_password_in_and_a_wrong_one_is_not_tried_again_soon() {
    let options = ["--user", "watcher", "--password", "pass:w/rd"];
    let cameras = Cameras::start(&options, &[("/cam", "people-576-baseline.mp4")]);
    let port = cameras.port;
    units(&mut subscribe(&format!("rtsp://watcher:pass%3Aw%2Frd@127.0.0.1:{port}/cam")), 3).await;

    for credentials in ["watcher:wr0ngw0rd@", ""] {
        let mut relay = Relay::start(Some(port)).await;
        let mut refused = subscribe(&format!("rtsp://{credentials}127.0.0.1:{}/cam", relay.port));
        let fault = fault(&mut refused).await;
        assert_eq!(fault.kind, SourceFaultKind::Unauthorized, "{fault}");
        assert!(
            !fault.message.contains("watcher") && !fault.message.contains("wr0ngw0rd"),
            "{fault}"
        );
        assert!(
            fault.message.contains("127.0.0.1") && fault.message.contains("password"),
            "{fault}"
        );
        relay.connected().await;
        // One that is merely away is tried again and again meanwhile: the waits are tested where
        // they are computed.
        let mut away = Relay::start(None).await;
        let _away = subscribe(&format!("rtsp://127.0.0.1:{}/cam", away.port));
        for _ in 0..5 {
            away.connected().await;
        }
        assert_eq!(relay.others(), 0, "a wrong password was tried again");
    }
}

#[tokio::test]
async fn what_is_no_camera_is_told_by_kind() {
    // Nobody listens, and nobody else is given the port.
    let unused = TcpSocket::new_v4().unwrap();
    unused.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let web =
        scripted("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let audio = scripted(sdp("m=audio 0 RTP/AVP 0\r\na=control:track1\r\n")).await;
    let vp8 =
        scripted(sdp("m=video 0 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\na=control:track1\r\n"))
            .await;
    let hasty = scripted("").await;
    let busy = scripted("RTSP/1.0 503 Service Unavailable\r\nCSeq: {cseq}\r\n\r\n").await;
    let cases = [
        (unused.local_addr().unwrap(), SourceFaultKind::Unreachable, "refused"),
        (web, SourceFaultKind::NotRtsp, "not in RTSP"),
        (silent.local_addr().unwrap(), SourceFaultKind::Silent, "says nothing"),
        (audio, SourceFaultKind::NoVideo, "only audio"),
        (vp8, SourceFaultKind::UnsupportedCodec, "vp8"),
        (hasty, SourceFaultKind::Closed, "DESCRIBE"),
        (busy, SourceFaultKind::Protocol, "503"),
    ];
    let sources = sources();
    let subscriptions: Vec<_> = cases
        .iter()
        .map(|(address, ..)| {
            sources
                .subscribe(&source(&format!("rtsp://visitor:s3cr3t@{address}/cam"), Transport::Tcp))
        })
        .collect();
    for (mut subscription, (address, kind, cause)) in subscriptions.into_iter().zip(cases) {
        let fault = fault(&mut subscription).await;
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(
            fault.message.contains(cause) && fault.message.contains(&address.to_string()),
            "{fault}"
        );
        assert!(!fault.message.contains("visitor") && !fault.message.contains("s3cr3t"), "{fault}");
    }
}

#[tokio::test]
async fn a_wrong_path_is_told_with_the_servers_answer() {
    let cameras = Cameras::start(&[], &[("/cam", "people-576-baseline.mp4")]);
    let fault = fault(&mut subscribe(&cameras.url("/other"))).await;
    assert_eq!(fault.kind, SourceFaultKind::Protocol);
    assert!(fault.message.contains("404") && fault.message.contains("path"), "{fault}");
}

#[tokio::test]
async fn after_a_restart_of_the_server_numbers_and_times_go_on() {
    for transport in [Transport::Tcp, Transport::Udp] {
        let mounts = [("/cam", "people-576-high-b3.mp4")];
        let cameras = Cameras::start(&[], &mounts);
        let mut relay = Relay::start(Some(cameras.port)).await;
        let sources = sources();
        let url = format!("rtsp://127.0.0.1:{}/cam", relay.port);
        let mut subscription = sources.subscribe(&source(&url, transport));
        let mut before = units(&mut subscription, 20).await;

        relay.to.send_replace(None);
        cameras.kill();
        loop {
            match next(&mut subscription).await {
                SourceEvent::Unit(unit) => before.push(unit),
                SourceEvent::Down(_) => break,
                other => panic!("{other:?}"),
            }
        }
        let cameras = Cameras::start(&[], &mounts);
        relay.others();
        relay.to.send_replace(Some(cameras.port));
        let first = recovery(&mut subscription).await;
        // 3 s are promised. That attempts are close to each other is tested where the waits are
        // computed; the next one is to be the one that succeeds, beside one that may have been
        // under way.
        let attempts = relay.others();
        assert!((1..=2).contains(&attempts), "{transport:?}: {attempts} attempts");
        assert!(first.header.key && first.header.discontinuity);
        assert_eq!(first.header.number, before.len() as u64);
        let latest = before.iter().map(|unit| unit.header.presentation_ns.unwrap()).max().unwrap();
        for unit in units(&mut subscription, 10).await {
            assert!(unit.header.presentation_ns.unwrap() > latest);
            assert!(!unit.header.discontinuity);
        }
    }
}

#[tokio::test]
async fn a_frozen_server_is_noticed_and_recovered_from() {
    let cameras = Cameras::start(&[], &[("/cam", "people-576-baseline.mp4")]);
    let mut subscription = subscribe(&cameras.url("/cam"));
    units(&mut subscription, 5).await;
    cameras.signal(Signal::STOP);
    let fault = fault(&mut subscription).await;
    assert_eq!(fault.kind, SourceFaultKind::Silent, "{fault}");
    assert!(fault.message.contains("no picture for 4 s"), "{fault}");
    cameras.signal(Signal::CONT);
    let first = recovery(&mut subscription).await;
    assert!(first.header.key && first.header.discontinuity);
}

#[tokio::test]
async fn subscribers_share_one_connection_which_ends_with_the_last() {
    let cameras = Cameras::start(&[], &[("/cam", "people-576-high.mp4")]);
    let mut relay = Relay::start(Some(cameras.port)).await;
    let sources = sources();
    let camera = source(&format!("rtsp://127.0.0.1:{}/cam", relay.port), Transport::Tcp);
    let mut early = sources.subscribe(&camera);
    let seen = units(&mut early, 15).await;
    relay.connected().await;

    let mut late = sources.clone().subscribe(&camera);
    assert_eq!(next(&mut late).await, SourceEvent::Up);
    let joined = units(&mut late, 60).await;
    assert!(joined[0].header.key, "the current GOP comes first");
    assert!(joined[0].header.number <= seen[14].header.number);
    let first = joined[0].header.number;
    let numbers: Vec<u64> = joined.iter().map(|unit| unit.header.number).collect();
    assert_eq!(numbers, (first..first + 60).collect::<Vec<_>>(), "no gap, no duplicate");
    let continued = units(&mut early, 60).await;
    assert_eq!(continued[0].header.number, 15, "the other subscriber noticed nothing");
    assert_eq!(relay.others(), 0, "one connection for both");

    drop(early);
    assert_eq!(sources.live_readers(), 1);
    drop(late);
    assert_eq!(sources.live_readers(), 0);
    units(&mut sources.subscribe(&camera), 1).await;
    // A new reader connects anew.
    relay.connected().await;
}

#[tokio::test]
async fn after_packet_loss_units_wait_for_a_key_unit_which_is_marked() {
    for (clip, transport) in
        [("people-576-high.mp4", Transport::Tcp), ("people-576-hevc.mp4", Transport::Udp)]
    {
        let cameras = Cameras::start(&["--drop", "0.01"], &[("/cam", clip)]);
        let sources = sources();
        let mut subscription = sources.subscribe(&source(&cameras.url("/cam"), transport));
        let mut number = 0;
        let mut marked = 0;
        let mut last_shown = None;
        while marked < 3 {
            let unit = units(&mut subscription, 1).await.remove(0);
            assert_eq!(unit.header.number, number);
            number += 1;
            assert!(
                unit.header.key || !unit.header.discontinuity,
                "a break is followed by a key unit"
            );
            let shown = unit.header.presentation_ns.unwrap();
            if let (Some(last), "people-576-high.mp4") = (last_shown, clip) {
                // No B frames: a picture is missing exactly where the step is longer than one
                // frame.
                let complete = shown - last < 150_000_000;
                assert!(complete || unit.header.discontinuity, "{last} {shown}");
            }
            last_shown = Some(shown);
            marked += usize::from(unit.header.discontinuity);
        }
    }
}
