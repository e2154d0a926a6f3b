//! `ocelli pipeline`: what an author of pipelines needs.

mod build;
mod check;
mod dev;
mod draft;
mod new;
mod project;
mod push;
mod run;
mod stage;
mod template;
mod test;
mod tool;

use clap::Subcommand;

pub(super) use build::in_units;
pub(super) use draft::{DraftFile, parent};

/// The commands about pipelines.
#[derive(Subcommand)]
pub(super) enum PipelineCommand {
    /// Make the project of a new pipeline: source, SDK, test and clip. Needs no network.
    New(new::PipelineNewCommand),
    /// Build a project and check its component.
    Build(build::PipelineBuildCommand),
    /// Build and deploy a project to a session of a running host with each change, and show the
    /// session's log and results.
    Dev(dev::PipelineDevCommand),
    /// Check a component as a deployment does: exit status 0 where nothing is wrong, 1 where
    /// something is.
    Check(check::PipelineCheckCommand),
    /// Run a component on a video or on pictures, every frame of it, without a host. Exit status 0
    /// where each frame has a result, 1 where one has none.
    Run(run::PipelineRunCommand),
    /// Run a component on recorded frames and hold what it finds to a golden file. Exit status 0
    /// where all is as expected, 1 where something is not.
    Test(test::PipelineTestCommand),
    /// Put a component into a registry. Prints the reference by which it can be deployed, pinned to
    /// its digest. The login is in OCELLI_REGISTRY_USER and OCELLI_REGISTRY_PASSWORD, or stored by
    /// `docker login`.
    Push(push::PipelinePushCommand),
}

impl PipelineCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::New(new) => new.run(),
            Self::Build(build) => build.run(),
            Self::Dev(dev) => dev.run(),
            Self::Check(check) => check.run(),
            Self::Run(run) => run.run(),
            Self::Test(test) => test.run(),
            Self::Push(push) => push.run(),
        }
    }
}
