//! Cameras that send more than their reader should keep: each is a kind of growth that a client
//! without bounds would show.

use super::footage::Footage;
use super::packet::Packet;
use super::script::{Moment, Script};

/// More than any reader may keep, in bytes; a client without bounds holds it at least once.
const MUCH: usize = 48 << 20;

/// Bytes of the payload of one packet within a connection: near the most that its length can say.
const PAYLOAD: usize = 60_000;

/// Payloads of one turn, and turns in a second: 60 MB a second.
const PACKETS: usize = 20;
const TURNS: f64 = 50.0;

/// A hostile camera.
#[derive(Debug)]
pub struct Attack {
    /// Short, in lower case: also the name of its camera.
    pub name: &'static str,
    /// The faults by which a host may name it.
    pub faults: &'static [&'static str],
    /// What it does.
    pub script: Script,
}

/// An answer that is too long is over its budget for the strict reader; libavformat may find
/// another fault in it first, and breaks off.
const ANSWER: &[&str] = &["too_large", "protocol", "silent", "no_video", "closed", "unreachable"];

/// A stream whose pictures never become whole.
const STREAM: &[&str] = &["too_large", "protocol", "silent", "closed"];

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let answer = |name, script| Attack { name, faults: ANSWER, script };
    let stream = |name, script| Attack { name, faults: STREAM, script };
    vec![
        answer(
            "endless-body",
            Script::default().answer("DESCRIBE", |_, answer| {
                answer.set("Content-Length", "4294967295");
                answer.body = vec![b'a'; MUCH];
            }),
        ),
        answer(
            "endless-header",
            Script::default().answer("DESCRIBE", |_, answer| answer.add("X-Long", &long())),
        ),
        answer(
            "endless-status",
            Script::default().answer("DESCRIBE", |_, answer| answer.status_line += &long()),
        ),
        answer(
            "many-headers",
            Script::default().answer("DESCRIBE", |_, answer| {
                let header = |number: usize| (format!("X-{number}"), "1".to_owned());
                answer.headers.extend((0..1 << 18).map(header));
            }),
        ),
        answer(
            "many-media",
            Script::default().sdp(|lines| {
                let media = std::iter::repeat_n("m=audio 0 RTP/AVP 0".to_owned(), 400_000);
                lines.extend(media);
            }),
        ),
        answer(
            "long-parameter-sets",
            Script::default().sdp(|lines| {
                let sets = "A".repeat(MUCH);
                lines.push(format!("a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}"));
            }),
        ),
        answer(
            "data-before-answer",
            Script::default().answer("DESCRIBE", |_, answer| {
                answer.before = interleaved(9, &[0; PAYLOAD]).repeat(MUCH / PAYLOAD);
            }),
        ),
        answer(
            "long-setup",
            Script::default().answer("SETUP", |_, answer| answer.add("X-Long", &long())),
        ),
        answer(
            "redirects",
            Script::default().answer("DESCRIBE", |request, answer| {
                answer.refuse("302 Moved");
                answer.set("Location", &request.place.url(1 - request.door));
            }),
        ),
        stream("endless-fu-a", flood(Footage::H264, |first| fragment(&[0x7c], 0x05, first))),
        stream("endless-fu", flood(Footage::H265, |first| fragment(&[49 << 1, 1], 19, first))),
        stream("endless-jpeg", endless_jpeg()),
        stream("tiny-packets", tiny_packets(&[0x41, 0x9a])),
        stream("many-units", many_units()),
        stream("extensions", extensions()),
        stream("large-picture", large_picture()),
        stream("foreign-channel", says(interleaved(9, &[0; PAYLOAD]).repeat(PACKETS))),
        stream("reports", says(interleaved(1, &report()).repeat(4000))),
        stream("requests", says(b"ODD * RTSP/1.0\r\nCSeq: 1\r\n\r\n".repeat(4000))),
        stream("long-request", says([b"ODD * RTSP/1.0\r\nX: ", &vec![b'a'; MUCH][..]].concat())),
        stream("answers", says(b"RTSP/1.0 200 OK\r\nCSeq: 999\r\n\r\n".repeat(4000))),
    ]
}

