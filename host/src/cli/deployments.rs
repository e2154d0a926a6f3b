//! Changes of a running session's pipeline: `ocelli deploy`, `ocelli rollback`,
//! `ocelli deployments`.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;
use ocelli_client::{Component, Problem, Request, StateHandover};
use serde_json::{Map, Value};

use super::host::{Asked, HostArgs, status};
use super::table::{Look, entries, lines, printable};
use crate::config::OciReference;

#[derive(Args)]
pub(super) struct DeployCommand {
    /// The session.
    session: String,
    /// The component, a file that ends in .wasm; the name of a pipeline that the host has; or a
    /// component that the host fetches from a registry.
    #[arg(value_name = "FILE.wasm|NAME|oci://HOST/REPOSITORY:TAG")]
    pipeline: String,
    /// Compare it with the running one on this many frames before it takes over.
    #[arg(long, value_name = "FRAMES", default_value_t = 0)]
    shadow: u32,
    /// Compare alone: the running version stays.
    #[arg(long, requires = "shadow")]
    shadow_only: bool,
    /// Keep the running version if the comparison's agreement is below this, 0 to 1.
    #[arg(long, value_name = "SHARE", requires = "shadow", value_parser = share)]
    threshold: Option<f64>,
    /// Return when it is "healthy", the default of --wait: when it has passed its probation, with
    /// status 1 if it has not. Left out: when it is "active".
    #[arg(long, value_name = "STATE", value_parser = ["active", "healthy"],
        num_args = 0..=1, default_missing_value = "healthy")]
    wait: Option<String>,
    /// The running version's state: "keep" it, and the running version if the new one refuses it;
    /// or start "fresh", without. Left out: as the host's config says.
    #[arg(long, value_parser = ["keep", "fresh"])]
    state: Option<String>,
    /// The pipeline's settings. Left out: those that the session has; of another pipeline those of
    /// the camera's entry in the config, if that names it, and else its defaults.
    #[arg(long, value_name = "JSON", value_parser = settings)]
    settings: Option<Map<String, Value>>,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args)]
pub(super) struct RollbackCommand {
    /// The session.
    session: String,
    /// Return when it is "healthy", the default of --wait: when it has passed its probation, with
    /// status 1 if it has not. Left out: when it is "active".
    #[arg(long, value_name = "STATE", value_parser = ["active", "healthy"],
        num_args = 0..=1, default_missing_value = "healthy")]
    wait: Option<String>,
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

/// Whether `--wait` is for the end of the probation.
fn to_end(wait: Option<&str>) -> bool {
    wait == Some("healthy")
}

/// Why a text is no share.
#[derive(Debug, thiserror::Error)]
#[error("a number from 0 to 1")]
pub(super) struct NoShare;

/// A part of a whole, 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, NoShare> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or(NoShare)
}

/// Why a text is no settings.
#[derive(Debug, thiserror::Error)]
#[error("settings are a JSON object: {0}")]
pub(super) struct NoSettings(#[from] serde_json::Error);

/// The settings of `--settings`.
pub(super) fn settings(text: &str) -> Result<Map<String, Value>, NoSettings> {
    Ok(serde_json::from_str(text)?)
}

/// What becomes of the state, by the value of `--state`.
pub(super) fn handover(state: &str) -> StateHandover {
    match state {
        "fresh" => StateHandover::Fresh,
        _ => StateHandover::Keep,
    }
}

impl DeployCommand {
    /// Returns when the new version speaks.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let Self { session, pipeline, shadow, shadow_only, threshold, wait, state, settings, host } =
            self;
        let component = if OciReference::is_meant_by(pipeline) {
            pipeline.parse::<OciReference>().context("the reference")?;
            Component::Named(pipeline.clone())
        } else if pipeline.ends_with(".wasm") {
            let bytes = std::fs::read(pipeline).with_context(|| pipeline.clone())?;
            if bytes.is_empty() {
                bail!("{pipeline}: the file is empty");
            }
            let name = Path::new(pipeline).file_stem().and_then(|stem| stem.to_str());
            Component::File { name: name.map(str::to_owned), bytes: bytes.into() }
        } else {
            Component::Named(pipeline.clone())
        };
        let state = state.as_deref().map(handover);
        let new = ocelli_client::Deploy {
            component,
            shadow: *shadow,
            shadow_only: *shadow_only,
            threshold: *threshold,
            state,
            settings: settings.clone(),
        };
        let wait = to_end(wait.as_deref());
        let answer = host.follow_deployment(session, &Request::deploy(session, &new), wait)?;
        let more = host.suggestion(Asked::session(session).pipeline(pipeline), &answer);
        print_answer(session, host, answer, &more)
    }
}

impl RollbackCommand {
    /// Returns when the version before speaks.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let Self { session, host, .. } = self;
        let request = Request::rollback(session);
        let answer = host.follow_deployment(session, &request, to_end(self.wait.as_deref()))?;
        let more = host.suggestion(Asked::session(session), &answer);
        print_answer(session, host, answer, &more)
    }
}

impl DeploymentsCommand {
    /// Prints a table, or the answer as it came.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let Self { session, limit, host } = self;
        let request = Request::deployments(session, *limit);
        if let Some(list) = host.list(&request, "deployments", Asked::session(session))? {
            anstream::print!("{}", history(&list, Look::stdout()));
        }
        Ok(())
    }
}

