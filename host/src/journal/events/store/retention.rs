//! What is kept no longer: events, clips and attachments that are too old or too many, streams that
//! are too many. One bounded step at a time, so that events wait for no more than one.
//!
//! Where the bound of a size is reached, the stream that takes most gives its oldest, until it
//! takes no more than the next: a camera that floods the journal pushes out its own history first.
//! Age counts from when an event was appended: a source may give its pictures any time.

use std::collections::HashMap;
use std::sync::Arc;

use ocelli_protocol::digest::Digest;
use rusqlite::{Connection, params};

use super::{EventStore, EventStream, clips, oldest};
use crate::journal::events::RetentionLimits;
use crate::journal::events::outbox::EVENT_BYTES;
use crate::journal::events::search;

/// Streams whose numbers are kept: names of subscribers' sessions have no end.
pub(super) const STREAMS: usize = 10_000;

/// Pages that stay in the file for the next events, 4 MiB. More are given back to the disk.
pub(super) const FREE_PAGES: u64 = 1024;

/// Pages that one step gives back.
const STEP_PAGES: u64 = 512;

const MS_PER_HOUR: i64 = 3_600_000;

/// A row of the attachments.
pub(super) struct AttachmentRow {
    pub(super) digest: Digest,
    stream: i64,
    pub(super) bytes: u64,
}

impl EventStore {
    /// One step: deletes at most so many rows of what is too much. Whether there may be more.
    pub(in crate::journal::events) fn retain(
        &mut self,
        keep: &RetentionLimits,
        now_ms: i64,
        rows: usize,
    ) -> rusqlite::Result<bool> {
        Ok(self.delete_expired_events(keep.hours, now_ms, rows)?
            || self.delete_surplus_streams(rows)?
            || self.delete_excess_events(keep.bytes, rows)?
            || self.delete_expired_clips(keep, now_ms, rows)?
            || self.delete_excess_clips(keep.clip_bytes, rows)?
            || self.delete_expired_attachments(keep.attachment_hours, now_ms, rows)?
            || self.delete_excess_attachments(keep.attachment_bytes, rows)?
            || self.give_back()?
            || self.sweep()?)
    }

    /// Events that are not too old.
    fn delete_expired_events(
        &mut self,
        hours: u64,
        now_ms: i64,
        rows: usize,
    ) -> rusqlite::Result<bool> {
        let Some(since) = since(hours, now_ms) else { return Ok(false) };
        let kept = |stream: &EventStream| stream.oldest.map_or(i64::MAX, |(_, kept)| kept);
        let Some((session, stream)) = self.streams.iter().min_by_key(|(_, stream)| kept(stream))
        else {
            return Ok(false);
        };
        if kept(stream) >= since {
            return Ok(false);
        }
        let session = Arc::clone(session);
        self.forget_events(&session, rows, |_, _, kept| kept < since)?;
        Ok(true)
    }

    /// Streams as far as they are not too many: those go first that have nothing, and of them those
    /// unused for longest.
    fn delete_surplus_streams(&mut self, rows: usize) -> rusqlite::Result<bool> {
        if self.streams.len() <= STREAMS {
            return Ok(false);
        }
        let unused = |stream: &EventStream| (stream.oldest.is_some(), stream.used);
        let first = self.streams.iter().min_by_key(|(_, stream)| unused(stream));
        let Some((session, stream)) =
            first.map(|(session, stream)| (Arc::clone(session), stream.clone()))
        else {
            return Ok(false);
        };
        if stream.oldest.is_some() {
            self.forget_events(&session, rows, |_, _, _| true)?;
            return Ok(true);
        }
        if stream.pictures > 0 {
            self.forget_pictures_of(&stream, rows, u64::MAX)?;
            return Ok(true);
        }
        let floor = self.floor.max(stream.last);
        let transaction = self.connection.unchecked_transaction()?;
        transaction.execute("UPDATE numbering SET floor = ?", [floor])?;
        transaction.execute("DELETE FROM streams WHERE id = ?", [stream.id])?;
        transaction.execute("DELETE FROM attachments WHERE stream = ?", [stream.id])?;
        transaction.execute("DELETE FROM raised WHERE stream = ?", [stream.id])?;
        clips::forget_names(&transaction, stream.id, clips::EVERY)?;
        transaction.execute("DELETE FROM cursors WHERE session = ?", [&*session])?;
        transaction.commit()?;
        self.floor = floor;
        self.streams.remove(&session);
        Ok(true)
    }

