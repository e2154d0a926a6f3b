//! The access units since the last key picture: what a late joiner needs to decode the next one.

use std::sync::Arc;

use super::AccessUnit;

/// Maximum bytes cached: 10 s of 25 Mbit/s, the rate of a 4K camera.
const MAX_BYTES: usize = 32 << 20;
/// Maximum units cached: 40 s at 25 frames a second, longer than any usual GOP, and as much as a
/// joiner can decode within a few seconds.
const MAX_UNITS: usize = 1000;

/// Caches the current GOP. One above the bounds is dropped: new subscribers wait for the next one.
#[derive(Debug, Default)]
pub(super) struct GopCache {
    units: Vec<Arc<AccessUnit>>,
    bytes: usize,
}

impl GopCache {
    /// Takes the next unit in decoding order.
    pub(super) fn push(&mut self, unit: &Arc<AccessUnit>) {
        if unit.header.key {
            self.clear();
        } else if self.units.is_empty() {
            return;
        }
        self.bytes = self.bytes.saturating_add(unit.data.len());
        if self.units.len() >= MAX_UNITS || self.bytes > MAX_BYTES {
            self.clear();
            return;
        }
        self.units.push(Arc::clone(unit));
    }

    /// Empties the cache: the next unit does not continue it.
    pub(super) fn clear(&mut self) {
        self.units.clear();
        self.bytes = 0;
    }

    /// The units from the last key picture on. Empty if there is none within the bounds.
    pub(super) fn units(&self) -> &[Arc<AccessUnit>] {
        &self.units
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::unit;
    use super::*;

    fn numbers(cache: &GopCache) -> Vec<u64> {
        cache.units().iter().map(|unit| unit.header.number).collect()
    }

    #[test]
    fn it_holds_the_units_since_the_last_key_picture() {
        let mut cache = GopCache::default();
        cache.push(&unit(0, false, 1));
        assert!(cache.units().is_empty(), "nothing before the first key picture");
        for (number, key) in [(1, true), (2, false), (3, false)] {
            cache.push(&unit(number, key, 1));
        }
        assert_eq!(numbers(&cache), [1, 2, 3]);
        cache.push(&unit(4, true, 1));
        assert_eq!(numbers(&cache), [4]);
    }

    #[test]
    fn a_gop_that_outgrows_the_bounds_is_given_up_until_the_next_key_picture() {
        let mut cache = GopCache::default();
        cache.push(&unit(0, true, MAX_BYTES - 1));
        cache.push(&unit(1, false, 1));
        assert_eq!(numbers(&cache), [0, 1]);
        cache.push(&unit(2, false, 1));
        assert!(cache.units().is_empty());
        cache.push(&unit(3, false, 1));
        assert!(cache.units().is_empty());
        cache.push(&unit(4, true, 1));
        for number in 5..4 + MAX_UNITS as u64 {
            cache.push(&unit(number, false, 0));
        }
        assert_eq!(cache.units().len(), MAX_UNITS);
        cache.push(&unit(0, false, 0));
        assert!(cache.units().is_empty());
    }
}
