//! The state that goes with a camera to its next host: what a session of a site gives, and what it
//! begins with. [`SnapshotSchedule`](crate::session::snapshots::SnapshotSchedule) decides when.
//!
//! A worker gives a snapshot between two frames, as for a change of the version: no frame is lost
//! for it. What came with the camera is given to one worker, once: a state that a worker is lost
//! with is nothing to begin with again, and a worker that follows a lost one begins anew here as it
//! does on a host alone.

use std::sync::Arc;
use std::time::Instant;

use ocelli_protocol::worker::{FromWorker, ToWorker};

use super::{ServeOutcome, Serving, SessionTask};
use crate::cluster::{PipelineSnapshot, SnapshotStore};
use crate::session::feed::{PumpCommand, Target};
use crate::session::rollout::{PipelineState, Step};
use crate::session::snapshots::DueSnapshot;
use crate::session::stream_worker::StreamWorker;
use crate::worker::WorkerFault;

/// What a worker's state was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SnapshotPurpose {
    /// The candidate beside it is to go on with it.
    Change,
    /// The camera's next host is.
    NextHost,
}

impl Serving {
    async fn ask_for_snapshot(&mut self) {
        self.snapshots_owed.push_back(SnapshotPurpose::NextHost);
        self.feed.send(Target::Active, ToWorker::Snapshot).await;
    }

    /// Whether a snapshot for the camera's next host was asked for and has not come.
    fn owes_snapshot(&self) -> bool {
        self.snapshots_owed.contains(&SnapshotPurpose::NextHost)
    }

    /// Whether the running version hands over to a candidate, or has: its state is asked for, and
    /// the time until the next result is the session's silence.
    fn hands_over(&self) -> bool {
        self.candidate.as_ref().is_some_and(|candidate| candidate.step() >= Step::Handoff)
    }
}

impl SessionTask {
    /// A worker serves from now on.
    pub(super) fn begin_snapshots(&mut self) {
        if self.environment.snapshots.is_some() {
            self.snapshots.begin(Instant::now());
        }
    }

    /// Where the session's snapshots are kept, if one of its version would be now.
    fn keeping(&self) -> Option<&Arc<dyn SnapshotStore>> {
        let may_ask = self.snapshots.may_ask(&self.spec.pipeline.digest);
        let store = self.environment.snapshots.as_ref();
        store.filter(|store| may_ask && store.keeps(self.id()))
    }

    pub(super) async fn on_snapshot_due(&mut self, serving: &mut Serving) {
        let wanted = self.keeping().is_some() && !serving.hands_over();
        match self.snapshots.on_due(wanted, serving.owes_snapshot(), Instant::now()) {
            DueSnapshot::Ask => serving.ask_for_snapshot().await,
            DueSnapshot::Late { first } => self.miss_snapshot("it is not given in time", first),
            DueSnapshot::Skip => {}
        }
    }

    /// The worker has given a state for the camera's next host.
    pub(super) fn keep_snapshot(&mut self, state: Vec<u8>, serving: &Serving) {
        let Some(described) = serving.worker.handle.description() else { return };
        let (pipeline, version) = (described.name.clone(), described.version.clone());
        let Some(store) = self.keeping().cloned() else { return };
        let snapshot = PipelineSnapshot { pipeline, version, state: state.into() }.encode();
        if self.snapshots.on_snapshot(&snapshot) {
            store.keep(self.id(), snapshot);
        }
    }

    /// The worker's service ends. One that ends in peace gives its state once more, behind its last
    /// frame: a camera that goes to another host goes on there as if nothing had happened.
    pub(super) async fn end_snapshots(&mut self, serving: &mut Serving, outcome: &ServeOutcome) {
        match outcome {
            ServeOutcome::Stop(_) => {
                if let Err(reason) = self.take_last_snapshot(serving).await {
                    self.miss_snapshot(&reason, true);
                }
            }
            ServeOutcome::WorkerLost(reason) | ServeOutcome::ProtocolViolation(reason)
                if serving.owes_snapshot() =>
            {
                self.snapshots.on_lost(&self.spec.pipeline.digest);
                let reason = format!("its worker was lost, so it is not asked again: {reason}");
                self.miss_snapshot(&reason, true);
            }
            _ => {}
        }
        self.snapshots.end();
    }

