//! Access units of an mp4 file, read one by one.
//!
//! The index comes from re_mp4. NAL units decide which samples are key pictures: in fragmented
//! files re_mp4 inverts the flag of non-sync samples.

use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use re_mp4::{Mp4, StsdBoxContent, Track, TrackKind};

use super::file_error::FileError;
use super::nal::{Assembler, NalCodec, PictureInfo, split_length_prefixed};

/// Duration assumed for a picture without times: 25 pictures a second.
pub(super) const ASSUMED_FRAME_NS: i64 = 40_000_000;
/// Largest sample; see the largest access unit of raw streams.
const MAX_SAMPLE: u64 = 64 << 20;

/// The video track of an mp4 file.
pub(super) struct Mp4File {
    file: File,
    pub(super) codec: NalCodec,
    assembler: Assembler,
    length_size: usize,
    /// All pictures of the track in decoding order.
    pub(super) samples: Vec<Sample>,
    /// Of the whole track, in nanoseconds: a repetition is shifted by this much.
    pub(super) duration_ns: i64,
}

/// Where a coded picture lies in the file and in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    offset: u64,
    size: u64,
    sync: bool,
    /// Since the first picture shown, in nanoseconds.
    pub(super) presentation_ns: i64,
    /// Since the first picture decoded, in nanoseconds.
    pub(super) decoding_ns: i64,
}

impl Mp4File {
    /// Reads the file's index. Edit lists are ignored: every picture in the file is delivered.
    ///
    /// # Errors No mp4 file, or no video that can be decoded. The text does not name the file.
    pub(super) fn open(file: File) -> Result<Self, FileError> {
        let size = file.metadata()?.len();
        let mp4 = Mp4::read(BufReader::new(&file), size)?;
        let mut other_codecs = Vec::new();
        for track in mp4.tracks().values() {
            let entry = &track.trak(&mp4).mdia.minf.stbl.stsd.contents;
            match configuration(entry) {
                Some((codec, length_size, parameter_sets)) => {
                    // In fragmented files, see above; elsewhere a track without the table has sync
                    // samples alone, or a careless author.
                    let marks_sync =
                        mp4.moofs.is_empty() && track.trak(&mp4).mdia.minf.stbl.stss.is_some();
                    let (samples, duration_ns) = samples(track, marks_sync, size)?;
                    drop(mp4);
                    let assembler = Assembler::new(codec, parameter_sets);
                    return Ok(Self { file, codec, assembler, length_size, samples, duration_ns });
                }
                None if track.kind == Some(TrackKind::Video) => other_codecs.push(name(entry)),
                None => other_codecs.extend(unknown_name(entry)),
            }
        }
        if other_codecs.is_empty() {
            return Err(FileError::NoVideo);
        }
        Err(FileError::UnsupportedCodec(other_codecs.join(", ")))
    }

    /// Reads a sample's access unit. `None` if the sample holds no picture.
    pub(super) fn read(
        &mut self,
        sample: &Sample,
    ) -> Result<Option<(PictureInfo, Bytes)>, FileError> {
        let damaged = || FileError::DamagedPicture(sample.offset);
        let mut data = vec![0; usize::try_from(sample.size).map_err(|_| damaged())?];
        self.file
            .read_exact_at(&mut data, sample.offset)
            .map_err(|source| FileError::Picture { offset: sample.offset, source })?;
        let nals = split_length_prefixed(&data, self.length_size).ok_or_else(damaged)?;
        Ok(self.assembler.assemble(&nals, sample.sync))
    }
}

/// Codec, size of the length prefixes, and parameter sets.
fn configuration(entry: &StsdBoxContent) -> Option<(NalCodec, usize, Vec<Vec<u8>>)> {
    match entry {
        StsdBoxContent::Avc1(entry) => {
            let avcc = &entry.avcc.contents;
            let sets = avcc.sequence_parameter_sets.iter().chain(&avcc.picture_parameter_sets);
            let sets = sets.map(|nal| nal.bytes.clone()).collect();
            Some((NalCodec::H264, usize::from(avcc.length_size_minus_one) + 1, sets))
        }
        StsdBoxContent::Hvc1(entry) | StsdBoxContent::Hev1(entry) => {
            let hvcc = &entry.hvcc.contents;
            // The arrays may hold SEI messages, too, in any order; the stream needs VPS first.
            let mut arrays: Vec<_> = hvcc
                .arrays
                .iter()
                .filter(|array| (32..=34).contains(&array.nal_unit_type))
                .collect();
            arrays.sort_by_key(|array| array.nal_unit_type);
            let sets = arrays
                .into_iter()
                .flat_map(|array| &array.nalus)
                .map(|nal| nal.data.clone())
                .collect();
            Some((NalCodec::H265, usize::from(hvcc.length_size_minus_one) + 1, sets))
        }
        _ => None,
    }
}

fn name(entry: &StsdBoxContent) -> String {
    match entry {
        StsdBoxContent::Av01(_) => "av01".to_owned(),
        StsdBoxContent::Vp08(_) => "vp08".to_owned(),
        StsdBoxContent::Vp09(_) => "vp09".to_owned(),
        other => unknown_name(other).unwrap_or_else(|| "of an unknown kind".to_owned()),
    }
}

fn unknown_name(entry: &StsdBoxContent) -> Option<String> {
    match entry {
        StsdBoxContent::Unknown(code) => Some(code.to_string()),
        _ => None,
    }
}

/// The track's samples and its duration in nanoseconds.
fn samples(
    track: &Track,
    marks_sync: bool,
    file_size: u64,
) -> Result<(Vec<Sample>, i64), FileError> {
    let first_shown = track.samples.iter().map(|sample| sample.composition_timestamp).min();
    let (Some(first_shown), Some(first)) = (first_shown, track.samples.first()) else {
        return Err(FileError::EmptyTrack);
    };
    if first.timescale == 0 {
        return Err(FileError::NoTimeScale);
    }
    let ns = |ticks: i64, origin: i64| {
        let ns =
            (i128::from(ticks) - i128::from(origin)) * 1_000_000_000 / i128::from(first.timescale);
        i64::try_from(ns).map_err(|_| FileError::TimeRange)
    };
    let mut samples = Vec::with_capacity(track.samples.len());
    for sample in &track.samples {
        let end = sample.offset.checked_add(sample.size);
        if sample.size > MAX_SAMPLE || end.is_none_or(|end| end > file_size) {
            return Err(FileError::CutShort { picture: samples.len(), file_size });
        }
        samples.push(Sample {
            offset: sample.offset,
            size: sample.size,
            sync: marks_sync && sample.is_sync,
            presentation_ns: ns(sample.composition_timestamp, first_shown)?,
            decoding_ns: ns(sample.decode_timestamp, first.decode_timestamp)?,
        });
    }
    let span = samples.iter().map(|sample| sample.presentation_ns).max().unwrap_or_default();
    // The last picture lasts the average of the others; a single one a 25th of a second.
    let intervals = i64::try_from(samples.len().saturating_sub(1)).unwrap_or(i64::MAX);
    let frame = span.checked_div(intervals).filter(|frame| *frame > 0).unwrap_or(ASSUMED_FRAME_NS);
    Ok((samples, span.saturating_add(frame)))
}
