//! Finds the component of a pipeline.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::compile::{ComponentSource, StoredComponent};
use crate::config::{Config, OciReferenceError};
use crate::util::folder::Folder;
use crate::util::installed::Installation;

/// The ending of a component's file.
const ENDING: &str = ".wasm";

/// Longest name in bytes: with its ending it is a file's name, which has at most 255.
const MAX_NAME: usize = 200;

/// Why a pipeline is not found.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The path of a component leads to no file.
    #[error("pipeline {path}: no such file")]
    NoFile {
        /// The path as the config has it.
        path: PathBuf,
    },
    /// No folder has a pipeline of this name.
    #[error("there is no pipeline {name:?}: looked for \
        {}", looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and "))]
    Unknown {
        /// The name that was looked for.
        name: String,
        /// The files that would have been its component.
        looked: Vec<PathBuf>,
    },
    /// A reference to a component in a registry has another form.
    #[error("{0:?}: {1}")]
    Reference(String, OciReferenceError),
    /// The text cannot be a pipeline's name.
    #[error(
        "{0:?} is not a pipeline's name: at most {MAX_NAME} letters, digits, `-`, `_` and `.` are, \
            not at the beginning `.`"
    )]
    NotAName(String),
}

/// The component of a configured pipeline: a path that ends in `.wasm`, or a name that is looked
/// for in the data directory, then among the built-in pipelines beside the program.
pub fn find_pipeline(pipeline: &str, config: &Config) -> Result<PathBuf, PipelineError> {
    PipelineFolders::new(config).configured(pipeline).map(|source| source.place())
}

/// The component of a pipeline by its name alone: names from outside never become paths.
pub fn find_named(name: &str, config: &Config) -> Result<PathBuf, PipelineError> {
    PipelineFolders::new(config).named(name).map(|source| source.place())
}

/// The folders in which the host looks for a name: that of the data directory, then that of the
/// built-in pipelines. Both are opened for each look: an operator may exchange them as a whole.
#[derive(Debug, Clone)]
pub(super) struct PipelineFolders {
    data: PathBuf,
}

impl PipelineFolders {
    /// Those of this config.
    pub(super) fn new(config: &Config) -> Self {
        Self { data: config.store.directory.join("pipelines") }
    }

    /// See [`find_pipeline`].
    pub(super) fn configured(&self, pipeline: &str) -> Result<ComponentSource, PipelineError> {
        if !pipeline.ends_with(ENDING) {
            return self.named(pipeline);
        }
        let path = PathBuf::from(pipeline);
        if path.is_file() {
            Ok(ComponentSource::Path(path))
        } else {
            Err(PipelineError::NoFile { path })
        }
    }

    /// See [`find_named`].
    pub(super) fn named(&self, name: &str) -> Result<ComponentSource, PipelineError> {
        check_name(name)?;
        let file = format!("{name}{ENDING}");
        let mut looked = Vec::new();
        for path in self.all_folders() {
            looked.push(path.join(&file));
            if let Ok(folder) = Folder::open(&path)
                && folder.read_linked(&file).is_ok()
            {
                return Ok(ComponentSource::Stored(StoredComponent { folder, name: file }));
            }
        }
        Err(PipelineError::Unknown { name: name.to_owned(), looked })
    }

    /// All pipelines that have a name. One in the data directory hides the built-in one of its
    /// name.
    pub(super) fn all(&self) -> BTreeMap<String, ComponentSource> {
        let mut all = BTreeMap::new();
        for path in self.all_folders() {
            for (name, source) in named_in(&path) {
                all.entry(name).or_insert(source);
            }
        }
        all
    }

    /// Those in the data directory.
    pub(super) fn in_data(&self) -> BTreeMap<String, ComponentSource> {
        named_in(&self.data)
    }

