//! The commands that ask a running host.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

/// Where the host listens unless its config says otherwise.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:8001";

/// The host answers from memory: one that takes longer does not answer at all.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Columns of the list: heading, key.
const COLUMNS: [(&str, &str); 8] = [
    ("SESSION", "id"),
    ("STATE", "state"),
    ("PID", "pid"),
    ("PIPELINE", "pipeline"),
    ("DEPLOYMENT", "deployment"),
    ("UPTIME", "uptime_s"),
    ("RESTARTS", "restarts"),
    ("SOURCE", "source"),
];

/// Prints the sessions of the host at `url`: a table, or the answer as it came.
pub(crate) fn sessions(url: &str, json: bool) -> anyhow::Result<()> {
    let answer = get(url, "/v1/sessions")?;
    if json {
        println!("{answer}");
        return Ok(());
    }
    let list = answer.get("sessions").and_then(Value::as_array);
    let list = list.with_context(|| format!("{url} does not answer as an Ocelli host does"))?;
    print!("{}", table(list));
    Ok(())
}

fn get(url: &str, path: &str) -> anyhow::Result<Value> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .build()
        .into();
    let mut response =
        agent.get(format!("{}{path}", url.trim_end_matches('/'))).call().with_context(|| {
            format!("cannot reach {url}; does `ocelli serve` run there? OCELLI_URL names another address")
        })?;
    let body =
        response.body_mut().read_to_string().with_context(|| format!("reading the answer of {url}"))?;
    let value: Value = serde_json::from_str(&body).unwrap_or_default();
    if !response.status().is_success() {
        let detail = value.get("detail").and_then(Value::as_str).unwrap_or_default();
        bail!("{url}{path} answers {}: {}", response.status(), shown(detail));
    }
    if value.is_null() {
        bail!("{url} does not answer as an Ocelli host does: its answer is not JSON");
    }
    Ok(value)
}

/// Columns as wide as their widest cell; what went wrong last stands below its session.
fn table(sessions: &[Value]) -> String {
    let cell = |session: &Value, key: &str| match session.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => shown(text),
        Some(Value::Number(number)) if key == "uptime_s" => duration(number.as_f64().unwrap_or_default()),
        Some(other) => shown(&other.to_string()),
    };
    let heading: Vec<String> = COLUMNS.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heading)
        .chain(sessions.iter().map(|session| COLUMNS.iter().map(|(_, key)| cell(session, key)).collect()))
        .collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
        let session = index.checked_sub(1).and_then(|session| sessions.get(session));
        let error = session.and_then(|session| session.get("last_error")).and_then(Value::as_str);
        if let Some(error) = error {
            text.push_str(&format!("  last error: {}\n", shown(error)));
        }
    }
    text
}

fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}h{minutes:02}m") } else { format!("{minutes}m{seconds:02}s") }
}

/// Without what would move the terminal's cursor.
fn shown(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sessions_are_a_table_with_their_last_error_below() {
        let sessions = [
            json!({"id": "cam-001", "state": "running", "pid": 71, "pipeline": "object-detect", "deployment": "0a1b",
                   "uptime_s": 3725.5, "restarts": 0, "source": "rtsp://host/stream", "last_error": null}),
            json!({"id": "d;c", "state": "degraded", "pid": null, "pipeline": "p", "deployment": "0a1b",
                   "uptime_s": 61.0, "restarts": 2, "source": "file:a\u{1b}[2J", "last_error": "no route\nto host"}),
        ];
        let expected = "\
SESSION  STATE     PID  PIPELINE       DEPLOYMENT  UPTIME  RESTARTS  SOURCE
cam-001  running   71   object-detect  0a1b        1h02m   0         rtsp://host/stream
d;c      degraded  -    p              0a1b        1m01s   2         file:a\u{fffd}[2J
  last error: no route\u{fffd}to host
";
        assert_eq!(table(&sessions), expected);
    }

    #[test]
    fn a_host_that_is_not_there_is_named_with_what_to_do() {
        // Nothing listens on port 1 of a machine that runs tests.
        let error = format!("{:#}", sessions("http://127.0.0.1:1", false).unwrap_err());
        assert!(error.contains("http://127.0.0.1:1") && error.contains("OCELLI_URL"), "{error}");
    }
}
