//! Files: their units, and what is said of them.

use ocelli_protocol::ingest::{IngestFaultKind, IngestStep, IngestUnit};
use ocelli_protocol::worker::{Codec, Orientation};
use ocelli_testkit::clip;
use sha2::{Digest, Sha256};

use crate::process::{Played, nals, own_clip, play, play_bytes};

/// Clips of the product's tests: pictures, and the first half of a digest over each one's time in
/// nanoseconds since the first picture that is shown, and its NAL units behind their lengths. They
/// were made from the files' boxes by a program that knows nothing of libavformat.
const CLIPS: [(&str, usize, &str); 10] = [
    ("bikes.mp4", 250, "c74582b58d7724d7ba84aeec6958bedf"),
    ("people-1080-baseline.mp4", 60, "bb0a392a1f70c9213d120e01cdb07c1e"),
    ("people-1080-hevc.mp4", 60, "c6f19c65521f505587233e205f3bf284"),
    ("people-1080-high-b3.mp4", 102, "6f1cae6d8d8577076e253c4ae0592970"),
    ("people-1080-mjpeg.avi", 10, "7219b11e90d6868501287afb8a101eed"),
    ("people-576-baseline.mp4", 100, "3a586832540ff83ca7d0958e3f77a181"),
    ("people-576-hevc.mp4", 102, "41a49a4e367ed40cf8fdec3af7a82095"),
    ("people-576-high-b3.mp4", 102, "34d127295007508f395fca0a12307f7f"),
    ("people-576-high.mp4", 100, "6de4e988dc8b23d6ea586368cad5e11e"),
    ("people-576-mjpeg.avi", 50, "02c436aacd96690b73c28074343a2774"),
];

fn time(unit: &IngestUnit) -> i64 {
    unit.presentation_ns.unwrap()
}

