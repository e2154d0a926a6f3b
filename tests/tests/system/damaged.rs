//! Damaged streams, all the way from the file or the camera to the decoder: they cost their own
//! session at most.

use std::ops::Range;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use ocelli_testkit::{Cameras, FileSession, Ocelli, Random, assert_identical, clip};
use serde_json::Value;
use tempfile::TempDir;

use crate::isolation::notices_nothing;
use crate::{SLOW, camera};

/// One of each codec that files are read of, and one whose pictures are not in decoding order; with
/// how many they have.
const FILES: [(&str, usize); 3] = [
    ("people-576-baseline.mp4", 100),
    ("people-576-high-b3.mp4", 102),
    ("people-576-hevc.mp4", 102),
];

/// What cameras play.
const STREAMS: [&str; 3] = ["people-576-high.mp4", "people-576-hevc.mp4", "people-576-mjpeg.avi"];

/// A clip with some bytes of `part` changed, one in `every`, at places that follow from `seed`.
fn damage(folder: &TempDir, name: &str, part: Range<usize>, every: usize, seed: u64) -> PathBuf {
    let mut random = Random::with_seed(seed);
    let mut bytes = std::fs::read(clip(name)).unwrap();
    for _ in 0..part.len().div_ceil(every) {
        bytes[random.usize(part.clone())] = random.u8(..);
    }
    let path = folder.path().join(format!("{seed}-{name}"));
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Where the pictures of a clip lie: what says how to read them lies before or behind.
fn pictures(name: &str) -> Range<usize> {
    let bytes = std::fs::read(clip(name)).unwrap();
    let find = |mark: &[u8]| bytes.windows(mark.len()).position(|window| window == mark);
    let length = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap();
    if let Some(mdat) = find(b"mdat") {
        // ISO 14496-12: the length stands before the name and counts both.
        mdat + 4..mdat - 4 + u32::from_be_bytes(length(mdat - 4)) as usize
    } else {
        // RIFF: a list's length stands before its kind and counts it.
        let movi = find(b"movi").expect("a list of pictures");
        movi + 4..movi + u32::from_le_bytes(length(movi - 4)) as usize
    }
}

/// Plays a file to its end in a session that a subscriber makes. How many results come of it, and
/// how it ends, is up to the damage.
async fn play(host: &Ocelli, file: &Path) -> usize {
    let name = file.file_name().unwrap().to_str().unwrap();
    let mut client = host.client().await;
    client.subscribe_to(name, &format!("file:{}", file.display())).await;
    let (mut results, mut restarts) = (0, 0);
    loop {
        let message = client.next().await;
        match (message["type"].as_str().unwrap(), message["state"].as_str()) {
            ("session", Some("stopped" | "failed")) => {
                println!("{name}: {results} results, {restarts} restarts, {}", message["reason"]);
                return results;
            }
            ("session", Some("restarting")) => restarts += 1,
            ("detections", _) => results += 1,
            ("error", _) => panic!("{name}: {message}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_cost_a_healthy_one_nothing() {
    let folder = TempDir::new().unwrap();
    let healthy = FileSession::detecting("healthy", "people-576-high.mp4");
    let host = Ocelli::start(FileSession::ALLOWED).await;
    let alone = healthy.play(&host).await;
    drop(host);
    let host = Ocelli::start(FileSession::ALLOWED).await;
    let mut damaged = Vec::new();
    for (number, (name, _)) in FILES.into_iter().enumerate() {
        let whole = 0..std::fs::metadata(clip(name)).unwrap().len() as usize;
        // Pictures alone, lightly and heavily; then what says how to read them as well.
        for (kind, part, every) in
            [(0, pictures(name), 10_000), (1, pictures(name), 100), (2, whole, 1000)]
        {
            damaged.push(damage(&folder, name, part, every, (number * 10 + kind) as u64));
        }
    }
    let all = join_all(damaged.iter().map(|file| play(&host, file)));
    let (beside, results) = tokio::join!(healthy.play(&host), all);
    let pictures: usize = FILES.iter().map(|(_, pictures)| 3 * pictures).sum();
    assert!(results.iter().sum::<usize>() < pictures, "the damage costs no result: {results:?}");
    assert_identical("healthy", &alone, &beside);
    // And after all of them, on the same host.
    let after = FileSession { name: "after", ..healthy }.play(&host).await;
    let after: Vec<_> = after.iter().map(|text| text.replacen("after", "healthy", 1)).collect();
    assert_identical("after", &alone, &after);
}

#[tokio::test(flavor = "multi_thread")]
async fn cameras_with_damaged_streams_go_on_and_their_neighbour_notices_nothing() {
    let folder = TempDir::new().unwrap();
    let damaged = STREAMS.map(|name| damage(&folder, name, pictures(name), 2_000, 1));
    let paths = ["/0", "/1", "/2"];
    let mounts = paths.iter().copied().zip(damaged.iter().map(|file| file.to_str().unwrap()));
    let mounts: Vec<_> = mounts.chain([("/good", STREAMS[0])]).collect();
    let cameras = Cameras::start(&[], &mounts);
    let sessions = ["h264", "h265", "mjpeg"];
    let config: String =
        sessions.iter().zip(paths).map(|(id, path)| camera(id, &cameras.url(path), SLOW)).collect();
    let host = Ocelli::start(&(config + &camera("good", &cameras.url("/good"), SLOW))).await;
    let mut client = host.client().await;
    client.subscribe("good").await;
    client.detections("good").await;
    let neighbour = host.worker("good").await.pid;
    for session in sessions {
        client.subscribe(session).await;
        // A round of the clip at least. The decoder tells what is damaged of H.264 alone.
        let harmed = |status: &Value| {
            let frames = &status["frames"];
            let told = session != "h264" || frames["skipped"]["corrupt"].as_u64() > Some(5);
            told && frames["received"].as_u64() > Some(150)
        };
        let harmed = host.wait_for_session(session, harmed).await;
        println!("{session}: {}, {} restarts", harmed["frames"], harmed["restarts"]);
        // It goes on where it can.
        for _ in 0..5 {
            client.detections(session).await;
        }
    }
    notices_nothing(&host, &mut client, "good", neighbour).await;
}

/// How many pictures the clip has of which every one is damaged before those that are not: 8 s.
const UNREADABLE: usize = 80;

/// A clip of H.264 that shows nothing in its first pictures: of each only the head of its slice is
/// left. The one after them is a key picture.
fn nothing_to_see_at_first(folder: &TempDir, name: &str) -> PathBuf {
    let mut bytes = std::fs::read(clip(name)).unwrap();
    let mut at = pictures(name).start;
    let mut slices = 0;
    while slices < UNREADABLE {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let end = at + 4 + length;
        // ITU-T H.264, table 7-1: types 1 to 5 are slices.
        if (1..=5).contains(&(bytes[at + 4] & 31)) {
            bytes[at + 20..end].fill(0);
            slices += 1;
        }
        at = end;
    }
    let path = folder.path().join(format!("unreadable-{name}"));
    std::fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_nothing_but_damage_is_degraded_until_a_sound_picture_comes() {
    let folder = TempDir::new().unwrap();
    let file = nothing_to_see_at_first(&folder, FILES[0].0);
    let endless = format!("pace = \"realtime\"\nrepeat = true\n{SLOW}");
    let config = camera("eye", &format!("file:{}", file.display()), &endless);
    let host =
        Ocelli::start(&format!("[session_processes]\nhealth_check_interval = 5\n{config}")).await;
    let degraded = host.wait_for_session("eye", |status| status["state"] == "degraded").await;
    let reason = degraded["reason"].as_str().unwrap();
    assert!(reason.starts_with("no picture is sound: "), "{degraded}");
    assert_eq!(degraded["last_error"], reason, "{degraded}");
    assert!(degraded["frames"]["skipped"]["corrupt"].as_u64() > Some(20), "{degraded}");
    host.wait_for_session_log("eye", "source damaged").await;
    let running = host.wait_for_session("eye", |status| status["state"] == "running").await;
    assert_eq!((&running["reason"], &running["restarts"]), (&Value::Null, &0.into()), "{running}");
}
