//! Finds the component of a pipeline.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::Config;

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
    /// The text cannot be a pipeline's name.
    #[error(
        "{0:?} is not a pipeline's name: letters, digits, `-`, `_` and `.` are, not at the \
            beginning `.`"
    )]
    NotAName(String),
}

/// The component of a configured pipeline: a path that ends in `.wasm`, or a name that is looked
/// for in the data directory, then among the built-in pipelines beside the program.
pub fn find_pipeline(pipeline: &str, config: &Config) -> Result<PathBuf, PipelineError> {
    if !pipeline.ends_with(".wasm") {
        return find_named(pipeline, config);
    }
    let path = PathBuf::from(pipeline);
    if path.is_file() { Ok(path) } else { Err(PipelineError::NoFile { path }) }
}

/// The component of a pipeline by its name alone: names from outside never become paths.
pub fn find_named(name: &str, config: &Config) -> Result<PathBuf, PipelineError> {
    check_name(name)?;
    let file = format!("{name}.wasm");
    let looked: Vec<PathBuf> = folders(config).iter().map(|folder| folder.join(&file)).collect();
    match looked.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(PipelineError::Unknown { name: name.to_owned(), looked }),
    }
}

/// All pipelines that have a name, with their files. One in the data directory hides the built-in
/// one of its name.
pub(super) fn all_named(config: &Config) -> BTreeMap<String, PathBuf> {
    let mut all = BTreeMap::new();
    for folder in folders(config) {
        for (name, path) in named_in(&folder) {
            all.entry(name).or_insert(path);
        }
    }
    all
}

/// The pipelines of one folder.
pub(super) fn named_in(folder: &Path) -> BTreeMap<String, PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten();
    let paths = files.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file());
    let named = paths.filter_map(|path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".wasm")?.to_owned();
        check_name(&name).ok()?;
        Some((name, path))
    });
    named.collect()
}

/// The folder of pipelines in the data directory.
pub(super) fn data_folder(config: &Config) -> PathBuf {
    config.store.directory.join("pipelines")
}

/// Checks that a pipeline can have this name.
pub(super) fn check_name(name: &str) -> Result<(), PipelineError> {
    let ordinary = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(ordinary) {
        return Err(PipelineError::NotAName(name.to_owned()));
    }
    Ok(())
}

/// The folders in which a name is looked for, in this order.
fn folders(config: &Config) -> Vec<PathBuf> {
    std::iter::once(data_folder(config)).chain(built_in()).collect()
}

/// The folder of the built-in pipelines: `target/pipelines`, seen from the program in
/// `target/release`.
fn built_in() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.parent().and_then(Path::parent).map(|target| target.join("pipelines"))
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
        assert_eq!(named_in(&data_folder(&config)), [("eye".to_owned(), file.clone())].into());
        assert_eq!(all_named(&config)["eye"], file);
        let error = find_pipeline("nose", &config).unwrap_err().to_string();
        assert!(error.contains("nose") && error.contains("pipelines"), "{error}");
        assert!(matches!(find_pipeline("gone.wasm", &config), Err(PipelineError::NoFile { .. })));
    }
}
