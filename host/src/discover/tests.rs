//! Answers of cameras, and a camera that is asked.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const MATCH: &str = r#"<?xml version="1.0"?>
<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://www.w3.org/2003/05/soap-envelope"
 xmlns:wsa="http://schemas.xmlsoap.org/ws/2004/08/addressing"
 xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery">
<SOAP-ENV:Header><wsa:RelatesTo>ID</wsa:RelatesTo></SOAP-ENV:Header><SOAP-ENV:Body>
<d:ProbeMatches><d:ProbeMatch><d:Types>dn:NetworkVideoTransmitter</d:Types>
<d:Scopes>onvif://www.onvif.org/type/video onvif://www.onvif.org/name/Front%20door
 onvif://www.onvif.org/hardware/X-1</d:Scopes>
<d:XAddrs>http://192.0.2.9/onvif/device_service http://127.0.0.1:PORT/onvif/device</d:XAddrs>
</d:ProbeMatch></d:ProbeMatches></SOAP-ENV:Body></SOAP-ENV:Envelope>"#;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn own_addresses_are_those_of_interfaces_but_loopback() {
    let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n\
                 \x20    |-- 10.0.0.7\n        /32 host LOCAL\n     |-- 127.0.0.1\n\
                 \x20       /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n\
                 Local:\n     |-- 10.0.0.7\n        /32 host LOCAL\n";
    assert_eq!(own_addresses(table), [Ipv4Addr::new(10, 0, 0, 7)]);
}

#[test]
fn an_answer_is_taken_of_who_was_asked_and_for_its_own_address() {
    let text = MATCH.replace("PORT", "80");
    let found = probe_match(&text, "ID", HERE).unwrap();
    assert_eq!(found.name.as_deref(), Some("Front door"));
    assert_eq!(found.hardware.as_deref(), Some("X-1"));
    assert_eq!(found.service.unwrap().path(), "/onvif/device");
    assert_eq!(probe_match(&text, "another", HERE), None);
    let elsewhere = probe_match(&text, "ID", "192.0.2.1".parse().unwrap()).unwrap();
    assert_eq!(elsewhere.service, None, "it sends us to another machine");
    for odd in ["", "<a>", "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>", "\u{feff}"] {
        assert_eq!(probe_match(odd, "ID", HERE), None, "{odd}");
    }
    let deep = "<a>".repeat(100_000);
    assert_eq!(probe_match(&deep, "ID", HERE), None);
}

/// What a camera answers to a request, by its body.
fn answer(asked: &str, port: u16) -> String {
    let said = if asked.contains("GetCapabilities") {
        format!("<Media><XAddr>http://127.0.0.1:{port}/media</XAddr></Media>")
    } else if asked.contains("GetProfiles") {
        "<r><Profiles token=\"a&amp;b\"><Name>main</Name><VideoEncoderConfiguration>\
         <Encoding>H264</Encoding><Resolution><Width>768</Width><Height>576</Height></Resolution>\
         </VideoEncoderConfiguration></Profiles><Profiles token=\"c\"/></r>"
            .to_owned()
    } else if asked.contains("<m:ProfileToken>a&amp;b<") {
        "<MediaUri><Uri>rtsp://u:secret@127.0.0.1/main</Uri></MediaUri>".to_owned()
    } else {
        "<MediaUri><Uri>http://127.0.0.1/snapshot</Uri></MediaUri>".to_owned()
    };
    let length = said.len();
    format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{said}\r\n0\r\n\r\n"
    )
}

/// How a camera wants to know its user.
#[derive(Clone, Copy, PartialEq)]
enum Wants {
    /// By the message's header, of a camera whose clock is three hours behind.
    Message,
    /// By HTTP's.
    Http,
    /// By the password itself.
    Password,
}

const BEHIND: SignedDuration = SignedDuration::from_hours(3);

const REFUSED: &str = "HTTP/1.1 400 Bad\r\n\r\n<Code>ter:NotAuthorized</Code>";
const CHALLENGED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\
    WWW-Authenticate: Digest realm=\"cam\", nonce=\"n\", qop=\"auth\", algorithm=MD5\r\n\r\n";

const ASKED_FOR_IT: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\
    WWW-Authenticate: Basic realm=\"cam\"\r\n\r\n";

/// A camera for requests with a user, at a port of this machine.
async fn camera(wants: Wants) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = Vec::new();
            while !asked.ends_with(b"</s:Envelope>") {
                assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
            }
            let asked = String::from_utf8(asked).unwrap();
            assert!(!asked.contains("secret") && !asked.contains("authorization: Basic"));
            let now = Timestamp::now() - BEHIND;
            let said = if asked.contains("GetSystemDateAndTime") {
                clock(now)
            } else if wants == Wants::Message && is_of(&asked, now)
                || wants == Wants::Http
                    && asked.contains("authorization: Digest username=\"eye & co\"")
            {
                answer(&asked, port)
            } else if wants == Wants::Http {
                CHALLENGED.to_owned()
            } else if wants == Wants::Password {
                ASKED_FOR_IT.to_owned()
            } else {
                REFUSED.to_owned()
            };
            stream.write_all(said.as_bytes()).await.unwrap();
        }
    });
    port
}