    /// Events as far as their file is not too large.
    fn delete_excess_events(&mut self, bound: u64, rows: usize) -> rusqlite::Result<bool> {
        let excess = self.bytes()?.saturating_sub(bound);
        if bound == 0 || excess == 0 {
            return Ok(false);
        }
        let Some((session, over)) = largest(&self.streams, |stream| stream.bytes) else {
            return Ok(false);
        };
        let enough = excess.min(over);
        let forgotten = self.forget_events(&session, rows, |freed, _, _| freed < enough)?;
        Ok(forgotten > 0)
    }

    /// Deletes events of a stream from the oldest on, at most so many, as long as they go: `goes`
    /// is told how many bytes went before this one, its number, and when it was appended. How many
    /// went.
    pub(super) fn forget_events(
        &mut self,
        session: &Arc<str>,
        rows: usize,
        goes: impl Fn(u64, u64, i64) -> bool,
    ) -> rusqlite::Result<usize> {
        let Some(stream) = self.streams.get_mut(session) else { return Ok(0) };
        let transaction = self.connection.unchecked_transaction()?;
        let (mut count, mut freed, mut last, mut number) = (0, 0, 0u64, 0u64);
        {
            let events = "SELECT seq, kept, octet_length(kind) + octet_length(body), number, time,
                kind, body FROM events WHERE stream = ? ORDER BY seq LIMIT ?";
            let mut events = transaction.prepare_cached(events)?;
            let mut mark = transaction.prepare_cached(
                "DELETE FROM marks WHERE mark = ? AND time = ? AND stream = ? AND seq = ?",
            )?;
            let mut events =
                events.query(params![stream.id, i64::try_from(rows).unwrap_or(i64::MAX)])?;
            while let Some(row) = events.next()? {
                let seq = row.get(0)?;
                if !goes(freed, seq, row.get(1)?) {
                    break;
                }
                (count, last, number) = (count + 1, seq, row.get(3)?);
                freed += row.get::<_, u64>(2)? + EVENT_BYTES as u64;
                let (kind, body) = (row.get_ref(5)?.as_str()?, row.get_ref(6)?.as_str()?);
                for text in search::marks(stream.id, kind, body) {
                    mark.execute(params![text, row.get::<_, i64>(4)?, stream.id, seq])?;
                }
            }
        }
        let mut delete =
            transaction.prepare_cached("DELETE FROM events WHERE stream = ? AND seq <= ?")?;
        delete.execute(params![stream.id, last])?;
        drop(delete);
        clips::forget_names(&transaction, stream.id, last)?;
        transaction
            .prepare_cached("UPDATE numbering SET deleted = ?1 WHERE deleted < ?1")?
            .execute([number])?;
        let bytes = stream.bytes.saturating_sub(freed);
        transaction
            .prepare_cached("UPDATE streams SET bytes = ? WHERE id = ?")?
            .execute(params![bytes, stream.id])?;
        let oldest = oldest(&transaction, stream.id)?;
        transaction.commit()?;
        (stream.bytes, stream.oldest) = (bytes, oldest);
        Ok(count)
    }

    /// Attachments that are not too old.
    fn delete_expired_attachments(
        &mut self,
        hours: u64,
        now_ms: i64,
        rows: usize,
    ) -> rusqlite::Result<bool> {
        let Some(since) = since(hours, now_ms) else { return Ok(false) };
        let old =
            "SELECT digest, stream, bytes FROM attachments WHERE kept < ? ORDER BY kept LIMIT ?";
        let old = pictures(&self.connection, old, since, rows)?;
        let more = !old.is_empty();
        self.forget_pictures(&old)?;
        Ok(more)
    }

    /// Attachments as far as they do not take too much.
    fn delete_excess_attachments(&mut self, bound: u64, rows: usize) -> rusqlite::Result<bool> {
        let excess = self.picture_bytes.saturating_sub(bound);
        if bound == 0 || excess == 0 {
            return Ok(false);
        }
        let Some((session, over)) = largest(&self.streams, |stream| stream.pictures) else {
            return Ok(false);
        };
        let Some(stream) = self.streams.get(&session).cloned() else { return Ok(false) };
        Ok(self.forget_pictures_of(&stream, rows, excess.min(over))? > 0)
    }

