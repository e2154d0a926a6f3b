//! Hosts that stand in for each other, with real servers: a camera goes on elsewhere, and whoever
//! listens at another host sees every event once.

use std::net::SocketAddr;
use std::time::Duration;

use ocelli_testkit::{Cameras, Client, ClosedPort, DEADLINE, Ocelli, PipelineFolder, Site};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::timeout;

/// A host of a site, with the pipelines of its own folder.
pub(super) struct Member {
    host: Ocelli,
    pub(super) name: &'static str,
    _store: PipelineFolder,
}

impl std::ops::Deref for Member {
    type Target = Ocelli;

    fn deref(&self) -> &Ocelli {
        &self.host
    }
}

/// The section of a host that listens there.
fn section(site: &Site, name: &str, address: SocketAddr, more: &str) -> String {
    let (etcd, nats) = (json!(site.etcd.urls()), json!(site.nats.urls()));
    format!(
        "[server]\nlisten = \"{address}\"\nedit_config = true\n[cluster]\nsite = \"hall\"\nhost = \
         \"{name}\"\naddress = \"http://{address}\"\netcd = {etcd}\nnats = {nats}\nreplicas = 1\n\
         streams = 2\n{more}\n"
    )
}

pub(super) async fn join(site: &Site, name: &'static str) -> Member {
    join_with(site, name, "").await
}

/// A host with more sections.
pub(super) async fn join_with(site: &Site, name: &'static str, more: &str) -> Member {
    let store = PipelineFolder::with(&["changeling"]);
    let port = ClosedPort::new();
    let config = section(site, name, port.address, more) + &store.section();
    drop(port);
    Member { host: Ocelli::start(&config).await, name, _store: store }
}

/// What a host says of its site, once that is so.
pub(super) async fn site_becomes(
    host: &Ocelli,
    what: &str,
    good: impl Fn(&Value) -> bool,
) -> Value {
    let wait = async {
        loop {
            let site: Value = serde_json::from_str(&host.get("/v1/cluster").await).unwrap();
            if good(&site) {
                return site;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("the site never has {what}"))
}

/// Adds a camera whose pipeline tells an event with every fifth frame, and counts them in its store.
async fn add_camera(host: &Ocelli, id: &str, source: &str) {
    let entry = json!({
        "source": source, "pipeline": "changeling", "settings": {"every": 5, "keep": true},
    });
    let path = format!("/v1/config/cameras/{id}");
    let (status, answer) = host.put(&path, entry.to_string().as_bytes()).await;
    assert!((200..300).contains(&status), "{status} {answer}");
}

/// The name of the host that has a camera, as another says.
async fn owner(host: &Ocelli, camera: &str) -> String {
    let owner_of = |site: &Value| {
        let cameras = site["cameras"].as_array()?.iter();
        let one = cameras.filter(|one| one["id"] == camera).next()?;
        one["host"].as_str().map(str::to_owned)
    };
    let site = site_becomes(host, "an owner", |site| owner_of(site).is_some()).await;
    owner_of(&site).unwrap()
}

/// Reads events until `done`, and holds each to the number behind the one before.
async fn events(client: &mut Client, last: &mut u64, done: impl Fn(&Value) -> bool) -> Value {
    loop {
        let event = client.next_of("event").await;
        let seq = event["seq"].as_u64().unwrap();
        assert!(*last == 0 || seq == *last + 1, "{seq} after {last}: {event}");
        *last = seq;
        if done(&event) {
            return event;
        }
    }
}

fn is_counted(event: &Value) -> bool {
    event["kind"] == "counted"
}

/// How many events the camera's pipeline has counted in its store.
async fn kept(host: &Ocelli) -> u64 {
    let (status, answer) = host.post("/v1/sessions/cam/query", "application/json", b"{}").await;
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["answer"]["kept"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_hosts_camera_goes_on_elsewhere_and_nobody_misses_an_event() {
    let Some(site) = Site::single() else { return };
    let cameras = Cameras::start(&[], &[("/cam", "people-576-high-b3.mp4")]);
    let hosts = [join(&site, "a").await, join(&site, "b").await];
    site_becomes(&hosts[0], "two hosts", |site| site["hosts"].as_array().unwrap().len() == 2).await;
    add_camera(&hosts[0], "cam", &cameras.url("/cam")).await;
    let name = owner(&hosts[1], "cam").await;
    let [dies, stays] = match name.as_str() {
        "a" => [&hosts[0], &hosts[1]],
        "b" => [&hosts[1], &hosts[0]],
        other => panic!("{other:?} has it"),
    };
    assert_eq!(dies.name, name);
    let mut client = stays.client().await;
    client.subscribe("cam").await;
    client.detections("cam").await;
    let mut last = 0;
    events(&mut client, &mut last, is_counted).await;
    let before = events(&mut client, &mut last, is_counted).await;
    // The other host answers by asking its owner.
    let counted = kept(stays).await;
    assert!(counted > 0);

    dies.process().signal(Signal::KILL);
    let taken = events(&mut client, &mut last, |event| event["kind"] == "takeover").await;
    assert_eq!(taken["data"]["host"], stays.name, "{taken}");
    assert_eq!(taken["data"]["from_host"], dies.name, "{taken}");
    events(&mut client, &mut last, is_counted).await;
    client.detections("cam").await;
    assert_eq!(owner(stays, "cam").await, stays.name);
    // The store went with it.
    let count = kept(stays).await;
    assert!(count > counted, "{counted} before, {count} after");
    // What the other host told is here, too.
    let (oldest, all) = stays.journal("cam").await;
    let numbers: Vec<u64> = all.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{oldest} {numbers:?}");
    assert!(numbers.contains(&before["seq"].as_u64().unwrap()));
}
