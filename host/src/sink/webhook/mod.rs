//! Receivers of events over HTTP, each a sink of its own.
//!
//! A request has events of one session in their order, signed ([`message`]), and the cursor moves
//! once the receiver has said yes ([`answer`]). A receiver is a stranger, as a registry is: its
//! address is judged when it is connected to, it leads nowhere else, and of what it says only a
//! little is read, for a moment. Whom it answers with "not now" it is asked again after a wait that
//! grows, or that it has asked for.

mod answer;
mod message;
mod targets;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::{Method, Response};
use tokio::time::timeout;

use super::{EventBatch, EventSink, SinkConnection, SinkError, SinkKind, Written, driver};
use crate::config::{SinkStart, WebhookConfig};
use crate::util::address::{is_ordinary, is_private};
use crate::util::backoff::BackoffPolicy;
use crate::util::http_client::{HttpClient, HttpConnection, HttpFault, read, request, words};
use answer::ReceiverAnswer;
use message::WebhookMessage;

pub(crate) use targets::Webhooks;

/// Most bytes of the events of one request, or one event: receivers take about a megabyte by
/// default.
const MAX_BODY: usize = 512 << 10;

/// Most bytes of an answer that are read: so that the connection is used again, and for what is
/// told of a refusal.
const MAX_ANSWER: u64 = 16 << 10;

/// How long those are waited for. The status is there: events wait for a slow body no longer.
const ANSWER_BODY: Duration = Duration::from_secs(1);

/// Characters of a receiver's own words that are repeated.
const MAX_WORDS: usize = 200;

/// How long to wait before a receiver is asked again that does not say so itself.
const WAITS: BackoffPolicy = BackoffPolicy {
    // It is a stranger: how long one that is back may go unnoticed.
    longest: Duration::from_secs(60),
    ..driver::WAITS
};

/// A webhook.
pub(super) struct WebhookSink;

impl EventSink for WebhookSink {
    const KIND: SinkKind = SinkKind::Webhook;
    const WAITS: BackoffPolicy = WAITS;

    type Settings = WebhookConfig;
    type Connection = WebhookConnection;

    fn address(settings: &WebhookConfig) -> String {
        settings.shown_address()
    }

    fn start(settings: &WebhookConfig) -> SinkStart {
        settings.from
    }

    async fn connect(&self, settings: &WebhookConfig) -> Result<WebhookConnection, SinkError> {
        let mut receiver = WebhookTarget::new(settings.clone());
        let limit = receiver.limit();
        let connected = timeout(limit, receiver.open()).await;
        let connected = connected.unwrap_or(Err(HttpFault::Late(limit)));
        receiver.open = Some(connected.map_err(|fault| SinkError::Target(fault.to_string()))?);
        Ok(WebhookConnection { receiver, most: settings.batch_size })
    }
}

/// A receiver that is connected to.
pub(super) struct WebhookConnection {
    receiver: WebhookTarget,
    /// Most events of the next request: fewer where it does not take a larger one.
    most: usize,
}

impl SinkConnection for WebhookConnection {
    fn max_events(&self) -> usize {
        self.most
    }

    async fn write(&mut self, batch: EventBatch<'_>) -> Result<Written, SinkError> {
        let (mut wanted, mut bytes, mut after) = (Vec::new(), 0, 0);
        for event in batch.events {
            if self.receiver.settings.wants(batch.session, &event.kind) {
                bytes += event.body.len();
                if bytes > MAX_BODY && !wanted.is_empty() {
                    break;
                }
                wanted.push(event);
            }
            after = event.seq;
        }
        let after = after.max(batch.gap.map_or(0, |(_, to)| to));
        let told = batch.gap.filter(|_| self.receiver.settings.wants_session(batch.session));
        if wanted.is_empty() && told.is_none() {
            return Ok(Written::Through { after, events: 0, refused: 0 });
        }
        let events = wanted.len() as u64;
        let message = WebhookMessage::of_events(batch.session, told, &wanted, SystemTime::now());
        let (answer, said) = self.receiver.send(&message).await?;
        match answer {
            ReceiverAnswer::Taken => {
                self.most = (self.most * 2).min(self.receiver.settings.batch_size);
                Ok(Written::Through { after, events, refused: 0 })
            }
            ReceiverAnswer::Refused(status) if batch.events.len() > 1 => {
                // Which of them it does not take is found out by halves.
                tracing::debug!(target: "ocelli::sink", "{status}: fewer events at once");
                self.most = (batch.events.len() / 2).max(1);
                Ok(Written::Through { after: 0, events: 0, refused: 0 })
            }
            ReceiverAnswer::Refused(status) => {
                let name = &self.receiver.settings.name;
                tracing::warn!(
                    target: "ocelli::sink", session = &**batch.session,
                    "the webhook {name} never takes event {after}, which is left out: HTTP status \
                     {}{said}", status.as_u16()
                );
                Ok(Written::Through { after, events: 0, refused: events })
            }
            ReceiverAnswer::Gone => {
                let reason = "it is gone (HTTP status 410), and is asked again when its settings \
                              change or the host is restarted";
                Err(SinkError::Rest { reason: reason.to_owned(), wait: Duration::MAX })
            }
            ReceiverAnswer::Later(status, wait) => {
                let reason = format!("it answers with HTTP status {}{said}", status.as_u16());
                Err(match wait {
                    Some(wait) => SinkError::Rest { reason, wait },
                    None => SinkError::Target(reason),
                })
            }
        }
    }
}

