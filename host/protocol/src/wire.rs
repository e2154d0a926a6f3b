//! Framing of the messages between host and worker: a header of two lengths, a message, and an
//! optional payload.
//!
//! ```text
//! u32 LE  length of the message      (postcard)
//! u32 LE  length of the payload      (raw bytes: a compressed picture, a snapshot)
//! message, payload
//! ```
//!
//! The payload stays outside the message so that a picture is written from where it lies.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::decode;

/// Bytes of the two lengths.
pub const HEADER: usize = 8;

/// Longest message in bytes. A result with a thousand detections and their embeddings stays below
/// it.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Longest payload in bytes. An intra picture of an 8K camera at the highest quality stays below
/// it.
pub const MAX_PAYLOAD: usize = 16 << 20;

/// Why a message could not be sent or taken in.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side closed the connection between two messages.
    #[error("the connection is closed")]
    Closed,
    /// A length exceeds its bound.
    #[error("a {what} of {length} bytes exceeds the bound of {bound}")]
    TooLong {
        what: &'static str,
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        bound: usize,
    },
    /// Decoded it would take more memory than such a message may.
    #[error("a message that takes more than {bound} bytes of memory")]
    TooLarge {
        /// Bytes allowed.
        bound: usize,
    },
    /// The bytes are not a message of the expected type.
    #[error("malformed message: {0}")]
    Malformed(#[from] postcard::Error),
    /// The socket failed, or closed in the middle of a message.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A value as it lies in a payload; [`decode`] takes it apart.
pub fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    Ok(postcard::to_stdvec(value)?)
}

/// The header and the message, ready to be written before its payload of `payload` bytes.
pub fn encode<M: Serialize>(message: &M, payload: usize) -> Result<Vec<u8>, WireError> {
    let mut bytes = postcard::to_extend(message, vec![0; HEADER])?;
    let length = bytes.len().saturating_sub(HEADER);
    let header = header(length, payload)?;
    bytes.iter_mut().zip(header).for_each(|(byte, value)| *byte = value);
    Ok(bytes)
}

fn header(message: usize, payload: usize) -> Result<[u8; HEADER], WireError> {
    check("message", message, MAX_MESSAGE)?;
    check("payload", payload, MAX_PAYLOAD)?;
    // Both bounds are far below 2^32.
    Ok((message as u64 | (payload as u64) << 32).to_le_bytes())
}

fn check(what: &'static str, length: usize, bound: usize) -> Result<(), WireError> {
    if length > bound { Err(WireError::TooLong { what, length, bound }) } else { Ok(()) }
}

/// The lengths of message and payload that a header announces, both within their bounds.
pub fn decode_header(header: [u8; HEADER]) -> Result<(usize, usize), WireError> {
    let both = u64::from_le_bytes(header);
    let (message, payload) = ((both & 0xffff_ffff) as usize, (both >> 32) as usize);
    check("message", message, MAX_MESSAGE)?;
    check("payload", payload, MAX_PAYLOAD)?;
    Ok((message, payload))
}

/// Takes a message apart that comes from a process that is not trusted: its lists and
/// texts take at most `most` bytes of memory, and it has no map. All bytes must belong to it.
pub fn decode_within<M: DeserializeOwned>(message: &[u8], most: usize) -> Result<M, WireError> {
    decode::decode_within(message, most)
}

/// Takes a message of the host, or a value in its payload, apart. All bytes must belong to it.
pub fn decode<M: DeserializeOwned>(message: &[u8]) -> Result<M, WireError> {
    match postcard::take_from_bytes(message)? {
        (value, []) => Ok(value),
        _ => Err(WireError::Malformed(postcard::Error::DeserializeBadEncoding)),
    }
}

