//! Faults of sources: a kind for programs and a sentence for people. The errors of the RTSP library
//! are mapped here and nowhere else.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use strum::VariantArray;

use crate::config::source::{FileSource, RtspSource};

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

/// A step of reading a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
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
        Self { kind, step, message: format!("{source}: {cause}") }
    }

    /// A fault of a file.
    pub(super) fn file(source: &FileSource, cause: impl fmt::Display) -> Self {
        Self {
            kind: SourceFaultKind::File,
            step: SourceStep::Stream,
            message: format!("{source}: {}", one_line(&cause.to_string())),
        }
    }

    /// No answer to a request. `accepts` says whether the server takes connections at all.
    pub(super) fn no_answer(
        source: &RtspSource,
        step: SourceStep,
        limit: Duration,
        accepts: bool,
    ) -> Self {
        let limit = limit.as_secs_f32();
        let (kind, cause) = match (step, accepts) {
            (SourceStep::Describe, true) => (
                SourceFaultKind::Silent,
                format!("accepts the connection, then says nothing for {limit} s"),
            ),
            (SourceStep::Describe, false) => {
                (SourceFaultKind::Unreachable, format!("no connection within {limit} s"))
            }
            (SourceStep::Stream, _) => {
                (SourceFaultKind::Silent, format!("no picture for {limit} s"))
            }
            (SourceStep::Setup | SourceStep::Play, _) => (
                SourceFaultKind::Timeout,
                format!("no answer to {} within {limit} s", step.request()),
            ),
        };
        Self::rtsp(source, kind, step, cause)
    }

    /// Maps an error of the RTSP library.
    ///
    /// The library offers a response's status and otherwise only text, so the kind follows from the
    /// start of the text; the library is pinned, and tests against real servers hold each case.
    pub(super) fn retina(source: &RtspSource, step: SourceStep, error: &retina::Error) -> Self {
        Self::from_text(source, step, error.status_code(), &error.to_string())
    }

    fn from_text(source: &RtspSource, step: SourceStep, status: Option<u16>, text: &str) -> Self {
        let request = step.request();
        // Before it is cut to length: half a password must not survive either.
        let foreign = one_line(&source.scrub(text));
        let (kind, cause) = match status {
            Some(401) if source.credentials.is_none() => (
                SourceFaultKind::Unauthorized,
                "asks for a user name and password, and the source has none".to_owned(),
            ),
            Some(401) => (
                SourceFaultKind::Unauthorized,
                "refuses the user name or password (401)".to_owned(),
            ),
            Some(403) => (SourceFaultKind::Unauthorized, format!("forbids {request} (403)")),
            Some(404) => (
                SourceFaultKind::Protocol,
                format!("has no such stream (404 to {request}): check the path"),
            ),
            Some(461) => (
                SourceFaultKind::Protocol,
                format!("does not offer this transport (461 to {request}): try the other one"),
            ),
            Some(status) if status >= 300 => {
                (SourceFaultKind::Protocol, format!("answers {status} to {request}"))
            }
            _ if foreign.starts_with("Unable to connect") => {
                (SourceFaultKind::Unreachable, after_colon(&foreign))
            }
            _ if is_foreign_protocol(step, &foreign) => {
                (SourceFaultKind::NotRtsp, "answers, but not in RTSP: check the port".to_owned())
            }
            _ if foreign.starts_with(
                "Error reading from RTSP peer: Server failed to respond to keepalive",
            ) =>
            {
                (SourceFaultKind::Timeout, "no answer to a keepalive request".to_owned())
            }
            _ if [
                "Error reading from RTSP peer",
                "Error writing to RTSP peer",
                "Error receiving UDP packet",
            ]
            .iter()
            .any(|start| foreign.starts_with(start)) =>
            {
                (
                    SourceFaultKind::Closed,
                    format!("connection lost during {request}: {}", after_colon(&foreign)),
                )
            }
            _ => (SourceFaultKind::Protocol, format!("{request} failed: {foreign}")),
        };
        Self::rtsp(source, kind, step, cause)
    }
}

/// A first answer that does not parse is not from an RTSP server; a later one is from a broken one.
fn is_foreign_protocol(step: SourceStep, text: &str) -> bool {
    step == SourceStep::Describe
        && [
            "RTSP framing error: Invalid RTSP message",
            "RTSP framing error: Incomplete RTSP message",
        ]
        .iter()
        .any(|start| text.starts_with(start))
}

/// The first line, without control characters, no longer than a log line bears. The library puts
/// connection details and dumps of packets on further lines.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let shown: String = line.chars().filter(|c| !c.is_control()).take(MAX_FOREIGN_TEXT).collect();
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
    fn each_status_has_its_kind() {
        let camera = source("rtsp://camera/stream");
        let kind =
            |status| SourceFault::from_text(&camera, SourceStep::Setup, Some(status), "x").kind;
        assert_eq!(kind(401), SourceFaultKind::Unauthorized);
        assert_eq!(kind(403), SourceFaultKind::Unauthorized);
        assert_eq!(kind(404), SourceFaultKind::Protocol);
        assert_eq!(kind(503), SourceFaultKind::Protocol);
        assert_eq!(kind(200), SourceFaultKind::Protocol, "an answer that could not be understood");
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
