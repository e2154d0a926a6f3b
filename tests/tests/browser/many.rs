//! Many pages, and one that is open for long.

use std::time::{Duration, Instant};

use ocelli_testkit::browser::Browser;
use ocelli_testkit::depth::{is_full, rounds};

use crate::site::{SPOT, Site, player};

#[tokio::test(flavor = "multi_thread")]
async fn many_pages_at_once_all_show_the_camera() {
    let site = Site::start("", &[SPOT]).await;
    let browser = Browser::start().await;
    let mut windows = Vec::new();
    for _ in 0..rounds(30) {
        windows.push(browser.open(&site.url("/cameras/spot")).await);
    }
    for window in &windows {
        let drawn = format!("{}.drawn", player("spot"));
        let before = window.until(&drawn).await;
        window.until(&format!("{drawn} > {before} + 10")).await;
        assert_eq!(window.faults(), [""; 0]);
    }
    let session = site.host.session("spot").await;
    assert_eq!(session["state"], "running", "{session}");
}

/// Bytes by which the page's objects may differ from one look to the next.
const WOBBLE: f64 = 1.5e6;

/// Pictures between two looks, and how long they may take: several times as long as the camera's
/// rate of 10 a second says.
const SEGMENT: u32 = 300;
const PATIENCE: Duration = Duration::from_secs(200);

/// How long it stays open after the first look, and in a full run.
const SHORT: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_stays_open_does_not_grow() {
    let site = Site::start("", &[SPOT]).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/cameras/spot")).await;
    let drawn = format!("{}.drawn", player("spot"));
    // The samples that the page keeps are full by then: 600 pictures, of 10 a second.
    window.until_within(PATIENCE, &format!("{drawn} > 650")).await;
    let mut heap = vec![window.heap_bytes().await];
    let (begun, open) = (Instant::now(), if is_full() { HOUR } else { SHORT });
    while begun.elapsed() < open {
        let shown = window.evaluate(&drawn).await;
        window.until_within(PATIENCE, &format!("{drawn} > {shown} + {SEGMENT}")).await;
        heap.push(window.heap_bytes().await);
    }
    println!("heap of the page: {heap:?}");
    let (first, last) = (heap[0], heap[heap.len() - 1]);
    assert!(last - first < WOBBLE, "the page grows: {heap:?}");
    assert_eq!(window.faults(), [""; 0]);
}
