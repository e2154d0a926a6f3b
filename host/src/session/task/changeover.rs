//! What a session does while a candidate gets ready beside the running version, up to the moment
//! when it has taken its place. [`rollout`](crate::session::rollout) decides; here is what a decision means.

use std::sync::Arc;
use std::time::Instant;

use ocelli_protocol::worker::{Description, FromWorker, ToWorker};

use super::{ServeOutcome, Serving, SessionTask, SnapshotPurpose};
use crate::session::feed::{PumpCommand, Target};
use crate::session::rollout::{
    Candidate, CandidateAction, CandidateEvent, CandidateInput, Completed, PipelineState, Report,
    RunningView, Step, SwapRequest, VersionInput, send_report,
};
use crate::session::spec::Spec;
use crate::session::stream_worker::StreamWorker;
use crate::worker::WorkerFault;

impl SessionTask {
    /// Starts a candidate beside the running worker.
    pub(super) fn start_candidate(&mut self, request: SwapRequest, serving: &mut Serving) {
        let obstacle = match &request.spec.pipeline.compiled {
            _ if serving.candidate.is_some() => Some("another change is under way".to_owned()),
            Ok(_) => None,
            Err(reason) => Some(reason.clone()),
        };
        if let Some(reason) = obstacle {
            return send_report(&request.reports, Report::Aborted { step: Step::Start, reason });
        }
        let Spec { pipeline, settings, .. } = request.spec;
        let spec = Spec { pipeline, settings, ..(*self.spec).clone() };
        let mut limits = self.environment.workers.limits();
        self.replica.iter().for_each(|replica| replica.raise_limits(&mut limits));
        let request = SwapRequest { spec, ..request };
        let (workers, terms) = (&self.environment.workers, self.environment.limits().rollout);
        let store = self.encoded_store();
        let running = serving.worker.handle.description().map(|described| described.name.clone());
        let candidate = Candidate::start(workers, terms, limits, request, running, store);
        serving.candidate = Some(candidate);
    }

    /// Handles an event of the candidate. Returns its message if it is the running worker's by now.
    pub(super) async fn on_candidate_event(
        &mut self,
        event: CandidateEvent,
        serving: &mut Serving,
    ) -> Option<FromWorker> {
        match event {
            CandidateEvent::DeadlinePassed => self.advance(CandidateInput::Tick, serving).await,
            CandidateEvent::Lost(reason) => self.on_candidate_lost(reason, serving).await,
            CandidateEvent::Message(message) => {
                match self.on_candidate_message(*message, serving).await {
                    Ok(message) => return message,
                    Err(outcome) => {
                        self.abort_candidate(outcome.reason().to_owned(), serving).await;
                    }
                }
            }
        }
        None
    }

    /// Handles a message of the candidate. Returns it if it is the running worker's by now. An
    /// error says why the candidate is of no use.
    async fn on_candidate_message(
        &mut self,
        message: FromWorker,
        serving: &mut Serving,
    ) -> Result<Option<FromWorker>, ServeOutcome> {
        let promoted = serving.is_promoted();
        let Some(candidate) = &mut serving.candidate else { return Ok(None) };
        if candidate.step() == Step::Start {
            if candidate.on_start_message(message)? {
                self.advance(CandidateInput::Ready, serving).await;
            }
            return Ok(None);
        }
        let Some(worker) = candidate.worker() else { return Ok(None) };
        match message {
            FromWorker::Heartbeat { .. } => {}
            FromWorker::BarrierReached { first, .. } => {
                self.advance(CandidateInput::BarrierReached { first }, serving).await;
            }
            FromWorker::DryRunResult { frame, outcome } => {
                if let Some(Ok(result)) = &outcome {
                    let valid = worker.handle.validate(result);
                    valid.map_err(|exceeded| {
                        ServeOutcome::ProtocolViolation(exceeded.to_string())
                    })?;
                }
                let input = CandidateInput::DryRunDone { frame, outcome: outcome.as_ref() };
                self.advance(input, serving).await;
            }
            FromWorker::Reinstantiated => {
                self.advance(CandidateInput::Reinstantiated, serving).await
            }
            FromWorker::Restored(restored) => {
                self.advance(CandidateInput::Restored(&restored), serving).await;
            }
            // Committed with their call, once the candidate is the session's version.
            FromWorker::StoreCommit(changes) => worker.pending_store_changes = changes,
            FromWorker::Active if promoted => {}
            FromWorker::Answer { id, answer } if promoted => {
                serving.answers.answer(id, self.id(), answer)?
            }
            message @ (FromWorker::Result { .. }
            | FromWorker::FrameFailed { .. }
            | FromWorker::Finished { .. })
                if promoted =>
            {
                let frame = match &message {
                    FromWorker::Result { result, .. } => Some(result.frame),
                    FromWorker::FrameFailed { frame, .. } => Some(*frame),
                    _ => None,
                };
                self.advance(CandidateInput::FirstResult { frame }, serving).await;
                return Ok(Some(message));
            }
            FromWorker::Failed { stage, message, .. } => {
                return Err(WorkerFault::failed(stage, &message).into());
            }
            other => return Err(WorkerFault::unexpected(&other).into()),
        }
        Ok(None)
    }

