//! Pictures over a WebSocket: what is on the wire, in which order, and for how long.

use bytes::Bytes;
use ocelli::source::{AccessUnit, PictureTap};
use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::worker::{CaptureClock, Codec, Orientation, UnitHeader};

use super::*;

/// A picture's message, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    flags: u8,
    codec: u16,
    stream: u32,
    number: u64,
    presentation_ns: i64,
    capture_ns: u64,
    age_ns: u64,
    data: Vec<u8>,
}

impl Shown {
    fn read(message: &[u8]) -> Self {
        fn take<const N: usize>(message: &[u8], at: usize) -> [u8; N] {
            message[at..at + N].try_into().unwrap()
        }
        assert_eq!(message[0], 1, "the header's version");
        Self {
            flags: message[1],
            codec: u16::from_be_bytes(take(message, 2)),
            stream: u32::from_be_bytes(take(message, 4)),
            number: u64::from_be_bytes(take(message, 8)),
            presentation_ns: i64::from_be_bytes(take(message, 16)),
            capture_ns: u64::from_be_bytes(take(message, 24)),
            age_ns: u64::from_be_bytes(take(message, 32)),
            data: message[40..].to_vec(),
        }
    }
}

/// A unit, received now; every tenth is a key unit.
fn unit(number: u64, size: usize) -> AccessUnit {
    let header = UnitHeader {
        number,
        codec: Codec::H264,
        key: number.is_multiple_of(10),
        disposable: false,
        discontinuity: false,
        presentation_ns: Some(number as i64 * 40_000_000 - 80_000_000),
        capture_ns: 1_767_323_045_678_000_000 + number,
        capture_clock: CaptureClock::Camera,
        orientation: Orientation::Upright,
        hidden: false,
        received_ns: monotonic_ns(),
    };
    let data: Vec<u8> = (0..size).map(|at| (at as u64 + number) as u8).collect();
    AccessUnit { header, data: Bytes::from(data) }
}

fn watch_pictures(session: &str, pictures: &str) -> Value {
    json!({"type": "watch", "session": session, "pictures": pictures})
}

impl Host {
    /// Gives a session pictures, which come from the tap.
    fn shows(&self, session: &str) -> PictureTap {
        let tap = PictureTap::default();
        let mut pictures = self.double.pictures.lock();
        pictures.entry(session.into()).or_default().follow(tap.clone());
        tap
    }

    fn dropped(&self, session: &str) -> u64 {
        self.double.pictures.lock()[session].feed().counts().dropped()
    }
}

impl Client {
    /// The next message: a text or a picture.
    async fn message(&mut self) -> Result<Shown, Value> {
        loop {
            match within(self.0.next()).await.unwrap().unwrap() {
                Message::Binary(bytes) => return Ok(Shown::read(&bytes)),
                Message::Text(text) => return Err(serde_json::from_str(&text).unwrap()),
                _ => {}
            }
        }
    }

    async fn pictures(&mut self, count: usize) -> Vec<(u32, u64, u8)> {
        let mut pictures = Vec::new();
        while pictures.len() < count {
            let picture = self.message().await.unwrap();
            pictures.push((picture.stream, picture.number, picture.flags));
        }
        pictures
    }
}

fn publish(tap: &PictureTap, numbers: std::ops::Range<u64>) {
    numbers.for_each(|number| tap.unit(&Arc::new(unit(number, 3))));
}

