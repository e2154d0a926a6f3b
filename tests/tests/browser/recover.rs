//! What goes away and comes back: a camera, the host, the network.

use ocelli_testkit::Relay;
use ocelli_testkit::browser::Browser;
use serde_json::Value;

use crate::seen::places;
use crate::site::{Camera, SPOT, Site, picture, player};

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_dies_is_said_to_be_offline_and_why_and_its_picture_comes_back() {
    let mut site = Site::start("", &[SPOT]).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/")).await;
    places(&window, &picture("spot"), 2).await;
    site.cameras.kill();
    window.until_text("offline since").await;
    window.until_text("because").await;
    site.cameras.restart();
    window.until("!document.body.innerText.includes('offline since')").await;
    places(&window, &picture("spot"), 3).await;
    assert_eq!(window.faults(), [""; 0]);
}

/// A pipeline that makes an event of every fifth frame.
const COUNTER: Camera<'_> = Camera("counter", "spot.mp4", "changeling", "settings = { every = 5 }");

/// The numbers of the events that the page lists, the newest first. New ones wait behind a button
/// while somebody reads the list.
const LISTED: &str = "(document.querySelector('.fresh button')?.click(),
    [...document.querySelectorAll('[data-key]')]
        .map(row => parseInt(row.dataset.key)).filter(Number.isFinite))";

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_restarted_is_found_again_without_a_reload_and_no_event_is_missing() {
    let mut site = Site::start("", &[COUNTER]).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/events?camera=counter")).await;
    window.until(&format!("{LISTED}.length > 2")).await;
    window.evaluate("window.neverReloaded = true").await;
    site.host.cut_and_start_again().await;
    let (_, before) = site.host.journal("counter").await;
    let last = before.last().unwrap()["seq"].as_u64().unwrap();
    let newer = format!("(listed => listed[0] > {last} + 2 && listed)({LISTED})");
    let listed = window.until(&newer).await;
    let listed: Vec<u64> = listed.as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    let all: Vec<u64> = (*listed.last().unwrap()..=listed[0]).rev().collect();
    assert_eq!(listed, all, "events are missing");
    assert_eq!(window.evaluate("window.neverReloaded").await, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_told_and_pictures_go_on_without_a_reload() {
    let site = Site::start("", &[SPOT]).await;
    let relay = Relay::to(site.host.address().port()).await;
    let browser = Browser::start().await;
    let window = browser.open(&format!("http://{}/cameras/spot", relay.address())).await;
    places(&window, &picture("spot"), 2).await;
    window.evaluate("window.neverReloaded = true").await;
    // Noted before it may be over.
    window
        .evaluate(
            "new MutationObserver(() => {
                if (document.body.innerText.includes('No connection')) window.told = true;
            }).observe(document.body, {childList: true, subtree: true, characterData: true})",
        )
        .await;
    relay.cut();
    window.until("window.told").await;
    let drawn = window.evaluate(&format!("{}.drawn", player("spot"))).await;
    window.until(&format!("{}.drawn > {drawn} + 5", player("spot"))).await;
    window.until("!document.body.innerText.includes('No connection')").await;
    places(&window, &picture("spot"), 2).await;
    assert_eq!(window.evaluate("window.neverReloaded").await, true);
}
