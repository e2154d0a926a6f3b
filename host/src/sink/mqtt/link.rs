//! The way to the broker: one connection, which is not made again by itself.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, Broker, ClientError, ConnAck, ConnectionError, Event, EventLoop, LastWill,
    MqttOptions, Packet, PubAckReason, PublishNotice, PublishNoticeError, PublishOptions, QoS,
    SessionMode,
};
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::topics::MqttTopics;
use crate::config::{BrokerAddress, MqttConfig};
use crate::sink::SinkError;
use crate::util::authorities;

/// Messages that wait for the socket: what is sent for lack of none is dropped beyond, or waits.
const CHANNEL: usize = 64;

/// Messages that the broker has not acknowledged, at most: a batch. The library keeps a place for
/// each, 65,536 of them where nothing is said.
const IN_FLIGHT: u16 = 256;

/// Messages that one write to the socket takes.
const WRITE_BATCH: usize = 32;

/// Longest text of an error that is logged or told.
const MAX_WORDS: usize = 300;

/// What a publish takes beside topic and payload: header, identifier, lengths and no properties.
const OVERHEAD: usize = 16;

/// What the host says of itself while it is connected, and the broker says when it is not.
const ONLINE: &str = "online";
const OFFLINE: &str = "offline";

/// A connection to the broker. Ends when this is dropped; the broker says then that the host is
/// offline.
pub(super) struct BrokerLink {
    client: AsyncClient,
    /// Why the connection was lost, once it is.
    lost: watch::Receiver<Option<String>>,
    task: AbortHandle,
    /// Bytes of the largest message that the broker takes.
    max_packet: usize,
    wait: Duration,
}

impl Drop for BrokerLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why the broker did not take a message.
#[derive(Debug)]
pub(super) enum PublishRefusal {
    /// It takes nothing of this topic.
    Topic(String),
    /// It will never take this message.
    Message(String),
    /// The connection is of no use any more, or it takes nothing now.
    Link(SinkError),
}

impl BrokerLink {
    /// Connects, logs in, and says that the host is there.
    pub(super) async fn connect(
        settings: &MqttConfig,
        name: &str,
        topics: &MqttTopics,
    ) -> Result<Self, SinkError> {
        let wait = Duration::from_millis(u64::from(settings.timeout_ms));
        let address = settings.address().map_err(|error| SinkError::Target(error.to_string()))?;
        let tls = if address.tls { Some(tls(settings).await?) } else { None };
        let client_id = format!("ocelli-{name}");
        let mut options =
            MqttOptions::new(client_id, Broker::tcp(address.host.clone(), address.port));
        options.set_session_mode(SessionMode::Clean);
        options.set_keep_alive(settings.keep_alive_s);
        options.set_connect_timeout(wait);
        options.set_max_request_batch(WRITE_BATCH);
        options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
        options.set_last_will(LastWill::new(
            topics.status(),
            OFFLINE,
            QoS::AtLeastOnce,
            true,
            None,
        ));
        if let Some(user) = &address.user {
            let password = address.password.clone().unwrap_or_default();
            options.set_credentials(user.clone(), password.into_bytes());
        }
        options.set_socket_connector(move |_, _| dial(address.clone(), tls.clone()));
        let builder = AsyncClient::builder(options).capacity(CHANNEL);
        let built = builder.try_build().map_err(|error| SinkError::Target(error.to_string()));
        let (client, mut events) = built?;
        let accepted = timeout(wait, welcome(&mut events)).await;
        let accepted = accepted.map_err(|_| late("the broker did not answer in time"))?;
        let accepted = accepted.map_err(|error| SinkError::Target(words(&error)))?;
        let max_packet = accepted.properties.and_then(|told| told.max_packet_size);
        let (losing, lost) = watch::channel(None);
        let task = tokio::spawn(poll(events, losing)).abort_handle();
        let max_packet = max_packet.map_or(usize::MAX, |bytes| bytes as usize);
        let link = Self { client, lost, task, max_packet, wait };
        link.retain(topics.status(), ONLINE.into()).await?;
        Ok(link)
    }

    /// Whether the broker takes a message of this size.
    pub(super) fn fits(&self, topic: &str, payload: usize) -> bool {
        topic.len() + payload + OVERHEAD <= self.max_packet
    }

    /// Sends a message, to be acknowledged ([`Self::acknowledged`]).
    pub(super) async fn send(
        &self,
        topic: &str,
        payload: Bytes,
        retain: bool,
    ) -> Result<PublishNotice, SinkError> {
        let options = PublishOptions::at_least_once().retain(retain);
        let sent = self.client.publish_tracked(topic.to_owned(), payload, options);
        match timeout(self.wait, sent).await {
            Ok(sent) => sent.map_err(|error| self.fault(&error)),
            Err(_) => Err(late("the broker takes no messages")),
        }
    }

