//! `ocelli config`: the config of a running host beside what runs. `ocelli reload`: has it read
//! again.

use anyhow::bail;
use ocelli_client::{Error, Request};
use serde_json::Value;

use super::host::{Asked, HostArgs, block_on};
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
        text += &problems(refused, "problems");
    }
    if members(answer, "problems").next().is_some() {
        text += "faults of what it names:\n";
        text += &problems(answer, "problems");
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
fn problems(holder: &Value, list: &str) -> String {
    let line = |problem: &Value| {
        let file = problem["file"].as_str().unwrap_or_default();
        let place = problem["line"].as_u64().map(|line| format!("{file}: line {line}: "));
        let variable = problem["variable"].as_str().map(|name| format!("variable {name}: "));
        let place = place.or(variable).unwrap_or_else(|| format!("{file}: "));
        let key = problem["key"].as_str().filter(|key| !key.is_empty());
        let key = key.map(|key| format!("{key}: ")).unwrap_or_default();
        let message = problem["message"].as_str().unwrap_or_default();
        format!("  {}\n", printable(&format!("{place}{key}{message}")))
    };
    members(holder, list).map(line).collect()
}

/// Has the host read its config and apply it. An error if it does not apply it, or a camera does not
/// follow it.
pub(super) fn reload(host: &HostArgs) -> anyhow::Result<()> {
    let request = Request::post(&["config", "reload"]).patient();
    let client = host.client()?;
    match block_on(client.ask(&request))? {
        Ok(answer) => {
            if host.json {
                println!("{answer}");
            } else {
                anstream::print!("{}", report(&answer));
            }
            match not_followed(&answer) {
                0 => Ok(()),
                1 => bail!("1 fault in what the config says"),
                many => bail!("{many} faults in what the config says"),
            }
        }
        Err(Error::Problem(problem)) if problem.code == "config_not_applied" => {
            let answer = serde_json::to_value(&*problem)?;
            if host.json {
                println!("{answer}");
            } else {
                eprint!("{}", problems(&answer, "config_problems"));
            }
            bail!("the config is not applied, everything runs on as before")
        }
        Err(error) => Err(block_on(host.explained(&client, error, Asked::nothing()))?),
    }
}

/// Cameras that do not run as the config says, and faults of what it names.
fn not_followed(answer: &Value) -> usize {
    let cameras: Vec<&str> = names(&answer["cameras"], "refused").collect();
    let others = members(answer, "problems").filter(|problem| {
        // The camera's fault is why it is refused.
        problem["camera"].as_str().is_none_or(|camera| !cameras.contains(&camera))
    });
    cameras.len() + others.count()
}

fn names<'a>(of: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    members(of, key).filter_map(Value::as_str)
}

/// What a reload has changed, a line for each kind of change.
fn report(answer: &Value) -> String {
    let line = |words: &str, list: Vec<&str>| match list.is_empty() {
        true => String::new(),
        false => format!("{words}: {}\n", printable(&list.join(", "))),
    };
    let cameras = &answer["cameras"];
    let mut text = String::new();
    for (words, key) in [
        ("started", "started"),
        ("restarted", "restarted"),
        ("deployed", "deployed"),
        ("ended", "stopped"),
        ("not as configured", "refused"),
    ] {
        text += &line(words, names(cameras, key).collect());
    }
    for (words, key) in [
        ("in force from now on", "now"),
        ("in force for workers that start from now on", "next_worker"),
        ("take effect when the host is restarted", "waiting"),
    ] {
        text += &line(words, names(answer, key).collect());
    }
    if text.is_empty() {
        text += "nothing has changed\n";
    }
    if members(answer, "problems").next().is_some() {
        text += "faults of what it names:\n";
        text += &problems(answer, "problems");
    }
    text
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
  o.toml: line 3: alert: unknown key; did you mean alerts?
take effect when the host is restarted: inference.threads
CAMERA  DRIFT     CONFIGURED  RUNS  SINCE
gate    -         -           -     -
yard    settings  eye         eye   2026-01-01T10:00:00.000Z
  reason: deployment 7, by ann; differs in settings.score
";
        assert_eq!(text(&answer, Look::PLAIN), expected);
        assert_eq!(deviations(&answer), 2);
    }

    #[test]
    fn a_reload_is_told_by_what_it_has_changed() {
        let cameras = json!({"started": ["gate"], "restarted": [], "deployed": ["a", "b"],
            "stopped": ["yard"], "refused": ["hall"], "untouched": 3});
        let problem = |camera: Value, key: &str| {
            json!({"file": "c.toml", "line": 7, "variable": null, "key": key, "camera": camera,
                "message": "no such file"})
        };
        let mut answer = json!({"cameras": cameras, "now": ["alerts.no_results_s"],
            "next_worker": [], "waiting": ["logs.directory"],
            "problems": [problem(json!("hall"), "cameras[1].source")]});
        let expected = "\
started: gate
deployed: a, b
ended: yard
not as configured: hall
in force from now on: alerts.no_results_s
take effect when the host is restarted: logs.directory
faults of what it names:
  c.toml: line 7: cameras[1].source: no such file
";
        assert_eq!((report(&answer).as_str(), not_followed(&answer)), (expected, 1));
        answer["problems"] = json!([problem(Value::Null, "mqtt.ca")]);
        assert_eq!(not_followed(&answer), 2, "the host's own");
        let quiet = json!({"cameras": {"untouched": 4}});
        assert_eq!((report(&quiet).as_str(), not_followed(&quiet)), ("nothing has changed\n", 0));
    }
}
