//! Where events go besides subscribers, on the page System.

use ocelli_testkit::browser::Browser;
use ocelli_testkit::{HookReceiver, Mosquitto, Reception, Redis};

use crate::site::{Camera, Site};

#[tokio::test(flavor = "multi_thread")]
async fn every_sink_is_listed_and_one_that_takes_nothing_says_why_on_every_page() {
    let (redis, broker) = (Redis::start(), Mosquitto::start());
    let hook = HookReceiver::with(Reception::Answer(503, "Retry-After: 3600\r\n".into())).await;
    let sections = redis.section("") + &broker.section("") + &hook.section("hub", "");
    let gate = Camera("gate", "spot.mp4", "changeling", "settings = { every = 1 }");
    let site = Site::start(&sections, &[gate]).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/system")).await;
    let row = |name: &str| {
        format!(
            "[...document.querySelectorAll('[aria-label=\"Where events are written\"] tbody tr')]\
             .find(row => row.cells[0].innerText === '{name}')?.innerText"
        )
    };
    for (name, address) in [
        ("redis", format!("redis://127.0.0.1:{}/0", redis.port())),
        ("mqtt", format!("mqtt://127.0.0.1:{}", broker.port())),
    ] {
        let (row, written) = (row(name), "/[1-9][0-9]* written/.test");
        window.until(&format!("{row}?.includes('{address}') && {written}({row})")).await;
    }
    let hub = row("webhook:hub");
    window.until(&format!("{hub}?.includes('HTTP status 503')")).await;
    let shown = window.evaluate(&hub).await;
    assert!(!shown.as_str().unwrap().contains("/hook"), "{shown}");
    // A person who looks at something else hears of it, too.
    window.go(&site.url("/")).await;
    window.until_text("webhook:hub degraded").await;
    assert_eq!(window.faults(), [""; 0]);
}
