use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;

use super::parameters::ParameterSets;
use super::*;
use crate::journal::Journal;
use crate::journal::events::{ClipState, EventDraft};
use crate::source::nal::NalCodec;
use crate::source::viewers::PictureFeedOwner;

/// Parameter sets as x264 and x265 write them: of 768x576, 1920x1080 and 640x360.
const SPS_576: &str = "6764001facd940c0126840000003004000000503c60c6580";
const PPS_576: &str = "68ebe3cb22c0";
const SPS_1080: &str = "67640028acd940780227e584000003000400000300503c60c658";
const BASELINE_1080: &str = "6742c032d980780227e584000003000400000300503c60c9a0";
const SPS_360: &str = "67640016acb301405ff2e022000003000200000300281e2c5cd0";
const VPS_H265: &str = "40010c01ffff01600000030090000003000003005a959809";
const SPS_H265: &str =
    "42010101600000030090000003000003005aa006020090596566924cae68080000030008000003005040";
const SPS_1080_H265: &str =
    "420101016000000300900000030000030078a003c08010e596565924cae68080000003008000000504";
const PPS_H265: &str = "4401c172b46240";

/// Nanoseconds from one unit to the next: 10 a second.
const STEP: i64 = 100_000_000;
const SECOND: i64 = 1_000_000_000;

/// Two seconds before an event and one after it.
const TERMS: ClipTerms = ClipTerms { before: 2 * SECOND, after: SECOND };

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let pairs = hexadecimal.as_bytes().as_chunks::<2>().0;
    pairs
        .iter()
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn annex_b(nals: &[Vec<u8>]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [&[0, 0, 0, 1][..], nal].concat()).collect()
}

fn sets(codec: NalCodec, nals: &[&str]) -> ParameterSets {
    let slice = match codec {
        NalCodec::H264 => vec![0x65, 0x88, 1],
        NalCodec::H265 => vec![0x26, 1, 0xaf],
    };
    let nals: Vec<_> = nals.iter().map(|nal| bytes(nal)).chain([slice]).collect();
    ParameterSets::before(codec, &annex_b(&nals)).unwrap()
}

/// A unit of a camera with a key picture each second; `size` bytes of slice.
fn unit(number: i64, sps: &str, size: usize) -> Arc<AccessUnit> {
    let key = number % 10 == 0;
    let mut unit = AccessUnit::clone(&crate::source::tests::unit(number.unsigned_abs(), key, 0));
    let slice = |kind| [vec![kind, 0x88], vec![0x55; size]].concat();
    let nals = match key {
        true => vec![bytes(sps), bytes(PPS_576), slice(0x65)],
        false => vec![slice(0x41)],
    };
    unit.data = Bytes::from(annex_b(&nals));
    unit.header.presentation_ns = Some(number * STEP);
    Arc::new(unit)
}

/// A budget that says how much of it is taken.
struct Taken {
    taken: Cell<usize>,
    most: usize,
}

impl ClipBudget for Taken {
    fn take(&self, bytes: usize) -> bool {
        let taken = self.taken.get() + bytes;
        let fits = taken <= self.most;
        if fits {
            self.taken.set(taken);
        }
        fits
    }
}

fn plenty() -> Taken {
    Taken { taken: Cell::new(0), most: usize::MAX }
}

/// A ring, what came of it, and the number of the next clip.
struct Stage {
    ring: ClipRing,
    budget: Taken,
    clips: u64,
    ended: Vec<CollectedClip>,
}

impl Stage {
    fn new() -> Self {
        let ring = ClipRing::new(Some(TERMS));
        Self { ring, budget: plenty(), clips: 0, ended: Vec::new() }
    }

    fn units(&mut self, numbers: std::ops::Range<i64>) {
        for number in numbers {
            self.unit(&unit(number, SPS_576, 100));
        }
    }

    fn unit(&mut self, unit: &Arc<AccessUnit>) {
        self.ended.extend(self.ring.unit(unit, &self.budget));
    }

    fn event(&mut self, number: i64) -> Result<u64, Refused> {
        let next = self.clips + 1;
        let id = self.ring.event(number * STEP, || next, &self.budget)?;
        self.clips = self.clips.max(id);
        Ok(id)
    }

