//! `./x fuzz`: runs the fuzz targets of `fuzz/` under libFuzzer, each for some time.

use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{process, setup};

/// Longest input in bytes: a picture or a component larger than that makes a run slow and shows
/// nothing new.
const MAX_LENGTH: u32 = 64 << 10;

/// MiB of a target's process, and seconds of one input, beyond which either is a finding.
const MEMORY_MIB: u32 = 2048;
const TIMEOUT_S: u32 = 10;

/// Fuzzes each target, or the one named, for `seconds`. What is found lies in
/// `fuzz/artifacts/TARGET`; inputs that reach new code are collected in `target/fuzz-corpus`.
pub(crate) fn run(workspace: &Workspace, target: Option<&str>, seconds: u32) -> Result<ExitCode> {
    setup::for_building()?;
    let targets = targets(workspace)?;
    let chosen: Vec<&String> =
        targets.iter().filter(|name| target.is_none_or(|target| *name == target)).collect();
    if chosen.is_empty() {
        bail!("there is no such fuzz target; there are: {}", targets.join(", "));
    }
    let mut found = Vec::new();
    for name in chosen {
        eprintln!("==> fuzzing {name} for {seconds} s");
        if !fuzz(workspace, name, seconds)? {
            found.push(name.as_str());
        }
    }
    if found.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("found something, see fuzz/artifacts: {}", found.join(", "));
    Ok(ExitCode::FAILURE)
}

/// The targets: the folders of the corpora.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let corpora = workspace.root().join("fuzz/corpus");
    let entries = fs::read_dir(&corpora)
        .with_context(|| format!("cannot list {}", corpora.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<String> =
        entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Whether nothing was found.
fn fuzz(workspace: &Workspace, name: &str, seconds: u32) -> Result<bool> {
    let collected = workspace.target().join("fuzz-corpus").join(name);
    fs::create_dir_all(&collected)
        .with_context(|| format!("cannot make {}", collected.display()))?;
    let mut command = Command::new(setup::tool("cargo-fuzz")?);
    command.current_dir(workspace.root()).args(["run", "--features", "libfuzzer"]);
    // No sanitizer: those need a nightly compiler, and nearly all of the code is safe.
    command.args(["--sanitizer", "none", "--target-dir"]).arg(workspace.target().join("fuzz"));
    // libFuzzer writes to the first folder alone.
    command.arg(name).arg(&collected).arg(format!("fuzz/corpus/{name}"));
    command.arg("--").arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-max_len={MAX_LENGTH}")).arg(format!("-timeout={TIMEOUT_S}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB}")).arg("-print_final_stats=1");
    Ok(process::status(&mut command)?.success())
}
