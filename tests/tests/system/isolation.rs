//! Processes that die: what it costs, and whom.

use ocelli_testkit::{Cameras, Client, DEADLINE, Ocelli, Process, children};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::{SLOW, camera};

/// A host with the cameras `one` and `two`, and a client that has got results of both. `config` is
/// what else it is told.
pub(crate) async fn two_cameras(cameras: &Cameras, config: &str) -> (Ocelli, Client) {
    let url = cameras.url("/cam");
    let cameras = camera("one", &url, SLOW) + &camera("two", &url, SLOW);
    let host = Ocelli::start(&format!("{config}{cameras}")).await;
    let mut client = host.client().await;
    for session in ["one", "two"] {
        client.subscribe(session).await;
    }
    for session in ["one", "two"] {
        client.detections(session).await;
    }
    (host, client)
}

/// A camera `/cam` that shows people.
pub(crate) fn people() -> Cameras {
    Cameras::start(&[], &[("/cam", "people-576-high.mp4")])
}

/// The inference process that serves all sessions of a host.
async fn inference(host: &Ocelli) -> Process {
    let [inference] = host.inference().await.try_into().expect("one inference process serves");
    inference
}

/// Holds a session to having its worker and giving results as before, whatever became of another
/// one.
pub(crate) async fn notices_nothing(
    host: &Ocelli,
    client: &mut Client,
    session: &str,
    worker: u32,
) {
    client.detections(session).await;
    let status = host.session(session).await;
    assert_eq!((&status["pid"], &status["restarts"]), (&worker.into(), &0.into()), "{status}");
    let about = format!(r#"{{"type":"session","session":"{session}""#);
    let told = client.received().iter().filter(|text| text.starts_with(&about));
    let told: Vec<_> =
        told.filter(|text| !["starting", "running"].iter().any(|s| text.contains(s))).collect();
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_replaced_and_its_neighbour_notices_nothing() {
    let cameras = people();
    let (host, mut client) = two_cameras(&cameras, "").await;
    let (one, two) = (host.worker("one").await, host.worker("two").await);
    let killed = Instant::now();
    one.signal(Signal::KILL);
    let lost = client.state("one", "restarting").await;
    assert!(lost["reason"].as_str().is_some_and(|reason| reason.contains("SIGKILL")), "{lost}");
    client.state("one", "running").await;
    client.detections("one").await;
    // Within 0.5 s, on a machine that has nothing else to do; how long it takes is for the bench to
    // judge.
    println!("a result {:.0} ms after the kill", killed.elapsed().as_secs_f64() * 1e3);
    let replaced = host.session("one").await;
    assert_ne!(replaced["pid"], one.pid, "{replaced}");
    assert_eq!(replaced["restarts"], 1, "{replaced}");
    assert!(
        replaced["last_error"].as_str().is_some_and(|error| error.contains("SIGKILL")),
        "{replaced}"
    );

    notices_nothing(&host, &mut client, "two", two.pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_inference_process_is_replaced_and_the_workers_live_on() {
    let cameras = people();
    let (host, mut client) = two_cameras(&cameras, "").await;
    let workers = [host.worker("one").await.pid, host.worker("two").await.pid];
    let killed = inference(&host).await;
    killed.signal(Signal::KILL);
    assert!(killed.ends_within(DEADLINE));
    // Results that were on their way belong to the old process: those that count come after the
    // sessions have another.
    let replaced =
        host.log().find(|line| line.contains("go to the next inference process").then_some(()));
    tokio::time::timeout(DEADLINE, replaced)
        .await
        .expect("a new inference process in time")
        .expect("the host lives");
    for session in ["one", "two"] {
        let results = host.session(session).await["results"].as_u64().unwrap();
        client.detections(session).await;
        host.wait_for_session(session, |status| status["results"].as_u64().unwrap() > results + 2)
            .await;
        let status = host.session(session).await;
        assert_eq!(
            (&status["state"], &status["restarts"]),
            (&"running".into(), &0.into()),
            "{status}"
        );
    }
    assert_ne!(inference(&host).await.pid, killed.pid);
    assert_eq!(workers, [host.worker("one").await.pid, host.worker("two").await.pid]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_outlives_a_killed_host() {
    let cameras = people();
    let (host, _client) = two_cameras(&cameras, "").await;
    let orphans = children(host.process().pid);
    assert!(orphans.len() >= 3, "two workers and inference: {orphans:?}");
    host.process().signal(Signal::KILL);
    for orphan in orphans {
        assert!(orphan.ends_within(DEADLINE), "{orphan:?} outlives the host");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_asked_to_stop_says_so_and_leaves_nothing_behind() {
    let cameras = people();
    let (mut host, mut client) = two_cameras(&cameras, "").await;
    let processes = children(host.process().pid);
    assert!(processes.len() >= 3, "two workers and inference: {processes:?}");
    let exit = host.stop().await;
    assert_eq!(exit.status, Some(0), "{}", exit.stderr);
    for process in processes {
        assert!(process.ends_within(DEADLINE), "{process:?} outlives the host");
    }
    let mut last = None;
    while let Some(message) = client.next_or_end().await {
        last = Some(message);
    }
    let last = last.expect("a farewell");
    assert_eq!(
        (&last["type"], &last["code"]),
        (&"error".into(), &"shutting_down".into()),
        "{last}"
    );
}