    /// Each clip that has ended: its number, its first and last picture, and why it ended early.
    fn take(&mut self) -> Vec<(u64, u64, u64, Option<Cut>)> {
        let number = |unit: Option<&Arc<AccessUnit>>| unit.unwrap().header.number;
        let clips = self.ended.drain(..);
        clips
            .map(|clip| (clip.id, number(clip.units.first()), number(clip.units.last()), clip.cut))
            .collect()
    }
}

#[test]
fn parameter_sets_say_size_and_codec() {
    let of = |sps| sets(NalCodec::H264, &[sps, PPS_576]).describe().unwrap();
    assert_eq!(of(SPS_576).size, (768, 576));
    assert_eq!(of(SPS_1080).size, (1920, 1080), "eight rows are cut off");
    assert_eq!(of(SPS_360).size, (640, 360));
    let record = |sps: &str, colours: &str| {
        let half = |set: &str| format!("{:04x}{set}", set.len() / 2);
        let profile = &sps[2..8];
        bytes(&format!("01{profile}ffe1{}01{}{colours}", half(sps), half(PPS_576)))
    };
    assert_eq!(of(SPS_576).record, (b"avcC", record(SPS_576, "fdf8f800")));
    assert_eq!(of(BASELINE_1080).size, (1920, 1080));
    assert_eq!(of(BASELINE_1080).record.1, record(BASELINE_1080, ""));

    let of = |sps| sets(NalCodec::H265, &[VPS_H265, sps, PPS_H265]).describe().unwrap();
    assert_eq!((of(SPS_H265).size, of(SPS_1080_H265).size), ((768, 576), (1920, 1080)));
    let (name, record) = of(SPS_H265).record;
    assert_eq!(name, b"hvcC");
    // As x265's own file has it.
    assert_eq!(record[..22], bytes("0101600000009000000000005af000fcfdf8f800000f"));
    assert_eq!(record[22..26], [3, 0xa0, 0, 1]);
}

#[test]
fn sets_that_lack_one_describe_nothing_and_damaged_ones_harm_nobody() {
    assert_eq!(sets(NalCodec::H264, &[SPS_576]).describe(), None);
    assert_eq!(sets(NalCodec::H265, &[SPS_H265, PPS_H265]).describe(), None);
    assert_eq!(ParameterSets::before(NalCodec::H264, &annex_b(&[vec![0x65, 0x88]])), None);
    assert_eq!(ParameterSets::before(NalCodec::H264, b"no start code"), None);
    for (codec, sps) in [(NalCodec::H264, SPS_576), (NalCodec::H265, SPS_H265)] {
        let whole = bytes(sps);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 0x80 >> (bit % 8);
            for end in [whole.len(), bit / 8] {
                let nals = [damaged[..end].to_vec(), bytes(PPS_576), vec![0x65, 0x88]];
                // Whatever it says, it says it.
                let _ = ParameterSets::before(codec, &annex_b(&nals)).map(|sets| sets.describe());
            }
        }
    }
}

#[test]
fn a_clip_goes_from_the_key_picture_before_to_the_seconds_after_and_not_further() {
    let mut stage = Stage::new();
    stage.units(0..95);
    assert_eq!(stage.event(93), Ok(1));
    assert!(stage.take().is_empty(), "its seconds after are to come");
    stage.units(95..120);
    assert_eq!(stage.take(), [(1, 70, 103, None)]);
    // 2 s and what results may be late by, from a key picture on.
    assert!(stage.ring.bytes() < 70 * 110, "{} bytes", stage.ring.bytes());
}

