//! Live sources against cameras that do in mid-stream what they should not: a scripted one, whose
//! every packet and answer a test writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ocelli::config::source::Transport;
use ocelli::source::{AccessUnit, SourceEvent, SourceFaultKind, Subscription};
use ocelli_protocol::worker::CaptureClock;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::support::{sources, strict};

/// Far above what any step takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// The parameter sets of `people-576-baseline.mp4`.
const SETS: &str = "Z0LAH9kAwBJoQAAAAwBAAAAFA8YMkg==,aMuDyyA=";
const IDR: &[u8] = &[0x65, 0x88, 0x84, 0x21];
const P: &[u8] = &[0x41, 0x9a, 0x24, 0x6c];
/// A recovery point, right at once, and an intra slice.
const RECOVERY_SEI: &[u8] = &[6, 6, 1, 0xc4, 0x80];
const I: &[u8] = &[0x61, 0x88, 0x84, 0x21];

/// What a test bends. The default is a camera that behaves: ten pictures a second, every tenth an
/// IDR picture.
#[derive(Clone, Copy)]
struct Script {
    /// Between two pictures.
    interval: Duration,
    /// What is sent for picture `n`.
    picture: fn(&mut Rtp, u64) -> Vec<u8>,
    /// The seconds of the session without a keepalive, and the answer to one; `{cseq}` is replaced.
    session: u32,
    keepalive: &'static str,
    /// The status line and the headers of the answer to DESCRIBE.
    describe: fn(u64) -> String,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            picture: good_picture,
            session: 60,
            keepalive: "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n\r\n",
            describe: |_| "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n".to_owned(),
        }
    }
}

fn good_picture(rtp: &mut Rtp, n: u64) -> Vec<u8> {
    let nal = if n.is_multiple_of(10) { IDR } else { P };
    rtp.packet(nal, n, true)
}

/// A stream of RTP packets within the RTSP connection.
struct Rtp {
    sequence: u16,
    ssrc: u32,
    /// Ticks of 90 kHz from one picture to the next.
    step: u32,
}

impl Rtp {
    /// A packet of picture `n`.
    fn packet(&mut self, payload: &[u8], n: u64, marker: bool) -> Vec<u8> {
        let time = u32::try_from(n).unwrap().wrapping_mul(self.step);
        let mut packet = vec![0x80, if marker { 0xe0 } else { 0x60 }];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(time.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(payload);
        self.sequence = self.sequence.wrapping_add(1);
        interleaved(0, &packet)
    }

    /// A sender report: at picture `n`, the camera's clock showed `unix` seconds since 1970.
    fn report(&self, n: u64, unix: u64) -> Vec<u8> {
        let time = u32::try_from(n).unwrap().wrapping_mul(self.step);
        let mut packet = vec![0x80, 200, 0, 6];
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(((unix + 2_208_988_800) << 32).to_be_bytes());
        packet.extend(time.to_be_bytes());
        packet.extend([0; 8]);
        interleaved(1, &packet)
    }
}

fn interleaved(channel: u8, packet: &[u8]) -> Vec<u8> {
    let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
    [&[b'$', channel], &length[..], packet].concat()
}

/// A running camera.
struct OddCamera {
    port: u16,
    described: Arc<AtomicUsize>,
    played: Arc<AtomicUsize>,
}

impl OddCamera {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (described, played) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let camera = Self { port, described: described.clone(), played: played.clone() };
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let served = serve(connection, script, described.clone(), played.clone());
                // A client that hangs up ends it.
                tokio::spawn(async move { served.await.ok() });
            }
        });
        camera
    }

    fn subscribe(&self) -> Subscription {
        let url = format!("rtsp://127.0.0.1:{}/cam", self.port);
        sources().subscribe(&strict(&url, Transport::Tcp))
    }

    fn played(&self) -> usize {
        self.played.load(Ordering::Relaxed)
    }
}

