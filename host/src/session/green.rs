//! The new version of a session's pipeline while it gets ready beside the running one.

use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use ocelli_protocol::worker::FromWorker;
use tokio::task::JoinHandle;

use super::change::{Report, Reports, Step, Swap};
use super::member::Member;
use super::swap::Progress;
use super::watched::Unfit;
use super::{Environment, Limits, Spec};

/// See the module's documentation.
pub(super) struct Green {
    pub(super) spec: Arc<Spec>,
    pub(super) progress: Progress,
    pub(super) begun: Instant,
    pub(super) reports: Reports,
    pub(super) worker: Stage,
    /// The state of the running version, once it has given it: its version and the bytes.
    pub(super) state: Option<(String, Vec<u8>)>,
    /// When the running version gave its last result.
    pub(super) last_result: Option<Instant>,
}

/// Where its worker stands.
pub(super) enum Stage {
    Launching(JoinHandle<anyhow::Result<Member>>),
    Running(Box<Member>),
    /// It was taken out, to be the one that speaks or to be ended.
    Gone,
}

/// Something that happened to it.
pub(super) enum Happened {
    Launched(Box<Member>),
    Said(Box<FromWorker>),
    Lost(String),
    /// It was looked at.
    Well,
    /// Its deadline has passed.
    Late,
}

impl Green {
    /// Starts its worker.
    pub(super) fn start(environment: &Arc<Environment>, limits: Limits, swap: Swap, kept: Vec<u8>) -> Self {
        let Swap { spec, shadow, refused_state, reports } = swap;
        let (spec, begun) = (Arc::new(spec), Instant::now());
        // On the runtime's own threads, as every child is started.
        let launching = Member::launch(Arc::clone(environment), limits, Arc::clone(&spec), true, kept);
        let green = Self {
            spec,
            progress: Progress::new(limits.swap, shadow, refused_state, begun),
            begun,
            reports,
            worker: Stage::Launching(tokio::spawn(launching)),
            state: None,
            last_result: None,
        };
        green.report(Report::Began(Step::Start));
        green
    }

    /// What happens next; never where there is no new version. Nothing is lost if the future is dropped.
    pub(super) async fn next(green: &mut Option<Self>) -> Happened {
        let Some(green) = green else { return pending().await };
        let deadline = tokio::time::Instant::from_std(green.progress.deadline());
        let late = tokio::time::sleep_until(deadline);
        match &mut green.worker {
            Stage::Launching(launching) => tokio::select! {
                launched = launching => match launched {
                    Ok(Ok(member)) => Happened::Launched(Box::new(member)),
                    Ok(Err(error)) => Happened::Lost(format!("{error:#}")),
                    Err(error) => Happened::Lost(error.to_string()),
                },
                () = late => Happened::Late,
            },
            Stage::Running(member) => tokio::select! {
                received = member.worker.inbox.recv() => match member.health.message(received) {
                    Ok((message, _)) => Happened::Said(Box::new(message)),
                    Err(unfit) => Happened::lost(unfit),
                },
                _ = member.health.looks.tick() => match member.look() {
                    Ok(()) => Happened::Well,
                    Err(unfit) => Happened::lost(unfit),
                },
                () = late => Happened::Late,
            },
            Stage::Gone => pending().await,
        }
    }

    /// The worker, where there is one by now.
    pub(super) fn member(&mut self) -> Option<&mut Member> {
        match &mut self.worker {
            Stage::Running(member) => Some(member),
            Stage::Launching(_) | Stage::Gone => None,
        }
    }

    /// Takes the worker out.
    pub(super) fn take(&mut self) -> Option<Box<Member>> {
        match std::mem::replace(&mut self.worker, Stage::Gone) {
            Stage::Running(member) => Some(member),
            Stage::Launching(launching) => {
                // A worker that is made all the same is killed when it is dropped.
                launching.abort();
                None
            }
            Stage::Gone => None,
        }
    }

    /// Tells whoever asked for the change.
    pub(super) fn report(&self, report: Report) {
        tell(&self.reports, report);
    }
}

impl Happened {
    fn lost(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Lost(reason) | Unfit::Broken(reason) => Self::Lost(reason),
        }
    }
}

impl Drop for Green {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Tells whoever asked for a change. There is room for all reports of one, and without anyone who listens nobody is told.
pub(super) fn tell(reports: &Reports, report: Report) {
    let _ = reports.try_send(report);
}
