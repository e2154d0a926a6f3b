//! `GET /v1/cluster`: the site as this host sees it; and what an admin wishes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ocelli_cluster::member::{CoordError, SiteView};
use ocelli_cluster::plan::Unplaced;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::forward::{SiteLink, unknown_host};
use crate::api::access::Caller;
use crate::api::audit::AuditDetail;
use crate::api::body;
use crate::api::control::Control;
use crate::api::extract::InPath;
use crate::api::problem::Problem;
use crate::api::state::ApiState;

/// The site as this host sees it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Cluster")]
pub struct SiteStatus {
    /// The site's name.
    pub site: String,
    /// The name of the host that answers.
    pub host: String,
    /// What that host is in the site.
    pub state: MemberState,
    /// Why it is no member; null where it is one.
    pub reason: Option<String>,
    /// The host that plans which host has which camera; null where none lives.
    pub planner: Option<String>,
    /// Counts the plans of the site.
    pub plan: u64,
    /// The etcd servers, as that host sees them.
    pub etcd: EngineStatus,
    /// The NATS servers and their streams, as that host sees them.
    pub nats: EngineStatus,
    /// The hosts that live, sorted by name.
    pub hosts: Vec<SiteHost>,
    /// The cameras that the token sees, sorted by name.
    pub cameras: Vec<SiteCamera>,
}

/// What a host is in its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// On its way in, without cameras.
    Joining,
    /// It is one of its hosts.
    Member,
    /// It was a member until its lease may have ended; it has no cameras and joins again.
    Lapsed,
    /// It cannot take part.
    Refused,
    /// It has left.
    Left,
}

/// How a part of the site is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EngineStatus {
    /// Whether it does what it is asked.
    pub state: EngineState,
    /// Why it does not; null where it does.
    pub reason: Option<String>,
}

/// Whether a part of the site does what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EngineState {
    Up,
    Down,
}

impl EngineStatus {
    /// It does what it is asked.
    pub fn up() -> Self {
        Self { state: EngineState::Up, reason: None }
    }

    /// It does not, and why.
    pub fn down(reason: String) -> Self {
        Self { state: EngineState::Down, reason: Some(reason) }
    }
}

/// A host that lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SiteHost {
    /// The host's name.
    pub id: String,
    /// Where its API is.
    pub address: String,
    /// The version of its program.
    pub version: String,
    /// The cameras that it takes.
    pub capacity: u32,
    /// The cameras that it has.
    pub cameras: usize,
    /// What it has for cameras that ask for it.
    pub labels: Vec<String>,
    /// The networks of cameras that it reaches.
    pub networks: Vec<String>,
    /// Whether it is to be emptied, or leaves.
    pub draining: bool,
    /// Whether it plans.
    pub planner: bool,
    /// Whether it is the host that answers.
    pub here: bool,
}

/// A camera of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SiteCamera {
    /// The camera's name.
    pub id: String,
    /// The host that has it; null where none has it at this moment.
    pub host: Option<String>,
    /// Counts the changes of owners: that of its present one. Null without one.
    pub epoch: Option<u64>,
    /// The host that is to have it; null where none can.
    pub planned: Option<String>,
    /// The host that somebody wishes it to; null: any.
    pub pinned: Option<String>,
    /// What a host needs to have for it.
    pub labels: Vec<String>,
    /// The networks that a host needs to reach for it.
    pub networks: Vec<String>,
    /// Whether subscribers had it made by a source: it goes when the last of them has left.
    pub made: bool,
    /// Why no host can take it: `no_host`, `labels`, `networks`, `draining`, `full`. Null: one can.
    #[schemars(extend("enum" = ["no_host", "labels", "networks", "draining", "full", null]))]
    pub unplaced: Option<&'static str>,
    /// The same for a person, or why it does not run on the host that answers; null where there is
    /// nothing to say.
    pub reason: Option<String>,
}

