//! Sources of access units: RTSP cameras and video files.
//!
//! A **live source** has one reader, whatever the number of subscribers, so that two sessions on a
//! camera share its connection. The reader starts with the first subscription and ends with the
//! last. Each subscriber has a queue of its own with a bound; a slow one loses units up to the next
//! key unit, which is marked, and others are not affected. A new subscriber gets the current GOP
//! first, then all further units, without gap or duplicate.
//!
//! A **file** has a reader for each subscription, which waits for its subscriber: nothing is ever
//! skipped, and no subscriber waits for another. It runs in a process of its own ([`ingest`]).
//!
//! A live source has one of two readers at a time, which [`choice`] decides: retina or libavformat.
//! Both run in a process of their own for each camera, because neither bounds what a camera makes
//! it keep: an answer, a header or a picture that never ends would fill the host, and with it every
//! other camera. Such a process costs 1 to 2 MB of PSS (retina) and a fraction of a percent of a core.
//! A relay in the host that counts bytes before the library sees them would cost as much time,
//! would have to rewrite requests, because the library connects by itself, and would still parse
//! hostile text here. What the host takes from a process is bounded in bytes: a picture, the cache
//! of the GOP, the queue of each subscriber.
//!
//! A reader's units also go to the [`viewers`] of its sessions, for whom they are not decoded. Where
//! a session analyses another stream of its camera, [`timeline`] brings the times of both together.
//! Where the config has it, [`clips`] of events are made of the same units.
//!
//! ```text
//! rtsp | ingest::camera --picture--> delivery: gate, timing --unit--> fanout --> Subscription
//! ingest::pictures --picture--> file: pace, bounded channel --unit-------------> Subscription
//!                                                  fanout | file --unit--> PictureTap --> Viewer, clip
//! ```

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ocelli_protocol::worker::UnitHeader;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::config::Config;
use crate::config::source::{ReaderSetting, RtspSource, Source};
use crate::journal::Journal;

mod camera;
mod choice;
mod clips;
mod delivery;
mod fanout;
mod fault;
mod file;
mod file_error;
mod gop;
mod ingest;
mod key_frame_gate;
mod nal;
mod packet_flaws;
mod retry;
mod rtsp;
mod silence;
mod timeline;
mod timing;
mod viewers;

pub use choice::{ReaderKind, ReaderStatus, ReaderView};
pub use clips::{ClipRecorder, Clips};
pub use fault::{SourceFault, SourceFaultKind, SourceStep};
pub use timeline::{Alignment, StreamTimeline};
pub use viewers::{
    FeedChange, PictureFeed, PictureFeedOwner, PictureTap, ViewedPicture, Viewer, ViewerChoice,
    ViewerCounts, ViewerGroup,
};

#[doc(hidden)]
pub use nal::assemble_units;

use camera::CameraServices;
use fanout::{Fanout, FanoutSubscriber};
use file::FileReader;
use ingest::{Admitted, IngestLauncher};

/// One coded picture with its metadata.
///
/// For a file, the wall-clock time in the header is the presentation time counted from 1970-01-01,
/// and of a raw stream, which has no times, the unit's number at 25 pictures a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// Its place, times and codec.
    pub header: UnitHeader,
    /// Its bytes, as [`Codec`](ocelli_protocol::worker::Codec) describes them.
    pub data: Bytes,
}

/// An event for a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// The next access unit, in decoding order.
    Unit(Arc<AccessUnit>),
    /// The source delivers from now on.
    Up,
    /// The source delivers nothing. A live source is tried again by itself, and [`SourceEvent::Up`]
    /// follows when it is back; another `Down` when the reason has changed.
    Down(SourceFault),
    /// A part of a file cannot be read, and why. What can be follows.
    Damaged(String),
    /// A file is at its end. Nothing else follows.
    Ended,
}

