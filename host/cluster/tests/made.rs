//! Cameras that subscribers had made, with a real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
#![allow(clippy::indexing_slicing)]

mod hosts;

use std::sync::Arc;

use etcd_client::Client;
use hosts::{Host, SITE, again, camera, ids, put_camera, record};
use ocelli_cluster::documents::Expect;
use ocelli_cluster::member::{CameraRecord, CoordError, Making, SiteView};
use ocelli_testkit::{Etcd, Random};

/// More than any of these tests has.
const ROOM: u64 = 1000;

fn made() -> CameraRecord {
    CameraRecord { made: true, ..camera() }
}

async fn make(host: &Host, id: &str) -> Making {
    again(|| host.member.make_camera(id, &made(), ROOM)).await.unwrap()
}

async fn removes(host: &Host, id: &str) -> bool {
    again(|| host.member.remove_made(id, true, &[])).await.unwrap()
}

async fn listens(host: &Host, id: &str) -> bool {
    again(|| host.member.listen(id)).await.unwrap()
}

/// A host makes a camera that is not there.
async fn puts(host: &Host, id: &str) {
    // There: by its own first request, whose answer was late.
    let making = make(host, id).await;
    assert!(matches!(making, Making::Made | Making::There), "{making:?}");
}

/// Takes back what a host has said of a camera, as its view has it.
async fn unlistens(host: &Host, id: &str) {
    let said = |site: &SiteView| {
        site.listeners.get(id).and_then(|hosts| hosts.get(&host.id)).map(|said| said.revision)
    };
    let site = host.sees("its own words", |site| said(site).is_some()).await;
    let revision = said(&site).unwrap();
    again(|| host.member.unlisten(id, revision)).await.unwrap();
    host.sees("no such words", |site| said(site).is_none()).await;
}

