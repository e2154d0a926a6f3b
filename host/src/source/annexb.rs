//! Cuts a raw H.264 or H.265 stream (Annex B) into access units while it is being read.

use std::io::Read;

use super::file_error::FileError;
use super::nal::{NalCodec, NalKind, find_start_code, trim_trailing_zeros};

/// How much is read at a time.
const CHUNK: usize = 64 << 10;
/// Largest access unit. An uncompressed 8K picture is 50 MB. A file without start codes must not
/// fill memory.
const MAX_UNIT: usize = 64 << 20;

/// The access units of a raw stream, each as its NAL units without start codes.
#[derive(Debug)]
pub(super) struct AnnexB<R> {
    nals: NalReader<R>,
    codec: NalCodec,
    /// The NAL unit that starts the next access unit.
    next: Option<Vec<u8>>,
}

impl<R: Read> AnnexB<R> {
    pub(super) fn new(input: R, codec: NalCodec) -> Self {
        let nals =
            NalReader { input, buffer: Vec::new(), scanned: 0, started: false, ended: false };
        Self { nals, codec, next: None }
    }

    /// The next access unit. `None` at the end.
    ///
    /// # Errors The input cannot be read, or is no Annex B stream. The text does not name the file.
    pub(super) fn next_unit(&mut self) -> Result<Option<Vec<Vec<u8>>>, FileError> {
        let mut unit = Vec::new();
        let mut size = 0;
        let mut has_slice = false;
        loop {
            let nal = match self.next.take() {
                Some(nal) => Some(nal),
                None => self.nals.next_nal()?,
            };
            let Some(nal) = nal else { break };
            let Some(kind) = self.codec.kind(&nal) else { continue };
            if has_slice && self.starts_unit(kind) {
                self.next = Some(nal);
                break;
            }
            has_slice |= matches!(kind, NalKind::Slice { .. });
            size += nal.len();
            if size > MAX_UNIT {
                return Err(FileError::UnitTooLarge(MAX_UNIT));
            }
            unit.push(nal);
        }
        Ok((!unit.is_empty()).then_some(unit))
    }

    /// Whether such a NAL unit after a slice starts an access unit (H.264 7.4.1.2.3, H.265
    /// 7.4.2.4.4).
    fn starts_unit(&self, kind: NalKind) -> bool {
        match kind {
            NalKind::Slice { first } => first,
            NalKind::ParameterSet | NalKind::Delimiter | NalKind::Prefix => true,
            NalKind::Other => false,
        }
    }
}

#[derive(Debug)]
struct NalReader<R> {
    input: R,
    /// Read and not yet given out; begins behind a start code once `started`.
    buffer: Vec<u8>,
    /// No start code begins before this place.
    scanned: usize,
    started: bool,
    ended: bool,
}

impl<R: Read> NalReader<R> {
    fn next_nal(&mut self) -> Result<Option<Vec<u8>>, FileError> {
        loop {
            let found = self
                .buffer
                .get(self.scanned..)
                .and_then(find_start_code)
                .map(|at| self.scanned + at);
            let nal = match found {
                Some(at) => {
                    let nal = self.take(at, 3);
                    if !std::mem::replace(&mut self.started, true) {
                        if !nal.is_empty() {
                            return Err(FileError::NoStartCode);
                        }
                        continue;
                    }
                    nal
                }
                None if !self.ended => {
                    // The buffer may end in the middle of a start code.
                    self.scanned = self.buffer.len().saturating_sub(2);
                    self.read_on()?;
                    continue;
                }
                None if self.buffer.is_empty() => return Ok(None),
                None if !self.started => return Err(FileError::NoStartCode),
                None => self.take(self.buffer.len(), 0),
            };
            if !nal.is_empty() {
                return Ok(Some(nal));
            }
        }
    }

    /// Takes the bytes before `at`, and drops `skip` bytes after them.
    fn take(&mut self, at: usize, skip: usize) -> Vec<u8> {
        let nal = trim_trailing_zeros(self.buffer.get(..at).unwrap_or_default()).to_vec();
        self.buffer.drain(..(at + skip).min(self.buffer.len()));
        self.scanned = 0;
        nal
    }

