//! Files as sources, on the clips that the whole-system tests use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ocelli::config::source::{Pace, Source};
use ocelli::source::{
    AccessUnit, SourceEvent, SourceFault, SourceFaultKind, Sources, Subscription,
};
use ocelli_protocol::worker::Codec;

use crate::support::sources;

/// Far above what reading a clip takes.
const DEADLINE: Duration = Duration::from_secs(60);

fn clip(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clips").join(name)
}

fn subscribe(path: &Path, pace: Pace, repeat: bool) -> Subscription {
    let source =
        Source::parse(&format!("file:{}", path.display()), None, Some(pace), repeat).unwrap();
    sources().subscribe(&source)
}

async fn next(subscription: &mut Subscription) -> SourceEvent {
    tokio::time::timeout(DEADLINE, subscription.next()).await.expect("an event within the deadline")
}

async fn next_unit(subscription: &mut Subscription) -> Arc<AccessUnit> {
    loop {
        match next(subscription).await {
            SourceEvent::Unit(unit) => return unit,
            SourceEvent::Up => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Up, the units, Ended.
async fn whole(path: &Path) -> Vec<Arc<AccessUnit>> {
    let mut subscription = subscribe(path, Pace::AsFast, false);
    assert_eq!(next(&mut subscription).await, SourceEvent::Up);
    let mut units = Vec::new();
    loop {
        match next(&mut subscription).await {
            SourceEvent::Unit(unit) => units.push(unit),
            SourceEvent::Ended => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(next(&mut subscription).await, SourceEvent::Ended, "it stays ended");
    units
}

/// The file's own events, and the end.
async fn failure(path: &Path) -> (SourceFaultKind, String) {
    let mut subscription = subscribe(path, Pace::AsFast, false);
    let fault = loop {
        match next(&mut subscription).await {
            SourceEvent::Down(fault) => break fault,
            SourceEvent::Up | SourceEvent::Unit(_) | SourceEvent::Damaged(_) => {}
            SourceEvent::Ended => panic!("no fault"),
        }
    };
    assert_eq!(next(&mut subscription).await, SourceEvent::Ended);
    (fault.kind, fault.message)
}

/// Counts that another program gave: the sample and sync sample tables (stsz, stss) read byte by
/// byte.
const CLIPS: [(&str, Codec, usize, usize); 5] = [
    ("people-576-baseline.mp4", Codec::H264, 100, 5),
    ("people-576-high-b3.mp4", Codec::H264, 102, 6),
    ("people-1080-high-b3.mp4", Codec::H264, 102, 6),
    ("people-576-hevc.mp4", Codec::H265, 102, 6),
    ("bikes.mp4", Codec::H264, 250, 6),
];

#[tokio::test]
async fn an_mp4_gives_every_picture_in_decoding_order_with_its_times() {
    for (name, codec, pictures, keys) in CLIPS {
        let units = whole(&clip(name)).await;
        assert_eq!(units.len(), pictures, "{name}");
        assert_eq!(units.iter().filter(|unit| unit.header.key).count(), keys, "{name}");
        assert!(units[0].header.key, "{name} starts with a key unit");
        for (number, unit) in units.iter().enumerate() {
            let header = &unit.header;
            assert_eq!(
                (header.number, header.codec, header.discontinuity),
                (number as u64, codec, false),
                "{name}"
            );
            assert_eq!(
                header.capture_ns,
                header.presentation_ns.unwrap() as u64,
                "{name}: time from 1970 on"
            );
            assert!(header.received_ns > 0);
            assert!(unit.data.starts_with(&[0, 0, 0, 1]), "{name}: Annex B");
        }
        let mut shown: Vec<i64> =
            units.iter().map(|unit| unit.header.presentation_ns.unwrap()).collect();
        let reordered = !shown.is_sorted();
        assert_eq!(
            reordered,
            name.contains("b3") || name.contains("hevc") || name.contains("bikes"),
            "{name}"
        );
        shown.sort();
        assert_eq!(shown[0], 0, "{name}");
        assert!(
            shown.windows(2).all(|pair| pair[0] < pair[1]),
            "{name}: no two pictures at one time"
        );
    }
}

#[tokio::test]
async fn key_units_bring_their_parameter_sets() {
    for (name, codec, ..) in CLIPS {
        for unit in whole(&clip(name)).await.iter().filter(|unit| unit.header.key) {
            let types = nal_types(codec, &unit.data);
            let sets: &[u8] = if codec == Codec::H264 { &[7, 8] } else { &[32, 33, 34] };
            let slice =
                types.iter().position(|nal_type| !is_before_slices(codec, *nal_type)).unwrap();
            assert!(sets.iter().all(|set| types[..slice].contains(set)), "{name}: {types:?}");
        }
    }
}

#[tokio::test]
async fn a_raw_stream_gives_the_same_units_as_the_mp4_that_it_was_taken_from() {
    let folder = tempfile::tempdir().unwrap();
    for (name, codec, ..) in CLIPS {
        let units = whole(&clip(name)).await;
        let path = folder.path().join(name).with_extension(if codec == Codec::H264 {
            "h264"
        } else {
            "hevc"
        });
        let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.data.iter().copied()).collect();
        std::fs::write(&path, bytes).unwrap();
        let raw = whole(&path).await;
        assert_eq!(raw.len(), units.len(), "{name}");
        for (raw, unit) in raw.iter().zip(&units) {
            assert_eq!(raw.data, unit.data, "{name} {}", unit.header.number);
            assert_eq!(
                (raw.header.key, raw.header.disposable),
                (unit.header.key, unit.header.disposable)
            );
            assert_eq!(raw.header.presentation_ns, None);
            assert_eq!(raw.header.capture_ns, raw.header.number * 40_000_000);
        }
    }
}

#[tokio::test]
async fn a_file_read_twice_gives_the_same_units() {
    let path = clip("people-576-high-b3.mp4");
    let (first, second) = (whole(&path).await, whole(&path).await);
    let same = |(a, b): (&Arc<AccessUnit>, &Arc<AccessUnit>)| {
        let header = ocelli_protocol::worker::UnitHeader {
            received_ns: b.header.received_ns,
            ..a.header.clone()
        };
        (header, &a.data) == (b.header.clone(), &b.data)
    };
    assert!(first.len() == second.len() && first.iter().zip(&second).all(same));
}

#[tokio::test]
async fn a_slow_subscriber_loses_nothing_and_delays_nobody() {
    let path = clip("people-576-high.mp4");
    let source = Source::parse(&format!("file:{}", path.display()), None, None, false).unwrap();
    let sources = sources();
    let mut slow = sources.subscribe(&source);
    assert_eq!(next_unit(&mut slow).await.header.number, 0);
    let mut quick = sources.subscribe(&source);
    for number in 0..100 {
        assert_eq!(next_unit(&mut quick).await.header.number, number);
    }
    for number in 1..100 {
        assert_eq!(next_unit(&mut slow).await.header.number, number);
    }
    assert_eq!(slow.dropped().load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_repeated_file_continues_numbers_and_times_without_a_gap() {
    let mut subscription = subscribe(&clip("people-576-high-b3.mp4"), Pace::AsFast, true);
    let mut shown = Vec::new();
    for number in 0..3 * 102 {
        let unit = next_unit(&mut subscription).await;
        assert_eq!(unit.header.number, number);
        assert_eq!(unit.header.discontinuity, number == 102 || number == 204);
        shown.push(unit.header.presentation_ns.unwrap());
    }
    shown.sort();
    let steps: Vec<i64> = shown.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (least, most) = (steps.iter().min().unwrap(), steps.iter().max().unwrap());
    assert!(
        *least > 0 && most - least <= 1_000_000,
        "the picture rate stays within the container's rounding: {least} {most}"
    );
}

#[tokio::test]
async fn real_time_hands_units_out_at_the_recorded_rate() {
    let mut subscription = subscribe(&clip("people-576-baseline.mp4"), Pace::Realtime, false);
    let first = next_unit(&mut subscription).await;
    let started = std::time::Instant::now();
    let mut last = first;
    for _ in 0..12 {
        last = next_unit(&mut subscription).await;
    }
    // No reordering in the baseline profile: presentation times are decoding times.
    let recorded = Duration::from_nanos(last.header.presentation_ns.unwrap() as u64);
    let slack = Duration::from_millis(50);
    assert!(
        recorded > Duration::from_millis(300) && started.elapsed() + slack >= recorded,
        "{recorded:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_told_by_name_and_then_ended() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    for (path, cause) in [
        (folder.path().join("absent.mp4"), "cannot be opened"),
        (file("clip", b"x"), "not a video file: known are mp4"),
        (file("empty.mp4", b""), "not a video file"),
        (file("text.mp4", b"this is no video at all, only text"), "not a video file"),
        (file("empty.h264", b""), "not a video file"),
        (folder.path().to_owned(), "is no file"),
    ] {
        let (kind, message) = failure(&path).await;
        assert_eq!(kind, SourceFaultKind::File);
        assert!(
            message.contains(cause) && message.contains(&path.display().to_string()),
            "{message}"
        );
        assert!(!message.contains('\n'), "{message}");
    }
}

/// What a file gives: its units, the words on what is damaged, and the fault.
async fn remains(sources: &Sources, path: &Path) -> (u64, Vec<String>, Option<SourceFault>, u64) {
    let source = Source::parse(&format!("file:{}", path.display()), None, None, false).unwrap();
    let mut subscription = sources.subscribe(&source);
    let (mut units, mut damage, mut fault) = (0, Vec::new(), None);
    loop {
        match next(&mut subscription).await {
            SourceEvent::Up => {}
            SourceEvent::Unit(_) => units += 1,
            SourceEvent::Damaged(reason) => damage.push(reason),
            SourceEvent::Down(told) => fault = Some(told),
            SourceEvent::Ended => break,
        }
    }
    (units, damage, fault, subscription.lost().load(std::sync::atomic::Ordering::Relaxed))
}

#[tokio::test]
async fn a_file_that_is_cut_short_plays_up_to_there_and_says_what_is_missing() {
    let whole = std::fs::read(clip("people-576-mjpeg.avi")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.avi");
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let (units, damage, fault, _) = remains(&sources(), &path).await;
    assert!((10..90).contains(&units), "a part of the pictures: {units}");
    assert_eq!(fault, None);
    assert!(!damage.is_empty());
    let name = path.display().to_string();
    assert!(
        damage.iter().all(|words| words.contains(&name) && !words.contains('\n')),
        "{damage:?}"
    );
}

#[tokio::test]
async fn a_damaged_mp4_loses_no_picture_unsaid_and_harms_no_other_file() {
    let mp4 = std::fs::read(clip("people-576-baseline.mp4")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.mp4");
    let sources = sources();
    // Index tables of mp4 files, and what is said of each filled with the largest values, where a
    // parser is likely to trip. Some say nothing that the reading of pictures needs.
    for table in [&b"stsz"[..], b"stco", b"stsc", b"stts", b"stss", b"avcC", b"mdhd", b"stsd"] {
        let name = String::from_utf8_lossy(table);
        let mut damaged = mp4.clone();
        let at = mp4.windows(4).position(|window| window == table).unwrap();
        damaged[at + 12..at + 28].fill(0xff);
        if table == b"stsz" || table == b"stts" {
            // Counts stay as they are: how much memory a table may take is the parser's matter.
            damaged[at + 12..at + 16].copy_from_slice(&mp4[at + 12..at + 16]);
        }
        std::fs::write(&path, &damaged).unwrap();
        let sound = format!("file:{}", clip("people-576-baseline.mp4").display());
        let mut sound = sources.subscribe(&Source::parse(&sound, None, None, false).unwrap());
        assert_eq!(next_unit(&mut sound).await.header.number, 0);
        let (units, damage, fault, lost) = remains(&sources, &path).await;
        let told = fault.is_some() || !damage.is_empty();
        assert!(units == 100 || told, "{name}: {units} units, {lost} lost");
        if let Some(fault) = fault {
            assert_eq!((fault.kind, units), (SourceFaultKind::File, 0), "{name}: {fault}");
            assert!(fault.message.contains(&path.display().to_string()), "{name}: {fault}");
        }
        for number in 1..100 {
            assert_eq!(next_unit(&mut sound).await.header.number, number, "{name}");
        }
    }
}

/// NAL unit types of an access unit in Annex B form with four-byte start codes.
fn nal_types(codec: Codec, data: &[u8]) -> Vec<u8> {
    let starts = data.windows(5).filter(|window| window.starts_with(&[0, 0, 0, 1]));
    starts
        .map(|window| if codec == Codec::H264 { window[4] & 0x1f } else { (window[4] >> 1) & 0x3f })
        .collect()
}

fn is_before_slices(codec: Codec, nal_type: u8) -> bool {
    match codec {
        Codec::H264 => (6..=9).contains(&nal_type),
        _ => nal_type >= 32,
    }
}
