//! That one set of features serves every build: what `features/Cargo.toml` is kept true by.
//!
//! For each crate of the workspace Cargo is asked which dependencies, with which features, its
//! tests are built with when `ocelli-features` is selected beside it. All have to be among those of
//! the workspace as a whole: a dependency that is not would be compiled a second time. The commands
//! of this tool are looked at, too: each selects the whole workspace, or that crate beside others.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::process;
use crate::workspace::Workspace;

/// The crate that asks for the features.
pub(crate) const UNIFIER: &str = "ocelli-features";

/// A package, its version, and its features, as `cargo tree` prints them: `tokio v1.54.1|fs,net`.
type Line = String;

/// What Cargo is asked about: everything, and without macros and build scripts, which have features
/// of their own of the same dependencies.
const EDGES: [&str; 2] = ["normal,build,dev", "no-build,no-proc-macro"];

/// An error that names, for each crate, the dependencies that it alone would build with other
/// features.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    for entry in std::fs::read_dir(workspace.root().join("xtask/src"))? {
        let path = entry?.path();
        if path.is_file() {
            let source = std::fs::read_to_string(&path)?;
            let alone = selections_alone(&source);
            let path = path.display();
            ensure!(
                alone.is_empty(),
                "{path}: {alone:?} build a crate without {UNIFIER} beside it"
            );
        }
    }
    let mut lacking = BTreeSet::new();
    for edges in EDGES {
        let whole = tree(workspace, edges, &["--workspace"])?;
        for name in workspace.members().filter(|name| *name != UNIFIER) {
            let own = tree(workspace, edges, &["-p", name])?;
            let together = tree(workspace, edges, &["-p", name, "-p", UNIFIER])?;
            let others = others(&own, &together, &whole);
            lacking.extend(others.into_iter().map(|line| format!("\n  {name}: {line}")));
        }
    }
    let lacking: String = lacking.into_iter().collect();
    ensure!(
        lacking.is_empty(),
        "built alone, these crates have dependencies with other features than the workspace has; \
         name those features in features/Cargo.toml:{lacking}"
    );
    Ok(())
}

/// The functions in a file of this tool that have Cargo select crates without the unifier.
fn selections_alone(source: &str) -> Vec<&str> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let functions = code.split("\nfn ").flat_map(|part| part.split("\npub(crate) fn "));
    let alone = functions.filter(|text| text.contains("\"-p\"") && !text.contains("UNIFIER"));
    alone.filter_map(|text| text.split('(').next()).collect()
}

/// Lines of `together` that `whole` lacks, of packages that the crate's `own` graph has.
fn others<'a>(
    own: &BTreeSet<Line>,
    together: &'a BTreeSet<Line>,
    whole: &'a BTreeSet<Line>,
) -> Vec<&'a Line> {
    let own: BTreeSet<&str> = own.iter().map(|line| package(line)).collect();
    together.difference(whole).filter(|line| own.contains(package(line))).collect()
}

fn package(line: &str) -> &str {
    line.split_once(' ').map_or(line, |(name, _)| name)
}

fn tree(workspace: &Workspace, edges: &str, selection: &[&str]) -> Result<BTreeSet<Line>> {
    let mut command = workspace.cargo();
    command.args(["tree", "--locked", "--prefix", "none", "--format", "{p}|{f}", "--edges", edges]);
    let printed = process::output(command.args(selection))?;
    // A crate of the workspace is printed with its folder, and one whose dependencies were printed
    // above with a star.
    let lines = printed.lines().map(|line| line.trim_end_matches(" (*)"));
    Ok(lines
        .filter(|line| line.contains('|') && !line.contains(" (/"))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> BTreeSet<Line> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_function_that_selects_a_crate_without_the_unifier_is_named() {
        let source = "use x;\n\nfn good() { args([\"-p\", name, \"-p\", UNIFIER]) }\n\n\
            pub(crate) fn bad(it: It) { args([\"-p\", \"it\"]) }\n";
        assert_eq!(selections_alone(source), ["bad"]);
        assert!(selections_alone("fn whole() { args([\"--workspace\"]) }").is_empty());
    }

    #[test]
    fn a_dependency_with_other_features_is_named_if_the_crate_has_it() {
        let whole = lines(&["tokio v1.54.1|fs,net", "png v0.18.1|"]);
        let own = lines(&["tokio v1.54.1|fs"]);
        assert_eq!(others(&own, &own, &whole), ["tokio v1.54.1|fs"]);
        let together = lines(&["tokio v1.54.1|fs,net", "png v0.18.1|brotli"]);
        assert!(others(&own, &together, &whole).is_empty());
    }
}
