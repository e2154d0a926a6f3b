//! What `object-detect` makes of a recording, through the host: events of a line and their
//! pictures.

use ocelli_testkit::{Ocelli, clip};
use serde_json::{Value, json};

use crate::delivery::bytes_of;

/// A recording, again and again, in which people walk to the left over this line.
fn camera(id: &str, pictures: &str) -> String {
    let source = format!("file:{}", clip("people-576-high.mp4").display());
    format!(
        "[[cameras]]\nid = {id:?}\nsource = {source:?}\npace = \"realtime\"\nrepeat = true\n\
         pipeline = \"object-detect\"\n[cameras.settings]\nlabels = [\"person\"]\n\
         lines = [{{ name = \"gate\", ends = [[0.7, 0], [0.7, 1]] }}]\n\
         pictures = {{ of = {pictures:?}, size = 320, events = [\"line_crossed\"] }}\n"
    )
}

/// Width and height of a JPEG, by its frame header.
fn size(jpeg: &[u8]) -> (u16, u16) {
    let mut at = 2;
    while let [0xff, marker, high, low, _, bottom, below, right, beside, ..] = jpeg[at..] {
        if (0xc0..=0xc3).contains(&marker) {
            return (u16::from_be_bytes([right, beside]), u16::from_be_bytes([bottom, below]));
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
    panic!("no frame header in {} bytes", jpeg.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_crosses_a_line_is_told_with_a_crop_or_the_frame_as_the_settings_say() {
    let cameras = camera("crop", "crop") + &camera("frame", "frame");
    let host = Ocelli::start(&cameras).await;
    for id in ["crop", "frame"] {
        let mut client = host.client().await;
        client.send(&json!({"type": "subscribe", "session": id, "after": 0})).await;
        let crossed = |message: &Value| message["kind"] == "line_crossed";
        let event = client.find(|message| crossed(message).then(|| message.clone())).await;
        let data = &event["data"];
        assert_eq!((&data["line"], &data["direction"]), (&"gate".into(), &"to_right".into()));
        let [picture] = &event["attachments"].as_array().unwrap()[..] else { panic!("{event}") };
        let digest = picture["digest"].as_str().unwrap();
        let (head, jpeg) = bytes_of(&host, &format!("/v1/attachments/{digest}")).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(jpeg.len() as u64, picture["bytes"].as_u64().unwrap());
        let (width, height) = size(&jpeg);
        if id == "frame" {
            assert_eq!((width, height), (320, 240), "768 x 576, made smaller");
        } else {
            // A person is higher than wide, and the picture 1.3 times the box.
            let tall = event["detections"][0]["box"][3].as_f64().unwrap() * 1.3;
            let near = (f64::from(height) - tall.min(320.0)).abs() <= 4.0;
            assert!(near && width < height, "{width} x {height} for {event}");
        }
        client.close().await;
    }
}
