//! One source's access units turned into numbered frames.

use std::collections::VecDeque;
use std::fmt;

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::worker::{CaptureClock, Codec, Counters, Decode, Orientation, UnitHeader};

use super::damage::Damage;
use super::decoder::{Decoded, Decoder, DecoderError, MAX_PIXELS};
use super::device::Device;
use super::numbering::{NumberedUnit, Numbering};
use super::picture::Picture;
use super::still::still;

/// Presentation time of one frame after another where the source has no times: 25 frames a second.
const FRAME_NS: u64 = 40_000_000;

/// Frames that may wait for their number. As many as a reorder buffer holds by the standards.
const MAX_HELD: usize = 16;

/// A decoded picture with all that is known of it.
#[derive(Debug)]
pub struct Frame {
    /// The frame's number in the source, in presentation order.
    pub number: u64,
    /// Nanoseconds since the source began. Never runs backwards.
    pub presentation_ns: u64,
    /// [`UnitHeader::shown_ns`] of its access unit.
    pub shown_ns: i64,
    /// Wall-clock time of the picture, nanoseconds since 1970.
    pub capture_ns: u64,
    /// Whose clock that is.
    pub capture_clock: CaptureClock,
    /// When the host had received the access unit, on the monotonic clock, in nanoseconds.
    pub received_ns: u64,
    /// When the picture came out of the decoder, on the monotonic clock, in nanoseconds.
    pub decoded_ns: u64,
    pub picture: Picture,
}

/// What a frame takes over from its access unit, and what is known of that before its picture.
#[derive(Debug, Clone, Copy)]
struct UnitData {
    shown_ns: i64,
    capture_ns: u64,
    capture_clock: CaptureClock,
    received_ns: u64,
    orientation: Orientation,
    hidden: bool,
    /// The decoder has refused it.
    refused: bool,
}

/// A picture that waits until its number is known.
#[derive(Debug)]
struct PendingPicture {
    unit: u64,
    decoded_ns: u64,
    /// None for one that the decoder marked as damaged.
    picture: Option<Picture>,
}

/// Decodes a source's access units, in decoding order, into frames in presentation order.
///
/// - After a discontinuity, or where the codec changes, the decoder gives out what it holds and
///   starts afresh at a key unit.
/// - [`Decode::Reference`] leaves out disposable units before they are decoded, [`Decode::Key`] all
///   but key units. A frame gets the number that it has when everything is decoded. Where units are
///   left out, a frame may therefore wait for the next unit: until then, one that is presented
///   before it can still come.
/// - What the decoder refuses or marks as damaged is counted and not given out;
///   [`Stream::take_fault`] says why. After such a unit an H.264 source gets a new decoder at its
///   next key unit.
/// - A hidden unit is decoded and not given out; its number is used up like any other's.
/// - A device that does not decode the stream is an error as long as no picture has come: then no
///   picture would. Later it is what any unit is that the decoder refuses.
/// - Each unit is counted once: as decoded when its frame is given out, or as skipped, by reason,
///   when it is certain that it brings none.
pub struct Stream {
    setting: Decode,
    max_pixels: u64,
    device: Option<Device>,
    decoder: Option<Decoder>,
    numbering: Numbering<UnitData>,
    held: VecDeque<PendingPicture>,
    /// The first key unit since the last start, once there was one: its number and time.
    start: Option<(u64, Option<i64>)>,
    /// A disposable unit was left out: the source reorders, or has layers.
    left_out: bool,
    last_unit: Option<u64>,
    last_time: Option<i64>,
    last_presentation_ns: u64,
    counters: Counters,
    fault: Option<String>,
    damage: Damage,
    /// When the host had received the latest unit.
    received_ns: u64,
    /// The decoder has met something damaged.
    spoilt: bool,
}

impl Stream {
    /// A stream of pictures of up to [`MAX_PIXELS`].
    pub fn new(setting: Decode) -> Self {
        Self::with_max_pixels(setting, MAX_PIXELS)
    }

