//! Live sources against a real RTSP server: Debian's gst-rtsp-server, started by `tests/cameras/rtsp_cameras.py`; and
//! against servers that are none, or bad ones.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli::config::source::{Source, Transport};
use ocelli::source::{AccessUnit, Fault, FaultKind, Settings, SourceEvent, Sources, Subscription};
use ocelli_protocol::clock;
use ocelli_protocol::worker::Codec;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Far above what any step takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running server; killed when dropped.
struct Cameras {
    child: Child,
    port: u16,
}

impl Cameras {
    /// `port` 0 picks a free one.
    fn start(port: u16, options: &[&str], mounts: &[(&str, &str)]) -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
        let mounts =
            mounts.iter().map(|(path, clip)| format!("{path}={}", tests.join("clips").join(clip).display()));
        let mut child = Command::new("/usr/bin/python3")
            .arg(tests.join("cameras/rtsp_cameras.py"))
            .args(["--port", &port.to_string()])
            .args(options)
            .args(mounts)
            .stdout(Stdio::piped())
            .spawn()
            .expect("/usr/bin/python3 starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| line.unwrap().strip_prefix("READY ")?.trim().parse().ok());
        let Some(port) = port else {
            let _ = child.kill();
            panic!("the RTSP server did not start: are python3-gi and gir1.2-gst-rtsp-server-1.0 installed?");
        };
        Self { child, port }
    }

    fn url(&self, path: &str) -> String {
        format!("rtsp://127.0.0.1:{}{path}", self.port)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// As a power cut would.
    fn kill(mut self) -> u16 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.port
    }
}

impl Drop for Cameras {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn source(url: &str, transport: Transport) -> Source {
    Source::parse(url, Some(transport), None, false).unwrap()
}

fn subscribe(url: &str) -> Subscription {
    Sources::new(Settings::default()).subscribe(&source(url, Transport::Tcp))
}

async fn next(subscription: &mut Subscription) -> SourceEvent {
    timeout(DEADLINE, subscription.next()).await.expect("an event within the deadline")
}

async fn units(subscription: &mut Subscription, count: usize) -> Vec<Arc<AccessUnit>> {
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

async fn fault(subscription: &mut Subscription) -> Fault {
    loop {
        match next(subscription).await {
            SourceEvent::Down(fault) => return fault,
            SourceEvent::Up | SourceEvent::Unit(_) => {}
            SourceEvent::Ended => panic!("a live source has no end"),
        }
    }
}

/// Up, and the first unit after it.
async fn recovery(subscription: &mut Subscription) -> Arc<AccessUnit> {
    let mut up = false;
    loop {
        match next(subscription).await {
            SourceEvent::Unit(unit) if up => return unit,
            SourceEvent::Unit(_) => {}
            SourceEvent::Up => up = true,
            SourceEvent::Down(_) => up = false,
            SourceEvent::Ended => panic!("a live source has no end"),
        }
    }
}

/// Passes connections on to `to`, and tells of each that comes in.
async fn relay(to: u16) -> (u16, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, connections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            let _ = sender.send(());
            tokio::spawn(async move {
                let mut outer = TcpStream::connect(("127.0.0.1", to)).await?;
                tokio::io::copy_bidirectional(&mut inner, &mut outer).await
            });
        }
    });
    (port, connections)
}

