//! The life of a session as one value. Everything that happens to a session goes through [`Life::apply`]; the state that
//! subscribers see is derived from it, so the two cannot disagree.
//!
//! ```text
//! starting --> running <--> degraded      (source lost and found)
//!     |           |             |
//!     +-----------+-------------+--> restarting --> running ...     (worker lost, backoff)
//!                                         |
//!                                         +--> failed               (crash loop: needs a person or a new pipeline)
//! starting, running, degraded --> failed  (a model or a file that is not there)
//! any state --> stopped;  failed, stopped --> starting              (restarted by a person)
//! ```

use crate::event::State;

/// How many times in a row a worker may be lost before it has served for a while. More is a crash loop.
pub(super) const CRASH_LOOP: u32 = 5;

/// Something that happens to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// The pipeline waits for frames.
    WorkerReady,
    /// The worker has given results for long enough not to be in a crash loop.
    Served,
    /// The worker is gone, or could not be started.
    WorkerLost(String),
    /// As `WorkerLost`, of a pipeline on probation: the one before it comes back.
    GoBack(String),
    /// The source delivers nothing.
    SourceDown(String),
    /// The source delivers.
    SourceUp,
    /// A person asked for a new start.
    Restart,
    /// What the session cannot go on without is not there, and trying again would not bring it.
    Fail(String),
    /// The end: asked for, or a file's.
    Stop(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    Backoff(String),
    Failed(String),
    Stopped(String),
}

/// What is known of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Life {
    phase: Phase,
    source_down: Option<String>,
    losses: u32,
}

impl Default for Life {
    fn default() -> Self {
        Self { phase: Phase::Starting, source_down: None, losses: 0 }
    }
}

impl Life {
    /// Takes a change in. A change that means nothing in this phase leaves it as it is: once failed or stopped, only a
    /// restart or a stop counts.
    pub(super) fn apply(&mut self, change: Change) {
        match (change, &self.phase) {
            (Change::Stop(reason), _) => self.phase = Phase::Stopped(reason),
            (Change::Restart, _) => *self = Self { source_down: self.source_down.take(), ..Self::default() },
            (_, Phase::Failed(_) | Phase::Stopped(_)) => {}
            (Change::Fail(reason), _) => self.phase = Phase::Failed(reason),
            (Change::WorkerReady, _) => self.phase = Phase::Serving,
            (Change::Served, _) => self.losses = 0,
            (Change::WorkerLost(reason), _) => {
                self.losses += 1;
                self.phase = if self.losses >= CRASH_LOOP {
                    Phase::Failed(format!("lost {} times in a row, last: {reason}", self.losses))
                } else {
                    Phase::Backoff(reason)
                };
            }
            // The losses were another pipeline's.
            (Change::GoBack(reason), _) => {
                self.losses = 0;
                self.phase = Phase::Backoff(reason);
            }
            (Change::SourceDown(reason), _) => self.source_down = Some(reason),
            (Change::SourceUp, _) => self.source_down = None,
        }
    }

    /// The state that subscribers see, with its reason.
    pub(super) fn state(&self) -> (State, Option<&str>) {
        match (&self.phase, &self.source_down) {
            (Phase::Starting, _) => (State::Starting, None),
            (Phase::Serving, None) => (State::Running, None),
            (Phase::Serving, Some(reason)) => (State::Degraded, Some(reason)),
            (Phase::Backoff(reason), _) => (State::Restarting, Some(reason)),
            (Phase::Failed(reason), _) => (State::Failed, Some(reason)),
            (Phase::Stopped(reason), _) => (State::Stopped, Some(reason)),
        }
    }

    /// What is wrong with the source now.
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

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            Just(Change::WorkerReady),
            Just(Change::Served),
            Just(Change::WorkerLost("worker".into())),
            Just(Change::GoBack("worker".into())),
            Just(Change::SourceDown("source".into())),
            Just(Change::SourceUp),
            Just(Change::Restart),
            Just(Change::Fail("model".into())),
            Just(Change::Stop("asked".into())),
        ]
    }

    fn legal(from: State, change: &Change, to: State) -> bool {
        use State::{Degraded, Failed, Restarting, Running, Starting, Stopped};
        from == to
            || match change {
                Change::Stop(_) => to == Stopped,
                Change::Restart => to == Starting,
                Change::Fail(_) => to == Failed,
                Change::WorkerReady => matches!((from, to), (Starting | Restarting, Running | Degraded)),
                Change::WorkerLost(_) => {
                    matches!((from, to), (Starting | Running | Degraded | Restarting, Restarting | Failed))
                }
                Change::GoBack(_) => {
                    matches!((from, to), (Starting | Running | Degraded | Restarting, Restarting))
                }
                Change::SourceDown(_) => (from, to) == (Running, Degraded),
                Change::SourceUp => (from, to) == (Degraded, Running),
                Change::Served => false,
            }
    }

    proptest! {
        #[test]
        fn every_transition_is_one_of_the_design(changes in proptest::collection::vec(change(), 0..60)) {
            let mut life = Life::default();
            for change in changes {
                let from = life.state().0;
                life.apply(change.clone());
                let to = life.state().0;
                prop_assert!(legal(from, &change, to), "{from:?} --{change:?}--> {to:?}");
            }
        }

        #[test]
        fn stop_is_legal_from_every_state(changes in proptest::collection::vec(change(), 0..60)) {
            let mut life = Life::default();
            changes.into_iter().for_each(|change| life.apply(change));
            life.apply(Change::Stop("asked".into()));
            prop_assert_eq!(life.state(), (State::Stopped, Some("asked")));
        }

        #[test]
        fn a_worker_that_never_serves_ends_as_failed(extra in 0u32..10) {
            let mut life = Life::default();
            for _ in 0..CRASH_LOOP + extra {
                life.apply(Change::WorkerReady);
                life.apply(Change::WorkerLost("trap".into()));
            }
            prop_assert_eq!(life.state().0, State::Failed);
        }
    }

    #[test]
    fn a_worker_that_serves_between_its_deaths_is_started_again_for_ever() {
        let mut life = Life::default();
        for _ in 0..100 {
            life.apply(Change::WorkerReady);
            life.apply(Change::Served);
            life.apply(Change::WorkerLost("killed".into()));
            assert_eq!(life.state().0, State::Restarting);
        }
    }
}
