//! The sessions that subscribers have made, which end when their last subscriber is gone.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::backend::{DeployBackend, HostBackend};
use super::execute::{Executor, Fresh, Placement};
use super::plan::{Origin, Plan};
use super::request::DeployError;
use crate::config::source::Source;
use crate::session::{CompiledPipeline, SessionHandle, Spec};

/// See [`super::Deployer::ensure`].
pub(super) async fn ensure(
    executor: &Arc<Executor<HostBackend>>,
    id: &str,
    source: &str,
    pipeline: &str,
    settings: Map<String, Value>,
) -> Result<(), DeployError> {
    let config = executor.state.config();
    let source = Source::parse(source, None, None, false)?.of_subscriber();
    let admitted = config.subscriptions.admitted(&source);
    executor.backend.sessions.wait_until_gone(id).await;
    if let Some(spec) = executor.backend.session(id).map(|session| session.spec()) {
        // Whatever it runs by now.
        let requested = executor.state.sessions.requested(id);
        let requested = requested.unwrap_or_else(|| spec.pipeline.name.clone());
        let same = spec.source == source || admitted.as_ref() == Some(&spec.source);
        return if same && requested == pipeline {
            Ok(())
        } else {
            Err(DeployError::SessionDiffers(id.to_owned()))
        };
    }
    let source = admitted.ok_or(DeployError::SourceNotAllowed)?;
    if source.needs_compatible_reader() && !config.subscriptions.compatible {
        return Err(DeployError::ReaderNotAllowed);
    }
    let origin = Origin::Subscriber { pipeline: pipeline.to_owned(), settings };
    let plan = Plan::new(&executor.state, id, origin, None).await?;
    let spec = Spec {
        id: id.to_owned(),
        source,
        substream: None,
        pipeline: CompiledPipeline::missing(pipeline, String::new()),
        settings: Map::new(),
        decode: Default::default(),
        decode_device: Default::default(),
        priority: Default::default(),
        redis_prefix: None,
        directories: Vec::new(),
    };
    let fresh = Placement::Fresh(Box::new(Fresh { spec, session: None, fallback: None }));
    let started = executor.execute(plan, fresh).await.map_err(|failed| failed.error)?;
    let session = started.session.clone();
    executor.follow_in_background(started);
    let grace = Duration::from_secs(config.subscriptions.grace_s);
    tokio::spawn(end_when_deserted(Arc::clone(executor), session, grace));
    Ok(())
}

/// Ends a session once it has had no subscriber for the grace period, unless it has ended by then:
/// the next one of its name is another's.
async fn end_when_deserted(
    executor: Arc<Executor<HostBackend>>,
    session: SessionHandle,
    grace: Duration,
) {
    let HostBackend { sessions, hub, .. } = &executor.backend;
    let mut subscribers = hub.watch_subscribers(session.id());
    let deserted = async {
        loop {
            // The first subscriber's grace begins when the session was asked for.
            let returned =
                tokio::time::timeout(grace, subscribers.wait_for(|count| *count > 0)).await;
            if !matches!(returned, Ok(Ok(_))) {
                return;
            }
            drop(returned);
            if subscribers.wait_for(|count| *count == 0).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = session.ended() => return,
        () = deserted => {}
    }
    // An operator may have ended it before.
    let _ = sessions.stop(session.id(), "its last subscriber is gone").await;
}
