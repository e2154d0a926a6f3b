use super::*;
use CandidateInput as Input;
use ocelli_protocol::worker::{CaptureClock, Timestamps};
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
        presentation_ns: 0,
        capture_ns: 0,
        capture_clock: CaptureClock::Host,
        width: 1,
        height: 1,
        detections: None,
        events: Vec::new(),
        basis: None,
        timestamps: Timestamps::default(),
    }
}

fn view(done: u64) -> RunningView {
    RunningView { last_done: Some(done), source_down: false, sent_since: 1 }
}

fn change(shadow: u32, handover: StateHandover, now: Instant) -> Rollout {
    let shadow = Shadow { frames: shadow, ..Shadow::default() };
    Rollout::beside(TERMS, shadow, handover, now)
}

/// Up to the moment when the running version is asked for its state.
fn until_hand_over(rollout: &mut Rollout, now: Instant) {
    let good = Ok(result(7));
    rollout.on_candidate(Input::Ready, view(7), now);
    rollout.on_candidate(Input::BarrierReached { first: Some(0) }, view(7), now);
    rollout.on_candidate(Input::DryRunDone { frame: Some(7), outcome: Some(&good) }, view(7), now);
    rollout.on_candidate(Input::Reinstantiated, view(7), now);
    assert_eq!(
        rollout.on_candidate(Input::RunningResult(&result(7)), view(7), now),
        [Action::TakeSnapshot]
    );
}

#[test]
fn a_change_goes_through_its_steps_in_order() {
    let now = Instant::now();
    let mut rollout = change(0, StateHandover::Keep, now);
    assert_eq!(rollout.step(), Step::Start);
    let barrier = |id| Action::Send(ToWorker::Barrier { id });
    let acts = rollout.on_candidate(Input::Ready, view(7), now);
    assert_eq!(acts, [started(Step::CatchUp), Action::Attach, barrier(1)]);
    // Its first frame lies behind what the running one has done with: the next key picture is
    // waited for.
    assert_eq!(rollout.on_candidate(Input::BarrierReached { first: Some(9) }, view(7), now), []);
    assert_eq!(rollout.on_candidate(Input::RunningResult(&result(8)), view(8), now), [barrier(2)]);
    assert_eq!(
        rollout.on_candidate(Input::RunningResult(&result(8)), view(8), now),
        [],
        "one mark at a time"
    );
    let acts = rollout.on_candidate(Input::BarrierReached { first: Some(9) }, view(8), now);
    let rehearse = Action::Send(ToWorker::DryRun { frame: None });
    assert_eq!(acts, [started(Step::DryRun), rehearse]);
    let good = Ok(result(8));
    let acts = rollout.on_candidate(
        Input::DryRunDone { frame: Some(8), outcome: Some(&good) },
        view(8),
        now,
    );
    assert_eq!(acts, [Action::Send(ToWorker::Reinstantiate)]);
    assert_eq!(rollout.on_candidate(Input::Reinstantiated, view(8), now), [started(Step::Handoff)]);
    assert_eq!(
        rollout.on_candidate(Input::RunningResult(&result(9)), view(9), now),
        [Action::TakeSnapshot]
    );
    let acts = rollout.on_candidate(
        Input::Snapshot { last_frame: Some(11), bytes: 3, foreign: false },
        view(11),
        now,
    );
    assert_eq!(acts, [started(Step::Restore), Action::Restore { state: true }]);
    assert!(!rollout.is_promoted());
    let acts = rollout.on_candidate(Input::Restored(&Ok(())), view(11), now);
    assert_eq!(acts, [started(Step::FirstResult), Action::Promote { after: Some(11) }]);
    assert!(rollout.is_promoted() && !rollout.swapped().fresh);
}

#[test]
fn a_pipeline_without_state_is_not_asked_to_take_any_over() {
    let now = Instant::now();
    let mut rollout = change(0, StateHandover::Keep, now);
    until_hand_over(&mut rollout, now);
    let acts = rollout.on_candidate(
        Input::Snapshot { last_frame: None, bytes: 0, foreign: false },
        view(7),
        now,
    );
    let restore = [started(Step::Restore), Action::Restore { state: false }];
    assert_eq!(acts[..2], restore);
    assert_eq!(acts[2..], [started(Step::FirstResult), Action::Promote { after: None }]);
}