/// Prints a deployment's record. An error if the host refused it: `more` says what to do then.
pub(super) fn print_answer(
    session: &str,
    host: &HostArgs,
    answer: Result<Value, Problem>,
    more: &str,
) -> anyhow::Result<()> {
    // A deployment that was waited for may have ended otherwise.
    let answer = answer.map(|record| (lasts(&record), record));
    match answer {
        Ok((false, record)) => {
            if host.json {
                println!("{record}");
            }
            let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default();
            let state = printable(text("state"));
            let reason: Vec<_> = text("reason").lines().map(printable).collect();
            let reason = reason.join("\n  ");
            bail!("{}: the deployment is {state}: {reason}", printable(session));
        }
        Ok((true, record)) if host.json => println!("{record}"),
        Ok((true, record)) => {
            println!("{}", format_line(&record));
            print!("{}", comparison(&record));
        }
        Err(problem) => {
            let body = serde_json::to_value(&problem)?;
            if host.json {
                println!("{body}");
            }
            eprint!("{}", body.get("deployment").map(comparison).unwrap_or_default());
            bail!("{}: {}{more}", printable(session), refusal(&status(&problem), &body));
        }
    }
    Ok(())
}

/// Whether the new version was active, or the comparison was all, and nothing has undone it.
pub(super) fn lasts(record: &Value) -> bool {
    let state = record.get("state").and_then(Value::as_str).unwrap_or_default();
    !["refused", "aborted", "rolled_back", "unverified", "interrupted"].contains(&state)
}

/// The comparison of both versions as a table; empty without one.
fn comparison(record: &Value) -> String {
    let Some(compared @ Value::Object(_)) = record.get("comparison") else { return String::new() };
    let at = |place: &str| compared.pointer(place);
    let number = |place: &str| at(place).map(Value::to_string).unwrap_or_else(|| "-".into());
    let mut rows = vec![
        ["", "RUNNING", "NEW"].map(str::to_owned),
        ["detections".into(), number("/detections/running"), number("/detections/new")],
        ["median ms".into(), number("/latency_ms/running_p50"), number("/latency_ms/new_p50")],
        ["95 % ms".into(), number("/latency_ms/running_p95"), number("/latency_ms/new_p95")],
    ];
    for (kind, place) in [("label", "/detections/labels"), ("event", "/events")] {
        for (name, counts) in at(place).and_then(Value::as_object).into_iter().flatten() {
            let count = |index: usize| counts.get(index).map(Value::to_string).unwrap_or_default();
            rows.push([format!("{kind} {name}"), count(0), count(1)]);
        }
    }
    let mut text = format!(
        "compared on {} frames ({} missed, {} errors): agreement {}\n",
        number("/frames"),
        number("/missed"),
        number("/errors"),
        number("/agreement")
    );
    lines(&rows, Look::PLAIN).iter().for_each(|line| text += &format!("  {line}\n"));
    if let Some(error) = at("/first_error").and_then(Value::as_str) {
        text += &format!("  first error: {}\n", printable(error));
    }
    text
}

/// One line on a deployment that went well.
fn format_line(record: &Value) -> String {
    let text = |key: &str| record.get(key).and_then(Value::as_str).map(printable);
    if text("state").as_deref() == Some("compared") {
        let (session, new) = (text("session"), text("deployment"));
        let (session, new) = (session.unwrap_or_default(), new.unwrap_or_default());
        return format!("{session}: {new} was compared, the running version stays");
    }
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
    let changed = record.get("changed").and_then(Value::as_array).into_iter().flatten();
    let changed: Vec<String> = changed.filter_map(Value::as_str).map(printable).collect();
    if !changed.is_empty() {
        line += &format!(", changed: {}", changed.join(", "));
    }
    if text("state").as_deref() == Some("healthy") {
        line.push_str(", healthy");
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
fn history(deployments: &[Value], look: Look) -> String {
    entries(deployments, &COLUMNS, "reason", look)
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
    fn a_comparison_is_a_small_table() {
        let record = json!({"session": "cam", "deployment": "0a", "state": "compared", "comparison": {
            "frames": 50, "missed": 1, "errors": 0, "first_error": null, "agreement": 0.95,
            "latency_ms": {"running_p50": 40.5, "running_p95": 60.0, "new_p50": 20.25, "new_p95": 31.0},
            "detections": {"running": 100, "new": 104, "labels": {"car": [60, 64]}},
            "events": {"entered\u{1b}": [3, 4]}}});
        let expected = "\
compared on 50 frames (1 missed, 0 errors): agreement 0.95
                  RUNNING  NEW
  detections      100      104
  median ms       40.5     20.25
  95 % ms         60.0     31.0
  label car       60       64
  event entered\u{fffd}  3        4
";
        assert_eq!(comparison(&record), expected);
        assert_eq!(format_line(&record), "cam: 0a was compared, the running version stays");
        assert_eq!(comparison(&json!({"comparison": null})), "");
    }

    #[test]
    fn what_was_lost_in_probation_is_no_success() {
        for (state, good) in [
            ("probation", true),
            ("healthy", true),
            ("superseded", true),
            ("compared", true),
            ("rolled_back", false),
            ("unverified", false),
            ("aborted", false),
        ] {
            assert_eq!(lasts(&json!({"state": state})), good, "{state}");
        }
    }

    #[test]
    fn what_a_component_says_moves_no_cursor() {
        let problem =
            json!({"detail": "a\u{1b}[2J", "problems": [{"message": "b\nc", "found": "\u{7}"}]});
        let said = refusal("422", &problem);
        assert_eq!(said, "a\u{fffd}[2J\n  b\u{fffd}c\n    the component: \u{fffd}");
    }
}
