//! Analysis of single images by a pool of workers.
//!
//! # Theory of operation
//!
//! The API has [`Analyses`]. A request becomes an [`AnalysisRequest`], which exists only for a
//! pipeline that exists; each of its images is one call of [`Analyses::analyze`]. The future of
//! that call *is* the image's place in the queue: dropping it takes the image out.
//!
//! [`pool::Pool`] decides, under one lock, which worker gets which image and which workers there
//! are; it is called with each event and returns the actions to take. Each worker has a
//! [task](worker_task) that starts it, gives it one image at a time, and ends it. A
//! [`WorkerFactory`] starts workers: the host's are [processes](process), confined and limited as
//! those of sessions.
//!
//! Bounds:
//!
//! - Waiting images: `analyze.queue`. A single image that exceeds it is refused. Images of a list
//!   wait for a free place, a few of each list at a time, and so do not keep other requests out.
//! - Bytes of images in the host, from their first byte to their result: [`IMAGE_MEMORY`], or twice
//!   `analyze.max_image_mb` for each worker if that is more.
//! - Time of an image: `analyze.timeout_ms` from its arrival, or for an image of a list from its
//!   entry into the queue. A worker that is still busy with it then is killed.
//! - Bytes of results: [`MAX_ANSWER_BYTES`] for a list, `jobs::MAX_RESULT_BYTES` for all jobs
//!   together.

mod analysis;
mod error;
mod factory;
mod format;
mod image;
mod jobs;
mod pool;
mod process;
mod queue;
mod worker_task;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use crate::config::AnalyzeConfig;
use image::{MEMORY_UNIT, memory_units};
use jobs::{JobStore, JobTime};
use pool::{Pool, PoolAction, WorkerNumber};
use queue::WaitingImage;

pub use analysis::{Analysis, AnalysisLatency, ImageOutcome};
pub use error::{AnalysisError, AnalysisErrorKind};
pub use factory::{
    ImageResult, ImageWorker, ImageWorkerLost, ImageWorkerStartError, WorkerFactory,
};
pub use image::{ImageFile, ImageMemory, NamedImage};
pub use jobs::{JobState, JobStatus};
pub use pool::PoolLoad;
pub(crate) use process::ProcessFactory;

/// Bytes of images in the host at a time: 128 images of 2 MiB, or 16 of the largest size.
const IMAGE_MEMORY: usize = 256 << 20;

/// Bytes of all results of one list, as JSON.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Seconds until a retry may succeed when the queue is full: an image takes a fraction of one.
const RETRY_S: u64 = 1;

/// Between two checks of idle workers, reserved workers, and expired jobs, whose limits are all in
/// seconds.
const TICK: Duration = Duration::from_secs(1);

/// Limits of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnalysisLimits {
    /// Bytes of an image's file.
    pub image_bytes: usize,
    /// Images of one request.
    pub images: usize,
    /// Time of one image.
    pub timeout: Duration,
}

/// A request for a pipeline that exists.
#[derive(Debug, Clone)]
pub struct AnalysisRequest {
    pipeline: Arc<str>,
    /// Who asks: a job belongs to it.
    owner: Arc<str>,
    /// A JSON object; `None`: the settings of the config.
    settings: Option<Arc<str>>,
    /// Unique among requests and images.
    number: u64,
    /// When a worker was given the first image.
    started: Arc<OnceLock<SystemTime>>,
}

impl AnalysisRequest {
    /// Sets who asks.
    pub fn set_owner(&mut self, owner: &Arc<str>) {
        self.owner = Arc::clone(owner);
    }

    /// Replaces the config's settings of the pipeline for this request.
    pub fn set_settings(&mut self, settings: &Map<String, Value>) {
        self.settings = Some(Value::Object(settings.clone()).to_string().into());
    }
}

/// What an image does if the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    Refuse,
    Wait,
}

/// An image in the queue or at a worker, with the way back to its client.
#[derive(Debug)]
struct ImageTicket {
    request: AnalysisRequest,
    file: ImageFile,
    deadline: Instant,
    /// Whether a worker ended before it received the image: that happens once per image.
    is_retry: bool,
    /// Its place in the queue; released when a worker is given the image.
    place: Option<OwnedSemaphorePermit>,
    answer: oneshot::Sender<Result<Analysis, AnalysisError>>,
}