#[test]
fn a_clip_has_the_pictures_that_are_decoded_after_its_last_one_and_shown_before() {
    let mut stage = Stage::new();
    stage.units(0..45);
    stage.event(42).unwrap();
    // Three pictures are shown before the one that comes first, twice.
    for (number, time) in [(45, 48), (46, 45), (47, 46), (48, 47), (49, 51), (51, 49), (52, 50)] {
        let mut unit = AccessUnit::clone(&unit(number, SPS_576, 100));
        unit.header.presentation_ns = Some(time * STEP);
        stage.unit(&Arc::new(unit));
    }
    assert!(stage.take().is_empty(), "until 52");
    for (number, time) in [(53, 55), (54, 52), (55, 53), (56, 54), (57, 58)] {
        let mut unit = AccessUnit::clone(&unit(number, SPS_576, 100));
        unit.header.presentation_ns = Some(time * STEP);
        stage.unit(&Arc::new(unit));
    }
    assert_eq!(stage.take(), [(1, 20, 56, None)]);
}

#[test]
fn events_that_follow_each_other_share_a_clip_up_to_a_bound() {
    let mut stage = Stage::new();
    stage.units(0..50);
    for number in 50..150 {
        stage.units(number..number + 1);
        stage.event(number).unwrap();
    }
    stage.units(150..170);
    let clips = stage.take();
    assert!((2..=5).contains(&clips.len()), "{clips:?}");
    for (id, first, last, cut) in &clips {
        assert!(cut.is_none() && last - first <= 90 + 10, "{id}: {first} to {last}");
    }
    let last = clips.iter().map(|(_, _, last, _)| *last).max().unwrap();
    assert_eq!(last, 159, "a second after the last event");
}

#[test]
fn an_event_that_comes_late_has_a_clip_and_one_too_late_has_none() {
    let mut stage = Stage::new();
    stage.units(0..60);
    assert_eq!(stage.event(40), Ok(1));
    stage.units(60..71);
    assert_eq!(stage.take(), [(1, 20, 69, None)]);
    stage.units(71..200);
    assert_eq!(stage.event(40), Err(Refused::NoPictures));
    assert_eq!(stage.event(199 + 200), Err(Refused::NoPictures), "a time of another stream");
}

#[test]
fn events_in_each_picture_make_few_clips_however_late_they_come_and_rare_key_pictures_are() {
    // The first key picture is 20 to 40 seconds back: longer than a clip of several events.
    let mut stage = Stage::new();
    stage.unit(&unit(0, SPS_576, 100));
    for number in 1..400 {
        let mut follows = AccessUnit::clone(&unit(1, SPS_576, 100));
        follows.header.presentation_ns = Some(number * STEP);
        stage.unit(&Arc::new(follows));
        if number >= 200 {
            stage.event(number).unwrap();
        }
    }
    assert!((2..=10).contains(&stage.clips), "{} clips in 20 s", stage.clips);
    // Each comes half a second after its clip would have ended.
    let mut stage = Stage::new();
    stage.units(0..50);
    for number in 50..250 {
        stage.units(number..number + 1);
        stage.event(number - 15).unwrap();
    }
    assert!((2..=12).contains(&stage.clips), "{} clips in 20 s", stage.clips);
}

#[test]
fn parameter_sets_that_come_twice_are_the_same_ones() {
    let once = sets(NalCodec::H264, &[SPS_576, PPS_576]);
    assert_eq!(sets(NalCodec::H264, &[SPS_576, PPS_576, PPS_576]), once);
    assert_eq!(sets(NalCodec::H264, &[SPS_576, PPS_576, SPS_576, PPS_576]), once);
}

#[test]
fn a_clip_ends_where_what_follows_does_not_continue_it() {
    let begun = || {
        let mut stage = Stage::new();
        stage.units(0..45);
        stage.event(44).unwrap();
        stage
    };
    let mut stage = begun();
    stage.ended.extend(stage.ring.end(Cut::SourceEnded));
    assert_eq!(stage.take(), [(1, 20, 44, Some(Cut::SourceEnded))]);
    assert_eq!(stage.event(44), Err(Refused::NoPictures));

    let mut stage = begun();
    (45..50).for_each(|number| stage.unit(&unit(number, SPS_1080, 100)));
    assert!(stage.take().is_empty(), "sets come with key pictures");
    (50..80).for_each(|number| stage.unit(&unit(number, SPS_1080, 100)));
    assert_eq!(stage.take(), [(1, 20, 49, Some(Cut::ParametersChanged))]);
    assert_eq!(stage.event(79), Ok(2), "it goes on with the new ones");

    for jump in [-1000, 10_000] {
        let mut stage = begun();
        stage.units(50 + jump..80 + jump);
        assert_eq!(stage.take(), [(1, 20, 44, Some(Cut::TimeJumped))], "{jump}");
        assert_eq!(stage.event(79 + jump), Ok(2));
    }

    let mut stage = begun();
    stage.ended.extend(stage.ring.set_terms(None));
    assert_eq!(stage.take(), [(1, 20, 44, Some(Cut::TurnedOff))]);
    stage.units(50..60);
    assert_eq!((stage.event(55), stage.ring.bytes()), (Err(Refused::Off), 0));
}

