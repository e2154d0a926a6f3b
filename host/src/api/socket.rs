//! One WebSocket: a client's requests, the messages of the hub for it, and the pictures that it
//! watches.
//!
//! Three futures run side by side: reading, so that a ping is answered while a session is being
//! made; the requests, one after the other; and writing, the only reader of the subscriber's queue.
//! The first that ends, ends the socket with all its subscriptions. Before it closes the client
//! gets the reason.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::worker::RequestKind;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::access::{Caller, Right};
use super::ask::{self, ASKED, AskRefusal};
use super::connections::ConnectionSlot;
use super::control::{Control, Refusal};
use super::gate;
use super::message::{After, ClientMessage, MAX_MESSAGE, Malformed, Subscribe};
use super::problem::Problem;
use super::request_id::RequestId;
use super::resume::{self, ResumeError};
use super::site::{OwnToken, RemoteNews, RemoteWatches, SessionPlace, SiteLink, is_forwarded};
use super::state::ApiState;
use super::watching::{self, WATCHED, Watches};
use super::websocket::{self, FrameFault, Incoming, ReadEnd, Receiver, Sender, WriteError};
use crate::config::EVERY_SESSION;
use crate::event::{PictureChoice, ServerMessage, SubscribeOptions, Subscriber};
use crate::util::bucket::{RateLimit, TokenBucket};
use crate::util::shown::without_folders;

/// A message of more than [`MAX_MESSAGE`] gets an error; one of more than this closes the
/// connection before it is read.
const MAX_READ: usize = 2 * MAX_MESSAGE;

/// Requests of one client that wait: one for each session that it may subscribe to. Most of the
/// channel's memory exists only while so many wait.
const REQUESTS: usize = SUBSCRIPTIONS;

/// Bytes of the requests that wait: a kilobyte for each.
const REQUEST_BYTES: usize = 1 << 20;

/// Most sessions of one client: as many as a host can have.
const SUBSCRIPTIONS: usize = 1000;

/// Rate of a client's frames: a client subscribes to all sessions when it connects, and then sends
/// little.
const FRAMES: RateLimit = RateLimit { per_second: 50.0, burst: 1200.0 };

/// A client with ten times that rate is closed.
const FLOOD: RateLimit = RateLimit { per_second: 500.0, burst: 12_000.0 };

/// Rate of errors about ignored messages.
const NOTICES: RateLimit = RateLimit { per_second: 1.0, burst: 1.0 };

/// The action's name in the log when a subscriber has a session made.
const MAKE: &str = "make_session";

/// The action's name in the log when a subscriber sends a command to a pipeline.
const COMMAND: &str = "command";

/// Why a socket ends.
#[derive(Debug, PartialEq, Eq)]
enum SocketEnd {
    /// The client closed it with this status.
    Closed(Option<u16>),
    /// The client takes no messages.
    Slow(String),
    /// Nothing more can be read from the client.
    Read(ReadEnd),
    /// The client sent too many frames.
    Flood,
    /// The host's own reason: its code and text.
    Host(&'static str, &'static str),
}

/// `GET /v1/ws`.
pub(super) async fn open<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    Extension(token): Extension<OwnToken>,
    request: Request,
) -> Result<Response, Problem> {
    let peer = gate::peer(&request);
    let connection = request.extensions().get::<Arc<ConnectionSlot>>().cloned();
    let link = state.site.clone().filter(|_| !is_forwarded(request.headers()));
    let (response, opening) = websocket::handshake(request)?;
    let place = state.reserve_socket()?;
    // Counted from here on, so that the host does not stop between the upgrade and the first
    // message.
    state.tasks.clone().spawn(RequestId::carried(async move {
        // It fails if the client has gone meanwhile.
        if let Ok((sender, receiver)) = opening.open(MAX_READ).await {
            serve(sender, receiver, state, (caller, token, link), peer).await;
        }
        drop((place, connection));
    }));
    Ok(response)
}

