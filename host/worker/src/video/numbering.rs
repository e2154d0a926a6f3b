//! Frame numbers: presentation order from decoding order.
//!
//! The reader numbers access units as they come, in decoding order. Pictures leave the decoder in
//! presentation order, and each takes the smallest number that is still in the decoder: the n-th
//! picture out gets number n, whatever the reordering. For the numbers to stay the same when
//! pictures are missing (left out by the decode setting, damaged, refused), an access unit whose
//! time has passed without a picture uses up a number too. So a session that decodes key frames
//! alone, one that joined later and one that decodes everything agree on every frame that they
//! share.

use std::collections::VecDeque;

/// Access units that can wait for their picture. The standards allow 16 frames, 32 fields, in the
/// reorder buffer; twice that allows for units in between that give no picture.
const MAX_PENDING: usize = 64;

/// An access unit, as far as numbering needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedUnit<T> {
    /// Number in decoding order.
    pub number: u64,
    /// Presentation time; None where the source has no times.
    pub time: Option<i64>,
    /// Decoding can start here.
    pub key: bool,
    /// Not given to the decoder.
    pub skipped: bool,
    /// The caller's data for the picture.
    pub data: T,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Numbering<T> {
    /// Units whose picture has not come out, in decoding order.
    units: VecDeque<NumberedUnit<T>>,
    /// As many numbers, ascending, that no picture has taken.
    numbers: VecDeque<u64>,
}

impl<T> Default for Numbering<T> {
    fn default() -> Self {
        Self { units: VecDeque::new(), numbers: VecDeque::new() }
    }
}

impl<T> Numbering<T> {
    /// Takes note of an access unit, whether it goes to the decoder or not. Numbers have to rise.
    /// `passed` gets the unit that has waited too long, if any.
    pub fn push(&mut self, unit: NumberedUnit<T>, passed: &mut dyn FnMut(&NumberedUnit<T>)) {
        if self.units.len() >= MAX_PENDING {
            let units = self.units.iter().enumerate();
            let earliest = units.min_by_key(|(_, unit)| (unit.time, unit.number)).map(|(at, _)| at);
            if let Some(unit) = earliest.and_then(|at| self.units.remove(at)) {
                self.numbers.pop_front();
                passed(&unit);
            }
        }
        self.numbers.push_back(unit.number);
        self.units.push_back(unit);
    }

    /// The picture of access unit `number` has come out: its frame number, and the unit. None for a
    /// unit that is not waiting, or one that a later picture has overtaken. `passed` gets the units
    /// that give no picture any more.
    pub fn output(
        &mut self,
        number: u64,
        passed: &mut dyn FnMut(&NumberedUnit<T>),
    ) -> Option<(u64, NumberedUnit<T>)> {
        let at = self.units.iter().position(|unit| unit.number == number)?;
        let own = self.units.remove(at)?;
        let before = self.units.len();
        self.units.retain(|other| {
            let has_passed = has_passed(other, &own);
            if has_passed {
                passed(other);
            }
            !has_passed
        });
        self.numbers.drain(..(before - self.units.len()).min(self.numbers.len()));
        Some((self.numbers.pop_front()?, own))
    }

    /// What goes with a unit that waits for its picture.
    pub fn data_mut(&mut self, number: u64) -> Option<&mut T> {
        self.units.iter_mut().find(|unit| unit.number == number).map(|unit| &mut unit.data)
    }

    /// Whether all units that are presented before unit `number` have come in: one that came after
    /// it is presented after it. A unit that does not wait, or has no time, is settled.
    pub fn settled(&self, number: u64) -> bool {
        let Some(own) = self.units.iter().find(|unit| unit.number == number) else { return true };
        own.time.is_none()
            || self.units.iter().any(|other| other.number > number && other.time > own.time)
    }

    /// Forgets all units: the decoder has been emptied. `passed` gets those without a picture.
    pub fn clear(&mut self, passed: &mut dyn FnMut(&NumberedUnit<T>)) {
        self.units.drain(..).for_each(|unit| passed(&unit));
        self.numbers.clear();
    }
}

