//! When a session's pipeline is asked for its state, so that the camera's next host goes on with
//! it, and what becomes of the answer. It knows no worker and no clock.

use std::time::{Duration, Instant};

use ocelli_protocol::digest::Digest;

/// Between two snapshots: as much of its pipelines' states is lost with a host that dies. Each is
/// one call into the component and, if the state has changed, one write to three disks.
const INTERVAL: Duration = Duration::from_secs(5);

/// What is to be done when a snapshot is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DueSnapshot {
    /// Ask for it.
    Ask,
    /// The last one has not come yet. `first`: nobody was told.
    Late { first: bool },
    /// Nothing.
    Skip,
}

/// See the module's documentation. One for each session.
#[derive(Debug, Default)]
pub(super) struct SnapshotSchedule {
    /// `None`: no worker serves, or nothing is kept.
    due: Option<Instant>,
    /// The one that was kept last.
    kept: Option<Digest>,
    /// The component, by its digest, whose worker was lost while it owed a snapshot. A second loss
    /// would follow in [`INTERVAL`], and end as a crash loop: it is not asked again.
    barred: Option<String>,
    /// Somebody was told that none comes.
    told: bool,
}

impl SnapshotSchedule {
    /// A worker serves from now on.
    pub(super) fn begin(&mut self, now: Instant) {
        self.due = Some(now + INTERVAL);
    }

    /// No worker serves any more.
    pub(super) fn end(&mut self) {
        self.due = None;
    }

    /// When [`on_due`](Self::on_due) is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Whether this component may be asked for its state.
    pub(super) fn may_ask(&self, component: &str) -> bool {
        self.barred.as_deref() != Some(component)
    }

    /// A snapshot is due. `wanted`: somebody keeps it, and nothing stands against it. `owed`: the
    /// last one has not come.
    pub(super) fn on_due(&mut self, wanted: bool, owed: bool, now: Instant) -> DueSnapshot {
        self.due = Some(now + INTERVAL);
        match (wanted, owed) {
            (false, _) => DueSnapshot::Skip,
            (true, false) => DueSnapshot::Ask,
            (true, true) => DueSnapshot::Late { first: !std::mem::replace(&mut self.told, true) },
        }
    }

    /// A snapshot has come, as the site holds it. Whether it is to be kept: the site has an equal
    /// one otherwise.
    pub(super) fn on_snapshot(&mut self, snapshot: &[u8]) -> bool {
        self.told = false;
        let digest = Some(Digest::of(snapshot));
        std::mem::replace(&mut self.kept, digest) != digest
    }

    /// The worker with this component was lost while it owed a snapshot.
    pub(super) fn on_lost(&mut self, component: &str) {
        self.barred = Some(component.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(version: &str, state: &str) -> Vec<u8> {
        format!("{version}\n{state}").into()
    }

    #[test]
    fn one_is_asked_for_at_each_interval_while_a_worker_serves() {
        let (mut schedule, begin) = (SnapshotSchedule::default(), Instant::now());
        assert_eq!(schedule.deadline(), None, "nothing is due of a session that keeps none");
        schedule.begin(begin);
        for n in 1..4 {
            let due = begin + n * INTERVAL;
            assert_eq!(schedule.deadline(), Some(due));
            assert_eq!(schedule.on_due(true, false, due), DueSnapshot::Ask);
        }
        schedule.end();
        assert_eq!(schedule.deadline(), None);
    }

    #[test]
    fn none_is_asked_for_while_nobody_keeps_it_or_a_version_changes() {
        let (mut schedule, now) = (SnapshotSchedule::default(), Instant::now());
        for owed in [false, true] {
            assert_eq!(schedule.on_due(false, owed, now), DueSnapshot::Skip);
        }
        assert_eq!(schedule.deadline(), Some(now + INTERVAL), "the next one may be wanted");
        assert_eq!(schedule.on_due(true, false, now), DueSnapshot::Ask);
    }

    #[test]
    fn one_that_is_late_is_told_once_and_no_second_is_asked_for() {
        let (mut schedule, now) = (SnapshotSchedule::default(), Instant::now());
        assert_eq!(schedule.on_due(true, true, now), DueSnapshot::Late { first: true });
        assert_eq!(schedule.on_due(true, true, now), DueSnapshot::Late { first: false });
        assert!(schedule.on_snapshot(&snapshot("1.0.0", "late")), "it is kept all the same");
        assert_eq!(schedule.on_due(true, false, now), DueSnapshot::Ask);
        assert_eq!(schedule.on_due(true, true, now), DueSnapshot::Late { first: true });
    }

    #[test]
    fn a_state_is_kept_once_until_it_changes() {
        let mut schedule = SnapshotSchedule::default();
        let kept = [
            ("1.0.0", "", true),
            ("1.0.0", "", false),
            ("1.0.0", "one", true),
            ("1.0.0", "one", false),
            // The same bytes may mean something else to another version.
            ("2.0.0", "one", true),
            ("2.0.0", "", true),
            ("1.0.0", "one", true),
        ];
        for (version, state, wanted) in kept {
            assert_eq!(
                schedule.on_snapshot(&snapshot(version, state)),
                wanted,
                "{version} {state}"
            );
        }
    }

    #[test]
    fn a_component_whose_worker_was_lost_over_a_snapshot_is_not_asked_again() {
        let mut schedule = SnapshotSchedule::default();
        assert!(schedule.may_ask("aa") && schedule.may_ask("bb"));
        schedule.on_lost("aa");
        assert!(!schedule.may_ask("aa") && schedule.may_ask("bb"));
    }
}
