//! A camera's events are one chain, through all its owners.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ocelli_cluster::Epoch;
use ocelli_cluster::streams::names::stream_of;
use ocelli_cluster::streams::{StateChange, StreamError, StreamLimits, TAKEOVER};
use ocelli_testkit::{Nats, Random, Relay};

use crate::*;

#[tokio::test(flavor = "multi_thread")]
async fn events_are_numbered_without_a_gap_through_owners() {
    let Some(nats) = Nats::single() else { return };
    let (a, b) = (host(&nats, "a").await, host(&nats, "b").await);
    let camera = "yard 1.north";

    let mut chain = a.take_over(camera, Epoch(5), 0, 77).await.unwrap();
    assert_eq!(chain.seq(), 1);
    more(&a, &mut chain, "a", 1).await;
    // More than one batch.
    more(&a, &mut chain, "a", 600).await;
    a.append(&mut chain, &[]).await.unwrap();
    let mut next = b.take_over(camera, Epoch(9), 0, 78).await.unwrap();
    assert_eq!(next.seq(), 603);
    more(&b, &mut next, "b", 2).await;

    let found = all(&a, camera, 1000).await;
    assert_eq!(found.len(), 605);
    assert_chain(&found, 1);
    let first = &found[0];
    assert_eq!((first.kind.as_str(), first.time_ms, &*first.host), (TAKEOVER, 77, "a"));
    assert_eq!(&*first.body, r#"{"from_epoch":null,"from_host":null}"#);
    assert_eq!(&*found[602].body, r#"{"from_epoch":5,"from_host":"a"}"#);
    assert_eq!((&*found[1].body, found[1].time_ms), (r#"{"n":2}"#, 1_002));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_of_a_lower_epoch_can_write_nothing() {
    let Some(nats) = Nats::single() else { return };
    let (a, b) = (host(&nats, "a").await, host(&nats, "b").await);
    let mut old = a.take_over("door", Epoch(5), 0, 0).await.unwrap();
    more(&a, &mut old, "a", 3).await;
    a.put_session_state(&old, "{}").await.unwrap();
    let new = b.take_over("door", Epoch(6), 0, 0).await.unwrap();
    let before = (all(&b, "door", 100).await, b.load("door").await.unwrap());

    for count in [1, 2] {
        let late = events(&old, "a", count);
        assert_fenced(a.append(&mut old, &late).await, 6);
    }
    let change = StateChange { bucket: "b".into(), key: "k".into(), value: Some("v".into()) };
    assert_fenced(a.put_state(&old, vec![change]).await, 6);
    assert_fenced(a.put_snapshot(&old, "state".into()).await, 6);
    assert_fenced(a.put_session_state(&old, "{}").await, 6);
    assert_fenced(a.take_over("door", Epoch(5), 0, 0).await, 6);
    // The same epoch at another host, which etcd never gives.
    assert_fenced(a.take_over("door", Epoch(6), 0, 0).await, 6);
    assert_eq!((all(&b, "door", 100).await, b.load("door").await.unwrap()), before);
    assert_eq!(new.seq(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_out_of_order_are_refused_before_they_are_sent() {
    let Some(nats) = Nats::single() else { return };
    let a = host(&nats, "a").await;
    let mut chain = a.take_over("door", Epoch(5), 0, 0).await.unwrap();
    let good = events(&chain, "a", 3);
    for bad in [&good[1..], &[good[0].clone(), good[2].clone()]] {
        assert_eq!(a.append(&mut chain, bad).await.unwrap_err().code(), "order");
    }
    let other = EventRecord { epoch: Epoch(6), ..good[0].clone() };
    assert_eq!(a.append(&mut chain, &[other]).await.unwrap_err().code(), "order");
    let large = EventRecord { body: "x".repeat(1 << 20).into(), ..good[0].clone() };
    assert_eq!(a.append(&mut chain, &[large]).await.unwrap_err().code(), "too_large");
    a.append(&mut chain, &good).await.unwrap();
    assert_chain(&all(&a, "door", 100).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_epoch_goes_on_where_it_was() {
    let Some(nats) = Nats::single() else { return };
    let a = host(&nats, "a").await;
    let mut chain = a.take_over("door", Epoch(5), 0, 0).await.unwrap();
    more(&a, &mut chain, "a", 2).await;
    let mut again = a.take_over("door", Epoch(5), 0, 0).await.unwrap();
    assert_eq!((again.seq(), again.place()), (chain.seq(), chain.place()));
    more(&a, &mut again, "a", 1).await;

    // What the first one has not seen arrive: the same event is taken as arrived, another is not.
    let same = events(&chain, "a", 2);
    a.append(&mut chain, &same).await.unwrap();
    let mut other = events(&again, "a", 1);
    other[0].body = "{}".into();
    assert!(matches!(
        a.append(&mut again, &other).await,
        Err(StreamError::Diverged { seq: 5, .. })
    ));
    assert_chain(&all(&a, "door", 100).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_go_on_when_all_events_have_aged_out() {
    let Some(nats) = Nats::single() else { return };
    let short = StreamLimits { max_age: Duration::from_secs(1), ..limits() };
    let (a, b) =
        (host_with(&nats, "a", short.clone()).await, host_with(&nats, "b", short.clone()).await);
    let aged_out = async || {
        within(async {
            while !all(&b, "door", 10).await.is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    let mut chain = a.take_over("door", Epoch(1), 0, 0).await.unwrap();
    more(&a, &mut chain, "a", 4).await;
    aged_out().await;
    more(&a, &mut chain, "a", 1).await;
    assert_eq!((chain.seq(), all(&a, "door", 10).await[0].seq), (6, 6));

    // A session's state knows the number of the last event.
    a.put_session_state(&chain, "{}").await.unwrap();
    aged_out().await;
    let mut next = b.take_over("door", Epoch(2), 3, 0).await.unwrap();
    assert_eq!(next.seq(), 7);
    // An empty subject refuses nobody: `own` does.
    aged_out().await;
    let late = events(&chain, "a", 1);
    assert_fenced(a.append(&mut chain, &late).await, 2);
    assert!(all(&a, "door", 10).await.is_empty());
    more(&b, &mut next, "b", 1).await;
    aged_out().await;
    // Whoever follows knows more than the streams do.
    assert_eq!(a.take_over("door", Epoch(3), 8, 0).await.unwrap().seq(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_whose_answers_are_lost_are_neither_lost_nor_doubled() {
    let Some(nats) = Nats::single() else { return };
    let port = nats.urls()[0].rsplit(':').next().unwrap().parse().unwrap();
    let relay = Relay::to(port).await;
    let through = options(vec![format!("nats://{}", relay.address())], "a");
    let a = Streams::connect(&through, limits()).await.unwrap();
    within(a.ready()).await;

    let cameras = ["door", "yard", "gate"];
    let enough = Arc::new(AtomicBool::new(false));
    let appending = cameras.map(|camera| {
        let (a, enough) = (a.clone(), enough.clone());
        tokio::spawn(async move {
            let mut chain = take_over(&a, camera, 1).await;
            for round in 0.. {
                let next = events(&chain, "a", 1 + round % 4);
                append(&a, &mut chain, &next).await;
                if enough.load(Ordering::Relaxed) {
                    break;
                }
            }
            chain.seq()
        })
    });
    let cutting = async {
        let mut random = Random::with_seed(7);
        while relay.connections() < 8 {
            tokio::time::sleep(Duration::from_millis(random.u64(20..120))).await;
            relay.cut();
        }
        enough.store(true, Ordering::Relaxed);
    };
    let (ends, ()) =
        within(futures_util::future::join(futures_util::future::join_all(appending), cutting))
            .await;
    let direct = host(&nats, "b").await;
    for (camera, end) in cameras.iter().zip(ends) {
        let found = all(&direct, camera, 1000).await;
        assert_chain(&found, 1);
        assert_eq!(found.last().unwrap().seq, end.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_what_reading_everything_gives() {
    let Some(nats) = Nats::single() else { return };
    let a = host_with(&nats, "a", StreamLimits { streams: 1, ..limits() }).await;
    let mut random = Random::with_seed(3);
    let cameras = ["door", "yard", "gate"];
    let mut chains = Vec::new();
    for (camera, floor) in cameras.iter().zip([0, 500, 7]) {
        assert_eq!(stream_of(camera, 1), 0);
        chains.push(a.take_over(camera, Epoch(1), floor, 0).await.unwrap());
    }
    for _ in 0..120 {
        // Now and then one camera alone.
        let chain = &mut chains[random.usize(0..3) * random.usize(0..2)];
        more(&a, chain, "a", random.u64(1..30)).await;
    }
    for (chain, floor) in chains.iter().zip([0, 500, 7]) {
        let everything = all(&a, chain.camera(), 1000).await;
        assert_chain(&everything, floor + 1);
        assert_eq!(everything.last().unwrap().seq, chain.seq());
        for _ in 0..60 {
            let (after, limit) = (random.u64(0..chain.seq() + 3), random.usize(1..40));
            let page = a.page(chain.camera(), after, limit).await.unwrap();
            let found: Vec<_> = page.events.into_iter().map(|stored| stored.record).collect();
            let wanted: Vec<_> =
                everything.iter().filter(|event| event.seq > after).take(limit).cloned().collect();
            assert_eq!(found, wanted, "{} after {after}, {limit}", chain.camera());
            let rest = everything.iter().filter(|event| event.seq > after).count();
            assert_eq!(page.more, rest > limit);
        }
    }
    assert!(a.page("nobody", 0, 10).await.unwrap().events.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_take_a_camera_from_each_other_make_one_chain() {
    let Some(nats) = Nats::single() else { return };
    let watcher = host(&nats, "watcher").await;
    let mut follower = watcher.follow(Positions::default());
    let epochs = Arc::new(AtomicU64::new(0));
    let owners = ["a", "b", "c"].map(|name| {
        let (nats_urls, epochs) = (nats.urls(), Arc::clone(&epochs));
        tokio::spawn(async move {
            let streams = Streams::connect(&options(nats_urls, name), limits()).await.unwrap();
            within(streams.ready()).await;
            let mut random = Random::with_seed(u64::from(name.as_bytes()[0]));
            let mut acknowledged = Vec::new();
            for _ in 0..20 {
                let epoch = epochs.fetch_add(1, Ordering::SeqCst) + 1;
                let mut chain = match streams.take_over("door", Epoch(epoch), 0, 0).await {
                    Ok(chain) => chain,
                    // Somebody of a later one was faster.
                    Err(StreamError::Fenced { .. }) => continue,
                    Err(error) => panic!("{error}"),
                };
                for _ in 0..random.usize(1..8) {
                    let next = events(&chain, name, random.u64(1..40));
                    match streams.append(&mut chain, &next).await {
                        Ok(()) => acknowledged.extend(next),
                        Err(StreamError::Fenced { .. }) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            acknowledged
        })
    });
    let acknowledged = futures_util::future::join_all(owners).await;
    let found = all(&watcher, "door", 700).await;
    assert_chain(&found, 1);
    assert!(found.iter().filter(|event| event.kind == TAKEOVER).count() > 20);
    for event in acknowledged.into_iter().flat_map(Result::unwrap) {
        assert_eq!(found[usize::try_from(event.seq).unwrap() - 1], event);
    }
    // Somebody who watched has seen the same.
    let mut seen = Vec::new();
    within(async {
        while seen.len() < found.len() {
            if let Followed::Event { record, .. } = follower.next().await {
                seen.push(record);
            }
        }
    })
    .await;
    assert!(seen == found);
}
