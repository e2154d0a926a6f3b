//! A disk that is full, and what the journal says after a restart.

use ocelli_testkit::small_disk::SmallDisk;
use ocelli_testkit::{Cameras, Client, Ocelli};
use serde_json::Value;

use crate::{SLOW, camera};

const CLIP: &str = "people-576-high.mp4";

/// The kilobytes of a disk that holds a store with all models, and little more.
const DISK_KIB: u64 = 256 << 10;

/// Waits for an alert's event.
async fn alert(client: &mut Client, name: &str, raised: bool) -> Value {
    let wanted = |message: &Value| {
        let data = &message["data"];
        let is_it = message["kind"] == "alert" && data["alert"] == name && data["raised"] == raised;
        is_it.then(|| message.clone())
    };
    client.find(wanted).await
}

/// Numbers of the events that a client has got.
fn numbers(client: &Client) -> Vec<u64> {
    let messages =
        client.received().iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
    messages.filter_map(|message| message["seq"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_silences_no_subscriber_and_what_happened_meanwhile_follows() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), DISK_KIB) else { return };
    let cameras = Cameras::start(&[], &[("/cam", CLIP)]);
    let store = format!("[store]\ndirectory = {:?}\n", disk.path());
    let host = Ocelli::start(&(camera("cam", &cameras.url("/cam"), SLOW) + &store)).await;
    let mut client = host.client().await;
    client.subscribe("cam").await;
    client.detections("cam").await;

    let mut told = None;
    let full = |message: &Value| {
        // Another program takes what the host gives back.
        disk.fill();
        // Failed, or degraded where the oldest events make room for the newest.
        if message["type"] == "host" && message["storage"]["state"] != "ok" {
            told = message["storage"]["reason"].as_str().map(str::to_owned);
        }
        // The alert's event may have to wait for room: the log has it at once.
        let raised = host.log().text().contains("alert=\"disk\"");
        (told.is_some() && raised).then_some(())
    };
    client.find(full).await;
    client.detections("cam").await;
    let (status, ready) = host.request("GET", "/readyz").await;
    assert!(status == 200 && ready.contains("degraded"), "{status} {ready}");
    let mut late = host.client().await;
    assert_eq!(late.next().await["type"], "host", "who comes now is told first");

    disk.free();
    alert(&mut client, "disk", false).await;
    let well = |message: &Value| {
        (message["type"] == "host" && message["storage"]["state"] == "ok").then_some(())
    };
    late.find(well).await;
    let numbers = numbers(&client);
    assert!(numbers.windows(2).all(|two| two[0] + 1 == two[1]), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_no_longer_holds_after_a_restart_is_cleared() {
    let mut cameras = Cameras::start(&[], &[("/cam", CLIP)]);
    let config = camera("cam", &cameras.url("/cam"), SLOW) + "[alerts]\nsource_down_s = 1\n";
    let mut host = Ocelli::start(&config).await;
    let mut client = host.client().await;
    client.subscribe("cam").await;
    client.detections("cam").await;
    cameras.kill();
    let raised = alert(&mut client, "source_down", true).await;

    host.cut_and_start_again().await;
    cameras.restart();
    let mut client = host.client().await;
    client
        .send(&serde_json::json!({"type": "subscribe", "session": "cam", "after": raised["seq"]}))
        .await;
    let cleared = alert(&mut client, "source_down", false).await;
    let message = cleared["data"]["message"].as_str().unwrap();
    assert!(message.contains("before the host was restarted"), "{cleared}");
    let twice = client.received().iter().any(|text| text.contains(r#""raised":true"#));
    assert!(!twice, "it was raised before");
}
