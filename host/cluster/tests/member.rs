//! What hosts of a site do with a real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
#![allow(clippy::indexing_slicing)]

mod hosts;

use std::sync::atomic::Ordering;
use std::time::Instant;

use etcd_client::Client;
use hosts::{
    Host, Listener, SITE, all_owned, audit, camera, ids, options, put_camera, record, set, settled,
    until,
};
use ocelli_cluster::Member;
use ocelli_cluster::member::{CoordError, HostRecord, MemberStatus, SiteRefusal};
use ocelli_cluster::plan::Unplaced;
use ocelli_testkit::Etcd;

fn is_member(status: &MemberStatus) -> bool {
    matches!(status, MemberStatus::Member { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_owns_what_the_site_has_until_it_leaves() {
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let host = Host::joined(&urls, "a", record(10)).await;
    let cameras = ids(3);
    host.put(&cameras).await;
    let owned = host.owns(&cameras).await;
    let site = host.member.read_site().await.unwrap();
    for (camera, ownership) in &owned {
        assert_eq!(site.owner(camera).unwrap().epoch, ownership.epoch, "etcd's revision");
        assert!(host.member.may_speak(camera, ownership.epoch));
        assert!(!host.member.may_speak(camera, ocelli_cluster::Epoch(ownership.epoch.0 - 1)));
    }

    // What is wanted of a camera changes, its epoch does not.
    let mut changed = camera();
    changed.entry = serde_json::json!({"source": "rtsp://10.0.0.8/1"});
    host.member.put_camera(&cameras[0], &changed).await.unwrap();
    let so = |owned: &std::sync::Arc<
        std::collections::BTreeMap<_, ocelli_cluster::member::Ownership>,
    >| { *owned[&cameras[0]].record == changed };
    let now = until(&mut host.member.owned(), "the change", so).await;
    assert_eq!(now[&cameras[0]].epoch, owned[&cameras[0]].epoch);

    // A removed one leaves nothing behind.
    assert!(host.member.remove_camera(&cameras[0]).await.unwrap());
    assert!(!host.member.remove_camera(&cameras[0]).await.unwrap());
    host.owns(&cameras[1..]).await;
    host.sees("no owner of it", |site| !site.owners.contains_key(&cameras[0])).await;
    assert!(!host.member.may_speak(&cameras[0], owned[&cameras[0]].epoch));

    // Nobody else can take them: it waits for nobody.
    let begun = Instant::now();
    host.member.leave(hosts_deadline()).await;
    assert!(begun.elapsed() < hosts_deadline(), "it left as soon as it could");
    assert_eq!(*host.member.status().borrow(), MemberStatus::Left);
    assert!(host.owned().is_empty());
    let next = Host::joined(&urls, "b", record(10)).await;
    next.owns(&cameras[1..]).await;
    audit(&urls).await;
}

fn hosts_deadline() -> std::time::Duration {
    ocelli_testkit::DEADLINE
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cameras_of_a_dead_host_go_on_elsewhere_and_no_other_moves() {
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let listener = Listener::start();
    let mut hosts = Vec::new();
    for id in ["a", "b", "c"] {
        hosts.push(Host::joined(&urls, id, record(20)).await);
        listener.hear(hosts.last().unwrap());
    }
    let cameras = ids(16);
    hosts[0].put(&cameras).await;
    settled(&hosts[0], &cameras).await;
    let before = all_owned(&hosts.iter().collect::<Vec<_>>(), &cameras).await;
    // The planner dies, which is the one that joined first.
    let dead = hosts.remove(0);
    listener.forget(&dead);
    let begun = Instant::now();
    dead.die().await;
    let after = all_owned(&hosts.iter().collect::<Vec<_>>(), &cameras).await;
    println!("taken over within {:?}", begun.elapsed());
    for (camera, (host, epoch)) in &before {
        if host == "a" {
            assert!(after[camera].1 > *epoch, "a later epoch");
        } else {
            assert_eq!(after[camera], (host.clone(), *epoch), "{camera} stays");
        }
    }
    assert!(listener.end() > 0);
    assert_eq!(
        audit(&urls).await,
        cameras.len() + before.values().filter(|it| it.0 == "a").count()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_everybody_falls_silent_and_goes_on_with_a_new_lease() {
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let hosts =
        [Host::joined(&urls, "a", record(10)).await, Host::joined(&urls, "b", record(10)).await];
    let cameras = ids(6);
    hosts[0].put(&cameras).await;
    let both = [&hosts[0], &hosts[1]];
    let before = all_owned(&both, &cameras).await;
    let leases = both.map(|host| host.member.status().borrow().clone());
    etcd.pause(0, true);
    for host in both {
        let mut status = host.member.status();
        let lapsed = |status: &MemberStatus| matches!(status, MemberStatus::Lapsed(_));
        let MemberStatus::Lapsed(reason) = until(&mut status, "a lapse", lapsed).await else {
            unreachable!()
        };
        assert!(reason.contains("no answer"), "{reason}");
        assert!(host.owned().is_empty());
    }
    for (camera, (_, epoch)) in &before {
        assert!(both.iter().all(|host| !host.member.may_speak(camera, *epoch)));
    }
    etcd.pause(0, false);
    let after = all_owned(&both, &cameras).await;
    for (camera, (_, epoch)) in &after {
        assert!(*epoch > before[camera].1, "a new life has a new epoch");
    }
    for (host, lease) in both.iter().zip(leases) {
        host.is_member().await;
        assert_ne!(*host.member.status().borrow(), lease, "a new lease");
    }
    audit(&urls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_loses_a_camera_to_a_frozen_or_dead_etcd_server() {
    let mut etcd = Etcd::cluster();
    let urls = etcd.urls();
    let listener = Listener::start();
    let mut hosts = Vec::new();
    // Between them they begin with each server.
    for id in ["a", "b", "c"] {
        hosts.push(Host::joined(&urls, id, record(10)).await);
        listener.hear(hosts.last().unwrap());
    }
    let all: Vec<&Host> = hosts.iter().collect();
    let cameras = ids(9);
    hosts[0].put(&cameras).await;
    settled(&hosts[0], &cameras).await;
    let before = all_owned(&all, &cameras).await;
    let statuses: Vec<_> = all.iter().map(|host| host.member.status()).collect();
    let leases: Vec<_> = statuses.iter().map(|status| status.borrow().clone()).collect();
    let follower = |etcd: &Etcd| (0..3).find(|number| Some(*number) != etcd.leader()).unwrap();
    // A frozen follower: new cameras are taken all the same.
    let frozen = follower(&etcd);
    etcd.pause(frozen, true);
    let more: Vec<_> = (0..3).map(|number| format!("late {number}")).collect();
    for id in &more {
        put_camera(&hosts[0].member, id).await;
    }
    all_owned(&all, &more).await;
    etcd.pause(frozen, false);
    etcd.await_ready();
    // The leader dies.
    let leader = etcd.leader().unwrap();
    etcd.kill(leader);
    let last = "last".to_owned();
    put_camera(&hosts[0].member, &last).await;
    all_owned(&all, std::slice::from_ref(&last)).await;
    let after = all_owned(&all, &cameras).await;
    assert_eq!(after.iter().filter(|(id, _)| before.contains_key(*id)).count(), before.len());
    for (camera, owner) in &before {
        assert_eq!(after[camera], *owner, "{camera} stays");
    }
    for (status, lease) in statuses.iter().zip(leases) {
        assert_eq!(*status.borrow(), lease, "the same lease");
    }
    assert!(listener.end() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_host_hands_over_and_is_filled_again_afterwards() {
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let listener = Listener::start();
    let a = Host::joined(&urls, "a", record(20)).await;
    let b = Host::joined(&urls, "b", record(20)).await;
    listener.hear(&a);
    listener.hear(&b);
    let cameras = ids(10);
    a.put(&cameras).await;
    all_owned(&[&a, &b], &cameras).await;
    a.member.set_draining("b", true).await.unwrap();
    a.owns(&cameras).await;
    assert!(b.owned().is_empty());
    assert!(a.sees("draining", |site| site.hosts["b"].draining).await.unplaced().is_empty());
    // The wish outlasts the host's life.
    listener.forget(&b);
    b.die().await;
    a.sees("it is gone", |site| !site.hosts.contains_key("b")).await;
    let b = Host::joined(&urls, "b", record(20)).await;
    listener.hear(&b);
    assert!(a.sees("it is back", |site| site.hosts.contains_key("b")).await.hosts["b"].draining);
    a.member.set_draining("b", false).await.unwrap();
    b.owns_count(|count| count >= 4).await;
    // A host that leaves is emptied first.
    a.member.leave(hosts_deadline()).await;
    b.owns(&cameras).await;
    assert!(listener.end() > 0);
    audit(&urls).await;
}

trait Unplacedness {
    fn unplaced(&self) -> &std::collections::BTreeMap<String, Unplaced>;
}

impl Unplacedness for ocelli_cluster::member::SiteView {
    fn unplaced(&self) -> &std::collections::BTreeMap<String, Unplaced> {
        &self.plan.unplaced
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_moves_where_it_is_wished_to_once_it_is_prepared_there() {
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let a = Host::joined(&urls, "a", record(20)).await;
    let moved = ids(1);
    a.put(&moved).await;
    let first = a.owns(&moved).await;
    let b = Host::joined(&urls, "b", record(20)).await;
    b.unprepared.store(true, Ordering::Relaxed);
    assert!(a.member.move_camera(&moved[0], Some("b")).await.unwrap());
    let mut coming = b.member.coming();
    until(&mut coming, "it is announced", |coming| coming.contains_key(&moved[0])).await;
    assert!(a.member.leaving().borrow().is_empty(), "not before it is prepared there");
    assert!(a.member.may_speak(&moved[0], first[&moved[0]].epoch));
    b.member.prepared(&moved[0]);
    let second = b.owns(&moved).await;
    assert!(second[&moved[0]].epoch > first[&moved[0]].epoch);
    a.owns(&[]).await;
    until(&mut coming, "it has come", |coming| coming.is_empty()).await;

    // A host that never prepares gets it in the end all the same.
    a.unprepared.store(true, Ordering::Relaxed);
    assert!(a.member.move_camera(&moved[0], Some("a")).await.unwrap());
    a.owns(&moved).await;
    // The wish ends; there is no reason to move back.
    assert!(a.member.move_camera(&moved[0], None).await.unwrap());
    a.sees("no wish", |site| site.pins.is_empty()).await;
    assert!(!a.member.move_camera("nobody's", Some("b")).await.unwrap());
    audit(&urls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_goes_only_where_it_fits_and_says_why_it_goes_nowhere() {
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let a = Host::joined(&urls, "a", record(2)).await;
    let with = |labels: &[&str], networks: &[&str]| {
        let mut record = camera();
        (record.labels, record.networks) = (set(labels), set(networks));
        record
    };
    a.member.put_camera("gpu", &with(&["gpu"], &[])).await.unwrap();
    a.member.put_camera("net", &with(&[], &["plant"])).await.unwrap();
    let cameras = ids(3);
    a.put(&cameras).await;
    a.owns_count(|count| count == 2).await;
    let site = a.sees("three without a host", |site| site.plan.unplaced.len() == 3).await;
    assert_eq!(site.plan.unplaced["gpu"], Unplaced::Labels);
    assert_eq!(site.plan.unplaced["net"], Unplaced::Networks);
    assert!(site.plan.unplaced.values().any(|why| *why == Unplaced::Full));
    let able = HostRecord { labels: set(&["gpu"]), networks: set(&["plant"]), ..record(10) };
    let b = Host::joined(&urls, "b", able).await;
    all_owned(&[&a, &b], &cameras).await;
    until(&mut b.member.owned(), "what only it can take", |owned| {
        owned.contains_key("gpu") && owned.contains_key("net")
    })
    .await;
    // A host says anew what it is.
    let mut unable = record(10);
    unable.labels = set(&["gpu"]);
    b.member.describe(unable).await;
    b.sees("no host for it", |site| site.plan.unplaced.get("net") == Some(&Unplaced::Networks))
        .await;
    until(&mut b.member.owned(), "it is given up", |owned| !owned.contains_key("net")).await;
    audit(&urls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_host_of_one_name_is_refused_until_the_first_is_gone() {
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let first = Host::joined(&urls, "a", record(10)).await;
    let cameras = ids(2);
    first.put(&cameras).await;
    let owned = first.owns(&cameras).await;
    let second = Host::start(&urls, "a", HostRecord { version: "9".into(), ..record(10) });
    let refused = |status: &MemberStatus| matches!(status, MemberStatus::Refused(_));
    let MemberStatus::Refused(refusal) =
        until(&mut second.member.status(), "a refusal", refused).await
    else {
        unreachable!()
    };
    assert_eq!(refusal.code(), "same_host");
    let SiteRefusal::SameHost { host, version, address, .. } = &refusal else {
        panic!("{refusal}")
    };
    assert_eq!(
        (host.as_str(), version.as_str(), address.as_str()),
        ("a", "1.2.3", "10.0.0.1:8080")
    );
    assert!(second.owned().is_empty());
    assert_eq!(first.owned(), owned, "the first does not notice");
    first.die().await;
    second.owns(&cameras).await;
    assert!(is_member(&second.member.status().borrow()));
    audit(&urls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_format_is_named_and_nothing_is_claimed() {
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let mut client = Client::connect(&urls, None).await.unwrap();
    let key = |key: &str| format!("/ocelli/{SITE}/{key}");
    client.put(key("plan"), r#"{"format":7,"more":{}}"#, None).await.unwrap();
    let host = Host::start(&urls, "a", record(10));
    host.put(&ids(2)).await;
    let refused = |code: &'static str| move |status: &MemberStatus| matches!(status, MemberStatus::Refused(it) if it.code() == code);
    until(&mut host.member.status(), "a plan of later format", refused("plan_format")).await;
    assert!(host.owned().is_empty());
    client.delete(key("plan"), None).await.unwrap();
    host.owns(&ids(2)).await;
    // Another host of a later version: what is owned stays, nothing more is claimed.
    client.put(key("host/z"), r#"{"format":2}"#, None).await.unwrap();
    until(&mut host.member.status(), "a host of later format", refused("host_format")).await;
    host.put(&["more".to_owned()]).await;
    host.sees("the camera", |site| site.cameras.contains_key("more")).await;
    assert_eq!(host.owned().len(), 2);
    client.put(key("host/z"), "no JSON", None).await.unwrap();
    until(&mut host.member.status(), "a host that cannot be read", refused("unreadable")).await;
    client.delete(key("host/z"), None).await.unwrap();
    host.owns_count(|count| count == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_whose_etcd_is_away_at_start_is_joined_later() {
    let mut etcd = Etcd::single();
    let urls = etcd.urls();
    etcd.kill(0);
    let host = Host::start(&urls, "a", record(10));
    let away = |status: &MemberStatus| matches!(status, MemberStatus::Joining(reason) if reason.contains("refused"));
    until(&mut host.member.status(), "etcd is away", away).await;
    assert!(host.owned().is_empty());
    assert!(matches!(host.member.read_site().await, Err(CoordError::Unavailable(_))));
    etcd.run(0);
    host.is_member().await;
    host.put(&ids(1)).await;
    host.owns(&ids(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_an_address_or_an_id_is_refused() {
    let started = |url: &str| Member::start(options(&[url.to_owned()], "a"), record(1));
    for url in ["127.0.0.1:2379", "https://127.0.0.1:2379", "nats://127.0.0.1:2379"] {
        let error = started(url).unwrap_err().to_string();
        assert!(error.contains(url) && error.contains("http://"), "{error}");
    }
    assert!(Member::start(options(&[], "a"), record(1)).is_err());
    let member = started("http://127.0.0.1:1").unwrap();
    for id in ["", "a\u{7}b", &"x".repeat(201)] {
        let error = member.put_camera(id, &camera()).await.unwrap_err();
        assert_eq!(error.code(), "bad_key", "{id:?}");
    }
    let error = member.set_draining("A/b", true).await.unwrap_err();
    assert_eq!(error.code(), "bad_key");
}
