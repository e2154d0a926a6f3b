//! `ocelli logs`: what sessions log.

mod merge;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures_util::{StreamExt, stream};
use ocelli_client::{Client, Error, Request};
use serde::Deserialize;
use tokio::time::Instant;

use super::follow::until_stopped;
use super::host::{Asked, HostArgs, block_on};
use super::table::printable;
use merge::{EntryReader, Level, LoggedEntry, Tail};

/// Between two looks at a log that has nothing new: soon enough for somebody who watches, and two
/// small requests a second.
const LOOK: Duration = Duration::from_millis(500);

/// The same for each of many logs: twenty requests a second in all, a fifth of what the host grants
/// a caller unless its config says otherwise.
const LOOK_OF_MANY: Duration = Duration::from_millis(50);

/// Between two looks for new sessions.
const LIST: Duration = Duration::from_secs(5);

/// Logs that are asked for at the same time.
const AT_ONCE: usize = 8;

/// Lines that are asked for at a time by those who follow: the most that the host gives. Many logs
/// share them.
const PAGE: u32 = 1000;

/// Lines of each log at a time at least: more than an entry with its backtrace has.
const LEAST_PAGE: u32 = 50;

/// Widest column of names. A longer one pushes its line to the right.
const MAX_COLUMN: usize = 24;

#[derive(Args)]
pub(super) struct LogsCommand {
    /// The session, or several. Left out: all, with --follow those that begin later included.
    #[arg(value_name = "SESSION")]
    sessions: Vec<String>,
    /// Begin with so many lines of the past of all of them together, 1 to 1000.
    #[arg(long, value_name = "COUNT", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    lines: u32,
    /// Only what is as grave as this or graver.
    #[arg(long, value_enum, value_name = "LEVEL")]
    level: Option<Level>,
    /// Go on with what they log, until Ctrl-C or until the session ends.
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    host: HostArgs,
}

impl LogsCommand {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let client = self.host.client()?;
        block_on(until_stopped(self.show(&client), None))?
    }

    async fn show(&self, client: &Client) -> anyhow::Result<()> {
        let names = match self.sessions.as_slice() {
            [] => match sessions(client).await {
                Ok(names) => names,
                Err(error) => return Err(self.failed(client, error, None).await),
            },
            named => named.to_vec(),
        };
        // What is not grave enough does not count.
        let lines = if self.level.is_some() { PAGE } else { self.lines };
        let mut logs: Vec<SessionLog<'_>> =
            names.iter().map(|name| SessionLog::new(client, name, lines)).collect();
        let mut tail = Tail::new(self.lines.try_into().unwrap_or(usize::MAX));
        let mut failed = None;
        {
            let mut parts = looks(&mut logs);
            while let Some((session, part)) = parts.next().await {
                match part {
                    Ok(entries) => tail.add(self.chosen(entries)),
                    // It has ended since it was listed.
                    Err(error) if self.sessions.is_empty() && is_gone(&error) => {}
                    Err(error) => {
                        failed = Some((session, error));
                        break;
                    }
                }
            }
        }
        if let Some((session, error)) = failed {
            return Err(self.failed(client, error, Some(&session)).await);
        }
        let past = tail.into_entries();
        let newest = past.last().map(|entry| entry.time().to_owned()).unwrap_or_default();
        self.print(&past, &logs)?;
        if self.follow { self.follow(client, logs, newest).await } else { Ok(()) }
    }

    /// Prints what comes, until the sessions that were named are gone. `newest`: the time of what
    /// was printed last.
    async fn follow<'a>(
        &self,
        client: &'a Client,
        mut logs: Vec<SessionLog<'a>>,
        mut newest: String,
    ) -> anyhow::Result<()> {
        let (mut away, mut listed, mut since) = (false, Instant::now(), newest.clone());
        loop {
            let many = u32::try_from(logs.len()).unwrap_or(u32::MAX);
            tokio::time::sleep(LOOK_OF_MANY.saturating_mul(many).max(LOOK)).await;
            let mut lost = None;
            if self.sessions.is_empty() && listed.elapsed() >= LIST {
                match sessions(client).await {
                    Ok(names) => {
                        // An earlier session of this name may have left a log.
                        add_new(&mut logs, client, &names, &since);
                        (listed, since) = (Instant::now(), newest.clone());
                    }
                    Err(error) => lost = Some((None, error)),
                }
            }
            let page = (PAGE / many.max(1)).max(LEAST_PAGE);
            logs.iter_mut().for_each(|log| log.reader.lines = page);
            let mut entries = Vec::new();
            let mut gone = Vec::new();
            let all = logs.len();
            {
                let mut parts = looks(&mut logs);
                while let Some((session, part)) = parts.next().await {
                    match part {
                        Ok(part) => entries.extend(self.chosen(part)),
                        // Without the last one there is nothing to go on with.
                        Err(error) if is_gone(&error) && gone.len() + 1 < all => {
                            gone.push(session);
                        }
                        Err(error) => lost = Some((Some(session), error)),
                    }
                }
            }
            merge::sort(&mut entries);
            newest = entries.last().map(|entry| entry.time().to_owned()).unwrap_or(newest);
            self.print(&entries, &logs)?;
            logs.retain(|log| !gone.contains(&log.reader.session));
            match lost {
                None => away = false,
                // It may start anew.
                Some((_, error)) if error.is_transient() => {
                    if !std::mem::replace(&mut away, true) {
                        let why = printable(&error.to_string());
                        eprintln!("ocelli: {}: {why}; trying again", self.host.url);
                    }
                }
                Some((Some(_), error)) if self.sessions.is_empty() && is_gone(&error) => {
                    logs.clear();
                }
                Some((session, error)) => {
                    return Err(self.failed(client, error, session.as_deref()).await);
                }
            }
        }
    }

    fn chosen(&self, mut entries: Vec<LoggedEntry>) -> Vec<LoggedEntry> {
        if let Some(least) = self.level {
            entries.retain(|entry| entry.is_at_least(least));
        }
        entries
    }

    fn print(&self, entries: &[LoggedEntry], logs: &[SessionLog<'_>]) -> anyhow::Result<()> {
        let names = logs.iter().map(|log| printable(&log.reader.session).chars().count());
        let columns = names.max().unwrap_or_default().min(MAX_COLUMN);
        let mut out = io::stdout().lock();
        let alone = self.sessions.len() == 1;
        let written = entries.iter().try_for_each(|entry| {
            let text = match alone {
                true => entry.alone(self.host.json),
                false => entry.among_others(columns, self.host.json),
            };
            out.write_all(text.as_bytes())
        });
        written.and_then(|()| out.flush()).context("cannot print")
    }

    async fn failed(&self, client: &Client, error: Error, session: Option<&str>) -> anyhow::Error {
        let asked = session.map_or_else(Asked::nothing, Asked::session);
        self.host.explained(client, error, asked).await
    }
}