/// Answers every request with `answer`, in which `{cseq}` is replaced.
async fn scripted(answer: &'static str) -> SocketAddr {
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
        0,
        &[],
        &[
            ("/baseline", "people-576-baseline.mp4"),
            ("/high", "people-1080-high-b3.mp4"),
            ("/hevc", "people-576-hevc.mp4"),
            ("/mjpeg", "people-576-mjpeg.avi"),
        ],
    );
    let sources = Sources::new(Settings::default());
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
    let cameras = Cameras::start(0, &[], &[("/cam", "people-576-baseline.mp4")]);
    let mut subscription = subscribe(&cameras.url("/cam"));
    // By the sender report, capture times are exactly as far apart as presentation times; times of receipt never are.
    // The first report comes within seconds.
    let mut offset = i64::MIN;
    let mut alike = 0;
    while alike < 8 {
        let header = units(&mut subscription, 1).await.remove(0).header.clone();
        assert!(header.number < 300, "the camera's clock is never followed");
        let last = std::mem::replace(&mut offset, header.capture_ns as i64 - header.presentation_ns.unwrap());
        alike = if offset.abs_diff(last) < 1_000 { alike + 1 } else { 0 };
    }
}

#[tokio::test]
async fn digest_lets_the_right_password_in_and_a_wrong_one_is_not_tried_again_soon() {
    let options = ["--user", "watcher", "--password", "pass:w/rd"];
    let cameras = Cameras::start(0, &options, &[("/cam", "people-576-baseline.mp4")]);
    let port = cameras.port;
    units(&mut subscribe(&format!("rtsp://watcher:pass%3Aw%2Frd@127.0.0.1:{port}/cam")), 3).await;

    let (relayed, mut connections) = relay(port).await;
    for credentials in ["watcher:wr0ngw0rd@", ""] {
        let mut refused = subscribe(&format!("rtsp://{credentials}127.0.0.1:{relayed}/cam"));
        let fault = fault(&mut refused).await;
        assert_eq!(fault.kind, FaultKind::Unauthorized, "{fault}");
        assert!(!fault.message.contains("watcher") && !fault.message.contains("wr0ngw0rd"), "{fault}");
        assert!(fault.message.contains("127.0.0.1") && fault.message.contains("password"), "{fault}");
        assert_eq!(connections.recv().await, Some(()));
        let again = timeout(Duration::from_secs(3), connections.recv()).await;
        assert!(again.is_err(), "the next attempt is 10 s away");
    }
}

#[tokio::test]
async fn what_is_no_camera_is_told_by_kind() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let web = scripted("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let audio = scripted(sdp("m=audio 0 RTP/AVP 0\r\na=control:track1\r\n")).await;
    let vp8 = scripted(sdp("m=video 0 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\na=control:track1\r\n")).await;
    let hasty = scripted("").await;
    let busy = scripted("RTSP/1.0 503 Service Unavailable\r\nCSeq: {cseq}\r\n\r\n").await;
    let cases = [
        (unused, FaultKind::Unreachable, "refused"),
        (web, FaultKind::NotRtsp, "not in RTSP"),
        (silent.local_addr().unwrap(), FaultKind::Silent, "says nothing"),
        (audio, FaultKind::NoVideo, "only audio"),
        (vp8, FaultKind::UnsupportedCodec, "vp8"),
        (hasty, FaultKind::Closed, "DESCRIBE"),
        (busy, FaultKind::Protocol, "503"),
    ];
    let sources = Sources::new(Settings::default());
    let subscriptions: Vec<_> = cases
        .iter()
        .map(|(address, ..)| {
            sources.subscribe(&source(&format!("rtsp://visitor:s3cr3t@{address}/cam"), Transport::Tcp))
        })
        .collect();
    for (mut subscription, (address, kind, cause)) in subscriptions.into_iter().zip(cases) {
        let fault = fault(&mut subscription).await;
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.message.contains(cause) && fault.message.contains(&address.to_string()), "{fault}");
        assert!(!fault.message.contains("visitor") && !fault.message.contains("s3cr3t"), "{fault}");
    }
}

#[tokio::test]
async fn a_wrong_path_is_told_with_the_servers_answer() {
    let cameras = Cameras::start(0, &[], &[("/cam", "people-576-baseline.mp4")]);
    let fault = fault(&mut subscribe(&cameras.url("/other"))).await;
    assert_eq!(fault.kind, FaultKind::Protocol);
    assert!(fault.message.contains("404") && fault.message.contains("path"), "{fault}");
}