#[tokio::test]
async fn a_pictures_message_is_its_header_and_the_unit_and_never_compressed() {
    let host = Host::start().await;
    let tap = host.shows(GATE);
    let (mut stream, _) = host.raw(&format!("Sec-WebSocket-Extensions: {DEFLATE}\r\n")).await;
    let mut sent = unit(7, 5000);
    sent.header = UnitHeader {
        codec: Codec::H265,
        key: true,
        discontinuity: true,
        hidden: true,
        orientation: Orientation::TurnLeft,
        received_ns: monotonic_ns() - 3_000_000_000,
        ..sent.header
    };
    tap.unit(&Arc::new(sent.clone()));
    let asked = watch_pictures(GATE, "all").to_string();
    stream.write_all(&frame(0x81, asked.as_bytes())).await.unwrap();
    let answer = text(read_frame(&mut stream).await.unwrap());
    let expected = json!({"type": "watching", "session": GATE, "pictures": "all",
        "codec": "h265", "stream": 1});
    assert_eq!(answer, expected);
    let (first, message) = read_frame(&mut stream).await.unwrap();
    assert_eq!(first, 0x82, "binary, whole, not compressed");
    let picture = Shown::read(&message);
    assert!((3_000_000_000..60_000_000_000).contains(&picture.age_ns), "{}", picture.age_ns);
    let expected = Shown {
        flags: 0b111 | 7 << 4,
        codec: 2,
        stream: 1,
        number: 7,
        presentation_ns: 200_000_000,
        capture_ns: 1_767_323_045_678_000_007,
        age_ns: picture.age_ns,
        data: sent.data.to_vec(),
    };
    assert_eq!(picture, expected);
    // The first bytes as a client in another language reads them.
    assert_eq!(message[..16], [1, 0x77, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7]);
    for (codec, code) in [(Codec::H264, 1), (Codec::Mjpeg, 3)] {
        let mut sent = unit(0, 1);
        sent.header.codec = codec;
        tap.unit(&Arc::new(sent));
        let (_, message) = read_frame(&mut stream).await.unwrap();
        let picture = Shown::read(&message);
        assert_eq!((picture.codec, picture.flags), (code, 1));
        assert_eq!(picture.presentation_ns, -80_000_000, "shown before the source's beginning");
    }
}

#[tokio::test]
async fn a_joiner_gets_the_kept_gop_in_decoding_order_and_its_choice_can_change() {
    let host = Host::start().await;
    let tap = host.shows(GATE);
    let mut client = host.client().await;
    let answer = client.ask(watch_pictures(GATE, "all")).await;
    assert_eq!((&answer["codec"], &answer["stream"]), (&Value::Null, &json!(1)), "{answer}");
    publish(&tap, 0..14);
    let numbers = |numbers: std::ops::Range<u64>| -> Vec<_> {
        numbers.map(|number| (1, number, u8::from(number.is_multiple_of(10)))).collect()
    };
    assert_eq!(client.pictures(14).await, numbers(0..14));
    let mut late = host.client().await;
    assert_eq!(late.ask(watch_pictures(GATE, "all")).await["codec"], "h264");
    publish(&tap, 14..16);
    assert_eq!(late.pictures(6).await, numbers(10..16));
    assert_eq!(client.pictures(2).await, numbers(14..16));

    let answer = client.ask(watch_pictures(GATE, "key")).await;
    assert_eq!((&answer["pictures"], &answer["stream"]), (&json!("key"), &json!(1)));
    publish(&tap, 16..41);
    assert_eq!(client.pictures(3).await, [(1, 20, 1), (1, 30, 1), (1, 40, 1)]);
    client.ask(watch_pictures(GATE, "all")).await;
    publish(&tap, 41..42);
    assert_eq!(client.pictures(2).await, [(1, 40, 0b11), (1, 41, 0)], "the kept GOP again");
}

