//! The programs that these tests run are those that were built to be shipped, to the byte.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use ocelli_testkit::{built, built_in_pipeline, program};

const PROGRAMS: [&str; 6] = [
    "ocelli",
    "ocelli-compile",
    "ocelli-inference",
    "ocelli-ingest",
    "ocelli-rtsp",
    "ocelli-worker",
];

#[test]
fn programs_and_pipelines_under_test_are_those_that_were_built() {
    // As `sha256sum` writes and reads it, with names relative to its folder.
    let list = built("programs.sha256");
    let text = std::fs::read_to_string(&list)
        .unwrap_or_else(|error| panic!("{}: {error}: `./x build` writes it", list.display()));
    let name = |line: &str| {
        line.split_once("  ").unwrap_or_else(|| panic!("no digest and name: {line}")).1.to_owned()
    };
    let listed: BTreeSet<PathBuf> =
        text.lines().map(|line| list.with_file_name(name(line))).collect();
    let mut used: BTreeSet<PathBuf> = PROGRAMS.iter().map(|name| program(name)).collect();
    for entry in std::fs::read_dir(built("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            used.insert(built_in_pipeline(path.file_stem().unwrap().to_str().unwrap()));
        }
    }
    assert_eq!(used, listed, "what is used, and what was built");
    let checked = Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet"])
        .arg(list.file_name().unwrap())
        .current_dir(list.parent().unwrap())
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(checked.status.success(), "{}{}", said(&checked.stdout), said(&checked.stderr));
}
