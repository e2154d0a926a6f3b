//! Pages that are not on this machine: plain http, a slow link.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use ocelli_testkit::browser::Browser;
use ocelli_testkit::{Relay, skip};

use crate::login::{log_in, token};
use crate::seen::places;
use crate::site::{Camera, SPOT, Site, picture, player};

/// Set for the test's own second run, inside of a network of its own.
const INSIDE: &str = "OCELLI_TEST_NAMESPACE";

/// For 30 s of pictures, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Of the block for documentation: no machine has it but the namespace.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Runs a test of this program once more in a network namespace that has [`ADDRESS`], and holds it
/// to its outcome. The user's namespace gives the right to make it.
fn inside(test: &str) {
    let network = format!("ip link set lo up && ip addr add {ADDRESS}/32 dev lo");
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "sh", "-c", script, "sh"]);
        command
    };
    if !unshare(&network).status().is_ok_and(|status| status.success()) {
        return skip::skip("no namespace of a network with an address of its own can be made");
    }
    let mut command = unshare(&format!("{network} && exec \"$@\""));
    command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let status = command.env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "{test} in a namespace: {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_at_another_address_shows_pictures_by_media_source_and_says_why() {
    if std::env::var_os(INSIDE).is_none() {
        let name = "plain_http_at_another_address_shows_pictures_by_media_source_and_says_why";
        return inside(&format!("network::{name}"));
    }
    let (text, table) = token("ann", "operator", "");
    let site = Site::start_on(ADDRESS, &table, &[SPOT]).await;
    let browser = Browser::start().await;
    let window = browser.open(&site.url("/cameras/spot")).await;
    assert_eq!(
        window.evaluate("[isSecureContext, location.hostname].join()").await,
        "false,192.0.2.1"
    );
    log_in(&window, &text).await;
    window.until(&format!("{}.rung === 'mse'", player("spot"))).await;
    window.until_text("plain http").await;
    places(&window, &picture("spot"), 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_link_costs_pictures_and_not_their_age_and_the_page_says_so() {
    // 300 kB a second, of which a third comes through.
    let large = Camera("large", "people-1080-high-b3.mp4", "motion", "");
    let site = Site::start("", &[large]).await;
    let relay = Relay::slow(site.host.address().port(), 100_000).await;
    let browser = Browser::start().await;
    let near = browser.open(&site.url("/cameras/large")).await;
    let far = browser.open(&format!("http://{}/cameras/large", relay.address())).await;
    let own = player("large");
    far.until(&format!("{own}.discontinuities + {own}.dropped > 2 && {own}.drawn > 2")).await;
    far.until_text("left out").await;
    // Both pages show the same moment, but for what a link of this rate has under way. Without a
    // bound on what waits for it, it would be 20 s behind after 30 s more.
    let last = format!("{own}.last");
    let begun = near.evaluate(&last).await;
    near.until_within(PATIENCE, &format!("{last} > {begun} + 30e9")).await;
    let drawn = far.evaluate(&format!("{own}.drawn")).await;
    far.until(&format!("{own}.drawn > {drawn} + 2")).await;
    let (here, there) = tokio::join!(near.evaluate(&last), far.evaluate(&last));
    let behind_s = (here.as_f64().unwrap() - there.as_f64().unwrap()) / 1e9;
    assert!(behind_s.abs() < 15.0, "the slow page is {behind_s} s behind");
}
