//! How a camera was held: the orientation that EXIF tells, and the planes of a picture turned
//! upright.

use exif::{In, Reader, Tag};

/// What has to be done to a picture as it lies in the file, so that it stands upright: EXIF's
/// values 1 to 8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Orientation {
    #[default]
    Upright,
    MirrorAcross,
    HalfTurn,
    MirrorDown,
    Transpose,
    TurnRight,
    Transverse,
    TurnLeft,
}

impl Orientation {
    /// What EXIF data, a TIFF structure, say. Upright where they are missing, damaged or say
    /// nothing.
    pub(super) fn of_exif(exif: Option<&[u8]>) -> Self {
        let read = exif.and_then(|exif| Reader::new().read_raw(exif.to_vec()).ok());
        let value = read
            .as_ref()
            .and_then(|exif| exif.get_field(Tag::Orientation, In::PRIMARY)?.value.get_uint(0));
        match value {
            Some(2) => Self::MirrorAcross,
            Some(3) => Self::HalfTurn,
            Some(4) => Self::MirrorDown,
            Some(5) => Self::Transpose,
            Some(6) => Self::TurnRight,
            Some(7) => Self::Transverse,
            Some(8) => Self::TurnLeft,
            _ => Self::Upright,
        }
    }

    /// Whether rows become columns.
    fn turns(self) -> bool {
        matches!(self, Self::Transpose | Self::TurnRight | Self::Transverse | Self::TurnLeft)
    }

    /// Width and height upright.
    pub(super) fn size(self, (width, height): (usize, usize)) -> (usize, usize) {
        if self.turns() { (height, width) } else { (width, height) }
    }

    /// Where in a plane upright the pixels of a plane of `width` x `height`, both at least 1, come
    /// to lie.
    fn path(self, (width, height): (usize, usize)) -> Path {
        let (right, bottom) = (width.saturating_sub(1), height.saturating_sub(1));
        let across = if self.turns() { height } else { width };
        let down = isize::try_from(across).unwrap_or(isize::MAX);
        let (start, column, row) = match self {
            Self::Upright => (0, 1, down),
            Self::MirrorAcross => (right, -1, down),
            Self::HalfTurn => (bottom * across + right, -1, -down),
            Self::MirrorDown => (bottom * across, 1, -down),
            Self::Transpose => (0, down, 1),
            Self::TurnRight => (bottom, down, -1),
            Self::Transverse => (right * across + bottom, -down, -1),
            Self::TurnLeft => (right * across, -down, 1),
        };
        Path { start, column, row }
    }

    /// Splits pixels of `N` bytes, row by row from the upper left, into planes that stand upright;
    /// `samples` makes a pixel's samples.
    pub(super) fn planes<const N: usize, const P: usize>(
        self,
        pixels: &[u8],
        size: (usize, usize),
        samples: impl Fn([u8; N]) -> [u8; P],
    ) -> Vec<Vec<u8>> {
        let (width, height) = size;
        let mut planes: [Vec<u8>; P] = std::array::from_fn(|_| vec![0; width * height]);
        let path = self.path(size);
        let mut row_start = path.start;
        for row in pixels.as_chunks::<N>().0.chunks_exact(width.max(1)) {
            let mut at = row_start;
            for pixel in row {
                for (plane, sample) in planes.iter_mut().zip(samples(*pixel)) {
                    if let Some(place) = plane.get_mut(at) {
                        *place = sample;
                    }
                }
                at = at.wrapping_add_signed(path.column);
            }
            row_start = row_start.wrapping_add_signed(path.row);
        }
        planes.into()
    }
}

/// The way through a plane: where the first pixel goes, and how far on the next of its row and of
/// its column.
struct Path {
    start: usize,
    column: isize,
    row: isize,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of three pixels: `abc` over `def`.
    fn turned(orientation: Orientation) -> ((usize, usize), String) {
        let size = (3, 2);
        let [plane] =
            orientation.planes(b"abcdef", size, |[pixel]: [u8; 1]| [pixel]).try_into().unwrap();
        (orientation.size(size), String::from_utf8(plane).unwrap())
    }

    #[test]
    fn each_orientation_stands_upright() {
        for (orientation, size, upright) in [
            (Orientation::Upright, (3, 2), "abcdef"),
            (Orientation::MirrorAcross, (3, 2), "cbafed"),
            (Orientation::HalfTurn, (3, 2), "fedcba"),
            (Orientation::MirrorDown, (3, 2), "defabc"),
            (Orientation::Transpose, (2, 3), "adbecf"),
            (Orientation::TurnRight, (2, 3), "daebfc"),
            (Orientation::Transverse, (2, 3), "fcebda"),
            (Orientation::TurnLeft, (2, 3), "cfbead"),
        ] {
            assert_eq!(turned(orientation), (size, upright.to_owned()), "{orientation:?}");
        }
    }

    #[test]
    fn exif_that_says_nothing_turns_nothing() {
        assert_eq!(Orientation::of_exif(None), Orientation::Upright);
        assert_eq!(Orientation::of_exif(Some(b"")), Orientation::Upright);
        assert_eq!(Orientation::of_exif(Some(b"II*\0garbage")), Orientation::Upright);
    }
}
