//! Where a deployment comes from, and the plan that follows from it: the component, the settings
//! and the record, before the first step is taken.

use serde_json::{Map, Value};

use super::compile::ComponentSource;
use super::components::ComponentLease;
use super::history::{CameraEntry, previous_version};
use super::pipelines::PipelineError;
use super::record::{Cause, Record};
use super::request::{Component, DeployError, DeployRequest};
use super::state::DeployState;
use crate::config::{Config, OciReference, diff};
use crate::session::rollout::{Shadow, StateHandover};
use crate::session::{Spec, deployment_id};

/// What asks for a deployment.
#[derive(Debug)]
pub(super) enum Origin {
    /// A request over the API.
    Request(DeployRequest),
    /// A request for the version before the running one, with its settings.
    Rollback { by: String },
    /// A file that has changed in the watched folder of pipelines.
    Folder { pipeline: String },
    /// A camera's entry in the config.
    Config { pipeline: String, settings: Map<String, Value> },
    /// A subscriber that has a session made.
    Subscriber { pipeline: String, settings: Map<String, Value> },
}

impl Origin {
    fn cause(&self) -> Cause {
        match self {
            Self::Request(_) => Cause::Request,
            Self::Rollback { .. } => Cause::Rollback,
            Self::Folder { .. } => Cause::File,
            Self::Config { .. } => Cause::Config,
            Self::Subscriber { .. } => Cause::Subscription,
        }
    }

    fn by(&self) -> String {
        match self {
            Self::Request(DeployRequest { by, .. }) | Self::Rollback { by } => by.clone(),
            Self::Folder { pipeline } => format!("pipelines/{pipeline}.wasm"),
            Self::Config { .. } => "config".to_owned(),
            Self::Subscriber { .. } => "subscriber".to_owned(),
        }
    }
}

/// A deployment before its first step.
#[derive(Debug)]
pub(super) struct Plan {
    /// Without a number until the history has it.
    pub(super) record: Record,
    /// The config's entry that the camera has once this is deployed.
    pub(super) entry: Option<CameraEntry>,
    pub(super) source: ComponentSource,
    /// `None` if the component exceeds `deploy.max_component_mb`; its check reports that.
    pub(super) lease: Option<ComponentLease>,
    /// Whether the settings are those that the session has, because none were given.
    pub(super) inherits_settings: bool,
    /// What becomes of the running version's state. `None`: as the config says.
    pub(super) handover: Option<StateHandover>,
}

impl Plan {
    /// Plans a deployment to a session. Copies the component into the store. `running`: what the
    /// session is made of, if there is one.
    pub(super) async fn new(
        state: &DeployState,
        session: &str,
        origin: Origin,
        running: Option<&Spec>,
    ) -> Result<Plan, DeployError> {
        let config = state.config();
        let mut record = Record::draft(session, origin.cause(), origin.by());
        record.before =
            running.map(|spec| spec.pipeline.id().to_owned()).filter(|id| !id.is_empty());
        let (mut entry, mut handover, mut lease) = (None, None, None);
        let mut other_pipeline = false;
        // `None` for the settings: those that the session has, or another pipeline's own.
        let (pipeline, mut source, settings) = match origin {
            Origin::Request(request) => {
                let Shadow { frames, only, threshold } = request.shadow;
                (record.shadow, record.shadow_only, record.threshold) = (frames, only, threshold);
                handover = request.handover;
                record.trace = request.trace;
                let (pipeline, source) = match request.component {
                    Component::Bytes { name, bytes } => {
                        // With a file's ending it is never taken for a pipeline's name.
                        let named = name.ends_with(".wasm");
                        let pipeline = if named { name } else { format!("{name}.wasm") };
                        (pipeline, ComponentSource::Bytes(bytes))
                    }
                    Component::Pipeline(name) => {
                        let source = state.pipelines.named(&name)?;
                        // What a file is that is sent, its description says.
                        other_pipeline =
                            running.is_some_and(|spec| !is_named(&spec.pipeline.name, &name));
                        (name, source)
                    }
                    Component::Reference(reference) => {
                        if !config.names_registry(&reference.registry) {
                            return Err(DeployError::RegistryNotAllowed(reference.registry));
                        }
                        // The tag may mean another component than it did before.
                        let leased = lease.insert(state.pull(&reference).await?);
                        (reference.to_string(), leased.source())
                    }
                };
                let of_entry = || {
                    let entry = settings_of_entry(&config, session, &pipeline);
                    entry.filter(|_| other_pipeline)
                };
                let settings = request.settings.or_else(of_entry);
                (pipeline, source, settings)
            }
            Origin::Rollback { .. } => {
                let previous = previous(state, session).await?;
                record.back_to = Some(previous.number);
                let leased = state.components.lease(&previous.digest);
                let leased =
                    lease.insert(leased.ok_or(DeployError::ComponentGone(previous.digest))?);
                (previous.pipeline, leased.source(), Some(previous.settings))
            }
            Origin::Folder { pipeline } => {
                let mut cameras = config.cameras.iter();
                let camera =
                    cameras.find(|camera| camera.id == session && camera.pipeline == pipeline);
                entry = camera.map(|camera| camera.settings.clone());
                let source = state.pipelines.named(&pipeline)?;
                (pipeline, source, None)
            }
            Origin::Config { pipeline, settings } => {
                entry = Some(settings.clone());
                let source = if OciReference::is_meant_by(&pipeline) {
                    lease.insert(pinned(state, session, &pipeline).await?).source()
                } else {
                    state.pipelines.configured(&pipeline)?
                };
                (pipeline, source, Some(settings))
            }
            Origin::Subscriber { pipeline, settings } => {
                let source = state.pipelines.named(&pipeline)?;
                (pipeline, source, Some(settings))
            }
        };
        if lease.is_none() {
            lease = state.store(&source).await?;
        }
        if let Some(lease) = &lease {
            source = lease.source();
            record.deployment = deployment_id(&lease.digest).to_owned();
            (record.digest, record.size) = (lease.digest.clone(), lease.size);
        }
        let inherits_settings = settings.is_none() && !other_pipeline;
        let of_session = || {
            let running = running.filter(|_| inherits_settings);
            running.map(|spec| spec.settings.clone()).unwrap_or_default()
        };
        record.settings = settings.unwrap_or_else(of_session);
        let before = running.map(|spec| diff::settings(&spec.settings, &record.settings));
        record.changed = before.unwrap_or_default();
        record.pipeline = pipeline;
        let entry = entry.map(|settings| CameraEntry {
            pipeline: record.pipeline.clone(),
            settings,
            digest: record.digest.clone(),
        });
        Ok(Plan { record, entry, source, lease, inherits_settings, handover })
    }
}

