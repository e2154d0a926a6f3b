//! The host of the chaos with its cameras, its Redis and its disk.

use std::fmt::Write as _;
use std::time::Duration;

use ocelli_testkit::small_disk::SmallDisk;
use ocelli_testkit::{Cameras, ClosedPort, Ocelli, Redis, changeling, guest};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::witness::Witness;

/// Cameras of each RTSP server: two with object detection by the strict reader, one by the
/// compatible one, one whose pipeline changes and counts its events in its store.
pub(super) const PER_SERVER: usize = 4;
pub(super) const SERVERS: usize = 3;

/// 10 frames a second.
const CLIP: &str = "people-576-high.mp4";

/// KiB of the data directory's file system: several times what an hour of events takes.
const DISK_KIB: u64 = 192 << 10;

/// How long every session may take to be running with a new result after all faults of a round:
/// three times the longest wait before a camera is tried again.
const RECOVERY: Duration = Duration::from_secs(180);

/// Between two looks at what tells nobody when it changes.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Redis writes each entry to its file before it answers: what a killed server has taken is there
/// when it comes back.
const LASTING: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// Everything that faults are done to.
pub(super) struct Site {
    host: Ocelli,
    pub(super) servers: Vec<Cameras>,
    redis: Redis,
    disk: SmallDisk,
    /// Where the disk is mounted.
    _folder: TempDir,
    witness: Witness,
    /// Versions of the changing pipeline, good ones.
    pub(super) versions: [Vec<u8>; 2],
    pub(super) deployed: usize,
    pub(super) refused: usize,
    /// Restarts over the API of sessions that had failed for good.
    by_hand: usize,
    host_starts: usize,
    longest_recovery: Duration,
}

impl Site {
    /// Starts everything.
    pub(super) async fn start() -> Self {
        let servers: Vec<Cameras> = (0..SERVERS)
            .map(|server| {
                let paths: Vec<String> =
                    cameras_of(server).map(|camera| format!("/{}", id(camera))).collect();
                let mounts: Vec<_> = paths.iter().map(|path| (path.as_str(), CLIP)).collect();
                Cameras::start(&[], &mounts)
            })
            .collect();
        let mut redis = Redis::nowhere();
        redis.run(&LASTING);
        let folder = tempfile::tempdir().unwrap();
        let disk = SmallDisk::mount(folder.path(), DISK_KIB).expect("the chaos needs root");
        // A host that is killed comes back at the same address, as an operator's does.
        let port = ClosedPort::new();
        let config = config(&servers, &redis, &disk, &port);
        let host = Ocelli::start(&config).await;
        let witness = Witness::follow(host.address(), (0..SERVERS * PER_SERVER).map(id));
        Self {
            host,
            servers,
            redis,
            disk,
            _folder: folder,
            witness,
            versions: ["2.0.0", "2.0.1"].map(|version| changeling(&json!({"version": version}))),
            deployed: 0,
            refused: 0,
            by_hand: 0,
            host_starts: 1,
            longest_recovery: Duration::ZERO,
        }
    }

    pub(super) fn host(&self) -> &Ocelli {
        &self.host
    }

    pub(super) fn redis(&self) -> &Redis {
        &self.redis
    }

    pub(super) fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Ends the host as a power cut would, and starts it again.
    pub(super) async fn cut_host(&mut self) {
        self.host_starts += 1;
        self.host.cut_and_start_again().await;
    }

    /// Ends Redis as a power cut would.
    pub(super) fn kill_redis(&mut self) {
        self.redis.kill();
    }

    pub(super) fn start_redis(&mut self) {
        self.redis.run(&LASTING);
    }

    pub(super) fn fill_disk(&self) {
        self.disk.fill();
    }

    pub(super) fn free_disk(&self) {
        self.disk.free();
    }

