//! How long things take: `cargo test -p ocelli-cluster --test streams -- --ignored --nocapture`.

use std::time::Instant;

use bytes::Bytes;
use ocelli_cluster::Epoch;
use ocelli_cluster::streams::{StateChange, StreamLimits};
use ocelli_testkit::{Nats, Random};

use crate::*;

/// Median and 99th percentile, and how often.
fn told(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: f64| {
        let last = times.len() - 1;
        times[(last as f64 * part) as usize].as_secs_f64() * 1e3
    };
    println!("{what}: p50 {:.2} ms, p99 {:.2} ms ({})", at(0.5), at(0.99), times.len());
}

/// Times of the calls, one after the other.
async fn each<F: Future>(count: usize, mut call: impl FnMut(usize) -> F) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let begun = Instant::now();
        call(number).await;
        times.push(begun.elapsed());
    }
    times
}

async fn measure(nats: &Nats, replicas: u8) {
    println!("--- replicas: {replicas}");
    let limits = StreamLimits { replicas, streams: 1, ..limits() };
    let a = host_with(nats, "a", limits).await;
    let times = each(200, |number| {
        let (a, camera) = (&a, number.to_string());
        async move { a.take_over(&camera, Epoch(1), 0, 0).await.unwrap() }
    });
    told("take over", times.await);

    let mut chain = a.take_over("door", Epoch(1), 0, 0).await.unwrap();
    for (count, rounds) in [(1, 1000), (2, 300), (10, 300), (100, 100)] {
        let mut times = Vec::new();
        for _ in 0..rounds {
            let begun = Instant::now();
            more(&a, &mut chain, "a", count).await;
            times.push(begun.elapsed());
        }
        told(&format!("append {count}"), times);
    }
    let cameras = 30;
    let begun = Instant::now();
    let appending = (0..cameras).map(|number| {
        let a = a.clone();
        tokio::spawn(async move {
            let mut chain = a.take_over(&format!("many {number}"), Epoch(1), 0, 0).await.unwrap();
            let mut times = Vec::new();
            for _ in 0..100 {
                let begun = Instant::now();
                more(&a, &mut chain, "a", 1).await;
                times.push(begun.elapsed());
            }
            times
        })
    });
    let times = futures_util::future::join_all(appending).await;
    let times: Vec<Duration> = times.into_iter().flat_map(Result::unwrap).collect();
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    told(&format!("append 1, {cameras} cameras at once, {rate:.0} a second"), times);

    for count in [1, 10] {
        let change = |number: usize| StateChange {
            bucket: "b".to_owned(),
            key: number.to_string(),
            value: Some(Bytes::from_static(b"value")),
        };
        let changes: Vec<StateChange> = (0..count).map(change).collect();
        let times = each(200, |_| async { a.put_state(&chain, changes.clone()).await.unwrap() });
        told(&format!("change {count} entries"), times.await);
    }
    let snapshot = Bytes::from(vec![7; 200_000]);
    let times = each(50, |_| async { a.put_snapshot(&chain, snapshot.clone()).await.unwrap() });
    told("snapshot of 200 kB", times.await);

    while chain.seq() < 60_000 {
        let count = (60_000 - chain.seq()).min(2560);
        more(&a, &mut chain, "a", count).await;
    }
    let mut random = Random::with_seed(1);
    for limit in [1, 100] {
        let times = each(200, |_| {
            let (a, after) = (&a, random.u64(1..59_000));
            async move {
                let page = a.page("door", after, limit).await.unwrap();
                assert_eq!(page.events.len(), limit);
            }
        });
        told(&format!("page of {limit} of 60,000"), times.await);
    }
    let mut follower = a.follow(Positions::default());
    let begun = Instant::now();
    let given = caught_up(&mut follower, 1).await.len();
    println!("follow {given} events: {:.0} a second", given as f64 / begun.elapsed().as_secs_f64());
    let times = {
        let mut times = Vec::new();
        for _ in 0..300 {
            let begun = Instant::now();
            more(&a, &mut chain, "a", 1).await;
            within(follower.next()).await;
            times.push(begun.elapsed());
        }
        times
    };
    told("from append to follower", times);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn with_one_server() {
    let Some(nats) = Nats::single() else { return };
    measure(&nats, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn with_three_servers() {
    let Some(nats) = Nats::cluster() else { return };
    measure(&nats, 3).await;
}
