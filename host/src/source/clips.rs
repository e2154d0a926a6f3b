//! Clips around events: the access units of the seconds before and after, written as they came.
//!
//! # Theory of operation
//!
//! Each session has a [`ClipRecorder`]. Where the config has clips of it, a ring ([`ring`]) hears
//! every unit of the tap at which its viewers join, so a clip shows what viewers see: the main
//! stream of a camera whose substream is analysed, which is read for it all the time. A ring holds
//! references to units that other queues hold too, bounded in bytes and in time; without clips it
//! is empty.
//!
//! An event that a pipeline tells of a frame has a clip from the last key picture that is at least
//! `clip_before_s` before the frame, to `clip_after_s` after it. Events of a session that follow
//! each other share one clip, up to twice as long; then another begins. So a session collects two
//! clips at once, and a few more where events come late; what all sessions collect has one budget
//! of bytes.
//!
//! A clip ends early where what follows does not continue it: the source is down, the parameter
//! sets change, times jump, it is too large. It says so. One thread writes the files ([`mp4`]),
//! beside all that is in a hurry, and the journal keeps them
//! ([`EventJournal::keep_clip`](crate::journal::events::EventJournal::keep_clip)).
//!
//! A host that ends loses the clips that are being collected; their events have none then.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::AccessUnit;
use super::viewers::{PictureTap, ViewerCounts};
use crate::config::Config;
use crate::journal::events::{ClipOutcome, EventJournal, KeptClip};
use mp4::MuxError;
use ring::{ClipBudget, ClipRing, ClipTerms, CollectedClip, Cut, Refused};

mod mp4;
mod parameters;
mod ring;

/// Bytes that are collected for all clips together: of 40 cameras of 4 Mbit/s with a clip of ten
/// seconds each at once.
const MAX_COLLECTED_BYTES: usize = 256 << 20;

/// Clips that may wait for the thread that writes them: their bytes are in the budget, so this
/// bounds small ones alone.
const QUEUE: usize = 256;

/// Bytes that are written to a file at once.
const WRITTEN_BYTES: usize = 256 << 10;

/// The clips of the host. Clones are the same.
#[derive(Clone)]
pub struct Clips {
    inner: Arc<ClipsInner>,
}

struct ClipsInner {
    journal: EventJournal,
    writer: mpsc::Sender<WaitingClip>,
    settings: Mutex<ClipSettings>,
    recorders: Mutex<Vec<Weak<RecorderInner>>>,
    collected: Arc<CollectedBytes>,
}

/// What the config says of clips.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ClipSettings {
    terms: Option<ClipTerms>,
    /// The sessions that they are about. Empty: each.
    only: Vec<String>,
}

/// A clip that waits for the thread that writes it.
struct WaitingClip {
    session: Arc<str>,
    clip: CollectedClip,
    _bytes: CollectedGuard,
}

/// Bytes that clips take until they are written.
#[derive(Debug, Default)]
struct CollectedBytes(AtomicUsize);

/// Gives bytes back.
struct CollectedGuard(Arc<CollectedBytes>, usize);

impl ClipBudget for CollectedBytes {
    fn take(&self, bytes: usize) -> bool {
        let take =
            |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= MAX_COLLECTED_BYTES);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

impl Drop for CollectedGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Clips {
    /// Starts the thread that writes clips. It ends with the last clone and the last recorder.
    pub fn start(journal: EventJournal, config: &Config) -> Self {
        let (writer, waiting) = mpsc::channel(QUEUE);
        let keeping = journal.clone();
        let thread = std::thread::Builder::new().name("clips".to_owned());
        if let Err(error) = thread.spawn(move || write_all(waiting, &keeping)) {
            // Clips that nobody takes are refused.
            tracing::error!(target: "ocelli::clips", "clips cannot be written: {error}");
        }
        let inner = ClipsInner {
            journal,
            writer,
            settings: Mutex::new(config.into()),
            recorders: Mutex::default(),
            collected: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes another config over at once.
    pub fn apply_config(&self, config: &Config) {
        let settings = ClipSettings::from(config);
        *self.inner.settings.lock() = settings.clone();
        for recorder in self.inner.recorders.lock().iter().filter_map(Weak::upgrade) {
            recorder.set_terms(settings.of(&recorder.session));
        }
    }

    /// The recorder of a session whose pictures `viewing` counts the viewers of.
    pub fn recorder(&self, session: &str, viewing: Arc<ViewerCounts>) -> ClipRecorder {
        let recorder = Arc::new(RecorderInner {
            session: session.into(),
            clips: Arc::clone(&self.inner),
            viewing,
            ring: Mutex::new(ClipRing::new(None)),
        });
        let mut recorders = self.inner.recorders.lock();
        recorders.retain(|recorder| recorder.strong_count() > 0);
        recorders.push(Arc::downgrade(&recorder));
        drop(recorders);
        // Held: a config that comes meanwhile is not overwritten by the one before.
        let settings = self.inner.settings.lock();
        recorder.set_terms(settings.of(session));
        drop(settings);
        ClipRecorder { inner: recorder, tap: None }
    }
}

impl std::fmt::Debug for Clips {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Clips").finish_non_exhaustive()
    }
}

impl From<&Config> for ClipSettings {
    fn from(config: &Config) -> Self {
        let events = &config.events;
        let ns =
            |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        let terms = ClipTerms { before: ns(events.clip_before_s), after: ns(events.clip_after_s) };
        Self { terms: events.clips.then_some(terms), only: events.clip_cameras.clone() }
    }
}

impl ClipSettings {
    fn of(&self, session: &str) -> Option<ClipTerms> {
        let is_meant = self.only.is_empty() || self.only.iter().any(|only| only == session);
        self.terms.filter(|_| is_meant)
    }
}

/// Records the clips of one session. What it has collected is kept when it is dropped.
#[derive(Debug)]
pub struct ClipRecorder {
    inner: Arc<RecorderInner>,
    tap: Option<PictureTap>,
}

/// A recorder as its tap and the config know it.
pub(super) struct RecorderInner {
    session: Arc<str>,
    clips: Arc<ClipsInner>,
    viewing: Arc<ViewerCounts>,
    ring: Mutex<ClipRing>,
}

impl std::fmt::Debug for RecorderInner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Recorder").field("session", &self.session).finish_non_exhaustive()
    }
}