/// The hosts of a site.
pub(super) fn hosts(view: &SiteView, here: &str) -> Vec<SiteHost> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for camera in view.cameras.keys() {
        if let Some(owner) = view.owner(camera) {
            *counts.entry(owner.host.as_str()).or_default() += 1;
        }
    }
    let planner = view.planner();
    let hosts = view.hosts.iter().map(|(id, host)| SiteHost {
        id: id.clone(),
        address: host.record.address.clone(),
        version: host.record.version.clone(),
        capacity: host.record.capacity,
        cameras: counts.get(id.as_str()).copied().unwrap_or_default(),
        labels: host.record.labels.iter().cloned().collect(),
        networks: host.record.networks.iter().cloned().collect(),
        draining: host.draining,
        planner: planner == Some(id),
        here: id == here,
    });
    hosts.collect()
}

/// The cameras of a site. `faults`: why cameras of this host do not run.
pub(super) fn cameras(view: &SiteView, faults: &BTreeMap<String, String>) -> Vec<SiteCamera> {
    let cameras = view.cameras.iter().map(|(id, record)| {
        let owner = view.owner(id);
        let unplaced = view.plan.unplaced.get(id).copied();
        SiteCamera {
            id: id.clone(),
            host: owner.map(|owner| owner.host.clone()),
            epoch: owner.map(|owner| owner.epoch.0),
            planned: view.plan.cameras.get(id).cloned(),
            pinned: view.pins.get(id).cloned(),
            labels: record.labels.iter().cloned().collect(),
            networks: record.networks.iter().cloned().collect(),
            made: record.made,
            unplaced: unplaced.map(code),
            reason: unplaced.map(|why| why.to_string()).or_else(|| faults.get(id).cloned()),
        }
    });
    cameras.collect()
}

fn code(unplaced: Unplaced) -> &'static str {
    match unplaced {
        Unplaced::NoHost => "no_host",
        Unplaced::Labels => "labels",
        Unplaced::Networks => "networks",
        Unplaced::Draining => "draining",
        Unplaced::Full => "full",
    }
}

/// The site, or the problem that there is none.
pub(super) fn link<C>(state: &ApiState<C>) -> Result<&SiteLink, Problem> {
    state.site.as_deref().ok_or_else(|| {
        let detail = "this host stands alone: its config has no section [cluster]";
        Problem::new(StatusCode::NOT_FOUND, "no_cluster", detail)
    })
}

/// `GET /v1/cluster`.
pub(in crate::api) async fn show<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let mut status = link(&state)?.site().status();
    status.cameras.retain(|camera| caller.sees(&camera.id));
    Ok(Json(status).into_response())
}

/// The body of `POST /v1/cluster/hosts/{id}/drain`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainRequest {
    draining: bool,
}

/// Answers with the host as it then is; one that does not live can be wished back.
pub(in crate::api) async fn drain<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    InPath(id): InPath,
    request: Request,
) -> Result<Response, Problem> {
    let site = link(&state)?.site();
    let DrainRequest { draining } = body::json(request).await?;
    if draining && site.address(&id).is_none() {
        return Err(unknown_host(&id));
    }
    site.set_draining(&id, draining).await?;
    let detail = json!({"draining": draining});
    Ok((Extension(AuditDetail(detail.clone())), Json(with_id(detail, id))).into_response())
}

/// The body of `POST /v1/cluster/cameras/{id}/move`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveRequest {
    host: Option<String>,
}

/// Answers with the wish: the camera moves once the host has prepared it.
pub(in crate::api) async fn move_camera<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    request: Request,
) -> Result<Response, Problem> {
    let site = link(&state)?.site();
    let MoveRequest { host } = body::json(request).await?;
    if let Some(host) = &host
        && site.address(host).is_none()
    {
        return Err(unknown_host(host));
    }
    if !caller.sees(&id) || !site.move_camera(&id, host.as_deref()).await? {
        let detail = format!("the site has no camera {id:?}");
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown_camera", detail));
    }
    let detail = json!({"host": host});
    Ok((Extension(AuditDetail(detail.clone())), Json(with_id(detail, id))).into_response())
}

