//! One WebSocket: what a client asks, and everything that the hub has for it.
//!
//! Three things run side by side: reading, so that a ping is answered while a session is being made; the requests, one
//! after the other; and writing, which alone takes from the subscriber's queue. Whatever ends first ends the socket and
//! with it all its subscriptions. Before it closes the client is told why.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Extract;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::message::{ClientMessage, MAX_MESSAGE, Subscribe};
use super::problem::Problem;
use super::{Control, Refusal, State, Timing};
use crate::event::{ServerMessage, Subscriber, Wants};

/// A message up to this size is answered with an error; beyond it, the connection is closed before it is read.
const MAX_READ: usize = 2 * MAX_MESSAGE;

/// Requests of one client that wait while one is being done.
const REQUESTS: usize = 32;

/// Commands of one client that wait for their pipelines.
const COMMANDS: usize = 16;

/// Sessions that one client may listen to: as many as a host can have.
const SUBSCRIPTIONS: usize = 1000;

/// Why a socket ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The client closed it, or is gone.
    Client,
    /// The client takes no messages.
    Slow(String),
    /// Nothing came from the client, not even an answer to a ping.
    Silent,
    /// The client breaks the protocol, or sent more than is read.
    Broken { code: &'static str, message: String },
    /// The host stops.
    Stopping,
}

/// `GET /v1/ws`.
pub(super) async fn open<C: Control>(
    Extract(state): Extract<Arc<State<C>>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade
        .map_err(|rejection| Problem::new(rejection.status(), "not_a_websocket", rejection.body_text()))?;
    let unavailable = |code, detail| Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, code, detail);
    if state.stop.is_cancelled() {
        return Err(unavailable("shutting_down", "the host is stopping"));
    }
    let place = Arc::clone(&state.sockets).try_acquire_owned().map_err(|_| {
        unavailable("too_many_subscribers", "as many WebSockets are open as this host serves")
    })?;
    // Counted from here on, so that the host does not stop between the upgrade and the first message.
    let token = state.tasks.token();
    let response =
        upgrade.max_message_size(MAX_READ).max_frame_size(MAX_READ).on_upgrade(async move |socket| {
            serve(socket, state).await;
            drop((place, token));
        });
    Ok(response.into_response())
}

async fn serve<C: Control>(socket: WebSocket, state: Arc<State<C>>) {
    let (mut sink, mut stream) = socket.split();
    let subscriber = Arc::new(state.hub.subscriber());
    let (requests, inbox) = mpsc::channel(REQUESTS);
    let end = tokio::select! {
        // In this order: when several are over at once, the host's own reason is the one to tell.
        biased;
        () = state.stop.cancelled() => End::Stopping,
        end = write(&mut sink, &subscriber, state.timing) => end,
        end = read(&mut stream, &subscriber, requests, state.timing.silence) => end,
        () = answer(inbox, &subscriber, &state) => End::Client,
    };
    tracing::debug!(?end, "WebSocket ends");
    let farewell = farewell(&mut sink, &mut stream, &subscriber, &end);
    // Whoever does not listen to the farewell is not waited for.
    let _ = timeout(state.timing.farewell, farewell).await;
}

/// Sends what waits for the subscriber, and pings.
async fn write(sink: &mut SplitSink<WebSocket, Message>, subscriber: &Subscriber, timing: Timing) -> End {
    let mut pings = interval(timing.ping);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is now.
    pings.tick().await;
    loop {
        let message = tokio::select! {
            next = subscriber.next() => match next {
                Ok(told) => text_message(&told.text),
                Err(slow) => return End::Slow(slow.to_string()),
            },
            _ = pings.tick() => Message::Ping(Default::default()),
        };
        match timeout(timing.send, sink.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Client,
            Err(_) => return End::Slow(format!("no message was taken for {} s", timing.send.as_secs_f32())),
        }
    }
}

/// Takes requests in. A ping is answered here; everything else waits its turn.
async fn read(
    stream: &mut SplitStream<WebSocket>,
    subscriber: &Subscriber,
    requests: mpsc::Sender<ClientMessage>,
    silence: Duration,
) -> End {
    loop {
        let message = match timeout(silence, stream.next()).await {
            Err(_) => return End::Silent,
            Ok(None | Some(Ok(Message::Close(_)))) => return End::Client,
            Ok(Some(Err(error))) => return broken(&error),
            Ok(Some(Ok(message))) => message,
        };
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => {
                error(subscriber, "unsupported_binary", "messages are text, one JSON object each", None);
                continue;
            }
            _ => continue,
        };
        match ClientMessage::parse(&text) {
            Err(malformed) => {
                error(subscriber, malformed.code, &malformed.message, malformed.session.as_deref());
            }
            Ok(ClientMessage::Ping) => subscriber.send(&ServerMessage::Pong),
            Ok(request) => {
                if let Err(full) = requests.try_send(request) {
                    let message = format!("more than {REQUESTS} requests wait; this one is not done");
                    error(subscriber, "too_many_requests", &message, full.into_inner().session());
                }
            }
        }
    }
}

/// The transport's own words are all that tells a message beyond the bound from a broken frame.
fn broken(error: &axum::Error) -> End {
    let message = error.to_string();
    if message.starts_with("Space limit exceeded") {
        End::Broken { code: "too_large", message: format!("a message has at most {MAX_MESSAGE} bytes") }
    } else {
        End::Broken { code: "protocol_error", message }
    }
}

