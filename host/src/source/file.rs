//! Reads a video file for one subscriber, through a process of its own, at the subscriber's speed.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ocelli_protocol::clock;
use ocelli_protocol::ingest::{IngestUnit, Input, StreamInfo};
use ocelli_protocol::worker::{CaptureClock, UnitHeader};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::fault::one_line;
use super::file_error::FileError;
use super::ingest::{Descriptors, IngestItem, IngestLauncher, PictureReader};
use super::nal::PictureInfo;
use super::viewers::PictureTap;
use super::{AccessUnit, SourceEvent, SourceFault};
use crate::config::source::{FileSource, Pace};
use crate::util::folder::{Folder, open_regular};

/// Units read ahead: enough that the disk's delays do not show, few enough to cost no memory.
const READ_AHEAD: usize = 8;

/// Duration assumed for a picture without times: 25 pictures a second.
const ASSUMED_FRAME_NS: i64 = 40_000_000;

/// How long reading the header, the index or the next picture may take: the index of a day's
/// recording on a slow network disk.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// Damaged places of a file that are told. A file with more is given up there.
const MAX_DAMAGE: u64 = 10_000;

/// Most pictures that may be decoded before the one that is shown first: the largest reordering
/// that H.264 and H.265 allow.
const MAX_LEADING: usize = 16;

/// The subscriber's end of the queue of units read ahead.
#[derive(Debug)]
pub(super) struct FileReader {
    pace: Pace,
    items: mpsc::Receiver<FileItem>,
    /// Read, and waiting for its time.
    pending: Option<TimedUnit>,
    /// When the first unit was due.
    started: Option<Instant>,
    lost: Arc<AtomicU64>,
    other_streams: Arc<Mutex<Vec<String>>>,
    pictures: PictureTap,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
enum FileItem {
    Unit(TimedUnit),
    /// Something is missing from here on, in words.
    Damaged(String),
    Failed(SourceFault),
}

#[derive(Debug)]
struct TimedUnit {
    unit: AccessUnit,
    /// Since the first unit.
    due: Duration,
}

impl FileReader {
    /// Starts to read, within a tokio runtime. Faults of the file arrive as an event.
    pub(super) fn start(source: &FileSource, launcher: &IngestLauncher) -> Self {
        let (sender, items) = mpsc::channel(READ_AHEAD);
        let lost = Arc::<AtomicU64>::default();
        let other_streams = Arc::<Mutex<Vec<String>>>::default();
        let task = FileTask {
            source: source.clone(),
            launcher: launcher.clone(),
            sender,
            lost: Arc::clone(&lost),
            other_streams: Arc::clone(&other_streams),
            number: 0,
            restarted: false,
            damage: 0,
        };
        Self {
            pace: source.pace,
            items,
            pending: None,
            started: None,
            lost,
            other_streams,
            pictures: PictureTap::default(),
            _task: AbortOnDropHandle::new(tokio::spawn(task.run())),
        }
    }

    /// Counter of pictures of the file that could not be read.
    pub(super) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    /// Where viewers join.
    pub(super) fn pictures(&self) -> PictureTap {
        self.pictures.clone()
    }

    /// The streams beside the one that is read.
    pub(super) fn other_streams(&self) -> Vec<String> {
        self.other_streams.lock().clone()
    }

    /// The next event; cancel-safe.
    pub(super) async fn next(&mut self) -> SourceEvent {
        loop {
            if let Some(pending) = &self.pending {
                if self.pace == Pace::Realtime {
                    let started = *self.started.get_or_insert_with(Instant::now);
                    sleep_until(started + pending.due).await;
                }
                if let Some(TimedUnit { mut unit, .. }) = self.pending.take() {
                    unit.header.received_ns = clock::monotonic_ns();
                    let unit = Arc::new(unit);
                    self.pictures.unit(&unit);
                    return SourceEvent::Unit(unit);
                }
            }
            match self.items.recv().await {
                Some(FileItem::Unit(unit)) => {
                    let is_first = unit.unit.header.number == 0;
                    self.pending = Some(unit);
                    if is_first {
                        return SourceEvent::Up;
                    }
                }
                Some(FileItem::Damaged(reason)) => return SourceEvent::Damaged(reason),
                Some(FileItem::Failed(fault)) => return SourceEvent::Down(fault),
                None => return SourceEvent::Ended,
            }
        }
    }
}

/// Why reading stops before the end.
enum ReadStop {
    /// The subscriber has gone.
    Unwanted,
    Failed(FileError),
}

impl From<FileError> for ReadStop {
    fn from(cause: FileError) -> Self {
        Self::Failed(cause)
    }
}

/// Reads the file, again and again if it is to repeat.
struct FileTask {
    source: FileSource,
    launcher: IngestLauncher,
    sender: mpsc::Sender<FileItem>,
    lost: Arc<AtomicU64>,
    other_streams: Arc<Mutex<Vec<String>>>,
    /// The next unit's number.
    number: u64,
    /// The next unit is the first of a repetition.
    restarted: bool,
    /// Damaged places so far.
    damage: u64,
}

impl FileTask {
    async fn run(mut self) {
        match self.read().await {
            Ok(()) => debug!(target: "ocelli::source", source = %self.source, "at its end"),
            Err(ReadStop::Unwanted) => {
                debug!(target: "ocelli::source", source = %self.source, "no longer wanted")
            }
            Err(ReadStop::Failed(cause)) => {
                let fault = SourceFault::file(&self.source, cause);
                warn!(target: "ocelli::source", kind = fault.kind.code(), "{fault}");
                // It fails if the subscriber is gone, which no longer needs the fault.
                let _ = self.sender.send(FileItem::Failed(fault)).await;
            }
        }
    }

