//! Developer tasks, called through `./x`: set up the machine, build, run the demo, test, lint,
//! bench, soak.

mod bench;
mod checks;
mod client_packages;
mod clients;
mod demo;
mod features;
mod fuzz;
mod helm;
mod lab;
mod nats_server;
mod onnxruntime;
mod package;
#[cfg(test)]
mod pages;
mod process;
mod programs;
mod promtool;
mod sdks;
mod setup;
mod skips;
mod soak;
mod structure;
mod ui;
mod wheel_program;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(bin_name = "./x", about = "Developer tasks of Ocelli", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs what this machine lacks: Debian packages, the wasm target, ONNX Runtime
    Setup,
    /// Builds the programs into target/release and the pipelines into target/pipelines
    Build,
    /// Runs the host on a looping clip served over RTSP and prints what it detects
    Demo {
        /// Ends after so many seconds of results; without it Ctrl-C does
        #[arg(long, value_name = "N")]
        seconds: Option<u64>,
    },
    /// Builds everything and runs all tests, or those that the filter arguments select
    Test {
        /// Runs the long loops whole: a landing runs a quarter of them
        #[arg(long)]
        full: bool,
        /// Runs the tests of one crate, without set-up and with incremental builds
        #[arg(long, value_name = "CRATE", conflicts_with = "full")]
        fast: Option<String>,
        /// Given to the test runner, cargo-nextest
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        filter: Vec<String>,
    },
    /// Checks and builds the dashboard into host/ui/dist, which is committed
    Ui {
        /// Takes the pictures of docs/images instead: of a host, with cameras, in a browser
        #[arg(long)]
        screenshots: bool,
    },
    /// Checks the format, runs clippy, warnings being errors, and holds the dependencies to
    /// deny.toml
    Lint,
    /// Makes what users install in target/packages: a Debian package, an archive, a wheel, an OCI
    /// image, and the SDKs of pipelines
    Package(package::Packages),
    /// Builds everything and measures it
    Bench {
        /// Given to the bench program
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzzes what reads the bytes of others; each target for some time
    Fuzz {
        /// One target alone: a folder of fuzz/corpus
        target: Option<String>,
        /// Seconds for each target
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Loses hosts, links and engines of a site in network namespaces, and says what that cost
    Lab {
        /// Given to the lab's program: `--scenario NAME`, `--seed N`, `--repeat N`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds everything and strains one host for some minutes: what it holds must not grow
    Soak {
        /// Given to the soak program: `--quick` does a tenth of everything
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("x: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match task {
        Task::Setup => setup::everything().map(|()| ExitCode::SUCCESS),
        Task::Build => {
            setup::for_building()?;
            programs::build(&workspace).map(|()| ExitCode::SUCCESS)
        }
        Task::Demo { seconds } => demo::run(&workspace, seconds),
        Task::Test { fast: Some(name), filter, .. } => checks::fast(&workspace, &name, &filter),
        Task::Test { full, filter, .. } => checks::test(&workspace, full, &filter),
        Task::Ui { screenshots: true } => ui::screenshots(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Ui { .. } => ui::build(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Lint => checks::lint(&workspace),
        Task::Package(packages) => package::run(&workspace, &packages).map(|()| ExitCode::SUCCESS),
        Task::Bench { arguments } => bench::run(&workspace, &arguments),
        Task::Fuzz { target, seconds } => fuzz::run(&workspace, target.as_deref(), seconds),
        Task::Lab { arguments } => lab::run(&workspace, &arguments),
        Task::Soak { arguments } => soak::run(&workspace, &arguments),
    }
}
