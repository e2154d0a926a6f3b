//! One worker's life in a session: from its start, or its taking over, to the moment when it is
//! gone.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ocelli_protocol::limit::Limit;
use ocelli_protocol::worker::{Counters, FromWorker, LogLevel, ToWorker};

use super::READY_TIMEOUT;
use super::bounds;
use super::change::{Report, Swapped};
use super::changeover::detach_candidate;
use super::error::SessionError;
use super::feed::{Feed, SourceNote, Target};
use super::green::{Candidate, send_report};
use super::handle::{CommandReply, SessionRequest};
use super::kv_replica::StoreReplica;
use super::lifecycle::LifecycleEvent;
use super::member::{StartError, StreamWorker};
use super::swap::RolloutInput;
use super::task::{FeedHandoff, Probation, Rollback, ServeOutcome, SessionTask};
use super::watched::{failed, log, out_of_turn};

/// A worker that gives a result this long after it was ready is not in a crash loop. Longer than
/// any wait between starts, so that a worker that dies on every hundredth frame ends as failed too.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Questions to a pipeline that wait for their answer.
const MAX_PENDING: usize = 64;

/// The worker that speaks, what feeds it, and what gets ready beside it.
pub(super) struct Serving {
    pub(super) member: StreamWorker,
    pub(super) feed: Feed,
    pub(super) green: Option<Candidate>,
    pub(super) questions: PendingCommands,
    /// The last frame that is done with.
    pub(super) done: Option<u64>,
    /// How often the worker was asked for its state and has not answered: a change may be given up
    /// meanwhile.
    pub(super) states_asked: u32,
}

/// Questions without an answer yet.
#[derive(Default)]
pub(super) struct PendingCommands {
    waiting: BTreeMap<u64, (u64, CommandReply)>,
    next: u64,
    /// How often a new version took over: whom a question was asked.
    worker: u64,
}

impl PendingCommands {
    /// The question's number, where there is room for one more.
    fn add(&mut self, session: &str, answer: CommandReply) -> Option<u64> {
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
    pub(super) fn cancel_others(&mut self) {
        let worker = self.worker;
        self.waiting.retain(|_, (asked, _)| *asked == worker);
    }
}

impl SessionTask {
    /// Serves with one worker after another, as long as each takes over from the one before it.
    pub(super) async fn serve(&mut self) -> ServeOutcome {
        if let Err(reason) = &self.spec.pipeline.compiled {
            return ServeOutcome::Failed(reason.clone());
        }
        let mut member = match self.launch().await {
            Ok(member) => member,
            Err(error) => return ServeOutcome::WorkerLost(format!("{error:#}")),
        };
        self.show_worker(&member);
        if let Err(ended) = self.wait_until_ready(&mut member).await {
            if let Some(legacy) = self.legacy.take() {
                self.subscription = legacy.feed.stop(self.id()).await;
            }
            return self.end(member, ended).await;
        }
        self.show_worker(&member);
        let mut serving = match self.start_serving(member).await {
            Ok(serving) => serving,
            Err((member, ended)) => return self.end(*member, ended).await,
        };
        let ended = loop {
            if let Some(ended) = self.serve_next(&mut serving).await {
                break ended;
            }
        };
        self.tear_down(serving, ended).await
    }

    async fn launch(&mut self) -> anyhow::Result<StreamWorker> {
        let environment = Arc::clone(&self.environment);
        let mirror = match self.mirror.take() {
            Some(mirror) => mirror,
            None => StoreReplica::new(environment.journal.store_contents(self.id()).await?),
        };
        let mut limits = environment.limits();
        mirror.raise_limits(&mut limits.worker);
        let kept = self.mirror.insert(mirror).encode();
        if self.legacy.is_none() {
            // Subscribing first lets a cold camera connect while the worker starts. The old
            // subscription goes when the new one is there, so that the reader does not end in
            // between.
            self.subscription = Some(environment.sources.subscribe(&self.spec.source));
        }
        StreamWorker::launch(
            environment,
            limits,
            Arc::clone(&self.spec),
            self.legacy.is_some(),
            kept,
        )
        .await
    }

