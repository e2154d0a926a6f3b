//! `GET /v1/events`, `GET /v1/sessions/{id}/events` and `GET /v1/attachments/{digest}`: the journal
//! over HTTP.

use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use ocelli_protocol::digest::NotADigest;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::access::Caller;
use super::control::{Control, Refusal};
use super::extract::{InPath, InQuery};
use super::filter::{self, QueryPairs};
use super::problem::Problem;
use super::resume::{self, ResumeError};
use super::state::ApiState;
use crate::event::{JournalledEvent, encode_event};
use crate::journal::events::{EventPlace, EventQuery as Wanted, EventSearch, JournalPage};

/// Events of a page unless the client sets `limit`.
const LISTED: usize = 100;

/// Most events of a page.
const MAX_LISTED: usize = 1000;

/// A picture never changes: its name is its digest. `private`, since a shared cache would show it
/// to clients that may not see the session.
const IMMUTABLE: &str = "private, max-age=31536000, immutable";

/// How a picture begins: the site keeps other objects, too.
const JPEG: &[u8] = &[0xff, 0xd8];

/// The query of `GET /v1/sessions/{id}/events`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventParameters {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
    kind: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

/// `GET /v1/sessions/{id}/events`.
pub(super) async fn list<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    InPath(session): InPath,
    InQuery(parameters): InQuery<EventParameters>,
) -> Result<Response, Problem> {
    let wanted = wanted(parameters).map_err(|text| Problem::bad("bad_query", text))?;
    let after = wanted.after;
    let page = state.hub.events().page(&session, wanted).await.map_err(ResumeError::Unreadable)?;
    if page.span.newest == 0 && !state.knows(&session) {
        return Err(Refusal::unknown(&session).into());
    }
    resume::compare(&session, after, page.span)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text(&session, after, &page)).into_response())
}

fn wanted(parameters: EventParameters) -> Result<Wanted, String> {
    let EventParameters { after, limit, kind, from, to } = parameters;
    let limit = limit.unwrap_or(LISTED);
    if !(1..=MAX_LISTED).contains(&limit) {
        return Err(format!("limit is 1 to {MAX_LISTED}"));
    }
    if kind.as_deref() == Some("") {
        return Err("kind is empty: no event has such a kind".to_owned());
    }
    let time = |key, text: Option<String>| {
        text.map(|text| filter::time(key, &text)).transpose().map_err(|error| error.to_string())
    };
    Ok(Wanted { after, limit, kind, from_ms: time("from", from)?, to_ms: time("to", to)? })
}

