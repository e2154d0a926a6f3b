//! `ocelli watch`: prints a session's messages as they come.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use ocelli_client::{Detection, Error, HostStatus, Message, Subscribe};
use tokio::signal::unix::{SignalKind, signal};

use super::host::{HostArgs, block_on};
use super::table::printable;

/// The rate shown is that of the last so many seconds: long enough to be steady, short enough to
/// follow a change.
const RATE_WINDOW: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(super) struct WatchCommand {
    /// The session; "*" for all.
    session: String,
    /// End after so long. Left out: with Ctrl-C.
    #[arg(long)]
    seconds: Option<u64>,
    #[command(flatten)]
    host: HostArgs,
}

impl WatchCommand {
    /// Prints until the time is over, or a signal comes. That there was no result is an error.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let mut rate = Rate::default();
        block_on(self.until_over(&mut rate))??;
        eprintln!("ocelli: {} results", rate.total);
        if rate.total == 0 {
            bail!("{}: no result came", printable(&self.session));
        }
        Ok(())
    }

    async fn until_over(&self, rate: &mut Rate) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let over = async {
            match self.seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = self.print(rate) => ended,
            () = over => Ok(()),
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            _ = hangup.recv() => Ok(()),
        }
    }

    /// Prints messages. A connection that is lost after its first message is opened again.
    async fn print(&self, rate: &mut Rate) -> anyhow::Result<()> {
        let mut subscriber = self.host.client()?.subscriber();
        subscriber.subscribe(Subscribe::to(&self.session)).await;
        let (mut been_there, mut subscribed) = (false, false);
        loop {
            let (message, text) = match subscriber.next_with_text().await {
                Ok(told) => told,
                Err(error) if been_there && error.is_transient() => {
                    subscribed = false;
                    eprintln!("ocelli: {}: {error}; trying again", self.host.url);
                    continue;
                }
                Err(error) => return Err(self.refused(error)),
            };
            been_there = true;
            match &message {
                Message::Subscribed { .. } => subscribed = true,
                Message::Error(refusal) if !subscribed && refusal.session.is_some() => {
                    bail!("{}: {}", printable(&self.session), printable(&refusal.message));
                }
                _ => {}
            }
            let per_second =
                matches!(message, Message::Detections(_)).then(|| rate.count(Instant::now()));
            let line = if self.host.json { Some(text) } else { self.line(&message, per_second) };
            if let Some(line) = line {
                writeln!(io::stdout(), "{line}").context("cannot print")?;
            }
        }
    }

    fn refused(&self, error: Error) -> anyhow::Error {
        match self.host.refused(error) {
            Ok(problem) => {
                anyhow::anyhow!("{}: {}", self.host.url, printable(&problem.to_string()))
            }
            Err(error) => error,
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
                if *session != self.session =>
            {
                Some(format!("{}  {line}", printable(session)))
            }
            _ => Some(line),
        }
    }
}

/// Results counted as they come.
#[derive(Default)]
pub(super) struct Rate {
    total: u64,
    first: Option<Instant>,
    recent: VecDeque<Instant>,
}

impl Rate {
    /// Counts a result and returns results per second over the last [`RATE_WINDOW`], or since the
    /// first.
    pub(super) fn count(&mut self, now: Instant) -> f64 {
        self.total += 1;
        let first = *self.first.get_or_insert(now);
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|then| now.duration_since(*then) >= RATE_WINDOW) {
            self.recent.pop_front();
        }
        let window = now.duration_since(first).min(RATE_WINDOW).as_secs_f64();
        // The first result ends no interval yet.
        let intervals = if window < RATE_WINDOW.as_secs_f64() {
            self.recent.len() - 1
        } else {
            self.recent.len()
        };
        if window > 0.0 { intervals as f64 / window } else { 0.0 }
    }
}

/// One line; `per_second` is the rate of results. None: the message says nothing to a person.
pub(super) fn line(message: &Message, per_second: Option<f64>) -> Option<String> {
    let rate = per_second.map_or(String::new(), |rate| format!("  {rate:4.1} results/s"));
    Some(match message {
        Message::Detections(found) => {
            let listed = listed(&found.detections);
            format!("{}  frame {:6}{rate}  {listed}", clock(&found.time), found.frame)
        }
        Message::Event(event) => {
            let listed = listed(&event.detections);
            format!("{}  event {:6}  {} {listed}", clock(&event.time), event.seq, event.kind)
        }
        Message::Session { state, reason, .. } => {
            format!(
                "session is {state}{}",
                reason.as_ref().map_or(String::new(), |why| format!(": {why}"))
            )
        }
        Message::Subscribed { session, state } => {
            format!("subscribed to session {session}, which is {state}")
        }
        Message::Lagged { missed, .. } => {
            format!("{missed} messages missed: this terminal was too slow")
        }
        Message::Host(host) => host_line(host),
        Message::Error(refusal) => format!("error {}: {}", refusal.code, refusal.message),
        _ => return None,
    })
}

/// What of the host is not well.
fn host_line(host: &HostStatus) -> String {
    let parts = host.parts.iter().filter(|(_, part)| part.state != "ok").map(|(name, part)| {
        let why = part.reason.as_ref().map_or(String::new(), |why| format!(": {why}"));
        format!("{name} is {}{why}", part.state)
    });
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() {
        "host: all is well".to_owned()
    } else {
        format!("host: {}", parts.join("; "))
    }
}

/// `person 0.87 #7 [12 34 56 78]`, one after the other; the box is left, top, width, height in
/// frame pixels.
fn listed(detections: &[Detection]) -> String {
    let each =
        detections.iter().map(|Detection { label, score, area: [x, y, w, h], track, .. }| {
            let track = track.map_or(String::new(), |track| format!(" #{track}"));
            format!("{label} {score:.2}{track} [{x:.0} {y:.0} {w:.0} {h:.0}]")
        });
    each.collect::<Vec<_>>().join(", ")
}

/// `12:34:56.789` of an RFC 3339 time, or all of it where it is something else.
fn clock(time: &str) -> &str {
    const TO_MILLISECONDS: usize = "12:34:56.789".len();
    let of_day = time.split_once('T').map_or(time, |(_, of_day)| of_day);
    of_day.get(..TO_MILLISECONDS).unwrap_or(of_day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(session: &str) -> WatchCommand {
        let host = HostArgs::for_url("http://127.0.0.1:1");
        WatchCommand { session: session.into(), seconds: None, host }
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
    fn the_rate_is_that_of_the_last_seconds() {
        let started = Instant::now();
        let mut rate = Rate::default();
        let at = |rate: &mut Rate, milliseconds| {
            rate.count(started + Duration::from_millis(milliseconds))
        };
        assert_eq!(at(&mut rate, 0), 0.0);
        let ten_a_second = (1..=100).map(|n| at(&mut rate, n * 100)).last().unwrap();
        assert!((ten_a_second - 10.0).abs() < 0.01, "{ten_a_second}");
        let after_a_pause = at(&mut rate, 60_000);
        assert!(after_a_pause < 0.5, "{after_a_pause}");
        assert_eq!(rate.total, 102);
    }

    #[test]
    fn a_host_that_is_not_there_is_named_with_what_to_do() {
        let error = format!("{:#}", watch("people").run().unwrap_err());
        assert!(error.contains("http://127.0.0.1:1") && error.contains("OCELLI_URL"), "{error}");
    }
}