/// The state that reading, requests and writing share.
struct Client<C> {
    state: Arc<ApiState<C>>,
    caller: Caller,
    /// For other hosts of the site.
    token: OwnToken,
    /// The way to them; `None` for a host of the site, whose requests go on no further.
    link: Option<Arc<SiteLink>>,
    peer: SocketAddr,
    subscriber: Arc<Subscriber>,
    watches: Watches,
    /// What it watches of other hosts.
    remote: RemoteWatches,
    /// Which pictures it wants of what it watches.
    watched: Mutex<HashMap<String, PictureChoice>>,
    /// The payload of the client's last ping, until it is answered.
    ping: Mutex<Option<Vec<u8>>>,
    pinged: Notify,
}

/// A request that waits, and its part of [`REQUEST_BYTES`]. Boxed, since a channel allocates 32
/// slots at once.
type QueuedRequest = Box<(ClientMessage, OwnedSemaphorePermit)>;

async fn serve<C: Control>(
    mut sender: Sender,
    mut receiver: Receiver,
    state: Arc<ApiState<C>>,
    (caller, token, link): (Caller, OwnToken, Option<Arc<SiteLink>>),
    peer: SocketAddr,
) {
    let subscriber = Arc::new(state.hub.subscriber());
    let client = Client {
        state,
        caller,
        token,
        link,
        peer,
        subscriber,
        watches: Watches::default(),
        remote: RemoteWatches::default(),
        watched: Mutex::default(),
        ping: Mutex::default(),
        pinged: Notify::new(),
    };
    let (requests, inbox) = mpsc::channel(REQUESTS);
    let end = tokio::select! {
        // In this order: the host's own reason counts first.
        biased;
        (code, message) = client.state.ended(&client.caller) => SocketEnd::Host(code, message),
        end = client.write(&mut sender) => end,
        end = client.read(&mut receiver, requests) => end,
        () = client.answer(inbox) => SocketEnd::Read(ReadEnd::Gone),
    };
    tracing::debug!(?end, caller = &*client.caller.name, "WebSocket ends");
    let farewell = client.farewell(&mut sender, &mut receiver, &end);
    // The client may not read the farewell.
    let _ = timeout(client.state.timing.farewell, farewell).await;
}

