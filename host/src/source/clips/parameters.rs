//! The parameter sets of a stream: what a clip's file says of its codec, and whether they have
//! changed. The fields are those of ITU-T H.264 7.3.2.1 and H.265 7.3.2.2, the records those of
//! ISO/IEC 14496-15.

use super::super::nal::{Bits, NalCodec, NalKind, Unescaped, find_start_code, trim_trailing_zeros};

/// Parameter sets before one picture. A stream has one of each kind, rarely two.
const MAX_SETS: usize = 16;

/// Bytes of a set: the lengths in a file have 16 bits.
const MAX_SET_BYTES: usize = u16::MAX as usize;

/// Bytes of general_profile_tier_level of H.265 with the level.
const PROFILE_BYTES: usize = 12;

/// Profiles of H.264 whose sequence parameter sets say more of colours.
const HIGH_PROFILES: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// The parameter sets before a key picture, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParameterSets {
    pub(super) codec: NalCodec,
    sets: Vec<Vec<u8>>,
}

/// What a file says of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamDescription {
    /// Width and height of the pictures as they are shown.
    pub(super) size: (u16, u16),
    /// The name of the sample entry.
    pub(super) entry: &'static [u8; 4],
    /// The name of the codec's record in it, and its content.
    pub(super) record: (&'static [u8; 4], Vec<u8>),
}

/// What is needed of a sequence parameter set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sequence {
    size: (u16, u16),
    chroma: u8,
    /// Bits of luma and chroma, less 8.
    depths: (u8, u8),
    /// Whether the record of H.264 tells of colours.
    is_high: bool,
}

impl ParameterSets {
    /// Those at the beginning of an access unit in Annex B form. `None` if there is none.
    pub(super) fn before(codec: NalCodec, data: &[u8]) -> Option<Self> {
        let mut sets = Vec::new();
        let mut rest = data.get(find_start_code(data)? + 3..)?;
        loop {
            match codec.kind(rest)? {
                // Slices are long: where they end does not matter.
                NalKind::Slice { .. } => break,
                NalKind::ParameterSet | NalKind::Delimiter | NalKind::Prefix | NalKind::Other => {}
            }
            let Some(end) = find_start_code(rest) else { break };
            let (nal, next) = rest.split_at_checked(end)?;
            let nal = trim_trailing_zeros(nal);
            let is_set = codec.kind(nal) == Some(NalKind::ParameterSet);
            let is_new = !sets.iter().any(|set: &Vec<u8>| set == nal);
            if is_set && is_new && nal.len() <= MAX_SET_BYTES && sets.len() < MAX_SETS {
                sets.push(nal.to_vec());
            }
            rest = next.get(3..)?;
        }
        (!sets.is_empty()).then_some(Self { codec, sets })
    }

    /// Whether a NAL unit is one of them.
    pub(super) fn has(&self, nal: &[u8]) -> bool {
        self.sets.iter().any(|set| set == nal)
    }

    /// What a file says of a stream with these sets. `None` if they say not enough, or cannot be
    /// read.
    pub(super) fn describe(&self) -> Option<StreamDescription> {
        match self.codec {
            NalCodec::H264 => self.describe_h264(),
            NalCodec::H265 => self.describe_h265(),
        }
    }

    /// The sets of this type.
    fn of_type(&self, wanted: u8) -> impl Iterator<Item = &Vec<u8>> {
        self.sets.iter().filter(move |set| self.codec.nal_type(set) == Some(wanted))
    }

    fn describe_h264(&self) -> Option<StreamDescription> {
        let (sequences, pictures) = (listed(self.of_type(7))?, listed(self.of_type(8))?);
        let first = self.of_type(7).next()?;
        let sequence = sequence_h264(first)?;
        let mut record = vec![1];
        record.extend_from_slice(first.get(1..4)?);
        // Lengths of four bytes, then how many sets.
        record.extend([0xff, 0xe0 | sequences.0]);
        record.extend(sequences.1);
        record.push(pictures.0);
        record.extend(pictures.1);
        if sequence.is_high {
            let (luma, chroma) = sequence.depths;
            record.extend([0xfc | sequence.chroma, 0xf8 | luma, 0xf8 | chroma, 0]);
        }
        let complete = pictures.0 > 0;
        complete.then_some(StreamDescription {
            size: sequence.size,
            entry: b"avc1",
            record: (b"avcC", record),
        })
    }

