//! What goes where the disk has little room: the oldest clips, then the oldest pictures, and when
//! there is none old events, as many as new ones need.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::sync::Arc;

use ocelli_protocol::digest::Digest;
use rand::Rng as _;

use super::retention::{AttachmentRow, FREE_PAGES, largest, pictures};
use super::{EventStore, EventStream};
use crate::journal::backup;
use crate::journal::events::reader;
use crate::journal::events::room::{Room, Shortage, is_database_full};

/// Bytes of a page: what SQLite takes by itself.
const PAGE_BYTES: u64 = 4096;

/// The file whose room old events need to go: what is deleted is written to the log first, and a
/// disk that is full to the last byte would have none for that.
pub(in crate::journal) const BALLAST: &str = "ballast";

/// Its size in bytes: twice what a step of deletion writes at most.
const BALLAST_BYTES: usize = 2 << 20;

/// The part of the free room that it may be: a small disk is not for it.
const BALLAST_PART: u64 = 8;

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::journal::events) struct Relieved {
    pub(in crate::journal::events) clips: u64,
    pub(in crate::journal::events) pictures: u64,
    pub(in crate::journal::events) events: u64,
}

impl EventStore {
    /// One step: at most so many clips, pictures or events. An event that one of these sinks does not
    /// have yet stays.
    pub(in crate::journal::events) fn relieve(
        &mut self,
        shortage: Shortage,
        sinks: &[Arc<str>],
        rows: usize,
    ) -> rusqlite::Result<Relieved> {
        match self.make_room(shortage, sinks, rows) {
            Err(error) if is_database_full(&error) && self.give_ballast() => {
                self.make_room(shortage, sinks, rows)
            }
            done => done,
        }
    }

    fn make_room(
        &mut self,
        shortage: Shortage,
        sinks: &[Arc<str>],
        rows: usize,
    ) -> rusqlite::Result<Relieved> {
        // A log that begins anew needs no room of its own. Where it cannot, a reader holds it up.
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)");
        // A backup takes room, and what goes here stays on the disk by its second names.
        if backup::remove(&self.folder) {
            return Ok(Relieved::default());
        }
        let clips = self.forget_oldest_clips(shortage.pictures, rows)?;
        if clips > 0 {
            return Ok(Relieved { clips, ..Relieved::default() });
        }
        let gone = self.forget_oldest_pictures(shortage.pictures, rows)?;
        if gone > 0 || !shortage.events || self.picture_bytes > 0 {
            return Ok(Relieved { pictures: gone, ..Relieved::default() });
        }
        Ok(Relieved { events: self.free_pages(sinks, rows)?, ..Relieved::default() })
    }

    /// Keeps the file whose room old events need, where there is plenty.
    pub(in crate::journal::events) fn keep_ballast(&self) {
        let room = Room::of(self.folder.path());
        let plenty = |room: Room| room.free / BALLAST_PART >= BALLAST_BYTES as u64;
        if self.folder.has(BALLAST) || !room.is_some_and(plenty) {
            return;
        }
        // Of noise: some file systems take no room for zeros.
        let mut noise = vec![0; BALLAST_BYTES];
        rand::rng().fill_bytes(&mut noise);
        let written = self.folder.draft().and_then(|mut draft| {
            draft.file.write_all(&noise)?;
            draft.file.sync_all()?;
            draft.persist(BALLAST)
        });
        if let Err(error) = written {
            tracing::debug!(target: "ocelli::journal", "no room is kept for deleting: {error}");
        }
    }

    /// Gives up that file, if it is there.
    fn give_ballast(&self) -> bool {
        self.folder.has(BALLAST) && self.folder.remove(BALLAST).is_ok()
    }

    /// Deletes the oldest pictures of all, at most so many rows and until so many bytes have gone.
    /// Their files go first: on a disk that is full to the last byte no row can be deleted before.
    fn forget_oldest_pictures(&mut self, enough: u64, rows: usize) -> rusqlite::Result<u64> {
        if enough == 0 {
            return Ok(0);
        }
        let oldest = "SELECT digest, stream, bytes FROM attachments WHERE kept >= ? ORDER BY kept \
            LIMIT ?";
        let mut oldest = pictures(&self.connection, oldest, i64::MIN, rows)?;
        let mut freed = 0;
        oldest.retain(|picture| {
            let goes = freed < enough;
            freed += picture.bytes;
            goes
        });
        for digest in self.unnamed_without(&oldest)? {
            // Not there any more after a step whose rows could not be deleted.
            let _ = self.pictures.remove(&digest);
        }
        self.forget_pictures(&oldest)?;
        Ok(oldest.len() as u64)
    }

    /// The pictures that no other row names than these.
    fn unnamed_without(&self, rows: &[AttachmentRow]) -> rusqlite::Result<Vec<Digest>> {
        let mut counts = HashMap::<&Digest, u64>::new();
        rows.iter().for_each(|row| *counts.entry(&row.digest).or_default() += 1);
        let all = "SELECT COUNT(*) FROM attachments WHERE digest = ?";
        let mut all = self.connection.prepare_cached(all)?;
        let mut unnamed = Vec::new();
        for (digest, count) in counts {
            if all.query_row([digest.bytes()], |row| row.get::<_, u64>(0))? == count {
                unnamed.push(*digest);
            }
        }
        Ok(unnamed)
    }

    /// Deletes old events of the stream that takes most, unless the file has pages for new ones.
    fn free_pages(&mut self, sinks: &[Arc<str>], rows: usize) -> rusqlite::Result<u64> {
        let free: u64 =
            self.connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        if free >= FREE_PAGES {
            return Ok(0);
        }
        let confirmed = sinks.iter().map(|sink| reader::cursors(&self.connection, sink));
        let confirmed = confirmed.map(|cursors| Ok(HashMap::<_, _>::from_iter(cursors?)));
        let confirmed = confirmed.collect::<rusqlite::Result<Vec<_>>>()?;
        let has = |session: &str| {
            let each = confirmed.iter().map(|cursors| cursors.get(session).copied().unwrap_or(0));
            each.min().unwrap_or(u64::MAX)
        };
        let may_give = |(session, stream): &(&Arc<str>, &EventStream)| {
            stream.oldest.is_some_and(|(seq, _)| seq <= has(session))
        };
        let giving = self.streams.iter().filter(may_give).map(|(_, stream)| stream.id);
        let giving: HashSet<i64> = giving.collect();
        let takes = |stream: &EventStream| match giving.contains(&stream.id) {
            true => stream.bytes,
            false => 0,
        };
        let Some((session, _)) = largest(&self.streams, takes) else { return Ok(0) };
        let (has, enough) = (has(&session), (FREE_PAGES - free) * PAGE_BYTES);
        let goes = |freed, seq, _| freed < enough && seq <= has;
        Ok(self.forget_events(&session, rows, goes)? as u64)
    }
}
