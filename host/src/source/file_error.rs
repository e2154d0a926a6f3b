//! Reasons why a video file cannot be read to its end.

use std::io;

/// Why a video file yields no further access unit. The text does not name the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("no thread to read it: {0}")]
    Thread(io::Error),
    #[error("cannot be opened: {0}")]
    Open(io::Error),
    #[error(transparent)]
    Read(#[from] io::Error),
    /// The ending of the file's name stands for no container.
    #[error("{}; known are {known}", unknown(.ending))]
    Ending { ending: String, known: String },
    #[error("holds no pictures")]
    NoPictures,
    /// The parser of mp4 panicked.
    #[error("the file is damaged")]
    Panicked,
    #[error("not a sound mp4 file: {0}")]
    Mp4(#[from] re_mp4::Error),
    #[error("has no video track")]
    NoVideo,
    /// The codecs of the video tracks, as mp4 names them.
    #[error("video is {0}, which is not supported; known are H.264 (avc1) and H.265 (hvc1, hev1)")]
    UnsupportedCodec(String),
    #[error("its video track is empty")]
    EmptyTrack,
    #[error("its video track has no time scale")]
    NoTimeScale,
    #[error("its video track has times beyond 292 years")]
    TimeRange,
    #[error("cut short or damaged: picture {picture} lies outside of the file's {file_size} bytes")]
    CutShort { picture: usize, file_size: u64 },
    #[error("the picture at byte {offset} cannot be read: {source}")]
    Picture { offset: u64, source: io::Error },
    #[error("the picture at byte {0} is damaged")]
    DamagedPicture(u64),
    #[error("not a raw video stream: it does not begin with a start code (00 00 01)")]
    NoStartCode,
    /// The largest access unit allowed, in bytes.
    #[error("an access unit larger than {} MiB: not a video stream", .0 >> 20)]
    UnitTooLarge(usize),
}

fn unknown(ending: &str) -> String {
    match ending {
        "" => "the name has no ending".to_owned(),
        ending => format!("unknown ending .{ending}"),
    }
}
