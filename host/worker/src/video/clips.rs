//! Access units of the clips in `tests/clips`, for tests: Annex B with parameter sets before each
//! key unit, as the host sends them.

use std::path::PathBuf;

use ocelli_protocol::worker::{CaptureClock, Codec, Orientation, UnitHeader};

/// Wall-clock time of a clip's first picture in these headers; a picture's is this much later than
/// its presentation.
pub(crate) const CAPTURE_START: u64 = 1_700_000_000_000_000_000;

/// An access unit: what the host says of it, and its bytes.
pub(crate) type AccessUnit = (UnitHeader, Vec<u8>);

const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// All access units of a clip in decoding order.
pub(crate) fn units(name: &str) -> Vec<AccessUnit> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clips")).join(name);
    let file = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if name.ends_with(".avi") { motion_jpeg(&file) } else { mp4(&file) }
}

fn header(
    number: usize,
    codec: Codec,
    key: bool,
    disposable: bool,
    presentation_ns: i64,
) -> UnitHeader {
    UnitHeader {
        number: number as u64,
        codec,
        key,
        disposable,
        discontinuity: number == 0,
        presentation_ns: Some(presentation_ns),
        capture_ns: CAPTURE_START + presentation_ns as u64,
        capture_clock: CaptureClock::default(),
        orientation: Orientation::default(),
        hidden: false,
        received_ns: number as u64,
    }
}

fn motion_jpeg(file: &[u8]) -> Vec<AccessUnit> {
    let mut units = Vec::new();
    let mut start = None;
    for (at, marker) in file.windows(3).enumerate() {
        match (marker, start) {
            ([0xff, 0xd8, 0xff], None) => start = Some(at),
            ([0xff, 0xd9, _], Some(from)) => {
                let number = units.len();
                let header = header(number, Codec::Mjpeg, true, false, number as i64 * 100_000_000);
                units.push((header, file[from..at + 2].to_vec()));
                start = None;
            }
            _ => {}
        }
    }
    units
}

fn mp4(file: &[u8]) -> Vec<AccessUnit> {
    let mp4 = re_mp4::Mp4::read_bytes(file).unwrap();
    let track =
        mp4.tracks().values().find(|track| track.kind == Some(re_mp4::TrackKind::Video)).unwrap();
    let codec = if track.codec_string(&mp4).unwrap().starts_with("avc") {
        Codec::H264
    } else {
        Codec::H265
    };
    let parameter_sets = parameter_sets(codec, &track.raw_codec_config(&mp4).unwrap());
    let first = track.samples.iter().map(|sample| sample.composition_timestamp).min().unwrap();
    let samples = track.samples.iter().enumerate();
    samples
        .map(|(number, sample)| {
            let mut data = if sample.is_sync { parameter_sets.clone() } else { Vec::new() };
            let mut disposable = true;
            let mut rest = &file[sample.byte_range()];
            while let Some((length, tail)) = rest.split_first_chunk() {
                let (nal, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
                disposable &= is_disposable(codec, nal[0]);
                data.extend(START_CODE);
                data.extend(nal);
                rest = tail;
            }
            let time =
                (sample.composition_timestamp - first) * 1_000_000_000 / track.timescale as i64;
            (header(number, codec, sample.is_sync, disposable, time), data)
        })
        .collect()
}

/// Whether the NAL unit's first byte says that no other picture needs it. Units that are no slices
/// do not count.
fn is_disposable(codec: Codec, byte: u8) -> bool {
    match codec {
        // nal_ref_idc of slices.
        Codec::H264 => !(1..=5).contains(&(byte & 31)) || byte & 0x60 == 0,
        // Even types below 16 are sub-layer non-reference pictures.
        Codec::H265 => {
            let kind = byte >> 1 & 63;
            kind >= 32 || (kind < 16 && kind.is_multiple_of(2))
        }
        Codec::Mjpeg => false,
    }
}

/// The parameter sets of an avcC or hvcC box, in Annex B.
fn parameter_sets(codec: Codec, config: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    let mut take = |bytes: usize| {
        at += bytes;
        &config[at - bytes..at]
    };
    let mut sets = |count: usize, take: &mut dyn FnMut(usize) -> Vec<u8>| {
        for _ in 0..count {
            let length = take(2);
            let nal = take(usize::from(u16::from_be_bytes([length[0], length[1]])));
            out.extend(START_CODE);
            out.extend(nal);
        }
    };
    if codec == Codec::H264 {
        let sps = take(6)[5] & 31;
        sets(sps.into(), &mut |bytes| take(bytes).to_vec());
        let pps = take(1)[0];
        sets(pps.into(), &mut |bytes| take(bytes).to_vec());
    } else {
        for _ in 0..take(23)[22] {
            let array = take(3);
            let count = u16::from_be_bytes([array[1], array[2]]);
            sets(count.into(), &mut |bytes| take(bytes).to_vec());
        }
    }
    out
}
