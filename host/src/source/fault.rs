//! Faults of sources: a kind for programs and a sentence for people. The errors of the RTSP library
//! are mapped here and nowhere else.

use std::fmt;
use std::time::Duration;

use ocelli_protocol::rtsp::{MAX_PICTURE, PICTURE_BUDGET, ReaderError};
use schemars::JsonSchema;
use serde::Serialize;
use strum::VariantArray;

use super::ingest::IngestError;
use crate::config::source::{FileSource, RtspSource};
use crate::util::line::line;

/// Longest text of a server or library that goes into a message, in characters: one line of a log.
const MAX_FOREIGN_TEXT: usize = 200;

/// Why a source delivers nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceFault {
    /// The kind, stable across releases.
    pub kind: SourceFaultKind,
    /// The step that failed.
    pub step: SourceStep,
    /// For people: one line that names the source, without credentials, and the cause.
    pub message: String,
    /// The status that the server refused it with.
    #[serde(skip)]
    status: Option<u16>,
    #[serde(skip)]
    other_reader: OtherReader,
}

/// What makes two faults the same one: neither a number in the text nor its wording does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FaultKey {
    pub(super) kind: SourceFaultKind,
    pub(super) step: SourceStep,
    pub(super) status: Option<u16>,
}

/// What the compatible reader can do about a fault of the strict one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OtherReader {
    /// Nothing: the camera is away, refuses, or has no video.
    #[default]
    NoHelp,
    /// Nothing, if this happens once; it may hold where the strict reader breaks off every time.
    IfRepeated,
    /// It reads much of what the strict reader refuses.
    Helps,
    /// The server answers a wrong password and a used-up nonce alike, and only the compatible
    /// reader tries a new nonce. One attempt, after the slow wait: cameras lock an account after a
    /// few wrong passwords.
    OneAttempt,
}

impl fmt::Display for SourceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SourceFault {}

/// The kinds of [`SourceFault`].
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    strum::Display,
    strum::IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum SourceFaultKind {
    /// The server refuses the user name or password, or wants one where the source has none.
    Unauthorized,
    /// No connection: nothing listens there, no route, no such host.
    Unreachable,
    /// Something answers, and not in RTSP.
    NotRtsp,
    /// The stream has no video.
    NoVideo,
    /// The stream's video is compressed in a way that no decoder here knows.
    UnsupportedCodec,
    /// The server takes the connection and then says nothing, or stops sending in mid-stream.
    Silent,
    /// An answer came too late.
    Timeout,
    /// The server closed the connection.
    Closed,
    /// The server broke the protocol, or refused a request.
    Protocol,
    /// The camera's certificate is not trusted.
    Certificate,
    /// The camera sends more than an answer or a picture may have, or what takes more memory than
    /// its reader may use.
    TooLarge,
    /// The process that reads the source cannot be started, died, or broke its protocol.
    Reader,
    /// The file cannot be read.
    File,
}

impl SourceFaultKind {
    /// Every kind there is.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// A stable name in snake_case.
    pub fn code(self) -> &'static str {
        self.into()
    }
}

/// An error in mid-stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StreamError {
    /// One packet was left out; the session goes on.
    Packet(PacketFlaw),
    /// A keepalive was refused or not answered. As long as pictures come, the session goes on.
    Keepalive,
    /// The session is over.
    Ended(SourceFault),
}

/// What is wrong with a packet that was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PacketFlaw {
    /// An RTCP packet that does not parse: no picture needs it.
    Report,
    /// Not of this stream: another SSRC, or no RTP at all. If it was one of the stream's packets,
    /// the next sequence number tells.
    Stray,
    /// Nothing of a picture: no payload, a NAL unit of a reserved type. What came before it of the
    /// same picture is lost with it, though.
    Odd,
    /// A sequence number from before: late, sent twice, or the server starts to count again.
    Order,
    /// A part of a picture.
    Damaged,
}

impl PacketFlaw {
    /// For people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Report => "an RTCP packet that is none",
            Self::Stray => "a packet of another stream",
            Self::Odd => "a packet without a part of a picture",
            Self::Order => "a packet out of order",
            Self::Damaged => "a part of a picture that does not fit",
        }
    }
}

/// A step of reading a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum SourceStep {
    /// Connecting to a camera and asking what it offers; opening a file.
    Describe,
    /// Asking a camera for its video.
    Setup,
    /// Asking a camera to send.
    Play,
    /// Reading pictures.
    Stream,
}

