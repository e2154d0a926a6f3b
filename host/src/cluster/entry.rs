//! A camera's entry as it lies in the site: its table, encrypted by the site's key where there is
//! one.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::edit::ConfigChange;

/// Bytes of a site's key.
const KEY_BYTES: usize = 32;

/// The site's key. Without `Debug`: it is a secret.
#[derive(Clone)]
pub(crate) struct SiteKey(LessSafeKey);

/// An entry as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredEntry {
    /// The table.
    Plain(Map<String, Value>),
    /// Nonce, and the table encrypted with AES-256-GCM, which knows the camera's name; base64.
    Sealed(String),
}

/// Why an entry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// It was written by a version to come, or by something else.
    #[error("its entry in the site is none that this version reads: {0}")]
    Unknown(serde_json::Error),
    /// It is encrypted, and this host has no key.
    #[error("its entry is encrypted, and [cluster] secret_file is not set")]
    NoKey,
    /// It was encrypted by another key, or for another camera.
    #[error("its entry is encrypted by another key than that of [cluster] secret_file")]
    OtherKey,
    /// The system gives no random numbers.
    #[error("no random numbers: it cannot be encrypted")]
    Random,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SiteKeyError {
    #[error("{path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("{0}: expected 64 hexadecimal digits, as `openssl rand -hex 32` prints them")]
    NoKey(String),
}

impl SiteKey {
    /// Reads a file of 64 hexadecimal digits.
    pub(super) fn read(path: &Path) -> Result<Self, SiteKeyError> {
        let shown = path.display().to_string();
        let text = crate::util::folder::open_regular(path).and_then(std::io::read_to_string);
        let text =
            text.map_err(|source| SiteKeyError::Unreadable { path: shown.clone(), source })?;
        Self::parse(text.trim()).ok_or(SiteKeyError::NoKey(shown))
    }

    fn parse(digits: &str) -> Option<Self> {
        let digit =
            |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
        let bytes = bytes.filter(|bytes| bytes.len() == KEY_BYTES)?;
        UnboundKey::new(&AES_256_GCM, &bytes).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    fn seal(&self, camera: &str, text: String) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = text.into_bytes();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(unique, Aad::from(camera), &mut sealed).ok()?;
        Some(BASE64_STANDARD.encode([&nonce, &*sealed].concat()))
    }

    fn open(&self, camera: &str, text: &str) -> Option<Vec<u8>> {
        let mut bytes = BASE64_STANDARD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let opened = self.0.open_in_place(nonce, Aad::from(camera), sealed).ok()?;
        Some(opened.to_vec())
    }
}

/// A table as it is stored in the site.
pub(super) fn stored(
    camera: &str,
    table: Map<String, Value>,
    key: Option<&SiteKey>,
) -> Result<Value, EntryError> {
    let entry = match key {
        None => StoredEntry::Plain(table),
        Some(key) => {
            let text = Value::Object(table).to_string();
            StoredEntry::Sealed(key.seal(camera, text).ok_or(EntryError::Random)?)
        }
    };
    serde_json::to_value(entry).map_err(EntryError::Unknown)
}

/// The table that was stored.
pub(super) fn table(
    camera: &str,
    stored: &Value,
    key: Option<&SiteKey>,
) -> Result<Map<String, Value>, EntryError> {
    match StoredEntry::deserialize(stored).map_err(EntryError::Unknown)? {
        StoredEntry::Plain(table) => Ok(table),
        StoredEntry::Sealed(text) => {
            let key = key.ok_or(EntryError::NoKey)?;
            let opened = key.open(camera, &text).ok_or(EntryError::OtherKey)?;
            serde_json::from_slice(&opened).map_err(EntryError::Unknown)
        }
    }
}

/// The camera's lines of a config.
pub(super) fn toml(camera: &str, table: Map<String, Value>) -> String {
    ConfigChange::PutCamera { id: camera.to_owned(), table }.toml().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(digit: &str) -> SiteKey {
        SiteKey::parse(&digit.repeat(64)).unwrap()
    }

    fn wanted() -> Map<String, Value> {
        let table = serde_json::json!({"source": "rtsp://ann:hush@h/1", "pipeline": "eye"});
        table.as_object().unwrap().clone()
    }

    #[test]
    fn an_entry_is_read_by_who_has_the_key_alone() {
        let sealed = stored("cam", wanted(), Some(&key("a"))).unwrap();
        assert!(!sealed.to_string().contains("hush"), "{sealed}");
        assert_eq!(table("cam", &sealed, Some(&key("a"))).unwrap(), wanted());
        let again = stored("cam", wanted(), Some(&key("a"))).unwrap();
        assert_ne!(sealed, again, "each has a nonce of its own");
        for (camera, key, said) in [
            ("cam", None, "secret_file is not set"),
            ("cam", Some(key("b")), "another key"),
            ("other", Some(key("a")), "another key"),
        ] {
            let error = table(camera, &sealed, key.as_ref()).unwrap_err().to_string();
            assert!(error.contains(said), "{camera}: {error}");
        }
        for damaged in ["", "AAAA", "no base64"] {
            let stored = serde_json::json!({"sealed": damaged});
            table("cam", &stored, Some(&key("a"))).unwrap_err();
        }
    }

    #[test]
    fn without_a_key_it_lies_there_as_it_is() {
        let plain = stored("cam", wanted(), None).unwrap();
        assert_eq!(table("cam", &plain, Some(&key("a"))).unwrap(), wanted());
        let error = table("cam", &serde_json::json!({"v9": 1}), None).unwrap_err().to_string();
        assert!(error.contains("none that this version reads"), "{error}");
        let text = toml("cam 1", wanted());
        let config = crate::config::ConfigFile::from_text(Path::new("c.toml"), &text, &[]).unwrap();
        assert_eq!(config.config.cameras[0].id, "cam 1");
    }

    #[test]
    fn a_key_has_64_hexadecimal_digits() {
        for text in
            ["", "a", "g".repeat(64).as_str(), "a".repeat(63).as_str(), "ä".repeat(32).as_str()]
        {
            assert!(SiteKey::parse(text).is_none(), "{text}");
        }
    }
}
