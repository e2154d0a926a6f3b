//! `ocelli pipeline`: what an author of pipelines needs.

mod check;

use clap::Subcommand;

/// The commands about pipelines.
#[derive(Subcommand)]
pub(super) enum PipelineCommand {
    /// Check a component as a deployment does: exit status 0 where nothing is wrong, 1 where
    /// something is.
    Check(check::PipelineCheckCommand),
}

impl PipelineCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Check(check) => check.run(),
        }
    }
}