    /// Waits until every session is running and has given a result that it had not given before.
    /// A session that has failed for good is restarted, as an operator would.
    pub(super) async fn recover(&mut self) {
        let begun = Instant::now();
        let mut waiting: Vec<(String, Option<u64>)> =
            (0..SERVERS * PER_SERVER).map(|camera| (id(camera), None)).collect();
        while !waiting.is_empty() {
            let sessions: Value =
                serde_json::from_str(&self.host.get("/v1/sessions").await).unwrap();
            let sessions = sessions["sessions"].as_array().expect("a list of sessions");
            let mut failed = Vec::new();
            waiting.retain_mut(|(id, first)| {
                let session = sessions.iter().find(|session| session["id"] == **id);
                let session = session.unwrap_or(&Value::Null);
                if session["state"] == "failed" {
                    failed.push(id.clone());
                }
                let results = session["results"].as_u64();
                // A session of a host that has just been replaced counts from 0 again.
                let lowest = first.iter().copied().chain(results).min();
                let more = first.is_some() && results > *first;
                *first = lowest;
                session["state"] != "running" || !more
            });
            for id in failed {
                self.by_hand += 1;
                self.host.restart(&id).await;
            }
            assert!(
                begun.elapsed() < RECOVERY,
                "not back after {} s: {:?}; {sessions:#?}",
                RECOVERY.as_secs(),
                waiting.iter().map(|(id, _)| id).collect::<Vec<_>>()
            );
            sleep(LOOK_AGAIN).await;
        }
        self.longest_recovery = self.longest_recovery.max(begun.elapsed());
    }

    /// What was done, in words.
    pub(super) fn summary(&self) -> String {
        format!(
            "{} starts of the host, {} deployments, {} refused, {} sessions restarted by hand, \
             {} events by WebSocket, the longest recovery took {:.0} s",
            self.host_starts,
            self.deployed,
            self.refused,
            self.by_hand,
            self.witness.total(),
            self.longest_recovery.as_secs_f64()
        )
    }

    /// Ends the host in order and gives its exit status. The rest ends with it.
    pub(super) async fn stop(mut self) -> Option<i32> {
        self.host.stop().await.status
    }
}

/// The cameras of a server.
fn cameras_of(server: usize) -> std::ops::Range<usize> {
    server * PER_SERVER..(server + 1) * PER_SERVER
}

/// The session and the path of a camera.
pub(super) fn id(camera: usize) -> String {
    format!("cam-{camera}")
}

/// Cameras whose pipeline changes.
pub(super) fn changing() -> impl Iterator<Item = usize> {
    (0..SERVERS).map(|server| server * PER_SERVER + PER_SERVER - 1)
}

fn config(servers: &[Cameras], redis: &Redis, disk: &SmallDisk, port: &ClosedPort) -> String {
    // An alert of restarts stays for an hour: it cannot be cleared in the end.
    let mut config = format!(
        "[server]\nlisten = \"{}\"\n[store]\ndirectory = {:?}\n\
         [session_processes]\nhealth_check_interval = 10\n\
         [alerts]\nrestarts_per_hour = 0\n\
         [deploy]\nreserve_mb = 0\nprobation_s = 2\n{}",
        port.address,
        disk.path().join("data").display().to_string(),
        redis.section("stream_length = 1000000\ntimeout_ms = 1000")
    );
    for camera in 0..SERVERS * PER_SERVER {
        let id = id(camera);
        let source = servers[camera / PER_SERVER].url(&format!("/{id}"));
        let pipeline = match camera % PER_SERVER {
            3 => format!(
                "pipeline = {:?}\nsettings = {{ every = 10, keep = true }}\n",
                guest("changeling").display().to_string()
            ),
            2 => "pipeline = \"object-detect\"\nreader = \"compatible\"\n\
                  settings = { max_results_per_second = 0.5 }\n"
                .to_owned(),
            _ => "pipeline = \"object-detect\"\nsettings = { max_results_per_second = 0.5 }\n"
                .to_owned(),
        };
        write!(config, "[[cameras]]\nid = \"{id}\"\nsource = \"{source}\"\n{pipeline}").unwrap();
    }
    config
}
