//! The entries of `[[webhooks]]`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http_url::HttpUrl;
use super::sink::SinkStart;
use super::text;

/// What a secret begins with (Standard Webhooks, "Signature scheme").
const SECRET: &str = "whsec_";

/// Bytes of a secret (Standard Webhooks, "Signature scheme").
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A receiver of events over HTTP, besides subscribers.
// Its `Debug` leaves out the URL, which may hold a secret.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Its name in metrics, messages and the log: letters, digits, - and _. Unique.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// https://HOST:PORT/PATH; http:// reaches private addresses alone.
    #[serde(with = "text")]
    #[schemars(with = "String", length(min = 1), extend("writeOnly" = true))]
    pub url: HttpUrl,
    /// What signs each message: whsec_ and 24 to 64 bytes in base64.
    #[serde(with = "text")]
    #[schemars(with = "String", length(min = 1), extend("writeOnly" = true))]
    pub secret: WebhookSecret,
    /// The secret before, which signs as well while receivers change over.
    #[serde(default, with = "text::optional")]
    #[schemars(with = "String", length(min = 1), extend("writeOnly" = true))]
    pub previous_secret: Option<WebhookSecret>,
    /// The sessions whose events it gets; empty: all.
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    pub sessions: Vec<String>,
    /// The kinds of events that it gets; empty: all.
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    pub kinds: Vec<String>,
    /// Where it begins if this host has not written to it before: with the events from now on, or
    /// with the beginning of the journal.
    #[serde(default)]
    pub from: SinkStart,
    /// Most events of one request.
    #[serde(default = "batch_size")]
    #[schemars(range(min = 1, max = 256))]
    pub batch_size: usize,
    /// Milliseconds that a request may take, from connecting to the answer's status.
    #[serde(default = "timeout")]
    #[schemars(range(min = 100, max = 60_000))]
    pub timeout_ms: u32,
    /// A PEM file with the certificate authorities that are trusted, instead of the system's.
    /// Relative to the working directory.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub ca: Option<PathBuf>,
    /// Whether its name may stand for an address of this machine or of a private network.
    #[serde(default)]
    pub allow_private: bool,
}

fn batch_size() -> usize {
    64
}

fn timeout() -> u32 {
    10_000
}

impl WebhookConfig {
    /// What the journal and the metrics know its sink by.
    pub fn sink_id(&self) -> String {
        format!("webhook:{}", self.name)
    }

    /// Where its receiver is, without the path, which may hold a secret.
    pub fn shown_address(&self) -> String {
        self.url.url().origin().ascii_serialization()
    }

    /// Whether it gets events of this session.
    pub fn wants_session(&self, session: &str) -> bool {
        is_among(&self.sessions, session)
    }

    /// Whether it gets events of this session and kind.
    pub fn wants(&self, session: &str, kind: &str) -> bool {
        self.wants_session(session) && is_among(&self.kinds, kind)
    }
}

/// Whether a list names something; an empty one names everything.
fn is_among(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|one| one == name)
}

impl fmt::Debug for WebhookConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Webhook").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A secret of Standard Webhooks.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

/// What a text lacks of a secret. The text is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected {SECRET} and {} to {} bytes in base64, such as `openssl rand -base64 32` prints \
     them (not shown)",
    SECRET_BYTES.start(), SECRET_BYTES.end()
)]
pub struct WebhookSecretError;

impl WebhookSecret {
    /// The key of the signature.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for WebhookSecret {
    type Err = WebhookSecretError;

    fn from_str(text: &str) -> Result<Self, WebhookSecretError> {
        let encoded = text.strip_prefix(SECRET).ok_or(WebhookSecretError)?;
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| WebhookSecretError)?;
        SECRET_BYTES.contains(&bytes.len()).then_some(Self(bytes)).ok_or(WebhookSecretError)
    }
}

impl fmt::Display for WebhookSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SECRET}{}", BASE64_STANDARD.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn read(entry: &str) -> Result<Config, String> {
        let text = format!("[[webhooks]]\nname = \"hook\"\nsecret = {SECRET:?}\n{entry}\n");
        Config::from_text(Path::new("test.toml"), &text, &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_webhook_is_read_and_neither_its_secret_nor_its_url_is_shown() {
        let config = read("url = \"https://hooks.example/s3cr3tpath?x=1\"\nkinds = [\"entered\"]");
        let config = config.unwrap();
        let hook = &config.webhooks[0];
        assert_eq!(hook.url.to_string(), "https://hooks.example/s3cr3tpath?x=1");
        assert_eq!(hook.shown_address(), "https://hooks.example");
        assert_eq!(hook.secret.to_string(), SECRET);
        assert_eq!((hook.batch_size, hook.timeout_ms, hook.allow_private), (64, 10_000, false));
        assert!(hook.wants("gate", "entered") && !hook.wants("gate", "left"));
        let shown = format!("{config:?}");
        assert!(!shown.contains("s3cr3tpath") && !shown.contains("MfKQ9"), "{shown}");
    }

    #[test]
    fn what_is_no_webhook_is_told_with_its_key_and_without_its_value() {
        let refused = |entry: &str| read(entry).unwrap_err();
        for url in ["ftp://h/hush", "hush", "https://ann:hush@h/", "https://:99/hush"] {
            let said = refused(&format!("url = {url:?}"));
            assert!(said.contains("webhooks[0].url"), "{url}: {said}");
            assert!(!said.contains("hush"), "{said}");
        }
        let said = refused("url = \"http://hooks.example/\"");
        assert!(said.contains("webhooks[0].url") && said.contains("allow_private"), "{said}");
        read("url = \"http://192.0.2.1/\"\nallow_private = true").unwrap();
        let said = refused("url = \"https://h/\"\nprevious_secret = \"whsec_aHVzaA==\"");
        assert!(said.contains("webhooks[0].previous_secret") && !said.contains("aHVz"), "{said}");
        let twice = format!(
            "url = \"https://h/\"\n[[webhooks]]\nname = \"hook\"\n\
            url = \"https://g/\"\nsecret = {SECRET:?}"
        );
        assert!(refused(&twice).contains("webhooks[1].name"));
        let odd = format!(
            "url = \"https://h/\"\n[[webhooks]]\nname = \"a b\"\n\
            url = \"https://g/\"\nsecret = {SECRET:?}"
        );
        assert!(refused(&odd).contains("webhooks[1].name"));
    }
}
