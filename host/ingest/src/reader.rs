//! Reads one input from its first unit to its last, past damage where it can.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use ocelli_protocol::ingest::{
    Damage, IngestFault, IngestFaultKind, IngestStep, IngestUnit, StreamInfo,
};
use ocelli_protocol::rtsp::{MAX_PICTURE, PICTURE_BUDGET};
use ocelli_protocol::wire::MAX_PAYLOAD;
use ocelli_protocol::worker::Codec;
use rustix::io::Errno;

use crate::annexb::{Parameters, append_unit};
pub use crate::demuxer::Watch;
use crate::demuxer::{AvError, Demuxer};
use crate::fault::fault;
use crate::log::{self, one_line};
use crate::network::allow;
use crate::network::last_refusal;
use crate::orientation::of_matrix;

/// Bytes that a camera may send before it has answered PLAY. libavformat reads answers one by one.
const ANSWERS_BUDGET: u64 = 1 << 20;

/// Bytes that a camera may send until its stream is known: libavformat looks at 5 MB of pictures.
const PROBE_BUDGET: u64 = 2 * PICTURE_BUDGET;

/// Formats of streams without container, by the ending of a file's name.
const RAW: [(&str, &CStr); 7] = [
    ("h264", c"h264"),
    ("264", c"h264"),
    ("h265", c"hevc"),
    ("265", c"hevc"),
    ("hevc", c"hevc"),
    ("mjpeg", c"mjpeg"),
    ("mjpg", c"mjpeg"),
];

/// What is said of pictures that the index lists and the file does not have.
const CUT_SHORT: &str = "the file is cut short";

/// Errors in a row after which no picture is expected any more: a demuxer goes on behind each
/// damaged part by itself, and one that fails this often stands still.
const MAX_ERRORS: u64 = 1000;

/// The next of an input.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// An access unit; [`Reader::data`] has its bytes.
    Unit(IngestUnit),
    /// Something was lost before the next unit.
    Damage(Damage),
    /// The file is at its end.
    Ended,
    /// Nothing more can be read.
    Failed(IngestFault),
}

/// An open input, and what has been read of it.
pub struct Reader {
    demuxer: Demuxer,
    info: StreamInfo,
    parameters: Parameters,
    /// A camera's connection ends with its first error; a file may go on behind a damaged part.
    is_camera: bool,
    untimed: bool,
    /// A unit brings the clock time of the one after it.
    delayed: bool,
    next_clock_us: Option<i64>,
    /// The bytes of the unit that was read last, in Annex B form.
    data: Vec<u8>,
    /// That unit, until it is given out: the damage before it goes first.
    unit: Option<IngestUnit>,
    /// Not given out yet.
    damage: Option<Damage>,
    /// How it ended.
    end: Option<Item>,
    /// Units given out.
    units: u64,
    /// Pictures of the index that were read or lost.
    seen: u64,
    /// Errors since the last unit.
    errors: u64,
}

impl Reader {
    /// Opens a file. `ending` is that of its name, a hint for streams without container.
    pub fn open_file(file: OwnedFd, ending: &str, watch: Watch) -> Result<Self, IngestFault> {
        log::take();
        if rustix::fs::fstat(&file).is_ok_and(|status| status.st_size == 0) {
            return Err(IngestFault {
                step: IngestStep::Open,
                kind: IngestFaultKind::UnknownContainer,
                reason: "the file is empty".to_owned(),
            });
        }
        let raw = RAW.iter().find(|(known, _)| *known == ending).map(|(_, format)| *format);
        let demuxer = Demuxer::open_file(file, raw, watch)
            .map_err(|error| failed(IngestStep::Open, error))?;
        Self::probe(demuxer, false)
    }

    /// Opens an `rtsp://` URL.
    pub fn open_camera(url: &str, udp: bool, watch: Watch) -> Result<Self, IngestFault> {
        log::take();
        allow(ANSWERS_BUDGET);
        let demuxer = Demuxer::open_camera(url, udp, watch)
            .map_err(|error| failed(IngestStep::Open, error))?;
        allow(PROBE_BUDGET);
        Self::probe(demuxer, true)
    }

    fn probe(mut demuxer: Demuxer, is_camera: bool) -> Result<Self, IngestFault> {
        let fault = |kind: IngestFaultKind, reason: &str| IngestFault {
            step: IngestStep::Probe,
            kind,
            reason: one_line(reason),
        };
        demuxer.find_video().map_err(|error| match error {
            AvError::NO_STREAM => match demuxer.left_out().join(", ") {
                // A camera was asked for its video alone.
                others if others.is_empty() && is_camera => {
                    fault(IngestFaultKind::NoVideo, "it offers no video")
                }
                others if others.is_empty() => {
                    let said = log::take().last;
                    let reason = said.as_deref().unwrap_or("its header lists no stream");
                    fault(IngestFaultKind::InvalidData, reason)
                }
                others => fault(IngestFaultKind::NoVideo, &format!("it has {others}")),
            },
            error => failed(IngestStep::Probe, error),
        })?;
        let stream = demuxer.describe();
        let codec = stream.codec.map_err(|name| {
            let reason = format!("its video is {name}");
            fault(IngestFaultKind::UnsupportedCodec(name), &reason)
        })?;
        if stream.encrypted {
            return Err(encrypted(IngestStep::Probe, codec));
        }
        let parameters = Parameters::read(codec, &stream.extradata);
        let info = StreamInfo {
            format: stream.format,
            codec,
            width: stream.width,
            height: stream.height,
            orientation: of_matrix(&stream.matrix),
            frame_rate: stream.frame_rate,
            pictures: stream.pictures,
            duration_ns: stream.duration_ns,
            left_out: stream.left_out,
            parameter_sets: parameters.sets.clone(),
        };
        Ok(Self {
            demuxer,
            info,
            parameters,
            is_camera,
            untimed: stream.untimed,
            delayed: stream.delayed,
            next_clock_us: None,
            data: Vec::new(),
            unit: None,
            damage: None,
            end: None,
            units: 0,
            seen: 0,
            errors: 0,
        })
    }