fn long() -> String {
    "a".repeat(MUCH)
}

/// A packet within a connection.
fn interleaved(channel: u8, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u16).to_be_bytes();
    [&[b'$', channel][..], &length, data].concat()
}

/// A sender report that says nothing.
fn report() -> Vec<u8> {
    [&[0x80, 200, 0, 6, 0x12, 0x34, 0x56, 0x78][..], &[0; 20]].concat()
}

/// What fills the connection in the place of pictures.
fn says(bytes: Vec<u8>) -> Script {
    Script::default().rate(TURNS).packets(|_, packets| packets.clear()).says(move |_| bytes.clone())
}

/// A single picture of packets without end. `payload` is told whether it is the first.
fn flood(footage: Footage, payload: fn(bool) -> Vec<u8>) -> Script {
    Script::of(footage).rate(TURNS).time(|_| 0).packets(move |moment, packets| {
        let rest = packets[0].beside(&payload(false));
        let first = packets[0].beside(&payload(moment.picture == 0));
        *packets = std::iter::once(first).chain(std::iter::repeat_n(rest, PACKETS)).collect();
    })
}

/// A part of a NAL unit that has no end: FU-A, FU.
fn fragment(header: &[u8], kind: u8, first: bool) -> Vec<u8> {
    [header, &[u8::from(first) << 7 | kind], &[0x55; PAYLOAD]].concat()
}

/// A JPEG picture whose fragments go on and on (RFC 2435).
fn endless_jpeg() -> Script {
    Script::of(Footage::Jpeg).rate(TURNS).time(|_| 0).packets(|moment, packets| {
        let template = packets[0].clone();
        let part = |number: usize| {
            let offset = (number * PAYLOAD) as u32;
            let mut payload = template.payload.clone();
            if number > 0 {
                payload.truncate(8);
            }
            let length = payload.len();
            payload[..4].copy_from_slice(&offset.to_be_bytes());
            payload.resize(length + PAYLOAD, 0x55);
            Packet { payload, marker: false, ..template.clone() }
        };
        let begun = moment.picture as usize * PACKETS;
        *packets = (begun..begun + PACKETS).map(part).collect();
    })
}

/// One picture of whole NAL units of two bytes, each in a packet of its own.
fn tiny_packets(unit: &'static [u8]) -> Script {
    Script::default().rate(TURNS).time(|_| 0).packets(move |_, packets| {
        *packets = vec![packets[0].beside(unit); 20_000];
    })
}

/// The same with thousands in each packet (STAP-A).
fn many_units() -> Script {
    Script::default().rate(TURNS).time(|_| 0).packets(|_, packets| {
        let units = [&[0x78][..], &[0, 2, 0x41, 0x9a].repeat(PAYLOAD / 4)].concat();
        *packets = vec![packets[0].beside(&units); PACKETS];
    })
}

/// One picture of packets whose header extensions are all that they hold, but for two bytes.
fn extensions() -> Script {
    Script::default().rate(TURNS).time(|_| 0).packets(|_, packets| {
        let words = PAYLOAD / 4;
        let extension = [&[0xbe, 0xde][..], &(words as u16).to_be_bytes(), &vec![0; words * 4]];
        let packet = Packet { extension: extension.concat(), ..packets[0].beside(&[0x41, 0x9a]) };
        *packets = vec![packet; PACKETS];
    })
}

/// Whole pictures of 10 MB each.
fn large_picture() -> Script {
    Script::default().rate(2.0).packets(|_: Moment, packets| {
        let template = packets[0].clone();
        let all = 10_000_000 / PAYLOAD;
        let part = |number: usize| {
            let mut packet = template.beside(&fragment(&[0x7c], 0x05, number == 0));
            packet.marker = number == all;
            if packet.marker {
                packet.payload[1] |= 0x40;
            }
            packet
        };
        packets.extend((0..=all).map(part));
        packets.iter_mut().rev().skip(1).for_each(|packet| packet.marker = false);
    })
}
