//! That the folder stands alone: it is published, and copied into the projects of authors.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes helpers of tests for production code"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates of the folder, by their manifests.
const CRATES: [&str; 2] = ["Cargo.toml", "settings/Cargo.toml"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of a table of a manifest.
fn table<'a>(manifest: &'a str, name: &str) -> Vec<&'a str> {
    let lines = manifest.lines().skip_while(|line| *line != format!("[{name}]")).skip(1);
    lines.take_while(|line| !line.starts_with('[')).filter(|line| line.contains(" = ")).collect()
}

#[test]
fn the_contract_is_the_newest_of_the_repository_and_no_copy() {
    let contracts = folder().join("../../wit");
    let versions = fs::read_dir(&contracts).unwrap().map(|entry| entry.unwrap());
    let versions = versions.filter(|entry| entry.path().is_dir()).filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let number: Option<Vec<u32>> = name.split('.').map(|part| part.parse().ok()).collect();
        number.map(|number| (number, name))
    });
    let (_, newest) = versions.max().unwrap();
    let link = fs::read_link(folder().join("wit")).unwrap();
    assert_eq!(link, Path::new("../../wit").join(newest));
}

#[test]
fn nothing_in_the_manifests_leads_out_of_the_folder() {
    for path in CRATES {
        let manifest = read(&folder().join(path));
        assert!(!manifest.contains("workspace = true"), "{path} inherits of the workspace");
        assert!(!manifest.contains("path = \".."), "{path} depends on what is outside");
    }
}

#[test]
fn the_lints_are_those_of_the_workspace() {
    let workspace = read(&folder().join("../../Cargo.toml"));
    for kind in ["lints.rust", "lints.clippy"] {
        let expected = table(&workspace, &format!("workspace.{kind}"));
        assert!(!expected.is_empty(), "no {kind} in the workspace");
        for path in CRATES {
            assert_eq!(table(&read(&folder().join(path)), kind), expected, "{kind} of {path}");
        }
    }
}

/// Cargo's own list, which needs no registry.
#[test]
fn what_is_published_has_the_contract_and_the_licences() {
    let listed = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline", "-p", "ocelli-sdk"])
        .current_dir(folder())
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<_> = listed.lines().collect();
    for file in [
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "src/lib.rs",
        "wit/boxes.wit",
        "wit/deps/wasi-nn/wasi-nn.wit",
        "wit/frames.wit",
        "wit/pipeline.wit",
    ] {
        assert!(files.contains(&file), "{file} is missing in {files:?}");
    }
    assert!(!files.iter().any(|file| file.starts_with("settings")), "{files:?}");
}