    /// Waits until the pipeline is initialised.
    async fn wait_until_ready(&mut self, member: &mut StreamWorker) -> Result<(), ServeOutcome> {
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
                        Err(StartError::Fault(unfit)) => return Err(unfit.into()),
                        Err(StartError::Permanent(reason)) => return Err(ServeOutcome::Failed(reason)),
                    }
                }
                _ = member.health.looks.tick() => member.look()?,
                request = self.requests.recv() => {
                    if let Some(ended) = self.on_idle_request(request) {
                        return Err(ended);
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    return Err(ServeOutcome::WorkerLost(format!("not ready within {} \
                        s", READY_TIMEOUT.as_secs())));
                }
            }
        }
    }

    fn count_start(&self, message: &FromWorker) {
        if let FromWorker::Failed { counters, .. } | FromWorker::Heartbeat { counters, .. } =
            message
        {
            self.shared.update(|shown| shown.totals.count_limits(counters.limits));
        }
    }

    /// Lets a worker that is initialised have the units: those from now on, or those that the one
    /// before it has not done with.
    async fn start_serving(
        &mut self,
        mut member: StreamWorker,
    ) -> Result<Serving, (Box<StreamWorker>, ServeOutcome)> {
        let Some(mut outbox) = member.outbox.take() else {
            return Err((
                Box::new(member),
                ServeOutcome::ProtocolViolation("the worker was ready twice".into()),
            ));
        };
        if let Err(ended) = self.commit_store(&mut member).await {
            return Err((Box::new(member), ended));
        }
        let restore = |(version, bytes): &(String, Vec<u8>)| {
            (ToWorker::Restore { version: version.clone() }, bytes.clone())
        };
        let state = self.going_back.as_ref().and_then(|back| back.state.as_ref()).map(restore);
        let begun = match self.legacy.take() {
            Some(FeedHandoff { feed, done }) => {
                // Told before the units, so that it processes each that is not done with.
                let mut first: Vec<_> = state.into_iter().collect();
                first.push((ToWorker::Activate { after: done }, Vec::new()));
                member.sent = feed.attach(outbox, first).await;
                feed.promote().await;
                feed.commit().await;
                member.dropped_before = feed.dropped();
                (feed, done)
            }
            None => {
                if let Some((message, payload)) = state
                    && let Err(error) = outbox.send(&message, &payload).await
                {
                    return Err((Box::new(member), ServeOutcome::WorkerLost(error.to_string())));
                }
                let Some(subscription) = self.subscription.take() else {
                    return Err((
                        Box::new(member),
                        ServeOutcome::WorkerLost("it has no source".into()),
                    ));
                };
                let (feed, sent) = Feed::start(subscription, outbox);
                member.sent = sent;
                (feed, None)
            }
        };
        self.apply_event(LifecycleEvent::WorkerReady);
        self.begin_probation(&member);
        if let Some(Rollback { reports, reason, .. }) =
            self.going_back.take_if(|back| back.state.is_none())
        {
            send_report(&reports, Report::Returned { reason, with_state: false });
        }
        let (feed, done) = begun;
        Ok(Serving {
            member,
            feed,
            green: None,
            questions: PendingCommands::default(),
            done,
            states_asked: 0,
        })
    }

    /// What was made the session's without a change beside a running worker serves: from now on it
    /// has to last.
    fn begin_probation(&mut self, member: &StreamWorker) {
        let probation = self.environment.limits().swap.probation;
        let Some(Probation { reports, until, cold, .. }) = &mut self.trial else { return };
        *until = Some(Instant::now() + probation);
        if let Some(description) = &member.description {
            let (name, version) = (description.name.clone(), description.version.clone());
            send_report(reports, Report::Described { name, version });
        }
        if let Some(begun) = cold.take() {
            let total_ms = begun.elapsed().as_secs_f64() * 1000.0;
            send_report(
                reports,
                Report::Swapped(Swapped { total_ms, cold: true, ..Swapped::default() }),
            );
        }
    }

    /// Waits for the next thing to happen and handles it. Some where the worker's life is over.
    async fn serve_next(&mut self, serving: &mut Serving) -> Option<ServeOutcome> {
        tokio::select! {
            received = serving.member.worker.inbox.recv() => {
                let ended = match serving.member.health.message(received) {
                    Ok((message, payload)) => self.on_message(message, payload, serving).await,
                    Err(unfit) => Some(unfit.into()),
                };
                match ended {
                    // The one that takes its place speaks already.
                    Some(ServeOutcome::WorkerLost(_) | ServeOutcome::ProtocolViolation(_)) if serving.is_promoted() => {
                        self.complete_swap(serving, None).await;
                        None
                    }
                    ended => ended,
                }
            }
            _ = serving.member.health.looks.tick() => serving.member.look().err().map(ServeOutcome::from),
            Some(note) = serving.feed.notes.recv() => self.on_source_note(note),
            happened = Candidate::next(&mut serving.green) => self.on_candidate_event(happened, serving).await,
            () = probation_over(self.trial.as_ref()) => {
                self.check_probation(serving);
                None
            }
            request = self.requests.recv() => match request {
                Some(SessionRequest::Command { request, reply }) => {
                    if let Some(id) = serving.questions.add(self.id(), reply) {
                        // A lane that speaks is the new version's as soon as it is promoted.
                        serving.feed.send(Target::Active, ToWorker::Command { id, request }, Vec::new()).await;
                    }
                    None
                }
                Some(SessionRequest::Swap(swap)) => {
                    self.change_beside(*swap, serving);
                    None
                }
                request => self.on_idle_request(request),
            },
        }
    }

    /// It has lasted. What has not given a result yet has proven nothing.
    fn check_probation(&mut self, serving: &Serving) {
        if self.worked {
            self.end_probation(|| Report::Healthy);
        } else if let Some(trial) = &mut self.trial {
            trial.until = Some(serving.member.since.max(Instant::now()) + STABLE_AFTER);
        }
    }

    /// What the pump says of the source. Some where the worker's life is over with it.
    fn on_source_note(&mut self, note: SourceNote) -> Option<ServeOutcome> {
        match note {
            SourceNote::Up => self.apply_event(LifecycleEvent::SourceUp),
            SourceNote::Down(reason) => {
                let deployment = &self.spec.pipeline.id;
                tracing::warn!(target: "ocelli::session", session = self.id(), deployment, "source down: {reason}");
                self.shared.update(|shown| shown.last_error = Some(reason.clone()));
                self.apply_event(LifecycleEvent::SourceDown(reason));
            }
            // A file that cannot be read ends with its fault. One that ends well ends with
            // `Finished`, when the worker has processed what it has.
            SourceNote::Ended => {
                return self
                    .life
                    .source_fault()
                    .map(|fault| ServeOutcome::SourceFailed(fault.to_owned()));
            }
        }
        None
    }

    /// Handles a message of the worker that speaks.
    pub(super) async fn on_message(
        &mut self,
        message: FromWorker,
        payload: Vec<u8>,
        serving: &mut Serving,
    ) -> Option<ServeOutcome> {
        match message {
            FromWorker::StoreCommit(changes) => {
                let held = &mut serving.member.pending_store_changes;
                if !held.is_empty() {
                    return Some(ServeOutcome::ProtocolViolation(
                        "it changed its store twice in one call".into(),
                    ));
                }
                *held = changes;
            }
            FromWorker::Result { result, counters } => {
                if let Err((limit, message)) = bounds::result(&result, &serving.member.limits) {
                    self.shared.update(|shown| shown.totals.hit(limit));
                    return Some(ServeOutcome::ProtocolViolation(message));
                }
                if serving.member.since.elapsed() >= STABLE_AFTER {
                    self.life.apply(LifecycleEvent::Stable);
                }
                if let Err(ended) = self.commit_store(&mut serving.member).await {
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
                    shown.latencies.record(&result.timestamps);
                });
                let frame = result.frame;
                serving.mark_done(frame);
                if serving.green.is_some() {
                    self.drive_rollout(RolloutInput::Running(&result), serving).await;
                }
                let deployment = &self.spec.pipeline.id;
                let published =
                    self.environment.hub.publish_result(self.id(), deployment, result).await;
                if let Err(error) = published {
                    self.shared.update(|shown| shown.last_error = Some(error.to_string()));
                    self.log(LogLevel::Error, "result", &error.to_string(), Some(frame));
                }
            }
            FromWorker::FrameFailed { frame, message, counters } => {
                let message = bounds::truncate_cause(message);
                if let Err(ended) = self.commit_store(&mut serving.member).await {
                    return Some(ended);
                }
                self.count(serving, counters);
                serving.mark_done(frame);
                self.shared.update(|shown| shown.last_error = Some(message.clone()));
                self.log(LogLevel::Error, "process", &message, Some(frame));
            }
            FromWorker::Log { level, context, message, frame } => {
                self.log(level, &context, &message, frame);
            }
            FromWorker::Heartbeat { counters, guest_memory } => {
                serving.member.guest_memory = guest_memory;
                self.count(serving, counters);
                self.shared.update(|shown| shown.guest_memory = guest_memory);
                if serving.green.is_some() {
                    self.drive_rollout(RolloutInput::Heartbeat, serving).await;
                }
            }
            FromWorker::CommandAnswer { id, answer } => {
                if let Err(ended) = self.commit_store(&mut serving.member).await {
                    return Some(ended);
                }
                if !serving.questions.answer(id, answer) {
                    return Some(ServeOutcome::ProtocolViolation(format!(
                        "an answer to a question {id} that nobody asked"
                    )));
                }
            }
            FromWorker::Snapshot { last_frame: through, counters } if serving.states_asked > 0 => {
                serving.states_asked -= 1;
                self.count(serving, counters);
                // An answer before the last was for a change that was given up.
                if serving.states_asked == 0 {
                    self.take_state(through, payload, serving).await;
                }
            }
            FromWorker::Restored(restored) if self.going_back.is_some() => {
                if let Err(ended) = self.commit_store(&mut serving.member).await {
                    return Some(ended);
                }
                if let Some(Rollback { reports, reason, .. }) = self.going_back.take() {
                    if let Err(words) = &restored {
                        let words = bounds::truncate_cause(words.clone());
                        self.log(
                            LogLevel::Error,
                            "restore",
                            &format!("its own state is refused: {words}"),
                            None,
                        );
                    }
                    send_report(
                        &reports,
                        Report::Returned { reason, with_state: restored.is_ok() },
                    );
                }
            }
            FromWorker::Active => {}
            FromWorker::Finished { counters }
                if serving.member.sent.end.load(Ordering::Acquire) =>
            {
                self.count(serving, counters);
                // What the pump said before it sent the end may still wait: the fault of a file,
                // that is.
                let faulty = std::iter::from_fn(|| serving.feed.notes.try_recv().ok())
                    .find_map(|note| self.on_source_note(note));
                return Some(faulty.unwrap_or(ServeOutcome::Finished));
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
    pub(super) async fn commit_store(
        &mut self,
        member: &mut StreamWorker,
    ) -> Result<(), ServeOutcome> {
        let changes = std::mem::take(&mut member.pending_store_changes);
        if changes.is_empty() {
            return Ok(());
        }
        if let Some(mirror) = &mut self.mirror
            && let Err(message) = mirror.apply(&changes, &member.limits)
        {
            self.mirror = None;
            return Err(ServeOutcome::ProtocolViolation(message));
        }
        let kept = self.environment.journal.commit_store(&member.spec.id, changes).await;
        kept.map_err(|error| {
            self.mirror = None;
            ServeOutcome::WorkerLost(format!("the session's store cannot be kept: {error:#}"))
        })
    }

    pub(super) fn count(&self, serving: &mut Serving, counters: Counters) {
        let Serving { member, feed, .. } = serving;
        member.health.counted(counters);
        let frames = member.frames(counters, feed.dropped());
        self.shared.update(|shown| shown.totals.count(frames, counters.limits));
    }

    /// Shows a worker as the session's.
    pub(super) fn show_worker(&self, member: &StreamWorker) {
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
    async fn tear_down(&mut self, mut serving: Serving, ended: ServeOutcome) -> ServeOutcome {
        let green = detach_candidate(&mut serving).await;
        let Serving { member, feed, done, .. } = serving;
        if ended.blames_pipeline()
            && self.trial.as_ref().is_some_and(|trial| trial.fallback.is_some())
        {
            self.legacy = Some(FeedHandoff { feed, done });
        } else {
            self.subscription = feed.stop(self.id()).await;
        }
        let ended = self.end(member, ended).await;
        if let Some(mut green) = green {
            let cause = ended.reason();
            let reason = match ended {
                ServeOutcome::WorkerLost(_) | ServeOutcome::ProtocolViolation(_) => {
                    format!("the running version was lost meanwhile: {cause}")
                }
                _ => cause.to_owned(),
            };
            self.report_aborted(&green, reason);
            if let Some(mut member) = green.take() {
                member.worker.kill();
                let _ = member.end(true, self.environment.limits().cleanup).await;
            }
        }
        ended
    }

    /// Ends a worker, and tells how it ended where it was lost.
    async fn end(&mut self, mut member: StreamWorker, ended: ServeOutcome) -> ServeOutcome {
        if matches!(ended, ServeOutcome::ProtocolViolation(_)) {
            member.worker.kill();
        }
        let (given_up, cleanup) =
            (matches!(ended, ServeOutcome::WorkerLost(_)), self.environment.limits().cleanup);
        let (status, out_of_memory) = member.end(given_up, cleanup).await;
        self.shared.update(|shown| {
            if out_of_memory {
                shown.totals.hit(Limit::Memory);
            }
            shown.end_worker();
        });
        match ended {
            ServeOutcome::WorkerLost(reason) => {
                ServeOutcome::WorkerLost(format!("{reason} ({status})"))
            }
            ended => ended,
        }
    }

    /// Writes a line of the worker or its pipeline to the host's log.
    pub(super) fn log(&self, level: LogLevel, context: &str, message: &str, frame: Option<u64>) {
        log(self.id(), &self.spec.pipeline.id, level, context, message, frame);
    }
}

impl Serving {
    /// A frame that nobody has to process any more.
    pub(super) fn mark_done(&mut self, frame: u64) {
        self.done = self.done.max(Some(frame));
        self.feed.mark_done(frame);
    }

    /// Whether the new version has the source's units.
    pub(super) fn is_promoted(&self) -> bool {
        self.green.as_ref().is_some_and(|green| green.progress.is_promoted())
    }
}

/// Returns when the trial is over; never where there is none, or nothing that serves.
async fn probation_over(trial: Option<&Probation>) {
    match trial.and_then(|trial| trial.until) {
        Some(until) => tokio::time::sleep_until(tokio::time::Instant::from_std(until)).await,
        None => pending().await,
    }
}
