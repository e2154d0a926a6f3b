//! Recordings of the field, as phones, editors, recorders and muxers write them: what is shown of
//! each, and in which size, or the word that says why nothing is.

use std::collections::BTreeSet;
use std::path::PathBuf;

use futures_util::{StreamExt, stream};
use ocelli_testkit::{FileSession, Ocelli, PipelineFolder, clip};
use serde_json::json;
use tempfile::TempDir;

/// Files that are played at the same time: each is a session with processes of its own.
const AT_ONCE: usize = 12;

/// What is to come of a recording.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// So many pictures of this size.
    Shows(usize, u64, u64),
    /// At least so many: the rest is missing or damaged.
    ShowsAtLeast(usize),
    /// None, and the session's reason has this word.
    Says(&'static str),
}

use Fate::{Says, Shows, ShowsAtLeast};

/// All 30 pictures of 320x240.
const WHOLE: Fate = Shows(30, 320, 240);

/// A recording: the name of its file, and its bytes.
struct Recording {
    file: &'static str,
    bytes: Vec<u8>,
    fate: Fate,
}

fn field(name: &str) -> Vec<u8> {
    std::fs::read(clip(&format!("field/{name}"))).unwrap()
}

/// A file of `tests/clips/field` as it is.
fn plain(file: &'static str, fate: Fate) -> Recording {
    Recording { file, bytes: field(file), fate }
}

/// One with other bytes.
fn made(file: &'static str, bytes: impl Into<Vec<u8>>, fate: Fate) -> Recording {
    Recording { file, bytes: bytes.into(), fate }
}

/// The place of a box, by its name; its length stands before it.
fn find(bytes: &[u8], name: &[u8; 4]) -> usize {
    bytes.windows(4).position(|window| window == name).unwrap()
}

/// The base file with another matrix in the header of its track: it turns each picture by so many
/// degrees, clockwise (ISO 14496-12, 8.3.2).
fn turned(degrees: u32) -> Vec<u8> {
    let (cosine, sine) = match degrees {
        90 => (0, 1),
        180 => (-1, 0),
        _ => (0, -1i32),
    };
    let matrix = [cosine, sine, 0, -sine, cosine, 0, 0, 0, 1];
    let fixed_point = |(place, value): (usize, i32)| {
        let shift = if place % 3 == 2 { 30 } else { 16 };
        (value << shift).to_be_bytes()
    };
    let mut bytes = field("base.mp4");
    // Behind the name: version, three times, id, duration and what is reserved.
    let at = find(&bytes, b"tkhd") + 4 + 40;
    let matrix: Vec<u8> = matrix.into_iter().enumerate().flat_map(fixed_point).collect();
    bytes[at..at + matrix.len()].copy_from_slice(&matrix);
    bytes
}

/// A file whose `mdat` goes to the end of the file: its length is 0.
fn open_ended() -> Vec<u8> {
    let mut bytes = field("faststart.mp4");
    let at = find(&bytes, b"mdat") - 4;
    bytes[at..at + 4].fill(0);
    bytes
}

fn part(name: &str, thirds: usize) -> Vec<u8> {
    let mut bytes = field(name);
    bytes.truncate(bytes.len() * thirds / 3);
    bytes
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A stream whose start codes have three bytes.
fn short_codes() -> Vec<u8> {
    let bytes = field("closed.h264");
    let mut short = Vec::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        if !bytes[at..].starts_with(&[0, 0, 0, 1]) {
            short.push(*byte);
        }
    }
    short
}

