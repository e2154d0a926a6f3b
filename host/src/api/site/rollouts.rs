//! Rollouts over HTTP: a version of a pipeline for many cameras of the site.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::overview::link;
use crate::api::access::Caller;
use crate::api::audit::AuditDetail;
use crate::api::body;
use crate::api::control::Control;
use crate::api::deployments::{self, DeploymentControl, UNNAMED};
use crate::api::extract::{InPath, InQuery};
use crate::api::problem::Problem;
use crate::api::state::ApiState;
use crate::fleet::{Fleet, NewRollout, RolloutError, WantedVersion};
use crate::session::rollout::MAX_SHADOW;

/// Most selectors of a request, and most bytes of each: a camera's name has 200.
const MAX_SELECTORS: usize = 16;
const MAX_SELECTOR: usize = 200;

/// The rollouts of the site, or the problem that there is none.
fn fleet<C: Control>(state: &ApiState<C>) -> Result<Fleet, Problem> {
    link(state)?;
    state.control.fleet().ok_or_else(|| {
        let detail = "this host takes no part in rollouts";
        Problem::unavailable("site_unavailable", detail)
    })
}

/// The query of `POST /v1/cluster/rollouts`, in which `cameras` may stand several times.
#[derive(Default)]
struct Parameters {
    cameras: Vec<String>,
    pipeline: Option<String>,
    name: Option<String>,
    settings: Option<String>,
    shadow: u32,
    threshold: Option<f64>,
}

impl Parameters {
    fn new(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut parameters = Self::default();
        for (key, value) in pairs {
            let bad = |what: &str| Problem::bad("bad_query", format!("{key}: {what}"));
            match key.as_str() {
                "cameras" if value.len() > MAX_SELECTOR => return Err(bad("it is too long")),
                "cameras" => parameters.cameras.push(value),
                "pipeline" => parameters.pipeline = Some(value),
                "name" => parameters.name = Some(value),
                "settings" => parameters.settings = Some(value),
                "shadow" => {
                    let frames = value.parse().ok().filter(|frames| *frames <= MAX_SHADOW);
                    let most = format!("it is 0 to {MAX_SHADOW} frames");
                    parameters.shadow = frames.ok_or_else(|| bad(&most))?;
                }
                "threshold" => {
                    let share = value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
                    parameters.threshold = Some(share.ok_or_else(|| bad("it is 0 to 1"))?);
                }
                _ => return Err(bad("there is no such parameter")),
            }
        }
        if parameters.cameras.is_empty() || parameters.cameras.len() > MAX_SELECTORS {
            let detail = format!("cameras: 1 to {MAX_SELECTORS} names or patterns");
            return Err(Problem::bad("bad_query", detail));
        }
        if parameters.threshold.is_some() && parameters.shadow == 0 {
            let detail = "threshold needs frames to compare on: shadow";
            return Err(Problem::bad("bad_query", detail));
        }
        Ok(parameters)
    }
}

/// `POST /v1/cluster/rollouts`. Answers with the rollout, which goes on by itself.
pub(in crate::api) async fn create<C: Control + DeploymentControl>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InQuery(pairs): InQuery<Vec<(String, String)>>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let fleet = fleet(&state)?;
    let Parameters { cameras: selectors, pipeline, name, settings, shadow, threshold } =
        Parameters::new(pairs)?;
    name.as_deref().map_or(Ok(()), deployments::check_name)?;
    let settings = settings.as_deref().map(body::settings).transpose()?;
    let by = deployments::by(&caller, &headers);
    let bytes = deployments::upload(&state, request).await?;
    let wanted = match (pipeline, bytes.is_empty()) {
        (None, false) => {
            WantedVersion::Component { name: name.unwrap_or_else(|| UNNAMED.into()), bytes }
        }
        (Some(pipeline), true) if name.is_none() => WantedVersion::Named(pipeline),
        _ => {
            let detail = "the body is the component, with `name` for its name; or it is empty, and \
                          `pipeline` names one of the hosts or in a registry";
            return Err(Problem::bad("bad_request", detail));
        }
    };
    let detail = json!({"cameras": selectors});
    let new = NewRollout { wanted, settings, shadow, threshold, selectors, by };
    let begun = fleet.create(new, |camera| caller.sees(camera)).await?;
    let mut detail = detail;
    put(&mut detail, "rollout", begun.id.into());
    put(&mut detail, "pipeline", begun.pipeline.as_str().into());
    Ok((StatusCode::CREATED, Extension(AuditDetail(detail)), Json(begun)).into_response())
}

fn put(detail: &mut serde_json::Value, key: &str, value: serde_json::Value) {
    if let Some(members) = detail.as_object_mut() {
        members.insert(key.to_owned(), value);
    }
}

/// `GET /v1/cluster/rollouts`.
pub(in crate::api) async fn list<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let mut rollouts = fleet(&state)?.list(|camera| caller.sees(camera));
    rollouts.retain(|rollout| caller.sees_all() || !rollout.cameras.is_empty());
    Ok(Json(json!({"rollouts": rollouts})).into_response())
}

/// `GET /v1/cluster/rollouts/{id}`.
pub(in crate::api) async fn show<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
) -> Result<Response, Problem> {
    let rollout = fleet(&state)?.find(&id, |camera| caller.sees(camera)).await?;
    if rollout.cameras.is_empty() && !caller.sees_all() {
        return Err(RolloutError::Unknown(id).into());
    }
    Ok(Json(rollout).into_response())
}

/// `POST /v1/cluster/rollouts/{id}/stop`. Answers with the rollout, which goes back by itself.
pub(in crate::api) async fn stop<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let by = deployments::by(&caller, &headers);
    let stopped = fleet(&state)?.stop(&id, &by, |camera| caller.sees(camera)).await?;
    Ok(Json(stopped).into_response())
}

impl From<RolloutError> for Problem {
    fn from(error: RolloutError) -> Self {
        let detail = error.to_string();
        match error {
            RolloutError::NoCameras(_) => {
                Self::new(StatusCode::NOT_FOUND, "unknown_camera", detail)
            }
            RolloutError::TooMany(_) | RolloutError::Reference(_) => Self::bad("bad_query", detail),
            RolloutError::UnderWay { .. } => {
                Self::new(StatusCode::CONFLICT, "rollout_under_way", detail)
            }
            RolloutError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, "unknown_rollout", detail),
            RolloutError::Over(_) => Self::new(StatusCode::CONFLICT, "rollout_over", detail),
            RolloutError::Deploy(error) => error.into(),
            RolloutError::Site(error) => error.into(),
            RolloutError::Streams(_) => {
                Self::unavailable("site_unavailable", detail).retry_after(1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Parameters, Problem> {
        Parameters::new(pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
    }

    #[test]
    fn cameras_may_be_named_one_by_one_and_what_is_not_known_is_refused() {
        let good = read(&[("cameras", "a*"), ("cameras", "b"), ("shadow", "50")]).ok().unwrap();
        assert_eq!((good.cameras, good.shadow), (vec!["a*".into(), "b".into()], 50));
        for bad in [
            &[("pipeline", "eye")][..],
            &[("cameras", "a"), ("camera", "b")],
            &[("cameras", "a"), ("shadow", "-1")],
            &[("cameras", "a"), ("threshold", "0.5")],
            &[("cameras", "a"), ("shadow", "5"), ("threshold", "2")],
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
