//! Jobs: requests whose results are fetched later. The store is bounded and keeps finished jobs for
//! a while. Time is a parameter.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use rand::RngExt;
use schemars::JsonSchema;
use serde::Serialize;
use strum::VariantArray;
use tokio::task::AbortHandle;

use super::AnalysisRequest;
use super::analysis::ImageOutcome;
use super::error::{AnalysisError, AnalysisErrorKind};

/// Bytes of results, as JSON, that all jobs keep together: about 10,000 faces with embeddings of
/// 1024 numbers. A result beyond is replaced by an error.
const MAX_RESULT_BYTES: usize = 128 << 20;

/// A time on both clocks: the monotonic one for durations, the wall clock for answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct JobTime {
    pub(super) at: Instant,
    pub(super) wall: SystemTime,
}

impl JobTime {
    pub(super) fn now() -> Self {
        Self { at: super::now(), wall: SystemTime::now() }
    }
}

/// How far a job is.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    JsonSchema,
    strum::IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[schemars(inline)]
pub enum JobState {
    /// No image has been given to a worker yet.
    Queued,
    /// A worker has been given an image.
    Running,
    /// Finished; at least one image was analysed.
    Done,
    /// Finished; no image was analysed.
    Failed,
}

/// A snapshot of a job.
#[derive(Debug, Clone)]
pub struct JobStatus {
    /// 32 hexadecimal digits, random.
    pub id: String,
    /// How far it is; derived from the other fields.
    pub state: JobState,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Who asked for it.
    pub owner: Arc<str>,
    /// Whether the request had a list of images.
    pub list: bool,
    /// Number of images in the request.
    pub images: usize,
    /// Images with a result or an error.
    pub answered: usize,
    /// When the request came.
    pub created: SystemTime,
    /// When a worker was given the first image.
    pub started: Option<SystemTime>,
    /// When the last image had its result or error.
    pub finished: Option<SystemTime>,
    /// When the job is removed.
    pub expires: Option<SystemTime>,
}

struct AnalysisJob {
    pipeline: String,
    owner: Arc<str>,
    list: bool,
    images: usize,
    created: SystemTime,
    started: Arc<OnceLock<SystemTime>>,
    finished: Option<JobTime>,
    items: Vec<Arc<ImageOutcome>>,
    bytes: usize,
    task: Option<AbortHandle>,
}

impl AnalysisJob {
    fn state(&self) -> JobState {
        match (self.finished, self.started.get()) {
            (Some(_), _) if self.items.iter().any(|item| item.outcome.is_ok()) => JobState::Done,
            (Some(_), _) => JobState::Failed,
            (None, Some(_)) => JobState::Running,
            (None, None) => JobState::Queued,
        }
    }
}

impl Drop for AnalysisJob {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// The jobs that have not expired.
pub(super) struct JobStore {
    limit: usize,
    ttl: Duration,
    jobs: BTreeMap<String, AnalysisJob>,
    bytes: usize,
    max_bytes: usize,
}

impl JobStore {
    pub(super) fn new(limit: usize, kept_for: Duration) -> Self {
        Self { limit, ttl: kept_for, jobs: BTreeMap::new(), bytes: 0, max_bytes: MAX_RESULT_BYTES }
    }

    /// Adds a job and returns its id.
    pub(super) fn add(
        &mut self,
        request: &AnalysisRequest,
        list: bool,
        images: usize,
        now: JobTime,
    ) -> Result<String, AnalysisError> {
        self.expire(now.at);
        if self.jobs.len() >= self.limit {
            let finished = self.jobs.values().filter_map(|job| job.finished);
            let next = finished.map(|finished| self.remaining(finished, now.at)).min();
            let retry = next.map_or(1, |left| left.as_secs() + 1);
            let message = format!("{} jobs are kept, as many as analyze.jobs allows", self.limit);
            return Err(AnalysisError::temporary(AnalysisErrorKind::JobsFull, message, retry));
        }
        let id = format!("{:032x}", rand::rng().random::<u128>());
        let job = AnalysisJob {
            pipeline: request.pipeline.to_string(),
            owner: Arc::clone(&request.owner),
            list,
            images,
            created: now.wall,
            started: Arc::clone(&request.started),
            finished: None,
            items: Vec::new(),
            bytes: 0,
            task: None,
        };
        self.jobs.insert(id.clone(), job);
        Ok(id)
    }

