//! The order of a change beside a running worker: what the new version is told when, and when the
//! two change places. A value without processes and clocks: it hears what happens and says what is
//! to be done.
//!
//! ```text
//! start -> catch up -> rehearse -> [shadow] -> renew -> hand over -> restore -> promote -> its first result
//! ```
//!
//! Whatever fails before that result leaves the running version where it is.

use std::time::{Duration, Instant};

use ocelli_protocol::worker::{FrameResult, ToWorker};

use super::change::{Comparison, Step};
use super::compare::Comparer;
use crate::config::RefusedState;

/// How long a change waits for a result of the running version, right after which it has most time
/// until the next frame. Cameras that are slower than one frame in this time lose nothing by not
/// waiting.
const NEXT_RESULT: Duration = Duration::from_secs(1);

/// Time limits of a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct RolloutTerms {
    /// Until the new version is initialised and has caught up.
    pub(super) start: Duration,
    /// For its first frame.
    pub(super) first_frame: Duration,
    /// For each part of the change itself.
    pub(super) swap: Duration,
    /// After the change.
    pub(super) probation: Duration,
}

/// What is known of the running version.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RunningView {
    /// The last frame that it has done with.
    pub(super) done: Option<u64>,
    /// The source delivers nothing.
    pub(super) source_down: bool,
    /// Access units that the new version was sent since it was promoted.
    pub(super) sent_since: u64,
}

