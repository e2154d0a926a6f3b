//! Cameras: a reader reaches them through its host alone.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use ocelli_protocol::ingest::{
    FromIngest, IngestFaultKind, IngestStep, Input, NetworkRequest, Open,
};
use ocelli_testkit::clip;

use crate::camera::{Broker, CLOCK, Camera, Script, packets, sender_report};
use crate::process::{Ingest, MEMORY, Played, nals, packet_sockets};

/// Pictures that the cameras here send.
const PICTURES: usize = 30;

/// A reader of a camera, with the host's side of its network.
fn read(
    url: &str,
    udp: bool,
    admits: impl Fn(SocketAddr) -> bool + Send + 'static,
) -> (Ingest, Broker) {
    let (ours, theirs) = packet_sockets();
    let open = Open {
        input: Input::Camera { url: url.to_owned(), udp },
        memory: MEMORY,
        read_timeout_ms: 2_000,
    };
    let broker = Broker::serve(ours, admits);
    (Ingest::start(&open, theirs, File::open("/dev/null").unwrap().into()), broker)
}

fn url(camera: &Camera) -> String {
    format!("rtsp://{}/stream", camera.address)
}

fn play(camera: &Camera) -> (Played, Vec<NetworkRequest>) {
    let address = camera.address;
    let (ingest, broker) = read(&url(camera), false, move |to| to == address);
    let played = ingest.play();
    (played, broker.asked())
}

/// The first units of a clip, each with parameter sets before a key picture.
fn units() -> Vec<Vec<u8>> {
    let (info, units) = ocelli_ingest::file_units(&clip("people-576-baseline.mp4")).unwrap();
    let units = units.into_iter().take(PICTURES).map(|(unit, data)| match unit.key {
        true => [info.parameter_sets.clone(), data].concat(),
        false => data,
    });
    units.collect()
}

#[test]
fn a_camera_plays_over_the_connection_that_its_host_made() {
    let units = units();
    let mut packets = packets(&units, CLOCK / 10);
    // Before the second picture, so that the times of those behind it are known.
    let second =
        packets.iter().position(|packet| packet[4..8] == 10_000_u32.to_be_bytes()).unwrap();
    packets.insert(second, sender_report(1_800_000_000, 1000));
    let camera = Script::playing(packets).serve();
    let (played, asked) = play(&camera);
    assert_eq!(asked, [NetworkRequest::Connect { address: camera.address }]);
    // The last picture ends with the connection.
    assert_eq!(played.fault().kind, IngestFaultKind::Closed, "{:?}", played.fault());
    assert_eq!(played.fault().step, IngestStep::Read);
    let sent: Vec<Vec<&[u8]>> = units.iter().map(|unit| nals(unit)).collect();
    let came: Vec<Vec<&[u8]>> = played.units.iter().map(|(_, data)| nals(data)).collect();
    assert!(came.len() >= PICTURES - 1, "{}", came.len());
    assert_eq!(came, sent[..came.len()]);
    assert!(played.damage.is_empty(), "{:?}", played.damage);
    for (number, (unit, _)) in played.units.iter().enumerate() {
        let time = number as i64 * 100_000_000;
        assert_eq!(unit.presentation_ns, Some(time), "{number}");
        let wall = 1_800_000_000_000_000_000 + time as u64;
        assert_eq!(unit.capture_ns, (number > 0).then_some(wall), "{number}");
    }
    let requests = camera.connections.recv().unwrap();
    assert!(requests.iter().all(|request| request.contains("User-Agent: ocelli/")));
    let setups = requests.iter().filter(|request| request.starts_with("SETUP")).count();
    assert_eq!(setups, 1, "the sound is not asked for");
}

#[test]
fn a_name_is_resolved_by_the_host() {
    let camera = Script::answering("DESCRIBE", "RTSP/1.0 404 Not Found\r\n").serve();
    let address = camera.address;
    let url = format!("rtsp://user:secret@camera.example:{}/stream", address.port());
    let (ingest, broker) = read(&url, false, move |to| to == address);
    let played = ingest.play();
    assert_eq!(played.fault().kind, IngestFaultKind::Status(404), "{:?}", played.fault());
    let name = "camera.example".to_owned();
    let expected = [NetworkRequest::Resolve { name }, NetworkRequest::Connect { address }];
    assert_eq!(broker.asked(), expected);
}

