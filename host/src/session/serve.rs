//! One worker's life in a session: from its start, or its taking over, to the moment when it is gone.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ocelli_protocol::limit::Limit;
use ocelli_protocol::worker::{Counters, FromWorker, Level, ToWorker};
use tokio::sync::oneshot;

use super::bounds;
use super::change::{Report, Swapped};
use super::changeover::take_back;
use super::feed::{Feed, Note, Whom};
use super::green::{Green, tell};
use super::kept::Mirror;
use super::member::{Member, NoStart};
use super::phase::Change;
use super::run::{Ended, GoingBack, Legacy, OnTrial, Task};
use super::swap::Input;
use super::watched::{failed, log, out_of_turn};
use super::{READY_TIMEOUT, Request, SessionError};

/// A worker that gives a result this long after it was ready is not in a crash loop. Longer than any wait between starts,
/// so that a worker that dies on every hundredth frame ends as failed too.
const STABLE: Duration = Duration::from_secs(10);

/// Questions to a pipeline that wait for their answer.
const MAX_PENDING: usize = 64;

pub(super) type Answer = oneshot::Sender<Result<String, SessionError>>;

/// The worker that speaks, what feeds it, and what gets ready beside it.
pub(super) struct Serving {
    pub(super) member: Member,
    pub(super) feed: Feed,
    pub(super) green: Option<Green>,
    pub(super) questions: Questions,
    /// The last frame that is done with.
    pub(super) done: Option<u64>,
    /// How often the worker was asked for its state and has not answered: a change may be given up meanwhile.
    pub(super) states_asked: u32,
}

/// Questions without an answer yet.
#[derive(Default)]
pub(super) struct Questions {
    waiting: BTreeMap<u64, (u64, Answer)>,
    next: u64,
    /// How often a new version took over: whom a question was asked.
    worker: u64,
}

impl Questions {
    /// The question's number, where there is room for one more.
    fn add(&mut self, session: &str, answer: Answer) -> Option<u64> {
        // A question whose asker has gone away does not take up room.
        self.waiting.retain(|_, (_, answer)| !answer.is_closed());
        if self.waiting.len() >= MAX_PENDING {
            let message = format!("session {session:?} has too many unanswered commands");
            let _ = answer.send(Err(SessionError::Refused(message)));
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.waiting.insert(id, (self.worker, answer));
        Some(id)
    }

    /// Hands an answer on. False where nobody asked.
    pub(super) fn answer(&mut self, id: u64, answer: Result<String, String>) -> bool {
        let Some((_, waiting)) = self.waiting.remove(&id) else { return false };
        let _ = waiting.send(answer.map_err(SessionError::Refused));
        true
    }

    /// From now on another worker is asked.
    pub(super) fn next_worker(&mut self) {
        self.worker += 1;
    }

    /// Those that were put to workers before are answered by nobody.
    pub(super) fn forget_others(&mut self) {
        let worker = self.worker;
        self.waiting.retain(|_, (asked, _)| *asked == worker);
    }
}

impl Task {
    /// Serves with one worker after another, as long as each takes over from the one before it.
    pub(super) async fn serve(&mut self) -> Ended {
        if let Err(reason) = &self.spec.deployment.compiled {
            return Ended::Failed(reason.clone());
        }
        let mut member = match self.launch().await {
            Ok(member) => member,
            Err(error) => return Ended::Lost(format!("{error:#}")),
        };
        self.show_worker(&member);
        if let Err(ended) = self.until_ready(&mut member).await {
            if let Some(legacy) = self.legacy.take() {
                self.subscription = legacy.feed.stop(self.id()).await;
            }
            return self.end(member, ended).await;
        }
        self.show_worker(&member);
        let mut serving = match self.begin(member).await {
            Ok(serving) => serving,
            Err((member, ended)) => return self.end(*member, ended).await,
        };
        let ended = loop {
            if let Some(ended) = self.step(&mut serving).await {
                break ended;
            }
        };
        self.leave(serving, ended).await
    }

    async fn launch(&mut self) -> anyhow::Result<Member> {
        let environment = Arc::clone(&self.environment);
        let mirror = match self.mirror.take() {
            Some(mirror) => mirror,
            None => Mirror::new(environment.journal.kept(self.id()).await?),
        };
        let mut limits = environment.limits();
        mirror.fits(&mut limits.worker);
        let kept = self.mirror.insert(mirror).encoded();
        if self.legacy.is_none() {
            // Subscribing first lets a cold camera connect while the worker starts. The old subscription goes when the new
            // one is there, so that the reader does not end in between.
            self.subscription = Some(environment.sources.subscribe(&self.spec.source));
        }
        Member::launch(environment, limits, Arc::clone(&self.spec), self.legacy.is_some(), kept).await
    }

