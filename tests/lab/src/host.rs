//! A simulated host: a process that is a member of a site and speaks for cameras that are counters.
//! It uses the site as a real host does.

mod camera;
mod diary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ocelli_cluster::member::{CameraRecord, CoordError, HostRecord, Member};
use ocelli_cluster::streams::{Followed, Positions, StreamLimits, Streams};
use ocelli_cluster::{Epoch, SiteOptions};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::history::Host;

use camera::Task;
pub(crate) use diary::{Bookmark, Diary};

/// How a host is told what it is: a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) site: String,
    pub(crate) number: Host,
    pub(crate) etcd: Vec<String>,
    pub(crate) nats: Vec<String>,
    /// Where this life's diary is.
    pub(crate) folder: PathBuf,
    pub(crate) capacity: u32,
    /// Between two events of a camera.
    pub(crate) event_ms: u64,
    /// Between two live messages of a camera.
    pub(crate) live_ms: u64,
    /// Over how many streams events are spread.
    pub(crate) streams: u8,
    /// Goes on speaking and writing for what it has lost.
    pub(crate) disobeys: bool,
    /// Follows the events of all cameras.
    pub(crate) follows: bool,
}

/// What a host is asked over its standard input, a line each; it answers `ok` or what is wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Adds so many cameras to the site.
    PutCameras(u16),
    /// Wishes a camera to a host.
    Move { camera: u16, host: Host },
    /// Hands everything over and ends.
    Leave,
}

/// How long a host that leaves tries to hand over.
const LEAVING: Duration = Duration::from_secs(30);

/// How often a request is tried before its last time.
const TRIES: usize = 10;

/// The name of a host.
pub(crate) fn name(host: Host) -> String {
    format!("h{host}")
}

/// The number of a host.
pub(crate) fn number(name: &str) -> Option<Host> {
    name.strip_prefix('h')?.parse().ok()
}

/// The id of a camera: such as people choose, which no subject could have as it is.
pub(crate) fn camera_id(camera: u16) -> String {
    format!("Hall 2.{camera}")
}

/// The number of a camera.
pub(crate) fn camera_number(id: &str) -> Option<u16> {
    id.strip_prefix("Hall 2.")?.parse().ok()
}

/// What a host's tasks have in common.
#[derive(Clone)]
struct Common {
    settings: Arc<Settings>,
    member: Member,
    streams: Streams,
    diary: Arc<Diary>,
}

/// Runs a host until its standard input ends or it is asked to leave.
pub(crate) fn run(file: &Path) -> Result<()> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let settings: Settings = serde_json::from_slice(&text)?;
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(live(settings))
}

async fn live(settings: Settings) -> Result<()> {
    let options = SiteOptions {
        site: settings.site.clone(),
        host: name(settings.number),
        etcd: settings.etcd.clone(),
        nats: settings.nats.clone(),
        tls: None,
    };
    let limits = StreamLimits {
        replicas: if settings.nats.len() > 1 { 3 } else { 1 },
        streams: settings.streams,
        max_age: Duration::ZERO,
        max_bytes: 0,
        max_msgs_per_subject: 0,
        picture_age: Duration::from_secs(3600),
        picture_bytes: 1 << 24,
    };
    let record = HostRecord { capacity: settings.capacity, ..Default::default() };
    let streams = Streams::connect(&options, limits).await?;
    let member = Member::start(options, record)?;
    let diary = Arc::new(Diary::begin(&settings.folder)?);
    let common = Common { settings: Arc::new(settings), member, streams, diary };
    let mut status = common.member.status();
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            tracing::info!(status = ?*status.borrow_and_update(), "member");
        }
    });
    if common.settings.follows {
        tokio::spawn(follow(common.clone()));
    }
    tokio::spawn(prepare(common.clone()));
    let cameras = tokio::spawn(cameras(common.clone()));
    tokio::select! {
        done = requests(&common) => done,
        _ = cameras => bail!("the cameras' task has ended"),
    }
}

/// Answers what is asked over standard input.
async fn requests(common: &Common) -> Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let request: Request = serde_json::from_str(&line)?;
        let leaves = matches!(request, Request::Leave);
        match answer(common, request).await {
            Ok(()) => println!("ok"),
            Err(error) => println!("{error:#}"),
        }
        if leaves {
            break;
        }
    }
    Ok(())
}

async fn answer(common: &Common, request: Request) -> Result<()> {
    let member = &common.member;
    match request {
        Request::PutCameras(count) => {
            let record = CameraRecord {
                entry: serde_json::json!({}),
                labels: Default::default(),
                networks: Default::default(),
                cost: 1,
                made: false,
            };
            for camera in 0..count {
                let id = camera_id(camera);
                again(async || member.put_camera(&id, &record).await).await?;
            }
        }
        Request::Move { camera, host } => {
            let (id, host) = (camera_id(camera), name(host));
            again(async || member.move_camera(&id, Some(&host)).await.map(drop)).await?;
        }
        Request::Leave => member.leave(LEAVING).await,
    }
    Ok(())
}

/// Tries a few times: a machine that starts fifty hosts answers late.
async fn again(ask: impl AsyncFn() -> Result<(), CoordError>) -> Result<(), CoordError> {
    for _ in 0..TRIES {
        if ask().await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    ask().await
}

/// Is ready for every camera that is to come: there is nothing to prepare.
async fn prepare(common: Common) {
    let mut coming = common.member.coming();
    loop {
        let cameras = Arc::clone(&coming.borrow_and_update());
        for camera in cameras.keys() {
            common.member.prepared(camera);
        }
        if coming.changed().await.is_err() {
            return;
        }
    }
}

/// Writes down every event of the site as it comes.
async fn follow(common: Common) {
    let mut follower = common.streams.follow(Positions::default());
    loop {
        match follower.next().await {
            Followed::Event { camera, record, .. } => {
                if let Some(camera) = camera_number(&camera) {
                    common.diary.followed(camera, record.seq);
                }
            }
            // What is missed shows by its numbers.
            other => tracing::info!(?other, "follower"),
        }
    }
}

/// Has a task for each camera that the host owns.
async fn cameras(common: Common) {
    let (mut owned, mut leaving) = (common.member.owned(), common.member.leaving());
    let mut tasks = BTreeMap::<String, Task>::new();
    loop {
        let now = Arc::clone(&owned.borrow_and_update());
        if !common.settings.disobeys {
            tasks.retain(|camera, task| {
                now.get(camera).is_some_and(|ownership| ownership.epoch == task.epoch)
            });
        }
        for (camera, ownership) in &*now {
            let known: Option<Epoch> = tasks.get(camera).map(|task| task.epoch);
            if known != Some(ownership.epoch)
                && let Some(task) = Task::begin(&common, camera, ownership.epoch)
            {
                tasks.insert(camera.clone(), task);
            }
        }
        let leave = Arc::clone(&leaving.borrow_and_update());
        for (camera, epoch) in &*leave {
            if let Some(task) = tasks.get(camera).filter(|task| task.epoch == *epoch) {
                task.leave();
            }
        }
        tokio::select! {
            changed = owned.changed() => if changed.is_err() { return },
            changed = leaving.changed() => if changed.is_err() { return },
        }
    }
}
