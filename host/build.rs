//! Makes the table of the dashboard's files, which `src/api/ui.rs` embeds. They are built ahead
//! (`host/ui`), so that this crate needs no Node.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The built dashboard, relative to the package.
const FOLDER: &str = "ui/dist";

/// The table in the build's own folder: paths and contents.
const TABLE: &str = "ui_files.rs";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={FOLDER}");
    let variable = |name| env::var_os(name).map(PathBuf::from).ok_or(io::ErrorKind::NotFound);
    let folder = variable("CARGO_MANIFEST_DIR")?.join(FOLDER);
    let mut paths = Vec::new();
    // A checkout without it builds a host without a dashboard, which says so; `./x lint` does not
    // let that pass.
    if folder.is_dir() {
        list(&folder, "", &mut paths)?;
    }
    paths.sort();
    let mut table = String::from("&[\n");
    for path in paths {
        let file = folder.join(&path);
        // Writing to memory does not fail.
        let _ = writeln!(table, "({path:?}, include_bytes!({:?}) as &[u8]),", file);
    }
    table.push(']');
    fs::write(variable("OUT_DIR")?.join(TABLE), table)
}

/// All files below a folder, by their paths from the dashboard's.
fn list(folder: &Path, above: &str, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{above}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{path}/"), paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}
