//! Rows of clips: kept when a file is whole, deleted when they are too old or too many. They go
//! oldest first, where there is too much of them those of the session that has most.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Transaction, params};

use super::EventStore;
use super::retention::since;
use crate::journal::events::RetentionLimits;
use crate::journal::events::clips::KeptClip;

/// When a clip was kept all of whose events are deleted: before all others.
const UNNAMED: i64 = -1;

/// A clip that is to go.
struct ClipToDelete {
    id: u64,
    bytes: u64,
}

impl EventStore {
    /// Keeps a clip whose file is whole. Whether it is: one that no event names is deleted.
    pub(in crate::journal::events) fn keep_clip(
        &mut self,
        session: &Arc<str>,
        clip: &KeptClip,
        now_ms: i64,
    ) -> rusqlite::Result<bool> {
        let KeptClip { id, bytes, cut } = clip;
        let keep = "INSERT INTO clips (id, stream, bytes, kept, cut) \
            SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM event_clips WHERE clip = ?1)";
        let kept = match self.streams.get(session) {
            Some(stream) => self
                .connection
                .prepare_cached(keep)
                .and_then(|mut keep| keep.execute(params![id, stream.id, bytes, now_ms, cut])),
            None => Ok(0),
        };
        let kept = kept.map(|rows| rows > 0);
        match &kept {
            Ok(true) => self.clip_bytes += bytes,
            Ok(false) | Err(_) => self.remove_file(*id),
        }
        kept
    }

    /// What all clips take, in bytes.
    pub(in crate::journal::events) fn clip_bytes(&self) -> u64 {
        self.clip_bytes
    }

    /// Clips that are not too old, and that an event names. Whether there may be more.
    pub(super) fn delete_expired_clips(
        &mut self,
        keep: &RetentionLimits,
        now_ms: i64,
        rows: usize,
    ) -> rusqlite::Result<bool> {
        let since = since(keep.clip_hours, now_ms).unwrap_or(0);
        Ok(self.delete_clips("WHERE kept < ? ORDER BY kept", since, u64::MAX, rows)? > 0)
    }

    /// Clips as far as they do not take too much.
    pub(super) fn delete_excess_clips(
        &mut self,
        bound: u64,
        rows: usize,
    ) -> rusqlite::Result<bool> {
        let excess = self.clip_bytes.saturating_sub(bound);
        if bound == 0 || excess == 0 {
            return Ok(false);
        }
        let most = "SELECT stream, SUM(bytes) FROM clips GROUP BY stream ORDER BY 2 DESC LIMIT 2";
        let most: Vec<(i64, u64)> = self
            .connection
            .prepare_cached(most)?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let Some((stream, most_bytes)) = most.first() else { return Ok(false) };
        let next = most.get(1).map_or(0, |(_, bytes)| *bytes);
        // At least something goes where several take the same.
        let enough = excess.min((most_bytes - next).max(1));
        Ok(self.delete_clips("WHERE stream = ? ORDER BY kept", *stream, enough, rows)? > 0)
    }

    /// Deletes the oldest clips of all until so many bytes have gone: for want of room. How many
    /// went.
    pub(super) fn forget_oldest_clips(
        &mut self,
        enough: u64,
        rows: usize,
    ) -> rusqlite::Result<u64> {
        if enough == 0 {
            return Ok(0);
        }
        self.delete_clips("WHERE kept >= ? ORDER BY kept", i64::MIN, enough, rows)
    }

    fn delete_clips(
        &mut self,
        which: &str,
        parameter: i64,
        enough: u64,
        rows: usize,
    ) -> rusqlite::Result<u64> {
        let limit = i64::try_from(rows).unwrap_or(i64::MAX);
        let mut clips: Vec<ClipToDelete> = self
            .connection
            .prepare_cached(&format!("SELECT id, bytes FROM clips {which} LIMIT ?"))?
            .query_map(params![parameter, limit], |row| {
                Ok(ClipToDelete { id: row.get(0)?, bytes: row.get(1)? })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let mut freed = 0;
        clips.retain(|clip| {
            let goes = freed < enough;
            freed += clip.bytes;
            goes
        });
        if clips.is_empty() {
            return Ok(0);
        }
        // First the files: on a disk that is full to the last byte no row can be deleted before.
        clips.iter().for_each(|clip| self.remove_file(clip.id));
        let transaction = self.connection.unchecked_transaction()?;
        {
            let mut delete = transaction.prepare_cached("DELETE FROM clips WHERE id = ?")?;
            for clip in &clips {
                delete.execute([clip.id])?;
            }
        }
        transaction.commit()?;
        let bytes: u64 = clips.iter().map(|clip| clip.bytes).sum();
        self.clip_bytes = self.clip_bytes.saturating_sub(bytes);
        Ok(clips.len() as u64)
    }

    fn remove_file(&self, id: u64) {
        // What stays is found at the next start.
        if let Err(error) = self.clips.remove(id) {
            tracing::warn!(target: "ocelli::journal", "a clip stays on the disk: {error}");
        }
    }

    /// Deletes the files of clips that no row names.
    pub(super) fn sweep_clips(&self) -> rusqlite::Result<()> {
        let mut row = self.connection.prepare("SELECT 1 FROM clips WHERE id = ?")?;
        // What cannot be asked for stays.
        self.clips.sweep(|id| row.exists([id]).unwrap_or(true));
        Ok(())
    }
}

/// Notes the clip of an event.
pub(super) fn name_clip(
    transaction: &Transaction<'_>,
    stream: i64,
    seq: u64,
    clip: Option<u64>,
) -> rusqlite::Result<()> {
    let Some(clip) = clip else { return Ok(()) };
    transaction
        .prepare_cached("INSERT INTO event_clips (stream, seq, clip) VALUES (?, ?, ?)")?
        .execute(params![stream, seq, clip])
        .map(drop)
}

/// More than any number of an event: SQLite's integers have a sign.
pub(super) const EVERY: u64 = i64::MAX.unsigned_abs();

/// Forgets the clips of a stream's events up to this number. Those that no other event names go
/// next.
pub(super) fn forget_names(
    transaction: &Transaction<'_>,
    stream: i64,
    last: u64,
) -> rusqlite::Result<()> {
    let last_clip = "SELECT MAX(clip) FROM event_clips WHERE stream = ? AND seq <= ?";
    let last_clip: Option<u64> = transaction
        .prepare_cached(last_clip)?
        .query_row(params![stream, last], |row| row.get(0))
        .optional()?
        .flatten();
    let Some(last_clip) = last_clip else { return Ok(()) };
    transaction
        .prepare_cached("DELETE FROM event_clips WHERE stream = ? AND seq <= ?")?
        .execute(params![stream, last])?;
    transaction
        .prepare_cached(
            "UPDATE clips SET kept = ?1 WHERE stream = ?2 AND id <= ?3 AND kept > ?1
             AND NOT EXISTS (SELECT 1 FROM event_clips WHERE clip = clips.id)",
        )?
        .execute(params![UNNAMED, stream, last_clip])
        .map(drop)
}

/// The last number that a clip was given: of one that there is, or that an event names.
pub(super) const LAST_CLIP: &str = "SELECT MAX(COALESCE((SELECT MAX(id) FROM clips), 0), \
    COALESCE((SELECT MAX(clip) FROM event_clips), 0))";