    /// Waits until the pipeline is initialised.
    async fn until_ready(&mut self, member: &mut Member) -> Result<(), Ended> {
        let deadline = tokio::time::Instant::now() + READY_TIMEOUT;
        loop {
            tokio::select! {
                received = member.worker.inbox.recv() => {
                    let (message, _) = member.health.message(received)?;
                    self.count_start(&message);
                    let ready = member.starting(message, &self.environment);
                    self.show_worker(member);
                    match ready {
                        Ok(true) => return Ok(()),
                        Ok(false) => {}
                        Err(NoStart::Unfit(unfit)) => return Err(unfit.into()),
                        Err(NoStart::Lasting(reason)) => return Err(Ended::Failed(reason)),
                    }
                }
                _ = member.health.looks.tick() => member.look()?,
                request = self.requests.recv() => {
                    if let Some(ended) = self.asked_without_worker(request) {
                        return Err(ended);
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Ended::Lost(format!("not ready within {} s", READY_TIMEOUT.as_secs())));
                }
            }
        }
    }

    fn count_start(&self, message: &FromWorker) {
        if let FromWorker::Failed { counters, .. } | FromWorker::Alive { counters, .. } = message {
            self.shared.update(|shown| shown.totals.count_limits(counters.limits));
        }
    }

    /// Lets a worker that is initialised have the units: those from now on, or those that the one before it has not done
    /// with.
    async fn begin(&mut self, mut member: Member) -> Result<Serving, (Box<Member>, Ended)> {
        let Some(mut outbox) = member.outbox.take() else {
            return Err((Box::new(member), Ended::Broken("the worker was ready twice".into())));
        };
        if let Err(ended) = self.keep(&mut member).await {
            return Err((Box::new(member), ended));
        }
        let restore = |(version, bytes): &(String, Vec<u8>)| {
            (ToWorker::Restore { version: version.clone() }, bytes.clone())
        };
        let state = self.going_back.as_ref().and_then(|back| back.state.as_ref()).map(restore);
        let begun = match self.legacy.take() {
            Some(Legacy { feed, done }) => {
                // Told before the units, so that it processes each that is not done with.
                let mut first: Vec<_> = state.into_iter().collect();
                first.push((ToWorker::Speak { after: done }, Vec::new()));
                member.sent = feed.join(outbox, first).await;
                feed.promote().await;
                feed.settle().await;
                member.dropped_before = feed.dropped();
                (feed, done)
            }
            None => {
                if let Some((message, payload)) = state
                    && let Err(error) = outbox.send(&message, &payload).await
                {
                    return Err((Box::new(member), Ended::Lost(error.to_string())));
                }
                let Some(subscription) = self.subscription.take() else {
                    return Err((Box::new(member), Ended::Lost("it has no source".into())));
                };
                let (feed, sent) = Feed::start(subscription, outbox);
                member.sent = sent;
                (feed, None)
            }
        };
        self.change(Change::WorkerReady);
        self.begin_trial(&member);
        if let Some(GoingBack { reports, reason, .. }) = self.going_back.take_if(|back| back.state.is_none())
        {
            tell(&reports, Report::Returned { reason, with_state: false });
        }
        let (feed, done) = begun;
        Ok(Serving { member, feed, green: None, questions: Questions::default(), done, states_asked: 0 })
    }

    /// What was made the session's without a change beside a running worker serves: from now on it has to last.
    fn begin_trial(&mut self, member: &Member) {
        let probation = self.environment.limits().swap.probation;
        let Some(OnTrial { reports, until, cold, .. }) = &mut self.trial else { return };
        *until = Some(Instant::now() + probation);
        if let Some(description) = &member.description {
            let (name, version) = (description.name.clone(), description.version.clone());
            tell(reports, Report::Described { name, version });
        }
        if let Some(begun) = cold.take() {
            let total_ms = begun.elapsed().as_secs_f64() * 1000.0;
            tell(reports, Report::Swapped(Swapped { total_ms, cold: true, ..Swapped::default() }));
        }
    }

