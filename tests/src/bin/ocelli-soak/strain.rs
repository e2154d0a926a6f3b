//! One host with some cameras, and what is done to it.

use std::fmt::Write;
use std::time::Duration;

use futures_util::future::join_all;
use ocelli_testkit::{Cameras, Client, Ocelli, Relay, changeling, clip, guest};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

/// Cameras that are always on, each behind a relay of its own that can cut it off.
const CAMERAS: usize = 10;

/// Sessions that come and go at the same time.
const AT_ONCE: usize = 4;

/// Kills in a row after which a session's losses are forgotten on demand: five would be a crash
/// loop.
const KILLS: usize = 3;

/// Results of a session in a second: few, because the machine is for what is done to the host.
const RATE: f64 = 0.5;

const CLIP: &str = "people-576-high.mp4";

/// The camera whose pipeline changes: on a file of 25 frames a second.
const SWAPPED: &str = "swapped";

/// The host and its cameras.
pub(crate) struct Strain {
    host: Ocelli,
    server: Cameras,
    relays: Vec<Relay>,
    sessions_made: usize,
    /// Two versions of the pipeline that changes.
    versions: [Vec<u8>; 2],
    swaps_made: usize,
}

impl Strain {
    /// Starts all, and returns when every camera has given a result.
    pub(crate) async fn start() -> Self {
        let paths: Vec<String> = (0..CAMERAS)
            .map(camera)
            .chain((0..AT_ONCE).map(extra))
            .map(|name| format!("/{name}"))
            .collect();
        let mounts: Vec<_> = paths.iter().map(|path| (path.as_str(), CLIP)).collect();
        let server = Cameras::start(&[], &mounts);
        let relays = join_all((0..CAMERAS).map(|_| Relay::to(server.port()))).await;
        let mut config = "[session_processes]\nhealth_check_interval = 10\n\
            [subscriptions]\ngrace_s = 0\nsources = [\"rtsp://127.0.0.1:*\", \"file:/\"]\n"
            .to_owned();
        for (number, relay) in relays.iter().enumerate() {
            let (id, address) = (camera(number), relay.address());
            write!(
                config,
                "[[cameras]]\nid = \"{id}\"\nsource = \"rtsp://{address}/{id}\"\npipeline = \
                    \"object-detect\"\n\
                 settings = {{ max_results_per_second = {RATE} }}\n"
            )
            .unwrap();
        }
        // So short a history is full after the warm-up.
        write!(
            config,
            "[[cameras]]\nid = \"{SWAPPED}\"\nsource = \"file:{}\"\nrepeat = true\npace = \
                \"realtime\"\n\
             pipeline = {:?}\n[deploy]\nhistory = 20\nreserve_mb = 0\n",
            clip("bikes.mp4").display(),
            guest("changeling").display().to_string()
        )
        .unwrap();
        let versions = ["2.0.0", "2.0.1"].map(|version| changeling(&json!({"version": version})));
        let host = Ocelli::start(&config).await;
        let strain = Self { host, server, relays, sessions_made: 0, versions, swaps_made: 0 };
        strain.all_give_results().await;
        strain
    }

    pub(crate) fn host(&self) -> &Ocelli {
        &self.host
    }

    /// Waits for a result of every camera.
    pub(crate) async fn all_give_results(&self) {
        join_all((0..CAMERAS).map(async |number| {
            let mut client = self.watch(&camera(number)).await;
            client.detections(&camera(number)).await;
            client.close().await;
        }))
        .await;
    }

    /// Cuts cameras off `count` times, evenly, and waits each time until the camera is back.
    pub(crate) async fn reconnect(&self, count: usize) {
        join_all((0..CAMERAS).map(async |number| {
            let id = camera(number);
            let mut client = self.watch(&id).await;
            client.state(&id, "running").await;
            for _ in 0..share(count, number) {
                let before = self.relays[number].connections();
                self.relays[number].cut();
                client.state(&id, "degraded").await;
                client.state(&id, "running").await;
                assert!(self.relays[number].connections() > before, "{id}");
            }
            client.close().await;
        }))
        .await;
    }