/// How sources are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceSettings {
    /// How long a live stream may go without a picture before its connection is given up. Cameras
    /// send at least one a second; 4 s notices a frozen one soon and bears a congested network.
    pub silence_limit: Duration,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self { silence_limit: Duration::from_secs(4) }
    }
}

/// The programs that read sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderPrograms {
    /// Path of `ocelli-rtsp`, which reads a camera by the standards.
    pub strict: PathBuf,
    /// Path of `ocelli-ingest`, which reads files and some cameras.
    pub compatible: PathBuf,
}

impl ReaderPrograms {
    /// Those in the folder of another program.
    pub fn beside(program: &Path) -> Self {
        let find = |name: &str| program.with_file_name(name);
        Self { strict: find("ocelli-rtsp"), compatible: find("ocelli-ingest") }
    }
}

/// The registry of readers. Clones are the same registry.
#[derive(Clone)]
pub struct Sources {
    inner: Arc<SourcesInner>,
}

struct SourcesInner {
    settings: SourceSettings,
    ingest: IngestLauncher,
    journal: Journal,
    admitted: Admitted,
    /// Sources that subscribers name may have the compatible reader.
    compatible: AtomicBool,
    readers: Mutex<HashMap<RtspSource, LiveReader>>,
}

/// The one reader of a live source.
struct LiveReader {
    fanout: Arc<Fanout>,
    view: ReaderView,
    task: AbortHandle,
    subscriptions: usize,
}

impl Sources {
    /// A registry without readers. `journal` remembers which reader plays which camera.
    pub fn new(programs: ReaderPrograms, journal: Journal, config: &Config) -> Self {
        let inner = SourcesInner {
            settings: SourceSettings::default(),
            ingest: IngestLauncher::new(programs, config.session_processes.sandbox),
            journal,
            admitted: Admitted::default(),
            compatible: AtomicBool::default(),
            readers: Mutex::default(),
        };
        let sources = Self { inner: Arc::new(inner) };
        sources.apply_config(config);
        sources
    }

    /// Takes another config over: for processes and readers that start from now on, and for where
    /// subscribers' cameras may lead at once.
    pub fn apply_config(&self, config: &Config) {
        self.inner.ingest.set_sandbox(config.session_processes.sandbox);
        *self.inner.admitted.lock() = config.subscriptions.sources.clone().into();
        self.inner.compatible.store(config.subscriptions.compatible, Ordering::Relaxed);
    }

    /// Subscribes to a source, whose reader starts if this is the first subscription. Faults of the
    /// source arrive as [`SourceEvent::Down`].
    ///
    /// To be called within a tokio runtime, which the reader then runs in.
    pub fn subscribe(&self, source: &Source) -> Subscription {
        let feed = match source {
            Source::Rtsp(source) => SubscriptionFeed::Live(self.join(source)),
            Source::File(source) => {
                SubscriptionFeed::File(FileReader::start(source, &self.inner.ingest))
            }
        };
        Subscription { feed }
    }

    /// How many live sources are being read.
    pub fn live_readers(&self) -> usize {
        self.inner.readers.lock().len()
    }

    fn join(&self, source: &RtspSource) -> LiveFeed {
        let mut readers = self.inner.readers.lock();
        // A subscriber may see what a configured camera shows, by whichever reader that has.
        let configured =
            readers.keys().find(|known| source.is_subscribers && known.is_same_stream(source));
        let source = configured.unwrap_or(source).clone();
        let reader = readers.entry(source.clone()).or_insert_with(|| {
            let fanout = Arc::new(Fanout::default());
            let view = ReaderView::default();
            let (source, to) = (source.clone(), Arc::clone(&fanout));
            let reading = camera::run(source.clone(), to, view.clone(), self.services(&source));
            let task = tokio::spawn(reading);
            LiveReader { fanout, view, task: task.abort_handle(), subscriptions: 0 }
        });
        reader.subscriptions += 1;
        let (member, view) = (reader.fanout.join(), reader.view.clone());
        LiveFeed { member, view, _lease: ReaderLease { inner: Arc::clone(&self.inner), source } }
    }

