//! Workers that hang, hosts that stop while they do, and subscribers that vanish: what is left
//! behind is nothing.

use std::time::Duration;

use ocelli_testkit::{Client, ClosedPort, DEADLINE, Ocelli, ProcessResources, children};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::camera;
use crate::isolation::{notices_nothing, people, two_cameras};

/// Within which the hosts of these tests notice a worker that hangs, in seconds.
const HEALTH: u64 = 3;

/// Seconds that no test waits for: what happens within a test's deadlines does not come from this
/// limit.
const NEVER: u64 = 600;

/// The section of the session manager.
fn processes(health: u64, cleanup: u64) -> String {
    format!(
        "[session_processes]\nhealth_check_interval = {health}\nprocess_cleanup_timeout = \
            {cleanup}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_is_noticed_and_replaced_and_its_neighbour_notices_nothing() {
    let cameras = people();
    let nobody = ClosedPort::new();
    // A worker has to be well even where there is nothing for it to do.
    let idle = camera("idle", &format!("rtsp://{}/cam", nobody.address), "");
    let (host, mut client) = two_cameras(&cameras, &(processes(HEALTH, NEVER) + &idle)).await;
    host.wait_for_session("idle", |session| session["state"] == "degraded").await;
    client.subscribe("idle").await;
    let two = host.worker("two").await;
    for session in ["one", "idle"] {
        let worker = host.worker(session).await;
        let stopped = Instant::now();
        worker.signal(Signal::STOP);
        let lost = client.state(session, "restarting").await;
        println!(
            "{session}: noticed {:.2} s after the worker was stopped",
            stopped.elapsed().as_secs_f64()
        );
        assert!(
            lost["reason"].as_str().is_some_and(|reason| reason.contains("no sign of life")),
            "{lost}"
        );
        assert!(worker.ends_within(DEADLINE), "the old worker lives on");
        let replaced = host.wait_for_session(session, |session| session["pid"].is_u64()).await;
        assert_ne!(replaced["pid"], worker.pid, "{replaced}");
        assert_eq!(replaced["restarts"], 1, "{replaced}");
    }
    client.detections("one").await;
    notices_nothing(&host, &mut client, "two", two.pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_stops_in_time_although_a_worker_hangs() {
    const CLEANUP: u64 = 2;
    let cameras = people();
    let (mut host, _client) = two_cameras(&cameras, &processes(NEVER, CLEANUP)).await;
    let all = children(host.process().pid);
    host.worker("one").await.signal(Signal::STOP);
    let asked = Instant::now();
    let exit = host.stop().await;
    let took = asked.elapsed().as_secs_f64();
    println!("ended {took:.2} s after SIGTERM, of which {CLEANUP} s were the worker's");
    assert_eq!(exit.status, Some(0), "{}", exit.stderr);
    for process in all {
        assert!(process.ends_within(DEADLINE), "{process:?} outlives the host");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_host_at_once() {
    let cameras = people();
    let (mut host, mut client) = two_cameras(&cameras, &processes(NEVER, NEVER)).await;
    let all = children(host.process().pid);
    host.worker("one").await.signal(Signal::STOP);
    host.process().signal(Signal::TERM);
    // It has taken the first one when it says good-bye.
    while client.next_or_end().await.is_some() {}
    let asked = Instant::now();
    let exit = host.stop().await;
    println!("ended {:.3} s after the second SIGTERM", asked.elapsed().as_secs_f64());
    // One that had not waited for its worker would have ended well.
    assert_eq!(exit.status, Some(1), "{}", exit.stderr);
    for process in all {
        assert!(process.ends_within(DEADLINE), "{process:?} outlives the host");
    }
}

/// What a host and its inference process hold, and how many children there are. No more after than
/// before means that nothing was left behind.
struct Possessions {
    children: usize,
    host: ProcessResources,
    inference: ProcessResources,
}

impl Possessions {
    fn of(host: &Ocelli) -> Self {
        let pid = host.process().pid;
        let children = children(pid);
        let inference = children.iter().find(|child| child.name == "ocelli-inferenc");
        let inference = inference.expect("an inference process").pid;
        Self {
            children: children.len(),
            host: ProcessResources::of(pid),
            inference: ProcessResources::of(inference),
        }
    }

    /// Looks until the inference process is the only child: the process that read a camera ends
    /// after the last session on it.
    async fn at_rest(host: &Ocelli) -> Self {
        let begun = Instant::now();
        loop {
            let now = Self::of(host);
            if now.children == 1 {
                return now;
            }
            assert!(begun.elapsed() < DEADLINE, "{} children stay", now.children);
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Children, descriptors, shared memory.
    fn counts(&self) -> [u64; 5] {
        let Self { children, host, inference } = self;
        let open = [host, inference].map(|held| held.descriptors_but_logs() as u64);
        [*children as u64, open[0], host.shared_bytes(), open[1], inference.shared_bytes()]
    }

    /// Looks until nothing is more than it was. It may be less: connections end a little later at
    /// one side than at the other, and one of before may have been counted.
    async fn become_again(&self, host: &Ocelli) {
        let begun = Instant::now();
        loop {
            let now = Self::of(host);
            if now.counts().iter().zip(self.counts()).all(|(now, before)| *now <= before) {
                return;
            }
            let open = [&self.host, &now.host, &self.inference, &now.inference]
                .map(|held| &held.descriptors);
            assert!(
                begun.elapsed() < DEADLINE,
                "{:?}, then {:?}: {open:#?}",
                self.counts(),
                now.counts()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Makes a session and takes its first result.
async fn make(client: &mut Client, session: &str, source: &str) {
    client.subscribe_to(session, source).await;
    client.detections(session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_who_vanishes_takes_along_all_that_its_sessions_held() {
    let cameras = people();
    // Processes that stand by come and go when a model is first asked for.
    let config = "[inference]\nspare = false\n[subscriptions]\ngrace_s = 1\nsources = \
        [\"rtsp://127.0.0.1:*\"]\n";
    let host = Ocelli::start(config).await;
    let sessions = ["display-001;cam-001", "display-002;cam-001", "display-001;cam-002"];
    // The first session has the pipeline compiled and its model loaded; that stays.
    let mut first = host.client().await;
    make(&mut first, "first", &cameras.url("/cam")).await;
    first.close().await;
    host.wait_for_session("first", serde_json::Value::is_null).await;
    let before = Possessions::at_rest(&host).await;
    for round in 0..3 {
        let mut client = host.client().await;
        for session in sessions {
            make(&mut client, session, &cameras.url("/cam")).await;
        }
        let workers = [host.worker(sessions[0]).await, host.worker(sessions[1]).await];
        let during = Possessions::of(&host);
        println!("round {round}: {:?} beside {:?}", during.counts(), before.counts());
        // A worker for each, and one process that reads their camera.
        assert_eq!(during.children, before.children + sessions.len() + 1);
        // A question under way must not hold the session either.
        client.send(&json!({"type": "query", "session": sessions[0], "query": "tracks"})).await;
        // Without a word: the socket is closed, the WebSocket is not.
        drop(client);
        for worker in workers {
            assert!(worker.ends_within(DEADLINE), "{worker:?} outlives its session");
        }
        for session in sessions {
            host.wait_for_session(session, serde_json::Value::is_null).await;
        }
        before.become_again(&host).await;
    }
}
