//! Reasons why a video file cannot be read to its end.

use std::io;

use ocelli_protocol::ingest::IngestFaultKind;

use super::ingest::IngestError;

/// Why a video file yields no further access unit. The text does not name the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot be opened: {0}")]
    Open(io::Error),
    /// A folder, a pipe or a device.
    #[error("is no file")]
    NotAFile,
    #[error("holds no pictures")]
    NoPictures,
    #[error("has no video track")]
    NoVideo,
    /// The codec, as libavcodec names it.
    #[error("video is {0}, which is not supported; known are H.264, H.265 and Motion JPEG")]
    UnsupportedCodec(String),
    #[error(
        "not a video file: known are mp4, mov, mkv, MPEG-TS, avi, and raw H.264, H.265 and Motion \
         JPEG"
    )]
    UnknownContainer,
    /// The reader's words.
    #[error("damaged or cut short: {0}")]
    Damaged(String),
    #[error(transparent)]
    Reader(IngestError),
}

impl From<IngestError> for FileError {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Failed(fault) => match fault.kind {
                IngestFaultKind::NoVideo => Self::NoVideo,
                IngestFaultKind::UnsupportedCodec(codec) => Self::UnsupportedCodec(codec),
                IngestFaultKind::UnknownContainer => Self::UnknownContainer,
                IngestFaultKind::InvalidData => Self::Damaged(fault.reason),
                _ => Self::Reader(IngestError::Failed(fault)),
            },
            error => Self::Reader(error),
        }
    }
}
