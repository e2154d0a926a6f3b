//! Three servers, of which one is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ocelli_cluster::Epoch;
use ocelli_cluster::streams::{StateChange, StreamLimits};
use ocelli_testkit::Nats;

use crate::*;

const CAMERAS: [&str; 4] = ["door", "yard", "gate", "hall"];

/// What is done to a stream's leader.
async fn strike(nats: &mut Nats, stop: bool) {
    let leader = within(async {
        loop {
            match nats.stream_leader("OCELLI_hall_EV_0") {
                Some(leader) => return leader,
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    })
    .await;
    if stop {
        nats.pause(leader, true);
    } else {
        nats.kill(leader);
    }
    // The others elect another one, and it is used.
    within(async {
        while nats.stream_leader("OCELLI_hall_EV_0").is_none_or(|now| now == leader) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    if stop {
        nats.pause(leader, false);
    } else {
        nats.run(leader);
    }
    nats.await_ready();
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_leaders_loses_and_doubles_nothing() {
    let Some(mut nats) = Nats::cluster() else { return };
    let three = StreamLimits { replicas: 3, streams: 1, ..limits() };
    let a = host_with(&nats, "a", three.clone()).await;
    let b = host_with(&nats, "b", three).await;
    let end = Arc::new(AtomicBool::new(false));
    let appending = CAMERAS.map(|camera| {
        let (a, end) = (a.clone(), Arc::clone(&end));
        tokio::spawn(async move {
            let mut chain = take_over(&a, camera, 1).await;
            let mut round = 0;
            while !end.load(Ordering::Acquire) {
                round += 1;
                let next = events(&chain, "a", 1 + round % 3);
                append(&a, &mut chain, &next).await;
                let change = StateChange {
                    bucket: "b".to_owned(),
                    key: "round".to_owned(),
                    value: Some(round.to_string().into()),
                };
                if let Err(error) = a.put_state(&chain, vec![change]).await {
                    assert!(error.passes(), "{error}");
                }
            }
            chain
        })
    });
    let mut follower = b.follow(Positions::default());
    let mut given = Vec::new();
    let striking = async {
        for stop in [false, true] {
            strike(&mut nats, stop).await;
        }
        end.store(true, Ordering::Release);
        futures_util::future::join_all(appending).await
    };
    let chains = tokio::select! {
        chains = striking => chains,
        () = async { loop { given.push(follower.next().await) } } => unreachable!(),
    };

    let mut total = 0;
    for chain in chains {
        let chain = chain.unwrap();
        total += usize::try_from(chain.seq()).unwrap();
        let found = within(async {
            loop {
                let found = all(&b, chain.camera(), 500).await;
                if found.last().is_some_and(|last| last.seq >= chain.seq()) {
                    return found;
                }
            }
        })
        .await;
        assert_chain(&found, 1);
        assert_eq!(found.last().unwrap().seq, chain.seq());
        // The next owner goes on behind what was acknowledged.
        let next = take_over(&b, chain.camera(), 2).await;
        assert_eq!(next.seq(), chain.seq() + 1);
        let state = b.load(chain.camera()).await.unwrap();
        assert_eq!(state.owner.unwrap().epoch, Epoch(2));
        assert_eq!(state.entries.len(), 1);
    }
    let given = within(async {
        while sorted(&given).0.values().map(Vec::len).sum::<usize>() < total + CAMERAS.len() {
            given.push(follower.next().await);
        }
        given
    })
    .await;
    for found in sorted(&given).0.values() {
        assert_chain(found, 1);
    }
}
