//! Cameras that a GPU is to decode, on a machine where none does: the session says what is wrong, and
//! the processor does not decode in its place.

use ocelli_testkit::{Ocelli, clip};

use crate::camera;

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_decode_fails_its_session_alone_and_says_why() {
    let cases = [
        ("missing", "vaapi:/dev/dri/renderD999", "decode_device: no_device: vaapi:/dev/dri/"),
        ("no-gpu", "vaapi:/dev/null", "decode_device: device_unusable: vaapi:/dev/null"),
        ("no-nvidia", "cuda:77", "decode_device: no_device: cuda:77"),
    ];
    let source = format!("file:{}", clip("bikes.mp4").display());
    let playing = "repeat = true\npace = \"realtime\"\nsettings = { max_results_per_second = 4 }";
    let more = |device: &str| format!("decode_device = {device:?}\n{playing}");
    let mut config = camera("processor", &source, &more("cpu"));
    for (name, device, _) in cases {
        config += &camera(name, &source, &more(device));
    }
    let host = Ocelli::start(&config).await;
    for (name, _, words) in cases {
        let status = host.wait_for_session(name, |status| status["state"] == "failed").await;
        let reason = status["reason"].as_str().unwrap_or_default();
        assert!(reason.starts_with(words), "{status}");
        assert_eq!((&status["restarts"], &status["frames"]["decoded"]), (&0.into(), &0.into()));
    }
    let status = host.wait_for_session("processor", |status| status["results"] != 0).await;
    assert_eq!(status["state"], "running", "{status}");

    // What the operator writes instead takes effect.
    let fixed = config.replace("vaapi:/dev/null", "cpu");
    host.edit_config(&fixed);
    host.wait_for_session("no-gpu", |status| status["results"] != 0).await;
}
