//! A folder of programs for one host, in which a test's own program takes the place of the worker
//! or of inference.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::host::{built_in_pipeline, program};

/// The programs; the folder goes when this is dropped.
#[derive(Debug)]
pub struct Programs {
    folder: TempDir,
}

impl Programs {
    /// The product's programs with `worker` in the place of `ocelli-worker`. The real one lies
    /// beside it as `ocelli-worker-honest`.
    pub fn with_worker(worker: &Path) -> Self {
        let programs = Self::copied(&["ocelli-inference"]);
        programs.copy(&program("ocelli-worker"), "ocelli-worker-honest");
        programs.copy(worker, "ocelli-worker");
        programs
    }

    /// The product's programs with `inference` in the place of `ocelli-inference`.
    pub fn with_inference(inference: &Path) -> Self {
        let programs = Self::copied(&["ocelli-worker"]);
        programs.copy(inference, "ocelli-inference");
        programs
    }

    /// With these beside those that no test replaces.
    fn copied(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = Self { folder };
        let pipelines = programs.folder.path().join("pipelines");
        fs::create_dir(programs.programs()).unwrap();
        fs::create_dir(&pipelines).unwrap();
        let always = ["ocelli", "ocelli-compile", "ocelli-ingest", "ocelli-rtsp"];
        for name in names.iter().chain(&always) {
            programs.copy(&program(name), name);
        }
        fs::copy(built_in_pipeline("object-detect"), pipelines.join("object-detect.wasm")).unwrap();
        programs
    }

    /// A copy: a host looks for its children where its own program really lies.
    fn copy(&self, from: &Path, name: &str) {
        fs::copy(from, self.programs().join(name)).unwrap();
    }

    /// The host's program.
    pub(crate) fn host(&self) -> PathBuf {
        self.programs().join("ocelli")
    }

    fn programs(&self) -> PathBuf {
        self.folder.path().join("programs")
    }
}