async fn serve(
    connection: TcpStream,
    script: Script,
    described: Arc<AtomicUsize>,
    played: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let (reader, writer) = connection.into_split();
    let mut reader = BufReader::new(reader);
    let writer = Arc::new(Mutex::new(writer));
    while let Some((method, cseq)) = request(&mut reader).await? {
        let answer = match method.as_str() {
            "DESCRIBE" => {
                let body = format!(
                    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n\
                     a=control:track1\r\na=rtpmap:96 H264/90000\r\n\
                     a=fmtp:96 packetization-mode=1;sprop-parameter-sets={SETS}\r\n"
                );
                let head = (script.describe)(described.fetch_add(1, Ordering::Relaxed) as u64);
                let length = body.len();
                format!(
                    "{head}Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{body}"
                )
            }
            "SETUP" => format!(
                "RTSP/1.0 200 OK\r\nCSeq: {{cseq}}\r\nSession: 1;timeout={}\r\n\
                 Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n",
                script.session
            ),
            "PLAY" => "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nSession: 1\r\n\r\n".to_owned(),
            _ => script.keepalive.to_owned(),
        };
        let answer = answer.replace("{cseq}", &cseq);
        writer.lock().await.write_all(answer.as_bytes()).await?;
        if method == "PLAY" {
            played.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(feed(Arc::clone(&writer), script));
        }
    }
    Ok(())
}

/// The method and the CSeq of the next request; `None` at the end of the connection.
async fn request(
    reader: &mut BufReader<OwnedReadHalf>,
) -> std::io::Result<Option<(String, String)>> {
    let (mut method, mut cseq) = (None, String::new());
    loop {
        if reader.fill_buf().await?.first() == Some(&b'$') {
            let mut head = [0; 4];
            reader.read_exact(&mut head).await?;
            let mut packet = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
            reader.read_exact(&mut packet).await?;
            continue;
        }
        let mut line = String::new();
        if reader.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match (line.trim_end(), &method) {
            ("", Some(method)) => return Ok(Some((String::clone(method), cseq))),
            ("", None) => {}
            (line, None) => method = line.split(' ').next().map(str::to_owned),
            (line, Some(_)) => {
                if let Some(value) = line.strip_prefix("CSeq: ") {
                    cseq = value.to_owned();
                }
            }
        }
    }
}

async fn feed(writer: Arc<Mutex<OwnedWriteHalf>>, script: Script) -> std::io::Result<()> {
    let step = u32::try_from(script.interval.as_millis() * 90).unwrap();
    let mut rtp = Rtp { sequence: 1, ssrc: 42, step };
    let mut due = interval(script.interval);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0.. {
        due.tick().await;
        let bytes = (script.picture)(&mut rtp, n);
        writer.lock().await.write_all(&bytes).await?;
    }
    Ok(())
}

/// The next units of a source that must not go down meanwhile.
async fn units(subscription: &mut Subscription, count: usize) -> Vec<Arc<AccessUnit>> {
    let mut units = Vec::new();
    while units.len() < count {
        match timeout(DEADLINE, subscription.next()).await.expect("a unit within the deadline") {
            SourceEvent::Unit(unit) => units.push(unit),
            SourceEvent::Up => {}
            other => panic!("{other:?} after {} units", units.len()),
        }
    }
    units
}

/// The RTP times of units in pictures since the first one.
fn pictures(units: &[Arc<AccessUnit>]) -> Vec<i64> {
    units.iter().map(|unit| unit.header.presentation_ns.unwrap() / 100_000_000).collect()
}

#[tokio::test]
async fn odd_packets_between_pictures_cost_no_picture() {
    let camera = OddCamera::start(Script {
        picture: |rtp, n| {
            let odd = match n {
                15 => rtp.packet(b"\x1fmetadata", n, false),
                22 => rtp.packet(b"", n, false),
                23 => rtp.packet(b"\x86forbidden", n, false),
                24 => rtp.packet(b"\x7dinterleaved", n, true),
                // Of another stream, and no RTP at all.
                25 => Rtp { sequence: 7, ssrc: 43, step: 1 }.packet(P, n, true),
                26 => interleaved(0, b"\x12\x34"),
                // No RTCP.
                27 => interleaved(1, b"\x80\xc8\x00"),
                _ => Vec::new(),
            };
            [odd, good_picture(rtp, n)].concat()
        },
        ..Script::default()
    })
    .await;
    let units = units(&mut camera.subscribe(), 35).await;
    assert_eq!(pictures(&units), (0..35).collect::<Vec<_>>(), "not one is missing");
    assert!(units.iter().all(|unit| !unit.header.discontinuity));
    assert_eq!(camera.played(), 1);
}

