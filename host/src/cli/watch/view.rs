//! A calm view of what sessions do, drawn in its own place a few times a second.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::time::Instant;

use anstyle::Style;
use ocelli_client::{Detection, Message, SessionState};

use super::rate::{RATE_WINDOW, Rate};
use crate::cli::table::{FAINT, HEADING, Look, duration, of_state, printable, styled_lines};
use crate::cli::words::{host_line, what};

/// Results of which the latency is the median: a few seconds of a fast camera.
const LATENCIES: usize = 100;

/// Labels that are named of a picture; the rest is a number.
const NAMED: usize = 4;

const COLUMNS: [&str; 6] =
    ["SESSION", "STATE", "RESULTS/S", "LATENCY", "IN THE PICTURE", "LAST EVENT"];

/// The column of the state.
const STATE: usize = 1;

/// What is known of each session.
#[derive(Default)]
pub(super) struct View {
    sessions: BTreeMap<String, Row>,
    /// What of the host is not well.
    host: Option<String>,
    /// Why there is no connection.
    lost: Option<String>,
    /// Results of all sessions.
    pub(super) results: u64,
}

#[derive(Default)]
struct Row {
    state: String,
    reason: Option<String>,
    rate: Rate,
    /// Milliseconds of the last results.
    latencies: VecDeque<f64>,
    /// What the last result has, and when it came.
    seen: Option<(String, Instant)>,
    /// The last event in words, and when it came.
    event: Option<(String, Instant)>,
}

impl View {
    /// Takes a message over.
    pub(super) fn accept(&mut self, message: &Message, now: Instant) {
        self.lost = None;
        match message {
            // Of all sessions together.
            Message::Subscribed { session, .. } if session == crate::cli::follow::ALL => {}
            Message::Subscribed { session, state } => self.state(session, state, None),
            Message::Session { session, state, reason } => {
                self.state(session, state, reason.clone());
            }
            Message::Unsubscribed { session } => {
                self.sessions.remove(session);
            }
            Message::Detections(found) => {
                self.results += 1;
                let row = self.sessions.entry(found.session.clone()).or_default();
                row.rate.count(now);
                if let Some(total) = found.latency_ms.get("total") {
                    row.latencies.push_back(*total);
                    row.latencies.drain(..row.latencies.len().saturating_sub(LATENCIES));
                }
                row.seen = Some((counted(&found.detections), now));
            }
            Message::Event(event) => {
                let words = format!("{} {}", event.kind, what(event));
                let row = self.sessions.entry(event.session.clone()).or_default();
                row.event = Some((words, now));
            }
            Message::Host(host) => {
                let line = host_line(host);
                self.host = host.parts.values().any(|part| part.state != "ok").then_some(line);
            }
            _ => {}
        }
    }

    fn state(&mut self, session: &str, state: &SessionState, reason: Option<String>) {
        let row = self.sessions.entry(session.to_owned()).or_default();
        row.state = state.to_string();
        row.reason = reason;
    }

    /// There is no connection.
    pub(super) fn lose(&mut self, why: String) {
        self.lost = Some(why);
    }

    /// The lines that fit into a terminal of so many lines.
    pub(super) fn draw(&mut self, now: Instant, look: Look, height: usize) -> Vec<String> {
        let rows: Vec<[String; 6]> = std::iter::once(COLUMNS.map(str::to_owned))
            .chain(self.sessions.iter_mut().map(|(name, row)| row.cells(name, now)))
            .collect();
        let table = styled_lines(&rows, look, |row, column, text| match (row, column) {
            (0, _) => HEADING,
            (_, STATE) => of_state(text),
            _ => Style::new(),
        });
        let mut lines = Vec::new();
        let mut reasons = self.sessions.values().map(|row| row.reason.as_deref());
        for (place, line) in table.into_iter().enumerate() {
            lines.push(line);
            if let (1.., Some(Some(reason))) =
                (place, if place == 0 { None } else { reasons.next() })
            {
                lines.push(look.styled(FAINT, &look.cut(&format!("  {}", printable(reason)))));
            }
        }
        let foot = match (&self.lost, &self.host) {
            (Some(why), _) => format!("no connection: {why}; trying again"),
            (None, Some(host)) => host.clone(),
            (None, None) if self.sessions.is_empty() => "there is no session".to_owned(),
            (None, None) => "Ctrl-C ends".to_owned(),
        };
        let style =
            if self.lost.is_some() || self.host.is_some() { of_state("failed") } else { FAINT };
        let foot = look.styled(style, &look.cut(&printable(&foot)));
        // One line is the foot, one the cursor's.
        let room = height.saturating_sub(2).max(1);
        if lines.len() > room {
            let more = lines.len() - room + 1;
            lines.truncate(room - 1);
            let more = format!("and {more} lines more, in a taller terminal");
            lines.push(look.styled(FAINT, &look.cut(&more)));
        }
        lines.push(foot);
        lines
    }
}

impl Row {
    fn cells(&mut self, name: &str, now: Instant) -> [String; 6] {
        // A result of long ago says nothing of the picture now.
        let fresh = self.seen.as_ref().filter(|(_, then)| now.duration_since(*then) < RATE_WINDOW);
        let none = || "-".to_owned();
        let (seen, latency) = match fresh {
            Some((seen, _)) => (seen.clone(), median(&self.latencies).unwrap_or_else(none)),
            None => (none(), none()),
        };
        let rate = format!("{:9.1}", self.rate.per_second(now));
        let event = self.event.as_ref().map(|(words, then)| {
            let ago = now.duration_since(*then).as_secs_f64();
            format!("{} ago: {words}", duration(ago))
        });
        let state = if self.state.is_empty() { none() } else { self.state.clone() };
        [name.to_owned(), state, rate, latency, seen, event.unwrap_or_else(none)]
    }
}

