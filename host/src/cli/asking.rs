//! `ocelli query`, `ocelli command`: what a session's pipeline is asked and told.

use std::io::Read;

use anyhow::{Context, bail};
use clap::Args;
use ocelli_client::Message;
use serde_json::{Value, json};

use super::host::{Asked, HostArgs, block_on};
use super::table::printable;

/// The most that a host takes, of standard input.
const MOST: u64 = 64 << 10;

#[derive(Args)]
pub(super) struct AskCommand {
    /// The session.
    session: String,
    /// What the pipeline is asked or told, in JSON; a word has its quotes: '"tracks"'. `-`: from
    /// standard input.
    #[arg(value_name = "JSON", value_parser = content)]
    content: Content,
    #[command(flatten)]
    host: HostArgs,
}

/// What a pipeline is asked.
#[derive(Debug, Clone, Copy)]
enum Asking {
    Query,
    Command,
}

#[derive(Debug, Clone, PartialEq)]
enum Content {
    Given(Value),
    StandardInput,
}

/// Why a text is no content.
#[derive(Debug, thiserror::Error)]
#[error("not JSON: {0}; a word has its quotes: '\"{1}\"'")]
struct NotJson(serde_json::Error, String);

fn content(text: &str) -> Result<Content, NotJson> {
    if text == "-" {
        return Ok(Content::StandardInput);
    }
    serde_json::from_str(text)
        .map(Content::Given)
        .map_err(|error| NotJson(error, text.replace(['"', '\''], "")))
}

impl AskCommand {
    pub(super) fn query(&self) -> anyhow::Result<()> {
        self.ask(Asking::Query)
    }

    pub(super) fn command(&self) -> anyhow::Result<()> {
        self.ask(Asking::Command)
    }

    /// The answer over a WebSocket; the host has a limit for the pipeline.
    async fn answered(&self, what: Asking, content: &Value) -> anyhow::Result<Value> {
        let (client, session) = (self.host.client()?, self.session.as_str());
        let asked = Asked::session(session);
        let mut subscriber = client.subscriber();
        let sent = match what {
            Asking::Query => subscriber.query(session, None, content).await,
            Asking::Command => subscriber.command(session, None, content).await,
        };
        if let Err(error) = sent {
            return Err(self.host.explained(&client, error, asked).await);
        }
        loop {
            match subscriber.next().await {
                Ok(Message::Answer { answer, .. }) => return Ok(answer),
                Ok(Message::Error(refusal)) => {
                    let more = asked.suggestion(&client, &refusal.code).await;
                    if self.host.json {
                        println!("{}", serde_json::to_string(&refusal)?);
                    }
                    bail!("{}: {}{more}", printable(session), printable(&refusal.message));
                }
                Ok(_) => {}
                Err(error) => return Err(self.host.explained(&client, error, asked).await),
            }
        }
    }

    /// Prints the pipeline's answer: over several lines, or with `--json` as it came, on one.
    fn ask(&self, what: Asking) -> anyhow::Result<()> {
        let content = match &self.content {
            Content::Given(value) => value.clone(),
            Content::StandardInput => {
                let mut text = String::new();
                let mut input = std::io::stdin().lock().take(MOST);
                input.read_to_string(&mut text).context("standard input")?;
                serde_json::from_str(&text).context("standard input is not JSON")?
            }
        };
        let answer = block_on(self.answered(what, &content))??;
        if self.host.json {
            println!("{}", json!({"session": self.session, "answer": answer}));
        } else {
            let text = serde_json::to_string_pretty(&answer)?;
            text.lines().for_each(|line| println!("{}", printable(line)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_without_quotes_is_refused_with_them() {
        assert_eq!(content(r#"{"a": 1}"#).unwrap(), Content::Given(json!({"a": 1})));
        assert_eq!(content("-").unwrap(), Content::StandardInput);
        let refused = content("tracks").unwrap_err().to_string();
        assert!(refused.ends_with("'\"tracks\"'"), "{refused}");
    }
}
