//! A camera with two streams: the small one is analysed, the large one viewed.

use ocelli_testkit::{Cameras, Client, Ocelli};
use serde_json::{Value, json};

use crate::camera;

/// How far a picture and the result that came last may lie apart, in nanoseconds, on a machine that
/// has much else to do. Times of two streams that nothing brings together lie as far apart as the
/// connections to the camera were made: see [`FRAMES_BEFORE`].
const APART_NS: i64 = 4_000_000_000;

/// Frames of the substream, 10 a second, before anybody views the main stream.
const FRAMES_BEFORE: u64 = 100;

/// Both streams, on servers of their own, so that one can go without the other.
struct TwoStreams {
    main: Cameras,
    sub: Cameras,
}

impl TwoStreams {
    fn start() -> Self {
        Self {
            main: Cameras::start(&[], &[("/main", "people-1080-baseline.mp4")]),
            sub: Cameras::start(&[], &[("/sub", "people-576-high-b3.mp4")]),
        }
    }

    async fn host(&self) -> Ocelli {
        let more = format!(
            "substream = {:?}\nsettings = {{ max_results_per_second = 5 }}",
            self.sub.url("/sub")
        );
        Ocelli::start(&camera("gate", &self.main.url("/main"), &more)).await
    }
}

async fn view(client: &mut Client) {
    client.send(&json!({"type": "watch", "session": "gate", "pictures": "all"})).await;
}

fn main_stream(status: &Value, state: &str) -> bool {
    status["main_stream"]["state"] == state
}

#[tokio::test(flavor = "multi_thread")]
async fn the_small_stream_is_analysed_and_the_large_one_viewed_at_the_same_times() {
    let cameras = TwoStreams::start();
    let host = cameras.host().await;
    let mut client = host.client().await;
    client.subscribe("gate").await;
    let late = |message: &Value| message["frame"].as_u64().filter(|frame| *frame > FRAMES_BEFORE);
    client.find(late).await;
    let found = client.detections("gate").await;
    assert_eq!((&found["width"], &found["height"]), (&768.into(), &576.into()), "{found}");
    let status = host.session("gate").await;
    assert_eq!(status["source"], cameras.main.url("/main"), "{status}");
    assert_eq!(status["substream"], cameras.sub.url("/sub"), "{status}");
    assert!(main_stream(&status, "idle"), "nobody views: {status}");

    view(&mut client).await;
    host.wait_for_session("gate", |status| main_stream(status, "up")).await;
    // The first pictures of a viewer are older ones.
    for _ in 0..30 {
        client.picture().await;
    }
    let picture = client.picture().await;
    let time = i64::from_be_bytes(picture[16..24].try_into().unwrap());
    let result = client.detections("gate").await["presentation_ns"].as_i64().unwrap();
    assert!((time - result).abs() < APART_NS, "picture {time}, result {result}");
    assert_eq!(host.session("gate").await["size"], json!([768, 576]));

    client.close().await;
    host.wait_for_session("gate", |status| main_stream(status, "idle")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stream_may_go_without_the_other() {
    let mut cameras = TwoStreams::start();
    let host = cameras.host().await;
    let (mut client, mut viewer) = (host.client().await, host.client().await);
    client.subscribe("gate").await;
    client.detections("gate").await;
    view(&mut viewer).await;
    viewer.picture().await;

    cameras.sub.kill();
    let message = client.state("gate", "degraded").await;
    let reason = message["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(&cameras.sub.url("/sub")), "the stream that is analysed: {message}");
    for _ in 0..20 {
        viewer.picture().await;
    }
    let status = host.session("gate").await;
    assert!(main_stream(&status, "up") && status["state"] == "degraded", "{status}");
    cameras.sub.restart();
    client.state("gate", "running").await;

    cameras.main.kill();
    let status = host.wait_for_session("gate", |status| main_stream(status, "down")).await;
    let reason = status["main_stream"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(&cameras.main.url("/main")), "{status}");
    client.detections("gate").await;
    assert_eq!(host.session("gate").await["state"], "running");
    cameras.main.restart();
    host.wait_for_session("gate", |status| main_stream(status, "up")).await;
}
