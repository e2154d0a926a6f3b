//! Pictures of sessions of other hosts, for the client of one WebSocket.
//!
//! For each host with a session that the client watches there is one WebSocket, on which this host
//! is the client. What comes goes on with the number that the session has for the client. A
//! director looks who has which session, so that the pictures go on where it has moved.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::AbortOnDropHandle;

use super::forward::{OtherHost, OwnerFault, PeerSocket, SessionPlace, SiteLink};
use crate::api::watching::{DISCONTINUITY, HEADER, KEY, STREAM_AT};
use crate::event::{PictureChoice, PictureCodec};

/// Between two looks at who has which session, and between two connections to a host.
const LOOK: Duration = Duration::from_millis(300);

/// Between two requests for the pictures of a session that a host has refused or ended: it may be
/// starting it.
const AGAIN: Duration = Duration::from_secs(1);

/// A host pings every 15 s: after this time without a word the connection is lost.
const SILENCE: Duration = Duration::from_secs(45);

/// Bytes of one session's pictures that wait for the client: two key pictures of 4K, or some seconds
/// of a usual camera.
const WAITING: usize = 4 << 20;

/// Which pictures of which sessions come from a host.
type WantedPictures = BTreeMap<Arc<str>, PictureChoice>;

/// What a client watches of other hosts.
#[derive(Default)]
pub(in crate::api) struct RemoteWatches {
    shared: Arc<Shared>,
    director: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    sessions: Mutex<BTreeMap<Arc<str>, RemoteSession>>,
    /// There are pictures, or news.
    ready: Notify,
    /// The client wants something else.
    changed: Notify,
}

/// A session that the client watches.
struct RemoteSession {
    /// Its number for the client.
    stream: u32,
    pictures: PictureChoice,
    waiting: PictureQueue,
    news: Option<RemoteNews>,
}

/// What has become of a session that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum RemoteNews {
    /// Its host says how its pictures are coded.
    Codec(PictureCodec),
    /// It is this host's now, or nobody's for good.
    Here,
}

/// Pictures that wait for the client.
#[derive(Debug, Default)]
struct PictureQueue {
    messages: VecDeque<Bytes>,
    bytes: usize,
    /// Pictures are missing: the next one is a key picture, and says so.
    lost: bool,
}

impl PictureQueue {
    /// Adds a message. Where there are too many, all go, and the next key picture is the first.
    fn push(&mut self, message: &Bytes, stream: u32) {
        let Some(flags) = message.get(1).copied().filter(|_| message.len() >= HEADER) else {
            return;
        };
        if self.bytes + message.len() > WAITING {
            *self = Self { lost: true, ..Self::default() };
        }
        if self.lost && flags & KEY == 0 {
            return;
        }
        let mut message = Vec::from(&message[..]);
        if let Some(flags) = message.get_mut(1).filter(|_| self.lost) {
            *flags |= DISCONTINUITY;
        }
        let number = message.iter_mut().skip(STREAM_AT).zip(stream.to_be_bytes());
        number.for_each(|(to, from)| *to = from);
        self.lost = false;
        self.bytes += message.len();
        self.messages.push_back(message.into());
    }

    fn pop(&mut self) -> Option<Bytes> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }
}

impl RemoteWatches {
    /// Begins to watch a session with this number, or changes which of its pictures come.
    pub(in crate::api) fn begin(
        &self,
        link: &Arc<SiteLink>,
        caller: impl FnOnce() -> HeaderMap,
        session: &str,
        pictures: PictureChoice,
        stream: impl FnOnce() -> Option<u32>,
    ) -> Option<u32> {
        let mut sessions = self.shared.sessions.lock();
        let stream = match sessions.get_mut(session) {
            Some(watched) => {
                watched.pictures = pictures;
                watched.stream
            }
            None => {
                let stream = stream()?;
                let waiting = PictureQueue { lost: true, ..PictureQueue::default() };
                let watched = RemoteSession { stream, pictures, waiting, news: None };
                sessions.insert(session.into(), watched);
                stream
            }
        };
        drop(sessions);
        let mut director = self.director.lock();
        if director.is_none() {
            let (link, caller, shared) = (Arc::clone(link), caller(), Arc::clone(&self.shared));
            *director = Some(AbortOnDropHandle::new(tokio::spawn(direct(link, caller, shared))));
        }
        self.shared.changed.notify_one();
        Some(stream)
    }

    /// Ends the pictures of a session. The number that its stream had.
    pub(in crate::api) fn end(&self, session: &str) -> Option<u32> {
        let watched = self.shared.sessions.lock().remove(session)?;
        self.shared.changed.notify_one();
        Some(watched.stream)
    }

    /// Ends all pictures.
    pub(in crate::api) fn end_all(&self) {
        self.shared.sessions.lock().clear();
        self.shared.changed.notify_one();
    }

    /// How many sessions are watched.
    pub(in crate::api) fn count(&self) -> usize {
        self.shared.sessions.lock().len()
    }

    /// Waits until a picture is ready, or something has become of a session.
    pub(in crate::api) async fn wait(&self) {
        self.shared.ready.notified().await;
    }

