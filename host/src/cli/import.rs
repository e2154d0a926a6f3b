//! `ocelli import`: the cameras of go2rtc's or Frigate's config, as entries of this one's.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use super::table::printable;
use crate::import::{self, DEFAULT_PIPELINE, Format, Import, MAX_BYTES, Variables};

/// See the module's documentation.
#[derive(Args)]
pub(super) struct ImportCommand {
    /// go2rtc's or Frigate's config file: YAML or JSON.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Whose config it is. Default: as its sections say.
    #[arg(long, value_name = "PROGRAM")]
    from: Option<Format>,
    /// The pipeline of the entries.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_PIPELINE)]
    pipeline: String,
    /// Write the entries into a new file that only its owner may read, instead of printing them.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON, for programs.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Shown<'a> {
    cameras: Vec<ShownCamera<'a>>,
    left_out: Vec<ShownLeftOut<'a>>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct ShownCamera<'a> {
    id: &'a str,
    #[serde(flatten)]
    table: &'a Map<String, Value>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct ShownLeftOut<'a> {
    name: &'a str,
    reason: &'a str,
}

impl ImportCommand {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let shown = printable(&self.file.display().to_string());
        let text = self.text().with_context(|| format!("cannot read {shown}"))?;
        let import = import::read(&text, self.from, &self.pipeline, &Variables::of_environment())
            .with_context(|| shown.clone())?;
        if self.json {
            let text = serde_json::to_string_pretty(&shown_as_json(&import))?;
            writeln!(std::io::stdout(), "{text}")?;
        } else {
            self.write(&import.toml())?;
            let mut log = std::io::stderr();
            let (taken, left) = (import.cameras.len(), import.left_out.len());
            writeln!(log, "{shown}: {taken} taken, {left} left out")?;
            let notes = import.notes.iter().cloned();
            let cameras = import.cameras.iter();
            let of_cameras = cameras.flat_map(|camera| {
                camera.notes.iter().map(move |note| format!("{}: {note}", camera.id))
            });
            let left = import.left_out.iter();
            let left = left.map(|left| format!("left out: {}: {}", left.name, left.reason));
            for line in notes.chain(of_cameras).chain(left) {
                writeln!(log, "  {}", printable(&line))?;
            }
        }
        if import.cameras.is_empty() {
            bail!("{shown}: no camera could be taken");
        }
        Ok(())
    }

    fn text(&self) -> anyhow::Result<String> {
        let mut bytes = Vec::new();
        File::open(&self.file)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            bail!("it is larger than {} MiB", MAX_BYTES >> 20);
        }
        Ok(String::from_utf8(bytes)?)
    }

    fn write(&self, toml: &str) -> anyhow::Result<()> {
        let Some(path) = &self.output else {
            std::io::stdout().write_all(toml.as_bytes())?;
            return Ok(());
        };
        let shown = printable(&path.display().to_string());
        // Sources have passwords in them.
        let mut new = OpenOptions::new();
        let mut file = new
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot make {shown}"))?;
        let written = file.write_all(toml.as_bytes()).and_then(|()| file.sync_all());
        if written.is_err() {
            // Half of the cameras would look like all of them.
            let _ = fs::remove_file(path);
        }
        written.with_context(|| format!("cannot write {shown}"))
    }
}

fn shown_as_json(import: &Import) -> Shown<'_> {
    Shown {
        cameras: import
            .cameras
            .iter()
            .map(|camera| ShownCamera {
                id: &camera.id,
                table: &camera.table,
                notes: &camera.notes,
            })
            .collect(),
        left_out: import
            .left_out
            .iter()
            .map(|left| ShownLeftOut { name: &left.name, reason: &left.reason })
            .collect(),
        notes: &import.notes,
    }
}
