//! Versions of components for which no compiler is run: what tells them apart is written into
//! finished files.

use serde_json::Value;

use crate::guests::guest;

/// What a version of the pipeline `changeling` begins its manifest with.
const MARK: &[u8] = b"CHANGELING-MANIFEST ";

/// Bytes of the manifest behind the mark.
const ROOM: usize = 256;

/// A version of the pipeline `changeling`. The manifest is what
/// `tests/guests/changeling/src/manifest.rs` says.
pub fn changeling(manifest: &Value) -> Vec<u8> {
    let mut component = std::fs::read(guest("changeling")).unwrap();
    let places: Vec<usize> = component
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, bytes)| *bytes == MARK)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(places.len(), 1, "the manifest stands once in the file: {places:?}");
    let text = format!("{:ROOM$}", manifest.to_string());
    assert_eq!(text.len(), ROOM, "too long: {manifest}");
    let at = places[0] + MARK.len();
    component[at..at + ROOM].copy_from_slice(text.as_bytes());
    component
}

/// The same component with another digest: a custom section that says nothing to anybody.
pub fn tagged(component: &[u8], tag: &str) -> Vec<u8> {
    const NAME: &str = "tag";
    let short = |length: usize| {
        // One byte of LEB128.
        u8::try_from(length).ok().filter(|length| *length < 0x80).expect("a short tag")
    };
    let body = [&[short(NAME.len())], NAME.as_bytes(), tag.as_bytes()].concat();
    [component, &[0, short(body.len())], &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_section_of_its_own() {
        assert_eq!(tagged(b"\0asm", "v2"), b"\0asm\0\x06\x03tagv2");
    }
}
