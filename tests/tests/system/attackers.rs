//! Cameras that send without end beside cameras that behave: the host does not grow, each is named,
//! and no neighbour notices.

use ocelli_testkit::camera::{Camera, Script, attacks};
use ocelli_testkit::{Ocelli, ProcessResources};

use crate::isolation::notices_nothing;
use crate::{SLOW, camera};

/// How much the host may grow over what it has while the cameras that behave play.
const GROWTH_KIB: u64 = 64 << 10;

/// One of each kind of growth: what a test of the host tries each of, one by one.
const KINDS: [&str; 6] = [
    "endless-body",
    "endless-header",
    "many-media",
    "endless-fu-a",
    "tiny-packets",
    "large-picture",
];

#[tokio::test(flavor = "multi_thread")]
async fn cameras_that_send_without_end_fill_no_host_and_their_neighbours_notice_nothing() {
    let calm = [Camera::start(Script::default()).await, Camera::start(Script::default()).await];
    let ids = ["one", "two"];
    let of = |id: &str, source: &Camera| camera(id, &source.url(), SLOW);
    let config: String = ids.iter().zip(&calm).map(|(id, source)| of(id, source)).collect();
    let host = Ocelli::start(&config).await;
    let mut client = host.client().await;
    let mut workers = Vec::new();
    for id in ids {
        client.subscribe(id).await;
        client.detections(id).await;
        workers.push(host.worker(id).await.pid);
    }
    let own = host.process().pid;
    let rest = ProcessResources::of(own).resident_kib;

    let mut hostile = Vec::new();
    for attack in attacks().into_iter().filter(|attack| KINDS.contains(&attack.name)) {
        hostile.push((attack.name, attack.faults, Camera::start(attack.script).await));
    }
    let beside: String = hostile.iter().map(|(name, _, source)| of(name, source)).collect();
    host.edit_config(&(config + &beside));
    for (name, faults, source) in &hostile {
        let session = host.wait_for_session(name, |session| session["reason"].is_string()).await;
        let reason = session["reason"].as_str().unwrap();
        assert_eq!(session["state"], "degraded", "{session}");
        assert!(reason.chars().count() <= 600, "{reason}");
        assert!(reason.contains(&source.address().to_string()), "{reason}");
        let kind = |fault: &&str| host.log().text().contains(&format!("kind=\"{fault}\""));
        assert!(faults.iter().any(kind), "{name}: no fault of {faults:?}");
    }
    let peak = ProcessResources::peak_of(own);
    assert!(peak < rest + GROWTH_KIB, "{peak} KiB at most, {rest} at rest");
    for (id, worker) in ids.into_iter().zip(workers) {
        notices_nothing(&host, &mut client, id, worker).await;
    }
    for source in &calm {
        assert_eq!(source.connections(), 1, "the neighbour's connection");
    }
}
