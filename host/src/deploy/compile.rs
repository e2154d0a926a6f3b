//! Makes compiled code of a component's bytes: `ocelli-compile`, a confined child process, checks
//! and compiles it, and a cache has the result under the component's digest.
//!
//! The bytes are read once, into sealed memory, which is hashed, checked and compiled; changes of
//! the file do not matter.

mod cache;
mod child;
mod error;
mod turns;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use ocelli_protocol::component::CheckReport;
use ocelli_protocol::digest::Digest;
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use tokio::process::Command;

use crate::config::{self, Sandbox};
use crate::session::CompiledPipeline;
use crate::util::folder::{Folder, open_regular};
use crate::worker::ControlGroups;
use cache::CompiledCache;
use child::{CompilerProcess, trusted};
use turns::{Begun, CompileTurn, CompileTurns, UnderWay};

pub use error::CompileError;

/// Checks that are cached: many times the pipelines of one host.
const REMEMBERED: usize = 64;

/// The place of a component's bytes.
#[derive(Debug, Clone)]
pub enum ComponentSource {
    /// In a file, which is read once.
    Path(PathBuf),
    /// In a file of a folder of the host's, likewise.
    Stored(StoredComponent),
    /// In memory, as they were sent.
    Bytes(Bytes),
}

/// A component's file in a folder that the host has opened.
#[derive(Debug, Clone)]
pub struct StoredComponent {
    pub(super) folder: Folder,
    pub(super) name: String,
}

impl ComponentSource {
    /// The bytes from their beginning on. May block.
    pub(super) fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Path(path) => Box::new(open_regular(path)?),
            Self::Stored(StoredComponent { folder, name }) => Box::new(folder.read_linked(name)?),
            Self::Bytes(bytes) => Box::new(bytes.as_ref()),
        })
    }

    /// The file's path, to be shown.
    pub(super) fn place(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Stored(StoredComponent { folder, name }) => folder.path().join(name),
            Self::Bytes(_) => PathBuf::from("the component sent"),
        }
    }
}

/// A component that has passed its check, compiled.
#[derive(Debug, Clone)]
pub struct PreparedComponent {
    /// SHA-256 of the component, hexadecimal.
    pub digest: String,
    /// Size of the component in bytes.
    pub size: u64,
    /// The compiled component, open for reading, even when its entry leaves the cache.
    pub compiled: Arc<OwnedFd>,
    /// The report of the check, without problems. `compile_ms` is set if it was compiled now.
    pub report: CheckReport,
    /// Whether the compiled code was in the cache.
    pub cached: bool,
}

impl PreparedComponent {
    /// The component as a worker's pipeline, under this name.
    pub fn compiled_pipeline(&self, pipeline: &str) -> CompiledPipeline {
        CompiledPipeline {
            name: pipeline.to_owned(),
            digest: self.digest.clone(),
            compiled: Ok(Arc::clone(&self.compiled)),
        }
    }
}

/// Checks and compiles components in a child process and keeps the results.
pub(crate) struct Compiler {
    child: CompilerProcess,
    cache: Arc<CompiledCache>,
    settings: Mutex<Arc<config::DeployConfig>>,
    turns: CompileTurns,
    under_way: UnderWay,
    checked: Mutex<VecDeque<CachedCheck>>,
}

/// A check without problems, and the keys that it was made with.
struct CachedCheck {
    digest: String,
    trusted: Option<Vec<String>>,
    report: CheckReport,
}

impl Compiler {
    /// A compiler with its cache in this folder, which is made if it is missing. Deletes incomplete
    /// files of a host that was killed.
    pub(crate) async fn new(
        program: PathBuf,
        cache: &Path,
        sandbox: Sandbox,
        groups: Option<ControlGroups>,
        settings: &config::DeployConfig,
    ) -> anyhow::Result<Self> {
        let asked = Command::new(&program)
            .arg("--compatibility")
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .await;
        let asked = asked.with_context(|| format!("starting {}", program.display()))?;
        let compatibility = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        ensure!(
            asked.status.success() && !compatibility.is_empty(),
            "{} does not work: {}",
            program.display(),
            child::one_line(&asked.stderr)
        );
        let cache = CompiledCache::open(cache, compatibility).with_context(|| {
            format!(
                "making {}: set `store.directory` to a folder that can be written",
                cache.display()
            )
        })?;
        Ok(Self {
            child: CompilerProcess { program, sandbox, groups },
            cache: Arc::new(cache),
            settings: Mutex::new(Arc::new(settings.clone())),
            turns: CompileTurns::default(),
            under_way: UnderWay::default(),
            checked: Mutex::default(),
        })
    }

    /// Takes over the section `deploy` of a config, for later preparations.
    pub(super) fn configure(&self, settings: &config::DeployConfig) {
        *self.settings.lock() = Arc::new(settings.clone());
    }

    /// Checks a component, and compiles it if the cache lacks it. `caller` has one turn of the
    /// compiler at a time; `pipeline` is for errors and the log.
    ///
    /// Signatures are checked against the config's keys as they are now, for cached code too.
    pub(crate) async fn prepare(
        &self,
        caller: &str,
        pipeline: &str,
        source: ComponentSource,
    ) -> Result<PreparedComponent, CompileError> {
        let settings = Arc::clone(&self.settings.lock());
        let most = u64::from(settings.max_component_mb) << 20;
        let path = source.place();
        let taken = blocking(move || take(&source, most)).await;
        let component = taken.map_err(|source| CompileError::file(pipeline, &path, source))?;
        let (digest, size) = (component.digest.clone(), component.size);
        let (compiled, report, cached) = match self.find_or_begin(caller, &digest).await {
            Ok(compiled) => (compiled, self.check(pipeline, component, &settings).await?, true),
            Err(_turn) => {
                let (compiled, report) = self.compile(pipeline, component, &settings).await?;
                (compiled, report, false)
            }
        };
        let compiled = Arc::new(compiled.into());
        Ok(PreparedComponent { digest, size, compiled, report, cached })
    }

