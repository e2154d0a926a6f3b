//! `ocelli hosts`, `ocelli drain`, `ocelli move`: the site that a running host belongs to.

use anyhow::bail;
use clap::Args;
use ocelli_client::Request;
use serde_json::{Value, json};

use super::host::{Asked, HostArgs};
use super::table::{Look, entries, printable};

/// Columns of the table of hosts: heading, member.
const HOSTS: [(&str, &str); 8] = [
    ("HOST", "id"),
    ("CAMERAS", "cameras"),
    ("CAPACITY", "capacity"),
    ("IS", "is"),
    ("LABELS", "labels"),
    ("NETWORKS", "networks"),
    ("VERSION", "version"),
    ("ADDRESS", "address"),
];

/// Columns of the table of cameras that no host has.
const CAMERAS: [(&str, &str); 3] =
    [("WITHOUT A HOST", "id"), ("LABELS", "labels"), ("NETWORKS", "networks")];

/// The media type of what is wished.
const JSON: &str = "application/json";

#[derive(Args)]
pub(super) struct DrainCommand {
    /// The host.
    #[arg(value_name = "HOST")]
    name: String,
    /// It gets cameras again.
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args)]
pub(super) struct MoveCommand {
    /// The camera.
    camera: String,
    /// The host that is to have it.
    #[arg(value_name = "HOST", required_unless_present = "any", conflicts_with = "any")]
    to: Option<String>,
    /// Any host may have it again.
    #[arg(long)]
    any: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// Prints the hosts of a site, and the cameras that no host has. An error where there are such, or
/// where the host that answers is no member.
pub(super) fn print(host: &HostArgs) -> anyhow::Result<()> {
    let answer = host.answer(&Request::get(&["cluster"]), Asked::nothing())?;
    if host.json {
        println!("{answer}");
    } else {
        anstream::print!("{}", text(&answer, Look::stdout()));
    }
    let homeless = members(&answer, "cameras").filter(|camera| camera["host"].is_null()).count();
    if answer.get("state").is_none_or(|state| state != "member") {
        bail!("the host that answers is no member of its site");
    }
    match homeless {
        0 => Ok(()),
        1 => bail!("1 camera has no host"),
        many => bail!("{many} cameras have no host"),
    }
}

fn members<'a>(answer: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text(answer: &Value, look: Look) -> String {
    let word = |value: &Value| printable(value.as_str().unwrap_or_default());
    let because = |reason: &Value| {
        reason.as_str().map(|reason| format!(": {}", printable(reason))).unwrap_or_default()
    };
    let mut text = format!(
        "site {}, as host {} sees it, which is {}{}\n",
        word(&answer["site"]),
        word(&answer["host"]),
        match answer["state"].as_str() {
            Some("member") => "a member".to_owned(),
            _ => word(&answer["state"]),
        },
        because(&answer["reason"])
    );
    for engine in ["etcd", "nats"] {
        let Some(told) = answer.get(engine) else { continue };
        if told["state"] != "up" {
            text += &format!("{engine} is down{}\n", because(&told["reason"]));
        }
    }
    let hosts: Vec<Value> = members(answer, "hosts").map(host_row).collect();
    text += &entries(&hosts, &HOSTS, "reason", look);
    let homeless = members(answer, "cameras").filter(|camera| camera["host"].is_null());
    let homeless: Vec<Value> = homeless.cloned().collect();
    if !homeless.is_empty() {
        text += &entries(&homeless, &CAMERAS, "reason", look);
    }
    text
}

/// A host with what it is besides, in one cell.
fn host_row(host: &Value) -> Value {
    let mut row = host.clone();
    let is = [("planner", "planner"), ("draining", "draining")];
    let is = is.into_iter().filter(|(key, _)| host[*key] == true).map(|(_, word)| word);
    if let Some(members) = row.as_object_mut() {
        members.insert("is".to_owned(), is.collect::<Vec<_>>().into());
    }
    row
}

impl DrainCommand {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let wish = json!({"draining": !self.undo});
        let request = Request::post(&["cluster", "hosts", &self.name, "drain"]);
        let request = request.content(JSON, wish.to_string().into());
        let answer = self.host.answer(&request, Asked::nothing())?;
        let what = match self.undo {
            true => "gets cameras again",
            false => "gives its cameras to others; `ocelli hosts` shows how far it is",
        };
        self.host.told(&answer, &format!("{}: {what}", printable(&self.name)));
        Ok(())
    }
}

impl MoveCommand {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let wish = json!({"host": self.to});
        let request = Request::post(&["cluster", "cameras", &self.camera, "move"]);
        let request = request.content(JSON, wish.to_string().into());
        let answer = self.host.answer(&request, Asked::nothing())?;
        let what = match &self.to {
            Some(host) => format!("goes to {} once that has prepared it", printable(host)),
            None => "stays where it is, and may go to any host".to_owned(),
        };
        self.host.told(&answer, &format!("{}: {what}", printable(&self.camera)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_site_is_a_table_of_hosts_and_of_what_no_host_has() {
        let answer = json!({
            "site": "hall", "host": "a", "state": "member", "reason": null, "planner": "b",
            "etcd": {"state": "up", "reason": null},
            "nats": {"state": "down", "reason": "no servers"},
            "hosts": [
                {"id": "a", "cameras": 2, "capacity": 50, "labels": ["gpu"], "networks": [],
                 "version": "0.1.0", "address": "https://10.0.0.5:8001", "draining": true,
                 "planner": false, "here": true},
                {"id": "b", "cameras": 0, "capacity": 50, "labels": [], "networks": ["hall-a"],
                 "version": "0.1.0", "address": "https://10.0.0.6:8001", "draining": false,
                 "planner": true, "here": false}],
            "cameras": [
                {"id": "gate", "host": "a", "labels": [], "networks": [], "reason": null},
                {"id": "yard", "host": null, "labels": ["tpu"], "networks": [],
                 "reason": "no host has its labels"}]});
        let expected = "\
site hall, as host a sees it, which is a member
nats is down: no servers
HOST  CAMERAS  CAPACITY  IS        LABELS  NETWORKS  VERSION  ADDRESS
a     2        50        draining  gpu     -         0.1.0    https://10.0.0.5:8001
b     0        50        planner   -       hall-a    0.1.0    https://10.0.0.6:8001
WITHOUT A HOST  LABELS  NETWORKS
yard            tpu     -
  reason: no host has its labels
";
        assert_eq!(text(&answer, Look::PLAIN), expected);
        let lapsed = json!({"site": "hall", "host": "a", "state": "lapsed", "reason": "etcd: away",
            "etcd": {"state": "down", "reason": "away"}, "nats": {"state": "up"}, "hosts": []});
        let told = text(&lapsed, Look::PLAIN);
        assert!(told.contains("which is lapsed: etcd: away\netcd is down: away\n"), "{told}");
    }
}
