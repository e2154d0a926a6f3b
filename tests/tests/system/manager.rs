//! The session manager: who may have a session, what an operator can do to one, and that each has
//! one worker.

use std::collections::BTreeSet;

use ocelli_testkit::depth::rounds;
use ocelli_testkit::{Client, ClosedPort, DEADLINE, Ocelli, Random, children, clip};
use serde_json::{Value, json};

use crate::camera;

/// A camera that never answers: its session is there and costs nothing.
fn silent(id: &str, port: &ClosedPort) -> String {
    camera(id, &format!("rtsp://{}/cam", port.address), "")
}

/// The numbers of a host's workers, as the kernel knows them.
fn workers(host: &Ocelli) -> BTreeSet<u32> {
    let workers =
        children(host.process().pid).into_iter().filter(|child| child.name == "ocelli-worker");
    workers.map(|child| child.pid).collect()
}

/// The numbers of a host's workers, as its API tells them.
async fn told(host: &Ocelli) -> BTreeSet<u32> {
    let answer: Value = serde_json::from_str(&host.get("/v1/sessions").await).unwrap();
    let sessions = answer["sessions"].as_array().unwrap();
    sessions.iter().filter_map(|session| session["pid"].as_u64()?.try_into().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_beyond_the_limit_is_refused_with_the_limit_and_who_holds_it() {
    let port = ClosedPort::new();
    let limit = "[session_processes]\nmax_concurrent_sessions = 2\n";
    let host =
        Ocelli::start(&(limit.to_owned() + &silent("one", &port) + &silent("two", &port))).await;
    let (one, two) = (host.worker("one").await, host.worker("two").await);
    let mut client = host.client().await;
    client.subscribe_to("three", &format!("rtsp://{}/cam", port.address)).await;
    let refused = client.next_of("error").await;
    assert_eq!(refused["cause"], "session_limit", "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(
        ["2", "one", "two", "max_concurrent_sessions"].iter().all(|word| message.contains(word)),
        "{message}"
    );
    assert_eq!(workers(&host), BTreeSet::from([one.pid, two.pid]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_called_after_its_session() {
    let port = ClosedPort::new();
    let host = Ocelli::start(&silent("display-001;cam-001", &port)).await;
    let worker = host.worker("display-001;cam-001").await;
    let title = std::fs::read_to_string(format!("/proc/{}/cmdline", worker.pid)).unwrap();
    assert_eq!(
        title.split_terminator('\0').collect::<Vec<_>>(),
        ["ocelli-worker", "display-001;cam-001"]
    );
    let environment = std::fs::read(format!("/proc/{}/environ", worker.pid)).unwrap();
    assert!(environment.is_empty(), "{}", String::from_utf8_lossy(&environment));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_failed_starts_again_when_an_operator_says_so() {
    let source =
        format!("file:{}", clip("people-576-high.mp4").with_file_name("missing.mp4").display());
    let host = Ocelli::start(&camera("cam", &source, "")).await;
    let failed = host.wait_for_session("cam", |session| session["state"] == "failed").await;
    assert!(failed["pid"].is_null(), "{failed}");
    assert!(failed["reason"].as_str().unwrap().contains("missing.mp4"), "{failed}");
    let mut client = host.client().await;
    client.subscribe("cam").await;
    client.state("cam", "failed").await;
    let (status, body) = host.request("POST", "/v1/sessions/cam/restart").await;
    assert_eq!(status, 202, "{body}");
    client.state("cam", "starting").await;
    client.state("cam", "failed").await;
    assert_eq!(host.session("cam").await["restarts"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_session_is_gone_with_its_process_and_its_subscribers_are_told() {
    let port = ClosedPort::new();
    let host = Ocelli::start(&(silent("one", &port) + &silent("two", &port))).await;
    let (one, two) = (host.worker("one").await, host.worker("two").await);
    let mut client = host.client().await;
    client.subscribe("one").await;
    let (status, body) = host.request("DELETE", "/v1/sessions/one").await;
    assert_eq!(status, 204, "{body}");
    client.state("one", "stopped").await;
    assert!(one.ends_within(DEADLINE));
    assert!(host.session("one").await.is_null());
    let (status, body) = host.request("DELETE", "/v1/sessions/one").await;
    assert_eq!(status, 404, "{body}");
    assert_eq!(host.worker("two").await.pid, two.pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_in_whatever_order_a_session_has_one_worker_and_no_worker_is_without_a_session()
 {
    /// Waits until a request is done, well or not. What follows from it goes on beside the next.
    async fn answered(client: &mut Client, id: &str) {
        let done = ["subscribed", "unsubscribed", "error"];
        let done = |message: &Value| {
            done.iter().any(|kind| message["type"] == *kind) && message["session"] == id
        };
        client.find(|message| done(message).then_some(())).await;
    }
    let port = ClosedPort::new();
    let url = format!("rtsp://{}/cam", port.address);
    let host =
        Ocelli::start("[subscriptions]\ngrace_s = 0\nsources = [\"rtsp://127.0.0.1:*\"]\n").await;
    let mut client = host.client().await;
    let mut random = Random::with_seed(1);
    for _ in 0..rounds(120) {
        let id = format!("s{}", random.u8(..4));
        match random.u8(..5) {
            0 | 1 => {
                client.subscribe_to(&id, &url).await;
                answered(&mut client, &id).await;
            }
            2 => {
                client.send(&json!({"type": "unsubscribe", "session": id})).await;
                answered(&mut client, &id).await;
            }
            3 => drop(host.request("POST", &format!("/v1/sessions/{id}/restart")).await),
            _ => {
                for worker in workers(&host).into_iter().take(1) {
                    if let Some(worker) = ocelli_testkit::Process::open(worker) {
                        worker.signal(rustix::process::Signal::KILL);
                    }
                }
            }
        }
        assert!(workers(&host).len() <= 4, "{:?} for four sessions", workers(&host));
    }
    // What the client asked is done in order: after the answer to the last of these nothing else is
    // under way.
    for id in ["s0", "s1", "s2", "s3"] {
        client.subscribe_to(id, &url).await;
        answered(&mut client, id).await;
        // One that was killed five times in a row waits for an operator.
        host.wait_for_session(id, |session| !session.is_null()).await;
        host.request("POST", &format!("/v1/sessions/{id}/restart")).await;
    }
    for id in ["s0", "s1", "s2", "s3"] {
        host.wait_for_session(id, |session| {
            session["state"] == "degraded" && !session["pid"].is_null()
        })
        .await;
    }
    assert_eq!(workers(&host), told(&host).await);
    assert_eq!(workers(&host).len(), 4);
    client.close().await;
    for id in ["s0", "s1", "s2", "s3"] {
        host.wait_for_session(id, Value::is_null).await;
    }
    assert_eq!(workers(&host), BTreeSet::new(), "workers without a session");
}