impl SourceStep {
    fn request(self) -> &'static str {
        match self {
            Self::Describe => "DESCRIBE",
            Self::Setup => "SETUP",
            Self::Play => "PLAY",
            Self::Stream => "the stream",
        }
    }
}

impl SourceFault {
    /// A fault of an RTSP source. `cause` is this program's own words.
    pub(super) fn rtsp(
        source: &RtspSource,
        kind: SourceFaultKind,
        step: SourceStep,
        cause: impl fmt::Display,
    ) -> Self {
        Self::new(kind, step, format!("{source}: {cause}"))
    }

    /// A fault of a file.
    pub(super) fn file(source: &FileSource, cause: impl fmt::Display) -> Self {
        let message = format!("{source}: {}", one_line(&cause.to_string()));
        Self::new(SourceFaultKind::File, SourceStep::Stream, message)
    }

    /// One with this text; its kind says what the compatible reader can do.
    pub(super) fn new(kind: SourceFaultKind, step: SourceStep, message: String) -> Self {
        let other_reader = match kind {
            SourceFaultKind::Protocol | SourceFaultKind::Reader => OtherReader::Helps,
            SourceFaultKind::Silent | SourceFaultKind::Timeout | SourceFaultKind::Closed
                if step != SourceStep::Describe =>
            {
                OtherReader::IfRepeated
            }
            // A camera that starts takes connections before it answers.
            SourceFaultKind::Silent | SourceFaultKind::Timeout | SourceFaultKind::Closed => {
                OtherReader::NoHelp
            }
            SourceFaultKind::Unauthorized
            | SourceFaultKind::Unreachable
            | SourceFaultKind::NotRtsp
            | SourceFaultKind::NoVideo
            | SourceFaultKind::UnsupportedCodec
            | SourceFaultKind::Certificate
            | SourceFaultKind::TooLarge
            | SourceFaultKind::File => OtherReader::NoHelp,
        };
        Self { kind, step, message: line(&message), status: None, other_reader }
    }

    /// The same with another text.
    pub(super) fn with_message(self, message: &str) -> Self {
        Self { message: line(message), ..self }
    }

    /// What makes it the same fault as another.
    pub(super) fn key(&self) -> FaultKey {
        FaultKey { kind: self.kind, step: self.step, status: self.status }
    }

    /// What the compatible reader can do about it.
    pub(super) fn other_reader(&self) -> OtherReader {
        self.other_reader
    }

    /// The same with another word on the compatible reader.
    pub(super) fn with_other_reader(self, other_reader: OtherReader) -> Self {
        Self { other_reader, ..self }
    }

    /// No answer to a request.
    pub(super) fn no_answer(source: &RtspSource, step: SourceStep, limit: Duration) -> Self {
        let limit = limit.as_secs();
        let (kind, cause) = match step {
            SourceStep::Stream => (SourceFaultKind::Silent, format!("no picture for {limit} s")),
            SourceStep::Describe | SourceStep::Setup | SourceStep::Play => (
                SourceFaultKind::Timeout,
                format!("no answer to {} within {limit} s", step.request()),
            ),
        };
        Self::rtsp(source, kind, step, cause)
    }

    /// No answer to the first request. `first_bytes`: how the server answered another one on a
    /// connection of its own; empty if it took the connection and said nothing, `None` if it did
    /// not even take it.
    pub(super) fn no_first_answer(
        source: &RtspSource,
        limit: Duration,
        first_bytes: Option<&[u8]>,
    ) -> Self {
        let limit = limit.as_secs();
        let (kind, cause) = match first_bytes {
            None => (SourceFaultKind::Unreachable, format!("no connection within {limit} s")),
            Some([]) => (
                SourceFaultKind::Silent,
                format!("accepts the connection, then says nothing for {limit} s"),
            ),
            Some(bytes) if bytes.starts_with(b"RTSP/") => (
                SourceFaultKind::Protocol,
                "its answer to DESCRIBE has no end, as if its lines ended in LF alone".to_owned(),
            ),
            Some(_) => (SourceFaultKind::NotRtsp, NOT_RTSP.to_owned()),
        };
        Self::rtsp(source, kind, SourceStep::Describe, cause)
    }

