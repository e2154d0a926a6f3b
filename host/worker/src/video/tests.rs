//! What decoding promises, on whole clips.

use std::collections::BTreeMap;

use ocelli_protocol::worker::{Codec, Counters, Decode, Orientation};
use ocelli_testkit::Random;
use ocelli_testkit::depth::rounds;

use super::clips::{AccessUnit, CAPTURE_START, units};
use super::*;
use crate::own_process::run_in_own_process;

const CLIPS: [&str; 7] = [
    "bikes.mp4",
    "people-1080-high-b3.mp4",
    "people-576-baseline.mp4",
    "people-576-hevc.mp4",
    "people-576-high-b3.mp4",
    "people-576-high.mp4",
    "people-576-mjpeg.avi",
];

/// One clip for each codec.
const CODECS: [&str; 3] = ["people-576-high-b3.mp4", "people-576-hevc.mp4", "people-576-mjpeg.avi"];

fn decode_with(mut stream: Stream, units: &[AccessUnit]) -> (Vec<Frame>, Counters) {
    let mut frames = Vec::new();
    for (header, data) in units {
        stream.push(header, data, &mut |frame| frames.push(frame)).unwrap();
    }
    stream.drain(&mut |frame| frames.push(frame));
    let counters = stream.counters();
    assert_eq!(counters.decoded, frames.len() as u64);
    assert_eq!(counters.received, accounted(&counters), "{counters:?}");
    (frames, counters)
}

/// Access units that became a frame, or were skipped for a reason.
fn accounted(counters: &Counters) -> u64 {
    counters.decoded
        + counters.skipped_setting
        + counters.skipped_no_key
        + counters.skipped_corrupt
        + counters.skipped_hidden
        + counters.skipped_no_picture
}

fn decode(setting: Decode, units: &[AccessUnit]) -> (Vec<Frame>, Counters) {
    decode_with(Stream::new(setting), units)
}

/// Number to presentation time.
fn numbers(frames: &[Frame]) -> BTreeMap<u64, u64> {
    frames.iter().map(|frame| (frame.number, frame.presentation_ns)).collect()
}

/// Bytes that a picture's luma shows, to tell pictures apart.
fn sum(picture: &Picture) -> u64 {
    picture.luma().rows(0).flatten().map(|&sample| u64::from(sample)).sum()
}

#[test]
fn every_clip_decodes_whole_and_is_numbered_in_presentation_order() {
    for clip in CLIPS {
        let units = units(clip);
        assert!(units.len() >= 50, "{clip}: {} units", units.len());
        let mut stream = Stream::new(Decode::All);
        let mut seen = Vec::new();
        // Pictures are dropped at once, so that the decoder's pool is reused.
        let mut note = |frame: Frame| {
            seen.push((frame.number, frame.presentation_ns, frame.capture_ns, frame.received_ns))
        };
        for (header, data) in &units {
            stream.push(header, data, &mut note).unwrap();
        }
        stream.drain(&mut note);
        assert_eq!(stream.take_fault(), None, "{clip}");
        assert_eq!(stream.counters().decoded, units.len() as u64, "{clip}");
        let received: BTreeMap<i64, u64> = units
            .iter()
            .map(|(header, _)| (header.presentation_ns.unwrap(), header.received_ns))
            .collect();
        for (expected, (&(number, time, capture, unit), (&at, &by))) in
            seen.iter().zip(&received).enumerate()
        {
            assert_eq!((number, time), (expected as u64, at as u64), "{clip}");
            assert_eq!(
                (capture, unit),
                (CAPTURE_START + time, by),
                "{clip}: times go with their picture"
            );
        }
        assert_eq!(seen.len(), units.len(), "{clip}");
    }
}