/// A camera's answer that says its time.
fn clock(now: Timestamp) -> String {
    let now = TimeZone::UTC.to_datetime(now);
    let time = format!(
        "<UTCDateTime><Time><Hour>{}</Hour><Minute>{}</Minute><Second>{}</Second></Time>\
         <Date><Year>{}</Year><Month>{}</Month><Day>{}</Day></Date></UTCDateTime>",
        now.hour(),
        now.minute(),
        now.second(),
        now.year(),
        now.month(),
        now.day()
    );
    // A line break more than it says, as some cameras send it.
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{time}\r\n", time.len())
}

/// Whether a request has a digest that was made within a minute of this time.
fn is_of(asked: &str, now: Timestamp) -> bool {
    let created = asked.split("<u:Created>").nth(1).and_then(|rest| rest.split('<').next());
    let created = created.and_then(|text| text.parse::<Timestamp>().ok());
    created.is_some_and(|created| created.duration_since(now).as_secs().abs() < 60)
        && asked.contains("PasswordDigest")
}

#[tokio::test]
async fn a_camera_that_answers_is_asked_for_its_streams() {
    for wants in [Wants::Message, Wants::Http] {
        tells_its_streams(wants).await;
    }
}

/// A camera that is found, and a user of it.
async fn found(wants: Wants) -> (ProbeMatch, CameraLogin) {
    let port = camera(wants).await;
    let device = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = device.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = vec![0; 4096];
        let (length, from) = device.recv_from(&mut datagram).await.unwrap();
        let asked = String::from_utf8(datagram[..length].to_vec()).unwrap();
        let id = asked.split("MessageID>").nth(1).unwrap().trim_end_matches("</a:");
        let said = MATCH.replace("ID", id).replace("PORT", &port.to_string());
        device.send_to(said.as_bytes(), from).await.unwrap();
    });
    let found = probe(to, &[Ipv4Addr::LOCALHOST], Duration::from_secs(1)).await.unwrap();
    let login = CameraLogin { user: "eye & co".into(), password: "secret".into() };
    (found.into_values().next().unwrap(), login)
}

async fn tells_its_streams(wants: Wants) {
    let (found, login) = found(wants).await;
    let camera = device::ask(found.clone(), Some(&login), Instant::now() + ALL).await;
    assert_eq!((camera.address.as_str(), camera.fault), ("127.0.0.1", None));
    let main = DiscoveredStream {
        profile: "main".into(),
        source: "rtsp://127.0.0.1/main".into(),
        encoding: Some("H264".into()),
        size: Some((768, 576)),
    };
    assert_eq!(camera.streams, [main]);
    let stranger = device::ask(found, None, Instant::now() + ALL).await;
    assert!(stranger.streams.is_empty());
    assert!(stranger.fault.unwrap().contains("user name"), "it says what to do");
}

#[tokio::test]
async fn the_password_itself_is_told_to_nobody() {
    let (found, login) = found(Wants::Password).await;
    let camera = device::ask(found, Some(&login), Instant::now() + ALL).await;
    assert!(camera.fault.unwrap().contains("user name"));
}

#[test]
fn two_streams_are_proposed_where_one_is_much_smaller_and_still_enough() {
    let streams = |sizes: &[(u32, u32)]| -> Vec<DiscoveredStream> {
        let of = |(number, size): (usize, &(u32, u32))| DiscoveredStream {
            profile: number.to_string(),
            source: format!("rtsp://c/{number}"),
            encoding: None,
            size: (size.0 > 0).then_some(*size),
        };
        sizes.iter().enumerate().map(of).collect()
    };
    let proposed = |sizes: &[(u32, u32)]| {
        let of = StreamProposal::of(&streams(sizes), None)?;
        let number = |url: &str| url.rsplit('/').next().unwrap().parse::<usize>().unwrap();
        Some((number(&of.source), number(&of.substream)))
    };
    assert_eq!(proposed(&[(1920, 1080), (640, 360)]), Some((0, 1)));
    assert_eq!(proposed(&[(352, 288), (1280, 720), (2560, 1440), (640, 480)]), Some((2, 3)));
    assert_eq!(proposed(&[(1920, 1080), (320, 240), (352, 288)]), Some((0, 2)));
    assert_eq!(proposed(&[(1920, 1080), (1600, 900)]), None, "it saves nothing");
    assert_eq!(proposed(&[(1920, 1080), (0, 0)]), None, "its size is not known");
    assert_eq!(proposed(&[(1920, 1080)]), None);
    assert_eq!(proposed(&[]), None);
    let two = streams(&[(1920, 1080), (640, 360)]);
    assert!(StreamProposal::of(&two, Some("rtsp://c/0")).is_some());
    assert_eq!(StreamProposal::of(&two, Some("rtsp://c/1")), None, "none is smaller");
    assert_eq!(StreamProposal::of(&two, Some("rtsp://c/9")), None);
}