    /// Maps an error of the RTSP library.
    ///
    /// The library offers a response's status and otherwise only text, so the kind follows from the
    /// start of the text; the library is pinned, and tests against real servers hold each case.
    pub(super) fn retina(source: &RtspSource, step: SourceStep, error: &ReaderError) -> Self {
        if error.is_over_budget {
            return Self::too_large(source, step);
        }
        Self::from_text(source, step, error.status, &error.text)
    }

    /// The camera sent more than its reader takes.
    pub(super) fn too_large(source: &RtspSource, step: SourceStep) -> Self {
        let cause = match step {
            SourceStep::Describe => {
                "its answer is longer than any camera's, or takes more memory than a reader has"
                    .to_owned()
            }
            SourceStep::Setup | SourceStep::Play | SourceStep::Stream => format!(
                "sent {} MiB without a whole picture of at most {} MiB, or what takes more memory \
                 than a reader has",
                PICTURE_BUDGET >> 20,
                MAX_PICTURE >> 20
            ),
        };
        Self::rtsp(source, SourceFaultKind::TooLarge, step, cause)
    }

    /// A fault of the process that reads a camera.
    pub(super) fn of_reader(source: &RtspSource, step: SourceStep, error: &IngestError) -> Self {
        match error {
            IngestError::OutOfMemory => Self::too_large(source, step),
            IngestError::Flood => Self::rtsp(source, SourceFaultKind::TooLarge, step, error),
            error => Self::rtsp(source, SourceFaultKind::Reader, step, error),
        }
    }

    fn from_text(source: &RtspSource, step: SourceStep, status: Option<u16>, text: &str) -> Self {
        // Before it is cut to length: half a password must not survive either.
        let foreign = one_line(&source.scrub(text));
        match status {
            Some(status) if status >= 300 => Self::refused(source, step, status, text),
            _ => {
                let (kind, cause) = broken(step, &foreign, text);
                Self::rtsp(source, kind, step, cause)
            }
        }
    }

    /// A request was answered with `status`. `text` is not shown.
    pub(super) fn refused(source: &RtspSource, step: SourceStep, status: u16, text: &str) -> Self {
        let request = step.request();
        let protocol = SourceFaultKind::Protocol;
        let (kind, other_reader, cause) = match status {
            401 if source.credentials.is_none() => (
                SourceFaultKind::Unauthorized,
                OtherReader::NoHelp,
                "asks for a user name and password, and the source has none".to_owned(),
            ),
            401 if text.contains("Can't understand WWW-Authenticate") => (
                protocol,
                OtherReader::Helps,
                "asks for the password in a way that the strict reader does not know".to_owned(),
            ),
            401 if step != SourceStep::Describe => (
                protocol,
                OtherReader::Helps,
                format!("takes the password for DESCRIBE and refuses it for {request} (401)"),
            ),
            401 => (
                SourceFaultKind::Unauthorized,
                if text.contains("after trying digest auth") {
                    OtherReader::OneAttempt
                } else {
                    OtherReader::NoHelp
                },
                "refuses the user name or password (401)".to_owned(),
            ),
            403 => (
                SourceFaultKind::Unauthorized,
                OtherReader::NoHelp,
                format!("forbids {request} (403)"),
            ),
            404 if step == SourceStep::Describe => (
                protocol,
                OtherReader::NoHelp,
                "has no such stream (404 to DESCRIBE): check the path".to_owned(),
            ),
            461 => (
                protocol,
                OtherReader::NoHelp,
                format!("does not offer this transport (461 to {request}): try the other one"),
            ),
            300..=399 => (
                protocol,
                OtherReader::Helps,
                format!(
                    "redirects {request} to another address ({status}): the strict reader does \
                     not follow"
                ),
            ),
            _ => (protocol, OtherReader::IfRepeated, format!("answers {status} to {request}")),
        };
        let fault = Self::rtsp(source, kind, step, cause);
        Self { status: Some(status), other_reader, ..fault }
    }
}

impl StreamError {
    /// Judges an error of the RTSP library in mid-stream by its text, as [`SourceFault::retina`]
    /// does.
    pub(super) fn retina(source: &RtspSource, error: &ReaderError) -> Self {
        if error.is_over_budget {
            return Self::Ended(SourceFault::too_large(source, SourceStep::Stream));
        }
        Self::from_text(source, error.status, &error.text)
    }

