//! The components of a config's pipelines, and whether the settings fit them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use ocelli_protocol::inference::Model;
use serde_json::{Map, Value};

use super::Finding;
use crate::config::{Camera, ConfigFile};
use crate::deploy::{Compiler, ComponentSource, PreparedComponent, find_named, find_pipeline};
use crate::inference::catalog::missing_model;
use crate::worker::{Trial, try_settings};

/// Workers that try settings at the same time: each is busy for some milliseconds.
const TRIALS: usize = 4;

/// A pipeline with settings, as a camera or `[[analyze.pipelines]]` has it.
struct PipelineUse<'a> {
    /// The key of its table: `cameras[0]`.
    table: String,
    /// The member that names the pipeline.
    member: &'static str,
    camera: Option<&'a Camera>,
    pipeline: &'a str,
    path: PathBuf,
    settings: &'a Map<String, Value>,
}

impl PipelineUse<'_> {
    fn finding(&self, file: &ConfigFile, member: &str, fault: &str) -> Finding {
        let problem = file.problem(format!("{}.{member}", self.table), fault);
        match self.camera {
            Some(camera) => Finding::of_camera(problem, camera),
            // The host starts, and the pipeline's workers fail.
            None => Finding::tolerable(problem),
        }
    }
}

/// Checks and compiles the components, lets each describe itself in a confined process, `worker`,
/// and holds the settings against its schema; `models`: and its needs against these. Only for
/// cameras that are `concerned`. A pipeline that is not found is left to [`super::files`].
pub(crate) async fn components(
    compiler: &Compiler,
    worker: &Path,
    file: &ConfigFile,
    concerned: impl Fn(&Camera) -> bool,
    models: Option<&[Model]>,
) -> Vec<Finding> {
    let uses = uses(file, concerned);
    let mut findings = Vec::new();
    let mut compiled: BTreeMap<&Path, Result<PreparedComponent, String>> = BTreeMap::new();
    for one in &uses {
        if !compiled.contains_key(one.path.as_path()) {
            let source = ComponentSource::Path(one.path.clone());
            let prepared = compiler.prepare("check", one.pipeline, source).await;
            compiled.insert(&one.path, prepared.map_err(|error| error.to_string()));
        }
    }
    // Settings that several cameras share are tried once.
    let mut trials: BTreeMap<(&str, String), Vec<&PipelineUse<'_>>> = BTreeMap::new();
    for one in &uses {
        match compiled.get(one.path.as_path()) {
            Some(Ok(prepared)) => {
                let settings = Value::Object(one.settings.clone()).to_string();
                trials.entry((&prepared.digest, settings)).or_default().push(one);
            }
            Some(Err(error)) => findings.push(one.finding(file, one.member, error)),
            None => {}
        }
    }
    let mut trying = Vec::new();
    for uses in trials.into_values() {
        let Some(one) = uses.first() else { continue };
        let Some(Ok(prepared)) = compiled.get(one.path.as_path()) else { continue };
        let (pipeline, settings) = (one.pipeline, one.settings);
        let component = Arc::clone(&prepared.compiled);
        trying.push(async move {
            let tried = try_settings(worker, pipeline, &component, settings, &file.config).await;
            (uses, tried)
        });
    }
    let tried: Vec<_> = stream::iter(trying).buffered(TRIALS).collect().await;
    for (uses, tried) in tried {
        for one in uses {
            match &tried {
                Ok(Trial { description, refusal }) => {
                    let refused = refusal.as_ref();
                    findings.extend(refused.map(|words| one.finding(file, "settings", words)));
                    let missing = models.and_then(|models| missing_model(models, description));
                    findings.extend(missing.map(|words| one.finding(file, one.member, &words)));
                }
                Err(error) => {
                    let words = format!("pipeline {}: {error:#}", one.pipeline);
                    findings.push(one.finding(file, one.member, &words));
                }
            }
        }
    }
    findings
}

fn uses(file: &ConfigFile, concerned: impl Fn(&Camera) -> bool) -> Vec<PipelineUse<'_>> {
    let config = &file.config;
    let cameras = config.cameras.iter().enumerate().filter(|(_, camera)| concerned(camera));
    let cameras = cameras.filter_map(|(index, camera)| {
        Some(PipelineUse {
            table: format!("cameras[{index}]"),
            member: "pipeline",
            camera: Some(camera),
            pipeline: &camera.pipeline,
            path: find_pipeline(&camera.pipeline, config).ok()?,
            settings: &camera.settings,
        })
    });
    let kept = config.analyze.pipelines.iter().enumerate().filter_map(|(index, kept)| {
        Some(PipelineUse {
            table: format!("analyze.pipelines[{index}]"),
            member: "name",
            camera: None,
            pipeline: &kept.name,
            path: find_named(&kept.name, config).ok()?,
            settings: &kept.settings,
        })
    });
    cameras.chain(kept).collect()
}
