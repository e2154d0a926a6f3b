//! Messages between the host and the reader process of one source (`ocelli-ingest`).
//!
//! Two sockets connect them. The **stream socket** carries [`wire`](crate::wire) messages: the host
//! opens with [`Open`]; the child answers with [`FromIngest::SandboxReport`], then with
//! [`FromIngest::Opened`] or [`FromIngest::Failed`], then sends access units up to
//! [`FromIngest::Ended`] or `Failed`, and exits. A child that the host does not read waits in its
//! write: so a file is read at its subscriber's speed.
//!
//! The **network socket** (sequenced packets, postcard) carries one [`NetworkRequest`] at a time
//! and its [`NetworkResponse`]. The child has no right to connect or to send a datagram: the host
//! resolves names, connects, and sends, where the source's rule admits it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::confinement::Confinement;
use crate::worker::{Codec, Orientation};

/// Longest message on the network socket, in bytes: a host name of 253 characters, or 16 addresses.
pub const MAX_NETWORK_MESSAGE: usize = 1024;

/// Addresses of one name that are passed on.
pub const MAX_ADDRESSES: usize = 16;

/// Longest datagram that is sent for a child, in bytes: a receiver report of RTCP with the name of
/// its machine has some hundred.
pub const MAX_DATAGRAM: usize = 512;

/// Longest text of libavformat that is passed on, in bytes: one line of a log.
pub const MAX_TEXT: usize = 400;

/// The first message to an ingest process: what it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// What it reads.
    pub input: Input,
    /// Private memory of the process (RLIMIT_DATA), in bytes.
    pub memory: u64,
    /// How long the network may be silent, and how long a file may be read for one picture, in
    /// milliseconds.
    pub read_timeout_ms: u32,
}

/// The input of an ingest process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// An RTSP camera.
    Camera {
        /// Always `rtsp://`, with the credentials: the host speaks TLS where the source asks for
        /// it.
        url: String,
        /// Whether RTP packets come in datagrams instead of within the connection.
        udp: bool,
    },
    /// The file behind the descriptor [`FILE`](crate::process::ingest::FILE).
    File {
        /// The ending of its name in lower case, without the dot: a hint where the content leaves
        /// the container open. Empty if it has none.
        ending: String,
    },
}

/// From an ingest process to the host, on the stream socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromIngest {
    /// How the process is confined. The first message.
    SandboxReport(Confinement),
    /// The input is open and has video.
    Opened(StreamInfo),
    /// The next access unit in decoding order; the payload holds its bytes.
    Unit(IngestUnit),
    /// A part of the input was lost or unreadable between the last unit and the next.
    Damage(Damage),
    /// A camera's input is alive without a picture: RTCP, or packets that made none.
    Alive,
    /// The file is at its end: no further unit follows.
    Ended,
    /// The input cannot be read, or not any further.
    Failed(IngestFault),
}

/// A video stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamInfo {
    /// The container or protocol, as libavformat names it: `mov,mp4,m4a,3gp,3g2,mj2`, `rtsp`.
    pub format: String,
    /// The compression of its access units.
    pub codec: Codec,
    /// Coded width in pixels, before [`Self::orientation`]. 0 if not known before the first
    /// picture is decoded.
    pub width: u32,
    /// Coded height in pixels, likewise.
    pub height: u32,
    /// How a player turns each picture.
    pub orientation: Orientation,
    /// Pictures in a second, by the container. `None` if it does not say.
    pub frame_rate: Option<f64>,
    /// Pictures of a file, by its index. `None` without an index.
    pub pictures: Option<u64>,
    /// Length of a file in nanoseconds, by its header.
    pub duration_ns: Option<u64>,
    /// The streams that are left out, each in a word or two: "audio aac". For a camera none: those
    /// are not asked for.
    pub left_out: Vec<String>,
    /// Parameter sets that the container keeps apart from the units, in Annex B: for key units that
    /// lack their own. Empty if there are none.
    pub parameter_sets: Vec<u8>,
}

/// The description of an access unit of an ingest process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestUnit {
    /// The container's word on whether decoding can start here. The host looks itself where it
    /// knows the codec.
    pub key: bool,
    /// The demuxer found the unit incomplete or damaged.
    pub corrupt: bool,
    /// Lies outside of the edit list: decoded because others refer to it, and not shown.
    pub hidden: bool,
    /// Presentation time in nanoseconds, from any origin. `None` if the container has no times.
    pub presentation_ns: Option<i64>,
    /// Time at which decoding is due, in nanoseconds, from the same origin. `None` likewise.
    pub decoding_ns: Option<i64>,
    /// Wall-clock time by the camera's sender reports, in nanoseconds since 1970.
    pub capture_ns: Option<u64>,
}

/// A loss in the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Pictures lost, where they could be counted; else 0.
    pub pictures: u64,
    /// libavformat's words, one line of at most [`MAX_TEXT`] bytes. May hold credentials of the
    /// URL: the host hides them.
    pub reason: String,
}

/// Why an input cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestFault {
    /// The step that failed.
    pub step: IngestStep,
    /// The cause.
    pub kind: IngestFaultKind,
    /// libavformat's words, one line of at most [`MAX_TEXT`] bytes. May hold credentials of the
    /// URL: the host hides them.
    pub reason: String,
}

/// A step of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IngestStep {
    /// Connecting and asking for the stream, or reading a file's header.
    Open,
    /// Finding the video stream and its parameters.
    Probe,
    /// Reading pictures.
    Read,
}

/// Why an ingest process cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum IngestFaultKind {
    /// The camera refuses the user name or password (401, 403), or wants one.
    Unauthorized,
    /// No connection.
    Unreachable,
    /// The host refuses the connection: the source's rule does not admit its address.
    NotAdmitted,
    /// No video stream.
    NoVideo,
    /// The codec of the video, as libavcodec names it.
    UnsupportedCodec(String),
    /// Nothing came in time.
    Timeout,
    /// The other side closed the connection.
    Closed,
    /// The content is not what its container promises.
    InvalidData,
    /// The file is none of the containers that are read.
    UnknownContainer,
    /// The camera refuses a request with this status.
    Status(u16),
    /// The camera sent more than a picture may have, or what takes more memory than the process
    /// has.
    TooLarge,
    /// Anything else.
    Other,
}

/// From an ingest process to the host, on the network socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkRequest {
    /// The addresses of a name.
    Resolve {
        /// A host name, never an address.
        name: String,
    },
    /// A connection over TCP.
    Connect {
        /// Where to.
        address: SocketAddr,
    },
    /// Only datagrams from this address come to the UDP socket that comes with this message
    /// (SCM_RIGHTS), and its own go there; and room for those of a key picture.
    Bind {
        /// The camera's.
        address: SocketAddr,
    },
    /// A datagram from the UDP socket that comes with this message (SCM_RIGHTS): reports to the
    /// camera, and the packets that open a firewall for its answers.
    Send {
        /// Where to.
        address: SocketAddr,
        /// At most [`MAX_DATAGRAM`] bytes.
        data: Vec<u8>,
    },
}

/// The host's answer to a [`NetworkRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkResponse {
    /// Its addresses, at least one, at most [`MAX_ADDRESSES`].
    Resolved(Vec<IpAddr>),
    /// The connected socket comes with this message (SCM_RIGHTS).
    Connected,
    /// The socket takes datagrams of that address alone.
    Bound,
    /// The datagram is sent.
    Sent,
    /// The source's rule does not admit it.
    NotAdmitted,
    /// It failed with this error number of the system.
    Failed {
        /// `errno`.
        error: i32,
    },
}
