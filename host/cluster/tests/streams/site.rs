//! How a site's streams come to be.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use ocelli_cluster::Epoch;
use ocelli_cluster::streams::{StreamHealth, StreamLimits};
use ocelli_testkit::Nats;

use crate::*;

async fn context(nats: &Nats) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(nats.urls().join(",")).await.unwrap())
}

/// Why the streams cannot be used, once it is `code`.
async fn down(streams: &Streams, code: &str) -> StreamError {
    let mut health = streams.health();
    let down = within(
        health
            .wait_for(|health| matches!(health, StreamHealth::Down(error) if error.code() == code)),
    )
    .await;
    match &*down.unwrap() {
        StreamHealth::Down(error) => error.clone(),
        StreamHealth::Ready => unreachable!(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_make_and_update_the_streams_together() {
    let Some(nats) = Nats::single() else { return };
    // At the same time.
    let names = ["a", "b", "c", "d"];
    let hosts = futures_util::future::join_all(names.map(|name| host(&nats, name))).await;
    for (host, camera) in hosts.iter().zip(["1", "2", "3", "4"]) {
        host.take_over(camera, Epoch(1), 0, 0).await.unwrap();
    }
    // Another number of streams would read other ones: the site's counts. The rest is updated.
    let other = StreamLimits {
        streams: 5,
        max_age: Duration::from_secs(3600),
        max_bytes: 10_000_000,
        max_msgs_per_subject: 1000,
        picture_age: Duration::from_secs(60),
        picture_bytes: 1 << 20,
        replicas: 1,
    };
    let e = host_with(&nats, "e", other).await;
    for camera in ["1", "2", "3", "4"] {
        assert_eq!(all(&e, camera, 10).await.len(), 1);
    }
    let context = context(&nats).await;
    let config = context.get_stream("OCELLI_hall_EV_1").await.unwrap().cached_info().config.clone();
    assert_eq!(config.max_age, Duration::from_secs(3600));
    assert_eq!((config.max_bytes, config.max_messages_per_subject), (10_000_000, 1000));
    assert!(context.get_stream("OCELLI_hall_EV_2").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_sites_is_left_alone() {
    let Some(nats) = Nats::single() else { return };
    let context = context(&nats).await;
    let subjects = vec!["hall.st.>".to_owned()];
    let foreign = Config { name: "mine".to_owned(), subjects, ..Default::default() };
    context.create_stream(foreign).await.unwrap();
    let a = Streams::connect(&options(nats.urls(), "a"), limits()).await.unwrap();
    // The subjects are taken.
    assert!(down(&a, "refused").await.to_string().contains("overlap"));
    assert_eq!(a.take_over("door", Epoch(1), 0, 0).await.unwrap_err().code(), "refused");
    context.delete_stream("mine").await.unwrap();
    within(a.ready()).await;

    let named = Config { name: "OCELLI_yard_ST".to_owned(), ..Default::default() };
    context.create_stream(named).await.unwrap();
    let yard = SiteOptions { site: "yard".to_owned(), ..options(nats.urls(), "a") };
    let b = Streams::connect(&yard, limits()).await.unwrap();
    assert!(down(&b, "not_ours").await.to_string().contains("OCELLI_yard_ST"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sites_of_one_account_see_nothing_of_each_other() {
    let Some(nats) = Nats::single() else { return };
    let a = host(&nats, "a").await;
    let yard = SiteOptions { site: "yard".to_owned(), ..options(nats.urls(), "a") };
    let b = Streams::connect(&yard, limits()).await.unwrap();
    within(b.ready()).await;
    a.take_over("door", Epoch(9), 0, 0).await.unwrap();
    assert_eq!(b.take_over("door", Epoch(1), 0, 0).await.unwrap().seq(), 1);
    assert_eq!(all(&a, "door", 10).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_later_is_waited_for() {
    let Some(mut nats) = Nats::single() else { return };
    nats.kill(0);
    let a = Streams::connect(&options(nats.urls(), "a"), limits()).await.unwrap();
    let error = within(async {
        let mut health = a.health();
        let refused = |health: &StreamHealth| format!("{health:?}").contains("refused");
        health.wait_for(refused).await.unwrap();
        a.take_over("door", Epoch(1), 0, 0).await.unwrap_err()
    })
    .await;
    assert_eq!(error.code(), "unavailable");
    // Following may begin before there is anything.
    let (mut follower, mut states) = (a.follow(Positions::default()), a.follow_states());
    nats.run(0);
    within(a.ready()).await;
    let chain = a.take_over("door", Epoch(1), 0, 0).await.unwrap();
    a.put_session_state(&chain, "{}").await.unwrap();
    within(async {
        while !matches!(follower.next().await, Followed::Event { .. }) {}
        states.next().await
    })
    .await;
    for (url, host) in [("::", "a"), ("nats://127.0.0.1:1", "A")] {
        let refused = Streams::connect(&options(vec![url.to_owned()], host), limits()).await;
        assert_eq!(refused.err().map(|error| error.code()), Some("options"), "{url} {host}");
    }
    assert!(Streams::connect(&options(Vec::new(), "a"), limits()).await.is_err());
}
