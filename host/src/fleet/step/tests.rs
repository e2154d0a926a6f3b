use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::record::{FORMAT, RolloutSource};
use super::*;

const EPOCH: Epoch = Epoch(7);

fn rollout(cameras: usize) -> FleetRollout {
    FleetRollout {
        format: FORMAT,
        id: 1,
        pipeline: "eye".into(),
        source: RolloutSource::Name("eye".into()),
        settings: None,
        shadow: 0,
        threshold: None,
        cameras: (0..cameras).map(|number| format!("cam-{number:04}")).collect(),
        waves: waves(cameras),
        wave: 0,
        state: RolloutState::Running,
        code: None,
        reason: None,
        by: "ann".into(),
        started: String::new(),
        ended: None,
    }
}

fn result(state: CameraStep) -> CameraResult {
    CameraResult {
        format: FORMAT,
        state,
        epoch: EPOCH,
        host: "a".into(),
        number: Some(2),
        deployment: None,
        code: None,
        reason: Some("no result".into()),
    }
}

fn next(rollout: &FleetRollout, results: &CameraResults) -> RolloutStep {
    step(rollout, results, |_| true)
}

/// Says of the cameras of a wave what `of` says of each.
fn tell(
    rollout: &FleetRollout,
    results: &mut CameraResults,
    wave: usize,
    of: impl Fn(usize) -> CameraStep,
) {
    for (place, camera) in rollout.of_wave(wave).iter().enumerate() {
        results.insert(camera.clone(), result(of(place)));
    }
}

#[test]
fn one_then_a_tenth_then_all() {
    assert_eq!(waves(1000), [1, 100, 1000]);
    assert_eq!(waves(11), [1, 2, 11]);
    assert_eq!(waves(10), [1, 10]);
    assert_eq!(waves(1), [1]);
    let rollout = rollout(1000);
    let sizes: Vec<usize> = (0..3).map(|wave| rollout.of_wave(wave).len()).collect();
    assert_eq!(sizes, [1, 99, 900]);
    assert_eq!(rollout.wave_of("cam-0099"), Some(1));
    assert_eq!(rollout.wave_of("cam-0100"), Some(2));
    assert_eq!(rollout.wave_of("other"), None);
}

#[test]
fn a_canary_that_fails_stops_it_and_two_in_a_hundred_of_a_wave_do_not() {
    let mut rollout = rollout(1000);
    let mut results = CameraResults::new();
    assert_eq!(next(&rollout, &results), RolloutStep::Wait);
    tell(&rollout, &mut results, 0, |_| CameraStep::Failed);
    let RolloutStep::Return { code: "canary_failed", reason } = next(&rollout, &results) else {
        panic!("it goes on")
    };
    assert_eq!(reason, "the canary cam-0000 failed: no result");
    tell(&rollout, &mut results, 0, |_| CameraStep::Healthy);
    assert_eq!(next(&rollout, &results), RolloutStep::Open(1));
    rollout.wave = 1;
    let fail = |most: usize| {
        move |place| if place < most { CameraStep::Failed } else { CameraStep::Healthy }
    };
    // 1 of 99 is less than 2 %, 2 are more.
    tell(&rollout, &mut results, 1, fail(1));
    assert_eq!(next(&rollout, &results), RolloutStep::Open(2));
    tell(&rollout, &mut results, 1, fail(2));
    assert!(matches!(next(&rollout, &results), RolloutStep::Return { code: "wave_failed", .. }));
    tell(&rollout, &mut results, 1, fail(1));
    rollout.wave = 2;
    tell(&rollout, &mut results, 2, fail(18));
    assert_eq!(next(&rollout, &results), RolloutStep::Finish);
    tell(&rollout, &mut results, 2, fail(19));
    assert!(matches!(next(&rollout, &results), RolloutStep::Return { code: "wave_failed", .. }));
}

#[test]
fn a_camera_that_the_site_no_longer_has_holds_nothing_up() {
    let mut rollout = rollout(3);
    let mut results = CameraResults::new();
    assert_eq!(step(&rollout, &results, |_| false), RolloutStep::Open(1));
    tell(&rollout, &mut results, 0, |_| CameraStep::Deploying);
    rollout.state = RolloutState::Returning;
    assert_eq!(next(&rollout, &results), RolloutStep::Wait);
    assert_eq!(step(&rollout, &results, |_| false), RolloutStep::Finished);
    tell(&rollout, &mut results, 0, |_| CameraStep::Returned);
    assert_eq!(next(&rollout, &results), RolloutStep::Finished);
}

