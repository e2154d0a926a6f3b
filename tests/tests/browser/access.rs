//! For everybody: without a mouse, with a screen reader, on a phone.

use ocelli_testkit::axe_core;
use ocelli_testkit::browser::{Browser, Window};
use serde_json::Value;

use crate::site::{GATE, SPOT, Site, picture, player};

/// The pages that an operator uses, with a camera `gate`.
const PAGES: [&str; 7] =
    ["/", "/cameras/gate", "/events", "/deployments/gate", "/zones/gate", "/system", "/add"];

/// Impacts that keep somebody from using a page.
const SERIOUS: &str = "['serious', 'critical'].includes(one.impact)";

/// What axe finds on the page that is shown, a line for each.
async fn found(window: &Window) -> Vec<String> {
    let run = format!(
        "axe.run({{resultTypes: ['violations']}}).then(found => found.violations
            .filter(one => {SERIOUS})
            .flatMap(one => one.nodes.map(node => one.id + ' ' + node.html.slice(0, 200) + ' ' +
                (node.any[0]?.message ?? node.all[0]?.message ?? ''))))"
    );
    let found = window.evaluate(&run).await;
    found.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

/// Waits until a page is there as a whole: nothing says that it loads.
async fn settled(window: &Window) {
    window
        .until("document.querySelector('h1') && !document.body.innerText.includes('Loading')")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing_serious_on_any_page_in_light_and_dark_and_on_a_phone() {
    let site = Site::start("", &[GATE]).await;
    let browser = Browser::start().await;
    let person = browser.person().await;
    let axe = axe_core();
    let mut faults = Vec::new();
    for (scheme, width, height) in [("light", 1280, 800), ("dark", 1280, 800), ("light", 360, 740)]
    {
        let window = person.window().await;
        window.prefer(&[("prefers-color-scheme", scheme)]).await;
        window.resize(width, height, width < 500).await;
        for page in PAGES {
            window.go(&site.url(page)).await;
            settled(&window).await;
            window.evaluate(&format!("(() => {{ {axe} }})()")).await;
            let found = found(&window).await;
            faults.extend(found.into_iter().map(|one| format!("{page} ({scheme} {width}): {one}")));
            let wide = window.evaluate("document.documentElement.scrollWidth - innerWidth").await;
            if wide.as_f64().unwrap() > 0.0 {
                faults.push(format!("{page} ({scheme} {width}): {wide} pixels too wide"));
            }
        }
        assert_eq!(window.faults(), [""; 0], "{scheme} {width}");
        window.close().await;
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The accessible words of what has the focus, and whether it is seen to have it.
const FOCUSED: &str = "(() => {
    const one = document.activeElement;
    const style = getComputedStyle(one);
    const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0
        || style.boxShadow !== 'none';
    return {name: one.ariaLabel || one.innerText || one.name || one.id, tag: one.tagName, seen};
})()";

/// Strokes Tab until something with this name has the focus. All on the way there has to show it.
async fn tab_to(window: &Window, name: &str) {
    let mut passed: Vec<Value> = Vec::new();
    while passed.len() < 100 {
        window.key("Tab").await;
        let focused = window.evaluate(FOCUSED).await;
        assert!(focused["tag"] == "BODY" || focused["seen"] == true, "no focus seen: {focused}");
        let words = focused["name"].as_str().unwrap_or_default();
        if focused["tag"] != "BODY" && words.contains(name) {
            return;
        }
        passed.push(focused);
    }
    panic!("Tab does not come to {name:?}, but to {passed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_alone_opens_a_camera_restarts_it_and_comes_back() {
    let site = Site::start("", &[SPOT]).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/")).await;
    window.until(&format!("{}.drawn > 0", player("spot"))).await;
    tab_to(&window, "spot").await;
    window.key("Enter").await;
    window.until("location.pathname === '/cameras/spot'").await;
    window.until(&format!("document.querySelector({:?})", picture("spot"))).await;
    tab_to(&window, "Restart").await;
    window.key("Enter").await;
    window.until("document.querySelector('dialog[open]')").await;
    // The button that does nothing has the focus.
    assert_eq!(window.evaluate(FOCUSED).await["name"], "Cancel");
    // Given up, it is as before: the focus is where it was.
    window.key("Escape").await;
    window.until("!document.querySelector('dialog')").await;
    assert_eq!(window.evaluate(FOCUSED).await["name"], "Restart");
    window.key("Enter").await;
    window.until("document.querySelector('dialog[open]')").await;
    let before = site.host.worker("spot").await.pid;
    tab_to(&window, "Restart").await;
    window.key("Enter").await;
    window.until("!document.querySelector('dialog[open]')").await;
    site.host
        .wait_for_session("spot", |session| {
            session["state"] == "running" && session["pid"] != before
        })
        .await;
    tab_to(&window, "Cameras").await;
    window.key("Enter").await;
    window.until("location.pathname === '/'").await;
    assert_eq!(window.faults(), [""; 0]);
}
