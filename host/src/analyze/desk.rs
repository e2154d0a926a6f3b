//! The task of one worker: starts it, hands it pictures one at a time, and ends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::bench::{Analyst, Lost, NotStarted};
use super::pool::Number;
use super::queue::Waiting;
use super::{Analysis, Fault, Kind, Shared, Ticket, lock, now};

/// What became of a worker that was given a picture.
enum Served {
    /// It is ready for the next one.
    Ready,
    /// It is gone, or to be killed, over the picture.
    Over,
    /// It was gone before it took the picture, which another may try.
    Untaken(Waiting<Ticket>),
}

/// Serves until the pool hangs up or the worker is lost. The worker is gone when the pool hears of its end.
pub(super) async fn run(
    shared: Arc<Shared>,
    number: Number,
    pipeline: Arc<str>,
    mut given: mpsc::Receiver<Waiting<Ticket>>,
) {
    let settings = shared.settings.get(&*pipeline).cloned().unwrap_or_default();
    let started = tokio::select! {
        started = shared.bench.start(Arc::clone(&pipeline), settings) => started,
        // Before it is ready it is given nothing, so this is the end.
        _ = given.recv() => return shared.act(|pool, now| pool.ended(number, now)),
    };
    let mut worker = match started {
        Ok(worker) => worker,
        Err(NotStarted { fault, lasting }) => {
            let pipeline = &*pipeline;
            tracing::error!(target: "ocelli::analyze", pipeline, "no worker: {fault}");
            lock(&shared.pool).desks.remove(&number);
            return shared.act(|pool, now| pool.unready(number, &fault, lasting, now));
        }
    };
    shared.act(|pool, now| pool.ready(number, now));
    loop {
        let waiting = tokio::select! {
            biased;
            waiting = given.recv() => waiting,
            reason = worker.rest() => {
                end(&shared, &pipeline, worker, &reason).await;
                return lost(&shared, number, &mut given, None);
            }
        };
        let Some(waiting) = waiting else {
            worker.end(false).await;
            return shared.act(|pool, now| pool.ended(number, now));
        };
        match serve(&shared, &pipeline, &mut *worker, waiting).await {
            (Served::Ready, _) => shared.act(|pool, now| pool.served(number, now)),
            (Served::Over, reason) => {
                end(&shared, &pipeline, worker, &reason).await;
                lock(&shared.pool).desks.remove(&number);
                return shared.act(|pool, now| pool.lost_over_picture(number, now));
            }
            (Served::Untaken(waiting), reason) => {
                end(&shared, &pipeline, worker, &reason).await;
                return lost(&shared, number, &mut given, Some(waiting));
            }
        }
    }
}

/// Ends a worker that is of no more use.
async fn end(shared: &Shared, pipeline: &str, worker: Box<dyn Analyst>, reason: &str) {
    let status = worker.end(true).await;
    tracing::error!(target: "ocelli::analyze", pipeline, "worker lost: {reason} ({status})");
    shared.lost.fetch_add(1, Ordering::Relaxed);
}

/// Tells the pool of a worker that is gone, and gives it back what the worker never took.
fn lost(
    shared: &Arc<Shared>,
    number: Number,
    given: &mut mpsc::Receiver<Waiting<Ticket>>,
    untaken: Option<Waiting<Ticket>>,
) {
    shared.act(|pool, now| {
        // The pool may have given it a picture before it heard of its end. Both happen under the pool's lock.
        given.close();
        let untaken = untaken.or_else(|| given.try_recv().ok());
        pool.lost(number, untaken, now)
    });
    lock(&shared.pool).desks.remove(&number);
}

/// Has a picture analysed, and answers.
async fn serve(
    shared: &Shared,
    pipeline: &str,
    worker: &mut dyn Analyst,
    mut waiting: Waiting<Ticket>,
) -> (Served, String) {
    let ticket = &mut waiting.picture;
    if ticket.answer.is_closed() {
        return (Served::Ready, String::new());
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
            (analysis, Served::Ready, String::new())
        }
        Ok(Err(Lost { reason, took: false })) if !ticket.returned => {
            ticket.returned = true;
            return (Served::Untaken(waiting), reason);
        }
        Ok(Err(Lost { reason, .. })) => {
            let fault = Fault::new(Kind::PipelineCrashed, format!("the worker died: {reason}"));
            (Err(fault), Served::Over, reason)
        }
        Err(_) => {
            let timeout = shared.config.timeout_ms;
            let reason = format!("no answer within {timeout} ms, which one picture may take");
            (Err(Fault::timeout(timeout)), Served::Over, reason)
        }
    };
    // Whoever has gone away needs no answer.
    let _ = waiting.picture.answer.send(answer);
    (served, reason)
}
