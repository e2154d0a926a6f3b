//! That the engines of a site start, lose members and get them back.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use ocelli_testkit::{DEADLINE, Etcd, Nats, NatsAccount, NatsUser, Site};

/// Looks again until there is an answer.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "nothing to be seen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn three_etcd_servers_elect_another_leader_and_take_the_first_back() {
    let mut etcd = Etcd::cluster();
    assert_eq!(etcd.urls().len(), 3);
    let first = until(|| etcd.leader());
    etcd.kill(first);
    let second = until(|| etcd.leader());
    assert_ne!(first, second);
    etcd.run(first);
    etcd.await_ready();
    etcd.pause(second, true);
    until(|| etcd.leader().filter(|third| *third != second));
    etcd.pause(second, false);
    etcd.await_ready();
}

#[test]
fn three_nats_servers_elect_another_leader_and_take_the_first_back() {
    let Some(mut nats) = Nats::cluster() else { return };
    let first = until(|| nats.leader());
    nats.kill(first);
    let second = until(|| nats.leader().filter(|second| *second != first));
    nats.run(first);
    nats.await_ready();
    assert!(nats.leader().is_some() && nats.pid(second).is_some());
}

#[test]
fn a_site_asks_for_certificates() {
    let accounts =
        [NatsAccount { name: "HALL".into(), users: vec![NatsUser::new("a"), NatsUser::new("b")] }];
    let Some(site) = Site::with_tls(&accounts) else { return };
    assert!(site.etcd.urls()[0].starts_with("https://"));
    assert!(site.nats.urls()[0].starts_with("tls://"));
    let (ca, client) = site.client("a");
    assert!(ca.is_file() && client.certificate.is_file() && client.key.is_file());
}