    /// Waits for the next thing to happen and handles it. Some where the worker's life is over.
    async fn step(&mut self, serving: &mut Serving) -> Option<Ended> {
        tokio::select! {
            received = serving.member.worker.inbox.recv() => {
                let ended = match serving.member.health.message(received) {
                    Ok((message, payload)) => self.handle(message, payload, serving).await,
                    Err(unfit) => Some(unfit.into()),
                };
                match ended {
                    // The one that takes its place speaks already.
                    Some(Ended::Lost(_) | Ended::Broken(_)) if serving.is_promoted() => {
                        self.settle(serving, None).await;
                        None
                    }
                    ended => ended,
                }
            }
            _ = serving.member.health.looks.tick() => serving.member.look().err().map(Ended::from),
            Some(note) = serving.feed.notes.recv() => self.note(note),
            happened = Green::next(&mut serving.green) => self.beside(happened, serving).await,
            () = proven(self.trial.as_ref()) => {
                self.prove(serving);
                None
            }
            request = self.requests.recv() => match request {
                Some(Request::Command { request, answer }) => {
                    if let Some(id) = serving.questions.add(self.id(), answer) {
                        // A lane that speaks is the new version's as soon as it is promoted.
                        serving.feed.tell(Whom::Speaking, ToWorker::Command { id, request }, Vec::new()).await;
                    }
                    None
                }
                Some(Request::Swap(swap)) => {
                    self.change_beside(*swap, serving);
                    None
                }
                request => self.asked_without_worker(request),
            },
        }
    }

    /// It has lasted. What has not given a result yet has proven nothing.
    fn prove(&mut self, serving: &Serving) {
        if self.worked {
            self.end_trial(|| Report::Proven);
        } else if let Some(trial) = &mut self.trial {
            trial.until = Some(serving.member.since.max(Instant::now()) + STABLE);
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
            Note::Ended => {
                return self.life.source_fault().map(|fault| Ended::SourceFailed(fault.to_owned()));
            }
        }
        None
    }

    /// Handles a message of the worker that speaks.
    pub(super) async fn handle(
        &mut self,
        message: FromWorker,
        payload: Vec<u8>,
        serving: &mut Serving,
    ) -> Option<Ended> {
        match message {
            FromWorker::Stored(changes) => {
                let held = &mut serving.member.held;
                if !held.is_empty() {
                    return Some(Ended::Broken("it changed its store twice in one call".into()));
                }
                *held = changes;
            }
            FromWorker::Result { result, counters } => {
                if let Err((limit, message)) = bounds::result(&result, &serving.member.limits) {
                    self.shared.update(|shown| shown.totals.hit(limit));
                    return Some(Ended::Broken(message));
                }
                if serving.member.since.elapsed() >= STABLE {
                    self.life.apply(Change::Served);
                }
                if let Err(ended) = self.keep(&mut serving.member).await {
                    return Some(ended);
                }
                self.count(serving, counters);
                self.worked = true;
                let now = Instant::now();
                serving.member.last_result = Some(now);
                self.shared.update(|shown| {
                    shown.results += u64::from(result.detections.is_some());
                    shown.events += result.events.len() as u64;
                    shown.last_result = Some(now);
                    shown.latencies.record(&result.stations);
                });
                let frame = result.frame;
                serving.done_with(frame);
                if serving.green.is_some() {
                    self.hear(Input::Running(&result), serving).await;
                }
                let deployment = &self.spec.deployment.id;
                let published = self.environment.hub.publish_result(self.id(), deployment, result).await;
                if let Err(error) = published {
                    self.shared.update(|shown| shown.last_error = Some(error.to_string()));
                    self.log(Level::Error, "result", &error.to_string(), Some(frame));
                }
            }
            FromWorker::FrameFailed { frame, message, counters } => {
                let message = bounds::cause(message);
                if let Err(ended) = self.keep(&mut serving.member).await {
                    return Some(ended);
                }
                self.count(serving, counters);
                serving.done_with(frame);
                self.shared.update(|shown| shown.last_error = Some(message.clone()));
                self.log(Level::Error, "process", &message, Some(frame));
            }
            FromWorker::Log { level, context, message, frame } => {
                self.log(level, &context, &message, frame);
            }
            FromWorker::Alive { counters, guest_memory } => {
                serving.member.guest_memory = guest_memory;
                self.count(serving, counters);
                self.shared.update(|shown| shown.guest_memory = guest_memory);
                if serving.green.is_some() {
                    self.hear(Input::Beat, serving).await;
                }
            }
            FromWorker::CommandAnswer { id, answer } => {
                if let Err(ended) = self.keep(&mut serving.member).await {
                    return Some(ended);
                }
                if !serving.questions.answer(id, answer) {
                    return Some(Ended::Broken(format!("an answer to a question {id} that nobody asked")));
                }
            }
            FromWorker::Snapshot { through, counters } if serving.states_asked > 0 => {
                serving.states_asked -= 1;
                self.count(serving, counters);
                // An answer before the last was for a change that was given up.
                if serving.states_asked == 0 {
                    self.take_state(through, payload, serving).await;
                }
            }
            FromWorker::Restored(restored) if self.going_back.is_some() => {
                if let Err(ended) = self.keep(&mut serving.member).await {
                    return Some(ended);
                }
                if let Some(GoingBack { reports, reason, .. }) = self.going_back.take() {
                    if let Err(words) = &restored {
                        let words = bounds::cause(words.clone());
                        self.log(
                            Level::Error,
                            "restore",
                            &format!("its own state is refused: {words}"),
                            None,
                        );
                    }
                    tell(&reports, Report::Returned { reason, with_state: restored.is_ok() });
                }
            }
            FromWorker::Speaking => {}
            FromWorker::Finished { counters } if serving.member.sent.end.load(Ordering::Acquire) => {
                self.count(serving, counters);
                // What the pump said before it sent the end may still wait: the fault of a file, that is.
                let faulty = std::iter::from_fn(|| serving.feed.notes.try_recv().ok())
                    .find_map(|note| self.note(note));
                return Some(faulty.unwrap_or(Ended::Finished));
            }
            FromWorker::Failed { stage, message, counters, .. } => {
                self.count(serving, counters);
                return Some(failed(stage, message).into());
            }
            other => return Some(out_of_turn(&other).into()),
        }
        None
    }

