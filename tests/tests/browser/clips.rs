//! A person opens an event and plays the seconds around it.

use ocelli_testkit::browser::Browser;
use serde_json::Value;

use crate::site::{Camera, Site};

/// One camera, with an event each three seconds.
const COUNTED: Camera<'_> =
    Camera("gate", "people-576-high-b3.mp4", "changeling", "settings = { every = 30 }");

const CLIPS: &str = "[events]\nclips = true\nclip_before_s = 1\nclip_after_s = 1";

#[tokio::test(flavor = "multi_thread")]
async fn the_clip_of_an_event_plays_when_it_is_recorded_and_can_be_sought_in() {
    let site = Site::start(CLIPS, &[COUNTED]).await;
    let browser = Browser::start().await;
    let mut client = site.host.client().await;
    client.subscribe("gate").await;
    let event: Value =
        client.find(|message| (message["kind"] == "counted").then(|| message.clone())).await;
    let window =
        browser.open(&site.url(&format!("/events?session=gate&seq={}", event["seq"]))).await;
    let video = "document.querySelector('article video')";
    window.until(&format!("{video}?.readyState >= 1")).await;
    let number =
        async |what: &str| window.evaluate(&format!("{video}.{what}")).await.as_f64().unwrap();
    let duration = number("duration").await;
    assert!((2.0..=5.5).contains(&duration), "{duration} s");
    assert_eq!((number("videoWidth").await, number("videoHeight").await), (768.0, 576.0));
    window.evaluate(&format!("{video}.play().then(() => true)")).await;
    window.until(&format!("{video}.currentTime > 0.5")).await;
    window.evaluate(&format!("{video}.currentTime = {}", duration - 0.3)).await;
    window.until(&format!("{video}.ended")).await;
    assert!((number("currentTime").await - duration).abs() < 0.2);
}
