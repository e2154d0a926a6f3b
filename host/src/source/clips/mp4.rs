//! A clip as fragmented MP4 (ISO/IEC 14496-12 and -15): the access units as they came, nothing
//! encoded anew. One fragment for each key picture, and an index of them, by which players know the
//! duration and seek.
//!
//! ```text
//! ftyp | moov: codec and size | sidx: where each fragment begins | (moof | mdat) for each key
//! ```
//!
//! Access units have times of presentation alone. Those in order are the times of decoding: as many
//! as there are pictures, and as far apart. Where that makes a picture's time of presentation the
//! earlier one, the offset between them has a sign, as version 1 of `trun` has it.

use std::io::{self, Write};
use std::sync::Arc;

use ocelli_protocol::worker::Orientation;

use super::parameters::{ParameterSets, StreamDescription};
use crate::source::AccessUnit;
use crate::source::nal::{NalKind, split_annex_b};
use crate::util::mp4::{UPRIGHT, boxed, full, matrix, media, visual_entry};

/// Units of time in a second: those of RTP.
const TIMESCALE: u32 = 90_000;

/// How long the last picture shows where none is before it: a tenth of a second.
const ONLY_PICTURE: u64 = TIMESCALE as u64 / 10;

/// What the file is, a version, and what else it fits.
const KIND: &[u8] = b"iso6\0\0\x02\0iso6isommp42avc1";

/// The flags of a sample: it depends on no other, or on others and is no key.
const KEY: u32 = 0x0200_0000;
const OTHER: u32 = 0x0101_0000;

/// A fragment of the index that begins with a key picture of the first kind (SAP).
const BEGINS_WITH_KEY: u32 = 1 << 31 | 1 << 28;

/// Why a clip has no file.
#[derive(Debug, thiserror::Error)]
pub(super) enum MuxError {
    #[error("its parameter sets cannot be read, or are not all there")]
    Parameters,
    #[error("it has no picture")]
    Empty,
    #[error("it is too long for a file")]
    TooLong,
    #[error("it cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// A picture of the file.
struct Sample<'a> {
    data: &'a [u8],
    bytes: u32,
    key: bool,
    /// Of presentation and decoding, from the first picture's on.
    presented: u64,
    decoded: u64,
    duration: u32,
}

/// Writes a file of units in decoding order, of which the first is a key unit.
pub(super) fn write(
    units: &[Arc<AccessUnit>],
    sets: &ParameterSets,
    out: &mut impl Write,
) -> Result<(), MuxError> {
    let description = sets.describe().ok_or(MuxError::Parameters)?;
    let samples = samples(units, sets)?;
    let orientation = units.first().map(|unit| unit.header.orientation).unwrap_or_default();
    let length = samples.last().map_or(0, |last| last.decoded + u64::from(last.duration));
    let fragments: Vec<&[Sample<'_>]> = samples.chunk_by(|_, next| !next.key).collect();
    let heads: Vec<Vec<u8>> = (1..).zip(&fragments).map(|(number, it)| head(number, it)).collect();
    out.write_all(&boxed(b"ftyp", &[KIND]))?;
    out.write_all(&movie(&description, orientation, length))?;
    out.write_all(&index(&fragments, &heads)?)?;
    for (fragment, head) in fragments.iter().zip(&heads) {
        out.write_all(head)?;
        let bytes = u32::try_from(data_bytes(fragment)).map_err(|_| MuxError::TooLong)?;
        out.write_all(&bytes.to_be_bytes())?;
        out.write_all(b"mdat")?;
        for nal in fragment.iter().flat_map(|sample| nals(sample.data, sets)) {
            let length = u32::try_from(nal.len()).map_err(|_| MuxError::TooLong)?;
            out.write_all(&length.to_be_bytes())?;
            out.write_all(nal)?;
        }
    }
    Ok(())
}

fn samples<'a>(
    units: &'a [Arc<AccessUnit>],
    sets: &ParameterSets,
) -> Result<Vec<Sample<'a>>, MuxError> {
    let begin = units.first().ok_or(MuxError::Empty)?.header.shown_ns();
    let mut samples = Vec::with_capacity(units.len());
    for unit in units {
        // Pictures before the key picture at which it begins refer to what is not in it.
        let Some(since) = unit.header.shown_ns().checked_sub(begin).filter(|ns| *ns >= 0) else {
            continue;
        };
        let bytes: usize = nals(&unit.data, sets).map(|nal| nal.len() + 4).sum();
        let presented = u128::from(since.unsigned_abs()) * u128::from(TIMESCALE) / 1_000_000_000;
        samples.push(Sample {
            data: &unit.data,
            bytes: u32::try_from(bytes).map_err(|_| MuxError::TooLong)?,
            key: unit.header.key,
            presented: u64::try_from(presented).map_err(|_| MuxError::TooLong)?,
            decoded: 0,
            duration: 0,
        });
    }
    let mut times: Vec<u64> = samples.iter().map(|sample| sample.presented).collect();
    times.sort_unstable();
    // No two pictures are decoded at once, whatever their times are.
    let mut next = 0;
    for (sample, time) in samples.iter_mut().zip(times) {
        sample.decoded = time.max(next);
        next = sample.decoded + 1;
    }
    let decoded: Vec<u64> = samples.iter().map(|sample| sample.decoded).collect();
    let mut last = ONLY_PICTURE;
    for (index, sample) in samples.iter_mut().enumerate() {
        if let Some(next) = decoded.get(index + 1) {
            last = next - sample.decoded;
        }
        sample.duration = u32::try_from(last).map_err(|_| MuxError::TooLong)?;
    }
    Ok(samples)
}

