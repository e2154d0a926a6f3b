//! Clips of events: files named by their numbers, `clips/<number>.mp4`, and those that are being
//! collected.
//!
//! An event is committed with its clip's number, while the clip is collected; the clip gets a row
//! of its own when its file is whole. So an event whose clip has no row has none: a host that ended
//! meanwhile has lost it, or it is deleted.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::room::Room;
use super::{EventJournal, JournalError, reader};
use crate::util::folder::{Draft, Folder};

/// The folder of all, in the data directory.
const CLIPS: &str = "clips";

/// The ending of a clip's file.
const ENDING: &str = ".mp4";

/// The clips of a data directory.
#[derive(Debug, Clone)]
pub(super) struct ClipFiles {
    data: Folder,
    /// The last number that was given.
    last: Arc<AtomicU64>,
    /// The numbers of clips that are collected, or written.
    pending: Arc<Mutex<HashSet<u64>>>,
}

/// A clip's file in the making.
#[derive(Debug)]
pub struct ClipDraft {
    draft: Draft,
    folder: Folder,
}

/// A clip whose file is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptClip {
    pub(super) id: u64,
    pub(super) bytes: u64,
    /// Why it ends before its time, in a word.
    pub(super) cut: Option<&'static str>,
}

/// What became of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipOutcome {
    /// There were no pictures of it, or no memory for them.
    Refused,
    /// It was not written.
    Failed,
}

/// The clip of an event.
#[derive(Debug)]
pub enum ClipState {
    Kept(ClipFile),
    /// It is being collected or written.
    Pending,
    /// There is none, or no longer.
    None,
    /// There is no such event, or no longer.
    NoEvent,
}

/// A clip's file, open for reading.
#[derive(Debug)]
pub struct ClipFile {
    pub file: File,
    pub bytes: u64,
    /// Why it ends before its time, in a word.
    pub cut: Option<String>,
}

/// What the journal says of an event's clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClipRow {
    NoEvent,
    /// The event has none.
    None,
    /// Its number, of one without a file.
    Named(u64),
    Kept {
        id: u64,
        cut: Option<String>,
    },
}

impl ClipDraft {
    /// Where its bytes go.
    pub fn file(&mut self) -> &mut File {
        &mut self.draft.file
    }

    /// Gives it its name: on the disk when it returns.
    pub fn finish(self, id: u64, cut: Option<&'static str>) -> io::Result<KeptClip> {
        self.draft.file.sync_all()?;
        let bytes = self.draft.file.metadata()?.len();
        self.draft.persist(&format!("{id}{ENDING}"))?;
        self.folder.handle(".")?.sync_all()?;
        Ok(KeptClip { id, bytes, cut })
    }
}

impl ClipFiles {
    /// Those in this data directory; numbers are given above this one.
    pub(super) fn new(data: Folder, last: u64) -> Self {
        Self { data, last: Arc::new(last.into()), pending: Arc::default() }
    }

    pub(super) fn draft(&self) -> io::Result<ClipDraft> {
        let folder = self.data.subfolder(CLIPS)?;
        Ok(ClipDraft { draft: folder.draft()?, folder })
    }

    /// A clip's file, and its bytes.
    fn open(&self, id: u64) -> io::Result<(File, u64)> {
        let file = self.data.read(&format!("{CLIPS}/{id}{ENDING}"))?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    }

    /// Deletes a clip, where it is there.
    pub(super) fn remove(&self, id: u64) -> io::Result<()> {
        self.data.remove(&format!("{CLIPS}/{id}{ENDING}"))
    }

    /// Deletes what a host that was killed has left, of which `is_kept` knows nothing. To be called
    /// before the first clip is begun.
    pub(super) fn sweep(&self, mut is_kept: impl FnMut(u64) -> bool) {
        for name in self.data.names_in(CLIPS).unwrap_or_default() {
            let id = name.strip_suffix(ENDING).and_then(|id| id.parse().ok());
            if !id.is_some_and(&mut is_kept)
                && let Err(error) = self.data.remove(&format!("{CLIPS}/{name}"))
            {
                tracing::warn!(target: "ocelli::journal", "a file that is no clip stays: {error}");
            }
        }
    }

    /// The number of another clip.
    pub(super) fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// It is collected and written no more.
    pub(super) fn settle(&self, id: u64) {
        self.pending.lock().remove(&id);
    }
}

impl EventJournal {
    /// The number of a clip that is collected from now on. Events are to be appended with it, and
    /// [`keep_clip`](Self::keep_clip) or [`lose_clip`](Self::lose_clip) follow.
    pub fn begin_clip(&self) -> u64 {
        let id = self.clips.next();
        self.clips.pending.lock().insert(id);
        id
    }

    /// A file for a clip. An error where the disk has little room: clips are the first that go.
    pub fn clip_draft(&self) -> io::Result<ClipDraft> {
        if let Some(why) = self.shared().state.lock().failing.clone() {
            return Err(io::Error::other(why));
        }
        let reserve = self.shared().keep.lock().reserve_bytes;
        let room = Room::of(self.clips.data.path());
        if reserve > 0 && room.is_some_and(|room| !room.shortage(reserve).is_none()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.clips.draft()
    }

    /// Keeps a clip of events of a session that were appended before.
    pub fn keep_clip(&self, session: &str, clip: KeptClip) {
        let journal = Arc::downgrade(&self.owner.shared);
        let name: Arc<str> = session.into();
        let note = move || {
            if let Some(shared) = journal.upgrade() {
                shared.state.lock().clips.push((name, clip));
                shared.wake.notify_all();
            }
        };
        self.after_pending(session, Box::new(note));
    }

    /// A clip that was begun is not kept.
    pub fn lose_clip(&self, session: &str, id: u64, reason: &str) {
        tracing::warn!(target: "ocelli::clips", session, id, "a clip of events is lost: {reason}");
        self.clips.settle(id);
        self.count_clip(ClipOutcome::Failed);
    }

    /// Counts a clip that there is not.
    pub fn count_clip(&self, outcome: ClipOutcome) {
        let mut metrics = self.shared().metrics.lock();
        match outcome {
            ClipOutcome::Refused => metrics.clips.refused += 1,
            ClipOutcome::Failed => metrics.clips.failed += 1,
        }
    }

    /// The clip of an event.
    pub async fn clip(&self, session: &str, seq: u64) -> Result<ClipState, JournalError> {
        // Before the row is looked for: one that is written meanwhile is found.
        let pending = self.clips.pending.lock().clone();
        let (session, clips) = (session.to_owned(), self.clips.clone());
        let found = self.read(move |connection| {
            Ok(match reader::clip(connection, &session, seq)? {
                ClipRow::NoEvent => Ok(ClipState::NoEvent),
                ClipRow::Named(id) if pending.contains(&id) => Ok(ClipState::Pending),
                ClipRow::None | ClipRow::Named(_) => Ok(ClipState::None),
                ClipRow::Kept { id, cut } => match clips.open(id) {
                    Ok((file, bytes)) => Ok(ClipState::Kept(ClipFile { file, bytes, cut })),
                    // Deleted meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ClipState::None),
                    Err(error) => Err(error),
                },
            })
        });
        found.await?.map_err(JournalError::Attachment)
    }
}
