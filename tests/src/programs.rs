//! A folder of programs for one host, in which a test's own program takes the place of the worker.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::host::program;

/// The programs; the folder goes when this is dropped.
#[derive(Debug)]
pub struct Programs {
    folder: TempDir,
}

impl Programs {
    /// The product's programs with `worker` in the place of `ocelli-worker`. The real one lies beside it as
    /// `ocelli-worker-honest`.
    pub fn with_worker(worker: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = Self { folder };
        let pipelines = programs.folder.path().join("pipelines");
        fs::create_dir(programs.programs()).unwrap();
        fs::create_dir(&pipelines).unwrap();
        // Copies: a host looks for its children where its own program really lies.
        let copy = |from: &Path, name: &str| fs::copy(from, programs.programs().join(name)).unwrap();
        for name in ["ocelli", "ocelli-inference", "ocelli-compile"] {
            copy(&program(name), name);
        }
        copy(&program("ocelli-worker"), "ocelli-worker-honest");
        copy(worker, "ocelli-worker");
        // The gallery lies beside the folder of the programs.
        let gallery = program("ocelli").parent().and_then(Path::parent).unwrap().join("pipelines");
        let pipeline = "object-detect.wasm";
        fs::copy(gallery.join(pipeline), pipelines.join(pipeline)).unwrap();
        programs
    }

    /// The host's program.
    pub(crate) fn host(&self) -> PathBuf {
        self.programs().join("ocelli")
    }

    fn programs(&self) -> PathBuf {
        self.folder.path().join("programs")
    }
}
