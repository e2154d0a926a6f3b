//! Cameras that go away and come back.

use futures_util::future::join_all;
use ocelli_testkit::{Cameras, Client, Ocelli};
use serde_json::Value;
use tokio::time::Instant;

use crate::{SLOW, camera};

/// A camera over TCP and one over UDP, and clients that have got results of both.
async fn both_transports(cameras: &Cameras) -> (Ocelli, [(&'static str, Client); 2]) {
    let transport =
        |name: &str| camera(name, &cameras.url("/cam"), &format!("transport = {name:?}\n{SLOW}"));
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

/// Waits until the host has called a camera that was lost again, in vain, and says so in these
/// words.
async fn called_in_vain(host: &Ocelli, words: &str) {
    for session in ["tcp", "udp"] {
        let says = |status: &Value| {
            let reason = status["reason"].as_str().unwrap_or_default();
            status["state"] == "degraded" && reason.contains(words)
        };
        host.wait_for_session(session, says).await;
    }
}

/// Waits for the results of all sessions after a loss. Within 3 s, on a machine that has nothing
/// else to do; how long it takes is for the bench to judge.
async fn all_resume(clients: &mut [(&str, Client)], returned: Instant) {
    let resume = clients.iter_mut().map(async |(session, client)| {
        client.state(session, "running").await;
        client.detections(session).await;
        println!(
            "{session}: results {:.2} s after the camera's return",
            returned.elapsed().as_secs_f64()
        );
    });
    join_all(resume).await;
}

/// The states that a client was told of, repetitions left out: the reason for a loss may change
/// while it lasts.
fn states(client: &Client) -> Vec<String> {
    let messages =
        client.received().iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
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

    cameras.kill();
    for (session, client) in &mut clients {
        degraded(&cameras, session, client).await;
    }
    called_in_vain(&host, "refused").await;
    cameras.restart();
    all_resume(&mut clients, Instant::now()).await;
    for (session, client) in &clients {
        let told = states(client);
        assert!(told.ends_with(&["degraded".into(), "running".into()]), "{session}: {told:?}");
        assert!(!told.contains(&"restarting".to_owned()), "{session}: {told:?}");
    }
    assert_eq!(
        workers,
        [host.worker("tcp").await.pid, host.worker("udp").await.pid],
        "the workers lived on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_camera_is_noticed_and_results_resume() {
    let cameras = Cameras::start(&[], &[("/cam", "people-576-high.mp4")]);
    let (host, mut clients) = both_transports(&cameras).await;

    let frozen = Instant::now();
    cameras.freeze();
    for (session, client) in &mut clients {
        degraded(&cameras, session, client).await;
        println!("{session}: noticed after {:.2} s", frozen.elapsed().as_secs_f64());
    }
    // The kernel still takes connections for it.
    called_in_vain(&host, "says nothing").await;
    cameras.thaw();
    all_resume(&mut clients, Instant::now()).await;
}
