//! The clock by which events age: it runs evenly, whatever happens to the system's.
//!
//! While the system runs, age is what the kernel counts from its boot on (`CLOCK_BOOTTIME`, sleep
//! included), which nothing can set. So a clock that is set ahead makes no event older, and one that
//! is set back none younger. Over a restart of the host the same count goes on. Over a boot nothing
//! but the system's clock knows how long the machine was off; that is believed once the clock has
//! held for [`BELIEVED_AFTER`], and until then counts as nothing.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// A step of the system's clock that is a jump: more than a time server corrects at once on a
/// machine that works.
const JUMP_MS: i64 = 60_000;

/// How long a clock that has jumped must hold to be no news any more.
const HELD_AFTER: Duration = Duration::from_secs(600);

/// How long the clock must hold after a boot before the time that the machine was off counts: a
/// person has a night and a morning to put right a clock that no time server does.
const BELIEVED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Hours off that are told while they are not believed: fewer are a machine that was switched off
/// for the night.
const TOLD_HOURS: i64 = 24;

const MS_PER_HOUR: i64 = 3_600_000;

/// Both clocks of the system at one moment, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ClockReading {
    /// Since 1970, by whoever set the clock.
    pub(super) wall: i64,
    /// Since the system was booted.
    pub(super) boot: i64,
}