#[test]
fn what_happens_to_a_refused_state_is_the_operators_choice() {
    let now = Instant::now();
    let refused = Err("of another pipeline".to_owned());
    let mut keep = change(0, StateHandover::Keep, now);
    until_hand_over(&mut keep, now);
    keep.on_candidate(
        Input::Snapshot { last_frame: Some(7), bytes: 3, foreign: false },
        view(7),
        now,
    );
    let acts = keep.on_candidate(Input::Restored(&refused), view(7), now);
    assert!(
        matches!(&acts[..], [Action::Abort(reason)] if reason.contains("another pipeline")),
        "{acts:?}"
    );

    let mut fresh = change(0, StateHandover::FreshIfRefused, now);
    until_hand_over(&mut fresh, now);
    fresh.on_candidate(
        Input::Snapshot { last_frame: Some(7), bytes: 3, foreign: false },
        view(7),
        now,
    );
    assert_eq!(
        fresh.on_candidate(Input::Restored(&refused), view(7), now),
        [Action::Send(ToWorker::Reinstantiate)]
    );
    let acts = fresh.on_candidate(Input::Reinstantiated, view(7), now);
    assert_eq!(acts, [started(Step::FirstResult), Action::Promote { after: Some(7) }]);
    assert!(fresh.swapped().fresh);
}

#[test]
fn a_state_is_not_handed_to_another_pipeline_nor_where_a_fresh_start_is_asked_for() {
    let now = Instant::now();
    for (handover, foreign) in [
        (StateHandover::Fresh, false),
        (StateHandover::Fresh, true),
        (StateHandover::Keep, true),
        (StateHandover::FreshIfRefused, true),
    ] {
        for bytes in [0, 3] {
            let mut rollout = change(0, handover, now);
            until_hand_over(&mut rollout, now);
            let snapshot = Input::Snapshot { last_frame: Some(7), bytes, foreign };
            let acts = rollout.on_candidate(snapshot, view(7), now);
            let expected = [
                started(Step::Restore),
                Action::Restore { state: false },
                started(Step::FirstResult),
                Action::Promote { after: Some(7) },
            ];
            assert_eq!(acts, expected, "{handover:?}, foreign: {foreign}");
            assert_eq!(rollout.swapped().fresh, bytes > 0);
        }
    }
}

/// What follows the comparison of one frame, for which the new version has an error or not.
fn after_shadow(shadow: Shadow, is_error: bool) -> Vec<Action> {
    let now = Instant::now();
    let mut rollout = Rollout::beside(TERMS, shadow, StateHandover::Keep, now);
    rollout.on_candidate(Input::Ready, view(7), now);
    rollout.on_candidate(Input::BarrierReached { first: Some(0) }, view(7), now);
    let good = Ok(result(8));
    let tried = Input::DryRunDone { frame: Some(8), outcome: Some(&good) };
    rollout.on_candidate(tried, view(7), now);
    rollout.on_candidate(Input::RunningResult(&result(8)), view(8), now);
    let outcome = if is_error { Err("no model".to_owned()) } else { Ok(result(8)) };
    let compared = Input::DryRunDone { frame: Some(8), outcome: Some(&outcome) };
    let mut acts = rollout.on_candidate(compared, view(8), now);
    assert!(matches!(acts.remove(0), Action::Report(Report::Compared(_))));
    acts
}

#[test]
fn a_comparison_may_be_all_that_is_asked_for_or_a_condition() {
    let once = Shadow { frames: 1, ..Shadow::default() };
    assert_eq!(after_shadow(once, true), [Action::Send(ToWorker::Reinstantiate)]);
    let only = Shadow { only: true, ..once };
    assert_eq!(after_shadow(only, false), [Action::Dismiss]);
    let strict = Shadow { threshold: Some(0.9), ..once };
    assert_eq!(after_shadow(strict, false), [Action::Send(ToWorker::Reinstantiate)]);
    let given_up = after_shadow(strict, true);
    let [Action::Abort(reason)] = &given_up[..] else { panic!("{given_up:?}") };
    assert!(reason.contains("0.9"), "{reason}");

    let now = Instant::now();
    let mut rollout = Rollout::beside(TERMS, strict, StateHandover::Keep, now);
    rollout.on_candidate(Input::Ready, view(7), now);
    let down = RunningView { source_down: true, ..view(7) };
    let acts = rollout.on_candidate(Input::BarrierReached { first: None }, down, now);
    assert!(matches!(&acts[..], [Action::Abort(_)]), "no frame, no comparison: {acts:?}");
}