    /// Puts a component into the data directory under this name, which was checked, as a whole.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> std::io::Result<ComponentSource> {
        let name = format!("{name}{ENDING}");
        let folder = Folder::made(&self.data)?;
        let mut draft = folder.draft()?;
        draft.file.write_all(bytes)?;
        draft.file.sync_all()?;
        draft.persist(&name)?;
        Ok(ComponentSource::Stored(StoredComponent { folder, name }))
    }

    fn all_folders(&self) -> impl Iterator<Item = PathBuf> {
        let built_in = Installation::find().map(|installation| installation.pipelines());
        std::iter::once(self.data.clone()).chain(built_in)
    }
}

/// The pipelines of one folder. None where it cannot be read.
fn named_in(path: &Path) -> BTreeMap<String, ComponentSource> {
    let Ok(folder) = Folder::open(path) else { return BTreeMap::new() };
    let files = folder.names().unwrap_or_default().into_iter();
    let named = files.filter_map(|file| {
        let name = file.strip_suffix(ENDING)?.to_owned();
        check_name(&name).ok()?;
        folder.read_linked(&file).ok()?;
        Some((
            name,
            ComponentSource::Stored(StoredComponent { folder: folder.clone(), name: file }),
        ))
    });
    named.collect()
}

/// Checks that a pipeline can have this name.
pub(super) fn check_name(name: &str) -> Result<(), PipelineError> {
    let ordinary = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let fits = (1..=MAX_NAME).contains(&name.len());
    if !fits || name.starts_with('.') || !name.chars().all(ordinary) {
        let shown = name.chars().take(MAX_NAME).collect();
        return Err(PipelineError::NotAName(shown));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_comes_first_and_a_name_is_never_a_path() {
        let store = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.store.directory = store.path().to_owned();
        let file = store.path().join("pipelines/eye.wasm");
        std::fs::create_dir(store.path().join("pipelines")).unwrap();
        std::fs::write(&file, b"").unwrap();
        assert_eq!(find_pipeline("eye", &config).unwrap(), file);
        for name in ["../pipelines/eye", "", ".eye", "a/b", "a\0"] {
            assert!(
                matches!(find_named(name, &config), Err(PipelineError::NotAName(_))),
                "{name:?}"
            );
        }
        std::fs::write(store.path().join("pipelines/.draft-1.wasm"), b"").unwrap();
        std::fs::write(store.path().join("pipelines/notes.txt"), b"").unwrap();
        std::os::unix::fs::symlink("/dev/null", store.path().join("pipelines/null.wasm")).unwrap();
        let folders = PipelineFolders::new(&config);
        let names =
            |found: BTreeMap<String, ComponentSource>| found.into_keys().collect::<Vec<_>>();
        assert_eq!(names(folders.in_data()), ["eye"]);
        assert_eq!(folders.all()["eye"].place(), file);
        assert_eq!(folders.configured("eye").unwrap().place(), file);
        let long = "e".repeat(MAX_NAME + 1);
        for name in ["../pipelines/eye", "", ".eye", "a/b", "a\0", &long] {
            assert!(matches!(folders.named(name), Err(PipelineError::NotAName(_))), "{name:?}");
        }
        assert!(matches!(folders.named("null"), Err(PipelineError::Unknown { .. })));
        // What the host does not follow, a check does not find either.
        std::fs::write(store.path().join("outside.wasm"), b"").unwrap();
        std::os::unix::fs::symlink("../outside.wasm", store.path().join("pipelines/out.wasm"))
            .unwrap();
        assert!(matches!(folders.named("out"), Err(PipelineError::Unknown { .. })));
        assert!(matches!(find_named("out", &config), Err(PipelineError::Unknown { .. })));
        folders.put("nose", b"new").unwrap();
        assert_eq!(names(folders.in_data()), ["eye", "nose"]);
        std::fs::remove_file(store.path().join("pipelines/nose.wasm")).unwrap();
        let error = find_pipeline("nose", &config).unwrap_err().to_string();
        assert!(error.contains("nose") && error.contains("pipelines"), "{error}");
        assert!(matches!(find_pipeline("gone.wasm", &config), Err(PipelineError::NoFile { .. })));
    }
}
