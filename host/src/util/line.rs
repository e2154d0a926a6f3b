//! Words of others: cameras, libraries, workers. They go into faults, reasons, events and the log,
//! so they are bounded and cleaned where those are made.

use ocelli_protocol::limit::MAX_CAUSE;

/// Longest line in characters: a source's name, and two causes of three lines of a log each. Events
/// that hold it go to every subscriber and stay in the journal.
pub(crate) const MAX_LINE: usize = 600;

/// Longest text of more lines in characters.
pub(crate) const MAX_TEXT: usize = MAX_CAUSE;

/// What stands in the place of what was cut.
const CUT: char = '\u{2026}';

/// A text as one line of at most [`MAX_LINE`] characters.
pub(crate) fn line(text: &str) -> String {
    cut(text.trim(), MAX_LINE, |_| false).trim_end().to_owned()
}

/// A text of at most [`MAX_TEXT`] characters, with its line breaks.
pub(crate) fn text(text: &str) -> String {
    cut(text, MAX_TEXT, |character| matches!(character, '\n' | '\t'))
}

/// The beginning of a text. A control character that may not stay becomes a blank: one that moves a
/// terminal's cursor or turns the direction of writing would show another text than there is.
fn cut(text: &str, longest: usize, stays: impl Fn(char) -> bool) -> String {
    let clean = |character: char| {
        let control = character.is_control() || is_direction(character);
        if control && !stays(character) { ' ' } else { character }
    };
    match text.char_indices().nth(longest) {
        None => text.chars().map(clean).collect(),
        Some(_) => text.chars().take(longest - 1).map(clean).chain([CUT]).collect(),
    }
}

/// Unicode's marks for the direction of writing, and its separators of lines.
fn is_direction(character: char) -> bool {
    matches!(
        character,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character_and_says_so() {
        let long = line(&"é".repeat(4 << 20));
        assert_eq!(long.chars().count(), MAX_LINE);
        assert!(long.ends_with("é…"), "{long}");
        assert_eq!(line(&"é".repeat(MAX_LINE)), "é".repeat(MAX_LINE));
        assert_eq!(text(&"é".repeat(MAX_TEXT + 1)).chars().count(), MAX_TEXT);
    }

    #[test]
    fn control_characters_are_blanks_and_a_backtrace_keeps_its_lines() {
        assert_eq!(line(" a\r\nb\u{1b}[31m\u{202e}c\0\n"), "a  b [31m c");
        assert_eq!(text("at 1\n\tat 2\u{1b}[2J"), "at 1\n\tat 2 [2J");
    }

    proptest! {
        #[test]
        fn every_text_becomes_a_line_and_stays_it(any_text in any::<String>()) {
            let once = line(&any_text);
            prop_assert!(once.chars().count() <= MAX_LINE && !once.contains(char::is_control));
            prop_assert_eq!(text(&once), once);
        }
    }
}
