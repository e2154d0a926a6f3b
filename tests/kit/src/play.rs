//! Sessions on files, played from the first frame to the last by a subscriber who makes them:
//! nothing is missed, so that two runs can be compared byte by byte.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{Ocelli, clip};

/// A session on a clip. Its host has to allow its subscribers files ([`FileSession::ALLOWED`]).
#[derive(Debug, Clone)]
pub struct FileSession<'a> {
    /// Its name.
    pub name: &'a str,
    /// A file of `tests/clips`: its frames are fewer than the messages that wait for a slow
    /// subscriber, so none is missed.
    pub clip: &'a str,
    /// The name of its pipeline.
    pub pipeline: &'a str,
    /// For the pipeline.
    pub settings: Value,
}

impl<'a> FileSession<'a> {
    /// The section of a host's config that allows subscribers files.
    pub const ALLOWED: &'static str = "[subscriptions]\nsources = [\"file:/\"]\n";

    /// The default pipeline with its default settings.
    pub fn detecting(name: &'a str, clip: &'a str) -> Self {
        Self { name, clip, pipeline: "object-detect", settings: json!({}) }
    }

    /// Makes the session and plays the file to its end. Gives its detections, then its events, in
    /// comparable form: an event waits for the disk, so which detections come before it depends on
    /// the moment. A worker that is lost, a message that was missed, an error: each fails the test.
    pub async fn play(&self, host: &Ocelli) -> Vec<String> {
        let Self { name, clip: file, pipeline, settings } = self;
        let mut client = host.client().await;
        let source = format!("file:{}", clip(file).display());
        let subscribe = json!({"type": "subscribe", "session": name, "source": source, "pipeline": pipeline, "settings": settings});
        client.send(&subscribe).await;
        loop {
            let message = client.next().await;
            match message["type"].as_str().unwrap() {
                "detections" | "event" | "subscribed" | "host" => {}
                "session" if message["state"] == "stopped" => break,
                "session" if message["state"] == "starting" || message["state"] == "running" => {}
                _ => panic!("{name}: {message}"),
            }
        }
        let of = |kind| client.received().iter().filter(move |text| has_type(text, kind));
        let detections = of("detections").map(|text| comparable(text));
        // What became of the deployment is told before or after the end of the session.
        let events = of("event").filter(|text| !text.contains(",\"kind\":\"deployment\","));
        detections.chain(events.zip(1..).map(|(text, number)| renumbered(text, number))).collect()
    }

    /// Plays sessions at the same time; the results of each.
    pub async fn play_all(sessions: &[Self], host: &Ocelli) -> Vec<Vec<String>> {
        join_all(sessions.iter().map(|session| session.play(host))).await
    }
}

/// Holds the results of a session to those of another run, and shows the first that differs.
pub fn assert_identical(session: &str, expected: &[String], got: &[String]) {
    for (number, (expected, got)) in expected.iter().zip(got).enumerate() {
        assert_eq!(expected, got, "message {number} of session {session}");
    }
    assert_eq!(expected.len(), got.len(), "messages of session {session}");
}

fn has_type(text: &str, kind: &str) -> bool {
    text.starts_with(&format!("{{\"type\":\"{kind}\""))
}

/// A message without what differs from run to run, the rest as it came: detections tell how long
/// each station took, which is measured. Messages about the session itself are no results: how
/// often they tell what it does depends on the moment.
fn comparable(message: &str) -> String {
    let Some((before, rest)) = message.split_once(",\"latency_ms\":{") else {
        return message.to_owned();
    };
    let (_, after) =
        rest.split_once('}').unwrap_or_else(|| panic!("latencies without an end: {message}"));
    format!("{before}{after}")
}

/// An event with another number: a session that is played again goes on in the numbering of its
/// name.
fn renumbered(event: &str, number: u64) -> String {
    const SEQ: &str = ",\"seq\":";
    let parts =
        event.split_once(SEQ).and_then(|(before, rest)| Some((before, rest.split_once(',')?.1)));
    let (before, after) = parts.unwrap_or_else(|| panic!("an event without a number: {event}"));
    format!("{before}{SEQ}{number},{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_times_alone_are_left_out() {
        let message = r#"{"type":"detections","frame":1,"detections":[],"latency_ms":{"decode":1.5,"total":2},"x":{}}"#;
        assert_eq!(
            comparable(message),
            r#"{"type":"detections","frame":1,"detections":[],"x":{}}"#
        );
        assert_eq!(
            renumbered(
                r#"{"type":"event","session":"a","seq":71,"time":"1970-01-01T00:00:00.100Z"}"#,
                2
            ),
            r#"{"type":"event","session":"a","seq":2,"time":"1970-01-01T00:00:00.100Z"}"#
        );
    }
}
