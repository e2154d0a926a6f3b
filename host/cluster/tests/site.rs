//! What a site goes through, and what its hosts share beside cameras.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
#![allow(clippy::indexing_slicing)]

mod hosts;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, Identity, Permission, TlsOptions,
    UserAddOptions, WatchOptions,
};
use hosts::{
    Host, Listener, SITE, again, all_owned, audit, camera, ids, options, put_camera, record, until,
};
use ocelli_cluster::documents::{DocumentMap, Expect, Revision};
use ocelli_cluster::member::{CoordError, MemberStatus, SiteRefusal};
use ocelli_cluster::{Epoch, Member, SiteOptions, SiteTls};
use ocelli_testkit::{Authority, DEADLINE, EnginePlace, Etcd, Random, Relay, SignedCertificate};

fn tls(ca: &Authority, client: SignedCertificate) -> SiteTls {
    SiteTls { ca: ca.file(), certificate: client.certificate, key: client.key }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_certificate_is_named() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [ours, theirs] = folders.each_ref().map(|folder| Authority::new(folder.path()));
    let etcd = Etcd::start(&[EnginePlace::loopback()], Some(&ours), &[]);
    let start = |tls: SiteTls| {
        let mut options = options(&etcd.urls(), "a");
        options.tls = Some(tls);
        Member::start(options, record(1))
    };
    let right = start(tls(&ours, ours.sign("a", &["a"]))).unwrap();
    let member = |status: &MemberStatus| matches!(status, MemberStatus::Member { .. });
    until(&mut right.status(), "a member", member).await;
    right.leave(DEADLINE).await;
    // The engine's is not of the authority that we know; ours is not of the one that it knows.
    for (what, wrong) in [
        ("UnknownIssuer", tls(&theirs, ours.sign("b", &["b"]))),
        ("certificate", tls(&ours, theirs.sign("c", &["c"]))),
    ] {
        let wrong = start(wrong).unwrap();
        let named = |status: &MemberStatus| matches!(status, MemberStatus::Joining(reason) if reason.contains(what));
        let status = until(&mut wrong.status(), what, named).await;
        println!("{status:?}");
        assert!(wrong.owned().borrow().is_empty());
    }
    let mut missing = tls(&ours, ours.sign("d", &["d"]));
    missing.key = "/nowhere/key.pem".into();
    assert!(start(missing).unwrap_err().to_string().contains("/nowhere/key.pem"));
}

/// A client that etcd knows by its certificate's common name.
async fn client_of(etcd: &Etcd, authority: &Authority, name: &str) -> Client {
    let SignedCertificate { certificate, key } = authority.sign(name, &[name]);
    let read = |path| std::fs::read(path).unwrap();
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read(authority.file())))
        .identity(Identity::from_pem(read(certificate), read(key)));
    Client::connect(etcd.urls(), Some(ConnectOptions::new().with_tls(tls))).await.unwrap()
}

