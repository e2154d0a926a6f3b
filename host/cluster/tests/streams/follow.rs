//! Following all events and states of a site.

use ocelli_cluster::Epoch;
use ocelli_cluster::streams::{Followed, Positions, StreamLimits};
use ocelli_testkit::Nats;

use crate::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_goes_on_where_it_was_through_a_restart_of_the_server() {
    let Some(mut nats) = Nats::single() else { return };
    let (a, b) = (host(&nats, "a").await, host(&nats, "b").await);
    // Both streams have some.
    let cameras = ["door", "yard", "gate", "hall", "lift"];
    let mut chains = Vec::new();
    for camera in cameras {
        let mut chain = a.take_over(camera, Epoch(1), 0, 0).await.unwrap();
        more(&a, &mut chain, "a", 300).await;
        chains.push(chain);
    }
    let mut follower = b.follow(Positions::default());
    let mut given = caught_up(&mut follower, 2).await;
    assert_eq!(sorted(&given).0.values().map(Vec::len).sum::<usize>(), 5 * 301);

    // Live.
    more(&a, &mut chains[0], "a", 1).await;
    let next = within(follower.next()).await;
    assert!(matches!(&next, Followed::Event { record, .. } if record.seq == 302), "{next:?}");
    given.push(next);

    nats.kill(0);
    nats.run(0);
    for chain in &mut chains {
        let more = events(chain, "a", 10);
        append(&a, chain, &more).await;
    }
    within(async {
        while sorted(&given).0.values().map(Vec::len).sum::<usize>() < 5 * 311 + 1 {
            given.push(follower.next().await);
        }
    })
    .await;
    let (cameras, positions) = sorted(&given);
    for found in cameras.values() {
        assert_chain(found, 1);
    }

    // Another one goes on from what the first one has dealt with.
    let mut next = b.follow(positions);
    assert!(sorted(&caught_up(&mut next, 2).await).0.is_empty());
    more(&a, &mut chains[4], "a", 1).await;
    let one = within(next.next()).await;
    assert!(matches!(&one, Followed::Event { record, .. } if record.seq == 312), "{one:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_says_what_it_has_missed() {
    let Some(nats) = Nats::single() else { return };
    let one = StreamLimits { streams: 1, ..limits() };
    let a = host_with(&nats, "a", one.clone()).await;
    let mut chain = a.take_over("door", Epoch(1), 0, 0).await.unwrap();
    more(&a, &mut chain, "a", 10).await;
    // The stream keeps 5 from now on.
    let few = StreamLimits { max_msgs_per_subject: 5, ..one };
    let b = host_with(&nats, "b", few).await;
    let mut follower = b.follow(Positions([(0, 3)].into()));
    let given = caught_up(&mut follower, 1).await;
    assert_eq!(given[0], Followed::Missed { stream: 0, after: 3, first: 7 });
    assert_eq!(
        sorted(&given).0["door"].iter().map(|event| event.seq).collect::<Vec<_>>(),
        [7, 8, 9, 10, 11]
    );
    // One that has never had any has missed none.
    let given = caught_up(&mut b.follow(Positions::default()), 1).await;
    assert_eq!(given.len(), 6);
    // A position of a stream that was made anew.
    let given = caught_up(&mut b.follow(Positions([(0, 500)].into())), 1).await;
    assert_eq!(given[0], Followed::Missed { stream: 0, after: 500, first: 7 });
    assert_eq!(given.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_knows_what_every_session_does() {
    let Some(mut nats) = Nats::single() else { return };
    let (a, b) = (host(&nats, "a").await, host(&nats, "b").await);
    let door = a.take_over("door", Epoch(1), 0, 0).await.unwrap();
    let yard = a.take_over("yard", Epoch(2), 0, 0).await.unwrap();
    for json in [r#"{"state":"connecting"}"#, r#"{"state":"running"}"#] {
        a.put_session_state(&door, json).await.unwrap();
    }
    a.put_session_state(&yard, "{}").await.unwrap();

    let mut states = b.follow_states();
    let mut known = [within(states.next()).await, within(states.next()).await];
    known.sort_by(|a, b| a.camera.cmp(&b.camera));
    let said = known.map(|state| (state.camera, state.epoch.0, state.host, state.json));
    assert_eq!(said[0], ("door".into(), 1, "a".into(), r#"{"state":"running"}"#.into()));
    assert_eq!(said[1], ("yard".into(), 2, "a".into(), "{}".into()));

    let door = b.take_over("door", Epoch(3), 0, 0).await.unwrap();
    b.put_session_state(&door, "[]").await.unwrap();
    let changed = within(states.next()).await;
    assert_eq!((changed.epoch, &*changed.host, &*changed.json), (Epoch(3), "b", "[]"));
    nats.kill(0);
    nats.run(0);
    // The last of each again, and what comes after.
    within(async {
        loop {
            match b.put_session_state(&door, "[1]").await {
                Ok(()) => return,
                Err(error) => assert!(error.passes(), "{error}"),
            }
        }
    })
    .await;
    within(async { while &*states.next().await.json != "[1]" {} }).await;
}
