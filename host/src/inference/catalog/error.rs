//! Why a model, or the models' folder, cannot be used.

use std::path::PathBuf;

/// Why a model cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The models' folder cannot be read.
    #[error(
        "models: {directory}: {source}; set `models.directory` to the folder that holds the models"
    )]
    Directory {
        /// The folder.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of a model cannot be read, or not be kept.
    #[error("model {model}: {path}: {source}")]
    File {
        /// The model's folder.
        model: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `model.toml` is not as it should be.
    #[error("model {model}: {path}: {message}")]
    Manifest {
        /// The model's folder.
        model: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The graph is not the one that `model.toml` describes.
    #[error(
        "model {model}: {path} has sha256 {found}, model.toml says {expected}: the file is \
            damaged or was exchanged; \
         restore it, or correct `sha256` if the new file is meant"
    )]
    Digest {
        /// The model's folder.
        model: String,
        /// The graph's file.
        path: PathBuf,
        /// What model.toml says.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// The config asks of a model what it is not.
    #[error("{key}: {message}")]
    Options {
        /// The key.
        key: String,
        /// What is wrong.
        message: String,
    },
}
