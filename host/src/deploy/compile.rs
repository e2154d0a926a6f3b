//! Compiled components: made by `ocelli-compile` once, kept under the component's digest.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use command_fds::{CommandFdExt, FdMapping, FdMappingCollision};
use ocelli_protocol::process::compile as descriptor;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::config::Sandbox;
use crate::inference::catalogue::digest;
use crate::session::Deployment;

/// How long compiling may take: a component made of CPython takes 63 s of CPU.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Digits of the digest that name a deployment.
const ID_DIGITS: usize = 12;

/// Why a component was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The component or the cache cannot be read or written.
    #[error("pipeline {pipeline}: {path}: {source}")]
    File {
        /// The pipeline.
        pipeline: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The compiler could not be started or passed its files.
    #[error("pipeline {pipeline}: starting the compiler: {message}")]
    Start {
        /// The pipeline.
        pipeline: String,
        /// What the system said.
        message: String,
    },
    /// The compiler refused the component.
    #[error("pipeline {pipeline}: not a component that can be compiled: {message}")]
    Refused {
        /// The pipeline.
        pipeline: String,
        /// The compiler's words.
        message: String,
    },
    /// The compiler took too long and was ended.
    #[error("pipeline {pipeline}: compiling took longer than {} s", TIMEOUT.as_secs())]
    Timeout {
        /// The pipeline.
        pipeline: String,
    },
}

/// Compiles components in a child process and keeps the results.
pub(super) struct Compiler {
    program: PathBuf,
    cache: PathBuf,
    sandbox: Sandbox,
    /// What the compiled code is compatible with; part of its name in the cache.
    compatibility: String,
    /// One compilation at a time: each uses all cores.
    turn: Mutex<()>,
}

impl Compiler {
    /// A compiler with its cache in this folder, which is made if it is not there.
    pub(super) async fn new(program: PathBuf, cache: &Path, sandbox: Sandbox) -> anyhow::Result<Self> {
        std::fs::create_dir_all(cache).with_context(|| {
            format!("making {}: set `store.directory` to a folder that can be written", cache.display())
        })?;
        let asked =
            Command::new(&program).arg("--compatibility").env_clear().stdin(Stdio::null()).output().await;
        let asked = asked.with_context(|| format!("starting {}", program.display()))?;
        let compatibility = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        ensure!(
            asked.status.success() && !compatibility.is_empty(),
            "{} does not work: {}",
            program.display(),
            words(&asked.stderr)
        );
        Ok(Self { program, cache: cache.to_owned(), sandbox, compatibility, turn: Mutex::new(()) })
    }

    /// The deployment of a component, compiled now if it is not in the cache.
    pub(super) async fn deployment(
        &self,
        pipeline: &str,
        component: &Path,
    ) -> Result<Deployment, CompileError> {
        let file = |path: &Path| {
            let (pipeline, path) = (pipeline.to_owned(), path.to_owned());
            move |source| CompileError::File { pipeline, path, source }
        };
        let hashed = component.to_owned();
        let digest = tokio::task::spawn_blocking(move || digest(&hashed)).await;
        let digest =
            digest.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(file(component))?;
        let cached = self.cache.join(format!("{digest}-{}.cwasm", self.compatibility));
        let _turn = self.turn.lock().await;
        if !cached.is_file() {
            self.compile(pipeline, component, &cached).await?;
        }
        let compiled = std::fs::File::open(&cached).map_err(file(&cached))?;
        let id = digest.get(..ID_DIGITS).unwrap_or(&digest).to_owned();
        Ok(Deployment {
            pipeline: pipeline.to_owned(),
            id,
            digest,
            compiled: Ok(Arc::new(OwnedFd::from(compiled))),
        })
    }

    /// Compiles into a temporary file, which takes its place in the cache when it is whole.
    async fn compile(&self, pipeline: &str, component: &Path, cached: &Path) -> Result<(), CompileError> {
        let file = |path: &Path| {
            let (pipeline, path) = (pipeline.to_owned(), path.to_owned());
            move |source| CompileError::File { pipeline, path, source }
        };
        let start = |message: String| CompileError::Start { pipeline: pipeline.to_owned(), message };
        let begun = Instant::now();
        let input = std::fs::File::open(component).map_err(file(component))?;
        let output = tempfile::NamedTempFile::new_in(&self.cache).map_err(file(&self.cache))?;
        let written = output.as_file().try_clone().map_err(file(output.path()))?;
        let mut command = Command::new(&self.program);
        if self.sandbox == Sandbox::Required {
            command.arg("--require-sandbox");
        }
        command
            .fd_mappings(vec![
                FdMapping { parent_fd: input.into(), child_fd: descriptor::COMPONENT },
                FdMapping { parent_fd: written.into(), child_fd: descriptor::OUTPUT },
            ])
            .map_err(|FdMappingCollision| start("descriptors collide".into()))?
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let ended = match tokio::time::timeout(TIMEOUT, command.output()).await {
            Ok(ended) => ended.map_err(|error| start(error.to_string()))?,
            Err(_) => return Err(CompileError::Timeout { pipeline: pipeline.to_owned() }),
        };
        if !ended.status.success() {
            let message = format!("{} ({})", words(&ended.stderr), ended.status);
            return Err(CompileError::Refused { pipeline: pipeline.to_owned(), message });
        }
        output.persist(cached).map_err(|error| file(cached)(error.error))?;
        let took = begun.elapsed().as_millis();
        tracing::info!(target: "ocelli::deploy", pipeline, "compiled in {took} ms");
        Ok(())
    }
}

/// What a child wrote to its standard error, on one line and bounded.
fn words(stderr: &[u8]) -> String {
    /// A compiler's message names a function and a reason; more is a backtrace.
    const MAX: usize = 2000;
    let text = String::from_utf8_lossy(stderr.get(..stderr.len().min(MAX)).unwrap_or_default());
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
