//! `GET /v1/stream`: the messages of all sessions that the caller sees, or of some, on one stream.
//!
//! Events come from the journal, in the order in which it kept them, and the `id` of each is its
//! number among the events of all sessions. So one number says all that a client has, whatever
//! sessions come and go, and no memory of the host is needed for a client that is slow or away. The
//! rest, which nothing keeps, comes from the hub.

use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::{last_event_id, put, put_waiting, respond, say_farewell};
use crate::api::access::Caller;
use crate::api::control::Control;
use crate::api::filter::QueryPairs;
use crate::api::problem::Problem;
use crate::api::resume::ResumeError;
use crate::api::state::ApiState;
use crate::event::{EncodedMessage, ServerMessage, Subscriber, encode_event};
use crate::journal::events::{EventFilter, EventJournal, NumberedPage};

/// Events that are read at once.
const PAGE: usize = 256;

/// Where a stream is in the events of all sessions.
struct Position {
    events: EventJournal,
    /// Changes when there are more.
    changed: watch::Receiver<u64>,
    filter: EventFilter,
    /// The last number that the client has, or does not ask for.
    number: u64,
    /// Whether `number` was sent.
    number_sent: bool,
    /// Whether there may be more events than were read.
    behind: bool,
    /// Whether events that are deleted since were reported.
    gap_reported: bool,
}

/// `GET /v1/stream`.
pub(in crate::api) async fn open<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    mut pairs: QueryPairs,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = pairs.filter(&caller)?;
    let after = pairs.parsed("after", "the `id` of an event of this stream")?;
    let detections = pairs.parsed("detections", "true or false")?;
    pairs.end()?;
    if detections == Some(true) && filter.chooses() {
        let detail = "kind, label and zone choose events: with them no detections come";
        return Err(Problem::bad("bad_query", detail));
    }
    let after = last_event_id(&headers)?.or(after);
    let events = state.hub.events().clone();
    // Before it is asked for the last number: what comes then is not missed.
    let changed = events.changed();
    let page = events.kept_after(u64::MAX, 0).await.map_err(ResumeError::Unreadable)?;
    if let Some(after) = after.filter(|after| *after > page.last) {
        let detail = format!("the newest event is {}, and none was {after}", page.last);
        return Err(Problem::ahead(detail, after, page.last));
    }
    let place = state.reserve_socket()?;
    let subscriber = state.hub.subscriber();
    let detections = detections.unwrap_or(!filter.chooses());
    subscriber.follow_all(detections, filter.sessions.clone());
    let position = Position {
        events,
        changed,
        filter,
        number: after.unwrap_or(page.last),
        number_sent: false,
        behind: true,
        gap_reported: after.is_none(),
    };
    // One chunk waits while one is written; for a slow client the rest stays where it is.
    let (sender, receiver) = mpsc::channel(1);
    state.tasks.clone().spawn(async move {
        feed(&state, &caller, &subscriber, position, &sender).await;
        drop(place);
    });
    Ok(respond(receiver))
}

/// Writes until the client has gone, reads too slowly, or the host ends it; then writes the reason.
async fn feed<C: Control>(
    state: &ApiState<C>,
    caller: &Caller,
    subscriber: &Subscriber,
    mut position: Position,
    chunks: &mpsc::Sender<Bytes>,
) {
    let timing = state.timing;
    let mut text = String::new();
    // Where it begins, for a client that is gone before the first event.
    position.put_number(&mut text);
    let mut quiet = Instant::now() + timing.ping;
    let (code, message) = loop {
        let next = tokio::select! {
            biased;
            (code, message) = state.ended(caller) => break (code, message.to_owned()),
            () = chunks.closed() => return,
            next = subscriber.next() => Some(next),
            () = position.wait() => None,
            // On silence a comment, or how far the events are, so that neither side nor a proxy
            // takes the connection for dead.
            () = sleep_until(quiet) => {
                position.put_number(&mut text);
                text.push_str(if text.is_empty() { ":\n\n" } else { "" });
                None
            }
        };
        let slow = put_waiting(&mut text, subscriber, next);
        // Each time, however much else there is.
        if position.has_more() {
            let read = tokio::select! {
                biased;
                (code, message) = state.ended(caller) => break (code, message.to_owned()),
                read = position.read() => read,
            };
            match read {
                Ok(page) => position.put(&mut text, page),
                Err(error) => break ("internal", error.to_string()),
            }
        }
        if !text.is_empty() {
            let text = std::mem::take(&mut text);
            match timeout(timing.send, chunks.send(text.into())).await {
                Ok(Ok(())) => quiet = Instant::now() + timing.ping,
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

impl Position {
    /// Waits until there may be more events.
    async fn wait(&mut self) {
        if !self.behind && self.changed.changed().await.is_err() {
            // The journal has ended with the host, which says so.
            std::future::pending::<()>().await;
        }
        self.behind = true;
    }

    fn has_more(&self) -> bool {
        self.behind || self.changed.has_changed().unwrap_or(false)
    }

    /// The next events.
    async fn read(&mut self) -> Result<NumberedPage, ResumeError> {
        self.changed.mark_unchanged();
        Ok(self.events.kept_after(self.number, PAGE).await?)
    }

    /// Writes the events that are asked for.
    fn put(&mut self, text: &mut String, page: NumberedPage) {
        if !std::mem::replace(&mut self.gap_reported, true) && self.number < page.deleted {
            let message = "events after the last that you have are kept no more, perhaps none \
                that you ask for: it goes on with those that are";
            put(text, &ServerMessage::error("events_gone", message, None).encode());
        }
        for kept in page.events {
            self.number = kept.number;
            let event = kept.event;
            self.number_sent = self.filter.passes(&kept.session, &event.kind, &event.body);
            if self.number_sent {
                let message = encode_event(&kept.session, event.seq, &event.body);
                put(text, &EncodedMessage { seq: Some(kept.number), ..message });
            }
        }
        self.behind = page.more;
    }

    /// Sends how far the events were read, if that was not sent: what was left out since the last
    /// one need not be looked at again.
    fn put_number(&mut self, text: &mut String) {
        if !std::mem::replace(&mut self.number_sent, true) {
            // Writing to memory does not fail.
            let _ = write!(text, "id: {}\n\n", self.number);
        }
    }
}
