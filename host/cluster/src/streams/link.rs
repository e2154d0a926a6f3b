//! The connection to NATS: requests whose failures have names, and what is known of its health.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::header::{HeaderValue, NATS_BATCH_COMMIT, NATS_BATCH_ID, NATS_BATCH_SEQUENCE};
use async_nats::jetstream::{self, stream::RawMessage};
use async_nats::{Client, ConnectOptions, Event, HeaderMap, ReconnectToServer, RequestErrorKind};
use async_nats::{ServerAddr, ServerError, StatusCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::{Notify, broadcast, watch};

use super::error::{
    BATCH_INCOMPLETE, BATCHES_IN_FLIGHT, STREAM_NOT_FOUND, WRONG_LAST_SEQUENCE,
    WRONG_LAST_SEQUENCE_IN_PROCESS,
};
use super::{StreamError, StreamHealth, names};
use crate::site::{SiteOptions, SiteTls};

/// How long one request waits: beyond the slowest replicated write of a healthy disk, and short
/// beside an election (4 to 9 s), during which requests are lost. What is appended later than that
/// all the same is found before it is sent again.
pub(super) const ATTEMPT: Duration = Duration::from_secs(1);

/// Three unanswered pings end a connection: a server whose machine is gone is noticed in 0.6 s at
/// most. Until then what is live goes nowhere.
const PING_INTERVAL: Duration = Duration::from_millis(200);

/// The longest wait between two tries to connect: short beside an outage, and 50 hosts do no harm.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Commands on their way to the socket. They survive a reconnect, so few of them are let in.
const COMMANDS: usize = 64;

/// Messages of one subscription that wait for their reader: more than a page or a pull asks for.
pub(super) const SUBSCRIPTION: usize = 4096;

/// The longest subject, in bytes. The server ends a connection whose line is longer than 4,096.
const MAX_SUBJECT: usize = 3000;

/// What a message has beside the text of its headers and its payload, in bytes, at most.
const OVERHEAD: usize = 1024;

/// Refusals that a request may have missed while it looked at others.
const REFUSALS: usize = 64;

/// The connection and its health. A clone is the same connection.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) context: jetstream::Context,
    shared: Arc<LinkShared>,
}

/// What the connection's callbacks write.
struct LinkShared {
    health: watch::Sender<StreamHealth>,
    /// Subjects that the server refused. It answers no request that it refuses.
    refusals: broadcast::Sender<Arc<str>>,
    /// The streams have to be looked at.
    check: Notify,
    /// Counts the times that the connection was made or lost.
    changes: AtomicU64,
    /// How many messages in a row nobody has acknowledged or refused.
    unanswered: AtomicU64,
}

/// A message to be stored.
pub(super) struct Outgoing {
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

/// Why a message was not acknowledged.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not stored: an expected sequence is not the last one.
    Sequence,
    /// It was not stored: another one is on its way, or too many batches are.
    Busy(String),
    /// It was not stored.
    Refused(StreamError),
    /// It may have been stored.
    Unknown(StreamError),
}

/// A message that a stream holds.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) subject: String,
    pub(super) place: u64,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

#[derive(Deserialize)]
struct EngineError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    error: Option<EngineError>,
}

impl Link {
    /// Begins to connect. Needs a Tokio runtime.
    pub(super) async fn open(options: &SiteOptions) -> Result<Self, StreamError> {
        let servers: Vec<ServerAddr> = options
            .nats
            .iter()
            .map(|url| url.parse().map_err(|error| StreamError::Options(format!("{url}: {error}"))))
            .collect::<Result<_, _>>()?;
        if servers.is_empty() {
            return Err(StreamError::Options("no server of NATS is named".to_owned()));
        }
        if let Some(tls) = &options.tls {
            check_files(tls)?;
        }
        // The client asks for the process's provider. Another one that is there is as good.
        let _ = async_nats::rustls::crypto::ring::default_provider().install_default();

        let connecting = StreamError::Unavailable(format!("connecting to {}", join(&options.nats)));
        let shared = Arc::new(LinkShared {
            health: watch::Sender::new(StreamHealth::Down(connecting)),
            refusals: broadcast::Sender::new(REFUSALS),
            check: Notify::new(),
            changes: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
        });
        let connect = connect_options(options, &shared);
        let client = connect
            .connect(servers)
            .await
            .map_err(|error| StreamError::Options(error.to_string()))?;
        let context =
            jetstream::context::ContextBuilder::new().timeout(ATTEMPT).build(client.clone());
        Ok(Self { client, context, shared })
    }

