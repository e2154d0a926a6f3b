//! The commands that ask a running host.

mod deployments;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;
use ureq::SendBody;
use ureq::config::ConfigBuilder;
use ureq::http::header::{AUTHORIZATION, HeaderValue};
use ureq::http::{Request, StatusCode};
use ureq::middleware::MiddlewareNext;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::typestate::AgentScope;
use url::Url;

pub(crate) use deployments::{Deploy, Deployments, Rollback};

/// Where the host listens unless its config says otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:8001";

/// The host answers from memory: one that takes longer does not answer at all.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The variable with the token.
const TOKEN: &str = "OCELLI_TOKEN";

/// Which host is asked, and how its answer is shown.
#[derive(Args)]
pub(crate) struct Host {
    /// Where the host is.
    #[arg(long, value_name = "URL", env = "OCELLI_URL", default_value = DEFAULT_URL)]
    url: String,
    /// The file with the token. Left out: the variable OCELLI_TOKEN, if it is there.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The certificate, in PEM, of those who vouch for an https:// host. Left out: the well-known ones.
    #[arg(long, value_name = "FILE", env = "OCELLI_CA")]
    ca: Option<PathBuf>,
    /// As the host tells it, for programs.
    #[arg(long)]
    json: bool,
}

/// What a host answered.
struct Answer {
    /// Whether it was done.
    good: bool,
    /// The status, as a person reads it.
    status: String,
    /// Null where it is not JSON.
    body: Value,
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
pub(crate) fn sessions(host: &Host) -> anyhow::Result<()> {
    if let Some(list) = host.list(&host.url(&["sessions"])?, "sessions")? {
        print!("{}", table(&list, &COLUMNS, "last_error"));
    }
    Ok(())
}

impl Host {
    /// A path below `/v1`, its parts encoded.
    fn url(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url = Url::parse(&self.url).with_context(|| format!("{:?} is not a URL", self.url))?;
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().push("v1").extend(path),
            Err(()) => bail!("{:?} is not the URL of a host", self.url),
        };
        Ok(url)
    }

    /// For what the host answers at once.
    fn agent(&self) -> anyhow::Result<ureq::Agent> {
        Ok(self.config()?.timeout_global(Some(TIMEOUT)).build().into())
    }

    /// For what takes as long as it takes: a shadow alone may be ten minutes.
    fn patient(&self) -> anyhow::Result<ureq::Agent> {
        Ok(self.config()?.timeout_connect(Some(TIMEOUT)).build().into())
    }

    fn config(&self) -> anyhow::Result<ConfigBuilder<AgentScope>> {
        let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        let mut config = ureq::Agent::config_builder().http_status_as_error(false).user_agent(agent);
        if let Some(authorization) = self.token()?.map(|token| format!("Bearer {token}")) {
            config =
                config.middleware(move |mut request: Request<SendBody<'_>>, next: MiddlewareNext<'_>| {
                    // Read from a file or a variable, it may hold anything; what is no header is refused by the host.
                    if let Ok(value) = HeaderValue::from_str(&authorization) {
                        request.headers_mut().insert(AUTHORIZATION, value);
                    }
                    next.handle(request)
                });
        }
        if let Some(file) = &self.ca {
            let pem = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if certificates.is_empty() {
                bail!("{} holds no certificate in PEM", file.display());
            }
            let roots = RootCerts::Specific(Arc::new(certificates));
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(config)
    }

    /// Not an argument: other users of the machine see those.
    fn token(&self) -> anyhow::Result<Option<String>> {
        let token = match &self.token_file {
            Some(file) => {
                Some(std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?)
            }
            None => std::env::var(TOKEN).ok(),
        };
        Ok(token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()))
    }

    fn answer(&self, sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<Answer> {
        let url = &self.url;
        let mut response = sent.with_context(|| {
            format!("cannot reach {url}; does `ocelli serve` run there? OCELLI_URL names another address")
        })?;
        let body = response.body_mut().read_to_string();
        let body = body.with_context(|| format!("reading the answer of {url}"))?;
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let status = response.status();
        let detail = || shown(body.get("detail").and_then(Value::as_str).unwrap_or_default());
        if status == StatusCode::UNAUTHORIZED {
            bail!("{url}: {}. {TOKEN} or --token-file says which; `ocelli token new` makes one", detail());
        }
        if status == StatusCode::FORBIDDEN && body.get("code").and_then(Value::as_str) == Some("forbidden") {
            bail!("{url}: {}: ask with another one ({TOKEN} or --token-file)", detail());
        }
        if status.is_success() && body == Value::Null {
            bail!("{url} does not answer as an Ocelli host does: its answer is not JSON");
        }
        Ok(Answer { good: status.is_success(), status: status.to_string(), body })
    }

    /// Asks for a list, which stands under `key` in the answer. None: the answer is printed as it came.
    fn list(&self, url: &Url, key: &str) -> anyhow::Result<Option<Vec<Value>>> {
        let Answer { good, status, mut body } = self.answer(self.agent()?.get(url.as_str()).call())?;
        if !good {
            let detail = body.get("detail").and_then(Value::as_str).unwrap_or_default();
            bail!("{url} answers {status}: {}", shown(detail));
        }
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

/// Columns as wide as their widest cell; what stands under `below` follows its row.
fn table(entries: &[Value], columns: &[(&str, &str)], below: &str) -> String {
    let cell = |entry: &Value, key: &str| match entry.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => shown(text),
        Some(Value::Number(number)) if key == "uptime_s" => duration(number.as_f64().unwrap_or_default()),
        Some(other) => shown(&other.to_string()),
    };
    let heading: Vec<String> = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heading)
        .chain(entries.iter().map(|entry| columns.iter().map(|(_, key)| cell(entry, key)).collect()))
        .collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
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
            text.push_str(&format!("  {}: {}\n", below.replace('_', " "), shown(&note)));
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

    fn host(url: &str) -> Host {
        Host { url: url.into(), token_file: None, ca: None, json: false }
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

    #[test]
    fn names_are_encoded_in_paths() {
        let url = |base: &str| host(base).url(&["sessions", "a/b;c ü"]).unwrap().to_string();
        let path = "/v1/sessions/a%2Fb;c%20%C3%BC";
        assert_eq!(url("http://host:1"), format!("http://host:1{path}"));
        assert_eq!(url("http://host/cams/"), format!("http://host/cams{path}"));
        assert!(host("host:1").url(&[]).is_err());
    }
}