    /// Waits until the broker has acknowledged a message.
    pub(super) async fn acknowledged(&self, notice: PublishNotice) -> Result<(), PublishRefusal> {
        let answered = timeout(self.wait, notice.wait_async()).await;
        let answered = answered.map_err(|_| {
            PublishRefusal::Link(late("the broker did not acknowledge a message in time"))
        })?;
        let Err(error) = answered else { return Ok(()) };
        let text = format!("the broker refuses the message: {error}");
        Err(match error {
            PublishNoticeError::V5PubAck(
                PubAckReason::NotAuthorized | PubAckReason::TopicNameInvalid,
            ) => PublishRefusal::Topic(text),
            PublishNoticeError::V5PubAck(PubAckReason::PayloadFormatInvalid)
            | PublishNoticeError::RetainNotSupported => PublishRefusal::Message(text),
            PublishNoticeError::V5PubAck(_) => PublishRefusal::Link(SinkError::Target(text)),
            _ => PublishRefusal::Link(SinkError::Target(self.why())),
        })
    }

    /// Sends a message that the broker keeps for those who come later. Empty: it keeps none. Does
    /// not wait for the acknowledgement.
    pub(super) async fn retain(&self, topic: String, payload: Bytes) -> Result<(), SinkError> {
        self.send(&topic, payload, true).await.map(drop)
    }

    /// Sends a message that may be lost, or drops it where others wait.
    pub(super) fn offer(&self, topic: String, payload: Bytes, retain: bool) {
        let options = PublishOptions::at_most_once().retain(retain);
        if self.fits(&topic, payload.len()) {
            // Full, or lost: what comes next is newer.
            let _ = self.client.try_publish(topic, payload, options);
        }
    }

    /// Waits until the connection is lost, and says why.
    pub(super) async fn lost(&self) -> SinkError {
        let mut lost = self.lost.clone();
        // Without a sender it is lost, too.
        let _ = lost.wait_for(Option::is_some).await;
        SinkError::Target(self.why())
    }

    fn fault(&self, error: &ClientError) -> SinkError {
        match error {
            ClientError::RequestChannelDisconnected(_) => SinkError::Target(self.why()),
            error => SinkError::Target(error.to_string()),
        }
    }

    fn why(&self) -> String {
        self.lost.borrow().clone().unwrap_or_else(|| "the connection was lost".to_owned())
    }
}

/// The broker's answer to the login.
async fn welcome(events: &mut EventLoop) -> Result<ConnAck, ConnectionError> {
    loop {
        if let Event::Incoming(Packet::ConnAck(accepted)) = events.poll().await? {
            return Ok(accepted);
        }
    }
}

/// Carries messages until the connection is lost. What the broker sends beside its answers is read
/// and dropped: the host subscribes to nothing.
async fn poll(mut events: EventLoop, losing: watch::Sender<Option<String>>) {
    loop {
        if let Err(error) = events.poll().await {
            losing.send_replace(Some(words(&error)));
            return;
        }
    }
}

/// A TCP or TLS connection.
trait BrokerStream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> BrokerStream for S {}

async fn dial(
    address: BrokerAddress,
    tls: Option<Arc<ClientConfig>>,
) -> io::Result<Box<dyn BrokerStream>> {
    let stream = TcpStream::connect((&*address.host, address.port)).await?;
    // Acknowledgements are small, and each is waited for.
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(address.host).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(tls).connect(name, stream).await?))
}

/// What the settings say of TLS.
async fn tls(settings: &MqttConfig) -> Result<Arc<ClientConfig>, SinkError> {
    let (ca, own) = (settings.ca.clone(), settings.certificate.clone().zip(settings.key.clone()));
    // The system's certificates are some hundred files.
    let read = tokio::task::spawn_blocking(move || read_tls(ca, own)).await;
    let read = read.map_err(|error| SinkError::Target(error.to_string()))?;
    read.map(Arc::new).map_err(|error| SinkError::Target(error.to_string()))
}

fn read_tls(ca: Option<PathBuf>, own: Option<(PathBuf, PathBuf)>) -> anyhow::Result<ClientConfig> {
    use anyhow::Context;

    let roots = match ca {
        Some(file) => authorities::of_file(&file)?,
        None => authorities::of_system().context(
            "this machine has no certificate authorities (package ca-certificates): set mqtt.ca",
        )?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some((certificate, key)) = own else { return Ok(config.with_no_client_auth()) };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&certificate).and_then(Iterator::collect);
    let chain = chain.with_context(|| format!("mqtt.certificate = {}", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(&key)
        .with_context(|| format!("mqtt.key = {}", key.display()))?;
    Ok(config.with_client_auth_cert(chain, key)?)
}

fn late(what: &str) -> SinkError {
    SinkError::Timeout(what.to_owned())
}

/// An error's words, cut to a length for a log.
fn words(error: &ConnectionError) -> String {
    let mut text = match error {
        ConnectionError::ConnectionRefused(code) => format!("the broker refuses: {code:?}"),
        ConnectionError::Io(error) => format!("no connection: {error}"),
        error => error.to_string(),
    };
    text.truncate(text.floor_char_boundary(MAX_WORDS));
    text
}
