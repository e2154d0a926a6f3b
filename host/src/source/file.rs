//! Reads a video file for one subscriber, on its own thread, at the subscriber's speed.

use std::ffi::OsStr;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ocelli_protocol::clock;
use ocelli_protocol::worker::{CaptureClock, Orientation, UnitHeader};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::annexb::AnnexB;
use super::file_error::FileError;
use super::mp4::{ASSUMED_FRAME_NS, Mp4File};
use super::nal::{Assembler, NalCodec, PictureInfo};
use super::{AccessUnit, SourceEvent, SourceFault};
use crate::config::source::{FileSource, Pace};

/// Units read ahead: enough that the disk's delays do not show, few enough to cost no memory.
const READ_AHEAD: usize = 8;
/// The container for each ending of a file's name.
const ENDINGS: [(&str, Container); 7] = [
    ("mp4", Container::Mp4),
    ("m4v", Container::Mp4),
    ("h264", Container::Raw(NalCodec::H264)),
    ("264", Container::Raw(NalCodec::H264)),
    ("h265", Container::Raw(NalCodec::H265)),
    ("265", Container::Raw(NalCodec::H265)),
    ("hevc", Container::Raw(NalCodec::H265)),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    Mp4,
    Raw(NalCodec),
}

/// The subscriber's end of the queue of units read ahead.
#[derive(Debug)]
pub(super) struct FileReader {
    pace: Pace,
    items: mpsc::Receiver<FileItem>,
    /// Read, and waiting for its time.
    pending: Option<TimedUnit>,
    /// When the first unit was due.
    started: Option<Instant>,
}

#[derive(Debug)]
enum FileItem {
    Unit(TimedUnit),
    Failed(SourceFault),
}

#[derive(Debug)]
struct TimedUnit {
    unit: AccessUnit,
    /// Since the first unit.
    due: Duration,
}

impl FileReader {
    /// Starts to read. Faults of the file arrive as an event.
    pub(super) fn start(source: &FileSource) -> Self {
        let (sender, items) = mpsc::channel(READ_AHEAD);
        let reader = Self { pace: source.pace, items, pending: None, started: None };
        let source = source.clone();
        let failed = source.clone();
        let on_failure = sender.clone();
        let thread = std::thread::Builder::new().name("ocelli-file".to_owned()).spawn(move || {
            // The mp4 parser panics on some damaged files.
            let outcome = catch_unwind(AssertUnwindSafe(|| read(&source, &sender)))
                .unwrap_or(Err(ReadStop::Failed(FileError::Panicked)));
            match outcome {
                Ok(()) => debug!(target: "ocelli::source", %source, "at its end"),
                Err(ReadStop::Unwanted) => {
                    debug!(target: "ocelli::source", %source, "no longer wanted")
                }
                Err(ReadStop::Failed(cause)) => report(&sender, SourceFault::file(&source, cause)),
            }
        });
        if let Err(error) = thread {
            report_at_once(&on_failure, SourceFault::file(&failed, FileError::Thread(error)));
        }
        reader
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
                    return SourceEvent::Unit(Arc::new(unit));
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
                Some(FileItem::Failed(fault)) => return SourceEvent::Down(fault),
                None => return SourceEvent::Ended,
            }
        }
    }
}

fn report(sender: &mpsc::Sender<FileItem>, fault: SourceFault) {
    warn!(target: "ocelli::source", kind = fault.kind.code(), "{fault}");
    // It fails if the subscriber is gone, which no longer needs the fault.
    let _ = sender.blocking_send(FileItem::Failed(fault));
}