    /// Keeps what the call that has just been told of has changed in the session's store.
    pub(super) async fn keep(&mut self, member: &mut Member) -> Result<(), Ended> {
        let changes = std::mem::take(&mut member.held);
        if changes.is_empty() {
            return Ok(());
        }
        if let Some(mirror) = &mut self.mirror
            && let Err(message) = mirror.apply(&changes, &member.limits)
        {
            self.mirror = None;
            return Err(Ended::Broken(message));
        }
        let kept = self.environment.journal.keep(&member.spec.id, changes).await;
        kept.map_err(|error| {
            self.mirror = None;
            Ended::Lost(format!("the session's store cannot be kept: {error:#}"))
        })
    }

    pub(super) fn count(&self, serving: &mut Serving, counters: Counters) {
        let Serving { member, feed, .. } = serving;
        member.health.counted(counters);
        let frames = member.frames(counters, feed.dropped());
        self.shared.update(|shown| shown.totals.count(frames, counters.limits));
    }

    /// Shows a worker as the session's.
    pub(super) fn show_worker(&self, member: &Member) {
        self.shared.update(|shown| {
            shown.pid = member.worker.pid();
            shown.confinement.clone_from(&member.confinement);
            shown.control_group = member.worker.is_in_group();
            shown.allowed = member.limits;
            shown.guest_memory = member.guest_memory;
            if member.description.is_some() {
                shown.description.clone_from(&member.description);
            }
        });
    }

    /// Takes everything down but what the next worker needs.
    async fn leave(&mut self, mut serving: Serving, ended: Ended) -> Ended {
        let green = take_back(&mut serving).await;
        let Serving { member, feed, done, .. } = serving;
        if ended.blames_pipeline() && self.trial.as_ref().is_some_and(|trial| trial.fallback.is_some()) {
            self.legacy = Some(Legacy { feed, done });
        } else {
            self.subscription = feed.stop(self.id()).await;
        }
        let ended = self.end(member, ended).await;
        if let Some(mut green) = green {
            let cause = ended.reason();
            let reason = match ended {
                Ended::Lost(_) | Ended::Broken(_) => {
                    format!("the running version was lost meanwhile: {cause}")
                }
                _ => cause.to_owned(),
            };
            self.tell_given_up(&green, reason);
            if let Some(mut member) = green.take() {
                member.worker.kill();
                let _ = member.end(true, self.environment.limits().cleanup).await;
            }
        }
        ended
    }

    /// Ends a worker, and tells how it ended where it was lost.
    async fn end(&mut self, mut member: Member, ended: Ended) -> Ended {
        if matches!(ended, Ended::Broken(_)) {
            member.worker.kill();
        }
        let (given_up, cleanup) = (matches!(ended, Ended::Lost(_)), self.environment.limits().cleanup);
        let (status, out_of_memory) = member.end(given_up, cleanup).await;
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

    /// Writes a line of the worker or its pipeline to the host's log.
    pub(super) fn log(&self, level: Level, context: &str, message: &str, frame: Option<u64>) {
        log(self.id(), &self.spec.deployment.id, level, context, message, frame);
    }
}

impl Serving {
    /// A frame that nobody has to process any more.
    pub(super) fn done_with(&mut self, frame: u64) {
        self.done = self.done.max(Some(frame));
        self.feed.done(frame);
    }

    /// Whether the new version has the source's units.
    pub(super) fn is_promoted(&self) -> bool {
        self.green.as_ref().is_some_and(|green| green.progress.is_promoted())
    }
}

/// Returns when the trial is over; never where there is none, or nothing that serves.
async fn proven(trial: Option<&OnTrial>) {
    match trial.and_then(|trial| trial.until) {
        Some(until) => tokio::time::sleep_until(tokio::time::Instant::from_std(until)).await,
        None => pending().await,
    }
}
