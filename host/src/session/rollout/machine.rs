//! One change of what a session runs, as a state machine: its step, its deadline, its outcome. It
//! knows no processes and no clock. It takes in what happens and says what is to be done.
//!
//! ```text
//! beside a running worker                                     in a worker of its own
//! start -> catch up -> dry run -> [shadow] -> reinstantiate         start
//!       -> handoff -> restore -> promote -> first result              |
//!             |                                  |                    v
//!             |                                  +---------------> probation --> healthy,
//!             v                                                       |          superseded,
//!          aborted                          rolled back <-- rollback <+          unverified
//! ```
//!
//! A failure before the first result leaves the running version where it is. A worker that is lost
//! in probation brings the version before it back, if there is one.

use std::time::{Duration, Instant};

use ocelli_protocol::worker::{FrameResult, ToWorker};

use super::report::{Report, Shadow, StateHandover, Step, Swapped};
use super::shadow::Comparer;
use crate::session::lifecycle::STABLE_AFTER;

/// How long a change waits for a result of the running version: right after one, the time until
/// the next frame is longest. Slower cameras lose no frame if the change does not wait.
const NEXT_RESULT: Duration = Duration::from_secs(1);

/// A candidate's result for a frame whose output is discarded, or its error.
type DryRun = Result<FrameResult, String>;

/// Time limits of a change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RolloutTerms {
    /// Until the candidate is initialised and has caught up.
    pub(crate) start: Duration,
    /// For its first frame.
    pub(crate) first_frame: Duration,
    /// For each part of the handoff.
    pub(crate) swap: Duration,
    /// How long the new version has to serve before it counts as healthy.
    pub(crate) probation: Duration,
}

/// The running version as a candidate needs to know it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RunningView {
    /// The last frame that it is done with.
    pub(crate) last_done: Option<u64>,
    /// Whether the source delivers nothing.
    pub(crate) source_down: bool,
    /// Access units that the candidate was sent since its promotion.
    pub(crate) sent_since: u64,
}

/// An input while the candidate gets ready beside the running version.
#[derive(Debug)]
pub(crate) enum CandidateInput<'a> {
    /// The candidate is initialised.
    Ready,
    /// The candidate has reached the barrier; `first` is the first frame that it holds.
    BarrierReached {
        first: Option<u64>,
    },
    /// The candidate's answer to a dry run; `None`: it does not hold the frame.
    DryRunDone {
        frame: Option<u64>,
        outcome: Option<&'a DryRun>,
    },
    /// A fresh instance of the candidate is initialised.
    Reinstantiated,
    /// The candidate has taken the state over, or refuses it.
    Restored(&'a Result<(), String>),
    /// The promoted candidate is done with a frame (`None`: its file has ended), or the version
    /// before it is gone.
    FirstResult {
        frame: Option<u64>,
    },
    /// A result of the running version.
    RunningResult(&'a FrameResult),
    /// A heartbeat of the running version.
    RunningHeartbeat,
    /// The running version's state: bytes of it, and the last frame that is in it. `foreign`: the
    /// candidate is another pipeline.
    Snapshot {
        last_frame: Option<u64>,
        bytes: usize,
        foreign: bool,
    },
    Tick,
}

/// Something to be done for a candidate.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Report a step, or the comparison.
    Report(Report),
    /// Let the candidate have the units.
    Attach,
    /// Send the candidate a message.
    Send(ToWorker),
    /// Pause the source and ask the running version for its state.
    TakeSnapshot,
    /// Give the candidate the session's store as it is now, and the state if `state` is set.
    Restore { state: bool },
    /// Activate the candidate after this frame, and let it have the source's units.
    Promote { after: Option<u64> },
    /// Make the candidate the session's version.
    Complete,
    /// Give the candidate up.
    Abort(String),
    /// Let the candidate go: it was to be compared, and nothing else.
    Dismiss,
}

