//! Compression of WebSocket messages: permessage-deflate of RFC 7692, each message by itself.
//!
//! Neither side keeps what it learnt from one message for the next (`no_context_takeover` both
//! ways). So a socket has no state of its own, which would be some 300 KB each, and a message that
//! goes to many is compressed once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use parking_lot::Mutex;

const NAME: &str = "permessage-deflate";

/// Shorter messages go as they are: there is little to win.
const SHORTEST: usize = 256;

/// Longer messages go as they are: this is some 10 ms of work already, which holds up a thread.
const LONGEST: usize = 1 << 20;

/// Longest message that is kept for the next socket.
const LONGEST_KEPT: usize = 64 << 10;

/// Compressed messages that are kept: some 100 ms of the busiest host, in which a message reaches
/// all sockets. With [`LONGEST_KEPT`] at most 8 MiB.
const KEPT: usize = 64;

/// How a compressed message ends, which goes without saying (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// What client and host have agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) struct Deflate {
    /// The host's window has 2 to the power of this many bytes, 9 to 15.
    bits: u8,
    /// Whether the client asked for it.
    asked: bool,
}

impl Deflate {
    /// Chooses the first of the client's offers that the host can keep.
    pub(in crate::api) fn choose(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).into_iter();
        let mut offers =
            lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        offers.find_map(Self::take)
    }

    /// The answer to the client.
    pub(in crate::api) fn answer(self) -> String {
        let plain = format!("{NAME}; server_no_context_takeover; client_no_context_takeover");
        if self.asked { format!("{plain}; server_max_window_bits={}", self.bits) } else { plain }
    }

    fn take(offer: &str) -> Option<Self> {
        let mut parts = offer.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut chosen = Self { bits: 15, asked: false };
        let mut seen = Vec::new();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (part, None),
            };
            let bits =
                value.map(|value| value.parse::<u8>().ok().filter(|bits| (8..=15).contains(bits)));
            match (name, bits) {
                // The host keeps nothing anyway, and reads whatever window a client writes with.
                ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
                ("client_max_window_bits", None | Some(Some(_))) => {}
                // The library knows no window of 256 bytes.
                ("server_max_window_bits", Some(Some(bits))) if bits > 8 => {
                    chosen = Self { bits, asked: true };
                }
                _ => return None,
            }
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
        }
        Some(chosen)
    }
}

/// The messages that were compressed last, for the next socket that gets the same.
#[derive(Debug, Default)]
pub(in crate::api) struct CompressedMessages {
    recent: Mutex<VecDeque<Kept>>,
}

/// One of them: the message, the bits of the window, and what came of it.
type Kept = (Arc<str>, u8, Option<Bytes>);

impl CompressedMessages {
    /// A message compressed, or none where it goes better as it is.
    pub(super) fn get(&self, text: &Arc<str>, deflate: Deflate) -> Option<Bytes> {
        if !(SHORTEST..=LONGEST).contains(&text.len()) {
            return None;
        }
        if text.len() > LONGEST_KEPT {
            return compress(text.as_bytes(), deflate.bits).map(Bytes::from);
        }
        let lock = || self.recent.lock();
        let same = |kept: &&Kept| Arc::ptr_eq(&kept.0, text) && kept.1 == deflate.bits;
        // The lock is not held meanwhile: two sockets may do it both, and neither waits.
        if let Some((_, _, bytes)) = lock().iter().rev().find(same) {
            return bytes.clone();
        }
        let bytes = compress(text.as_bytes(), deflate.bits).map(Bytes::from);
        let mut recent = lock();
        if recent.len() >= KEPT {
            recent.pop_front();
        }
        recent.push_back((Arc::clone(text), deflate.bits, bytes.clone()));
        bytes
    }
}

thread_local! {
    /// One for each size of window that was asked for: at most 1.2 MB in all for each thread of the
    /// runtime.
    static PRESSES: RefCell<Vec<(u8, Compress)>> = const { RefCell::new(Vec::new()) };
    /// 50 KB for each thread.
    static INFLATER: RefCell<Option<Decompress>> = const { RefCell::new(None) };
}

/// None where it fails, or makes nothing smaller.
fn compress(plain: &[u8], bits: u8) -> Option<Vec<u8>> {
    PRESSES.with_borrow_mut(|presses| {
        if !presses.iter().any(|(of, _)| *of == bits) {
            presses.push((bits, Compress::new_with_window_bits(Compression::fast(), false, bits)));
        }
        let (_, press) = presses.iter_mut().find(|(of, _)| *of == bits)?;
        press.reset();
        let mut packed = Vec::with_capacity(plain.len() / 2 + 64);
        loop {
            let rest = plain.get(usize::try_from(press.total_in()).ok()?..)?;
            press.compress_vec(rest, &mut packed, FlushCompress::Sync).ok()?;
            let all_read = press.total_in() == plain.len() as u64;
            // Room that is left says that the flush is complete.
            if all_read && packed.len() < packed.capacity() {
                break;
            }
            if packed.len() >= plain.len() {
                return None;
            }
            packed.reserve(plain.len() / 2 + 64);
        }
        if !packed.ends_with(&TAIL) {
            return None;
        }
        packed.truncate(packed.len() - TAIL.len());
        (packed.len() < plain.len()).then_some(packed)
    })
}

/// Why a message cannot be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unpack {
    /// It has more bytes than are wanted.
    TooLarge,
    /// It is not what it says.
    Damaged,
}

