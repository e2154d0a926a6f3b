//! Signatures in components, in the format of WebAssembly's tool conventions that `wasmsign2`
//! writes: a custom section `signature` before all others, with Ed25519 signatures of the SHA-256
//! of everything behind it.
//!
//! The format also has signatures of a component's first sections alone. They are not enough here:
//! a component that is cut off where a signed part ends does something else. So of the hashes that
//! a signature covers only the last counts, and it has to be that of the whole file.
//!
//! Not the crate `wasmsign2`: it accepts a component that ends where a signed part ends, and takes
//! lengths in the file for amounts of memory.

use ed25519_compact::{PublicKey, Signature};
use ocelli_protocol::component::{Problem, ProblemKind};
use ocelli_protocol::digest::Digest;
use ocelli_protocol::key::TrustedKey;
use wasmparser::BinaryReader;

use crate::problem;

/// Bytes of the magic number and the version, which no signature covers.
const HEADER: usize = 8;

/// Name of the custom section.
const SECTION: &str = "signature";

/// What stands before the hashes in the signed message: the domain; the format's version, the kind
/// of content (a module; the format knows no other and takes components for such), and SHA-256.
const MESSAGE: &[u8] = b"wasmsig\x01\x01\x01";

/// Ed25519, in the section.
const ED25519: u8 = 1;

/// Signatures in a file that are looked at. An author needs one, and each costs 50 us for each key.
const MAX_SIGNATURES: usize = 64;

/// The key that signed all of a component, as its fingerprint.
pub(crate) fn signer(bytes: &[u8], trusted: &[TrustedKey]) -> Result<String, Problem> {
    let Some((section, signed)) = section(bytes) else {
        return Err(problem(
            ProblemKind::Unsigned,
            "it is not signed, and only signed components are taken",
        ));
    };
    let digest = Digest::of(signed);
    let claims = claims(section).map_err(|error| {
        problem(ProblemKind::WrongSignature, format!("its signature cannot be read: {error}"))
    })?;
    let whole: Vec<_> =
        claims.iter().filter(|claim| claim.hashes.last() == Some(digest.bytes())).collect();
    if whole.is_empty() {
        let text = if claims.iter().any(|claim| claim.signed_by(trusted).is_some()) {
            "it was changed after a trusted key had signed it, or only a part of it is signed"
        } else {
            "its signature is not of these bytes"
        };
        return Err(problem(ProblemKind::WrongSignature, text));
    }
    let signer = whole.iter().find_map(|claim| claim.signed_by(trusted));
    signer.map(|key| key.fingerprint()).ok_or_else(|| {
        problem(ProblemKind::WrongSignature, "it is signed, but not by one of the trusted keys")
    })
}

/// The content of the signature's section, and what is behind it.
fn section(bytes: &[u8]) -> Option<(BinaryReader<'_>, &[u8])> {
    let mut reader = BinaryReader::new(bytes.get(HEADER..)?, HEADER);
    if reader.read_u8().ok()? != 0 {
        return None;
    }
    let length = reader.read_var_u32().ok()?;
    let content = reader.read_bytes(usize::try_from(length).ok()?).ok()?;
    let mut content = BinaryReader::new(content, 0);
    (content.read_string().ok()? == SECTION)
        .then_some((content, bytes.get(reader.original_position()..)?))
}

/// Signatures, and what they sign.
struct SignedHashes {
    /// One for each part, from the beginning to the part's end.
    hashes: Vec<[u8; 32]>,
    signatures: Vec<[u8; 64]>,
}

impl SignedHashes {
    /// The trusted key that signed these hashes.
    fn signed_by<'a>(&self, trusted: &'a [TrustedKey]) -> Option<&'a TrustedKey> {
        let message = [MESSAGE, self.hashes.as_flattened()].concat();
        trusted.iter().find(|key| {
            let key = PublicKey::new(*key.bytes());
            self.signatures
                .iter()
                .any(|signature| key.verify(&message, &Signature::new(*signature)).is_ok())
        })
    }
}

/// Reads the section. What is of another kind than is known here is an error, which says what.
fn claims(mut reader: BinaryReader<'_>) -> Result<Vec<SignedHashes>, String> {
    let cut_off = |_| "it ends early".to_owned();
    for what in ["version", "kind of content", "hash function"] {
        match reader.read_var_u32().map_err(cut_off)? {
            1 => {}
            other => return Err(format!("its {what} is {other}, and only 1 is known")),
        }
    }
    let (mut claims, mut left) = (Vec::new(), MAX_SIGNATURES);
    for _ in 0..reader.read_var_u32().map_err(cut_off)? {
        let claim = claim(reader.read_reader().map_err(cut_off)?).map_err(cut_off)?;
        // Each takes a place, with or without a signature.
        left = left
            .checked_sub(claim.signatures.len().max(1))
            .ok_or_else(|| format!("it holds more than {MAX_SIGNATURES} signatures"))?;
        claims.push(claim);
    }
    Ok(claims)
}

fn claim(mut reader: BinaryReader<'_>) -> wasmparser::Result<SignedHashes> {
    let mut claim = SignedHashes { hashes: Vec::new(), signatures: Vec::new() };
    for _ in 0..reader.read_var_u32()? {
        claim.hashes.extend(<[u8; 32]>::try_from(reader.read_bytes(32)?));
    }
    for _ in 0..reader.read_var_u32()? {
        let mut one = reader.read_reader()?;
        // Names the key; whose it is shows when it is tried.
        one.read_reader()?;
        let algorithm = one.read_u8()?;
        let mut signature = one.read_reader()?;
        if algorithm == ED25519 {
            let bytes = signature.read_bytes(signature.bytes_remaining())?;
            claim.signatures.extend(<[u8; 64]>::try_from(bytes));
        }
    }
    Ok(claim)
}
