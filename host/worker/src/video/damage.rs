//! Tells a source whose pictures are nothing but damage from one that loses a few.

/// How long not one picture is sound before the source counts as damaged, in nanoseconds. Longer
/// than the usual GOP of one to four seconds, so that one lost key picture and those that refer to
/// it are borne; short enough that a person who has just set up the camera still looks.
const DAMAGED_AFTER_NS: u64 = 5_000_000_000;

/// Pictures in that time: one or two alone prove nothing where a camera sends one in six seconds.
const MIN_PICTURES: u32 = 3;

/// The damage since the last sound picture. Times are those at which the host had the units, on the
/// monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// When the first of it came, in nanoseconds, and what the decoder said of that.
    first: Option<(u64, String)>,
    pictures: u32,
    latest_ns: u64,
    has_sound_pictures: bool,
}

impl Damage {
    /// A picture is as the camera sent it.
    pub(super) fn on_sound(&mut self) {
        *self = Self { has_sound_pictures: true, ..Self::default() };
    }

    /// A picture is damaged or missing; `words` are not asked for again before the next sound one,
    /// so that they do not change with each picture.
    pub(super) fn on_damaged(&mut self, received_ns: u64, words: impl FnOnce() -> String) {
        self.first.get_or_insert_with(|| (received_ns, words()));
        self.pictures = self.pictures.saturating_add(1);
        self.latest_ns = self.latest_ns.max(received_ns);
    }

    /// What the decoder says, where not one picture has been sound for so long.
    pub(super) fn words(&self) -> Option<&str> {
        let (first_ns, words) = self.first.as_ref()?;
        let lasts = self.latest_ns.saturating_sub(*first_ns) >= DAMAGED_AFTER_NS;
        (lasts && self.pictures >= MIN_PICTURES).then_some(words)
    }

    /// What the decoder says, where a source has ended without a single sound picture.
    pub(super) fn words_at_end(&self) -> Option<&str> {
        let (_, words) = self.first.as_ref().filter(|_| !self.has_sound_pictures)?;
        Some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Damaged pictures at these times, in seconds.
    fn damaged(damage: &mut Damage, seconds: impl IntoIterator<Item = u64>) {
        for second in seconds {
            damage.on_damaged(second * SECOND, || format!("picture of second {second}"));
        }
    }

    #[test]
    fn nothing_but_damage_for_five_seconds_is_told_in_the_first_words() {
        let mut damage = Damage::default();
        damaged(&mut damage, 10..15);
        assert_eq!(damage.words(), None);
        damaged(&mut damage, [15, 16]);
        assert_eq!(damage.words(), Some("picture of second 10"));
    }

    #[test]
    fn one_sound_picture_ends_it() {
        let mut damage = Damage::default();
        damaged(&mut damage, 0..100);
        damage.on_sound();
        assert_eq!(damage.words(), None);
        damaged(&mut damage, 100..105);
        assert_eq!(damage.words(), None, "it begins anew");
    }

    #[test]
    fn two_pictures_of_a_slow_camera_prove_nothing() {
        let mut damage = Damage::default();
        damaged(&mut damage, [0, 6]);
        assert_eq!(damage.words(), None);
        damaged(&mut damage, [12]);
        assert!(damage.words().is_some());
    }

    #[test]
    fn a_source_that_ends_without_a_sound_picture_is_told_however_short_it_was() {
        let mut damage = Damage::default();
        assert_eq!(damage.words_at_end(), None);
        damaged(&mut damage, [1]);
        assert_eq!(damage.words_at_end(), Some("picture of second 1"));
        damage.on_sound();
        damaged(&mut damage, [2]);
        assert_eq!(damage.words_at_end(), None);
    }
}