    fn services(&self, source: &RtspSource) -> CameraServices {
        let inner = &self.inner;
        let may_choose = !source.is_subscribers || inner.compatible.load(Ordering::Relaxed);
        CameraServices {
            settings: inner.settings,
            setting: if may_choose { source.reader } else { ReaderSetting::Strict },
            launcher: inner.ingest.clone(),
            admitted: Arc::clone(&inner.admitted),
            journal: inner.journal.clone(),
        }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

/// A subscriber's view of a source. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    feed: SubscriptionFeed,
}

#[derive(Debug)]
enum SubscriptionFeed {
    Live(LiveFeed),
    File(FileReader),
}

#[derive(Debug)]
struct LiveFeed {
    member: FanoutSubscriber,
    view: ReaderView,
    _lease: ReaderLease,
}

impl Subscription {
    /// The next event. Cancel-safe: a call that is given up loses nothing. After
    /// [`SourceEvent::Ended`] it answers `Ended` again.
    pub async fn next(&mut self) -> SourceEvent {
        match &mut self.feed {
            SubscriptionFeed::Live(live) => live.member.next().await,
            SubscriptionFeed::File(file) => file.next().await,
        }
    }

    /// Counter of units dropped because this subscriber was too slow. Stays 0 for a file.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        match &self.feed {
            SubscriptionFeed::Live(live) => live.member.dropped(),
            SubscriptionFeed::File(_) => Arc::default(),
        }
    }

    /// Where viewers join.
    pub fn pictures(&self) -> PictureTap {
        match &self.feed {
            SubscriptionFeed::Live(live) => live.member.pictures(),
            SubscriptionFeed::File(file) => file.pictures(),
        }
    }

    /// The reader of a camera, at any time.
    pub fn reader(&self) -> ReaderView {
        match &self.feed {
            SubscriptionFeed::Live(live) => live.view.clone(),
            SubscriptionFeed::File(_) => ReaderView::default(),
        }
    }

    /// The streams that are left out, each in a word or two, once the source is open: "audio aac".
    pub fn other_streams(&self) -> Vec<String> {
        match &self.feed {
            SubscriptionFeed::Live(live) => live.member.other_streams(),
            SubscriptionFeed::File(file) => file.other_streams(),
        }
    }

    /// Counter of pictures of a file that could not be read. Stays 0 for a live source.
    pub fn lost(&self) -> Arc<AtomicU64> {
        match &self.feed {
            SubscriptionFeed::Live(_) => Arc::default(),
            SubscriptionFeed::File(file) => file.lost(),
        }
    }
}

/// Keeps a reader running.
struct ReaderLease {
    inner: Arc<SourcesInner>,
    source: RtspSource,
}

impl Drop for ReaderLease {
    fn drop(&mut self) {
        let mut readers = self.inner.readers.lock();
        let Some(reader) = readers.get_mut(&self.source) else { return };
        reader.subscriptions -= 1;
        if reader.subscriptions == 0 {
            reader.task.abort();
            readers.remove(&self.source);
        }
    }
}

impl fmt::Debug for ReaderLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.source).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ocelli_protocol::worker::{CaptureClock, Codec, Orientation};

    use super::*;

    /// An access unit with a number and `size` bytes; what the other fields hold plays no part.
    pub(crate) fn unit(number: u64, key: bool, size: usize) -> Arc<AccessUnit> {
        let header = UnitHeader {
            number,
            codec: Codec::H264,
            key,
            disposable: false,
            discontinuity: false,
            presentation_ns: None,
            capture_ns: 0,
            capture_clock: CaptureClock::default(),
            orientation: Orientation::default(),
            hidden: false,
            received_ns: 0,
        };
        Arc::new(AccessUnit { header, data: Bytes::from(vec![0; size]) })
    }
}