/// An input while the change's version is the session's, or is being rolled back.
#[derive(Debug, Clone)]
pub(crate) enum VersionInput {
    /// A worker is initialised and serves: this version's, or the one's before it on the way back.
    Serving {
        probation: Duration,
    },
    /// The version before it has taken its own state back, or refuses it.
    Restored {
        accepted: bool,
    },
    /// The worker is lost, and there is nothing to roll back to.
    Lost,
    /// The file has ended.
    Finished,
    /// The session waits for an operator.
    Failed(String),
    /// Another version takes its place.
    Superseded,
    /// The session is stopped.
    Stopped(String),
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Beside the running version.
    Starting,
    /// `answered`: the last barrier is reached; the next one follows when there is news.
    CatchingUp {
        answered: bool,
    },
    DryRunning,
    Shadowing,
    Reinstantiating,
    /// The running version's next result is awaited.
    Aligning,
    AwaitingState,
    Restoring,
    ReinstantiatingFresh,
    Promoted,
    /// In a worker of its own, which has not served yet.
    Unserved,
    Probation,
    Rollback {
        reason: String,
        with_state: bool,
    },
    Over,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Rollout {
    phase: Phase,
    step: Step,
    deadline: Option<Instant>,
    terms: RolloutTerms,
    next_barrier: u64,
    shadow: Shadow,
    comparer: Comparer,
    handover: StateHandover,
    swapped: Swapped,
}

impl Rollout {
    /// A change beside the running worker, which begins now with [`Step::Start`].
    pub(crate) fn beside(
        terms: RolloutTerms,
        shadow: Shadow,
        handover: StateHandover,
        now: Instant,
    ) -> Self {
        let deadline = Some(now + terms.start);
        Self { phase: Phase::Starting, deadline, shadow, handover, ..Self::in_place(terms) }
    }

    /// A version that the session gets without a change beside a running worker.
    pub(crate) fn in_place(terms: RolloutTerms) -> Self {
        Self {
            phase: Phase::Unserved,
            step: Step::Start,
            deadline: None,
            terms,
            next_barrier: 0,
            shadow: Shadow::default(),
            comparer: Comparer::default(),
            handover: StateHandover::Keep,
            swapped: Swapped::default(),
        }
    }

    /// The step under way.
    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// When `Tick` has an effect; `None`: there is nothing to wait for.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the candidate has the source's units.
    pub(crate) fn is_promoted(&self) -> bool {
        self.phase == Phase::Promoted
    }

    /// Whether the version before is on its way back.
    pub(crate) fn is_rolling_back(&self) -> bool {
        matches!(self.phase, Phase::Rollback { .. })
    }

    /// The figures of the change, as far as they do not depend on a clock.
    pub(crate) fn swapped(&self) -> Swapped {
        self.swapped
    }

    /// Takes in an input while the candidate gets ready. One that is out of turn has no effect.
    pub(crate) fn on_candidate(
        &mut self,
        input: CandidateInput<'_>,
        view: RunningView,
        now: Instant,
    ) -> Vec<Action> {
        use CandidateInput as Input;
        match (&self.phase, input) {
            (Phase::Starting, Input::Ready) => {
                vec![self.start_step(Step::CatchUp), Action::Attach, self.send_barrier()]
            }
            (Phase::CatchingUp { .. }, Input::BarrierReached { first }) => {
                self.on_barrier(first, view, now)
            }
            (
                Phase::CatchingUp { answered: true },
                Input::RunningResult(_) | Input::RunningHeartbeat,
            ) => vec![self.send_barrier()],
            (Phase::DryRunning, Input::DryRunDone { outcome, .. }) => self.on_dry_run(outcome, now),
            (Phase::Shadowing, Input::RunningResult(result)) => self.shadow_frame(result),
            (Phase::Shadowing, Input::DryRunDone { frame: Some(frame), outcome }) => {
                self.on_shadowed(frame, outcome, now)
            }
            (Phase::Reinstantiating, Input::Reinstantiated) => {
                self.enter(Phase::Aligning, NEXT_RESULT, now);
                vec![self.start_step(Step::Handoff)]
            }
            (Phase::Aligning, Input::RunningResult(_)) => self.take_snapshot(now),
            // It works off its queue: results show progress.
            (Phase::AwaitingState, Input::RunningResult(_)) => {
                self.deadline = Some(now + self.terms.swap);
                Vec::new()
            }
            (Phase::AwaitingState, Input::Snapshot { last_frame, bytes, foreign }) => {
                self.swapped.last_frame = last_frame;
                self.on_snapshot(bytes, foreign, now)
            }
            (Phase::Restoring, Input::Restored(restored)) => self.on_restored(restored, now),
            (Phase::ReinstantiatingFresh, Input::Reinstantiated) => self.promote(now),
            (Phase::Promoted, Input::FirstResult { frame }) => self.complete(frame, now),
            (_, Input::Tick) if self.is_late(now) => self.on_deadline(view, now),
            _ => Vec::new(),
        }
    }

    /// Ends a change whose candidate is given up. The running version stays.
    pub(crate) fn abort(&mut self, reason: String) -> Report {
        self.end();
        Report::Aborted { step: self.step, reason }
    }

    /// Ends a change that was to compare, and nothing else. The running version stays.
    pub(crate) fn dismiss(&mut self) -> Report {
        self.end();
        Report::OnlyCompared
    }

    /// Rolls back to the version before, in a new worker. `with_state`: that version's own state
    /// is there.
    pub(crate) fn roll_back(&mut self, reason: String, with_state: bool) {
        self.deadline = None;
        self.phase = Phase::Rollback { reason, with_state };
    }

