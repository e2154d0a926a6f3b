//! `ocelli rollout`, `ocelli rollouts`: a version of a pipeline for many cameras of a site.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use ocelli_client::{Client, Request};
use serde_json::{Map, Value};

use super::deployments::{settings, share};
use super::host::{Asked, HostArgs, block_on};
use super::table::{Look, entries, printable};

/// Between two looks at a rollout that is under way.
const LOOK: Duration = Duration::from_secs(1);

/// Looks that may fail in a row: the host that is asked may be started anew meanwhile.
const FAILED_LOOKS: u32 = 60;

/// Columns of the table of rollouts: heading, member.
const COLUMNS: [(&str, &str); 8] = [
    ("ID", "id"),
    ("STARTED", "started"),
    ("PIPELINE", "pipeline"),
    ("BY", "by"),
    ("WAVE", "wave"),
    ("HEALTHY", "healthy"),
    ("CAMERAS", "count"),
    ("STATE", "state"),
];

#[derive(Args)]
pub(super) struct RolloutCommand {
    /// The component, a file that ends in .wasm; the name of a pipeline that the hosts have; or a
    /// component that they fetch from a registry.
    #[arg(
        value_name = "FILE.wasm|NAME|oci://HOST/REPOSITORY:TAG",
        required_unless_present = "stop"
    )]
    pipeline: Option<String>,
    /// The cameras: names, in which * stands for anything.
    #[arg(long, value_name = "SELECTOR", num_args = 1.., required_unless_present = "stop")]
    cameras: Vec<String>,
    /// Have each camera compare both versions on this many frames before the change.
    #[arg(long, value_name = "FRAMES", default_value_t = 0)]
    shadow: u32,
    /// Fail a camera whose comparison's agreement is below this, 0 to 1.
    #[arg(long, value_name = "SHARE", requires = "shadow", value_parser = share)]
    threshold: Option<f64>,
    /// The pipeline's settings. Left out: each camera keeps its own.
    #[arg(long, value_name = "JSON", value_parser = settings)]
    settings: Option<Map<String, Value>>,
    /// Do not wait for its end.
    #[arg(long)]
    detach: bool,
    /// Stop the rollout of this number: its cameras get back what they had.
    #[arg(long, value_name = "ID", conflicts_with_all = ["pipeline", "cameras"])]
    stop: Option<u64>,
    #[command(flatten)]
    host: HostArgs,
}

impl RolloutCommand {
    /// Returns when the rollout has ended, with an error where it went back.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let begun = match self.stop {
            Some(id) => {
                let id = id.to_string();
                let request = Request::post(&["cluster", "rollouts", &id, "stop"]);
                self.host.answer(&request, Asked::nothing())?
            }
            None => {
                let pipeline = self.pipeline.as_deref().unwrap_or_default();
                let asked = Asked::nothing().pipeline(pipeline);
                self.host.answer(&self.request(pipeline)?, asked)?
            }
        };
        let id = begun.get("id").map(Value::to_string).unwrap_or_default();
        if self.detach {
            self.host.told(&begun, &format!("rollout {id}: `ocelli rollouts` shows how far it is"));
            return Ok(());
        }
        let client = self.host.client()?;
        let ended = block_on(follow(&client, &id, begun))??;
        let line = line(&ended);
        if self.host.json {
            println!("{ended}");
        }
        match (state(&ended), self.stop) {
            (Some("done"), _) | (Some("returned"), Some(_)) => {
                if !self.host.json {
                    println!("{line}");
                }
                Ok(())
            }
            _ => bail!("{line}"),
        }
    }

    fn request(&self, pipeline: &str) -> anyhow::Result<Request<'static>> {
        let mut request = Request::post(&["cluster", "rollouts"]).patient();
        for camera in &self.cameras {
            request = request.query("cameras", camera.clone());
        }
        if self.shadow > 0 {
            request = request.query("shadow", self.shadow.to_string());
        }
        if let Some(threshold) = self.threshold {
            request = request.query("threshold", threshold.to_string());
        }
        if let Some(settings) = &self.settings {
            request = request.query("settings", Value::from(settings.clone()).to_string());
        }
        if !pipeline.ends_with(".wasm") {
            return Ok(request.query("pipeline", pipeline.to_owned()));
        }
        let bytes = std::fs::read(pipeline).with_context(|| pipeline.to_owned())?;
        if bytes.is_empty() {
            bail!("{pipeline}: the file is empty");
        }
        if let Some(name) = Path::new(pipeline).file_stem().and_then(|stem| stem.to_str()) {
            request = request.query("name", name.to_owned());
        }
        Ok(request.content("application/wasm", bytes.into()))
    }
}

/// Lists the rollouts of a site, the newest first.
pub(super) fn print(host: &HostArgs) -> anyhow::Result<()> {
    let request = Request::get(&["cluster", "rollouts"]);
    if let Some(list) = host.list(&request, "rollouts", Asked::nothing())? {
        let rows: Vec<Value> = list.iter().map(row).collect();
        anstream::print!("{}", entries(&rows, &COLUMNS, "reason", Look::stdout()));
    }
    Ok(())
}

