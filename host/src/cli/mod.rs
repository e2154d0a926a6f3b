//! The command line. Exit status: 0 done, 1 failed, 2 wrong usage or config, 3 no host answered.

mod analyze;
mod asking;
mod backup;
mod camera;
mod check;
mod clip;
mod config;
mod demo;
mod deployments;
mod events;
mod follow;
mod host;
mod hosts;
mod import;
mod logs;
mod models;
mod pipeline;
mod pipelines;
mod probe;
mod rollouts;
mod sessions;
mod shell;
mod status;
mod suggest;
mod table;
mod token;
mod watch;
mod webhook;
mod words;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::config::source::SourceError;
use crate::config::{ConfigError, ConfigFile, DEFAULT_PATH, LogFormat};
use crate::telemetry::{self, TelemetryError};
use anyhow::Context;
use clap::{Parser, Subcommand};
use ocelli_protocol::key::KeyError;

/// Live camera analytics whose pipelines cannot hurt each other.
#[derive(Parser)]
#[command(name = "ocelli", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the host: cameras, sessions, API. SIGTERM or Ctrl-C stops it; OCELLI_LOG sets what is
    /// logged.
    Serve {
        /// The config: TOML, or JSON with the same keys.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Show what Ocelli does: a host of its own that watches a clip, or a camera or file that you
    /// name, and its results. Needs no config and leaves nothing behind.
    Demo(demo::DemoCommand),
    /// Check a config and all that it names: files, models, pipelines and their settings. Exit
    /// status 0: good; 1: something that it names is not; 2: the config itself is not.
    Check(check::CheckCommand),
    /// Say what a camera or a file is and which reader plays it, or why it does not play. Needs no
    /// running host. Exit status 0 where it plays, 1 where it does not.
    Probe(probe::ProbeCommand),
    /// Turn the cameras of go2rtc's or Frigate's config into entries for this one. `${NAME}` and
    /// `{FRIGATE_NAME}` in addresses are taken from the environment. Exit status 1: none could be
    /// taken.
    Import(import::ImportCommand),
    /// Show how a running host is, part by part, and the sinks of its events. Exit status 1 where
    /// one is not as it should be.
    Status(host::HostArgs),
    /// List the sessions of a running host.
    Sessions(host::HostArgs),
    /// Restart the worker of a session, whatever its state.
    Restart(sessions::SessionsArgs),
    /// End a session. A camera of the config is back when the host restarts.
    End(sessions::SessionsArgs),
    /// Show the config of a running host beside what runs. Exit status 1 where they differ, or
    /// where the file as it is now was refused.
    Config(host::HostArgs),
    /// Have a running host read its config and its file of cameras now, and say what that changes.
    /// Exit status 1: it was refused, or something that it names has a fault.
    Reload(host::HostArgs),
    /// Add, show and remove cameras of a running host, or of its site.
    #[command(subcommand)]
    Camera(camera::CameraCommand),
    /// List the hosts of a running host's site, and the cameras that no host has. Exit status 1:
    /// there are such, or the host that answers is no member.
    Hosts(host::HostArgs),
    /// Have a host of the site give its cameras to others, for an update of its machine.
    Drain(hosts::DrainCommand),
    /// Wish a camera of the site to a host.
    Move(hosts::MoveCommand),
    /// Give many cameras of a site another version of a pipeline: one, a tenth, all. Goes back where
    /// it fails.
    Rollout(rollouts::RolloutCommand),
    /// List the rollouts of a site, the newest first.
    Rollouts(host::HostArgs),
    /// Change the pipeline of a session while it runs.
    Deploy(deployments::DeployCommand),
    /// Go back to what a session ran before its last deployment.
    Rollback(deployments::RollbackCommand),
    /// List what was deployed to a session, the newest first.
    Deployments(deployments::DeploymentsCommand),
    /// Show what sessions do, until Ctrl-C: on a terminal a view that is drawn in its place, else
    /// a line for each message.
    Watch(watch::WatchCommand),
    /// Print what happened, the newest last, and with --follow what happens.
    Events(events::EventsCommand),
    /// Write the seconds of video around an event to a file.
    Clip(clip::ClipCommand),
    /// Print what sessions log, by time.
    Logs(logs::LogsCommand),
    /// Copy the data directory of a running host on this machine, as of one moment. Needs an
    /// admin's token, where there are tokens, and the host's user or root.
    Backup(backup::BackupCommand),
    /// Try the webhooks of a config.
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Ask a session's pipeline a question, which changes nothing.
    Query(asking::AskCommand),
    /// Give a session's pipeline a command, which may change its state.
    #[command(name = "command")]
    Tell(asking::AskCommand),
    /// Have single pictures analysed by a pipeline of a running host.
    Analyze(analyze::AnalyzeCommand),
    /// List the pipelines that have a name on a running host.
    Pipelines(host::HostArgs),
    /// Make tokens for the API: of one host, or of all hosts of a site.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List, inspect and add models.
    #[command(subcommand)]
    Models(models::ModelCommand),
    /// Make, build, try and check pipelines.
    #[command(subcommand)]
    Pipeline(pipeline::PipelineCommand),
    /// Print what a shell needs to complete commands: bash, zsh or fish.
    Completions(shell::CompletionsCommand),
    /// Write the pages of the manual into a folder.
    #[command(hide = true)]
    Man(shell::ManCommand),
}