    /// Takes in an input while the change's version is the session's, or is being rolled back.
    /// `has_results`: the version has given a result. Returns the last report, if this is the end.
    pub(crate) fn on_version(
        &mut self,
        input: VersionInput,
        has_results: bool,
        now: Instant,
    ) -> Option<Report> {
        use VersionInput as Input;
        let unverified = |reason: String| Some(Report::Unverified { reason });
        let report = match (&self.phase, input) {
            (Phase::Unserved | Phase::Probation, input) => match input {
                Input::Serving { probation } => {
                    self.enter(Phase::Probation, probation, now);
                    None
                }
                Input::Tick if self.is_late(now) && has_results => Some(Report::Healthy),
                // A version without a result has shown nothing yet.
                Input::Tick if self.is_late(now) => {
                    self.deadline = Some(now + STABLE_AFTER);
                    None
                }
                Input::Finished if has_results => Some(Report::Healthy),
                Input::Finished => unverified("the file has ended".to_owned()),
                Input::Failed(reason) => unverified(reason),
                Input::Stopped(reason) => unverified(format!("the session has ended: {reason}")),
                Input::Superseded if self.phase == Phase::Probation => Some(Report::Superseded),
                Input::Superseded => {
                    unverified("another version took its place before it served".to_owned())
                }
                Input::Tick | Input::Lost | Input::Restored { .. } => None,
            },
            (Phase::Rollback { reason, with_state }, input) => {
                let with_state = match input {
                    Input::Restored { accepted } => accepted,
                    Input::Serving { .. } if !with_state => false,
                    Input::Lost | Input::Superseded | Input::Stopped(_) => false,
                    _ => return None,
                };
                Some(Report::RolledBack { reason: reason.clone(), with_state })
            }
            _ => None,
        };
        if report.is_some() {
            self.end();
        }
        report
    }

    fn start_step(&mut self, step: Step) -> Action {
        self.step = step;
        Action::Report(Report::StepStarted(step))
    }

    fn enter(&mut self, phase: Phase, limit: Duration, now: Instant) {
        self.phase = phase;
        self.deadline = Some(now + limit);
    }

    fn end(&mut self) {
        self.phase = Phase::Over;
        self.deadline = None;
    }

    fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    fn send_barrier(&mut self) -> Action {
        self.phase = Phase::CatchingUp { answered: false };
        self.next_barrier += 1;
        Action::Send(ToWorker::Barrier { id: self.next_barrier })
    }

    fn on_barrier(&mut self, first: Option<u64>, view: RunningView, now: Instant) -> Vec<Action> {
        // Frames before its first are the running version's to process.
        let caught_up = first
            .is_some_and(|first| view.last_done.is_none_or(|done| first <= done.saturating_add(1)));
        if caught_up {
            self.enter(Phase::DryRunning, self.terms.first_frame, now);
            let dry_run = Action::Send(ToWorker::DryRun { frame: None });
            vec![self.start_step(Step::DryRun), dry_run]
        } else if view.source_down && self.shadow.is_condition() {
            let reason = "the source delivers nothing: there is no frame to compare on";
            vec![Action::Abort(reason.to_owned())]
        } else if view.source_down {
            // There is no frame to try it on.
            let mut actions = vec![self.start_step(Step::Handoff)];
            actions.extend(self.take_snapshot(now));
            actions
        } else {
            self.phase = Phase::CatchingUp { answered: true };
            Vec::new()
        }
    }

    fn on_dry_run(&mut self, outcome: Option<&DryRun>, now: Instant) -> Vec<Action> {
        match outcome {
            Some(Ok(_)) if self.shadow.frames > 0 => {
                self.enter(Phase::Shadowing, self.terms.start, now);
                vec![self.start_step(Step::Shadow)]
            }
            Some(Ok(_)) => self.reinstantiate(Phase::Reinstantiating, self.terms.start, now),
            Some(Err(error)) => vec![Action::Abort(format!("its first frame: {error}"))],
            None => {
                self.phase = Phase::CatchingUp { answered: true };
                Vec::new()
            }
        }
    }

    /// Has the candidate process the frame of a running version's result, too.
    fn shadow_frame(&mut self, result: &FrameResult) -> Vec<Action> {
        if self.comparer.asked() < self.shadow.frames && self.comparer.expect(result) {
            vec![Action::Send(ToWorker::DryRun { frame: Some(result.frame) })]
        } else {
            Vec::new()
        }
    }