    fn from_text(source: &RtspSource, status: Option<u16>, text: &str) -> Self {
        let starts = |starts: &[&str]| starts.iter().any(|start| text.starts_with(start));
        // The library writes the packet's place behind errors of packets, and of no others. A part
        // that a server wrote holds no line break: the library escapes it.
        if text.contains("\nstream: ") && text.contains("\npkt: ") {
            return Self::Packet(match () {
                () if starts(&["corrupt RTP header", "wrong ssrc"]) => PacketFlaw::Stray,
                // Only packets that parsed as RTP have their SSRC written there.
                () if !text.contains("\nssrc: ") => PacketFlaw::Report,
                () if starts(&["Out-of-order packet"]) => PacketFlaw::Order,
                () if starts(&ODD_PACKETS) => PacketFlaw::Odd,
                () => PacketFlaw::Damaged,
            });
        }
        if starts(&[
            "RTSP framing error: Unexpected RTSP response",
            "Error reading from RTSP peer: Server failed to respond to keepalive",
            "Error writing to RTSP peer: Unable to write keepalive",
        ]) {
            return Self::Keepalive;
        }
        Self::Ended(SourceFault::from_text(source, SourceStep::Stream, status, text))
    }
}

/// Errors of packets that hold nothing of a picture: no payload, the forbidden bit, NAL units of
/// types that RTP does not use.
const ODD_PACKETS: [&str; 9] = [
    "Empty NAL",
    "forbidden zero bit",
    "zero temporal_id_plus1",
    "Short NAL",
    "NAL header",
    "bad nal header",
    "bad NAL header",
    "unimplemented/unexpected interleaved mode NAL",
    "unexpected/bad nal header",
];

const NOT_RTSP: &str = "answers, but not in RTSP: check the port";

/// The kind and the cause of an error that is no refusal. `foreign` is what may be shown of `text`.
fn broken(step: SourceStep, foreign: &str, text: &str) -> (SourceFaultKind, String) {
    let request = step.request();
    let starts = |starts: &[&str]| starts.iter().any(|start| text.starts_with(start));
    if starts(&["Unable to connect"]) {
        (SourceFaultKind::Unreachable, after_colon(foreign))
    } else if is_foreign_protocol(step, text) {
        (SourceFaultKind::NotRtsp, NOT_RTSP.to_owned())
    } else if starts(&[
        "Error reading from RTSP peer",
        "Error writing to RTSP peer",
        "Error receiving UDP packet",
    ]) {
        let cause = format!("connection lost during {request}: {}", after_colon(foreign));
        (SourceFaultKind::Closed, cause)
    } else {
        (SourceFaultKind::Protocol, format!("{request} failed: {foreign}"))
    }
}

/// A first answer that neither begins like one of RTSP nor was parsed up to its headers is not from
/// an RTSP server; any other is from a broken one.
fn is_foreign_protocol(step: SourceStep, text: &str) -> bool {
    let Some(error) = text.strip_prefix("RTSP framing error: ") else { return false };
    let at_first_line = match error.split_once("; buffered") {
        // The parser names the rule that failed: it takes for a request what is no RTSP answer.
        Some((error, _)) if error.starts_with("Invalid RTSP message") => {
            error.contains("request-line") || error.ends_with("(no context)")
        }
        // The rest is a dump of the first bytes.
        Some((error, dump)) if error.starts_with("Incomplete RTSP message") => {
            !dump.contains("RTSP/")
        }
        _ => false,
    };
    step == SourceStep::Describe && at_first_line
}

/// The first line, without control characters, no longer than a log line bears. The library puts
/// connection details and dumps of packets on further lines.
pub(super) fn one_line(text: &str) -> String {
    let shown = line(text.lines().next().unwrap_or_default());
    let shown = match shown.char_indices().nth(MAX_FOREIGN_TEXT) {
        None => shown,
        Some((end, _)) => format!("{}\u{2026}", shown.split_at(end).0),
    };
    shown.trim_end_matches([' ', ':', ';']).to_owned()
}