#[test]
fn frames_keep_their_numbers_when_others_are_not_decoded() {
    for clip in CLIPS {
        let units = units(clip);
        let times = {
            let mut times: Vec<_> =
                units.iter().map(|(header, _)| header.presentation_ns.unwrap() as u64).collect();
            times.sort_unstable();
            times
        };
        for setting in [Decode::Reference, Decode::Key] {
            let kept = units.iter().filter(|(header, _)| match setting {
                Decode::Reference => header.key || !header.disposable,
                _ => header.key,
            });
            let kept: Vec<u64> =
                kept.map(|(header, _)| header.presentation_ns.unwrap() as u64).collect();
            let (frames, counters) = decode(setting, &units);
            let numbers = numbers(&frames);
            assert_eq!(numbers.len(), kept.len(), "{clip} {setting:?}");
            for (number, time) in numbers {
                assert_eq!(
                    times.get(number as usize),
                    Some(&time),
                    "{clip} {setting:?}: frame {number}"
                );
            }
            assert_eq!(
                counters.skipped_setting,
                (units.len() - kept.len()) as u64,
                "{clip} {setting:?}"
            );
            assert!(frames.is_sorted_by_key(|frame| frame.presentation_ns), "{clip} {setting:?}");
        }
    }
}

#[test]
fn whoever_joins_at_a_later_key_unit_sees_the_same_numbers() {
    let (mut joins, mut in_mid_gop) = (0, 0);
    for clip in CLIPS {
        let units = units(clip);
        let keys = units
            .iter()
            .skip(1)
            .filter(|(header, _)| header.key)
            .map(|(header, _)| header.number as usize);
        let Some(key) = keys.take(30).last() else { continue };
        // A join in mid-GOP: the units before the key one are skipped.
        let from = key.saturating_sub(3).max(1);
        let until = (key + 40).min(units.len());
        let (all, _) = decode(Decode::All, &units[..until]);
        let (joined, counters) = decode(Decode::All, &units[from..until]);
        let before = units[from..key].iter().filter(|(header, _)| !header.key).count();
        joins += 1;
        if before == key - from {
            in_mid_gop += 1;
            assert_eq!(counters.skipped_no_key, before as u64, "{clip}");
        }
        // Leading pictures of an open GOP refer to what was before the key unit: they cannot be
        // decoded.
        let time = units[key].0.presentation_ns;
        let leading =
            units[key..until].iter().filter(|(header, _)| header.presentation_ns < time).count();
        assert!(joined.len() >= until - key - leading, "{clip}");
        let all: BTreeMap<u64, (u64, u64)> = all
            .iter()
            .map(|frame| (frame.number, (frame.presentation_ns, sum(&frame.picture))))
            .collect();
        for frame in joined {
            let other = all.get(&frame.number).copied();
            assert_eq!(
                other,
                Some((frame.presentation_ns, sum(&frame.picture))),
                "{clip}: frame {}",
                frame.number
            );
        }
    }
    assert_eq!(
        (joins, in_mid_gop),
        (7, 6),
        "clips that have a later key unit, and those with others before it"
    );
}

#[test]
fn a_discontinuity_gives_out_what_is_held_and_starts_afresh() {
    let mut units = units("people-576-high-b3.mp4");
    let key = units.iter().skip(1).find(|(header, _)| header.key).unwrap().0.number as usize;
    // Six units are lost before the key unit.
    units[key].0.discontinuity = true;
    units.drain(key - 6..key);
    let (frames, counters) = decode(Decode::All, &units);
    assert_eq!(frames.len(), units.len());
    assert_eq!(counters.skipped_corrupt, 0);
    let resumed = frames.iter().find(|frame| frame.number >= key as u64).unwrap();
    assert_eq!(resumed.number, key as u64);
    assert_eq!(frames.iter().filter(|frame| frame.number < key as u64).count(), key - 6);
}

#[test]
fn hidden_units_are_decoded_and_counted_and_use_up_their_numbers() {
    for clip in ["people-576-high-b3.mp4", "people-576-hevc.mp4"] {
        let mut units: Vec<AccessUnit> = units(clip).into_iter().take(40).collect();
        let expected = decode(Decode::All, &units).0;
        // An edit list that begins in the middle of a GOP, and ends before the last pictures.
        let shown = 7..30;
        for (header, _) in &mut units {
            let frame = header.presentation_ns.unwrap() / 100_000_000;
            header.hidden = !shown.contains(&frame);
        }
        let (frames, counters) = decode(Decode::All, &units);
        assert_eq!(counters.skipped_hidden, 40 - 23, "{clip}");
        assert!(frames.iter().map(|frame| frame.number).eq(7..30), "{clip}");
        for (frame, expected) in frames.iter().zip(&expected[7..]) {
            assert_eq!(sum(&frame.picture), sum(&expected.picture), "{clip} {}", frame.number);
        }
        // Who joins at the next key unit, and who decodes key units alone, agree.
        let key = units.iter().skip(1).position(|(header, _)| header.key).unwrap() + 1;
        let all = numbers(&frames);
        for (setting, from) in [(Decode::All, key), (Decode::Key, 0), (Decode::Reference, 0)] {
            let found = numbers(&decode(setting, &units[from..]).0);
            assert!(!found.is_empty() && found.iter().all(|(n, t)| all.get(n) == Some(t)));
        }
    }
}

