//! NAL units of H.264 and H.265: their kinds, and the assembly of access units in Annex B form.
//!
//! Only headers are read, the recovery points among the SEI messages, and of a sequence parameter
//! set the one field that lies in its third byte. Type numbers are those of ITU-T H.264 table 7-1
//! and H.265 table 7-1.

use bytes::Bytes;
use ocelli_protocol::worker::Codec;

/// The four-byte form everywhere: it is demanded before parameter sets and before the first NAL
/// unit of an access unit.
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// Maximum parameter sets cached for key pictures without their own. A stream has one of each kind,
/// rarely two; the bound keeps a hostile file from filling memory.
const MAX_PARAMETER_SETS: usize = 64;

/// The payload type of a recovery point SEI message in both codecs (H.264 D.1, H.265 D.2.1).
const RECOVERY_POINT: u32 = 6;
/// Pictures after which a recovery point promises a right one: further away, it is of no use to
/// who waits. 20 s at 30 pictures a second.
const MAX_RECOVERY: u32 = 600;
/// A stream that has shown a marked picture that is right at once within so many pictures is entered
/// at those alone: 10 s at 30 pictures a second.
const IMMEDIATE_WITHIN: u32 = 300;
/// Pictures without any mark of where decoding can start, before an intra picture counts as one:
/// encoders that send an IDR picture at their own start alone. A wait of a second at 25 a second,
/// so that marked ones come first, and of 25 s at one a second, within the limit for key pictures.
const UNMARKED: u32 = 25;

/// A recovery point SEI message of H.264 with its start code: "right from this picture on"
/// (recovery_frame_cnt 0). Goes before an intra picture that has none ([`PictureInfo::unmarked`]),
/// since decoders hold back what comes before the first marked picture.
pub(super) const RECOVERY_POINT_H264: [u8; 9] = [0, 0, 0, 1, 6, 6, 1, 0xc4, 0x80];

/// The role of a NAL unit in an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NalKind {
    /// A slice; `first` where it is the first one of its picture.
    Slice {
        first: bool,
    },
    /// VPS, SPS or PPS.
    ParameterSet,
    Delimiter,
    /// Anything else that stands before the first slice of an access unit.
    Prefix,
    /// Anything that may follow slices of the same access unit.
    Other,
}

/// Properties of an access unit, from its slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PictureInfo {
    /// Decoding can start here: an IDR, CRA or BLA picture, a recovery point, or after a long time
    /// without any of them an intra picture.
    pub(super) key: bool,
    /// No other picture refers to this one.
    pub(super) disposable: bool,
    /// It begins with the first slice of its picture.
    pub(super) whole: bool,
    /// A key picture that nothing marks as one: the decoder needs [`RECOVERY_POINT_H264`].
    pub(super) unmarked: bool,
}

/// H.264 or H.265: the two codecs made of NAL units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NalCodec {
    H264,
    H265,
}

impl From<NalCodec> for Codec {
    fn from(codec: NalCodec) -> Self {
        match codec {
            NalCodec::H264 => Self::H264,
            NalCodec::H265 => Self::H265,
        }
    }
}

impl NalCodec {
    /// That of a codec; `None`: each of its units is a picture by itself.
    pub(super) fn of(codec: Codec) -> Option<Self> {
        match codec {
            Codec::H264 => Some(Self::H264),
            Codec::H265 => Some(Self::H265),
            Codec::Mjpeg => None,
        }
    }

    pub(super) fn nal_type(self, nal: &[u8]) -> Option<u8> {
        let header = *nal.first()?;
        Some(match self {
            Self::H264 => header & 0x1f,
            Self::H265 => (header >> 1) & 0x3f,
        })
    }

