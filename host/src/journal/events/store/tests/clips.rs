//! Clips of events: their own bounds, and what becomes of them with their events.

use std::io::Write;

use super::super::super::clips::{ClipDraft, ClipRow};
use super::super::super::reader;
use super::*;

const HOUR: i64 = 3_600_000;

/// A store with events that have clips.
struct Stage {
    folder: tempfile::TempDir,
    store: EventStore,
    reader: Connection,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, reader) = store::open(&file::folder(folder.path()).unwrap(), 0).unwrap();
        Self { folder, store, reader }
    }

    /// Keeps an event with this clip.
    fn event(&mut self, session: &str, clip: u64, now_ms: i64) {
        keep(&mut self.store, session, vec![EventDraft { clip: Some(clip), ..draft(1) }], now_ms);
    }

    /// Keeps the clip: whether it is.
    fn clip(&mut self, session: &str, id: u64, bytes: usize, now_ms: i64) -> bool {
        let mut draft: ClipDraft = self.store.clips().draft().unwrap();
        draft.file().write_all(&vec![7; bytes]).unwrap();
        let clip = draft.finish(id, None).unwrap();
        self.store.keep_clip(&session.into(), &clip, now_ms).unwrap()
    }

    fn retain(&mut self, limits: &RetentionLimits, now_ms: i64) {
        while self.store.retain(limits, now_ms, 100).unwrap() {}
    }

    fn of(&self, session: &str, seq: u64) -> ClipRow {
        reader::clip(&self.reader, session, seq).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.path().join("clips")).unwrap();
        let mut names: Vec<_> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn kept(id: u64) -> ClipRow {
    ClipRow::Kept { id, cut: None }
}

#[test]
fn an_event_names_its_clip_before_that_is_whole_and_after_it_is_gone() {
    let mut stage = Stage::new();
    stage.event("gate", 1, 0);
    stage.event("gate", 1, 0);
    keep(&mut stage.store, "gate", vec![draft(1)], 0);
    assert_eq!((stage.of("gate", 1), stage.of("gate", 3)), (ClipRow::Named(1), ClipRow::None));
    assert_eq!((stage.of("gate", 4), stage.of("door", 1)), (ClipRow::NoEvent, ClipRow::NoEvent));
    assert!(stage.clip("gate", 1, 10, 0));
    assert_eq!((stage.of("gate", 1), stage.of("gate", 2)), (kept(1), kept(1)));
    assert_eq!(stage.store.clip_bytes(), 10);
    stage.retain(&RetentionLimits { clip_hours: 1, ..RetentionLimits::default() }, HOUR + 1);
    assert_eq!((stage.of("gate", 1), stage.files()), (ClipRow::Named(1), Vec::<String>::new()));
    assert_eq!(stage.store.clip_bytes(), 0);
    assert!(!stage.clip("gate", 9, 10, 0), "no event has it");
    assert!(!stage.clip("door", 1, 10, 0), "there is no such session");
    assert!(stage.files().is_empty());
}

#[test]
fn the_session_with_most_gives_its_oldest_and_pictures_have_bounds_of_their_own() {
    let mut stage = Stage::new();
    for (id, session) in [(1, "gate"), (2, "gate"), (3, "gate"), (4, "door")] {
        stage.event(session, id, 0);
        assert!(stage.clip(session, id, 100, id.cast_signed()));
    }
    keep(&mut stage.store, "gate", vec![pictured(1, 1, 500)], 0);
    let limits = RetentionLimits { clip_bytes: 250, ..RetentionLimits::default() };
    stage.retain(&limits, 10);
    assert_eq!(stage.files(), ["3.mp4", "4.mp4"]);
    assert_eq!((stage.store.clip_bytes(), stage.store.picture_bytes()), (200, 500));
    let limits = RetentionLimits { attachment_bytes: 1, ..RetentionLimits::default() };
    stage.retain(&limits, 10);
    assert_eq!((stage.store.clip_bytes(), stage.store.picture_bytes()), (200, 0));
}

#[test]
fn a_clip_goes_with_the_last_event_that_names_it() {
    let mut stage = Stage::new();
    stage.event("gate", 1, 0);
    stage.event("gate", 1, 5 * HOUR);
    assert!(stage.clip("gate", 1, 100, 5 * HOUR));
    let limits = RetentionLimits { hours: 2, ..RetentionLimits::default() };
    stage.retain(&limits, 6 * HOUR);
    assert_eq!((stage.of("gate", 1), stage.of("gate", 2)), (ClipRow::NoEvent, kept(1)));
    stage.retain(&limits, 8 * HOUR);
    assert_eq!((stage.of("gate", 2), stage.files()), (ClipRow::NoEvent, Vec::<String>::new()));
}

#[test]
fn clips_go_first_where_there_is_little_room() {
    let mut stage = Stage::new();
    stage.event("gate", 1, 0);
    assert!(stage.clip("gate", 1, 100, 0));
    keep(&mut stage.store, "gate", vec![pictured(1, 1, 500)], 0);
    let shortage = Shortage { pictures: 50, events: false };
    let gone = stage.store.relieve(shortage, &[], 100).unwrap();
    assert_eq!((gone.clips, gone.pictures), (1, 0));
    let gone = stage.store.relieve(shortage, &[], 100).unwrap();
    assert_eq!((gone.clips, gone.pictures), (0, 1));
}

#[test]
fn numbers_go_on_after_a_restart_and_what_was_not_whole_is_gone() {
    let mut stage = Stage::new();
    stage.event("gate", 6, 0);
    stage.event("gate", 7, 0);
    assert!(stage.clip("gate", 6, 100, 0));
    let clips = stage.folder.path().join("clips");
    std::fs::write(clips.join("7.mp4"), "half").unwrap();
    std::fs::write(clips.join(".draft-0"), "less").unwrap();
    let Stage { folder, store, reader } = stage;
    drop((store, reader));
    let (store, reader) = store::open(&file::folder(folder.path()).unwrap(), 0).unwrap();
    let stage = Stage { folder, store, reader };
    assert_eq!((stage.of("gate", 1), stage.of("gate", 2)), (kept(6), ClipRow::Named(7)));
    assert_eq!((stage.files(), stage.store.clip_bytes()), (vec!["6.mp4".to_owned()], 100));
    assert_eq!(stage.store.clips().next(), 8);
}
