//! Judges the health of a process by its in-flight table.
//!
//! Time counts by checks: a host that was suspended with its machine kills no process for old
//! entries.

use std::collections::BTreeMap;
use std::time::Duration;

use ocelli_protocol::in_flight::RunningRequest;

use super::attribution::RequestKey;

/// Time between two checks. A tenth of a second is small compared to the times below, and a check
/// costs a few microseconds.
pub(super) const INTERVAL: Duration = Duration::from_millis(100);

/// The maximum that one check counts for: a late one counts for two.
const LONGEST_LOOK: Duration = Duration::from_millis(200);

/// How long a run may go on after its time. ONNX Runtime ends a run within some milliseconds of
/// being asked, between two nodes; half a second is a large node on a busy machine.
const GRACE: Duration = Duration::from_millis(500);

/// How long a process may miss its heartbeat. A dedicated thread sends several per second, so
/// neither a long run nor a busy machine explains it.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// A process silent for so long may have been stopped: the time of its runs does not count.
const QUIET: Duration = Duration::from_millis(1000);

/// The observations of one process.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    beat: u64,
    silent: Duration,
    overdue: BTreeMap<RequestKey, Duration>,
}

/// Result of a check.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HealthFinding {
    Healthy,
    /// No heartbeat for [`SILENCE`].
    Silent,
    /// These requests are past their time by more than the grace.
    Overdue(Vec<RequestKey>),
}

impl Watchdog {
    /// Checks the table, `since` after the last check. `now_ns` is the monotonic clock.
    pub(super) fn check(
        &mut self,
        beat: u64,
        running: &[RunningRequest],
        now_ns: u64,
        since: Duration,
    ) -> HealthFinding {
        let since = since.min(LONGEST_LOOK);
        if beat == self.beat {
            self.silent += since;
        } else {
            (self.beat, self.silent) = (beat, Duration::ZERO);
        }
        if self.silent >= SILENCE {
            return HealthFinding::Silent;
        }
        if self.silent >= QUIET {
            return HealthFinding::Healthy;
        }
        let late = running.iter().filter(|running| (1..now_ns).contains(&running.deadline_ns));
        self.overdue = late
            .map(|running| {
                let key = (running.attachment, running.request);
                (key, self.overdue.get(&key).copied().unwrap_or_default() + since)
            })
            .collect();
        let over: Vec<RequestKey> =
            self.overdue.iter().filter(|(_, late)| **late > GRACE).map(|(key, _)| *key).collect();
        if over.is_empty() { HealthFinding::Healthy } else { HealthFinding::Overdue(over) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(deadline_ns: u64) -> RunningRequest {
        RunningRequest { attachment: 1, request: 2, deadline_ns }
    }

    /// Looks at a process that beats, until something is found; how many looks that took.
    fn looks(
        pulse: &mut Watchdog,
        beats: bool,
        running: &[RunningRequest],
        since: Duration,
    ) -> (u32, HealthFinding) {
        for look in 1..200_u32 {
            let beat = if beats { u64::from(look) } else { 1 };
            match pulse.check(beat, running, 1000, since) {
                HealthFinding::Healthy => {}
                found => return (look, found),
            }
        }
        (200, HealthFinding::Healthy)
    }

    #[test]
    fn a_process_that_beats_and_keeps_its_time_is_well() {
        let all = [run(0), run(2000)];
        assert_eq!(looks(&mut Watchdog::default(), true, &all, INTERVAL).1, HealthFinding::Healthy);
    }

    #[test]
    fn a_process_without_a_sign_of_life_is_found_after_three_seconds() {
        let (looks, found) = looks(&mut Watchdog::default(), false, &[], INTERVAL);
        assert_eq!((looks, found), (31, HealthFinding::Silent));
    }

    #[test]
    fn a_run_past_its_time_is_found_after_the_grace() {
        let (looks, found) =
            looks(&mut Watchdog::default(), true, &[run(999), run(2000)], INTERVAL);
        assert_eq!((looks, found), (6, HealthFinding::Overdue(vec![(1, 2)])));
    }

    #[test]
    fn a_run_that_ends_within_the_grace_is_forgotten() {
        let mut pulse = Watchdog::default();
        for beat in 1..40 {
            let running = if beat % 5 == 0 { vec![] } else { vec![run(999)] };
            assert_eq!(pulse.check(beat, &running, 1000, INTERVAL), HealthFinding::Healthy);
        }
    }

    #[test]
    fn a_stopped_process_is_found_as_silent_and_not_its_run_as_late() {
        let mut pulse = Watchdog::default();
        // The run is in time until the process has been quiet for a second.
        for _ in 0..11 {
            assert_eq!(pulse.check(1, &[run(1500)], 1000, INTERVAL), HealthFinding::Healthy);
        }
        let found = (0..40)
            .map(|_| pulse.check(1, &[run(1500)], 9999, INTERVAL))
            .find(|found| *found != HealthFinding::Healthy);
        assert_eq!(found, Some(HealthFinding::Silent));
    }

    #[test]
    fn a_host_that_slept_itself_kills_nobody_for_it() {
        let mut pulse = Watchdog::default();
        pulse.check(1, &[run(999)], 900, INTERVAL);
        assert_eq!(
            pulse.check(1, &[run(999)], u64::MAX, Duration::from_secs(3600)),
            HealthFinding::Healthy
        );
    }
}