/// Does what the client asks, in order. Commands alone are waited for beside: a pipeline may take its time.
async fn answer<C: Control>(
    mut inbox: mpsc::Receiver<ClientMessage>,
    subscriber: &Arc<Subscriber>,
    state: &Arc<State<C>>,
) {
    let mut commands = JoinSet::new();
    while let Some(request) = inbox.recv().await {
        match request {
            ClientMessage::Subscribe(request) => subscribe(request, subscriber, state).await,
            ClientMessage::Unsubscribe { session } => subscriber.unsubscribe(&session),
            ClientMessage::Command { session, id, command } => {
                while commands.try_join_next().is_some() {}
                if commands.len() < COMMANDS {
                    let (subscriber, control) = (Arc::clone(subscriber), state.control.clone());
                    commands.spawn(async move { ask(&control, &subscriber, &session, id, command).await });
                } else {
                    let message = format!("{COMMANDS} commands wait for their answers; this one is not done");
                    error(subscriber, "too_many_requests", &message, Some(&session));
                }
            }
            ClientMessage::Ping => subscriber.send(&ServerMessage::Pong),
        }
    }
}

async fn subscribe<C: Control>(request: Subscribe, subscriber: &Subscriber, state: &Arc<State<C>>) {
    let Subscribe { session, source, pipeline, settings, detections, after } = request;
    let wants = Wants { detections, after: None };
    if after.is_some() {
        let message = "\"after\" is not available in this version: it keeps no journal of events";
        return error(subscriber, "not_available", message, Some(&session));
    }
    if subscriber.subscriptions() >= SUBSCRIPTIONS && !subscriber.is_subscribed(&session) {
        let message = format!("a client may listen to {SUBSCRIPTIONS} sessions");
        return error(subscriber, "too_many_subscriptions", &message, Some(&session));
    }
    let (Some(source), Some(pipeline)) = (source, pipeline) else {
        return match state.control.session(&session) {
            Some(_) => subscriber.subscribe(&session, wants),
            None => {
                let unknown = Refusal::unknown(&session);
                error(subscriber, unknown.code, &unknown.message, Some(&session));
            }
        };
    };
    let hold = state.hub.hold(&session);
    let (control, id) = (state.control.clone(), session.clone());
    // A task of its own: it goes on to its end when the client goes away, and the session then ends as any other
    // that nobody listens to.
    let made = tokio::spawn(async move {
        let made = control.ensure(&id, &source, &pipeline, settings.unwrap_or_default()).await;
        made.map(|()| hold)
    });
    let refused = match made.await {
        Ok(Ok(hold)) => {
            subscriber.subscribe(&session, wants);
            drop(hold);
            return;
        }
        Ok(Err(refusal)) => refusal,
        Err(error) => Refusal { code: "internal", message: error.to_string() },
    };
    subscriber.send(&ServerMessage::Error {
        code: "session_refused",
        message: &refused.message,
        session: Some(&session),
        cause: Some(refused.code),
        after: None,
        oldest: None,
        newest: None,
    });
}

async fn ask<C: Control>(
    control: &C,
    subscriber: &Subscriber,
    session: &str,
    id: Option<Value>,
    command: Value,
) {
    match control.command(session, command).await {
        Ok(answer) => subscriber.send(&ServerMessage::Answer { session, id: id.as_ref(), answer: &answer }),
        Err(refusal) => error(subscriber, refusal.code, &refusal.message, Some(session)),
    }
}

fn error(subscriber: &Subscriber, code: &str, message: &str, session: Option<&str>) {
    subscriber.send(&ServerMessage::error(code, message, session));
}

fn text_message(text: &str) -> Message {
    Message::Text(Utf8Bytes::from(text))
}

/// Says why the socket ends, closes it, and reads on until the client has closed it too: what it had sent would
/// otherwise make the system throw our last words away.
async fn farewell(
    sink: &mut SplitSink<WebSocket, Message>,
    stream: &mut SplitStream<WebSocket>,
    subscriber: &Subscriber,
    end: &End,
) -> Result<(), axum::Error> {
    let (close, code, message) = match end {
        End::Client => (close_code::NORMAL, None, ""),
        End::Slow(message) => (close_code::POLICY, Some("slow_subscriber"), message.as_str()),
        End::Silent => (close_code::POLICY, Some("silent"), "no ping was answered"),
        End::Broken { code, message } if *code == "too_large" => {
            (close_code::SIZE, Some(*code), message.as_str())
        }
        End::Broken { code, message } => (close_code::PROTOCOL, Some(*code), message.as_str()),
        End::Stopping => (close_code::AWAY, Some("shutting_down"), "the host is stopping"),
    };
    if let Some(code) = code {
        // What is still to be read would be lost otherwise; there is nothing of it where the client was too slow.
        while let Some(Ok(told)) = subscriber.try_next() {
            sink.feed(text_message(&told.text)).await?;
        }
        let last = ServerMessage::error(code, message, None).to_told();
        sink.send(text_message(&last.text)).await?;
        sink.send(Message::Close(Some(CloseFrame { code: close, reason: Utf8Bytes::from(code) }))).await?;
    } else {
        sink.flush().await?;
    }
    while let Some(Ok(_)) = stream.next().await {}
    Ok(())
}

impl ClientMessage {
    fn session(&self) -> Option<&str> {
        match self {
            Self::Subscribe(request) => Some(&request.session),
            Self::Unsubscribe { session } | Self::Command { session, .. } => Some(session),
            Self::Ping => None,
        }
    }
}