#[test]
fn a_camera_cannot_fill_the_memory() {
    // Without key pictures.
    let mut stage = Stage::new();
    (1..10).for_each(|number| stage.unit(&unit(number, SPS_576, 1 << 20)));
    assert_eq!((stage.ring.bytes(), stage.event(5)), (0, Err(Refused::NoPictures)));
    // With one, and none after it.
    let mut large = AccessUnit::clone(&unit(11, SPS_576, 1 << 20));
    stage.unit(&unit(10, SPS_576, 100));
    for number in 11..200 {
        large.header.presentation_ns = Some(number * STEP);
        stage.unit(&Arc::new(large.clone()));
        assert!(stage.ring.bytes() <= ring::MAX_BYTES);
    }
    // With huge ones.
    stage.unit(&unit(200, SPS_576, 100 << 20));
    assert_eq!(stage.ring.bytes(), 0);
    // While a clip is collected.
    stage.units(210..215);
    let id = stage.event(214).unwrap();
    stage.unit(&unit(215, SPS_576, 40 << 20));
    assert_eq!(stage.take(), [(id, 210, 214, Some(Cut::TooLarge))]);
    // Of pictures without bytes.
    let mut stage = Stage::new();
    for number in 0..10_000 {
        let mut unit = AccessUnit::clone(&unit(1 + i64::from(number == 0) * 9, SPS_576, 0));
        unit.header.presentation_ns = Some(0);
        stage.unit(&Arc::new(unit));
    }
    assert_eq!(stage.event(0), Err(Refused::NoPictures));
    stage.units(0..10);
    assert!(stage.event(0).is_ok(), "it goes on with the next key picture");
}

#[test]
fn what_all_clips_take_is_bounded() {
    let mut stage = Stage::new();
    stage.units(0..45);
    stage.budget.most = 3000;
    assert_eq!(stage.event(44), Ok(1), "25 pictures of about 110 bytes");
    stage.units(45..60);
    let clips = stage.take();
    assert!(matches!(clips[..], [(1, 20, 45..50, Some(Cut::TooLarge))]), "{clips:?}");
    assert_eq!(stage.event(59), Err(Refused::Memory));
    // What is given back is what was taken.
    let bytes = Arc::new(CollectedBytes::default());
    assert!(bytes.take(MAX_COLLECTED_BYTES) && !bytes.take(1));
    drop(CollectedGuard(Arc::clone(&bytes), MAX_COLLECTED_BYTES));
    assert!(bytes.take(1));
}

/// The boxes of a file: their names and contents.
fn boxes(mut file: &[u8]) -> Vec<(String, &[u8])> {
    let mut boxes = Vec::new();
    while let Some((length, _)) = file.split_first_chunk::<4>() {
        let (own, rest) = file.split_at(u32::from_be_bytes(*length) as usize);
        boxes.push((String::from_utf8(own[4..8].to_vec()).unwrap(), &own[8..]));
        file = rest;
    }
    boxes
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect()
}

