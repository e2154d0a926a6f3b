//! `ocelli logs`: what a session logs.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use ocelli_client::{Client, Error, Request};
use serde::Deserialize;

use super::follow::until_stopped;
use super::host::{Asked, HostArgs, block_on};
use super::table::printable;

/// Between two looks at a log that has nothing new: soon enough for somebody who watches, and two
/// small requests a second.
const LOOK: Duration = Duration::from_millis(500);

/// Lines that are asked for at a time by those who follow: the most that the host gives.
const PAGE: u32 = 1000;

#[derive(Args)]
pub(super) struct LogsCommand {
    /// The session.
    session: String,
    /// Begin with so many lines of the past, 1 to 1000.
    #[arg(long, value_name = "COUNT", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    lines: u32,
    /// Go on with what the session logs, until it ends or Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    host: HostArgs,
}

impl LogsCommand {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let client = self.host.client()?;
        let mut reader = LogReader::new(&client, &self.session, self.lines);
        let printed = async {
            match reader.next().await {
                Ok(first) => self.print(&first)?,
                Err(error) => return Err(self.failed(&client, error).await),
            }
            if self.follow { self.follow(&client, &mut reader).await } else { Ok(()) }
        };
        block_on(until_stopped(printed, None))?
    }

    /// Prints what comes, until the session is gone.
    async fn follow(&self, client: &Client, reader: &mut LogReader<'_>) -> anyhow::Result<()> {
        let mut away = false;
        loop {
            match reader.following().await {
                Ok(part) => {
                    away = false;
                    self.print(&part)?;
                }
                // It may start anew.
                Err(error) if error.is_transient() => {
                    if !std::mem::replace(&mut away, true) {
                        eprintln!(
                            "ocelli: {}: {}; trying again",
                            self.host.url,
                            printable(&error.to_string())
                        );
                    }
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => return Err(self.failed(client, error).await),
            }
        }
    }

    fn print(&self, part: &LogAnswer) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        if part.missed {
            eprintln!("ocelli: lines are missing here: the log was rotated or removed meanwhile");
        }
        let lines = part.lines.iter().try_for_each(|line| {
            if self.host.json {
                writeln!(out, "{}", serde_json::Value::from(line.as_str()))
            } else {
                writeln!(out, "{}", shown(line))
            }
        });
        lines.and_then(|()| out.flush()).context("cannot print")
    }

    async fn failed(&self, client: &Client, error: Error) -> anyhow::Error {
        self.host.explained(client, error, Asked::session(&self.session)).await
    }
}

/// A line for a terminal. The log has tabs as they are.
pub(super) fn shown(line: &str) -> String {
    printable(&line.replace('\t', "    "))
}

/// The answer of `GET /v1/sessions/{id}/log`.
#[derive(Debug, Deserialize)]
pub(super) struct LogAnswer {
    pub(super) lines: Vec<String>,
    /// Where the next part begins.
    next: String,
    /// Whether lines before these are gone.
    pub(super) missed: bool,
}

/// Reads a session's log part by part, each line once.
pub(super) struct LogReader<'a> {
    client: &'a Client,
    session: &'a str,
    /// Lines of the next part.
    lines: u32,
    /// `None`: the past, of which the first part is the end.
    after: Option<String>,
}

impl<'a> LogReader<'a> {
    /// Begins with the last `lines` lines, 1 to 1000.
    pub(super) fn new(client: &'a Client, session: &'a str, lines: u32) -> Self {
        Self { client, session, lines, after: None }
    }

    /// The next part as it is now, maybe without a line.
    pub(super) async fn next(&mut self) -> Result<LogAnswer, Error> {
        let mut request =
            Request::get(&["sessions", self.session, "log"]).query("lines", self.lines.to_string());
        if let Some(after) = &self.after {
            request = request.query("after", after.clone());
        }
        let answer = LogAnswer::deserialize(self.client.ask(&request).await?)
            .map_err(|error| Error::InvalidAnswer(error.to_string()))?;
        (self.lines, self.after) = (PAGE, Some(answer.next.clone()));
        Ok(answer)
    }

    /// The next part once it has a line. Cancel-safe: what was not returned comes again.
    pub(super) async fn following(&mut self) -> Result<LogAnswer, Error> {
        loop {
            let part = self.next().await?;
            if part.missed || !part.lines.is_empty() {
                return Ok(part);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_its_tabs_as_blanks_and_moves_no_cursor() {
        assert_eq!(shown("a\tb\u{1b}[2J"), "a    b\u{fffd}[2J");
    }

    #[test]
    fn a_host_that_is_not_there_is_named_with_what_to_do() {
        let host = HostArgs::for_url("http://127.0.0.1:1");
        let logs = LogsCommand { session: "gate".into(), lines: 1, follow: true, host };
        let error = format!("{:#}", logs.run().unwrap_err());
        assert!(error.contains("http://127.0.0.1:1") && error.contains("OCELLI_URL"), "{error}");
    }
}