#[test]
fn a_source_that_is_shown_turned_gives_turned_frames() {
    let mut units: Vec<AccessUnit> = units("people-576-high.mp4").into_iter().take(3).collect();
    let upright = decode(Decode::All, &units).0;
    units.iter_mut().for_each(|(header, _)| header.orientation = Orientation::TurnRight);
    let turned = decode(Decode::All, &units).0;
    assert_eq!(turned.len(), 3);
    let grey =
        |picture: &Picture, width, height| Resampler::new().luma(picture, width, height).unwrap();
    for (upright, turned) in upright.iter().zip(&turned) {
        let (upright, turned) = (&upright.picture, &turned.picture);
        assert_eq!((turned.width(), turned.height()), (576, 768));
        let mut expected = Vec::new();
        orientation::turn(Orientation::TurnRight, &grey(upright, 64, 48), 64, &mut expected);
        let found = grey(turned, 48, 64);
        assert!(found.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 1));
        // An attached picture stands upright too.
        let image = still(&jpeg(turned, None, 95).unwrap().bytes, u32::MAX).unwrap();
        assert_eq!((image.width(), image.height()), (576, 768));
        let image = grey(&image, 48, 64);
        let pairs = image.iter().zip(&expected);
        let difference: usize = pairs.map(|(a, b)| usize::from(a.abs_diff(*b))).sum();
        assert!(difference <= 2 * expected.len(), "JPEG: {difference}");
    }
}

#[test]
fn a_source_of_nothing_but_damage_is_told_in_the_decoders_words() {
    let sound = units("people-576-mjpeg.avi");
    let mut stream = Stream::new(Decode::All);
    let mut told = Vec::new();
    for (second, (mut header, mut data)) in sound.into_iter().take(12).enumerate() {
        header.received_ns = second as u64 * 1_000_000_000;
        if second < 10 {
            // The frame header, which has the size, becomes a comment.
            let frame = data.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
            data[frame + 1] = 0xfe;
        }
        stream.push(&header, &data, &mut |_| ()).unwrap();
        told.push(stream.damage(false).map(str::to_owned));
    }
    assert!(told[..5].iter().all(Option::is_none), "{told:?}");
    let words = told[5].clone().unwrap();
    assert!(words.contains("Mjpeg"), "{words}");
    assert!(told[5..10].iter().all(|told| told.as_ref() == Some(&words)), "{told:?}");
    assert_eq!(told[10..], [None, None], "sound pictures");
    stream.drain(&mut |_| ());
    assert_eq!(stream.damage(true), None);
    assert_eq!(stream.counters().skipped_corrupt, 10);
}

#[test]
fn a_source_may_change_its_codec() {
    let mut both: Vec<AccessUnit> = units("people-576-high-b3.mp4").into_iter().take(20).collect();
    for (number, (mut header, data)) in
        (20..).zip(units("people-576-mjpeg.avi").into_iter().take(10))
    {
        header.number = number;
        header.presentation_ns = header.presentation_ns.map(|time| time + 60_000_000_000);
        both.push((header, data));
    }
    let (frames, _) = decode(Decode::All, &both);
    let found: Vec<u64> = frames.iter().map(|frame| frame.number).collect();
    assert_eq!(found, (0..30).collect::<Vec<_>>());
    assert!(!frames[19].picture.full_range() && frames[20].picture.full_range());
}