    fn describe_h265(&self) -> Option<StreamDescription> {
        let first = self.of_type(33).next()?;
        let (sequence, profile, layers) = sequence_h265(first)?;
        let mut record = vec![1];
        record.extend(profile);
        // No segments and no parallelism are told of.
        record.extend([0xf0, 0, 0xfc, 0xfc | sequence.chroma]);
        let (luma, chroma) = sequence.depths;
        // No rate of pictures is told of; lengths have four bytes.
        record.extend([0xf8 | luma, 0xf8 | chroma, 0, 0, layers << 2 | 3]);
        let kinds = [32, 33, 34].map(|kind| Some((kind, listed(self.of_type(kind))?)));
        record.push(3);
        for kind in kinds {
            let (kind, (count, sets)) = kind?;
            if count == 0 {
                return None;
            }
            // All of them are here.
            record.extend([0x80 | kind, 0, count]);
            record.extend(sets);
        }
        let size = sequence.size;
        Some(StreamDescription { size, entry: b"hvc1", record: (b"hvcC", record) })
    }
}

/// How many sets there are, and each behind its length.
fn listed<'a>(sets: impl Iterator<Item = &'a Vec<u8>>) -> Option<(u8, Vec<u8>)> {
    let (mut count, mut bytes) = (0, Vec::new());
    for set in sets {
        count += 1;
        bytes.extend(u16::try_from(set.len()).ok()?.to_be_bytes());
        bytes.extend(set);
    }
    Some((count, bytes))
}

/// se(v).
fn signed<I: Iterator<Item = u8>>(bits: &mut Bits<I>) -> Option<i64> {
    let code = i64::from(bits.exp_golomb()?);
    Some(if code % 2 == 1 { code / 2 + 1 } else { -(code / 2) })
}

/// A side in samples without what is cut off, in units, at its two ends.
fn cropped(side: u32, unit: u32, [one, other]: [u32; 2]) -> Option<u16> {
    let cut = one.checked_add(other)?.checked_mul(unit)?;
    u16::try_from(side.checked_sub(cut)?).ok().filter(|side| *side > 0)
}

fn sequence_h264(set: &[u8]) -> Option<Sequence> {
    let mut bits = Bits::new(Unescaped::new(set.get(1..)?));
    let profile = bits.bits(8)?;
    bits.bits(16)?;
    bits.exp_golomb()?;
    let is_high = HIGH_PROFILES.contains(&profile);
    let (mut chroma, mut depths, mut separate) = (1, (0, 0), false);
    if is_high {
        chroma = bits.exp_golomb().filter(|format| *format <= 3)?;
        separate = chroma == 3 && bits.bit()? == 1;
        depths = (depth(&mut bits)?, depth(&mut bits)?);
        bits.bit()?;
        if bits.bit()? == 1 {
            skip_scaling_lists(&mut bits, if chroma == 3 { 12 } else { 8 })?;
        }
    }
    bits.exp_golomb()?;
    match bits.exp_golomb()? {
        0 => {
            bits.exp_golomb()?;
        }
        1 => {
            bits.bit()?;
            signed(&mut bits)?;
            signed(&mut bits)?;
            let cycle = bits.exp_golomb().filter(|count| *count <= 255)?;
            (0..cycle).try_for_each(|_| signed(&mut bits).map(drop))?;
        }
        _ => {}
    }
    bits.exp_golomb()?;
    bits.bit()?;
    let across = bits.exp_golomb()?.checked_add(1)?.checked_mul(16)?;
    let down = bits.exp_golomb()?.checked_add(1)?.checked_mul(16)?;
    let frames_only = bits.bit()?;
    if frames_only == 0 {
        bits.bit()?;
    }
    let down = down.checked_mul(2 - frames_only)?;
    bits.bit()?;
    let crop = crop(&mut bits)?;
    let format = if separate { 0 } else { chroma };
    Some(Sequence {
        size: shown_size((across, down), crop, format, 2 - frames_only)?,
        chroma: u8::try_from(chroma).ok()?,
        depths,
        is_high,
    })
}

