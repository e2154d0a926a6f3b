//! From samples that change to rectangles around those that belong together.

/// Most rectangles: more of them are one whole to who looks at them.
pub(super) const MAX_REGIONS: usize = 32;

/// Of a sample and its eight neighbours, so many change where something does: two by two samples
/// stand, a drop of rain, a line one sample wide and noise fall.
const COMPANY: u8 = 4;

/// Least samples of a region.
const LEAST: u32 = 4;

/// A rectangle of samples; right and bottom lie behind the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patch {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) right: usize,
    pub(super) bottom: usize,
    samples: u32,
}

impl Patch {
    fn area(&self) -> usize {
        (self.right - self.left) * (self.bottom - self.top)
    }

    fn join(&mut self, other: &Self) {
        self.left = self.left.min(other.left);
        self.top = self.top.min(other.top);
        self.right = self.right.max(other.right);
        self.bottom = self.bottom.max(other.bottom);
        self.samples += other.samples;
    }
}

/// Buffers that are kept from picture to picture.
#[derive(Default)]
pub(super) struct Regions {
    across: Vec<u8>,
    kept: Vec<u8>,
    wide: Vec<u8>,
    groups: Groups,
    found: Vec<Patch>,
}

impl Regions {
    /// The regions of a picture's marks, 0 or 1 each, in rows of `width`; and the marks that stand.
    pub(super) fn find(&mut self, marks: &[u8], width: usize) -> (&[Patch], &[u8]) {
        let width = width.max(1);
        let Self { across, kept, wide, groups, found } = self;
        around(marks, width, across, kept, COMPANY);
        // What lies within two samples of each other is one.
        around(kept, width, across, wide, 1);
        found.clear();
        groups.find(wide, kept, width, found);
        found.retain(|region| region.samples >= LEAST);
        found.sort_by_key(|region| std::cmp::Reverse(region.area()));
        found.truncate(MAX_REGIONS);
        (found, kept)
    }
}

/// Marks where at least `least` of a sample and its eight neighbours are marked.
fn around(marks: &[u8], width: usize, across: &mut Vec<u8>, out: &mut Vec<u8>, least: u8) {
    across.clear();
    for row in marks.chunks_exact(width) {
        let start = across.len();
        across.extend_from_slice(row);
        let sums = across.get_mut(start..).unwrap_or_default();
        let right = row.get(1..).unwrap_or_default();
        sums.iter_mut().zip(right).for_each(|(sum, mark)| *sum += mark);
        let behind = sums.get_mut(1..).unwrap_or_default();
        behind.iter_mut().zip(row).for_each(|(sum, mark)| *sum += mark);
    }
    out.clear();
    out.extend_from_slice(across);
    let below = across.get(width..).unwrap_or_default();
    out.iter_mut().zip(below).for_each(|(sum, mark)| *sum += mark);
    let behind = out.get_mut(width..).unwrap_or_default();
    behind.iter_mut().zip(across.iter()).for_each(|(sum, mark)| *sum += mark);
    out.iter_mut().for_each(|sum| *sum = u8::from(*sum >= least));
}

/// A run of marks in a row, and the number of its group.
#[derive(Debug, Clone, Copy)]
struct Run {
    left: usize,
    right: usize,
    group: usize,
}

/// Marks that touch, by runs: a run belongs to the groups of those above that it touches.
#[derive(Default)]
struct Groups {
    above: Vec<Run>,
    here: Vec<Run>,
    /// For each group the one that it has become a part of; its own number for one that stands.
    part_of: Vec<usize>,
    regions: Vec<Option<Patch>>,
}

impl Groups {
    /// Appends a region for each group of the marks of `wide`: what it has of `kept`.
    fn find(&mut self, wide: &[u8], kept: &[u8], width: usize, found: &mut Vec<Patch>) {
        self.above.clear();
        self.part_of.clear();
        self.regions.clear();
        let rows = wide.chunks_exact(width).zip(kept.chunks_exact(width));
        for (y, (wide, kept)) in rows.enumerate() {
            self.here.clear();
            let mut left = 0;
            for chunk in wide.chunk_by(|one, other| one == other) {
                let right = left + chunk.len();
                if chunk.first() == Some(&1) {
                    self.run(left, right, y, kept.get(left..right).unwrap_or_default());
                }
                left = right;
            }
            std::mem::swap(&mut self.above, &mut self.here);
        }
        found.extend(self.regions.iter().flatten());
    }

