//! An MQTT broker as a sink, by MQTT 5.
//!
//! Events are published with QoS 1, in the order of their session. The cursor moves when the broker
//! has acknowledged them: it tells refused ones apart, which older versions of MQTT do not. The
//! host asks for a clean session each time, since the journal knows what is to come, and subscribes
//! to nothing. An event whose acknowledgement was lost comes twice, with its number.
//!
//! Beside the events, a task tells of what is now ([`presence`]): states, counts and pictures,
//! which are retained, and detections. What is now is not kept for later: it is sent again with each
//! connection. [`discovery`] makes cameras known to Home Assistant.

mod discovery;
mod link;
mod presence;
mod topics;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::task::AbortHandle;

use super::{EventBatch, EventSink, SinkConnection, SinkError, SinkKind, Written};
use crate::config::{MqttConfig, SinkStart};
use crate::event::encode_event;
use link::{BrokerLink, PublishRefusal};
use presence::Presence;
pub(super) use presence::PresenceSources;
use topics::MqttTopics;

/// Bytes of events at which a batch ends. One event may be more.
const MAX_BYTES: usize = 4 << 20;

/// See the module's documentation.
pub(super) struct MqttSink {
    /// None: nothing is told but events.
    sources: Option<PresenceSources>,
}

/// A connection to the broker.
pub(super) struct MqttConnection {
    link: Arc<BrokerLink>,
    topics: MqttTopics,
    presence: Option<AbortHandle>,
    /// What went wrong behind the events that were acknowledged: told with the next call.
    fault: Option<SinkError>,
}

impl Drop for MqttConnection {
    fn drop(&mut self) {
        if let Some(presence) = &self.presence {
            presence.abort();
        }
    }
}

impl MqttSink {
    pub(super) fn new(sources: Option<PresenceSources>) -> Self {
        Self { sources }
    }
}

impl EventSink for MqttSink {
    const KIND: SinkKind = SinkKind::Mqtt;

    type Settings = MqttConfig;
    type Connection = MqttConnection;

    fn address(settings: &MqttConfig) -> String {
        settings.shown_address()
    }

    fn start(settings: &MqttConfig) -> SinkStart {
        settings.from
    }

    async fn connect(&self, settings: &MqttConfig) -> Result<MqttConnection, SinkError> {
        let name = settings.name.clone().unwrap_or_else(machine_name);
        let topics = MqttTopics::new(&settings.prefix, &name);
        let link = Arc::new(BrokerLink::connect(settings, &name, &topics).await?);
        let presence = self.sources.clone().map(|sources| {
            let presence =
                Presence::new(sources, settings, &name, topics.clone(), Arc::clone(&link));
            tokio::spawn(presence.run()).abort_handle()
        });
        Ok(MqttConnection { link, topics, presence, fault: None })
    }
}

impl SinkConnection for MqttConnection {
    async fn write(&mut self, batch: EventBatch<'_>) -> Result<Written, SinkError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let topic = self.topics.of(batch.session, "events");
        let (mut sent, mut bytes) = (VecDeque::with_capacity(batch.events.len() + 1), 0);
        if let Some((from, to)) = batch.gap {
            let session = &**batch.session;
            let gone = json!({"type": "events_gone", "session": session, "from": from, "to": to});
            sent.push_back((
                to,
                0,
                Some(self.link.send(&topic, gone.to_string().into(), false).await?),
            ));
        }
        for event in batch.events {
            let text = encode_event(batch.session, event.seq, &event.body).text;
            bytes += text.len();
            let notice = if self.link.fits(&topic, text.len()) {
                let payload = Bytes::copy_from_slice(text.as_bytes());
                Some(self.link.send(&topic, payload, false).await?)
            } else {
                let (session, seq) = (&**batch.session, event.seq);
                tracing::warn!(
                    target: "ocelli::sink", session,
                    "event {seq} is left out: it is larger than the broker takes"
                );
                None
            };
            sent.push_back((event.seq, 1, notice));
            if bytes >= MAX_BYTES {
                break;
            }
        }
        self.settle(batch.session, sent).await
    }

    async fn idle(&mut self, wait: Duration) -> Result<(), SinkError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        // It ends by itself only where something does not do what it is asked.
        if self.presence.as_ref().is_some_and(AbortHandle::is_finished) {
            let words = "states and pictures are not told any more";
            return Err(SinkError::Target(words.to_owned()));
        }
        tokio::select! {
            fault = self.link.lost() => Err(fault),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }
}

/// A message that was sent: its number, the events that it is, and who tells of its acknowledgement
/// unless it was left out.
type Sent = (u64, u64, Option<rumqttc::PublishNotice>);

impl MqttConnection {
    /// Waits for the acknowledgements of what was sent, in order, up to the first that does not
    /// come.
    async fn settle(
        &mut self,
        session: &Arc<str>,
        sent: VecDeque<Sent>,
    ) -> Result<Written, SinkError> {
        let (mut through, mut events, mut refused) = (None, 0, 0);
        for (seq, count, notice) in sent {
            let answer = match notice {
                Some(notice) => self.link.acknowledged(notice).await,
                None => Err(PublishRefusal::Message(String::new())),
            };
            match answer {
                Ok(()) => events += count,
                Err(PublishRefusal::Message(reason)) => {
                    refused += count;
                    if !reason.is_empty() {
                        let session = &**session;
                        tracing::warn!(
                            target: "ocelli::sink", session,
                            "event {seq} is left out: {reason}"
                        );
                    }
                }
                // The broker takes none of this topic, so none of those behind it either.
                Err(PublishRefusal::Topic(reason)) if through.is_none() => {
                    return Ok(Written::Suspended(reason));
                }
                Err(PublishRefusal::Topic(_)) => break,
                Err(PublishRefusal::Link(fault)) if through.is_none() => return Err(fault),
                Err(PublishRefusal::Link(fault)) => {
                    self.fault = Some(fault);
                    break;
                }
            }
            through = Some(seq);
        }
        Ok(match through {
            Some(after) => Written::Through { after, events, refused },
            None => Written::Unknown,
        })
    }
}

/// The machine's name.
fn machine_name() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy().into_owned();
    if name.is_empty() { "ocelli".to_owned() } else { name }
}