/// Writes a message and its payload, both in one call where the stream takes them: its reader wakes
/// once.
pub fn write<M: Serialize>(
    to: &mut impl Write,
    message: &M,
    payload: &[u8],
) -> Result<(), WireError> {
    let head = encode(message, payload.len())?;
    let mut both = [IoSlice::new(&head), IoSlice::new(payload)];
    let mut rest = both.as_mut_slice();
    while rest.iter().any(|part| !part.is_empty()) {
        match to.write_vectored(rest) {
            Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads the host's messages from a blocking stream, with the same buffers for each.
pub struct Reader<R> {
    from: R,
    message: Vec<u8>,
    payload: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// A reader that owns its stream.
    pub fn new(from: R) -> Self {
        Self { from, message: Vec::new(), payload: Vec::new() }
    }

    /// The stream. Bytes read from it directly are missing here.
    pub fn get_ref(&self) -> &R {
        &self.from
    }

    /// The next message and its payload. [`WireError::Closed`] where the stream ends between two
    /// messages.
    pub fn read<M: DeserializeOwned>(&mut self) -> Result<(M, &[u8]), WireError> {
        let mut header = [0; HEADER];
        match self.from.read(&mut header) {
            Ok(0) => return Err(WireError::Closed),
            Ok(HEADER) => {}
            Ok(read) => self.from.read_exact(header.get_mut(read..).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.from.read_exact(&mut header)?
            }
            Err(error) => return Err(error.into()),
        }
        let (message, payload) = decode_header(header)?;
        self.message.resize(message, 0);
        self.payload.resize(payload, 0);
        self.from.read_exact(&mut self.message)?;
        self.from.read_exact(&mut self.payload)?;
        Ok((decode(&self.message)?, &self.payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut stream = Vec::new();
        write(&mut stream, &("first", 1u32), b"payload").unwrap();
        write(&mut stream, &("second", 2u32), b"").unwrap();
        let mut reader = Reader::new(stream.as_slice());
        assert_eq!(
            reader.read::<(String, u32)>().unwrap(),
            (("first".into(), 1), b"payload".as_slice())
        );
        assert_eq!(reader.read::<(String, u32)>().unwrap(), (("second".into(), 2), b"".as_slice()));
        assert!(matches!(reader.read::<(String, u32)>(), Err(WireError::Closed)));
    }

    /// Takes at most three bytes at a time, and is interrupted before each.
    #[derive(Default)]
    struct Slow {
        taken: Vec<u8>,
        interrupted: bool,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(ErrorKind::Interrupted.into());
            }
            self.taken.write(&bytes[..bytes.len().min(3)])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stream_that_takes_little_at_a_time_gets_all() {
        let mut slow = Slow::default();
        write(&mut slow, &"message", b"payload").unwrap();
        write(&mut slow, &"alone", b"").unwrap();
        let mut reader = Reader::new(slow.taken.as_slice());
        assert_eq!(reader.read::<String>().unwrap(), ("message".into(), b"payload".as_slice()));
        assert_eq!(reader.read::<String>().unwrap(), ("alone".into(), b"".as_slice()));
    }

    #[test]
    fn a_length_over_its_bound_is_refused_before_anything_is_allocated() {
        let announced = (u64::from(u32::MAX)).to_le_bytes();
        let error = Reader::new(announced.as_slice()).read::<u32>().unwrap_err();
        assert!(matches!(error, WireError::TooLong { what: "message", .. }), "{error}");
        assert!(matches!(
            encode(&0u8, MAX_PAYLOAD + 1),
            Err(WireError::TooLong { what: "payload", .. })
        ));
    }

    #[test]
    fn a_stream_that_ends_inside_a_message_is_an_error_not_an_end() {
        let mut stream = Vec::new();
        write(&mut stream, &"message", b"payload").unwrap();
        for end in 1..stream.len() {
            let error = Reader::new(&stream[..end]).read::<String>().unwrap_err();
            assert!(matches!(error, WireError::Io(_)), "cut at {end}: {error}");
        }
    }

    #[test]
    fn bytes_left_over_behind_a_message_are_malformed() {
        assert!(matches!(decode::<u8>(&[1, 2]), Err(WireError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Reader::new(bytes.as_slice()).read::<crate::worker::FromWorker>();
            let _ = decode::<crate::worker::ToWorker>(&bytes);
        }
    }
}
