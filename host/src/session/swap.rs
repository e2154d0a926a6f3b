//! The order of a change beside a running worker: what the new version is told when, and when the two change places. A value
//! without processes and clocks: it hears what happens and says what is to be done.
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

/// How long a change waits for a result of the running version, right after which it has most time until the next frame.
/// Cameras that are slower than one frame in this time lose nothing by not waiting.
const NEXT_RESULT: Duration = Duration::from_secs(1);

/// Time limits of a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
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
pub(super) struct View {
    /// The last frame that it has done with.
    pub(super) done: Option<u64>,
    /// The source delivers nothing.
    pub(super) source_down: bool,
    /// Access units that the new version was sent since it was promoted.
    pub(super) sent_since: u64,
}

/// Something that happens.
#[derive(Debug)]
pub(super) enum Input<'a> {
    /// The new version is initialised.
    Ready,
    /// Its answer to a mark.
    Decoded { first: Option<u64> },
    /// Its answer to a rehearsal.
    Rehearsed { frame: Option<u64>, outcome: Option<&'a Result<FrameResult, String>> },
    /// A fresh instance is initialised.
    Renewed,
    /// Its answer to the state.
    Restored(&'a Result<(), String>),
    /// A result of the running version.
    Running(&'a FrameResult),
    /// The running version is alive.
    Beat,
    /// The running version's state: bytes of it, and the last frame that is in it.
    State { through: Option<u64>, bytes: usize },
    /// Time has passed.
    Tick,
}

/// Something to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Act {
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
enum Stage {
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
pub(super) struct Progress {
    terms: Terms,
    stage: Stage,
    step: Step,
    deadline: Instant,
    next_mark: u64,
    shadow: u32,
    comparer: Comparer,
    refused_state: RefusedState,
    through: Option<u64>,
    fresh: bool,
}

impl Progress {
    /// A change that begins now, with [`Step::Start`].
    pub(super) fn new(terms: Terms, shadow: u32, refused_state: RefusedState, now: Instant) -> Self {
        Self {
            terms,
            stage: Stage::Starting,
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

    /// When [`Input::Tick`] means something.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the new version has the source's units.
    pub(super) fn is_promoted(&self) -> bool {
        matches!(self.stage, Stage::Speaking)
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
    pub(super) fn on(&mut self, input: Input<'_>, view: View, now: Instant) -> Vec<Act> {
        match (self.stage, input) {
            (Stage::Starting, Input::Ready) => {
                let mut acts = self.begin(Step::CatchUp);
                acts.push(Act::Join);
                acts.push(self.mark());
                acts
            }
            (Stage::CatchingUp { .. }, Input::Decoded { first }) => {
                // Frames before its first are the running version's to process.
                let caught_up =
                    first.is_some_and(|first| view.done.is_none_or(|done| first <= done.saturating_add(1)));
                if caught_up {
                    self.enter(Stage::Rehearsing, self.terms.first_frame, now);
                    let mut acts = self.begin(Step::Rehearse);
                    acts.push(Act::Tell(ToWorker::Rehearse { frame: None }));
                    acts
                } else if view.source_down {
                    // There is no frame to try it on.
                    let mut acts = self.begin(Step::HandOver);
                    acts.extend(self.take_state(now));
                    acts
                } else {
                    self.stage = Stage::CatchingUp { answered: true };
                    Vec::new()
                }
            }
            (Stage::CatchingUp { answered: true }, Input::Running(_) | Input::Beat) => vec![self.mark()],
            (Stage::Rehearsing, Input::Rehearsed { outcome, .. }) => match outcome {
                Some(Ok(_)) if self.shadow > 0 => {
                    self.enter(Stage::Shadowing, self.terms.start, now);
                    self.begin(Step::Shadow)
                }
                Some(Ok(_)) => self.renew(now),
                Some(Err(words)) => self.fail(format!("its first frame: {words}")),
                None => {
                    self.stage = Stage::CatchingUp { answered: true };
                    Vec::new()
                }
            },
            (Stage::Shadowing, Input::Running(result)) => {
                if self.comparer.asked() < self.shadow && self.comparer.expect(result) {
                    vec![Act::Tell(ToWorker::Rehearse { frame: Some(result.frame) })]
                } else {
                    Vec::new()
                }
            }
            (Stage::Shadowing, Input::Rehearsed { frame: Some(frame), outcome }) => {
                self.comparer.compare(frame, outcome);
                self.deadline = now + self.terms.start;
                if self.comparer.settled() < self.shadow {
                    return Vec::new();
                }
                let comparison = std::mem::take(&mut self.comparer).finish();
                let mut acts = vec![Act::Compared(comparison)];
                acts.extend(self.renew(now));
                acts
            }
            (Stage::Renewing, Input::Renewed) => {
                self.enter(Stage::Aligning, NEXT_RESULT, now);
                self.begin(Step::HandOver)
            }
            (Stage::Aligning, Input::Running(_)) => self.take_state(now),
            // It works off what it has been given: as long as results come, it is getting there.
            (Stage::HandingOver, Input::Running(_)) => {
                self.deadline = now + self.terms.swap;
                Vec::new()
            }
            (Stage::HandingOver, Input::State { through, bytes }) => {
                self.through = through;
                let mut acts = self.begin(Step::Restore);
                acts.push(Act::Restore { state: bytes > 0 });
                if bytes > 0 {
                    self.enter(Stage::Restoring, self.terms.swap, now);
                } else {
                    acts.extend(self.speak(now));
                }
                acts
            }
            (Stage::Restoring, Input::Restored(Ok(()))) => self.speak(now),
            (Stage::Restoring, Input::Restored(Err(words))) => match self.refused_state {
                RefusedState::Keep => self.fail(format!("it refuses the state: {words}")),
                RefusedState::Fresh => {
                    self.fresh = true;
                    self.enter(Stage::RenewingWithoutState, self.terms.swap, now);
                    vec![Act::Tell(ToWorker::Renew)]
                }
            },
            (Stage::RenewingWithoutState, Input::Renewed) => self.speak(now),
            (_, Input::Tick) if now >= self.deadline => self.too_late(view, now),
            _ => Vec::new(),
        }
    }

    fn begin(&mut self, step: Step) -> Vec<Act> {
        self.step = step;
        vec![Act::Begin(step)]
    }

    fn enter(&mut self, stage: Stage, limit: Duration, now: Instant) {
        self.stage = stage;
        self.deadline = now + limit;
    }

    fn mark(&mut self) -> Act {
        self.stage = Stage::CatchingUp { answered: false };
        self.next_mark += 1;
        Act::Tell(ToWorker::Mark { id: self.next_mark })
    }

    /// Nothing of rehearsals is to stay.
    fn renew(&mut self, now: Instant) -> Vec<Act> {
        self.enter(Stage::Renewing, self.terms.start, now);
        vec![Act::Tell(ToWorker::Renew)]
    }

    fn take_state(&mut self, now: Instant) -> Vec<Act> {
        self.enter(Stage::HandingOver, self.terms.swap, now);
        vec![Act::TakeState]
    }

    fn speak(&mut self, now: Instant) -> Vec<Act> {
        self.enter(Stage::Speaking, self.terms.swap, now);
        let mut acts = self.begin(Step::FirstResult);
        acts.push(Act::Promote { after: self.through });
        acts
    }

    fn settle(&mut self) -> Vec<Act> {
        self.stage = Stage::Over;
        self.step = Step::Probation;
        vec![Act::Settle]
    }

    fn fail(&mut self, reason: String) -> Vec<Act> {
        vec![Act::Fail(reason)]
    }

    fn too_late(&mut self, view: View, now: Instant) -> Vec<Act> {
        let Terms { start, first_frame, swap, .. } = self.terms;
        let setting =
            |name: &str, limit: Duration| format!("within {} ms (deploy.{name})", limit.as_millis());
        let start = setting("start_timeout_s", start);
        let swap = setting("swap_timeout_ms", swap);
        let reason = match self.stage {
            Stage::Starting => format!("not initialised {start}"),
            Stage::CatchingUp { .. } => format!("it has not decoded what the running one has {start}"),
            Stage::Rehearsing => {
                format!("no result for its first frame {}", setting("first_frame_ms", first_frame))
            }
            Stage::Shadowing => {
                let (settled, wanted) = (self.comparer.settled(), self.shadow);
                format!("no frame to compare {start}; {settled} of {wanted} are compared")
            }
            Stage::Renewing | Stage::RenewingWithoutState => format!("not initialised again {start}"),
            Stage::Aligning => return self.take_state(now),
            Stage::HandingOver => format!("the running version has not given its state {swap}"),
            Stage::Restoring => format!("it has not taken the state over {swap}"),
            // Without frames there is no result to wait for.
            Stage::Speaking if view.sent_since == 0 => return self.settle(),
            Stage::Speaking => format!("no result {swap} after the change"),
            Stage::Over => return Vec::new(),
        };
        self.deadline = now + self.terms.start;
        self.fail(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::worker::Stations;
    use proptest::prelude::*;

    const TERMS: Terms = Terms {
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
            stations: Stations::default(),
        }
    }

    fn view(done: u64) -> View {
        View { done: Some(done), source_down: false, sent_since: 1 }
    }

    fn change(shadow: u32, refused_state: RefusedState, now: Instant) -> Progress {
        Progress::new(TERMS, shadow, refused_state, now)
    }

    /// Up to the moment when the running version is asked for its state.
    fn until_hand_over(progress: &mut Progress, now: Instant) {
        let good = Ok(result(7));
        progress.on(Input::Ready, view(7), now);
        progress.on(Input::Decoded { first: Some(0) }, view(7), now);
        progress.on(Input::Rehearsed { frame: Some(7), outcome: Some(&good) }, view(7), now);
        progress.on(Input::Renewed, view(7), now);
        assert_eq!(progress.on(Input::Running(&result(7)), view(7), now), [Act::TakeState]);
    }

    #[test]
    fn a_change_goes_through_its_steps_in_order() {
        let now = Instant::now();
        let mut progress = change(0, RefusedState::Keep, now);
        assert_eq!(progress.step(), Step::Start);
        let mark = |id| Act::Tell(ToWorker::Mark { id });
        let acts = progress.on(Input::Ready, view(7), now);
        assert_eq!(acts, [Act::Begin(Step::CatchUp), Act::Join, mark(1)]);
        // Its first frame lies behind what the running one has done with: the next key picture is waited for.
        assert_eq!(progress.on(Input::Decoded { first: Some(9) }, view(7), now), []);
        assert_eq!(progress.on(Input::Running(&result(8)), view(8), now), [mark(2)]);
        assert_eq!(progress.on(Input::Running(&result(8)), view(8), now), [], "one mark at a time");
        let acts = progress.on(Input::Decoded { first: Some(9) }, view(8), now);
        let rehearse = Act::Tell(ToWorker::Rehearse { frame: None });
        assert_eq!(acts, [Act::Begin(Step::Rehearse), rehearse]);
        let good = Ok(result(8));
        let acts = progress.on(Input::Rehearsed { frame: Some(8), outcome: Some(&good) }, view(8), now);
        assert_eq!(acts, [Act::Tell(ToWorker::Renew)]);
        assert_eq!(progress.on(Input::Renewed, view(8), now), [Act::Begin(Step::HandOver)]);
        assert_eq!(progress.on(Input::Running(&result(9)), view(9), now), [Act::TakeState]);
        let acts = progress.on(Input::State { through: Some(11), bytes: 3 }, view(11), now);
        assert_eq!(acts, [Act::Begin(Step::Restore), Act::Restore { state: true }]);
        assert!(!progress.is_promoted());
        let acts = progress.on(Input::Restored(&Ok(())), view(11), now);
        assert_eq!(acts, [Act::Begin(Step::FirstResult), Act::Promote { after: Some(11) }]);
        assert!(progress.is_promoted() && !progress.is_fresh());
    }

    #[test]
    fn a_pipeline_without_state_is_not_asked_to_take_any_over() {
        let now = Instant::now();
        let mut progress = change(0, RefusedState::Keep, now);
        until_hand_over(&mut progress, now);
        let acts = progress.on(Input::State { through: None, bytes: 0 }, view(7), now);
        let restore = [Act::Begin(Step::Restore), Act::Restore { state: false }];
        assert_eq!(acts[..2], restore);
        assert_eq!(acts[2..], [Act::Begin(Step::FirstResult), Act::Promote { after: None }]);
    }

    #[test]
    fn what_happens_to_a_refused_state_is_the_operators_choice() {
        let now = Instant::now();
        let refused = Err("of another pipeline".to_owned());
        let mut keep = change(0, RefusedState::Keep, now);
        until_hand_over(&mut keep, now);
        keep.on(Input::State { through: Some(7), bytes: 3 }, view(7), now);
        let acts = keep.on(Input::Restored(&refused), view(7), now);
        assert!(matches!(&acts[..], [Act::Fail(reason)] if reason.contains("another pipeline")), "{acts:?}");

        let mut fresh = change(0, RefusedState::Fresh, now);
        until_hand_over(&mut fresh, now);
        fresh.on(Input::State { through: Some(7), bytes: 3 }, view(7), now);
        assert_eq!(fresh.on(Input::Restored(&refused), view(7), now), [Act::Tell(ToWorker::Renew)]);
        let acts = fresh.on(Input::Renewed, view(7), now);
        assert_eq!(acts, [Act::Begin(Step::FirstResult), Act::Promote { after: Some(7) }]);
        assert!(fresh.is_fresh());
    }

    #[test]
    fn a_shadow_sees_the_frames_that_the_running_version_has_seen() {
        let now = Instant::now();
        let mut progress = change(2, RefusedState::Keep, now);
        let good = Ok(result(7));
        progress.on(Input::Ready, view(7), now);
        progress.on(Input::Decoded { first: Some(0) }, view(7), now);
        let acts = progress.on(Input::Rehearsed { frame: Some(7), outcome: Some(&good) }, view(7), now);
        assert_eq!(acts, [Act::Begin(Step::Shadow)]);
        for frame in [8, 9] {
            let acts = progress.on(Input::Running(&result(frame)), view(frame), now);
            assert_eq!(acts, [Act::Tell(ToWorker::Rehearse { frame: Some(frame) })]);
        }
        assert_eq!(progress.on(Input::Running(&result(10)), view(10), now), [], "two were asked for");
        let (eight, nine) = (Ok(result(8)), Err("no model".to_owned()));
        assert_eq!(
            progress.on(Input::Rehearsed { frame: Some(8), outcome: Some(&eight) }, view(10), now),
            []
        );
        let acts = progress.on(Input::Rehearsed { frame: Some(9), outcome: Some(&nine) }, view(10), now);
        let [Act::Compared(comparison), Act::Tell(ToWorker::Renew)] = &acts[..] else { panic!("{acts:?}") };
        assert_eq!((comparison.frames, comparison.errors), (1, 1));
    }

    #[test]
    fn without_frames_there_is_nothing_to_try_and_no_result_to_wait_for() {
        let now = Instant::now();
        let down = View { done: Some(7), source_down: true, sent_since: 0 };
        let mut progress = change(5, RefusedState::Keep, now);
        progress.on(Input::Ready, down, now);
        let acts = progress.on(Input::Decoded { first: None }, down, now);
        assert_eq!(acts, [Act::Begin(Step::HandOver), Act::TakeState]);
        progress.on(Input::State { through: Some(7), bytes: 0 }, down, now);
        assert_eq!(progress.on(Input::Tick, down, now + TERMS.swap), [Act::Settle]);
    }

    #[test]
    fn a_running_version_without_results_holds_no_change_up() {
        let now = Instant::now();
        let mut progress = change(0, RefusedState::Keep, now);
        let good = Ok(result(7));
        progress.on(Input::Ready, view(7), now);
        progress.on(Input::Decoded { first: Some(0) }, view(7), now);
        progress.on(Input::Rehearsed { frame: Some(7), outcome: Some(&good) }, view(7), now);
        progress.on(Input::Renewed, view(7), now);
        assert_eq!(progress.on(Input::Tick, view(7), now + NEXT_RESULT), [Act::TakeState]);
    }

    #[test]
    fn each_step_that_takes_too_long_names_its_setting() {
        let now = Instant::now();
        let late = |progress: &mut Progress| {
            let deadline = progress.deadline();
            assert_eq!(progress.on(Input::Tick, view(7), deadline - Duration::from_millis(1)), []);
            match &progress.on(Input::Tick, view(7), deadline)[..] {
                [Act::Fail(reason)] => reason.clone(),
                acts => panic!("{acts:?}"),
            }
        };
        assert!(late(&mut change(0, RefusedState::Keep, now)).contains("start_timeout_s"));
        let mut progress = change(0, RefusedState::Keep, now);
        progress.on(Input::Ready, view(7), now);
        progress.on(Input::Decoded { first: Some(0) }, view(7), now);
        assert!(late(&mut progress).contains("first_frame_ms"));
        let mut progress = change(0, RefusedState::Keep, now);
        until_hand_over(&mut progress, now);
        let later = now + TERMS.swap / 2;
        progress.on(Input::Running(&result(8)), view(8), later);
        assert_eq!(progress.deadline(), later + TERMS.swap, "it works off what it has");
        progress.on(Input::State { through: Some(8), bytes: 0 }, view(8), later);
        assert!(late(&mut progress).contains("swap_timeout_ms"), "of the first result");
    }

    proptest! {
        /// Whatever is said in whatever order, the new version never speaks before the running one has given its state.
        #[test]
        fn nothing_that_a_worker_says_makes_it_speak_early(inputs in proptest::collection::vec(0u8..8, 0..60), seconds in 0u64..200) {
            let now = Instant::now();
            let mut progress = change(1, RefusedState::Fresh, now);
            let (good, refused, frame) = (Ok(result(1)), Err("no".to_owned()), result(1));
            let mut state_given = false;
            for input in inputs {
                let input = match input {
                    0 => Input::Ready,
                    1 => Input::Decoded { first: Some(0) },
                    2 => Input::Rehearsed { frame: Some(1), outcome: Some(&good) },
                    3 => Input::Renewed,
                    4 => Input::Restored(&Ok(())),
                    5 => Input::Restored(&refused),
                    6 => Input::Running(&frame),
                    _ => Input::Tick,
                };
                for act in progress.on(input, view(1), now + Duration::from_secs(seconds)) {
                    let speaks = matches!(act, Act::Promote { .. } | Act::Restore { .. });
                    prop_assert!(state_given || !speaks);
                    if act == Act::TakeState && seconds % 2 == 0 {
                        state_given = true;
                        progress.on(Input::State { through: Some(1), bytes: 1 }, view(1), now);
                    }
                }
            }
        }
    }
}