/// The log of one session, as it is read on.
struct SessionLog<'a> {
    reader: LogReader<'a>,
    entries: EntryReader,
    /// Entries up to this time are another session's, or were printed.
    since: String,
}

impl<'a> SessionLog<'a> {
    fn new(client: &'a Client, session: &str, lines: u32) -> Self {
        let reader = LogReader::new(client, session, lines);
        Self { reader, entries: EntryReader::default(), since: String::new() }
    }

    /// What has come since the last look.
    async fn look(&mut self) -> Result<Vec<LoggedEntry>, Error> {
        let part = self.reader.next().await?;
        if part.missed {
            let session = printable(&self.reader.session);
            let why = "the log was rotated or removed meanwhile";
            eprintln!("ocelli: {session}: lines are missing here: {why}");
        }
        let mut entries = self.entries.read(&self.reader.session, part.lines);
        if !self.since.is_empty() {
            entries.retain(|entry| entry.is_after(&self.since));
        }
        Ok(entries)
    }
}

/// Looks at all logs, some at the same time: each session's name and what it has logged.
fn looks<'a>(
    logs: &'a mut [SessionLog<'_>],
) -> impl StreamExt<Item = (String, Result<Vec<LoggedEntry>, Error>)> + Unpin + 'a {
    let looks = stream::iter(logs.iter_mut()).map(|log| async move {
        let part = log.look().await;
        (log.reader.session.clone(), part)
    });
    Box::pin(looks.buffered(AT_ONCE))
}

/// Adds the logs of sessions that are new, from this time on.
fn add_new<'a>(logs: &mut Vec<SessionLog<'a>>, client: &'a Client, names: &[String], since: &str) {
    for name in names {
        if logs.iter().all(|log| log.reader.session != *name) {
            let log = SessionLog::new(client, name, PAGE);
            logs.push(SessionLog { since: since.to_owned(), ..log });
        }
    }
}

/// The names of all sessions.
async fn sessions(client: &Client) -> Result<Vec<String>, Error> {
    Ok(client.sessions().await?.into_iter().map(|session| session.id).collect())
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Problem(problem) if problem.code == "unknown_session")
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
    session: String,
    /// Lines of the next part.
    lines: u32,
    /// `None`: the past, of which the first part is the end.
    after: Option<String>,
}

impl<'a> LogReader<'a> {
    /// Begins with the last `lines` lines, 1 to 1000.
    pub(super) fn new(client: &'a Client, session: &str, lines: u32) -> Self {
        Self { client, session: session.to_owned(), lines, after: None }
    }

    /// The next part as it is now, maybe without a line.
    pub(super) async fn next(&mut self) -> Result<LogAnswer, Error> {
        let mut request = Request::get(&["sessions", &self.session, "log"])
            .query("lines", self.lines.to_string());
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
        let logs = LogsCommand {
            sessions: vec!["gate".into()],
            lines: 1,
            level: None,
            follow: true,
            host,
        };
        let error = format!("{:#}", logs.run().unwrap_err());
        assert!(error.contains("http://127.0.0.1:1") && error.contains("OCELLI_URL"), "{error}");
    }
}
