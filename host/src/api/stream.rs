//! A session's messages as server-sent events, for browsers and curl: a subscriber whose messages
//! are the body of an endless answer.

pub(super) mod all;

use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::access::Caller;
use super::control::{Control, Refusal};
use super::extract::{InPath, InQuery};
use super::problem::Problem;
use super::resume;
use super::state::ApiState;
use crate::event::{EncodedMessage, ServerMessage, SlowSubscriber, SubscribeOptions, Subscriber};

/// Bytes after which a chunk is sent.
const CHUNK: usize = 64 << 10;

/// The query of `GET /v1/sessions/{id}/stream`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamParameters {
    after: Option<u64>,
    #[serde(default = "yes")]
    detections: bool,
}

fn yes() -> bool {
    true
}

/// `GET /v1/sessions/{id}/stream`.
pub(super) async fn open<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(session): InPath,
    InQuery(parameters): InQuery<StreamParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !caller.sees(&session) || !state.knows(&session) {
        return Err(Refusal::unknown(&session).into());
    }
    // A browser that reconnects sends this header and the first query again.
    let after = last_event_id(&headers)?.or(parameters.after);
    resume::check(&state.hub, &session, after.unwrap_or(0)).await?;
    let place = state.reserve_socket()?;
    let subscriber = state.hub.subscriber();
    subscriber.subscribe(&session, SubscribeOptions { detections: parameters.detections, after });
    // One chunk waits while one is written; for a slow client the rest stays in the subscriber's
    // queue.
    let (sender, receiver) = mpsc::channel(1);
    state.tasks.clone().spawn(async move {
        feed(&state, &caller, &subscriber, &sender).await;
        drop(place);
    });
    Ok(respond(receiver))
}

/// The number of the last event that the client has.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let last = headers.get("last-event-id").filter(|last| !last.is_empty());
    let number = |last: &HeaderValue| last.to_str().ok()?.parse().ok();
    last.map(|last| {
        let detail = "Last-Event-ID is not the number of an event";
        number(last).ok_or_else(|| Problem::bad("bad_last_event_id", detail))
    })
    .transpose()
}

/// The answer whose body is what comes.
fn respond(receiver: mpsc::Receiver<Bytes>) -> Response {
    let body = stream::unfold(receiver, async |mut receiver| {
        let chunk = receiver.recv().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(chunk), receiver))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // nginx would buffer the answer otherwise.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(body)).into_response()
}

/// Writes until the client has gone, reads too slowly, or the host ends it; then writes the reason.
async fn feed<C: Control>(
    state: &ApiState<C>,
    caller: &Caller,
    subscriber: &Subscriber,
    chunks: &mpsc::Sender<Bytes>,
) {
    let timing = state.timing;
    let (code, message) = loop {
        let next = tokio::select! {
            biased;
            (code, message) = state.ended(caller) => break (code, message.to_owned()),
            () = chunks.closed() => return,
            next = timeout(timing.ping, subscriber.next()) => next,
        };
        let mut text = String::new();
        // On silence a comment, so that neither side nor a proxy takes the connection for dead.
        let next = next.inspect_err(|_| text.push_str(":\n\n")).ok();
        let slow = put_waiting(&mut text, subscriber, next);
        if !text.is_empty() {
            match timeout(timing.send, chunks.send(text.into())).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => break ("slow_subscriber", state.note_untaken()),
            }
        }
        if let Some(message) = slow {
            break ("slow_subscriber", message);
        }
    };
    say_farewell(state, code, &message, chunks).await;
}

/// Writes why there will be no more. The client may not read it.
async fn say_farewell<C: Control>(
    state: &ApiState<C>,
    code: &'static str,
    message: &str,
    chunks: &mpsc::Sender<Bytes>,
) {
    let mut text = String::new();
    put(&mut text, &ServerMessage::error(code, message, None).encode());
    let _ = timeout(state.timing.farewell, chunks.send(text.into())).await;
}

/// Writes a message of the hub and those that wait behind it, up to a chunk. Why there will be
/// none, if so.
fn put_waiting(
    text: &mut String,
    subscriber: &Subscriber,
    mut next: Option<Result<EncodedMessage, SlowSubscriber>>,
) -> Option<String> {
    while let Some(message) = next {
        match message {
            Ok(message) => put(text, &message),
            Err(error) => return Some(error.to_string()),
        }
        next = if text.len() < CHUNK { subscriber.try_next() } else { None };
    }
    None
}

/// Writes one message. It has no line break: JSON on one line.
fn put(out: &mut String, message: &EncodedMessage) {
    // Writing to memory does not fail.
    let _ = writeln!(out, "event: {}", message.kind);
    if let Some(seq) = message.seq {
        let _ = writeln!(out, "id: {seq}");
    }
    let _ = write!(out, "data: {}\n\n", message.text);
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_alone_have_an_id_to_come_back_with() {
        let mut text = String::new();
        put(&mut text, &EncodedMessage { kind: "detections", seq: None, text: "{1}".into() });
        put(&mut text, &EncodedMessage { kind: "event", seq: Some(7), text: "{2}".into() });
        assert_eq!(text, "event: detections\ndata: {1}\n\nevent: event\nid: 7\ndata: {2}\n\n");
    }
}