fn with_id(mut answer: serde_json::Value, id: String) -> serde_json::Value {
    if let Some(members) = answer.as_object_mut() {
        members.insert("id".to_owned(), id.into());
    }
    answer
}

impl From<CoordError> for Problem {
    fn from(error: CoordError) -> Self {
        let detail = error.to_string();
        match error {
            CoordError::Unavailable(_) | CoordError::NotMember => {
                Self::unavailable("site_unavailable", detail).retry_after(1)
            }
            CoordError::Changed { .. } | CoordError::NotOwner { .. } => {
                Self::new(StatusCode::CONFLICT, "site_changed", detail)
            }
            CoordError::Key(..) => Self::bad("bad_name", detail),
            CoordError::TooLarge(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
            }
            CoordError::Denied(_) => Self::new(StatusCode::BAD_GATEWAY, "site_refuses", detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use ocelli_cluster::Epoch;
    use ocelli_cluster::member::{CameraRecord, HostRecord, HostView, LeaseId, Owner};
    use ocelli_cluster::plan::Plan;

    use super::*;

    fn host(lease: i64, joined: u64) -> HostView {
        let record = HostRecord { capacity: 3, address: "https://h".into(), ..Default::default() };
        HostView { record, lease: LeaseId(lease), joined, draining: lease == 2 }
    }

    fn owner(host: &str, lease: i64, held: bool) -> Owner {
        Owner { host: host.into(), lease: LeaseId(lease), held, epoch: Epoch(9) }
    }

    fn view() -> SiteView {
        let record = Arc::new(CameraRecord {
            entry: json!({}),
            labels: ["gpu".to_owned()].into(),
            networks: Default::default(),
            cost: 1,
            made: false,
        });
        let camera = |id: &str| (id.to_owned(), Arc::clone(&record));
        let hosts = [("a".to_owned(), host(1, 7)), ("b".to_owned(), host(2, 5))];
        let owners = [
            ("gate".to_owned(), owner("a", 1, true)),
            ("hall".to_owned(), owner("a", 8, true)),
            ("yard".to_owned(), owner("b", 2, false)),
        ];
        let plan = Plan {
            version: 4,
            cameras: [("gate".to_owned(), "a".to_owned())].into(),
            unplaced: [("yard".to_owned(), Unplaced::Labels)].into(),
        };
        SiteView {
            revision: 20,
            hosts: Arc::new(hosts.into()),
            cameras: Arc::new([camera("gate"), camera("hall"), camera("yard")].into()),
            owners: Arc::new(owners.into()),
            plan: Arc::new(plan),
            pins: Arc::new([("gate".to_owned(), "b".to_owned())].into()),
            listeners: Arc::default(),
        }
    }

    #[test]
    fn a_camera_counts_for_the_host_that_lives_and_holds_it() {
        let hosts = hosts(&view(), "b");
        let told: Vec<_> = hosts
            .iter()
            .map(|host| (host.id.as_str(), host.cameras, host.planner, host.here, host.draining))
            .collect();
        assert_eq!(told, [("a", 1, false, false, false), ("b", 0, true, true, true)]);
    }

    #[test]
    fn a_camera_without_a_host_says_why() {
        let faults = [("hall".to_owned(), "no key".to_owned())].into();
        let cameras = cameras(&view(), &faults);
        let told = serde_json::to_value(&cameras).unwrap();
        assert_eq!(
            told[0],
            json!({"id": "gate", "host": "a", "epoch": 9, "planned": "a", "pinned": "b",
                "labels": ["gpu"], "networks": [], "made": false, "unplaced": null,
                "reason": null})
        );
        assert_eq!((&told[1]["host"], &told[1]["reason"]), (&json!(null), &json!("no key")));
        assert_eq!(told[2]["unplaced"], "labels");
        assert_eq!(told[2]["reason"], "no host has its labels");
    }
}
