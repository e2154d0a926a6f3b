//! A worker that only describes its pipeline and checks settings: for a config that is to be
//! checked before it is in force. It runs nothing but the component's `describe`.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use ocelli_protocol::decode_device::DecodeDevice;
use ocelli_protocol::gate::Gate;
use ocelli_protocol::worker::{
    Decode, Description, FromWorker, Start, ToWorker, WorkerMode, WorkerStage,
};
use serde_json::{Map, Value};

use super::fault::WorkerFault;
use super::limits::WorkerSettings;
use super::process::{Granted, WorkerProcess};
use super::validate;
use crate::config::Config;
use crate::inference::InferenceAttachment;
use crate::redis::keyvalue;

/// How long it may take: loading the component takes milliseconds, its `describe` at most
/// `call_timeout_ms`.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Shared memory for tensors, of which it makes none: a page.
const TENSOR_MEMORY: usize = 4096;

/// What came of a trial.
#[derive(Debug)]
pub(crate) struct Trial {
    /// What the pipeline says of itself.
    pub(crate) description: Description,
    /// Why it refuses the settings, if it does.
    pub(crate) refusal: Option<String>,
}

/// Lets a compiled component describe itself in a confined process, `program`, and holds settings
/// against its schema. To be called on a thread of the runtime.
pub(crate) async fn try_settings(
    program: &Path,
    pipeline: &str,
    component: &OwnedFd,
    settings: &Map<String, Value>,
    config: &Config,
) -> anyhow::Result<Trial> {
    let attachment = InferenceAttachment::unserved(TENSOR_MEMORY)?;
    let redis = keyvalue::unserved_socket()?;
    let gate = Gate::new(WorkerMode::Describe, true);
    let terms = WorkerSettings::new(config);
    let granted = Granted { device: &DecodeDevice::Cpu, directories: Vec::new() };
    let (mut process, mut sender) =
        WorkerProcess::start(program, pipeline, gate, &attachment, component, redis, granted)?;
    let start = Start {
        session: pipeline.to_owned(),
        settings: serde_json::to_string(settings)?,
        mode: WorkerMode::Describe,
        decode: Decode::default(),
        limits: terms.limits,
        heartbeat_ms: u32::try_from(TIMEOUT.as_millis()).unwrap_or(u32::MAX),
        standby: true,
        redis_granted: false,
        annotate: false,
    };
    sender.send(&ToWorker::Start(start), &[]).await?;
    let answer = tokio::time::timeout(TIMEOUT, answer(&mut process, &terms)).await;
    process.kill();
    process.end(Duration::ZERO).await;
    answer.with_context(|| format!("it has not described itself in {} s", TIMEOUT.as_secs()))?
}

async fn answer(process: &mut WorkerProcess, terms: &WorkerSettings) -> anyhow::Result<Trial> {
    let mut description = None;
    let refusal = loop {
        let (message, _) = process.receive().await.map_err(WorkerFault::from)?;
        match message {
            FromWorker::SandboxReport(confinement) => terms.admit(&confinement)?,
            FromWorker::Described(described) => {
                validate::description(&described)?;
                description = Some(described);
            }
            FromWorker::Ready => break None,
            FromWorker::Failed { stage: WorkerStage::Settings, message, .. } => {
                break Some(message);
            }
            FromWorker::Failed { stage, message, .. } => bail!("{stage:?}: {message}"),
            _ => {}
        }
    };
    let description = description.context("it has not described itself")?;
    Ok(Trial { description, refusal })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use ocelli_protocol::confinement::{Confinement, Measure, MissingMeasure};
    use ocelli_protocol::wire;

    use super::*;
    use crate::config::Sandbox;

    #[tokio::test]
    async fn a_trial_is_confined_as_the_config_requires() {
        let missing = MissingMeasure { measure: Measure::Files, reason: "no landlock".into() };
        let report = Confinement { enforced: Vec::new(), missing: vec![missing] };
        let message = wire::encode(&FromWorker::SandboxReport(report), 0).unwrap();
        let message: String = message.iter().map(|byte| format!("\\{byte:03o}")).collect();
        // The shell runs the file that is named as the pipeline, which reports and ends once the
        // host has sent it something: a host that still sends would see a broken pipe instead.
        let mut script = tempfile::NamedTempFile::new().unwrap();
        writeln!(script, "head -c 1 <&3 >/dev/null; printf '{message}' >&3").unwrap();
        let pipeline = script.path().to_str().unwrap();
        let component = File::open("/dev/null").unwrap().into();
        let mut config = Config::default();
        for (sandbox, is_refused) in [(Sandbox::Required, true), (Sandbox::BestEffort, false)] {
            config.session_processes.sandbox = sandbox;
            let shell = Path::new("/bin/sh");
            let tried = try_settings(shell, pipeline, &component, &Map::new(), &config).await;
            let error = format!("{:#}", tried.unwrap_err());
            assert_eq!(error.contains("no landlock"), is_refused, "{error}");
        }
    }
}