#[tokio::test]
async fn a_damaged_picture_is_a_loss_up_to_the_next_key_picture() {
    let camera = OddCamera::start(Script {
        picture: |rtp, n| match n {
            // A fragment of a NAL unit without its start, and a picture without its first slice.
            13 => rtp.packet(b"\x5c\x41rest", n, true),
            26 => rtp.packet(&[0x41, 0x1a, 1], n, true),
            // A key picture that an odd packet cuts in two: its second slice alone is none.
            40 => [
                rtp.packet(IDR, n, false),
                rtp.packet(b"\x1fmetadata", n, false),
                rtp.packet(&[0x65, 0x12, 1], n, true),
            ]
            .concat(),
            _ => good_picture(rtp, n),
        },
        ..Script::default()
    })
    .await;
    let units = units(&mut camera.subscribe(), 35).await;
    let expected: Vec<i64> = (0..13).chain(20..26).chain(30..40).chain(50..56).collect();
    assert_eq!(pictures(&units), expected);
    let marked = units.iter().filter(|unit| unit.header.discontinuity);
    let marked: Vec<_> = marked.map(|unit| unit.header.number).collect();
    assert_eq!(marked, [13, 19, 29]);
    assert_eq!(camera.played(), 1);
}

#[tokio::test]
async fn packets_that_never_make_a_picture_end_the_session_soon() {
    // The server announces no SSRC and changes it; or marks each picture with a NAL unit that no
    // picture has.
    let changed: fn(&mut Rtp, u64) -> Vec<u8> = |rtp, n| {
        rtp.ssrc = if n < 5 { 1 } else { 2 };
        good_picture(rtp, n)
    };
    let marked: fn(&mut Rtp, u64) -> Vec<u8> =
        |rtp, n| [rtp.packet(IDR, n, false), rtp.packet(b"\x1dend", n, true)].concat();
    for picture in [changed, marked] {
        let camera = OddCamera::start(Script { picture, ..Script::default() }).await;
        let mut subscription = camera.subscribe();
        let since = Instant::now();
        let fault = loop {
            match timeout(DEADLINE, subscription.next()).await.unwrap() {
                SourceEvent::Down(fault) => break fault,
                _ => continue,
            }
        };
        assert_eq!(fault.kind, SourceFaultKind::Protocol, "{fault}");
        assert!(fault.message.contains("cannot be used"), "{fault}");
        assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    }
}

#[tokio::test]
async fn keepalives_that_are_refused_or_ignored_do_not_end_a_stream() {
    let answers = [
        "",
        "RTSP/1.0 400 Bad Request\r\nCSeq: 1\r\n\r\n",
        "RTSP/1.0 501 Not Implemented\r\nServer: odd\r\n\r\n",
        "RTSP/1.0 454 Session Not Found\r\nCSeq: {cseq}\r\n\r\n",
    ];
    let mut watched = Vec::new();
    for keepalive in answers {
        // A keepalive goes out every second.
        let camera = OddCamera::start(Script { session: 2, keepalive, ..Script::default() }).await;
        watched.push(tokio::spawn(async move {
            let units = units(&mut camera.subscribe(), 50).await;
            (pictures(&units), camera.played())
        }));
    }
    for watching in watched {
        assert_eq!(watching.await.unwrap(), ((0..50).collect(), 1));
    }
}

#[tokio::test]
async fn a_request_of_the_servers_does_not_hold_the_stream_up() {
    let camera = OddCamera::start(Script {
        picture: |rtp, n| {
            let asks = "OPTIONS rtsp://camera/cam RTSP/1.0\r\nCSeq: 9\r\nSession: 1\r\n\r\n";
            let asks = if n % 5 == 4 { asks.as_bytes() } else { &[] };
            [asks, &good_picture(rtp, n)].concat()
        },
        ..Script::default()
    })
    .await;
    let mut subscription = camera.subscribe();
    let mut last = None;
    for unit in units(&mut subscription, 40).await {
        let received = unit.header.received_ns;
        let gap = last.replace(received).map_or(0, |last| received - last);
        // Held up until the keepalive after 30 s, or until the stream counts as silent.
        assert!(gap < 2_000_000_000, "{gap} ns before picture {}", unit.header.number);
    }
    assert_eq!(camera.played(), 1);
}

