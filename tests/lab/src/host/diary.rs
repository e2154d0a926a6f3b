//! What a host says that it did, in files that outlast its death: what is written has left the
//! process.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::history::{Acked, Camera, Followed, Host, Nanos, Voice};

/// Bytes of a span of a voice: four numbers, spaces, and the end of the line.
const SPAN: usize = 72;

const ACKED: &str = "acked";
const VOICES: &str = "voices";
const FOLLOWED: &str = "followed";
const REFUSED: &str = "refused";

/// Writes one life of a host.
#[derive(Debug)]
pub(crate) struct Diary {
    acked: Mutex<File>,
    followed: Mutex<File>,
    refused: Mutex<File>,
    voices: File,
    spans: AtomicU64,
}

/// The place of a span of a voice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    place: u64,
    camera: Camera,
    epoch: u64,
    first: Nanos,
}

impl Diary {
    /// Begins one in a folder of its own.
    pub(crate) fn begin(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = |name: &str| File::create(folder.join(name));
        Ok(Self {
            acked: file(ACKED)?.into(),
            followed: file(FOLLOWED)?.into(),
            refused: file(REFUSED)?.into(),
            voices: file(VOICES)?,
            spans: AtomicU64::new(0),
        })
    }

    /// Events have been acknowledged.
    pub(crate) fn acked<'a>(&self, events: impl Iterator<Item = &'a Acked>) {
        let lines: String = events
            .map(|event| {
                let Acked { camera, epoch, seq, id, made, at, .. } = event;
                format!("{camera} {epoch} {seq} {id} {made} {at}\n")
            })
            .collect();
        self.acked.lock().write_all(lines.as_bytes()).unwrap();
    }

    /// A follower got an event.
    pub(crate) fn followed(&self, camera: Camera, seq: u64) {
        let line = format!("{camera} {seq}\n");
        self.followed.lock().write_all(line.as_bytes()).unwrap();
    }

    /// A fence refused an append.
    pub(crate) fn refused(&self, camera: Camera, epoch: u64) {
        let line = format!("{camera} {epoch}\n");
        self.refused.lock().write_all(line.as_bytes()).unwrap();
    }

    /// A voice begins to speak.
    pub(crate) fn speaks(&self, camera: Camera, epoch: u64, at: Nanos) -> Span {
        let place = self.spans.fetch_add(1, Ordering::Relaxed) * SPAN as u64;
        let span = Span { place, camera, epoch, first: at };
        self.speaks_on(span, at);
        span
    }

    /// It goes on.
    pub(crate) fn speaks_on(&self, span: Span, at: Nanos) {
        let Span { place, camera, epoch, first } = span;
        let mut line = format!("{camera} {epoch} {first} {at}");
        line.extend(std::iter::repeat_n(' ', (SPAN - 1).saturating_sub(line.len())));
        line.push('\n');
        self.voices.write_all_at(line.as_bytes(), place).unwrap();
    }
}

/// Where a reader of a diary is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bookmark {
    acked: u64,
    followed: u64,
    refused: u64,
}

/// What a diary has that is new.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) acked: Vec<Acked>,
    pub(crate) followed: Vec<Followed>,
    /// All of them, each time.
    pub(crate) voices: Vec<Voice>,
    /// How many appends a fence has refused.
    pub(crate) refused: usize,
}

impl Bookmark {
    /// Reads on.
    pub(crate) fn read(&mut self, folder: &Path, host: Host, life: usize) -> Entries {
        let acked = lines(&folder.join(ACKED), &mut self.acked);
        let acked = acked.lines().filter_map(|line| {
            let mut words = line.split(' ');
            Some(Acked {
                host,
                camera: words.next()?.parse().ok()?,
                epoch: words.next()?.parse().ok()?,
                seq: words.next()?.parse().ok()?,
                id: words.next()?.into(),
                made: words.next()?.parse().ok()?,
                at: words.next()?.parse().ok()?,
            })
        });
        let followed = lines(&folder.join(FOLLOWED), &mut self.followed);
        let followed = followed.lines().filter_map(|line| {
            let (camera, seq) = line.split_once(' ')?;
            Some(Followed { life, camera: camera.parse().ok()?, seq: seq.parse().ok()? })
        });
        let refused = lines(&folder.join(REFUSED), &mut self.refused).lines().count();
        let voices = std::fs::read_to_string(folder.join(VOICES)).unwrap_or_default();
        let voices = voices.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(Voice {
                host,
                camera: words.next()?.parse().ok()?,
                epoch: words.next()?.parse().ok()?,
                first: words.next()?.parse().ok()?,
                last: words.next()?.parse().ok()?,
            })
        });
        Entries {
            acked: acked.collect(),
            followed: followed.collect(),
            voices: voices.collect(),
            refused,
        }
    }
}

/// The whole lines of a file from a place on, which is then behind them.
fn lines(path: &Path, from: &mut u64) -> String {
    let Ok(file) = File::open(path) else { return String::new() };
    let length = file.metadata().map_or(0, |about| about.len());
    let mut bytes = vec![0; usize::try_from(length.saturating_sub(*from)).unwrap()];
    if file.read_exact_at(&mut bytes, *from).is_err() {
        return String::new();
    }
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    bytes.truncate(whole);
    *from += whole as u64;
    String::from_utf8(bytes).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diary_is_read_as_it_was_written_and_each_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let diary = Diary::begin(folder.path()).unwrap();
        let event = Acked {
            camera: 3,
            epoch: 17,
            host: 5,
            seq: 9,
            id: "5-1".into(),
            made: u64::MAX,
            at: u64::MAX,
        };
        diary.acked([&event, &event].into_iter());
        diary.followed(3, 9);
        diary.refused(3, 17);
        diary.refused(4, 17);
        let first = diary.speaks(u16::MAX, u64::MAX, u64::MAX - 1);
        let second = diary.speaks(3, 18, 100);
        diary.speaks_on(first, u64::MAX);
        diary.speaks_on(second, 200);
        let mut bookmark = Bookmark::default();
        let entries = bookmark.read(folder.path(), 5, 2);
        assert_eq!(entries.acked, [event.clone(), event]);
        assert_eq!(entries.followed, [Followed { life: 2, camera: 3, seq: 9 }]);
        assert_eq!(entries.refused, 2);
        let longest = Voice {
            host: 5,
            camera: u16::MAX,
            epoch: u64::MAX,
            first: u64::MAX - 1,
            last: u64::MAX,
        };
        let short = Voice { host: 5, camera: 3, epoch: 18, first: 100, last: 200 };
        assert_eq!(entries.voices, [longest, short]);
        let again = bookmark.read(folder.path(), 5, 2);
        assert!(again.acked.is_empty() && again.followed.is_empty());
        assert_eq!(again.refused, 0);
    }
}
