//! What the access units of a source say of it.

use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::worker::{CaptureClock, Codec, Orientation};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use crate::source::{AccessUnit, SourceEvent, SourceFault, SourceFaultKind, Subscription};

/// How long a camera may take to its first picture: both readers, each with a wait between. The
/// longest GOP of cameras in use is 10 s.
const FIRST_PICTURE: Duration = Duration::from_secs(40);

/// How long a file is read: what comes after that is like what came before.
const FILE_LIMIT: Duration = Duration::from_secs(20);

/// Access units that are kept for a still, from the first key unit on: a stream that is renewed bit
/// by bit is whole within them.
const STILL_UNITS: usize = 64;

/// Their bytes together: 64 pictures of a 4K camera at 25 Mbit/s take 8 MB.
const STILL_BYTES: usize = 64 << 20;

/// Parts of a file that cannot be read, of which the report has the words.
const MAX_DAMAGES: usize = 10;

/// What was measured. Without a picture all of it is empty.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Measured {
    /// How its pictures are coded.
    #[schemars(extend("enum" = ["h264", "h265", "mjpeg", null]))]
    codec: Option<&'static str>,
    /// How a player turns the picture, as EXIF numbers it: 1 is upright.
    orientation: Option<u8>,
    /// Pictures that came.
    pictures: u64,
    /// How long they take, in seconds.
    #[schemars(range(min = 0))]
    seconds: f64,
    /// Pictures in a second.
    rate: Option<f64>,
    /// Kilobits in a second.
    kbit_s: Option<f64>,
    /// Pictures from one key picture to the next, on average. `None` if only one came.
    gop: Option<f64>,
    /// Pictures that a file does not show: they lie outside of its edit list.
    hidden: u64,
    /// Pictures of a file that could not be read.
    lost: u64,
    /// Why parts of a file could not be read.
    damaged: Vec<String>,
    /// Of a camera: it says what time it is.
    camera_clock: bool,
    /// A file was not read to its end.
    unfinished: bool,
}

/// The end of a measurement.
pub(super) struct ProbeOutcome {
    pub(super) measured: Measured,
    /// The first key unit, and those after it.
    pub(super) units: Vec<Arc<AccessUnit>>,
    /// Why there is no picture, or no more.
    pub(super) fault: Option<SourceFault>,
}

/// Reads a camera for `span` after its first picture, a file to its end.
pub(super) async fn measure(
    subscription: &mut Subscription,
    is_live: bool,
    span: Duration,
) -> ProbeOutcome {
    let mut tally = Tally::default();
    let mut fault = None;
    let begun = Instant::now();
    let mut deadline = begun + if is_live { FIRST_PICTURE } else { FILE_LIMIT };
    loop {
        match timeout_at(deadline, subscription.next()).await {
            Ok(SourceEvent::Unit(unit)) => {
                if is_live && tally.pictures == 0 {
                    deadline = Instant::now() + span;
                }
                fault = None;
                tally.unit(&unit);
            }
            Ok(SourceEvent::Up) => {}
            Ok(SourceEvent::Down(down)) => {
                let is_final = !is_live || no_reader_helps(down.kind);
                fault = Some(down);
                if is_final {
                    break;
                }
            }
            Ok(SourceEvent::Damaged(why)) => {
                if tally.damaged.len() < MAX_DAMAGES {
                    tally.damaged.push(why);
                }
            }
            Ok(SourceEvent::Ended) => break,
            Err(_) => {
                tally.unfinished = !is_live;
                break;
            }
        }
    }
    let lost = subscription.lost().load(std::sync::atomic::Ordering::Relaxed);
    let units = std::mem::take(&mut tally.first_units);
    ProbeOutcome { measured: tally.measured(lost), units, fault }
}

/// Whether waiting for another attempt, of either reader, brings nothing.
fn no_reader_helps(kind: SourceFaultKind) -> bool {
    matches!(
        kind,
        SourceFaultKind::Unreachable
            | SourceFaultKind::NoVideo
            | SourceFaultKind::UnsupportedCodec
            | SourceFaultKind::Certificate
            | SourceFaultKind::Reader
            | SourceFaultKind::TooLarge
            | SourceFaultKind::File
    )
}

