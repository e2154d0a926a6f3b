//! The task of one worker: starts it, gives it one image after another, and ends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::factory::{ImageWorker, ImageWorkerLost, ImageWorkerStartError};
use super::pool::WorkerNumber;
use super::queue::WaitingImage;
use super::{AnalysesInner, Analysis, AnalysisError, AnalysisErrorKind, ImageTicket, now};

/// A worker's state after it was given an image.
enum AnalyzeOutcome {
    /// It is ready for the next image.
    Ready,
    /// It ended over the image, or has to be killed.
    WorkerLost,
    /// It ended before it received the image, which another worker may analyse.
    NotReceived(Box<WaitingImage<ImageTicket>>),
}

/// Serves until the pool closes `given` or the worker is lost. The pool hears of a worker's end
/// only when its process is gone.
pub(super) async fn run(
    shared: Arc<AnalysesInner>,
    number: WorkerNumber,
    pipeline: Arc<str>,
    mut given: mpsc::Receiver<WaitingImage<ImageTicket>>,
) {
    let settings = shared.settings.get(&*pipeline).cloned().unwrap_or_default();
    let started = tokio::select! {
        started = shared.factory.start(Arc::clone(&pipeline), settings) => started,
        // A worker gets no image before it is ready, so this is the end.
        _ = given.recv() => return shared.apply(|pool, now| pool.ended(number, now)),
    };
    let mut worker = match started {
        Ok(worker) => worker,
        Err(ImageWorkerStartError { error, permanent }) => {
            let pipeline = &*pipeline;
            tracing::error!(target: "ocelli::analyze", pipeline, "no worker: {error}");
            shared.remove_task(number);
            return shared.apply(|pool, now| pool.start_failed(number, &error, permanent, now));
        }
    };
    shared.apply(|pool, now| pool.ready(number, now));
    loop {
        let waiting = tokio::select! {
            biased;
            waiting = given.recv() => waiting,
            reason = worker.watch_idle() => {
                end(&shared, &pipeline, worker, &reason).await;
                return lost(&shared, number, &mut given, None);
            }
        };
        let Some(waiting) = waiting else {
            worker.end(false).await;
            return shared.apply(|pool, now| pool.ended(number, now));
        };
        match serve(&shared, &pipeline, &mut *worker, waiting).await {
            (AnalyzeOutcome::Ready, _) => shared.apply(|pool, now| pool.served(number, now)),
            (AnalyzeOutcome::WorkerLost, reason) => {
                end(&shared, &pipeline, worker, &reason).await;
                shared.remove_task(number);
                return shared.apply(|pool, now| pool.ended(number, now));
            }
            (AnalyzeOutcome::NotReceived(waiting), reason) => {
                end(&shared, &pipeline, worker, &reason).await;
                return lost(&shared, number, &mut given, Some(*waiting));
            }
        }
    }
}

/// Kills a worker that failed.
async fn end(shared: &AnalysesInner, pipeline: &str, worker: Box<dyn ImageWorker>, reason: &str) {
    let status = worker.end(true).await;
    tracing::error!(target: "ocelli::analyze", pipeline, "worker lost: {reason} ({status})");
    shared.lost.fetch_add(1, Ordering::Relaxed);
}

/// Reports the end of a worker to the pool, and gives back the image that it did not receive.
fn lost(
    shared: &Arc<AnalysesInner>,
    number: WorkerNumber,
    given: &mut mpsc::Receiver<WaitingImage<ImageTicket>>,
    not_received: Option<WaitingImage<ImageTicket>>,
) {
    shared.apply(|pool, now| {
        // The pool may have given it an image before it hears of its end. Both happen under the
        // pool's lock.
        given.close();
        let not_received = not_received.or_else(|| given.try_recv().ok());
        pool.lost(number, not_received, now)
    });
    shared.remove_task(number);
}

/// Has an image analysed, and answers.
async fn serve(
    shared: &AnalysesInner,
    pipeline: &str,
    worker: &mut dyn ImageWorker,
    mut waiting: WaitingImage<ImageTicket>,
) -> (AnalyzeOutcome, String) {
    let ticket = &mut waiting.image;
    if ticket.answer.is_closed() {
        return (AnalyzeOutcome::Ready, String::new());
    }
    let (arrived, deadline) = (ticket.file.arrived(), ticket.deadline);
    let queued = now().saturating_duration_since(arrived);
    // Fails for all images of a request but the first, which alone counts.
    let _ = ticket.request.started.set(SystemTime::now());
    let image = ticket.file.bytes();
    let analysed = worker.analyze(image, ticket.request.settings.clone());
    let (answer, served, reason) = match tokio::time::timeout_at(deadline.into(), analysed).await {
        Ok(Ok(outcome)) => {
            let analysis = outcome.map(|result| {
                Analysis::new(pipeline, result, queued, now().saturating_duration_since(arrived))
            });
            (analysis, AnalyzeOutcome::Ready, String::new())
        }
        Ok(Err(ImageWorkerLost { reason, received: false })) if !ticket.is_retry => {
            ticket.is_retry = true;
            return (AnalyzeOutcome::NotReceived(Box::new(waiting)), reason);
        }
        Ok(Err(ImageWorkerLost { reason, .. })) => {
            let message = format!("the worker died: {reason}");
            let error = AnalysisError::new(AnalysisErrorKind::PipelineCrashed, message);
            (Err(error), AnalyzeOutcome::WorkerLost, reason)
        }
        Err(_) => {
            let timeout = shared.config.timeout_ms;
            let reason = format!("no answer within {timeout} ms, which one image may take");
            (Err(AnalysisError::timeout(timeout)), AnalyzeOutcome::WorkerLost, reason)
        }
    };
    // Fails if the client has gone.
    let _ = waiting.image.answer.send(answer);
    (served, reason)
}