#[test]
fn a_source_that_begins_again_never_turns_presentation_time_back() {
    let clip: Vec<AccessUnit> = units("people-576-high-b3.mp4").into_iter().take(20).collect();
    let again = clip.iter().cloned().map(|(mut header, data)| {
        header.number += clip.len() as u64;
        header.discontinuity = false;
        (header, data)
    });
    let twice: Vec<AccessUnit> = clip.iter().cloned().chain(again).collect();
    let (frames, _) = decode(Decode::All, &twice);
    let found: Vec<u64> = frames.iter().map(|frame| frame.number).collect();
    assert_eq!(found, (0..40).collect::<Vec<_>>());
    assert!(frames.is_sorted_by_key(|frame| frame.presentation_ns));
}

#[test]
fn frames_without_times_get_them_from_their_number() {
    let mut units: Vec<AccessUnit> = units("people-576-high-b3.mp4").into_iter().take(30).collect();
    units.iter_mut().for_each(|(header, _)| header.presentation_ns = None);
    let (frames, _) = decode(Decode::All, &units);
    let found: Vec<_> = frames.iter().map(|frame| (frame.number, frame.presentation_ns)).collect();
    assert_eq!(found, (0..30).map(|number| (number, number * 40_000_000)).collect::<Vec<_>>());
}

#[test]
fn every_frame_has_the_time_of_its_own_access_unit() {
    for clip in CLIPS {
        let mut units = units(clip);
        for times in ["its own", "before the origin", "none"] {
            for (header, _) in &mut units {
                header.presentation_ns = match times {
                    "none" => None,
                    "before the origin" => header.presentation_ns.map(|ns| ns - 150_000_000),
                    _ => header.presentation_ns,
                };
            }
            let (frames, _) = decode(Decode::All, &units);
            assert_eq!(frames.len(), units.len(), "{clip}, times: {times}");
            // The clips' units have their number for a time of receipt.
            for frame in &frames {
                let header = &units[frame.received_ns as usize].0;
                assert_eq!(frame.shown_ns, header.shown_ns(), "{clip}, times: {times}");
            }
            let named: std::collections::BTreeSet<_> = frames.iter().map(|f| f.shown_ns).collect();
            assert_eq!(named.len(), frames.len(), "{clip}, times: {times}: one each");
        }
    }
}

/// Changes bytes, headers above all, and lengths; leaves out units.
fn mutate(units: &[AccessUnit], seed: u64) -> Vec<AccessUnit> {
    let mut random = Random::with_seed(seed);
    let mut units = units.to_vec();
    for _ in 0..1 + random.usize(..6) {
        let victim = random.usize(..units.len());
        let data = &mut units[victim].1;
        let length = data.len();
        let start = random.usize(..length);
        let run = start..(start + 1 + random.usize(..400)).min(length);
        match random.usize(..8) {
            0 => data.truncate(start),
            1 => (0..1 + random.usize(..20))
                .for_each(|_| data[random.usize(..length)] = random.u8(..)),
            // Headers and parameter sets are where the most decisions are made.
            2 => (0..1 + random.usize(..4))
                .for_each(|_| data[random.usize(..length.min(64))] ^= 1 << random.usize(..8)),
            3 => data[run].fill(0),
            4 => drop(data.drain(run)),
            5 => {
                let again = data[run.clone()].to_vec();
                drop(data.splice(run.end..run.end, again));
            }
            6 => data.clear(),
            _ => {
                units.remove(victim);
            }
        }
        if units.is_empty() || units.iter().any(|(_, data)| data.is_empty()) {
            return units;
        }
    }
    units
}

/// Private memory in which 200 mutated streams are decoded: a mutated size may ask for pictures of
/// any size, and what one stream leaves behind would add up.
const FUZZ_MEMORY: u64 = 512 << 20;

#[test]
fn mutated_bitstreams_neither_crash_nor_hang_nor_spoil_what_follows() {
    run_in_own_process("video::tests::mutations_of_each_codec");
}

#[test]
#[ignore = "limits the whole process; run by \
    mutated_bitstreams_neither_crash_nor_hang_nor_spoil_what_follows"]