#[test]
fn nothing_is_reached_that_the_host_does_not_admit() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (ingest, broker) = read(&format!("rtsp://{address}/"), false, |_| false);
    let played = ingest.play();
    assert_eq!(played.fault().kind, IngestFaultKind::NotAdmitted, "{:?}", played.fault());
    assert_eq!(played.fault().step, IngestStep::Open);
    assert!(played.fault().reason.contains(&address.to_string()), "{:?}", played.fault());
    assert_eq!(broker.asked(), [NetworkRequest::Connect { address }]);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "it was reached");
}

#[test]
fn without_an_answer_nothing_connects() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = packet_sockets();
    let open = Open {
        input: Input::Camera { url: format!("rtsp://{address}/"), udp: false },
        memory: MEMORY,
        read_timeout_ms: 2_000,
    };
    // A host that takes the request and goes.
    let host = std::thread::spawn(move || {
        let mut message = [0; 1024];
        rustix::net::recv(&ours, &mut message, rustix::net::RecvFlags::empty()).unwrap()
    });
    let played = Ingest::start(&open, theirs, File::open("/dev/null").unwrap().into()).play();
    assert!(host.join().unwrap().0 > 0);
    assert_eq!(played.fault().kind, IngestFaultKind::Unreachable, "{:?}", played.fault());
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "it was reached");
}

#[test]
fn a_redirect_asks_the_host_again() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = target.local_addr().unwrap();
    let moved = format!("RTSP/1.0 302 Moved\r\nLocation: rtsp://{to}/other\r\n");
    let camera = Script::answering("DESCRIBE", &moved).serve();
    let (played, asked) = play(&camera);
    assert_eq!(played.fault().kind, IngestFaultKind::NotAdmitted, "{:?}", played.fault());
    assert!(played.fault().reason.contains(&to.to_string()), "{:?}", played.fault());
    let expected = [camera.address, to].map(|address| NetworkRequest::Connect { address });
    assert_eq!(asked, expected);
    target.set_nonblocking(true).unwrap();
    assert!(target.accept().is_err(), "it was reached");
}

#[test]
fn a_redirect_in_a_circle_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let moved = format!("RTSP/1.0 302 Moved\r\nLocation: rtsp://{address}/\r\n");
    let camera = Script::answering("OPTIONS", &moved);
    // On the port that it refers to, which nothing else has taken since.
    let camera = camera.serve_at(address);
    let (played, asked) = play(&camera);
    assert_eq!(played.fault().step, IngestStep::Open);
    assert!(asked.len() <= 64, "{} connections", asked.len());
}

#[test]
fn refusals_have_their_kind() {
    let unauthorized = "RTSP/1.0 401 Unauthorized\r\n\
        WWW-Authenticate: Digest realm=\"camera\", nonce=\"1\"\r\n";
    for (head, kind) in [
        (unauthorized, IngestFaultKind::Unauthorized),
        ("RTSP/1.0 403 Forbidden\r\n", IngestFaultKind::Unauthorized),
        ("RTSP/1.0 454 Session Not Found\r\n", IngestFaultKind::Status(454)),
        ("RTSP/1.0 503 Service Unavailable\r\n", IngestFaultKind::Status(503)),
    ] {
        let camera = Script::answering("DESCRIBE", head).serve();
        let (played, _) = play(&camera);
        assert_eq!(played.fault().kind, kind, "{head}: {:?}", played.fault());
        assert_eq!(played.fault().step, IngestStep::Open);
    }
    let sound = "v=0\r\ns=camera\r\nm=audio 0 RTP/AVP 0\r\na=control:audio\r\n";
    let mut script = Script::playing(Vec::new());
    script.answers.get_mut("DESCRIBE").unwrap().1 = sound.to_owned();
    let (played, _) = play(&script.serve());
    assert_eq!(played.fault().kind, IngestFaultKind::NoVideo, "{:?}", played.fault());
}

#[test]
fn a_port_without_a_camera_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (ingest, _broker) = read(&format!("rtsp://{address}/"), false, |_| true);
    let played = ingest.play();
    assert_eq!(played.fault().kind, IngestFaultKind::Unreachable, "{:?}", played.fault());
}

