//! Cameras of every kind, and what subscribers get of them.

use std::fmt::Write;

use futures_util::future::join_all;
use jiff::Timestamp;
use ocelli_testkit::{Cameras, Ocelli};
use serde_json::Value;

use crate::camera;

/// Path, clip, width and height.
const STREAMS: [(&str, &str, u64, u64); 8] = [
    ("/baseline", "people-576-baseline.mp4", 768, 576),
    ("/high", "people-576-high-b3.mp4", 768, 576),
    ("/hevc", "people-576-hevc.mp4", 768, 576),
    ("/mjpeg", "people-576-mjpeg.avi", 768, 576),
    ("/hd-baseline", "people-1080-baseline.mp4", 1920, 1080),
    ("/hd-high", "people-1080-high-b3.mp4", 1920, 1080),
    ("/hd-hevc", "people-1080-hevc.mp4", 1920, 1080),
    ("/hd-mjpeg", "people-1080-mjpeg.avi", 1920, 1080),
];

/// How far the time of a picture may lie from now: the server's and this clock are one, and the
/// rest is the way from the camera to here on a busy machine.
const MAX_AGE_S: f64 = 20.0;

/// A box's numbers are rounded to 2 decimals, its far edges sums of two of them.
const ROUNDING: f64 = 0.011;

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_comes_over_tcp_and_udp_with_digest_and_its_people_are_found() {
    let mounts = STREAMS.map(|(path, clip, ..)| (path, clip));
    let cameras = Cameras::start(&["--user", "viewer", "--password", "pass:w/rd"], &mounts);
    let mut config = String::new();
    for (path, ..) in STREAMS {
        for transport in ["tcp", "udp"] {
            let url = cameras.url_with("viewer:pass%3Aw%2Frd", path);
            let more =
                format!("transport = {transport:?}\nsettings = {{ max_results_per_second = 2 }}");
            write!(config, "{}", camera(&format!("{transport}{path}"), &url, &more)).unwrap();
        }
    }
    let host = Ocelli::start(&config).await;
    let host = &host;
    let streams = STREAMS.iter().flat_map(|stream| [("tcp", stream), ("udp", stream)]);
    let watch = streams.map(async |(transport, &(path, _, width, height))| {
        let session = format!("{transport}{path}");
        let mut client = host.client().await;
        client.subscribe(&session).await;
        let mut last_frame = None;
        for _ in 0..6 {
            let message = client.detections(&session).await;
            check(&message, width, height);
            let frame = message["frame"].as_u64();
            assert!(frame > last_frame, "{session}: frame {frame:?} after {last_frame:?}");
            last_frame = frame;
        }
        let status = host.session(&session).await;
        assert_eq!(
            (&status["state"], &status["restarts"]),
            (&"running".into(), &0.into()),
            "{status}"
        );
    });
    join_all(watch).await;
}

/// What holds for every `detections` message of the people clips.
fn check(message: &Value, width: u64, height: u64) {
    assert_eq!(
        (&message["width"], &message["height"]),
        (&width.into(), &height.into()),
        "{message}"
    );
    let time: Timestamp = message["time"].as_str().unwrap().parse().unwrap();
    let age = Timestamp::now().duration_since(time).as_secs_f64();
    assert!(age.abs() < MAX_AGE_S, "captured {age} s ago: {message}");
    for station in ["decode", "wait", "inference", "pipeline", "total"] {
        let latency = message["latency_ms"][station].as_f64();
        assert!(latency.is_some_and(|ms| (0.0..60_000.0).contains(&ms)), "{station}: {message}");
    }
    assert!(message["deployment"].as_str().is_some_and(|id| !id.is_empty()), "{message}");
    let detections = message["detections"].as_array().unwrap();
    assert!(detections.iter().any(|detection| detection["label"] == "person"), "nobody: {message}");
    for detection in detections {
        let score = detection["score"].as_f64().unwrap();
        assert!((0.4..=1.0).contains(&score), "{detection}");
        let [x, y, w, h] = [0, 1, 2, 3].map(|side| detection["box"][side].as_f64().unwrap());
        let inside = x >= 0.0
            && y >= 0.0
            && x + w <= width as f64 + ROUNDING
            && y + h <= height as f64 + ROUNDING;
        assert!(inside && w > 0.0 && h > 0.0, "{detection}");
    }
}