impl<C: Control> Client<C> {
    /// Sends the subscriber's messages in batches, pictures when no message waits, and pings, and
    /// answers pings.
    async fn write(&self, sender: &mut Sender) -> SocketEnd {
        let timing = self.state.timing;
        let mut pings = interval(timing.ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is now.
        pings.tick().await;
        loop {
            let mut next = None;
            tokio::select! {
                first = self.subscriber.next() => next = Some(first),
                () = self.watches.wait() => {
                    for (session, stream) in self.watches.follow() {
                        self.go_on_elsewhere(&session, stream);
                    }
                }
                () = self.remote.wait() => self.follow_remote(),
                _ = pings.tick() => sender.ping(),
                () = self.pinged.notified() => {
                    if let Some(payload) = self.ping.lock().take() {
                        sender.pong(&payload);
                    }
                }
            }
            next = next.or_else(|| self.subscriber.try_next());
            while let Some(message) = next {
                match message {
                    Ok(message) => sender.text(&message.text, &self.state.squeezed),
                    Err(slow) => return SocketEnd::Slow(slow.to_string()),
                }
                next = if sender.is_full() { None } else { self.subscriber.try_next() };
            }
            self.write_pictures(sender);
            match sender.flush(timing.send).await {
                Ok(()) => {}
                Err(WriteError::Gone) => return SocketEnd::Read(ReadEnd::Gone),
                Err(WriteError::Full) => return SocketEnd::Slow(self.state.note_untaken()),
            }
        }
    }

    /// Adds pictures, unless there is enough to write already: a message waits for one picture at
    /// most. No message waits unread then, so the answer to `watch` is before its first picture.
    fn write_pictures(&self, sender: &mut Sender) {
        while !sender.is_full() {
            let (remote, own) = (self.remote.next(), self.watches.next());
            if remote.is_none() && own.is_none() {
                // The next one wakes who waits.
                return;
            }
            if let Some(message) = remote {
                sender.binary(&[], message);
            }
            if let Some((stream, picture)) = own {
                let header = watching::header(stream, &picture, monotonic_ns());
                sender.binary(&header, picture.unit.data.clone());
            }
        }
        self.watches.wake();
        self.remote.wake();
    }

    /// Reads requests. A ping is answered here; the others wait their turn.
    async fn read(
        &self,
        receiver: &mut Receiver,
        requests: mpsc::Sender<QueuedRequest>,
    ) -> SocketEnd {
        let (silence, whole) = (self.state.timing.silence, self.state.timing.message);
        let room = Arc::new(Semaphore::new(REQUEST_BYTES));
        let bucket = |pace| TokenBucket::full(pace, Instant::now());
        let (mut frames, mut flood, mut notices) = (bucket(FRAMES), bucket(FLOOD), bucket(NOTICES));
        loop {
            let incoming = match receiver.next(silence, whole).await {
                Ok(Incoming::Close(status)) => return SocketEnd::Closed(status),
                Ok(incoming) => incoming,
                Err(end) => return SocketEnd::Read(end),
            };
            let now = Instant::now();
            if flood.take(FLOOD, now).is_err() {
                return SocketEnd::Flood;
            }
            if frames.take(FRAMES, now).is_err() {
                if notices.take(NOTICES, now).is_ok() {
                    let message = format!(
                        "more than {} messages a second; some are not done",
                        FRAMES.per_second
                    );
                    self.error("rate_limited", &message, None, None);
                }
                continue;
            }
            let text = match incoming {
                Incoming::Text(text) => text,
                Incoming::Binary => {
                    let message = "messages are text, one JSON object each";
                    self.error("unsupported_binary", message, None, None);
                    continue;
                }
                Incoming::Ping(payload) => {
                    // The last of several pings is enough (RFC 6455, 5.5.3).
                    *self.ping.lock() = Some(payload);
                    self.pinged.notify_one();
                    continue;
                }
                Incoming::Part | Incoming::Pong | Incoming::Close(_) => continue,
            };
            match ClientMessage::parse(&text) {
                Err(Malformed { code, message, session, id }) => {
                    self.error(code, &message, session.as_deref(), id.as_ref());
                }
                Ok(ClientMessage::Ping { id }) => self.pong(id.as_ref()),
                Ok(request) => {
                    let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
                    let waiting = match Arc::clone(&room).try_acquire_many_owned(bytes) {
                        Ok(part) => requests
                            .try_send(Box::new((request, part)))
                            .map_err(|full| full.into_inner().0),
                        Err(_) => Err(request),
                    };
                    if let Err(request) = waiting {
                        let message = format!(
                            "{REQUESTS} requests wait, or {REQUEST_BYTES} bytes of them; this one \
                                is not done"
                        );
                        let (session, id) = (request.session(), request.id());
                        self.error("too_many_requests", &message, session, id);
                    }
                }
            }
        }
    }

    /// Answers the requests, in order. What is for pipelines waits for them in tasks of their own.
    async fn answer(&self, mut inbox: mpsc::Receiver<QueuedRequest>) {
        let mut asked = JoinSet::new();
        while let Some(waiting) = inbox.recv().await {
            let (request, _part) = *waiting;
            match request {
                ClientMessage::Subscribe(request) if request.session == EVERY_SESSION => {
                    self.subscribe_all(request).await
                }
                ClientMessage::Subscribe(request) => self.subscribe(request).await,
                ClientMessage::Unsubscribe { session, .. } => {
                    match session.as_str() {
                        EVERY_SESSION => {
                            self.watches.end_all();
                            self.remote.end_all();
                            self.watched.lock().clear();
                        }
                        session => drop(self.end_watch(session)),
                    }
                    self.subscriber.unsubscribe(&session);
                }
                ClientMessage::Watch { session, id, pictures } => {
                    self.watch(&session, id.as_ref(), pictures);
                }
                ClientMessage::Query { session, id, query } => {
                    self.ask(&mut asked, RequestKind::Query, session, id, query);
                }
                ClientMessage::Command { session, id, command } => {
                    self.ask(&mut asked, RequestKind::Command, session, id, command);
                }
                ClientMessage::Ping { id } => self.pong(id.as_ref()),
            }
        }
    }

    /// Begins, changes or ends the pictures of a session.
    fn watch(&self, session: &str, id: Option<&Value>, pictures: PictureChoice) {
        if !self.caller.sees(session) {
            return self.unknown(session, id);
        }
        let Some(choice) = watching::choice(pictures) else {
            let stream = self.end_watch(session).unwrap_or_default();
            return self.subscriber.send(&watching::ended(session, stream));
        };
        self.watched.lock().insert(session.to_owned(), pictures);
        let feed = self.state.control.pictures(session).filter(|_| self.is_here(session));
        let begun = match (&feed, &self.link) {
            (Some(feed), _) => {
                self.remote.end(session);
                self.watches.watch(session, feed, choice)
            }
            (None, Some(link)) if link.knows(session) => {
                self.watches.end(session);
                self.watch_elsewhere(link, session, pictures)
            }
            _ => {
                self.end_watch(session);
                return self.unknown(session, id);
            }
        };
        let Some(stream) = begun else {
            self.watched.lock().remove(session);
            let message = format!("a client may watch {WATCHED} sessions");
            return self.error("too_many_watched", &message, Some(session), id);
        };
        let codec = feed.and_then(|feed| feed.codec()).map(Into::into);
        self.subscriber.send(&ServerMessage::Watching { session, pictures, codec, stream });
    }

    /// Whether no other host of a site has the session.
    fn is_here(&self, session: &str) -> bool {
        let place = self.state.site.as_ref().map(|link| link.place(session, false));
        matches!(place, None | Some(Ok(SessionPlace::Here)))
    }

    /// Begins to watch a session of another host, or one that no host has at this moment. `None`:
    /// it would be one too many.
    fn watch_elsewhere(
        &self,
        link: &Arc<SiteLink>,
        session: &str,
        pictures: PictureChoice,
    ) -> Option<u32> {
        let room = self.watches.count() + self.remote.count() < WATCHED;
        let number = || self.watches.number().filter(|_| room);
        self.remote.begin(link, || self.onward(), session, pictures, number)
    }

    /// Ends the pictures of a session, wherever they come from. The number of their stream.
    fn end_watch(&self, session: &str) -> Option<u32> {
        self.watched.lock().remove(session);
        let remote = self.remote.end(session);
        self.watches.end(session).or(remote)
    }

    /// Pictures of a session have ended here: they go on where the site has it.
    fn go_on_elsewhere(&self, session: &str, stream: u32) {
        let pictures = self.watched.lock().get(session).copied();
        if let (Some(link), Some(pictures)) = (&self.link, pictures)
            && link.knows(session)
            && let Some(stream) = self.watch_elsewhere(link, session, pictures)
        {
            let message = ServerMessage::Watching { session, pictures, codec: None, stream };
            return self.subscriber.send(&message);
        }
        self.watched.lock().remove(session);
        self.subscriber.send(&watching::ended(session, stream));
    }

    /// Tells what has become of sessions of other hosts, and takes over what is here by now.
    fn follow_remote(&self) {
        for (session, pictures, stream, news) in self.remote.news() {
            let (session, codec) = match news {
                RemoteNews::Codec(codec) => (&*session, Some(codec)),
                RemoteNews::Here if self.state.knows(&session) => {
                    // Where it is on its way, the next look finds it.
                    if self.state.control.pictures(&session).is_some() {
                        self.watch(&session, None, pictures);
                    }
                    continue;
                }
                RemoteNews::Here => {
                    self.end_watch(&session);
                    self.subscriber.send(&watching::ended(&session, stream));
                    continue;
                }
            };
            self.subscriber.send(&ServerMessage::Watching { session, pictures, codec, stream });
        }
    }

    /// Passes a query or a command on to the session's pipeline.
    fn ask(
        &self,
        asked: &mut JoinSet<()>,
        kind: RequestKind,
        session: String,
        id: Option<Value>,
        request: Value,
    ) {
        if !self.caller.sees(&session) {
            return self.unknown(&session, id.as_ref());
        }
        if kind == RequestKind::Command && !self.caller.may(Right::Operate) {
            self.state.gate.audit.denied(&self.caller, self.peer, COMMAND, &session);
            let message = "a command may change the pipeline's state, which takes the right to \
                operate; a query asks";
            return self.error("forbidden", message, Some(&session), id.as_ref());
        }
        while asked.try_join_next().is_some() {}
        if asked.len() >= ASKED {
            let message = format!(
                "{ASKED} queries and commands wait for their answers; this one is not done"
            );
            return self.error("too_many_requests", &message, Some(&session), id.as_ref());
        }
        let deed = (kind == RequestKind::Command).then(|| {
            self.state.gate.audit.begin(&self.caller, self.peer, COMMAND, &session).given(&request)
        });
        let (subscriber, state) = (Arc::clone(&self.subscriber), Arc::clone(&self.state));
        let onward = self.onward();
        asked.spawn(async move {
            let answered = ask::anywhere(&state, kind, &session, request, onward).await;
            if let Some(deed) = deed {
                let refused = |refused: &AskRefusal| refused.code.clone();
                deed.finish(answered.as_ref().map_or_else(refused, |_| "answered".into()));
            }
            match answered {
                Ok(answer) => subscriber.send(&ServerMessage::Answer {
                    session: &session,
                    id: id.as_ref(),
                    answer: &answer,
                }),
                Err(AskRefusal { code, message }) => subscriber.send(&ServerMessage::refusal(
                    &code,
                    &message,
                    Some(&session),
                    id.as_ref(),
                )),
            }
        });
    }

    /// The headers of what goes on to another host of the site.
    fn onward(&self) -> HeaderMap {
        let link = self.state.site.as_ref();
        link.map(|link| link.of_caller(&self.token, self.peer)).unwrap_or_default()
    }

    async fn subscribe(&self, request: Subscribe) {
        let Subscribe { session, id, source, pipeline, settings, detections, after } = request;
        let id = id.as_ref();
        let making = source.zip(pipeline);
        if making.is_some() && !(self.caller.may(Right::Operate) && self.caller.sees(&session)) {
            self.state.gate.audit.denied(&self.caller, self.peer, MAKE, &session);
            let message = "the token does not allow to make this session";
            return self.error("forbidden", message, Some(&session), id);
        }
        if !self.caller.sees(&session) {
            return self.unknown(&session, id);
        }
        if self.subscriber.subscriptions() >= SUBSCRIPTIONS
            && !self.subscriber.is_subscribed(&session)
        {
            let message = format!("a client may listen to {SUBSCRIPTIONS} sessions");
            return self.error("too_many_subscriptions", &message, Some(&session), id);
        }
        if making.is_none() && !self.state.knows(&session) {
            return self.unknown(&session, id);
        }
        let after = match after {
            Some(After::One(after)) => Some(after),
            Some(After::Each(_)) | None => None,
        };
        if let Err(refused) = resume::check(&self.state.hub, &session, after.unwrap_or(0)).await {
            return self.refuse(&refused, &session, id);
        }
        let wants = SubscribeOptions { detections, after };
        let Some((source, pipeline)) = making else {
            return self.subscriber.subscribe(&session, wants);
        };
        let hold = self.state.hub.hold(&session);
        let deed = self.state.gate.audit.begin(&self.caller, self.peer, MAKE, &session);
        let (control, name) = (self.state.control.clone(), session.clone());
        // In a task of its own: it goes on when the client goes away, and the session then ends
        // like any other without subscribers.
        let made = tokio::spawn(async move {
            let made =
                control.ensure(&name, &source, &pipeline, settings.unwrap_or_default()).await;
            deed.finish(made.as_ref().map_or_else(|refusal| refusal.code, |()| "made"));
            made.map(|()| hold)
        });
        let refused = match made.await {
            Ok(Ok(hold)) => {
                self.subscriber.subscribe(&session, wants);
                drop(hold);
                return;
            }
            Ok(Err(refusal)) => refusal,
            Err(error) => Refusal { code: "internal", message: error.to_string() },
        };
        self.subscriber.send(&ServerMessage::Error {
            code: "session_refused",
            message: &without_folders(&refused.message),
            session: Some(&session),
            id,
            cause: Some(refused.code),
            after: None,
            oldest: None,
            newest: None,
        });
    }

    async fn subscribe_all(&self, request: Subscribe) {
        if !self.caller.sees_all() {
            let message = "the token is for some sessions, not for all";
            return self.error("forbidden", message, Some(EVERY_SESSION), request.id.as_ref());
        }
        let after = match request.after {
            Some(After::Each(each)) => each,
            Some(After::One(_)) | None => Default::default(),
        };
        match resume::check_each(&self.state.hub, &after).await {
            Ok(()) => self.subscriber.subscribe_all(request.detections, after),
            Err(refused) => self.refuse(&refused, EVERY_SESSION, request.id.as_ref()),
        }
    }

    fn pong(&self, id: Option<&Value>) {
        self.subscriber.send(&ServerMessage::Pong { id });
    }

    fn unknown(&self, session: &str, id: Option<&Value>) {
        let unknown = Refusal::unknown(session);
        self.error(unknown.code, &unknown.message, Some(session), id);
    }

    fn refuse(&self, refused: &ResumeError, session: &str, id: Option<&Value>) {
        let message = refused.to_string();
        let error = match refused {
            ResumeError::Ahead { session, after, span } => ServerMessage::Error {
                code: "after_ahead",
                message: &message,
                session: Some(session),
                id,
                cause: None,
                after: Some(*after),
                oldest: Some(span.oldest),
                newest: Some(span.newest),
            },
            ResumeError::Unreadable(_) => {
                return self.error("internal", &message, Some(session), id);
            }
        };
        self.subscriber.send(&error);
    }

    fn error(&self, code: &str, message: &str, session: Option<&str>, id: Option<&Value>) {
        self.subscriber.send(&ServerMessage::refusal(code, message, session, id));
    }

    /// Sends the reason, closes the socket, and reads on until the client has closed it too: unread
    /// data would make the system discard the last messages.
    async fn farewell(&self, sender: &mut Sender, receiver: &mut Receiver, end: &SocketEnd) {
        const POLICY: u16 = 1008;
        let too_large = format!("a message has at most {MAX_MESSAGE} bytes");
        let (status, code, message) = match end {
            SocketEnd::Closed(status) => (status.unwrap_or(1000), "", ""),
            SocketEnd::Slow(message) => (POLICY, "slow_subscriber", message.as_str()),
            SocketEnd::Flood => (POLICY, "rate_limited", "far too many messages"),
            SocketEnd::Host(code, message) if *code == "shutting_down" => (1001, *code, *message),
            SocketEnd::Host(code, message) => (POLICY, *code, *message),
            SocketEnd::Read(ReadEnd::Gone) => (1000, "", ""),
            SocketEnd::Read(ReadEnd::Silent) => (POLICY, "silent", "no ping was answered"),
            SocketEnd::Read(ReadEnd::Unfinished) => {
                (POLICY, "message_timeout", "a message took too long to arrive")
            }
            SocketEnd::Read(ReadEnd::Fault(fault)) => match fault {
                FrameFault::TooLarge => (1009, "too_large", too_large.as_str()),
                FrameFault::NotText(message) => (1007, "protocol_error", *message),
                FrameFault::Protocol(message) => (1002, "protocol_error", message.as_str()),
            },
        };
        let patience = self.state.timing.farewell;
        if !code.is_empty() {
            // Messages still in the queue. A client that was too slow has none.
            while let Some(Ok(message)) = self.subscriber.try_next() {
                sender.text(&message.text, &self.state.squeezed);
                if sender.is_full() && sender.flush(patience).await.is_err() {
                    return;
                }
            }
            let last = ServerMessage::error(code, message, None).encode();
            sender.text(&last.text, &self.state.squeezed);
        }
        sender.close(status, code);
        if sender.flush(patience).await.is_err() {
            return;
        }
        // The host is the first to close once both have said that they do (RFC 6455, 7.1.1).
        match end {
            SocketEnd::Closed(_) | SocketEnd::Read(ReadEnd::Gone) => sender.shutdown().await,
            SocketEnd::Read(ReadEnd::Fault(_)) => {
                sender.shutdown().await;
                receiver.drain().await;
            }
            _ => {
                let forever = self.state.timing.silence;
                while !matches!(
                    receiver.next(forever, forever).await,
                    Ok(Incoming::Close(_)) | Err(_)
                ) {}
                sender.shutdown().await;
            }
        }
    }
}

/// Reads what a client sends, in pieces of `piece` bytes. Returns how many of its messages are
/// requests.
#[doc(hidden)]
pub fn read_client_frames(bytes: &[u8], piece: usize, deflate: bool) -> usize {
    let texts = websocket::read_texts(bytes, piece, MAX_READ, deflate);
    texts.iter().filter(|text| ClientMessage::parse(text).is_ok()).count()
}
