//! When a rollout goes on, and when it goes back: decisions without clock and process.

use ocelli_cluster::Epoch;

use super::record::{CameraResult, CameraResults, CameraStep, FleetRollout, RolloutState};

/// The most of a wave's cameras, in percent, that may fail. Of the canary none may: it is one camera.
pub(super) const MAX_FAILED_PERCENT: usize = 2;

/// The part of the cameras, in percent, that have the version after the second wave.
const SECOND_WAVE_PERCENT: usize = 10;

/// What is next of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RolloutStep {
    /// Nothing, until an owner says more.
    Wait,
    /// The cameras of this wave get the version.
    Open(usize),
    /// It is done.
    Finish,
    /// It goes back.
    Return {
        /// For programs.
        code: &'static str,
        /// For a person.
        reason: String,
    },
    /// Every camera has what it had.
    Finished,
}

/// How many of so many cameras have the version after each wave: one, a tenth, all.
pub(super) fn waves(cameras: usize) -> Vec<usize> {
    let tenth = (cameras * SECOND_WAVE_PERCENT).div_ceil(100);
    let mut waves = vec![1.min(cameras), tenth, cameras];
    waves.dedup();
    waves
}

/// Decides what is next. `is_of_site`: whether the site still has a camera.
pub(super) fn step(
    rollout: &FleetRollout,
    results: &CameraResults,
    is_of_site: impl Fn(&str) -> bool,
) -> RolloutStep {
    match rollout.state {
        RolloutState::Done | RolloutState::Returned => RolloutStep::Wait,
        RolloutState::Running => forward(rollout, results, is_of_site),
        RolloutState::Returning => {
            let has_it = |camera: &&String| {
                is_of_site(camera)
                    && results.get(*camera).is_some_and(|result| {
                        matches!(result.state, CameraStep::Deploying | CameraStep::Healthy)
                    })
            };
            match rollout.cameras.iter().any(|camera| has_it(&camera)) {
                true => RolloutStep::Wait,
                false => RolloutStep::Finished,
            }
        }
    }
}

fn forward(
    rollout: &FleetRollout,
    results: &CameraResults,
    is_of_site: impl Fn(&str) -> bool,
) -> RolloutStep {
    for wave in 0..=rollout.wave {
        let cameras = rollout.of_wave(wave);
        let failed = cameras.iter().filter_map(|camera| {
            let result = results.get(camera)?;
            (result.state == CameraStep::Failed).then_some((camera, result))
        });
        let failed: Vec<_> = failed.collect();
        if failed.len() * 100 <= cameras.len() * MAX_FAILED_PERCENT {
            continue;
        }
        let Some((camera, result)) = failed.first() else { continue };
        let why = result.reason.as_deref().unwrap_or("it failed");
        return match wave {
            0 => RolloutStep::Return {
                code: "canary_failed",
                reason: format!("the canary {camera} failed: {why}"),
            },
            _ => RolloutStep::Return {
                code: "wave_failed",
                reason: format!(
                    "{} of the {} cameras of wave {} failed; {camera}: {why}",
                    failed.len(),
                    cameras.len(),
                    wave + 1
                ),
            },
        };
    }
    let is_final = |camera: &String| {
        !is_of_site(camera)
            || results.get(camera).is_some_and(|result| result.state != CameraStep::Deploying)
    };
    if !rollout.of_wave(rollout.wave).iter().all(is_final) {
        return RolloutStep::Wait;
    }
    match rollout.wave + 1 < rollout.waves.len() {
        true => RolloutStep::Open(rollout.wave + 1),
        false => RolloutStep::Finish,
    }
}

/// What the owner of a camera does for a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnerDuty {
    Nothing,
    /// Give the camera the version, and say what becomes of it.
    Deploy,
    /// Give the camera back what it had.
    Return,
}

/// Decides what the owner of a camera, by `epoch`, does. A camera comes from another host with the
/// version that proved itself there. While the rollout runs that is made sure of; once it is done, the
/// camera's own history decides.
pub(super) fn duty(
    rollout: &FleetRollout,
    camera: &str,
    result: Option<&CameraResult>,
    epoch: Epoch,
) -> OwnerDuty {
    let Some(wave) = rollout.wave_of(camera) else { return OwnerDuty::Nothing };
    let has_it = result
        .is_some_and(|result| matches!(result.state, CameraStep::Deploying | CameraStep::Healthy));
    let is_of_another = result.is_some_and(|result| result.epoch != epoch);
    match rollout.state {
        RolloutState::Running if wave > rollout.wave => OwnerDuty::Nothing,
        RolloutState::Running => match result {
            None => OwnerDuty::Deploy,
            Some(result) if result.state == CameraStep::Deploying => OwnerDuty::Deploy,
            Some(result) if result.state == CameraStep::Healthy && is_of_another => {
                OwnerDuty::Deploy
            }
            Some(_) => OwnerDuty::Nothing,
        },
        RolloutState::Returning if has_it => OwnerDuty::Return,
        RolloutState::Returning | RolloutState::Returned | RolloutState::Done => OwnerDuty::Nothing,
    }
}

#[cfg(test)]
mod tests;