impl ClockReading {
    pub(super) fn now() -> Self {
        let boot = clock_gettime(ClockId::Boottime);
        Self {
            wall: unix_ms(SystemTime::now()),
            boot: boot.tv_sec.saturating_mul(1000).saturating_add(boot.tv_nsec / 1_000_000),
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What a file keeps of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClockRecord {
    /// The time by which events age, in milliseconds.
    pub(super) age: i64,
    /// The system's clocks at that moment.
    pub(super) at: ClockReading,
    /// The kernel's name for the time since the boot.
    pub(super) boot_id: String,
}

/// What is to be told of the system's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockJump {
    /// By how many seconds it is ahead of what was expected; negative: behind.
    pub seconds: i64,
    /// What that is, for a person.
    pub message: String,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct AgeClock {
    boot_id: String,
    /// Added to the time since the boot it is the age.
    offset: i64,
    /// What the wall clock should say, less the time since the boot.
    expected: i64,
    jump: Option<Jump>,
    /// Since when the wall clock has not jumped, by the time since the boot.
    steady_since: i64,
    /// Time off that is not believed yet.
    absence: Option<Absence>,
}

/// The wall clock is not where it was expected.
#[derive(Debug, Clone, Copy)]
struct Jump {
    /// The wall clock now, less the time since the boot.
    to: i64,
}

/// A boot lies between the last record and now.
#[derive(Debug, Clone, Copy)]
struct Absence {
    /// What the wall clock said last.
    left: i64,
    /// When it was looked at again, by the time since the boot.
    back: i64,
}

impl AgeClock {
    /// Goes on from what a file keeps; without, age begins with the wall clock.
    pub(super) fn resume(record: Option<ClockRecord>, boot_id: String, now: ClockReading) -> Self {
        let (mut offset, mut absence) = (now.wall.saturating_sub(now.boot), None);
        if let Some(record) = record {
            if record.boot_id == boot_id && record.at.boot <= now.boot {
                offset = record.age.saturating_sub(record.at.boot);
            } else {
                offset = record.age.saturating_sub(now.boot);
                absence = Some(Absence { left: record.at.wall, back: now.boot });
            }
        }
        let expected = now.wall.saturating_sub(now.boot);
        Self { boot_id, offset, expected, jump: None, steady_since: now.boot, absence }
    }

    /// The time by which events age now. To be called every second or so: a jump is noticed here.
    pub(super) fn look(&mut self, now: ClockReading) -> i64 {
        let at = now.wall.saturating_sub(now.boot);
        let held = Duration::from_millis(
            u64::try_from(now.boot.saturating_sub(self.steady_since)).unwrap_or(0),
        );
        let is_jump = |from: i64| at.abs_diff(from) > JUMP_MS.unsigned_abs();
        if !is_jump(self.expected) {
            // What a time server corrects little by little is followed.
            self.expected = at;
            if self.jump.take().is_some() {
                self.steady_since = now.boot;
            }
        } else if self.jump.is_none_or(|jump| is_jump(jump.to)) {
            self.jump = Some(Jump { to: at });
            self.steady_since = now.boot;
        } else if held >= HELD_AFTER {
            self.expected = at;
            self.jump = None;
        }
        if let Some(absence) = self.absence
            && self.jump.is_none()
            && held >= BELIEVED_AFTER
        {
            self.offset = self.offset.saturating_add(self.away(absence).max(0));
            self.absence = None;
        }
        now.boot.saturating_add(self.offset)
    }

    /// What a file is to keep.
    pub(super) fn record(&self, at: ClockReading) -> ClockRecord {
        ClockRecord { age: at.boot.saturating_add(self.offset), at, boot_id: self.boot_id.clone() }
    }

    /// What is to be told now.
    pub(super) fn told(&self) -> Option<ClockJump> {
        if let Some(jump) = self.jump {
            let seconds = jump.to.saturating_sub(self.expected) / 1000;
            let (span, way) = (span(seconds), if seconds < 0 { "back" } else { "ahead" });
            let message = format!(
                "the system's clock was set {way} by {span}: times of events follow it, their age \
                    does not"
            );
            return Some(ClockJump { seconds, message });
        }
        let away = self.away(self.absence?);
        if away < TOLD_HOURS * MS_PER_HOUR {
            return None;
        }
        let seconds = away / 1000;
        let message = format!(
            "by the system's clock the machine was off for {}: events age by that when the clock \
                has held for {} h",
            span(seconds),
            BELIEVED_AFTER.as_secs() / 3600
        );
        Some(ClockJump { seconds, message })
    }

    /// How long the machine was off, in milliseconds, by what the wall clock should say.
    fn away(&self, absence: Absence) -> i64 {
        self.expected.saturating_add(absence.back).saturating_sub(absence.left)
    }
}

/// A length of time for a person.
fn span(seconds: i64) -> String {
    match seconds.unsigned_abs() {
        seconds @ 0..600 => format!("{seconds} s"),
        seconds @ 600..36_000 => format!("{} min", seconds / 60),
        seconds @ 36_000..360_000 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// The kernel's name for the time since the boot; the same name for all times where it gives none.
pub(super) fn boot_id() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 24 * MS_PER_HOUR;
    const NOW: i64 = 1_800_000_000_000;

    /// A machine whose clock can be set.
    struct Machine {
        at: ClockReading,
        clock: AgeClock,
    }

    impl Machine {
        fn new() -> Self {
            let at = ClockReading { wall: NOW, boot: 5_000 };
            Self { at, clock: AgeClock::resume(None, "a".into(), at) }
        }

        /// So many seconds pass; the age after them.
        fn after(&mut self, seconds: i64) -> i64 {
            for _ in 0..seconds {
                self.at.wall += 1000;
                self.at.boot += 1000;
                self.clock.look(self.at);
            }
            self.clock.look(self.at)
        }

        fn told(&self) -> Option<i64> {
            self.clock.told().map(|jump| jump.seconds / 3600 / 24)
        }
    }

    #[test]
    fn a_clock_that_is_40_days_ahead_for_nine_seconds_makes_nothing_older() {
        let mut machine = Machine::new();
        assert_eq!(machine.after(10), NOW + 10_000);
        machine.at.wall += 40 * DAY;
        assert_eq!(machine.after(9), NOW + 19_000);
        assert_eq!(machine.told(), Some(40));
        assert!(machine.clock.told().unwrap().message.contains("ahead by 40 days"));
        machine.at.wall -= 40 * DAY;
        assert_eq!(machine.after(1), NOW + 20_000);
        assert_eq!(machine.told(), None, "it is as it was");
    }

    #[test]
    fn a_clock_that_is_set_for_good_is_told_until_it_has_held_and_ages_nothing() {
        for days in [40, -40] {
            let mut machine = Machine::new();
            machine.at.wall += days * DAY;
            assert_eq!(machine.after(599), NOW + 599_000);
            assert_eq!(machine.told(), Some(days));
            assert_eq!(machine.after(2), NOW + 601_000);
            assert_eq!(machine.told(), None);
            assert_eq!(machine.after(90_000), NOW + 90_601_000);
        }
    }

    #[test]
    fn what_a_time_server_corrects_little_by_little_is_no_jump() {
        let mut machine = Machine::new();
        for _ in 0..1000 {
            machine.at.wall += 500;
            machine.after(1);
            assert_eq!(machine.told(), None);
        }
    }

    #[test]
    fn a_restart_goes_on_whatever_the_clock_says_and_a_boot_waits_to_believe_it() {
        let mut machine = Machine::new();
        machine.after(100);
        let record = machine.clock.record(machine.at);
        // The process alone is started again, ten seconds later, with a clock that lies.
        let mut later = machine.at;
        later.boot += 10_000;
        later.wall += 40 * DAY;
        let mut clock = AgeClock::resume(Some(record.clone()), "a".into(), later);
        assert_eq!(clock.look(later), NOW + 110_000);
        assert_eq!(clock.told(), None);
        // The machine was off for three days.
        let booted = ClockReading { wall: machine.at.wall + 3 * DAY, boot: 1000 };
        let clock = AgeClock::resume(Some(record.clone()), "b".into(), booted);
        let mut machine = Machine { at: booted, clock };
        assert_eq!(machine.after(3600), NOW + 100_000 + 3_600_000);
        assert_eq!(machine.told(), Some(3));
        let day = 24 * 3600;
        machine.after(day - 3600 - 1);
        assert_eq!(machine.after(2), NOW + 100_000 + (day + 1) * 1000 + 3 * DAY);
        assert_eq!(machine.told(), None);
        // One without a battery comes up in 1970 and is put right: no time off is made up of that.
        let booted = ClockReading { wall: 20_000, boot: 20_000 };
        let clock = AgeClock::resume(Some(record), "c".into(), booted);
        let mut machine = Machine { at: booted, clock };
        assert_eq!(machine.after(10), NOW + 110_000);
        machine.at.wall = NOW + 100_000 + DAY / 2;
        machine.after(601 + day);
        assert_eq!(machine.after(0), NOW + 100_000 + (10 + 601 + day) * 1000 + DAY / 2 - 10_000);
    }

    proptest! {
        #[test]
        fn while_the_machine_runs_age_is_the_time_that_passed_whatever_is_set(
            steps in proptest::collection::vec((1..5000i64, -100_000_000_000..100_000_000_000i64), 1..60),
        ) {
            let mut machine = Machine::new();
            for (passes, set) in steps {
                machine.at.boot += passes;
                machine.at.wall += passes + set;
                let age = machine.clock.look(machine.at);
                prop_assert_eq!(age, NOW + machine.at.boot - 5_000);
            }
        }
    }
}
