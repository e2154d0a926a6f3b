//! Frames of RFC 6455 as a server reads and writes them. Nothing here waits or knows a connection.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::{self, Unpack};

/// Longest payload of a control frame (RFC 6455, 5.5).
const LONGEST_CONTROL: usize = 125;

/// Bytes of memory that an empty buffer keeps.
const SPARE: usize = 1 << 10;

/// A client's message or control frame.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::api) enum Incoming {
    Text(String),
    /// A binary message, whatever it says.
    Binary,
    /// A part of a message; more follow.
    Part,
    /// To be answered with the same bytes.
    Ping(Vec<u8>),
    Pong,
    /// With the client's status, where it gave one.
    Close(Option<u16>),
}

/// A breach of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) enum FrameFault {
    /// The message is too long, packed or unpacked.
    TooLarge,
    /// The message is not UTF-8, or not compressed data.
    NotText(&'static str),
    Protocol(String),
}

/// Decodes bytes into messages.
#[derive(Debug)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of the buffer that are decoded.
    read: usize,
    message: Option<Message>,
    /// Whether messages may come compressed.
    deflate: bool,
    longest: usize,
}

#[derive(Debug)]
struct Message {
    text: bool,
    compressed: bool,
    bytes: Vec<u8>,
}

impl Decoder {
    /// Decodes messages of up to `longest` bytes, packed and unpacked.
    pub(super) fn new(longest: usize, deflate: bool) -> Self {
        Self { buffer: Vec::new(), read: 0, message: None, deflate, longest }
    }

    /// Adds bytes, when [`next`](Self::next) has returned `None`: then the buffer has less than one
    /// frame.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.buffer.drain(..self.read.min(self.buffer.len()));
            self.read = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether an incomplete message has begun.
    pub(super) fn in_message(&self) -> bool {
        self.message.is_some()
    }

    /// Whether the buffer has part of a frame.
    pub(super) fn in_frame(&self) -> bool {
        self.read < self.buffer.len()
    }

    /// The next frame's meaning, once the frame is complete. A fault is final.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, FrameFault> {
        let mut cursor = Cursor::new(self.buffer.get(self.read..).unwrap_or_default());
        let parsed = FrameHeader::parse(&mut cursor)
            .map_err(|error| FrameFault::Protocol(error.to_string()))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        // A faulty header is reported before the payload comes.
        let length = self.check(&header, length)?;
        let start = self.read + usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let Some(payload) = self.buffer.get(start..start.saturating_add(length)) else {
            return Ok(None);
        };
        let mask = header.mask.unwrap_or_default();
        let payload: Vec<u8> =
            payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        self.read = start + length;
        if self.read >= self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(SPARE);
            self.read = 0;
        }
        match header.opcode {
            OpCode::Control(Control::Ping) => Ok(Some(Incoming::Ping(payload))),
            OpCode::Control(Control::Pong) => Ok(Some(Incoming::Pong)),
            OpCode::Control(_) => close(&payload).map(Some),
            OpCode::Data(data) => self.part(&header, data, payload).map(Some),
        }
    }

    /// Checks that a frame may come now. Returns its length.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<usize, FrameFault> {
        let protocol = |message: &str| Err(FrameFault::Protocol(message.into()));
        let begins = matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if header.mask.is_none() {
            return protocol("a client's frame is masked");
        }
        if header.rsv2 || header.rsv3 || (header.rsv1 && !(self.deflate && begins)) {
            return protocol("a reserved bit is set");
        }
        if let OpCode::Control(_) = header.opcode {
            if !header.is_final || length > LONGEST_CONTROL {
                return protocol("a control frame is whole and has at most 125 bytes");
            }
        } else if begins && self.message.is_some() {
            return protocol("a message begins within another");
        } else if !begins && self.message.is_none() {
            return protocol("a continuation of nothing");
        } else if length
            .saturating_add(self.message.as_ref().map_or(0, |message| message.bytes.len()))
            > self.longest
        {
            return Err(FrameFault::TooLarge);
        }
        Ok(length)
    }

    fn part(
        &mut self,
        header: &FrameHeader,
        data: Data,
        payload: Vec<u8>,
    ) -> Result<Incoming, FrameFault> {
        let message = match self.message.take() {
            Some(mut message) => {
                message.bytes.extend_from_slice(&payload);
                message
            }
            None => Message { text: data == Data::Text, compressed: header.rsv1, bytes: payload },
        };
        if !header.is_final {
            self.message = Some(message);
            return Ok(Incoming::Part);
        }
        if !message.text {
            return Ok(Incoming::Binary);
        }
        let bytes = if message.compressed {
            deflate::decompress(&message.bytes, self.longest).map_err(|error| match error {
                Unpack::TooLarge => FrameFault::TooLarge,
                Unpack::Damaged => FrameFault::NotText("a compressed message cannot be unpacked"),
            })?
        } else {
            message.bytes
        };
        let text = String::from_utf8(bytes)
            .map_err(|_| FrameFault::NotText("a text message is not UTF-8"))?;
        Ok(Incoming::Text(text))
    }
}

fn close(payload: &[u8]) -> Result<Incoming, FrameFault> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() {
            Ok(Incoming::Close(None))
        } else {
            Err(FrameFault::Protocol("a status has two bytes".into()))
        };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(FrameFault::Protocol(format!("{code} is no status of a close frame")));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(FrameFault::NotText("the reason of a close frame is not UTF-8"));
    }
    Ok(Incoming::Close(Some(code)))
}