    /// Sets the task that works on a job: removing the job aborts it.
    pub(super) fn set_task(&mut self, id: &str, task: AbortHandle) {
        match self.jobs.get_mut(id) {
            Some(job) => job.task = Some(task),
            None => task.abort(),
        }
    }

    /// Adds the outcome of the job's next image.
    pub(super) fn answer(&mut self, id: &str, mut item: ImageOutcome) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let bytes = item.outcome.as_ref().map_or(0, super::Analysis::bytes);
        if self.bytes.saturating_add(bytes) > self.max_bytes {
            let message =
                format!("the results of all jobs take more than {} bytes", self.max_bytes);
            item.outcome = Err(AnalysisError::new(AnalysisErrorKind::AnswerTooLarge, message));
        } else {
            self.bytes += bytes;
            job.bytes += bytes;
        }
        job.items.push(Arc::new(item));
    }

    /// All images of a job are answered.
    pub(super) fn finish(&mut self, id: &str, now: JobTime) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.finished = Some(now);
            job.task = None;
        }
    }

    pub(super) fn get(
        &self,
        id: &str,
        now: Instant,
    ) -> Option<(JobStatus, Vec<Arc<ImageOutcome>>)> {
        let job = self.jobs.get(id).filter(|job| !self.is_expired(job, now))?;
        Some((self.status(id, job), job.items.clone()))
    }

    /// Every job, the oldest first.
    pub(super) fn list(&self, now: Instant) -> Vec<JobStatus> {
        let jobs = self.jobs.iter().filter(|(_, job)| !self.is_expired(job, now));
        let mut list: Vec<_> = jobs.map(|(id, job)| self.status(id, job)).collect();
        list.sort_by_key(|job| job.created);
        list
    }

    /// Removes a job, and aborts it if it is not finished. False if there is no such job.
    pub(super) fn remove(&mut self, id: &str, now: Instant) -> bool {
        self.expire(now);
        let removed = self.jobs.remove(id);
        self.bytes -= removed.as_ref().map_or(0, |job| job.bytes);
        removed.is_some()
    }

    /// Removes jobs whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let expired = self.jobs.iter().filter(|(_, job)| self.is_expired(job, now));
        let expired: Vec<String> = expired.map(|(id, _)| id.clone()).collect();
        for id in expired {
            self.bytes -= self.jobs.remove(&id).map_or(0, |job| job.bytes);
        }
    }

    /// The number of jobs in each state.
    pub(super) fn count(&self) -> Vec<(&'static str, usize)> {
        let count = |state| self.jobs.values().filter(|job| job.state() == state).count();
        JobState::VARIANTS.iter().map(|&state| (state.into(), count(state))).collect()
    }

    fn remaining(&self, finished: JobTime, now: Instant) -> Duration {
        self.ttl.saturating_sub(now.saturating_duration_since(finished.at))
    }

    fn is_expired(&self, job: &AnalysisJob, now: Instant) -> bool {
        job.finished.is_some_and(|finished| self.remaining(finished, now).is_zero())
    }

    fn status(&self, id: &str, job: &AnalysisJob) -> JobStatus {
        JobStatus {
            id: id.to_owned(),
            state: job.state(),
            pipeline: job.pipeline.clone(),
            owner: Arc::clone(&job.owner),
            list: job.list,
            images: job.images,
            answered: job.items.len(),
            created: job.created,
            started: job.started.get().copied(),
            finished: job.finished.map(|finished| finished.wall),
            expires: job.finished.and_then(|finished| finished.wall.checked_add(self.ttl)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const KEPT: Duration = Duration::from_secs(600);

    struct TestStore {
        jobs: JobStore,
        now: JobTime,
    }

    impl TestStore {
        fn new(limit: usize) -> Self {
            Self { jobs: JobStore::new(limit, KEPT), now: JobTime::now() }
        }

        fn add(&mut self) -> Result<(String, Arc<OnceLock<SystemTime>>), AnalysisError> {
            let started = Arc::<OnceLock<SystemTime>>::default();
            let request = AnalysisRequest {
                pipeline: "p".into(),
                owner: "o".into(),
                settings: None,
                number: 0,
                started: Arc::clone(&started),
            };
            Ok((self.jobs.add(&request, false, 1, self.now)?, started))
        }

        fn pass(&mut self, time: Duration) {
            self.now = JobTime { at: self.now.at + time, wall: self.now.wall + time };
        }

        fn state(&self, id: &str) -> Option<JobState> {
            self.jobs.get(id, self.now.at).map(|(status, _)| status.state)
        }
    }

    fn refused() -> ImageOutcome {
        ImageOutcome {
            filename: None,
            outcome: Err(AnalysisError::new(AnalysisErrorKind::DamagedImage, "no")),
        }
    }

    fn analysed(kind: usize) -> ImageOutcome {
        let found = super::super::factory::ImageResult {
            deployment: "d".repeat(kind),
            width: 1,
            height: 1,
            detections: Vec::new(),
            events: Vec::new(),
            timestamps: Default::default(),
        };
        let analysis = super::super::Analysis::new("p", found, Duration::ZERO, Duration::ZERO);
        ImageOutcome { filename: None, outcome: Ok(analysis) }
    }

    #[test]
    fn a_job_goes_from_queued_to_running_to_its_end_and_is_forgotten() {
        let mut store = TestStore::new(2);
        let (id, started) = store.add().unwrap();
        assert_eq!(store.state(&id), Some(JobState::Queued));
        started.set(store.now.wall).unwrap();
        assert_eq!(store.state(&id), Some(JobState::Running));
        store.pass(KEPT * 2);
        assert_eq!(
            store.state(&id),
            Some(JobState::Running),
            "what is under way is never forgotten"
        );
        store.jobs.answer(&id, analysed(1));
        store.jobs.finish(&id, store.now);
        assert_eq!(store.state(&id), Some(JobState::Done));
        store.pass(KEPT - Duration::from_secs(1));
        assert_eq!(store.jobs.get(&id, store.now.at).unwrap().1.len(), 1);
        store.pass(Duration::from_secs(1));
        assert_eq!(store.state(&id), None);
        store.jobs.expire(store.now.at);
        assert_eq!((store.jobs.jobs.len(), store.jobs.bytes), (0, 0));
    }

    #[test]
    fn a_job_without_a_single_result_has_failed() {
        let mut store = TestStore::new(2);
        let (id, _) = store.add().unwrap();
        store.jobs.answer(&id, refused());
        store.jobs.finish(&id, store.now);
        assert_eq!(store.state(&id), Some(JobState::Failed));
    }

    #[test]
    fn a_full_store_refuses_and_says_when_there_is_room() {
        let mut store = TestStore::new(2);
        let (first, _) = store.add().unwrap();
        let (second, _) = store.add().unwrap();
        assert_eq!(store.add().unwrap_err().retry_after_s, Some(1));
        store.jobs.finish(&first, store.now);
        store.pass(Duration::from_secs(100));
        let full = store.add().unwrap_err();
        assert_eq!((full.kind, full.retry_after_s), (AnalysisErrorKind::JobsFull, Some(501)));
        assert!(
            store.jobs.remove(&second, store.now.at) && !store.jobs.remove(&second, store.now.at)
        );
        store.add().unwrap();
        store.pass(Duration::from_secs(501));
        store.add().unwrap();
    }

    #[test]
    fn results_beyond_the_room_for_all_are_faults() {
        let mut store = TestStore::new(2);
        store.jobs.max_bytes = 1000;
        let (id, _) = store.add().unwrap();
        store.jobs.answer(&id, analysed(600));
        store.jobs.answer(&id, analysed(600));
        store.jobs.answer(&id, analysed(1));
        store.jobs.finish(&id, store.now);
        let items = store.jobs.get(&id, store.now.at).unwrap().1;
        let kinds: Vec<_> =
            items.iter().map(|item| item.outcome.as_ref().err().map(|fault| fault.kind)).collect();
        assert_eq!(kinds, [None, Some(AnalysisErrorKind::AnswerTooLarge), None]);
        assert!(store.jobs.remove(&id, store.now.at) && store.jobs.bytes == 0);
    }

    #[test]
    fn names_are_128_bits_of_chance() {
        let mut store = TestStore::new(1000);
        let names: BTreeSet<String> = (0..1000).map(|_| store.add().unwrap().0).collect();
        assert!(names.len() == 1000 && names.iter().all(|name| name.len() == 32));
        let bits = |name: &String| u128::from_str_radix(name, 16).unwrap();
        let set =
            names.iter().map(bits).fold((0, u128::MAX), |(or, and), bits| (or | bits, and & bits));
        assert_eq!(set, (u128::MAX, 0), "no bit is always the same");
    }
}