fn after_colon(text: &str) -> String {
    text.split_once(": ").map_or(text, |(_, cause)| cause).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::source::Source;
    use crate::util::line::MAX_LINE;

    fn source(text: &str) -> RtspSource {
        match Source::parse(text, None, None, false).unwrap() {
            Source::Rtsp(source) => source,
            Source::File(_) => panic!("{text} is no file"),
        }
    }

    #[test]
    fn a_fault_names_source_and_cause_in_one_line() {
        let camera = source("rtsp://user:pw@camera/stream");
        let text = "Unable to connect to RTSP server: Connection refused (os error 111)";
        let fault = SourceFault::from_text(&camera, SourceStep::Describe, None, text);
        assert_eq!(fault.kind, SourceFaultKind::Unreachable);
        assert_eq!(
            fault.message,
            "rtsp://***:***@camera/stream: Connection refused (os error 111)"
        );
    }

    #[test]
    fn each_status_has_its_kind_and_its_word_on_the_other_reader() {
        use OtherReader::*;
        use SourceFaultKind::*;
        use SourceStep::*;
        let tried =
            "401 response to DESCRIBE CSeq=2: Received Unauthorized after trying digest auth";
        let strange =
            "401 response to DESCRIBE CSeq=1: Can't understand WWW-Authenticate header: x";
        for (step, status, text, kind, other_reader) in [
            (Describe, 401, tried, Unauthorized, OneAttempt),
            (Describe, 401, strange, Protocol, Helps),
            (Setup, 401, tried, Protocol, Helps),
            (Setup, 403, "x", Unauthorized, NoHelp),
            (Describe, 404, "x", Protocol, NoHelp),
            (Setup, 404, "x", Protocol, IfRepeated),
            (Describe, 302, "x", Protocol, Helps),
            (Setup, 503, "x", Protocol, IfRepeated),
            // An answer that could not be understood.
            (Setup, 200, "x", Protocol, Helps),
        ] {
            let camera = source("rtsp://a:b@camera/stream");
            let fault = SourceFault::from_text(&camera, step, Some(status), text);
            assert_eq!((fault.kind, fault.other_reader()), (kind, other_reader), "{fault}");
            let asks = SourceFault::from_text(&source("rtsp://camera/x"), step, Some(401), text);
            assert_eq!((asks.kind, asks.other_reader()), (Unauthorized, NoHelp), "{asks}");
        }
    }

    #[test]
    fn only_a_first_answer_that_is_no_rtsp_is_told_as_such() {
        let camera = source("rtsp://camera/stream");
        let kind = |step, text: &str| SourceFault::from_text(&camera, step, None, text).kind;
        for (text, expected) in [
            ("Invalid RTSP message: byte 0: request-line; buffered:\n0000: 48", "not_rtsp"),
            ("Invalid RTSP message: byte 0: status-line; buffered:\n0000: 52", "protocol"),
            (
                "Invalid RTSP message: byte 17: response > message-header > field-value: x; \
                 buffered:\n0000: 43",
                "protocol",
            ),
            ("Incomplete RTSP message at EOF (x); buffered:\n0000: 48  HTTP/1.1", "not_rtsp"),
            ("Incomplete RTSP message at EOF (x); buffered:\n0000: 52  RTSP/1.0", "protocol"),
            ("Expected response to DESCRIBE CSeq 1, got OK response with CSeq 0", "protocol"),
        ] {
            let text = format!("RTSP framing error: {text}\n\nconn: x\nmsg: 0@now");
            assert_eq!(kind(SourceStep::Describe, &text).code(), expected, "{text}");
            assert_eq!(kind(SourceStep::Setup, &text), SourceFaultKind::Protocol, "{text}");
        }
        let first = |bytes| {
            SourceFault::no_first_answer(&camera, Duration::from_secs(5), bytes).kind.code()
        };
        assert_eq!(first(None), "unreachable");
        assert_eq!(first(Some(&b""[..])), "silent");
        assert_eq!(first(Some(b"RTSP/1.0 200 OK\n")), "protocol");
        assert_eq!(first(Some(b"HTTP/1.1 400")), "not_rtsp");
    }

    #[test]
    fn an_error_in_mid_stream_is_a_packet_a_keepalive_or_the_end() {
        let camera = source("rtsp://camera/stream");
        let judge = |text: &str| StreamError::from_text(&camera, None, text);
        let rtp = "\n\nconn: a\nstream: b\nssrc: 0000002a\nseq: 7\npkt: 12@now";
        let rtcp = "\n\nconn: a\nstream: b\npkt: 12@now";
        for (text, end, flaw) in [
            ("bad nal header 1f", rtp, PacketFlaw::Odd),
            ("NAL header 86 has F bit set", rtp, PacketFlaw::Odd),
            ("Empty NAL", rtp, PacketFlaw::Odd),
            ("FU-A pkt with MARK && !END", rtp, PacketFlaw::Damaged),
            ("wrong ssrc after 3 RTP pkts", rtp, PacketFlaw::Stray),
            ("corrupt RTP header while expecting seq=None: x\n0000: 1", rtcp, PacketFlaw::Stray),
            ("Out-of-order packet or large loss; expecting x", rtp, PacketFlaw::Order),
            ("RTCP packets must be at least 4 bytes", rtcp, PacketFlaw::Report),
        ] {
            assert_eq!(judge(&format!("{text}{end}")), StreamError::Packet(flaw), "{text}");
        }
        let unexpected = "RTSP framing error: Unexpected RTSP response Response {\n    \
            reason_phrase: \"Bad\\nstream: x\\npkt: y\",\n}";
        let unanswered =
            "Error reading from RTSP peer: Server failed to respond to keepalive 5 within 2s";
        assert_eq!(judge(unexpected), StreamError::Keepalive);
        assert_eq!(judge(unanswered), StreamError::Keepalive);
        let lost = judge("Error reading from RTSP peer: Connection reset by peer\n\nconn: x");
        let StreamError::Ended(fault) = lost else { panic!("{lost:?}") };
        assert_eq!(fault.kind, SourceFaultKind::Closed);
    }

    #[test]
    fn no_text_of_a_camera_makes_a_fault_longer_than_a_line() {
        let camera = source("rtsp://camera/stream");
        let sdp = "m=audio 0 RTP/AVP 0\r\n".repeat(200_000);
        for text in [sdp.clone(), format!("\u{1b}[2J{}", "é".repeat(1 << 20)), "\u{202e}".into()] {
            for (step, status) in [(SourceStep::Describe, None), (SourceStep::Setup, Some(200))] {
                let fault = SourceFault::from_text(&camera, step, status, &text);
                assert!(fault.message.chars().count() <= MAX_LINE);
                assert!(!fault.message.contains(['\u{1b}', '\n', '\r', '\u{202e}']), "{fault}");
                let twice = fault.with_message(&text.repeat(2));
                assert!(twice.message.chars().count() <= MAX_LINE);
            }
        }
        let packet = StreamError::from_text(&camera, None, &sdp);
        assert!(matches!(packet, StreamError::Ended(fault) if fault.message.len() < 1000));
    }

    #[test]
    fn a_number_in_the_text_makes_no_other_fault() {
        let camera = source("rtsp://camera/stream");
        let fault = |step, text| SourceFault::from_text(&camera, step, None, text).key();
        assert_eq!(fault(SourceStep::Setup, "odd 1"), fault(SourceStep::Setup, "odd 2"));
        assert_ne!(fault(SourceStep::Setup, "odd 1"), fault(SourceStep::Play, "odd 1"));
    }

    #[test]
    fn codes_are_these_and_serialised() {
        let codes = [
            "unauthorized",
            "unreachable",
            "not_rtsp",
            "no_video",
            "unsupported_codec",
            "silent",
            "timeout",
            "closed",
            "protocol",
            "certificate",
            "too_large",
            "reader",
            "file",
        ];
        assert!(SourceFaultKind::ALL.iter().map(|kind| kind.code()).eq(codes));
        for &kind in SourceFaultKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.code());
            assert_eq!(kind.to_string(), kind.code());
        }
    }

    proptest! {
        #[test]
        fn no_message_repeats_credentials_that_a_server_sends_back(
            user in "Q[XZ0-9]{6,12}", password in "Q[XZ0-9!]{6,12}", status in prop::option::of(200_u16..600),
        ) {
            let camera = source(&format!("rtsp://{user}:{password}@camera/stream"));
            for step in [SourceStep::Describe, SourceStep::Setup, SourceStep::Play, SourceStep::Stream] {
                for text in [
                    format!("Unable to connect to RTSP server: {user}"),
                    format!("Error reading from RTSP peer: {user}:{password}"),
                    format!("bad header Authorization {user} \
                        {password}\nrtsp://{user}:{password}@camera/stream"),
                ] {
                    let fault = SourceFault::from_text(&camera, step, status, &text);
                    let shown = format!("{fault} {fault:?}");
                    prop_assert!(!shown.contains(&user) && !shown.contains(&password), "{}", shown);
                    prop_assert!(!fault.message.contains('\n'));
                }
            }
        }
    }
}
