//! Reader processes (`ocelli-ingest`) that die, hang or are fed too much: they are replaced, and no
//! other camera notices.

use ocelli_testkit::camera::{Camera, Footage, Script};
use ocelli_testkit::{Client, DEADLINE, Ocelli, Process, ProcessResources, children};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::isolation::notices_nothing;
use crate::{SLOW, camera};

/// A camera that is read by a process of its own.
fn compatible(id: &str, source: &Camera) -> String {
    camera(id, &source.url(), &format!("reader = \"compatible\"\n{SLOW}"))
}

/// The reader processes of a host that are none of `known`, once there is one.
async fn new_reader(host: &Ocelli, known: &[u32]) -> Process {
    let begun = Instant::now();
    loop {
        let mut readers = children(host.process().pid)
            .into_iter()
            .filter(|child| child.name == "ocelli-ingest" && !known.contains(&child.pid));
        if let Some(reader) = readers.next() {
            return reader;
        }
        assert!(begun.elapsed() < DEADLINE, "no reader process but {known:?}");
        sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// A host with the cameras `one` and `two`, each of which has a reader process and gives results;
/// and the process of `one`.
async fn two_readers(one: &Camera, two: &Camera) -> (Ocelli, Client, Process) {
    let config = compatible("one", one);
    let host = Ocelli::start(&config).await;
    let mut client = host.client().await;
    client.subscribe("one").await;
    client.detections("one").await;
    let reader = new_reader(&host, &[]).await;
    host.edit_config(&(config + &compatible("two", two)));
    host.wait_for_session("two", |session| session["state"] == "running").await;
    client.subscribe("two").await;
    client.detections("two").await;
    (host, client, reader)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_reader_is_replaced_and_its_neighbour_notices_nothing() {
    let (one, two) =
        (Camera::start(Script::default()).await, Camera::start(Script::default()).await);
    let (host, mut client, reader) = two_readers(&one, &two).await;
    let neighbour = host.worker("two").await.pid;
    reader.signal(Signal::KILL);
    let lost = client.state("one", "degraded").await;
    assert!(lost["reason"].as_str().is_some_and(|reason| reason.contains("SIGKILL")), "{lost}");
    client.state("one", "running").await;
    client.detections("one").await;
    assert_eq!(host.session("one").await["restarts"], 0, "its worker lives on");
    notices_nothing(&host, &mut client, "two", neighbour).await;
    assert_eq!(two.connections(), 1, "the neighbour's connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_reader_is_replaced_and_its_neighbour_notices_nothing() {
    let (one, two) =
        (Camera::start(Script::default()).await, Camera::start(Script::default()).await);
    let (host, mut client, reader) = two_readers(&one, &two).await;
    let neighbour = host.worker("two").await.pid;
    reader.signal(Signal::STOP);
    client.state("one", "degraded").await;
    assert!(reader.ends_within(DEADLINE), "the hanging process stays");
    client.state("one", "running").await;
    client.detections("one").await;
    notices_nothing(&host, &mut client, "two", neighbour).await;
    assert_eq!(two.connections(), 1, "the neighbour's connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_and_endless_pictures_cost_their_neighbour_nothing() {
    let two = Camera::start(Script::default()).await;
    let floods = [
        // A thousand pictures a second.
        ("fast", Camera::start(Script::default().rate(1000.0)).await),
        // One picture that never ends.
        ("endless", Camera::start(endless()).await),
        // Junk alone.
        (
            "junk",
            Camera::start(Script::of(Footage::H264).rate(200.0).packets(|moment, packets| {
                for packet in packets.iter_mut() {
                    packet.payload = vec![moment.picture as u8; 1400];
                }
            }))
            .await,
        ),
    ];
    let all: String = floods.iter().map(|(id, camera)| compatible(id, camera)).collect();
    let host = Ocelli::start(&(all + &compatible("two", &two))).await;
    let mut client = host.client().await;
    client.subscribe("two").await;
    client.detections("two").await;
    let neighbour = host.worker("two").await.pid;
    // Long enough for what grows to have grown.
    host.wait_for_session("two", |session| {
        session["frames"]["decoded"].as_u64().is_some_and(|decoded| decoded > 150)
    })
    .await;
    for child in children(host.process().pid) {
        if child.name == "ocelli-ingest" {
            let memory = ProcessResources::of(child.pid).resident_kib;
            assert!(memory < 128 << 10, "a reader process has {memory} KiB");
        }
    }
    notices_nothing(&host, &mut client, "two", neighbour).await;
    assert_eq!(two.connections(), 1, "the neighbour's connection");
}

/// A camera of a single picture: fragments without end at one time, 3 MB a second.
fn endless() -> Script {
    Script::default().rate(100.0).time(|_| 0).packets(|moment, packets| {
        let fragment = packets[0].beside(&[&[0x7c, 0x05][..], &[0x55; 1400]].concat());
        *packets = vec![fragment; 22];
        if moment.picture == 0 {
            packets[0].payload[1] = 0x85;
        }
    })
}