    fn on_shadowed(&mut self, frame: u64, outcome: Option<&DryRun>, now: Instant) -> Vec<Action> {
        self.comparer.compare(frame, outcome);
        self.deadline = Some(now + self.terms.start);
        if self.comparer.settled() < self.shadow.frames {
            return Vec::new();
        }
        let comparison = std::mem::take(&mut self.comparer).finish();
        let agreement = comparison.agreement;
        let mut actions = vec![Action::Report(Report::Compared(comparison))];
        let Shadow { only, threshold, .. } = self.shadow;
        if let Some(wanted) = threshold.filter(|wanted| agreement < *wanted) {
            let reason = format!(
                "it agrees with the running version by {agreement:.3}, and {wanted} were asked for"
            );
            actions.push(Action::Abort(reason));
        } else if only {
            actions.push(Action::Dismiss);
        } else {
            actions.extend(self.reinstantiate(Phase::Reinstantiating, self.terms.start, now));
        }
        actions
    }

    /// Nothing of the dry runs, or of a refused state, is to stay in the instance.
    fn reinstantiate(&mut self, phase: Phase, limit: Duration, now: Instant) -> Vec<Action> {
        self.enter(phase, limit, now);
        vec![Action::Send(ToWorker::Reinstantiate)]
    }

    fn take_snapshot(&mut self, now: Instant) -> Vec<Action> {
        self.enter(Phase::AwaitingState, self.terms.swap, now);
        vec![Action::TakeSnapshot]
    }

    fn on_snapshot(&mut self, bytes: usize, foreign: bool, now: Instant) -> Vec<Action> {
        let begins_fresh = foreign || self.handover == StateHandover::Fresh;
        let state = bytes > 0 && !begins_fresh;
        self.swapped.fresh = bytes > 0 && begins_fresh;
        let mut actions = vec![self.start_step(Step::Restore), Action::Restore { state }];
        if state {
            self.enter(Phase::Restoring, self.terms.swap, now);
        } else {
            actions.extend(self.promote(now));
        }
        actions
    }

    fn on_restored(&mut self, restored: &Result<(), String>, now: Instant) -> Vec<Action> {
        match (restored, self.handover) {
            (Ok(()), _) => self.promote(now),
            (Err(error), StateHandover::Keep) => {
                vec![Action::Abort(format!("it refuses the state: {error}"))]
            }
            (Err(_), StateHandover::FreshIfRefused | StateHandover::Fresh) => {
                self.swapped.fresh = true;
                self.reinstantiate(Phase::ReinstantiatingFresh, self.terms.swap, now)
            }
        }
    }

    fn promote(&mut self, now: Instant) -> Vec<Action> {
        self.enter(Phase::Promoted, self.terms.swap, now);
        let after = self.swapped.last_frame;
        vec![self.start_step(Step::FirstResult), Action::Promote { after }]
    }

    fn complete(&mut self, first_frame: Option<u64>, now: Instant) -> Vec<Action> {
        self.swapped.first_frame = first_frame;
        self.enter(Phase::Probation, self.terms.probation, now);
        self.step = Step::Probation;
        vec![Action::Complete]
    }

    fn on_deadline(&mut self, view: RunningView, now: Instant) -> Vec<Action> {
        let RolloutTerms { start, first_frame, swap, .. } = self.terms;
        let setting = |name: &str, limit: Duration| {
            format!("within {} ms (deploy.{name})", limit.as_millis())
        };
        let start = setting("start_timeout_s", start);
        let swap = setting("swap_timeout_ms", swap);
        let reason = match self.phase {
            Phase::Starting => format!("not initialised {start}"),
            Phase::CatchingUp { .. } => {
                format!("it has not decoded what the running one has {start}")
            }
            Phase::DryRunning => {
                let first_frame = setting("first_frame_ms", first_frame);
                format!("no result for its first frame {first_frame}")
            }
            Phase::Shadowing => {
                let (settled, wanted) = (self.comparer.settled(), self.shadow.frames);
                format!("no frame to compare {start}; {settled} of {wanted} are compared")
            }
            Phase::Reinstantiating | Phase::ReinstantiatingFresh => {
                format!("not initialised again {start}")
            }
            Phase::Aligning => return self.take_snapshot(now),
            Phase::AwaitingState => format!("the running version has not given its state {swap}"),
            Phase::Restoring => format!("it has not taken the state over {swap}"),
            // Without frames there is no result to wait for.
            Phase::Promoted if view.sent_since == 0 => return self.complete(None, now),
            Phase::Promoted => format!("no result {swap} after the change"),
            Phase::Unserved | Phase::Probation | Phase::Rollback { .. } | Phase::Over => {
                return Vec::new();
            }
        };
        self.deadline = Some(now + self.terms.start);
        vec![Action::Abort(reason)]
    }
}

#[cfg(test)]
mod tests;