/// A receiver, and the connection to it while there is one.
struct WebhookTarget {
    settings: WebhookConfig,
    client: HttpClient,
    open: Option<HttpConnection>,
}

impl WebhookTarget {
    fn new(settings: WebhookConfig) -> Self {
        let client = HttpClient::new(settings.ca.clone());
        Self { settings, client, open: None }
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.settings.timeout_ms.into())
    }

    async fn open(&self) -> Result<HttpConnection, HttpFault> {
        let plain = self.settings.url.is_plain();
        let admits = |address| admits(address, self.settings.allow_private, plain);
        self.client.connect(self.settings.url.url(), self.limit(), admits).await
    }

    /// Sends a message: the answer, and what it says for a person.
    async fn send(
        &mut self,
        message: &WebhookMessage,
    ) -> Result<(ReceiverAnswer, String), SinkError> {
        let limit = self.limit();
        let sent = timeout(limit, self.post(message)).await;
        let late = || SinkError::Timeout(format!("no answer within {} ms", limit.as_millis()));
        let sent = sent.map_err(|_| late())?;
        let (connection, response) = sent.map_err(|fault| SinkError::Target(fault.to_string()))?;
        let (head, body) = response.into_parts();
        let answer = ReceiverAnswer::of(head.status, &head.headers, SystemTime::now());
        // An answer that goes on for ever, or stays away halfway, ends with its connection.
        let body = timeout(ANSWER_BODY, read(body, MAX_ANSWER)).await;
        let body = body.ok().and_then(Result::ok).flatten();
        if body.is_some() {
            self.open = Some(connection);
        }
        let said = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
        let said = words(&without_target(said, self.settings.url.url()), MAX_WORDS);
        Ok((answer, if said.is_empty() { said } else { format!(": {said:?}") }))
    }

    async fn post(
        &mut self,
        message: &WebhookMessage,
    ) -> Result<(HttpConnection, Response<Incoming>), HttpFault> {
        // A receiver closes a connection that was idle when it likes: once more on a new one.
        if let Some(open) = self.open.take()
            && let Ok(answered) = self.exchange(open, message).await
        {
            return Ok(answered);
        }
        let open = self.open().await?;
        self.exchange(open, message).await
    }

    async fn exchange(
        &self,
        mut connection: HttpConnection,
        message: &WebhookMessage,
    ) -> Result<(HttpConnection, Response<Incoming>), HttpFault> {
        let headers = message.headers(&self.settings, SystemTime::now());
        let url = self.settings.url.url();
        let request = request(Method::POST, url, headers, message.body.clone());
        let request =
            request.ok_or_else(|| HttpFault::Setting("the URL is none for HTTP".to_owned()))?;
        let broken = |error: hyper::Error| HttpFault::broken(&error);
        connection.ready().await.map_err(broken)?;
        let response = connection.send_request(request).await.map_err(broken)?;
        Ok((connection, response))
    }
}

/// Whether a receiver may be at this address; the error says why not.
fn admits(address: IpAddr, private: bool, plain: bool) -> Result<(), &'static str> {
    if !is_ordinary(address) {
        Err("no receiver is at such an address")
    } else if is_private(address) && !private {
        Err("this is a private address, and allow_private is not set")
    } else if plain && !is_private(address) {
        Err("this is no private address, and http:// is not encrypted")
    } else {
        Ok(())
    }
}

/// Sends a message that only tries the way. What the receiver answers, for a person; the error says
/// why it did not take it.
pub(crate) async fn ping(settings: WebhookConfig) -> Result<(), PingError> {
    let mut receiver = WebhookTarget::new(settings);
    let (answer, said) = receiver.send(&WebhookMessage::ping(SystemTime::now())).await?;
    match answer {
        ReceiverAnswer::Taken => Ok(()),
        ReceiverAnswer::Gone => Err(PingError::Status(410, said)),
        ReceiverAnswer::Refused(status) | ReceiverAnswer::Later(status, _) => {
            Err(PingError::Status(status.as_u16(), said))
        }
    }
}

/// Why a receiver did not take a ping.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PingError {
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("HTTP status {0}{1}")]
    Status(u16, String),
}

/// A receiver may repeat what it was asked for ("Cannot POST /..."), and that may hold a secret.
fn without_target(said: String, url: &url::Url) -> String {
    let parts = [Some(url.path()), url.query()].into_iter().flatten();
    let parts = parts.filter(|part| !matches!(*part, "" | "/"));
    parts.fold(said, |said, part| said.replace(part, "..."))
}

#[cfg(test)]
mod tests;
