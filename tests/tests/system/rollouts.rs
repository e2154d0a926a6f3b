//! A version for many cameras of a site, with real servers: one first, then all, and back where it
//! fails.

use std::time::Duration;

use ocelli_testkit::{DEADLINE, Ocelli, Site, changeling, clip};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::cluster::{Member, join_with, site_becomes};

/// Short probations, and room for the second workers of a small machine.
const SECTIONS: &str = "[deploy]\nprobation_s = 1\nreserve_mb = 0\n[analyze]\nworkers = 0\n";

const CAMERAS: [&str; 4] = ["cam-1", "cam-2", "cam-3", "cam-4"];

/// Long enough for several deployments one after the other.
const ROLLOUT: Duration = DEADLINE.saturating_mul(4);

/// Two hosts with four cameras, all of which run.
async fn two_hosts(site: &Site) -> [Member; 2] {
    let hosts = [join_with(site, "a", SECTIONS).await, join_with(site, "b", SECTIONS).await];
    site_becomes(&hosts[0], "two hosts", |site| site["hosts"].as_array().unwrap().len() == 2).await;
    for camera in CAMERAS {
        let source = format!("file:{}", clip("bikes.mp4").display());
        let entry = json!({
            "source": source, "pipeline": "changeling", "pace": "realtime", "repeat": true,
        });
        let path = format!("/v1/config/cameras/{camera}");
        let (status, answer) = hosts[0].put(&path, entry.to_string().as_bytes()).await;
        assert!((200..300).contains(&status), "{status} {answer}");
    }
    let wait = async {
        for camera in CAMERAS {
            while !is_healthy(&hosts[0], camera).await {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    };
    timeout(ROLLOUT, wait).await.expect("every camera runs");
    hosts
}

async fn deployments(host: &Ocelli, camera: &str) -> Vec<Value> {
    let path = format!("/v1/sessions/{camera}/deployments");
    let (status, answer) = host.request("GET", &path).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    match status {
        200 => answer["deployments"].as_array().unwrap().clone(),
        _ => Vec::new(),
    }
}

async fn is_healthy(host: &Ocelli, camera: &str) -> bool {
    let deployments = deployments(host, camera).await;
    deployments.first().is_some_and(|newest| newest["state"] == "healthy")
}

/// Waits until the newest deployment of a camera is this version, healthy, by that rollout.
async fn has(host: &Ocelli, camera: &str, version: &str, id: &Value) {
    let by = format!("rollout {id}");
    let wait = async {
        loop {
            // A host that has just lost its lease does not know its camera.
            if let Some(newest) = deployments(host, camera).await.first()
                && newest["version"] == version
                && newest["state"] == "healthy"
                && newest["by"] == *by
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(ROLLOUT, wait).await.unwrap_or_else(|_| panic!("{camera} never has {version}"));
}

/// What a host answers to a `POST`, once its site's servers do.
async fn post(host: &Ocelli, path: &str, body: &[u8]) -> (u16, String) {
    let wait = async {
        loop {
            let (status, answer) = host.post(path, "application/wasm", body).await;
            if status != 503 {
                return (status, answer);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{path}: 503 for ever"))
}

/// Begins a rollout of this version to cameras.
async fn begin(host: &Ocelli, cameras: &str, version: &[u8]) -> Value {
    let path = format!("/v1/cluster/rollouts?cameras={cameras}&name=changeling");
    let (status, answer) = post(host, &path, version).await;
    assert_eq!(status, 201, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

/// Waits until a rollout is so.
async fn becomes(host: &Ocelli, id: &Value, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let wait = async {
        loop {
            let (status, answer) = host.request("GET", &format!("/v1/cluster/rollouts/{id}")).await;
            if status == 200 {
                last = serde_json::from_str(&answer).unwrap();
                if good(&last) {
                    return last.clone();
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let done = timeout(ROLLOUT, wait).await;
    done.unwrap_or_else(|_| panic!("rollout {id} is never {what}: {last:#}"))
}

fn cameras(rollout: &Value) -> &Vec<Value> {
    rollout["cameras"].as_array().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_version_ends_at_the_canary_and_a_good_one_reaches_all() {
    let Some(site) = Site::single() else { return };
    let hosts = two_hosts(&site).await;
    let fault = json!({"at": "init", "does": "refuse"});
    let bad = changeling(&json!({"version": "2.0.0", "fault": fault}));
    let begun = begin(&hosts[1], "cam-*", &bad).await;
    assert_eq!((&begun["state"], &begun["waves"]), (&json!("running"), &json!(2)));
    let id = &begun["id"];
    let ended = becomes(&hosts[0], id, "back", |one| one["state"] == "returned").await;
    assert_eq!(ended["code"], "canary_failed", "{ended:#}");
    assert_eq!((&ended["wave"], cameras(&ended).len()), (&json!(1), CAMERAS.len()));
    let [canary, others @ ..] = cameras(&ended).as_slice() else { unreachable!() };
    assert_eq!((&canary["state"], &canary["code"]), (&json!("failed"), &json!("aborted")));
    for camera in others {
        assert_eq!(camera["state"], Value::Null, "{camera}");
        let name = camera["id"].as_str().unwrap();
        let deployed = deployments(&hosts[0], name).await;
        assert!(deployed.iter().all(|one| one["cause"] == "config"), "{name}: {deployed:?}");
    }
    let (status, answer) = post(&hosts[0], &format!("/v1/cluster/rollouts/{id}/stop"), b"").await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer.contains("rollout_over"), "{answer}");
    let nobody = "/v1/cluster/rollouts?cameras=hall-*&pipeline=changeling";
    let (status, answer) = post(&hosts[0], nobody, b"").await;
    assert_eq!(status, 404, "{answer}");

    let good = changeling(&json!({"version": "3.0.0"}));
    let begun = begin(&hosts[0], "*", &good).await;
    let again = "/v1/cluster/rollouts?cameras=cam-2&pipeline=changeling";
    let (status, answer) = post(&hosts[1], again, b"").await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer.contains("rollout_under_way"), "{answer}");
    let id = &begun["id"];
    let done = becomes(&hosts[1], id, "done", |one| one["state"] != "running").await;
    assert_eq!(done["state"], "done", "{done:#}");
    for camera in cameras(&done) {
        assert_eq!(camera["state"], "healthy", "{camera}");
        has(&hosts[0], camera["id"].as_str().unwrap(), "3.0.0", id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_outlasts_the_host_that_plans_it() {
    let Some(site) = Site::single() else { return };
    let hosts = two_hosts(&site).await;
    let shown = site_becomes(&hosts[0], "a planner", |site| site["planner"].is_string()).await;
    let [dies, stays] = match shown["planner"] == hosts[0].name {
        true => [&hosts[0], &hosts[1]],
        false => [&hosts[1], &hosts[0]],
    };
    let good = changeling(&json!({"version": "2.0.0"}));
    let begun = begin(stays, "*", &good).await;
    let id = &begun["id"];
    becomes(stays, id, "under way", |one| !cameras(one)[0]["state"].is_null()).await;
    dies.process().signal(Signal::KILL);
    let all = |one: &Value| {
        one["state"] == "done"
            && cameras(one)
                .iter()
                .all(|camera| camera["state"] == "healthy" && camera["host"] == stays.name)
    };
    becomes(stays, id, "done on the host that is left", all).await;
    for camera in CAMERAS {
        has(stays, camera, "2.0.0", id).await;
    }
}
