//! Events, state, objects and live messages, kept by real nats-servers.

// What is around the tests is tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod chain;
mod cluster;
mod faults;
mod figures;
mod follow;
mod live;
mod site;
mod state;

use std::collections::BTreeMap;
use std::time::Duration;

use ocelli_cluster::streams::{
    Chain, EventRecord, Followed, Follower, Positions, StreamError, StreamLimits, Streams, TAKEOVER,
};
use ocelli_cluster::{Epoch, SiteOptions};
use ocelli_testkit::Nats;

/// The site of the tests.
const SITE: &str = "hall";

/// Longer than anything takes, elections on a busy machine too.
const DEADLINE: Duration = Duration::from_secs(60);

fn options(urls: Vec<String>, host: &str) -> SiteOptions {
    SiteOptions {
        site: SITE.to_owned(),
        host: host.to_owned(),
        etcd: Vec::new(),
        nats: urls,
        tls: None,
    }
}

fn limits() -> StreamLimits {
    StreamLimits {
        replicas: 1,
        streams: 2,
        max_age: Duration::ZERO,
        max_bytes: 0,
        max_msgs_per_subject: 0,
        picture_age: Duration::from_secs(3600),
        picture_bytes: 1 << 24,
    }
}

/// A host that can use the streams.
async fn host_with(nats: &Nats, host: &str, limits: StreamLimits) -> Streams {
    let streams = Streams::connect(&options(nats.urls(), host), limits).await.unwrap();
    let ready = tokio::time::timeout(DEADLINE, streams.ready()).await;
    ready.unwrap_or_else(|_| panic!("{host}: {:?}", *streams.health().borrow()));
    streams
}

async fn host(nats: &Nats, name: &str) -> Streams {
    host_with(nats, name, limits()).await
}

async fn within<T>(waited: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, waited).await.expect("nothing came within the deadline")
}

/// The next `count` events of a chain.
fn events(chain: &Chain, host: &str, count: u64) -> Vec<EventRecord> {
    (chain.seq() + 1..)
        .take(usize::try_from(count).unwrap())
        .map(|seq| EventRecord {
            seq,
            epoch: chain.epoch(),
            host: host.to_owned(),
            kind: "crossed".to_owned(),
            time_ms: 1_000 + i64::try_from(seq).unwrap(),
            body: format!("{{\"n\":{seq}}}").into(),
            attachments: Vec::new(),
            clip: None,
        })
        .collect()
}

/// Everything that a camera's events are now, page by page.
async fn all(streams: &Streams, camera: &str, page: usize) -> Vec<EventRecord> {
    let mut found: Vec<EventRecord> = Vec::new();
    loop {
        let after = found.last().map_or(0, |last| last.seq);
        let page = streams.page(camera, after, page).await.unwrap();
        found.extend(page.events.into_iter().map(|stored| stored.record));
        if !page.more {
            return found;
        }
    }
}

/// That numbers go from `first` on without a gap, and epochs never back, each beginning with a
/// take-over.
fn assert_chain(events: &[EventRecord], first: u64) {
    for (event, seq) in events.iter().zip(first..) {
        assert_eq!(event.seq, seq, "{event:?}");
    }
    for pair in events.windows(2) {
        assert!(pair[0].epoch <= pair[1].epoch, "{pair:?}");
        assert_eq!(pair[0].epoch != pair[1].epoch, pair[1].kind == TAKEOVER, "{pair:?}");
    }
}

/// Takes a camera over again and again until it works.
async fn take_over(streams: &Streams, camera: &str, epoch: u64) -> Chain {
    within(async {
        loop {
            match streams.take_over(camera, Epoch(epoch), 0, 0).await {
                Ok(chain) => return chain,
                Err(error) => assert!(error.passes(), "{error}"),
            }
        }
    })
    .await
}

/// Appends the next events, which works at once.
async fn more(streams: &Streams, chain: &mut Chain, host: &str, count: u64) {
    let events = events(chain, host, count);
    streams.append(chain, &events).await.unwrap();
}

/// Appends the same events until it works.
async fn append(streams: &Streams, chain: &mut Chain, events: &[EventRecord]) {
    let Some(first) = events.first().map(|event| event.seq) else { return };
    within(async {
        loop {
            let stored = usize::try_from(chain.seq() + 1 - first).unwrap();
            match streams.append(chain, &events[stored..]).await {
                Ok(()) => return,
                Err(error) => assert!(error.passes(), "{error}"),
            }
        }
    })
    .await;
}

/// What a follower gives until all streams are caught up.
async fn caught_up(follower: &mut Follower, streams: u8) -> Vec<Followed> {
    within(async {
        let mut given = Vec::new();
        let mut caught_up = 0;
        while caught_up < streams {
            let next = follower.next().await;
            caught_up += u8::from(matches!(next, Followed::CaughtUp { .. }));
            given.push(next);
        }
        given
    })
    .await
}

/// The events among what a follower gave, by camera, and how far that is.
fn sorted(given: &[Followed]) -> (BTreeMap<String, Vec<EventRecord>>, Positions) {
    let mut cameras = BTreeMap::<String, Vec<EventRecord>>::new();
    let mut positions = Positions::default();
    for followed in given {
        if let Followed::Event { stream, place, camera, record } = followed {
            cameras.entry(camera.clone()).or_default().push(record.clone());
            let before = positions.0.insert(*stream, *place);
            assert!(before.is_none_or(|before| before < *place), "{followed:?} after {before:?}");
        }
    }
    (cameras, positions)
}

fn assert_fenced<T: std::fmt::Debug>(result: Result<T, StreamError>, by: u64) {
    match result {
        Err(StreamError::Fenced { by: Some(Epoch(epoch)), .. }) => assert_eq!(epoch, by),
        other => panic!("{other:?}"),
    }
}