#[test]
fn a_file_has_a_fragment_for_each_key_picture_and_an_index_of_them() {
    let mut units: Vec<_> = (0..25).map(|number| unit(number, SPS_576, 8)).collect();
    // Two pictures in another order than they are shown.
    for (place, time) in [(3, 4), (4, 3)] {
        let mut moved = AccessUnit::clone(&units[place]);
        moved.header.presentation_ns = Some(time * STEP);
        units[place] = Arc::new(moved);
    }
    let mut file = Vec::new();
    mp4::write(&units, &sets(NalCodec::H264, &[SPS_576, PPS_576]), &mut file).unwrap();
    let boxes = boxes(&file);
    let names: Vec<_> = boxes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ftyp", "moov", "sidx", "moof", "mdat", "moof", "mdat", "moof", "mdat"]);
    let index = numbers(&boxes[2].1[4 + 8 + 16 + 4..]);
    let lengths: Vec<u32> = boxes[3..]
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[(_, head), (_, data)]| (head.len() + data.len() + 16) as u32)
        .collect();
    let entry = |place: usize, length| [lengths[place], length, 0x9000_0000];
    assert_eq!(index, [entry(0, 90_000), entry(1, 90_000), entry(2, 45_000)].concat());
    // The key picture has lost its parameter sets, and all have their lengths before them.
    let data = boxes[4].1;
    assert_eq!((data.len(), &data[..6]), (10 * 14, &[0, 0, 0, 10, 0x65, 0x88][..]));
    // Of the run: duration, bytes, flags and offset of each picture.
    let run = boxes[3].1.windows(4).position(|name| name == b"trun").unwrap();
    let run = numbers(&boxes[3].1[run + 8..]);
    let samples: Vec<_> = run[2..].as_chunks::<4>().0.to_vec();
    assert_eq!(run[..2], [10, 8 + boxes[3].1.len() as u32 + 8]);
    assert_eq!(samples[0], [9000, 14, 0x0200_0000, 0]);
    assert_eq!(samples[3], [9000, 14, 0x0101_0000, 9000]);
    assert_eq!(samples[4], [9000, 14, 0x0101_0000, 9000u32.wrapping_neg()]);
}

#[test]
fn times_of_a_file_go_forwards_whatever_the_camera_says() {
    let mut units: Vec<_> = (0..10).map(|number| unit(number, SPS_576, 8)).collect();
    for unit in &mut units {
        let mut same = AccessUnit::clone(unit);
        same.header.presentation_ns = Some(SECOND);
        *unit = Arc::new(same);
    }
    let mut early = AccessUnit::clone(&units[9]);
    early.header.presentation_ns = Some(i64::MIN);
    units.push(Arc::new(early));
    let mut file = Vec::new();
    mp4::write(&units, &sets(NalCodec::H264, &[SPS_576, PPS_576]), &mut file).unwrap();
    let boxes = boxes(&file);
    let run = boxes[3].1.windows(4).position(|name| name == b"trun").unwrap();
    let run = numbers(&boxes[3].1[run + 8..]);
    assert_eq!(run[0], 10, "one from before its beginning is left out");
    assert!(run[2..].as_chunks::<4>().0.iter().all(|sample| sample[0] == 1), "{run:?}");
    let none = mp4::write(&[], &sets(NalCodec::H264, &[SPS_576, PPS_576]), &mut Vec::new());
    assert!(matches!(none, Err(MuxError::Empty)));
}

/// A host's clips, and one session that has them.
struct Host {
    journal: Journal,
    clips: Clips,
    owner: PictureFeedOwner,
    tap: PictureTap,
    recorder: ClipRecorder,
}

impl Host {
    fn new(config: &Config) -> Self {
        let journal = Journal::temporary().unwrap();
        let clips = Clips::start(journal.events().clone(), config);
        let (owner, tap) = (PictureFeedOwner::default(), PictureTap::default());
        let mut recorder = clips.recorder("gate", Arc::clone(owner.feed().counts()));
        recorder.follow(tap.clone());
        Self { journal, clips, owner, tap, recorder }
    }

    fn units(&self, numbers: std::ops::Range<i64>) {
        numbers.for_each(|number| self.tap.unit(&unit(number, SPS_576, 100)));
    }

    /// Has the pipeline tell an event.
    fn event(&self, number: i64) -> Option<u64> {
        let clip = self.recorder.event(number * STEP);
        let (kind, body) = ("seen".to_owned(), "{}".into());
        let draft = EventDraft { kind, time_ms: 0, body, attachments: Vec::new(), clip };
        assert!(self.journal.events().append("gate", draft));
        clip
    }