    async fn read(&mut self) -> Result<(), ReadStop> {
        let mut shift_ns = 0_i64;
        loop {
            let (process, stream) = self.open().await?;
            self.other_streams.lock().clone_from(&stream.left_out);
            let mut timeline = Timeline::new(shift_ns);
            let is_whole = self.pass(process, &stream, &mut timeline).await?;
            if self.number == 0 {
                return Err(FileError::NoPictures.into());
            }
            // A reader that failed in the middle would fail there again.
            if !self.source.repeat || !is_whole {
                return Ok(());
            }
            shift_ns = shift_ns.saturating_add(timeline.duration_ns());
            self.restarted = true;
        }
    }

    async fn open(&self) -> Result<(super::ingest::IngestProcess, StreamInfo), FileError> {
        let source = self.source.clone();
        let opened = tokio::task::spawn_blocking(move || open_file(&source)).await;
        let file = opened.map_err(|error| FileError::Open(error.into()))??;
        let descriptors = Descriptors::of_file(file).map_err(FileError::Open)?;
        let text = |name: Option<&std::ffi::OsStr>| {
            name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let name = text(self.source.path.file_name());
        let input = Input::File { ending: text(self.source.path.extension()).to_ascii_lowercase() };
        Ok(self.launcher.open(&name, input, descriptors, READ_LIMIT).await?)
    }

    /// Reads the file once. Whether it came to the file's end.
    async fn pass(
        &mut self,
        mut process: super::ingest::IngestProcess,
        stream: &StreamInfo,
        timeline: &mut Timeline,
    ) -> Result<bool, ReadStop> {
        let mut pictures = PictureReader::new(stream);
        let before = self.number;
        let is_whole = loop {
            match process.next(READ_LIMIT).await {
                Ok(IngestItem::Unit(unit, _)) if unit.corrupt => {
                    self.lose(1, "a picture is incomplete").await?;
                }
                Ok(IngestItem::Unit(unit, data)) => {
                    if let Some((picture, data)) = pictures.read(&unit, data) {
                        for placed in timeline.place(FilePicture { unit, picture, data }) {
                            self.send(stream, &pictures, placed).await?;
                        }
                    }
                }
                Ok(IngestItem::Damage(_)) if self.damage >= MAX_DAMAGE => break false,
                Ok(IngestItem::Damage(damage)) => {
                    self.lose(damage.pictures, &damage.reason).await?;
                }
                Ok(IngestItem::Alive) => {}
                Ok(IngestItem::Ended) => break true,
                // What was read plays up to here.
                Err(error) if self.number > before || timeline.has_pictures() => {
                    self.lose(0, &FileError::from(error).to_string()).await?;
                    break false;
                }
                Err(error) => return Err(FileError::from(error).into()),
            }
        };
        for placed in timeline.settle() {
            self.send(stream, &pictures, placed).await?;
        }
        Ok(is_whole)
    }

    /// Notes a loss. The log has the first.
    async fn lose(&mut self, pictures: u64, reason: &str) -> Result<(), ReadStop> {
        self.lost.fetch_add(pictures, Ordering::Relaxed);
        let text = format!("{}: {}", self.source, one_line(reason));
        self.damage += 1;
        if self.damage == 1 {
            warn!(target: "ocelli::source", pictures, "{text}");
        }
        self.sender.send(FileItem::Damaged(text)).await.map_err(|_| ReadStop::Unwanted)
    }

    async fn send(
        &mut self,
        stream: &StreamInfo,
        pictures: &PictureReader,
        placed: PlacedPicture,
    ) -> Result<(), ReadStop> {
        let PlacedPicture { picture: FilePicture { unit, picture, data }, shown_ns, due_ns } =
            placed;
        let assumed_ns =
            i64::try_from(self.number).unwrap_or(i64::MAX).saturating_mul(ASSUMED_FRAME_NS);
        let due_ns = due_ns.unwrap_or(assumed_ns);
        let header = UnitHeader {
            number: self.number,
            codec: pictures.codec(),
            key: picture.key,
            disposable: picture.disposable,
            // The decoder must not take the repetition for a continuation of the end.
            discontinuity: std::mem::take(&mut self.restarted),
            presentation_ns: shown_ns,
            capture_ns: u64::try_from(shown_ns.unwrap_or(due_ns)).unwrap_or_default(),
            capture_clock: CaptureClock::Host,
            orientation: stream.orientation,
            hidden: unit.hidden,
            // Set when the unit is handed over: before that it waits for its subscriber.
            received_ns: 0,
        };
        self.number += 1;
        let due = Duration::from_nanos(u64::try_from(due_ns).unwrap_or_default());
        let unit = TimedUnit { unit: AccessUnit { header, data }, due };
        self.sender.send(FileItem::Unit(unit)).await.map_err(|_| ReadStop::Unwanted)
    }
}

/// Opens a video file for reading. One that a subscriber named is resolved by the kernel beneath
/// the folder that the operator admits: neither `..`, a link nor a folder that is exchanged
/// meanwhile leads out. Nothing is opened that could block: a pipe waits for its writer.
fn open_file(source: &FileSource) -> Result<File, FileError> {
    let opened = match &source.beneath {
        None => open_regular(&source.path),
        Some(folder) => Folder::open(folder).and_then(|opened| {
            opened.read_linked(source.path.strip_prefix(folder).map_err(io::Error::other)?)
        }),
    };
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => FileError::NotAFile,
        _ => FileError::Open(error),
    })
}

