//! What a session does while a new version of its pipeline gets ready beside the running one, up to
//! the moment when the two have changed places. The order of things is [`swap`](super::swap)'s;
//! here is what each means.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ocelli_protocol::worker::{FromWorker, ToWorker};

use super::Spec;
use super::bounds;
use super::change::{Report, Step, SwapRequest, Swapped};
use super::feed::Target;
use super::green::{Candidate, CandidateEvent, CandidateWorker, send_report};
use super::kv_replica::StoreReplica;
use super::member::{StartError, StreamWorker};
use super::serve::Serving;
use super::swap::{RolloutAction, RolloutInput, RunningView};
use super::task::{Probation, ServeOutcome, SessionTask};
use super::watched::{WorkerFault, failed, log, out_of_turn};

impl SessionTask {
    /// Starts a new version beside the running one.
    pub(super) fn change_beside(&mut self, swap: SwapRequest, serving: &mut Serving) {
        if serving.green.is_some() {
            let reason = "another change is under way".to_owned();
            return send_report(&swap.reports, Report::Kept { step: Step::Start, reason });
        }
        if let Err(reason) = &swap.spec.pipeline.compiled {
            let reason = reason.clone();
            return send_report(&swap.reports, Report::Kept { step: Step::Start, reason });
        }
        let SwapRequest { spec, shadow, refused_state, reports } = swap;
        let Spec { pipeline: deployment, settings, .. } = spec;
        let spec = Spec { pipeline: deployment, settings, ..(*self.spec).clone() };
        let mut limits = self.environment.limits();
        self.mirror.iter().for_each(|mirror| mirror.raise_limits(&mut limits.worker));
        let kept = self.mirror.as_ref().map(StoreReplica::encode).unwrap_or_default();
        let swap = SwapRequest { spec, shadow, refused_state, reports };
        serving.green = Some(Candidate::start(&self.environment, limits, swap, kept));
    }

    /// Something has happened to the new version. Some where the session's own worker is over with
    /// it.
    pub(super) async fn on_candidate_event(
        &mut self,
        happened: CandidateEvent,
        serving: &mut Serving,
    ) -> Option<ServeOutcome> {
        match happened {
            CandidateEvent::Launched(member) => {
                if let Some(green) = &mut serving.green {
                    green.worker = CandidateWorker::Running(member);
                }
            }
            CandidateEvent::Well => {}
            CandidateEvent::Late => self.drive_rollout(RolloutInput::Tick, serving).await,
            CandidateEvent::Lost(reason) => self.on_candidate_lost(reason, serving).await,
            CandidateEvent::Said(message) => {
                return self.on_candidate_message(*message, serving).await;
            }
        }
        None
    }

    async fn on_candidate_message(
        &mut self,
        message: FromWorker,
        serving: &mut Serving,
    ) -> Option<ServeOutcome> {
        let promoted = serving.is_promoted();
        let Some(green) = &mut serving.green else { return None };
        if green.progress.step() == Step::Start {
            match self.starts(message, serving) {
                Ok(false) => {}
                Ok(true) => self.drive_rollout(RolloutInput::Ready, serving).await,
                Err(reason) => self.abort_candidate(reason, serving).await,
            }
            return None;
        }
        let member = green.member()?;
        match message {
            FromWorker::Heartbeat { counters, guest_memory } => {
                member.health.counted(counters);
                member.guest_memory = guest_memory;
            }
            FromWorker::Log { level, context, message, frame } => {
                log(&member.spec.id, &member.spec.pipeline.id, level, &context, &message, frame);
            }
            FromWorker::BarrierReached { first, .. } => {
                self.drive_rollout(RolloutInput::Decoded { first }, serving).await
            }
            FromWorker::DryRunResult { frame, outcome } => {
                let outcome = outcome.map(|outcome| outcome.map_err(bounds::truncate_cause));
                if let Some(Ok(result)) = &outcome
                    && let Err((_, message)) = bounds::result(result, &member.limits)
                {
                    self.abort_candidate(message, serving).await;
                    return None;
                }
                self.drive_rollout(
                    RolloutInput::DryRunDone { frame, outcome: outcome.as_ref() },
                    serving,
                )
                .await;
            }
            FromWorker::Reinstantiated => {
                self.drive_rollout(RolloutInput::Reinstantiated, serving).await
            }
            FromWorker::Restored(restored) => {
                let restored = restored.map_err(bounds::truncate_cause);
                self.drive_rollout(RolloutInput::Restored(&restored), serving).await;
            }
            // Kept with the call that it belongs to, once the new version is the session's.
            FromWorker::StoreCommit(changes) if member.pending_store_changes.is_empty() => {
                member.pending_store_changes = changes
            }
            FromWorker::Active if promoted => {}
            FromWorker::CommandAnswer { id, answer } if promoted => {
                if !serving.questions.answer(id, answer) {
                    self.abort_candidate(
                        format!("an answer to a question {id} that nobody asked"),
                        serving,
                    )
                    .await;
                }
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
                self.complete_swap(serving, frame).await;
                return self.on_message(message, Vec::new(), serving).await;
            }
            FromWorker::Failed { stage, message, .. } => {
                let (WorkerFault::Exited(reason) | WorkerFault::ProtocolViolation(reason)) =
                    failed(stage, message);
                self.abort_candidate(reason, serving).await;
            }
            other => {
                let (WorkerFault::Exited(reason) | WorkerFault::ProtocolViolation(reason)) =
                    out_of_turn(&other);
                self.abort_candidate(reason, serving).await;
            }
        }
        None
    }

