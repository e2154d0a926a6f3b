//! Pages of events over several sessions, in the order of their times.
//!
//! Each event stands in the table `marks` under everything that it is found by: its session, its
//! kind, each of its labels, its zone, and once for all. A mark's events lie in the order of their
//! times. A search goes through the marks that it asks for at once: from a place to the next that
//! each of them has, by seeks in the table's key. So a page costs some seeks for each of its events
//! and for those that only some marks have, whatever else the store holds, and no more than
//! [`SEEKS`].

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::filter::EventWords;
use super::reader::PAGE_BYTES;
use super::{EventFilter, StoredEvent};

/// Seeks for a page: some 100 ms. A search that few events pass goes on with the next page.
const SEEKS: usize = 20_000;

/// The first place of a mark from another place on, and the last up to it.
pub(super) const NEXT: &str = "SELECT time, stream, seq FROM marks WHERE mark = ? AND (time, stream, \
    seq) >= (?, ?, ?) ORDER BY time, stream, seq LIMIT 1";
pub(super) const PREVIOUS: &str = "SELECT time, stream, seq FROM marks WHERE mark = ? AND (time, \
    stream, seq) <= (?, ?, ?) ORDER BY time DESC, stream DESC, seq DESC LIMIT 1";

/// Where an event stands among those of all sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventPlace {
    /// Milliseconds since 1970.
    pub time: i64,
    /// The journal's number of the session.
    pub stream: i64,
    pub seq: i64,
}

/// Which events are asked for, and from where on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventSearch {
    pub filter: EventFilter,
    /// Not before this time, in milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// Before this time.
    pub to_ms: Option<i64>,
    /// The newest first, or the oldest.
    pub newest_first: bool,
    /// At most so many.
    pub limit: usize,
    /// [`FoundEvents::next`] of the page before.
    pub start: Option<EventPlace>,
}

/// Events of several sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundEvents {
    /// With their sessions.
    pub events: Vec<(Arc<str>, StoredEvent)>,
    /// Where the next page starts. None: that was all there is.
    pub next: Option<EventPlace>,
    /// What it cost.
    pub(super) seeks: usize,
}

/// The marks of an event.
pub(super) fn marks(stream: i64, kind: &str, body: &str) -> impl Iterator<Item = String> {
    let EventWords { labels, zone } = EventWords::of(body);
    let own = [ALL.to_owned(), of_stream(stream), of_kind(kind)];
    let labels = labels.into_iter().map(|label| of_label(&label));
    own.into_iter().chain(labels).chain(zone.map(|zone| of_zone(&zone)))
}

/// The mark of every event. The others begin with a letter that says what they are.
const ALL: &str = "";

fn of_stream(stream: i64) -> String {
    format!("s{stream}")
}

fn of_kind(kind: &str) -> String {
    format!("k{kind}")
}

fn of_label(label: &str) -> String {
    format!("l{label}")
}

fn of_zone(zone: &str) -> String {
    format!("z{zone}")
}

/// A mark, and its first place from where the search is.
struct MarkCursor {
    mark: String,
    /// None: not looked for yet. `Some(None)`: there is none.
    place: Option<Option<EventPlace>>,
}

/// Marks of which one is enough.
type Group = Vec<MarkCursor>;

struct Walk<'a> {
    connection: &'a Connection,
    newest_first: bool,
    seeks: usize,
}

impl Walk<'_> {
    /// Whether a place comes before another one on this way.
    fn before(&self, one: EventPlace, other: EventPlace) -> bool {
        if self.newest_first { one > other } else { one < other }
    }

    fn first(&self, one: EventPlace, other: EventPlace) -> EventPlace {
        if self.before(other, one) { other } else { one }
    }

    /// The first place of a group from this one on.
    fn seek(&mut self, group: &mut Group, at: EventPlace) -> rusqlite::Result<Option<EventPlace>> {
        let mut first: Option<EventPlace> = None;
        for head in group {
            let place = match head.place {
                Some(None) => continue,
                Some(Some(place)) if !self.before(place, at) => Some(place),
                _ => {
                    self.seeks += 1;
                    let seek = if self.newest_first { PREVIOUS } else { NEXT };
                    self.connection
                        .prepare_cached(seek)?
                        .query_row(params![head.mark, at.time, at.stream, at.seq], |row| {
                            let (time, stream, seq) = (row.get(0)?, row.get(1)?, row.get(2)?);
                            Ok(EventPlace { time, stream, seq })
                        })
                        .optional()?
                }
            };
            head.place = Some(place);
            first = match (first, place) {
                (Some(first), Some(place)) => Some(self.first(first, place)),
                (first, place) => first.or(place),
            };
        }
        Ok(first)
    }

    /// The first place from this one on that every group has. An error value: it is not found yet,
    /// and the search goes on from there.
    fn settle(
        &mut self,
        groups: &mut [Group],
        mut at: EventPlace,
        seeks: usize,
    ) -> rusqlite::Result<Result<Option<EventPlace>, EventPlace>> {
        loop {
            let before = at;
            for group in groups.iter_mut() {
                match self.seek(group, at)? {
                    Some(place) => at = place,
                    None => return Ok(Ok(None)),
                }
            }
            // The first group of the next round may be the one that is behind.
            if at == before {
                return Ok(Ok(Some(at)));
            }
            if self.seeks >= seeks {
                return Ok(Err(at));
            }
        }
    }
}