    fn run(&mut self, left: usize, right: usize, y: usize, kept: &[u8]) {
        let touching = |run: &&Run| run.left <= right && left <= run.right;
        let mut group = None;
        for at in 0..self.above.len() {
            let Some(run) = self.above.get(at).filter(touching) else { continue };
            let other = self.standing(run.group);
            group = Some(match group {
                Some(group) => self.join(group, other),
                None => other,
            });
        }
        let group = group.unwrap_or_else(|| {
            self.part_of.push(self.part_of.len());
            self.regions.push(None);
            self.part_of.len() - 1
        });
        self.here.push(Run { left, right, group });
        let first = kept.iter().position(|&mark| mark == 1);
        let last = kept.iter().rposition(|&mark| mark == 1);
        if let (Some(first), Some(last)) = (first, last) {
            let samples = kept.iter().map(|&mark| u32::from(mark)).sum();
            let (left, right) = (left + first, left + last + 1);
            self.add(group, Patch { left, right, top: y, bottom: y + 1, samples });
        }
    }

    fn add(&mut self, group: usize, more: Patch) {
        match self.regions.get_mut(group) {
            Some(Some(region)) => region.join(&more),
            Some(none) => *none = Some(more),
            None => {}
        }
    }

    /// The group that this one is a part of.
    fn standing(&self, mut group: usize) -> usize {
        // A group becomes a part of an earlier one alone: this ends.
        while let Some(&whole) = self.part_of.get(group).filter(|&&whole| whole < group) {
            group = whole;
        }
        group
    }

    fn join(&mut self, one: usize, other: usize) -> usize {
        let (first, second) = (one.min(other), one.max(other));
        if first != second {
            if let Some(whole) = self.part_of.get_mut(second) {
                *whole = first;
            }
            if let Some(region) = self.regions.get_mut(second).and_then(Option::take) {
                self.add(first, region);
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn marks(rows: &[&str]) -> Vec<u8> {
        rows.concat().bytes().map(|mark| u8::from(mark == b'#')).collect()
    }

    #[test]
    fn what_touches_is_one_region_and_specks_are_none() {
        let marks = marks(&[
            "#.............",
            "..##......#...",
            "..##......#...",
            "..##..........",
            "..........##..",
            "#.........##..",
        ]);
        let mut regions = Regions::default();
        let (found, kept) = regions.find(&marks, 14);
        let edges: Vec<_> = found.iter().map(|r| (r.left, r.top, r.right, r.bottom)).collect();
        assert_eq!(edges, [(2, 1, 4, 4), (10, 4, 12, 6)]);
        assert_eq!(kept.iter().filter(|&&mark| mark == 1).count(), 10);
    }

    #[test]
    fn an_arch_is_one_region() {
        let marks = marks(&[
            "##......##....",
            "##......##....",
            "##......##....",
            "##......##..##",
            "##########..##",
            "##########..##",
        ]);
        let mut regions = Regions::default();
        let (found, _) = regions.find(&marks, 14);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].left, found[0].right), (0, 14), "what lies close belongs to it");
    }

    proptest! {
        /// Whatever changes: rectangles lie in the picture, the largest first, and hold every
        /// sample that stands if there are few enough.
        #[test]
        fn regions_lie_in_the_picture(
            width in 1usize..40,
            marks in prop::collection::vec(0u8..2, 0..900),
        ) {
            let height = marks.len() / width;
            let marks = &marks[..width * height];
            let mut regions = Regions::default();
            let (found, kept) = regions.find(marks, width);
            prop_assert!(found.len() <= MAX_REGIONS && kept.len() == marks.len());
            prop_assert!(found.is_sorted_by_key(|r| std::cmp::Reverse(r.area())));
            for region in found {
                prop_assert!(region.left < region.right && region.right <= width);
                prop_assert!(region.top < region.bottom && region.bottom <= height);
            }
        }
    }
}
