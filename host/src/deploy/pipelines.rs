//! Where a pipeline's component lies.

use std::path::{Path, PathBuf};

use crate::config::Config;

/// Why a pipeline is not found.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A path that leads nowhere.
    #[error("pipeline {path}: no such file")]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// A name that no folder has.
    #[error("there is no pipeline {name:?}: looked for {}", looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and "))]
    Unknown {
        /// The name.
        name: String,
        /// The files that were looked for.
        looked: Vec<PathBuf>,
    },
    /// Not a name.
    #[error(
        "{0:?} is not a pipeline's name: letters, digits, `-`, `_` and `.` are, not at the beginning `.`"
    )]
    NotAName(String),
}

/// The component of a configured pipeline: a path that ends in `.wasm`, or a name that is looked for in the store, then in
/// the gallery that was built beside the program.
pub fn find_pipeline(pipeline: &str, config: &Config) -> Result<PathBuf, PipelineError> {
    if !pipeline.ends_with(".wasm") {
        return find_named(pipeline, config);
    }
    let path = PathBuf::from(pipeline);
    if path.is_file() { Ok(path) } else { Err(PipelineError::NoFile { path }) }
}

/// The component of a pipeline by its name alone: names from outside never become paths.
pub fn find_named(name: &str, config: &Config) -> Result<PathBuf, PipelineError> {
    let ordinary = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(ordinary) {
        return Err(PipelineError::NotAName(name.to_owned()));
    }
    let file = format!("{name}.wasm");
    let mut looked = vec![config.store.directory.join("pipelines").join(&file)];
    looked.extend(gallery().map(|gallery| gallery.join(&file)));
    match looked.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(PipelineError::Unknown { name: name.to_owned(), looked }),
    }
}

/// `target/pipelines`, seen from the program in `target/release`.
fn gallery() -> Option<PathBuf> {
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
            assert!(matches!(find_named(name, &config), Err(PipelineError::NotAName(_))), "{name:?}");
        }
        let error = find_pipeline("nose", &config).unwrap_err().to_string();
        assert!(error.contains("nose") && error.contains("pipelines"), "{error}");
        assert!(matches!(find_pipeline("gone.wasm", &config), Err(PipelineError::NoFile { .. })));
    }
}