#[test]
fn an_owner_does_what_its_epoch_has_not_done() {
    let mut rollout = rollout(3);
    let at = |rollout: &FleetRollout, result: Option<&CameraResult>, epoch| {
        duty(rollout, "cam-0000", result, epoch)
    };
    let (deploying, healthy) = (result(CameraStep::Deploying), result(CameraStep::Healthy));
    let failed = result(CameraStep::Failed);
    let later = Epoch(9);
    assert_eq!(at(&rollout, None, EPOCH), OwnerDuty::Deploy);
    assert_eq!(at(&rollout, Some(&deploying), later), OwnerDuty::Deploy, "its host has died");
    assert_eq!(at(&rollout, Some(&healthy), EPOCH), OwnerDuty::Nothing);
    assert_eq!(
        at(&rollout, Some(&healthy), later),
        OwnerDuty::Deploy,
        "the new host may not have it"
    );
    assert_eq!(at(&rollout, Some(&failed), later), OwnerDuty::Nothing);
    assert_eq!(duty(&rollout, "cam-0001", None, EPOCH), OwnerDuty::Nothing, "a later wave");
    assert_eq!(duty(&rollout, "other", None, EPOCH), OwnerDuty::Nothing);
    rollout.state = RolloutState::Returning;
    for (result, expected) in [
        (None, OwnerDuty::Nothing),
        (Some(&deploying), OwnerDuty::Return),
        (Some(&healthy), OwnerDuty::Return),
        (Some(&failed), OwnerDuty::Nothing),
    ] {
        assert_eq!(at(&rollout, result, EPOCH), expected);
        assert_eq!(at(&rollout, result, later), expected);
    }
    rollout.state = RolloutState::Done;
    assert_eq!(at(&rollout, Some(&healthy), EPOCH), OwnerDuty::Nothing);
    assert_eq!(at(&rollout, Some(&healthy), later), OwnerDuty::Nothing, "its history decides");
    rollout.state = RolloutState::Returned;
    assert_eq!(at(&rollout, Some(&healthy), later), OwnerDuty::Nothing);
}

/// What happens to a rollout from outside.
#[derive(Debug, Clone)]
enum Happening {
    /// The owner of a camera takes its duty up, and succeeds or not.
    Owner { camera: usize, fails: bool, finishes: bool },
    /// The camera goes to another host.
    Moves { camera: usize },
    /// A planner takes the next step.
    Planner,
    /// An operator stops it.
    Stop,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        12 => (0..200usize, prop::bool::weighted(0.02), any::<bool>())
            .prop_map(|(camera, fails, finishes)| Happening::Owner { camera, fails, finishes }),
        2 => (0..200usize).prop_map(|camera| Happening::Moves { camera }),
        4 => Just(Happening::Planner),
        1 => Just(Happening::Stop),
    ]
}

/// A site on paper.
struct Model {
    rollout: FleetRollout,
    results: CameraResults,
    epochs: BTreeMap<String, Epoch>,
}

impl Model {
    fn new(cameras: usize) -> Self {
        let rollout = rollout(cameras);
        let epochs = rollout.cameras.iter().map(|camera| (camera.clone(), Epoch(1))).collect();
        Self { rollout, results: CameraResults::new(), epochs }
    }

    fn own(&mut self, camera: &str, fails: bool, finishes: bool) {
        let epoch = self.epochs[camera];
        let before = self.results.get(camera);
        let state = match duty(&self.rollout, camera, before, epoch) {
            OwnerDuty::Nothing => return,
            OwnerDuty::Return => CameraStep::Returned,
            OwnerDuty::Deploy if !finishes => CameraStep::Deploying,
            OwnerDuty::Deploy if fails => CameraStep::Failed,
            OwnerDuty::Deploy => CameraStep::Healthy,
        };
        self.results.insert(camera.to_owned(), CameraResult { epoch, ..result(state) });
    }

    fn plan(&mut self) {
        match next(&self.rollout, &self.results) {
            RolloutStep::Wait => {}
            RolloutStep::Open(wave) => {
                assert_eq!(wave, self.rollout.wave + 1, "no wave is left out");
                self.rollout.wave = wave;
            }
            RolloutStep::Finish => {
                let failed = self.results.values().filter(|one| one.state == CameraStep::Failed);
                let cameras = self.rollout.cameras.len();
                assert!(failed.count() * 100 <= cameras * MAX_FAILED_PERCENT);
                assert_eq!(self.results.len(), cameras, "each was told of");
                self.rollout.state = RolloutState::Done;
            }
            RolloutStep::Return { .. } => self.rollout.state = RolloutState::Returning,
            RolloutStep::Finished => self.rollout.state = RolloutState::Returned,
        }
    }

    fn happen(&mut self, happening: &Happening) {
        let name =
            |camera: &usize, of: &FleetRollout| of.cameras[camera % of.cameras.len()].clone();
        match happening {
            Happening::Owner { camera, fails, finishes } => {
                let camera = name(camera, &self.rollout);
                self.own(&camera, *fails, *finishes);
            }
            Happening::Moves { camera } => {
                let camera = name(camera, &self.rollout);
                self.epochs.entry(camera).and_modify(|epoch| epoch.0 += 1);
            }
            Happening::Planner => self.plan(),
            Happening::Stop if self.rollout.state == RolloutState::Running => {
                self.rollout.state = RolloutState::Returning;
            }
            Happening::Stop => {}
        }
    }

    fn check(&self) {
        let Self { rollout, results, .. } = self;
        for (camera, result) in results {
            let wave = rollout.wave_of(camera).unwrap();
            assert!(wave <= rollout.wave, "{camera} was touched before its wave: {result:?}");
        }
        if rollout.state == RolloutState::Returned {
            let has_it = |one: &CameraResult| {
                matches!(one.state, CameraStep::Deploying | CameraStep::Healthy)
            };
            assert!(!results.values().any(has_it), "{results:?}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_camera_is_touched_early_and_it_comes_to_an_end(
        cameras in 1..200usize,
        happenings in prop::collection::vec(happening(), 0..400),
    ) {
        let mut model = Model::new(cameras);
        for happening in &happenings {
            model.happen(happening);
            model.check();
        }
        // From here on nothing is in its way.
        for _ in 0..8 {
            for camera in model.rollout.cameras.clone() {
                model.own(&camera, false, true);
            }
            model.plan();
            model.check();
        }
        prop_assert!(!model.rollout.state.is_under_way(), "{:?}", model.rollout.state);
    }
}