/// `GET /v1/events`.
pub(super) async fn search<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    mut pairs: QueryPairs,
) -> Result<Response, Problem> {
    let search = wanted_of_all(&mut pairs, &caller)?;
    pairs.end()?;
    let newest_first = search.newest_first;
    let found = state.hub.events().search(search).await.map_err(ResumeError::Unreadable)?;
    let next = found.next.map(|place| cursor(newest_first, place));
    let mut text = String::from("{\"events\":[");
    for (index, (session, event)) in found.events.iter().enumerate() {
        text.push_str(if index > 0 { "," } else { "" });
        text.push_str(&encode_event(session, event.seq, &event.body).text);
    }
    // Writing to a string does not fail.
    let _ = write!(text, "],\"next\":{}}}", Value::from(next));
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

fn wanted_of_all(pairs: &mut QueryPairs, caller: &Caller) -> Result<EventSearch, Problem> {
    let bad = |detail: String| Problem::bad("bad_query", detail);
    let newest_first = match pairs.one("order")?.as_deref() {
        None | Some("newest") => true,
        Some("oldest") => false,
        Some(_) => return Err(bad("order is newest or oldest".to_owned())),
    };
    let limit = pairs.parsed("limit", "a number")?.unwrap_or(LISTED);
    if !(1..=MAX_LISTED).contains(&limit) {
        return Err(bad(format!("limit is 1 to {MAX_LISTED}")));
    }
    let (from_ms, to_ms) = (pairs.time("from")?, pairs.time("to")?);
    let start = pairs.one("cursor")?.map(|text| place(newest_first, &text)).transpose();
    let start = start.map_err(|()| {
        let detail = "cursor is `next` of an answer with the same order";
        Problem::bad("bad_cursor", detail)
    })?;
    let filter = pairs.filter(caller)?;
    Ok(EventSearch { filter, from_ms, to_ms, newest_first, limit, start })
}

/// A place as clients have it.
fn cursor(newest_first: bool, place: EventPlace) -> String {
    let EventPlace { time, stream, seq } = place;
    let order = if newest_first { 'n' } else { 'o' };
    URL_SAFE_NO_PAD.encode(format!("{order}{time}/{stream}/{seq}"))
}

fn place(newest_first: bool, cursor: &str) -> Result<EventPlace, ()> {
    let text = URL_SAFE_NO_PAD.decode(cursor).map_err(drop)?;
    let text = std::str::from_utf8(&text).map_err(drop)?;
    let numbers = text.strip_prefix(if newest_first { 'n' } else { 'o' }).ok_or(())?;
    let mut numbers = numbers.split('/').map(|number| number.parse().map_err(drop));
    let mut next = || numbers.next().unwrap_or(Err(()));
    let place = EventPlace { time: next()?, stream: next()?, seq: next()? };
    if numbers.next().is_none() { Ok(place) } else { Err(()) }
}

/// A page of the events of several sessions.
// For the document only: `search` writes it.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "the events come as text from the journal")]
pub(super) struct FoundPage {
    events: Vec<JournalledEvent>,
    /// `cursor` of the next page; null after the last page.
    next: Option<String>,
}

/// A page of a session's events.
// For the document only: `text` writes it.
#[derive(JsonSchema)]
#[schemars(rename = "EventPage")]
#[expect(dead_code, reason = "the events come as text from the journal")]
pub(super) struct EventPage {
    session: String,
    events: Vec<JournalledEvent>,
    /// The first number in the journal; `newest` + 1 if it has no event.
    oldest: u64,
    /// The last number that an event got; 0 before the first event.
    newest: u64,
    /// `after` of the next page; null after the last page.
    next: Option<u64>,
    /// Requested numbers that are no longer in the journal.
    #[schemars(skip_serializing_if = "Option::is_none")]
    gone: Option<Gone>,
}

#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(dead_code, reason = "as above")]
struct Gone {
    #[schemars(range(min = 1))]
    from: u64,
    #[schemars(range(min = 1))]
    to: u64,
}

/// Writes the answer. Its events are the same JSON as subscribers get.
fn text(session: &str, after: u64, page: &JournalPage) -> String {
    let JournalPage { events, span, next } = page;
    let mut text = format!("{{\"session\":{},\"events\":[", Value::from(session));
    for (index, event) in events.iter().enumerate() {
        text.push_str(if index > 0 { "," } else { "" });
        text.push_str(&encode_event(session, event.seq, &event.body).text);
    }
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "],\"oldest\":{},\"newest\":{},\"next\":{}",
        span.oldest,
        span.newest,
        Value::from(*next)
    );
    if after + 1 < span.oldest {
        let _ = write!(text, ",\"gone\":{{\"from\":{},\"to\":{}}}", after + 1, span.oldest - 1);
    }
    text.push('}');
    text
}

