//! The thread that reads, on a connection of its own: a long read delays no commit.

use std::sync::Arc;

use anyhow::Context;
use ocelli_protocol::digest::Digest;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::mpsc;

use super::clips::ClipRow;
use super::{EventQuery, JournalPage, NumberedEvent, NumberedPage, SequenceRange, StoredEvent};

/// Reads that may wait: one for each of some hundred subscribers that catch up; the others wait for
/// room.
const QUEUE: usize = 256;

/// Bytes of a page, but at least one event: what a subscriber's queue takes at once.
pub(super) const PAGE_BYTES: usize = 1 << 20;

/// Events that are looked at for a page. A filter that few pass costs tens of milliseconds, and
/// comes again.
const LOOKED_AT: usize = 20_000;

pub(super) type EventRead = Box<dyn FnOnce(&Connection) + Send>;

/// Starts the thread. It ends when the last sender is gone.
pub(super) fn start(connection: Connection) -> anyhow::Result<mpsc::Sender<EventRead>> {
    let (reads, mut queue) = mpsc::channel::<EventRead>(QUEUE);
    let run = move || {
        while let Some(read) = queue.blocking_recv() {
            read(&connection);
        }
    };
    let thread = std::thread::Builder::new().name("journal-read".to_owned());
    thread.spawn(run).context("starting the journal's reader")?;
    Ok(reads)
}

/// The session's events that the query asks for, as of one moment.
pub(super) fn page(
    connection: &Connection,
    session: &str,
    query: &EventQuery,
) -> rusqlite::Result<JournalPage> {
    let moment = connection.unchecked_transaction()?;
    let stream = "SELECT id, last, (SELECT MIN(seq) FROM events WHERE stream = id) FROM streams \
        WHERE session = ?";
    let stream = moment
        .prepare_cached(stream)?
        .query_row([session], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((id, newest, oldest)): Option<(i64, u64, Option<u64>)> = stream else {
        return Ok(JournalPage { span: SequenceRange::NONE, ..JournalPage::default() });
    };
    let mut page =
        JournalPage { span: SequenceRange::new(oldest, newest), ..JournalPage::default() };
    let after = i64::try_from(query.after).unwrap_or(i64::MAX);
    // The columns in their order: a body that is not asked for is not read.
    let events =
        "SELECT seq, time, kind, body FROM events WHERE stream = ? AND seq > ? ORDER BY seq";
    let mut events = moment.prepare_cached(events)?;
    let mut rows = events.query(params![id, after])?;
    let (mut bytes, mut looked_at, mut last) = (0, 0, query.after);
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        if page.events.len() >= query.limit || bytes >= PAGE_BYTES || looked_at >= LOOKED_AT {
            page.next = Some(last);
            break;
        }
        looked_at += 1;
        let time: i64 = row.get(1)?;
        let kind = row.get_ref(2)?.as_str()?;
        let passes = query.kind.as_deref().is_none_or(|wanted| wanted == kind)
            && query.from_ms.is_none_or(|from| from <= time)
            && query.to_ms.is_none_or(|to| time < to);
        if passes {
            let body = row.get_ref(3)?.as_str()?;
            if !page.events.is_empty() && bytes + body.len() > PAGE_BYTES {
                page.next = Some(last);
                break;
            }
            bytes += body.len();
            page.events.push(StoredEvent { seq, kind: kind.into(), body: body.into() });
        }
        last = seq;
    }
    Ok(page)
}

/// The last number that an event was given among those of all sessions: that of one that is there,
/// or of one that is deleted.
pub(super) const LAST_NUMBER: &str = "SELECT MAX(deleted, COALESCE((SELECT MAX(number) FROM events \
    WHERE number > 0), 0)) FROM numbering";

/// The events of all sessions after a number, in the order of their numbers.
pub(super) const KEPT_AFTER: &str = "SELECT number, session, seq, kind, body FROM events JOIN \
    streams ON id = stream WHERE number > ? AND number > 0 ORDER BY number";

