//! `ocelli analyze`: what a pipeline of a running host finds in single pictures.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use ocelli_client::{Client, Detection, Request};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::deployments::settings;
use super::host::{Asked, HostArgs, block_on};
use super::table::printable;
use super::words::listed;

#[derive(Args)]
pub(super) struct AnalyzeCommand {
    /// The name of a pipeline that the host has.
    pipeline: String,
    /// JPEG or PNG files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The pipeline's settings. Left out: its defaults.
    #[arg(long, value_name = "JSON", value_parser = settings)]
    settings: Option<Map<String, Value>>,
    #[command(flatten)]
    host: HostArgs,
}

impl AnalyzeCommand {
    /// Prints a line for each file, with `--json` an object. A file that fails is told on standard
    /// error, and the others go on.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let client = self.host.client()?;
        let mut failed = 0;
        for file in &self.files {
            if let Err(error) = self.analyze(&client, file) {
                // A host that is not there is not asked for each file.
                if error.downcast_ref::<ocelli_client::Error>().is_some() {
                    return Err(error);
                }
                eprintln!("ocelli: {}: {error:#}", printable(&file.display().to_string()));
                failed += 1;
            }
        }
        match failed {
            0 => Ok(()),
            failed => bail!("{failed} of {} files were not analysed", self.files.len()),
        }
    }

    fn analyze(&self, client: &Client, file: &Path) -> anyhow::Result<()> {
        let image = std::fs::read(file).context("reading it")?;
        let mut request = Request::post(&["analyze", &self.pipeline])
            .content("application/octet-stream", Bytes::from(image))
            .patient();
        if let Some(settings) = &self.settings {
            request = request.query("settings", Value::from(settings.clone()).to_string());
        }
        let asked = Asked::nothing().pipeline(&self.pipeline);
        let mut answer = match block_on(client.ask(&request))? {
            Ok(answer) => answer,
            Err(error) => return Err(block_on(self.host.explained(client, error, asked))?),
        };
        let name = file.display().to_string();
        if let (true, Some(members)) = (self.host.json, answer.as_object_mut()) {
            members.insert("file".into(), name.into());
            println!("{answer}");
        } else {
            let found = answer
                .get("detections")
                .and_then(|found| Vec::<Detection>::deserialize(found).ok());
            let found = found.unwrap_or_default();
            let found = if found.is_empty() { "nothing".to_owned() } else { listed(&found) };
            println!("{}", printable(&format!("{name}: {found}")));
        }
        Ok(())
    }
}
