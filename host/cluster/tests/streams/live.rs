//! Live messages.

use bytes::Bytes;
use ocelli_cluster::Epoch;
use ocelli_cluster::streams::StreamHealth;
use ocelli_testkit::Nats;

use crate::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_epoch_is_not_heard_any_more() {
    let Some(nats) = Nats::single() else { return };
    let (a, b) = (host(&nats, "a").await, host(&nats, "b").await);
    let mut door = b.subscribe_live("door 1").await.unwrap();
    let mut all = b.subscribe_all_live().await.unwrap();
    // The subscriptions are there when what was said behind them is heard.
    within(async {
        let hear = async { (door.next().await, all.next().await) };
        let say = async {
            loop {
                b.publish_live("door 1", Epoch(1), Bytes::from_static(b"begin"));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! { _ = hear => {}, () = say => {} }
    })
    .await;
    let said: [(&str, u64, &'static str); 5] = [
        ("door 1", 4, "new"),
        ("door 1", 3, "old"),
        ("yard", 2, "other"),
        ("door 1", 4, "new 2"),
        ("door 1", 9, "end"),
    ];
    for (camera, epoch, text) in said {
        a.publish_live(camera, Epoch(epoch), Bytes::from_static(text.as_bytes()));
    }
    for (live, wanted) in
        [(&mut door, &["new", "new 2", "end"][..]), (&mut all, &["new", "other", "new 2", "end"])]
    {
        let mut heard = Vec::new();
        within(async {
            while heard.last() != Some(&"end".to_owned()) {
                let message = live.next().await;
                if message.bytes != "begin" {
                    heard.push(String::from_utf8(message.bytes.to_vec()).unwrap());
                }
            }
        })
        .await;
        assert_eq!(heard, wanted);
    }
    assert_eq!(a.live_dropped(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_said_without_a_connection_is_heard_later() {
    let Some(mut nats) = Nats::single() else { return };
    let (a, b) = (host(&nats, "a").await, host(&nats, "b").await);
    let mut live = b.subscribe_live("door").await.unwrap();
    nats.kill(0);
    within(async {
        for streams in [&a, &b] {
            let mut health = streams.health();
            health.wait_for(|health| matches!(health, StreamHealth::Down(_))).await.unwrap();
        }
    })
    .await;
    for _ in 0..50 {
        a.publish_live("door", Epoch(1), Bytes::from_static(b"late"));
    }
    assert_eq!(a.live_dropped(), 50);
    nats.run(0);
    within(async { tokio::join!(a.ready(), b.ready()) }).await;
    let heard = within(async {
        tokio::select! {
            heard = live.next() => heard,
            () = async { loop {
                a.publish_live("door", Epoch(1), Bytes::from_static(b"now"));
                tokio::time::sleep(Duration::from_millis(20)).await;
            } } => unreachable!(),
        }
    })
    .await;
    assert_eq!(heard.bytes, "now");
}
