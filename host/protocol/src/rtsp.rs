//! Messages between the host and the strict reader's process of one camera (`ocelli-rtsp`).
//!
//! It has the two sockets of an ingest process, and the network socket is the same
//! ([`crate::ingest`]). On the **stream socket** the host opens with [`OpenCamera`]; the child
//! answers with [`FromReader::SandboxReport`], then with [`FromReader::Described`] or
//! [`FromReader::Failed`]. The host's [`Play`] names a stream, upon which the child sends
//! [`FromReader::SetUp`], [`FromReader::Playing`] and then what comes, up to `Failed` or
//! [`FromReader::Ended`]. A host that closes the socket ends the session: the child still tells the
//! camera so, and exits.
//!
//! The child only reads: what a picture or an error means is judged by the host.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::confinement::Confinement;

/// Streams of a camera that are named to the host: video, audio and metadata of three profiles have
/// nine.
pub const MAX_STREAMS: usize = 32;

/// Longest word of a stream's description, in bytes: `video`, `vnd.onvif.metadata`.
pub const MAX_WORD: usize = 64;

/// Longest text of an error, in bytes: its first line is shown in part, and the lines behind it say
/// which packet it was.
pub const MAX_ERROR: usize = 2048;

/// Longest parameter sets of a stream, in bytes. Those of cameras have a hundred.
pub const MAX_PARAMETERS: usize = 16 << 10;

/// Longest coded picture of a camera, in bytes: an intra picture of an 8K camera at high quality.
pub const MAX_PICTURE: usize = 8 << 20;

/// Bytes that a camera may send before it has answered DESCRIBE, twice where it asks for a
/// password. Answers have some thousand.
pub const ANSWER_BUDGET: u64 = 256 << 10;

/// Bytes that a camera may send before a picture is whole, or SETUP and PLAY are answered: the
/// longest picture in packets, with as much of other things again as half of it.
pub const PICTURE_BUDGET: u64 = 12 << 20;

/// The first message to the process: what it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCamera {
    /// `rtsp://`, without credentials.
    pub url: String,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// Whether RTP packets come in datagrams instead of within the connection.
    pub udp: bool,
    /// How the client calls itself.
    pub user_agent: String,
    /// Private memory of the process (RLIMIT_DATA), in bytes.
    pub memory: u64,
}

/// The host's choice of one of the streams that were described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Play {
    /// Its place in the description.
    pub stream: u32,
}

/// From the process to the host, on the stream socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromReader {
    /// How the process is confined. The first message.
    SandboxReport(Confinement),
    /// What the camera offers: at most [`MAX_STREAMS`].
    Described(Vec<OfferedStream>),
    /// The camera has accepted SETUP.
    SetUp,
    /// The camera has accepted PLAY.
    Playing,
    /// The stream's parameter sets from here on, in Annex B; the payload holds them, at most
    /// [`MAX_PARAMETERS`] bytes.
    Parameters,
    /// The next picture in decoding order; the payload holds its bytes, at most [`MAX_PICTURE`].
    Picture(Picture),
    /// An RTCP packet of the camera, with the sender report in it if there was one.
    Report(Option<SenderReport>),
    /// Something could not be used; the session goes on.
    Error(ReaderError),
    /// The session is over, or never began.
    Failed(ReaderError),
    /// The camera has closed the connection.
    Ended,
}

/// A stream that a camera offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedStream {
    /// `video`, at most [`MAX_WORD`] bytes.
    pub media: String,
    /// `h264`, likewise.
    pub encoding: String,
}

/// When something came: on the stream's clock, and on the host's two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// RTP time without wraparound.
    pub ticks: i64,
    /// Ticks in a second.
    pub rate: NonZeroU32,
    /// When it had arrived, on the monotonic clock, in nanoseconds.
    pub received_ns: u64,
    /// When its first packet had arrived, in nanoseconds since 1970.
    pub received_wall_ns: u64,
}

/// A coded picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// When it came.
    pub moment: Moment,
    /// Packets were lost before it.
    pub lost: bool,
    /// It holds the parameter sets that it needs.
    pub has_sets: bool,
}

/// A sender report of RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderReport {
    /// When it came, and its RTP time.
    pub moment: Moment,
    /// 32.32 fixed-point seconds since 1900.
    pub ntp: u64,
}

/// An error of the RTSP library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderError {
    /// The status that the camera answered with, if it did.
    pub status: Option<u16>,
    /// The camera sent more bytes than an answer ([`ANSWER_BUDGET`]) or a picture
    /// ([`PICTURE_BUDGET`]) may take.
    pub is_over_budget: bool,
    /// The library's words, at most [`MAX_ERROR`] bytes. May hold what the camera sent back of the
    /// credentials: the host hides them.
    pub text: String,
}

/// A text within [`MAX_ERROR`]: of a longer one its beginning and its end, where the library writes
/// which packet it was.
pub fn error_text(text: &str) -> String {
    const HALF: usize = MAX_ERROR / 2 - 8;
    if text.len() <= MAX_ERROR {
        return text.to_owned();
    }
    let (head, _) = text.split_at(text.floor_char_boundary(HALF));
    let (_, tail) = text.split_at(text.ceil_char_boundary(text.len() - HALF));
    format!("{head}\n\u{2026}\n{tail}")
}

/// A word within [`MAX_WORD`].
pub fn word(text: &str) -> String {
    text.split_at(text.floor_char_boundary(MAX_WORD)).0.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_within_their_bounds_and_keep_both_ends() {
        let text = format!("bad packet{}\npkt: 12", "\u{e9}".repeat(MAX_ERROR));
        let bounded = error_text(&text);
        assert!(bounded.len() <= MAX_ERROR);
        assert!(bounded.starts_with("bad packet") && bounded.ends_with("\npkt: 12"));
        assert_eq!(error_text("short"), "short");
        assert!(word(&"\u{e9}".repeat(MAX_WORD)).len() <= MAX_WORD);
    }
}
