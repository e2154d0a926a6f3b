//! A new version by clicks: compared in shadow, taken over, rolled back; and one that is refused.

use ocelli_testkit::browser::Browser;
use ocelli_testkit::changeling;
use serde_json::json;

use crate::site::{Camera, Site};

const CHANGELING: Camera<'_> = Camera("gate", "spot.mp4", "changeling", "");

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_compared_taken_over_and_rolled_back_by_clicks() {
    let site = Site::start("", &[CHANGELING]).await;
    let first = site.host.wait_for_session("gate", |session| session["state"] == "running").await;
    let file = site.store.folder().join("second.wasm");
    std::fs::write(&file, changeling(&json!({"version": "2.0.0"}))).unwrap();

    let browser = Browser::start().await;
    let window = browser.open(&site.url("/deployments/gate")).await;
    window.choose_file("input[type=file]", &file).await;
    window.fill("input[type=number]", "10").await;
    window.press("button", "Shadow").await;
    // Nothing has changed yet.
    window.until_text("Agreement").await;
    let during = site.host.session("gate").await;
    assert_eq!(during["deployment"], first["deployment"]);

    window.press("button", "Take over").await;
    let second = site
        .host
        .wait_for_deployment("gate", |record| {
            record["version"] == "2.0.0" && ["probation", "healthy"].contains(&state(record))
        })
        .await;
    window.until_text("2.0.0").await;

    window.press("button", "Roll back").await;
    window.until("document.querySelector('dialog[open]')").await;
    window.click("dialog button.danger").await;
    let back = site
        .host
        .wait_for_deployment("gate", |record| {
            record["cause"] == "rollback" && ["probation", "healthy"].contains(&state(record))
        })
        .await;
    assert!(back["number"].as_u64() > second["number"].as_u64(), "{back}");
    let now = site.host.session("gate").await;
    assert_eq!(now["deployment"], first["deployment"]);
    assert_eq!(window.faults(), [""; 0]);
}

fn state(record: &serde_json::Value) -> &str {
    record["state"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_pipeline_is_refused_and_the_page_says_why() {
    let site = Site::start("", &[CHANGELING]).await;
    site.host.wait_for_session("gate", |session| session["state"] == "running").await;
    let file = site.store.folder().join("notes.wasm");
    std::fs::write(&file, "no component").unwrap();
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/deployments/gate")).await;
    window.choose_file("input[type=file]", &file).await;
    window.press("button", "Shadow").await;
    window
        .until("document.querySelector('[role=alert]')?.innerText.includes('Not deployed')")
        .await;
    assert_eq!(site.host.session("gate").await["state"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_otherwise_than_the_config_says_is_marked_until_it_is_rolled_back() {
    let site = Site::start("", &[CHANGELING]).await;
    site.host.wait_for_session("gate", |session| session["state"] == "running").await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/deployments/gate")).await;
    window.until_text("As the config says").await;

    // By somebody else: the page hears of it.
    let other = changeling(&json!({"version": "2.0.0"}));
    let (code, answer) = site.host.deploy("gate", "?name=mine", &other).await;
    assert_eq!(code, 200, "{answer}");
    window.until_text("Drift: pipeline.").await;
    window.until("document.querySelector('.drift').innerText.includes('mine.wasm')").await;
    window.go(&site.url("/system")).await;
    let differing = "document.querySelector(
        '[aria-label=\"Cameras that differ from the config\"] tbody')?.innerText";
    window.until(&format!("{differing}.includes('gate') && {differing}.includes('mine')")).await;

    window.go(&site.url("/deployments/gate")).await;
    window.press("button", "Roll back").await;
    window.until("document.querySelector('dialog[open]')").await;
    window.click("dialog button.danger").await;
    window.until_text("As the config says").await;
    window.until("!document.querySelector('.drift')").await;
    assert_eq!(window.faults(), [""; 0]);
}