    /// A stream of pictures of up to `max_pixels`; access units with larger ones are refused.
    pub fn with_max_pixels(setting: Decode, max_pixels: u64) -> Self {
        Self {
            setting,
            max_pixels,
            device: None,
            decoder: None,
            numbering: Numbering::default(),
            held: VecDeque::new(),
            start: None,
            left_out: false,
            last_unit: None,
            last_time: None,
            last_presentation_ns: 0,
            counters: Counters::default(),
            fault: None,
            damage: Damage::default(),
            received_ns: 0,
            spoilt: false,
        }
    }

    /// The same stream, decoded by a device unless that is none.
    #[must_use]
    pub fn on(self, device: Option<Device>) -> Self {
        Self { device, ..self }
    }

    /// Takes an access unit; `out` gets the frames that it brings out, which may be those of
    /// earlier units. An error means that no decoder can be opened: the stream cannot go on. What
    /// is wrong with one unit alone is no error.
    pub fn push(
        &mut self,
        header: &UnitHeader,
        data: &[u8],
        out: &mut dyn FnMut(Frame),
    ) -> Result<(), DecoderError> {
        self.push_decoded(header, out, |stream| stream.decode(header, data))
    }

    /// The same of a unit that is a JPEG or PNG file by itself, as [`still`] reads it.
    pub fn push_still(&mut self, header: &UnitHeader, file: &[u8], out: &mut dyn FnMut(Frame)) {
        let decode = |stream: &mut Self| {
            stream.decode_still(header.number, file);
            Ok::<(), DecoderError>(())
        };
        // Without a decoder there is none that cannot be opened.
        let _ = self.push_decoded(header, out, decode);
    }

    /// Takes a unit that `decode` decodes, unless the setting leaves it out.
    fn push_decoded(
        &mut self,
        header: &UnitHeader,
        out: &mut dyn FnMut(Frame),
        decode: impl FnOnce(&mut Self) -> Result<(), DecoderError>,
    ) -> Result<(), DecoderError> {
        self.counters.received += 1;
        self.received_ns = header.received_ns;
        if self.starts_afresh(header) || (header.key && self.is_spoilt()) {
            self.drain(out);
            if self.is_spoilt() {
                self.decoder = None;
            }
        }
        if self.start.is_none() && !header.key {
            self.counters.skipped_no_key += 1;
            return Ok(());
        }
        self.start.get_or_insert((header.number, header.presentation_ns));
        self.last_unit = Some(header.number);
        let skipped = match self.setting {
            Decode::All => false,
            Decode::Reference => header.disposable && !header.key,
            Decode::Key => !header.key,
        };
        let unit = NumberedUnit {
            number: header.number,
            time: header.presentation_ns,
            key: header.key,
            skipped,
            data: UnitData {
                shown_ns: header.shown_ns(),
                capture_ns: header.capture_ns,
                capture_clock: header.capture_clock,
                received_ns: header.received_ns,
                orientation: header.orientation,
                hidden: header.hidden,
                refused: false,
            },
        };
        let Self { numbering, counters, damage, .. } = self;
        numbering.push(unit, &mut |unit| count_without_picture(unit, counters, damage));
        if skipped {
            self.counters.skipped_setting += 1;
            self.left_out |= header.disposable;
        } else {
            decode(self)?;
        }
        self.release(false, out);
        Ok(())
    }

    /// The source has ended, or goes on elsewhere: gives out what the decoder holds. The next unit
    /// has to be a key unit.
    pub fn drain(&mut self, out: &mut dyn FnMut(Frame)) {
        self.empty_decoder();
        self.release(true, out);
        let Self { numbering, counters, damage, .. } = self;
        numbering.clear(&mut |unit| count_without_picture(unit, counters, damage));
        self.start = None;
        self.last_time = None;
    }

