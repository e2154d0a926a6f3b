//! What can go wrong around a host, each with its beginning and its end.

use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;

use ocelli_testkit::{Process, Random, changeling, children};
use rustix::process::Signal;
use serde_json::json;

use super::site::{PER_SERVER, SERVERS, Site, changing, id};

/// A fault. Cameras and servers are numbers, as [`Site`] has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    KillWorker(usize),
    /// The worker is stopped and does nothing: its heartbeat fails.
    FreezeWorker(usize),
    KillInference,
    FreezeInference,
    /// All processes that read cameras, of both readers.
    KillReaders,
    KillHost,
    KillCameras(usize),
    /// The server's connections stay open, and nothing comes.
    FreezeCameras(usize),
    FillDisk,
    KillRedis,
    PauseRedis,
    Deploy(usize),
    /// A version that ends itself some frames after it is active.
    DeployBroken(usize),
    Rollback(usize),
}

impl Fault {
    /// One of each kind.
    pub(super) fn one_of_each(random: &mut Random) -> Vec<Self> {
        (0..KINDS).map(|kind| Self::new(kind, random)).collect()
    }

    /// So many of different kinds.
    pub(super) fn some(random: &mut Random, count: RangeInclusive<usize>) -> Vec<Self> {
        let count = random.usize(count);
        let kinds = random.choose_multiple(0..KINDS, count);
        kinds.into_iter().map(|kind| Self::new(kind, random)).collect()
    }

    fn new(kind: usize, random: &mut Random) -> Self {
        let camera = random.usize(..SERVERS * PER_SERVER);
        let server = random.usize(..SERVERS);
        let changes = changing().nth(server).expect("one for each server");
        match kind {
            0 => Self::KillWorker(camera),
            1 => Self::FreezeWorker(camera),
            2 => Self::KillInference,
            3 => Self::FreezeInference,
            4 => Self::KillReaders,
            5 => Self::KillHost,
            6 => Self::KillCameras(server),
            7 => Self::FreezeCameras(server),
            8 => Self::FillDisk,
            9 => Self::KillRedis,
            10 => Self::PauseRedis,
            11 => Self::Deploy(changes),
            12 => Self::DeployBroken(changes),
            _ => Self::Rollback(changes),
        }
    }

    /// Makes it happen.
    pub(super) async fn begin(self, site: &mut Site) {
        match self {
            Self::KillWorker(camera) => worker(site, camera, Signal::KILL).await,
            Self::FreezeWorker(camera) => worker(site, camera, Signal::STOP).await,
            Self::KillInference => signal_children(site, INFERENCE, Signal::KILL),
            Self::FreezeInference => signal_children(site, INFERENCE, Signal::STOP),
            Self::KillReaders => {
                READERS.iter().for_each(|name| signal_children(site, name, Signal::KILL));
            }
            Self::KillHost => site.cut_host().await,
            Self::KillCameras(server) => site.servers[server].kill(),
            Self::FreezeCameras(server) => site.servers[server].freeze(),
            Self::FillDisk => site.fill_disk(),
            Self::KillRedis => site.kill_redis(),
            Self::PauseRedis => site.redis().pause(true),
            Self::Deploy(camera) => {
                let version = site.versions[site.deployed % site.versions.len()].clone();
                deploy(site, camera, &version).await;
            }
            Self::DeployBroken(camera) => {
                let fault = json!({"at": "frame", "does": "trap", "after_s": 0.5});
                let broken = changeling(&json!({"version": "3.0.0", "fault": fault}));
                deploy(site, camera, &broken).await;
            }
            Self::Rollback(camera) => {
                let path = format!("/v1/sessions/{}/rollback", id(camera));
                let (status, answer) = site.host().request("POST", &path).await;
                assert!(status < 500 || status == 503 || status == 507, "{status}: {answer}");
            }
        }
    }

    /// Takes it away, where it does not end by itself.
    pub(super) async fn end(self, site: &mut Site) {
        match self {
            // Those that were not replaced meanwhile.
            Self::FreezeWorker(_) => signal_children(site, WORKER, Signal::CONT),
            Self::FreezeInference => signal_children(site, INFERENCE, Signal::CONT),
            Self::KillCameras(server) => site.servers[server].restart(),
            Self::FreezeCameras(server) => site.servers[server].thaw(),
            Self::FillDisk => site.free_disk(),
            Self::KillRedis => site.start_redis(),
            Self::PauseRedis => site.redis().pause(false),
            _ => {}
        }
    }
}

const KINDS: usize = 14;

/// The kernel keeps 15 bytes of a program's name.
const INFERENCE: &str = "ocelli-inferenc";
const READERS: [&str; 2] = ["ocelli-ingest", "ocelli-rtsp"];
const WORKER: &str = "ocelli-worker";

/// Signals a camera's worker, if it has one now.
async fn worker(site: &Site, camera: usize, signal: Signal) {
    let session = site.host().session(&id(camera)).await;
    let pid = session["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    if let Some(worker) = pid.and_then(Process::open) {
        worker.signal(signal);
    }
}

fn signal_children(site: &Site, name: &str, signal: Signal) {
    let all = children(site.host().process().pid);
    all.iter().filter(|child| child.name == name).for_each(|child| child.signal(signal));
}

/// Deploys a version. Beside other faults it may be refused for reasons of theirs, never with a
/// status that says the host does not know what happened.
async fn deploy(site: &mut Site, camera: usize, version: &[u8]) {
    let (status, answer) = site.host().deploy(&id(camera), "", version).await;
    assert!(status != 500, "{answer}");
    match status {
        200 => site.deployed += 1,
        _ => site.refused += 1,
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillWorker(camera) => write!(f, "worker of cam-{camera} killed"),
            Self::FreezeWorker(camera) => write!(f, "worker of cam-{camera} frozen"),
            Self::KillInference => write!(f, "inference killed"),
            Self::FreezeInference => write!(f, "inference frozen"),
            Self::KillReaders => write!(f, "readers killed"),
            Self::KillHost => write!(f, "host killed"),
            Self::KillCameras(server) => write!(f, "camera server {server} killed"),
            Self::FreezeCameras(server) => write!(f, "camera server {server} frozen"),
            Self::FillDisk => write!(f, "disk full"),
            Self::KillRedis => write!(f, "Redis killed"),
            Self::PauseRedis => write!(f, "Redis paused"),
            Self::Deploy(camera) => write!(f, "cam-{camera} deployed"),
            Self::DeployBroken(camera) => write!(f, "broken version for cam-{camera}"),
            Self::Rollback(camera) => write!(f, "cam-{camera} rolled back"),
        }
    }
}
