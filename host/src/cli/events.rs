//! `ocelli events`: what happened, and what happens.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Context;
use anyhow::anyhow;
use clap::Args;
use ocelli_client::{Client, Error, Event, EventPage, Message, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::follow::{ALL, Followed, Follower, Wish, until_stopped};
use super::host::{Asked, HostArgs, block_on};
use super::table::{FAINT, HEADING, Look, of_state, printable};
use super::words::what;

/// Events that are asked for at a time: the most that a host gives.
const PAGE: usize = 1000;

/// Pages of the past that are searched for the last events: a host looks for some 100 ms for each.
const PAGES: usize = 50;

/// An answer of `GET /v1/events`.
#[derive(Deserialize)]
struct EventList {
    events: Vec<Event>,
    next: Option<String>,
}

#[derive(Args)]
pub(super) struct EventsCommand {
    /// The session. Left out: all of them.
    session: Option<String>,
    /// Go on with those that come, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// All that are stored behind this number; 0: from the first on. Left out: the last ones.
    #[arg(long, value_name = "NUMBER", requires = "session")]
    after: Option<u64>,
    /// So many of the past.
    #[arg(long, value_name = "COUNT", default_value_t = 20, conflicts_with = "after")]
    lines: usize,
    /// Of this kind alone; may be given several times.
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// About objects with this label alone; may be given several times.
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    #[command(flatten)]
    host: HostArgs,
}

impl EventsCommand {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        block_on(until_stopped(self.print(), None))?
    }

    async fn print(&self) -> anyhow::Result<()> {
        let client = self.host.client()?;
        let mut newest = BTreeMap::new();
        match (&self.session, self.after) {
            (Some(session), Some(after)) => {
                let last = self.print_after(&client, session, after).await?;
                newest.insert(session.clone(), last);
            }
            (session, None) => {
                let sessions = match session {
                    Some(session) => vec![session.clone()],
                    None => match client.sessions().await {
                        Ok(sessions) => sessions.into_iter().map(|one| one.id).collect(),
                        Err(error) => {
                            let nothing = Asked::nothing();
                            return Err(self.host.explained(&client, error, nothing).await);
                        }
                    },
                };
                // First how far each has come: what happens meanwhile is followed.
                for session in sessions {
                    let page = self.page(&client, &session, 0, 1).await?;
                    newest.insert(session, page.newest);
                }
                self.print_each(&self.last_events(&client, &newest).await?)?;
            }
            (None, Some(_)) => {}
        }
        if self.follow { self.follow(newest).await } else { Ok(()) }
    }

    async fn follow(&self, newest: BTreeMap<String, u64>) -> anyhow::Result<()> {
        let wish = match &self.session {
            Some(session) => Wish { session: session.clone(), after: newest.get(session).copied() },
            None => Wish { session: ALL.to_owned(), after: None },
        };
        let mut follower = Follower::new(&self.host, vec![wish], newest, false).await?;
        loop {
            match follower.next().await? {
                Followed::Lost(why) => {
                    eprintln!("ocelli: {}: {why}; trying again", self.host.url);
                }
                Followed::Message(message, _) => match *message {
                    Message::Event(event) if self.wants(&event) => self.print_each(&[event])?,
                    Message::Error(refusal) if refusal.code == "events_gone" => {
                        eprintln!("ocelli: {}", printable(&refusal.message));
                    }
                    _ => {}
                },
            }
        }
    }

    /// Prints all behind a number; the number of the last.
    async fn print_after(&self, client: &Client, session: &str, after: u64) -> anyhow::Result<u64> {
        let mut place = Some(after);
        let mut last = after;
        while let Some(after) = place {
            let page = self.page(client, session, after, PAGE).await?;
            if let Some(gone) = page.gone {
                eprintln!("ocelli: events {} to {} are no longer stored", gone.from, gone.to);
            }
            let wanted: Vec<Event> =
                page.events.into_iter().filter(|event| self.wants(event)).collect();
            self.print_each(&wanted)?;
            place = page.next;
            last = page.newest.max(last);
        }
        Ok(last)
    }

    /// The last events that are wanted, up to these numbers, the newest last.
    async fn last_events(
        &self,
        client: &Client,
        newest: &BTreeMap<String, u64>,
    ) -> anyhow::Result<Vec<Event>> {
        let mut found: Vec<Event> = Vec::new();
        let mut cursor = None;
        for _ in 0..PAGES {
            let limit = (self.lines - found.len()).min(PAGE);
            if limit == 0 {
                break;
            }
            let mut request = Request::get(&["events"]).query("limit", limit.to_string());
            let words = [("kind", &self.kinds), ("label", &self.labels)];
            let words =
                words.into_iter().flat_map(|(key, words)| words.iter().map(move |w| (key, w)));
            for (key, word) in self.session.iter().map(|name| ("session", name)).chain(words) {
                request = request.query(key, word.clone());
            }
            if let Some(cursor) = cursor {
                request = request.query("cursor", cursor);
            }
            let page: EventList = self.ask(client, &request, Asked::nothing()).await?;
            // Later ones are followed.
            let known = |event: &Event| newest.get(&event.session).is_none_or(|n| event.seq <= *n);
            found.extend(page.events.into_iter().filter(known));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        found.reverse();
        if self.session.is_some() {
            // A camera's clock may have been set back.
            found.sort_by_key(|event| event.seq);
        }
        Ok(found)
    }

    async fn page(
        &self,
        client: &Client,
        session: &str,
        after: u64,
        limit: usize,
    ) -> anyhow::Result<EventPage> {
        let mut request = Request::get(&["sessions", session, "events"])
            .query("after", after.to_string())
            .query("limit", limit.to_string());
        // The host looks for one kind.
        if let [kind] = self.kinds.as_slice() {
            request = request.query("kind", kind.clone());
        }
        self.ask(client, &request, Asked::session(session)).await
    }

    /// An answer of the host; an error says what to do.
    async fn ask<T: DeserializeOwned>(
        &self,
        client: &Client,
        request: &Request<'_>,
        asked: Asked<'_>,
    ) -> anyhow::Result<T> {
        let read = |answer: Value| {
            T::deserialize(answer).map_err(|error| Error::InvalidAnswer(error.to_string()))
        };
        match client.ask(request).await.and_then(read) {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.host.explained(client, error, asked).await),
        }
    }

    /// Whether the filters let it pass.
    fn wants(&self, event: &Event) -> bool {
        let of = |label: &str| {
            event.detections.iter().any(|detection| detection.label == label)
                || event.data.get("label").is_some_and(|named| named == label)
        };
        let kind = self.kinds.is_empty() || self.kinds.contains(&event.kind);
        kind && (self.labels.is_empty() || self.labels.iter().any(|label| of(label)))
    }

    fn print_each<'a>(&self, events: impl IntoIterator<Item = &'a Event>) -> anyhow::Result<()> {
        let mut out = anstream::stdout().lock();
        let look = Look::stdout();
        for event in events {
            let line = if self.host.json {
                let mut members = serde_json::to_value(event).context("writing an event")?;
                // As on a WebSocket.
                let typed = members.as_object_mut().ok_or_else(|| anyhow!("no object"))?;
                typed.insert("type".into(), "event".into());
                members.to_string()
            } else {
                line(event, self.session.is_none(), look)
            };
            match writeln!(out, "{line}") {
                // Whoever reads has seen enough: `ocelli events | head`.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
                printed => printed.context("cannot print")?,
            }
        }
        out.flush().context("cannot print")
    }
}

