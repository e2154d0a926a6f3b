//! Names of streams and subjects.
//!
//! A subject's tokens are separated by dots, and `*`, `>` and white space mean something there. A
//! camera's id, a bucket and a key are any text: [`token`] and [`text`] lead from one to the other.

use sha2::{Digest, Sha256};

/// The most streams over which a site's events are spread: more streams are more Raft groups, each
/// with its own disk writes.
pub const MAX_STREAMS: u8 = 8;

/// Stands before two hexadecimal digits, and alone for an empty text.
const ESCAPE: char = '=';

/// A text as one token of a subject: letters, digits, `-` and `_` of ASCII stay, other bytes become
/// `=XX`.
pub fn token(text: &str) -> String {
    use std::fmt::Write;
    if text.is_empty() {
        return ESCAPE.to_string();
    }
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            token.push(char::from(byte));
        } else {
            let _ = write!(token, "{ESCAPE}{byte:02X}");
        }
    }
    token
}

/// The text of a token that [`token`] made, `None` for any other.
pub fn text(written: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(written.len());
    if written != "=" {
        let mut rest = written.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if char::from(byte) == ESCAPE {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            } else {
                bytes.push(byte);
            }
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (token(&text) == written).then_some(text)
}

/// The buckets of a site's object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bucket {
    /// What stays until it is removed.
    Objects,
    /// Pictures of events: the oldest go.
    Pictures,
}

/// The names of one site.
#[derive(Debug, Clone)]
pub(super) struct Names {
    site: String,
}

impl Names {
    pub(super) fn new(site: &str) -> Self {
        Self { site: site.to_owned() }
    }

    /// The stream that holds what is kept for each camera but its events.
    pub(super) fn state_stream(&self) -> String {
        format!("OCELLI_{}_ST", self.site)
    }

    /// One of the streams of events.
    pub(super) fn event_stream(&self, stream: u8) -> String {
        format!("OCELLI_{}_EV_{stream}", self.site)
    }

    /// A bucket of the object store.
    pub(super) fn bucket(&self, bucket: Bucket) -> String {
        match bucket {
            Bucket::Objects => format!("OCELLI_{}", self.site),
            Bucket::Pictures => format!("OCELLI_{}_PICTURES", self.site),
        }
    }

    /// The subjects of a stream of events.
    pub(super) fn all_events(&self, stream: u8) -> String {
        format!("{}.ev.{stream}.*", self.site)
    }

    /// A camera's events.
    pub(super) fn events(&self, stream: u8, camera: &str) -> String {
        format!("{}.ev.{stream}.{}", self.site, token(camera))
    }

    /// The subjects of the stream of state.
    pub(super) fn all_state(&self) -> String {
        format!("{}.st.>", self.site)
    }

    /// What the subjects of all that is kept for a camera but its events begin with.
    pub(super) fn state_under(&self, camera: &str) -> String {
        format!("{}.st.{}", self.site, token(camera))
    }

    /// All that is kept for a camera but its events.
    pub(super) fn state_of(&self, camera: &str) -> String {
        format!("{}.st.{}.>", self.site, token(camera))
    }

    /// Who owns the camera.
    pub(super) fn own(&self, camera: &str) -> String {
        format!("{}.st.{}.own", self.site, token(camera))
    }

    /// The last snapshot of a camera's pipeline.
    pub(super) fn snapshot(&self, camera: &str) -> String {
        format!("{}.st.{}.snap", self.site, token(camera))
    }

    /// What a camera's session is doing.
    pub(super) fn session(&self, camera: &str) -> String {
        format!("{}.st.{}.state", self.site, token(camera))
    }

    /// The sessions of all cameras.
    pub(super) fn all_sessions(&self) -> String {
        format!("{}.st.*.state", self.site)
    }

    /// An entry of a key-value store.
    pub(super) fn entry(&self, camera: &str, bucket: &str, key: &str) -> String {
        format!("{}.st.{}.kv.{}.{}", self.site, token(camera), token(bucket), token(key))
    }

    /// A camera's live messages.
    pub(super) fn live(&self, camera: &str) -> String {
        format!("{}.live.{}", self.site, token(camera))
    }

    /// The live messages of all cameras.
    pub(super) fn all_live(&self) -> String {
        format!("{}.live.*", self.site)
    }

    /// The camera that a subject of this module speaks of.
    pub(super) fn camera(&self, subject: &str) -> Option<String> {
        let mut tokens = subject.strip_prefix(&self.site)?.strip_prefix('.')?.split('.');
        match tokens.next()? {
            "ev" => text(tokens.nth(1)?),
            "st" | "live" => text(tokens.next()?),
            _ => None,
        }
    }
}

/// Which of `streams` streams has a camera's events: the same on every host, for ever.
pub fn stream_of(camera: &str, streams: u8) -> u8 {
    let digest = Sha256::digest(camera.as_bytes());
    let number = digest.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    u8::try_from(number % u64::from(streams.max(1))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_has_no_meaning_in_a_subject() {
        assert_eq!(token("front-door_2"), "front-door_2");
        assert_eq!(token("hall.1 *>"), "hall=2E1=20=2A=3E");
        assert_eq!(token("a=b"), "a=3Db");
        assert_eq!(token("ü"), "=C3=BC");
        assert_eq!(token(""), "=");
        for none in ["=2e", "=4", "a=ZZ", "=41", "a.b", "=FF", "=="] {
            assert_eq!(text(none), None, "{none}");
        }
    }

    #[test]
    fn a_camera_is_read_from_each_subject() {
        let names = Names::new("hall");
        let camera = "floor 2.door";
        for subject in [
            names.events(3, camera),
            names.own(camera),
            names.entry(camera, "b", "k.k"),
            names.session(camera),
            names.live(camera),
        ] {
            assert_eq!(names.camera(&subject).as_deref(), Some(camera), "{subject}");
        }
        assert_eq!(names.camera("other.st.a.own"), None);
        assert_eq!(names.camera("hall"), None);
    }

    #[test]
    fn a_camera_has_the_same_stream_for_ever() {
        let streams: Vec<u8> = ["front", "yard", "7", "ü"].map(|id| stream_of(id, 8)).to_vec();
        assert_eq!(streams, [1, 1, 6, 4]);
        assert!((0..1000).all(|n| stream_of(&n.to_string(), 3) < 3));
        assert!((0..3).all(|k| (0..100).any(|n| stream_of(&n.to_string(), 3) == k)));
    }

    proptest! {
        #[test]
        fn a_text_comes_back(written in any::<String>()) {
            let token = token(&written);
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b)));
            prop_assert_eq!(text(&token), Some(written));
        }
    }
}
