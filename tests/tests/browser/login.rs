//! Who may do what.

use std::process::Command;

use ocelli_testkit::browser::{Browser, Window};
use ocelli_testkit::program;
use rustix::process::Signal;
use serde_json::Value;

use crate::site::{SPOT, Site, picture, player};

/// A token: its text, and its table in a config. `more` are further lines of it.
pub(crate) fn token(name: &str, role: &str, more: &str) -> (String, String) {
    let arguments = ["token", "new", name, "--role", role, "--json"];
    let made = Command::new(program("ocelli")).args(arguments).output().unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let part = |name: &str| made[name].as_str().unwrap().to_owned();
    (part("token"), format!("{}{more}\n", part("config")))
}

/// Logs in on the page that is asked for one.
pub(crate) async fn log_in(window: &Window, token: &str) {
    window.fill("#token", token).await;
    window.press("button", "Log in").await;
}

/// Whether the page shows the camera.
async fn shows_spot(window: &Window) -> bool {
    let shown = format!("document.querySelector({:?}) !== null", picture("spot"));
    window.evaluate(&shown).await == true
}

/// Every button and link that changes something, by its words.
const CHANGING: [&str; 6] = ["Restart", "End", "Roll back", "Deploy", "Shadow", "Save"];

#[tokio::test(flavor = "multi_thread")]
async fn below_a_path_the_page_logs_in_shows_pictures_and_stays_below_it() {
    let (text, table) = token("ann", "operator", "");
    let site = Site::start(&format!("base_path = \"/cams/site\"\n{table}"), &[SPOT]).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/cams/site/cameras/spot")).await;
    log_in(&window, &text).await;
    window.until(&format!("{}.drawn > 0", player("spot"))).await;
    window.press("link", "Events").await;
    window.until("location.pathname === '/cams/site/events'").await;
    // Not from the page's memory: from the host.
    window.reload().await;
    window.until("document.querySelector('h1')?.innerText === 'Events'").await;
    window.press("link", "Cameras").await;
    window.until("location.pathname === '/cams/site/'").await;
    window.until(&format!("document.querySelector({:?})", picture("spot"))).await;
    // Who is not logged in yet is told so.
    let asked = |fault: &String| fault.contains("401") && fault.contains("/cams/site/v1/me");
    let faults = window.faults();
    assert!(faults.iter().all(asked), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_traded_for_a_login_that_scripts_cannot_read_and_that_a_logout_ends() {
    let (text, table) = token("ann", "operator", "");
    let site = Site::start(&table, &[SPOT]).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/cameras/spot")).await;
    log_in(&window, "ocelli_wrong").await;
    window.until("document.querySelector('[role=alert]')?.innerText.includes('token')").await;
    log_in(&window, &text).await;
    // The page that was asked for, and what this token may do.
    window.until(&format!("{}.drawn > 0", player("spot"))).await;
    assert!(window.has("button", "Restart").await);
    let kept = "JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])";
    let kept = window.evaluate(kept).await;
    assert!(!kept.as_str().unwrap().contains("ocelli_"), "a script can read {kept}");
    window.reload().await;
    window.until(&format!("{}.drawn > 0", player("spot"))).await;
    assert!(shows_spot(&window).await);
    window.press("button", "Log out").await;
    window.until("document.querySelector('#token')").await;
    assert!(!shows_spot(&window).await);
    window.reload().await;
    window.until("document.querySelector('#token')").await;
    assert!(!shows_spot(&window).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_sees_its_cameras_and_no_button_that_the_host_would_refuse() {
    let (text, table) = token("guard", "viewer", "sessions = [\"spot\"]");
    let other = crate::site::Camera("secret", "spot.mp4", "spot", "");
    let site = Site::start(&table, &[SPOT, other]).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/")).await;
    log_in(&window, &text).await;
    window.until(&format!("{}.drawn > 0", player("spot"))).await;
    for page in ["/", "/cameras/spot", "/deployments/spot", "/events", "/zones/spot", "/system"] {
        window.go(&site.url(page)).await;
        window.until("document.querySelector('h1, h2')").await;
        window.until("!document.body.innerText.includes('Loading')").await;
        for name in CHANGING {
            let usable = format!(
                "[...document.querySelectorAll('button')]
                    .filter(one => one.innerText.trim() === {name:?} && !one.disabled).length"
            );
            assert_eq!(window.evaluate(&usable).await, 0, "{page} offers {name}");
        }
        let text = window.evaluate("document.body.innerText").await;
        assert!(!text.as_str().unwrap().contains("secret"), "{page}: {text}");
    }
    window.go(&site.url("/cameras/secret")).await;
    window.until_text("no camera").await;
    // Whatever the page asked for was allowed: a refusal would be among the browser's faults. That
    // nobody was logged in at first is no other.
    let refused = window.faults().into_iter().filter(|fault| !fault.contains("/v1/me"));
    assert_eq!(refused.collect::<Vec<_>>(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_ends_the_page_at_once_and_says_so() {
    let (text, table) = token("ann", "operator", "");
    let (_, remains) = token("bob", "admin", "");
    let site = Site::start(&format!("{table}{remains}"), &[SPOT]).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/cameras/spot")).await;
    log_in(&window, &text).await;
    window.until(&format!("{}.drawn > 0", player("spot"))).await;
    assert!(shows_spot(&window).await);
    site.host.edit_config(&site.config().replace(&table, ""));
    site.host.process().signal(Signal::HUP);
    window.until("document.querySelector('#token')").await;
    window.until_text("logged out").await;
    assert!(!shows_spot(&window).await);
}
