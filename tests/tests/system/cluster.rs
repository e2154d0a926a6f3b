//! Hosts that stand in for each other, with real servers: a camera goes on elsewhere, and whoever
//! listens at another host sees every event once.

use std::net::SocketAddr;
use std::time::Duration;

use ocelli_testkit::{
    Cameras, Client, ClosedPort, DEADLINE, Ocelli, PipelineFolder, Site, changeling, depth, program,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;
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
    let mut entry = json!({
        "source": source, "pipeline": "changeling", "settings": {"every": 5, "keep": true},
    });
    if source.starts_with("file:") {
        // A file that plays for ever at its own speed.
        entry["pace"] = json!("realtime");
        entry["repeat"] = json!(true);
    }
    let path = format!("/v1/config/cameras/{id}");
    let (status, answer) = host.put(&path, entry.to_string().as_bytes()).await;
    assert!((200..300).contains(&status), "{status} {answer}");
}

/// The name of the host that has a camera, as another says.
async fn owner(host: &Ocelli, camera: &str) -> String {
    let owner_of = |site: &Value| {
        let mut cameras = site["cameras"].as_array()?.iter();
        let one = cameras.find(|one| one["id"] == camera)?;
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
    for _ in 0..6 {
        events(&mut client, &mut last, is_counted).await;
    }
    let before = events(&mut client, &mut last, is_counted).await;
    // The other host answers by asking its owner.
    let counted = kept(stays).await;
    assert!(counted >= 6, "{counted}");

    dies.process().signal(Signal::KILL);
    let taken = events(&mut client, &mut last, |event| event["kind"] == "takeover").await;
    assert_eq!(taken["data"]["host"], stays.name, "{taken}");
    assert_eq!(taken["data"]["from_host"], dies.name, "{taken}");
    events(&mut client, &mut last, is_counted).await;
    client.detections("cam").await;
    assert_eq!(owner(stays, "cam").await, stays.name);
    // The store went with it, but for what it changed in its last moment.
    let count = kept(stays).await;
    assert!(count + 3 > counted, "{counted} before, {count} after");
    // What the other host told is here, too.
    let (oldest, all) = stays.journal("cam").await;
    let numbers: Vec<u64> = all.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{oldest} {numbers:?}");
    assert!(numbers.contains(&before["seq"].as_u64().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_host_hands_its_cameras_over_and_takes_none() {
    let Some(site) = Site::single() else { return };
    let hosts = [join(&site, "a").await, join(&site, "b").await];
    site_becomes(&hosts[0], "two hosts", |site| site["hosts"].as_array().unwrap().len() == 2).await;
    let source = format!("file:{}", ocelli_testkit::clip("people-576-high-b3.mp4").display());
    add_camera(&hosts[0], "cam", &source).await;
    let name = owner(&hosts[1], "cam").await;
    let [leaves, gets] = if name == "a" { [&hosts[0], &hosts[1]] } else { [&hosts[1], &hosts[0]] };
    let mut client = gets.client().await;
    client.subscribe("cam").await;
    let mut last = 0;
    events(&mut client, &mut last, is_counted).await;
    let counted = kept(gets).await;

    let path = format!("/v1/cluster/hosts/{name}/drain");
    let (status, answer) = gets.post(&path, "application/json", br#"{"draining":true}"#).await;
    assert_eq!(status, 200, "{answer}");
    let taken = events(&mut client, &mut last, |event| event["kind"] == "takeover").await;
    assert_eq!(taken["data"]["host"], gets.name, "{taken}");
    events(&mut client, &mut last, is_counted).await;
    assert!(kept(gets).await >= counted, "what its pipeline counted went with it");
    // It stays empty: a further camera goes to the other one.
    add_camera(&hosts[0], "second", &source).await;
    assert_eq!(owner(leaves, "second").await, gets.name);
    // A wish for it is none that can be fulfilled now.
    let (status, answer) = gets
        .post("/v1/cluster/cameras/cam/move", "application/json", br#"{"host":"nobody"}"#)
        .await;
    assert_eq!(status, 404, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployed_version_and_pictures_of_events_go_with_their_camera() {
    let Some(site) = Site::single() else { return };
    let soon = "[deploy]\nprobation_s = 1";
    let hosts = [join_with(&site, "a", soon).await, join_with(&site, "b", soon).await];
    let [leaves, gets] = two_hosts_with_a_camera(&hosts).await;
    leaves.wait_for_session("cam", |session| session["state"] == "running").await;
    let settings = "?settings=%7B%22every%22%3A5%2C%22attach%22%3Atrue%7D";
    let version = changeling(&json!({"version": "2.0.0"}));
    let (status, record) = gets.deploy("cam", settings, &version).await;
    assert_eq!(status, 200, "{record}");
    let is_healthy = |newest: &Value| newest["version"] == "2.0.0" && newest["state"] == "healthy";
    leaves.wait_for_deployment("cam", is_healthy).await;
    let mut client = gets.client().await;
    client.subscribe("cam").await;
    let mut last = 0;
    let pictured = |event: &Value| event["attachments"][0]["digest"].is_string();
    let event = events(&mut client, &mut last, pictured).await;

    leaves.process().signal(Signal::KILL);
    events(&mut client, &mut last, |event| event["kind"] == "takeover").await;
    // The same component and settings, which the site's config knows nothing of.
    events(&mut client, &mut last, pictured).await;
    let runs = gets.wait_for_session("cam", |session| session["state"] == "running").await;
    assert_eq!(runs["pipeline_version"], "changeling 2.0.0", "{runs}");
    let digest = event["attachments"][0]["digest"].as_str().unwrap();
    let (status, _) = gets.request("GET", &format!("/v1/attachments/{digest}")).await;
    assert_eq!(status, 200, "a picture of the host that is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_site_is_away_says_so_and_runs_no_camera() {
    let Some(mut site) = Site::single() else { return };
    let host = join(&site, "a").await;
    let source = format!("file:{}", ocelli_testkit::clip("people-576-high-b3.mp4").display());
    site_becomes(&host, "a member", |site| site["state"] == "member").await;
    add_camera(&host, "cam", &source).await;
    owner(&host, "cam").await;
    host.wait_for_session("cam", |session| session["state"] == "running").await;

    site.etcd.kill(0);
    let lost = site_becomes(&host, "a lapse", |site| site["state"] == "lapsed").await;
    assert!(lost["reason"].as_str().unwrap().contains(&site.etcd.urls()[0]), "{lost}");
    assert_eq!(lost["etcd"]["state"], "down");
    // Its session ends: nobody may speak for the camera.
    let wait = async {
        while host.get("/v1/sessions?local=true").await.contains("\"cam\"") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(DEADLINE, wait).await.expect("its session ends");
    // One that starts meanwhile is there, and says what it waits for.
    let late = join(&site, "b").await;
    let waits = site_becomes(&late, "a reason", |site| site["state"] == "joining").await;
    assert!(waits["reason"].as_str().unwrap().contains(&site.etcd.urls()[0]), "{waits}");

    site.etcd.run(0);
    site.etcd.await_ready();
    for host in [&host, &late] {
        site_becomes(host, "a member", |site| site["state"] == "member").await;
    }
    owner(&late, "cam").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_host_of_the_same_name_gets_nothing() {
    let Some(site) = Site::single() else { return };
    let first = join(&site, "a").await;
    site_becomes(&first, "a member", |site| site["state"] == "member").await;
    let second = join(&site, "a").await;
    let refused = site_becomes(&second, "a refusal", |site| site["state"] == "refused").await;
    assert!(refused["reason"].as_str().unwrap().contains("has a host \"a\" already"), "{refused}");
    let source = format!("file:{}", ocelli_testkit::clip("people-576-high-b3.mp4").display());
    add_camera(&first, "cam", &source).await;
    first.wait_for_session("cam", |session| session["state"] == "running").await;
    assert!(!second.get("/v1/sessions?local=true").await.contains("\"pid\""));
}

/// Two hosts, and a camera `cam` of the first one's pipelines: who has it, and who has not.
async fn two_hosts_with_a_camera(hosts: &[Member; 2]) -> [&Member; 2] {
    site_becomes(&hosts[0], "two hosts", |site| site["hosts"].as_array().unwrap().len() == 2).await;
    let source = format!("file:{}", ocelli_testkit::clip("people-576-high-b3.mp4").display());
    add_camera(&hosts[0], "cam", &source).await;
    let name = owner(&hosts[1], "cam").await;
    if name == "a" { [&hosts[0], &hosts[1]] } else { [&hosts[1], &hosts[0]] }
}

/// How many frames the pipeline's state has, as one of its events says.
fn frames(event: &Value) -> u64 {
    event["data"]["frames"].as_u64().unwrap_or_else(|| panic!("{event}"))
}

/// Reads events up to a take-over by this host. Gives the frames of the last that was counted, or
/// those that were `counted` before.
async fn frames_before_take_over(
    client: &mut Client,
    last: &mut u64,
    mut counted: u64,
    by: &str,
) -> u64 {
    loop {
        let event = events(client, last, |event| {
            is_counted(event) || event["kind"] == "takeover" && event["data"]["host"] == by
        });
        match event.await {
            event if is_counted(&event) => counted = frames(&event),
            _ => return counted,
        }
    }
}

async fn wish(host: &Ocelli, camera: &str, to: &str) {
    let wish = json!({"host": to}).to_string();
    let path = format!("/v1/cluster/cameras/{camera}/move");
    let (status, answer) = host.post(&path, "application/json", wish.as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
}

/// Frames of the clip in the time between two snapshots, at ten a second.
const BETWEEN_SNAPSHOTS: u64 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_a_pipeline_outlasts_its_host_but_for_a_few_seconds() {
    let Some(site) = Site::single() else { return };
    let hosts = [join(&site, "a").await, join(&site, "b").await];
    let [dies, stays] = two_hosts_with_a_camera(&hosts).await;
    let mut client = stays.client().await;
    client.subscribe("cam").await;
    let mut last = 0;
    let long = 4 * BETWEEN_SNAPSHOTS;
    let begun = |event: &Value| is_counted(event) && frames(event) >= long;
    let event = events(&mut client, &mut last, begun).await;
    assert_eq!(event["data"]["changes"], 0, "no state was given to it: {event}");

    dies.process().signal(Signal::KILL);
    let told = frames(&event);
    let before = frames_before_take_over(&mut client, &mut last, told, stays.name).await;
    let goes_on = events(&mut client, &mut last, is_counted).await;
    assert_eq!(goes_on["data"]["changes"], 1, "{goes_on}");
    let after = frames(&goes_on);
    // One interval, and another for a machine that is busy.
    assert!(after + 2 * BETWEEN_SNAPSHOTS >= before && after <= before + 10, "{before}, {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_a_pipeline_moves_with_its_camera_as_it_is() {
    let Some(site) = Site::single() else { return };
    let hosts = [join(&site, "a").await, join(&site, "b").await];
    let [mut has, mut gets] = two_hosts_with_a_camera(&hosts).await;
    // Moves close no connection of the host that has the camera before or after.
    let mut client = gets.client().await;
    client.subscribe("cam").await;
    let mut last = 0;
    for moves in 1..=3 {
        let begun = frames(&events(&mut client, &mut last, is_counted).await);
        wish(has, "cam", gets.name).await;
        let before = frames_before_take_over(&mut client, &mut last, begun, gets.name).await;
        let goes_on = events(&mut client, &mut last, is_counted).await;
        // It tells an event with every fifth frame that its state has seen.
        assert_eq!((frames(&goes_on), &goes_on["data"]["changes"]), (before + 5, &json!(moves)));
        (has, gets) = (gets, has);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_refused_or_that_nobody_can_give_costs_a_camera_little() {
    let Some(site) = Site::single() else { return };
    let soon = "[deploy]\nprobation_s = 1\nreserve_mb = 0";
    let hosts = [join_with(&site, "a", soon).await, join_with(&site, "b", soon).await];
    let faults = [("restore", "refuse", 0), ("restore", "trap", 1), ("snapshot", "trap", 2)];
    let [mut has, mut gets] = two_hosts_with_a_camera(&hosts).await;
    let mut client = gets.client().await;
    client.subscribe("cam").await;
    let mut last = 0;
    // Losses of a session are those of both faults that it meets.
    for (number, (at, does, losses)) in (2..).zip(faults) {
        has.wait_for_session("cam", |session| session["state"] == "running").await;
        let version = format!("{number}.0.0");
        let fault = json!({"at": at, "does": does});
        let component = changeling(&json!({"version": version, "fault": fault}));
        let (status, record) = has.deploy("cam", "?state=fresh", &component).await;
        assert_eq!(status, 200, "{record}");
        let is_healthy =
            |newest: &Value| newest["version"] == version && newest["state"] == "healthy";
        has.wait_for_deployment("cam", is_healthy).await;
        let of_it = |event: &Value| is_counted(event) && event["data"]["version"] == version;
        if at == "snapshot" {
            // It is asked once, and then left alone for longer than that takes.
            has.wait_for_session("cam", |session| session["restarts"] == losses).await;
            let long = |event: &Value| of_it(event) && frames(event) >= 3 * BETWEEN_SNAPSHOTS;
            events(&mut client, &mut last, long).await;
            let session = has.session("cam").await;
            assert_eq!(
                (&session["state"], &session["restarts"]),
                (&"running".into(), &losses.into())
            );
            assert!(session["last_error"].as_str().unwrap().contains("Snapshot"), "{session}");
            break;
        }
        events(&mut client, &mut last, of_it).await;
        wish(has, "cam", gets.name).await;
        frames_before_take_over(&mut client, &mut last, 0, gets.name).await;
        let anew = events(&mut client, &mut last, of_it).await;
        assert_eq!(
            (frames(&anew), &anew["data"]["changes"]),
            (5, &0.into()),
            "{at} {does}: {anew}"
        );
        let session = gets.session("cam").await;
        assert_eq!(session["restarts"], losses, "{at} {does}: {session}");
        let told = if does == "refuse" { "begins anew" } else { "Restore" };
        assert!(session["last_error"].as_str().unwrap().contains(told), "{session}");
        (has, gets) = (gets, has);
    }
}

/// Lets subscribers name cameras of this machine.
const SOURCES: &str = "[subscriptions]\ngrace_s = 1\nsources = [\"rtsp://127.0.0.1:*\"]";

/// Subscribes to a session and has it made where it is not there.
async fn subscribe_to(client: &mut Client, session: &str, source: &str) {
    let asked = json!({
        "type": "subscribe", "session": session, "source": source, "pipeline": "changeling",
        "settings": {"every": 5, "keep": true},
    });
    client.send(&asked).await;
}

/// The cause for which a session is refused.
async fn refusal(client: &mut Client) -> String {
    let error = client.next_of("error").await;
    assert_eq!(error["code"], "session_refused", "{error}");
    error["cause"].as_str().unwrap().to_owned()
}

fn has_no_cameras(site: &Value) -> bool {
    site["cameras"].as_array().unwrap().is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_of_all_hosts_share_the_session_that_they_make_by_a_source() {
    let Some(site) = Site::single() else { return };
    let cameras = Cameras::start(&[], &[("/cam", "people-576-high-b3.mp4")]);
    let (source, session) = (cameras.url("/cam"), "display 1/cam");
    let hosts = [join_with(&site, "a", SOURCES).await, join_with(&site, "b", SOURCES).await];
    for host in &hosts {
        let both = |site: &Value| site["hosts"].as_array().unwrap().len() == 2;
        site_becomes(host, "two hosts", both).await;
    }
    let mut clients = [hosts[0].client().await, hosts[1].client().await];
    for client in &mut clients {
        subscribe_to(client, session, &source).await;
    }
    for client in &mut clients {
        client.detections(session).await;
    }
    let name = owner(&hosts[1], session).await;
    let [one, other] = [hosts[0].session(session).await, hosts[1].session(session).await];
    assert_eq!((&one["host"], &one["pid"]), (&other["host"], &other["pid"]), "{one} {other}");
    let seen = site_becomes(&hosts[0], "it", |site| !has_no_cameras(site)).await;
    assert_eq!(seen["cameras"][0]["made"], true, "{seen}");
    // As on a host alone.
    let client = &mut clients[1];
    subscribe_to(client, session, &cameras.url("/other")).await;
    assert_eq!(refusal(client).await, "session_differs");
    subscribe_to(client, "mine", "rtsp://10.0.0.1/cam").await;
    assert_eq!(refusal(client).await, "source_not_allowed");

    let [mut at_a, mut at_b] = clients;
    let (dies, stays, client) = match name.as_str() {
        "a" => (&hosts[0], &hosts[1], &mut at_b),
        "b" => (&hosts[1], &hosts[0], &mut at_a),
        other => panic!("{other:?} has it"),
    };
    let mut last = 0;
    events(client, &mut last, is_counted).await;
    dies.process().signal(Signal::KILL);
    let taken = events(client, &mut last, |event| event["kind"] == "takeover").await;
    assert_eq!(taken["data"]["host"], stays.name, "{taken}");
    events(client, &mut last, is_counted).await;
    client.detections(session).await;
    let worker = stays.worker(session).await;

    let alone = |site: &Value| site["hosts"].as_array().unwrap().len() == 1;
    site_becomes(stays, "one host", alone).await;
    let unsubscribe = json!({"type": "unsubscribe", "session": session});
    client.send(&unsubscribe).await;
    site_becomes(stays, "no camera", has_no_cameras).await;
    assert!(worker.ends_within(DEADLINE), "the worker lives on");
    stays.wait_for_session(session, Value::is_null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_make_no_more_sessions_than_the_sites_hosts_take() {
    let Some(site) = Site::single() else { return };
    let cameras = Cameras::start(&[], &[("/cam", "people-576-high-b3.mp4")]);
    let source = cameras.url("/cam");
    let host = join_with(&site, "a", &format!("capacity = 1\n{SOURCES}")).await;
    site_becomes(&host, "a member", |site| site["state"] == "member").await;
    let mut client = host.client().await;
    subscribe_to(&mut client, "first", &source).await;
    client.detections("first").await;
    subscribe_to(&mut client, "second", &source).await;
    assert_eq!(refusal(&mut client).await, "session_limit");
    // An operator ends it, whoever listens, and the name and its place are free.
    let (status, answer) = host.request("DELETE", "/v1/sessions/first").await;
    assert!((200..300).contains(&status), "{status} {answer}");
    site_becomes(&host, "no camera", has_no_cameras).await;
    subscribe_to(&mut client, "second", &source).await;
    client.detections("second").await;
    client.close().await;
    site_becomes(&host, "no camera", has_no_cameras).await;
}

/// A request without a body, with a token.
async fn ask(host: &Ocelli, token: &str, request: &str) -> (u16, Value) {
    let (method, path) = request.split_once(' ').unwrap();
    let headers = format!("Authorization: Bearer {token}\r\nContent-Length: 0");
    let (status, answer) = host.send(method, path, &headers, &[]).await;
    (status, serde_json::from_str(&answer).unwrap_or_default())
}

/// Waits until a request is answered as it should be.
async fn answers(host: &Ocelli, token: &str, request: &str, good: impl Fn(u16, &Value) -> bool) {
    let mut last = (0, Value::Null);
    let wait = async {
        loop {
            last = ask(host, token, request).await;
            if good(last.0, &last.1) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let so = timeout(DEADLINE, wait).await;
    so.unwrap_or_else(|_| panic!("{request} is answered with {last:?}"));
}

/// A command of `ocelli` for this host, with a token: what it prints, or else says.
async fn command(host: &Ocelli, token: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program("ocelli"));
    command.args(arguments).env("OCELLI_URL", format!("http://{}", host.address()));
    command.env("OCELLI_TOKEN", token);
    let output = timeout(DEADLINE, command.output()).await.expect("it ends").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_site_is_in_force_at_each_host_until_it_is_revoked_at_one() {
    let Some(mut site) = Site::single() else { return };
    let a = join(&site, "a").await;
    let mut b = join(&site, "b").await;
    site_becomes(&a, "two hosts", |site| site["hosts"].as_array().unwrap().len() == 2).await;
    let source = format!("file:{}", ocelli_testkit::clip("people-576-high-b3.mp4").display());
    add_camera(&a, "cam", &source).await;
    owner(&b, "cam").await;
    let ops = command(&a, "", &["token", "add", "ops", "--role", "admin"]).await.unwrap();
    let wall = ["token", "add", "wall", "--role", "viewer", "--session", "cam"];
    let wall = command(&a, &ops, &wall).await.unwrap();
    let is_known = |status: u16, me: &Value| status == 200 && me["name"] == "wall";
    let is_closed = |status: u16, _: &Value| status == 401;
    // The other host knows both, and that it lets nobody else in.
    answers(&b, &wall, "GET /v1/me", |status, me| {
        is_known(status, me) && me["role"] == "viewer" && me["sessions"] == json!(["cam"])
    })
    .await;
    answers(&b, "", "GET /v1/me", is_closed).await;
    // Whichever host has the camera: the token goes on with the request.
    for host in [&a, &b] {
        answers(host, &wall, "GET /v1/sessions/cam", |status, _| status == 200).await;
        assert_eq!(ask(host, &wall, "GET /v1/sessions/yard").await.0, 404);
        assert_eq!(ask(host, &wall, "GET /v1/cluster").await.0, 403);
    }
    let listed = command(&b, &ops, &["token", "list"]).await.unwrap();
    assert!(listed.contains("wall") && !listed.contains(&wall), "{listed}");

    // While etcd is away both hosts go by what they knew, also one that is started meanwhile.
    site.etcd.kill(0);
    let state = |state: &'static str| move |_: u16, site: &Value| site["state"] == state;
    answers(&b, &ops, "GET /v1/cluster", state("lapsed")).await;
    b.host.cut_and_start_again().await;
    answers(&b, "", "GET /v1/me", is_closed).await;
    for host in [&a, &b] {
        assert!(is_known(200, &ask(host, &wall, "GET /v1/me").await.1));
    }
    let none = command(&a, &ops, &["token", "add", "late", "--role", "viewer"]).await;
    assert!(none.as_ref().is_err_and(|said| said.contains("etcd")), "{none:?}");
    site.etcd.run(0);
    site.etcd.await_ready();
    answers(&b, &ops, "GET /v1/cluster", state("member")).await;
    answers(&a, &ops, "GET /v1/cluster", state("member")).await;

    let mut client = b.client_as(&wall).await;
    client.subscribe("cam").await;
    command(&a, &ops, &["token", "revoke", "wall"]).await.unwrap();
    let mut last = Value::Null;
    while let Some(message) = client.next_or_end().await {
        last = message;
    }
    assert_eq!(last["code"], "token_revoked", "{last}");
    for host in [&a, &b] {
        assert_eq!(ask(host, &wall, "GET /v1/me").await.0, 401);
    }
    assert_eq!(ask(&b, &ops, "GET /v1/me").await.0, 200);
    let last = command(&b, &ops, &["token", "revoke", "ops"]).await;
    assert!(last.as_ref().is_err_and(|said| said.contains("no other admin")), "{last:?}");
}

/// What takes a camera from its host.
#[derive(Debug)]
enum Change {
    /// The host is killed, and started again.
    Kill,
    /// Somebody wishes the camera to another host.
    Move,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_at_a_third_host_sees_every_event_through_random_take_overs() {
    let Some(site) = Site::cluster() else { return };
    let mut hosts = [join(&site, "a").await, join(&site, "b").await, join(&site, "c").await];
    site_becomes(&hosts[2], "3 hosts", |site| site["hosts"].as_array().unwrap().len() == 3).await;
    let source = format!("file:{}", ocelli_testkit::clip("people-576-high-b3.mp4").display());
    add_camera(&hosts[2], "cam", &source).await;
    // The third takes no camera: its subscriber's connection lasts.
    let (status, answer) =
        hosts[2].post("/v1/cluster/hosts/c/drain", "application/json", DRAIN).await;
    assert_eq!(status, 200, "{answer}");
    let mut client = hosts[2].client().await;
    client.subscribe("cam").await;
    let (mut last, mut random) = (0, fastrand::Rng::with_seed(21));
    let mut has = owner_among(&hosts[2], &["a", "b"]).await;
    for _ in 0..depth::rounds(50) {
        events(&mut client, &mut last, is_counted).await;
        let (from, to) = if has == "a" { (0, 1) } else { (1, 0) };
        let change = if random.bool() { Change::Kill } else { Change::Move };
        println!("{change:?} behind {last}: from {has} to {}", hosts[to].name);
        // A wish for a host that is killed would bring the camera back to it later.
        let wish = match change {
            Change::Kill => json!({"host": null}),
            Change::Move => json!({"host": hosts[to].name}),
        };
        let path = "/v1/cluster/cameras/cam/move";
        let wish = wish.to_string();
        let (status, answer) = hosts[2].post(path, "application/json", wish.as_bytes()).await;
        assert_eq!(status, 200, "{answer}");
        if matches!(change, Change::Kill) {
            hosts[from].host.process().signal(Signal::KILL);
        }
        let taken =
            |event: &Value| event["kind"] == "takeover" && event["data"]["host"] == hosts[to].name;
        events(&mut client, &mut last, taken).await;
        if matches!(change, Change::Kill) {
            hosts[from].host.cut_and_start_again().await;
            let count = |site: &Value| site["hosts"].as_array().unwrap().len();
            site_becomes(&hosts[2], "3 hosts", |site| count(site) == 3).await;
        }
        has = owner_among(&hosts[2], &[hosts[to].name]).await;
    }
    events(&mut client, &mut last, is_counted).await;
}

const DRAIN: &[u8] = br#"{"draining":true}"#;

/// The host that has the camera, once it is one of these.
async fn owner_among(host: &Ocelli, names: &[&str]) -> String {
    let wait = async {
        loop {
            let owner = owner(host, "cam").await;
            if names.contains(&&*owner) {
                return owner;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("none of {names:?} has the camera"))
}
