//! A camera that somebody adds.

use ocelli_testkit::browser::Browser;

use crate::site::{SPOT, Site, player};

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_is_probed_and_added_by_clicks_and_the_config_has_it_then() {
    let site = Site::start("edit_config = true", &[SPOT]).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/add")).await;
    window.fill("input[inputmode=url]", &site.cameras.url("/spot")).await;
    window.press("button", "Probe").await;
    let still = "document.querySelector('img[alt=\"A picture of the camera\"]')?.naturalWidth";
    window.until(&format!("{still} > 0")).await;
    window.until_text("H264").await;
    window.until_text("640 ×").await;

    window.fill(".add form:last-of-type input", "yard").await;
    // The field after it is the list of pipelines: a letter chooses the first that begins with it.
    window.key("Tab").await;
    window.key("s").await;
    window.until("document.querySelector('.add form:last-of-type select').value === 'spot'").await;
    window.press("button", "Save").await;
    window.until_text("Saved in the config file").await;
    let config = std::fs::read_to_string(site.host.config_path()).unwrap();
    assert!(config.contains("\"yard\""), "{config}");

    site.host.wait_for_session("yard", |session| session["state"] == "running").await;
    window.press("link", "See yard").await;
    window.until("location.pathname === '/cameras/yard'").await;
    window.until(&format!("{}.drawn > 3", player("yard"))).await;
    // The page asks whether the config has the name already: that it has not is no other fault.
    let faults = window.faults().into_iter().filter(|fault| !fault.contains("/cameras/yard"));
    assert_eq!(faults.collect::<Vec<_>>(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_is_added_with_a_substream_that_is_analysed() {
    let site = Site::start("edit_config = true", &[SPOT]).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/add")).await;
    window.fill("input[inputmode=url]", &site.cameras.url("/spot")).await;
    let substream = "input[placeholder^=none]";
    window.fill(substream, "http://cam/sub").await;
    window.fill(".add form:last-of-type input", "yard").await;
    window.key("Tab").await;
    window.key("s").await;
    window.until("document.querySelector('.add form:last-of-type select').value === 'spot'").await;
    window.press("button", "Save").await;
    window.until_text("Substream: The host reads rtsp://").await;
    window.fill(substream, &site.cameras.url("/small")).await;
    window.press("button", "Save").await;
    window.until_text("Saved in the config file").await;
    let config = std::fs::read_to_string(site.host.config_path()).unwrap();
    let written = format!("substream = \"{}\"", site.cameras.url("/small"));
    assert!(config.contains(&written), "{config}");
}
