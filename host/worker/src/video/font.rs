//! Letters to draw into pictures for people: 5 by 7 dots each.

/// Width of a letter in dots.
pub(super) const WIDTH: u32 = 5;

/// Height of a letter in dots.
pub(super) const HEIGHT: u32 = 7;

/// The first letter that has a shape: ASCII's space.
const FIRST: u8 = b' ';

/// The rows of each letter from the space to the underscore, the upper one first; bit 4 is the dot
/// on the left. Small letters are drawn as capitals.
#[rustfmt::skip]
const LETTERS: [[u8; HEIGHT as usize]; 64] = [
    [0, 0, 0, 0, 0, 0, 0], [4, 4, 4, 4, 4, 0, 4], [10, 10, 10, 0, 0, 0, 0],
    [10, 10, 31, 10, 31, 10, 10], [4, 15, 20, 14, 5, 30, 4], [24, 25, 2, 4, 8, 19, 3],
    [12, 18, 20, 8, 21, 18, 13], [4, 4, 8, 0, 0, 0, 0], [2, 4, 8, 8, 8, 4, 2],
    [8, 4, 2, 2, 2, 4, 8], [0, 4, 21, 14, 21, 4, 0], [0, 4, 4, 31, 4, 4, 0],
    [0, 0, 0, 0, 12, 4, 8], [0, 0, 0, 31, 0, 0, 0], [0, 0, 0, 0, 0, 12, 12],
    [0, 1, 2, 4, 8, 16, 0], [14, 17, 19, 21, 25, 17, 14], [4, 12, 4, 4, 4, 4, 14],
    [14, 17, 1, 2, 4, 8, 31], [31, 2, 4, 2, 1, 17, 14], [2, 6, 10, 18, 31, 2, 2],
    [31, 16, 30, 1, 1, 17, 14], [6, 8, 16, 30, 17, 17, 14], [31, 1, 2, 4, 8, 8, 8],
    [14, 17, 17, 14, 17, 17, 14], [14, 17, 17, 15, 1, 2, 12], [0, 12, 12, 0, 12, 12, 0],
    [0, 12, 12, 0, 12, 4, 8], [2, 4, 8, 16, 8, 4, 2], [0, 0, 31, 0, 31, 0, 0],
    [8, 4, 2, 1, 2, 4, 8], [14, 17, 1, 2, 4, 0, 4], [14, 17, 23, 21, 23, 16, 15],
    [14, 17, 17, 31, 17, 17, 17], [30, 17, 17, 30, 17, 17, 30], [14, 17, 16, 16, 16, 17, 14],
    [28, 18, 17, 17, 17, 18, 28], [31, 16, 16, 30, 16, 16, 31], [31, 16, 16, 30, 16, 16, 16],
    [14, 17, 16, 23, 17, 17, 15], [17, 17, 17, 31, 17, 17, 17], [14, 4, 4, 4, 4, 4, 14],
    [7, 2, 2, 2, 2, 18, 12], [17, 18, 20, 24, 20, 18, 17], [16, 16, 16, 16, 16, 16, 31],
    [17, 27, 21, 21, 17, 17, 17], [17, 17, 25, 21, 19, 17, 17], [14, 17, 17, 17, 17, 17, 14],
    [30, 17, 17, 30, 16, 16, 16], [14, 17, 17, 17, 21, 18, 13], [30, 17, 17, 30, 20, 18, 17],
    [15, 16, 16, 14, 1, 1, 30], [31, 4, 4, 4, 4, 4, 4], [17, 17, 17, 17, 17, 17, 14],
    [17, 17, 17, 17, 17, 10, 4], [17, 17, 17, 21, 21, 27, 17], [17, 17, 10, 4, 10, 17, 17],
    [17, 17, 10, 4, 4, 4, 4], [31, 1, 2, 4, 8, 16, 31], [14, 8, 8, 8, 8, 8, 14],
    [0, 16, 8, 4, 2, 1, 0], [14, 2, 2, 2, 2, 2, 14], [4, 10, 17, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 31],
];

/// The rows of a letter. One that has no shape here is a question mark.
pub(super) fn rows(letter: char) -> [u8; HEIGHT as usize] {
    let at = |letter: char| {
        let code = u8::try_from(letter.to_ascii_uppercase()).ok()?;
        LETTERS.get(usize::from(code.checked_sub(FIRST)?)).copied()
    };
    at(letter).or_else(|| at('?')).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_is_another_and_unknown_ones_are_question_marks() {
        let shapes: std::collections::HashSet<_> = LETTERS.iter().collect();
        assert_eq!(shapes.len(), LETTERS.len());
        assert!(LETTERS.iter().flatten().all(|row| row >> WIDTH == 0));
        assert_eq!(rows('a'), rows('A'));
        for unknown in ['ä', '~', '\n', '\u{1f600}'] {
            assert_eq!(rows(unknown), rows('?'), "{unknown:?}");
        }
        assert_eq!(rows('_')[6], 0b11111);
    }
}