fn row(rollout: &Value) -> Value {
    let mut row = rollout.clone();
    if let Some(members) = row.as_object_mut() {
        members.insert("healthy".to_owned(), count(rollout, "healthy").into());
        members.insert("count".to_owned(), cameras(rollout).count().into());
        let wave = format!("{} of {}", rollout["wave"], rollout["waves"]);
        members.insert("wave".to_owned(), wave.into());
    }
    row
}

fn cameras(rollout: &Value) -> impl Iterator<Item = &Value> {
    rollout.get("cameras").and_then(Value::as_array).into_iter().flatten()
}

fn count(rollout: &Value, state: &str) -> usize {
    cameras(rollout).filter(|camera| camera["state"] == state).count()
}

/// Tells what becomes of a rollout, until it has ended.
async fn follow(client: &Client, id: &str, begun: Value) -> anyhow::Result<Value> {
    let mut told = BTreeMap::new();
    let (mut rollout, mut failed) = (begun, 0);
    loop {
        for line in news(&rollout, &mut told) {
            eprintln!("ocelli: {line}");
        }
        if !matches!(state(&rollout), Some("running" | "returning")) {
            return Ok(rollout);
        }
        tokio::time::sleep(LOOK).await;
        match client.ask(&Request::get(&["cluster", "rollouts", id])).await {
            Ok(now) => (rollout, failed) = (now, 0),
            Err(error) if error.is_transient() && failed < FAILED_LOOKS => failed += 1,
            Err(error) => {
                let context =
                    format!("rollout {id} goes on; `ocelli rollouts` shows how far it is");
                return Err(anyhow::Error::from(error).context(context));
            }
        }
    }
}

/// What is new: lines by what they are about.
fn news(rollout: &Value, told: &mut BTreeMap<String, String>) -> Vec<String> {
    let id = &rollout["id"];
    let mut lines = Vec::new();
    let mut tell = |about: String, line: String| {
        if told.get(&about) != Some(&line) {
            lines.push(line.clone());
            told.insert(about, line);
        }
    };
    let head = match rollout["state"].as_str() {
        Some("running") => format!("wave {} of {}", rollout["wave"], rollout["waves"]),
        Some("returning") => format!("goes back: {}", text(&rollout["reason"])),
        _ => return lines,
    };
    tell(String::new(), format!("rollout {id}: {head}"));
    for camera in cameras(rollout) {
        let name = text(&camera["id"]);
        if let Some(state) = camera["state"].as_str() {
            let mut line = format!("rollout {id}: {name} is {}", printable(state));
            if let Some(reason) = camera["reason"].as_str() {
                line += &format!(": {}", printable(reason));
            }
            tell(format!("camera {name}"), line);
        }
    }
    lines
}

/// How a rollout has ended.
fn line(rollout: &Value) -> String {
    let (id, all) = (&rollout["id"], cameras(rollout).count());
    match rollout["state"].as_str() {
        Some("done") => match count(rollout, "failed") {
            0 => format!("rollout {id} is done: {all} cameras"),
            failed => format!("rollout {id} is done: {all} cameras, of which {failed} failed"),
        },
        _ => format!(
            "rollout {id} went back: {}; {} cameras have what they had again",
            text(&rollout["reason"]),
            count(rollout, "returned") + count(rollout, "failed")
        ),
    }
}

fn text(value: &Value) -> String {
    printable(value.as_str().unwrap_or_default())
}

/// What a rollout is doing.
fn state(rollout: &Value) -> Option<&str> {
    rollout.get("state").and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_change_is_told_once() {
        let mut rollout = json!({"id": 3, "state": "running", "wave": 1, "waves": 3, "reason": null,
            "cameras": [{"id": "gate", "state": "deploying", "reason": null},
                {"id": "yard", "state": null, "reason": null}]});
        let mut told = BTreeMap::new();
        let first = news(&rollout, &mut told);
        assert_eq!(first, ["rollout 3: wave 1 of 3", "rollout 3: gate is deploying"]);
        assert!(news(&rollout, &mut told).is_empty());
        rollout["cameras"][0] = json!({"id": "gate", "state": "failed", "reason": "no\u{1b}"});
        assert_eq!(news(&rollout, &mut told), ["rollout 3: gate is failed: no\u{fffd}"]);
        rollout["state"] = "returned".into();
        rollout["reason"] = "the canary gate failed".into();
        let said =
            "rollout 3 went back: the canary gate failed; 1 cameras have what they had again";
        assert_eq!(line(&rollout), said);
        assert_eq!(row(&rollout)["wave"], "1 of 3");
        rollout["state"] = "done".into();
        assert_eq!(line(&rollout), "rollout 3 is done: 2 cameras, of which 1 failed");
    }
}
