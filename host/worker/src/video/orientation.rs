//! Pictures that are not coded as they are shown: what EXIF says of a still, and the way between
//! samples and places as shown and as coded.

use exif::{In, Reader, Tag};
use ocelli_protocol::worker::Orientation;

/// What EXIF data, a TIFF structure, say. Upright where they are missing, damaged or say nothing.
pub(super) fn of_exif(exif: Option<&[u8]>) -> Orientation {
    let read = exif.and_then(|exif| Reader::new().read_raw(exif.to_vec()).ok());
    let value = read
        .as_ref()
        .and_then(|exif| exif.get_field(Tag::Orientation, In::PRIMARY)?.value.get_uint(0));
    match value {
        Some(2) => Orientation::MirrorAcross,
        Some(3) => Orientation::HalfTurn,
        Some(4) => Orientation::MirrorDown,
        Some(5) => Orientation::Transpose,
        Some(6) => Orientation::TurnRight,
        Some(7) => Orientation::Transverse,
        Some(8) => Orientation::TurnLeft,
        _ => Orientation::Upright,
    }
}

/// Whether coded columns lie the other way round once rows and columns are exchanged as shown, and
/// whether coded rows do.
fn reversed(orientation: Orientation) -> (bool, bool) {
    match orientation {
        Orientation::Upright | Orientation::Transpose => (false, false),
        Orientation::MirrorAcross | Orientation::TurnLeft => (true, false),
        Orientation::MirrorDown | Orientation::TurnRight => (false, true),
        Orientation::HalfTurn | Orientation::Transverse => (true, true),
    }
}

/// The place, in a picture coded in `width` x `height`, of a place in the picture as shown; both
/// count pixels from the upper left corner.
pub(super) fn coded_place(
    orientation: Orientation,
    (x, y): (f64, f64),
    (width, height): (f64, f64),
) -> (f64, f64) {
    if orientation == Orientation::Upright {
        return (x, y);
    }
    let (x, y) = orientation.shown((x, y));
    let (across, down) = reversed(orientation);
    (if across { width - x } else { x }, if down { height - y } else { y })
}

/// Writes to `shown`, row by row as shown, the samples that `coded` has row by row as coded;
/// `width` is that of a coded row, at least 1.
pub(super) fn turn<P: Copy + Default>(
    orientation: Orientation,
    coded: &[P],
    width: usize,
    shown: &mut Vec<P>,
) {
    let height = coded.len() / width.max(1);
    let (across, down) = reversed(orientation);
    let first = if across { width.saturating_sub(1) } else { 0 }
        + if down { height.saturating_sub(1) * width } else { 0 };
    let row = isize::try_from(width).unwrap_or(isize::MAX);
    let steps = (if across { -1 } else { 1 }, if down { -row } else { row });
    let (to_right, to_below) = orientation.shown(steps);
    let (columns, rows) = orientation.shown((width, height));
    shown.clear();
    shown.reserve_exact(coded.len());
    let mut row_start = first;
    for _ in 0..rows {
        let mut at = row_start;
        shown.extend((0..columns).map(|_| {
            let sample = coded.get(at).copied().unwrap_or_default();
            at = at.wrapping_add_signed(to_right);
            sample
        }));
        row_start = row_start.wrapping_add_signed(to_below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of three pixels, `abc` over `def`, as each orientation shows them.
    const SHOWN: [(Orientation, (usize, usize), &str); 8] = [
        (Orientation::Upright, (3, 2), "abcdef"),
        (Orientation::MirrorAcross, (3, 2), "cbafed"),
        (Orientation::HalfTurn, (3, 2), "fedcba"),
        (Orientation::MirrorDown, (3, 2), "defabc"),
        (Orientation::Transpose, (2, 3), "adbecf"),
        (Orientation::TurnRight, (2, 3), "daebfc"),
        (Orientation::Transverse, (2, 3), "fcebda"),
        (Orientation::TurnLeft, (2, 3), "cfbead"),
    ];

    #[test]
    fn each_orientation_stands_upright() {
        for (orientation, size, expected) in SHOWN {
            assert_eq!(orientation.shown((3, 2)), size, "{orientation:?}");
            let mut shown = Vec::new();
            turn(orientation, b"abcdef", 3, &mut shown);
            assert_eq!(String::from_utf8(shown).unwrap(), expected, "{orientation:?}");
        }
    }

    #[test]
    fn a_place_lies_in_the_pixel_that_is_shown_there() {
        for (orientation, (width, _), shown) in SHOWN {
            for (at, pixel) in shown.bytes().enumerate() {
                let place = ((at % width) as f64 + 0.25, (at / width) as f64 + 0.75);
                let (x, y) = coded_place(orientation, place, (3.0, 2.0));
                let coded = b"abcdef"[y as usize * 3 + x as usize];
                assert_eq!(coded, pixel, "{orientation:?} {place:?}");
            }
        }
    }

    #[test]
    fn exif_that_says_nothing_turns_nothing() {
        assert_eq!(of_exif(None), Orientation::Upright);
        assert_eq!(of_exif(Some(b"")), Orientation::Upright);
        assert_eq!(of_exif(Some(b"II*\0garbage")), Orientation::Upright);
    }
}