/// The numbers of the analysis, for metrics.
#[derive(Debug, Clone, Default)]
pub struct AnalysisFigures {
    /// Images and workers by state.
    pub load: PoolLoad,
    /// Most workers at a time: `analyze.workers`.
    pub worker_limit: usize,
    /// Images since the start, by outcome: `ok`, `cancelled`, or an error's code.
    pub outcomes: Vec<(&'static str, u64)>,
    /// Jobs that are stored, by state.
    pub jobs: Vec<(&'static str, usize)>,
    /// Workers that ended without being told to.
    pub lost_workers: u64,
}

/// The analysis of single images. Cheap to clone.
#[derive(Clone)]
pub struct Analyses {
    shared: Arc<AnalysesInner>,
}

struct AnalysesInner {
    config: AnalyzeConfig,
    factory: Box<dyn WorkerFactory>,
    /// The config's settings, by pipeline.
    settings: BTreeMap<String, Arc<Map<String, Value>>>,
    pool: Mutex<PoolWithTasks>,
    jobs: Mutex<JobStore>,
    /// Free places in the queue.
    places: Arc<Semaphore>,
    /// Free memory for images, in [`MEMORY_UNIT`]s.
    memory: Arc<Semaphore>,
    memory_bytes: usize,
    next: AtomicU64,
    outcomes: Mutex<BTreeMap<&'static str, u64>>,
    lost: AtomicU64,
    tasks: TaskTracker,
}

/// The pool, and the channel to the task of each worker.
struct PoolWithTasks {
    pool: Pool<ImageTicket>,
    tasks: BTreeMap<WorkerNumber, mpsc::Sender<WaitingImage<ImageTicket>>>,
}

impl Analyses {
    /// Starts the pool and the reserved workers. To be called within a tokio runtime.
    pub fn start(config: &AnalyzeConfig, factory: Box<dyn WorkerFactory>) -> Self {
        let reserved = config.pipelines.iter().map(|own| (own.name.as_str(), own.workers));
        let pool = Pool::new(config.workers, Duration::from_secs(config.idle_s), reserved);
        let settings =
            config.pipelines.iter().map(|own| (own.name.clone(), Arc::new(own.settings.clone())));
        let memory_bytes =
            IMAGE_MEMORY.max(config.workers.saturating_mul(2).saturating_mul(image_bytes(config)));
        let shared = Arc::new(AnalysesInner {
            settings: settings.collect(),
            factory,
            pool: Mutex::new(PoolWithTasks { pool, tasks: BTreeMap::new() }),
            jobs: Mutex::new(JobStore::new(config.jobs, Duration::from_secs(config.job_ttl_s))),
            places: Arc::new(Semaphore::new(config.queue)),
            memory: Arc::new(Semaphore::new(memory_bytes / MEMORY_UNIT)),
            memory_bytes,
            next: AtomicU64::new(0),
            outcomes: Mutex::default(),
            lost: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            config: config.clone(),
        });
        tokio::spawn(tick(Arc::downgrade(&shared)));
        Self { shared }
    }

    /// The limits of requests.
    pub fn limits(&self) -> AnalysisLimits {
        let config = &self.shared.config;
        AnalysisLimits {
            image_bytes: image_bytes(config),
            images: config.max_images,
            timeout: Duration::from_millis(u64::from(config.timeout_ms)),
        }
    }

    /// Accepts a request for a pipeline, or refuses it before its images are read.
    pub fn request(&self, pipeline: &str) -> Result<AnalysisRequest, AnalysisError> {
        let shared = &self.shared;
        if shared.config.workers == 0 {
            let message = "analyze.workers is 0 in the config";
            return Err(AnalysisError::new(AnalysisErrorKind::Disabled, message));
        }
        shared.factory.find(pipeline)?;
        if !shared.pool.lock().pool.can_serve(pipeline) {
            let message =
                "all workers are reserved for other pipelines: raise analyze.workers in the config";
            return Err(AnalysisError::new(AnalysisErrorKind::NoWorkers, message));
        }
        Ok(AnalysisRequest {
            pipeline: pipeline.into(),
            owner: Arc::default(),
            settings: None,
            number: shared.next.fetch_add(1, Ordering::Relaxed),
            started: Arc::default(),
        })
    }

    /// Fails if the queue is full. To be called before the body of a request is read that waits for
    /// its answer.
    pub fn admit(&self) -> Result<(), AnalysisError> {
        if self.shared.places.available_permits() == 0 { Err(self.shared.busy()) } else { Ok(()) }
    }

    /// Reserves memory for an image. Fails at once if other images have it all.
    pub fn reserve_memory(&self, bytes: usize) -> Result<ImageMemory, AnalysisError> {
        match Arc::clone(&self.shared.memory).try_acquire_many_owned(memory_units(bytes)) {
            Ok(permit) => Ok(ImageMemory::new(permit)),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => Err(self.shared.busy()),
        }
    }

    /// As [`reserve_memory`](Self::reserve_memory) for an image of a list, which waits.
    pub async fn wait_for_memory(&self, bytes: usize) -> Result<ImageMemory, AnalysisError> {
        let memory = Arc::clone(&self.shared.memory).acquire_many_owned(memory_units(bytes));
        match tokio::time::timeout(self.limits().timeout, memory).await {
            Ok(Ok(permit)) => Ok(ImageMemory::new(permit)),
            _ => Err(self.shared.busy()),
        }
    }

    /// Bytes that all images together may take.
    pub fn total_memory(&self) -> usize {
        self.shared.memory_bytes
    }

    /// Analyses one image. Dropping the future takes the image out of the queue; a worker that was
    /// given it already finishes it, and its result is discarded.
    pub async fn analyze(
        &self,
        request: &AnalysisRequest,
        image: ImageFile,
    ) -> Result<Analysis, AnalysisError> {
        self.count_outcome(self.enqueue_and_wait(request, image, WhenFull::Refuse)).await
    }

    /// Analyses the images of a list, a few at a time, as they come. Outcomes come in the images'
    /// request; an error of the list itself ends it.
    pub fn analyze_all<E>(
        &self,
        request: &AnalysisRequest,
        images: impl Stream<Item = Result<NamedImage, E>>,
    ) -> impl Stream<Item = Result<ImageOutcome, E>> {
        let (analyses, request) = (self.clone(), request.clone());
        // One more than there are workers, so that no worker waits for the next image.
        let at_once = self.shared.config.workers.saturating_add(1);
        let total = AtomicU64::new(0);
        let analysed = images.map_ok(move |NamedImage { filename, image }| {
            let (analyses, request) = (analyses.clone(), request.clone());
            async move {
                let analysis =
                    async { analyses.enqueue_and_wait(&request, image?, WhenFull::Wait).await };
                Ok(ImageOutcome { filename, outcome: analyses.count_outcome(analysis).await })
            }
        });
        analysed.try_buffered(at_once).map_ok(move |item| within_answer_limit(item, &total))
    }

    /// Analyses images as a job, and returns the job's status. `list`: whether the request had a
    /// list.
    pub fn submit(
        &self,
        request: AnalysisRequest,
        list: bool,
        images: Vec<NamedImage>,
    ) -> Result<JobStatus, AnalysisError> {
        let shared = &self.shared;
        let (count, now_both) = (images.len(), JobTime::now());
        let id = shared.jobs.lock().add(&request, list, count, now_both)?;
        let (analyses, name) = (self.clone(), id.clone());
        let task = shared.tasks.spawn(async move {
            let images = stream::iter(images.into_iter().map(Ok::<_, std::convert::Infallible>));
            let mut items = std::pin::pin!(analyses.analyze_all(&request, images));
            while let Some(Ok(item)) = items.next().await {
                analyses.shared.jobs.lock().answer(&name, item);
            }
            analyses.shared.jobs.lock().finish(&name, JobTime::now());
        });
        shared.jobs.lock().set_task(&id, task.abort_handle());
        // It can only have been removed by a client that guessed its id.
        let status = shared.jobs.lock().get(&id, now()).map(|(status, _)| status);
        status.ok_or_else(AnalysisError::shutting_down)
    }

    /// A job, and its outcomes so far.
    pub fn job(&self, id: &str) -> Option<(JobStatus, Vec<Arc<ImageOutcome>>)> {
        self.shared.jobs.lock().get(id, now())
    }

    /// Every job, the oldest first.
    pub fn jobs(&self) -> Vec<JobStatus> {
        self.shared.jobs.lock().list(now())
    }

    /// Aborts a job and removes it. False if there is no such job.
    pub fn cancel(&self, id: &str) -> bool {
        self.shared.jobs.lock().remove(id, now())
    }

    /// The numbers as of now.
    pub fn figures(&self) -> AnalysisFigures {
        let shared = &self.shared;
        AnalysisFigures {
            load: shared.pool.lock().pool.load(),
            worker_limit: shared.config.workers,
            outcomes: shared.outcomes.lock().clone().into_iter().collect(),
            jobs: shared.jobs.lock().count(),
            lost_workers: shared.lost.load(Ordering::Relaxed),
        }
    }

    /// Refuses all images from now on. Returns when every worker is gone.
    pub async fn stop(&self) {
        self.shared.apply(|pool, _| pool.stop());
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Takes a place in the queue and waits for the answer.
    async fn enqueue_and_wait(
        &self,
        request: &AnalysisRequest,
        image: ImageFile,
        when_full: WhenFull,
    ) -> Result<Analysis, AnalysisError> {
        let shared = &self.shared;
        let timeout = self.limits().timeout;
        let place = match when_full {
            WhenFull::Refuse => {
                Arc::clone(&shared.places).try_acquire_owned().map_err(|_| shared.busy())?
            }
            WhenFull::Wait => {
                let place = Arc::clone(&shared.places).acquire_owned();
                let place =
                    tokio::time::timeout(timeout, place).await.map_err(|_| shared.busy())?;
                place.map_err(|_| AnalysisError::shutting_down())?
            }
        };
        let since = now();
        // An image of a list may have come long before it may enter the queue.
        let arrived = if when_full == WhenFull::Wait { since } else { image.arrived() };
        let deadline = arrived + timeout;
        let (answer, answered) = oneshot::channel();
        let file = image.arrived_at(arrived);
        let ticket = ImageTicket {
            request: request.clone(),
            file,
            deadline,
            is_retry: false,
            place: Some(place),
            answer,
        };
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let waiting = WaitingImage { number, request: request.number, since, image: ticket };
        shared.apply(|pool, now| pool.submit(&request.pipeline, waiting, now));
        // However this ends, the image leaves the queue.
        let _cancel = CancelOnDrop { shared, number };
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(AnalysisError::shutting_down())),
            Err(_) => Err(AnalysisError::timeout(shared.config.timeout_ms)),
        }
    }

    /// Counts the outcome of an image, also if its future is dropped.
    async fn count_outcome(
        &self,
        analysis: impl Future<Output = Result<Analysis, AnalysisError>>,
    ) -> Result<Analysis, AnalysisError> {
        let mut count = CountOnDrop { outcomes: &self.shared.outcomes, outcome: "cancelled" };
        let outcome = analysis.await;
        count.outcome = outcome.as_ref().map_or_else(|fault| fault.kind.code(), |_| "ok");
        outcome
    }
}

impl AnalysesInner {
    fn busy(&self) -> AnalysisError {
        let message = "the queue is full (analyze.queue), or images take all the memory for them";
        AnalysisError::temporary(AnalysisErrorKind::Busy, message, RETRY_S)
    }