    fn read_on(&mut self) -> Result<(), FileError> {
        if self.buffer.len() > MAX_UNIT {
            return Err(match self.started {
                true => FileError::UnitTooLarge(MAX_UNIT),
                false => FileError::NoStartCode,
            });
        }
        let mut chunk = self.input.by_ref().take(CHUNK as u64);
        let read = chunk.read_to_end(&mut self.buffer)?;
        self.ended = read == 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out one byte at a time, so that every boundary falls between two reads.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let some = 1.min(buffer.len());
            self.0.read(&mut buffer[..some])
        }
    }

    fn units(codec: NalCodec, data: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut whole = AnnexB::new(data, codec);
        let units: Vec<_> = std::iter::from_fn(|| whole.next_unit().unwrap()).collect();
        let mut dripped = AnnexB::new(Drip(data), codec);
        let again: Vec<_> = std::iter::from_fn(|| dripped.next_unit().unwrap()).collect();
        assert_eq!(units, again);
        units
    }

    fn stream(nals: &[&[u8]]) -> Vec<u8> {
        let long = |(index, nal): (usize, &&[u8])| {
            // Short and long start codes, and padding, in turn.
            let start: &[u8] = if index % 2 == 0 { &[0, 0, 0, 1] } else { &[0, 0, 1] };
            [start, nal].concat()
        };
        nals.iter().enumerate().flat_map(long).collect()
    }

    const SPS: &[u8] = &[0x67, 1];
    const PPS: &[u8] = &[0x68, 1];
    const SEI: &[u8] = &[6, 1];
    const DELIMITER: &[u8] = &[9, 0x10];
    const IDR_FIRST: &[u8] = &[0x65, 0x80, 1];
    const IDR_LATER: &[u8] = &[0x65, 0x40, 2];
    const P_FIRST: &[u8] = &[0x41, 0x80, 3];
    const P_LATER: &[u8] = &[0x41, 0x40, 4];

    #[test]
    fn h264_units_start_before_parameter_sets_and_hold_all_their_slices() {
        let data = stream(&[
            SPS, PPS, SEI, IDR_FIRST, IDR_LATER, P_FIRST, P_LATER, SEI, P_FIRST, SPS, PPS,
            IDR_FIRST,
        ]);
        let expected: [&[&[u8]]; 4] = [
            &[SPS, PPS, SEI, IDR_FIRST, IDR_LATER],
            &[P_FIRST, P_LATER],
            &[SEI, P_FIRST],
            &[SPS, PPS, IDR_FIRST],
        ];
        assert_eq!(units(NalCodec::H264, &data), expected);
    }

    #[test]
    fn delimiters_start_units_and_fillers_belong_to_the_unit_before() {
        let filler: &[u8] = &[12, 0xff];
        let data = stream(&[DELIMITER, IDR_FIRST, filler, DELIMITER, P_FIRST]);
        let expected: [&[&[u8]]; 2] = [&[DELIMITER, IDR_FIRST, filler], &[DELIMITER, P_FIRST]];
        assert_eq!(units(NalCodec::H264, &data), expected);
    }

    #[test]
    fn h265_units_are_told_by_the_first_slice_segment_and_prefix_nals() {
        let nal = |nal_type: u8, byte: u8| vec![nal_type << 1, 1, byte];
        let (vps, sps, pps) = (nal(32, 1), nal(33, 1), nal(34, 1));
        let (cra, more) = (nal(21, 0x80), nal(21, 0x40));
        let (prefix, suffix, trail) = (nal(39, 1), nal(40, 1), nal(1, 0x80));
        let data = stream(&[&vps, &sps, &pps, &cra, &more, &suffix, &prefix, &trail, &trail]);
        let expected =
            [vec![vps, sps, pps, cra, more, suffix], vec![prefix, trail.clone()], vec![trail]];
        assert_eq!(units(NalCodec::H265, &data), expected);
    }

    #[test]
    fn zero_padding_is_no_part_of_a_unit() {
        let data =
            [&[0, 0, 0, 0, 0, 1], IDR_FIRST, &[0, 0, 0, 0, 0, 0, 1], P_FIRST, &[0, 0, 0]].concat();
        let expected: [&[&[u8]]; 2] = [&[IDR_FIRST], &[P_FIRST]];
        assert_eq!(units(NalCodec::H264, &data), expected);
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        let error =
            |data: &[u8]| AnnexB::new(data, NalCodec::H264).next_unit().unwrap_err().to_string();
        assert!(error(b"plain text").contains("start code"));
        assert!(error(&[7, 0, 0, 1, 9]).contains("start code"));
        assert!(matches!(AnnexB::new(&[][..], NalCodec::H264).next_unit(), Ok(None)));
    }
}