#[test]
fn a_camera_that_falls_silent_times_out() {
    let mut script = Script::playing(packets(&units()[..2], CLOCK / 10));
    script.closes = false;
    let camera = script.serve();
    let begun = Instant::now();
    let (played, _) = play(&camera);
    assert_eq!(played.fault().kind, IngestFaultKind::Timeout, "{:?}", played.fault());
    assert_eq!(played.fault().step, IngestStep::Read);
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

/// A camera that plays in datagrams, and then waits.
fn over_udp(packets: Vec<Vec<u8>>) -> Camera {
    let mut script = Script::playing(packets);
    script.udp = true;
    script.closes = false;
    let setup = script.answers.get_mut("SETUP").unwrap();
    setup.0 = "RTSP/1.0 200 OK\r\nSession: 1\r\n\
        Transport: RTP/AVP;unicast;client_port=0-0;server_port=SERVER_PORT-1\r\n"
        .to_owned();
    script.serve()
}

#[test]
fn lost_packets_are_damage_between_units() {
    let units = units();
    let mut packets = packets(&units, CLOCK / 10);
    // A middle fragment of the tenth picture.
    let time = (1000 + 9 * CLOCK / 10).to_be_bytes();
    let of_tenth: Vec<usize> = (0..packets.len()).filter(|at| packets[*at][4..8] == time).collect();
    assert!(of_tenth.len() > 2);
    packets.remove(of_tenth[1]);
    let camera = over_udp(packets);
    let played = read(&url(&camera), true, |_| true).0.play();
    assert_eq!(played.damage.len(), 1, "{:?}", played.damage);
    let (before, damage) = &played.damage[0];
    assert!((8..=10).contains(before), "{:?}", played.damage);
    assert!(damage.reason.contains("missed 1 packet"), "{damage:?}");
    assert_eq!(played.units.len(), PICTURES);
}

#[test]
fn a_camera_plays_over_udp_and_gets_its_reports_from_the_host() {
    let units = units();
    let camera = over_udp(packets(&units, CLOCK / 10));
    let (ingest, broker) = read(&url(&camera), true, |_| true);
    let played = ingest.play();
    assert_eq!(played.fault().kind, IngestFaultKind::Timeout, "{:?}", played.fault());
    assert_eq!(played.units.len(), PICTURES);
    for (number, ((_, came), sent)) in played.units.iter().zip(&units).enumerate() {
        assert_eq!(nals(came), nals(sent), "{number}");
    }
    let sends = broker.asked().into_iter().filter_map(|request| match request {
        NetworkRequest::Send { address, data } => Some((address, data.len())),
        _ => None,
    });
    let sends: Vec<_> = sends.collect();
    assert!(sends.len() >= 2, "packets that open the way, and reports: {sends:?}");
    assert!(sends.iter().all(|(to, size)| to.ip() == camera.address.ip() && *size > 0));
}

#[test]
fn a_camera_that_sends_reports_alone_is_alive() {
    let camera = over_udp(packets(&units()[..3], CLOCK / 10));
    let (mut ingest, _broker) = read(&url(&camera), true, |_| true);
    until(&mut ingest, |message| matches!(message, FromIngest::Opened(_)));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (told, stop) = std::sync::mpsc::channel::<()>();
    let pid = ingest.pid();
    // Reports until the test has heard what it waits for.
    let sender = std::thread::spawn(move || {
        let ports = udp_ports(pid);
        assert_eq!(ports.len(), 2, "{ports:?}");
        while stop.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
            for port in &ports {
                socket.send_to(&sender_report(1_800_000_000, 1000), ("127.0.0.1", *port)).unwrap();
            }
        }
    });
    until(&mut ingest, |message| *message == FromIngest::Alive);
    drop(told);
    sender.join().unwrap();
}

/// Reads up to a message.
fn until(ingest: &mut Ingest, is_it: impl Fn(&FromIngest) -> bool) {
    loop {
        let (message, _) = ingest.message().unwrap();
        assert!(!matches!(message, FromIngest::Failed(_)), "{message:?}");
        if is_it(&message) {
            return;
        }
    }
}

/// The ports of a process's UDP sockets.
fn udp_ports(pid: u32) -> Vec<u16> {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let own: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| {
            Some(std::fs::read_link(entry.ok()?.path()).ok()?.display().to_string())
        })
        .collect();
    let port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let inode = format!("socket:[{}]", fields.get(9)?);
        let port = u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok()?;
        own.contains(&inode).then_some(port)
    };
    table.lines().filter_map(port).collect()
}
