//! For everybody: with a screen reader, in both colour schemes, on a phone.

use ocelli_testkit::axe_core;
use ocelli_testkit::browser::{Browser, Window};

use crate::site::{GATE, Site};

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