/// Something that happens.
#[derive(Debug)]
pub(super) enum RolloutInput<'a> {
    /// The new version is initialised.
    Ready,
    /// Its answer to a mark.
    Decoded { first: Option<u64> },
    /// Its answer to a rehearsal.
    DryRunDone { frame: Option<u64>, outcome: Option<&'a Result<FrameResult, String>> },
    /// A fresh instance is initialised.
    Reinstantiated,
    /// Its answer to the state.
    Restored(&'a Result<(), String>),
    /// A result of the running version.
    Running(&'a FrameResult),
    /// The running version is alive.
    Heartbeat,
    /// The running version's state: bytes of it, and the last frame that is in it.
    State { through: Option<u64>, bytes: usize },
    /// Time has passed.
    Tick,
}

/// Something to be done.
#[derive(Debug, PartialEq)]
pub(super) enum RolloutAction {
    /// Tell that a step has begun.
    Begin(Step),
    /// Let the new version have the units.
    Join,
    /// Tell it something.
    Tell(ToWorker),
    /// Pause the source and ask the running version for its state.
    TakeState,
    /// Give it the session's store as it is now, and the state where there is one.
    Restore { state: bool },
    /// Let it speak after this frame, and have the source's units.
    Promote { after: Option<u64> },
    /// It is the running version now.
    Settle,
    /// Tell the comparison.
    Compared(Comparison),
    /// Give the change up.
    Fail(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RolloutStage {
    Starting,
    /// Whether the last mark is answered: the next one follows when there is something new.
    CatchingUp {
        answered: bool,
    },
    Rehearsing,
    Shadowing,
    Renewing,
    /// The running version's next result is waited for.
    Aligning,
    HandingOver,
    Restoring,
    RenewingWithoutState,
    Speaking,
    Over,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Rollout {
    terms: RolloutTerms,
    stage: RolloutStage,
    step: Step,
    deadline: Instant,
    next_mark: u64,
    shadow: u32,
    comparer: Comparer,
    refused_state: RefusedState,
    through: Option<u64>,
    fresh: bool,
}

impl Rollout {
    /// A change that begins now, with [`FeedStep::StartDecision`].
    pub(super) fn new(
        terms: RolloutTerms,
        shadow: u32,
        refused_state: RefusedState,
        now: Instant,
    ) -> Self {
        Self {
            terms,
            stage: RolloutStage::Starting,
            step: Step::Start,
            deadline: now + terms.start,
            next_mark: 0,
            shadow,
            comparer: Comparer::default(),
            refused_state,
            through: None,
            fresh: false,
        }
    }

    /// The step under way.
    pub(super) fn step(&self) -> Step {
        self.step
    }

    /// When [`RolloutInput::Tick`] means something.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the new version has the source's units.
    pub(super) fn is_promoted(&self) -> bool {
        matches!(self.stage, RolloutStage::Speaking)
    }

    /// Whether the new version begins without the state that there was.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The last frame of the running version, once it has given its state.
    pub(super) fn through(&self) -> Option<u64> {
        self.through
    }

    /// Takes something in. What comes out of turn means nothing.
    pub(super) fn on(
        &mut self,
        input: RolloutInput<'_>,
        view: RunningView,
        now: Instant,
    ) -> Vec<RolloutAction> {
        match (self.stage, input) {
            (RolloutStage::Starting, RolloutInput::Ready) => {
                let mut acts = self.begin(Step::CatchUp);
                acts.push(RolloutAction::Join);
                acts.push(self.mark());
                acts
            }
            (RolloutStage::CatchingUp { .. }, RolloutInput::Decoded { first }) => {
                // Frames before its first are the running version's to process.
                let caught_up = first.is_some_and(|first| {
                    view.done.is_none_or(|done| first <= done.saturating_add(1))
                });
                if caught_up {
                    self.enter(RolloutStage::Rehearsing, self.terms.first_frame, now);
                    let mut acts = self.begin(Step::DryRun);
                    acts.push(RolloutAction::Tell(ToWorker::DryRun { frame: None }));
                    acts
                } else if view.source_down {
                    // There is no frame to try it on.
                    let mut acts = self.begin(Step::Handoff);
                    acts.extend(self.take_state(now));
                    acts
                } else {
                    self.stage = RolloutStage::CatchingUp { answered: true };
                    Vec::new()
                }
            }
            (
                RolloutStage::CatchingUp { answered: true },
                RolloutInput::Running(_) | RolloutInput::Heartbeat,
            ) => vec![self.mark()],
            (RolloutStage::Rehearsing, RolloutInput::DryRunDone { outcome, .. }) => match outcome {
                Some(Ok(_)) if self.shadow > 0 => {
                    self.enter(RolloutStage::Shadowing, self.terms.start, now);
                    self.begin(Step::Shadow)
                }
                Some(Ok(_)) => self.renew(now),
                Some(Err(words)) => self.fail(format!("its first frame: {words}")),
                None => {
                    self.stage = RolloutStage::CatchingUp { answered: true };
                    Vec::new()
                }
            },
            (RolloutStage::Shadowing, RolloutInput::Running(result)) => {
                if self.comparer.asked() < self.shadow && self.comparer.expect(result) {
                    vec![RolloutAction::Tell(ToWorker::DryRun { frame: Some(result.frame) })]
                } else {
                    Vec::new()
                }
            }
            (RolloutStage::Shadowing, RolloutInput::DryRunDone { frame: Some(frame), outcome }) => {
                self.comparer.compare(frame, outcome);
                self.deadline = now + self.terms.start;
                if self.comparer.settled() < self.shadow {
                    return Vec::new();
                }
                let comparison = std::mem::take(&mut self.comparer).finish();
                let mut acts = vec![RolloutAction::Compared(comparison)];
                acts.extend(self.renew(now));
                acts
            }
            (RolloutStage::Renewing, RolloutInput::Reinstantiated) => {
                self.enter(RolloutStage::Aligning, NEXT_RESULT, now);
                self.begin(Step::Handoff)
            }
            (RolloutStage::Aligning, RolloutInput::Running(_)) => self.take_state(now),
            // It works off what it has been given: as long as results come, it is getting there.
            (RolloutStage::HandingOver, RolloutInput::Running(_)) => {
                self.deadline = now + self.terms.swap;
                Vec::new()
            }
            (RolloutStage::HandingOver, RolloutInput::State { through, bytes }) => {
                self.through = through;
                let mut acts = self.begin(Step::Restore);
                acts.push(RolloutAction::Restore { state: bytes > 0 });
                if bytes > 0 {
                    self.enter(RolloutStage::Restoring, self.terms.swap, now);
                } else {
                    acts.extend(self.promote(now));
                }
                acts
            }
            (RolloutStage::Restoring, RolloutInput::Restored(Ok(()))) => self.promote(now),
            (RolloutStage::Restoring, RolloutInput::Restored(Err(words))) => {
                match self.refused_state {
                    RefusedState::Keep => self.fail(format!("it refuses the state: {words}")),
                    RefusedState::Fresh => {
                        self.fresh = true;
                        self.enter(RolloutStage::RenewingWithoutState, self.terms.swap, now);
                        vec![RolloutAction::Tell(ToWorker::Reinstantiate)]
                    }
                }
            }
            (RolloutStage::RenewingWithoutState, RolloutInput::Reinstantiated) => self.promote(now),
            (_, RolloutInput::Tick) if now >= self.deadline => self.on_deadline(view, now),
            _ => Vec::new(),
        }
    }

    fn begin(&mut self, step: Step) -> Vec<RolloutAction> {
        self.step = step;
        vec![RolloutAction::Begin(step)]
    }

    fn enter(&mut self, stage: RolloutStage, limit: Duration, now: Instant) {
        self.stage = stage;
        self.deadline = now + limit;
    }

    fn mark(&mut self) -> RolloutAction {
        self.stage = RolloutStage::CatchingUp { answered: false };
        self.next_mark += 1;
        RolloutAction::Tell(ToWorker::Barrier { id: self.next_mark })
    }

    /// Nothing of rehearsals is to stay.
    fn renew(&mut self, now: Instant) -> Vec<RolloutAction> {
        self.enter(RolloutStage::Renewing, self.terms.start, now);
        vec![RolloutAction::Tell(ToWorker::Reinstantiate)]
    }

    fn take_state(&mut self, now: Instant) -> Vec<RolloutAction> {
        self.enter(RolloutStage::HandingOver, self.terms.swap, now);
        vec![RolloutAction::TakeState]
    }

    fn promote(&mut self, now: Instant) -> Vec<RolloutAction> {
        self.enter(RolloutStage::Speaking, self.terms.swap, now);
        let mut acts = self.begin(Step::FirstResult);
        acts.push(RolloutAction::Promote { after: self.through });
        acts
    }

    fn settle(&mut self) -> Vec<RolloutAction> {
        self.stage = RolloutStage::Over;
        self.step = Step::Probation;
        vec![RolloutAction::Settle]
    }

    fn fail(&mut self, reason: String) -> Vec<RolloutAction> {
        vec![RolloutAction::Fail(reason)]
    }

    fn on_deadline(&mut self, view: RunningView, now: Instant) -> Vec<RolloutAction> {
        let RolloutTerms { start, first_frame, swap, .. } = self.terms;
        let setting = |name: &str, limit: Duration| {
            format!("within {} ms (deploy.{name})", limit.as_millis())
        };
        let start = setting("start_timeout_s", start);
        let swap = setting("swap_timeout_ms", swap);
        let reason = match self.stage {
            RolloutStage::Starting => format!("not initialised {start}"),
            RolloutStage::CatchingUp { .. } => {
                format!("it has not decoded what the running one has {start}")
            }
            RolloutStage::Rehearsing => {
                format!("no result for its first frame {}", setting("first_frame_ms", first_frame))
            }
            RolloutStage::Shadowing => {
                let (settled, wanted) = (self.comparer.settled(), self.shadow);
                format!("no frame to compare {start}; {settled} of {wanted} are compared")
            }
            RolloutStage::Renewing | RolloutStage::RenewingWithoutState => {
                format!("not initialised again {start}")
            }
            RolloutStage::Aligning => return self.take_state(now),
            RolloutStage::HandingOver => {
                format!("the running version has not given its state {swap}")
            }
            RolloutStage::Restoring => format!("it has not taken the state over {swap}"),
            // Without frames there is no result to wait for.
            RolloutStage::Speaking if view.sent_since == 0 => return self.settle(),
            RolloutStage::Speaking => format!("no result {swap} after the change"),
            RolloutStage::Over => return Vec::new(),
        };
        self.deadline = now + self.terms.start;
        self.fail(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::worker::Timestamps;
    use proptest::prelude::*;

    const TERMS: RolloutTerms = RolloutTerms {
        start: Duration::from_secs(90),
        first_frame: Duration::from_secs(2),
        swap: Duration::from_secs(5),
        probation: Duration::from_secs(30),
    };

    fn result(frame: u64) -> FrameResult {
        FrameResult {
            frame,
            capture_ns: 0,
            width: 1,
            height: 1,
            detections: None,
            events: Vec::new(),
            timestamps: Timestamps::default(),
        }
    }

    fn view(done: u64) -> RunningView {
        RunningView { done: Some(done), source_down: false, sent_since: 1 }
    }

    fn change(shadow: u32, refused_state: RefusedState, now: Instant) -> Rollout {
        Rollout::new(TERMS, shadow, refused_state, now)
    }

    /// Up to the moment when the running version is asked for its state.
    fn until_hand_over(progress: &mut Rollout, now: Instant) {
        let good = Ok(result(7));
        progress.on(RolloutInput::Ready, view(7), now);
        progress.on(RolloutInput::Decoded { first: Some(0) }, view(7), now);
        progress.on(
            RolloutInput::DryRunDone { frame: Some(7), outcome: Some(&good) },
            view(7),
            now,
        );
        progress.on(RolloutInput::Reinstantiated, view(7), now);
        assert_eq!(
            progress.on(RolloutInput::Running(&result(7)), view(7), now),
            [RolloutAction::TakeState]
        );
    }

    #[test]
    fn a_change_goes_through_its_steps_in_order() {
        let now = Instant::now();
        let mut progress = change(0, RefusedState::Keep, now);
        assert_eq!(progress.step(), Step::Start);
        let mark = |id| RolloutAction::Tell(ToWorker::Barrier { id });
        let acts = progress.on(RolloutInput::Ready, view(7), now);
        assert_eq!(acts, [RolloutAction::Begin(Step::CatchUp), RolloutAction::Join, mark(1)]);
        // Its first frame lies behind what the running one has done with: the next key picture is
        // waited for.
        assert_eq!(progress.on(RolloutInput::Decoded { first: Some(9) }, view(7), now), []);
        assert_eq!(progress.on(RolloutInput::Running(&result(8)), view(8), now), [mark(2)]);
        assert_eq!(
            progress.on(RolloutInput::Running(&result(8)), view(8), now),
            [],
            "one mark at a time"
        );
        let acts = progress.on(RolloutInput::Decoded { first: Some(9) }, view(8), now);
        let rehearse = RolloutAction::Tell(ToWorker::DryRun { frame: None });
        assert_eq!(acts, [RolloutAction::Begin(Step::DryRun), rehearse]);
        let good = Ok(result(8));
        let acts = progress.on(
            RolloutInput::DryRunDone { frame: Some(8), outcome: Some(&good) },
            view(8),
            now,
        );
        assert_eq!(acts, [RolloutAction::Tell(ToWorker::Reinstantiate)]);
        assert_eq!(
            progress.on(RolloutInput::Reinstantiated, view(8), now),
            [RolloutAction::Begin(Step::Handoff)]
        );
        assert_eq!(
            progress.on(RolloutInput::Running(&result(9)), view(9), now),
            [RolloutAction::TakeState]
        );
        let acts = progress.on(RolloutInput::State { through: Some(11), bytes: 3 }, view(11), now);
        assert_eq!(
            acts,
            [RolloutAction::Begin(Step::Restore), RolloutAction::Restore { state: true }]
        );
        assert!(!progress.is_promoted());
        let acts = progress.on(RolloutInput::Restored(&Ok(())), view(11), now);
        assert_eq!(
            acts,
            [RolloutAction::Begin(Step::FirstResult), RolloutAction::Promote { after: Some(11) }]
        );
        assert!(progress.is_promoted() && !progress.is_fresh());
    }

    #[test]
    fn a_pipeline_without_state_is_not_asked_to_take_any_over() {
        let now = Instant::now();
        let mut progress = change(0, RefusedState::Keep, now);
        until_hand_over(&mut progress, now);
        let acts = progress.on(RolloutInput::State { through: None, bytes: 0 }, view(7), now);
        let restore =
            [RolloutAction::Begin(Step::Restore), RolloutAction::Restore { state: false }];
        assert_eq!(acts[..2], restore);
        assert_eq!(
            acts[2..],
            [RolloutAction::Begin(Step::FirstResult), RolloutAction::Promote { after: None }]
        );
    }

    #[test]
    fn what_happens_to_a_refused_state_is_the_operators_choice() {
        let now = Instant::now();
        let refused = Err("of another pipeline".to_owned());
        let mut keep = change(0, RefusedState::Keep, now);
        until_hand_over(&mut keep, now);
        keep.on(RolloutInput::State { through: Some(7), bytes: 3 }, view(7), now);
        let acts = keep.on(RolloutInput::Restored(&refused), view(7), now);
        assert!(
            matches!(&acts[..], [RolloutAction::Fail(reason)] if reason.contains("another pipeline")),
            "{acts:?}"
        );

        let mut fresh = change(0, RefusedState::Fresh, now);
        until_hand_over(&mut fresh, now);
        fresh.on(RolloutInput::State { through: Some(7), bytes: 3 }, view(7), now);
        assert_eq!(
            fresh.on(RolloutInput::Restored(&refused), view(7), now),
            [RolloutAction::Tell(ToWorker::Reinstantiate)]
        );
        let acts = fresh.on(RolloutInput::Reinstantiated, view(7), now);
        assert_eq!(
            acts,
            [RolloutAction::Begin(Step::FirstResult), RolloutAction::Promote { after: Some(7) }]
        );
        assert!(fresh.is_fresh());
    }

    #[test]
    fn a_shadow_sees_the_frames_that_the_running_version_has_seen() {
        let now = Instant::now();
        let mut progress = change(2, RefusedState::Keep, now);
        let good = Ok(result(7));
        progress.on(RolloutInput::Ready, view(7), now);
        progress.on(RolloutInput::Decoded { first: Some(0) }, view(7), now);
        let acts = progress.on(
            RolloutInput::DryRunDone { frame: Some(7), outcome: Some(&good) },
            view(7),
            now,
        );
        assert_eq!(acts, [RolloutAction::Begin(Step::Shadow)]);
        for frame in [8, 9] {
            let acts = progress.on(RolloutInput::Running(&result(frame)), view(frame), now);
            assert_eq!(acts, [RolloutAction::Tell(ToWorker::DryRun { frame: Some(frame) })]);
        }
        assert_eq!(
            progress.on(RolloutInput::Running(&result(10)), view(10), now),
            [],
            "two were asked for"
        );
        let (eight, nine) = (Ok(result(8)), Err("no model".to_owned()));
        assert_eq!(
            progress.on(
                RolloutInput::DryRunDone { frame: Some(8), outcome: Some(&eight) },
                view(10),
                now
            ),
            []
        );
        let acts = progress.on(
            RolloutInput::DryRunDone { frame: Some(9), outcome: Some(&nine) },
            view(10),
            now,
        );
        let [RolloutAction::Compared(comparison), RolloutAction::Tell(ToWorker::Reinstantiate)] =
            &acts[..]
        else {
            panic!("{acts:?}")
        };
        assert_eq!((comparison.frames, comparison.errors), (1, 1));
    }

    #[test]
    fn without_frames_there_is_nothing_to_try_and_no_result_to_wait_for() {
        let now = Instant::now();
        let down = RunningView { done: Some(7), source_down: true, sent_since: 0 };
        let mut progress = change(5, RefusedState::Keep, now);
        progress.on(RolloutInput::Ready, down, now);
        let acts = progress.on(RolloutInput::Decoded { first: None }, down, now);
        assert_eq!(acts, [RolloutAction::Begin(Step::Handoff), RolloutAction::TakeState]);
        progress.on(RolloutInput::State { through: Some(7), bytes: 0 }, down, now);
        assert_eq!(
            progress.on(RolloutInput::Tick, down, now + TERMS.swap),
            [RolloutAction::Settle]
        );
    }

    #[test]
    fn a_running_version_without_results_holds_no_change_up() {
        let now = Instant::now();
        let mut progress = change(0, RefusedState::Keep, now);
        let good = Ok(result(7));
        progress.on(RolloutInput::Ready, view(7), now);
        progress.on(RolloutInput::Decoded { first: Some(0) }, view(7), now);
        progress.on(
            RolloutInput::DryRunDone { frame: Some(7), outcome: Some(&good) },
            view(7),
            now,
        );
        progress.on(RolloutInput::Reinstantiated, view(7), now);
        assert_eq!(
            progress.on(RolloutInput::Tick, view(7), now + NEXT_RESULT),
            [RolloutAction::TakeState]
        );
    }

    #[test]
    fn each_step_that_takes_too_long_names_its_setting() {
        let now = Instant::now();
        let late = |progress: &mut Rollout| {
            let deadline = progress.deadline();
            assert_eq!(
                progress.on(RolloutInput::Tick, view(7), deadline - Duration::from_millis(1)),
                []
            );
            match &progress.on(RolloutInput::Tick, view(7), deadline)[..] {
                [RolloutAction::Fail(reason)] => reason.clone(),
                acts => panic!("{acts:?}"),
            }
        };
        assert!(late(&mut change(0, RefusedState::Keep, now)).contains("start_timeout_s"));
        let mut progress = change(0, RefusedState::Keep, now);
        progress.on(RolloutInput::Ready, view(7), now);
        progress.on(RolloutInput::Decoded { first: Some(0) }, view(7), now);
        assert!(late(&mut progress).contains("first_frame_ms"));
        let mut progress = change(0, RefusedState::Keep, now);
        until_hand_over(&mut progress, now);
        let later = now + TERMS.swap / 2;
        progress.on(RolloutInput::Running(&result(8)), view(8), later);
        assert_eq!(progress.deadline(), later + TERMS.swap, "it works off what it has");
        progress.on(RolloutInput::State { through: Some(8), bytes: 0 }, view(8), later);
        assert!(late(&mut progress).contains("swap_timeout_ms"), "of the first result");
    }

    proptest! {
        /// Whatever is said in whatever order, the new version never speaks before the running one
        /// has given its state.
        #[test]
        fn nothing_that_a_worker_says_makes_it_speak_early(inputs in proptest::collection::vec(0u8..8, 0..60), seconds in 0u64..200) {
            let now = Instant::now();
            let mut progress = change(1, RefusedState::Fresh, now);
            let (good, refused, frame) = (Ok(result(1)), Err("no".to_owned()), result(1));
            let mut state_given = false;
            for input in inputs {
                let input = match input {
                    0 => RolloutInput::Ready,
                    1 => RolloutInput::Decoded { first: Some(0) },
                    2 => RolloutInput::DryRunDone { frame: Some(1), outcome: Some(&good) },
                    3 => RolloutInput::Reinstantiated,
                    4 => RolloutInput::Restored(&Ok(())),
                    5 => RolloutInput::Restored(&refused),
                    6 => RolloutInput::Running(&frame),
                    _ => RolloutInput::Tick,
                };
                for act in progress.on(input, view(1), now + Duration::from_secs(seconds)) {
                    let speaks = matches!(act, RolloutAction::Promote { .. } | RolloutAction::Restore { .. });
                    prop_assert!(state_given || !speaks);
                    if act == RolloutAction::TakeState && seconds % 2 == 0 {
                        state_given = true;
                        progress.on(RolloutInput::State { through: Some(1), bytes: 1 }, view(1), now);
                    }
                }
            }
        }
    }
}
