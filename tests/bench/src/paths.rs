//! Where the things that the bench runs lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ocelli::config::Config;
use ocelli::journal::Journal;
use ocelli::source::{ReaderPrograms, Sources};

/// The clip that every part shows: 768x576, 10 pictures a second, a key frame every 20.
pub const CLIP: &str = "people-576-high.mp4";

/// The same scene in 1920x1080.
pub const CLIP_1080: &str = "people-1080-high-b3.mp4";

/// A picture with one face.
pub const FACE: &str = "collins-1.jpg";

/// Files and programs. All paths are absolute.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The host; its children and the built-in pipelines are found beside it.
    pub host: PathBuf,
    /// The program `bare-loop`.
    pub bare_loop: PathBuf,
    /// The folder of models.
    pub models: PathBuf,
    /// The program `bare-models`.
    pub bare_models: PathBuf,
    /// A picture with one face.
    pub face: PathBuf,
    /// The folder of models that are for tests.
    pub test_models: PathBuf,
    /// The default pipeline's model.
    pub model: PathBuf,
    /// ONNX Runtime.
    pub library: PathBuf,
    /// See [`CLIP`].
    pub clip: PathBuf,
    /// The folder of all clips.
    pub clips: PathBuf,
    /// The program that plays clips as RTSP cameras.
    pub cameras: PathBuf,
}

/// Sources as the host has them. The readers lie beside this program.
pub(crate) fn sources() -> Result<Sources> {
    let own = std::env::current_exe().context("asking for this program's path")?;
    Ok(Sources::new(ReaderPrograms::beside(&own), Journal::temporary()?, &Config::default()))
}

impl Paths {
    /// A pipeline of the tests, which `./x bench` builds.
    pub fn test_pipeline(&self, name: &str) -> Result<PathBuf> {
        let programs = self.host.parent().and_then(|folder| folder.parent());
        let programs = programs.context("the host's program lies in no folder")?;
        let pipeline = programs.join("test-pipelines").join(name).with_extension("wasm");
        ensure!(pipeline.is_file(), "{} is missing: `./x bench` builds it", pipeline.display());
        Ok(pipeline)
    }

    /// Looks for all of them: programs in `programs` or else beside this one, the rest in the
    /// checkout `root`.
    pub fn find(root: &Path, programs: Option<&Path>) -> Result<Self> {
        let root = root.canonicalize().with_context(|| format!("no folder {}", root.display()))?;
        let own = std::env::current_exe().context("asking for this program's path")?;
        let own = own.parent().context("this program lies in no folder")?;
        let models = root.join("models");
        let found = Self {
            host: programs.unwrap_or(own).join("ocelli"),
            bare_loop: own.join("bare-loop"),
            bare_models: own.join("bare-models"),
            face: root.join("tests/faces").join(FACE),
            model: models.join(ocelli_sdk::nanodet::DEFAULT.name).join("model.onnx"),
            models,
            test_models: root.join("tests/models"),
            library: ocelli::inference::library::find(None)?.path.into(),
            clip: root.join("tests/clips").join(CLIP),
            clips: root.join("tests/clips"),
            cameras: root.join("tests/cameras/rtsp_cameras.py"),
        };
        for (path, remedy) in [
            (&found.host, "`./x build` makes it"),
            (&found.bare_loop, "`cargo build --release -p ocelli-bench` makes it"),
            (&found.bare_models, "`cargo build --release -p ocelli-bench` makes it"),
            (&found.face, "it belongs to the checkout; --root names another"),
            (&found.model, "it belongs to the checkout; --root names another"),
            (&found.clip, "it belongs to the checkout; --root names another"),
            (&found.cameras, "it belongs to the checkout; --root names another"),
        ] {
            ensure!(path.is_file(), "{} is missing: {remedy}", path.display());
        }
        Ok(Self { host: found.host.canonicalize()?, ..found })
    }
}