/// A picture as it was read.
#[derive(Debug)]
struct FilePicture {
    unit: IngestUnit,
    picture: PictureInfo,
    data: Bytes,
}

/// A picture with its place in time.
#[derive(Debug)]
struct PlacedPicture {
    picture: FilePicture,
    /// Since the first picture shown, repetitions before it included, in nanoseconds.
    shown_ns: Option<i64>,
    /// Since the first picture decoded, likewise. `None` if the container has no times.
    due_ns: Option<i64>,
}

/// Counts the times of one reading of the file from its first picture on. Which that is shows only
/// when those before it in decoding order are known.
#[derive(Debug)]
struct Timeline {
    /// Where this reading begins.
    shift_ns: i64,
    /// Times of the first picture shown and of the first one decoded, once they are known.
    origin: Option<(i64, i64)>,
    waiting: Vec<FilePicture>,
    /// Of the pictures so far, from the origin on.
    latest_ns: i64,
    pictures: i64,
}

impl Timeline {
    fn new(shift_ns: i64) -> Self {
        Self { shift_ns, origin: None, waiting: Vec::new(), latest_ns: 0, pictures: 0 }
    }

    fn has_pictures(&self) -> bool {
        self.pictures > 0 || !self.waiting.is_empty()
    }

    /// Takes a picture in, and gives out those whose place is known.
    fn place(&mut self, picture: FilePicture) -> Vec<PlacedPicture> {
        let has_time = picture.unit.presentation_ns.is_some();
        self.waiting.push(picture);
        if self.origin.is_some() || !has_time || self.waiting.len() > MAX_LEADING {
            self.settle()
        } else {
            Vec::new()
        }
    }

    /// Gives out those that wait.
    fn settle(&mut self) -> Vec<PlacedPicture> {
        let waiting = std::mem::take(&mut self.waiting);
        let shown = waiting.iter().filter(|picture| !picture.unit.hidden);
        let first = shown.filter_map(|picture| picture.unit.presentation_ns).min();
        let first = first.or_else(|| waiting.iter().find_map(|p| p.unit.presentation_ns));
        if let (None, Some(first)) = (self.origin, first) {
            let decoded = waiting.iter().find_map(|picture| picture.unit.decoding_ns);
            self.origin = Some((first, decoded.unwrap_or(first)));
        }
        waiting.into_iter().map(|picture| self.place_one(picture)).collect()
    }

    fn place_one(&mut self, picture: FilePicture) -> PlacedPicture {
        let since = |time: Option<i64>, origin: i64| time.map(|time| time.saturating_sub(origin));
        let (shown, decoded) = self.origin.unwrap_or_default();
        let shown_ns = since(picture.unit.presentation_ns, shown);
        let due_ns = since(picture.unit.decoding_ns, decoded);
        self.latest_ns = self.latest_ns.max(shown_ns.unwrap_or_default());
        self.pictures += 1;
        // Without a decoding time none is due before those shown so far.
        let due_ns = due_ns.or(shown_ns.map(|_| self.latest_ns));
        let shift = |time: i64| time.saturating_add(self.shift_ns);
        PlacedPicture { picture, shown_ns: shown_ns.map(shift), due_ns: due_ns.map(shift) }
    }

