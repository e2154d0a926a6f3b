//! One session as the rest of the host holds it: what it is made of, what it runs, whether it has
//! ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ocelli_protocol::worker::{PictureWish, RequestKind};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::error::{ANSWER_TIMEOUT, SessionError};
use super::picture::{EncodedPicture, PictureDesk, PictureError, PictureOrder};
use super::rollout::{ProbationRequest, SwapRequest};
use super::spec::Spec;
use super::status::{Observation, RecentView, SessionSettings, SessionStatus, StatusInner};
use crate::source::{PictureFeed, PictureFeedOwner};
use crate::util::line;
use crate::util::shown::without_folders;

/// Requests to a session's task that may wait.
const REQUESTS: usize = 32;

/// The deployment that a session runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningVersion {
    pub number: u64,
    /// The pipeline as it was asked for: a name is followed when its file changes.
    pub pipeline: String,
    /// SHA-256 of the component, hexadecimal.
    pub digest: String,
    /// When it was asked for: RFC 3339.
    pub since: String,
    /// Who asked for it.
    pub by: String,
    /// Whether the config, or a file that it names, asked for it.
    pub of_config: bool,
}

/// Where the pipeline's answer goes.
pub(super) type AnswerSender = oneshot::Sender<Result<String, SessionError>>;

/// A request to a session's task.
pub(super) enum SessionRequest {
    /// A request to its pipeline.
    Ask {
        kind: RequestKind,
        request: String,
        reply: AnswerSender,
    },
    /// A picture for people.
    Picture(PictureOrder),
    Restart,
    /// A new start with another spec of the same name.
    Replace {
        spec: Arc<Spec>,
        probation: Option<Box<ProbationRequest>>,
    },
    /// Another version of the pipeline, beside the running one.
    Swap(Box<SwapRequest>),
    Stop {
        reason: String,
    },
}

/// What a session's task and its handles share.
pub(super) struct SessionShared {
    id: String,
    spec: Mutex<Arc<Spec>>,
    status: Mutex<StatusInner>,
    running: Mutex<Option<RunningVersion>>,
    is_stopping: AtomicBool,
}

impl SessionShared {
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut StatusInner) -> T) -> T {
        change(&mut self.status.lock())
    }

    pub(super) fn note_error(&self, error: &str) {
        let error = without_folders(&line::text(error));
        self.update(|status| status.note_error(&error, Instant::now()));
    }

    pub(super) fn spec(&self) -> Arc<Spec> {
        Arc::clone(&self.spec.lock())
    }

    pub(super) fn set_spec(&self, spec: Arc<Spec>) {
        *self.spec.lock() = spec;
    }
}

/// A session's end of its channels, for its task.
pub(super) struct TaskEnd {
    pub(super) shared: Arc<SessionShared>,
    pub(super) requests: mpsc::Receiver<SessionRequest>,
    /// Dropped with the task.
    pub(super) alive: watch::Sender<()>,
    /// Likewise.
    pub(super) pictures: PictureFeedOwner,
}

/// A session. Cheap to clone; all clones are one session, and another session of the same name,
/// made after the end of this one, has another handle.
#[derive(Clone)]
pub struct SessionHandle {
    shared: Arc<SessionShared>,
    requests: mpsc::Sender<SessionRequest>,
    /// Closed when the session has ended, and its worker with it.
    ended: watch::Receiver<()>,
    pictures: PictureFeed,
    desk: Arc<PictureDesk>,
}

impl SessionHandle {
    /// A session and what its task needs of it.
    pub(super) fn new(spec: Spec, status: StatusInner) -> (Self, TaskEnd) {
        let shared = Arc::new(SessionShared {
            id: spec.id.clone(),
            spec: Mutex::new(Arc::new(spec)),
            status: Mutex::new(status),
            running: Mutex::default(),
            is_stopping: AtomicBool::new(false),
        });
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (alive, ended) = watch::channel(());
        let owner = PictureFeedOwner::default();
        let pictures = owner.feed();
        let task = TaskEnd { shared: Arc::clone(&shared), requests: inbox, alive, pictures: owner };
        (Self { shared, requests, ended, pictures, desk: Arc::default() }, task)
    }

    /// A session without a task, which never ends.
    #[cfg(test)]
    pub(crate) fn without_task(spec: Spec) -> Self {
        let limits = crate::worker::tests::limits();
        let (handle, end) = Self::new(spec, StatusInner::new(limits));
        std::mem::forget(end.alive);
        handle
    }

    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// What it is made of.
    pub fn spec(&self) -> Arc<Spec> {
        self.shared.spec()
    }

    /// The deployment that it runs; `None` if it has nothing to run.
    pub fn running(&self) -> Option<RunningVersion> {
        self.shared.running.lock().clone()
    }

    /// Notes the deployment that it runs from now on. Returns the one before, if it is another.
    pub fn set_running(&self, version: Option<RunningVersion>) -> Option<RunningVersion> {
        let mut running = self.shared.running.lock();
        if *running == version { None } else { std::mem::replace(&mut *running, version) }
    }

    /// Notes that it has gone back from deployment `from`, unless a later one has taken its place.
    pub fn roll_back(&self, from: u64, before: Option<RunningVersion>) {
        let mut running = self.shared.running.lock();
        if running.as_ref().is_none_or(|running| running.number == from) {
            *running = before;
        }
    }

