//! The new version of a session's pipeline while it gets ready beside the running one.

use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use ocelli_protocol::worker::{Description, FromWorker, WorkerLimits};
use tokio_util::task::AbortOnDropHandle;

use super::machine::{Action, CandidateInput, Rollout, RolloutTerms, RunningView};
use super::report::{Report, ReportSender, Step, SwapRequest, Swapped, send_report};
use super::sleep_until;
use super::version::{Fallback, PipelineState, VersionChange};
use crate::session::spec::Spec;
use crate::session::stream_worker::StreamWorker;
use crate::worker::{StartError, WorkerLauncher, check_inherited};

/// See the module's documentation.
pub(in crate::session) struct Candidate {
    pub(in crate::session) spec: Arc<Spec>,
    rollout: Rollout,
    began: Instant,
    reports: ReportSender,
    worker: CandidateWorker,
    /// The pipeline whose settings it has, if it was given none of its own.
    settings_of: Option<String>,
    /// The state of the running version, once it has given it.
    pub(in crate::session) state: Option<PipelineState>,
    /// When the running version gave its last result.
    pub(in crate::session) last_result: Option<Instant>,
}

enum CandidateWorker {
    /// A worker that is made after all is killed when it is dropped.
    Launching(AbortOnDropHandle<anyhow::Result<StreamWorker>>),
    Running(Box<StreamWorker>),
    /// It was taken out.
    Taken,
}

/// Something that happened to a candidate.
pub(in crate::session) enum CandidateEvent {
    Message(Box<FromWorker>),
    /// Its worker has ended, or is of no more use.
    Lost(String),
    DeadlinePassed,
}

impl Candidate {
    pub(in crate::session) fn start(
        workers: &Arc<WorkerLauncher>,
        terms: RolloutTerms,
        limits: WorkerLimits,
        request: SwapRequest,
        running: Option<String>,
        store: Vec<u8>,
    ) -> Self {
        let SwapRequest { spec, shadow, inherits_settings, handover, reports } = request;
        let (spec, began) = (Arc::new(spec), Instant::now());
        // On the runtime's own threads, as every child is started.
        let launching =
            StreamWorker::launch(Arc::clone(workers), limits, Arc::clone(&spec), true, store);
        let candidate = Self {
            spec,
            rollout: Rollout::beside(terms, shadow, handover, began),
            began,
            reports,
            worker: CandidateWorker::Launching(AbortOnDropHandle::new(tokio::spawn(launching))),
            settings_of: running.filter(|_| inherits_settings),
            state: None,
            last_result: None,
        };
        candidate.report(Report::StepStarted(candidate.rollout.step()));
        candidate
    }

    /// The next event; never without a candidate. Nothing is lost if the future is dropped.
    pub(in crate::session) async fn next(candidate: &mut Option<Self>) -> CandidateEvent {
        let Some(candidate) = candidate else { return pending().await };
        loop {
            let deadline_passed = sleep_until(candidate.rollout.deadline());
            match &mut candidate.worker {
                CandidateWorker::Launching(launching) => tokio::select! {
                    launched = launching => match launched {
                        Ok(Ok(worker)) => {
                            candidate.worker = CandidateWorker::Running(Box::new(worker));
                        }
                        Ok(Err(error)) => return CandidateEvent::Lost(format!("{error:#}")),
                        Err(error) => return CandidateEvent::Lost(error.to_string()),
                    },
                    () = deadline_passed => return CandidateEvent::DeadlinePassed,
                },
                CandidateWorker::Running(worker) => {
                    return tokio::select! {
                        received = worker.handle.next() => match received {
                            Ok((message, _)) => CandidateEvent::Message(Box::new(message)),
                            Err(fault) => CandidateEvent::Lost(fault.to_string()),
                        },
                        () = deadline_passed => CandidateEvent::DeadlinePassed,
                    };
                }
                CandidateWorker::Taken => return pending().await,
            }
        }
    }

    /// The worker, once it is launched.
    pub(in crate::session) fn worker(&mut self) -> Option<&mut StreamWorker> {
        match &mut self.worker {
            CandidateWorker::Running(worker) => Some(worker),
            CandidateWorker::Launching(_) | CandidateWorker::Taken => None,
        }
    }

