//! The lifecycle of a session as one value. Each event goes through [`Lifecycle::apply`]; the state
//! that subscribers see derives from it, so the two cannot disagree.
//!
//! ```text
//! starting --> running <--> degraded      (source lost and found, or nothing but damage)
//!     |           |             |
//!     +-----------+-------------+--> restarting --> running ...     (worker lost, backoff)
//!                                         |
//!                                         +--> failed    (crash loop: needs a person or a new pipeline)
//! starting, running, degraded --> failed  (a missing model or file)
//! any state --> stopped;  failed, stopped --> starting              (restarted by a person)
//! ```

use std::time::Duration;

use crate::event::SessionState;

/// A worker that gives a result this long after it was ready is not in a crash loop. Longer than
/// any wait between starts, so that a worker that dies on every hundredth frame ends as failed too.
pub(super) const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Losses in a row, none of them after [`STABLE_AFTER`] of service, that are a crash loop.
pub(super) const CRASH_LOOP: u32 = 5;

/// An event of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LifecycleEvent {
    /// The pipeline waits for frames.
    WorkerReady,
    /// The worker has given a result [`STABLE_AFTER`] after its start.
    Stable,
    /// The worker is gone, or could not be started.
    WorkerLost(String),
    /// As `WorkerLost`, in probation: the version before comes back.
    RollBack(String),
    /// The source delivers nothing.
    SourceDown(String),
    SourceUp,
    /// The source delivers, and not one picture is sound, for this reason; `None` once one is.
    Damage(Option<String>),
    /// A person asked for a new start.
    Restart,
    /// Something that the session needs is missing, and another attempt would not bring it.
    Fail(String),
    /// The end: by request, or of the file.
    Stop(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LifecyclePhase {
    Starting,
    Serving,
    Backoff(String),
    Failed(String),
    Stopped(String),
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lifecycle {
    phase: LifecyclePhase,
    source_down: Option<String>,
    damage: Option<String>,
    losses: u32,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { phase: LifecyclePhase::Starting, source_down: None, damage: None, losses: 0 }
    }
}

impl Lifecycle {
    /// Applies an event. One without a meaning in this phase has no effect: once failed or stopped,
    /// only a restart or a stop has.
    pub(super) fn apply(&mut self, change: LifecycleEvent) {
        match (change, &self.phase) {
            (LifecycleEvent::Stop(reason), _) => self.phase = LifecyclePhase::Stopped(reason),
            (LifecycleEvent::Restart, _) => {
                *self = Self { source_down: self.source_down.take(), ..Self::default() }
            }
            (_, LifecyclePhase::Failed(_) | LifecyclePhase::Stopped(_)) => {}
            (LifecycleEvent::Fail(reason), _) => self.phase = LifecyclePhase::Failed(reason),
            (LifecycleEvent::WorkerReady, _) => self.phase = LifecyclePhase::Serving,
            (LifecycleEvent::Stable, _) => self.losses = 0,
            (LifecycleEvent::WorkerLost(reason), _) => {
                self.losses += 1;
                self.damage = None;
                self.phase = if self.losses >= CRASH_LOOP {
                    LifecyclePhase::Failed(format!(
                        "lost {} times in a row, last: {reason}",
                        self.losses
                    ))
                } else {
                    LifecyclePhase::Backoff(reason)
                };
            }
            // The losses were another pipeline's.
            (LifecycleEvent::RollBack(reason), _) => {
                self.losses = 0;
                self.damage = None;
                self.phase = LifecyclePhase::Backoff(reason);
            }
            (LifecycleEvent::SourceDown(reason), _) => self.source_down = Some(reason),
            (LifecycleEvent::SourceUp, _) => self.source_down = None,
            (LifecycleEvent::Damage(reason), _) => self.damage = reason,
        }
    }

    /// The state that subscribers see, with its reason.
    pub(super) fn state(&self) -> (SessionState, Option<&str>) {
        match (&self.phase, self.source_down.as_ref().or(self.damage.as_ref())) {
            (LifecyclePhase::Starting, _) => (SessionState::Starting, None),
            (LifecyclePhase::Serving, None) => (SessionState::Running, None),
            (LifecyclePhase::Serving, Some(reason)) => (SessionState::Degraded, Some(reason)),
            (LifecyclePhase::Backoff(reason), _) => (SessionState::Restarting, Some(reason)),
            (LifecyclePhase::Failed(reason), _) => (SessionState::Failed, Some(reason)),
            (LifecyclePhase::Stopped(reason), _) => (SessionState::Stopped, Some(reason)),
        }
    }

    /// Whether no picture comes that a pipeline could process.
    pub(super) fn lacks_pictures(&self) -> bool {
        self.source_down.is_some() || self.damage.is_some()
    }

    /// Why not one picture of the source is sound, if so.
    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Why the source delivers nothing, if so.
    pub(super) fn source_fault(&self) -> Option<&str> {
        self.source_down.as_deref()
    }

    /// Losses in a row.
    pub(super) fn losses(&self) -> u32 {
        self.losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change() -> impl Strategy<Value = LifecycleEvent> {
        prop_oneof![
            Just(LifecycleEvent::WorkerReady),
            Just(LifecycleEvent::Stable),
            Just(LifecycleEvent::WorkerLost("worker".into())),
            Just(LifecycleEvent::RollBack("worker".into())),
            Just(LifecycleEvent::SourceDown("source".into())),
            Just(LifecycleEvent::SourceUp),
            Just(LifecycleEvent::Damage(Some("damage".into()))),
            Just(LifecycleEvent::Damage(None)),
            Just(LifecycleEvent::Restart),
            Just(LifecycleEvent::Fail("model".into())),
            Just(LifecycleEvent::Stop("asked".into())),
        ]
    }

    fn legal(from: SessionState, change: &LifecycleEvent, to: SessionState) -> bool {
        use SessionState::{Degraded, Failed, Restarting, Running, Starting, Stopped};
        from == to
            || match change {
                LifecycleEvent::Stop(_) => to == Stopped,
                LifecycleEvent::Restart => to == Starting,
                LifecycleEvent::Fail(_) => to == Failed,
                LifecycleEvent::WorkerReady => {
                    matches!((from, to), (Starting | Restarting, Running | Degraded))
                }
                LifecycleEvent::WorkerLost(_) => {
                    matches!(
                        (from, to),
                        (Starting | Running | Degraded | Restarting, Restarting | Failed)
                    )
                }
                LifecycleEvent::RollBack(_) => {
                    matches!((from, to), (Starting | Running | Degraded | Restarting, Restarting))
                }
                LifecycleEvent::SourceDown(_) | LifecycleEvent::Damage(Some(_)) => {
                    (from, to) == (Running, Degraded)
                }
                LifecycleEvent::SourceUp | LifecycleEvent::Damage(None) => {
                    (from, to) == (Degraded, Running)
                }
                LifecycleEvent::Stable => false,
            }
    }

    proptest! {
        #[test]
        fn every_transition_is_one_of_the_design(changes in proptest::collection::vec(change(), 0..60)) {
            let mut life = Lifecycle::default();
            for change in changes {
                let from = life.state().0;
                life.apply(change.clone());
                let to = life.state().0;
                prop_assert!(legal(from, &change, to), "{from:?} --{change:?}--> {to:?}");
            }
        }

        #[test]
        fn stop_is_legal_from_every_state(changes in proptest::collection::vec(change(), 0..60)) {
            let mut life = Lifecycle::default();
            changes.into_iter().for_each(|change| life.apply(change));
            life.apply(LifecycleEvent::Stop("asked".into()));
            prop_assert_eq!(life.state(), (SessionState::Stopped, Some("asked")));
        }

        #[test]
        fn a_worker_that_never_serves_ends_as_failed(extra in 0u32..10) {
            let mut life = Lifecycle::default();
            for _ in 0..CRASH_LOOP + extra {
                life.apply(LifecycleEvent::WorkerReady);
                life.apply(LifecycleEvent::WorkerLost("trap".into()));
            }
            prop_assert_eq!(life.state().0, SessionState::Failed);
        }
    }

    #[test]
    fn a_worker_that_serves_between_its_deaths_is_started_again_for_ever() {
        let mut life = Lifecycle::default();
        for _ in 0..100 {
            life.apply(LifecycleEvent::WorkerReady);
            life.apply(LifecycleEvent::Stable);
            life.apply(LifecycleEvent::WorkerLost("killed".into()));
            assert_eq!(life.state().0, SessionState::Restarting);
        }
    }

    #[test]
    fn damage_degrades_until_a_sound_picture_or_another_worker_comes() {
        let mut life = Lifecycle::default();
        life.apply(LifecycleEvent::WorkerReady);
        life.apply(LifecycleEvent::Damage(Some("damage".into())));
        assert_eq!(life.state(), (SessionState::Degraded, Some("damage")));
        life.apply(LifecycleEvent::SourceDown("silent".into()));
        assert_eq!(life.state(), (SessionState::Degraded, Some("silent")), "nothing comes at all");
        life.apply(LifecycleEvent::SourceUp);
        assert_eq!(life.state(), (SessionState::Degraded, Some("damage")));
        life.apply(LifecycleEvent::Damage(None));
        assert_eq!(life.state(), (SessionState::Running, None));
        life.apply(LifecycleEvent::Damage(Some("damage".into())));
        life.apply(LifecycleEvent::WorkerLost("killed".into()));
        life.apply(LifecycleEvent::WorkerReady);
        assert_eq!(life.state(), (SessionState::Running, None));
    }
}
