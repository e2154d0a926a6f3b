//! Why a model, or the models' folder, cannot be used.

use std::path::{Path, PathBuf};

use super::graph_file::GraphFault;

/// Why a model cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The models' folder cannot be read.
    #[error(
        "models: {directory}: {source}; set `models.directory` to the folder that holds the models"
    )]
    Directory { directory: PathBuf, source: std::io::Error },
    /// A file of a model cannot be read or copied.
    #[error("model {model}: {path}: {source}")]
    File { model: String, path: PathBuf, source: std::io::Error },
    /// `model.toml` is not as it should be.
    #[error("model {model}: {path}: {message}")]
    Manifest { model: String, path: PathBuf, message: String },
    /// The graph is not the one that `model.toml` describes.
    #[error(
        "model {model}: {path} has sha256 {found}, model.toml says {expected}: the file is \
         damaged or was exchanged; restore it, or correct `sha256` if the new file is meant"
    )]
    Digest { model: String, path: PathBuf, expected: String, found: String },
    /// The graph's file is none that ONNX Runtime reads.
    #[error("model {model}: {path}: {fault}")]
    Graph { model: String, path: PathBuf, fault: GraphFault },
    /// The config sets an option that the model cannot have.
    #[error("{key}: {message}")]
    Options { key: String, message: String },
}

impl CatalogError {
    /// Of a model's file.
    pub(super) fn file<'a>(
        model: &'a str,
        path: &'a Path,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        |source| Self::File { model: model.to_owned(), path: path.to_owned(), source }
    }
}
