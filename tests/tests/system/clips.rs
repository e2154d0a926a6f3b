//! Clips of events, from real cameras: the seconds before and after, as the camera sent them.

use std::path::Path;
use std::time::Duration;

use ocelli_testkit::{Cameras, Client, DEADLINE, FileSession, Ocelli, PipelineFolder};
use serde_json::{Value, json};

use crate::delivery::bytes_of;

/// Two seconds before an event and two after it.
const CLIPS: &str = "[events]\nclips = true\nclip_before_s = 2\nclip_after_s = 2\n";

/// Pictures of the cameras in a second, and from one key picture to the next.
const RATE: usize = 10;
const KEY_EVERY: usize = 20;

/// A camera with an event each seven seconds: no two share a clip.
fn camera(id: &str, source: &str, more: &str) -> String {
    format!(
        "[[cameras]]\nid = {id:?}\nsource = {source:?}\npipeline = \"changeling\"\n{more}\n\
         settings = {{ every = 70 }}\n"
    )
}

async fn host(cameras: &[String]) -> (PipelineFolder, Ocelli) {
    let store = PipelineFolder::with(&["changeling"]);
    let config = [&store.section(), CLIPS, FileSession::ALLOWED, &cameras.concat()].concat();
    let host = Ocelli::start(&config).await;
    (store, host)
}

/// The next event of the pipeline.
async fn event(client: &mut Client) -> Value {
    client.find(|message| (message["kind"] == "counted").then(|| message.clone())).await
}

fn path(event: &Value) -> String {
    format!("/v1/events/{}:{}/clip.mp4", event["session"].as_str().unwrap(), event["seq"])
}

/// The clip of an event, once it is recorded: the head of the answer, and the file.
async fn clip(host: &Ocelli, event: &Value) -> (String, Vec<u8>) {
    let wait = async {
        loop {
            let (head, bytes) = bytes_of(host, &path(event)).await;
            if head.starts_with("HTTP/1.1 200") {
                return (head.to_lowercase(), bytes);
            }
            let problem: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(problem["code"], "clip_pending", "{head} {problem}");
            assert!(head.to_lowercase().contains("retry-after: "), "{head}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the clip is recorded in time")
}

/// Each picture that libavformat and libavcodec find in a file: its time in nanoseconds, and its
/// width.
async fn pictures(host: &Ocelli, session: &str, file: &Path) -> Vec<(i64, u64)> {
    let file = file.to_str().unwrap();
    let settings = json!({"every": 1_000_000});
    let played = FileSession { name: session, clip: file, pipeline: "changeling", settings };
    let messages = played.play(host).await;
    let messages = messages.iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
    let detections = messages.filter(|message| message["type"] == "detections");
    detections
        .map(|found| (found["presentation_ns"].as_i64().unwrap(), found["width"].as_u64().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_has_the_seconds_around_it_in_either_codec_and_a_cut_one_says_so() {
    let mut cameras = Cameras::start(
        &[],
        &[("/h264", "people-576-high-b3.mp4"), ("/h265", "people-576-hevc.mp4")],
    );
    let configs = ["h264", "h265"].map(|id| camera(id, &cameras.url(&format!("/{id}")), ""));
    let (_store, host) = host(&configs).await;
    let folder = tempfile::tempdir().unwrap();
    for session in ["h264", "h265"] {
        let mut client = host.client().await;
        client.subscribe(session).await;
        let event = event(&mut client).await;
        assert_eq!(event["clip"], true, "{event}");
        let (head, bytes) = clip(&host, &event).await;
        assert!(head.contains("content-type: video/mp4"), "{head}");
        assert!(!head.contains("x-ocelli-clip-cut"), "{head}");
        let file = folder.path().join(format!("{session}.mp4"));
        std::fs::write(&file, &bytes).unwrap();
        let pictures = pictures(&host, &format!("clip of {session}"), &file).await;
        // From a key picture on, and up to four more while pictures are in another order.
        let expected = 4 * RATE..=4 * RATE + KEY_EVERY + 4;
        assert!(expected.contains(&pictures.len()), "{session}: {} pictures", pictures.len());
        assert_eq!(pictures[0], (0, 768));
        for pair in pictures.windows(2) {
            let apart = pair[1].0 - pair[0].0;
            assert!((95_000_000..=105_000_000).contains(&apart), "{session}: {pictures:?}");
        }
        let part = host.send("GET", &path(&event), "Range: bytes=4-7", b"").await;
        assert_eq!(part, (206, "ftyp".to_owned()));
        let (status, text) = host.send("HEAD", &path(&event), "", b"").await;
        assert_eq!((status, text.as_str()), (200, ""));
    }
    let of = |id: &str| format!("/v1/events/{id}/clip.mp4");
    for (id, expected, code) in [
        ("h264:1000000", 404, "unknown_event"),
        ("nobody:1", 404, "unknown_event"),
        ("h264", 400, "bad_event_id"),
    ] {
        let (status, text) = host.request("GET", &of(id)).await;
        let problem: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &problem["code"]), (expected, &code.into()), "{id}");
    }

    // One that happens now, and none that waits to be read.
    let mut client = host.client().await;
    client.subscribe("h264").await;
    let cut = event(&mut client).await;
    cameras.kill();
    let (head, bytes) = clip(&host, &cut).await;
    assert!(head.contains("x-ocelli-clip-cut: source_ended"), "{head}");
    let file = folder.path().join("cut.mp4");
    std::fs::write(&file, &bytes).unwrap();
    assert!(!pictures(&host, "cut", &file).await.is_empty());
    host.metric_becomes("ocelli_clips_total{outcome=\"cut\"}", |count| count >= 1.0).await;
    host.metric_becomes("ocelli_clips_bytes", |bytes| bytes > 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_with_two_streams_has_clips_of_the_main_stream_and_a_lost_host_none_half() {
    let main = Cameras::start(&[], &[("/main", "people-1080-baseline.mp4")]);
    let sub = Cameras::start(&[], &[("/sub", "people-576-high-b3.mp4")]);
    let more = format!("substream = {:?}", sub.url("/sub"));
    let (_store, mut host) = host(&[camera("gate", &main.url("/main"), &more)]).await;
    let up = |status: &Value| status["main_stream"]["state"] == "up";
    host.wait_for_session("gate", up).await;
    let mut client = host.client().await;
    client.subscribe("gate").await;
    let first = event(&mut client).await;
    let (_, bytes) = clip(&host, &first).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("main.mp4");
    std::fs::write(&file, &bytes).unwrap();
    let pictures = pictures(&host, "clip", &file).await;
    assert!(pictures.len() >= 3 * RATE, "{} pictures", pictures.len());
    assert!(pictures.iter().all(|(_, width)| *width == 1920), "{pictures:?}");

    let second = event(&mut client).await;
    host.cut_and_start_again().await;
    let (status, text) = host.request("GET", &path(&second)).await;
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &problem["code"]), (404, &"no_clip".into()));
    assert_eq!(clip(&host, &first).await.1, bytes);
}