    /// `None` if the NAL unit is too short to have a header.
    pub(super) fn kind(self, nal: &[u8]) -> Option<NalKind> {
        // The first syntax element of a slice header, first_mb_in_slice as ue(v) or
        // first_slice_segment_in_pic_flag, starts with a set bit if the slice starts its picture.
        let starts_picture = |at: usize| nal.get(at).is_some_and(|byte| byte & 0x80 != 0);
        Some(match (self, self.nal_type(nal)?) {
            (Self::H264, 1 | 2 | 5) => NalKind::Slice { first: starts_picture(1) },
            (Self::H264, 7 | 8) => NalKind::ParameterSet,
            (Self::H264, 9) => NalKind::Delimiter,
            (Self::H264, 6 | 15..=18) => NalKind::Prefix,
            (Self::H265, 0..=31) => {
                // Slices of other layers belong to the base layer's picture before them.
                NalKind::Slice { first: layer(nal)? == 0 && starts_picture(2) }
            }
            (Self::H265, 32..=34) => NalKind::ParameterSet,
            (Self::H265, 35) => NalKind::Delimiter,
            (Self::H265, 39 | 41..=44 | 48..=55) => NalKind::Prefix,
            _ => NalKind::Other,
        })
    }

    fn is_sequence_parameter_set(self, nal: &[u8]) -> bool {
        match self {
            Self::H264 => self.nal_type(nal) == Some(7),
            Self::H265 => self.nal_type(nal) == Some(33),
        }
    }
}

fn layer(nal: &[u8]) -> Option<u8> {
    let (first, second) = (nal.first()?, nal.get(1)?);
    Some((first & 1) << 5 | second >> 3)
}

/// Classifies access units in decoding order. Keeps the state that later ones need.
#[derive(Debug)]
pub(super) struct PictureInspector {
    codec: NalCodec,
    /// The highest temporal layer that the H.265 stream may have (sps_max_sub_layers_minus1).
    highest_layer: Option<u8>,
    /// Pictures since the last one that is right at once. `None` before the first.
    since_immediate: Option<u32>,
    /// Pictures since the last key picture, or the first picture.
    since_key: u32,
}

impl PictureInspector {
    pub(super) fn new(codec: NalCodec) -> Self {
        Self { codec, highest_layer: None, since_immediate: None, since_key: 0 }
    }

    /// Judges an access unit by its first slice: key and reference marks are the same for all
    /// slices of a picture. `None` if it holds no slice.
    pub(super) fn inspect<'a>(
        &mut self,
        nals: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<PictureInfo> {
        let mut recovery = None;
        let mut nals = nals.into_iter();
        while let Some(nal) = nals.next() {
            let Some(nal_type) = self.codec.nal_type(nal) else { continue };
            match (self.codec, nal_type) {
                (NalCodec::H264, 6) | (NalCodec::H265, 39) => {
                    recovery = recovery.or(recovery_point(self.codec, nal));
                }
                (NalCodec::H264, 1 | 2 | 5) => {
                    let reference = nal.first().is_some_and(|header| header & 0x60 != 0);
                    let entry = self
                        .entry(nal_type == 5, recovery, || reference && is_intra_h264(nal, nals));
                    return Some(self.picture(nal, !reference, entry));
                }
                (NalCodec::H265, 33) => {
                    // sps_video_parameter_set_id u(4), sps_max_sub_layers_minus1 u(3)
                    self.highest_layer = nal.get(2).map(|byte| (byte >> 1) & 0x07);
                }
                (NalCodec::H265, 0..=31) => {
                    // 16 to 21 are BLA, IDR and CRA: random access points. 22 and 23 are reserved.
                    let random_access = (16..=21).contains(&nal_type);
                    let entry = self.entry(random_access, recovery, || false);
                    return Some(self.picture(nal, self.is_disposable_h265(nal, nal_type), entry));
                }
                _ => {}
            }
        }
        None
    }

    fn picture(&self, slice: &[u8], disposable: bool, entry: Entry) -> PictureInfo {
        PictureInfo {
            key: entry != Entry::None,
            disposable,
            whole: self.codec.kind(slice) == Some(NalKind::Slice { first: true }),
            unmarked: entry == Entry::Unmarked,
        }
    }