fn recordings() -> Vec<Recording> {
    let base = field("base.mp4");
    let raw = field("closed.h264");
    vec![
        plain("base.mp4", WHOLE),
        plain("faststart.mp4", WHOLE),
        plain("fragmented.mp4", WHOLE),
        plain("fragmented-every.mp4", WHOLE),
        plain("fragmented-hybrid.mp4", WHOLE),
        plain("cmaf.mp4", WHOLE),
        plain("negative-cts.mp4", WHOLE),
        // It begins at 1.25 s; what lies between the key picture at 1.0 s and there is not shown.
        plain("edit-list.mp4", Shows(17, 320, 240)),
        plain("variable-rate.mp4", Shows(16, 320, 240)),
        plain("sound-first.mp4", WHOLE),
        plain("avc3.mp4", WHOLE),
        plain("hvc1.mp4", WHOLE),
        plain("hev1.mp4", WHOLE),
        plain("interlaced.mp4", WHOLE),
        plain("intra-refresh.mp4", WHOLE),
        plain("open-gop.mp4", WHOLE),
        plain("ten-bit.mp4", WHOLE),
        plain("mjpeg.mp4", Shows(15, 160, 120)),
        plain("base.mov", WHOLE),
        plain("base.mkv", WHOLE),
        plain("base.ts", WHOLE),
        plain("base.avi", WHOLE),
        plain("closed.h264", WHOLE),
        plain("closed.h265", WHOLE),
        plain("mpeg4.mp4", Says("mpeg4")),
        plain("vp8.webm", Says("vp8")),
        plain("sound-alone.mp4", Says("no video")),
        made("turned-90.mp4", turned(90), Shows(30, 240, 320)),
        made("turned-180.mp4", turned(180), WHOLE),
        made("turned-270.mp4", turned(270), Shows(30, 240, 320)),
        made("mkv.mp4", field("base.mkv"), WHOLE),
        made("ts.mp4", field("base.ts"), WHOLE),
        made("UPPER.MP4", &*base, WHOLE),
        made("a clip %20 #1 é.mp4", &*base, WHOLE),
        made("no-ending", &*base, WHOLE),
        made("cut-index.mp4", part("base.mp4", 2), Says("cut")),
        made("cut-pictures.mp4", part("faststart.mp4", 2), ShowsAtLeast(15)),
        made("cut-fragments.mp4", part("fragmented.mp4", 2), ShowsAtLeast(10)),
        made("cut.mkv", part("base.mkv", 2), ShowsAtLeast(10)),
        made("cut.ts", part("base.ts", 2), ShowsAtLeast(10)),
        made("empty.mp4", "", Says("not a video file")),
        made("junk-behind.mp4", joined(&[&base, &[0; 500]]), WHOLE),
        made("text-behind.mp4", joined(&[&base, &b"a phone's trailer ".repeat(20)]), WHOLE),
        made("open-ended.mp4", open_ended(), WHOLE),
        made("short-codes.h264", short_codes(), WHOLE),
        made("zeros-first.h264", joined(&[&[0; 64], &raw]), WHOLE),
        made("junk-first.h264", joined(&[b"IMKH", &[1; 36], &raw]), WHOLE),
        made("cut-first.h264", &raw[5000..], ShowsAtLeast(15)),
        made("text.mp4", "this is no recording\n".repeat(50), Says("not a video file")),
        made("playlist.mp4", "#EXTM3U\n#EXTINF:3,\nfile:///etc/passwd\n", Says("not a video file")),
        made("list.mp4", "ffconcat version 1.0\nfile base.mp4\n", Says("not a video file")),
    ]
}

/// What came of a recording.
#[derive(Debug, Default)]
struct Outcome {
    pictures: usize,
    sizes: BTreeSet<(u64, u64)>,
    told: String,
}

impl Outcome {
    fn is(&self, fate: Fate) -> bool {
        match fate {
            Shows(pictures, width, height) => {
                self.pictures == pictures && self.sizes == BTreeSet::from([(width, height)])
            }
            ShowsAtLeast(pictures) => (pictures..30).contains(&self.pictures),
            Says(word) => self.pictures == 0 && self.told.contains(word),
        }
    }
}

/// Plays a file to its end.
async fn play(host: &Ocelli, session: &str, path: PathBuf) -> Outcome {
    let mut client = host.client().await;
    let subscribe = json!({"type": "subscribe", "session": session, "pipeline": "fingerprint",
        "source": format!("file:{}", path.display()), "settings": {"width": 32, "height": 32}});
    client.send(&subscribe).await;
    let mut outcome = Outcome::default();
    loop {
        let message = client.next().await;
        match (message["type"].as_str().unwrap(), message["state"].as_str()) {
            ("detections", _) => {
                outcome.pictures += 1;
                let side = |name: &str| message[name].as_u64().unwrap();
                outcome.sizes.insert((side("width"), side("height")));
            }
            ("session", Some("stopped" | "failed")) => {
                outcome.told += message["reason"].as_str().unwrap_or_default();
                return outcome;
            }
            ("session", Some(_)) => {
                outcome.told += message["reason"].as_str().unwrap_or_default();
            }
            ("error", _) => {
                outcome.told += message["message"].as_str().unwrap_or_default();
                return outcome;
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_are_shown_as_players_show_them() {
    let store = PipelineFolder::with(&["fingerprint"]);
    let room = "[session_processes]\nmax_concurrent_sessions = 100\n";
    let host = Ocelli::start(&format!("{}{}{room}", store.section(), FileSession::ALLOWED)).await;
    let folder = TempDir::new().unwrap();
    let all = recordings().into_iter().enumerate().map(|(number, recording)| {
        let (host, path) = (&host, folder.path().join(recording.file));
        async move {
            std::fs::write(&path, &recording.bytes).unwrap();
            let outcome = play(host, &format!("recording-{number}"), path).await;
            println!("{}: {outcome:?}", recording.file);
            let wrong = !outcome.is(recording.fate);
            wrong.then(|| format!("{}: {:?}, but {outcome:?}", recording.file, recording.fate))
        }
    });
    let wrong: Vec<_> = stream::iter(all).buffer_unordered(AT_ONCE).collect().await;
    let wrong: Vec<_> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} recordings:\n{}", wrong.len(), wrong.join("\n"));
}
