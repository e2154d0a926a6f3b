//! The task of one session. [`Task::run`] only loops: it serves, and decides what follows; [`Task::serve`] does the work
//! of one worker's life.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::limit::Limit;
use ocelli_protocol::worker::{Counters, FromWorker, Level, Mode, Pacing};
use rand::Rng;
use tokio::sync::mpsc;

use super::bounds;
use super::launch::Launch;
use super::phase::{Change, Life};
use super::serving::{Note, Serving};
use super::watched::{Unfit, Watched, failed, log, out_of_turn};
use super::worker::{Outbox, Worker};
use super::{Environment, Frames, Limits, READY_TIMEOUT, Request, SessionError, Shared, Spec};
use crate::event::State;
use crate::inference::{Attachment, catalogue};
use crate::source::Subscription;

/// Wait after the first loss of a worker: doubled with each further one in a row, up to the second figure.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A worker that gives a result this long after it was ready is not in a crash loop. Longer than any wait between starts,
/// so that a worker that dies on every hundredth frame ends as failed too.
const STABLE: Duration = Duration::from_secs(10);

/// A wait is lengthened by up to this share, so that sessions that fell together do not start together.
const JITTER: f64 = 0.25;

/// How long a worker that its session gave up may take to end by itself.
const END_GRACE: Duration = Duration::from_millis(500);

/// How one worker's life ended.
enum Ended {
    /// Asked for.
    Stop(String),
    /// Asked for.
    Restart,
    /// The file has no more frames.
    Finished,
    /// Not to be tried again before a person has changed something.
    Failed(String),
    /// The worker died, said that it cannot go on, or could not be started.
    Lost(String),
    /// The worker hangs or breaks the protocol: it is killed.
    Broken(String),
}

impl From<Unfit> for Ended {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Lost(reason) => Self::Lost(reason),
            Unfit::Broken(reason) => Self::Broken(reason),
        }
    }
}

pub(super) struct Task {
    environment: Arc<Environment>,
    shared: Arc<Shared>,
    spec: Arc<Spec>,
    requests: mpsc::Receiver<Request>,
    life: Life,
    /// The last worker's subscription, kept so that the source's reader lives on until the next one has subscribed.
    subscription: Option<Subscription>,
}

impl Task {
    pub(super) fn new(
        environment: Arc<Environment>,
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        let spec = shared.spec();
        Self { environment, shared, spec, requests, life: Life::default(), subscription: None }
    }

    /// Serves until the session is stopped.
    pub(super) async fn run(mut self) {
        self.show();
        loop {
            match self.serve().await {
                Ended::Stop(reason) => return self.change(Change::Stop(reason)),
                Ended::Restart => self.change(Change::Restart),
                Ended::Finished => self.change(Change::Stop("the file has ended".into())),
                Ended::Failed(reason) => {
                    self.shared.update(|shown| shown.last_error = Some(reason.clone()));
                    self.change(Change::Fail(reason));
                }
                Ended::Lost(reason) | Ended::Broken(reason) => {
                    let deployment = &self.spec.deployment.id;
                    tracing::error!(target: "ocelli::session", session = self.id(), deployment, "worker lost: {reason}");
                    self.shared.update(|shown| shown.last_error = Some(reason.clone()));
                    self.change(Change::WorkerLost(reason));
                }
            }
            if !self.wait_for_next_start().await {
                return;
            }
        }
    }

    /// Waits as long as the session's state asks for. False where the session is over.
    async fn wait_for_next_start(&mut self) -> bool {
        let deadline = match self.life.state().0 {
            State::Restarting => Some(tokio::time::Instant::now() + wait(self.life.losses())),
            State::Failed | State::Stopped => {
                // Nothing is held for a session that a person has to start again.
                self.subscription = None;
                None
            }
            _ => return true,
        };
        loop {
            let request = match deadline {
                Some(deadline) => match tokio::time::timeout_at(deadline, self.requests.recv()).await {
                    Ok(request) => request,
                    Err(_) => return true,
                },
                None => self.requests.recv().await,
            };
            match request {
                Some(Request::Restart) => {
                    self.change(Change::Restart);
                    return true;
                }
                Some(Request::Replace { spec }) => {
                    self.change(Change::Restart);
                    self.take_over(spec);
                    return true;
                }
                Some(Request::Command { answer, .. }) => {
                    let _ = answer.send(Err(SessionError::NotRunning(self.id().to_owned())));
                }
                Some(Request::Stop { reason }) => {
                    self.change(Change::Stop(reason));
                    return false;
                }
                None => return false,
            }
        }
    }