/// Appends the header of a host's frame: final, not masked.
pub(super) fn put_header(out: &mut Vec<u8>, opcode: OpCode, compressed: bool, length: usize) {
    let header = FrameHeader { is_final: true, rsv1: compressed, opcode, ..FrameHeader::default() };
    // Writing to memory does not fail.
    let _ = header.format(length as u64, out);
}

/// Appends a ping, a pong or a close frame.
pub(super) fn put_control(out: &mut Vec<u8>, control: Control, payload: &[u8]) {
    let payload = payload.get(..LONGEST_CONTROL).unwrap_or(payload);
    put_header(out, OpCode::Control(control), false, payload.len());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONGEST: usize = 1000;
    const MASK: [u8; 4] = [1, 2, 3, 4];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            short @ ..126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
            long => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(long).unwrap().to_be_bytes());
            }
        }
        bytes.extend(MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    fn decode(bytes: &[u8], deflate: bool) -> (Vec<Incoming>, Option<FrameFault>) {
        let mut decoder = Decoder::new(LONGEST, deflate);
        let mut all = Vec::new();
        for byte in bytes {
            decoder.feed(&[*byte]);
            loop {
                match decoder.next() {
                    Ok(Some(incoming)) => all.push(incoming),
                    Ok(None) => break,
                    Err(fault) => return (all, Some(fault)),
                }
            }
        }
        (all, None)
    }

    #[test]
    fn a_message_in_parts_with_a_ping_between_is_one_message() {
        let bytes = [
            frame(0x01, b"Hel"),
            frame(0x89, b"?"),
            frame(0x00, b""),
            frame(0x80, b"lo"),
            frame(0x82, &[7]),
        ]
        .concat();
        let expected = vec![
            Incoming::Part,
            Incoming::Ping(b"?".to_vec()),
            Incoming::Part,
            Incoming::Text("Hello".into()),
            Incoming::Binary,
        ];
        assert_eq!(decode(&bytes, false), (expected, None));
    }

    #[test]
    fn a_compressed_message_is_read_where_that_was_agreed_upon_and_nowhere_else() {
        let packed = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(
            decode(&frame(0xc1, &packed), true),
            (vec![Incoming::Text("Hello".into())], None)
        );
        let parts = [frame(0x41, &packed[..3]), frame(0x80, &packed[3..])].concat();
        assert_eq!(
            decode(&parts, true),
            (vec![Incoming::Part, Incoming::Text("Hello".into())], None)
        );
        let reserved = Some(FrameFault::Protocol("a reserved bit is set".into()));
        assert_eq!(decode(&frame(0xc1, &packed), false).1, reserved);
        assert_eq!(decode(&frame(0xc9, b""), true).1, reserved);
        assert!(matches!(decode(&frame(0xc1, &[0xff; 9]), true).1, Some(FrameFault::NotText(_))));
    }

    #[test]
    fn what_breaks_the_protocol_is_found_before_its_payload_comes() {
        let protocol =
            |bytes: &[u8]| matches!(decode(bytes, true).1, Some(FrameFault::Protocol(_)));
        assert!(protocol(&[0x81, 0x05, b'H']), "not masked");
        assert!(protocol(&frame(0x83, b"")[..6]), "no such opcode");
        assert!(protocol(&frame(0xa1, b"x")[..6]), "RSV2");
        assert!(protocol(&frame(0x91, b"x")[..6]), "RSV3");
        assert!(protocol(&frame(0x80, b"x")[..6]), "a continuation of nothing");
        assert!(protocol(&frame(0x09, b"x")[..6]), "a ping in parts");
        assert!(protocol(&frame(0x89, &[0; 126])[..8]), "a long ping");
        assert!(
            protocol(&[frame(0x01, b"x"), frame(0x01, b"x")].concat()),
            "a message within another"
        );
        assert!(protocol(&frame(0x88, &[3])), "half a status");
        assert!(protocol(&frame(0x88, &1005u16.to_be_bytes())), "a status that is not sent");
        assert!(matches!(decode(&frame(0x81, &[0xff]), true).1, Some(FrameFault::NotText(_))));
        assert!(matches!(
            decode(&frame(0x88, &[3, 0xe8, 0xff]), true).1,
            Some(FrameFault::NotText(_))
        ));
        assert_eq!(
            decode(&frame(0x88, &1000u16.to_be_bytes()), true).0,
            vec![Incoming::Close(Some(1000))]
        );
        assert_eq!(decode(&frame(0x88, b""), true).0, vec![Incoming::Close(None)]);
    }

    #[test]
    fn a_message_beyond_the_bound_is_refused_by_its_length_alone() {
        let longest = frame(0x81, &[b' '; LONGEST]);
        assert_eq!(decode(&longest, false).0.len(), 1);
        assert_eq!(
            decode(&frame(0x81, &[b' '; LONGEST + 1])[..8], false).1,
            Some(FrameFault::TooLarge)
        );
        let parts = [frame(0x01, &[b' '; LONGEST]), frame(0x80, b" ")].concat();
        assert_eq!(decode(&parts, false).1, Some(FrameFault::TooLarge));
        let endless = [0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
        assert_eq!(decode(&endless, false).1, Some(FrameFault::TooLarge));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic_or_hold_more_than_a_message(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x81), Just(0x80), Just(0xc1)], 0..2000),
            deflate: bool,
        ) {
            let mut decoder = Decoder::new(LONGEST, deflate);
            for chunk in bytes.chunks(7) {
                decoder.feed(chunk);
                while let Ok(Some(_)) = decoder.next() {}
                prop_assert!(decoder.message.as_ref().is_none_or(|message| message.bytes.len() <= LONGEST));
            }
        }
    }
}