    async fn take_last_snapshot(&mut self, serving: &mut Serving) -> Result<(), String> {
        // One that is handing over has given its state a moment ago.
        if self.keeping().is_none() || serving.hands_over() {
            return Ok(());
        }
        let patience = self.environment.limits().rollout.swap;
        let deadline = tokio::time::Instant::now() + patience;
        serving.feed.command(PumpCommand::Pause).await;
        serving.ask_for_snapshot().await;
        while serving.owes_snapshot() {
            let received = tokio::time::timeout_at(deadline, serving.worker.handle.next()).await;
            let received =
                received.map_err(|_| format!("it is not given within {} ms", patience.as_millis()));
            let (message, payload) = received?.map_err(|fault| fault.to_string())?;
            let handled = self.on_message(message, payload, serving).await;
            handled.map_err(|outcome| outcome.reason().to_owned())?;
        }
        Ok(())
    }

    /// A snapshot could not be had. `tell`: it is the first in a row.
    fn miss_snapshot(&self, reason: &str, tell: bool) {
        self.environment.snapshots.iter().for_each(|store| store.note_failure());
        if tell {
            let deployment = self.spec.pipeline.id();
            tracing::warn!(
                target: "ocelli::session",
                session = self.id(), deployment,
                "the site does not get the pipeline's state: {reason}"
            );
        }
    }

    /// Gives a worker that is initialised the state with which the camera came to this host, if it
    /// is of the same pipeline. One that refuses it begins anew; an error says that it is lost.
    pub(super) async fn restore_inherited(
        &mut self,
        worker: &mut StreamWorker,
    ) -> Result<(), ServeOutcome> {
        // A version that comes back has a state of its own.
        if self.handoff.is_some() {
            return Ok(());
        }
        let Some(PipelineSnapshot { pipeline, version, state }) = self.inherited.take() else {
            return Ok(());
        };
        let runs = worker.handle.description().map(|described| described.name.as_str());
        if state.is_empty() {
            return Ok(());
        }
        if runs != Some(&*pipeline) {
            tracing::info!(
                target: "ocelli::session",
                session = self.id(), deployment = self.spec.pipeline.id(),
                "begins anew: the state that came with the camera is of {pipeline:?}"
            );
            return Ok(());
        }
        let size = state.len();
        let state = PipelineState { version: version.clone(), bytes: state.into() };
        let restored = self.restore_in(worker, &state).await;
        match &restored {
            Ok(Ok(())) => tracing::info!(
                target: "ocelli::session",
                session = self.id(), deployment = self.spec.pipeline.id(),
                "goes on with the state that version {version} left, {size} bytes"
            ),
            Ok(Err(refusal)) => self.begin_anew(&version, refusal),
            Err(outcome) => self.begin_anew(&version, outcome.reason()),
        }
        restored.map(drop)
    }

    /// Gives a worker a state. The pipeline's own error says that it refuses it.
    async fn restore_in(
        &mut self,
        worker: &mut StreamWorker,
        state: &PipelineState,
    ) -> Result<Result<(), String>, ServeOutcome> {
        // What `init` has changed goes first: a call's changes come before its outcome.
        self.commit_store(worker).await?;
        let (message, payload) = state.restore();
        let sent = worker.handle.send(&message, &payload).await;
        sent.map_err(|error| ServeOutcome::WorkerLost(error.to_string()))?;
        let patience = self.environment.limits().rollout.swap;
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let received = tokio::time::timeout_at(deadline, worker.handle.next()).await;
            let (message, _) = received.map_err(|_| {
                let reason = format!("no state restored within {} ms", patience.as_millis());
                ServeOutcome::ProtocolViolation(reason)
            })??;
            self.count_start(&message);
            match message {
                FromWorker::Heartbeat { .. } => {}
                FromWorker::StoreCommit(changes) => worker.pending_store_changes = changes,
                FromWorker::Restored(restored) => {
                    self.commit_store(worker).await?;
                    return Ok(restored);
                }
                FromWorker::Failed { stage, message, .. } => {
                    return Err(WorkerFault::failed(stage, &message).into());
                }
                other => return Err(WorkerFault::unexpected(&other).into()),
            }
        }
    }

    /// Says that a pipeline does not go on with the state that came with its camera.
    fn begin_anew(&self, version: &str, reason: &str) {
        let text = format!(
            "begins anew, not with the state that version {version} left on another host: {reason}"
        );
        let deployment = self.spec.pipeline.id();
        tracing::warn!(target: "ocelli::session", session = self.id(), deployment, "{text}");
        self.shared.note_error(&text);
    }
}
