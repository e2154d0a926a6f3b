//! Changes of a site's keys as they happen.

use std::time::Duration;

use etcd_client::{
    EventType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
};
use tokio::time::{Instant, MissedTickBehavior};

use super::{Entry, Etcd, Fault, REQUEST, fault, signed};

/// How often the server is asked whether it still watches.
const CHECK: Duration = Duration::from_millis(700);

/// After which silence it does not: two answers that did not come, each in the time of a request.
const SILENCE: Duration = Duration::from_millis(2300);

/// A change of a key, which is without the site's prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Put(Entry),
    Deleted { key: String, revision: u64 },
}

impl Event {
    /// etcd's revision of the change.
    pub(crate) fn revision(&self) -> u64 {
        match self {
            Self::Put(entry) => entry.modified,
            Self::Deleted { revision, .. } => *revision,
        }
    }
}

/// A watch. Ends with an error on any doubt that it shows all changes.
pub(crate) struct Watching {
    etcd: Etcd,
    server: usize,
    sender: WatchRequestSender,
    stream: WatchResponseStream,
    check: tokio::time::Interval,
    heard: Instant,
}

impl Etcd {
    /// Watches the keys that begin with `prefix`, from `revision` on.
    pub(crate) async fn watch(&self, prefix: &str, revision: u64) -> Result<Watching, Fault> {
        let key = self.key(prefix);
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(signed(revision))
            // A message stays below gRPC's 4 MB.
            .with_fragment();
        let (stream, server) = self
            .call_within(REQUEST, |client| async move {
                client.watch_client().watch(key, Some(options)).await
            })
            .await?;
        let (sender, stream) = stream.split();
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Watching { etcd: self.clone(), server, sender, stream, check, heard: Instant::now() })
    }
}

impl Watching {
    /// The next changes. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Result<Vec<Event>, Fault> {
        loop {
            let message = tokio::select! {
                // What is there was heard, however long nobody asked.
                biased;
                message = self.stream.message() => message,
                now = self.check.tick() => {
                    if now.duration_since(self.heard) > SILENCE {
                        return Err(self.broken("it does not say that it watches"));
                    }
                    if self.sender.request_progress().await.is_err() {
                        return Err(self.broken("the watch has ended"));
                    }
                    continue;
                }
            };
            self.heard = Instant::now();
            let response = match message {
                Ok(Some(response)) => response,
                Ok(None) => return Err(self.broken("the watch has ended")),
                Err(error) => {
                    let fault = fault(self.url(), &error);
                    if let Fault::Unavailable(_) = fault {
                        self.etcd.leave(self.server);
                    }
                    return Err(fault);
                }
            };
            if response.compact_revision() > 0 {
                return Err(Fault::Compacted);
            }
            if response.canceled() {
                let reason = response.cancel_reason().to_owned();
                return Err(if reason.contains("permission") {
                    Fault::Denied(reason)
                } else {
                    self.broken(&reason)
                });
            }
            let events = self.events(&response);
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    fn events(&self, response: &WatchResponse) -> Vec<Event> {
        let event = |event: &etcd_client::Event| {
            let pair = event.kv()?.clone();
            let entry = self.etcd.entry(pair)?;
            Some(match event.event_type() {
                EventType::Put => Event::Put(entry),
                EventType::Delete => Event::Deleted { key: entry.key, revision: entry.modified },
            })
        };
        response.events().iter().filter_map(event).collect()
    }

    fn url(&self) -> &str {
        self.etcd.inner.servers.get(self.server).map_or("", |server| &server.url)
    }

    fn broken(&self, why: &str) -> Fault {
        self.etcd.leave(self.server);
        Fault::Unavailable(format!("{}: {why}", self.url()))
    }
}