/// What was counted so far.
#[derive(Debug, Default)]
struct Tally {
    codec: Option<Codec>,
    orientation: Orientation,
    pictures: u64,
    keys: u64,
    /// Pictures before the last key picture.
    before_last_key: u64,
    hidden: u64,
    bytes: u64,
    /// The earliest and the latest presentation time, in nanoseconds.
    times: Option<(i64, i64)>,
    camera_clock: bool,
    first_units: Vec<Arc<AccessUnit>>,
    first_bytes: usize,
    damaged: Vec<String>,
    unfinished: bool,
}

impl Tally {
    fn unit(&mut self, unit: &Arc<AccessUnit>) {
        let header = &unit.header;
        self.codec = Some(header.codec);
        self.orientation = header.orientation;
        if header.key {
            self.keys += 1;
            self.before_last_key = self.pictures;
        }
        self.pictures += 1;
        self.hidden += u64::from(header.hidden);
        self.bytes = self.bytes.saturating_add(unit.data.len() as u64);
        self.camera_clock |= header.capture_clock == CaptureClock::Camera;
        if let Some(time) = header.presentation_ns {
            let (first, last) = self.times.unwrap_or((time, time));
            self.times = Some((first.min(time), last.max(time)));
        }
        let wanted = header.key || !self.first_units.is_empty();
        self.first_bytes = self.first_bytes.saturating_add(unit.data.len());
        if wanted && self.first_units.len() < STILL_UNITS && self.first_bytes <= STILL_BYTES {
            self.first_units.push(Arc::clone(unit));
        }
    }

    fn measured(self, lost: u64) -> Measured {
        let span_ns = self.times.map_or(0, |(first, last)| last.saturating_sub(first));
        let seconds = span_ns as f64 / 1e9;
        // The last picture lasts as long as the others do.
        let intervals = self.pictures.saturating_sub(1) as f64;
        let rate = (seconds > 0.0).then(|| intervals / seconds);
        let per_picture = self.bytes as f64 * 8.0 / 1000.0 / (self.pictures.max(1) as f64);
        let gops = self.keys.saturating_sub(1);
        Measured {
            codec: self.codec.map(Codec::name),
            orientation: self.codec.map(|_| exif_value(self.orientation)),
            pictures: self.pictures,
            seconds,
            rate,
            kbit_s: rate.map(|rate| per_picture * rate),
            gop: (gops > 0).then(|| self.before_last_key as f64 / gops as f64),
            hidden: self.hidden,
            lost,
            damaged: self.damaged,
            camera_clock: self.camera_clock,
            unfinished: self.unfinished,
        }
    }
}

/// The orientation as EXIF numbers it.
fn exif_value(orientation: Orientation) -> u8 {
    match orientation {
        Orientation::Upright => 1,
        Orientation::MirrorAcross => 2,
        Orientation::HalfTurn => 3,
        Orientation::MirrorDown => 4,
        Orientation::Transpose => 5,
        Orientation::TurnRight => 6,
        Orientation::Transverse => 7,
        Orientation::TurnLeft => 8,
    }
}

impl Measured {
    /// Pictures in a second.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// For a person: names and values.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        let Some(codec) = self.codec else { return lines };
        let standard = match codec {
            "h264" => "H.264",
            "h265" => "H.265",
            _ => "Motion JPEG",
        };
        lines.push(("codec", standard.to_owned()));
        if let Some(turned) = self.orientation.filter(|value| *value != 1) {
            lines.push(("orientation", format!("{turned} (EXIF): frames are turned")));
        }
        let unfinished = if self.unfinished { ", not read to its end" } else { "" };
        lines.push(("pictures", format!("{} in {:.1} s{unfinished}", self.pictures, self.seconds)));
        if let Some((rate, kbit_s)) = self.rate.zip(self.kbit_s) {
            lines.push(("rate", format!("{rate:.1} pictures a second, {kbit_s:.0} kbit/s")));
        }
        let gop = self.gop.map_or("longer than what was read".to_owned(), |gop| {
            let seconds = self.rate.map(|rate| format!(", {:.1} s", gop / rate));
            format!("{gop:.1} pictures{}", seconds.unwrap_or_default())
        });
        lines.push(("key pictures", gop));
        if self.hidden > 0 {
            lines.push(("hidden", format!("{} pictures outside of the edit list", self.hidden)));
        }
        if self.lost > 0 {
            lines.push(("lost", format!("{} pictures", self.lost)));
        }
        lines.extend(self.damaged.iter().map(|why| ("damaged", why.clone())));
        if self.camera_clock {
            lines.push(("clock", "the camera's own".to_owned()));
        }
        lines
    }
}
