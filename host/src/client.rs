//! The commands that ask a running host.

mod deployments;
mod watch;

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use ocelli_client::{Client, Error, Problem, Request};
use serde_json::Value;

pub(crate) use deployments::{DeployCommand, DeploymentsCommand, RollbackCommand};
pub(crate) use watch::WatchCommand;

/// Where the host listens unless its config says otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:8001";

/// The variable with the token.
const TOKEN: &str = "OCELLI_TOKEN";

/// Which host is asked, and how its answer is shown.
#[derive(Args)]
pub(crate) struct HostArgs {
    /// Where the host is.
    #[arg(long, value_name = "URL", env = "OCELLI_URL", default_value = DEFAULT_URL)]
    url: String,
    /// The file with the token. Left out: the variable OCELLI_TOKEN, if it is there.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The certificate, in PEM, of those who vouch for an https:// host. Left out: the well-known
    /// ones.
    #[arg(long, value_name = "FILE", env = "OCELLI_CA")]
    ca: Option<PathBuf>,
    /// As the host tells it, for programs.
    #[arg(long)]
    json: bool,
}

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

/// Prints the sessions of a host: a table, or the answer as it came.
pub(crate) fn sessions(host: &HostArgs) -> anyhow::Result<()> {
    if let Some(list) = host.list(&Request::get(&["sessions"]), "sessions")? {
        print!("{}", table(&list, &COLUMNS, "last_error"));
    }
    Ok(())
}

impl HostArgs {
    fn client(&self) -> anyhow::Result<Client> {
        let name = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        let mut client = Client::new(&self.url)?.with_user_agent(name)?;
        if let Some(token) = self.token()? {
            client = client.with_token(&token)?;
        }
        if let Some(file) = &self.ca {
            let pem = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            client = client
                .with_certificates(&pem)
                .map_err(|_| anyhow!("{} holds no certificate in PEM", file.display()))?;
        }
        Ok(client)
    }

    /// Not an argument: other users of the machine see those.
    fn token(&self) -> anyhow::Result<Option<String>> {
        let token = match &self.token_file {
            Some(file) => Some(
                std::fs::read_to_string(file)
                    .with_context(|| format!("reading {}", file.display()))?,
            ),
            None => std::env::var(TOKEN).ok(),
        };
        Ok(token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()))
    }

    /// What the host answers: that it was done, or why not.
    fn ask(&self, request: &Request<'_>) -> anyhow::Result<Result<Value, Problem>> {
        let client = self.client()?;
        match block_on(client.ask(request))? {
            Ok(answer) => Ok(Ok(answer)),
            Err(error) => self.refused(error).map(Err),
        }
    }

    /// The host's own refusal of what was asked. It is the error where nobody was let in, or nobody
    /// is there.
    fn refused(&self, error: Error) -> anyhow::Result<Problem> {
        let url = &self.url;
        match error {
            Error::Problem(problem) if problem.status == 401 => bail!(
                "{url}: {}. {TOKEN} or --token-file says which; `ocelli token new` makes one",
                printable(&problem.detail)
            ),
            Error::Problem(problem) if problem.status == 403 && problem.code == "forbidden" => {
                bail!(
                    "{url}: {}: ask with another one ({TOKEN} or \
                    --token-file)",
                    printable(&problem.detail)
                )
            }
            Error::Problem(problem) => Ok(*problem),
            Error::InvalidAnswer(why) => bail!(
                "{url} does not answer as an Ocelli host does: \
                {why}"
            ),
            error => Err(anyhow!(error).context(format!(
                "cannot reach {url}; does `ocelli serve` run there? OCELLI_URL names another \
                    address"
            ))),
        }
    }

    /// Asks for a list, which stands under `key` in the answer. None: the answer is printed as it
    /// came.
    fn list(&self, request: &Request<'_>, key: &str) -> anyhow::Result<Option<Vec<Value>>> {
        let mut body = match self.ask(request)? {
            Ok(body) => body,
            Err(problem) => {
                let url = self.client()?.url(request)?;
                bail!("{url} answers {}: {}", status(&problem), printable(&problem.detail));
            }
        };
        if self.json {
            println!("{body}");
            return Ok(None);
        }
        match body.get_mut(key).map(Value::take) {
            Some(Value::Array(list)) => Ok(Some(list)),
            _ => bail!("{} does not answer as an Ocelli host does", self.url),
        }
    }
}

/// Waits for a client on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("starting the runtime")?.block_on(future))
}

/// The status as a person reads it.
fn status(problem: &Problem) -> String {
    format!("{} {}", problem.status, printable(&problem.title))
}

/// Columns as wide as their widest cell; what stands under `below` follows its row.
fn table(entries: &[Value], columns: &[(&str, &str)], below: &str) -> String {
    let cell = |entry: &Value, key: &str| match entry.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => printable(text),
        Some(Value::Number(number)) if key == "uptime_s" => {
            duration(number.as_f64().unwrap_or_default())
        }
        Some(other) => printable(&other.to_string()),
    };
    let heading: Vec<String> = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heading)
        .chain(
            entries.iter().map(|entry| columns.iter().map(|(_, key)| cell(entry, key)).collect()),
        )
        .collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
        let entry = index.checked_sub(1).and_then(|entry| entries.get(entry));
        if let Some(note) = entry.and_then(|entry| entry.get(below)).and_then(Value::as_str) {
            // A backtrace has many lines.
            let note = note.split_whitespace().collect::<Vec<_>>().join(" ");
            text.push_str(&format!("  {}: {}\n", below.replace('_', " "), printable(&note)));
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
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { '\u{fffd}' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn host(url: &str) -> HostArgs {
        HostArgs { url: url.into(), token_file: None, ca: None, json: false }
    }

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
  last error: no route to host
";
        assert_eq!(table(&sessions, &COLUMNS, "last_error"), expected);
    }

    #[test]
    fn a_host_that_is_not_there_is_named_with_what_to_do() {
        // Nothing listens on port 1 of a machine that runs tests.
        let host = host("http://127.0.0.1:1");
        let error = format!("{:#}", sessions(&host).unwrap_err());
        assert!(error.contains("http://127.0.0.1:1") && error.contains("OCELLI_URL"), "{error}");
    }
}