#[tokio::test]
async fn pictures_end_with_the_choice_the_subscription_and_the_session() {
    let host = Host::start().await;
    let tap = host.shows(GATE);
    let mut client = host.client().await;
    let ended = |stream: u32| {
        json!({"type": "watching", "session": GATE, "pictures": "none", "codec": null,
            "stream": stream})
    };
    assert_eq!(client.ask(watch_pictures(GATE, "none")).await, ended(0), "there were none");
    client.ask(watch_pictures(GATE, "all")).await;
    assert_eq!(client.ask(watch_pictures(GATE, "none")).await, ended(1));
    publish(&tap, 0..3);
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong", "no picture first");

    client.subscribe(GATE).await;
    for session in [GATE, "*"] {
        client.ask(watch_pictures(GATE, "all")).await;
        client.pictures(3).await;
        let answer = client.ask(json!({"type": "unsubscribe", "session": session})).await;
        assert_eq!(answer["type"], "unsubscribed");
        assert_eq!(host.double.pictures.lock()[GATE].feed().counts().viewers(), 0);
    }

    let answer = client.ask(watch_pictures(GATE, "all")).await;
    assert_eq!(answer["stream"], 4, "no stream's number comes twice");
    client.pictures(3).await;
    // Another reader of the session's source.
    let tap = host.shows(GATE);
    publish(&tap, 20..22);
    assert_eq!(client.pictures(2).await, [(4, 20, 0b11), (4, 21, 0)]);
    host.double.pictures.lock().remove(GATE);
    assert_eq!(client.message().await.unwrap_err(), ended(4));
    let answer = client.ask(watch_pictures(GATE, "all")).await;
    assert_eq!(answer["code"], "unknown_session");
    host.shows(GATE);
    assert_eq!(client.ask(watch_pictures(GATE, "all")).await["stream"], 5);
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_pictures_to_the_next_key_unit_and_no_text() {
    let host = Host::start().await;
    let tap = host.shows(GATE);
    let mut client = host.client().await;
    client.subscribe(GATE).await;
    client.ask(watch_pictures(GATE, "all")).await;
    // The system takes some for the client, then the queue fills.
    let (mut next, received_ns) = (0, monotonic_ns());
    while host.dropped(GATE) == 0 {
        let mut unit = unit(next, 100_000);
        unit.header = UnitHeader { key: next == 0, received_ns, ..unit.header };
        tap.unit(&Arc::new(unit));
        next += 1;
        tokio::task::yield_now().await;
        assert!(next < 2000, "200 MB wait for one client");
    }
    host.hub.publish_detections(GATE, &found(1, 1));
    let (mut before, mut after) = (0, 0);
    loop {
        match client.message().await {
            Ok(picture) => {
                assert_eq!((picture.number, picture.flags & 2), (before, 0), "no gap yet");
                before += 1;
            }
            Err(text) => break assert_eq!(text["type"], "detections"),
        }
    }
    while before + after < next - 1 {
        let picture = client.message().await.unwrap();
        assert_eq!((picture.number, picture.flags & 2), (before + after, 0), "no gap yet");
        after += 1;
    }
    assert!(after >= 15, "text overtook {after} of the 20 pictures that waited");
    let key = next.next_multiple_of(10) + 10;
    publish(&tap, key - 5..key + 2);
    assert_eq!(client.pictures(2).await, [(1, key, 0b11), (1, key + 1, 0)]);
    assert_eq!(host.dropped(GATE), 1 + 5);
}

#[tokio::test]
async fn the_sessions_of_a_client_take_turns_and_are_bounded() {
    let host = Host::start().await;
    let mut client = host.client().await;
    let taps: Vec<_> = (0..256).map(|number| host.shows(&format!("cam {number}"))).collect();
    for number in 0..256 {
        let answer = client.ask(watch_pictures(&format!("cam {number}"), "all")).await;
        assert_eq!(answer["stream"], number + 1);
    }
    host.shows(GATE);
    let refused = client.ask(watch_pictures(GATE, "all")).await;
    assert_eq!((&refused["code"], &refused["session"]), (&json!("too_many_watched"), &json!(GATE)));
    publish(&taps[0], 0..3);
    publish(&taps[255], 0..1);
    let streams: Vec<_> = client.pictures(4).await.iter().map(|picture| picture.0).collect();
    assert_eq!(streams, [1, 256, 1, 1]);
    client.ask(watch_pictures("cam 7", "none")).await;
    assert_eq!(client.ask(watch_pictures(GATE, "key")).await["stream"], 257);
}

/// A picture for people, which says its number.
fn encoded(frame: u64) -> EncodedPicture {
    let jpeg = Bytes::from(format!("jpeg {frame} "));
    EncodedPicture { frame, presentation_ns: frame as i64 - 2, jpeg }
}

#[tokio::test]
async fn the_newest_picture_is_a_file_that_says_which_frame_it_is() {
    let host = Host::start().await;
    let path = "/v1/sessions/gate/frame.jpg";
    let early = host.get(path, "").await;
    assert!(early.starts_with("HTTP/1.1 503") && early.contains("no_picture"), "{early}");
    assert!(early.to_lowercase().contains("retry-after: 1\r\n"), "{early}");
    let nobody = host.get("/v1/sessions/nobody/frame.jpg", "").await;
    assert!(nobody.starts_with("HTTP/1.1 404") && nobody.contains("unknown_session"), "{nobody}");
    *host.double.shown.lock() = Some(encoded(1));
    for (query, wished) in [
        ("", "None false"),
        ("?boxes=0", "None false"),
        ("?boxes=1&width=320", "Some(320) true"),
        ("?width=16&boxes=true", "Some(16) true"),
    ] {
        let answer = host.get(&format!("{path}{query}"), "").await.to_lowercase();
        assert!(answer.ends_with(&format!("jpeg 1 {wished}").to_lowercase()), "{answer}");
        for header in ["type: image/jpeg", "cache-control: no-store", "ocelli-frame: 1"] {
            assert!(answer.contains(header), "{header}: {answer}");
        }
        assert!(answer.contains("ocelli-presentation-ns: -1\r\n"), "{answer}");
    }
    for query in ["boxes=2", "boxes", "width=15", "width=9999", "width=-1", "wide=100"] {
        let refused = host.get(&format!("{path}?{query}"), "").await;
        assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("bad_query"), "{refused}");
    }
}

