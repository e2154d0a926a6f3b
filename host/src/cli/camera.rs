//! `ocelli camera`: the cameras of a running host's config, or of its site.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use hyper::Method;
use ocelli_client::{Error, Request};
use serde_json::{Map, Value, json};

use super::host::{Asked, HostArgs, block_on};
use super::table::printable;

/// Largest file that is read. A list of a thousand cameras has a few hundred kilobytes.
const MAX_BYTES: u64 = 16 << 20;

/// Standard input, in the place of a file.
const STANDARD_INPUT: &str = "-";

/// Statuses by which a host refuses a camera's entry.
const REFUSED: [u16; 4] = [400, 409, 413, 422];

#[derive(Subcommand)]
pub(super) enum CameraCommand {
    /// Add the cameras of a file, or give those that are there these keys and no others. The host
    /// checks each; exit status 1: it has refused one.
    Put(PutCamera),
    /// Print a camera's entry, without its secrets.
    Show(ShowCamera),
    /// Remove cameras, which ends their sessions.
    Remove(RemoveCameras),
}

#[derive(Args)]
pub(super) struct PutCamera {
    /// TOML with [[cameras]], as a config has them; its other sections do not count. `-`: standard
    /// input.
    file: PathBuf,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args)]
pub(super) struct ShowCamera {
    /// The camera.
    camera: String,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args)]
pub(super) struct RemoveCameras {
    /// The camera, or several.
    #[arg(required = true, value_name = "CAMERA")]
    cameras: Vec<String>,
    #[command(flatten)]
    host: HostArgs,
}

/// Why a file has no cameras to put.
#[derive(Debug, thiserror::Error)]
enum NoCameras {
    /// Its text may hold a password, and is not repeated.
    #[error("it is not TOML: {0}")]
    Syntax(String),
    #[error("it has no [[cameras]]")]
    None,
    #[error("the {0}. of its [[cameras]] has no id")]
    Nameless(usize),
}

impl CameraCommand {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Put(put) => put.run(),
            Self::Show(show) => show.run(),
            Self::Remove(remove) => remove.run(),
        }
    }
}

impl PutCamera {
    fn run(&self) -> anyhow::Result<()> {
        let shown = printable(&self.file.display().to_string());
        let text = text(&self.file).with_context(|| format!("cannot read {shown}"))?;
        let cameras = cameras(&text).with_context(|| shown)?;
        let client = self.host.client()?;
        let mut refused = 0;
        for (id, table) in &cameras {
            let request = Request::new(Method::PUT, &["config", "cameras", id]).patient();
            let body = Value::Object(table.clone()).to_string();
            let request = request.content("application/json", body.into());
            match block_on(client.ask(&request))? {
                Ok(answer) => self.host.told(&answer, &format!("{}: put", printable(id))),
                // It is about this camera.
                Err(Error::Problem(problem)) if REFUSED.contains(&problem.status) => {
                    refused += 1;
                    eprintln!("{}: {}", printable(id), printable(&problem.detail));
                }
                Err(error) => {
                    return Err(block_on(self.host.explained(&client, error, Asked::nothing()))?);
                }
            }
        }
        match refused {
            0 => Ok(()),
            refused => bail!("{refused} of {} cameras were refused", cameras.len()),
        }
    }
}

impl ShowCamera {
    fn run(&self) -> anyhow::Result<()> {
        let request = Request::get(&["config", "cameras", &self.camera]);
        let answer = self.host.answer(&request, Asked::nothing())?;
        let toml = answer.get("toml").and_then(Value::as_str).unwrap_or_default().trim_end();
        let toml: Vec<String> = toml.lines().map(printable).collect();
        self.host.told(&answer, &toml.join("\n"));
        Ok(())
    }
}

impl RemoveCameras {
    fn run(&self) -> anyhow::Result<()> {
        for id in &self.cameras {
            let request = Request::new(Method::DELETE, &["config", "cameras", id]).patient();
            self.host.answer(&request, Asked::nothing())?;
            let answer = json!({"id": id, "state": "removed"});
            self.host.told(&answer, &format!("{}: removed", printable(id)));
        }
        Ok(())
    }
}

fn text(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if path.as_os_str() == STANDARD_INPUT {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_BYTES {
        bail!("it is larger than {} MiB", MAX_BYTES >> 20);
    }
    Ok(String::from_utf8(bytes)?)
}

/// A camera's name and table.
type NamedTable = (String, Map<String, Value>);

/// The cameras of a config's text.
fn cameras(text: &str) -> Result<Vec<NamedTable>, NoCameras> {
    let config: Value =
        toml::from_str(text).map_err(|error| NoCameras::Syntax(error.message().to_owned()))?;
    let tables = config.get("cameras").and_then(Value::as_array).ok_or(NoCameras::None)?;
    let named = tables.iter().enumerate().map(|(index, table)| {
        let mut table = table.as_object().cloned().ok_or(NoCameras::None)?;
        match table.remove("id") {
            Some(Value::String(id)) if !id.is_empty() => Ok((id, table)),
            _ => Err(NoCameras::Nameless(index + 1)),
        }
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cameras_of_a_config_are_taken_with_their_names() {
        let text = "[server]\nlisten = \"0.0.0.0:1\"\n\n[[cameras]]\nid = \"gate\"\n\
                    source = \"rtsp://h/1\"\npipeline = \"eye\"\nsettings = { score = 0.5 }\n\
                    [[cameras]]\nid = \"yard\"\nsource = \"rtsp://h/2\"\npipeline = \"eye\"\n";
        let found = cameras(text).unwrap();
        let names: Vec<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(names, ["gate", "yard"]);
        let table = json!({"source": "rtsp://h/1", "pipeline": "eye", "settings": {"score": 0.5}});
        assert_eq!(Value::Object(found[0].1.clone()), table);
    }

    #[test]
    fn a_file_without_cameras_is_refused_and_its_text_not_repeated() {
        for (text, said) in [
            ("[server]\n", "no [[cameras]]"),
            ("cameras = 7\n", "no [[cameras]]"),
            ("[[cameras]]\nsource = \"a\"\n", "the 1. of"),
            ("[[cameras]]\nsource = \"rtsp://ann:hush@h\n", "not TOML"),
        ] {
            let error = cameras(text).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("hush"), "{error}");
        }
    }
}
