//! The new version of a session's pipeline while it gets ready beside the running one.

use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use ocelli_protocol::worker::FromWorker;
use tokio::task::JoinHandle;

use super::change::{Report, ReportSender, Step, SwapRequest};
use super::member::StreamWorker;
use super::swap::Rollout;
use super::watched::WorkerFault;
use super::{Environment, Limits, Spec};

/// See the module's documentation.
pub(super) struct Candidate {
    pub(super) spec: Arc<Spec>,
    pub(super) progress: Rollout,
    pub(super) begun: Instant,
    pub(super) reports: ReportSender,
    pub(super) worker: CandidateWorker,
    /// The state of the running version, once it has given it: its version and the bytes.
    pub(super) state: Option<(String, Vec<u8>)>,
    /// When the running version gave its last result.
    pub(super) last_result: Option<Instant>,
}

/// Where its worker stands.
pub(super) enum CandidateWorker {
    Launching(JoinHandle<anyhow::Result<StreamWorker>>),
    Running(Box<StreamWorker>),
    /// It was taken out, to be the one that speaks or to be ended.
    Gone,
}

/// Something that happened to it.
pub(super) enum CandidateEvent {
    Launched(Box<StreamWorker>),
    Said(Box<FromWorker>),
    Lost(String),
    /// It was looked at.
    Well,
    /// Its deadline has passed.
    Late,
}

impl Candidate {
    /// Starts its worker.
    pub(super) fn start(
        environment: &Arc<Environment>,
        limits: Limits,
        swap: SwapRequest,
        kept: Vec<u8>,
    ) -> Self {
        let SwapRequest { spec, shadow, refused_state, reports } = swap;
        let (spec, begun) = (Arc::new(spec), Instant::now());
        // On the runtime's own threads, as every child is started.
        let launching =
            StreamWorker::launch(Arc::clone(environment), limits, Arc::clone(&spec), true, kept);
        let green = Self {
            spec,
            progress: Rollout::new(limits.swap, shadow, refused_state, begun),
            begun,
            reports,
            worker: CandidateWorker::Launching(tokio::spawn(launching)),
            state: None,
            last_result: None,
        };
        green.report(Report::StepStarted(Step::Start));
        green
    }

    /// What happens next; never where there is no new version. Nothing is lost if the future is
    /// dropped.
    pub(super) async fn next(green: &mut Option<Self>) -> CandidateEvent {
        let Some(green) = green else { return pending().await };
        let deadline = tokio::time::Instant::from_std(green.progress.deadline());
        let late = tokio::time::sleep_until(deadline);
        match &mut green.worker {
            CandidateWorker::Launching(launching) => tokio::select! {
                launched = launching => match launched {
                    Ok(Ok(member)) => CandidateEvent::Launched(Box::new(member)),
                    Ok(Err(error)) => CandidateEvent::Lost(format!("{error:#}")),
                    Err(error) => CandidateEvent::Lost(error.to_string()),
                },
                () = late => CandidateEvent::Late,
            },
            CandidateWorker::Running(member) => tokio::select! {
                received = member.worker.inbox.recv() => match member.health.message(received) {
                    Ok((message, _)) => CandidateEvent::Said(Box::new(message)),
                    Err(unfit) => CandidateEvent::lost(unfit),
                },
                _ = member.health.looks.tick() => match member.look() {
                    Ok(()) => CandidateEvent::Well,
                    Err(unfit) => CandidateEvent::lost(unfit),
                },
                () = late => CandidateEvent::Late,
            },
            CandidateWorker::Gone => pending().await,
        }
    }

    /// The worker, where there is one by now.
    pub(super) fn member(&mut self) -> Option<&mut StreamWorker> {
        match &mut self.worker {
            CandidateWorker::Running(member) => Some(member),
            CandidateWorker::Launching(_) | CandidateWorker::Gone => None,
        }
    }

    /// Takes the worker out.
    pub(super) fn take(&mut self) -> Option<Box<StreamWorker>> {
        match std::mem::replace(&mut self.worker, CandidateWorker::Gone) {
            CandidateWorker::Running(member) => Some(member),
            CandidateWorker::Launching(launching) => {
                // A worker that is made all the same is killed when it is dropped.
                launching.abort();
                None
            }
            CandidateWorker::Gone => None,
        }
    }

    /// Tells whoever asked for the change.
    pub(super) fn report(&self, report: Report) {
        send_report(&self.reports, report);
    }
}

impl CandidateEvent {
    fn lost(unfit: WorkerFault) -> Self {
        match unfit {
            WorkerFault::Exited(reason) | WorkerFault::ProtocolViolation(reason) => {
                Self::Lost(reason)
            }
        }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Tells whoever asked for a change. There is room for all reports of one, and without anyone who
/// listens nobody is told.
pub(super) fn send_report(reports: &ReportSender, report: Report) {
    let _ = reports.try_send(report);
}
