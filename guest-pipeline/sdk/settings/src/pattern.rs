//! Patterns: regular expressions as JSON Schema writes them, in linear time.

use regex_lite::{Regex, RegexBuilder};

use crate::SchemaError;
use crate::value::shorten;

/// The sizes that a compiled pattern may have, in bytes; it counts by the smallest that it fits.
const SIZES: [usize; 3] = [4 << 10, 16 << 10, 64 << 10];

/// Bytes of a compiled pattern that looking at one character counts one step for: some four states,
/// which may all be live.
const STEP: usize = 128;

/// Longest part of a pattern that an error repeats, in characters.
const MAX_SHOWN: usize = 60;

#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    text: String,
    /// Steps that a character takes.
    cost: usize,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Result<Self, SchemaError> {
        let translated = translate(text);
        let build = |size| RegexBuilder::new(&translated).size_limit(size).build();
        let mut last = None;
        for size in SIZES {
            match build(size) {
                Ok(regex) => return Ok(Self { regex, text: text.into(), cost: size / STEP }),
                Err(error) => last = Some(error),
            }
        }
        let why = last.map(|error| error.to_string()).unwrap_or_default();
        Err(SchemaError(format!("the pattern {} is not usable: {why}", shorten(text, MAX_SHOWN))))
    }

    pub(crate) fn fits(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// Steps that looking at `text` takes.
    pub(crate) fn cost(&self, text: &str) -> usize {
        self.cost.saturating_mul(text.len() + 1)
    }

    /// The pattern as an error repeats it.
    pub(crate) fn shown(&self) -> String {
        shorten(&self.text, MAX_SHOWN)
    }
}

/// Writes the escapes of ECMA-262 that have another form here: `\uXXXX`, and `\cX` for a control
/// character. `\d` and `\w` mean the same in both.
fn translate(text: &str) -> String {
    let mut translated = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        translated.push_str(before);
        let mut characters = after.chars();
        let kind = characters.next();
        let hex = after.get(1..5).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let letter = characters.next().filter(char::is_ascii_alphabetic);
        let length = match (kind, hex, letter) {
            (Some('u'), Some(hex), _) => {
                translated.push_str(&format!("\\x{{{hex}}}"));
                5
            }
            (Some('c'), _, Some(letter)) => {
                translated.push_str(&format!("\\x{{{:x}}}", u32::from(letter) % 32));
                2
            }
            _ => {
                translated.push('\\');
                translated.extend(kind);
                kind.map_or(0, char::len_utf8)
            }
        };
        rest = after.get(length..).unwrap_or_default();
    }
    translated + rest
}
