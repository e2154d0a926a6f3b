//! `ocelli watch`: what sessions do, now: a view on a terminal, lines elsewhere.

mod rate;
mod view;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use ocelli_client::Message;
use tokio::time::{MissedTickBehavior, interval};

use super::follow::{ALL, Followed, Follower, Wish, until_stopped};
use super::host::{HostArgs, block_on};
use super::table::{Look, printable};
use super::words::line;
pub(super) use rate::Rate;
use view::{Painter, View};

/// Between two drawings of the view: an eye reads along, and a terminal far away keeps up.
const DRAW: Duration = Duration::from_millis(500);

/// Lines of a terminal that does not say how many it has: that of a VT100.
const LINES: usize = 24;

#[derive(Args)]
pub(super) struct WatchCommand {
    /// The sessions. Left out, or "*": all of them.
    #[arg(value_name = "SESSION")]
    sessions: Vec<String>,
    /// End after so long. Left out: with Ctrl-C.
    #[arg(long)]
    seconds: Option<u64>,
    /// Print a line for each message on a terminal, too.
    #[arg(long)]
    lines: bool,
    #[command(flatten)]
    host: HostArgs,
}

impl WatchCommand {
    /// Prints until the time is over, or a signal comes. That there was no result is an error.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let mut total = 0;
        let seen = if self.is_drawn() {
            block_on(until_stopped(self.draw(&mut total), self.seconds))?
        } else {
            block_on(until_stopped(self.print(&mut total), self.seconds))?
        };
        seen?;
        eprintln!("ocelli: {total} results");
        if total == 0 {
            let named =
                if self.is_all() { "all sessions".into() } else { self.sessions.join(", ") };
            bail!("{}: no result came", printable(&named));
        }
        Ok(())
    }

    /// Whether there is a terminal that can move its cursor.
    fn is_drawn(&self) -> bool {
        let moves = std::env::var_os("TERM").is_none_or(|kind| kind != "dumb");
        !self.lines && !self.host.json && moves && io::stdout().is_terminal()
    }

    fn is_all(&self) -> bool {
        self.sessions.is_empty() || self.sessions.iter().any(|session| session == ALL)
    }

    async fn follower(&self) -> anyhow::Result<Follower<'_>> {
        let sessions = if self.is_all() { vec![ALL.to_owned()] } else { self.sessions.clone() };
        let wishes = sessions.into_iter().map(|session| Wish { session, after: None });
        Follower::new(&self.host, wishes.collect(), BTreeMap::new(), true).await
    }

    /// Draws the view.
    async fn draw(&self, total: &mut u64) -> anyhow::Result<()> {
        let mut follower = self.follower().await?;
        let mut view = View::default();
        let mut painter: Option<Painter<io::Stdout>> = None;
        let mut ticks = interval(DRAW);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                followed = follower.next() => match followed? {
                    Followed::Message(message, _) => view.accept(&message, Instant::now()),
                    Followed::Lost(why) => view.lose(why),
                },
                _ = ticks.tick() => {
                    if painter.is_none() {
                        painter = Some(Painter::new(io::stdout()).context("cannot print")?);
                    }
                    if let Some(painter) = &mut painter {
                        let (width, height, look) = terminal();
                        let lines = view.draw(Instant::now(), look, height);
                        painter.paint(&lines, width).context("cannot print")?;
                    }
                }
            }
            *total = view.results;
        }
    }

    /// Prints a line for each message.
    async fn print(&self, total: &mut u64) -> anyhow::Result<()> {
        let mut follower = self.follower().await?;
        let mut rates: BTreeMap<String, Rate> = BTreeMap::new();
        loop {
            let (message, text) = match follower.next().await? {
                Followed::Message(message, text) => (message, text),
                Followed::Lost(why) => {
                    eprintln!("ocelli: {}: {why}; trying again", self.host.url);
                    continue;
                }
            };
            let per_second = match &*message {
                Message::Detections(found) => {
                    *total += 1;
                    Some(rates.entry(found.session.clone()).or_default().count(Instant::now()))
                }
                _ => None,
            };
            let line = if self.host.json { Some(text) } else { self.line(&message, per_second) };
            if let Some(line) = line {
                writeln!(io::stdout(), "{line}").context("cannot print")?;
            }
        }
    }

    /// The message for a person to read, with its session where there may be several.
    fn line(&self, message: &Message, per_second: Option<f64>) -> Option<String> {
        let line = printable(&line(message, per_second)?);
        match message {
            Message::Detections(ocelli_client::Detections { session, .. })
            | Message::Event(ocelli_client::Event { session, .. })
            | Message::Session { session, .. }
            | Message::Lagged { session, .. }
                if self.sessions != [session.as_str()] =>
            {
                Some(format!("{}  {line}", printable(session)))
            }
            _ => Some(line),
        }
    }
}

/// Columns and lines of the terminal, and how text looks on it.
fn terminal() -> (usize, usize, Look) {
    let look = Look::stdout();
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let lines = size.map(|size| usize::from(size.ws_row)).filter(|lines| *lines > 0);
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    (columns, lines.unwrap_or(LINES), look)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(session: &str) -> WatchCommand {
        let host = HostArgs::for_url("http://127.0.0.1:1");
        WatchCommand { sessions: vec![session.into()], seconds: None, lines: true, host }
    }

    fn line(message: &str, per_second: Option<f64>) -> Option<String> {
        watch("people").line(&serde_json::from_str(message).unwrap(), per_second)
    }

    #[test]
    fn detections_are_one_readable_line() {
        let message = r#"{"type":"detections","session":"people","frame":12,"time":"2026-01-02T03:04:05.678901Z",
            "deployment":"1","width":768,"height":576,"latency_ms":{"total":71.5},"detections":[
            {"label":"person","score":0.871,"box":[10.4,20,30,40.6],"track":7,"attributes":{}},
            {"label":"dog\u001b","score":0.5,"box":[1,2,3,4],"attributes":{}}]}"#;
        let expected = "03:04:05.678  frame     12   9.9 results/s  person 0.87 #7 [10 20 30 41], \
            dog\u{fffd} 0.50 [1 2 3 4]";
        assert_eq!(line(message, Some(9.94)).unwrap(), expected);
    }

    #[test]
    fn a_change_of_state_tells_its_reason_and_its_session_where_there_are_several() {
        let message = r#"{"type":"session","session":"people","state":"degraded","reason":"camera is silent"}"#;
        let said = "session is degraded: camera is silent";
        assert_eq!(line(message, None).unwrap(), said);
        let all = watch("*").line(&serde_json::from_str(message).unwrap(), None);
        assert_eq!(all.unwrap(), format!("people  {said}"));
    }

    #[test]
    fn messages_that_say_nothing_to_a_person_are_passed_over() {
        assert_eq!(line(r#"{"type":"pong"}"#, None), None);
        assert_eq!(line(r#"{"type":"weather"}"#, None), None);
    }

    #[test]
    fn a_host_that_is_not_there_is_named_with_what_to_do() {
        let error = format!("{:#}", watch("people").run().unwrap_err());
        assert!(error.contains("http://127.0.0.1:1") && error.contains("OCELLI_URL"), "{error}");
    }
}