fn mutations_of_each_codec() {
    ocelli_sandbox::limit::memory(FUZZ_MEMORY).unwrap();
    for clip in [&["people-576-baseline.mp4"], &CODECS[..]].concat() {
        let clip_units = units(clip);
        let whole = &clip_units[..8];
        let key = clip_units.iter().skip(8).position(|(header, _)| header.key).unwrap() + 8;
        // An undamaged key unit and those after it follow at once, as from a camera.
        let follow = clip_units[key..].iter().take(2).cloned().zip(8..).map(
            |((mut header, data), number)| {
                header.number = number;
                (header, data)
            },
        );
        let follow: Vec<AccessUnit> = follow.collect();
        let key_time = follow[0].0.presentation_ns.unwrap() as u64;
        let shown = |frames: &[Frame]| {
            let key = frames.iter().find(|frame| frame.presentation_ns == key_time);
            key.map(|frame| sum(&frame.picture))
        };
        let expected = shown(&decode(Decode::All, &follow).0);
        assert!(expected.is_some(), "{clip}");
        let mut affected = 0;
        let rounds = rounds(200) as u64;
        for seed in 0..rounds {
            let units = [mutate(whole, seed), follow.clone()].concat();
            let (frames, counters) = decode(Decode::All, &units);
            assert_eq!(counters.received, units.len() as u64, "{clip} seed {seed}");
            assert!(frames.len() <= units.len(), "{clip} seed {seed}");
            assert!(frames.is_sorted_by(|a, b| a.number < b.number), "{clip} seed {seed}");
            assert!(frames.is_sorted_by_key(|frame| frame.presentation_ns), "{clip} seed {seed}");
            for frame in &frames {
                // Each row can be read to its end.
                let ends = frame.picture.luma().rows(0).filter_map(|row| row.last()).count();
                assert_eq!(ends, frame.picture.height() as usize, "{clip} seed {seed}");
            }
            assert_eq!(
                shown(&frames),
                expected,
                "{clip} seed {seed}: the key unit after the damage"
            );
            affected += u64::from(counters.skipped_corrupt > 0);
        }
        assert!(
            affected > rounds / 10,
            "{clip}: only {affected} of {rounds} mutations were noticed"
        );
        eprintln!("{clip}: {affected} of {rounds} mutations were noticed");
    }
}

#[test]
fn pictures_marked_as_damaged_are_counted_and_not_given_out() {
    let mut units: Vec<AccessUnit> =
        units("people-576-baseline.mp4").into_iter().take(10).collect();
    // The lower part of one P picture is missing; its slice goes on to the end of the picture.
    let length = units[4].1.len();
    units[4].1.truncate(length / 2);
    let (frames, counters) = decode(Decode::All, &units);
    assert!(counters.skipped_corrupt >= 1);
    assert!(frames.iter().all(|frame| frame.number != 4));
    assert!(frames.iter().any(|frame| frame.number == 9), "the number of frame 4 is used up");
}

#[test]
fn pictures_beyond_the_bound_are_refused() {
    for clip in CODECS {
        let units: Vec<AccessUnit> = units(clip).into_iter().take(5).collect();
        let (frames, counters) =
            decode_with(Stream::with_max_pixels(Decode::All, 768 * 576 - 1), &units);
        assert!(frames.is_empty(), "{clip}");
        assert!(counters.skipped_corrupt >= 5, "{clip}: {counters:?}");
    }
}

#[test]
fn a_parameter_set_that_claims_an_enormous_picture_is_refused() {
    let (header, mut data) = units("people-576-mjpeg.avi").swap_remove(0);
    let frame_header = data.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    // Height and width follow the marker, the segment's length and the precision.
    data[frame_header + 5..frame_header + 9].copy_from_slice(&[0x40, 0, 0x40, 0]);
    let (frames, counters) = decode(Decode::All, &[(header, data)]);
    assert!(frames.is_empty() && counters.skipped_corrupt == 1);

    let (header, data) = units("people-576-baseline.mp4").swap_remove(0);
    let second =
        data.windows(4).enumerate().skip(1).find(|(_, code)| *code == [0, 0, 0, 1]).unwrap().0;
    let enormous = [&[0, 0, 0, 1], &*sequence_parameter_set(1024), &data[second..]].concat();
    let mut stream = Stream::new(Decode::All);
    stream.push(&header, &enormous, &mut |frame| panic!("{frame:?}")).unwrap();
    let fault = stream.take_fault().unwrap();
    assert!(fault.contains("access unit 0") && fault.contains("H264"), "{fault}");
}