/// The settings of a camera's entry in the config, if that names this pipeline.
pub(super) fn settings_of_entry(
    config: &Config,
    session: &str,
    pipeline: &str,
) -> Option<Map<String, Value>> {
    let names = |asked: &str| {
        let reference = asked.parse::<OciReference>();
        is_named(asked, pipeline) || reference.is_ok_and(|it| it.to_string() == pipeline)
    };
    let mut cameras = config.cameras.iter();
    let entry = cameras.find(|one| one.id == session && names(&one.pipeline))?;
    Some(entry.settings.clone())
}

/// Whether a pipeline as it was asked for (its name, its path, or the name of a file that was sent)
/// is the one of this name.
fn is_named(asked: &str, name: &str) -> bool {
    let file = asked.rsplit('/').next().unwrap_or(asked);
    file.strip_suffix(".wasm").unwrap_or(file) == name
}

/// The component of a camera whose entry names a registry: the one with which the session last
/// served under this reference, whatever its tag means by now. Without one the registry is asked;
/// if it is away, what it gave to the session before does.
async fn pinned(
    state: &DeployState,
    session: &str,
    pipeline: &str,
) -> Result<ComponentLease, DeployError> {
    let records = state.history.list(session, usize::MAX).await.unwrap_or_else(|error| {
        tracing::error!(target: "ocelli::deploy", session, "the history cannot be read: {error:#}");
        Vec::new()
    });
    let reference: OciReference =
        pipeline.parse().map_err(|error| PipelineError::Reference(pipeline.to_owned(), error))?;
    // A deployment over the API has it as it is written, too.
    let asked = [pipeline, &reference.to_string()];
    let records = records.iter().filter(|record| asked.contains(&record.pipeline.as_str()));
    let stored = |record: &Record| state.components.lease(&record.digest);
    if let Some(lease) = records.clone().filter(|record| record.served()).find_map(stored) {
        return Ok(lease);
    }
    match (state.pull(&reference).await, records.clone().find_map(stored)) {
        (Err(DeployError::Registry(error)), Some(lease)) if error.is_of_registry() => {
            tracing::warn!(
                target: "ocelli::deploy", session, "deploys what was fetched before: {error}"
            );
            Ok(lease)
        }
        (pulled, _) => pulled,
    }
}

/// The deployment that a rollback leads to.
async fn previous(state: &DeployState, session: &str) -> Result<Record, DeployError> {
    let records = state.history.list(session, usize::MAX).await;
    let records = records.map_err(|error| DeployError::Internal(format!("{error:#}")))?;
    let running = state.sessions.running(session).map(|running| running.number);
    let previous = previous_version(&records, running).cloned();
    previous.ok_or_else(|| DeployError::NoPreviousVersion(session.to_owned()))
}