    /// Handles a message of a worker that is not initialised yet. Whether it is now; an error says
    /// why it never will be.
    pub(in crate::session) fn on_start_message(
        &mut self,
        message: FromWorker,
    ) -> Result<bool, StartError> {
        let settings_of = self.settings_of.clone();
        let Some(worker) = self.worker() else { return Ok(false) };
        let was_described = worker.handle.description().is_some();
        let ready = worker.on_start_message(message);
        let described = worker.handle.description();
        let ready = check_inherited(settings_of.as_deref(), described, ready);
        if let Some((name, version)) = described
            .filter(|_| !was_described)
            .map(|described| (described.name.clone(), described.version.clone()))
        {
            self.report(Report::Described { name, version });
        }
        ready
    }

    /// What the pipeline says of itself, once it has.
    pub(in crate::session) fn described(&mut self) -> Option<&Description> {
        self.worker()?.handle.description()
    }

    /// The step under way.
    pub(in crate::session) fn step(&self) -> Step {
        self.rollout.step()
    }

    /// Whether the candidate has the source's units.
    pub(in crate::session) fn is_promoted(&self) -> bool {
        self.rollout.is_promoted()
    }

    /// Takes in an input; what is to be done.
    pub(in crate::session) fn on(
        &mut self,
        input: CandidateInput<'_>,
        mut view: RunningView,
        now: Instant,
    ) -> Vec<Action> {
        let sent = self.worker().map(|worker| worker.handle.sent().units());
        view.sent_since = sent.unwrap_or_default();
        self.rollout.on_candidate(input, view, now)
    }

    pub(in crate::session) fn report(&self, report: Report) {
        send_report(&self.reports, report);
    }

    /// Takes the worker out, if it is launched. One that is not ends by itself.
    pub(in crate::session) fn take_worker(&mut self) -> Option<Box<StreamWorker>> {
        match std::mem::replace(&mut self.worker, CandidateWorker::Taken) {
            CandidateWorker::Running(worker) => Some(worker),
            CandidateWorker::Launching(_) | CandidateWorker::Taken => None,
        }
    }

    /// Gives the candidate up, and reports it.
    pub(in crate::session) fn abort(&mut self, reason: String) {
        let (session, deployment) = (&self.spec.id, self.spec.pipeline.id());
        let step = self.rollout.step();
        tracing::warn!(
            target: "ocelli::session",
            session, deployment,
            "the new version is given up at step {step}, the running one stays: {reason}"
        );
        let report = self.rollout.abort(reason);
        self.report(report);
    }

    /// Lets the candidate go after its comparison, and reports it.
    pub(in crate::session) fn dismiss(&mut self) {
        let report = self.rollout.dismiss();
        self.report(report);
    }

    /// Makes the candidate the session's version, with `before` to go back to. `None`: it has no
    /// worker yet.
    pub(in crate::session) fn complete(mut self, before: Arc<Spec>) -> Option<Completed> {
        let worker = self.take_worker()?;
        let state = self.state.filter(|state| !state.bytes.is_empty());
        let milliseconds = |since: Instant| since.elapsed().as_secs_f64() * 1000.0;
        let figures = self.rollout.swapped();
        let swapped = Swapped {
            total_ms: milliseconds(self.began),
            gap_ms: self.last_result.filter(|_| figures.first_frame.is_some()).map(milliseconds),
            state_bytes: state.as_ref().map(|state| state.bytes.len() as u64),
            ..figures
        };
        let fallback = Fallback { spec: before, state };
        let change = VersionChange::completed(self.rollout, self.reports, fallback);
        Some(Completed { spec: self.spec, worker, change, swapped })
    }
}

/// A candidate that is the session's version now.
pub(in crate::session) struct Completed {
    pub(in crate::session) spec: Arc<Spec>,
    pub(in crate::session) worker: Box<StreamWorker>,
    pub(in crate::session) change: VersionChange,
    pub(in crate::session) swapped: Swapped,
}
