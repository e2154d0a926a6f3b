//! A zone that somebody draws.

use ocelli_testkit::browser::{Browser, Window};

use crate::site::{GATE, Site};

/// Waits for the picture that the zones are drawn on: before it is there its place has another
/// size.
async fn shows_its_picture(window: &Window) {
    window.until("document.querySelector('.stage img.still')?.complete === true").await;
}

/// A place in the picture that the zones are drawn on, in parts of it.
async fn place(window: &Window, x: f64, y: f64) -> (f64, f64) {
    let area = window
        .until(
            "(({x, y, width, height}) => width > 100 && height > 100 && {x, y, width, height})\
             (document.querySelector('.stage').getBoundingClientRect())",
        )
        .await;
    let of = |name: &str| area[name].as_f64().unwrap();
    (of("x") + x * of("width"), of("y") + y * of("height"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_was_drawn_reports_who_enters_it() {
    let site = Site::start("edit_config = true", &[GATE]).await;
    site.host.wait_for_session("gate", |session| session["results"] != 0).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/zones/gate")).await;
    // The whole of the picture is on the screen.
    window.resize(1280, 1400, false).await;
    shows_its_picture(&window).await;
    window.press("button", "Draw zone").await;
    for (x, y) in [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98)] {
        let (x, y) = place(&window, x, y).await;
        window.click_at(x, y).await;
    }
    window.key("Enter").await;
    window.until_text("4 corners").await;
    window.press("button", "Save").await;
    window.until_text("These settings run now").await;
    window.until_text("Saved in the config file").await;
    let config = std::fs::read_to_string(site.host.config_path()).unwrap();
    assert!(config.contains("polygon"), "{config}");
    window.go(&site.url("/events?camera=gate&kind=zone_entered")).await;
    window.until_text("entered zone").await;
    assert_eq!(window.faults(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_can_be_drawn_with_the_keyboard_alone() {
    let site = Site::start("", &[GATE]).await;
    site.host.wait_for_session("gate", |session| session["results"] != 0).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/zones/gate")).await;
    window.press("button", "Draw zone").await;
    for (key, times) in [("ArrowRight", 3), ("ArrowDown", 3), ("ArrowLeft", 3)] {
        window.key(" ").await;
        for _ in 0..times {
            window.key(&format!("Shift+{key}")).await;
        }
    }
    window.key(" ").await;
    window.key("Enter").await;
    window.until_text("4 corners").await;
    assert_eq!(window.faults(), [""; 0]);
}