    /// Puts this stream's totals of access units into `counters` and leaves the others alone, those
    /// of pictures too: their receiver counts them.
    pub fn count_into(&self, counters: &mut Counters) {
        counters.received = self.counters.received;
        counters.skipped_setting = self.counters.skipped_setting;
        counters.skipped_no_key = self.counters.skipped_no_key;
        counters.skipped_corrupt = self.counters.skipped_corrupt;
        counters.skipped_hidden = self.counters.skipped_hidden;
        counters.skipped_no_picture = self.counters.skipped_no_picture;
    }

    /// Counts from 0 again.
    pub fn restart_counting(&mut self) {
        self.counters = Counters::default();
    }

    /// The totals of this stream.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Why the latest access unit is corrupt, since this was last asked. For the log; names the
    /// unit.
    pub fn take_fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    /// What the decoder says of a source of which not one picture has been sound for
    /// several seconds, or up to its end.
    pub fn damage(&self, ended: bool) -> Option<&str> {
        if ended { self.damage.words_at_end() } else { self.damage.words() }
    }

    /// Whether nothing that came before `header` says anything about what follows.
    fn starts_afresh(&self, header: &UnitHeader) -> bool {
        let other_codec =
            self.decoder.as_ref().is_some_and(|decoder| decoder.codec() != header.codec);
        // A source that begins again without saying so: a key picture is never presented before
        // what came out already.
        let back = header.key
            && header.presentation_ns.is_some()
            && header.presentation_ns <= self.last_time;
        let repeated = self.last_unit.is_some_and(|last| header.number <= last);
        header.discontinuity || other_codec || back || repeated
    }

    /// Whether the decoder may show traces of a damaged unit in undamaged ones. Where libavcodec
    /// breaks off in the middle of an H.264 macroblock it keeps the coefficients read so far, adds
    /// them to the next macroblock that it decodes, and marks nothing; flushing does not help. Its
    /// other decoders clear what they keep.
    fn is_spoilt(&self) -> bool {
        self.spoilt && self.decoder.as_ref().is_some_and(|decoder| decoder.codec() == Codec::H264)
    }

    fn decode(&mut self, header: &UnitHeader, data: &[u8]) -> Result<(), DecoderError> {
        let decoder = match self.decoder.take() {
            Some(decoder) if decoder.codec() == header.codec => self.decoder.insert(decoder),
            _ => {
                self.spoilt = false;
                let device = self.device.as_ref();
                self.decoder.insert(Decoder::new(header.codec, self.max_pixels, device)?)
            }
        };
        let mut decoded = Vec::new();
        let result = decoder.decode(header.number, data, &mut |picture| decoded.push(picture));
        if let Some(refusal) = decoder.refusal().filter(|_| self.counters.decoded == 0) {
            return Err(refusal);
        }
        self.take_out(decoded);
        if let Err(error) = result {
            if let Some(unit) = self.numbering.data_mut(header.number) {
                unit.refused = true;
            }
            self.corrupt(&format!("access unit {}", header.number), &error);
        }
        if self.setting == Decode::Key {
            // Nothing follows that could push the picture out of the reorder buffer before the next
            // key frame.
            self.empty_decoder();
        }
        Ok(())
    }

    fn decode_still(&mut self, unit: u64, file: &[u8]) {
        let most = u32::try_from(self.max_pixels).unwrap_or(u32::MAX);
        match still(file, most) {
            Ok(picture) => {
                self.take_out(vec![Decoded { unit, damaged: false, picture: Ok(picture) }]);
            }
            Err(error) => {
                if let Some(unit) = self.numbering.data_mut(unit) {
                    unit.refused = true;
                }
                self.corrupt(&format!("picture {unit}"), &error);
            }
        }
    }

    fn empty_decoder(&mut self) {
        let mut decoded = Vec::new();
        let result = self
            .decoder
            .as_mut()
            .map(|decoder| decoder.drain(&mut |picture| decoded.push(picture)));
        self.take_out(decoded);
        if let Some(Err(error)) = result {
            self.corrupt(&format!("the end before access unit {:?}", self.last_unit), &error);
        }
    }