fn median(latencies: &VecDeque<f64>) -> Option<String> {
    let mut sorted: Vec<f64> = latencies.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).map(|milliseconds| format!("{milliseconds:4.0} ms"))
}

/// `2 person, 1 car`, the most first.
fn counted(detections: &[Detection]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for detection in detections {
        *counts.entry(&detection.label).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    // Labels of one count stay in the order of the alphabet, so that the line does not jump.
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more: usize = counts.iter().skip(NAMED).map(|(_, count)| count).sum();
    let named = counts.iter().take(NAMED).map(|(label, count)| format!("{count} {label}"));
    let words: Vec<String> = named.chain((more > 0).then(|| format!("{more} more"))).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// Draws lines in the place of those before.
pub(super) struct Painter<W: Write> {
    out: W,
    /// Lines that stand above the cursor.
    drawn: usize,
    /// The width that they were drawn for.
    width: usize,
}

impl<W: Write> Painter<W> {
    /// Hides the cursor, which would jump.
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        write!(out, "\u{1b}[?25l")?;
        Ok(Self { out, drawn: 0, width: 0 })
    }

    /// Draws lines of at most `width` columns. After another width the terminal has broken the
    /// lines before anew, so that only an empty screen is sure.
    pub(super) fn paint(&mut self, lines: &[String], width: usize) -> io::Result<()> {
        let mut text = String::new();
        if self.drawn > 0 && self.width != width {
            text += "\u{1b}[2J\u{1b}[H";
        } else if self.drawn > 0 {
            text += &format!("\u{1b}[{}A\r", self.drawn);
        }
        for line in lines {
            text += &format!("{line}\u{1b}[K\n");
        }
        text += "\u{1b}[J";
        (self.drawn, self.width) = (lines.len(), width);
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Painter<W> {
    fn drop(&mut self) {
        // A terminal that has gone needs no cursor.
        let _ = write!(self.out, "\u{1b}[?25h").and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn tell(view: &mut View, message: Value, now: Instant) {
        view.accept(&serde_json::from_value(message).unwrap(), now);
    }

    fn detections(labels: &[&str], total: f64) -> Value {
        let each = labels.iter().map(
            |label| json!({"label": label, "score": 0.5, "box": [1, 2, 3, 4], "attributes": {}}),
        );
        json!({"type": "detections", "session": "gate", "frame": 1, "time": "t", "deployment": "0a",
            "width": 8, "height": 8, "detections": each.collect::<Vec<_>>(), "latency_ms": {"total": total}})
    }

    #[test]
    fn a_session_is_a_row_with_what_is_in_the_picture_and_the_reason_of_its_state() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut view = View::default();
        tell(
            &mut view,
            json!({"type": "subscribed", "session": "gate", "state": "running"}),
            at(0),
        );
        let state = json!({"type": "session", "session": "yard", "state": "degraded", "reason": "it is\u{1b} silent"});
        tell(&mut view, state, at(0));
        let event = json!({"type": "event", "session": "gate", "seq": 1, "time": "t", "kind": "left", "deployment": "0a",
            "data": {"x": 1}});
        tell(&mut view, event, at(0));
        for n in 0..=10 {
            tell(&mut view, detections(&["car", "person", "person"], 70.0 + n as f64), at(n * 100));
        }
        let drawn = view.draw(at(1000), Look::of(100, false), 24);
        let expected = [
            "SESSION  STATE     RESULTS/S  LATENCY  IN THE PICTURE   LAST EVENT",
            "gate     running        10.0    75 ms  2 person, 1 car  0m01s ago: left {\"x\":1}",
            "yard     degraded        0.0  -        -                -",
            "  it is\u{fffd} silent",
            "Ctrl-C ends",
        ];
        assert_eq!(drawn, expected);
        // What was there a minute ago may have gone.
        let later = view.draw(at(61_000), Look::of(100, false), 24);
        assert!(later[1].starts_with("gate     running         0.0  -        -"), "{}", later[1]);
        view.lose("refused".into());
        let lost = view.draw(at(61_000), Look::of(30, false), 3);
        assert_eq!(lost, ["and 4 lines more, in a taller…", "no connection: refused; tryin…"]);
    }

    #[test]
    fn many_labels_are_the_most_frequent_and_a_number() {
        let of = |labels: &[&str]| {
            let Message::Detections(found) =
                serde_json::from_value(detections(labels, 1.0)).unwrap()
            else {
                panic!("detections")
            };
            counted(&found.detections)
        };
        assert_eq!(of(&[]), "nothing");
        let said = of(&["a", "b", "b", "c", "d", "e", "f"]);
        assert_eq!(said, "2 b, 1 a, 1 c, 1 d, 2 more");
    }

    #[test]
    fn lines_take_the_place_of_those_before_and_the_cursor_comes_back() {
        let mut out = Vec::new();
        let mut painter = Painter::new(&mut out).unwrap();
        painter.paint(&["a".into(), "b".into()], 80).unwrap();
        painter.paint(&["c".into()], 80).unwrap();
        painter.paint(&["d".into()], 40).unwrap();
        drop(painter);
        let text = String::from_utf8(out).unwrap();
        let expected = "\u{1b}[?25la\u{1b}[K\nb\u{1b}[K\n\u{1b}[J\u{1b}[2A\rc\u{1b}[K\n\u{1b}[J\
            \u{1b}[2J\u{1b}[Hd\u{1b}[K\n\u{1b}[J\u{1b}[?25h";
        assert_eq!(text, expected);
    }
}