    /// Closes the channel to the task of a worker that has ended.
    fn remove_task(&self, worker: WorkerNumber) {
        self.pool.lock().tasks.remove(&worker);
    }

    /// Calls the pool with an event and takes the actions that it returns.
    fn apply(
        self: &Arc<Self>,
        event: impl FnOnce(&mut Pool<ImageTicket>, Instant) -> Vec<PoolAction<ImageTicket>>,
    ) {
        let mut workers = self.pool.lock();
        for action in event(&mut workers.pool, now()) {
            match action {
                PoolAction::Start(number, pipeline) => {
                    // A worker is given its next image when it has answered.
                    let (sender, given) = mpsc::channel(1);
                    workers.tasks.insert(number, sender);
                    self.tasks.spawn(worker_task::run(Arc::clone(self), number, pipeline, given));
                }
                PoolAction::Assign(number, mut waiting) => {
                    waiting.image.place = None;
                    // A task closes its channel and reports to the pool under this lock, so nothing
                    // is sent to it afterwards.
                    if let Some(task) = workers.tasks.get(&number) {
                        let _ = task.try_send(waiting);
                    }
                }
                PoolAction::End(number) => drop(workers.tasks.remove(&number)),
                PoolAction::Refuse(waiting, fault) => {
                    // Fails if the client has gone.
                    let _ = waiting.image.answer.send(Err(fault));
                }
            }
        }
    }
}

/// Takes an image out of the queue when dropped.
struct CancelOnDrop<'a> {
    shared: &'a AnalysesInner,
    number: u64,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let image = self.shared.pool.lock().pool.cancel(self.number);
        // Outside the lock: it frees megabytes.
        drop(image);
    }
}

