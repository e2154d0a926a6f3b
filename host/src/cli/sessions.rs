//! `ocelli sessions`, `ocelli restart`, `ocelli end`: the sessions of a running host.

use clap::Args;
use hyper::Method;
use ocelli_client::Request;
use serde_json::{Value, json};

use super::host::{Asked, HostArgs};
use super::table::{Look, entries, printable};

/// Columns of the table: heading, member of the session.
const COLUMNS: [(&str, &str); 10] = [
    ("SESSION", "id"),
    ("STATE", "state"),
    ("DRIFT", "drift"),
    ("PID", "pid"),
    ("PIPELINE", "pipeline"),
    ("DEPLOYMENT", "deployment"),
    ("UPTIME", "uptime_s"),
    ("RESTARTS", "restarts"),
    ("RUNS/S", "runs_per_second"),
    ("SOURCE", "source"),
];

/// Sessions to do something with.
#[derive(Args)]
pub(super) struct SessionsArgs {
    /// The session, or several.
    #[arg(required = true, value_name = "SESSION")]
    sessions: Vec<String>,
    #[command(flatten)]
    host: HostArgs,
}

/// Prints the sessions of a host: a table, or the answer as it came.
pub(super) fn print(host: &HostArgs) -> anyhow::Result<()> {
    if let Some(mut list) = host.list(&Request::get(&["sessions"]), "sessions", Asked::nothing())? {
        list.iter_mut().for_each(name_drift);
        anstream::print!("{}", entries(&list, &columns(&list), "last_error", Look::stdout()));
    }
    Ok(())
}

/// The columns; of sessions of a site with their hosts.
fn columns(list: &[Value]) -> Vec<(&'static str, &'static str)> {
    let mut columns = COLUMNS.to_vec();
    if list.iter().any(|session| session.get("host").is_some()) {
        columns.insert(1, ("HOST", "host"));
    }
    columns
}

impl SessionsArgs {
    /// Restarts the worker of each.
    pub(super) fn restart(&self) -> anyhow::Result<()> {
        self.each(
            |session| Request::post(&["sessions", session, "restart"]),
            |session, was| {
                let state = was.get("state").and_then(Value::as_str).unwrap_or_default();
                format!("{session}: its worker starts anew; it was {}", printable(state))
            },
        )
    }

    /// Ends each, and returns when their processes are gone.
    pub(super) fn end(&self) -> anyhow::Result<()> {
        let request = |session| Request::new(Method::DELETE, &["sessions", session]).patient();
        self.each(request, |session, _| {
            format!("{session}: ended; a camera of the config is back when the host restarts")
        })
    }

    /// Stops at the first that is refused: what follows may have been meant otherwise, too.
    fn each<'a>(
        &'a self,
        request: impl Fn(&'a str) -> Request<'a>,
        line: impl Fn(&str, &Value) -> String,
    ) -> anyhow::Result<()> {
        for session in &self.sessions {
            let answer = self.host.answer(&request(session), Asked::session(session))?;
            match answer {
                answer if !self.host.json => println!("{}", line(&printable(session), &answer)),
                Value::Null => println!("{}", json!({"id": session, "state": "ended"})),
                answer => println!("{answer}"),
            }
        }
        Ok(())
    }
}

/// Puts the kind of a session's drift in its place: `ocelli config` says the rest.
fn name_drift(session: &mut Value) {
    if let Some(drift) = session.get_mut("drift") {
        *drift = drift.get_mut("kind").map(Value::take).unwrap_or_default();
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sessions_are_a_table_with_their_last_error_below() {
        let mut sessions = [
            json!({"id": "cam-001", "state": "running", "pid": 71, "pipeline": "object-detect", "deployment": "0a1b",
                   "uptime_s": 3725.5, "restarts": 0, "runs_per_second": 3.21, "source": "rtsp://host/stream", "last_error": null}),
            json!({"id": "d;c", "state": "degraded", "pid": null, "pipeline": "p", "deployment": "0a1b",
                   "uptime_s": 61.0, "restarts": 2, "source": "file:a\u{1b}[2J", "last_error": "no route\nto host",
                   "drift": {"kind": "pipeline", "reason": "deployment 7"}}),
        ];
        let expected = "\
SESSION  STATE     DRIFT     PID  PIPELINE       DEPLOYMENT  UPTIME  RESTARTS  RUNS/S  SOURCE
cam-001  running   -         71   object-detect  0a1b        1h02m   0         3.21    rtsp://host/stream
d;c      degraded  pipeline  -    p              0a1b        1m01s   2         -       file:a\u{fffd}[2J
  last error: no route to host
";
        sessions.iter_mut().for_each(name_drift);
        assert_eq!(entries(&sessions, &columns(&sessions), "last_error", Look::PLAIN), expected);
        sessions[0]["host"] = json!("a");
        let told = entries(&sessions, &columns(&sessions), "last_error", Look::PLAIN);
        assert!(told.starts_with("SESSION  HOST  STATE"), "{told}");
    }

    #[test]
    fn a_host_that_is_not_there_is_named_with_what_to_do() {
        // Nothing listens on port 1 of a machine that runs tests.
        let host = HostArgs::for_url("http://127.0.0.1:1");
        let error = format!("{:#}", print(&host).unwrap_err());
        assert!(error.contains("http://127.0.0.1:1") && error.contains("OCELLI_URL"), "{error}");
    }
}
