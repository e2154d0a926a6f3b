//! How much of what can be seen in a picture changes. Where a camera turns, a road stays a road:
//! few samples change, but nearly everything that has an edge does.

/// Samples of a cell's side.
const SIDE: usize = 8;

/// Levels from a cell's darkest to its brightest sample, of 255, from which on it shows something.
const CONTRAST: f32 = 40.0;

/// Samples of a cell that change where the cell does.
const CHANGED: u32 = 4;

/// Cells that show something, at least, of those of a picture that is judged by them.
const LEAST: f32 = 0.1;

/// What one row of cells shows. Kept from picture to picture.
#[derive(Default)]
pub(super) struct Cells {
    row: Vec<Cell>,
}

#[derive(Clone, Copy)]
struct Cell {
    darkest: f32,
    brightest: f32,
    changed: u32,
}

impl Cell {
    const EMPTY: Self = Self { darkest: 255.0, brightest: 0.0, changed: 0 };
}

impl Cells {
    /// The share that changes of the cells that show something, of a picture in rows of `width`:
    /// its marks, 0 or 1 each, and its levels. 0 where few cells show anything.
    pub(super) fn share(&mut self, marks: &[u8], levels: &[f32], width: usize) -> f32 {
        let width = width.max(1);
        let (mut all, mut showing, mut changed) = (0.0, 0.0, 0.0);
        let rows = width * SIDE;
        for (marks, levels) in marks.chunks(rows).zip(levels.chunks(rows)) {
            self.row.clear();
            self.row.resize(width.div_ceil(SIDE), Cell::EMPTY);
            for (marks, levels) in marks.chunks(width).zip(levels.chunks(width)) {
                let cells = marks.chunks(SIDE).zip(levels.chunks(SIDE));
                for (cell, (marks, levels)) in self.row.iter_mut().zip(cells) {
                    cell.changed += marks.iter().map(|&mark| u32::from(mark)).sum::<u32>();
                    cell.darkest = levels.iter().copied().fold(cell.darkest, f32::min);
                    cell.brightest = levels.iter().copied().fold(cell.brightest, f32::max);
                }
            }
            all += self.row.len() as f32;
            for cell in self.row.iter().filter(|cell| cell.brightest - cell.darkest >= CONTRAST) {
                showing += 1.0;
                changed += if cell.changed >= CHANGED { 1.0 } else { 0.0 };
            }
        }
        if showing > LEAST * all { changed / showing } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 3 * SIDE;

    /// Three cells beside each other, of which the first shows nothing.
    fn levels() -> Vec<f32> {
        let level = |at: usize| {
            let x = at % WIDTH;
            if x >= SIDE && x % SIDE < 3 { 200.0 } else { 100.0 }
        };
        (0..WIDTH * SIDE).map(level).collect()
    }

    fn marks(marked: impl Fn(usize, usize) -> bool) -> Vec<u8> {
        (0..WIDTH * SIDE).map(|at| u8::from(marked(at % WIDTH, at / WIDTH))).collect()
    }

    #[test]
    fn what_shows_nothing_does_not_count() {
        let share = |marked: fn(usize, usize) -> bool| {
            Cells::default().share(&marks(marked), &levels(), WIDTH)
        };
        assert_eq!(share(|_, _| false), 0.0);
        assert_eq!(share(|x, _| x < SIDE), 0.0, "the wall");
        assert_eq!(share(|x, y| x == SIDE && y < 4), 0.5);
        assert_eq!(share(|x, y| x == SIDE && y < 3), 0.0, "too little of a cell");
        assert_eq!(share(|x, y| x % SIDE == 3 && y < 4), 1.0);
    }

    #[test]
    fn a_picture_that_shows_nothing_is_not_judged_so() {
        let (marks, levels) = (vec![1; WIDTH * SIDE], vec![100.0; WIDTH * SIDE]);
        assert_eq!(Cells::default().share(&marks, &levels, WIDTH), 0.0);
        assert_eq!(Cells::default().share(&[], &[], 0), 0.0);
    }
}