/// What is cut off at left, right, top and bottom, in units.
fn crop<I: Iterator<Item = u8>>(bits: &mut Bits<I>) -> Option<[u32; 4]> {
    let mut crop = [0; 4];
    if bits.bit()? == 1 {
        for end in &mut crop {
            *end = bits.exp_golomb()?;
        }
    }
    Some(crop)
}

/// The size as it is shown. `format`: of colours (0: none, or in planes of their own); `rows`: how
/// many a unit of a frame has for each of one of its fields.
fn shown_size(
    (across, down): (u32, u32),
    [left, right, top, bottom]: [u32; 4],
    format: u32,
    rows: u32,
) -> Option<(u16, u16)> {
    let unit_across = if matches!(format, 1 | 2) { 2 } else { 1 };
    let unit_down = if format == 1 { 2 } else { 1 };
    Some((
        cropped(across, unit_across, [left, right])?,
        cropped(down, unit_down * rows, [top, bottom])?,
    ))
}

/// bit_depth_minus8: below 8, since the records have three bits for it.
fn depth<I: Iterator<Item = u8>>(bits: &mut Bits<I>) -> Option<u8> {
    bits.exp_golomb().and_then(|depth| u8::try_from(depth).ok()).filter(|depth| *depth < 8)
}

fn skip_scaling_lists<I: Iterator<Item = u8>>(bits: &mut Bits<I>, lists: u32) -> Option<()> {
    for list in 0..lists {
        if bits.bit()? == 0 {
            continue;
        }
        let (mut last, mut next) = (8, 8);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = (last + signed(bits)?).rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
    }
    Some(())
}

/// What is needed, the profile with the level, and of temporal layers their number and whether they
/// are nested: four bits.
fn sequence_h265(set: &[u8]) -> Option<(Sequence, [u8; PROFILE_BYTES], u8)> {
    let mut bits = Bits::new(Unescaped::new(set.get(2..)?));
    bits.bits(4)?;
    let layers = bits.bits(3)?;
    let nested = bits.bit()?;
    let mut profile = [0; PROFILE_BYTES];
    for byte in &mut profile {
        *byte = u8::try_from(bits.bits(8)?).ok()?;
    }
    let mut told = Vec::new();
    for _ in 0..layers {
        told.push((bits.bit()?, bits.bit()?));
    }
    if layers > 0 {
        (layers..8).try_for_each(|_| bits.bits(2).map(drop))?;
    }
    for (has_profile, has_level) in told {
        let skipped = has_profile * 88 + has_level * 8;
        (0..skipped).try_for_each(|_| bits.bit().map(drop))?;
    }
    bits.exp_golomb()?;
    let chroma = bits.exp_golomb().filter(|format| *format <= 3)?;
    let separate = chroma == 3 && bits.bit()? == 1;
    let (across, down) = (bits.exp_golomb()?, bits.exp_golomb()?);
    let crop = crop(&mut bits)?;
    let depths = (depth(&mut bits)?, depth(&mut bits)?);
    let format = if separate { 0 } else { chroma };
    let sequence = Sequence {
        size: shown_size((across, down), crop, format, 1)?,
        chroma: u8::try_from(chroma).ok()?,
        depths,
        is_high: false,
    };
    let layers = u8::try_from((layers + 1).min(7) << 1 | nested).ok()?;
    Some((sequence, profile, layers))
}