/// The events that a search asks for, as of one moment.
pub(super) fn search(
    connection: &Connection,
    search: &EventSearch,
) -> rusqlite::Result<FoundEvents> {
    search_within(connection, search, SEEKS)
}

pub(super) fn search_within(
    connection: &Connection,
    search: &EventSearch,
    seeks: usize,
) -> rusqlite::Result<FoundEvents> {
    let moment = connection.unchecked_transaction()?;
    let mut found = FoundEvents::default();
    let Some(mut groups) = groups(&moment, &search.filter)? else { return Ok(found) };
    let mut walk = Walk { connection: &moment, newest_first: search.newest_first, seeks: 0 };
    let mut at = begin(search);
    let (mut bytes, mut sessions) = (0, HashMap::new());
    loop {
        let place = match walk.settle(&mut groups, at, seeks)? {
            Ok(Some(place)) => place,
            Ok(None) => break,
            Err(place) => {
                found.next = Some(place);
                break;
            }
        };
        if search.from_ms.is_some_and(|from| place.time < from)
            || search.to_ms.is_some_and(|to| place.time >= to)
        {
            break;
        }
        let event = "SELECT kind, body FROM events WHERE stream = ? AND seq = ?";
        let mut event = moment.prepare_cached(event)?;
        let mut rows = event.query(params![place.stream, place.seq])?;
        if let Some(row) = rows.next()? {
            let body = row.get_ref(1)?.as_str()?;
            if found.events.len() >= search.limit
                || !found.events.is_empty() && bytes + body.len() > PAGE_BYTES
            {
                found.next = Some(place);
                break;
            }
            bytes += body.len();
            let kind = row.get_ref(0)?.as_str()?.into();
            let event = StoredEvent { seq: place.seq.unsigned_abs(), kind, body: body.into() };
            found.events.push((session(&moment, &mut sessions, place.stream)?, event));
        }
        let step = if search.newest_first { -1 } else { 1 };
        at = EventPlace { seq: place.seq.saturating_add(step), ..place };
        // Marks of events that are not there count as well.
        if walk.seeks >= seeks {
            found.next = Some(at);
            break;
        }
    }
    found.seeks = walk.seeks;
    Ok(found)
}

/// Where a search begins.
fn begin(search: &EventSearch) -> EventPlace {
    let EventSearch { from_ms, to_ms, newest_first, start, .. } = search;
    if *newest_first {
        let time = to_ms.map_or(i64::MAX, |to| to.saturating_sub(1));
        let end = EventPlace { time, stream: i64::MAX, seq: i64::MAX };
        start.map_or(end, |start| start.min(end))
    } else {
        let end = EventPlace { time: from_ms.unwrap_or(i64::MIN), stream: 0, seq: 0 };
        start.map_or(end, |start| start.max(end))
    }
}

/// The marks to search. None: a session is asked for, and there is none of them.
fn groups(connection: &Connection, filter: &EventFilter) -> rusqlite::Result<Option<Vec<Group>>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    if let Some(sessions) = &filter.sessions {
        let mut streams = Vec::new();
        let mut known = connection.prepare_cached("SELECT id FROM streams WHERE session = ?")?;
        for session in sessions {
            let id: Option<i64> = known.query_row([session], |row| row.get(0)).optional()?;
            streams.extend(id.map(of_stream));
        }
        if streams.is_empty() {
            return Ok(None);
        }
        all.push(streams);
    }
    all.push(filter.zones.iter().map(|zone| of_zone(zone)).collect());
    all.push(filter.labels.iter().map(|label| of_label(label)).collect());
    all.push(filter.kinds.iter().map(|kind| of_kind(kind)).collect());
    all.retain(|marks| !marks.is_empty());
    if all.is_empty() {
        all.push(vec![ALL.to_owned()]);
    }
    let group = |marks: Vec<String>| {
        marks.into_iter().map(|mark| MarkCursor { mark, place: None }).collect::<Group>()
    };
    Ok(Some(all.into_iter().map(group).collect()))
}

fn session(
    connection: &Connection,
    known: &mut HashMap<i64, Arc<str>>,
    stream: i64,
) -> rusqlite::Result<Arc<str>> {
    if let Some(session) = known.get(&stream) {
        return Ok(Arc::clone(session));
    }
    let mut name = connection.prepare_cached("SELECT session FROM streams WHERE id = ?")?;
    let name: String = name.query_row([stream], |row| row.get(0))?;
    Ok(Arc::clone(known.entry(stream).or_insert(name.into())))
}
