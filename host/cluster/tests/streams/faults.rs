//! Rights, certificates and room that are missing have names.

use bytes::Bytes;
use ocelli_cluster::streams::{StateChange, StreamHealth};
use ocelli_cluster::{Epoch, SiteTls};
use ocelli_testkit::{
    Authority, EnginePlace, Nats, NatsAccount, NatsSettings, NatsUser, small_disk::SmallDisk,
};
use tempfile::TempDir;

use crate::*;

/// One server that asks for certificates of an authority, with these users.
fn secured(users: Vec<NatsUser>) -> Option<(Nats, Authority, TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let accounts = [NatsAccount { name: "hall".to_owned(), users }];
    let settings =
        NatsSettings { authority: Some(&authority), accounts: &accounts, ..Default::default() };
    let nats = Nats::start(&[EnginePlace::loopback()], settings)?;
    Some((nats, authority, folder))
}

/// A host's options with a certificate of this common name.
fn with_tls(nats: &Nats, ca: &Authority, signer: &Authority, name: &str) -> SiteOptions {
    let signed = signer.sign(name, &[name]);
    let tls = SiteTls { ca: ca.file(), certificate: signed.certificate, key: signed.key };
    SiteOptions { tls: Some(tls), ..options(nats.urls(), name) }
}

async fn down(streams: &Streams, wanted: impl Fn(&StreamError) -> bool) -> StreamError {
    let mut health = streams.health();
    let is = |health: &StreamHealth| matches!(health, StreamHealth::Down(error) if wanted(error));
    match &*within(health.wait_for(is)).await.unwrap() {
        StreamHealth::Down(error) => error.clone(),
        StreamHealth::Ready => unreachable!(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_named() {
    let reader = NatsUser {
        publish: vec!["$JS.API.>".to_owned(), "hall.st.*.own".to_owned()],
        ..NatsUser::new("reader")
    };
    let guest = NatsUser { publish: vec!["nothing".to_owned()], ..NatsUser::new("guest") };
    let Some((nats, authority, _folder)) = secured(vec![NatsUser::new("a"), reader, guest]) else {
        return;
    };
    let connect = async |name| {
        let options = with_tls(&nats, &authority, &authority, name);
        Streams::connect(&options, limits()).await.unwrap()
    };
    let a = connect("a").await;
    within(a.ready()).await;
    let chain = a.take_over("door", Epoch(1), 0, 0).await.unwrap();

    // It may read, and own a camera; it may not append, nor write state, nor put an object.
    let reader = connect("reader").await;
    within(reader.ready()).await;
    assert_eq!(all(&reader, "door", 10).await.len(), 1);
    let error = reader.take_over("door", Epoch(2), 0, 0).await.unwrap_err();
    assert_eq!(error.code(), "not_allowed");
    assert!(error.to_string().contains("publish to hall.ev."), "{error}");
    assert_fenced(a.put_session_state(&chain, "{}").await, 2);
    let error = reader.put_object(Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(error.code(), "not_allowed");

    // This one may not even ask.
    let guest = connect("guest").await;
    let error = down(&guest, |error| error.code() == "not_allowed").await;
    assert!(error.to_string().contains("$JS.API.STREAM.INFO"), "{error}");
    assert_eq!(guest.page("door", 0, 1).await.unwrap_err().code(), "not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_certificate_is_named() {
    let Some((nats, authority, _folder)) = secured(vec![NatsUser::new("a")]) else { return };
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Authority::new(elsewhere.path());
    // The server is not one of ours; we are not one of its.
    for (ca, signer) in [(&other, &authority), (&authority, &other)] {
        let streams = Streams::connect(&with_tls(&nats, ca, signer, "a"), limits()).await.unwrap();
        let error = down(&streams, |error| error.code() == "certificate").await;
        assert_eq!(streams.page("door", 0, 1).await.unwrap_err().code(), "certificate", "{error}");
    }
    // A certificate of somebody whom the server does not know.
    let options = with_tls(&nats, &authority, &authority, "nobody");
    let nobody = Streams::connect(&options, limits()).await.unwrap();
    down(&nobody, |error| error.code() == "not_allowed").await;
    // No certificate at all.
    let urls = nats.urls().iter().map(|url| url.replace("tls://", "nats://")).collect();
    let plain = Streams::connect(&options_of(urls), limits()).await.unwrap();
    down(&plain, |error| error.code() == "certificate").await;
    // A file that is not there.
    let mut missing = with_tls(&nats, &authority, &authority, "a");
    missing.tls.as_mut().unwrap().key = elsewhere.path().join("none");
    assert_eq!(Streams::connect(&missing, limits()).await.err().unwrap().code(), "options");
}

fn options_of(urls: Vec<String>) -> SiteOptions {
    options(urls, "a")
}

/// A server reserves the bytes of a stream with a bound, and refuses one that it has no room for.
fn few_pictures() -> StreamLimits {
    StreamLimits { picture_bytes: 1 << 20, ..limits() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_jetstream_is_named() {
    let settings = NatsSettings { jetstream: "max_file_store: 3MB", ..Default::default() };
    let Some(nats) = Nats::start(&[EnginePlace::loopback()], settings) else { return };
    let a = host_with(&nats, "a", few_pictures()).await;
    let mut chain = a.take_over("door", Epoch(1), 0, 0).await.unwrap();
    let body = "x".repeat(400_000);
    let full = within(async {
        loop {
            let mut event = events(&chain, "a", 1);
            event[0].body = body.as_str().into();
            match a.append(&mut chain, &event).await {
                Ok(()) => {}
                Err(error) => return error,
            }
        }
    })
    .await;
    assert_eq!(full.code(), "full", "{full}");
    let value = Some(Bytes::from(body.clone()));
    let changes = ["1", "2"].map(|key| StateChange {
        bucket: "b".to_owned(),
        key: key.to_owned(),
        value: value.clone(),
    });
    assert_eq!(a.put_state(&chain, changes.to_vec()).await.unwrap_err().code(), "full");
    let object = Bytes::from(body.clone().into_bytes());
    assert_eq!(a.put_object(object).await.unwrap_err().code(), "full");
    // What was acknowledged is there, and reading goes on.
    assert_eq!(all(&a, "door", 100).await.last().unwrap().seq, chain.seq());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_suspected_and_one_with_room_again_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), 16 << 10) else { return };
    let place = EnginePlace { folder: Some(folder.path().join("nats")), ..EnginePlace::loopback() };
    let Some(mut nats) = Nats::start(&[place], NatsSettings::default()) else { return };
    let a = host_with(&nats, "a", few_pictures()).await;
    let mut chain = a.take_over("door", Epoch(1), 0, 0).await.unwrap();
    disk.fill();
    let mut event = events(&chain, "a", 1);
    event[0].body = "x".repeat(100_000).into();
    let appending = tokio::spawn({
        let a = a.clone();
        async move {
            append(&a, &mut chain, &event).await;
            chain
        }
    });
    // The server answers nothing that it cannot write.
    down(&a, |error| error.to_string().contains("a full disk?")).await;
    disk.free();
    // It writes to that stream again when it has been started again.
    nats.stop(0);
    nats.run(0);
    let chain = appending.await.unwrap();
    assert_eq!(chain.seq(), 2);
    assert_chain(&all(&a, "door", 10).await, 1);
    within(a.ready()).await;
}