    /// Whether decoding can start at a picture, which is counted. `recovery`: its recovery point,
    /// as [`recovery_point`] gives it.
    fn entry(
        &mut self,
        random_access: bool,
        recovery: Option<u32>,
        is_intra: impl FnOnce() -> bool,
    ) -> Entry {
        let immediate = random_access || recovery == Some(0);
        let knows_immediate = self.since_immediate.is_some_and(|since| since < IMMEDIATE_WITHIN);
        let gradual = recovery.is_some_and(|count| count <= MAX_RECOVERY) && !knows_immediate;
        let entry = if immediate || gradual {
            Entry::Marked
        } else if !knows_immediate && self.since_key >= UNMARKED && is_intra() {
            Entry::Unmarked
        } else {
            Entry::None
        };
        if immediate {
            self.since_immediate = Some(0);
        } else if let Some(since) = &mut self.since_immediate {
            *since = since.saturating_add(1);
        }
        self.since_key = if entry == Entry::None { self.since_key.saturating_add(1) } else { 0 };
        entry
    }

    /// A sub-layer non-reference picture (even types up to 14) may still be referred to by pictures
    /// of higher temporal layers; only without a higher layer nothing refers to it.
    fn is_disposable_h265(&self, nal: &[u8], nal_type: u8) -> bool {
        let non_reference = nal_type <= 14 && nal_type.is_multiple_of(2);
        let temporal_layer = nal.get(1).and_then(|byte| (byte & 0x07).checked_sub(1));
        non_reference && temporal_layer.is_some() && temporal_layer == self.highest_layer
    }
}

/// Whether and why decoding can start at a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    None,
    Marked,
    Unmarked,
}

/// In how many pictures after this one the stream is right, by the recovery point among the SEI
/// messages of a NAL unit: recovery_frame_cnt, or recovery_poc_cnt, which counts backwards where a
/// picture before is right already.
fn recovery_point(codec: NalCodec, nal: &[u8]) -> Option<u32> {
    let header = match codec {
        NalCodec::H264 => 1,
        NalCodec::H265 => 2,
    };
    let mut payload = Unescaped::new(nal.get(header..)?);
    loop {
        let (kind, size) = (payload.sei_number()?, payload.sei_number()?);
        if kind != RECOVERY_POINT {
            // One byte at least is read for the number, so this comes to an end.
            (0..size).try_for_each(|_| payload.next().map(drop))?;
            continue;
        }
        let mut bits = Bits::new(payload.by_ref().take(usize::try_from(size).ok()?));
        let code = bits.exp_golomb()?;
        return Some(match codec {
            NalCodec::H264 => code,
            // se(v): odd codes are positive.
            NalCodec::H265 if code % 2 == 1 => code / 2 + 1,
            NalCodec::H265 => 0,
        });
    }
}

/// Whether all slices of an H.264 picture are intra ones, of which `slice` is the first.
fn is_intra_h264<'a>(slice: &[u8], rest: impl Iterator<Item = &'a [u8]>) -> bool {
    // first_mb_in_slice ue(v), slice_type ue(v): 2 and 4 are I and SI; 7 and 9 too, and say so of
    // the picture's other slices as well.
    let slice_type = |nal: &[u8]| {
        let mut bits = Bits::new(nal.iter().skip(1).copied());
        bits.exp_golomb().and_then(|_| bits.exp_golomb())
    };
    match slice_type(slice) {
        Some(7 | 9) => true,
        Some(2 | 4) => rest
            .filter(|nal| matches!(NalCodec::H264.nal_type(nal), Some(1 | 2 | 5)))
            .all(|nal| matches!(slice_type(nal), Some(2 | 4 | 7 | 9))),
        _ => false,
    }
}

