//! `ocelli webhook`: tries the receivers of a config.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Subcommand;

use crate::config::{ConfigFile, DEFAULT_PATH};
use crate::sink::webhook;

#[derive(Subcommand)]
pub(super) enum WebhookCommand {
    /// Send a signed message of the kind ocelli.ping to a webhook of the config. Needs no running
    /// host. Exit status 0 where it is taken, 1 where it is not.
    Test {
        /// The webhook's name.
        name: String,
        /// The config that has it.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
}

impl WebhookCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self::Test { name, config } = self;
        let hooks = ConfigFile::load(&config)?.config.webhooks;
        let names: Vec<String> = hooks.iter().map(|hook| hook.name.clone()).collect();
        let Some(hook) = hooks.into_iter().find(|hook| hook.name == name) else {
            bail!("no webhook {name:?} in {}: it has {}", config.display(), names.join(", "));
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("starting the runtime")?;
        let sent = runtime.block_on(webhook::ping(hook));
        sent.with_context(|| format!("the webhook {name} did not take the message"))?;
        println!("the webhook {name} has taken the message");
        Ok(())
    }
}