    pub(super) fn health(&self) -> watch::Receiver<StreamHealth> {
        self.shared.health.subscribe()
    }

    /// Whether there is a connection now.
    pub(super) fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Changes whenever the connection was made or lost.
    pub(super) fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::Acquire)
    }

    /// How many messages in a row nobody has acknowledged or refused.
    pub(super) fn unanswered(&self) -> u64 {
        self.shared.unanswered.load(Ordering::Relaxed)
    }

    /// Counts them anew.
    pub(super) fn answered(&self) {
        self.shared.unanswered.store(0, Ordering::Relaxed);
    }

    /// Waits until the streams have to be looked at.
    pub(super) async fn check_wanted(&self) {
        self.shared.check.notified().await;
    }

    /// Says how the streams are.
    pub(super) fn report(&self, health: StreamHealth) {
        set(&self.shared.health, health);
    }

    /// Something does not work: says so, and has the streams looked at.
    pub(super) fn down(&self, error: StreamError) {
        set(&self.shared.health, StreamHealth::Down(error));
        self.shared.check.notify_one();
    }

    /// Fails where there is no connection, with what is known of why.
    pub(super) fn usable(&self) -> Result<(), StreamError> {
        if self.connected() {
            return Ok(());
        }
        match &*self.shared.health.borrow() {
            StreamHealth::Down(error) => Err(error.clone()),
            StreamHealth::Ready => Err(StreamError::Unavailable("connection lost".to_owned())),
        }
    }

    /// Waits for what sends to `subject` or below it. The server answers nothing that it
    /// does not allow, but says so on the connection.
    pub(super) async fn watched<T>(
        &self,
        subject: &str,
        sending: impl Future<Output = T>,
    ) -> Result<T, StreamError> {
        let mut refusals = self.shared.refusals.subscribe();
        let refused = async {
            loop {
                match refusals.recv().await {
                    Ok(refused) if covers(subject, &refused) => return refused,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            biased;
            done = sending => Ok(done),
            refused = refused => Err(StreamError::NotAllowed(format!("publish to {refused}"))),
        }
    }

    /// Sends a request and returns its answer.
    async fn request(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<async_nats::Message, StreamError> {
        let mut request = async_nats::Request::new().payload(payload).timeout(Some(ATTEMPT));
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let sending = self.client.send_request(subject.to_owned(), request);
        // The wait for a place in the queue of commands counts, too.
        let answer = self.watched(subject, tokio::time::timeout(ATTEMPT, sending)).await?;
        let reason = match answer {
            Ok(Ok(message)) => return Ok(message),
            Ok(Err(error)) => match error.kind() {
                RequestErrorKind::NoResponders => format!("nobody answers {subject}"),
                RequestErrorKind::TimedOut => no_answer(subject),
                _ => format!("{subject}: {error}"),
            },
            Err(_) => no_answer(subject),
        };
        let error = StreamError::Unavailable(reason);
        if self.connected() {
            self.down(error.clone());
        }
        Err(error)
    }

    /// Asks JetStream's API.
    pub(super) async fn api<T: DeserializeOwned>(
        &self,
        subject: &str,
        request: &impl Serialize,
    ) -> Result<T, StreamError> {
        self.usable()?;
        let unreadable = |error: serde_json::Error| StreamError::NotOurs(error.to_string());
        let payload = serde_json::to_vec(request).map_err(unreadable)?;
        let subject = format!("$JS.API.{subject}");
        let answer = self.request(&subject, HeaderMap::new(), payload.into()).await?;
        #[derive(Deserialize)]
        struct Refusal {
            error: Option<EngineError>,
        }
        let refusal: Refusal = serde_json::from_slice(&answer.payload).map_err(unreadable)?;
        match refusal.error {
            Some(error) => Err(StreamError::of_engine(error.err_code, error.description)),
            None => serde_json::from_slice(&answer.payload).map_err(unreadable),
        }
    }

    /// The last message of a subject, as the stream's leader has it.
    pub(super) async fn last(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<Kept>, StreamError> {
        #[derive(Deserialize)]
        struct Answer {
            message: RawMessage,
        }
        let request = serde_json::json!({ "last_by_subj": subject });
        let answer: Answer = match self.api(&format!("STREAM.MSG.GET.{stream}"), &request).await {
            Ok(answer) => answer,
            Err(StreamError::Refused { code: NO_MESSAGE, .. }) => return Ok(None),
            Err(StreamError::Refused { code: STREAM_NOT_FOUND, reason }) => {
                let error = StreamError::Unavailable(format!("{stream}: {reason}"));
                self.down(error.clone());
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let message = jetstream::message::StreamMessage::try_from(answer.message)
            .map_err(|error| StreamError::Damaged(format!("{subject}: {error}")))?;
        Ok(Some(Kept {
            subject: message.subject.to_string(),
            place: message.sequence,
            headers: message.headers,
            payload: message.payload,
        }))
    }

    /// Stores messages, all or none, and returns the sequence of the last one. Their subjects are
    /// `under` or below it.
    pub(super) async fn store(
        &self,
        under: &str,
        mut messages: Vec<Outgoing>,
    ) -> Result<u64, Failure> {
        self.usable().map_err(Failure::Refused)?;
        for message in &messages {
            self.fits(message).map_err(Failure::Refused)?;
        }
        let Some(mut last) = messages.pop() else { return Ok(0) };
        let before = messages.len();
        if before > 0 {
            let batch = self.client.new_inbox();
            let id = batch.rsplit('.').next().unwrap_or_default().to_owned();
            let sending = async {
                for (number, mut message) in messages.into_iter().enumerate() {
                    mark(&mut message.headers, &id, number + 1);
                    let Outgoing { subject, headers, payload } = message;
                    self.client.publish_with_headers(subject, headers, payload).await?;
                }
                Ok::<(), async_nats::PublishError>(())
            };
            match self.watched(under, tokio::time::timeout(ATTEMPT, sending)).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => {
                    return Err(Failure::Refused(StreamError::Unavailable(error.to_string())));
                }
                Ok(Err(_)) => {
                    return Err(Failure::Refused(StreamError::Unavailable(no_answer(under))));
                }
                Err(error) => return Err(Failure::Refused(error)),
            }
            mark(&mut last.headers, &id, before + 1);
            last.headers.insert(NATS_BATCH_COMMIT, HeaderValue::from(1u64));
        }
        self.acknowledged(last).await
    }

    /// Fails for what would make the server end the connection.
    fn fits(&self, message: &Outgoing) -> Result<(), StreamError> {
        let (size, most) = (message.subject.len(), MAX_SUBJECT);
        if size > most {
            return Err(StreamError::TooLarge { what: "a subject (names and keys)", size, most });
        }
        let headers = message.headers.iter().flat_map(|(_, values)| values);
        let headers: usize = headers.map(|value| value.as_str().len()).sum();
        let (size, most) = (headers + message.payload.len() + OVERHEAD, self.client.max_payload());
        if size > most {
            return Err(StreamError::TooLarge { what: "a message", size, most });
        }
        Ok(())
    }

    /// Sends the message that is answered, and reads the answer.
    async fn acknowledged(&self, message: Outgoing) -> Result<u64, Failure> {
        let Outgoing { subject, headers, payload } = message;
        let answer = match self.request(&subject, headers, payload).await {
            Ok(answer) => answer,
            Err(error @ StreamError::Unavailable(_)) => {
                self.shared.unanswered.fetch_add(1, Ordering::Relaxed);
                return Err(Failure::Unknown(error));
            }
            Err(error) => return Err(Failure::Refused(error)),
        };
        self.answered();
        let ack: Ack = serde_json::from_slice(&answer.payload).map_err(|error| {
            Failure::Refused(StreamError::NotOurs(format!("{subject} is answered: {error}")))
        })?;
        let Some(EngineError { err_code, description }) = ack.error else { return Ok(ack.seq) };
        Err(match err_code {
            WRONG_LAST_SEQUENCE => Failure::Sequence,
            WRONG_LAST_SEQUENCE_IN_PROCESS | BATCH_INCOMPLETE | BATCHES_IN_FLIGHT => {
                Failure::Busy(description)
            }
            // It is made again as soon as that is noticed.
            STREAM_NOT_FOUND => {
                let error = StreamError::Unavailable(description);
                self.down(error.clone());
                Failure::Unknown(error)
            }
            code => match StreamError::of_engine(code, description) {
                error @ StreamError::Unavailable(_) => {
                    self.down(error.clone());
                    Failure::Unknown(error)
                }
                error => Failure::Refused(error),
            },
        })
    }

    /// One message from any replica: the first of `subject` at stream sequence `from` or behind it,
    /// or the last one for `None`.
    pub(super) async fn probe(
        &self,
        stream: &str,
        subject: &str,
        from: Option<u64>,
    ) -> Result<Option<Kept>, StreamError> {
        self.usable()?;
        let asked = format!("$JS.API.DIRECT.GET.{stream}");
        let request = match from {
            Some(from) => serde_json::json!({ "seq": from, "next_by_subj": subject }),
            None => serde_json::json!({ "last_by_subj": subject }),
        };
        let answer = self.request(&asked, HeaderMap::new(), request.to_string().into()).await?;
        match answer.status {
            None => kept(&asked, answer).map(Some),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => Err(StreamError::Unavailable(format!("{asked}: {status}"))),
        }
    }

    /// Several messages from any replica: those of `subject`, a filter, from stream sequence `from`
    /// on, `limit` of them or about `bytes` at most. And whether there are more.
    pub(super) async fn read(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<(Vec<Kept>, bool), StreamError> {
        self.usable()?;
        let asked = format!("$JS.API.DIRECT.GET.{stream}");
        let request = serde_json::json!({
            "seq": from, "next_by_subj": subject, "batch": limit, "max_bytes": bytes,
        });
        let reading = async {
            let inbox = self.client.new_inbox();
            let unsent = |error: String| StreamError::Unavailable(format!("{asked}: {error}"));
            let asking = async {
                let answers = self
                    .client
                    .subscribe(inbox.clone())
                    .await
                    .map_err(|error| unsent(error.to_string()))?;
                self.client
                    .publish_with_reply(asked.clone(), inbox, request.to_string().into())
                    .await
                    .map_err(|error| unsent(error.to_string()))?;
                Ok::<_, StreamError>(answers)
            };
            // The wait for a place in the queue of commands counts, too.
            let mut answers = tokio::time::timeout(ATTEMPT, asking)
                .await
                .map_err(|_| StreamError::Unavailable(no_answer(&asked)))??;
            collect(&asked, &mut answers).await
        };
        match self.watched(&asked, reading).await? {
            Err(error @ StreamError::Unavailable(_)) => {
                self.shared.check.notify_one();
                Err(error)
            }
            other => other,
        }
    }
}

/// JetStream's code for a subject without a message.
const NO_MESSAGE: u64 = 10037;

/// End of a batch of direct reads.
const END_OF_BATCH: u16 = 204;

/// Reads the answers to a batch of direct reads.
async fn collect(
    asked: &str,
    answers: &mut async_nats::Subscriber,
) -> Result<(Vec<Kept>, bool), StreamError> {
    use futures_util::StreamExt;
    let mut messages = Vec::new();
    loop {
        let answer = tokio::time::timeout(ATTEMPT, answers.next()).await;
        let Ok(Some(message)) = answer else {
            return Err(StreamError::Unavailable(no_answer(asked)));
        };
        match message.status.map(|status| status.as_u16()) {
            Some(END_OF_BATCH) => {
                let headers = message.headers.unwrap_or_default();
                let pending = number(&headers, "Nats-Num-Pending").unwrap_or_default();
                return Ok((messages, pending > 0));
            }
            Some(status) if status == StatusCode::NOT_FOUND.as_u16() => {
                return Ok((messages, false));
            }
            Some(status) => {
                let said = message.description.unwrap_or_default();
                return Err(StreamError::Unavailable(format!("{asked}: {status} {said}")));
            }
            None => messages.push(kept(asked, message)?),
        }
    }
}

/// Reads the answer to a direct read.
fn kept(asked: &str, message: async_nats::Message) -> Result<Kept, StreamError> {
    let headers = message.headers.unwrap_or_default();
    let subject = headers.get("Nats-Subject").map(|subject| subject.as_str().to_owned());
    let (Some(place), Some(subject)) = (number(&headers, "Nats-Sequence"), subject) else {
        return Err(StreamError::NotOurs(format!("{asked} is answered without a sequence")));
    };
    Ok(Kept { subject, place, headers, payload: message.payload })
}

/// The number of a header.
fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}

/// Makes a message one of a batch.
fn mark(headers: &mut HeaderMap, batch: &str, number: usize) {
    headers.insert(NATS_BATCH_ID, batch);
    headers.insert(NATS_BATCH_SEQUENCE, HeaderValue::from(number));
}

fn no_answer(subject: &str) -> String {
    format!("no answer to {subject} within {} s", ATTEMPT.as_secs())
}

/// Whether `refused` is `subject` or one below it.
fn covers(subject: &str, refused: &str) -> bool {
    refused.strip_prefix(subject).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn join(urls: &[String]) -> String {
    urls.join(", ")
}

/// Tells a change of health.
fn set(health: &watch::Sender<StreamHealth>, now: StreamHealth) {
    health.send_if_modified(|health| {
        let changes = *health != now;
        if changes {
            match &now {
                StreamHealth::Ready => tracing::info!("JetStream is ready"),
                StreamHealth::Down(error) => tracing::warn!(code = error.code(), "{error}"),
            }
            *health = now;
        }
        changes
    });
}

/// Each file has to be readable when the host starts. They are read again at each connect.
fn check_files(tls: &SiteTls) -> Result<(), StreamError> {
    for path in [&tls.ca, &tls.certificate, &tls.key] {
        SiteTls::read(path)?;
    }
    Ok(())
}

fn connect_options(options: &SiteOptions, shared: &Arc<LinkShared>) -> ConnectOptions {
    let mut connect = ConnectOptions::new()
        .name(format!("ocelli {} {}", options.site, options.host))
        .retry_on_initial_connect()
        // The config names all servers; what they say of themselves may not be reached from here.
        .ignore_discovered_servers()
        .ping_interval(PING_INTERVAL)
        .connection_timeout(ATTEMPT)
        .request_timeout(Some(ATTEMPT))
        .client_capacity(COMMANDS)
        .subscription_capacity(SUBSCRIPTION)
        .reconnect_delay_callback(|attempts| {
            let attempts = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
            Duration::from_millis(50).saturating_mul(attempts).min(RECONNECT_DELAY)
        });
    if let Some(tls) = &options.tls {
        connect = connect
            .require_tls(true)
            .add_root_certificates(tls.ca.clone())
            .add_client_certificate(tls.certificate.clone(), tls.key.clone());
    }
    let on_event = Arc::clone(shared);
    let on_connect = Arc::clone(shared);
    let turn = AtomicUsize::new(names::stream_of(&options.host, u8::MAX).into());
    connect
        .event_callback(move |event| {
            note(&on_event, event);
            std::future::ready(())
        })
        // Called before each try, with what the ones before have met: the events say less.
        .reconnect_to_server_callback(move |servers, _| {
            let met: Vec<String> = servers
                .iter()
                .filter_map(|server| {
                    let error = server.last_error.as_ref()?;
                    Some(format!("{server}: {error}"))
                })
                .collect();
            if !met.is_empty() {
                set(&on_connect.health, StreamHealth::Down(named(met.join("; "))));
            }
            // In turn: the one that was lost is asked last, whose silence would cost a timeout.
            // Hosts begin with different ones.
            let next = turn.fetch_add(1, Ordering::Relaxed).checked_rem(servers.len());
            let next = next.and_then(|next| servers.into_iter().nth(next));
            let next = next.map(|server| ReconnectToServer { addr: server.addr, delay: None });
            std::future::ready(next)
        })
}

/// Takes notice of what happened to the connection.
fn note(shared: &LinkShared, event: Event) {
    let down = |error| set(&shared.health, StreamHealth::Down(error));
    match event {
        Event::Connected => {
            shared.changes.fetch_add(1, Ordering::AcqRel);
            shared.check.notify_one();
        }
        Event::Disconnected | Event::Closed => {
            shared.changes.fetch_add(1, Ordering::AcqRel);
            down(StreamError::Unavailable("connection lost".to_owned()));
        }
        Event::ServerError(ServerError::AuthorizationViolation) => {
            down(StreamError::NotAllowed("connect".to_owned()));
        }
        Event::ServerError(ServerError::Other(text)) => {
            if text.to_ascii_lowercase().contains("permissions violation") {
                tracing::warn!("NATS: {text}");
                if let Some(subject) = text.split('"').nth(1) {
                    // Nobody waits: nobody is told.
                    let _ = shared.refusals.send(subject.into());
                }
            } else {
                tracing::warn!("NATS: {text}");
            }
        }
        Event::SlowConsumer(_) => tracing::debug!("NATS: messages came faster than they were read"),
        Event::LameDuckMode | Event::Draining | Event::ServerError(_) | Event::ClientError(_) => {}
    }
}

/// What the words of a failed try to connect mean. The client gives them as text alone.
fn named(text: String) -> StreamError {
    let lower = text.to_ascii_lowercase();
    if lower.contains("certificate") || lower.contains("alert") || lower.contains("certs") {
        StreamError::Certificate(text)
    } else if lower.contains("authorization violation") {
        StreamError::NotAllowed(format!("connect: {text}"))
    } else {
        StreamError::Unavailable(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_belongs_to_its_subject_and_those_below() {
        assert!(covers("hall.st.a", "hall.st.a"));
        assert!(covers("hall.st.a", "hall.st.a.kv.b.c"));
        assert!(!covers("hall.st.a", "hall.st.ab"));
        assert!(!covers("hall.st.a", "hall.st"));
    }

    #[test]
    fn a_failed_connect_has_a_name() {
        let code = |text: &str| named(text.to_owned()).code();
        assert_eq!(code("IO error: invalid peer certificate: UnknownIssuer"), "certificate");
        assert_eq!(code("IO error: received fatal alert: CertificateRequired"), "certificate");
        assert_eq!(code("authorization violation: nats: authorization violation"), "not_allowed");
        assert_eq!(code("IO error: Connection refused (os error 111)"), "unavailable");
    }
}
