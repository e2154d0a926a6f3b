//! `ocelli config`: the config of a running host beside what runs.

use anyhow::bail;
use ocelli_client::Request;
use serde_json::Value;

use super::host::{Asked, HostArgs};
use super::table::{Look, entries, printable};

/// Columns of the table of cameras: heading, member.
const COLUMNS: [(&str, &str); 5] = [
    ("CAMERA", "id"),
    ("DRIFT", "kind"),
    ("CONFIGURED", "desired"),
    ("RUNS", "actual"),
    ("SINCE", "since"),
];

/// Prints the config's state: what it is, or the answer as it came. An error if the file as it is
/// now is not in force, or a camera does not run as it says.
pub(super) fn print(host: &HostArgs) -> anyhow::Result<()> {
    let answer = host.answer(&Request::get(&["config"]), Asked::nothing())?;
    if host.json {
        println!("{answer}");
    } else {
        anstream::print!("{}", text(&answer, Look::stdout()));
    }
    match deviations(&answer) {
        0 => Ok(()),
        1 => bail!("1 deviation from the config"),
        many => bail!("{many} deviations from the config"),
    }
}

fn members<'a>(answer: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// Cameras that do not run as the config says; a file that was refused is one more.
fn deviations(answer: &Value) -> usize {
    let drifting = members(answer, "cameras").filter(|camera| !camera["drift"].is_null()).count();
    drifting + usize::from(!answer["refused"].is_null())
}

fn text(answer: &Value, look: Look) -> String {
    let word = |value: &Value| printable(value.as_str().unwrap_or_default());
    let mut text = format!("in force since {}\n", word(&answer["applied"]));
    if let Value::Object(_) = &answer["refused"] {
        let refused = &answer["refused"];
        text += &format!("refused at {} ({}):\n", word(&refused["time"]), word(&refused["cause"]));
        text += &problems(refused);
    }
    if members(answer, "problems").next().is_some() {
        text += "faults of what it names:\n";
        text += &problems(answer);
    }
    let waiting: Vec<String> = members(answer, "waiting").map(word).collect();
    if !waiting.is_empty() {
        text += &format!("take effect when the host is restarted: {}\n", waiting.join(", "));
    }
    // One object a camera, with the members of its drift beside its name.
    let cameras: Vec<Value> = members(answer, "cameras").map(row).collect();
    if !cameras.is_empty() {
        text += &entries(&cameras, &COLUMNS, "reason", look);
    }
    text
}

fn row(camera: &Value) -> Value {
    let mut row = camera["drift"].as_object().cloned().unwrap_or_default();
    row.insert("id".into(), camera["id"].clone());
    let keys: Vec<&str> = row
        .get("keys")
        .into_iter()
        .flat_map(Value::as_array)
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !keys.is_empty() {
        let reason = row.get("reason").and_then(Value::as_str).unwrap_or_default();
        let reason = format!("{reason}; differs in {}", keys.join(", "));
        row.insert("reason".into(), reason.into());
    }
    row.into()
}

/// The problems, one on each line.
fn problems(holder: &Value) -> String {
    let line = |problem: &Value| {
        let place = problem["line"].as_u64().map(|line| format!("line {line}: "));
        let variable = problem["variable"].as_str().map(|name| format!("variable {name}: "));
        let place = place.or(variable).unwrap_or_default();
        let (key, message) = (problem["key"].as_str(), problem["message"].as_str());
        let (key, message) = (key.unwrap_or_default(), message.unwrap_or_default());
        format!("  {}\n", printable(&format!("{place}{key}: {message}")))
    };
    members(holder, "problems").map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refused_edit_and_each_drifting_camera_are_told_with_their_reason() {
        let answer = json!({
            "applied": "2026-01-01T00:00:00.000Z",
            "problems": [],
            "waiting": ["inference.threads"],
            "refused": {"time": "2026-01-02T00:00:00.000Z", "cause": "edited", "problems": [
                {"file": "o.toml", "line": 3, "variable": null, "key": "alert", "camera": null,
                 "message": "unknown key; did you mean alerts?"}]},
            "cameras": [
                {"id": "gate", "drift": null},
                {"id": "yard", "drift": {"kind": "settings", "desired": "eye", "actual": "eye",
                 "keys": ["settings.score"], "since": "2026-01-01T10:00:00.000Z",
                 "reason": "deployment 7, by ann"}}]});
        let expected = "\
in force since 2026-01-01T00:00:00.000Z
refused at 2026-01-02T00:00:00.000Z (edited):
  line 3: alert: unknown key; did you mean alerts?
take effect when the host is restarted: inference.threads
CAMERA  DRIFT     CONFIGURED  RUNS  SINCE
gate    -         -           -     -
yard    settings  eye         eye   2026-01-01T10:00:00.000Z
  reason: deployment 7, by ann; differs in settings.score
";
        assert_eq!(text(&answer, Look::PLAIN), expected);
        assert_eq!(deviations(&answer), 2);
    }
}