    /// Its pictures as its source delivers them.
    pub fn pictures(&self) -> &PictureFeed {
        &self.pictures
    }

    /// Its newest picture, encoded for people.
    pub async fn picture(&self, wish: PictureWish) -> Result<EncodedPicture, PictureError> {
        self.desk.picture(wish, &self.requests).await
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        self.ended.has_changed().is_ok()
    }

    /// Returns when it has ended.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    pub fn status(&self) -> SessionStatus {
        let spec = self.spec();
        self.shared.update(|status| status.status(&spec))
    }

    /// The name by which its pipeline describes itself; `None` before it has.
    pub fn described_as(&self) -> Option<String> {
        self.shared.update(|status| status.described_as.clone())
    }

    /// As a session whose pipeline has described itself.
    #[cfg(test)]
    pub(crate) fn with_description(self, name: &str) -> Self {
        self.shared.update(|status| status.described_as = Some(name.to_owned()));
        self
    }

    /// The settings of its pipeline, and their schema.
    pub fn settings(&self) -> SessionSettings {
        let spec = self.spec();
        self.shared.update(|status| status.settings(&spec))
    }

    /// Shows the alerts that are raised of it, by their names.
    pub fn show_alerts(&self, alerts: Vec<&'static str>) {
        self.shared.update(|status| status.shown.alerts = alerts);
    }

    /// Its status, with what metrics and alerts need.
    pub fn observe(&self) -> Observation {
        let spec = self.spec();
        let viewing = Arc::clone(self.pictures.counts());
        self.shared.update(|status| status.observation(&spec, viewing))
    }

    /// What it did lately.
    pub fn recent(&self) -> RecentView {
        self.shared.update(|status| status.recent_view(Instant::now()))
    }

    /// Asks its pipeline for an answer.
    pub async fn ask(&self, kind: RequestKind, request: &Value) -> Result<Value, SessionError> {
        let (reply, answer) = oneshot::channel();
        self.request(SessionRequest::Ask { kind, request: request.to_string(), reply }).await?;
        let text = match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => return Err(SessionError::NotRunning(self.id().to_owned())),
            Err(_) => return Err(SessionError::Timeout(self.id().to_owned())),
        };
        serde_json::from_str(&text).map_err(|error| {
            SessionError::Refused(format!("the pipeline's answer is not JSON: {error}"))
        })
    }

    /// Starts it anew: a fresh worker at once, whatever state it is in.
    pub async fn restart(&self) -> Result<(), SessionError> {
        self.request(SessionRequest::Restart).await
    }

    /// Gives it another spec: a fresh worker at once, whatever state it is in. Its subscribers and
    /// the numbers of its events go on, and the same source stays connected.
    pub async fn replace(
        &self,
        spec: Spec,
        probation: Option<ProbationRequest>,
    ) -> Result<(), SessionError> {
        let (spec, probation) = (Arc::new(spec), probation.map(Box::new));
        self.request_unless_stopping(SessionRequest::Replace { spec, probation }).await
    }

    /// Changes its pipeline while it runs: see [`rollout`](super::rollout).
    pub async fn swap(&self, request: SwapRequest) -> Result<(), SessionError> {
        self.request_unless_stopping(SessionRequest::Swap(Box::new(request))).await
    }

    /// Whether it is to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.shared.is_stopping.load(Ordering::Relaxed)
    }

    /// Tells it to stop, and returns when it has ended.
    pub(super) async fn stop(&self, reason: &str) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        // A task that takes no more requests has ended already.
        let _ = self.requests.send(SessionRequest::Stop { reason: reason.to_owned() }).await;
        self.ended().await;
    }

    /// Whether both are handles of one session.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    async fn request_unless_stopping(&self, request: SessionRequest) -> Result<(), SessionError> {
        if self.is_stopping() {
            return Err(SessionError::Unknown(self.id().to_owned()));
        }
        self.request(request).await
    }

    async fn request(&self, request: SessionRequest) -> Result<(), SessionError> {
        let sent = self.requests.send(request).await;
        sent.map_err(|_| SessionError::Unknown(self.id().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::Source;
    use crate::session::CompiledPipeline;

    fn version(number: u64) -> RunningVersion {
        RunningVersion {
            number,
            pipeline: "eye".into(),
            digest: number.to_string(),
            since: String::new(),
            by: "test".into(),
            of_config: false,
        }
    }

    #[test]
    fn a_rollback_undoes_its_own_deployment_and_no_later_one() {
        let session = SessionHandle::without_task(Spec {
            id: "cam".into(),
            source: Source::parse("file:clip.mp4", None, None, false).unwrap(),
            substream: None,
            pipeline: CompiledPipeline::missing("eye", String::new()),
            settings: Default::default(),
            decode: Default::default(),
            decode_device: Default::default(),
            priority: Default::default(),
            redis_prefix: None,
            directories: Vec::new(),
        });
        assert_eq!(session.set_running(Some(version(1))), None);
        assert_eq!(session.set_running(Some(version(1))), None, "nothing has changed");
        assert_eq!(session.set_running(Some(version(2))), Some(version(1)));
        session.set_running(Some(version(3)));
        session.roll_back(2, Some(version(1)));
        assert_eq!(session.running(), Some(version(3)));
        session.roll_back(3, Some(version(2)));
        assert_eq!(session.running(), Some(version(2)));
        assert!(session.is_alive());
    }
}