/// Whether no picture of `other` can come any more once that of `own` has.
fn has_passed<T>(other: &NumberedUnit<T>, own: &NumberedUnit<T>) -> bool {
    let earlier = match (other.time, own.time) {
        (Some(other), Some(own)) => other < own,
        // Without times, what was left out counts as presented where it was decoded.
        _ => other.skipped && other.number < own.number,
    };
    // Pictures before a key picture in decoding order are presented before it.
    earlier || (own.key && other.number < own.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A picture of a made-up source: presentation position is its index in presentation order.
    #[derive(Debug, Clone)]
    struct Coded {
        time: i64,
        key: bool,
        /// Brings a picture; otherwise it is left out, lost in the decoder or damaged.
        comes_out: bool,
    }

    /// Runs the units from `from` on through a decoder that holds back `depth` pictures: frame
    /// number by time.
    fn run(source: &[Coded], from: usize, depth: usize, times: bool) -> BTreeMap<i64, u64> {
        let mut numbering = Numbering::default();
        let mut waiting: BTreeMap<i64, u64> = BTreeMap::new();
        let mut found = BTreeMap::new();
        let mut output = |numbering: &mut Numbering<i64>, waiting: &mut BTreeMap<i64, u64>| {
            let (time, unit) = waiting.pop_first().unwrap();
            let (number, unit) = numbering.output(unit, &mut |_| ()).unwrap();
            assert_eq!(unit.data, time, "what goes with a picture goes with that picture");
            assert_eq!(found.insert(time, number), None);
        };
        for (number, coded) in source.iter().enumerate().skip(from) {
            if coded.key {
                // An IDR picture pushes out all that came before.
                while !waiting.is_empty() {
                    output(&mut numbering, &mut waiting);
                }
            }
            let unit = NumberedUnit {
                number: number as u64,
                time: times.then_some(coded.time),
                key: coded.key,
                skipped: !coded.comes_out,
                data: coded.time,
            };
            numbering.push(unit, &mut |_| ());
            if coded.comes_out {
                waiting.insert(coded.time, number as u64);
                if waiting.len() > depth {
                    output(&mut numbering, &mut waiting);
                }
            }
        }
        while !waiting.is_empty() {
            output(&mut numbering, &mut waiting);
        }
        found
    }

    /// Closed GOPs whose pictures leave a reorder buffer of `depth` in order, coded in any order
    /// that allows it.
    fn source(depth: usize) -> impl Strategy<Value = Vec<Coded>> {
        let gop = proptest::collection::vec(
            (any::<prop::sample::Index>(), prop::bool::weighted(0.6)),
            1..40,
        );
        proptest::collection::vec(gop, 1..5).prop_map(move |gops| {
            let mut coded = Vec::new();
            let mut start = 0;
            for gop in gops {
                coded.push(Coded { time: start, key: true, comes_out: true });
                // A picture may be coded once fewer than `depth` pictures that follow it in
                // presentation were coded before it: of the earliest uncoded and those after it,
                // choose while that holds.
                let mut uncoded: Vec<i64> = (start + 1..start + gop.len() as i64).collect();
                let mut ahead = 0;
                for (choice, comes_out) in gop {
                    if uncoded.is_empty() {
                        break;
                    }
                    let reach = if ahead < depth { uncoded.len().min(depth + 1) } else { 1 };
                    let at = choice.index(reach);
                    ahead = if at > 0 { ahead + 1 } else { 0 };
                    coded.push(Coded { time: uncoded.remove(at), key: false, comes_out });
                }
                start += uncoded.len() as i64 + 1000;
                // Times have gaps; what counts is their order.
            }
            coded
        })
    }

    fn ranks(source: &[Coded]) -> BTreeMap<i64, u64> {
        let mut times: Vec<i64> = source.iter().map(|coded| coded.time).collect();
        times.sort_unstable();
        times.into_iter().zip(0..).collect()
    }

    fn complete(source: &[Coded]) -> Vec<Coded> {
        source.iter().map(|coded| Coded { comes_out: true, ..*coded }).collect()
    }

    /// Pictures that come before `coded[at]` in coding and after it in presentation, over the whole
    /// source.
    fn reorder_depth(source: &[Coded]) -> usize {
        (0..source.len())
            .map(|at| source[..at].iter().filter(|earlier| earlier.time > source[at].time).count())
            .max()
            .unwrap_or(0)
    }

    proptest! {
        #[test]
        fn a_full_decode_is_numbered_in_presentation_order(source in source(4), times: bool) {
            let source = complete(&source);
            let depth = reorder_depth(&source);
            prop_assert_eq!(run(&source, 0, depth, times), ranks(&source));
        }

        #[test]
        fn frames_keep_the_number_of_the_full_decode_when_others_do_not_come_out(source in source(4)) {
            let all = ranks(&source);
            for (time, number) in run(&source, 0, reorder_depth(&source), true) {
                prop_assert_eq!(all.get(&time), Some(&number));
            }
        }

        #[test]
        fn a_join_at_any_key_unit_gives_the_same_numbers(source in source(4), times: bool) {
            let source = complete(&source);
            let depth = reorder_depth(&source);
            let all = ranks(&source);
            for key in source.iter().enumerate().filter(|(_, coded)| coded.key).map(|(at, _)| at) {
                for (time, number) in run(&source, key, depth, times) {
                    prop_assert_eq!(all.get(&time), Some(&number));
                }
            }
        }

        #[test]
        fn without_times_numbers_are_right_again_at_the_next_key_unit(source in source(4)) {
            let all = ranks(&source);
            let found = run(&source, 0, reorder_depth(&source), false);
            for key in source.iter().filter(|coded| coded.key) {
                prop_assert_eq!(found.get(&key.time), all.get(&key.time));
            }
        }

        #[test]
        fn what_waits_is_bounded_and_each_unit_is_told_of_once(
            numbers in proptest::collection::btree_set(0_u64..100_000, 0..300),
            with_picture in any::<prop::sample::Index>(),
        ) {
            let (mut numbering, mut told) = (Numbering::default(), Vec::new());
            for &number in &numbers {
                numbering.push(unit(number, number as i64), &mut |unit| told.push(unit.number));
                prop_assert!(numbering.units.len() <= MAX_PENDING);
                prop_assert_eq!(numbering.units.len(), numbering.numbers.len());
            }
            if !numbering.units.is_empty() {
                let number = numbering.units[with_picture.index(numbering.units.len())].number;
                let output = numbering.output(number, &mut |unit| told.push(unit.number));
                told.extend(output.map(|(_, unit)| unit.number));
            }
            numbering.clear(&mut |unit| told.push(unit.number));
            told.sort_unstable();
            prop_assert_eq!(told, numbers.into_iter().collect::<Vec<_>>());
        }
    }

    fn unit(number: u64, time: i64) -> NumberedUnit<()> {
        NumberedUnit { number, time: Some(time), key: false, skipped: false, data: () }
    }

    #[test]
    fn more_units_than_are_remembered_may_pass_between_two_pictures() {
        let mut numbering = Numbering::default();
        for number in 0..1000 {
            numbering.push(unit(number, number as i64), &mut |_| ());
        }
        assert_eq!(numbering.output(999, &mut |_| ()).map(|(number, _)| number), Some(999));
    }

    #[test]
    fn a_picture_is_settled_when_a_later_one_is_presented_after_it() {
        let mut numbering = Numbering::default();
        numbering.push(unit(0, 0), &mut |_| ());
        numbering.push(unit(1, 30), &mut |_| ());
        assert!(numbering.settled(0) && !numbering.settled(1));
        numbering.push(unit(2, 10), &mut |_| ());
        numbering.push(unit(3, 20), &mut |_| ());
        assert!(!numbering.settled(1), "B pictures before it may still come");
        numbering.push(unit(4, 60), &mut |_| ());
        assert!(numbering.settled(1));
        assert_eq!(numbering.output(1, &mut |_| ()).map(|(number, _)| number), Some(3));
    }

    #[test]
    fn a_picture_comes_out_once() {
        let mut numbering = Numbering::default();
        numbering.push(unit(0, 0), &mut |_| ());
        assert!(numbering.output(0, &mut |_| ()).is_some());
        assert!(numbering.output(0, &mut |_| ()).is_none());
        numbering.clear(&mut |_| ());
        assert!(numbering.output(7, &mut |_| ()).is_none());
    }
}
