//! Cameras that go away and come back.

use std::time::Duration;

use futures_util::future::join_all;
use ocelli_testkit::{Cameras, Client, Ocelli};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::{SLOW, camera};

/// How long results may take to resume. 3 s are promised; the rest is for a machine that runs other tests beside.
const RESUME_LIMIT: Duration = Duration::from_secs(10);

/// A camera over TCP and one over UDP, and clients that have got results of both.
async fn both_transports(cameras: &Cameras) -> (Ocelli, [(&'static str, Client); 2]) {
    let transport = |name: &str| camera(name, &cameras.url("/cam"), &format!("transport = {name:?}\n{SLOW}"));
    let host = Ocelli::start(&(transport("tcp") + &transport("udp"))).await;
    let mut clients = [("tcp", host.client().await), ("udp", host.client().await)];
    for (session, client) in &mut clients {
        client.subscribe(session).await;
        client.detections(session).await;
    }
    (host, clients)
}

/// Waits for `degraded`, and holds its reason to naming the camera.
async fn degraded(cameras: &Cameras, session: &str, client: &mut Client) {
    let message = client.state(session, "degraded").await;
    let reason = message["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(&cameras.url("/cam")), "{message}");
}

/// Waits for the results of all sessions after a loss, and holds each to the limit.
async fn all_resume(clients: &mut [(&str, Client)], returned: Instant) {
    let resume = clients.iter_mut().map(async |(session, client)| {
        client.state(session, "running").await;
        client.detections(session).await;
        let took = returned.elapsed();
        println!("{session}: results {:.2} s after the camera's return", took.as_secs_f64());
        assert!(took < RESUME_LIMIT, "{session}: {took:?}");
    });
    join_all(resume).await;
}

/// The states that a client was told of, repetitions left out: the reason for a loss may change while it lasts.
fn states(client: &Client) -> Vec<String> {
    let messages = client.received().iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
    let states = messages.filter(|message| message["type"] == "session");
    let mut states: Vec<String> =
        states.map(|message| message["state"].as_str().unwrap().to_owned()).collect();
    states.dedup();
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn results_resume_soon_after_a_killed_camera_is_back() {
    let mut cameras = Cameras::start(&[], &[("/cam", "people-576-high-b3.mp4")]);
    let (host, mut clients) = both_transports(&cameras).await;
    let workers = [host.worker("tcp").await.pid, host.worker("udp").await.pid];

    let killed = Instant::now();
    cameras.kill();
    for (session, client) in &mut clients {
        degraded(&cameras, session, client).await;
    }
    // The outage is as long as the promise says.
    sleep_until(killed + Duration::from_secs(5)).await;
    cameras.restart();
    all_resume(&mut clients, Instant::now()).await;
    for (session, client) in &clients {
        let told = states(client);
        assert!(told.ends_with(&["degraded".into(), "running".into()]), "{session}: {told:?}");
        assert!(!told.contains(&"restarting".to_owned()), "{session}: {told:?}");
    }
    assert_eq!(workers, [host.worker("tcp").await.pid, host.worker("udp").await.pid], "the workers lived on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_camera_is_noticed_and_results_resume() {
    let cameras = Cameras::start(&[], &[("/cam", "people-576-high.mp4")]);
    let (_host, mut clients) = both_transports(&cameras).await;

    let frozen = Instant::now();
    cameras.freeze();
    for (session, client) in &mut clients {
        degraded(&cameras, session, client).await;
        println!("{session}: noticed after {:.2} s", frozen.elapsed().as_secs_f64());
    }
    assert!(frozen.elapsed() < Duration::from_secs(8), "noticed after {:?}", frozen.elapsed());
    // As long as the promise says.
    sleep_until(frozen + Duration::from_secs(8)).await;
    cameras.thaw();
    all_resume(&mut clients, Instant::now()).await;
}