    /// Lets the change take an input in, and carries out what it decides.
    pub(super) async fn advance(&mut self, input: CandidateInput<'_>, serving: &mut Serving) {
        let view = RunningView {
            last_done: serving.last_done,
            source_down: self.lifecycle.lacks_pictures(),
            sent_since: 0,
        };
        let Some(candidate) = &mut serving.candidate else { return };
        for action in candidate.on(input, view, Instant::now()) {
            self.carry_out(action, serving).await;
        }
    }

    async fn carry_out(&mut self, action: CandidateAction, serving: &mut Serving) {
        let Serving { feed, candidate: Some(candidate), .. } = serving else { return };
        match action {
            CandidateAction::Report(report) => candidate.report(report),
            CandidateAction::Send(message) => feed.send(Target::Candidate, message).await,
            CandidateAction::Attach => {
                if let Some(worker) = candidate.worker()
                    && let Some(sender) = worker.handle.take_sender()
                {
                    feed.attach(sender, Vec::new()).await;
                }
            }
            CandidateAction::TakeSnapshot => {
                feed.command(PumpCommand::Pause).await;
                feed.send(Target::Active, ToWorker::Snapshot).await;
                candidate.last_result = serving.last_result;
                serving.snapshots_owed.push_back(SnapshotPurpose::Change);
            }
            CandidateAction::Restore { state } => {
                let store = (ToWorker::LoadStore, self.encoded_store());
                let state = candidate.state.as_ref().filter(|_| state).map(PipelineState::restore);
                for message in [Some(store), state].into_iter().flatten() {
                    feed.command(PumpCommand::Send(Target::Candidate, message)).await;
                }
            }
            CandidateAction::Promote { after } => {
                feed.send(Target::Candidate, ToWorker::Activate { after }).await;
                feed.command(PumpCommand::Promote).await;
                serving.answers.next_worker();
            }
            CandidateAction::Complete => self.complete_change(serving).await,
            CandidateAction::Abort(reason) => self.abort_candidate(reason, serving).await,
            CandidateAction::Dismiss => self.dismiss_candidate(serving).await,
        }
    }

    /// The running version has given its state.
    pub(super) async fn on_snapshot(
        &mut self,
        last_frame: Option<u64>,
        bytes: Vec<u8>,
        serving: &mut Serving,
    ) {
        let Serving { candidate: Some(candidate), worker, last_result, .. } = serving else {
            return;
        };
        let running = worker.handle.description();
        let version = running.map(|described| described.version.clone()).unwrap_or_default();
        let name = |described: &Description| described.name.clone();
        let foreign = running.map(name) != candidate.described().map(name);
        let size = bytes.len();
        candidate.last_result = *last_result;
        candidate.state = Some(PipelineState { version, bytes });
        self.advance(CandidateInput::Snapshot { last_frame, bytes: size, foreign }, serving).await;
    }

    /// Makes the candidate the session's version: its first frame is done, or none is to come.
    async fn complete_change(&mut self, serving: &mut Serving) {
        let completed = serving
            .candidate
            .take()
            .and_then(|candidate| candidate.complete(Arc::clone(&self.spec)));
        let Some(Completed { spec, worker, change, swapped }) = completed else { return };
        serving.feed.command(PumpCommand::Commit).await;
        serving.answers.cancel_others();
        let before = serving.replace_worker(*worker);
        self.on_version(VersionInput::Superseded);
        self.has_results = swapped.first_frame.is_some();
        self.shared.update(|status| status.end_worker());
        self.set_spec(spec);
        self.show_worker(&serving.worker);
        let served = serving.worker.handle.description();
        (self.served, self.settings_of) = (served.map(|served| served.name.clone()), None);
        self.change.insert(change).on_completed(swapped);
        self.begin_snapshots();
        self.end_in_background(before).await;
    }

    /// The running version stays, and the candidate goes.
    async fn abort_candidate(&mut self, reason: String, serving: &mut Serving) {
        self.drop_candidate(serving, |candidate| candidate.abort(reason)).await;
    }

    /// The same for one that was only to be compared.
    async fn dismiss_candidate(&mut self, serving: &mut Serving) {
        self.drop_candidate(serving, Candidate::dismiss).await;
    }

    async fn drop_candidate(&mut self, serving: &mut Serving, end: impl FnOnce(&mut Candidate)) {
        let Some(mut candidate) = serving.detach_candidate().await else { return };
        end(&mut candidate);
        if let Some(mut worker) = candidate.take_worker() {
            worker.handle.kill();
            self.end_in_background(*worker).await;
        }
    }

    /// As [`abort_candidate`](Self::abort_candidate), after the end of its worker: the reason says
    /// how it ended.
    async fn on_candidate_lost(&mut self, mut reason: String, serving: &mut Serving) {
        let Some(mut candidate) = serving.detach_candidate().await else { return };
        if let Some(worker) = candidate.take_worker() {
            let cleanup = self.environment.limits().cleanup;
            reason += &format!(" ({})", worker.end(true, cleanup).await.status);
        }
        candidate.abort(reason);
    }

    /// Waits for a worker's end while the session goes on. Of two the first has ended long ago.
    async fn end_in_background(&mut self, worker: StreamWorker) {
        if let Some(before) = self.ending.take() {
            let _ = before.await;
        }
        let cleanup = self.environment.limits().cleanup;
        self.ending = Some(tokio::spawn(async move {
            let _ = worker.end(true, cleanup).await;
        }));
    }
}
