//! Sources that are no use: the session says which one and why, goes on trying, and tells nobody
//! the password.

use std::collections::BTreeSet;
use std::time::Duration;

use ocelli_testkit::{Cameras, ClosedPort, FakeServer, Ocelli, Relay};
use serde_json::Value;
use tokio::time::Instant;

use crate::{SLOW, camera};

const USER: &str = "w4tcher";
const PASSWORD: &str = "s3cr3tpw";
const WRONG: &str = "wr0ngpw";

/// A camera that refuses a password is asked again after 10 s at the soonest; cameras lock
/// accounts.
const NO_RETRY: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_source_degrades_its_session_with_the_cause_and_without_credentials() {
    let begun = Instant::now();
    let cameras = Cameras::start(
        &["--user", USER, "--password", PASSWORD],
        &[("/cam", "people-576-high.mp4")],
    );
    let relay = Relay::to(cameras.port()).await;
    let closed = ClosedPort::new();
    let web = FakeServer::web().await;
    let silent = FakeServer::silent().await;
    let audio = FakeServer::describing("m=audio 0 RTP/AVP 0\r\na=control:track1\r\n").await;
    let vp8 = FakeServer::describing(
        "m=video 0 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\na=control:track1\r\n",
    )
    .await;
    // Name, address, password, path, and what the reason has to say.
    let cases = [
        ("wrong-password", relay.address(), WRONG, "/cam", "password"),
        ("closed", closed.address, PASSWORD, "/cam", "refused"),
        ("web", web.address, PASSWORD, "/cam", "not in RTSP"),
        ("silent", silent.address, PASSWORD, "/cam", "says nothing"),
        ("audio", audio.address, PASSWORD, "/cam", "no video"),
        ("vp8", vp8.address, PASSWORD, "/cam", "vp8"),
        ("wrong-path", ([127, 0, 0, 1], cameras.port()).into(), PASSWORD, "/other", "404"),
    ];
    let sources = cases.iter().map(|(name, address, password, path, _)| {
        camera(name, &format!("rtsp://{USER}:{password}@{address}{path}"), "")
    });
    let good = camera("good", &cameras.url_with(&format!("{USER}:{PASSWORD}"), "/cam"), SLOW);
    let config = sources.collect::<String>() + &good;
    let host = Ocelli::start_with(&config, &[("OCELLI_LOG", "debug")]).await;

    let mut client = host.client().await;
    client.subscribe("good").await;
    for (name, ..) in &cases {
        client.subscribe(name).await;
    }
    let mut waited_for: BTreeSet<&str> = cases.iter().map(|(name, ..)| *name).collect();
    let all_degraded = |message: &Value| {
        if message["state"] == "degraded" {
            waited_for.remove(message["session"].as_str().unwrap());
        }
        waited_for.is_empty().then_some(())
    };
    client.find(all_degraded).await;
    // A wrong password is not tried again at once.
    let tries = relay.connections();
    assert!(tries as u64 <= 1 + begun.elapsed().as_secs() / NO_RETRY.as_secs(), "{tries} tries");
    for (name, address, _, path, cause) in &cases {
        let status = host.session(name).await;
        let redacted = format!("rtsp://***:***@{address}{path}");
        assert_eq!(
            (&status["state"], &status["source"]),
            (&"degraded".into(), &redacted.clone().into()),
            "{status}"
        );
        for told in ["reason", "last_error"] {
            let told = status[told].as_str().unwrap_or_else(|| panic!("no {told}: {status}"));
            assert!(told.contains(&redacted) && told.contains(cause), "{name}: {told}");
        }
    }
    // The neighbour works all the while.
    client.detections("good").await;

    let mut told = vec![host.log().text(), host.get("/v1/sessions").await];
    told.extend(client.received().iter().cloned());
    assert!(told[0].contains("DEBUG"), "the log holds all that it can");
    for entry in std::fs::read_dir(host.folder().join("logs")).unwrap() {
        told.push(std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    for text in told {
        for secret in [USER, PASSWORD, WRONG] {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{secret} is told: {}", line.unwrap_or_default());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_was_not_there_at_the_start_is_found_when_it_comes() {
    let mut cameras = Cameras::start(&[], &[("/cam", "people-576-high.mp4")]);
    cameras.kill();
    let host = Ocelli::start(&camera("late", &cameras.url("/cam"), SLOW)).await;
    let mut client = host.client().await;
    client.subscribe("late").await;
    client.state("late", "degraded").await;
    cameras.restart();
    client.state("late", "running").await;
    client.detections("late").await;
}