/// The NAL units of a picture that the file has. Found twice and not kept: a camera may send
/// millions.
fn nals<'a>(data: &'a [u8], sets: &'a ParameterSets) -> impl Iterator<Item = &'a [u8]> {
    split_annex_b(data)
        .filter(move |nal| sets.codec.kind(nal) != Some(NalKind::Delimiter) && !sets.has(nal))
}

fn data_bytes(fragment: &[Sample<'_>]) -> u64 {
    fragment.iter().map(|sample| u64::from(sample.bytes)).sum::<u64>() + 8
}

/// The head of a fragment: where its pictures are, and when they show.
fn head(number: u32, fragment: &[Sample<'_>]) -> Vec<u8> {
    let made = |data_offset: u32| {
        let decoded = fragment.first().map_or(0, |sample| sample.decoded);
        // 1000 pictures a second for as long as a clip may be have room in 32 bits.
        let count = u32::try_from(fragment.len()).unwrap_or(u32::MAX);
        let mut run = [count, data_offset].map(u32::to_be_bytes).concat();
        for sample in fragment {
            let offset = sample.presented.cast_signed() - sample.decoded.cast_signed();
            let offset = i32::try_from(offset).unwrap_or_default();
            let flags = if sample.key { KEY } else { OTHER };
            let fields = [sample.duration, sample.bytes, flags, offset.cast_unsigned()];
            fields.iter().for_each(|field| run.extend_from_slice(&field.to_be_bytes()));
        }
        // Offsets count from the fragment's own beginning.
        let tfhd = full(b"tfhd", 0, 0x2_0000, &[&1u32.to_be_bytes()]);
        let tfdt = full(b"tfdt", 1, 0, &[&decoded.to_be_bytes()]);
        // Version 1, whose offsets have a sign; all four fields of each sample.
        let trun = full(b"trun", 1, 0xf01, &[&run]);
        let mfhd = full(b"mfhd", 0, 0, &[&number.to_be_bytes()]);
        boxed(b"moof", &[&mfhd, &boxed(b"traf", &[&tfhd, &tfdt, &trun])])
    };
    let length = made(0).len() + 8;
    made(u32::try_from(length).unwrap_or(u32::MAX))
}

/// The index of the fragments.
fn index(fragments: &[&[Sample<'_>]], heads: &[Vec<u8>]) -> Result<Vec<u8>, MuxError> {
    let count = u16::try_from(fragments.len()).map_err(|_| MuxError::TooLong)?;
    let mut entries = Vec::new();
    for (fragment, head) in fragments.iter().zip(heads) {
        let bytes = head.len() as u64 + data_bytes(fragment);
        // The highest bit says that it is no index itself.
        let bytes = u32::try_from(bytes).ok().filter(|bytes| bytes >> 31 == 0);
        let bytes = bytes.ok_or(MuxError::TooLong)?;
        let duration: u64 = fragment.iter().map(|sample| u64::from(sample.duration)).sum();
        let duration = u32::try_from(duration).map_err(|_| MuxError::TooLong)?;
        let fields = [bytes, duration, BEGINS_WITH_KEY];
        fields.iter().for_each(|field| entries.extend_from_slice(&field.to_be_bytes()));
    }
    let head = [1u32, TIMESCALE].map(u32::to_be_bytes).concat();
    // Of the first picture's presentation; the fragments follow at once.
    Ok(full(b"sidx", 1, 0, &[&head, &[0; 16], &[0; 2], &count.to_be_bytes(), &entries]))
}

/// What comes once: the codec, the size, how long it is in all.
fn movie(description: &StreamDescription, orientation: Orientation, length: u64) -> Vec<u8> {
    let (width, height) = description.size;
    let (kind, record) = &description.record;
    let entry = visual_entry(description.entry, description.size, &boxed(kind, &[record]));
    let none = &[0; 4];
    let stbl = boxed(
        b"stbl",
        &[
            &full(b"stsd", 0, 0, &[&1u32.to_be_bytes(), &entry]),
            &full(b"stts", 0, 0, &[none]),
            &full(b"stsc", 0, 0, &[none]),
            &full(b"stsz", 0, 0, &[none, none]),
            &full(b"stco", 0, 0, &[none]),
        ],
    );
    let timescale = TIMESCALE.to_be_bytes();
    // Made and changed in 1904, which says nothing; all pictures are in fragments, so that the
    // durations here are 0. No language.
    let mdhd = full(b"mdhd", 0, 0, &[&[0; 8], &timescale, none, &0x55c4u16.to_be_bytes(), &[0; 2]]);
    let mdia = media(&mdhd, &stbl);
    let tkhd = full(
        b"tkhd",
        0,
        // Enabled, in the movie, and in the preview.
        7,
        &[
            &[0; 8],
            &1u32.to_be_bytes(),
            &[0; 8],
            &[0; 16],
            &matrix(turn(orientation)),
            &(u32::from(width) << 16).to_be_bytes(),
            &(u32::from(height) << 16).to_be_bytes(),
        ],
    );
    let mvhd = full(
        b"mvhd",
        0,
        0,
        &[
            &[0; 8],
            &timescale,
            none,
            // Speed and volume, both 1, and 10 bytes that are reserved.
            &0x10000u32.to_be_bytes(),
            &0x100u16.to_be_bytes(),
            &[0; 10],
            &matrix(UPRIGHT),
            &[0; 24],
            &2u32.to_be_bytes(),
        ],
    );
    let mehd = full(b"mehd", 1, 0, &[&length.to_be_bytes()]);
    let trex = full(b"trex", 0, 0, &[&1u32.to_be_bytes(), &1u32.to_be_bytes(), &[0; 12]]);
    let mvex = boxed(b"mvex", &[&mehd, &trex]);
    boxed(b"moov", &[&mvhd, &boxed(b"trak", &[&tkhd, &mdia]), &mvex])
}

/// The matrix of a track whose pictures are turned so. Where they lie is left to the player, as all
/// do.
fn turn(orientation: Orientation) -> [u32; 9] {
    const ONE: u32 = 1 << 16;
    const MINUS: u32 = ONE.wrapping_neg();
    // How x and y of a picture become x and y of the screen.
    let [a, b, c, d] = match orientation {
        Orientation::Upright => return UPRIGHT,
        Orientation::MirrorAcross => [MINUS, 0, 0, ONE],
        Orientation::HalfTurn => [MINUS, 0, 0, MINUS],
        Orientation::MirrorDown => [ONE, 0, 0, MINUS],
        Orientation::Transpose => [0, ONE, ONE, 0],
        Orientation::TurnRight => [0, ONE, MINUS, 0],
        Orientation::Transverse => [0, MINUS, MINUS, 0],
        Orientation::TurnLeft => [0, MINUS, ONE, 0],
    };
    [a, b, 0, c, d, 0, 0, 0, 1 << 30]
}
