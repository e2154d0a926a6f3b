//! How a player turns the pictures of a file, by its display matrix.

use ocelli_protocol::worker::Orientation;

/// The orientation that a display matrix asks for (ISO/IEC 14496-12, 6.2.2): a point (x, y) goes to
/// (a x + c y, b x + d y), y counted downwards, with a, b, c, d at the places 0, 1, 3, 4. An angle
/// between two quarter turns counts as the nearer one; a matrix of zeros is none.
pub(crate) fn of_matrix(matrix: &[i32; 9]) -> Orientation {
    let [a, b, _, c, d, ..] = matrix.map(i64::from);
    if a.abs() + d.abs() >= b.abs() + c.abs() {
        return match (a < 0, d < 0) {
            (false, false) => Orientation::Upright,
            (true, false) => Orientation::MirrorAcross,
            (true, true) => Orientation::HalfTurn,
            (false, true) => Orientation::MirrorDown,
        };
    }
    match (b < 0, c < 0) {
        (false, false) => Orientation::Transpose,
        (false, true) => Orientation::TurnRight,
        (true, true) => Orientation::Transverse,
        (true, false) => Orientation::TurnLeft,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: i32 = 1 << 16;

    fn of([a, b, c, d]: [i32; 4]) -> Orientation {
        of_matrix(&[a, b, 0, c, d, 0, 0, 0, 1 << 30])
    }

    #[test]
    fn each_of_the_eight_is_told_by_where_it_takes_right_and_down() {
        for (matrix, expected) in [
            ([ONE, 0, 0, ONE], Orientation::Upright),
            ([-ONE, 0, 0, ONE], Orientation::MirrorAcross),
            ([-ONE, 0, 0, -ONE], Orientation::HalfTurn),
            ([ONE, 0, 0, -ONE], Orientation::MirrorDown),
            ([0, ONE, ONE, 0], Orientation::Transpose),
            // Right becomes down: what phones write that are held upright.
            ([0, ONE, -ONE, 0], Orientation::TurnRight),
            ([0, -ONE, -ONE, 0], Orientation::Transverse),
            ([0, -ONE, ONE, 0], Orientation::TurnLeft),
        ] {
            assert_eq!(of(matrix), expected, "{matrix:?}");
        }
    }

    #[test]
    fn odd_angles_count_as_the_nearest_and_nonsense_as_none() {
        assert_eq!(of([ONE, ONE / 8, -ONE / 8, ONE]), Orientation::Upright);
        assert_eq!(of([ONE / 8, ONE, -ONE, ONE / 8]), Orientation::TurnRight);
        assert_eq!(of_matrix(&[0; 9]), Orientation::Upright);
        assert_eq!(of_matrix(&[i32::MIN; 9]), Orientation::HalfTurn);
    }
}