/// The bytes of a NAL unit without those that keep start codes out of it (H.264 7.4.1).
pub(super) struct Unescaped<'a> {
    bytes: &'a [u8],
    zeros: u8,
}

impl Iterator for Unescaped<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (mut byte, mut rest) = self.bytes.split_first()?;
        if self.zeros >= 2 && *byte == 3 {
            (byte, rest) = rest.split_first()?;
            self.zeros = 0;
        }
        self.zeros = if *byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        self.bytes = rest;
        Some(*byte)
    }
}

impl<'a> Unescaped<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, zeros: 0 }
    }

    /// A payload type or size: 255 for each full byte, then the rest.
    fn sei_number(&mut self) -> Option<u32> {
        let mut number = 0_u32;
        loop {
            let byte = self.next()?;
            number = number.checked_add(u32::from(byte))?;
            if byte != 0xff {
                return Some(number);
            }
        }
    }
}

/// Reads bits, the highest of each byte first.
pub(super) struct Bits<I> {
    bytes: I,
    byte: u8,
    /// Bits of `byte` that are not read yet.
    left: u8,
}

impl<I: Iterator<Item = u8>> Bits<I> {
    pub(super) fn new(bytes: I) -> Self {
        Self { bytes, byte: 0, left: 0 }
    }

    pub(super) fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            (self.byte, self.left) = (self.bytes.next()?, 8);
        }
        self.left -= 1;
        Some(u32::from(self.byte >> self.left & 1))
    }

    /// u(n): at most 32 bits.
    pub(super) fn bits(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0, |value, _| Some(value << 1 | self.bit()?))
    }

    /// ue(v). `None` for one of more than 31 bits behind its prefix.
    pub(super) fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.bits(zeros)?;
        Some((1_u32 << zeros) - 1 + rest)
    }
}

/// Puts NAL units together to access units that a decoder can start on at every key picture.
#[derive(Debug)]
pub(super) struct Assembler {
    codec: NalCodec,
    inspector: PictureInspector,
    /// The current parameter sets, for key pictures without their own.
    parameter_sets: Vec<Vec<u8>>,
}

impl Assembler {
    /// `parameter_sets`: those that the container keeps apart from the pictures.
    pub(super) fn new(codec: NalCodec, parameter_sets: Vec<Vec<u8>>) -> Self {
        let mut inspector = PictureInspector::new(codec);
        // No slice among them: this only notes the stream's number of temporal layers.
        inspector.inspect(parameter_sets.iter().map(Vec::as_slice));
        Self { codec, inspector, parameter_sets }
    }

    /// Writes the NAL units of one access unit in Annex B form, with parameter sets before a key
    /// picture's slices in any case. `None` if it has no slice and so no picture. `sync`: the
    /// container says that decoding can start here, which of some streams only the container knows
    /// (recovery points without IDR).
    pub(super) fn assemble(&mut self, nals: &[&[u8]], sync: bool) -> Option<(PictureInfo, Bytes)> {
        let picture = self.inspector.inspect(nals.iter().copied());
        // The decoder must know that it can start here, whoever says so.
        let lacks_mark = self.codec == NalCodec::H264
            && picture.is_some_and(|picture| picture.unmarked || (sync && !picture.key));
        let mark = if lacks_mark { RECOVERY_POINT_H264.get(START_CODE.len()..) } else { None };
        let picture = picture.map(|picture| PictureInfo { key: picture.key || sync, ..picture });
        let brings_sets = nals.iter().any(|nal| self.codec.is_sequence_parameter_set(nal));
        let add_sets = picture.is_some_and(|picture| picture.key) && !brings_sets;
        let mut size: usize = nals.iter().map(|nal| nal.len() + START_CODE.len()).sum();
        if add_sets {
            size +=
                self.parameter_sets.iter().map(|nal| nal.len() + START_CODE.len()).sum::<usize>();
        }
        let mut data = Vec::with_capacity(size);
        let mut write = |nal: &[u8]| {
            data.extend_from_slice(&START_CODE);
            data.extend_from_slice(nal);
        };
        // A delimiter, where there is one, must stay the first.
        let delimiter = nals.iter().filter(|nal| self.codec.kind(nal) == Some(NalKind::Delimiter));
        delimiter.for_each(|nal| write(nal));
        if add_sets {
            self.parameter_sets.iter().for_each(|nal| write(nal));
        }
        mark.into_iter().for_each(&mut write);
        let rest = nals.iter().filter(|nal| self.codec.kind(nal) != Some(NalKind::Delimiter));
        rest.for_each(|nal| write(nal));
        self.remember(nals, brings_sets);
        Some((picture?, data.into()))
    }