#[tokio::test]
async fn a_slow_camera_keeps_its_connection() {
    let interval = Duration::from_millis(4_500);
    let picture: fn(&mut Rtp, u64) -> Vec<u8> = |rtp, n| rtp.packet(IDR, n, true);
    let camera = OddCamera::start(Script { interval, picture, ..Script::default() }).await;
    let units = units(&mut camera.subscribe(), 4).await;
    let step = 4_500_000_000;
    let shown: Vec<i64> = units.iter().map(|unit| unit.header.presentation_ns.unwrap()).collect();
    assert_eq!(shown, [0, step, 2 * step, 3 * step]);
    assert_eq!(camera.played(), 1);
}

#[tokio::test]
async fn a_stream_without_idr_pictures_begins_at_a_recovery_point() {
    // The second camera marks nothing: an intra picture becomes an entry after a while.
    let marked: fn(&mut Rtp, u64) -> Vec<u8> = |rtp, n| match n % 10 {
        3 => [rtp.packet(RECOVERY_SEI, n, false), rtp.packet(I, n, true)].concat(),
        _ => rtp.packet(P, n, true),
    };
    let unmarked: fn(&mut Rtp, u64) -> Vec<u8> =
        |rtp, n| rtp.packet(if n % 30 == 29 { I } else { P }, n, true);
    for (picture, distance) in [(marked, 10), (unmarked, 30)] {
        let camera = OddCamera::start(Script { picture, ..Script::default() }).await;
        let units = units(&mut camera.subscribe(), distance + 2).await;
        let keys: Vec<_> = (0..units.len()).filter(|at| units[*at].header.key).collect();
        assert_eq!(keys, [0, distance]);
        // The parameter sets come first, then the mark: a worker may start here.
        for key in keys {
            let starts = units[key].data.windows(5).filter(|data| data.starts_with(&[0, 0, 0, 1]));
            let types: Vec<_> = starts.map(|data| data[4] & 0x1f).collect();
            assert_eq!(types, [7, 8, 6, 1]);
        }
    }
}

#[tokio::test]
async fn times_are_the_cameras_only_while_its_reports_can_be_believed() {
    let camera = OddCamera::start(Script {
        picture: |rtp, n| {
            const HOUR: u64 = 36_000;
            let now = ocelli_protocol::clock::wall_ns() / 1_000_000_000;
            let report = match n {
                5 => rtp.report(n, now - 7200),
                // The RTP time jumps by an hour at 10, and the report for it comes at 15.
                15 => rtp.report(n + HOUR, now - 7200),
                20 => rtp.report(n + HOUR, now + 400 * 86_400),
                25 => rtp.report(n, now),
                _ => Vec::new(),
            };
            let nal = if n.is_multiple_of(10) { IDR } else { P };
            [report, rtp.packet(nal, if n < 10 { n } else { n + HOUR }, true)].concat()
        },
        ..Script::default()
    })
    .await;
    let units = units(&mut camera.subscribe(), 30).await;
    for (n, unit) in units.iter().enumerate() {
        let by_camera = (5..10).contains(&n) || (15..20).contains(&n);
        let expected = if by_camera { CaptureClock::Camera } else { CaptureClock::Host };
        assert_eq!(unit.header.capture_clock, expected, "picture {n}");
        let off =
            i128::from(ocelli_protocol::clock::wall_ns()) - i128::from(unit.header.capture_ns);
        let expected = if by_camera { 7200 } else { 0 };
        assert!((off / 1_000_000_000 - expected).abs() < 60, "picture {n} is {off} ns off");
    }
}

#[tokio::test]
async fn a_fault_whose_text_changes_is_told_once_and_not_hammered() {
    let camera = OddCamera::start(Script {
        describe: |n| format!("RTSP/1.0 200 OK\r\nCSeq: {}\r\n", 1000 + n),
        ..Script::default()
    })
    .await;
    let mut subscription = camera.subscribe();
    let mut faults = Vec::new();
    let watched = timeout(Duration::from_secs(4), async {
        loop {
            match subscription.next().await {
                SourceEvent::Down(fault) => faults.push(fault),
                other => panic!("{other:?}"),
            }
        }
    });
    watched.await.unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].kind, SourceFaultKind::Protocol, "it speaks RTSP: {}", faults[0]);
    // After 0.25, 0.5, 1 and 2 s, where there were six before.
    let described = camera.described.load(Ordering::Relaxed);
    assert!((2..=5).contains(&described), "{described} attempts");
}