/// An H.264 baseline sequence parameter set for a square picture (ITU-T H.264, 7.3.2.1.1).
fn sequence_parameter_set(macroblocks: u32) -> Vec<u8> {
    let mut bits = String::new();
    let code = |value: u32| format!("{:0>1$b}", value + 1, 2 * (value + 1).ilog2() as usize + 1);
    // Identifier, log2_max_frame_num - 4, order count type 2, one reference frame, no gaps.
    for part in [
        code(0),
        code(0),
        code(2),
        code(1),
        "0".into(),
        code(macroblocks - 1),
        code(macroblocks - 1),
    ] {
        bits += &part;
    }
    // Frames only, direct 8x8 inference, no cropping, no VUI, stop bit.
    bits += "11001";
    while !bits.len().is_multiple_of(8) {
        bits.push('0');
    }
    let payload = bits
        .as_bytes()
        .chunks(8)
        .map(|byte| u8::from_str_radix(str::from_utf8(byte).unwrap(), 2).unwrap());
    [0x67, 66, 0xc0, 52].into_iter().chain(payload).collect()
}

#[test]
fn a_picture_may_outlive_its_decoder_on_another_thread() {
    let units: Vec<AccessUnit> = units("people-576-high.mp4").into_iter().take(10).collect();
    let (frames, _) = decode(Decode::All, &units);
    let expected: Vec<u64> = frames.iter().map(|frame| sum(&frame.picture)).collect();
    let found = std::thread::spawn(move || {
        frames.into_iter().map(|frame| sum(&frame.picture)).collect::<Vec<_>>()
    });
    assert_eq!(found.join().unwrap(), expected);
}

#[test]
fn a_jpeg_decodes_again_to_the_same_size_and_looks_the_same() {
    let (frames, _) = decode(Decode::All, &units("people-576-high.mp4")[..5]);
    let picture = &frames[0].picture;
    let part = ocelli_protocol::worker::Rect { x: 100.4, y: 50.0, width: 301.0, height: 200.0 };
    for (region, size) in [(None, (768, 576)), (Some(part), (302, 200))] {
        let encoded = jpeg(picture, region, 95).unwrap();
        assert_eq!((encoded.width, encoded.height), size);
        let mut decoder = Decoder::new(Codec::Mjpeg, MAX_PIXELS, None).unwrap();
        let mut decoded = Vec::new();
        decoder.decode(0, &encoded.bytes, &mut |picture| decoded.push(picture)).unwrap();
        decoder.drain(&mut |picture| decoded.push(picture)).unwrap();
        let again = decoded.swap_remove(0).picture.unwrap();
        assert_eq!((again.width(), again.height()), size);
        if region.is_none() {
            let (before, after) = (
                Resampler::new().luma(picture, 64, 48).unwrap(),
                Resampler::new().luma(&again, 64, 48).unwrap(),
            );
            // JPEG goes through RGB, which cannot show every colour of the video: single pixels may
            // differ by more.
            let difference: u32 =
                before.iter().zip(&after).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
            assert!(difference <= before.len() as u32, "{difference} over {} pixels", before.len());
        }
    }
    for (region, longest, size) in [
        (None, 768, (768, 576)),
        (None, 384, (384, 288)),
        (Some(part), 151, (151, 100)),
        (None, 1, (1, 1)),
    ] {
        let small = jpeg_within(picture, region, longest, 95).unwrap();
        assert_eq!((small.width, small.height), size, "within {longest}");
    }
    let small = jpeg_within(picture, None, 64, 95).unwrap();
    let small = still(&small.bytes, u32::MAX).unwrap();
    let (before, after) = (
        Resampler::new().luma(picture, 64, 48).unwrap(),
        Resampler::new().luma(&small, 64, 48).unwrap(),
    );
    let difference: u32 = before.iter().zip(&after).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
    assert!(difference <= 3 * before.len() as u32, "{difference} over {} pixels", before.len());
    assert!(matches!(jpeg_within(picture, None, 0, 80), Err(FrameError::InvalidSpec(_))));
    assert!(matches!(jpeg(picture, None, 0), Err(FrameError::InvalidSpec(_))));
    assert!(matches!(jpeg(picture, None, 101), Err(FrameError::InvalidSpec(_))));
}