    fn remember(&mut self, nals: &[&[u8]], brings_sequence: bool) {
        let sets = nals.iter().filter(|nal| self.codec.kind(nal) == Some(NalKind::ParameterSet));
        let mut sets = sets.peekable();
        if sets.peek().is_none() {
            return;
        }
        if brings_sequence {
            self.parameter_sets.clear();
        }
        for nal in sets {
            let known = self.parameter_sets.iter().any(|set| set.as_slice() == *nal);
            if !known && self.parameter_sets.len() < MAX_PARAMETER_SETS {
                self.parameter_sets.push(nal.to_vec());
            }
        }
    }
}

/// Takes access units in Annex B form apart and puts them together as the readers of cameras do.
/// Returns those that have a picture, each with whether decoding can start there.
#[doc(hidden)]
pub fn assemble_units(h265: bool, units: &[&[u8]]) -> Vec<(bool, Bytes)> {
    let codec = if h265 { NalCodec::H265 } else { NalCodec::H264 };
    let mut assembler = Assembler::new(codec, Vec::new());
    let assemble = |unit: &&[u8]| {
        let nals: Vec<&[u8]> = split_annex_b(unit).collect();
        let (picture, data) = assembler.assemble(&nals, false)?;
        Some((picture.key, data))
    };
    units.iter().filter_map(assemble).collect()
}

/// The NAL units of a whole access unit in Annex B form.
pub(super) fn split_annex_b(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = match find_start_code(data) {
        Some(at) => data.get(at + 3..).unwrap_or_default(),
        None => &[],
    };
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (nal, next) = match find_start_code(rest) {
                Some(at) => rest
                    .split_at_checked(at)
                    .map(|(nal, next)| (nal, next.get(3..).unwrap_or_default()))?,
                None => (rest, [].as_slice()),
            };
            rest = next;
            let nal = trim_trailing_zeros(nal);
            if !nal.is_empty() {
                return Some(nal);
            }
        }
        None
    })
}

/// A NAL unit never ends with a zero byte; further ones are padding or of the next start code.
pub(super) fn trim_trailing_zeros(nal: &[u8]) -> &[u8] {
    let end = nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    nal.get(..end).unwrap_or_default()
}