    /// One worker's life, from its start to the moment when it is gone.
    async fn serve(&mut self) -> Ended {
        let component = match &self.spec.deployment.compiled {
            Ok(component) => Arc::clone(component),
            Err(reason) => return Ended::Failed(reason.clone()),
        };
        let limits = self.environment.limits();
        let started = match self.start_worker(&component, limits).await {
            Ok(started) => started,
            Err(error) => return Ended::Lost(format!("{error:#}")),
        };
        // Each worker has a place of its own at the inference process: what the one before it left unanswered there, or
        // in its shared memory, stays with that one.
        let (mut worker, outbox, _attachment) = started;
        self.shared.update(|shown| {
            shown.pid = worker.pid();
            shown.confinement = None;
            shown.control_group = worker.is_in_group();
            shown.allowed = limits.worker;
        });
        let mut health = limits.watch();
        let mut outbox = Some(outbox);
        let mut serving = None;
        let ended = loop {
            match &mut serving {
                None => match self.until_ready(&mut worker, &mut health).await {
                    Ok(()) => {
                        let Some((outbox, subscription)) = outbox.take().zip(self.subscription.take()) else {
                            break Ended::Broken("the worker was ready twice".into());
                        };
                        self.change(Change::WorkerReady);
                        serving = Some(Serving::start(outbox, subscription));
                    }
                    Err(ended) => break ended,
                },
                Some(serving) => {
                    if let Some(ended) = self.step(&mut worker, serving, &mut health).await {
                        break ended;
                    }
                }
            }
        };
        if matches!(ended, Ended::Broken(_)) {
            worker.kill();
        }
        // Without its connection the worker ends by itself.
        drop(outbox);
        if let Some(serving) = serving {
            self.subscription = serving.stop(self.id()).await;
        }
        let grace =
            if matches!(ended, Ended::Lost(_)) { END_GRACE } else { self.environment.limits().cleanup };
        let (status, out_of_memory) = worker.end(grace).await;
        self.shared.update(|shown| {
            if out_of_memory {
                shown.totals.hit(Limit::Memory);
            }
            shown.end_worker();
        });
        match ended {
            Ended::Lost(reason) => Ended::Lost(format!("{reason} ({status})")),
            ended => ended,
        }
    }

    async fn start_worker(
        &mut self,
        component: &OwnedFd,
        limits: Limits,
    ) -> anyhow::Result<(Worker, Outbox, Attachment)> {
        let (environment, spec) = (Arc::clone(&self.environment), Arc::clone(&self.spec));
        // Subscribing first lets a cold camera connect while the worker starts. The old subscription goes when the new
        // one is there, so that the reader does not end in between.
        self.subscription = Some(environment.sources.subscribe(&spec.source));
        let live = spec.source.is_live();
        let launch = Launch {
            name: &spec.id,
            component,
            settings: &spec.settings,
            mode: Mode::Stream(if live { Pacing::NewestWins } else { Pacing::EveryFrame }),
            decode: spec.decode,
            terms: limits.service(spec.priority, live),
            limits,
        };
        environment.launch(launch).await
    }

