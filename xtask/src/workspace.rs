//! Where the checkout and its build outputs are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// The folders that the tasks work in, as Cargo sees them.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    #[serde(rename = "workspace_root")]
    root: PathBuf,
    #[serde(rename = "target_directory")]
    target: PathBuf,
    packages: Vec<Package>,
}

/// A crate of the workspace.
#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    targets: Vec<Target>,
}

/// What Cargo builds of a crate: a library, a program, a test …
#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

impl Workspace {
    /// Asks Cargo, so that CARGO_TARGET_DIR and Cargo's own configuration are respected.
    pub(crate) fn find() -> Result<Self> {
        let metadata =
            process::output(cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
        serde_json::from_str(&metadata).context("cannot read the answer of `cargo metadata`")
    }

    /// The names of the workspace's crates.
    pub(crate) fn members(&self) -> impl Iterator<Item = &str> {
        self.packages.iter().map(|package| package.name.as_str())
    }

    /// The version of the product.
    pub(crate) fn version(&self) -> &str {
        let host = self.packages.iter().find(|package| package.name == "ocelli");
        host.map_or("0.0.0", |host| &host.version)
    }

    /// The root files of all libraries and programs, each with the name of its crate.
    pub(crate) fn roots(&self) -> impl Iterator<Item = (&str, &Path)> {
        let targets = self.packages.iter().flat_map(|package| {
            package.targets.iter().map(|target| (package.name.as_str(), target))
        });
        let product =
            |kind: &String| !["test", "bench", "example", "custom-build"].contains(&kind.as_str());
        targets
            .filter(move |(_, target)| target.kind.iter().all(product))
            .map(|(name, target)| (name, target.src_path.as_path()))
    }

    /// The top of the checkout.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where Cargo puts what it builds.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// The release programs.
    pub(crate) fn programs(&self) -> PathBuf {
        self.target.join("release")
    }

    /// The Python environment of the tests' clients.
    pub(crate) fn clients(&self) -> PathBuf {
        self.target.join("clients")
    }

    /// The built-in pipelines: one `NAME.wasm` for each.
    pub(crate) fn pipelines(&self) -> PathBuf {
        self.target.join("pipelines")
    }

    /// The pipelines of the tests, likewise.
    pub(crate) fn test_pipelines(&self) -> PathBuf {
        self.target.join("test-pipelines")
    }

    /// A cargo command that runs at the top of the checkout.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        command
    }
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
