//! Makes the tables of the files that the program has inside: the dashboard's, which
//! `src/api/ui.rs` embeds, built ahead (`host/ui`), so that this crate needs no Node; and those of
//! new projects, which `src/cli/pipeline/template.rs` embeds.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The built dashboard, relative to the package.
const DASHBOARD: &str = "ui/dist";

/// What new projects are made of: where it lies in the table, and relative to the package.
const PROJECTS: &[(&str, &str)] = &[
    ("rust/", "../guest-pipeline/templates/rust"),
    ("python/", "../guest-pipeline/templates/python"),
    ("js/", "../guest-pipeline/templates/js"),
    ("ts/", "../guest-pipeline/templates/ts"),
    ("all/", "../guest-pipeline/templates/all"),
    ("sdk/", "../guest-pipeline/sdk"),
    ("sdk-python/", "../guest-pipeline/sdk-python"),
    ("sdk-js/", "../guest-pipeline/sdk-js"),
    ("wit/", "../wit/0.3"),
    ("clips/spot.mp4", "../tests/clips/spot.mp4"),
];

/// Folders that tools leave behind, which are no part of a project.
const LEFT_BEHIND: &[&str] = &["__pycache__", "build", "dist", "node_modules", "target"];

/// Folders of an SDK that are no part of a project besides: its tests take files of this
/// repository.
const NOT_OF_AN_SDK: &[&str] = &["tests"];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let package =
        env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).ok_or(io::ErrorKind::NotFound)?;
    let mut dashboard = Files::default();
    // A checkout without it builds a host without a dashboard, which says so; `./x lint` does not
    // let that pass.
    dashboard.list(&package.join(DASHBOARD), "", &[])?;
    dashboard.write("ui_files.rs")?;
    let mut projects = Files::default();
    for (place, path) in PROJECTS {
        let path = package.join(path);
        if path.is_file() {
            projects.add((*place).to_owned(), path);
        } else if place.starts_with("sdk") {
            projects.list(&path, place, &[LEFT_BEHIND, NOT_OF_AN_SDK].concat())?;
        } else {
            projects.list(&path, place, LEFT_BEHIND)?;
        }
    }
    projects.write("project_files.rs")
}

/// Files by their paths in a table.
#[derive(Default)]
struct Files(Vec<(String, PathBuf)>);

impl Files {
    fn add(&mut self, place: String, path: PathBuf) {
        println!("cargo:rerun-if-changed={}", path.display());
        self.0.push((place, path));
    }

    /// Adds all files below a folder, through links, but the hidden ones and folders of these
    /// names. Returns whether that is all of it; Cargo watches such a folder for new files.
    fn list(&mut self, folder: &Path, above: &str, without: &[&str]) -> io::Result<bool> {
        if !folder.is_dir() {
            return Ok(false);
        }
        let mut whole = true;
        for entry in fs::read_dir(folder)? {
            let (name, path) = {
                let entry = entry?;
                (entry.file_name().to_string_lossy().into_owned(), entry.path())
            };
            if !path.is_dir() {
                if !name.starts_with('.') {
                    self.add(format!("{above}{name}"), path);
                }
            } else if without.contains(&name.as_str()) || name.starts_with('.') {
                whole = false;
            } else {
                whole &= self.list(&path, &format!("{above}{name}/"), without)?;
            }
        }
        if whole {
            println!("cargo:rerun-if-changed={}", folder.display());
        }
        Ok(whole)
    }

    /// Writes the table into the build's own folder: paths and contents.
    fn write(mut self, name: &str) -> io::Result<()> {
        self.0.sort();
        let mut table = String::from("&[\n");
        for (place, path) in self.0 {
            // Writing to memory does not fail.
            let _ = writeln!(table, "({place:?}, include_bytes!({path:?}) as &[u8]),");
        }
        table.push(']');
        let folder = env::var_os("OUT_DIR").map(PathBuf::from).ok_or(io::ErrorKind::NotFound)?;
        fs::write(folder.join(name), table)
    }
}
