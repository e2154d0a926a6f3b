//! What the file holds: the streams with their last numbers, their events, and how far sinks have
//! come.

mod clips;
pub(super) mod copy;
pub(super) mod relief;
mod retention;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use serde::Deserialize;

use super::age_clock::{ClockReading, ClockRecord, unix_ms};
use super::clips::ClipFiles;
use super::outbox::{EVENT_BYTES, OutboxBatch, OutboxItem};
use super::pictures::{self, AttachmentFiles};
use super::room::{Room, Shortage};
use super::{ALERT_KIND, Attachment, Cursors, EventDraft, reader, search};
use crate::journal::{DatabaseSpec, JournalError, file};
use crate::util::folder::Folder;

/// The name of the file in the store's folder.
pub(in crate::journal) const FILE: &str = "events.db";

/// Greater numbers are not taken from a damaged file: JSON's readers have no whole numbers beyond.
const GREATEST: u64 = 1 << 53;

const KIND: DatabaseSpec = DatabaseSpec {
    migrations: &[
        "
        -- One row: numbers of new streams begin above `floor`.
        CREATE TABLE numbering (floor INTEGER NOT NULL);
        INSERT INTO numbering VALUES (0);
        CREATE TABLE streams (
            id INTEGER PRIMARY KEY,
            session TEXT NOT NULL UNIQUE,
            -- The last number that was given.
            last INTEGER NOT NULL,
            -- When, in milliseconds since 1970.
            used INTEGER NOT NULL,
            -- What its events take.
            bytes INTEGER NOT NULL
        );
        CREATE TABLE events (
            stream INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            -- When it was appended, by the clock of age.
            kept INTEGER NOT NULL,
            -- When it happened.
            time INTEGER NOT NULL,
            kind TEXT NOT NULL,
            body TEXT NOT NULL,
            PRIMARY KEY (stream, seq)
        ) WITHOUT ROWID;
        CREATE TABLE attachments (
            digest BLOB NOT NULL,
            stream INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            kept INTEGER NOT NULL,
            PRIMARY KEY (digest, stream)
        ) WITHOUT ROWID;
        CREATE INDEX attachments_stream ON attachments (stream, kept);
        CREATE INDEX attachments_kept ON attachments (kept);
        CREATE TABLE cursors (
            sink TEXT NOT NULL,
            session TEXT NOT NULL,
            seq INTEGER NOT NULL,
            PRIMARY KEY (sink, session)
        ) WITHOUT ROWID;
    ",
        "
        -- One row: the time by which events age, and the system's clocks then, in milliseconds.
        CREATE TABLE age_clock (
            age INTEGER NOT NULL,
            wall INTEGER NOT NULL,
            boot INTEGER NOT NULL,
            boot_id TEXT NOT NULL
        );
    ",
        "
        -- The alerts that a session's events say are raised.
        CREATE TABLE raised (
            stream INTEGER NOT NULL,
            alert TEXT NOT NULL,
            PRIMARY KEY (stream, alert)
        ) WITHOUT ROWID;
        INSERT INTO raised (stream, alert)
            SELECT stream, alert FROM (
                SELECT stream, seq, body ->> '$.data.alert' AS alert,
                    body ->> '$.data.raised' AS raised
                FROM (
                    SELECT stream, seq, CASE WHEN json_valid(body) THEN body END AS body
                    FROM events WHERE kind = 'alert'
                )
                WHERE body ->> '$.frame' IS NULL
            )
            WHERE alert IS NOT NULL
            GROUP BY stream, alert
            HAVING MAX(seq) = MAX(CASE WHEN raised THEN seq END);
    ",
        "
        -- Counts the events of all sessions in the order in which they are kept. 0: kept before
        -- there was this number.
        ALTER TABLE events ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
        CREATE INDEX events_number ON events (number) WHERE number > 0;
        -- The greatest number of an event that is deleted.
        ALTER TABLE numbering ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;
    ",
        "
        -- What events are found by: all of them under the empty mark, and each under s and its
        -- stream, k and its kind, l and each of its labels, z and its zone.
        CREATE TABLE marks (
            mark TEXT NOT NULL,
            time INTEGER NOT NULL,
            stream INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            PRIMARY KEY (mark, time, stream, seq)
        ) WITHOUT ROWID;
        INSERT INTO marks SELECT '', time, stream, seq FROM events;
        INSERT INTO marks SELECT 's' || stream, time, stream, seq FROM events;
        INSERT INTO marks SELECT 'k' || kind, time, stream, seq FROM events;
        INSERT OR IGNORE INTO marks
            SELECT 'l' || (value ->> '$.label'), time, stream, seq
            FROM events, json_each(body, '$.detections')
            WHERE json_valid(body) AND json_type(value, '$.label') = 'text';
        INSERT OR IGNORE INTO marks
            SELECT 'l' || (body ->> '$.data.label'), time, stream, seq FROM events
            WHERE json_valid(body) AND json_type(body, '$.data.label') = 'text';
        INSERT OR IGNORE INTO marks
            SELECT 'z' || (body ->> '$.data.zone'), time, stream, seq FROM events
            WHERE json_valid(body) AND json_type(body, '$.data.zone') = 'text';
    ",
        "
        -- Clips whose files are whole.
        CREATE TABLE clips (
            id INTEGER PRIMARY KEY,
            stream INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            -- As of events; before all others where no event names it any more.
            kept INTEGER NOT NULL,
            -- Why it ends before its time.
            cut TEXT
        );
        CREATE INDEX clips_kept ON clips (kept);
        CREATE INDEX clips_stream ON clips (stream, kept);
        -- The clip that an event has, also before that is whole and after it is deleted.
        CREATE TABLE event_clips (
            stream INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            clip INTEGER NOT NULL,
            PRIMARY KEY (stream, seq)
        ) WITHOUT ROWID;
        CREATE INDEX event_clips_clip ON event_clips (clip);
    ",
    ],
    pragmas: &[
        // Before anything is written: the file gives back what is deleted.
        ("auto_vacuum", "INCREMENTAL"),
        ("journal_mode", "WAL"),
        ("synchronous", "FULL"),
        // A log that a reader made long is cut when it is begun anew.
        ("journal_size_limit", "16777216"),
    ],
    contents: "the events",
};

