//! From a pipeline's name to a running session: find the component, compile it once, start the session.

mod compile;
mod configured;
mod pipelines;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{Mutex, watch};

use crate::config::Config;
use crate::config::source::{Source, SourceError};
use crate::event::Hub;
use crate::session::{Deployment, SessionError, Sessions, Spec};
use compile::Compiler;

pub use compile::CompileError;
pub use configured::Applied;
pub use pipelines::{PipelineError, find_named, find_pipeline};

/// Why a session could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The pipeline cannot be found or read.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The component cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The source is not one.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A subscriber may not name this source.
    #[error(
        "this source is not among those that subscribers may name: see `subscriptions.sources` in the config"
    )]
    SourceNotAllowed,
    /// There is a session of this name with another source or pipeline.
    #[error("session {0:?} exists with another source or pipeline")]
    Differs(String),
    /// The session was refused.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The host itself is at fault.
    #[error("making the deployment failed: {0}")]
    Failed(String),
}

impl DeployError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Pipeline(_) => "unknown_pipeline",
            Self::Compile(_) => "invalid_pipeline",
            Self::Source(_) => "invalid_source",
            Self::SourceNotAllowed => "source_not_allowed",
            Self::Differs(_) => "session_differs",
            Self::Session(error) => error.code(),
            Self::Failed(_) => "internal",
        }
    }
}

/// Makes sessions, and owns the config that is in force. Cheap to clone.
#[derive(Clone)]
pub struct Deployer {
    inner: Arc<Inner>,
}

struct Inner {
    sessions: Sessions,
    hub: Hub,
    compiler: Compiler,
    config: watch::Sender<Arc<Config>>,
    /// The configured cameras that have a session, by name. Locked while a config is applied.
    cameras: Mutex<BTreeMap<String, configured::Configured>>,
}

impl Deployer {
    /// A deployer with its cache of compiled components in the store's folder.
    pub async fn new(
        sessions: Sessions,
        hub: Hub,
        program: &std::path::Path,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let cache = config.store.directory.join("compiled");
        let compiler = Compiler::new(program.to_owned(), &cache, config.session_processes.sandbox).await?;
        let config = watch::Sender::new(Arc::new(config.clone()));
        Ok(Self { inner: Arc::new(Inner { sessions, hub, compiler, config, cameras: Mutex::default() }) })
    }

    /// The config that is in force: what a running host cannot take over is as it was at its start.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.inner.config.borrow())
    }

    /// The config that is in force, as it changes.
    pub fn watch_config(&self) -> watch::Receiver<Arc<Config>> {
        self.inner.config.subscribe()
    }

    /// Starts a session anew: a fresh worker at once, whatever state it is in. What a failed camera lacks is looked for
    /// and compiled again.
    pub async fn restart(&self, id: &str) -> Result<(), SessionError> {
        if self.retry(id).await { Ok(()) } else { self.inner.sessions.restart(id).await }
    }

    /// Whether there is a pipeline of this name; if not, why.
    pub fn knows(&self, pipeline: &str) -> Result<(), DeployError> {
        Ok(pipelines::find_named(pipeline, &self.config()).map(drop)?)
    }

    /// A pipeline's component as it is now, compiled if it is new. Compiling may take minutes, and goes on if nobody waits
    /// for it any more.
    pub async fn component(&self, pipeline: &str) -> Result<Deployment, DeployError> {
        let (deployer, pipeline) = (self.clone(), pipeline.to_owned());
        let compiled = tokio::spawn(async move {
            let path = pipelines::find_named(&pipeline, &deployer.config())?;
            Ok(deployer.inner.compiler.deployment(&pipeline, &path).await?)
        });
        compiled.await.unwrap_or_else(|error| Err(DeployError::Failed(error.to_string())))
    }

    /// Makes sure that a session runs this pipeline on this source: a subscriber's, which ends when its last subscriber
    /// has been gone for the grace period. One that exists already is left as it is.
    pub async fn ensure(
        &self,
        id: &str,
        source: &str,
        pipeline: &str,
        settings: Map<String, Value>,
    ) -> Result<(), DeployError> {
        let Inner { sessions, hub, compiler, .. } = &*self.inner;
        let config = self.config();
        let parsed = Source::parse(source, None, None, false)?;
        sessions.settled(id).await;
        if let Some(spec) = sessions.spec(id) {
            let same = spec.source == parsed && spec.deployment.pipeline == pipeline;
            return if same { Ok(()) } else { Err(DeployError::Differs(id.to_owned())) };
        }
        if !allowed(source, &config.subscriptions.sources) {
            return Err(DeployError::SourceNotAllowed);
        }
        let path = pipelines::find_named(pipeline, &config)?;
        let deployment = compiler.deployment(pipeline, &path).await?;
        let spec = Spec {
            id: id.to_owned(),
            source: parsed,
            deployment,
            settings,
            decode: Default::default(),
            priority: Default::default(),
        };
        let over = sessions.start(spec, None)?;
        tokio::spawn(end_when_deserted(
            id.to_owned(),
            over,
            sessions.clone(),
            hub.clone(),
            Duration::from_secs(config.subscriptions.grace_s),
        ));
        Ok(())
    }
}

/// Whether a source begins like one of those that subscribers may name. A path with `..` could lead out of an allowed
/// folder.
fn allowed(source: &str, prefixes: &[String]) -> bool {
    let climbs = source.starts_with("file:") && source.split(['/', ':']).any(|part| part == "..");
    !climbs && prefixes.iter().any(|prefix| source.starts_with(prefix.as_str()))
}

/// Waits until nobody has subscribed to a session for the grace period, then ends it. `over` closes with the session: the
/// next one of its name is another's.
async fn end_when_deserted(
    id: String,
    mut over: watch::Receiver<()>,
    sessions: Sessions,
    hub: Hub,
    grace: Duration,
) {
    let mut subscribers = hub.watch_subscribers(&id);
    let deserted = async {
        loop {
            // Its first subscriber counts from the moment when the session was asked for.
            let returned = tokio::time::timeout(grace, subscribers.wait_for(|count| *count > 0)).await;
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
        _ = over.changed() => return,
        () = deserted => {}
    }
    // An operator may have ended it before.
    let _ = sessions.stop(&id, "its last subscriber is gone").await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_allowed_by_its_beginning_alone() {
        let prefixes = ["rtsp://".to_owned(), "file:/clips/".to_owned()];
        assert!(allowed("rtsp://camera/stream", &prefixes));
        assert!(allowed("file:/clips/people.mp4", &prefixes));
        assert!(!allowed("file:/etc/passwd", &prefixes));
        assert!(!allowed("file:/clips/../etc/passwd", &prefixes));
        assert!(!allowed("http://camera/", &prefixes));
        assert!(!allowed("rtsp://camera/", &[]));
    }
}
