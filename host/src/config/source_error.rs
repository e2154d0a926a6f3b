//! Why a text, or what a config says beside it, is not a source.

/// Why a text is not a source. Shows no more of the text than the name of a well-known URL scheme.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The text is empty.
    #[error("the source is empty: write an rtsp:// URL or file:PATH")]
    Empty,
    /// The text is neither a URL nor `file:PATH`.
    #[error("not a source: write an rtsp:// URL or file:PATH")]
    Unrecognised,
    /// UniFi's form of an `rtsps://` URL whose certificate is not to be checked.
    #[error(
        "rtspx:// is not supported as a source: write rtsps://, and the camera's certificate as \
         certificate_sha256 (the first attempt's error shows it)"
    )]
    Unchecked,
    /// `ca` or `certificate_sha256` was set for another source.
    #[error("{key} is for rtsps:// sources")]
    NotTls { key: &'static str },
    /// Both were set.
    #[error("ca and certificate_sha256 exclude each other")]
    TwoTrusts,
    /// `certificate_sha256` is none.
    #[error("certificate_sha256 is not 64 hexadecimal digits")]
    Fingerprint,
    /// `rtsps://` with a setting that cannot be met.
    #[error("rtsps:// sources have {0}")]
    TlsNeeds(&'static str),
    /// A URL of another kind.
    #[error("{scheme} is not supported as a source: write an rtsp:// URL or file:PATH")]
    Scheme { scheme: &'static str },
    /// The URL does not parse.
    #[error(
        "the rtsp:// URL is not valid: {reason} (in a user name or password, write : / ? # @ % as \
         %3A %2F %3F %23 %40 %25)"
    )]
    Url { reason: String },
    /// A URL without a host.
    #[error("the rtsp:// URL names no host")]
    NoHost,
    /// A reserved character behind the host: often one of a password that is not encoded.
    #[error(
        "the rtsp:// URL has a {character} behind the host: write it as {encoded} (a user name or \
         password that holds one of : / ? # @ % needs each of them encoded)"
    )]
    Reserved { character: char, encoded: &'static str },
    /// The credentials are not text.
    #[error("the user name or password in the rtsp:// URL is not UTF-8 once percent-decoded")]
    Credentials,
    /// `file:` and nothing behind it.
    #[error("file: needs a path behind it")]
    NoPath,
    /// A file on another host: `file://host/path`.
    #[error(
        "file: takes a path on this machine (file:clip.mp4 or file:///videos/clip.mp4), not one \
         on another host"
    )]
    RemoteFile,
    /// A key of live streams was set for a file.
    #[error("{key} is for rtsp:// sources; this one is a file")]
    LiveKey { key: &'static str },
    /// A substream that is no stream of a camera, or of no camera.
    #[error("{0}")]
    Substream(&'static str),
    /// `pace` or `repeat` was set for a live stream.
    #[error("{key} is for file: sources; this one is a live stream")]
    FileKey { key: &'static str },
}