    /// Handles a message of a new version that is not initialised yet. Whether it is now; or why it
    /// never will be.
    fn starts(&self, message: FromWorker, serving: &mut Serving) -> Result<bool, String> {
        let Some(green) = &mut serving.green else { return Ok(false) };
        let Some(member) = green.member() else { return Ok(false) };
        let described = member.description.is_some();
        let ready = member.starting(message, &self.environment);
        if let Some(description) = member.description.as_ref().filter(|_| !described) {
            let (name, version) = (description.name.clone(), description.version.clone());
            green.report(Report::Described { name, version });
        }
        ready.map_err(|error| match error {
            StartError::Fault(
                WorkerFault::Exited(reason) | WorkerFault::ProtocolViolation(reason),
            )
            | StartError::Permanent(reason) => reason,
        })
    }

    /// Tells the change what has happened, and does what follows.
    pub(super) async fn drive_rollout(&mut self, input: RolloutInput<'_>, serving: &mut Serving) {
        let view = RunningView {
            done: serving.done,
            source_down: self.life.source_fault().is_some(),
            sent_since: serving.sent_to_new(),
        };
        let Some(green) = &mut serving.green else { return };
        for act in green.progress.on(input, view, Instant::now()) {
            self.perform(act, serving).await;
        }
    }

    async fn perform(&mut self, act: RolloutAction, serving: &mut Serving) {
        let Serving { feed, green: Some(green), member: running, questions, states_asked, .. } =
            serving
        else {
            return;
        };
        match act {
            RolloutAction::Begin(step) => green.report(Report::StepStarted(step)),
            RolloutAction::Compared(comparison) => green.report(Report::Compared(comparison)),
            RolloutAction::Tell(message) => feed.send(Target::Candidate, message, Vec::new()).await,
            RolloutAction::Join => {
                if let Some(member) = green.member()
                    && let Some(outbox) = member.outbox.take()
                {
                    member.sent = feed.attach(outbox, Vec::new()).await;
                }
            }
            RolloutAction::TakeState => {
                feed.pause().await;
                feed.send(Target::Active, ToWorker::Snapshot, Vec::new()).await;
                *states_asked += 1;
                green.last_result = running.last_result;
            }
            RolloutAction::Restore { state } => {
                let kept = self.mirror.as_ref().map(StoreReplica::encode).unwrap_or_default();
                feed.send(Target::Candidate, ToWorker::LoadStore, kept).await;
                if let Some((version, bytes)) = green.state.as_ref().filter(|_| state) {
                    let restore = ToWorker::Restore { version: version.clone() };
                    feed.send(Target::Candidate, restore, bytes.clone()).await;
                }
            }
            RolloutAction::Promote { after } => {
                feed.send(Target::Candidate, ToWorker::Activate { after }, Vec::new()).await;
                feed.promote().await;
                questions.next_worker();
            }
            RolloutAction::Settle => self.complete_swap(serving, None).await,
            RolloutAction::Fail(reason) => self.abort_candidate(reason, serving).await,
        }
    }

