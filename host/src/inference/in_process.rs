//! Models in the host itself: the same engine, called instead of started.
//!
//! Nothing is supervised: ONNX Runtime alone ends a run past its deadline, and a crash of the
//! engine ends the host. ONNX Runtime is loaded only in this mode.

use std::os::unix::process::CommandExt;
use std::sync::Arc;

use anyhow::Context;
use ocelli_inference::Engine;
use ocelli_protocol::in_flight::InFlightTable;
use ocelli_protocol::inference::{Attach, Configure, LoadedModel};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{PublishedState, SessionEndpoint, SupervisorRequest};
use crate::config::{Config, Isolation};

/// Turns off ONNX Runtime's telemetry. The library reads it when it is loaded.
const TELEMETRY: (&str, &str) = ("ORT_DISABLE_TELEMETRY", "1");

/// Executes the program again with ONNX Runtime's telemetry turned off in the environment, if the
/// host runs models itself: a process with threads cannot change its environment safely. Call it
/// before anything is opened. Returns if nothing has to be done, or on failure.
pub fn forbid_telemetry(config: &Config) -> anyhow::Result<()> {
    let (name, value) = TELEMETRY;
    if config.inference.isolation != Isolation::InProcess
        || std::env::var_os(name).is_some_and(|set| set == value)
    {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let mut command =
        std::process::Command::new(std::env::current_exe().context("finding this program")?);
    if let Some(own_name) = arguments.next() {
        command.arg0(own_name);
    }
    let error = command.args(arguments).env(name, value).exec();
    Err(error).with_context(|| format!("starting anew with {name}={value}"))
}

/// Loads the engine and serves until the last [`InferenceHandle`](super::InferenceHandle) and
/// [`InferenceAttachment`](super::InferenceAttachment) are gone.
pub(super) async fn start(
    configure: Configure,
    inbox: mpsc::Receiver<SupervisorRequest>,
    published: Arc<Mutex<PublishedState>>,
) -> anyhow::Result<()> {
    let loaded = Arc::clone(&published);
    // A version is reported again when its execution provider has changed.
    let loaded = move |model: LoadedModel| {
        let known = &mut loaded.lock().loaded;
        known.retain(|other| (&other.name, &other.sha256) != (&model.name, &model.sha256));
        known.push(model);
    };
    // Loading models takes seconds.
    let engine = tokio::task::spawn_blocking(move || {
        // Only the engine itself reads it: no other process supervises this one.
        let in_flight = InFlightTable::create(usize::try_from(configure.threads)?)?;
        anyhow::Ok(Engine::prepare(configure, in_flight)?.start(loaded, None)?)
    });
    let engine = engine.await?.context("starting inference")?;
    tracing::info!(
        target: "ocelli::inference",
        "ONNX Runtime {} is ready in the host itself",
        engine.version()
    );
    {
        let mut published = published.lock();
        published.status.serves = true;
        published.status.version = Some(engine.version().to_owned());
        published.loaded = engine.loaded();
    }
    tokio::spawn(serve(engine, inbox, published));
    Ok(())
}

async fn serve(
    engine: Engine,
    mut inbox: mpsc::Receiver<SupervisorRequest>,
    published: Arc<Mutex<PublishedState>>,
) {
    let mut catalog_version = 0_u32;
    while let Some(request) = inbox.recv().await {
        match request {
            SupervisorRequest::Attach { number, name, service, place } => {
                let attach = Attach {
                    session: name.clone(),
                    number,
                    catalog_version,
                    service,
                    suspect: None,
                };
                let taken = || -> anyhow::Result<()> {
                    let SessionEndpoint { socket, memory } = &*place;
                    Ok(engine.attach(attach, socket.try_clone()?, memory.try_clone()?)?)
                };
                if let Err(error) = taken() {
                    tracing::error!(
                        target: "ocelli::inference",
                        session = name,
                        "cannot serve the session: {error:#}"
                    );
                }
            }
            // The engine sees the end of the worker's socket by itself.
            SupervisorRequest::Detach { .. } => {}
            SupervisorRequest::Offer(offered) if published.lock().offered == offered => {}
            SupervisorRequest::Offer(offered) => {
                match engine.offer(catalog_version + 1, offered.models.to_vec()) {
                    Ok(()) => {
                        catalog_version += 1;
                        published.lock().offered = offered;
                    }
                    Err(error) => {
                        tracing::error!(
                            target: "ocelli::inference",
                            "the models cannot be offered: {error}"
                        );
                    }
                }
            }
        }
    }
    // Dropping it waits for runs that are under way.
    let _ = tokio::task::spawn_blocking(move || drop(engine)).await;
}
