//! Does with files what its settings say, once with each frame, and tells what came of it in an
//! event: what a component reaches of the folders that its camera was granted.

use std::fs;
use std::io;

use ocelli_sdk::{Description, Event, Frame, Output, Pipeline, export_pipeline, settings};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// What is done, in this order.
    steps: Vec<Step>,
}

/// One attempt.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// The text of a file.
    Read(String),
    /// The names in a folder, sorted.
    List(String),
    /// Makes or empties a file, and writes a text into it.
    Write(String, String),
    /// Writes so many bytes.
    Fill(String, usize),
    Rename(String, String),
    Remove(String),
    MakeFolder(String),
    /// A second name of a file.
    Link(String, String),
}

impl Step {
    fn done(&self) -> io::Result<String> {
        let nothing = |()| String::new();
        match self {
            Self::Read(path) => fs::read_to_string(path),
            Self::List(path) => {
                let mut names = Vec::new();
                for entry in fs::read_dir(path)? {
                    names.push(entry?.file_name().to_string_lossy().into_owned());
                }
                names.sort();
                Ok(names.join(" "))
            }
            Self::Write(path, text) => fs::write(path, text).map(nothing),
            Self::Fill(path, bytes) => fs::write(path, vec![0; *bytes]).map(nothing),
            Self::Rename(from, to) => fs::rename(from, to).map(nothing),
            Self::Remove(path) => fs::remove_file(path).map(nothing),
            Self::MakeFolder(path) => fs::create_dir(path).map(nothing),
            Self::Link(from, to) => fs::hard_link(from, to).map(nothing),
        }
    }
}

/// The pipeline of one camera.
pub struct Filer {
    settings: Settings,
}

impl Pipeline for Filer {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![],
            settings_schema: json!({
                "type": "object",
                "required": ["steps"],
                "additionalProperties": false,
                "properties": {"steps": {"type": "array", "items": {"type": "object"}}},
            })
            .to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        Ok(Self { settings: settings::parse(json)? })
    }

    fn process(&mut self, _: &Frame) -> Result<Output, String> {
        let answers = self.settings.steps.iter().map(|step| match step.done() {
            Ok(text) => json!({ "ok": text }),
            Err(error) => json!({ "error": error.to_string() }),
        });
        let data = json!({ "answers": answers.collect::<Vec<_>>() }).to_string();
        let events = vec![Event { data, ..Event::new("files") }];
        Ok(Output::found(Vec::new()).with_events(events))
    }
}

export_pipeline!(Filer);
