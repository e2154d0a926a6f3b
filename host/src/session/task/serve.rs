//! One worker's service in a session: from its start, or its taking over, to its end.

use std::sync::Arc;
use std::time::Instant;

use ocelli_protocol::limit::Limit;
use ocelli_protocol::worker::{Codec, Counters, FrameResult, FromWorker, LogLevel, ToWorker};

use super::{FeedHandoff, ServeOutcome, Serving, SessionTask, SnapshotPurpose};
use crate::session::feed::{Feed, MissedUnits, PumpCommand, SourceNote, Target};
use crate::session::handle::SessionRequest;
use crate::session::kv_replica::StoreReplica;
use crate::session::lifecycle::{LifecycleEvent, STABLE_AFTER};
use crate::session::main_stream::MainStream;
use crate::session::rollout::{
    Candidate, CandidateInput, PipelineState, VersionChange, VersionInput, sleep_until,
};
use crate::session::stream_worker::StreamWorker;
use crate::source::PictureTap;
use crate::telemetry::otlp::{self, TracedFrame};
use crate::util::shown::without_folders;
use crate::worker::{READY_TIMEOUT, WorkerFault, check_inherited, log_line};

type Served = Result<(), ServeOutcome>;

impl SessionTask {
    /// Serves with one worker after another, as long as each takes over from the one before it.
    pub(super) async fn serve(&mut self) -> ServeOutcome {
        if let Err(reason) = &self.spec.pipeline.compiled {
            return ServeOutcome::Failed(without_folders(reason));
        }
        let mut worker = match self.launch().await {
            Ok(worker) => worker,
            Err(error) => {
                let reason = without_folders(&format!("{error:#}"));
                return ServeOutcome::WorkerLost(reason);
            }
        };
        self.show_worker(&worker);
        let ready = match self.wait_until_ready(&mut worker).await {
            Ok(()) => self.restore_inherited(&mut worker).await,
            not_ready => not_ready,
        };
        if let Err(outcome) = ready {
            if let Some(handoff) = self.handoff.take() {
                self.subscription = handoff.feed.stop(self.id()).await;
            }
            return self.end(worker, outcome).await;
        }
        self.show_worker(&worker);
        let mut serving = match self.start_serving(worker).await {
            Ok(serving) => serving,
            Err((worker, outcome)) => return self.end(*worker, outcome).await,
        };
        let outcome = loop {
            if let Err(outcome) = self.serve_next(&mut serving).await {
                break outcome;
            }
        };
        self.end_snapshots(&mut serving, &outcome).await;
        self.tear_down(serving, outcome).await
    }

    async fn launch(&mut self) -> anyhow::Result<StreamWorker> {
        let environment = Arc::clone(&self.environment);
        let replica = match self.replica.take() {
            Some(replica) => replica,
            None => StoreReplica::new(environment.journal.store_contents(self.id()).await?),
        };
        let mut limits = environment.workers.limits();
        replica.raise_limits(&mut limits);
        let store = self.replica.insert(replica).encode();
        if self.handoff.is_none() {
            // Subscribing first lets a cold camera connect while the worker starts. The old
            // subscription goes when the new one is there, so that the reader does not end in
            // between.
            let subscription = environment.sources.subscribe(self.spec.analysed());
            self.shared.update(|status| status.reader = subscription.reader());
            self.show_pictures(subscription.pictures());
            self.subscription = Some(subscription);
            self.source_damage = None;
        }
        let standby = self.handoff.is_some();
        let workers = Arc::clone(&environment.workers);
        StreamWorker::launch(workers, limits, Arc::clone(&self.spec), standby, store).await
    }