/// Has etcd ask for rights. A site's role has its prefix alone, and these users have these roles.
async fn ask_for_rights(root: &Client, users: &[(&str, Option<&str>)]) {
    let mut auth = root.auth_client();
    for site in [SITE, "yard"] {
        auth.role_add(site).await.unwrap();
        let prefix = format!("/ocelli/{site}/");
        let all = Permission::read_write(prefix).with_prefix();
        auth.role_grant_permission(site, all).await.unwrap();
    }
    auth.role_add("root").await.unwrap();
    for (user, role) in [("root", Some("root"))].iter().chain(users) {
        let by_certificate = UserAddOptions::new().with_no_pwd();
        auth.user_add(*user, "", Some(by_certificate)).await.unwrap();
        if let Some(role) = *role {
            auth.user_grant_role(*user, role).await.unwrap();
        }
    }
    auth.auth_enable().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_in_the_site_that_its_user_has_the_right_to_and_in_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let etcd = Etcd::start(&[EnginePlace::loopback()], Some(&authority), &[]);
    let root = client_of(&etcd, &authority, "root").await;
    let users = [("a", Some(SITE)), ("b", Some(SITE)), ("yard-host", Some("yard")), ("late", None)];
    ask_for_rights(&root, &users).await;
    let options = |site: &str, user: &str| SiteOptions {
        site: site.into(),
        tls: Some(tls(&authority, authority.sign(user, &[user]))),
        ..options(&etcd.urls(), user)
    };
    // Those with the right do all that hosts do.
    let a = Host::with(options(SITE, "a"), record(10));
    let b = Host::with(options(SITE, "b"), record(10));
    a.is_member().await;
    b.is_member().await;
    let cameras = ids(2);
    a.put(&cameras).await;
    all_owned(&[&a, &b], &cameras).await;
    for id in &cameras {
        again(|| a.member.move_camera(id, Some("a"))).await.unwrap();
    }
    a.owns(&cameras).await;
    let documents = a.member.documents();
    again(|| documents.put("token/x", b"hash", Expect::Anything)).await.unwrap();
    a.member.leave(DEADLINE).await;
    b.owns(&cameras).await;
    let copy = b.member.documents().watch("token/").unwrap();
    let has = |copy: &Option<Arc<DocumentMap>>| copy.as_ref().is_some_and(|it| it.len() == 1);
    until(&mut copy.clone(), "the document", has).await;

    // A user without a role, one that etcd does not have, and another site's.
    let late = Host::with(options(SITE, "late"), record(10));
    let stranger = Host::with(options(SITE, "stranger"), record(10));
    let other = Host::with(options(SITE, "yard-host"), record(10));
    for (host, user) in [(&late, "late"), (&stranger, "stranger"), (&other, "yard-host")] {
        let refused = |status: &MemberStatus| matches!(status, MemberStatus::Refused(_));
        let status = until(&mut host.member.status(), "a refusal", refused).await;
        let MemberStatus::Refused(refusal @ SiteRefusal::NoRight { .. }) = status else {
            panic!("{status:?}")
        };
        let said = refusal.to_string();
        let certificate = format!("{user}.pem");
        for named in ["/ocelli/hall/", certificate.as_str(), "permission denied"] {
            assert!(said.contains(named), "{named}: {said}");
        }
        assert_eq!(refusal.code(), "no_right");
        assert!(host.member.site().borrow().cameras.is_empty());
        let error = host.member.documents().list("token/").await.unwrap_err();
        assert_eq!(error.code(), "denied", "{error}");
    }
    let at_home = Host::with(options("yard", "yard-host"), record(10));
    at_home.is_member().await;
    assert!(at_home.member.site().borrow().cameras.is_empty());

    // Nor by other means.
    let mut raw = client_of(&etcd, &authority, "yard-host").await;
    let denied = |error: etcd_client::Error| error.to_string().contains("permission denied");
    for (key, all) in [("/ocelli/hall/token/x", false), ("/ocelli/hall/", true), ("/", true)] {
        let all = all.then(|| GetOptions::new().with_prefix());
        assert!(raw.get(key, all).await.is_err_and(denied), "{key}");
    }
    assert!(raw.put("/ocelli/hall/token/x", "mine", None).await.is_err_and(denied));
    assert!(raw.delete("/ocelli/hall/token/x", None).await.is_err_and(denied));
    let everything = WatchOptions::new().with_prefix();
    if let Ok(mut watching) = raw.watch("/ocelli/hall/", Some(everything)).await {
        let first = watching.message().await.unwrap().unwrap();
        assert!(first.canceled() && first.events().is_empty(), "{first:?}");
    }

    // With the right, the host joins by itself; without it, what it writes is refused by name.
    root.auth_client().user_grant_role("late", SITE).await.unwrap();
    late.is_member().await;
    root.auth_client().user_revoke_role("late", SITE).await.unwrap();
    let put = again(|| late.member.set_draining("late", true)).await;
    assert_eq!(put.unwrap_err().code(), "denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_missed_what_etcd_forgot_reads_all_anew() {
    let etcd = Etcd::single();
    let port = etcd.urls()[0].rsplit_once(':').unwrap().1.parse().unwrap();
    let relay = Relay::to(port).await;
    let through = [format!("http://{}", relay.address())];
    let host = Host::joined(&through, "a", record(1000)).await;
    let mut client = Client::connect(etcd.urls(), None).await.unwrap();
    let cameras = ids(40);
    for (number, id) in cameras.iter().enumerate() {
        let json = serde_json::to_vec(&camera()).unwrap();
        let put = client.put(format!("/ocelli/{SITE}/cam/{id}"), json, None).await.unwrap();
        if number % 4 == 0 {
            relay.cut();
        }
        client.compact(put.header().unwrap().revision(), None).await.unwrap();
    }
    let owned = host.owns(&cameras).await;
    let site = again(|| host.member.read_site()).await.unwrap();
    for (camera, ownership) in &owned {
        assert_eq!(site.owner(camera).unwrap().epoch, ownership.epoch);
    }
    assert!(matches!(&*host.member.status().borrow(), MemberStatus::Member { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_overwritten_only_by_who_has_seen_it() {
    let etcd = Etcd::single();
    let host = Host::start(&etcd.urls(), "a", record(10));
    let documents = host.member.documents();
    let mut copy = documents.watch("rollout/").unwrap();
    let shows = |so: &[(&str, &str)]| {
        let so: Vec<_> =
            so.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        move |copy: &Option<Arc<DocumentMap>>| {
            copy.as_ref().is_some_and(|copy| {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                copy.iter().map(|(key, it)| (key.clone(), text(&it.value))).eq(so.iter().cloned())
            })
        }
    };
    until(&mut copy, "nothing yet", shows(&[])).await;
    assert_eq!(documents.get("rollout/1").await.unwrap(), None);
    let first = documents.put("rollout/1", b"wave 1", Expect::Nothing).await.unwrap();
    let changed = documents.put("rollout/1", b"x", Expect::Nothing).await.unwrap_err();
    assert_eq!(changed, CoordError::Changed { key: "rollout/1".into() });
    let second = documents.put("rollout/1", b"wave 2", Expect::Revision(first)).await.unwrap();
    assert!(second > first);
    assert!(documents.put("rollout/1", b"x", Expect::Revision(first)).await.is_err());
    documents.put("rollout/2", b"other", Expect::Anything).await.unwrap();
    documents.put("token/1", b"elsewhere", Expect::Anything).await.unwrap();
    until(&mut copy, "both", shows(&[("rollout/1", "wave 2"), ("rollout/2", "other")])).await;
    let read = documents.get("rollout/1").await.unwrap().unwrap();
    assert_eq!((&read.value[..], read.revision), (&b"wave 2"[..], second));
    assert_eq!(documents.list("rollout/").await.unwrap().len(), 2);
    assert!(documents.delete("rollout/1", Expect::Revision(first)).await.is_err());
    assert!(documents.delete("rollout/1", Expect::Revision(second)).await.unwrap());
    assert!(!documents.delete("rollout/1", Expect::Revision(Revision(1))).await.unwrap());
    assert!(!documents.delete("rollout/1", Expect::Anything).await.unwrap());
    until(&mut copy, "one is left", shows(&[("rollout/2", "other")])).await;
    for key in ["own/cam 0", "plan", "host/a", "alone", ""] {
        let error = documents.put(key, b"", Expect::Anything).await.unwrap_err();
        assert_eq!(error.code(), "bad_key", "{key:?}");
    }
    for size in [1_800_000, 3_000_000] {
        let large = vec![b'x'; size];
        let error = documents.put("rollout/3", &large, Expect::Anything).await.unwrap_err();
        assert_eq!(error.code(), "too_large", "{size}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_of_documents_survives_etcd() {
    let mut etcd = Etcd::single();
    let host = Host::joined(&etcd.urls(), "a", record(10)).await;
    let documents = host.member.documents();
    documents.put("token/1", b"", Expect::Nothing).await.unwrap();
    let mut copy = documents.watch("token/").unwrap();
    let holds = |count: usize| {
        move |copy: &Option<Arc<DocumentMap>>| copy.as_ref().is_some_and(|it| it.len() == count)
    };
    until(&mut copy, "one", holds(1)).await;
    etcd.kill(0);
    etcd.run(0);
    etcd.await_ready();
    let put = async {
        while documents.put("token/2", b"", Expect::Nothing).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, put).await.unwrap();
    until(&mut copy, "two", holds(2)).await;
    assert!(documents.delete("token/1", Expect::Anything).await.unwrap());
    until(&mut copy, "one again", holds(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_owner_says_what_a_camera_last_ran() {
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let a = Host::joined(&urls, "a", record(10)).await;
    let b = Host::joined(&urls, "b", record(10)).await;
    a.put(&ids(1)).await;
    let id = &ids(1)[0];
    again(|| a.member.move_camera(id, Some("a"))).await.unwrap();
    let epoch = a.owns(&ids(1)).await[id].epoch;
    let key = format!("dep/{id}");
    again(|| a.member.put_owned(id, epoch, &key, b"v1")).await.unwrap();
    let refused = CoordError::NotOwner { camera: id.clone(), epoch };
    assert_eq!(again(|| b.member.put_owned(id, epoch, &key, b"no")).await, Err(refused.clone()));
    let other = a.member.put_owned(id, Epoch(epoch.0 + 1), &key, b"no").await.unwrap_err();
    assert_eq!(other.code(), "not_owner");
    again(|| a.member.move_camera(id, Some("b"))).await.unwrap();
    let later = b.owns(&ids(1)).await[id].epoch;
    assert_eq!(again(|| a.member.put_owned(id, epoch, &key, b"no")).await, Err(refused.clone()));
    // Not even its own camera, with the epoch of before.
    assert_eq!(a.member.release(id, epoch).await, Err(refused));
    again(|| b.member.put_owned(id, later, &key, b"v2")).await.unwrap();
    let read = a.member.documents().get(&key).await.unwrap().unwrap();
    assert_eq!(&read.value[..], b"v2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_a_fence_refused_is_claimed_anew() {
    let etcd = Etcd::single();
    let host = Host::joined(&etcd.urls(), "a", record(10)).await;
    host.put(&ids(1)).await;
    let id = &ids(1)[0];
    let epoch = host.owns(&ids(1)).await[id].epoch;
    host.member.relinquish(id, epoch).await;
    assert!(!host.member.may_speak(id, epoch));
    let later = |owned: &Arc<
        std::collections::BTreeMap<String, ocelli_cluster::member::Ownership>,
    >| { owned.get(id).is_some_and(|owned| owned.epoch > epoch) };
    until(&mut host.member.owned(), "a later epoch", later).await;
    audit(&etcd.urls()).await;
}

/// A seed that failed can be given in `COORD_SEED`.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_nobody_speaks_twice_and_all_is_owned_in_the_end() {
    let seed = std::env::var("COORD_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| Random::new().u64(..));
    println!("COORD_SEED={seed}");
    let mut random = Random::with_seed(seed);
    let etcd = Etcd::single();
    let urls = etcd.urls();
    let listener = Listener::start();
    let mut hosts = Vec::new();
    for id in ["a", "b", "c", "d"] {
        hosts.push(Host::joined(&urls, id, record(20)).await);
        listener.hear(hosts.last().unwrap());
    }
    let cameras = ids(12);
    hosts[0].put(&cameras).await;
    for _ in 0..8 {
        let which = random.usize(..hosts.len());
        let (id, any) = (hosts[which].id.clone(), random.choice(&cameras).unwrap().clone());
        let action = random.usize(..7);
        println!("{action} {id} {any:?}");
        match action {
            0 | 1 => {
                let host = hosts.swap_remove(which);
                listener.forget(&host);
                if action == 0 {
                    host.die().await;
                } else {
                    host.member.leave(Duration::from_secs(2)).await;
                }
                hosts.push(Host::start(&urls, &id, record(20)));
                listener.hear(hosts.last().unwrap());
            }
            2 => drop(hosts[0].member.set_draining(&id, random.bool()).await),
            3 => drop(hosts[0].member.move_camera(&any, Some(&id)).await),
            4 => {
                // The scenario itself: sometimes longer than a lease.
                etcd.pause(0, true);
                tokio::time::sleep(Duration::from_millis(random.u64(300..6000))).await;
                etcd.pause(0, false);
            }
            5 => {
                let _ = hosts[0].member.remove_camera(&any).await;
                put_camera(&hosts[0].member, &any).await;
            }
            _ => {
                if let Some((camera, ownership)) = hosts[which].owned().into_iter().next() {
                    hosts[which].member.relinquish(&camera, ownership.epoch).await;
                }
            }
        }
        if random.bool() {
            for host in &hosts {
                host.is_member().await;
            }
        }
    }
    for host in &hosts {
        host.is_member().await;
        again(|| hosts[0].member.set_draining(&host.id, false)).await.unwrap();
    }
    hosts[0].put(&cameras).await;
    all_owned(&hosts.iter().collect::<Vec<_>>(), &cameras).await;
    assert!(listener.end() > 0);
    audit(&urls).await;
}
