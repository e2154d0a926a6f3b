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
        /// The system's error.
        source: std::io::Error,
    },
    /// A file of a model cannot be read or copied.
    #[error("model {model}: {path}: {source}")]
    File {
        /// The model's folder.
        model: String,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// `model.toml` is not as it should be.
    #[error("model {model}: {path}: {message}")]
    Manifest {
        /// The model's folder.
        model: String,
        /// The file.
        path: PathBuf,
        /// The error, for people.
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
        /// The digest in model.toml.
        expected: String,
        /// The digest of the file.
        found: String,
    },
    /// The config sets an option that the model cannot have.
    #[error("{key}: {message}")]
    Options {
        /// The key.
        key: String,
        /// The error, for people.
        message: String,
    },
}
