//! What is kept beside a camera's events.

use bytes::Bytes;
use ocelli_cluster::Epoch;
use ocelli_cluster::streams::{Digest, MAX_CHANGES, StateChange, StateEntry, StreamOwner};
use ocelli_testkit::Nats;

use crate::*;

fn change(bucket: &str, key: &str, value: Option<&str>) -> StateChange {
    let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    StateChange { bucket: bucket.to_owned(), key: key.to_owned(), value }
}

fn entry(bucket: &str, key: &str, value: &str) -> StateEntry {
    let value = Bytes::copy_from_slice(value.as_bytes());
    StateEntry { bucket: bucket.to_owned(), key: key.to_owned(), value }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_change_together_and_survive_their_owner() {
    let Some(nats) = Nats::single() else { return };
    let (a, b) = (host(&nats, "a").await, host(&nats, "b").await);
    assert_eq!(a.load("door").await.unwrap(), Default::default());
    let chain = a.take_over("door", Epoch(1), 0, 0).await.unwrap();
    let other = a.take_over("door 2", Epoch(2), 0, 0).await.unwrap();
    a.put_state(&other, vec![change("faces", "x", Some("y"))]).await.unwrap();

    let first = vec![
        change("faces", "anna.*", Some("1")),
        change("faces", "", Some("2")),
        change("zones", "über >", Some("")),
    ];
    a.put_state(&chain, first).await.unwrap();
    a.put_state(&chain, vec![change("faces", "", None)]).await.unwrap();
    a.put_state(&chain, vec![change("faces", "anna.*", Some("3")), change("new", "k", Some("4"))])
        .await
        .unwrap();
    a.put_state(&chain, Vec::new()).await.unwrap();

    let wanted =
        vec![entry("faces", "anna.*", "3"), entry("new", "k", "4"), entry("zones", "über >", "")];
    let next = b.take_over("door", Epoch(3), 0, 0).await.unwrap();
    let state = b.load("door").await.unwrap();
    assert_eq!(state.entries, wanted);
    assert_eq!(state.owner, Some(StreamOwner { epoch: Epoch(3), host: "b".to_owned() }));

    // A refused batch leaves nothing behind.
    let late = vec![change("faces", "anna.*", None), change("late", "k", Some("5"))];
    assert_fenced(a.put_state(&chain, late).await, 3);
    assert_eq!(b.load("door").await.unwrap().entries, wanted);
    b.put_state(&next, vec![change("new", "k", None)]).await.unwrap();
    assert_eq!(b.load("door").await.unwrap().entries.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_a_bound_and_many_are_written_at_once() {
    let Some(nats) = Nats::single() else { return };
    let a = host(&nats, "a").await;
    let chain = a.take_over("door", Epoch(1), 0, 0).await.unwrap();
    let many = |count: usize, value: &str| -> Vec<StateChange> {
        (0..count).map(|n| change("b", &n.to_string(), Some(value))).collect()
    };
    let error = a.put_state(&chain, many(MAX_CHANGES + 1, "v")).await.unwrap_err();
    assert_eq!(error.code(), "too_large");
    // The server would end the connection.
    for change in
        [change("b", &".".repeat(1000), None), change("b", "k", Some(&"v".repeat(1 << 20)))]
    {
        let error = a.put_state(&chain, vec![change]).await.unwrap_err();
        assert_eq!(error.code(), "too_large");
    }
    a.put_state(&chain, many(MAX_CHANGES, "v")).await.unwrap();
    // More than one page, and writers that do not wait for each other.
    let writers = (0..8).map(|n| {
        let (a, fence) = (a.clone(), chain.fence());
        async move {
            a.put_state(&fence, vec![change("more", &n.to_string(), Some("v"))]).await?;
            a.put_snapshot(&fence, "s".into()).await?;
            a.put_session_state(&fence, "{}").await
        }
    });
    for written in futures_util::future::join_all(writers).await {
        written.unwrap();
    }
    assert_eq!(a.load("door").await.unwrap().entries.len(), MAX_CHANGES + 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_any_size_comes_back() {
    let Some(nats) = Nats::single() else { return };
    let (a, b) = (host(&nats, "a").await, host(&nats, "b").await);
    let mut chain = a.take_over("door", Epoch(1), 0, 0).await.unwrap();
    let large = |byte: u8| Bytes::from(vec![byte; 2_500_000]);
    for (bytes, seq) in
        [(Bytes::from("small"), 2), (large(1), 3), (large(2), 4), (large(2), 5), (Bytes::new(), 6)]
    {
        more(&a, &mut chain, "a", 1).await;
        a.put_snapshot(&chain, bytes.clone()).await.unwrap();
        let snapshot = b.load("door").await.unwrap().snapshot.unwrap();
        assert_eq!((snapshot.epoch, snapshot.seq), (Epoch(1), seq));
        assert!(snapshot.bytes == bytes, "{} bytes", snapshot.bytes.len());
    }
    // The object of one that was replaced takes no room.
    assert_eq!(objects(&nats).await, 0);
    a.put_snapshot(&chain, large(3)).await.unwrap();
    let next = b.take_over("door", Epoch(2), 0, 0).await.unwrap();
    assert!(b.load("door").await.unwrap().snapshot.unwrap().bytes == large(3));
    b.put_snapshot(&next, "small".into()).await.unwrap();
    assert_eq!(objects(&nats).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_nobody_can_read_is_none_and_keeps_nothing_else_back() {
    let Some(nats) = Nats::single() else { return };
    let a = host(&nats, "a").await;
    let chain = a.take_over("door", Epoch(1), 0, 0).await.unwrap();
    a.put_state(&chain, vec![change("b", "k", Some("v"))]).await.unwrap();
    a.put_snapshot(&chain, "state".into()).await.unwrap();
    let client = async_nats::connect(nats.urls().join(",")).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let subject = format!("{SITE}.st.door.snap");
    context.publish(subject, "of nobody".into()).await.unwrap().await.unwrap();
    let state = a.load("door").await.unwrap();
    assert_eq!((state.snapshot, state.entries), (None, vec![entry("b", "k", "v")]));
    a.put_snapshot(&chain, "next".into()).await.unwrap();
    assert_eq!(a.load("door").await.unwrap().snapshot.unwrap().bytes, "next");
}

/// Chunks of objects that the site holds.
async fn objects(nats: &Nats) -> u64 {
    let client = async_nats::connect(nats.urls().join(",")).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let stream = context.get_stream(format!("OBJ_OCELLI_{SITE}")).await.unwrap();
    let mut chunks = 0;
    let subjects = format!("$O.OCELLI_{SITE}.C.>");
    let mut found = stream.info_with_subjects(subjects).await.unwrap();
    while let Some(subject) = futures_util::StreamExt::next(&mut found).await {
        chunks += u64::try_from(subject.unwrap().1).unwrap();
    }
    chunks
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_what_its_digest_says() {
    let Some(nats) = Nats::single() else { return };
    let (a, b) = (host(&nats, "a").await, host(&nats, "b").await);
    let bytes = Bytes::from((0..700_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    let digest = a.put_object(bytes.clone()).await.unwrap();
    assert_eq!(digest, Digest::of(&bytes));
    let held = objects(&nats).await;
    assert_eq!(b.put_object(bytes.clone()).await.unwrap(), digest);
    assert_eq!(objects(&nats).await, held, "it is stored once");
    assert!(b.get_object(digest, bytes.len()).await.unwrap() == bytes);
    let mut written = Vec::new();
    let size = b.get_object_into(digest, &mut written).await.unwrap();
    assert!(written == bytes && size == 2_800_000);
    assert_eq!(b.get_object(digest, 1000).await.unwrap_err().code(), "too_large");

    let unknown = Digest::of(b"unknown");
    assert_eq!(b.get_object(unknown, 1000).await.unwrap_err().code(), "not_found");
    let wrong = a.put_object_from(unknown, &mut &b"other"[..]).await;
    assert_eq!(wrong.unwrap_err().code(), "damaged");
    assert_eq!(b.get_object(unknown, 1000).await.unwrap_err().code(), "not_found");
    a.put_object_from(Digest::of(b"right"), &mut &b"right"[..]).await.unwrap();
    assert_eq!(&b.get_object(Digest::of(b"right"), 5).await.unwrap()[..], b"right");
    let empty = a.put_object(Bytes::new()).await.unwrap();
    assert!(b.get_object(empty, 0).await.unwrap().is_empty());

    // Somebody writes something else under its name.
    let client = async_nats::connect(nats.urls().join(",")).await.unwrap();
    let store = async_nats::jetstream::new(client);
    let store = store.get_object_store(format!("OCELLI_{SITE}")).await.unwrap();
    store.put(digest.to_string().as_str(), &mut &b"something else"[..]).await.unwrap();
    assert_eq!(b.get_object(digest, 1000).await.unwrap_err().code(), "damaged");
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_make_room_for_newer_ones_and_objects_do_not() {
    let Some(nats) = Nats::single() else { return };
    let few = StreamLimits { picture_bytes: 300_000, ..limits() };
    let a = host_with(&nats, "a", few).await;
    let picture = |number: u8| Bytes::from(vec![number; 100_000]);
    let object = a.put_object(picture(0)).await.unwrap();
    for number in 0..6 {
        a.put_picture(picture(number)).await.unwrap();
    }
    let newest = Digest::of(&picture(5));
    assert_eq!(a.get_picture(newest, 1 << 20).await.unwrap(), picture(5));
    let oldest = a.get_picture(Digest::of(&picture(0)), 1 << 20).await.unwrap_err();
    assert!(["not_found", "damaged"].contains(&oldest.code()), "{oldest}");
    assert_eq!(a.get_object(object, 1 << 20).await.unwrap(), picture(0));
}
