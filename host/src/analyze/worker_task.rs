//! The task of one worker: starts it, hands it pictures one at a time, and ends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::factory::{ImageWorker, ImageWorkerLost, ImageWorkerStartError};
use super::pool::WorkerNumber;
use super::queue::WaitingImage;
use super::{AnalysesInner, Analysis, AnalysisError, AnalysisErrorKind, ImageTicket, now};

/// What became of a worker that was given a picture.
enum AnalyzeOutcome {
    /// It is ready for the next one.
    Ready,
    /// It is gone, or to be killed, over the picture.
    WorkerLost,
    /// It was gone before it took the picture, which another may try.
    NotReceived(WaitingImage<ImageTicket>),
}

/// Serves until the pool hangs up or the worker is lost. The worker is gone when the pool hears of
/// its end.
pub(super) async fn run(
    shared: Arc<AnalysesInner>,
    number: WorkerNumber,
    pipeline: Arc<str>,
    mut given: mpsc::Receiver<WaitingImage<ImageTicket>>,
) {
    let settings = shared.settings.get(&*pipeline).cloned().unwrap_or_default();
    let started = tokio::select! {
        started = shared.factory.start(Arc::clone(&pipeline), settings) => started,
        // Before it is ready it is given nothing, so this is the end.
        _ = given.recv() => return shared.apply(|pool, now| pool.ended(number, now)),
    };
    let mut worker = match started {
        Ok(worker) => worker,
        Err(ImageWorkerStartError { fault, permanent: lasting }) => {
            let pipeline = &*pipeline;
            tracing::error!(target: "ocelli::analyze", pipeline, "no worker: {fault}");
            shared.pool.lock().tasks.remove(&number);
            return shared.apply(|pool, now| pool.start_failed(number, &fault, lasting, now));
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
                shared.pool.lock().tasks.remove(&number);
                return shared.apply(|pool, now| pool.lost_over_picture(number, now));
            }
            (AnalyzeOutcome::NotReceived(waiting), reason) => {
                end(&shared, &pipeline, worker, &reason).await;
                return lost(&shared, number, &mut given, Some(waiting));
            }
        }
    }
}

/// Ends a worker that is of no more use.
async fn end(shared: &AnalysesInner, pipeline: &str, worker: Box<dyn ImageWorker>, reason: &str) {
    let status = worker.end(true).await;
    tracing::error!(target: "ocelli::analyze", pipeline, "worker lost: {reason} ({status})");
    shared.lost.fetch_add(1, Ordering::Relaxed);
}

/// Tells the pool of a worker that is gone, and gives it back what the worker never took.
fn lost(
    shared: &Arc<AnalysesInner>,
    number: WorkerNumber,
    given: &mut mpsc::Receiver<WaitingImage<ImageTicket>>,
    untaken: Option<WaitingImage<ImageTicket>>,
) {
    shared.apply(|pool, now| {
        // The pool may have given it a picture before it heard of its end. Both happen under the
        // pool's lock.
        given.close();
        let untaken = untaken.or_else(|| given.try_recv().ok());
        pool.lost(number, untaken, now)
    });
    shared.pool.lock().tasks.remove(&number);
}

/// Has a picture analysed, and answers.
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
    let (arrived, deadline) = (ticket.picture.arrived, ticket.deadline);
    let queued = now().saturating_duration_since(arrived);
    // Only the first picture of a request counts.
    let _ = ticket.order.started.set(SystemTime::now());
    let image = ticket.picture.image.clone();
    let analysed = worker.analyze(image, ticket.order.settings.clone());
    let (answer, served, reason) = match tokio::time::timeout_at(deadline.into(), analysed).await {
        Ok(Ok(outcome)) => {
            let analysis = outcome.map(|found| {
                Analysis::new(pipeline, found, queued, now().saturating_duration_since(arrived))
            });
            (analysis, AnalyzeOutcome::Ready, String::new())
        }
        Ok(Err(ImageWorkerLost { reason, received: false })) if !ticket.is_retry => {
            ticket.is_retry = true;
            return (AnalyzeOutcome::NotReceived(waiting), reason);
        }
        Ok(Err(ImageWorkerLost { reason, .. })) => {
            let fault = AnalysisError::new(
                AnalysisErrorKind::PipelineCrashed,
                format!("the worker died: {reason}"),
            );
            (Err(fault), AnalyzeOutcome::WorkerLost, reason)
        }
        Err(_) => {
            let timeout = shared.config.timeout_ms;
            let reason = format!("no answer within {timeout} ms, which one picture may take");
            (Err(AnalysisError::timeout(timeout)), AnalyzeOutcome::WorkerLost, reason)
        }
    };
    // Whoever has gone away needs no answer.
    let _ = waiting.image.answer.send(answer);
    (served, reason)
}
