//! `./x test` and `./x lint`.

use std::process::{Command, ExitCode, ExitStatus};
use std::{fs, io};

use anyhow::{Context, Result, bail};

use crate::helm::HELM;
use crate::nats_server::NATS_SERVER;
use crate::workspace::Workspace;
use crate::{
    features, fuzz, package, process, programs, promtool, sdks, setup, skips, structure, ui,
};

/// Tells the tests that they are to run their long loops whole.
const DEPTH: (&str, &str) = ("OCELLI_TEST_DEPTH", "full");

/// Seconds for each fuzz target after the tests with their long loops: whether the targets still
/// build, and find nothing at once.
const FUZZ_S: u32 = 30;

/// Runs all tests, or those that `filter` selects, and lists those that said that they cannot run
/// here. The runner's exit code is returned; under `CI=true` a failure where a test did not run
/// that CI must not go without.
pub(crate) fn test(workspace: &Workspace, full: bool, filter: &[String]) -> Result<ExitCode> {
    if full {
        eprintln!(
            "==> all tests with their long loops whole: about 20 minutes on two cores, after the \
                build"
        );
    }
    setup::for_testing(workspace)?;
    if filter.is_empty() {
        sdks::test(workspace)?;
    }
    programs::build(workspace)?;
    programs::build_test_pipelines(workspace)?;
    let mut runner = nextest(workspace)?;
    // The same selection and profile as `programs::build`: the tests meet the programs that lie
    // there.
    runner.args(["--release", "--workspace"]).args(filter);
    system_environment(&mut runner, workspace);
    if let Some(tool) = promtool::find() {
        runner.env(promtool::VARIABLE, tool);
    }
    HELM.tell(&mut runner);
    if full {
        runner.env(DEPTH.0, DEPTH.1);
    }
    let skipped = workspace.target().join("skipped-tests");
    match fs::remove_file(&skipped) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", skipped.display()));
        }
        _ => {}
    }
    runner.env(skips::FILE_VARIABLE, &skipped);
    eprintln!("==> {} (first time: several minutes) ...", process::shown(&runner));
    let status = process::status(&mut runner)?;
    let skips = skips::Report::read(workspace.root(), &skipped)?;
    eprint!("{skips}");
    let in_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    if status.success() && in_ci && !skips.is_allowed() {
        bail!("tests did not run that {} does not allow", skips::LIST);
    }
    if status.success() && full && filter.is_empty() {
        package::trial::run(workspace)?;
        return fuzz::run(workspace, None, FUZZ_S);
    }
    Ok(exit_code(status))
}

/// Runs the tests of one crate against the programs that the last build left, or those of them that
/// `filter` selects.
pub(crate) fn fast(workspace: &Workspace, name: &str, filter: &[String]) -> Result<ExitCode> {
    let mut runner = nextest(workspace)?;
    runner.args(["--release", "-p", name, "-p", features::UNIFIER]).args(filter);
    runner.env("CARGO_INCREMENTAL", "1");
    system_environment(&mut runner, workspace);
    process::status(&mut runner).map(exit_code)
}

/// How nextest is told how many threads tests may take together.
const THREADS: &str = "NEXTEST_TEST_THREADS";

/// .config/nextest.toml counts in quarters of a core.
const THREADS_PER_CORE: usize = 4;

/// The test runner. `cargo test` is no substitute: some tests need a process of their own, and
/// groups of tests weigh more than others (.config/nextest.toml).
fn nextest(workspace: &Workspace) -> Result<Command> {
    let mut runner = Command::new(setup::tool("cargo-nextest")?);
    runner.current_dir(workspace.root()).args(["nextest", "run"]);
    if std::env::var_os(THREADS).is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        runner.env(THREADS, (cores * THREADS_PER_CORE).to_string());
    }
    Ok(runner)
}

/// Checks the format of all crates, runs clippy over all of their targets, and holds the
/// dependencies and the dashboard to their rules.
pub(crate) fn lint(workspace: &Workspace) -> Result<ExitCode> {
    setup::for_building()?;
    setup::rust_component("rustfmt", "fmt")?;
    setup::rust_component("clippy", "clippy")?;
    process::step("checking the format", || {
        process::run(workspace.cargo().args(["fmt", "--all", "--check"]))
    })?;
    process::step("checking layers, names and errors of the source", || {
        structure::check(workspace)
    })?;
    process::step("checking that one set of features serves every build", || {
        features::check(workspace)
    })?;
    ui::check(workspace)?;
    process::step("checking dependencies: licences, sources, versions", || deny(workspace))?;
    let clippy = |command: &mut Command| process::run(command.args(["--", "-D", "warnings"]));
    process::step("running clippy", || {
        clippy(programs::release(workspace, "clippy").arg("--all-targets"))
    })?;
    process::step("running clippy on the compiler", || {
        clippy(&mut programs::compiler(workspace, "clippy"))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Holds the dependencies to `deny.toml`. Known vulnerabilities are looked up only where their
/// database can be fetched.
fn deny(workspace: &Workspace) -> Result<()> {
    let deny = setup::tool("cargo-deny")?;
    let run = |checks: &[&str]| {
        let mut command = Command::new(&deny);
        command.current_dir(workspace.root()).args([
            "--log-level",
            "error",
            "check",
            "--hide-inclusion-graph",
        ]);
        command.args(checks);
        command
    };
    process::run(&mut run(&["licenses", "bans", "sources"]))?;
    if !process::succeeds(Command::new(&deny).current_dir(workspace.root()).args(["fetch", "db"])) {
        eprintln!("    SKIPPED: the database of vulnerabilities cannot be fetched from here");
        return Ok(());
    }
    process::run(&mut run(&["advisories"]))
}

/// What programs that test or measure the whole system find in their environment.
pub(crate) fn system_environment(command: &mut Command, workspace: &Workspace) {
    command.env("OCELLI_BIN_DIR", workspace.programs());
    // Newer versions of ONNX Runtime phone home unless told not to before they are loaded.
    command.env("ORT_DISABLE_TELEMETRY", "1");
    NATS_SERVER.tell(command);
}

/// The exit code of a program as our own; 1 where a signal ended it.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