    /// Makes the next [`wait`](Self::wait) return at once, if there is something.
    pub(in crate::api) fn wake(&self) {
        let sessions = self.shared.sessions.lock();
        if sessions.values().any(|one| !one.waiting.messages.is_empty() || one.news.is_some()) {
            self.shared.ready.notify_one();
        }
    }

    /// What has become of sessions since the last call.
    pub(in crate::api) fn news(&self) -> Vec<(Arc<str>, PictureChoice, u32, RemoteNews)> {
        let mut sessions = self.shared.sessions.lock();
        let news = sessions.iter_mut().filter_map(|(name, one)| {
            Some((Arc::clone(name), one.pictures, one.stream, one.news.take()?))
        });
        news.collect()
    }

    /// The next picture's message; the session with the fewest bytes goes first.
    pub(in crate::api) fn next(&self) -> Option<Bytes> {
        let mut sessions = self.shared.sessions.lock();
        let waiting = sessions.values_mut().filter(|one| !one.waiting.messages.is_empty());
        waiting.min_by_key(|one| one.waiting.bytes)?.waiting.pop()
    }
}

impl Shared {
    fn wanted(&self) -> WantedPictures {
        let sessions = self.sessions.lock();
        sessions.iter().map(|(name, one)| (Arc::clone(name), one.pictures)).collect()
    }

    fn tell(&self, session: &str, news: RemoteNews) {
        if let Some(watched) = self.sessions.lock().get_mut(session) {
            watched.news = Some(news);
            self.ready.notify_one();
        }
    }

    fn push(&self, session: &str, message: &Bytes) {
        if let Some(watched) = self.sessions.lock().get_mut(session) {
            watched.waiting.push(message, watched.stream);
            self.ready.notify_one();
        }
    }

    /// The next picture of a session does not follow the last one.
    fn lose(&self, session: &str) {
        if let Some(watched) = self.sessions.lock().get_mut(session) {
            watched.waiting.lost = true;
        }
    }
}

/// A host from which pictures come.
struct WatchedHost {
    host: OtherHost,
    wanted: watch::Sender<WantedPictures>,
    task: AbortOnDropHandle<()>,
}

/// Has each session's pictures come from the host that has it, until it is dropped.
async fn direct(link: Arc<SiteLink>, caller: HeaderMap, shared: Arc<Shared>) {
    let mut hosts = HashMap::<String, WatchedHost>::new();
    loop {
        let mut by_host = BTreeMap::<String, (OtherHost, WantedPictures)>::new();
        for (session, pictures) in shared.wanted() {
            match link.place(&session, false) {
                Ok(SessionPlace::At(host)) => {
                    let entry = by_host.entry(host.name.clone());
                    let (_, wanted) = entry.or_insert_with(|| (host, WantedPictures::new()));
                    wanted.insert(session, pictures);
                }
                Ok(SessionPlace::Here) => shared.tell(&session, RemoteNews::Here),
                // It comes, here or elsewhere.
                Err(_) => {}
            }
        }
        hosts.retain(|name, watched| {
            by_host.get(name).is_some_and(|(host, _)| *host == watched.host)
                && !watched.task.is_finished()
        });
        for (name, (host, wanted)) in by_host {
            if let Some(watched) = hosts.get(&name) {
                watched.wanted.send_if_modified(|before| {
                    let differs = *before != wanted;
                    *before = wanted;
                    differs
                });
                continue;
            }
            let (sender, receiver) = watch::channel(wanted);
            let task = follow(
                Arc::clone(&link),
                host.clone(),
                caller.clone(),
                receiver,
                Arc::clone(&shared),
            );
            let task = AbortOnDropHandle::new(tokio::spawn(task));
            hosts.insert(name, WatchedHost { host, wanted: sender, task });
        }
        tokio::select! {
            () = shared.changed.notified() => {}
            () = sleep(LOOK) => {}
        }
    }
}

/// Takes pictures from one host, until it is dropped.
async fn follow(
    link: Arc<SiteLink>,
    host: OtherHost,
    caller: HeaderMap,
    mut wanted: watch::Receiver<WantedPictures>,
    shared: Arc<Shared>,
) {
    loop {
        let ended = match link.socket(&host, caller.clone()).await {
            Ok(socket) => converse(socket, &host, &mut wanted, &shared).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = ended {
            tracing::debug!(target: "ocelli::cluster", host = host.name, "no pictures: {fault}");
        }
        sleep(LOOK).await;
    }
}

/// What a host says on its WebSocket of sessions that are watched.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum HostSays {
    Watching {
        session: String,
        pictures: PictureChoice,
        codec: Option<PictureCodec>,
        stream: u32,
    },
    Error {
        session: Option<String>,
    },
    #[serde(other)]
    Other,
}