/// Reads until the text has come.
async fn read_to(stream: &mut TcpStream, heard: &mut Vec<u8>, text: &str) {
    while !String::from_utf8_lossy(heard).contains(text) {
        assert!(within(stream.read_buf(heard)).await.unwrap() > 0, "{text} never came");
    }
}

#[tokio::test]
async fn mjpeg_sends_each_picture_once_and_ends_with_its_session() {
    let host = Host::start().await;
    let path = "/v1/sessions/gate/mjpeg";
    for query in ["fps=0", "fps=31", "fps=fast", "boxes=2"] {
        let refused = host.get(&format!("{path}?{query}"), "").await;
        assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("bad_query"), "{refused}");
    }
    let nobody = host.get("/v1/sessions/nobody/mjpeg", "").await;
    assert!(nobody.starts_with("HTTP/1.1 404"), "{nobody}");
    let mut heard = Vec::new();
    let mut stream = host.ask(&format!("{path}?fps=30&boxes=1&width=99"), "").await;
    read_to(&mut stream, &mut heard, "--ocelli-picture\r\n").await;
    for frame in 1..4 {
        *host.double.shown.lock() = Some(encoded(frame));
        read_to(&mut stream, &mut heard, &format!("jpeg {frame} Some(99) true")).await;
        // Boundaries come behind their pictures.
        read_to(&mut stream, &mut heard, "\r\n--ocelli-picture\r\n").await;
    }
    host.double.sessions.lock().remove(GATE);
    while within(stream.read_buf(&mut heard)).await.unwrap() > 0 {}
    let text = String::from_utf8(heard).unwrap();
    assert!(text.to_lowercase().contains("multipart/x-mixed-replace; boundary=ocelli-picture"));
    for frame in 1..4 {
        assert_eq!(text.matches(&format!("Ocelli-Frame: {frame}\r\n")).count(), 1, "{text}");
    }
    assert_eq!(text.matches("--ocelli-picture\r\n").count(), 1 + 3, "{text}");
}

#[tokio::test]
async fn so_many_clients_get_mjpeg_and_no_more_and_a_place_is_free_when_one_leaves() {
    let host = Host::start().await;
    let mut clients = Vec::new();
    for _ in 0..32 {
        let (mut stream, mut heard) = (host.ask("/v1/sessions/gate/mjpeg", "").await, Vec::new());
        read_to(&mut stream, &mut heard, "--ocelli-picture").await;
        clients.push(stream);
    }
    let refused = host.get("/v1/sessions/gate/mjpeg", "").await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("too_many_displays"), "{refused}");
    drop(clients.pop());
    loop {
        let (mut stream, mut heard) = (host.ask("/v1/sessions/yard/mjpeg", "").await, Vec::new());
        read_to(&mut stream, &mut heard, "\r\n\r\n").await;
        if heard.starts_with(b"HTTP/1.1 200") {
            break;
        }
        tokio::task::yield_now().await;
    }
}