    /// What the stream is.
    pub fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// The bytes of the last [`Item::Unit`].
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Reads on. At its end it gives the same again.
    pub fn next_item(&mut self) -> Item {
        loop {
            if (self.unit.is_some() || self.end.is_some())
                && let Some(damage) = self.damage.take()
            {
                return Item::Damage(damage);
            }
            if let Some(unit) = self.unit.take() {
                self.units += 1;
                return Item::Unit(unit);
            }
            if let Some(end) = &self.end {
                return end.clone();
            }
            if let Err(error) = self.read() {
                self.failed(error);
            }
        }
    }

    /// Reads a packet: a unit, or the loss of one.
    fn read(&mut self) -> Result<(), AvError> {
        let packet = self.demuxer.read()?;
        if packet.encrypted {
            self.end = Some(Item::Failed(encrypted(IngestStep::Read, self.info.codec)));
            return Ok(());
        }
        self.data.clear();
        if let Some(extradata) = packet.extradata {
            self.parameters = Parameters::read(self.info.codec, extradata);
            self.data.extend_from_slice(&self.parameters.sets);
        }
        let before = self.data.len();
        let whole = append_unit(self.parameters.form, packet.data, &mut self.data);
        let clock_us = match self.delayed {
            true => std::mem::replace(&mut self.next_clock_us, packet.clock_us),
            false => packet.clock_us,
        };
        let timed = |time: Option<i64>| time.filter(|_| !self.untimed);
        let presentation_ns = timed(packet.presentation_ns.or(packet.decoding_ns));
        // libavcodec's parser loses the time of a camera's first unit, from which the others are
        // counted.
        let is_first = self.is_camera && self.seen == 0;
        let unit = IngestUnit {
            key: packet.key,
            corrupt: packet.corrupt || !whole,
            hidden: packet.hidden,
            presentation_ns: presentation_ns.or(is_first.then_some(0)),
            decoding_ns: timed(packet.decoding_ns),
            capture_ns: clock_us
                .and_then(|time| u64::try_from(time).ok())
                .and_then(|time| time.checked_mul(1000)),
        };
        let (is_empty_sample, packet_is_short) = (packet.data.is_empty(), packet.corrupt);
        self.seen += 1;
        self.errors = 0;
        let lines = log::take();
        if !whole {
            let cut = if packet_is_short { CUT_SHORT } else { "a picture's parts exceed it" };
            self.lose(0, cut);
        }
        if let Some(loss) = lines.loss {
            self.lose(0, &loss);
        }
        let longest = if self.is_camera { MAX_PICTURE } else { MAX_PAYLOAD };
        match self.data.len() {
            length if length > longest => {
                self.lose(1, &format!("a picture of {length} bytes"));
            }
            length if length > before => self.unit = Some(unit),
            // A sample without content stands for no picture.
            _ if is_empty_sample => {}
            _ => self.lose(1, "a picture without content"),
        }
        Ok(())
    }

    /// Something was lost before the next unit. The first words stay.
    fn lose(&mut self, pictures: u64, reason: &str) {
        let damage =
            self.damage.get_or_insert_with(|| Damage { pictures: 0, reason: one_line(reason) });
        damage.pictures = damage.pictures.saturating_add(pictures);
    }

    /// Goes on after an error, or not.
    fn failed(&mut self, error: AvError) {
        self.errors += 1;
        let again = error.errno() == Some(Errno::AGAIN) && self.errors < MAX_ERRORS;
        if again {
            return;
        }
        let final_one = error == AvError::STOPPED || error.errno() == Some(Errno::NOMEM);
        if self.is_camera || final_one {
            self.end = Some(Item::Failed(failed(IngestStep::Read, error)));
            return;
        }
        let missing = self.info.pictures.map_or(0, |all| all.saturating_sub(self.seen));
        let lines = log::take();
        if error == AvError::END && missing == 0 {
            if let Some(loss) = lines.loss {
                self.lose(0, &loss);
            }
            self.at_end();
            return;
        }
        let reason = match error {
            AvError::END => CUT_SHORT.to_owned(),
            _ => lines.last.unwrap_or_else(|| error.to_string()),
        };
        let gives_up = self.errors >= MAX_ERRORS;
        let lost = if gives_up { missing } else { missing.min(1) };
        self.seen += lost;
        self.lose(lost, &reason);
        if gives_up {
            self.at_end();
        }
    }

    fn at_end(&mut self) {
        self.end = Some(if self.units > 0 {
            Item::Ended
        } else {
            let reason = match self.damage.take() {
                Some(Damage { reason, .. }) => format!("no picture can be read: {reason}"),
                None => "it has no picture".to_owned(),
            };
            Item::Failed(IngestFault {
                step: IngestStep::Read,
                kind: IngestFaultKind::InvalidData,
                reason: one_line(&reason),
            })
        });
    }
}

fn failed(step: IngestStep, error: AvError) -> IngestFault {
    fault(step, error, &log::take(), last_refusal().as_ref())
}

fn encrypted(step: IngestStep, codec: Codec) -> IngestFault {
    let name = format!("{codec:?}, encrypted");
    let reason = "its video is encrypted".to_owned();
    IngestFault { step, kind: IngestFaultKind::UnsupportedCodec(name), reason }
}
