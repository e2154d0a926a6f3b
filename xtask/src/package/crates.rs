//! The crates that programs and pipelines are built from, as Cargo resolves them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;
use crate::workspace::Workspace;

/// What Cargo says of the workspace and all that it depends on.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
    resolve: Resolve,
    workspace_members: BTreeSet<String>,
}

/// A crate in one version.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Crate {
    id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression; old crates have `/` for `OR`.
    pub(crate) license: Option<String>,
    pub(crate) manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// None is what goes into the program; others are for builds and tests.
    kind: Option<String>,
}

/// The crates of others that these crates of the workspace are built from for a target, sorted.
pub(crate) fn of(workspace: &Workspace, roots: &[&str], target: &str) -> Result<Vec<Crate>> {
    let mut cargo = workspace.cargo();
    cargo.args(["metadata", "--format-version=1", "--locked", "--filter-platform", target]);
    let metadata: Metadata = serde_json::from_str(&process::output(&mut cargo)?)
        .context("cannot read the answer of `cargo metadata`")?;
    reached(metadata, roots)
}

fn reached(metadata: Metadata, roots: &[&str]) -> Result<Vec<Crate>> {
    let nodes: BTreeMap<&str, &Node> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut waiting = Vec::new();
    for root in roots {
        let is_it = |package: &&Crate| {
            package.name == *root && metadata.workspace_members.contains(&package.id)
        };
        let found = metadata.packages.iter().find(is_it);
        waiting.push(found.with_context(|| format!("there is no crate {root}"))?.id.as_str());
    }
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if seen.insert(id) {
            let node = nodes.get(id).with_context(|| format!("{id} is not resolved"))?;
            let linked = |dependency: &&Dependency| {
                dependency.dep_kinds.iter().any(|kind| kind.kind.is_none())
            };
            waiting.extend(node.deps.iter().filter(linked).map(|to| to.pkg.as_str()));
        }
    }
    let of_others =
        |package: &&Crate| seen.contains(package.id.as_str()) && !is_own(&metadata, package);
    let mut crates: Vec<Crate> = metadata.packages.iter().filter(of_others).cloned().collect();
    crates.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(crates)
}

fn is_own(metadata: &Metadata, package: &Crate) -> bool {
    metadata.workspace_members.contains(&package.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(nodes: &str) -> Metadata {
        let packages = ["ocelli", "serde", "cc", "tester", "alien"].map(|name| {
            format!(
                r#"{{"id":"{name}","name":"{name}","version":"1.0.0","license":null,
                    "manifest_path":"/{name}/Cargo.toml"}}"#
            )
        });
        let text = format!(
            r#"{{"packages":[{}],"resolve":{{"nodes":[{nodes}]}},"workspace_members":["ocelli"]}}"#,
            packages.join(",")
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_only_builds_and_tests_is_no_part() {
        let nodes = r#"{"id":"ocelli","deps":[
                {"pkg":"serde","dep_kinds":[{"kind":null},{"kind":"dev"}]},
                {"pkg":"tester","dep_kinds":[{"kind":"dev"}]}]},
            {"id":"serde","deps":[{"pkg":"cc","dep_kinds":[{"kind":"build"}]}]},
            {"id":"alien","deps":[]}"#;
        let crates = reached(metadata(nodes), &["ocelli"]).unwrap();
        assert_eq!(crates.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["serde"]);
        assert!(reached(metadata(nodes), &["nobody"]).is_err());
    }
}