/// A stream as the writer knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct EventStream {
    id: i64,
    last: u64,
    used: i64,
    /// The number of the oldest event that is kept, and when that was appended.
    oldest: Option<(u64, i64)>,
    /// What its events take.
    bytes: u64,
    /// What its pictures take.
    pictures: u64,
}

/// The writer's connection, and what it need not ask the file for.
pub(super) struct EventStore {
    connection: Connection,
    streams: HashMap<Arc<str>, EventStream>,
    floor: u64,
    next_id: i64,
    /// The last number of an event among those of all sessions.
    number: u64,
    pictures: AttachmentFiles,
    clips: ClipFiles,
    /// The store's, whose disk's room counts.
    folder: Folder,
    /// What all pictures take; one that several streams have counts once.
    picture_bytes: u64,
    /// What all clips take.
    clip_bytes: u64,
    /// Folders of pictures that have not been looked through since the start.
    unswept: u16,
}

/// The version of the schema that this version writes.
#[cfg(test)]
pub(in crate::journal) fn schema() -> usize {
    KIND.migrations.len()
}

/// An error where a version to come has written the file of this folder.
pub(super) fn refuse_newer(folder: &Folder) -> Result<(), JournalError> {
    file::refuse_newer(folder, FILE, &KIND)
}

/// Opens the journal in this folder, or begins one; the second connection is for readers. A file
/// that is damaged is put aside, and numbering goes on above all that it may have given.
pub(super) fn open(folder: &Folder, now_ms: i64) -> anyhow::Result<(EventStore, Connection)> {
    let path = folder.path().join(FILE);
    let (connection, aside) = file::open(folder, FILE, &KIND)?;
    if let Some(aside) = aside {
        let floor =
            greatest(&aside).unwrap_or_else(|| written(folder, &aside)).max(now_ms.unsigned_abs());
        connection
            .execute("UPDATE numbering SET floor = ?1, deleted = ?1", [floor])
            .context("writing the floor")?;
    }
    copy::take_over(&connection, now_ms).context("going on with a copy")?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reading = || format!("{}", path.display());
    let reader = Connection::open_with_flags(&path, flags).with_context(reading)?;
    let store = EventStore::load(connection, folder);
    Ok((store.with_context(reading)?, reader))
}

/// When a file was written, in milliseconds since 1970: the clock may have been set back since the
/// numbers above an earlier floor were given.
fn written(folder: &Folder, aside: &Path) -> u64 {
    let name = aside.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let written = folder.about(name).and_then(|file| file.modified());
    written.map_or(0, |time| unix_ms(time.into_std()).unsigned_abs())
}

