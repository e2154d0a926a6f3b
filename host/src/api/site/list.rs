//! `GET /v1/sessions`: of a host in a site, the sessions of all its hosts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::forward::{OtherHost, OwnerFault, SiteLink, is_forwarded};
use super::headers::OwnToken;
use super::overview::SiteCamera;
use crate::api::access::Caller;
use crate::api::control::Control;
use crate::api::extract::InQuery;
use crate::api::problem::Problem;
use crate::api::state::ApiState;
use crate::event::Hub;
use crate::session::SessionStatus;

/// Limit for the list of another host.
const LIMIT: Duration = Duration::from_secs(2);

/// Hosts that are asked at the same time.
const ASKED_AT_ONCE: usize = 16;

/// Most bytes of a host's list: a thousand sessions, each with a long word on its last error.
const MAX_LIST: u64 = 16 << 20;

/// The sessions of a host itself.
const LOCAL: &str = "/v1/sessions?local=true";

/// The query of `GET /v1/sessions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ListParameters {
    #[serde(default)]
    local: bool,
}

pub(in crate::api) async fn sessions<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    token: Option<Extension<OwnToken>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    InQuery(ListParameters { local }): InQuery<ListParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut sessions = state.control.sessions();
    sessions.retain(|session| caller.sees(C::id(session)));
    let link = match &state.site {
        Some(link) if !local && !is_forwarded(&headers) => link,
        _ => return Ok(Json(json!({"sessions": sessions})).into_response()),
    };
    let mut own = Vec::with_capacity(sessions.len());
    for session in &sessions {
        own.push(serde_json::to_value(session).map_err(Problem::internal)?);
    }
    let token = token.map(|Extension(token)| token).unwrap_or_default();
    let asked = of_others(link, &link.of_caller(&token, peer)).await;
    let mut cameras = link.site().status().cameras;
    cameras.retain(|camera| caller.sees(&camera.id));
    let sessions = merged(link.site().host(), own, asked, &cameras, |camera, fault| {
        stand_in(link, &state.hub, camera, fault)
    });
    Ok(Json(json!({"sessions": sessions})).into_response())
}

/// The sessions of each other host that answers, and why others do not.
type HostAnswers = BTreeMap<String, Result<Vec<Value>, String>>;

async fn of_others(link: &SiteLink, caller: &HeaderMap) -> HostAnswers {
    let ask = |host: OtherHost| async move {
        let asked = timeout(LIMIT, link.get(&host, LOCAL, caller.clone(), MAX_LIST)).await;
        let asked = asked.unwrap_or_else(|_| {
            Err(OwnerFault::Silent { host: host.name.clone(), address: host.address.clone() })
        });
        let list = asked.map_err(|fault| fault.to_string()).map(|mut told| {
            match told.get_mut("sessions").map(Value::take) {
                Some(Value::Array(list)) => list,
                _ => Vec::new(),
            }
        });
        (host.name, list)
    };
    stream::iter(link.others()).map(ask).buffer_unordered(ASKED_AT_ONCE).collect().await
}

/// One session for each name: of several hosts that name one, that which owns it. A camera that no
/// host shows gets what `stand_in` makes of it and of the reason.
fn merged(
    here: &str,
    own: Vec<Value>,
    asked: HostAnswers,
    cameras: &[SiteCamera],
    stand_in: impl Fn(&SiteCamera, Option<&str>) -> Value,
) -> Vec<Value> {
    let owners: BTreeMap<&str, &SiteCamera> =
        cameras.iter().map(|camera| (camera.id.as_str(), camera)).collect();
    let mut silent = BTreeMap::new();
    let mut sessions = BTreeMap::<String, Value>::new();
    let lists = std::iter::once((here.to_owned(), Ok(own))).chain(asked);
    for (host, list) in lists {
        let list = match list {
            Ok(list) => list,
            Err(fault) => {
                silent.insert(host, fault);
                continue;
            }
        };
        for mut session in list {
            let Some(id) = session.get("id").and_then(Value::as_str).map(str::to_owned) else {
                continue;
            };
            if let Some(members) = session.as_object_mut() {
                members.insert("host".to_owned(), host.as_str().into());
            }
            let owns = owners.get(id.as_str()).is_some_and(|it| it.host.as_deref() == Some(&*host));
            if owns || !sessions.contains_key(&id) {
                sessions.insert(id, session);
            }
        }
    }
    for camera in cameras {
        let fault = camera.host.as_ref().and_then(|host| silent.get(host)).map(String::as_str);
        sessions.entry(camera.id.clone()).or_insert_with(|| stand_in(camera, fault));
    }
    sessions.into_values().collect()
}

/// A camera of which no host says anything.
fn stand_in(link: &SiteLink, hub: &Hub, camera: &SiteCamera, fault: Option<&str>) -> Value {
    let (source, pipeline) = link.site().streams_of(&camera.id);
    let reason = fault.map(str::to_owned).or_else(|| camera.reason.clone());
    let reason = reason.unwrap_or_else(|| match &camera.host {
        Some(host) => format!("host {host} takes it over"),
        None => "no host of the site has it at this moment".to_owned(),
    });
    let status = SessionStatus {
        id: camera.id.clone(),
        host: camera.host.clone(),
        // What its host said last, where that is known.
        state: hub.state(&camera.id).filter(|_| fault.is_some()).unwrap_or_default(),
        reason: Some(reason),
        source,
        pipeline,
        ..SessionStatus::default()
    };
    serde_json::to_value(status).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(id: &str, host: Option<&str>) -> SiteCamera {
        SiteCamera {
            id: id.into(),
            host: host.map(str::to_owned),
            epoch: host.map(|_| 1),
            planned: None,
            pinned: None,
            labels: Vec::new(),
            networks: Vec::new(),
            made: false,
            unplaced: None,
            reason: None,
        }
    }

    #[test]
    fn each_camera_is_told_once_by_the_host_that_owns_it() {
        let session = |id: &str, pid: u32| json!({"id": id, "pid": pid});
        let asked: HostAnswers = [
            ("b".to_owned(), Ok(vec![session("gate", 2), session("yard", 3), json!(7)])),
            ("c".to_owned(), Err("host c does not answer".to_owned())),
        ]
        .into();
        let cameras = [
            camera("attic", None),
            camera("door", Some("c")),
            camera("gate", Some("b")),
            camera("yard", Some("b")),
        ];
        let own = vec![session("gate", 1), session("own", 4)];
        let told = merged(
            "a",
            own,
            asked,
            &cameras,
            |camera, fault| json!({"id": camera.id, "reason": fault}),
        );
        assert_eq!(
            Value::from(told),
            json!([
                {"id": "attic", "reason": null},
                {"id": "door", "reason": "host c does not answer"},
                {"id": "gate", "pid": 2, "host": "b"},
                {"id": "own", "pid": 4, "host": "a"},
                {"id": "yard", "pid": 3, "host": "b"},
            ])
        );
    }
}