    /// The compiled code of a component, if the cache has it; otherwise the caller's turn to
    /// compile it, while nothing else does.
    async fn find_or_begin(
        &self,
        caller: &str,
        digest: &str,
    ) -> Result<File, (Begun, CompileTurn)> {
        loop {
            self.under_way.end(digest).await;
            if let Some(compiled) = self.cached(digest).await {
                return Ok(compiled);
            }
            let turn = self.turns.take(caller).await;
            // Where another caller has begun meanwhile, the turn is for others while this one
            // waits.
            if let Some(begun) = self.under_way.begin(digest) {
                return match self.cached(digest).await {
                    Some(compiled) => Ok(compiled),
                    None => Err((begun, turn)),
                };
            }
        }
    }

    /// The compiled code of a component, if the cache has it whole.
    async fn cached(&self, digest: &str) -> Option<File> {
        let (cache, digest) = (Arc::clone(&self.cache), digest.to_owned());
        blocking(move || Ok(cache.find(&digest))).await.unwrap_or(None)
    }

    /// Checks a component that the cache has, or returns the check of the same bytes with the same
    /// keys.
    async fn check(
        &self,
        pipeline: &str,
        component: SealedComponent,
        settings: &config::DeployConfig,
    ) -> Result<CheckReport, CompileError> {
        let SealedComponent { bytes, digest, .. } = component;
        if let Some(report) = self.remembered(&digest, settings) {
            return Ok(report);
        }
        let report = self.child.run(pipeline, bytes, None, settings).await?;
        self.remember(digest, settings, &report);
        Ok(report)
    }

    /// Checks and compiles in one run of the child, into a file that becomes the cache's entry when
    /// it is complete.
    async fn compile(
        &self,
        pipeline: &str,
        component: SealedComponent,
        settings: &config::DeployConfig,
    ) -> Result<(File, CheckReport), CompileError> {
        let SealedComponent { bytes, digest, .. } = component;
        let at_cache = |source| CompileError::file(pipeline, self.cache.folder(), source);
        let draft = self.cache.draft().map_err(at_cache)?;
        let output = draft.file.try_clone().map_err(at_cache)?;
        let report = self.child.run(pipeline, bytes, Some(output), settings).await?;
        let (cache, named) = (Arc::clone(&self.cache), digest.clone());
        let most = settings.cache_mb << 20;
        let inserted = blocking(move || {
            let entry = cache.insert(&named, draft)?;
            cache.shrink(most);
            Ok(entry)
        });
        let compiled = inserted.await.map_err(at_cache)?;
        self.remember(digest, settings, &report);
        tracing::info!(
            target: "ocelli::deploy",
            pipeline,
            "compiled in {} ms, checked in {} ms",
            report.compile_ms.unwrap_or_default(),
            report.check_ms
        );
        Ok((compiled, report))
    }

    fn remembered(&self, digest: &str, settings: &config::DeployConfig) -> Option<CheckReport> {
        let trusted = trusted(settings);
        let checked = self.checked.lock();
        let found =
            checked.iter().find(|one| one.digest == digest && one.trusted.as_deref() == trusted)?;
        Some(found.report.clone())
    }

    fn remember(&self, digest: String, settings: &config::DeployConfig, report: &CheckReport) {
        let mut checked = self.checked.lock();
        if checked.len() >= REMEMBERED {
            checked.pop_front();
        }
        let report = CheckReport { compile_ms: None, ..report.clone() };
        let trusted = trusted(settings).map(<[_]>::to_vec);
        checked.push_back(CachedCheck { digest, trusted, report });
    }
}

/// Checks a component as a deployment does, and compiles nothing.
pub async fn check_component(
    program: PathBuf,
    sandbox: Sandbox,
    file: &Path,
    settings: &config::DeployConfig,
) -> Result<CheckReport, CompileError> {
    let pipeline = file.display().to_string();
    let (source, most) =
        (ComponentSource::Path(file.to_owned()), u64::from(settings.max_component_mb) << 20);
    let taken = blocking(move || take(&source, most)).await;
    let taken = taken.map_err(|source| CompileError::file(&pipeline, file, source))?;
    CompilerProcess { program, sandbox, groups: None }
        .run(&pipeline, taken.bytes, None, settings)
        .await
}

/// A component's bytes, which cannot change any more.
struct SealedComponent {
    /// Sealed memory, at its beginning.
    bytes: File,
    /// SHA-256, hexadecimal.
    digest: String,
    size: u64,
}

/// Copies a component into sealed memory: at most one byte more than `most`, so that the child sees
/// that it is too large.
fn take(source: &ComponentSource, most: u64) -> io::Result<SealedComponent> {
    let memory = memfd_create("ocelli-component", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut bytes = File::from(memory);
    let most = most.saturating_add(1);
    let (digest, size) = Digest::of_copy(source.open()?.take(most), &mut bytes)?;
    fcntl_add_seals(
        &bytes,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    bytes.rewind()?;
    Ok(SealedComponent { bytes, digest: digest.to_string(), size })
}

/// Runs blocking work outside of the runtime's own threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests;