#[tokio::test]
async fn after_a_restart_of_the_server_numbers_and_times_go_on() {
    for transport in [Transport::Tcp, Transport::Udp] {
        let mounts = [("/cam", "people-576-high-b3.mp4")];
        let cameras = Cameras::start(0, &[], &mounts);
        let sources = Sources::new(Settings::default());
        let mut subscription = sources.subscribe(&source(&cameras.url("/cam"), transport));
        let mut before = units(&mut subscription, 20).await;

        let port = cameras.kill();
        loop {
            match next(&mut subscription).await {
                SourceEvent::Unit(unit) => before.push(unit),
                SourceEvent::Down(_) => break,
                other => panic!("{other:?}"),
            }
        }
        let _cameras = Cameras::start(port, &[], &mounts);
        let returned = Instant::now();
        let first = recovery(&mut subscription).await;
        // 3 s are promised; as much again for a machine that runs other tests beside.
        assert!(returned.elapsed() < Duration::from_secs(6), "{transport:?}: {:?}", returned.elapsed());
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
    let cameras = Cameras::start(0, &[], &[("/cam", "people-576-baseline.mp4")]);
    let mut subscription = subscribe(&cameras.url("/cam"));
    units(&mut subscription, 5).await;
    cameras.signal(Signal::STOP);
    let frozen = Instant::now();
    let fault = fault(&mut subscription).await;
    assert_eq!(fault.kind, FaultKind::Silent, "{fault}");
    assert!(frozen.elapsed() < Duration::from_secs(8), "{:?}", frozen.elapsed());
    cameras.signal(Signal::CONT);
    let first = recovery(&mut subscription).await;
    assert!(first.header.key && first.header.discontinuity);
}

#[tokio::test]
async fn subscribers_share_one_connection_which_ends_with_the_last() {
    let cameras = Cameras::start(0, &[], &[("/cam", "people-576-high.mp4")]);
    let (port, mut connections) = relay(cameras.port).await;
    let sources = Sources::new(Settings::default());
    let camera = source(&format!("rtsp://127.0.0.1:{port}/cam"), Transport::Tcp);
    let mut early = sources.subscribe(&camera);
    let seen = units(&mut early, 15).await;
    assert_eq!(connections.recv().await, Some(()));

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
    assert!(connections.try_recv().is_err(), "one connection for both");

    drop(early);
    assert_eq!(sources.live_readers(), 1);
    drop(late);
    assert_eq!(sources.live_readers(), 0);
    units(&mut sources.subscribe(&camera), 1).await;
    assert_eq!(connections.recv().await, Some(()), "a new reader connects anew");
}

#[tokio::test]
async fn after_packet_loss_units_wait_for_a_key_unit_which_is_marked() {
    for (clip, transport) in
        [("people-576-high.mp4", Transport::Tcp), ("people-576-hevc.mp4", Transport::Udp)]
    {
        let cameras = Cameras::start(0, &["--drop", "0.01"], &[("/cam", clip)]);
        let sources = Sources::new(Settings::default());
        let mut subscription = sources.subscribe(&source(&cameras.url("/cam"), transport));
        let mut number = 0;
        let mut marked = 0;
        let mut last_shown = None;
        while marked < 3 {
            let unit = units(&mut subscription, 1).await.remove(0);
            assert_eq!(unit.header.number, number);
            number += 1;
            assert!(unit.header.key || !unit.header.discontinuity, "a break is followed by a key unit");
            let shown = unit.header.presentation_ns.unwrap();
            if let (Some(last), "people-576-high.mp4") = (last_shown, clip) {
                // No B frames: a picture is missing exactly where the step is longer than one frame.
                let complete = shown - last < 150_000_000;
                assert!(complete || unit.header.discontinuity, "{last} {shown}");
            }
            last_shown = Some(shown);
            marked += usize::from(unit.header.discontinuity);
        }
    }
}
