//! One-shot analysis: a pipeline's answer to single pictures, by a pool of workers that wait for
//! them.
//!
//! # Theory of operation
//!
//! [`Analyses`] is what the API has. A request becomes an [`AnalysisRequest`], which says that
//! there is such a pipeline and that its pictures may come; each of its pictures is one call of
//! [`Analyses::analyze`], whose future *is* the picture's place in the queue: dropping it takes the
//! picture out.
//!
//! [`pool::TypePool`] decides alone, under one lock, which worker gets which picture and which
//! workers there are; everything that happens is told to it, and it answers with what is to be
//! done. Each worker has one task ([`worker_task`]), which starts it, hands it pictures one at a
//! time, and ends it. Workers are made by a [`WorkerFactory`]: the host's are processes
//! ([`process`]), confined and limited as those of sessions.
//!
//! What is bounded, and by what:
//!
//! - waiting pictures: `analyze.queue`, one place each. A single picture that finds none is
//!   refused; the pictures of one request come one after the other as places get free, a few at a
//!   time, and so keep nobody else waiting.
//! - bytes of pictures in the host, from their first byte to their result: [`IMAGE_MEMORY`], or
//!   twice `analyze.max_image_mb` for each worker where that is more.
//! - the time of a picture: `analyze.timeout_ms` from its arrival, or from when it may wait for a
//!   worker where it is part of a list. A worker that is still busy with it then is killed.
//! - results: a list's by [`MAX_ANSWER_BYTES`], all jobs' by `jobs`.

mod analysis;
mod error;
mod factory;
mod jobs;
mod pool;
mod process;
mod queue;
mod worker_task;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use crate::config::AnalyzeConfig;
use jobs::{JobStore, JobTime};
use pool::{Pool, PoolAction};
use queue::WaitingImage;

pub use analysis::{Analysis, AnalysisLatency, ImageOutcome};
pub use error::{AnalysisError, AnalysisErrorKind};
pub use factory::{
    ImageResult, ImageWorker, ImageWorkerLost, ImageWorkerStartError, WorkerFactory,
};
pub use jobs::{JobState, JobStatus};
pub use pool::PoolLoad;
pub(crate) use process::ProcessFactory;

/// Bytes of pictures in the host at a time: of 128 pictures of 2 MiB, or of 16 that are as large as
/// any may be.
const IMAGE_MEMORY: usize = 256 << 20;

/// Bytes of a list's results together, as JSON.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// In what memory is counted: a permit of a semaphore stands for so many bytes.
const MEMORY_UNIT: usize = 1 << 10;

/// Seconds after which it may be worth trying again where pictures wait: a picture takes a fraction
/// of one.
const RETRY_S: u64 = 1;

/// Between two looks at idle workers, kept ones that are missing, and jobs whose time is over: all
/// are given in seconds.
const TICK: Duration = Duration::from_secs(1);

/// What a picture may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnalysisLimits {
    /// Bytes of a picture's file.
    pub image_bytes: usize,
    /// Pictures of one request.
    pub images: usize,
    /// Time of one picture.
    pub timeout: Duration,
}

/// Memory for a picture's bytes, given back when dropped.
#[derive(Debug)]
pub struct ImageMemory(OwnedSemaphorePermit);

impl ImageMemory {
    /// Gives back what is beyond so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        let beyond = self.0.num_permits().saturating_sub(bytes.div_ceil(MEMORY_UNIT));
        drop(self.0.split(beyond));
    }
}

/// A picture's file.
#[derive(Debug)]
pub struct ImageFile {
    image: Bytes,
    arrived: Instant,
    _room: ImageMemory,
}