/// Unpacks a client's message. Never holds more than `limit` bytes of it, however far it would go.
pub(super) fn decompress(packed: &[u8], limit: usize) -> Result<Vec<u8>, Unpack> {
    INFLATER.with_borrow_mut(|inflater| {
        let inflater = inflater.get_or_insert_with(|| Decompress::new(false));
        inflater.reset(false);
        let mut plain = Vec::with_capacity(limit.min(packed.len().saturating_mul(3) + 64) + 1);
        for input in [packed, &TAIL] {
            let start = inflater.total_in();
            loop {
                let read = usize::try_from(inflater.total_in() - start).unwrap_or(usize::MAX);
                let rest = input.get(read..).unwrap_or_default();
                let before = (inflater.total_in(), plain.len());
                let status = inflater.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
                if plain.len() > limit {
                    return Err(Unpack::TooLarge);
                }
                match status.map_err(|_| Unpack::Damaged)? {
                    // A client may say that its last block is the last.
                    Status::StreamEnd => return Ok(plain),
                    Status::Ok | Status::BufError if plain.len() == plain.capacity() => {
                        // One byte beyond the limit tells that there is more.
                        let room = plain.len().max(64).min(limit + 1 - plain.len());
                        plain.reserve_exact(room);
                    }
                    Status::Ok | Status::BufError => {
                        let over = usize::try_from(inflater.total_in() - start) == Ok(input.len());
                        if over {
                            break;
                        }
                        if before == (inflater.total_in(), plain.len()) {
                            return Err(Unpack::Damaged);
                        }
                    }
                }
            }
        }
        Ok(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chosen(offers: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(header::SEC_WEBSOCKET_EXTENSIONS, offer.parse().unwrap());
        }
        Deflate::choose(&headers).map(Deflate::answer)
    }

    #[test]
    fn the_first_offer_that_can_be_kept_is_taken() {
        let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let narrow = format!("{plain}; server_max_window_bits=12");
        // What browsers offer, and what Python's websockets does.
        assert_eq!(chosen(&["permessage-deflate; client_max_window_bits"]).as_deref(), Some(plain));
        let python = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12";
        assert_eq!(chosen(&[python]), Some(narrow.clone()));
        assert_eq!(
            chosen(&["permessage-deflate; server_max_window_bits=\"12\""]),
            Some(narrow.clone())
        );
        assert_eq!(chosen(&["x-webkit-deflate-frame, permessage-deflate"]).as_deref(), Some(plain));
        assert_eq!(
            chosen(&["permessage-deflate; server_max_window_bits=8", "permessage-deflate"])
                .as_deref(),
            Some(plain)
        );
        assert_eq!(chosen(&[]), None);
        for refused in [
            "gzip",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; level=9",
            "permessage-deflate;",
        ] {
            assert_eq!(chosen(&[refused]), None, "{refused}");
        }
    }

    #[test]
    fn a_message_that_goes_to_many_is_compressed_once() {
        let (squeezed, deflate) =
            (CompressedMessages::default(), Deflate { bits: 15, asked: false });
        let text: Arc<str> = "all the same ".repeat(100).into();
        let first = squeezed.get(&text, deflate).unwrap();
        let second = squeezed.get(&text, deflate).unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert_eq!(decompress(&first, text.len()).unwrap(), text.as_bytes());
        let narrow = squeezed.get(&text, Deflate { bits: 9, asked: true }).unwrap();
        assert_ne!(first.as_ptr(), narrow.as_ptr());
        for _ in 0..2 * KEPT {
            squeezed.get(&"and others ".repeat(100).into(), deflate).unwrap();
        }
        assert_eq!(squeezed.recent.lock().len(), KEPT);
        assert_eq!(squeezed.get(&"short".into(), deflate), None);
    }

    #[test]
    fn a_message_that_unpacks_to_more_than_the_limit_is_refused_without_unpacking_it() {
        let packed = compress(&vec![0; 8 << 20], 15).unwrap();
        assert_eq!(decompress(&packed, 128 << 10), Err(Unpack::TooLarge));
        let packed = compress(&[0; 1000], 15).unwrap();
        assert_eq!(decompress(&packed, 1000).unwrap().len(), 1000);
        assert_eq!(decompress(&packed, 999), Err(Unpack::TooLarge));
    }

    #[test]
    fn the_examples_of_rfc_7692_are_read() {
        for packed in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(decompress(packed, 5).unwrap(), b"Hello", "{packed:?}");
        }
        assert_eq!(decompress(&[0xff; 20], 100), Err(Unpack::Damaged));
    }

    proptest! {
        #[test]
        fn whatever_is_compressed_comes_back(words in prop::collection::vec("[a-f]{1,9}|[ \
            -~]{1,40}", 1..400), bits in 9u8..=15) {
            let plain = words.concat().into_bytes();
            if let Some(packed) = compress(&plain, bits) {
                prop_assert!(packed.len() < plain.len());
                prop_assert_eq!(decompress(&packed, plain.len()), Ok(plain.clone()));
            }
            // With as much behind it that says nothing, it can always be made smaller.
            let padded = [plain.as_slice(), &vec![b' '; plain.len() + 64]].concat();
            let packed = compress(&padded, bits);
            prop_assert!(packed.as_ref().is_some_and(|packed| packed.len() < padded.len()));
            prop_assert_eq!(decompress(&packed.unwrap(), padded.len()), Ok(padded));
        }

        #[test]
        fn no_bytes_make_the_unpacking_panic_or_go_beyond_the_limit(packed in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(plain) = decompress(&packed, 1000) {
                prop_assert!(plain.len() <= 1000);
            }
        }
    }
}