/// Where the first `00 00 01` begins.
pub(super) fn find_start_code(data: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        // The 01 is rare, so looking for it first passes over most of the data in one step.
        let at = from + data.get(from..)?.iter().position(|byte| *byte == 1)?;
        if at >= 2 && data.get(at - 2..at) == Some(&[0, 0]) {
            return Some(at - 2);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS_264: &[u8] = &[0x67, 1, 2];
    const PPS_264: &[u8] = &[0x68, 3];
    const IDR_264: &[u8] = &[0x65, 0x88, 1];

    fn h265(nal_type: u8, temporal_layer: u8) -> Vec<u8> {
        vec![nal_type << 1, temporal_layer + 1, 0x80]
    }

    #[test]
    fn annex_b_splits_at_short_and_long_start_codes() {
        let data = [0, 0, 0, 1, 9, 0, 0, 1, 0x65, 0, 0, 2, 0, 0, 0, 0, 1, 7, 0];
        let nals: Vec<&[u8]> = split_annex_b(&data).collect();
        assert_eq!(nals, [&[9][..], &[0x65, 0, 0, 2], &[7]]);
        assert_eq!(split_annex_b(&[1, 2, 3]).count(), 0);
        assert_eq!(split_annex_b(&[0, 0, 1]).count(), 0);
    }

    #[test]
    fn h264_key_and_disposable_come_from_the_slice_header() {
        let mut inspector = PictureInspector::new(NalCodec::H264);
        let mut inspect = |nal: &[u8]| inspector.inspect([SPS_264, nal]);
        let picture =
            |key, disposable| Some(PictureInfo { key, disposable, whole: true, unmarked: false });
        assert_eq!(inspect(IDR_264), picture(true, false));
        assert_eq!(inspect(&[0x41, 0x9a]), picture(false, false));
        assert_eq!(inspect(&[0x01, 0x9a]), picture(false, true));
        assert!(!inspect(&[0x41, 0x1a]).unwrap().whole, "not the picture's first slice");
        assert_eq!(inspect(PPS_264), None);
    }

    const P_264: &[u8] = &[0x41, 0x9a];
    /// As x264 writes them: right at once, and after 9 pictures.
    const AT_ONCE: &[u8] = &[6, 6, 1, 0xc4, 0x80];
    const BY_AND_BY: &[u8] = &[6, 6, 2, 0x15, 0x10, 0x80];
    /// I slices: type 7, and type 2, which says nothing of the other slices.
    const ALL_I_264: &[u8] = &[0x61, 0x88, 0x84];
    const I_264: &[u8] = &[0x61, 0b1011_0000];

    #[test]
    fn a_recovery_point_is_a_key_picture() {
        let key = |codec, nals: &[&[u8]]| {
            PictureInspector::new(codec).inspect(nals.iter().copied()).unwrap().key
        };
        // Behind the encoder's own words, as is usual, and with an escaped byte in between.
        let words: &[u8] = &[6, 5, 4, 0, 0, 3, 1, 7, 6, 1, 0xc4, 0x80];
        for sei in [AT_ONCE, BY_AND_BY, words] {
            assert!(key(NalCodec::H264, &[sei, P_264]));
        }
        assert!(!key(NalCodec::H264, &[P_264]));
        assert!(!key(NalCodec::H264, &[&[6, 5, 200, 1, 2], P_264]), "cut short");
        assert!(!key(NalCodec::H264, &[&[6], P_264]));
        assert!(!key(NalCodec::H264, &[&[6, 6, 3, 0, 0x4b, 0x40], P_264]), "in 601");
        let trail = h265(1, 0);
        for count in [0b1100_0000, 0b0101_0000, 0b0110_0000] {
            assert!(key(NalCodec::H265, &[&[39 << 1, 1, 6, 1, count, 0x80], &trail]));
        }
        assert_eq!(recovery_point(NalCodec::H264, AT_ONCE), Some(0));
        assert_eq!(recovery_point(NalCodec::H264, BY_AND_BY), Some(9));
        assert_eq!(recovery_point(NalCodec::H265, &[78, 1, 6, 1, 0b0101_0000]), Some(1));
        assert_eq!(recovery_point(NalCodec::H265, &[78, 1, 6, 1, 0b0110_0000]), Some(0));
    }

    #[test]
    fn where_pictures_are_right_at_once_those_that_become_right_are_no_key_pictures() {
        let mut inspector = PictureInspector::new(NalCodec::H264);
        assert!(inspector.inspect([BY_AND_BY, P_264]).unwrap().key);
        assert!(inspector.inspect([IDR_264]).unwrap().key);
        assert!(!inspector.inspect([BY_AND_BY, P_264]).unwrap().key);
        for _ in 0..IMMEDIATE_WITHIN {
            inspector.inspect([P_264]);
        }
        assert!(inspector.inspect([BY_AND_BY, P_264]).unwrap().key, "only at its start");
    }

    #[test]
    fn without_any_mark_an_intra_picture_becomes_a_key_picture_after_a_while() {
        let mut inspector = PictureInspector::new(NalCodec::H264);
        for _ in 0..UNMARKED {
            assert!(!inspector.inspect([ALL_I_264]).unwrap().key);
        }
        assert!(!inspector.inspect([P_264]).unwrap().key);
        assert!(!inspector.inspect([I_264, P_264]).unwrap().key, "not all of it is intra");
        let picture = inspector.inspect([I_264, I_264]).unwrap();
        assert!(picture.key && picture.unmarked);
        assert!(!inspector.inspect([ALL_I_264]).unwrap().key, "as seldom as others");
        inspector.inspect([IDR_264]);
        for _ in 0..IMMEDIATE_WITHIN {
            assert!(!inspector.inspect([ALL_I_264]).unwrap().key, "IDR pictures do come");
        }
        assert!(inspector.inspect([ALL_I_264]).unwrap().key);
        let marked: Vec<&[u8]> = split_annex_b(&RECOVERY_POINT_H264).collect();
        assert_eq!(recovery_point(NalCodec::H264, marked[0]), Some(0));
    }

    #[test]
    fn h265_bla_idr_and_cra_are_key_pictures() {
        let mut inspector = PictureInspector::new(NalCodec::H265);
        for nal_type in 0..=31 {
            let picture = inspector.inspect([h265(nal_type, 0).as_slice()]).unwrap();
            assert_eq!(picture.key, (16..=21).contains(&nal_type), "type {nal_type}");
        }
    }

    #[test]
    fn h265_pictures_are_disposable_only_in_the_highest_temporal_layer() {
        let mut inspector = PictureInspector::new(NalCodec::H265);
        let disposable = |inspector: &mut PictureInspector, nal_type, layer| {
            inspector.inspect([h265(nal_type, layer).as_slice()]).unwrap().disposable
        };
        assert!(!disposable(&mut inspector, 0, 0), "the number of layers is not known yet");
        inspector.inspect([&[33 << 1, 1, 0b0000_0010][..]]);
        assert!(disposable(&mut inspector, 0, 1));
        assert!(!disposable(&mut inspector, 0, 0), "a picture of layer 1 may refer to it");
        assert!(!disposable(&mut inspector, 1, 1), "a reference picture");
        assert!(disposable(&mut inspector, 8, 1), "a leading picture of the highest layer");
        assert!(!disposable(&mut inspector, 16, 1), "a key picture");
    }

    #[test]
    fn key_pictures_get_parameter_sets_behind_the_delimiter_unless_they_bring_them() {
        let mut assembler =
            Assembler::new(NalCodec::H264, vec![SPS_264.to_vec(), PPS_264.to_vec()]);
        let delimiter: &[u8] = &[9, 0x10];
        let (picture, data) = assembler.assemble(&[delimiter, IDR_264], false).unwrap();
        assert!(picture.key);
        let nals: Vec<&[u8]> = split_annex_b(&data).collect();
        assert_eq!(nals, [delimiter, SPS_264, PPS_264, IDR_264]);

        let other_sps: &[u8] = &[0x67, 9];
        let (_, data) = assembler.assemble(&[other_sps, PPS_264, IDR_264], false).unwrap();
        assert_eq!(split_annex_b(&data).count(), 3);
        let (_, data) = assembler.assemble(&[IDR_264], false).unwrap();
        let nals: Vec<&[u8]> = split_annex_b(&data).collect();
        assert_eq!(nals, [other_sps, PPS_264, IDR_264], "the newest sets are in force");

        let (_, data) = assembler.assemble(&[&[0x41, 0x9a]], false).unwrap();
        assert_eq!(split_annex_b(&data).count(), 1, "no sets before other pictures");
    }
}
