//! A video of JPEG pictures in an MP4 file (ISO/IEC 14496-12 and -14): players of the desktop show
//! it, and nothing is encoded twice. Browsers do not: they have no Motion JPEG.
//!
//! ```text
//! ftyp | mdat: the pictures, one after the other | moov: where each begins and how long it shows
//! ```

use std::path::PathBuf;

use anyhow::{Context, ensure};

use super::super::draft::DraftFile;
use crate::playback::AnnotatedPicture;
use crate::util::mp4::{UPRIGHT, boxed, full, matrix, media, visual_entry};

/// Units of time in a second: those of RTP, which most rates divide.
const TIMESCALE: u32 = 90_000;

/// How long the last picture shows that has none before it: a tenth of a second.
const ONLY_PICTURE: u32 = TIMESCALE / 10;

/// What the file is, in its first box: its main kind, a version, and the kinds that it fits.
const KIND: &[u8] = b"isom\0\0\x02\0isommp42";

/// Bytes of the head of a box whose length has 64 bits.
const LONG_HEAD: u64 = 16;

/// JPEG among the types of objects (MP4 Registration Authority).
const JPEG: u8 = 0x6c;

/// A visual stream, with a bit that is always set (ISO/IEC 14496-1, 7.2.6.6).
const VISUAL: u8 = 0x04 << 2 | 1;

/// An MP4 file in the making.
pub(super) struct Mp4 {
    file: DraftFile,
    /// Bytes before the pictures.
    begin: u64,
    /// Width and height of the pictures.
    size: Option<(u32, u32)>,
    /// Bytes of each picture.
    lengths: Vec<u32>,
    /// When each is shown.
    times: Vec<u64>,
}

impl Mp4 {
    pub(super) fn new(mut file: DraftFile) -> anyhow::Result<Self> {
        let mut head = boxed(b"ftyp", &[KIND]);
        let begin = head.len() as u64 + LONG_HEAD;
        // The length of the pictures is written when it is known.
        head.extend_from_slice(&1u32.to_be_bytes());
        head.extend_from_slice(b"mdat");
        head.extend_from_slice(&0u64.to_be_bytes());
        file.write(&head)?;
        Ok(Self { file, begin, size: None, lengths: Vec::new(), times: Vec::new() })
    }

    /// Adds a picture. All have one size.
    pub(super) fn push(&mut self, picture: &AnnotatedPicture) -> anyhow::Result<()> {
        let size = *self.size.get_or_insert(picture.size);
        ensure!(
            size == picture.size,
            "frame {} has {} x {} pixels and those before {} x {}: a video has one size; \
             --annotate writes a folder of pictures too",
            picture.frame,
            picture.size.0,
            picture.size.1,
            size.0,
            size.1
        );
        let time = u128::try_from(picture.presentation_ns).unwrap_or_default();
        let time = time * u128::from(TIMESCALE) / 1_000_000_000;
        self.lengths.push(u32::try_from(picture.jpeg.len())?);
        self.times.push(u64::try_from(time)?);
        self.file.write(&picture.jpeg)
    }

    /// Completes the file and gives it its name.
    pub(super) fn finish(mut self) -> anyhow::Result<PathBuf> {
        let bytes: u64 = self.lengths.iter().map(|&length| u64::from(length)).sum();
        self.file.write_at(self.begin - 8, &(LONG_HEAD + bytes).to_be_bytes())?;
        let movie = self.movie().context("the video is too long")?;
        self.file.write(&movie)?;
        self.file.finish()
    }

    /// How long each picture shows: until the next one, the last as long as the one before.
    fn durations(&self) -> Vec<u32> {
        let until_next = self.times.windows(2).map(|pair| match *pair {
            [time, next] => u32::try_from(next.saturating_sub(time)).unwrap_or(u32::MAX),
            _ => 0,
        });
        let mut durations: Vec<u32> = until_next.collect();
        if !self.times.is_empty() {
            durations.push(durations.last().copied().unwrap_or(ONLY_PICTURE));
        }
        durations
    }

    /// The box that says what the file has. `None` if its lengths do not fit.
    fn movie(&self) -> Option<Vec<u8>> {
        let durations = self.durations();
        let whole: u64 = durations.iter().map(|&duration| u64::from(duration)).sum();
        let (width, height) = self.size.unwrap_or_default();
        let (wide, high) = (u16::try_from(width).ok()?, u16::try_from(height).ok()?);
        let pictures = u32::try_from(self.lengths.len()).ok()?;
        let matrix = matrix(UPRIGHT);
        let times = |rest: &[&[u8]]| {
            // Version 1: times of 64 bits. Made and changed in 1904, which says nothing.
            let mut bytes = vec![0; 16];
            rest.iter().for_each(|part| bytes.extend_from_slice(part));
            bytes
        };
        let mvhd = full(
            b"mvhd",
            1,
            0,
            &[
                &times(&[&TIMESCALE.to_be_bytes(), &whole.to_be_bytes()]),
                // Speed and volume, both 1, and 10 bytes that are reserved.
                &0x10000u32.to_be_bytes(),
                &0x100u16.to_be_bytes(),
                &[0; 10],
                &matrix,
                &[0; 24],
                &2u32.to_be_bytes(),
            ],
        );
        let tkhd = full(
            b"tkhd",
            1,
            // Enabled, in the movie, and in the preview.
            7,
            &[
                &times(&[&1u32.to_be_bytes(), &[0; 4], &whole.to_be_bytes()]),
                &[0; 16],
                &matrix,
                &(u32::from(wide) << 16).to_be_bytes(),
                &(u32::from(high) << 16).to_be_bytes(),
            ],
        );
        let mdhd = full(
            b"mdhd",
            1,
            0,
            // No language.
            &[
                &times(&[&TIMESCALE.to_be_bytes(), &whole.to_be_bytes()]),
                &0x55c4u16.to_be_bytes(),
                &[0; 2],
            ],
        );
        let stsc = full(
            b"stsc",
            0,
            0,
            &[
                &1u32.to_be_bytes(),
                &1u32.to_be_bytes(),
                &pictures.to_be_bytes(),
                &1u32.to_be_bytes(),
            ],
        );
        let lengths: Vec<u8> = self.lengths.iter().flat_map(|bytes| bytes.to_be_bytes()).collect();
        let stsz = full(b"stsz", 0, 0, &[&[0; 4], &pictures.to_be_bytes(), &lengths]);
        let co64 = full(b"co64", 0, 0, &[&1u32.to_be_bytes(), &self.begin.to_be_bytes()]);
        let stbl = boxed(
            b"stbl",
            &[&description(wide, high), &time_to_sample(&durations)?, &stsc, &stsz, &co64],
        );
        let mdia = media(&mdhd, &stbl);
        let trak = boxed(b"trak", &[&tkhd, &mdia]);
        Some(boxed(b"moov", &[&mvhd, &trak]))
    }
}