#[test]
fn a_shadow_sees_the_frames_that_the_running_version_has_seen() {
    let now = Instant::now();
    let mut rollout = change(2, StateHandover::Keep, now);
    let good = Ok(result(7));
    rollout.on_candidate(Input::Ready, view(7), now);
    rollout.on_candidate(Input::BarrierReached { first: Some(0) }, view(7), now);
    let acts = rollout.on_candidate(
        Input::DryRunDone { frame: Some(7), outcome: Some(&good) },
        view(7),
        now,
    );
    assert_eq!(acts, [started(Step::Shadow)]);
    for frame in [8, 9] {
        let acts = rollout.on_candidate(Input::RunningResult(&result(frame)), view(frame), now);
        assert_eq!(acts, [Action::Send(ToWorker::DryRun { frame: Some(frame) })]);
    }
    assert_eq!(
        rollout.on_candidate(Input::RunningResult(&result(10)), view(10), now),
        [],
        "two were asked for"
    );
    let (eight, nine) = (Ok(result(8)), Err("no model".to_owned()));
    assert_eq!(
        rollout.on_candidate(
            Input::DryRunDone { frame: Some(8), outcome: Some(&eight) },
            view(10),
            now
        ),
        []
    );
    let acts = rollout.on_candidate(
        Input::DryRunDone { frame: Some(9), outcome: Some(&nine) },
        view(10),
        now,
    );
    let [Action::Report(Report::Compared(comparison)), Action::Send(ToWorker::Reinstantiate)] =
        &acts[..]
    else {
        panic!("{acts:?}")
    };
    assert_eq!((comparison.frames, comparison.errors), (1, 1));
}

#[test]
fn without_frames_there_is_nothing_to_try_and_no_result_to_wait_for() {
    let now = Instant::now();
    let down = RunningView { last_done: Some(7), source_down: true, sent_since: 0 };
    let mut rollout = change(5, StateHandover::Keep, now);
    rollout.on_candidate(Input::Ready, down, now);
    let acts = rollout.on_candidate(Input::BarrierReached { first: None }, down, now);
    assert_eq!(acts, [started(Step::Handoff), Action::TakeSnapshot]);
    rollout.on_candidate(
        Input::Snapshot { last_frame: Some(7), bytes: 0, foreign: false },
        down,
        now,
    );
    assert_eq!(rollout.on_candidate(Input::Tick, down, now + TERMS.swap), [Action::Complete]);
}

#[test]
fn a_running_version_without_results_holds_no_change_up() {
    let now = Instant::now();
    let mut rollout = change(0, StateHandover::Keep, now);
    let good = Ok(result(7));
    rollout.on_candidate(Input::Ready, view(7), now);
    rollout.on_candidate(Input::BarrierReached { first: Some(0) }, view(7), now);
    rollout.on_candidate(Input::DryRunDone { frame: Some(7), outcome: Some(&good) }, view(7), now);
    rollout.on_candidate(Input::Reinstantiated, view(7), now);
    assert_eq!(
        rollout.on_candidate(Input::Tick, view(7), now + NEXT_RESULT),
        [Action::TakeSnapshot]
    );
}

#[test]
fn each_step_that_takes_too_long_names_its_setting() {
    let now = Instant::now();
    let late = |rollout: &mut Rollout| {
        let deadline = rollout.deadline().unwrap();
        assert_eq!(
            rollout.on_candidate(Input::Tick, view(7), deadline - Duration::from_millis(1)),
            []
        );
        match &rollout.on_candidate(Input::Tick, view(7), deadline)[..] {
            [Action::Abort(reason)] => reason.clone(),
            acts => panic!("{acts:?}"),
        }
    };
    assert!(late(&mut change(0, StateHandover::Keep, now)).contains("start_timeout_s"));
    let mut rollout = change(0, StateHandover::Keep, now);
    rollout.on_candidate(Input::Ready, view(7), now);
    rollout.on_candidate(Input::BarrierReached { first: Some(0) }, view(7), now);
    assert!(late(&mut rollout).contains("first_frame_ms"));
    let mut rollout = change(0, StateHandover::Keep, now);
    until_hand_over(&mut rollout, now);
    let later = now + TERMS.swap / 2;
    rollout.on_candidate(Input::RunningResult(&result(8)), view(8), later);
    assert_eq!(rollout.deadline().unwrap(), later + TERMS.swap, "it works off what it has");
    rollout.on_candidate(
        Input::Snapshot { last_frame: Some(8), bytes: 0, foreign: false },
        view(8),
        later,
    );
    assert!(late(&mut rollout).contains("swap_timeout_ms"), "of the first result");
}

proptest! {
    /// Whatever is said in whatever order, the new version never speaks before the running one has
    /// given its state.
    #[test]
    fn nothing_that_a_worker_says_makes_it_speak_early(inputs in proptest::collection::vec(0u8..8, 0..60), seconds in 0u64..200) {
        let now = Instant::now();
        let mut rollout = change(1, StateHandover::FreshIfRefused, now);
        let (good, refused, frame) = (Ok(result(1)), Err("no".to_owned()), result(1));
        let mut state_given = false;
        for input in inputs {
            let input = match input {
                0 => Input::Ready,
                1 => Input::BarrierReached { first: Some(0) },
                2 => Input::DryRunDone { frame: Some(1), outcome: Some(&good) },
                3 => Input::Reinstantiated,
                4 => Input::Restored(&Ok(())),
                5 => Input::Restored(&refused),
                6 => Input::RunningResult(&frame),
                _ => Input::Tick,
            };
            for act in rollout.on_candidate(input, view(1), now + Duration::from_secs(seconds)) {
                let speaks = matches!(act, Action::Promote { .. } | Action::Restore { .. });
                prop_assert!(state_given || !speaks);
                if act == Action::TakeSnapshot && seconds % 2 == 0 {
                    state_given = true;
                    rollout.on_candidate(Input::Snapshot { last_frame: Some(1), bytes: 1, foreign: false }, view(1), now);
                }
            }
        }
    }
}