/// Takes pictures from one connection until it ends.
async fn converse(
    mut socket: PeerSocket,
    host: &OtherHost,
    wanted: &mut watch::Receiver<WantedPictures>,
    shared: &Shared,
) -> Result<(), OwnerFault> {
    let broken = |cause: &dyn std::fmt::Display| OwnerFault::Unreachable {
        host: host.name.clone(),
        address: host.address.clone(),
        cause: cause.to_string(),
    };
    let (mut told, mut streams) = (WantedPictures::new(), HashMap::<u32, String>::new());
    // Sessions that the host does not show at this moment.
    let mut refused = HashSet::<String>::new();
    let mut again = interval(AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        let now = wanted.borrow_and_update().clone();
        for text in changes(&told, &now) {
            socket.send(Message::text(text)).await.map_err(|error| broken(&error))?;
        }
        told = now;
        let message = tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Ok(()),
            },
            _ = again.tick() => {
                told.retain(|session, _| !refused.contains(&**session));
                refused.clear();
                continue;
            }
            message = timeout_at(heard + SILENCE, socket.next()) => message,
        };
        let message = message.map_err(|_| broken(&"nothing came"))?;
        heard = Instant::now();
        match message.transpose().map_err(|error| broken(&error))? {
            Some(Message::Binary(message)) => {
                let number = message.get(STREAM_AT..STREAM_AT + 4);
                let number =
                    number.and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
                if let Some(session) = number.and_then(|number| streams.get(&number)) {
                    shared.push(session, &message);
                }
            }
            Some(Message::Text(text)) => match serde_json::from_str(&text) {
                Ok(HostSays::Watching {
                    session, pictures: PictureChoice::None, stream, ..
                }) => {
                    streams.remove(&stream);
                    refused.insert(session);
                }
                Ok(HostSays::Watching { session, codec, stream, .. }) => {
                    shared.lose(&session);
                    if let Some(codec) = codec {
                        shared.tell(&session, RemoteNews::Codec(codec));
                    }
                    streams.insert(stream, session);
                }
                Ok(HostSays::Error { session: Some(session) }) => {
                    refused.insert(session);
                }
                _ => {}
            },
            None | Some(Message::Close(_)) => return Err(broken(&"it closed the connection")),
            Some(_) => {}
        }
    }
}

/// The requests that lead from what a host was told to what is wanted.
fn changes(told: &WantedPictures, wanted: &WantedPictures) -> Vec<String> {
    let watch = |session: &str, pictures: PictureChoice| {
        json!({"type": "watch", "session": session, "pictures": pictures}).to_string()
    };
    let gone = told.keys().filter(|session| !wanted.contains_key(*session));
    let gone = gone.map(|session| watch(session, PictureChoice::None));
    let new = wanted.iter().filter(|(session, pictures)| told.get(*session) != Some(*pictures));
    gone.chain(new.map(|(session, pictures)| watch(session, *pictures))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(flags: u8, bytes: usize) -> Bytes {
        let mut message = vec![0; bytes.max(HEADER)];
        message[1] = flags;
        message[STREAM_AT..STREAM_AT + 4].copy_from_slice(&7u32.to_be_bytes());
        message.into()
    }

    fn shown(queue: &mut PictureQueue) -> Vec<(u8, u8)> {
        std::iter::from_fn(|| queue.pop()).map(|message| (message[1], message[7])).collect()
    }

    #[test]
    fn pictures_go_on_with_the_clients_number_from_a_key_picture_on() {
        let mut queue = PictureQueue { lost: true, ..PictureQueue::default() };
        for flags in [0, KEY, 0] {
            queue.push(&picture(flags, 100), 3);
        }
        queue.push(&Bytes::from_static(b"short"), 3);
        assert_eq!(shown(&mut queue), [(KEY | DISCONTINUITY, 3), (0, 3)]);
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_client_that_is_too_slow_goes_on_with_the_newest_key_picture() {
        let mut queue = PictureQueue::default();
        queue.push(&picture(KEY, WAITING - 10), 3);
        queue.push(&picture(0, 100), 3);
        assert!(queue.messages.is_empty() && queue.lost, "it would wait too long");
        queue.push(&picture(0, 100), 3);
        queue.push(&picture(KEY, 100), 3);
        queue.push(&picture(0, 100), 3);
        assert_eq!(shown(&mut queue), [(KEY | DISCONTINUITY, 3), (0, 3)]);
    }

    #[test]
    fn a_host_is_told_what_differs() {
        let of = |sessions: &[(&str, PictureChoice)]| -> WantedPictures {
            sessions.iter().map(|(name, pictures)| (Arc::from(*name), *pictures)).collect()
        };
        let told = of(&[("a", PictureChoice::All), ("b", PictureChoice::Key)]);
        let wanted = of(&[("b", PictureChoice::All), ("c", PictureChoice::Key)]);
        let expected = [("a", "none"), ("b", "all"), ("c", "key")];
        let expected = expected.map(|(session, pictures)| {
            json!({"type": "watch", "session": session, "pictures": pictures})
        });
        let said: Vec<serde_json::Value> = changes(&told, &wanted)
            .iter()
            .map(|text| serde_json::from_str(text).unwrap())
            .collect();
        assert_eq!(said, expected);
        assert!(changes(&told, &told).is_empty());
    }
}