impl ImageFile {
    /// Takes a file that may be a picture. What it holds is looked at no further than its first
    /// bytes: all else happens in a worker.
    pub fn new(
        image: Bytes,
        arrived: Instant,
        mut room: ImageMemory,
    ) -> Result<Self, AnalysisError> {
        const JPEG: &[u8] = b"\xff\xd8\xff";
        const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
        if image.is_empty() {
            return Err(AnalysisError::new(
                AnalysisErrorKind::EmptyImage,
                "the picture's file is empty",
            ));
        }
        if !image.starts_with(JPEG) && !image.starts_with(PNG) {
            return Err(AnalysisError::new(
                AnalysisErrorKind::UnsupportedImage,
                "the file is neither a JPEG nor a PNG picture",
            ));
        }
        room.shrink_to(image.len());
        Ok(Self { image, arrived, _room: room })
    }
}

/// A picture of a list, or why it is none.
#[derive(Debug)]
pub struct NamedImage {
    /// As the request named it.
    pub filename: Option<String>,
    /// The picture.
    pub picture: Result<ImageFile, AnalysisError>,
}

/// A request that was taken: its pictures may come.
#[derive(Debug, Clone)]
pub struct AnalysisRequest {
    pipeline: Arc<str>,
    /// A JSON object; none: those of the config.
    settings: Option<Arc<str>>,
    /// Unlike any other's.
    request: u64,
    /// When a worker was given the first of its pictures.
    started: Arc<OnceLock<SystemTime>>,
}

impl AnalysisRequest {
    /// The pipeline's settings for this request.
    pub fn set_settings(&mut self, settings: &Map<String, Value>) {
        self.settings = Some(Value::Object(settings.clone()).to_string().into());
    }
}

/// What a picture that finds no place does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    Refuse,
    Wait,
}

/// A picture on its way.
#[derive(Debug)]
struct ImageTicket {
    order: AnalysisRequest,
    picture: ImageFile,
    deadline: Instant,
    /// Whether a worker died before it took the picture.
    is_retry: bool,
    /// Its place in the queue, until a worker is given it.
    place: Option<OwnedSemaphorePermit>,
    answer: oneshot::Sender<Result<Analysis, AnalysisError>>,
}