/// Counts an outcome when dropped.
struct CountOnDrop<'a> {
    outcomes: &'a Mutex<BTreeMap<&'static str, u64>>,
    outcome: &'static str,
}

impl Drop for CountOnDrop<'_> {
    fn drop(&mut self) {
        *self.outcomes.lock().entry(self.outcome).or_default() += 1;
    }
}

/// The outcome, or an error in its place if the results of its list exceed the limit; `total` is
/// their size so far.
fn within_answer_limit(mut item: ImageOutcome, total: &AtomicU64) -> ImageOutcome {
    let bytes = item.outcome.as_ref().map_or(0, Analysis::bytes) as u64;
    if total.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_ANSWER_BYTES as u64 {
        let message = format!("the results of one request take at most {MAX_ANSWER_BYTES} bytes");
        item.outcome = Err(AnalysisError::new(AnalysisErrorKind::AnswerTooLarge, message));
    }
    item
}

/// Calls the pool and the jobs once a second, until the last [`Analyses`] is dropped.
async fn tick(shared: Weak<AnalysesInner>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        shared.apply(Pool::tick);
        shared.jobs.lock().expire(now());
    }
}

/// The time by the runtime's clock, which tests may set.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn image_bytes(config: &AnalyzeConfig) -> usize {
    (config.max_image_mb as usize) << 20
}

#[cfg(test)]
mod tests;
