//! SHA-256: of bytes, of all that a reader gives, and as text. Nothing else knows the crate that
//! computes it.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// Bytes that are read at once: so many that the system calls do not count beside the hashing.
const CHUNK: usize = 128 << 10;

/// Hexadecimal digits of a digest.
const DIGITS: usize = 64;

/// A SHA-256. As text 64 hexadecimal digits, small letters; a precision shows as many of them:
/// `{digest:.12}`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A text that is no digest. It is not repeated: it may be the secret that a digest was to be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {DIGITS} hexadecimal digits, small letters")]
pub struct NotADigest;

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Of all that there is to read.
    pub fn of_reader(from: impl Read) -> io::Result<Self> {
        Self::of_copy(from, &mut io::sink()).map(|(digest, _)| digest)
    }

    /// Copies all that there is to read; gives the digest of that, and how many bytes it is.
    pub fn of_copy(mut from: impl Read, to: &mut impl Write) -> io::Result<(Self, u64)> {
        let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK]);
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => return Ok((Self(hasher.finalize().into()), size)),
                Ok(read) => buffer.get(..read).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(read);
            to.write_all(read)?;
            size += read.len() as u64;
        }
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(NotADigest),
        };
        let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
            &[high, low] => Ok(value(high)? << 4 | value(low)?),
            _ => Err(NotADigest),
        });
        // A longer text is no digest, whatever stands behind the digits.
        let bytes: Result<Vec<u8>, NotADigest> = pairs.take(DIGITS / 2 + 1).collect();
        bytes?.try_into().map(Self).map_err(|_| NotADigest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |value| char::from_digit(u32::from(value), 16);
        let digits = self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        f.pad(&digits.flatten().collect::<String>())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn bytes_readers_and_copies_have_one_digest() {
        assert_eq!(Digest::of("abc").to_string(), ABC);
        assert_eq!(Digest::of_reader(b"abc".as_slice()).unwrap(), Digest::of("abc"));
        let long: Vec<u8> = (0..2 * CHUNK + 1).map(|at| at as u8).collect();
        let mut copy = Vec::new();
        // A reader that gives three bytes at a time, and is interrupted in between.
        let mut turn = 0;
        let slow = long.chunks(3).collect::<Vec<_>>();
        let mut slow = slow.into_iter();
        let reader = Reader(|buffer: &mut [u8]| {
            turn += 1;
            if turn % 2 == 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let chunk = slow.next().unwrap_or_default();
            buffer[..chunk.len()].copy_from_slice(chunk);
            Ok(chunk.len())
        });
        let copied = Digest::of_copy(reader, &mut copy).unwrap();
        assert_eq!(copied, (Digest::of(&long), long.len() as u64));
        assert_eq!(copy, long);
    }

    struct Reader<F>(F);

    impl<F: FnMut(&mut [u8]) -> io::Result<usize>> Read for Reader<F> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            (self.0)(buffer)
        }
    }

    #[test]
    fn a_digest_is_read_as_it_is_written_and_nothing_else_is() {
        let digest = Digest::of("abc");
        assert_eq!((ABC.parse(), format!("{digest:?}")), (Ok(digest), ABC.to_owned()));
        assert_eq!(format!("{digest:.12}"), &ABC[..12]);
        assert_eq!("0a".repeat(32).parse(), Ok(Digest::from([10; 32])));
        let wrong = [
            String::new(),
            ABC.to_uppercase(),
            ABC[1..].to_owned(),
            ABC[2..].to_owned(),
            format!("{ABC}0"),
            format!("{ABC}00"),
            format!("+{}", &ABC[1..]),
            "é".repeat(32),
            " ".repeat(64),
        ];
        for text in wrong {
            assert_eq!(text.parse::<Digest>(), Err(NotADigest), "{text}");
        }
    }
}