    /// The clip of an event once it is there, or once it is clear that it never is.
    async fn clip(&self, seq: u64) -> ClipState {
        let events = self.journal.events();
        events.flush().await.unwrap();
        let wait = async {
            loop {
                match events.clip("gate", seq).await.unwrap() {
                    ClipState::Pending => tokio::time::sleep(Duration::from_millis(5)).await,
                    state => return state,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap()
    }
}

fn config(clips: bool, cameras: &[&str]) -> Config {
    let mut config = Config::default();
    config.events.clips = clips;
    config.events.clip_cameras = cameras.iter().map(|&camera| camera.to_owned()).collect();
    (config.events.clip_before_s, config.events.clip_after_s) = (2, 1);
    config
}

#[tokio::test]
async fn an_event_has_its_clip_when_its_seconds_are_over() {
    let host = Host::new(&config(true, &[]));
    host.units(0..45);
    assert!(host.event(44).is_some());
    host.journal.events().flush().await.unwrap();
    assert!(matches!(host.journal.events().clip("gate", 1).await.unwrap(), ClipState::Pending));
    assert!(matches!(host.journal.events().clip("gate", 2).await.unwrap(), ClipState::NoEvent));
    host.units(45..60);
    let ClipState::Kept(clip) = host.clip(1).await else { panic!("no clip") };
    assert_eq!((clip.file.metadata().unwrap().len(), clip.cut), (clip.bytes, None));
    assert!(host.owner.feed().counts().clip_bytes() > 0);
    let metrics = host.journal.events().metrics().clips;
    assert_eq!((metrics.whole, metrics.bytes), (1, clip.bytes));
}

#[tokio::test]
async fn a_clip_that_is_cut_says_so_and_one_without_pictures_is_counted() {
    let host = Host::new(&config(true, &[]));
    assert_eq!(host.event(0), None, "there was no picture");
    assert!(matches!(host.clip(1).await, ClipState::None));
    host.units(0..45);
    assert!(host.event(44).is_some());
    host.tap.clear();
    let ClipState::Kept(clip) = host.clip(2).await else { panic!("no clip") };
    assert_eq!(clip.cut.as_deref(), Some("source_ended"));
    let metrics = host.journal.events().metrics().clips;
    assert_eq!((metrics.cut, metrics.refused), (1, 1));
    // Of a session that ends: what there is of it is kept.
    host.units(60..105);
    assert!(host.event(104).is_some());
    let Host { journal, clips, owner, tap, recorder } = host;
    drop(recorder);
    let events = journal.events().clone();
    let host =
        Host { recorder: clips.recorder("other", Arc::default()), journal, clips, owner, tap };
    assert!(matches!(host.clip(3).await, ClipState::Kept(_)), "{:?}", events.metrics());
}

#[tokio::test]
async fn a_clip_that_no_event_names_is_not_kept() {
    let host = Host::new(&config(true, &[]));
    host.units(0..45);
    assert!(host.recorder.event(44 * STEP).is_some());
    host.units(45..60);
    let failed = || host.journal.events().metrics().clips.failed;
    let wait = async {
        while failed() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    assert_eq!(host.journal.events().metrics().clips.bytes, 0);
}

#[tokio::test]
async fn the_config_says_which_sessions_have_clips_and_nothing_is_kept_for_others() {
    let host = Host::new(&config(false, &[]));
    let counts = Arc::clone(host.owner.feed().counts());
    let wanted = counts.watch();
    let now = || (counts.clip_bytes() > 0, *wanted.borrow(), counts.viewers());
    host.units(0..20);
    assert_eq!((now(), host.event(19)), ((false, 0, 0), None));
    assert_eq!(host.journal.events().metrics().clips.refused, 0);
    host.clips.apply_config(&config(true, &["gate"]));
    host.units(20..40);
    assert_eq!(now(), (true, 1, 0), "the main stream is read, and nobody views");
    assert!(host.event(39).is_some());
    host.clips.apply_config(&config(true, &["door"]));
    assert_eq!(now(), (false, 0, 0));
    let ClipState::Kept(clip) = host.clip(2).await else { panic!("no clip") };
    assert_eq!(clip.cut.as_deref(), Some("turned_off"));
}