/// What there is to be told of the analysis.
#[derive(Debug, Clone, Default)]
pub struct AnalysisFigures {
    /// Pictures and workers.
    pub load: PoolLoad,
    /// Most workers.
    pub worker_limit: usize,
    /// Pictures by what became of them: `ok`, `cancelled`, or a fault's code.
    pub outcomes: Vec<(&'static str, u64)>,
    /// Jobs by their state.
    pub jobs: Vec<(&'static str, usize)>,
    /// Workers that were lost while they were needed.
    pub lost_workers: u64,
}

/// The analysis of single pictures. Cheap to clone.
#[derive(Clone)]
pub struct Analyses {
    shared: Arc<AnalysesInner>,
}

struct AnalysesInner {
    config: AnalyzeConfig,
    factory: Box<dyn WorkerFactory>,
    /// Settings for the pipelines that have some in the config.
    settings: BTreeMap<String, Arc<Map<String, Value>>>,
    pool: Mutex<PoolWithTasks>,
    jobs: Mutex<JobStore>,
    /// Places in the queue.
    places: Arc<Semaphore>,
    /// Memory for pictures, in [`MEMORY_UNIT`]s.
    memory: Arc<Semaphore>,
    memory_bytes: usize,
    next: AtomicU64,
    outcomes: Mutex<BTreeMap<&'static str, u64>>,
    lost: AtomicU64,
    tasks: TaskTracker,
}

/// The pool, and the way to each of its workers.
struct PoolWithTasks {
    pool: Pool<ImageTicket>,
    tasks: BTreeMap<pool::WorkerNumber, mpsc::Sender<WaitingImage<ImageTicket>>>,
}

impl Analyses {
    /// Starts the pool, and the workers that are kept. To be called within a tokio runtime.
    pub fn start(config: &AnalyzeConfig, bench: Box<dyn WorkerFactory>) -> Self {
        let kept = config.pipelines.iter().map(|kept| (kept.name.as_str(), kept.workers));
        let pool = Pool::new(config.workers, Duration::from_secs(config.idle_s), kept);
        let settings = config
            .pipelines
            .iter()
            .map(|kept| (kept.name.clone(), Arc::new(kept.settings.clone())));
        let room =
            IMAGE_MEMORY.max(config.workers.saturating_mul(2).saturating_mul(image_bytes(config)));
        let shared = Arc::new(AnalysesInner {
            settings: settings.collect(),
            factory: bench,
            pool: Mutex::new(PoolWithTasks { pool, tasks: BTreeMap::new() }),
            jobs: Mutex::new(JobStore::new(config.jobs, Duration::from_secs(config.job_ttl_s))),
            places: Arc::new(Semaphore::new(config.queue)),
            memory: Arc::new(Semaphore::new(room / MEMORY_UNIT)),
            memory_bytes: room,
            next: AtomicU64::new(0),
            outcomes: Mutex::default(),
            lost: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            config: config.clone(),
        });
        tokio::spawn(tick(Arc::downgrade(&shared)));
        Self { shared }
    }

    /// What pictures and requests may be.
    pub fn limits(&self) -> AnalysisLimits {
        let config = &self.shared.config;
        AnalysisLimits {
            image_bytes: image_bytes(config),
            images: config.max_images,
            timeout: Duration::from_millis(u64::from(config.timeout_ms)),
        }
    }

    /// Takes a request for a pipeline, or refuses it whatever its pictures are.
    pub fn request(&self, pipeline: &str) -> Result<AnalysisRequest, AnalysisError> {
        let shared = &self.shared;
        if shared.config.workers == 0 {
            return Err(AnalysisError::new(
                AnalysisErrorKind::Disabled,
                "analyze.workers is 0 in the config",
            ));
        }
        shared.factory.find(pipeline)?;
        if !shared.pool.lock().pool.can_serve(pipeline) {
            let message =
                "all workers are kept for other pipelines: raise analyze.workers in the config";
            return Err(AnalysisError::new(AnalysisErrorKind::NoWorkers, message));
        }
        Ok(AnalysisRequest {
            pipeline: pipeline.into(),
            settings: None,
            request: shared.next.fetch_add(1, Ordering::Relaxed),
            started: Arc::default(),
        })
    }

    /// Refuses where no further picture may wait: to be asked before a request is read whose answer
    /// is waited for.
    pub fn admit(&self) -> Result<(), AnalysisError> {
        if self.shared.places.available_permits() == 0 { Err(self.shared.busy()) } else { Ok(()) }
    }

    /// Memory for a picture of a request, or a refusal where pictures of others take it all.
    pub fn reserve_memory(&self, bytes: usize) -> Result<ImageMemory, AnalysisError> {
        match Arc::clone(&self.shared.memory).try_acquire_many_owned(units(bytes)) {
            Ok(permit) => Ok(ImageMemory(permit)),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => Err(self.shared.busy()),
        }
    }

    /// As [`room`](Self::room), for a picture of a list, which waits for its turn.
    pub async fn wait_for_memory(&self, bytes: usize) -> Result<ImageMemory, AnalysisError> {
        let room = Arc::clone(&self.shared.memory).acquire_many_owned(units(bytes));
        match tokio::time::timeout(self.limits().timeout, room).await {
            Ok(Ok(permit)) => Ok(ImageMemory(permit)),
            _ => Err(self.shared.busy()),
        }
    }

    /// Bytes that all pictures together may take.
    pub fn total_memory(&self) -> usize {
        self.shared.memory_bytes
    }

    /// Analyses one picture. Dropping the future takes the picture out of the queue; a worker that
    /// has been given it already finishes it for nobody.
    pub async fn analyze(
        &self,
        order: &AnalysisRequest,
        picture: ImageFile,
    ) -> Result<Analysis, AnalysisError> {
        self.count_outcome(self.enqueue_and_wait(order, picture, WhenFull::Refuse)).await
    }

    /// Analyses the pictures of a list, a few at a time, as they come. The items come in the
    /// pictures' order; an error of the list itself ends it.
    pub fn analyze_all<E>(
        &self,
        order: &AnalysisRequest,
        pictures: impl Stream<Item = Result<NamedImage, E>>,
    ) -> impl Stream<Item = Result<ImageOutcome, E>> {
        let (analyses, order) = (self.clone(), order.clone());
        // One more than there are workers, so that none of them waits for the next.
        let at_once = self.shared.config.workers.saturating_add(1);
        let kept = AtomicU64::new(0);
        let analysed = pictures.map_ok(move |NamedImage { filename, picture }| {
            let (analyses, order) = (analyses.clone(), order.clone());
            async move {
                let outcome = match picture {
                    Ok(picture) => {
                        analyses
                            .count_outcome(analyses.enqueue_and_wait(
                                &order,
                                picture,
                                WhenFull::Wait,
                            ))
                            .await
                    }
                    Err(fault) => analyses.count_outcome(std::future::ready(Err(fault))).await,
                };
                Ok(ImageOutcome { filename, outcome })
            }
        });
        analysed.try_buffered(at_once).map_ok(move |item| within_answer_limit(item, &kept))
    }

    /// Has pictures analysed that nobody waits for, and gives the job's status. `list`: whether the
    /// request had a list.
    pub fn submit(
        &self,
        order: AnalysisRequest,
        list: bool,
        pictures: Vec<NamedImage>,
    ) -> Result<JobStatus, AnalysisError> {
        let shared = &self.shared;
        let started = Arc::clone(&order.started);
        let id = shared.jobs.lock().add(
            &order.pipeline,
            list,
            pictures.len(),
            started,
            JobTime::now(),
        )?;
        let (analyses, name) = (self.clone(), id.clone());
        let task = shared.tasks.spawn(async move {
            let pictures =
                stream::iter(pictures.into_iter().map(Ok::<_, std::convert::Infallible>));
            let mut items = std::pin::pin!(analyses.analyze_all(&order, pictures));
            while let Some(Ok(item)) = items.next().await {
                analyses.shared.jobs.lock().answer(&name, item);
            }
            analyses.shared.jobs.lock().finish(&name, JobTime::now());
        });
        shared.jobs.lock().set_task(&id, task.abort_handle());
        // It may have been removed meanwhile, by whoever guesses 128 bits.
        let status = shared.jobs.lock().get(&id, now()).map(|(status, _)| status);
        status.ok_or_else(AnalysisError::shutting_down)
    }

    /// A job, and the items that it has so far.
    pub fn job(&self, id: &str) -> Option<(JobStatus, Vec<Arc<ImageOutcome>>)> {
        self.shared.jobs.lock().get(id, now())
    }

    /// All jobs, the oldest first.
    pub fn jobs(&self) -> Vec<JobStatus> {
        self.shared.jobs.lock().list(now())
    }

    /// Ends a job and forgets it. False where there is none.
    pub fn cancel(&self, id: &str) -> bool {
        self.shared.jobs.lock().remove(id, now())
    }

    /// How the analysis stands.
    pub fn figures(&self) -> AnalysisFigures {
        let jobs = self.shared.jobs.lock().count();
        AnalysisFigures {
            load: self.shared.pool.lock().pool.load(),
            worker_limit: self.shared.config.workers,
            outcomes: self
                .shared
                .outcomes
                .lock()
                .iter()
                .map(|(name, count)| (*name, *count))
                .collect(),
            jobs: jobs.into_iter().map(|(state, count)| (state.as_str(), count)).collect(),
            lost_workers: self.shared.lost.load(Ordering::Relaxed),
        }
    }

    /// Refuses all pictures from now on, and returns when every worker is gone.
    pub async fn stop(&self) {
        self.shared.apply(|pool, _| pool.stop());
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Finds a place in the queue and waits for the answer.
    async fn enqueue_and_wait(
        &self,
        order: &AnalysisRequest,
        picture: ImageFile,
        patience: WhenFull,
    ) -> Result<Analysis, AnalysisError> {
        let shared = &self.shared;
        let timeout = self.limits().timeout;
        let place = match patience {
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
        // A picture of a list may have come long before it was its turn.
        let arrived = if patience == WhenFull::Wait { since } else { picture.arrived };
        let deadline = arrived + timeout;
        let (answer, answered) = oneshot::channel();
        let picture = ImageFile { arrived, ..picture };
        let ticket = ImageTicket {
            order: order.clone(),
            picture,
            deadline,
            is_retry: false,
            place: Some(place),
            answer,
        };
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let waiting = WaitingImage { number, request: order.request, since, image: ticket };
        shared.apply(|pool, now| pool.submit(&order.pipeline, waiting, now));
        // However this ends, the picture waits no more.
        let _leaves = CancelOnDrop { shared, number };
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(AnalysisError::shutting_down())),
            Err(_) => Err(AnalysisError::timeout(shared.config.timeout_ms)),
        }
    }

    /// Counts what became of a picture, whoever waits for it or goes away.
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
        let message = "as many pictures wait as may (analyze.queue), or their files take all the \
            memory there is";
        AnalysisError::temporary(AnalysisErrorKind::Busy, message, RETRY_S)
    }

    /// Tells the pool what has happened, and does what it asks for.
    fn apply(
        self: &Arc<Self>,
        what: impl FnOnce(&mut Pool<ImageTicket>, Instant) -> Vec<PoolAction<ImageTicket>>,
    ) {
        let mut desks = self.pool.lock();
        for action in what(&mut desks.pool, now()) {
            match action {
                PoolAction::Start(number, pipeline) => {
                    // A worker is given its next picture when it has answered.
                    let (sender, given) = mpsc::channel(1);
                    desks.tasks.insert(number, sender);
                    self.tasks.spawn(worker_task::run(Arc::clone(self), number, pipeline, given));
                }
                PoolAction::Assign(number, mut waiting) => {
                    waiting.image.place = None;
                    // A desk is closed under this lock, and the pool told: none is given anything
                    // afterwards.
                    if let Some(desk) = desks.tasks.get(&number) {
                        let _ = desk.try_send(waiting);
                    }
                }
                PoolAction::End(number) => drop(desks.tasks.remove(&number)),
                PoolAction::Refuse(waiting, fault) => {
                    // Whoever has gone away needs no answer.
                    let _ = waiting.image.answer.send(Err(fault));
                }
            }
        }
    }
}

/// Takes a picture out of the queue when nobody waits for it any more.
struct CancelOnDrop<'a> {
    shared: &'a AnalysesInner,
    number: u64,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let left = self.shared.pool.lock().pool.cancel(self.number);
        // Behind the lock: it frees megabytes.
        drop(left);
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

/// The item, or a fault in its place where the results of its list are too much; `kept` is what
/// they are so far.
fn within_answer_limit(mut item: ImageOutcome, kept: &AtomicU64) -> ImageOutcome {
    let bytes = item.outcome.as_ref().map_or(0, Analysis::bytes) as u64;
    if kept.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_ANSWER_BYTES as u64 {
        let message = format!("the results of one request take at most {MAX_ANSWER_BYTES} bytes");
        item.outcome = Err(AnalysisError::new(AnalysisErrorKind::AnswerTooLarge, message));
    }
    item
}

/// Tells the pool and the jobs that time passes, for as long as anybody has them.
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

/// By the runtime's clock, which tests may set.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn image_bytes(config: &AnalyzeConfig) -> usize {
    (config.max_image_mb as usize) << 20
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