/// The events of all sessions that were kept after this number, as of one moment.
pub(super) fn kept_after(
    connection: &Connection,
    number: u64,
    limit: usize,
) -> rusqlite::Result<NumberedPage> {
    let moment = connection.unchecked_transaction()?;
    let last = moment.prepare_cached(LAST_NUMBER)?.query_row([], |row| row.get(0))?;
    let deleted = "SELECT deleted FROM numbering";
    let deleted = moment.prepare_cached(deleted)?.query_row([], |row| row.get(0))?;
    let mut page = NumberedPage { last, deleted, ..NumberedPage::default() };
    let mut events = moment.prepare_cached(KEPT_AFTER)?;
    let mut rows = events.query([i64::try_from(number).unwrap_or(i64::MAX)])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let body = row.get_ref(4)?.as_str()?;
        let full = page.events.len() >= limit || bytes + body.len() > PAGE_BYTES;
        if full && (!page.events.is_empty() || limit == 0) {
            page.more = true;
            break;
        }
        bytes += body.len();
        let event = StoredEvent {
            seq: row.get(2)?,
            kind: row.get_ref(3)?.as_str()?.into(),
            body: body.into(),
        };
        let session = row.get_ref(1)?.as_str()?.into();
        page.events.push(NumberedEvent { number: row.get(0)?, session, event });
    }
    Ok(page)
}

pub(super) fn sessions(
    connection: &Connection,
) -> rusqlite::Result<Vec<(Arc<str>, SequenceRange)>> {
    let streams = "SELECT session, last, (SELECT MIN(seq) FROM events WHERE stream = id) FROM \
        streams ORDER BY session";
    let mut streams = connection.prepare_cached(streams)?;
    let rows = streams.query_map([], |row| {
        let session: String = row.get(0)?;
        Ok((session.into(), SequenceRange::new(row.get(2)?, row.get(1)?)))
    })?;
    rows.collect()
}

/// A sink's cursors as they are on the disk.
pub(super) fn cursors(
    connection: &Connection,
    sink: &str,
) -> rusqlite::Result<Vec<(Arc<str>, u64)>> {
    let mut cursors = connection
        .prepare_cached("SELECT session, seq FROM cursors WHERE sink = ? ORDER BY session")?;
    let rows =
        cursors.query_map([sink], |row| Ok((row.get::<_, String>(0)?.into(), row.get(1)?)))?;
    rows.collect()
}

/// The alerts that are raised, with their sessions.
pub(super) fn raised(connection: &Connection) -> rusqlite::Result<Vec<(Arc<str>, String)>> {
    let raised = "SELECT session, alert FROM raised JOIN streams ON id = stream ORDER BY session, \
        alert";
    let mut raised = connection.prepare_cached(raised)?;
    let rows = raised.query_map([], |row| Ok((row.get::<_, String>(0)?.into(), row.get(1)?)))?;
    rows.collect()
}

/// What there is to know of an event's clip.
pub(super) fn clip(connection: &Connection, session: &str, seq: u64) -> rusqlite::Result<ClipRow> {
    let found = "SELECT clip, clips.id, clips.cut FROM streams JOIN events ON events.stream = \
        streams.id LEFT JOIN event_clips USING (stream, seq) LEFT JOIN clips ON clips.id = clip \
        WHERE session = ? AND events.seq = ?";
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    let row = connection.prepare_cached(found)?.query_row(params![session, seq], |row| {
        let (named, kept, cut) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(match (named, kept) {
            (_, Some(id)) => ClipRow::Kept { id, cut },
            (Some(id), None) => ClipRow::Named(id),
            (None, None) => ClipRow::None,
        })
    });
    Ok(row.optional()?.unwrap_or(ClipRow::NoEvent))
}

/// The sessions that have a picture.
pub(super) fn owners(connection: &Connection, digest: &Digest) -> rusqlite::Result<Vec<Arc<str>>> {
    let mut owners = connection.prepare_cached(
        "SELECT session FROM attachments JOIN streams ON id = stream WHERE digest = ? ORDER BY \
            session",
    )?;
    let rows = owners.query_map([digest.bytes()], |row| Ok(row.get::<_, String>(0)?.into()))?;
    rows.collect()
}
