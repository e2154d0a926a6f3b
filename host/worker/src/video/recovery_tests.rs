//! Streams whose only IDR picture was sent before the session began: decoding starts at a recovery
//! point, as the host marks it.

use std::path::PathBuf;

use ocelli_protocol::worker::{CaptureClock, Codec, Decode, Orientation, UnitHeader};

use super::{Frame, Stream};

/// The access units of a raw clip of H.264 with one slice for each picture: an access unit ends
/// behind its slice. Those with parameter sets are key units.
fn units(name: &str) -> Vec<(bool, Vec<u8>)> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clips")).join(name);
    let file = std::fs::read(path).unwrap();
    let starts: Vec<usize> =
        (0..file.len() - 3).filter(|at| file[*at..].starts_with(&[0, 0, 1])).collect();
    let ends = starts.iter().skip(1).copied().chain([file.len()]);
    let (mut units, mut key, mut unit) = (Vec::new(), false, Vec::new());
    for (start, end) in starts.iter().copied().zip(ends) {
        let nal_type = file[start + 3] & 0x1f;
        unit.extend_from_slice(&file[start..end]);
        key |= nal_type == 7;
        if matches!(nal_type, 1 | 5) {
            units.push((std::mem::take(&mut key), std::mem::take(&mut unit)));
        }
    }
    units
}

/// Decodes the units from `from` on: the numbers of the frames, and pictures counted as corrupt.
fn decode(units: &[(bool, Vec<u8>)], from: usize) -> (Vec<u64>, u64) {
    let mut stream = Stream::new(Decode::All);
    let mut numbers = Vec::new();
    let mut note = |frame: Frame| numbers.push(frame.number);
    for (number, (key, data)) in units.iter().enumerate().skip(from) {
        let header = UnitHeader {
            number: number as u64,
            codec: Codec::H264,
            key: *key,
            disposable: false,
            discontinuity: number == from,
            presentation_ns: None,
            capture_ns: 0,
            capture_clock: CaptureClock::default(),
            orientation: Orientation::default(),
            hidden: false,
            received_ns: 0,
        };
        stream.push(&header, data, &mut note).unwrap();
    }
    stream.drain(&mut note);
    (numbers, stream.counters().skipped_corrupt)
}

#[test]
fn a_stream_is_entered_at_a_recovery_point() {
    // Pictures that need not come out: those that refer to the GOP before, and those before all of
    // the picture is renewed.
    for (clip, first_whole) in [("field/open-gop.h264", 2), ("field/intra-refresh.h264", 10)] {
        let units = units(clip);
        assert!(units.len() >= 30, "{clip}: {}", units.len());
        let entry = (1..units.len()).find(|number| units[*number].0).unwrap();
        let (numbers, corrupt) = decode(&units, entry);
        let expected = units.len() - entry - first_whole;
        assert!(numbers.len() >= expected, "{clip}: {} of {expected}", numbers.len());
        assert_eq!(corrupt, 0, "{clip}");
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{clip}: {numbers:?}");
    }
}

#[test]
fn an_intra_picture_that_nothing_marks_is_an_entry_once_the_host_marks_it() {
    let recovery_point = [0, 0, 1, 6, 6, 1, 0xc4, 0x80];
    let mut units = units("field/open-gop.h264");
    let entry = (1..units.len()).find(|number| units[*number].0).unwrap();
    for (_, unit) in &mut units {
        let at = unit.windows(recovery_point.len()).position(|window| window == recovery_point);
        at.map(|at| unit.drain(at..at + recovery_point.len()));
    }
    assert_eq!(decode(&units, entry).0.len(), 0, "the decoder holds all of them back");
    // Parameter sets, the mark, the picture, as the host sends them.
    let slice = units[entry].1.windows(3).rposition(|window| window == [0, 0, 1]).unwrap();
    units[entry].1.splice(slice..slice, recovery_point);
    let (numbers, corrupt) = decode(&units, entry);
    assert!(numbers.len() + 2 >= units.len() - entry, "{numbers:?}");
    assert_eq!(corrupt, 0);
}