/// One event for a person.
fn line(event: &Event, with_session: bool, look: Look) -> String {
    let time = event.time.replacen('T', " ", 1);
    let session = if with_session { format!("{}  ", event.session) } else { String::new() };
    let style = match event.data.get("state").and_then(Value::as_str) {
        Some(state) if event.kind == "deployment" => of_state(state),
        _ if event.data.get("raised").is_some_and(|raised| raised == true) => of_state("failed"),
        _ => HEADING,
    };
    let what = printable(&what(event));
    format!(
        "{}  {}{:>6}  {}  {what}",
        look.styled(FAINT, &printable(&time)),
        printable(&session),
        event.seq,
        look.styled(style, &printable(&event.kind)),
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(members: &Value) -> Event {
        let mut event = json!({"session": "gate", "seq": 7, "time": "2026-11-22T02:16:29.798Z", "kind": "left",
            "deployment": "0a", "detections": [], "data": {}});
        for (key, value) in members.as_object().unwrap() {
            event[key] = value.clone();
        }
        serde_json::from_value(event).unwrap()
    }

    fn asked(kinds: &[&str], labels: &[&str]) -> EventsCommand {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        EventsCommand {
            session: None,
            follow: false,
            after: None,
            lines: 20,
            kinds: words(kinds),
            labels: words(labels),
            host: HostArgs::for_url("http://127.0.0.1:1"),
        }
    }

    #[test]
    fn filters_of_one_sort_add_up_and_of_both_sorts_narrow() {
        let person =
            json!([{"label": "person", "score": 0.5, "box": [1, 2, 3, 4], "attributes": {}}]);
        let left = event(&json!({"detections": person}));
        let counted = event(&json!({"kind": "counted", "data": {"label": "car"}}));
        let passes = |kinds: &[&str], labels: &[&str]| {
            let asked = asked(kinds, labels);
            (asked.wants(&left), asked.wants(&counted))
        };
        assert_eq!(passes(&[], &[]), (true, true));
        assert_eq!(passes(&["left", "counted"], &[]), (true, true));
        assert_eq!(passes(&["left"], &[]), (true, false));
        assert_eq!(passes(&[], &["car"]), (false, true));
        assert_eq!(passes(&["left"], &["car"]), (false, false));
    }

    #[test]
    fn an_event_is_one_line_that_moves_no_cursor() {
        let told = |members: Value| line(&event(&members), true, Look::PLAIN);
        let detections = json!([{"label": "dog\u{1b}", "score": 0.41, "box": [1, 2, 3, 4], "track": 7, "attributes": {}}]);
        let start = "2026-11-22 02:16:29.798Z  gate       7";
        assert_eq!(
            told(json!({"detections": detections})),
            format!("{start}  left  dog\u{fffd} 0.41 #7 [1 2 3 4]")
        );
        let alert = json!({"alert": "disk", "raised": false, "message": "12 % are free"});
        let alert = told(json!({"kind": "alert", "data": alert}));
        assert_eq!(alert, format!("{start}  alert  over: 12 % are free"));
        let deployment = json!({"state": "aborted", "pipeline": "eye", "reason": "it\ntraps"});
        let deployment = told(json!({"kind": "deployment", "data": deployment}));
        assert_eq!(deployment, format!("{start}  deployment  eye aborted: it\u{fffd}traps"));
        assert_eq!(told(json!({})), format!("{start}  left"));
    }
}