    /// Of this reading, in nanoseconds. The last picture lasts the average of the others; a single
    /// one a 25th of a second.
    fn duration_ns(&self) -> i64 {
        let frame = self.latest_ns.checked_div(self.pictures.saturating_sub(1));
        let frame = frame.filter(|frame| *frame > 0).unwrap_or(ASSUMED_FRAME_NS);
        self.latest_ns.saturating_add(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::Mode;
    use std::path::Path;

    fn picture(shown: Option<i64>, decoded: Option<i64>, hidden: bool) -> FilePicture {
        let unit = IngestUnit {
            key: true,
            corrupt: false,
            hidden,
            presentation_ns: shown,
            decoding_ns: decoded,
            capture_ns: None,
        };
        let picture = PictureInfo { key: true, disposable: false, whole: true, unmarked: false };
        FilePicture { unit, picture, data: Bytes::new() }
    }

    fn times(
        timeline: &mut Timeline,
        pictures: Vec<FilePicture>,
    ) -> Vec<(Option<i64>, Option<i64>)> {
        let mut placed: Vec<_> =
            pictures.into_iter().flat_map(|picture| timeline.place(picture)).collect();
        placed.extend(timeline.settle());
        placed.iter().map(|placed| (placed.shown_ns, placed.due_ns)).collect()
    }

    #[test]
    fn times_count_from_the_picture_that_is_shown_first() {
        let pictures = [(80, 0), (40, 40), (120, 80)]
            .map(|(shown, decoded)| picture(Some(shown + 1000), Some(decoded), false));
        let mut timeline = Timeline::new(7);
        let times = times(&mut timeline, pictures.into());
        assert_eq!(times, [(40, 0), (0, 40), (80, 80)].map(|(a, b)| (Some(a + 7), Some(b + 7))));
        assert_eq!(timeline.duration_ns(), 120);
    }

    #[test]
    fn hidden_pictures_lie_before_the_first_that_is_shown() {
        let pictures = vec![picture(Some(0), Some(0), true), picture(Some(40), Some(40), false)];
        let times = times(&mut Timeline::new(0), pictures);
        assert_eq!(times, [(Some(-40), Some(0)), (Some(0), Some(40))]);
    }

    #[test]
    fn without_times_nothing_waits_and_nothing_is_said() {
        let mut timeline = Timeline::new(0);
        assert_eq!(timeline.place(picture(None, None, false)).len(), 1);
        assert_eq!(times(&mut timeline, vec![picture(None, None, false)]), [(None, None)]);
    }

    #[test]
    fn a_folder_and_a_pipe_are_no_files() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| open_file(&file(path, None));
        assert!(matches!(open(folder.path()), Err(FileError::NotAFile)));
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RWXU).unwrap();
        assert!(matches!(open(&pipe), Err(FileError::NotAFile)));
        assert!(matches!(open(Path::new("/dev/null")), Err(FileError::NotAFile)));
        assert!(matches!(open(&folder.path().join("none")), Err(FileError::Open(_))));
    }

    fn file(path: &Path, beneath: Option<&Path>) -> FileSource {
        let beneath = beneath.map(Path::to_owned);
        FileSource { path: path.to_owned(), pace: Pace::default(), repeat: false, beneath }
    }

    #[test]
    fn a_subscriber_reaches_regular_files_beneath_the_admitted_folder_alone() {
        let site = tempfile::tempdir().unwrap();
        let folder = site.path().join("clips");
        let at = |name: &str| folder.join(name);
        std::fs::create_dir_all(at("day")).unwrap();
        std::fs::write(site.path().join("secret.mp4"), "secret").unwrap();
        std::fs::write(at("day/a.mp4"), "picture").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), Mode::RWXU).unwrap();
        for (target, link) in [
            ("day/a.mp4", "inside"),
            ("../secret.mp4", "outside"),
            ("/dev/null", "device"),
            ("/proc/self/fd/0", "magic"),
            ("..", "up"),
            ("loop", "loop"),
        ] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        let open = |name: &str| open_file(&file(&at(name), Some(&folder)));
        for good in ["day/a.mp4", "inside", "day/../inside"] {
            assert!(open(good).is_ok(), "{good}");
        }
        for name in
            ["outside", "device", "magic", "up/secret.mp4", "../secret.mp4", "loop", "day/../../x"]
        {
            assert!(matches!(open(name), Err(FileError::Open(_))), "{name}");
        }
        for name in ["pipe", "day", "day/.."] {
            assert!(matches!(open(name), Err(FileError::NotAFile)), "{name}");
        }
        // Of any place, only what lies in the folder.
        let elsewhere = file(&site.path().join("secret.mp4"), Some(&folder));
        assert!(matches!(open_file(&elsewhere), Err(FileError::Open(_))));
    }
}