fn started(step: Step) -> Action {
    Action::Report(Report::StepStarted(step))
}

/// A version that serves since `now`, on probation.
fn on_probation(now: Instant) -> Rollout {
    let mut rollout = Rollout::in_place(TERMS);
    let serving = VersionInput::Serving { probation: TERMS.probation };
    assert_eq!(rollout.on_version(serving, false, now), None);
    rollout
}

#[test]
fn a_version_is_healthy_after_its_probation_with_a_result() {
    let now = Instant::now();
    let mut rollout = on_probation(now);
    let over = rollout.deadline().unwrap();
    assert_eq!(over, now + TERMS.probation);
    assert_eq!(rollout.on_version(VersionInput::Tick, true, now), None, "too early");
    assert_eq!(rollout.on_version(VersionInput::Tick, false, over), None, "without a result");
    let extended = rollout.deadline().unwrap();
    assert_eq!(extended, over + STABLE_AFTER);
    assert_eq!(rollout.on_version(VersionInput::Tick, true, extended), Some(Report::Healthy));
    assert_eq!(rollout.deadline(), None);
}

#[test]
fn a_completed_candidate_is_on_probation() {
    let now = Instant::now();
    let mut rollout = change(0, StateHandover::Keep, now);
    until_hand_over(&mut rollout, now);
    rollout.on_candidate(
        Input::Snapshot { last_frame: Some(7), bytes: 0, foreign: false },
        view(7),
        now,
    );
    let first = Input::FirstResult { frame: Some(8) };
    assert_eq!(rollout.on_candidate(first, view(7), now), [Action::Complete]);
    assert_eq!((rollout.step(), rollout.swapped().first_frame), (Step::Probation, Some(8)));
    let end = now + TERMS.probation;
    assert_eq!(rollout.on_version(VersionInput::Tick, true, end), Some(Report::Healthy));
}

#[test]
fn a_rollback_ends_with_the_version_before() {
    let now = Instant::now();
    let serving = || VersionInput::Serving { probation: TERMS.probation };
    let ended = |with_state| Some(Report::RolledBack { reason: "lost".into(), with_state });
    for (has_state, inputs, with_state) in [
        (true, vec![serving(), VersionInput::Restored { accepted: true }], true),
        (true, vec![serving(), VersionInput::Restored { accepted: false }], false),
        (true, vec![VersionInput::Lost], false),
        (false, vec![VersionInput::Finished, serving()], false),
        (false, vec![VersionInput::Stopped("asked".into())], false),
        (true, vec![serving(), VersionInput::Superseded], false),
    ] {
        let mut rollout = on_probation(now);
        rollout.roll_back("lost".into(), has_state);
        let reports: Vec<_> =
            inputs.into_iter().map(|input| rollout.on_version(input, true, now)).collect();
        let (last, before) = reports.split_last().unwrap();
        assert!(before.iter().all(Option::is_none), "{before:?}");
        assert_eq!(last, &ended(with_state));
    }
}

fn version_input() -> impl Strategy<Value = VersionInput> {
    prop_oneof![
        Just(VersionInput::Serving { probation: TERMS.probation }),
        any::<bool>().prop_map(|accepted| VersionInput::Restored { accepted }),
        Just(VersionInput::Lost),
        Just(VersionInput::Finished),
        Just(VersionInput::Failed("crash loop".into())),
        Just(VersionInput::Superseded),
        Just(VersionInput::Stopped("asked".into())),
        Just(VersionInput::Tick),
    ]
}

proptest! {
    #[test]
    fn a_change_has_one_outcome(
        inputs in proptest::collection::vec((version_input(), any::<bool>(), 0u64..100), 0..30),
        rolls_back_at in 0usize..30,
    ) {
        let now = Instant::now();
        let mut rollout = Rollout::in_place(TERMS);
        let mut reports = Vec::new();
        for (number, (input, has_results, seconds)) in inputs.into_iter().enumerate() {
            if number == rolls_back_at && reports.is_empty() {
                rollout.roll_back("lost".into(), has_results);
            }
            reports.extend(rollout.on_version(input, has_results, now + Duration::from_secs(seconds)));
        }
        prop_assert!(reports.len() <= 1 && reports.iter().all(Report::is_last), "{reports:?}");
    }
}