fn report_at_once(sender: &mpsc::Sender<FileItem>, fault: SourceFault) {
    warn!(target: "ocelli::source", kind = fault.kind.code(), "{fault}");
    // The queue is empty: nothing was ever read.
    let _ = sender.try_send(FileItem::Failed(fault));
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

fn read(source: &FileSource, sender: &mpsc::Sender<FileItem>) -> Result<(), ReadStop> {
    let container = container(source)?;
    let mut output = Output { sender, number: 0, restarted: false };
    let file = || File::open(&source.path).map_err(FileError::Open);
    match container {
        Container::Mp4 => {
            let mut mp4 = Mp4File::open(file()?)?;
            let mut shift_ns = 0_i64;
            loop {
                output.mp4(&mut mp4, shift_ns)?;
                shift_ns = shift_ns.saturating_add(mp4.duration_ns);
                if !output.repeats(source)? {
                    return Ok(());
                }
            }
        }
        Container::Raw(codec) => loop {
            output.raw(file()?, codec)?;
            if !output.repeats(source)? {
                return Ok(());
            }
        },
    }
}

fn container(source: &FileSource) -> Result<Container, FileError> {
    let ending =
        source.path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
    let known = ENDINGS.iter().find(|(known, _)| *known == ending);
    known.map(|(_, container)| *container).ok_or_else(|| {
        let known: Vec<String> = ENDINGS.iter().map(|(ending, _)| format!(".{ending}")).collect();
        FileError::Ending { ending, known: known.join(", ") }
    })
}

/// Where units go, numbered.
struct Output<'a> {
    sender: &'a mpsc::Sender<FileItem>,
    number: u64,
    /// The next unit is the first of a repetition.
    restarted: bool,
}

impl Output<'_> {
    /// At the file's end: whether to read it again.
    fn repeats(&mut self, source: &FileSource) -> Result<bool, FileError> {
        if self.number == 0 {
            return Err(FileError::NoPictures);
        }
        self.restarted = true;
        Ok(source.repeat)
    }

    fn mp4(&mut self, mp4: &mut Mp4File, shift_ns: i64) -> Result<(), ReadStop> {
        let samples = std::mem::take(&mut mp4.samples);
        for sample in &samples {
            if let Some((picture, data)) = mp4.read(sample)? {
                let shown_ns = sample.presentation_ns.saturating_add(shift_ns);
                let due_ns = sample.decoding_ns.saturating_add(shift_ns);
                self.send(mp4.codec, picture, data, Some(shown_ns), due_ns)?;
            }
        }
        mp4.samples = samples;
        Ok(())
    }

    fn raw(&mut self, file: File, codec: NalCodec) -> Result<(), ReadStop> {
        let mut units = AnnexB::new(file, codec);
        let mut assembler = Assembler::new(codec, Vec::new());
        while let Some(unit) = units.next_unit()? {
            let nals: Vec<&[u8]> = unit.iter().map(Vec::as_slice).collect();
            if let Some((picture, data)) = assembler.assemble(&nals, false) {
                let due_ns =
                    i64::try_from(self.number).unwrap_or(i64::MAX).saturating_mul(ASSUMED_FRAME_NS);
                self.send(codec, picture, data, None, due_ns)?;
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        codec: NalCodec,
        picture: PictureInfo,
        data: Bytes,
        presentation_ns: Option<i64>,
        due_ns: i64,
    ) -> Result<(), ReadStop> {
        let header = UnitHeader {
            number: self.number,
            codec: codec.into(),
            key: picture.key,
            disposable: picture.disposable,
            // The decoder must not take the repetition for a continuation of the end.
            discontinuity: std::mem::take(&mut self.restarted),
            presentation_ns,
            capture_ns: u64::try_from(presentation_ns.unwrap_or(due_ns)).unwrap_or_default(),
            capture_clock: CaptureClock::default(),
            orientation: Orientation::default(),
            hidden: false,
            // Set when the unit is handed over: before that it waits for its subscriber.
            received_ns: 0,
        };
        self.number += 1;
        let due = Duration::from_nanos(u64::try_from(due_ns).unwrap_or_default());
        let unit = TimedUnit { unit: AccessUnit { header, data }, due };
        self.sender.blocking_send(FileItem::Unit(unit)).map_err(|_| ReadStop::Unwanted)
    }
}
