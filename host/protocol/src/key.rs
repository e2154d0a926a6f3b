//! Public keys of those whose components are taken: read by the host when it loads its config, and
//! by the process that verifies signatures. Nothing is computed with them here.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::digest::Digest;

/// The kind of key, as OpenSSH writes it.
const OPENSSH: &str = "ssh-ed25519";

/// The prefix of an Ed25519 key in a `SubjectPublicKeyInfo` (RFC 8410, section 4).
const DER: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const PEM_BEGINS: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_ENDS: &str = "-----END PUBLIC KEY-----";

/// An Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedKey([u8; 32]);

/// Why a text is no such key. The text itself is not repeated: it may be a secret key, put there by
/// mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("this is a secret key: name the public one (for OpenSSH the file that ends in .pub)")]
    Secret,
    /// A key of another kind.
    #[error("not an Ed25519 key, and no others can sign components")]
    OtherKind,
    /// Neither OpenSSH's nor PEM's form.
    #[error(
        "neither an OpenSSH public key (`ssh-ed25519 AAAA...`) nor a PEM one (`-----BEGIN PUBLIC \
            KEY-----`)"
    )]
    Unknown,
    /// The form is right and its content is not.
    #[error("a public key that is incomplete or damaged")]
    Damaged,
}

impl TrustedKey {
    /// Reads a key: one line of OpenSSH's, with or without a comment, or PEM.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.contains("PRIVATE KEY") {
            return Err(KeyError::Secret);
        }
        if let Some(rest) = text.strip_prefix(PEM_BEGINS) {
            return from_pem(rest);
        }
        let mut words = text.split_ascii_whitespace();
        match words.next() {
            Some(OPENSSH) => from_openssh(words.next().unwrap_or_default()),
            Some(kind)
                if kind.starts_with("ssh-")
                    || kind.starts_with("ecdsa-")
                    || kind.starts_with("sk-") =>
            {
                Err(KeyError::OtherKind)
            }
            _ => Err(KeyError::Unknown),
        }
    }

    /// A key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the public key.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As `ssh-keygen -l` prints it: `SHA256:` and the digest of OpenSSH's form, in base 64.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Digest::of(openssh_blob(&self.0)).bytes()))
    }
}

/// OpenSSH's binary form: the kind and the key, each behind its length.
fn openssh_blob(key: &[u8]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(51);
    for part in [OPENSSH.as_bytes(), key] {
        // Both are a few dozen bytes long.
        blob.extend_from_slice(&u32::try_from(part.len()).unwrap_or_default().to_be_bytes());
        blob.extend_from_slice(part);
    }
    blob
}

fn from_openssh(encoded: &str) -> Result<TrustedKey, KeyError> {
    let blob = STANDARD.decode(encoded).map_err(|_| KeyError::Damaged)?;
    let key = blob.len().checked_sub(32).and_then(|at| blob.get(at..)).ok_or(KeyError::Damaged)?;
    if blob != openssh_blob(key) {
        return Err(KeyError::Damaged);
    }
    key.try_into().map(TrustedKey).map_err(|_| KeyError::Damaged)
}

fn from_pem(rest: &str) -> Result<TrustedKey, KeyError> {
    let encoded = rest.trim_end().strip_suffix(PEM_ENDS).ok_or(KeyError::Damaged)?;
    let encoded: String = encoded.split_ascii_whitespace().collect();
    let der = STANDARD.decode(encoded).map_err(|_| KeyError::Damaged)?;
    let key = der.strip_prefix(&DER).ok_or(KeyError::OtherKind)?;
    key.try_into().map(TrustedKey).map_err(|_| KeyError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of one key pair, by `ssh-keygen -t ed25519`, `ssh-keygen -l` and `openssl pkey -pubout`.
    const SSH: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF/ei/qZx1CuUE3W33ypc08sGibWH2lFiMZEkv03xCOY author";
    const FINGERPRINT: &str = "SHA256:t5fBJSUF9DxmQ+KueokXY8Qo2r9vIYWYyqBfZBeKTAw";
    const PEM: &str = "-----BEGIN PUBLIC \
        KEY-----\nMCowBQYDK2VwAyEAX96L+pnHUK5QTdbffKlzTywaJtYfaUWIxkSS/TfEI5g=\n-----END PUBLIC \
        KEY-----\n";

    #[test]
    fn openssh_and_pem_give_the_same_key_and_the_fingerprint_that_ssh_keygen_tells() {
        let key = TrustedKey::parse(SSH).unwrap();
        assert_eq!(TrustedKey::parse(PEM).unwrap(), key);
        assert_eq!(TrustedKey::parse(&format!("  {}\n", SSH.replace("author", ""))).unwrap(), key);
        assert_eq!(key.fingerprint(), FINGERPRINT);
    }

    #[test]
    fn what_is_no_public_ed25519_key_is_refused_by_its_reason() {
        let cut = SSH.get(..40).unwrap();
        for (text, error) in [
            ("", KeyError::Unknown),
            ("AAAAC3Nz", KeyError::Unknown),
            ("ssh-ed25519", KeyError::Damaged),
            (cut, KeyError::Damaged),
            ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAA author", KeyError::OtherKind),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----",
                KeyError::Secret,
            ),
            ("-----BEGIN PUBLIC KEY-----\nMCowBQ", KeyError::Damaged),
            (
                "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0D\n-----END PUBLIC \
                    KEY-----",
                KeyError::OtherKind,
            ),
        ] {
            assert_eq!(TrustedKey::parse(text), Err(error), "{text}");
        }
    }
}