    /// Lets viewers have the pictures of the source: those that are analysed, or those of the main
    /// stream beside them.
    fn show_pictures(&mut self, analysed: PictureTap) {
        if self.spec.substream.is_none() {
            self.main_stream = None;
            self.clips.follow(analysed.clone());
            return self.pictures.follow(analysed);
        }
        let same = self.main_stream.take().filter(|stream| *stream.source() == self.spec.source);
        let stream = same.unwrap_or_else(|| {
            let (shared, sources) = (Arc::clone(&self.shared), self.environment.sources.clone());
            MainStream::start(self.spec.source.clone(), sources, shared, self.pictures.feed())
        });
        stream.align_with(analysed);
        let shown = self.main_stream.insert(stream).pictures();
        self.clips.follow(shown.clone());
        self.pictures.follow(shown);
    }

    /// Waits until the pipeline is initialised.
    async fn wait_until_ready(&mut self, worker: &mut StreamWorker) -> Served {
        let deadline = tokio::time::Instant::now() + READY_TIMEOUT;
        loop {
            tokio::select! {
                received = worker.handle.next() => {
                    let (message, _) = received?;
                    self.count_start(&message);
                    let ready = worker.on_start_message(message);
                    let described = worker.handle.description();
                    let ready = check_inherited(self.settings_of.as_deref(), described, ready);
                    self.show_worker(worker);
                    if ready? {
                        return Ok(());
                    }
                }
                request = self.requests.recv() => {
                    if let Some(outcome) = self.on_idle_request(request) {
                        return Err(outcome);
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    let reason = format!("not ready within {} s", READY_TIMEOUT.as_secs());
                    return Err(ServeOutcome::WorkerLost(reason));
                }
            }
        }
    }

    pub(super) fn count_start(&self, message: &FromWorker) {
        if let FromWorker::Failed { counters, .. } | FromWorker::Heartbeat { counters, .. } =
            message
        {
            self.shared.update(|status| status.totals.count_limits(counters.limits));
        }
    }

    /// Lets a worker that is initialised have the units: those from now on, or those that the one
    /// before it is not done with.
    async fn start_serving(
        &mut self,
        mut worker: StreamWorker,
    ) -> Result<Serving, (Box<StreamWorker>, ServeOutcome)> {
        let resumes = self.handoff.is_some();
        let (feed, last_done) = match self.start_feed(&mut worker).await {
            Ok(started) => started,
            Err(outcome) => return Err((Box::new(worker), outcome)),
        };
        self.apply_event(LifecycleEvent::WorkerReady);
        self.begin_snapshots();
        let probation = self.environment.limits().rollout.probation;
        let description = worker.handle.description();
        self.served = description.map(|described| described.name.clone());
        self.change.take_if(|change| change.on_serving(description, probation, Instant::now()));
        let missed_before = if resumes { feed.missed() } else { MissedUnits::default() };
        Ok(Serving::new(worker, feed, last_done, missed_before))
    }

    async fn start_feed(
        &mut self,
        worker: &mut StreamWorker,
    ) -> Result<(Feed, Option<u64>), ServeOutcome> {
        let Some(mut sender) = worker.handle.take_sender() else {
            return Err(ServeOutcome::ProtocolViolation("the worker was ready twice".into()));
        };
        self.commit_store(worker).await?;
        let state = self
            .change
            .as_ref()
            .and_then(VersionChange::state_to_restore)
            .map(PipelineState::restore);
        if let Some(FeedHandoff { feed, last_done }) = self.handoff.take() {
            // Sent before the units, so that it processes each that is not done with.
            let mut first: Vec<_> = state.into_iter().collect();
            first.push((ToWorker::Activate { after: last_done }, Vec::new()));
            feed.attach(sender, first).await;
            feed.command(PumpCommand::Promote).await;
            feed.command(PumpCommand::Commit).await;
            return Ok((feed, last_done));
        }
        if let Some((message, payload)) = state {
            let sent = sender.send(&message, &payload).await;
            sent.map_err(|error| ServeOutcome::WorkerLost(error.to_string()))?;
        }
        let no_source = || ServeOutcome::WorkerLost("it has no source".into());
        let subscription = self.subscription.take().ok_or_else(no_source)?;
        Ok((Feed::start(subscription, sender), None))
    }

    /// Waits for the next event and handles it. An error ends the worker's service.
    async fn serve_next(&mut self, serving: &mut Serving) -> Served {
        tokio::select! {
            received = serving.worker.handle.next() => {
                let handled = match received {
                    Ok((message, payload)) => self.on_message(message, payload, serving).await,
                    Err(fault @ WorkerFault::Unhealthy(_)) => return Err(fault.into()),
                    Err(fault) => Err(fault.into()),
                };
                match handled {
                    // The candidate in its place is active already.
                    Err(ServeOutcome::WorkerLost(_) | ServeOutcome::ProtocolViolation(_))
                        if serving.is_promoted() =>
                    {
                        let gone = CandidateInput::FirstResult { frame: None };
                        self.advance(gone, serving).await;
                        Ok(())
                    }
                    handled => handled,
                }
            }
            Some(note) = serving.feed.notes.recv() => self.on_source_note(note),
            event = Candidate::next(&mut serving.candidate) => {
                match self.on_candidate_event(event, serving).await {
                    Some(message) => self.on_message(message, Vec::new(), serving).await,
                    None => Ok(()),
                }
            }
            () = sleep_until(self.change.as_ref().and_then(VersionChange::deadline)) => {
                self.on_version(VersionInput::Tick);
                Ok(())
            }
            () = sleep_until(self.snapshots.deadline()) => {
                self.on_snapshot_due(serving).await;
                Ok(())
            }
            request = self.requests.recv() => match request {
                Some(SessionRequest::Ask { kind, request, reply }) => {
                    if let Some(id) = serving.answers.add(self.id(), reply) {
                        let message = ToWorker::Ask { id, kind, request };
                        serving.feed.send(Target::Active, message).await;
                    }
                    Ok(())
                }
                Some(SessionRequest::Picture(order)) => {
                    serving.order_picture(order).await;
                    Ok(())
                }
                Some(SessionRequest::Swap(request)) => {
                    self.start_candidate(*request, serving);
                    Ok(())
                }
                request => self.on_idle_request(request).map_or(Ok(()), Err),
            },
        }
    }

    /// Takes in a note of the pump on the source. An error ends the worker's service with it.
    fn on_source_note(&mut self, note: SourceNote) -> Served {
        match note {
            SourceNote::Up => self.apply_event(LifecycleEvent::SourceUp),
            SourceNote::Down(reason) => {
                let deployment = self.spec.pipeline.id();
                tracing::warn!(target: "ocelli::session", session = self.id(), deployment, "source down: {reason}");
                self.shared.note_error(&reason);
                self.apply_event(LifecycleEvent::SourceDown(reason));
            }
            SourceNote::Damaged(reason) => {
                self.shared.note_error(&reason);
                self.source_damage = Some(reason);
            }
            // A file that cannot be read ends with its fault. One that ends well ends with
            // `Finished`, when the worker has processed what it has.
            SourceNote::Ended => {
                if let Some(fault) = self.lifecycle.source_fault() {
                    return Err(ServeOutcome::SourceFailed(fault.to_owned()));
                }
            }
        }
        Ok(())
    }

    /// Handles a message of the worker that is active.
    pub(super) async fn on_message(
        &mut self,
        message: FromWorker,
        payload: Vec<u8>,
        serving: &mut Serving,
    ) -> Served {
        match message {
            FromWorker::StoreCommit(changes) => {
                serving.worker.pending_store_changes = changes;
            }
            FromWorker::Result { result, counters } => {
                self.on_result(result, counters, serving).await?
            }
            FromWorker::FrameFailed { frame, message, counters } => {
                self.commit_store(&mut serving.worker).await?;
                self.count(serving, counters);
                serving.mark_done(frame);
                self.shared.note_error(&message);
                self.log(LogLevel::Error, "process", &message, Some(frame));
            }
            FromWorker::Heartbeat { counters, guest_memory, damage } => {
                self.count(serving, counters);
                self.shared.update(|status| status.shown.guest_memory = guest_memory);
                self.on_damage(damage);
                self.advance(CandidateInput::RunningHeartbeat, serving).await;
            }
            FromWorker::Answer { id, answer } => {
                self.commit_store(&mut serving.worker).await?;
                serving.answers.answer(id, self.id(), answer)?;
            }
            FromWorker::Snapshot { last_frame, counters } if !serving.snapshots_owed.is_empty() => {
                let purpose = serving.snapshots_owed.pop_front();
                self.commit_store(&mut serving.worker).await?;
                self.count(serving, counters);
                match purpose {
                    Some(SnapshotPurpose::NextHost) => self.keep_snapshot(payload, serving),
                    // An answer before the last was for a change that was given up.
                    _ if serving.snapshots_owed.contains(&SnapshotPurpose::Change) => {}
                    _ => self.on_snapshot(last_frame, payload, serving).await,
                }
            }
            FromWorker::Restored(restored)
                if self.change.as_ref().is_some_and(VersionChange::is_rolling_back) =>
            {
                self.commit_store(&mut serving.worker).await?;
                self.on_restored(restored);
            }
            FromWorker::Active => {}
            FromWorker::PictureEncoded { id, frame, presentation_ns } => {
                if !serving.picture.answer(id, frame, presentation_ns, payload) {
                    let reason = format!("picture {id} is no JPEG file");
                    return Err(ServeOutcome::ProtocolViolation(reason));
                }
            }
            FromWorker::Finished { counters, damage }
                if serving.worker.handle.sent().has_ended() =>
            {
                self.count(serving, counters);
                self.on_damage(damage);
                // Notes from before the end of the file may still wait: its fault, that is.
                while let Ok(note) = serving.feed.notes.try_recv() {
                    self.on_source_note(note)?;
                }
                return Err(ServeOutcome::Finished);
            }
            FromWorker::Failed { stage, message, counters, .. } => {
                self.count(serving, counters);
                return Err(WorkerFault::failed(stage, &message).into());
            }
            other => return Err(WorkerFault::unexpected(&other).into()),
        }
        Ok(())
    }

    /// Takes in what the worker says of a source of which not one picture is sound.
    fn on_damage(&mut self, words: Option<String>) {
        let reason = words.map(|words| format!("no picture is sound: {words}"));
        if reason.as_deref() == self.lifecycle.damage() {
            return;
        }
        if let Some(reason) = &reason {
            let deployment = self.spec.pipeline.id();
            tracing::warn!(
                target: "ocelli::session",
                session = self.id(), deployment, kind = "damaged",
                "source damaged: {reason}"
            );
            self.shared.note_error(reason);
        }
        self.apply_event(LifecycleEvent::Damage(reason));
    }

    async fn on_result(
        &mut self,
        result: FrameResult,
        counters: Counters,
        serving: &mut Serving,
    ) -> Served {
        if let Err(exceeded) = serving.worker.handle.validate(&result) {
            self.shared.update(|status| status.totals.hit(exceeded.limit));
            return Err(ServeOutcome::ProtocolViolation(exceeded.to_string()));
        }
        if serving.since.elapsed() >= STABLE_AFTER {
            self.lifecycle.apply(LifecycleEvent::Stable);
        }
        self.commit_store(&mut serving.worker).await?;
        self.count(serving, counters);
        self.has_results = true;
        let now = Instant::now();
        serving.last_result = Some(now);
        self.shared.update(|status| status.count_result(&result, now));
        let (frame, times) = (result.frame, result.timestamps);
        serving.mark_done(frame);
        self.advance(CandidateInput::RunningResult(&result), serving).await;
        let deployment = self.spec.pipeline.id();
        let clip = match result.events.is_empty() {
            true => None,
            false => self.clips.event(result.presentation_ns),
        };
        let hub = &self.environment.hub;
        let published = hub.publish_result(self.id(), deployment, result, clip).await;
        if let Err(error) = published {
            let error = error.to_string();
            self.shared.note_error(&error);
            self.log(LogLevel::Error, "result", &error, Some(frame));
        }
        otlp::frame(&TracedFrame { session: self.id(), deployment, frame, times: &times });
        Ok(())
    }

    /// The version before has taken its own state back, or refuses it.
    fn on_restored(&mut self, restored: Result<(), String>) {
        let accepted = restored.is_ok();
        if let Err(message) = restored {
            let message = format!("its own state is refused: {message}");
            self.log(LogLevel::Error, "restore", &message, None);
        }
        self.on_version(VersionInput::Restored { accepted });
    }

    /// Commits the store changes of the call that the last message is about.
    pub(super) async fn commit_store(&mut self, worker: &mut StreamWorker) -> Served {
        let changes = std::mem::take(&mut worker.pending_store_changes);
        if changes.is_empty() {
            return Ok(());
        }
        if let Some(replica) = &mut self.replica
            && let Err(fault) = replica.apply(&changes, worker.handle.limits())
        {
            self.replica = None;
            return Err(fault.into());
        }
        let committed = self.environment.journal.commit_store(self.id(), changes).await;
        committed.map_err(|error| {
            self.replica = None;
            ServeOutcome::WorkerLost(format!("the session's store cannot be kept: {error:#}"))
        })
    }

    fn count(&self, serving: &Serving, counters: Counters) {
        let (frames, codec) = (serving.frames(counters), serving.feed.codec());
        self.shared.update(|status| {
            status.shown.codec = codec.map(Codec::name).or(status.shown.codec);
            status.count(frames, counters.limits, Instant::now());
        });
    }

    /// Takes everything down but what the next worker needs.
    async fn tear_down(&mut self, mut serving: Serving, outcome: ServeOutcome) -> ServeOutcome {
        let candidate = serving.detach_candidate().await;
        let Serving { worker, feed, last_done, .. } = serving;
        let can_roll_back = self.change.as_ref().is_some_and(VersionChange::can_roll_back);
        if outcome.blames_pipeline() && can_roll_back {
            self.handoff = Some(FeedHandoff { feed, last_done });
        } else {
            self.subscription = feed.stop(self.id()).await;
        }
        let outcome = self.end(worker, outcome).await;
        if let Some(mut candidate) = candidate {
            let cause = outcome.reason();
            candidate.abort(match outcome {
                ServeOutcome::WorkerLost(_) | ServeOutcome::ProtocolViolation(_) => {
                    format!("the running version was lost meanwhile: {cause}")
                }
                _ => cause.to_owned(),
            });
            if let Some(mut worker) = candidate.take_worker() {
                worker.handle.kill();
                let _ = worker.end(true, self.environment.limits().cleanup).await;
            }
        }
        outcome
    }

    /// Ends a worker. The reason of a loss says how it ended.
    async fn end(&mut self, mut worker: StreamWorker, outcome: ServeOutcome) -> ServeOutcome {
        if matches!(outcome, ServeOutcome::ProtocolViolation(_)) {
            worker.handle.kill();
        }
        let given_up = matches!(outcome, ServeOutcome::WorkerLost(_));
        let exit = worker.end(given_up, self.environment.limits().cleanup).await;
        self.shared.update(|status| {
            if exit.out_of_memory {
                status.totals.hit(Limit::Memory);
            }
            status.end_worker();
        });
        match outcome {
            ServeOutcome::WorkerLost(reason) => {
                ServeOutcome::WorkerLost(format!("{reason} ({})", exit.status))
            }
            outcome => outcome,
        }
    }

    /// Writes a line of the worker or its pipeline to the host's log.
    fn log(&self, level: LogLevel, context: &str, message: &str, frame: Option<u64>) {
        log_line(self.id(), self.spec.pipeline.id(), level, context, message, frame);
    }
}