/// `GET /v1/attachments/{digest}`. It does not exist for a caller that sees no session with it.
pub(super) async fn attachment<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    request: Request,
) -> Result<Response, Problem> {
    let digest = name.parse().map_err(|_: NotADigest| {
        Problem::bad("bad_digest", "an attachment's name is 64 hexadecimal digits, small letters")
    })?;
    let found = state.hub.events().attachment(digest).await.map_err(ResumeError::Unreadable)?;
    let found = found.filter(|(_, sessions)| sessions.iter().any(|session| caller.sees(session)));
    let bytes = match (found, &state.site) {
        (Some((bytes, _)), _) => bytes,
        (None, None) => return Err(unknown(&name)),
        // It is of an event of another host, or of one that is gone.
        (None, Some(link)) => {
            let kept = if caller.sees_all() { link.site().object(digest).await } else { None };
            match kept.filter(|bytes| bytes.starts_with(JPEG)) {
                Some(bytes) => bytes,
                None => {
                    let parts = request.into_parts().0;
                    return link.ask_everyone(&parts).await.ok_or_else(|| unknown(&name));
                }
            }
        }
    };
    let headers = [
        (header::CONTENT_TYPE, "image/jpeg"),
        (header::CACHE_CONTROL, IMMUTABLE),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, bytes).into_response())
}

fn unknown(name: &str) -> Problem {
    let detail = format!("there is no attachment {name}, or no longer");
    Problem::new(StatusCode::NOT_FOUND, "unknown_attachment", detail)
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;
    use serde_json::json;

    use super::*;
    use crate::journal::events::{SequenceRange, StoredEvent};

    fn parameters(query: &str) -> Result<Wanted, String> {
        let uri = format!("/?{query}").parse().unwrap();
        let Query(parameters) =
            Query::<EventParameters>::try_from_uri(&uri).map_err(|error| error.body_text())?;
        wanted(parameters)
    }

    #[test]
    fn a_query_says_which_events_and_one_that_is_wrong_names_the_key() {
        assert_eq!(parameters("").unwrap(), Wanted { limit: LISTED, ..Wanted::default() });
        let all = "after=7&limit=1000&kind=seen&from=1970-01-01T00:00:01Z&to=1970-01-01T01:00:00.5%2B01:00";
        let wanted = Wanted {
            after: 7,
            limit: 1000,
            kind: Some("seen".into()),
            from_ms: Some(1000),
            to_ms: Some(500),
        };
        assert_eq!(parameters(all).unwrap(), wanted);
        for (wrong, key) in [
            ("after=-1", "after"),
            ("after=x", "after"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("kind=", "kind"),
            ("from=yesterday", "from"),
            ("to=2026-01-01", "to"),
            ("before=1", "before"),
        ] {
            let error = parameters(wrong).unwrap_err();
            assert!(error.contains(key), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_cursor_is_for_one_order_and_no_other_text_is_one() {
        let at = EventPlace { time: -5, stream: 3, seq: i64::MAX };
        for newest_first in [true, false] {
            let text = cursor(newest_first, at);
            assert_eq!(place(newest_first, &text), Ok(at));
            assert_eq!(place(!newest_first, &text), Err(()));
        }
        let made = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for wrong in ["", "%", &made("n1/2"), &made("n1/2/3/4"), &made("n1/2/x"), &made("1/2/3")] {
            assert_eq!(place(true, wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn a_page_is_json_and_says_what_is_kept_no_longer() {
        let entry = |seq| StoredEvent { seq, kind: "k".into(), body: "{\"kind\":\"k\"}".into() };
        let page = JournalPage {
            events: vec![entry(5), entry(6)],
            span: SequenceRange { oldest: 5, newest: 9 },
            next: Some(6),
        };
        let answer: Value = serde_json::from_str(&text("a \"b\"", 2, &page)).unwrap();
        let event = |seq| json!({"type": "event", "session": "a \"b\"", "seq": seq, "kind": "k"});
        assert_eq!(
            answer,
            json!({
                "session": "a \"b\"", "events": [event(5), event(6)],
                "oldest": 5, "newest": 9, "next": 6, "gone": {"from": 3, "to": 4}
            })
        );
        let none: Value = serde_json::from_str(&text(
            "s",
            0,
            &JournalPage { span: SequenceRange { oldest: 1, newest: 0 }, ..JournalPage::default() },
        ))
        .unwrap();
        assert_eq!(
            none,
            json!({"session": "s", "events": [], "oldest": 1, "newest": 0, "next": null})
        );
    }
}