impl ClipRecorder {
    /// Moves to the tap at which viewers join, unless it is there.
    pub fn follow(&mut self, tap: PictureTap) {
        if self.tap.as_ref().is_some_and(|known| known.is_same(&tap)) {
            return;
        }
        self.leave();
        tap.join_recorder(&self.inner);
        self.tap = Some(tap);
    }

    /// An event in the picture with this presentation time. Its clip's number; `None`: it has none.
    pub fn event(&self, presentation_ns: i64) -> Option<u64> {
        self.inner.event(presentation_ns)
    }

    fn leave(&mut self) {
        if let Some(tap) = self.tap.take() {
            tap.leave_recorder(&self.inner);
            self.inner.end();
        }
    }
}

impl Drop for ClipRecorder {
    fn drop(&mut self) {
        self.leave();
        // The main stream need not be read for it.
        self.inner.set_terms(None);
    }
}

impl RecorderInner {
    /// The next unit, in decoding order.
    pub(super) fn unit(&self, unit: &Arc<AccessUnit>) {
        let mut ring = self.ring.lock();
        let ended = ring.unit(unit, &*self.clips.collected);
        self.viewing.set_clip_bytes(ring.bytes());
        drop(ring);
        self.hand_over(ended);
    }

    /// What follows does not continue the units before.
    pub(super) fn end(&self) {
        let ended = self.ring.lock().end(Cut::SourceEnded);
        self.viewing.set_clip_bytes(0);
        self.hand_over(ended);
    }

    fn event(&self, presentation_ns: i64) -> Option<u64> {
        let journal = &self.clips.journal;
        let begin = || journal.begin_clip();
        let found = self.ring.lock().event(presentation_ns, begin, &*self.clips.collected);
        match found {
            Ok(id) => Some(id),
            Err(Refused::Off) => None,
            Err(Refused::NoPictures | Refused::Memory) => {
                journal.count_clip(ClipOutcome::Refused);
                None
            }
        }
    }

    fn set_terms(&self, terms: Option<ClipTerms>) {
        let mut ring = self.ring.lock();
        let ended = ring.set_terms(terms);
        self.viewing.set_recorded(terms.is_some());
        self.viewing.set_clip_bytes(ring.bytes());
        drop(ring);
        self.hand_over(ended);
    }

    /// Gives clips to the thread that writes them.
    fn hand_over(&self, ended: impl IntoIterator<Item = CollectedClip>) {
        for clip in ended {
            let (id, session) = (clip.id, Arc::clone(&self.session));
            let bytes = CollectedGuard(Arc::clone(&self.clips.collected), clip.bytes);
            let waiting = WaitingClip { session, clip, _bytes: bytes };
            if self.clips.writer.try_send(waiting).is_err() {
                let reason = "too many clips wait to be written";
                self.clips.journal.lose_clip(&self.session, id, reason);
            }
        }
    }
}

/// Writes clips until the last recorder is gone.
fn write_all(mut waiting: mpsc::Receiver<WaitingClip>, journal: &EventJournal) {
    while let Some(WaitingClip { session, clip, _bytes }) = waiting.blocking_recv() {
        let (id, begun) = (clip.id, Instant::now());
        match write(&clip, journal) {
            Ok(kept) => {
                let (pictures, took) = (clip.units.len(), begun.elapsed());
                tracing::debug!(target: "ocelli::clips", %session, id, pictures, ?took, "written");
                journal.keep_clip(&session, kept);
            }
            Err(error) => journal.lose_clip(&session, id, &error.to_string()),
        }
    }
}

fn write(clip: &CollectedClip, journal: &EventJournal) -> Result<KeptClip, MuxError> {
    let mut draft = journal.clip_draft()?;
    let mut out = std::io::BufWriter::with_capacity(WRITTEN_BYTES, draft.file());
    mp4::write(&clip.units, &clip.sets, &mut out)?;
    out.flush()?;
    drop(out);
    Ok(draft.finish(clip.id, clip.cut.map(Into::into))?)
}

#[cfg(test)]
mod tests;