    /// Has subscribers make `count` sessions and leave them: on a camera that others use too, on
    /// one of their own, on a file; by unsubscribing, by closing their connection, by vanishing.
    pub(crate) async fn sessions(&mut self, count: usize) {
        let first = self.sessions_made;
        self.sessions_made += count;
        let strain = &*self;
        join_all((0..AT_ONCE).map(async |lane| {
            for number in (first + lane..first + count).step_by(AT_ONCE) {
                strain.session(number, lane).await;
            }
        }))
        .await;
    }

    async fn session(&self, number: usize, lane: usize) {
        let id = format!("display-{number}");
        let source = match number / AT_ONCE % 3 {
            0 => format!("rtsp://{}/{}", self.relays[lane].address(), camera(lane)),
            1 => self.server.url(&format!("/{}", extra(lane))),
            _ => format!("file:{}", clip(CLIP).display()),
        };
        let mut client = self.host.client().await;
        let subscribe = json!({"type": "subscribe", "session": id, "source": source, "pipeline": "object-detect",
            "settings": {"max_results_per_second": RATE}});
        client.send(&subscribe).await;
        client.detections(&id).await;
        match number % 3 {
            0 => {
                client.send(&json!({"type": "unsubscribe", "session": id})).await;
                client.next_of("unsubscribed").await;
                client.close().await;
            }
            1 => client.close().await,
            _ => drop(client),
        }
        self.host.wait_for_session(&id, Value::is_null).await;
    }

    /// Kills workers of cameras `count` times, evenly, and waits each time for the next worker.
    pub(crate) async fn kill(&self, count: usize) {
        join_all((0..CAMERAS).map(async |number| {
            let id = camera(number);
            let mut client = self.watch(&id).await;
            for kill in 1..=share(count, number) {
                let status =
                    self.host.wait_for_session(&id, |session| session["state"] == "running").await;
                self.host.worker(&id).await.signal(Signal::KILL);
                let another = |session: &Value| {
                    session["state"] == "running"
                        && session["restarts"].as_u64() > status["restarts"].as_u64()
                };
                client.state(&id, "restarting").await;
                self.host.wait_for_session(&id, another).await;
                if kill % KILLS == 0 {
                    self.host.restart(&id).await;
                    client.state(&id, "starting").await;
                }
            }
            // What is not forgotten here would count as the first loss of the next time.
            self.host.wait_for_session(&id, |session| session["state"] == "running").await;
            self.host.restart(&id).await;
            client.state(&id, "starting").await;
            client.state(&id, "running").await;
            client.close().await;
        }))
        .await;
    }

    /// Changes the pipeline of a camera `count` times, back and forth, and asks in the end whether
    /// a frame was lost.
    pub(crate) async fn swap(&mut self, count: usize) {
        for _ in 0..count {
            self.swaps_made += 1;
            let version = &self.versions[self.swaps_made % self.versions.len()];
            let (status, answer) = self.host.deploy(SWAPPED, "", version).await;
            assert_eq!(status, 200, "{answer}");
        }
        let mut client = self.watch(SWAPPED).await;
        client.send(&json!({"type": "query", "session": SWAPPED, "query": {}})).await;
        let state = client.next_of("answer").await["answer"].clone();
        assert_eq!((&state["missing"], &state["repeated"]), (&json!(0), &json!(0)), "{state}");
        assert_eq!(state["changes"], self.swaps_made, "{state}");
        client.close().await;
    }

    /// Takes all cameras away for a while, and waits until all are back.
    pub(crate) async fn outage(&mut self, duration: Duration) {
        self.server.kill();
        self.all_become("degraded").await;
        sleep(duration).await;
        self.server.restart();
        self.all_become("running").await;
    }

    async fn all_become(&self, state: &str) {
        join_all((0..CAMERAS).map(async |number| {
            self.host.wait_for_session(&camera(number), |session| session["state"] == state).await;
        }))
        .await;
    }

    /// A subscriber of a session.
    async fn watch(&self, session: &str) -> Client {
        let mut client = self.host.client().await;
        client.subscribe(session).await;
        client
    }
}

/// The session and the path of a camera.
fn camera(number: usize) -> String {
    format!("cam-{number}")
}

/// The path of a camera that only a subscriber's session uses.
fn extra(number: usize) -> String {
    format!("extra-{number}")
}

/// What one of the cameras has to bear of `count`.
fn share(count: usize, camera: usize) -> usize {
    count / CAMERAS + usize::from(camera < count % CAMERAS)
}
