//! Pictures that the host has encoded: for codecs that browsers do not have, and for those who ask.

use ocelli_testkit::browser::Browser;

use crate::pictures::{changes, rung_is, shows};
use crate::site::{Camera, GATE, SPOT, Site, picture, player};

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_appears_by_jpeg_and_moves_and_a_still_appears() {
    let site = Site::start("", &[SPOT]).await;
    let browser = Browser::start().await;
    shows(&site, &browser, "jpeg", 4).await;
    shows(&site, &browser, "still", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_rung_that_a_cameras_codec_allows_is_taken_and_the_reason_is_shown() {
    let hevc = Camera("hevc", "people-576-hevc.mp4", "motion", "");
    let mjpeg = Camera("mjpeg", "people-576-mjpeg.avi", "motion", "");
    let site = Site::start("", &[GATE, hevc, mjpeg]).await;
    let browser = Browser::start().await;
    for (session, rung, reason) in
        [("gate", "webcodecs", ""), ("hevc", "jpeg", "H.265"), ("mjpeg", "jpeg", "JPEG")]
    {
        let window = browser.open(&site.url(&format!("/cameras/{session}"))).await;
        let moves = format!("{}.drawn > 5 && {}", player(session), rung_is(session, rung));
        window.until(&moves).await;
        let told = window.evaluate(&format!("{}.reason", player(session))).await;
        assert!(told.as_str().unwrap().contains(reason), "{session}: {told}");
        if !reason.is_empty() {
            window.until_text(reason).await;
        }
        changes(&window, &picture(session)).await;
        assert_eq!(window.faults(), [""; 0], "{session}");
        window.close().await;
    }
}
