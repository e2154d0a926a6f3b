//! Changes of a running session's pipeline: `ocelli deploy`, `ocelli rollback`,
//! `ocelli deployments`.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;
use ocelli_client::{Component, Problem, RefusedState, Request};
use serde_json::{Map, Value};

use super::host::{HostArgs, status};
use super::table::{entries, printable};

#[derive(Args)]
pub(super) struct DeployCommand {
    /// The session.
    session: String,
    /// The component, a file that ends in .wasm; or the name of a pipeline that the host has.
    #[arg(value_name = "FILE.wasm|NAME")]
    pipeline: String,
    /// Compare it with the running one on this many frames before it takes over.
    #[arg(long, value_name = "FRAMES", default_value_t = 0)]
    shadow: u32,
    /// What happens when it refuses the state of the running one: "keep" that one, or start
    /// "fresh". Left out: as the host's config says.
    #[arg(long, value_parser = ["keep", "fresh"])]
    state: Option<String>,
    /// The pipeline's settings. Left out: those that the session has.
    #[arg(long, value_name = "JSON", value_parser = settings)]
    settings: Option<Map<String, Value>>,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args)]
pub(super) struct RollbackCommand {
    /// The session.
    session: String,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args)]
pub(super) struct DeploymentsCommand {
    /// The session.
    session: String,
    /// At most this many.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    host: HostArgs,
}

fn settings(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("settings are a JSON object: {error}"))
}

impl DeployCommand {
    /// Returns when the new version speaks.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let Self { session, pipeline, shadow, state, settings, host } = self;
        let component = if pipeline.ends_with(".wasm") {
            let bytes = std::fs::read(pipeline).with_context(|| pipeline.clone())?;
            if bytes.is_empty() {
                bail!("{pipeline}: the file is empty");
            }
            let name = Path::new(pipeline).file_stem().and_then(|stem| stem.to_str());
            Component::File { name: name.map(str::to_owned), bytes: bytes.into() }
        } else {
            Component::Named(pipeline.clone())
        };
        let state = state.as_deref().map(|state| match state {
            "fresh" => RefusedState::Fresh,
            _ => RefusedState::Keep,
        });
        let new =
            ocelli_client::Deploy { component, shadow: *shadow, state, settings: settings.clone() };
        print_answer(session, host, host.ask(&Request::deploy(session, &new))?)
    }
}

impl RollbackCommand {
    /// Returns when the version before speaks.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let Self { session, host } = self;
        print_answer(session, host, host.ask(&Request::rollback(session))?)
    }
}

impl DeploymentsCommand {
    /// Prints a table, or the answer as it came.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let Self { session, limit, host } = self;
        let list = host.list(&Request::deployments(session, *limit), "deployments")?;
        if let Some(list) = list {
            print!("{}", history(&list));
        }
        Ok(())
    }
}

/// Prints a deployment's record. An error if the host refused it.
fn print_answer(
    session: &str,
    host: &HostArgs,
    answer: Result<Value, Problem>,
) -> anyhow::Result<()> {
    match answer {
        Ok(record) if host.json => println!("{record}"),
        Ok(record) => println!("{}", format_line(&record)),
        Err(problem) => {
            let body = serde_json::to_value(&problem)?;
            if host.json {
                println!("{body}");
            }
            bail!("{}: {}", printable(session), refusal(&status(&problem), &body));
        }
    }
    Ok(())
}

/// One line on a deployment that went well.
fn format_line(record: &Value) -> String {
    let text = |key: &str| record.get(key).and_then(Value::as_str).map(printable);
    let swapped = |key: &str| record.get("swapped").and_then(|swapped| swapped.get(key));
    let ms = |value: Option<&Value>| value.and_then(Value::as_f64).map(|ms| format!("{ms:.0} ms"));
    let mut line = format!(
        "{}: {} -> {}",
        text("session").unwrap_or_default(),
        text("before").unwrap_or_else(|| "nothing".into()),
        text("deployment").unwrap_or_default()
    );
    for key in ["name", "version"] {
        line.extend(text(key).map(|text| format!(" {text}")));
    }
    line.push_str(", ");
    match ms(record.get("compile_ms")) {
        Some(ms) => line.extend(["compiled in ", &ms]),
        None => line.push_str("compiled before"),
    }
    line.extend(ms(swapped("total_ms")).map(|ms| format!(", swapped in {ms}")));
    line.extend(ms(swapped("gap_ms")).map(|ms| format!(", gap {ms}")));
    if swapped("fresh").and_then(Value::as_bool) == Some(true) {
        line.push_str(", without the state, which it refused");
    }
    line
}

/// Why there was none, each problem of the component on lines of its own.
fn refusal(status: &str, problem: &Value) -> String {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(printable);
    let detail = problem.get("detail").and_then(Value::as_str).filter(|detail| !detail.is_empty());
    let detail = detail.map(|detail| {
        let lines: Vec<String> = detail.lines().map(printable).collect();
        lines.join("\n  ")
    });
    let detail = detail.unwrap_or_else(|| format!("the host answers {status}"));
    let mut told = match text(problem, "step") {
        Some(step) => format!("not deployed, at step {step}: {detail}"),
        None => detail,
    };
    for problem in problem.get("problems").and_then(Value::as_array).into_iter().flatten() {
        let message = text(problem, "message").unwrap_or_default();
        // Writing to a string does not fail.
        let _ = write!(told, "\n  {message}");
        for (key, whose) in [("found", "the component"), ("expected", "the contract")] {
            if let Some(signature) = text(problem, key) {
                let _ = write!(told, "\n    {whose}: {signature}");
            }
        }
    }
    told
}

/// Columns of the history: heading, key.
const COLUMNS: [(&str, &str); 9] = [
    ("NUMBER", "number"),
    ("REQUESTED", "requested"),
    ("DEPLOYMENT", "deployment"),
    ("NAME", "name"),
    ("VERSION", "version"),
    ("CAUSE", "cause"),
    ("BY", "by"),
    ("STEP", "step"),
    ("STATE", "state"),
];

/// Why one ended as it did stands below it.
fn history(deployments: &[Value]) -> String {
    entries(deployments, &COLUMNS, "reason")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deployment_is_one_line() {
        let record = json!({"session": "cam", "before": "ff", "deployment": "0a", "name": "eye", "version": "2.0.0",
            "compile_ms": null, "swapped": {"total_ms": 95.6, "gap_ms": 41.2, "fresh": true}});
        let said = "cam: ff -> 0a eye 2.0.0, compiled before, swapped in 96 ms, gap 41 ms, \
            without the state, which it refused";
        assert_eq!(format_line(&record), said);
        assert_eq!(format_line(&json!({})), ": nothing -> , compiled before");
    }

    #[test]
    fn what_a_component_says_moves_no_cursor() {
        let problem =
            json!({"detail": "a\u{1b}[2J", "problems": [{"message": "b\nc", "found": "\u{7}"}]});
        let said = refusal("422", &problem);
        assert_eq!(said, "a\u{fffd}[2J\n  b\u{fffd}c\n    the component: \u{fffd}");
    }
}
