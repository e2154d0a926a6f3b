//! The one way for a test to not run: it says what the machine lacks, and `./x test` lists it at
//! its end.
//!
//! A test that calls [`skip`] returns at once after it. Under `CI=true`, `./x test` fails for each
//! skip that `tests/skips.toml` does not allow, so a test that cannot run never counts as one that
//! passed.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// The file that `./x test` reads, a line per skip: the test's name, a tab, the reason.
pub const FILE_VARIABLE: &str = "OCELLI_SKIPPED_TESTS";

/// Records that the calling test does not run, and why. The reason names what the machine lacks.
///
/// Outside `./x test` the line goes to standard error alone.
///
/// # Panics
///
/// If the file cannot be written: a skip that nobody would see is a failure.
pub fn skip(reason: &str) {
    // nextest says which test it runs. libtest names a test's thread after it, unless there is one
    // thread for all.
    let test = std::env::var("NEXTEST_TEST_NAME")
        .ok()
        .or_else(|| std::thread::current().name().map(str::to_owned))
        .unwrap_or_else(|| "a test without a name".to_owned());
    let program =
        std::env::current_exe().ok().and_then(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    // cargo appends a hash to the names of test programs.
    let program =
        program.as_deref().and_then(|name| name.rsplit_once('-')).map_or("", |(name, _)| name);
    let line = format!("{program}::{test}\t{}\n", reason.replace(['\t', '\n'], " "));
    eprint!("SKIPPED {line}");
    if let Some(file) = std::env::var_os(FILE_VARIABLE).map(PathBuf::from) {
        // One write of a short line at the end of a file: lines of tests that run at once do not
        // mix.
        let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
