//! Tokens that an admin makes and revokes on the page.

use ocelli_testkit::browser::{Browser, Window};

use crate::login::log_in;
use crate::site::{Camera, SPOT, Site, player};

/// Makes a token: a viewer's of one camera, or as the page suggests. Its text.
async fn make(admin: &Window, name: &str, camera: Option<&str>) -> String {
    admin.press("button", "Make a token …").await;
    admin.fill("dialog input[name=name]", name).await;
    if let Some(camera) = camera {
        admin.press("checkbox", "Only some of them").await;
        admin.press("checkbox", camera).await;
    }
    admin.press("button", "Make the token").await;
    let text = admin.until("document.querySelector('dialog .copy input')?.value").await;
    admin.press("button", "I have it").await;
    admin.until("!document.querySelector('dialog')").await;
    text.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_made_by_clicks_open_what_was_ticked_and_end_when_they_are_revoked() {
    let secret = Camera("secret", "spot.mp4", "spot", "");
    let site = Site::start("edit_config = true", &[SPOT, secret]).await;
    let browser = Browser::start().await;
    let admin = browser.open(&site.url("/system")).await;
    admin.until_text("This host has no tokens").await;
    let own = make(&admin, "ann", None).await;
    // Everyone needs one from then on; who made it is logged in with it.
    admin.until_text("ann (admin)").await;
    let text = make(&admin, "guard", Some("spot")).await;
    // After two dialogs the focus is where it was before them.
    assert_eq!(admin.evaluate("document.activeElement.innerText").await, "Make a token …");

    let window = browser.open(&site.url("/")).await;
    log_in(&window, &text).await;
    window.until(&format!("{}.drawn > 0", player("spot"))).await;
    let shown = window.evaluate("document.body.innerText").await;
    assert!(!shown.as_str().unwrap().contains("secret"), "{shown}");

    admin.press("button", "Revoke guard").await;
    admin.until("document.querySelector('dialog[open]')").await;
    admin.press("button", "Revoke").await;
    window.until_text("You were logged out").await;
    log_in(&window, &text).await;
    window.until_text("The host does not know this token").await;

    let table = "document.querySelector('[aria-label=\"Tokens of this host\"] tbody').innerText";
    admin.until(&format!("{table}.includes('ann') && !{table}.includes('guard')")).await;
    let config = std::fs::read_to_string(site.host.config_path()).unwrap();
    assert!(config.contains("ann") && !config.contains("guard"), "{config}");
    assert!(!config.contains(&own), "the config has the token itself");
}
