//! `ocelli status`: how a running host is, part by part, and the sinks of its events.

use anyhow::bail;
use ocelli_client::Request;
use serde_json::{Map, Value};

use super::host::{Asked, HostArgs};
use super::table::{Look, entries, printable};

/// The parts of the host, in the order of the table; its sinks have one of their own.
const PARTS: [&str; 4] = ["storage", "clock", "config", "inference"];

/// Columns of the table of parts: heading, member.
const PART_COLUMNS: [(&str, &str); 3] = [("PART", "name"), ("STATE", "state"), ("SINCE", "since")];

/// Columns of the table of sinks.
const SINK_COLUMNS: [(&str, &str); 7] = [
    ("SINK", "name"),
    ("KIND", "kind"),
    ("STATE", "state"),
    ("BEHIND", "behind"),
    ("WRITTEN", "written"),
    ("LAST WRITTEN", "last_written"),
    ("ADDRESS", "address"),
];

/// Prints the host's state: tables, or the answer as it came. An error if a part or a sink is not as
/// it should be.
pub(super) fn print(host: &HostArgs) -> anyhow::Result<()> {
    let answer = host.answer(&Request::get(&["system"]), Asked::nothing())?;
    if host.json {
        println!("{answer}");
    } else {
        anstream::print!("{}", text(&answer, Look::stdout()));
    }
    let (parts, sinks) = (parts(&answer), sinks(&answer));
    match parts.iter().chain(&sinks).filter(|row| !is_well(row)).count() {
        0 => Ok(()),
        1 => bail!("1 part of the host is not as it should be"),
        many => bail!("{many} parts of the host are not as they should be"),
    }
}

fn is_well(row: &Value) -> bool {
    row["state"] == "ok"
}

fn text(answer: &Value, look: Look) -> String {
    let version = printable(answer["version"].as_str().unwrap_or_default());
    let mut text = format!("ocelli {version}\n");
    text += &entries(&parts(answer), &PART_COLUMNS, "reason", look);
    let sinks = sinks(answer);
    if !sinks.is_empty() {
        text += &format!("\n{}", entries(&sinks, &SINK_COLUMNS, "reason", look));
    }
    text
}

/// One row for each part that the answer has.
fn parts(answer: &Value) -> Vec<Value> {
    let part = |name: &str| Some(named(name, members(answer["host"].get(name)?)));
    PARTS.into_iter().filter_map(part).collect()
}

/// One row for each sink. The collector of traces takes no events, and is one for the host alone.
fn sinks(answer: &Value) -> Vec<Value> {
    let told = answer["sinks"].as_object().into_iter().flatten();
    let mut rows: Vec<Value> = told
        .map(|(name, sink)| {
            let mut row = members(sink);
            let state = match (&sink["up"], &sink["reason"]) {
                (Value::Bool(true), _) => "ok",
                // Not reached yet: the host gives that some seconds.
                (_, Value::Null) => {
                    let told = answer["host"].get("sinks").and_then(|sinks| sinks.get(name));
                    let state = told.and_then(|sink| sink.get("state")).and_then(Value::as_str);
                    state.unwrap_or("degraded")
                }
                _ => "degraded",
            };
            row.insert("state".into(), state.into());
            named(name, row)
        })
        .collect();
    let of_host = answer["host"].get("sinks").and_then(Value::as_object).into_iter().flatten();
    let others = of_host.filter(|(name, _)| answer["sinks"].get(name.as_str()).is_none());
    rows.extend(others.map(|(name, part)| named(name, members(part))));
    rows
}

/// The members of an object.
fn members(object: &Value) -> Map<String, Value> {
    object.as_object().cloned().unwrap_or_default()
}

/// A row with its name.
fn named(name: &str, mut row: Map<String, Value>) -> Value {
    row.insert("name".into(), name.into());
    row.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parts_and_sinks_are_rows_with_what_is_wrong_below_them() {
        let ok = json!({"state": "ok", "reason": null, "since": "2026-01-01T00:00:00.000Z"});
        let late =
            json!({"state": "degraded", "reason": "slow", "since": "2026-01-02T00:00:00.000Z"});
        let answer = json!({
            "version": "0.0.1",
            "host": {"storage": late, "clock": ok, "config": ok, "inference": ok, "redis": ok,
                     "sinks": {"redis": ok, "otlp": ok}, "events_waiting": 0},
            "sinks": {
                "redis": {"kind": "redis", "address": "redis://h:6379/0", "up": true,
                          "reason": null, "last_written": "2026-01-02T10:00:00.000Z",
                          "behind": 0, "written": 7},
                "webhook:hub": {"kind": "webhook", "address": "https://hub.example", "up": false,
                                "reason": "HTTP status 503", "last_written": null,
                                "behind": 12, "written": 0},
            },
        });
        let expected = "\
ocelli 0.0.1
PART       STATE     SINCE
storage    degraded  2026-01-02T00:00:00.000Z
  reason: slow
clock      ok        2026-01-01T00:00:00.000Z
config     ok        2026-01-01T00:00:00.000Z
inference  ok        2026-01-01T00:00:00.000Z

SINK         KIND     STATE     BEHIND  WRITTEN  LAST WRITTEN              ADDRESS
redis        redis    ok        0       7        2026-01-02T10:00:00.000Z  redis://h:6379/0
webhook:hub  webhook  degraded  12      0        -                         https://hub.example
  reason: HTTP status 503
otlp         -        ok        -       -        -                         -
";
        assert_eq!(text(&answer, Look::PLAIN), expected);
        let all = parts(&answer).into_iter().chain(sinks(&answer));
        assert_eq!(all.filter(|row| !is_well(row)).count(), 2);
    }
}