/// The greatest number that can still be read of a damaged file; none where none can.
fn greatest(aside: &Path) -> Option<u64> {
    let read = || -> rusqlite::Result<u64> {
        // It stays as it was found.
        let connection = Connection::open_with_flags(aside, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let greatest = "SELECT MAX((SELECT COALESCE(MAX(last), 0) FROM streams), (SELECT \
            MAX(floor) FROM numbering))";
        connection.query_row(greatest, [], |row| row.get(0))
    };
    read().ok().filter(|number| *number < GREATEST)
}

impl EventStore {
    fn load(connection: Connection, folder: &Folder) -> rusqlite::Result<Self> {
        let floor =
            connection.query_row("SELECT MAX(floor) FROM numbering", [], |row| row.get(0))?;
        let number = connection.query_row(reader::LAST_NUMBER, [], |row| row.get(0))?;
        let next_id = "SELECT COALESCE(MAX(id), 0) + 1 FROM streams";
        let next_id = connection.query_row(next_id, [], |row| row.get(0))?;
        let mut streams = HashMap::new();
        {
            let mut rows =
                connection.prepare("SELECT session, id, last, used, bytes FROM streams")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let session: String = row.get(0)?;
                let id = row.get(1)?;
                let (last, used, bytes) = (row.get(2)?, row.get(3)?, row.get(4)?);
                let pictures = "SELECT COALESCE(SUM(bytes), 0) FROM attachments WHERE stream = ?";
                let pictures =
                    connection.prepare_cached(pictures)?.query_row([id], |row| row.get(0))?;
                let oldest = oldest(&connection, id)?;
                streams.insert(
                    session.into(),
                    EventStream { id, last, used, oldest, bytes, pictures },
                );
            }
        }
        let picture_bytes =
            "SELECT COALESCE(SUM(bytes), 0) FROM (SELECT DISTINCT digest, bytes FROM attachments)";
        let picture_bytes = connection.query_row(picture_bytes, [], |row| row.get(0))?;
        let clip_bytes = "SELECT COALESCE(SUM(bytes), 0) FROM clips";
        let clip_bytes = connection.query_row(clip_bytes, [], |row| row.get(0))?;
        let last_clip = connection.query_row(clips::LAST_CLIP, [], |row| row.get(0))?;
        let store = Self {
            connection,
            streams,
            floor,
            next_id,
            number,
            unswept: pictures::FOLDERS,
            pictures: AttachmentFiles::new(folder.clone()),
            clips: ClipFiles::new(folder.clone(), last_clip),
            folder: folder.clone(),
            picture_bytes,
            clip_bytes,
        };
        store.sweep_clips()?;
        Ok(store)
    }

    /// How many pictures a batch has.
    pub(super) fn count_pictures(parts: &[OutboxBatch]) -> u64 {
        attachments(parts).count() as u64
    }

    /// Writes the pictures of a batch: on the disk when it returns. After an error none is there
    /// that was not before.
    pub(super) fn write_pictures(&self, parts: &[OutboxBatch]) -> io::Result<()> {
        let written = self.pictures.write(attachments(parts));
        if written.is_err() {
            for Attachment { digest, .. } in attachments(parts) {
                if matches!(retention::is_named(&self.connection, digest), Ok(false)) {
                    // What stays is found when the folders are looked through again.
                    let _ = self.pictures.remove(digest);
                }
            }
        }
        written
    }

    /// Drops what the file has already of events that others have numbered.
    pub(super) fn drop_known(&self, parts: &mut [OutboxBatch]) {
        // A batch may have several parts of a session.
        let mut lasts = HashMap::new();
        for part in parts {
            let Some(first) = part.first else { continue };
            let kept = || self.streams.get(&part.session).map_or(0, |stream| stream.last);
            let last = lasts.entry(Arc::clone(&part.session)).or_insert_with(kept);
            let mut known = last.saturating_add(1).saturating_sub(first);
            let first = first.max(last.saturating_add(1));
            part.first = Some(first);
            part.items.retain(|item| {
                let drops = item.draft().is_some() && known > 0;
                known -= u64::from(drops);
                !drops
            });
            *last = (*last).max(first + part.events().count() as u64 - 1);
        }
    }

    /// Numbers the events of a batch and keeps them, with the cursors and, where they are written,
    /// what there is to know of their pictures: on the disk when it returns. The first number of
    /// each part. After an error nothing of it is kept, and no number is taken.
    pub(super) fn commit(
        &mut self,
        parts: &[OutboxBatch],
        cursors: &Cursors,
        now_ms: i64,
        pictures: bool,
    ) -> rusqlite::Result<Vec<u64>> {
        // Taken over once they are committed.
        let (mut streams, mut next_id) = (HashMap::new(), self.next_id);
        let (mut number, mut picture_bytes) = (self.number, self.picture_bytes);
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let mut firsts = Vec::with_capacity(parts.len());
        for part in parts {
            let mut events = part.items.iter().filter_map(OutboxItem::draft).peekable();
            if events.peek().is_none() {
                firsts.push(0);
                continue;
            }
            let known = streams.remove(&part.session);
            let mut stream = match known.or_else(|| self.streams.get(&part.session).cloned()) {
                Some(stream) => stream,
                None => begin(&transaction, &part.session, self.floor, now_ms, &mut next_id)?,
            };
            if let Some(first) = part.first {
                // Those between were deleted where they came from.
                stream.last = stream.last.max(first.saturating_sub(1));
            }
            firsts.push(stream.last + 1);
            for draft in events {
                number += 1;
                add(&transaction, &mut stream, draft, number, now_ms)?;
                clips::name_clip(&transaction, stream.id, stream.last, draft.clip)?;
                if pictures {
                    attach(&transaction, &mut stream, draft, now_ms, &mut picture_bytes)?;
                }
            }
            transaction
                .prepare_cached("UPDATE streams SET last = ?, used = ?, bytes = ? WHERE id = ?")?
                .execute(params![stream.last, now_ms, stream.bytes, stream.id])?;
            stream.used = now_ms;
            streams.insert(Arc::clone(&part.session), stream);
        }
        set_cursors(&transaction, cursors)?;
        transaction.commit()?;
        self.streams.extend(streams);
        (self.next_id, self.number, self.picture_bytes) = (next_id, number, picture_bytes);
        Ok(firsts)
    }

    /// What is to go so that so many bytes stay free on the disk.
    pub(super) fn shortage(&self, reserve: u64) -> Shortage {
        Room::of(self.folder.path()).map_or(Shortage::default(), |room| room.shortage(reserve))
    }

    /// The clock as the file keeps it. One that was written before there was any kept the system's
    /// clock in its place.
    pub(super) fn clock_record(&self) -> rusqlite::Result<Option<ClockRecord>> {
        let kept = "SELECT age, wall, boot, boot_id FROM age_clock";
        let kept = self.connection.query_row(kept, [], |row| {
            let at = ClockReading { wall: row.get(1)?, boot: row.get(2)? };
            Ok(ClockRecord { age: row.get(0)?, at, boot_id: row.get(3)? })
        });
        let last = || self.streams.values().map(|stream| stream.used).max();
        Ok(kept.optional()?.or_else(|| {
            let last = last()?;
            let at = ClockReading { wall: last, boot: 0 };
            Some(ClockRecord { age: last, at, boot_id: String::new() })
        }))
    }

    /// Keeps the clock.
    pub(super) fn save_clock(&self, record: &ClockRecord) -> rusqlite::Result<()> {
        let ClockRecord { age, at, boot_id } = record;
        let transaction = self.connection.unchecked_transaction()?;
        transaction.execute("DELETE FROM age_clock", [])?;
        let keep = "INSERT INTO age_clock (age, wall, boot, boot_id) VALUES (?, ?, ?, ?)";
        transaction.execute(keep, params![age, at.wall, at.boot, boot_id])?;
        transaction.commit()
    }

    pub(super) fn pictures(&self) -> &AttachmentFiles {
        &self.pictures
    }

    pub(super) fn clips(&self) -> &ClipFiles {
        &self.clips
    }

    /// What all pictures take, in bytes.
    pub(super) fn picture_bytes(&self) -> u64 {
        self.picture_bytes
    }

    /// What the file takes on the disk, without what waits to be given back.
    pub(super) fn bytes(&self) -> rusqlite::Result<u64> {
        let pragma =
            |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
        Ok(pragma("page_count")?.saturating_sub(pragma("freelist_count")?) * pragma("page_size")?)
    }
}

