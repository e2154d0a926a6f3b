//! Pages that are not on this machine.

use std::net::Ipv4Addr;
use std::process::Command;

use ocelli_testkit::browser::Browser;
use ocelli_testkit::skip;

use crate::login::{log_in, token};
use crate::seen::places;
use crate::site::{SPOT, Site, picture, player};

/// Set for the test's own second run, inside of a network of its own.
const INSIDE: &str = "OCELLI_TEST_NAMESPACE";

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