    fn take_out(&mut self, decoded: Vec<Decoded>) {
        let decoded_ns = monotonic_ns();
        for Decoded { unit, damaged, picture } in decoded {
            let picture = match picture {
                Ok(_) if damaged => {
                    self.corrupt(&format!("access unit {unit}"), &"the picture is damaged");
                    None
                }
                Ok(picture) => {
                    self.damage.on_sound();
                    Some(picture)
                }
                Err(error) => {
                    self.corrupt(&format!("access unit {unit}"), &error);
                    None
                }
            };
            self.held.push_back(PendingPicture { unit, decoded_ns, picture });
        }
    }

    fn corrupt(&mut self, place: &str, fault: &dyn fmt::Display) {
        self.spoilt = true;
        self.damage.on_damaged(self.received_ns, || fault.to_string());
        self.fault = Some(format!("{place}: {fault}"));
    }

    /// Gives out held pictures: all of them, or those whose number is certain.
    fn release(&mut self, all: bool, out: &mut dyn FnMut(Frame)) {
        // A decoder that sees every unit holds pictures back until it knows; so does one that knows
        // the reorder depth. One that is never shown a B frame may give a picture out before those
        // that are presented earlier have come in.
        let reorders = self.decoder.as_ref().is_some_and(|decoder| decoder.codec() != Codec::Mjpeg);
        let uncertain = match self.setting {
            Decode::All => false,
            Decode::Reference => reorders && self.left_out,
            Decode::Key => reorders,
        };
        while let Some(held) = self.held.front() {
            let settled = all
                || !uncertain
                || self.held.len() > MAX_HELD
                || self.numbering.settled(held.unit);
            if !settled {
                return;
            }
            if let Some(held) = self.held.pop_front() {
                self.number(held, out);
            }
        }
    }

    fn number(&mut self, held: PendingPicture, out: &mut dyn FnMut(Frame)) {
        let Self { numbering, counters, damage, .. } = self;
        let passed = &mut |unit: &NumberedUnit<UnitData>| {
            count_without_picture(unit, counters, damage);
        };
        let Some((number, unit)) = numbering.output(held.unit, passed) else {
            // A picture of a unit that has given one already (two fields taken for two frames), or
            // that came too late: it is counted.
            return;
        };
        if unit.data.hidden {
            self.counters.skipped_hidden += 1;
            return;
        }
        let Some(picture) = held.picture else {
            self.counters.skipped_corrupt += 1;
            return;
        };
        let before_start =
            self.start.is_some_and(|(first, time)| unit.number > first && unit.time < time);
        let late = unit.time.is_some() && unit.time < self.last_time;
        if before_start || late {
            // What comes before the first key frame in presentation refers to pictures that were
            // never seen.
            self.counters.skipped_no_key += 1;
            return;
        }
        self.last_time = unit.time;
        let presentation_ns = match unit.time {
            Some(time) => u64::try_from(time).unwrap_or(0),
            None => number.saturating_mul(FRAME_NS),
        };
        self.last_presentation_ns = self.last_presentation_ns.max(presentation_ns);
        self.counters.decoded += 1;
        out(Frame {
            number,
            presentation_ns: self.last_presentation_ns,
            shown_ns: unit.data.shown_ns,
            capture_ns: unit.data.capture_ns,
            capture_clock: unit.data.capture_clock,
            received_ns: unit.data.received_ns,
            decoded_ns: held.decoded_ns,
            picture: picture.oriented(unit.data.orientation),
        });
    }
}

/// Counts a unit that brings no picture any more. One that the decode setting left out is counted
/// already.
fn count_without_picture(
    unit: &NumberedUnit<UnitData>,
    counters: &mut Counters,
    damage: &mut Damage,
) {
    let UnitData { hidden, refused, received_ns, .. } = unit.data;
    if unit.skipped {
        return;
    }
    if hidden {
        counters.skipped_hidden += 1;
    } else if refused {
        counters.skipped_corrupt += 1;
    } else {
        counters.skipped_no_picture += 1;
        damage.on_damaged(received_ns, || "the decoder makes no picture of it".into());
    }
}