fn digest(played: &Played) -> String {
    let first = played.units.iter().map(|(unit, _)| time(unit)).min().unwrap();
    let mut digest = Sha256::new();
    for (unit, data) in &played.units {
        digest.update((time(unit) - first).to_be_bytes());
        let parts = match played.info().codec {
            Codec::Mjpeg => vec![data.as_slice()],
            _ => nals(data),
        };
        for nal in parts {
            digest.update((nal.len() as u32).to_be_bytes());
            digest.update(nal);
        }
    }
    digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn each_clip_gives_its_pictures_in_order_and_whole() {
    for (name, pictures, expected) in CLIPS {
        let played = play(&clip(name));
        assert!(played.ended() && played.damage.is_empty(), "{name}: {:?}", played.damage);
        assert_eq!(played.units.len(), pictures, "{name}");
        assert_eq!(digest(&played), expected, "{name}");
        assert!(played.units[0].0.key, "{name}");
        let info = played.info();
        assert_eq!(info.orientation, Orientation::Upright, "{name}");
        if name.ends_with(".mp4") {
            assert_eq!(info.pictures, Some(pictures as u64), "{name}");
            assert!(info.frame_rate.is_some() && info.duration_ns.is_some(), "{name}");
            let sets = nals(&info.parameter_sets).len();
            assert_eq!(sets, if info.codec == Codec::H264 { 2 } else { 3 }, "{name}");
        }
        let width = if name.contains("1080") { 1920 } else { info.width };
        assert_eq!(info.width, width, "{name}");
        assert!(info.width > 0 && info.height > 0, "{name}");
        assert!(played.units.iter().all(|(unit, _)| !unit.hidden && !unit.corrupt), "{name}");
        assert!(
            played.units.is_sorted_by_key(|(unit, _)| unit.decoding_ns),
            "{name}: decoding order"
        );
    }
}

/// The NAL units of the pictures alone: containers differ in delimiters and parameter sets.
fn slices(played: &Played) -> Vec<Vec<Vec<u8>>> {
    let of = |data: &[u8]| {
        let slices = nals(data).into_iter().filter(|nal| matches!(nal[0] & 31, 1..=5));
        slices.map(<[u8]>::to_vec).collect()
    };
    played.units.iter().map(|(_, data)| of(data)).collect()
}

#[test]
fn other_containers_of_a_clip_give_the_same_pictures() {
    let whole = play(&clip("bikes.mp4"));
    let expected = slices(&whole);
    for name in ["bikes.mkv", "bikes.ts", "bikes-cmaf.mp4"] {
        let played = play(&own_clip(name));
        assert!(played.ended() && played.damage.is_empty(), "{name}: {played:?}");
        assert_eq!(slices(&played), expected[..40], "{name}");
        assert_eq!((played.info().width, played.info().height), (640, 272), "{name}");
        let times = |played: &Played| -> Vec<i64> {
            let first = time(&played.units[0].0);
            // Matroska counts milliseconds.
            let ms = |(unit, _): &(IngestUnit, _)| (time(unit) - first + 500_000) / 1_000_000;
            played.units.iter().take(40).map(ms).collect()
        };
        assert_eq!(times(&played), times(&whole), "{name}");
    }
}

#[test]
fn the_content_decides_and_not_the_name() {
    let matroska = std::fs::read(own_clip("bikes.mkv")).unwrap();
    for ending in ["mp4", "h264", ""] {
        let played = play_bytes(&matroska, ending);
        assert_eq!(played.info().format, "matroska,webm", "{ending}");
        assert_eq!(played.units.len(), 40, "{ending}");
    }
}

#[test]
fn a_raw_stream_has_no_times_and_junk_before_it_is_passed_over() {
    let played = play(&own_clip("bikes.ts"));
    let stream: Vec<u8> = played.units.iter().flat_map(|(_, data)| data.clone()).collect();
    let junk: Vec<u8> = b"recorded by a camera\n".repeat(200);
    for (bytes, ending) in [(stream.clone(), ""), ([junk, stream].concat(), "h264")] {
        let raw = play_bytes(&bytes, ending);
        assert!(raw.ended(), "{:?}", raw.end);
        assert_eq!(slices(&raw), slices(&played), "{ending}");
        assert!(raw.units.iter().all(|(unit, _)| unit.presentation_ns.is_none()));
    }
}

#[test]
fn what_is_no_video_file_is_named() {
    let empty = play_bytes(&[], "mp4");
    assert_eq!(empty.fault().kind, IngestFaultKind::UnknownContainer);
    assert!(empty.fault().reason.contains("empty"));
    let text = play_bytes(&b"Lorem ipsum dolor sit amet. ".repeat(400), "mp4");
    assert_eq!(text.fault().kind, IngestFaultKind::UnknownContainer);
    assert_eq!(text.fault().step, IngestStep::Open);
    // A container that is not on the list, although libavformat reads it.
    let sound = play_bytes(&wave(), "wav");
    assert_eq!(sound.fault().kind, IngestFaultKind::UnknownContainer);
    // A list of files to open is a text like any other.
    let playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile:///etc/passwd\n".repeat(9);
    assert_eq!(play_bytes(&playlist, "m3u8").fault().kind, IngestFaultKind::UnknownContainer);
    let list = b"ffconcat version 1.0\nfile '/etc/passwd'\n".repeat(9);
    assert_eq!(play_bytes(&list, "mp4").fault().kind, IngestFaultKind::UnknownContainer);
}

fn wave() -> Vec<u8> {
    let samples = vec![0; 8000];
    let mut file = b"RIFF".to_vec();
    file.extend((36 + samples.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data");
    file.extend((samples.len() as u32).to_le_bytes());
    file.extend(samples);
    file
}

/// Replaces each occurrence of four characters.
fn renamed(file: &[u8], from: &[u8; 4], to: &[u8; 4]) -> Vec<u8> {
    let mut file = file.to_vec();
    let places: Vec<usize> =
        file.windows(4).enumerate().filter(|(_, w)| w == from).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| file[at..at + 4].copy_from_slice(to));
    file
}

#[test]
fn a_file_without_video_or_with_another_codec_says_what_it_has() {
    let file = std::fs::read(clip("people-576-baseline.mp4")).unwrap();
    let sound = play_bytes(&renamed(&file, b"vide", b"soun"), "mp4");
    assert_eq!(sound.fault().kind, IngestFaultKind::NoVideo, "{:?}", sound.fault());
    assert!(sound.fault().reason.contains("audio"), "{:?}", sound.fault());
    let other = play_bytes(&renamed(&file, b"avc1", b"vp09"), "mp4");
    let kind = IngestFaultKind::UnsupportedCodec("vp9".into());
    assert_eq!(other.fault().kind, kind, "{:?}", other.fault());
    assert_eq!(other.fault().step, IngestStep::Probe);
}

#[test]
fn a_files_matrix_says_how_it_is_turned() {
    let mut file = std::fs::read(clip("people-576-baseline.mp4")).unwrap();
    let at = file.windows(4).position(|w| w == b"tkhd").unwrap();
    // Version 0: the matrix begins 40 bytes behind the version.
    assert_eq!(file[at + 4], 0);
    let matrix = at + 4 + 40;
    assert_eq!(file[matrix..matrix + 4], [0, 1, 0, 0]);
    let one = 0x1_0000_i32;
    for (place, value) in [(0, 0), (1, one), (3, -one), (4, 0)] {
        file[matrix + 4 * place..][..4].copy_from_slice(&value.to_be_bytes());
    }
    let played = play_bytes(&file, "mp4");
    assert_eq!(played.info().orientation, Orientation::TurnRight);
    assert_eq!(played.units.len(), 100);
}

#[test]
fn pictures_outside_of_the_edit_list_are_hidden_and_come_all_the_same() {
    let mut file = std::fs::read(clip("people-576-baseline.mp4")).unwrap();
    let times = file.windows(4).position(|w| w == b"stts").unwrap() + 4;
    let interval = u32::from_be_bytes(file[times + 12..times + 16].try_into().unwrap());
    let edits = file.windows(4).position(|w| w == b"elst").unwrap() + 4;
    // One edit, which begins with the first picture: now with the sixth.
    assert_eq!(file[edits + 4..edits + 8], [0, 0, 0, 1]);
    file[edits + 12..edits + 16].copy_from_slice(&(5 * interval).to_be_bytes());
    let played = play_bytes(&file, "mp4");
    assert!(played.ended() && played.damage.is_empty(), "{:?}", played.damage);
    let hidden: Vec<bool> = played.units.iter().map(|(unit, _)| unit.hidden).collect();
    assert_eq!(hidden, (0..100).map(|number| number < 5).collect::<Vec<_>>());
}

#[test]
fn units_without_a_process_are_the_same() {
    let path = clip("people-576-hevc.mp4");
    let played = play(&path);
    let (info, units) = ocelli_ingest::file_units(&path).unwrap();
    assert_eq!((&info, &units), (played.info(), &played.units));
}