/// Who listens to a camera, as etcd has it.
async fn listeners(host: &Host, id: &str) -> Vec<String> {
    let site = again(|| host.member.read_site()).await.unwrap();
    site.listeners.get(id).map(|hosts| hosts.keys().cloned().collect()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_hosts_that_are_asked_at_once_one_makes_the_camera() {
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let hosts =
        [Host::joined(&urls, "a", record(10)).await, Host::joined(&urls, "b", record(10)).await];
    for id in ids(8) {
        let (one, other) = tokio::join!(make(&hosts[0], &id), make(&hosts[1], &id));
        // Where an answer was late, who made it finds it there.
        assert_ne!([one, other], [Making::Made; 2], "{id}");
        // Who was second has to say for itself that it listens.
        assert_eq!(listeners(&hosts[0], &id).await.len(), 1, "{id}");
        assert!(listens(&hosts[0], &id).await && listens(&hosts[1], &id).await);
        assert_eq!(listeners(&hosts[0], &id).await, ["a", "b"]);
    }
    // One of the site's own is no other's.
    put_camera(&hosts[0].member, "gate").await;
    assert_eq!(make(&hosts[1], "gate").await, Making::There);
    assert!(!removes(&hosts[1], "gate").await, "it was not made by subscribers");
    let site = again(|| hosts[0].member.read_site()).await.unwrap();
    assert!(!site.cameras["gate"].made && site.cameras["cam 0"].made);
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_together_make_no_more_cameras_than_the_site_takes() {
    const MOST: u64 = 12;
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let mut hosts = Vec::new();
    for id in ["a", "b", "c"] {
        hosts.push(Arc::new(Host::joined(&urls, id, record(100)).await));
    }
    hosts[0].put(&ids(2)).await;
    let asked = hosts.iter().flat_map(|host| {
        (0..MOST).map(|number| {
            let host = Arc::clone(host);
            tokio::spawn(async move {
                let id = format!("{} {number}", host.id);
                loop {
                    // Refused where all others were faster, each time: it asks again.
                    match host.member.make_camera(&id, &made(), MOST).await {
                        Err(CoordError::Changed { .. } | CoordError::Unavailable(_)) => {}
                        making => return making.unwrap(),
                    }
                }
            })
        })
    });
    let (mut full, mut there) = (0, 0);
    for making in asked.collect::<Vec<_>>() {
        match making.await.unwrap() {
            Making::Full(count) => {
                assert_eq!(count, MOST);
                full += 1;
            }
            Making::Made => there += 1,
            // Its first request had no answer in time, and was made all the same.
            Making::There => there += 1,
        }
    }
    assert_eq!((full, there), (3 * MOST - (MOST - 2), MOST - 2));
    let site = again(|| hosts[0].member.read_site()).await.unwrap();
    assert_eq!(site.cameras.len() as u64, MOST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_stays_while_a_host_listens_and_goes_with_what_belongs_to_it() {
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let a = Host::joined(&urls, "a", record(10)).await;
    let b = Host::joined(&urls, "b", record(10)).await;
    // The second one's name begins as the first one's folder would.
    for id in ["cam", "cam/a"] {
        puts(&a, id).await;
    }
    assert!(listens(&b, "cam").await);
    assert!(!removes(&b, "cam").await, "both listen");
    unlistens(&a, "cam").await;
    assert!(!removes(&a, "cam").await, "one listens");
    // What was said again is not taken back by who has not seen it.
    let site = b
        .sees("its words", |site| site.listeners.get("cam").is_some_and(|it| it.contains_key("b")));
    let before = site.await.listeners["cam"]["b"].revision;
    assert!(listens(&b, "cam").await);
    again(|| b.member.unlisten("cam", before)).await.unwrap();
    assert_eq!(listeners(&a, "cam").await, ["b"]);

    let documents = a.member.documents();
    again(|| documents.put("dep/cam", b"v1", Expect::Anything)).await.unwrap();
    again(|| a.member.move_camera("cam", Some("b"))).await.unwrap();
    let later = |site: &SiteView| {
        site.listeners
            .get("cam")
            .is_some_and(|it| it.get("b").is_some_and(|it| it.revision > before))
    };
    b.sees("what was said again", later).await;
    unlistens(&b, "cam").await;
    let with = ["dep/cam".to_owned()];
    assert!(again(|| a.member.remove_made("cam", true, &with)).await.unwrap());
    assert!(!removes(&a, "cam").await, "there is none");
    assert!(!listens(&b, "cam").await, "it is gone");
    assert_eq!(again(|| documents.get("dep/cam")).await.unwrap(), None);
    let site = again(|| a.member.read_site()).await.unwrap();
    assert!(site.pins.is_empty() && site.cameras.keys().eq(["cam/a"]));
    b.sees("no owner of it", |site| !site.owners.contains_key("cam")).await;
    // The other one is listened to, and an operator ends it all the same.
    assert!(!removes(&b, "cam/a").await);
    assert!(again(|| b.member.remove_made("cam/a", false, &[])).await.unwrap());
    assert_eq!(make(&b, "cam").await, Making::Made, "the name is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_host_said_ends_with_its_lease() {
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let a = Host::joined(&urls, "a", record(10)).await;
    let b = Host::joined(&urls, "b", record(10)).await;
    puts(&a, "cam").await;
    a.die().await;
    b.sees("nobody who listens", |site| !site.listeners.contains_key("cam")).await;
    b.owns(&["cam".to_owned()]).await;
    assert!(removes(&b, "cam").await);
}

/// A subscriber comes at the moment when the camera is removed: either it is removed, and the
/// subscriber's host is told, or it stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_and_the_removal_never_both_succeed() {
    let seed = Random::new().u64(..);
    println!("seed {seed}");
    let mut random = Random::with_seed(seed);
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let a = Host::joined(&urls, "a", record(10)).await;
    let b = Host::joined(&urls, "b", record(10)).await;
    let mut client = Client::connect(&urls, None).await.unwrap();
    let mut stayed = 0;
    for round in 0..40 {
        let id = format!("cam {round}");
        puts(&a, &id).await;
        unlistens(&a, &id).await;
        let (first, second) = (random.u32(..4), random.u32(..4));
        let spin = |times: u32| async move {
            for _ in 0..times {
                tokio::task::yield_now().await;
            }
        };
        let (removed, listens) = tokio::join!(
            async {
                spin(first).await;
                removes(&a, &id).await
            },
            async {
                spin(second).await;
                listens(&b, &id).await
            }
        );
        let there = client.get(format!("/ocelli/{SITE}/cam/{id}"), None).await.unwrap();
        let there = !there.kvs().is_empty();
        assert_eq!(listens, there, "{id}");
        assert!(!(removed && there), "{id}");
        assert_eq!(listeners(&a, &id).await.is_empty(), !there, "{id}");
        stayed += u32::from(there);
    }
    println!("{stayed} of 40 stayed");
}