/// How the pictures are coded.
fn description(width: u16, height: u16) -> Vec<u8> {
    // Descriptors: a tag, the length of the rest, the rest (ISO/IEC 14496-1, 7.2.6). The size of a
    // buffer and two rates of bits are left unknown.
    let decoder = [&[4, 13, JPEG, VISUAL][..], &[0; 11]].concat();
    let stream = [&[3, 3 + 15 + 3][..], &[0, 1, 0], &decoder, &[6, 1, 2]].concat();
    let esds = full(b"esds", 0, 0, &[&stream]);
    let entry = visual_entry(b"mp4v", (width, height), &esds);
    full(b"stsd", 0, 0, &[&1u32.to_be_bytes(), &entry])
}

/// How long the samples show: runs of equal durations.
fn time_to_sample(durations: &[u32]) -> Option<Vec<u8>> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &duration in durations {
        match runs.last_mut() {
            Some((count, same)) if *same == duration => *count += 1,
            _ => runs.push((1, duration)),
        }
    }
    let count = u32::try_from(runs.len()).ok()?;
    let runs: Vec<u8> = runs
        .iter()
        .flat_map(|(count, time)| [count.to_be_bytes(), time.to_be_bytes()])
        .flatten()
        .collect();
    Some(full(b"stts", 0, 0, &[&count.to_be_bytes(), &runs]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(frame: u64, presentation_ns: i64, bytes: usize) -> AnnotatedPicture {
        AnnotatedPicture { frame, presentation_ns, size: (64, 48), jpeg: vec![7; bytes] }
    }

    /// The content of the box at a path, the first of each kind.
    fn find<'a>(mut bytes: &'a [u8], path: &[(&[u8; 4], usize)]) -> &'a [u8] {
        for (kind, skipped) in path {
            bytes = loop {
                let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
                let long = || u64::from_be_bytes(bytes[8..16].try_into().unwrap()) as usize;
                let (length, head) = if length == 1 { (long(), 16) } else { (length, 8) };
                if &bytes[4..8] == *kind {
                    break &bytes[head + skipped..length];
                }
                bytes = &bytes[length..];
            };
        }
        bytes
    }

    #[test]
    fn the_file_says_where_each_picture_is_and_how_long_it_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.mp4");
        let mut video = Mp4::new(DraftFile::new(&path).unwrap()).unwrap();
        for (frame, time_ms) in [(0, 0), (1, 100), (2, 200), (3, 500)] {
            video.push(&picture(frame, time_ms * 1_000_000, 10 + frame as usize)).unwrap();
        }
        let other = AnnotatedPicture { size: (64, 49), ..picture(4, 0, 1) };
        assert!(video.push(&other).unwrap_err().to_string().contains("64 x 49"));
        video.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(find(&bytes, &[(b"mdat", 0)]), [7; 10 + 11 + 12 + 13]);
        let table = [(b"moov", 0), (b"trak", 0), (b"mdia", 0), (b"minf", 0), (b"stbl", 0)];
        let entry = |kind| find(&bytes, &[&table[..], &[(kind, 4)]].concat());
        let numbers = |bytes: &[u8]| -> Vec<u32> {
            bytes.as_chunks().0.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect()
        };
        assert_eq!(numbers(entry(b"stsz")), [0, 4, 10, 11, 12, 13]);
        assert_eq!(numbers(entry(b"stts")), [2, 2, 9000, 2, 27_000]);
        assert_eq!(numbers(entry(b"stsc")), [1, 1, 4, 1]);
        let begin = u64::from_be_bytes(entry(b"co64")[4..].try_into().unwrap()) as usize;
        assert_eq!(bytes[begin..begin + 46], [7; 46]);
        let entry = find(entry(b"stsd"), &[]);
        assert!(entry.windows(4).any(|kind| kind == b"mp4v"));
    }

    #[test]
    fn one_picture_is_a_video_too_and_so_is_none() {
        let folder = tempfile::tempdir().unwrap();
        for pictures in [0, 1] {
            let path = folder.path().join(format!("{pictures}.mp4"));
            let mut video = Mp4::new(DraftFile::new(&path).unwrap()).unwrap();
            (0..pictures).for_each(|frame| video.push(&picture(frame, 5, 3)).unwrap());
            assert_eq!(video.durations(), vec![ONLY_PICTURE; pictures as usize]);
            video.finish().unwrap();
        }
    }
}
