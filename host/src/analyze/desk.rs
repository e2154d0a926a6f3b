//! The task of one worker: starts it, hands it pictures one at a time, and ends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use tokio::sync::mpsc;

use super::bench::{Analyst, Lost, NotStarted};
use super::pool::Number;
use super::queue::Waiting;
use super::{Analysis, Fault, Kind, Shared, Ticket, lock};

/// What became of a worker that was given a picture.
enum Served {
    /// It is ready for the next one.
    Ready,
    /// It is of no more use. What it never took is given to another.
    Over(Option<Waiting<Ticket>>),
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
                return over(&shared, number, &pipeline, worker, &mut given, None, &reason).await;
            }
        };
        let Some(waiting) = waiting else {
            worker.end(false).await;
            return shared.act(|pool, now| pool.ended(number, now));
        };
        match serve(&shared, &pipeline, &mut *worker, waiting).await {
            (Served::Ready, _) => shared.act(|pool, now| pool.served(number, now)),
            (Served::Over(untaken), reason) => {
                return over(&shared, number, &pipeline, worker, &mut given, untaken, &reason).await;
            }
        }
    }
}

/// Ends a worker that is of no more use, and tells the pool.
async fn over(
    shared: &Arc<Shared>,
    number: Number,
    pipeline: &str,
    worker: Box<dyn Analyst>,
    given: &mut mpsc::Receiver<Waiting<Ticket>>,
    mut untaken: Option<Waiting<Ticket>>,
    reason: &str,
) {
    let status = worker.end(true).await;
    tracing::error!(target: "ocelli::analyze", pipeline, "worker lost: {reason} ({status})");
    shared.lost.fetch_add(1, Ordering::Relaxed);
    shared.act(|pool, now| {
        // The pool may have given it a picture before it heard of its end. Both happen under the pool's lock.
        given.close();
        untaken = untaken.take().or_else(|| given.try_recv().ok());
        pool.lost(number, untaken.take(), now)
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
    let queued = arrived.elapsed();
    // Only the first picture of a request counts.
    let _ = ticket.order.started.set(SystemTime::now());
    let image = ticket.picture.image.clone();
    let analysed = worker.analyze(image, ticket.order.settings.clone());
    let (answer, served, reason) = match tokio::time::timeout_at(deadline.into(), analysed).await {
        Ok(Ok(outcome)) => {
            let analysis =
                outcome.map(|found| Analysis::new(pipeline, found, queued, Instant::now() - arrived));
            (analysis, Served::Ready, String::new())
        }
        Ok(Err(Lost { reason, took: false })) if !ticket.returned => {
            ticket.returned = true;
            return (Served::Over(Some(waiting)), reason);
        }
        Ok(Err(Lost { reason, .. })) => {
            let fault = Fault::new(Kind::PipelineCrashed, format!("the worker died: {reason}"));
            (Err(fault), Served::Over(None), reason)
        }
        Err(_) => {
            let timeout = shared.config.timeout_ms;
            let reason = format!("no answer within {timeout} ms, which one picture may take");
            (Err(Fault::timeout(timeout)), Served::Over(None), reason)
        }
    };
    // Whoever has gone away needs no answer.
    let _ = waiting.picture.answer.send(answer);
    (served, reason)
}