/// The pictures of a batch.
fn attachments(parts: &[OutboxBatch]) -> impl Iterator<Item = &Attachment> {
    let drafts = parts.iter().flat_map(|part| &part.items).filter_map(OutboxItem::draft);
    drafts.flat_map(|draft| &draft.attachments)
}

/// The oldest event that is kept of a stream: its number, and when it was appended.
fn oldest(connection: &Connection, stream: i64) -> rusqlite::Result<Option<(u64, i64)>> {
    connection
        .prepare_cached("SELECT seq, kept FROM events WHERE stream = ? ORDER BY seq LIMIT 1")?
        .query_row([stream], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

fn begin(
    transaction: &Transaction<'_>,
    session: &str,
    floor: u64,
    now_ms: i64,
    next_id: &mut i64,
) -> rusqlite::Result<EventStream> {
    let id = *next_id;
    *next_id += 1;
    transaction
        .prepare_cached(
            "INSERT INTO streams (id, session, last, used, bytes) VALUES (?, ?, ?, ?, 0)",
        )?
        .execute(params![id, session, floor, now_ms])?;
    Ok(EventStream { id, last: floor, used: now_ms, oldest: None, bytes: 0, pictures: 0 })
}

fn add(
    transaction: &Transaction<'_>,
    stream: &mut EventStream,
    draft: &EventDraft,
    number: u64,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let seq = stream.last + 1;
    let EventDraft { kind, time_ms, body, .. } = draft;
    transaction
        .prepare_cached(
            "INSERT INTO events (stream, seq, kept, time, kind, body, number)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![stream.id, seq, now_ms, time_ms, kind, body, number])?;
    let mut mark = transaction.prepare_cached(
        "INSERT OR IGNORE INTO marks (mark, time, stream, seq) VALUES (?, ?, ?, ?)",
    )?;
    for text in search::marks(stream.id, kind, body) {
        mark.execute(params![text, time_ms, stream.id, seq])?;
    }
    stream.last = seq;
    stream.oldest = stream.oldest.or(Some((seq, now_ms)));
    stream.bytes += (kind.len() + body.len() + EVENT_BYTES) as u64;
    if kind == ALERT_KIND { note_alert(transaction, stream.id, body) } else { Ok(()) }
}

/// Notes what an event says of an alert. One of a pipeline's own has a frame, and is none.
fn note_alert(transaction: &Transaction<'_>, stream: i64, body: &str) -> rusqlite::Result<()> {
    #[derive(Deserialize)]
    struct AlertBody {
        frame: Option<u64>,
        data: AlertData,
    }

    #[derive(Deserialize)]
    struct AlertData {
        alert: String,
        raised: bool,
    }

    let Ok(AlertBody { frame: None, data }) = serde_json::from_str(body) else { return Ok(()) };
    let note = match data.raised {
        true => "INSERT OR IGNORE INTO raised (stream, alert) VALUES (?, ?)",
        false => "DELETE FROM raised WHERE stream = ? AND alert = ?",
    };
    transaction.prepare_cached(note)?.execute(params![stream, data.alert]).map(drop)
}

/// Notes the pictures of an event.
fn attach(
    transaction: &Transaction<'_>,
    stream: &mut EventStream,
    draft: &EventDraft,
    now_ms: i64,
    picture_bytes: &mut u64,
) -> rusqlite::Result<()> {
    for attachment in &draft.attachments {
        let known =
            "SELECT COUNT(*), COALESCE(SUM(stream = ?), 0) FROM attachments WHERE digest = ?";
        let (all, own): (u64, u64) = transaction
            .prepare_cached(known)?
            .query_row(params![stream.id, attachment.digest.bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let bytes = attachment.bytes.len() as u64;
        *picture_bytes += if all == 0 { bytes } else { 0 };
        stream.pictures += if own == 0 { bytes } else { 0 };
        transaction
            .prepare_cached(
                "INSERT INTO attachments (digest, stream, bytes, kept) VALUES (?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET kept = excluded.kept",
            )?
            .execute(params![attachment.digest.bytes(), stream.id, bytes, now_ms])?;
    }
    Ok(())
}

fn set_cursors(transaction: &Transaction<'_>, cursors: &Cursors) -> rusqlite::Result<()> {
    let set = "INSERT INTO cursors (sink, session, seq) VALUES (?, ?, ?)
        ON CONFLICT DO UPDATE SET seq = excluded.seq";
    let mut set = transaction.prepare_cached(set)?;
    cursors.iter().try_for_each(|((sink, session), seq)| {
        set.execute(params![&**sink, session, seq]).map(drop)
    })
}

impl OutboxItem {
    /// The event, where it is one.
    pub(super) fn draft(&self) -> Option<&EventDraft> {
        match self {
            Self::Event(draft) => Some(draft),
            Self::Lost(_) | Self::Note(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