/// Runs the command of this process's arguments.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve { config } => serve(&config),
        Command::Demo(demo) => demo.run(),
        Command::Check(check) => check.run(),
        Command::Probe(probe) => probe.run(),
        Command::Import(import) => import.run(),
        Command::Status(host) => status::print(&host),
        Command::Sessions(host) => sessions::print(&host),
        Command::Restart(sessions) => sessions.restart(),
        Command::End(sessions) => sessions.end(),
        Command::Config(host) => config::print(&host),
        Command::Reload(host) => config::reload(&host),
        Command::Camera(camera) => camera.run(),
        Command::Hosts(host) => hosts::print(&host),
        Command::Drain(drain) => drain.run(),
        Command::Move(wish) => wish.run(),
        Command::Rollout(rollout) => rollout.run(),
        Command::Rollouts(host) => rollouts::print(&host),
        Command::Deploy(deploy) => deploy.run(),
        Command::Rollback(rollback) => rollback.run(),
        Command::Deployments(deployments) => deployments.run(),
        Command::Watch(watch) => watch.run(),
        Command::Events(events) => events.run(),
        Command::Clip(clip) => clip.run(),
        Command::Logs(logs) => logs.run(),
        Command::Backup(backup) => backup.run(),
        Command::Webhook(webhooks) => webhooks.run(),
        Command::Query(query) => query.query(),
        Command::Tell(command) => command.command(),
        Command::Analyze(analyze) => analyze.run(),
        Command::Pipelines(host) => pipelines::print(&host),
        Command::Token(tokens) => tokens.run(),
        Command::Models(models) => models.run(),
        Command::Pipeline(pipelines) => pipelines.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.is::<Told>() {
                return ExitCode::FAILURE;
            }
            // Standard error may be a file on a full disk.
            let _ = writeln!(std::io::stderr(), "ocelli: {error:#}");
            let usage = error.is::<ConfigError>()
                || error.is::<SourceError>()
                || error.is::<KeyError>()
                || error
                    .downcast_ref::<TelemetryError>()
                    .is_some_and(|e| matches!(e, TelemetryError::Filter { .. }));
            ExitCode::from(match error.downcast_ref::<ocelli_client::Error>() {
                _ if usage => 2,
                None | Some(ocelli_client::Error::Problem(_)) => 1,
                Some(error) if error.is_transient() => 3,
                // The address, the token or the certificates that were given.
                Some(_) => 2,
            })
        }
    }
}

/// An error that the log has told on standard error.
#[derive(Debug, thiserror::Error)]
#[error("the log says why")]
struct Told;

/// How long a thread for blocking work waits for more. They take turns, so with the runtime's own
/// ten seconds a little work now and then keeps all that the busiest moment has started.
const SPARE_THREAD_AGE: Duration = Duration::from_secs(1);

fn serve(path: &Path) -> anyhow::Result<()> {
    let file = ConfigFile::load(path)?;
    let config = &file.config;
    crate::inference::forbid_telemetry(config)?;
    // Dropped behind all else, so that nothing of what is said at the end is missing.
    let _log = telemetry::init(&config.logs, &config.session_processes.log_rotation)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %path.display(), "starting");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_keep_alive(SPARE_THREAD_AGE)
        .build()
        .context("starting the runtime")?;
    let json = config.logs.format == LogFormat::Json;
    let served = runtime.block_on(crate::serve::serve(file));
    let served = served.map_err(|error| {
        tracing::error!("the host has failed: {error:#}");
        // A line of text among lines of JSON would be one too many.
        if json { Told.into() } else { error }
    });
    // What still runs on a thread of its own is not waited for: the process ends here.
    runtime.shutdown_background();
    served
}