    /// Deletes a stream's oldest attachments, at most so many and until so many bytes have gone.
    /// How many went.
    fn forget_pictures_of(
        &mut self,
        stream: &EventStream,
        rows: usize,
        enough: u64,
    ) -> rusqlite::Result<usize> {
        let own =
            "SELECT digest, stream, bytes FROM attachments WHERE stream = ? ORDER BY kept LIMIT ?";
        let mut own = pictures(&self.connection, own, stream.id, rows)?;
        let mut freed = 0;
        own.retain(|picture| {
            let goes = freed < enough;
            freed += picture.bytes;
            goes
        });
        self.forget_pictures(&own)?;
        Ok(own.len())
    }

    /// Deletes rows, and the files that no other row names.
    pub(super) fn forget_pictures(&mut self, rows: &[AttachmentRow]) -> rusqlite::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let (mut unnamed, mut freed) = (Vec::new(), HashMap::<i64, u64>::new());
        let transaction = self.connection.unchecked_transaction()?;
        for row in rows {
            transaction
                .prepare_cached("DELETE FROM attachments WHERE digest = ? AND stream = ?")?
                .execute(params![row.digest.bytes(), row.stream])?;
            if !is_named(&transaction, &row.digest)? {
                unnamed.push(row);
            }
            *freed.entry(row.stream).or_default() += row.bytes;
        }
        transaction.commit()?;
        for stream in self.streams.values_mut() {
            let freed = freed.get(&stream.id).copied().unwrap_or(0);
            stream.pictures = stream.pictures.saturating_sub(freed);
        }
        for row in unnamed {
            self.picture_bytes = self.picture_bytes.saturating_sub(row.bytes);
            // The row is gone: a file that stays is found when the folders are looked through
            // again.
            if let Err(error) = self.pictures.remove(&row.digest) {
                tracing::warn!(target: "ocelli::journal", "an old attachment stays on the disk: \
                    {error}");
            }
        }
        Ok(())
    }

    /// Makes the file smaller where it has much that is free.
    fn give_back(&self) -> rusqlite::Result<bool> {
        let free: u64 =
            self.connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        if free <= FREE_PAGES {
            return Ok(false);
        }
        let pages = STEP_PAGES.min(free - FREE_PAGES);
        // Each row that it gives is a page.
        let mut vacuum = self.connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut vacuum = vacuum.query([])?;
        while vacuum.next()?.is_some() {}
        Ok(true)
    }

    /// Deletes, in one of the attachments' folders, the files that a host wrote which ended before
    /// it could name them.
    fn sweep(&mut self) -> rusqlite::Result<bool> {
        let Some(folder) = self.unswept.checked_sub(1) else { return Ok(false) };
        self.unswept = folder;
        for digest in self.pictures.list(folder) {
            if !is_named(&self.connection, &digest)?
                && let Err(error) = self.pictures.remove(&digest)
            {
                tracing::warn!(target: "ocelli::journal", "a file that is no attachment stays: \
                    {error}");
            }
        }
        Ok(true)
    }
}

/// Whatever was kept before is too old. None: nothing is.
pub(super) fn since(hours: u64, now_ms: i64) -> Option<i64> {
    let hours = i64::try_from(hours).ok().filter(|hours| *hours > 0)?;
    now_ms.checked_sub(hours.checked_mul(MS_PER_HOUR)?)
}

/// The stream that takes most, and how much more than the next.
pub(super) fn largest(
    streams: &HashMap<Arc<str>, EventStream>,
    takes: impl Fn(&EventStream) -> u64,
) -> Option<(Arc<str>, u64)> {
    let (session, most) = streams
        .iter()
        .map(|(session, stream)| (session, takes(stream)))
        .max_by_key(|(_, takes)| *takes)?;
    let others = streams.iter().filter(|(other, _)| *other != session);
    let next = others.map(|(_, stream)| takes(stream)).max().unwrap_or(0);
    // At least something goes where several take the same.
    (most > 0).then(|| (Arc::clone(session), (most - next).max(1)))
}

pub(super) fn is_named(connection: &Connection, digest: &Digest) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM attachments WHERE digest = ?")?
        .exists([digest.bytes()])
}

pub(super) fn pictures(
    connection: &Connection,
    rows: &str,
    which: i64,
    limit: usize,
) -> rusqlite::Result<Vec<AttachmentRow>> {
    let mut rows = connection.prepare_cached(rows)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = rows.query_map(params![which, limit], |row| {
        Ok(AttachmentRow {
            digest: row.get::<_, [u8; 32]>(0)?.into(),
            stream: row.get(1)?,
            bytes: row.get(2)?,
        })
    })?;
    rows.collect()
}