    /// The running version has given its state.
    pub(super) async fn take_state(
        &mut self,
        through: Option<u64>,
        state: Vec<u8>,
        serving: &mut Serving,
    ) {
        let Serving { green: Some(green), member, .. } = serving else { return };
        let version = member.description.as_ref().map(|description| description.version.clone());
        let bytes = state.len();
        green.last_result = member.last_result;
        green.state = Some((version.unwrap_or_default(), state));
        self.drive_rollout(RolloutInput::State { through, bytes }, serving).await;
    }

    /// The new version is the session's: its first frame is done, or there is none to wait for.
    pub(super) async fn complete_swap(&mut self, serving: &mut Serving, first_frame: Option<u64>) {
        let Some(mut green) = serving.green.take() else { return };
        let Some(mut member) = green.take() else { return };
        serving.feed.commit().await;
        serving.questions.cancel_others();
        member.since = Instant::now();
        member.dropped_before = serving.feed.dropped();
        let passed = std::mem::replace(&mut serving.member, *member);
        serving.states_asked = 0;
        let state = green.state.take().filter(|(_, bytes)| !bytes.is_empty());
        let milliseconds = |since: Instant| since.elapsed().as_secs_f64() * 1000.0;
        let swapped = Swapped {
            total_ms: milliseconds(green.begun),
            gap_ms: green.last_result.filter(|_| first_frame.is_some()).map(milliseconds),
            state_bytes: state.as_ref().map(|(_, bytes)| bytes.len() as u64),
            fresh: green.progress.is_fresh(),
            last_frame: green.progress.through(),
            first_frame,
            cold: false,
        };
        self.supersede();
        let probation = self.environment.limits().swap.probation;
        self.trial = Some(Probation {
            reports: green.reports.clone(),
            fallback: Some((Arc::clone(&self.spec), state)),
            until: Some(Instant::now() + probation),
            cold: None,
        });
        self.worked = first_frame.is_some();
        self.shared.update(|shown| shown.end_worker());
        self.set_spec(Arc::clone(&green.spec));
        self.show_worker(&serving.member);
        green.report(Report::StepStarted(Step::Probation));
        green.report(Report::Swapped(swapped));
        self.end_in_background(passed).await;
    }

    /// The running version stays, and the new one goes.
    pub(super) async fn abort_candidate(&mut self, reason: String, serving: &mut Serving) {
        let Some(mut green) = detach_candidate(serving).await else { return };
        self.report_aborted(&green, reason);
        if let Some(mut member) = green.take() {
            member.worker.kill();
            self.end_in_background(*member).await;
        }
    }

    /// As [`abort_candidate`](Self::abort_candidate), of a new version whose worker has ended: how
    /// it did is a part of the reason.
    async fn on_candidate_lost(&mut self, mut reason: String, serving: &mut Serving) {
        let Some(mut green) = detach_candidate(serving).await else { return };
        if let Some(member) = green.take() {
            let cleanup = self.environment.limits().cleanup;
            reason += &format!(" ({})", member.end(true, cleanup).await.0);
        }
        self.report_aborted(&green, reason);
    }

    pub(super) fn report_aborted(&self, green: &Candidate, reason: String) {
        let step = green.progress.step();
        let deployment = &green.spec.pipeline.id;
        tracing::warn!(
            target: "ocelli::session",
            session = self.id(), deployment,
            "the new version is given up at step {step}, the running one stays: {reason}"
        );
        green.report(Report::Kept { step, reason });
    }

    /// Waits for a worker's end while the session goes on. Of two the first has ended long ago.
    async fn end_in_background(&mut self, member: StreamWorker) {
        if let Some(before) = self.ending.take() {
            let _ = before.await;
        }
        let cleanup = self.environment.limits().cleanup;
        self.ending = Some(tokio::spawn(async move {
            let _ = member.end(true, cleanup).await;
        }));
    }
}

/// Takes the new version out and lets the running one have everything.
pub(super) async fn detach_candidate(serving: &mut Serving) -> Option<Candidate> {
    let promoted = serving.is_promoted();
    let green = serving.green.take()?;
    if promoted {
        serving.feed.revert().await;
        // Whoever asked it gets no answer.
        serving.questions.next_worker();
        serving.questions.cancel_others();
    } else {
        serving.feed.detach().await;
    }
    Some(green)
}

impl Serving {
    /// Access units that the new version was sent since it speaks.
    fn sent_to_new(&mut self) -> u64 {
        let member = self.green.as_mut().and_then(Candidate::member);
        member.map_or(0, |member| member.sent.units.load(Ordering::Relaxed))
    }
}
