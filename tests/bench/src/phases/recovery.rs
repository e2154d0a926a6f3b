//! A worker that dies, one that is restarted, and an inference process that dies.

use anyhow::{Context, Result};
use ocelli_client::SessionState;
use rustix::process::Signal;
use serde::Serialize;
use tokio::time::Instant;

use super::live::Moments;
use super::{Environment, SETTLE};
use crate::cameras::Cameras;
use crate::chain::{Camera, Chain};
use crate::child::terminate;
use crate::machine::Role;

/// The figures of this phase, in seconds.
#[derive(Debug, Serialize)]
pub struct Recovery {
    /// From SIGKILL to the subscriber's message that the session restarts.
    pub noticed: Moments,
    /// From SIGKILL to the new worker, ready for frames. The host waits 100 to 125 ms of it before
    /// it starts one.
    pub ready: Moments,
    /// From SIGKILL to the first result of the new worker.
    pub result: Moments,
    /// From asking for a restart to the first result: the old worker ends, a new one starts.
    pub restarted: Moments,
    /// From SIGKILL of the inference process to the session's next result: the rest of the time
    /// until the camera's next picture and that picture's own way are in it.
    pub inference: Moments,
    /// Between two results of the session when nothing dies.
    pub interval: Moments,
    /// How often each was measured.
    pub repeats: usize,
}

/// Measures on one camera.
pub async fn measure(environment: &Environment) -> Result<Recovery> {
    let server = Cameras::start(&environment.paths, 1).await?;
    let camera = Camera::live(0, server.url(0));
    let chain =
        Chain::start(&environment.paths, &environment.workplace, std::slice::from_ref(&camera))
            .await?;
    let mut subscriber = chain.subscriber().await?;
    subscriber.subscribe(&camera.id).await?;
    subscriber.result(&camera.id).await?;
    let [mut noticed, mut ready, mut result, mut restarted] = [(); 4].map(|()| Vec::new());
    for _ in 0..environment.repeats {
        subscriber.latencies(Instant::now() + SETTLE).await?;
        let sessions = chain.sessions().await?;
        let worker = sessions
            .iter()
            .find_map(|session| session.pid)
            .context("there is no worker to kill")?;
        let killed = Instant::now();
        terminate(worker, Signal::KILL)?;
        // Results on their way when the worker died come before the change of state.
        let seconds = |moment: Instant| moment.duration_since(killed).as_secs_f64();
        noticed.push(seconds(subscriber.state(&camera.id, SessionState::Restarting).await?));
        ready.push(seconds(subscriber.state(&camera.id, SessionState::Running).await?));
        result.push(seconds(subscriber.result(&camera.id).await?));
        subscriber.latencies(Instant::now() + SETTLE).await?;
        // It also makes the host forget the loss, of which several in a row would be a crash loop.
        let asked = Instant::now();
        chain.restart(&camera.id).await?;
        subscriber.state(&camera.id, SessionState::Starting).await?;
        let came = subscriber.result(&camera.id).await?;
        restarted.push(came.duration_since(asked).as_secs_f64());
    }
    let (mut inference, mut interval) = (Vec::new(), Vec::new());
    for _ in 0..environment.repeats {
        subscriber.latencies(Instant::now() + SETTLE).await?;
        let last = subscriber.result(&camera.id).await?;
        interval.push(subscriber.result(&camera.id).await?.duration_since(last).as_secs_f64());
        // With a spare there are two; the one that has worked is the one that serves.
        let snapshot = chain.snapshot()?;
        let serving =
            snapshot.busiest(Role::Inference).context("there is no inference process to kill")?;
        let killed = Instant::now();
        terminate(serving, Signal::KILL)?;
        // What the worker had in hand was lost with the process: the next result is one that the
        // next process gave.
        inference.push(subscriber.result(&camera.id).await?.duration_since(killed).as_secs_f64());
    }
    chain.stop().await?;
    server.stop().await?;
    Ok(Recovery {
        noticed: Moments::of(&noticed),
        ready: Moments::of(&ready),
        result: Moments::of(&result),
        restarted: Moments::of(&restarted),
        inference: Moments::of(&inference),
        interval: Moments::of(&interval),
        repeats: environment.repeats,
    })
}