    /// Waits until the pipeline is initialised.
    async fn until_ready(&mut self, worker: &mut Worker, health: &mut Watched) -> Result<(), Ended> {
        let deadline = tokio::time::Instant::now() + READY_TIMEOUT;
        loop {
            tokio::select! {
                received = worker.inbox.recv() => match health.message(received)? {
                    FromWorker::Confined(confinement) => self.confined(confinement)?,
                    FromWorker::Alive { counters, guest_memory } => self.alive(None, counters, guest_memory, health),
                    FromWorker::Described(description) => {
                        if self.shared.update(|shown| shown.confinement.is_none()) {
                            return Err(Ended::Broken("the worker did not say how it is confined".into()));
                        }
                        bounds::description(&description).map_err(Ended::Broken)?;
                        let lacks = catalogue::lacks(&self.environment.inference.models(), &description);
                        self.shared.update(|shown| shown.description = Some(description));
                        if let Some(lacks) = lacks {
                            return Err(Ended::Failed(lacks));
                        }
                    }
                    FromWorker::Ready => return Ok(()),
                    FromWorker::Log { level, context, message, frame } => self.log(level, &context, &message, frame),
                    FromWorker::Failed { stage, message, counters, .. } => {
                        self.shared.update(|shown| shown.totals.count_limits(counters.limits));
                        return Err(failed(stage, message).into());
                    }
                    other => return Err(out_of_turn(&other).into()),
                },
                _ = health.looks.tick() => health.look(0)?,
                request = self.requests.recv() => match request {
                    Some(Request::Restart) => return Err(Ended::Restart),
                    Some(Request::Replace { spec }) => {
                        self.take_over(spec);
                        return Err(Ended::Restart);
                    }
                    Some(Request::Stop { reason }) => return Err(Ended::Stop(reason)),
                    Some(Request::Command { answer, .. }) => {
                        let _ = answer.send(Err(SessionError::NotRunning(self.id().to_owned())));
                    }
                    None => return Err(Ended::Stop("the host stops".into())),
                },
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Ended::Lost(format!("not ready within {} s", READY_TIMEOUT.as_secs())));
                }
            }
        }
    }

    /// Waits for the next thing to happen and handles it. Some where the worker's life is over.
    async fn step(
        &mut self,
        worker: &mut Worker,
        serving: &mut Serving,
        health: &mut Watched,
    ) -> Option<Ended> {
        tokio::select! {
            received = worker.inbox.recv() => match health.message(received) {
                Ok(message) => self.handle(message, serving, health),
                Err(unfit) => Some(unfit.into()),
            },
            _ = health.looks.tick() => {
                health.look(serving.sent.units.load(Ordering::Relaxed)).err().map(Ended::from)
            }
            Some(note) = serving.notes.recv() => self.note(note),
            request = self.requests.recv() => match request {
                Some(Request::Restart) => Some(Ended::Restart),
                Some(Request::Replace { spec }) => {
                    self.take_over(spec);
                    Some(Ended::Restart)
                }
                Some(Request::Stop { reason }) => Some(Ended::Stop(reason)),
                Some(Request::Command { request, answer }) => {
                    serving.ask(self.id(), request, answer);
                    None
                }
                None => Some(Ended::Stop("the host stops".into())),
            },
        }
    }

    /// What the pump says of the source. Some where the worker's life is over with it.
    fn note(&mut self, note: Note) -> Option<Ended> {
        match note {
            Note::Up => self.change(Change::SourceUp),
            Note::Down(reason) => {
                let deployment = &self.spec.deployment.id;
                tracing::warn!(target: "ocelli::session", session = self.id(), deployment, "source down: {reason}");
                self.shared.update(|shown| shown.last_error = Some(reason.clone()));
                self.change(Change::SourceDown(reason));
            }
            // A file that cannot be read ends with its fault. One that ends well ends with `Finished`, when the worker
            // has processed what it has.
            Note::Ended => return self.life.source_fault().map(|fault| Ended::Failed(fault.to_owned())),
        }
        None
    }

    fn handle(&mut self, message: FromWorker, serving: &mut Serving, health: &mut Watched) -> Option<Ended> {
        match message {
            FromWorker::Result { result, counters } => {
                if let Err((limit, message)) = bounds::result(&result, &health.limits) {
                    self.shared.update(|shown| shown.totals.hit(limit));
                    return Some(Ended::Broken(message));
                }
                if serving.since.elapsed() >= STABLE {
                    self.life.apply(Change::Served);
                }
                health.counted(counters);
                self.shared.update(|shown| {
                    shown.results += u64::from(result.detections.is_some());
                    shown.events += result.events.len() as u64;
                    shown.last_result = Some(Instant::now());
                    shown.latencies.record(&result.stations);
                    shown.totals.count(serving.frames(counters), counters.limits);
                });
                let (frame, deployment) = (result.frame, &self.spec.deployment.id);
                if let Err(error) = self.environment.hub.publish_result(self.id(), deployment, result) {
                    self.shared.update(|shown| shown.last_error = Some(error.to_string()));
                    self.log(Level::Error, "result", &error.to_string(), Some(frame));
                }
            }
            FromWorker::FrameFailed { frame, message, counters } => {
                let message = bounds::cause(message);
                health.counted(counters);
                self.shared.update(|shown| {
                    shown.totals.count(serving.frames(counters), counters.limits);
                    shown.last_error = Some(message.clone());
                });
                self.log(Level::Error, "process", &message, Some(frame));
            }
            FromWorker::Log { level, context, message, frame } => self.log(level, &context, &message, frame),
            FromWorker::Alive { counters, guest_memory } => {
                self.alive(Some(serving), counters, guest_memory, health);
            }
            FromWorker::CommandAnswer { id, answer } => match serving.pending.remove(&id) {
                Some(waiting) => {
                    let _ = waiting.send(answer.map_err(SessionError::Refused));
                }
                None => {
                    return Some(Ended::Broken(format!("an answer to a question {id} that nobody asked")));
                }
            },
            FromWorker::Finished { counters } if serving.sent.end.load(Ordering::Acquire) => {
                self.shared.update(|shown| shown.totals.count(serving.frames(counters), counters.limits));
                // What the pump said before it sent the end may still wait: the fault of a file, that is.
                let faulty =
                    std::iter::from_fn(|| serving.notes.try_recv().ok()).find_map(|note| self.note(note));
                return Some(faulty.unwrap_or(Ended::Finished));
            }
            FromWorker::Failed { stage, message, counters, .. } => {
                self.shared.update(|shown| shown.totals.count(serving.frames(counters), counters.limits));
                return Some(failed(stage, message).into());
            }
            other @ (FromWorker::Finished { .. }
            | FromWorker::Confined(_)
            | FromWorker::Described(_)
            | FromWorker::Ready
            | FromWorker::Snapshot { .. }
            | FromWorker::Stored(_)
            | FromWorker::Decoded { .. }
            | FromWorker::Rehearsed { .. }
            | FromWorker::Renewed
            | FromWorker::Restored(_)
            | FromWorker::Speaking
            | FromWorker::Analyzed { .. }) => return Some(out_of_turn(&other).into()),
        }
        None
    }

    /// Takes in how the worker is confined, before anything of the component has run.
    fn confined(&self, confinement: Confinement) -> Result<(), Ended> {
        let admitted = self.environment.limits().admit(&confinement);
        self.shared.update(|shown| shown.confinement = Some(confinement));
        admitted.map_err(Ended::Failed)
    }

    fn alive(&self, serving: Option<&Serving>, counters: Counters, guest_memory: u64, health: &mut Watched) {
        health.counted(counters);
        self.shared.update(|shown| {
            shown.guest_memory = guest_memory;
            let frames = serving.map_or_else(|| Frames::from(counters), |serving| serving.frames(counters));
            shown.totals.count(frames, counters.limits);
        });
    }

    fn id(&self) -> &str {
        &self.spec.id
    }

    /// Makes another spec the session's, for the next worker.
    fn take_over(&mut self, spec: Arc<Spec>) {
        if spec.source != self.spec.source {
            // What is wrong with the old source says nothing of the new one.
            self.life.apply(Change::SourceUp);
            self.shared.update(|shown| shown.source_down = None);
        }
        // The next pipeline speaks for itself.
        self.shared.update(|shown| shown.description = None);
        self.shared.set_spec(Arc::clone(&spec));
        self.spec = spec;
    }

    /// Takes a change in, and shows and publishes the state if it is another than before.
    fn change(&mut self, change: Change) {
        let before = (self.life.state().0, self.life.state().1.map(str::to_owned));
        let now = Instant::now();
        self.shared.update(|shown| match &change {
            Change::Restart => shown.since = now,
            Change::WorkerReady => shown.last_result = Some(now),
            Change::SourceDown(_) => shown.source_down = shown.source_down.or(Some(now)),
            Change::SourceUp => shown.source_down = None,
            _ => {}
        });
        let new_worker = matches!(change, Change::WorkerLost(_) | Change::Restart);
        self.life.apply(change);
        let (state, reason) = self.life.state();
        if new_worker && matches!(state, State::Restarting | State::Starting) {
            self.shared.update(|shown| shown.restarts += 1);
        }
        if (state, reason) != (before.0, before.1.as_deref()) {
            self.show();
        }
    }

    fn show(&self) {
        let (state, reason) = self.life.state();
        self.shared.update(|shown| {
            shown.state = state;
            shown.reason = reason.map(str::to_owned);
        });
        // A backtrace has been logged with the loss that it explains.
        let told = reason.and_then(|reason| reason.lines().next());
        let deployment = &self.spec.deployment.id;
        tracing::info!(target: "ocelli::session", session = self.id(), deployment, %state, reason = told, "session state");
        self.environment.hub.publish_state(self.id(), state, reason.map(str::to_owned));
    }

    /// Writes a line of the worker or its pipeline to the host's log.
    fn log(&self, level: Level, context: &str, message: &str, frame: Option<u64>) {
        log(self.id(), &self.spec.deployment.id, level, context, message, frame);
    }
}

/// The wait before the next start after this many losses in a row.
fn wait(losses: u32) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << losses.saturating_sub(1).min(16));
    doubled.min(LONGEST_WAIT).mul_f64(1.0 + rand::rng().random_range(0.0..JITTER))
}
