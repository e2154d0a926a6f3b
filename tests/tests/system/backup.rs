//! A backup of a host that runs, and a host that goes on with it.

use std::collections::BTreeSet;
use std::path::Path;

use ocelli_testkit::{DEADLINE, HookReceiver, Ocelli, PipelineFolder, clip};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::terminal::run;

/// A camera that makes an event of each frame: 25 a second.
fn eventful() -> String {
    let source = format!("file:{}", clip("bikes.mp4").display());
    format!(
        "[[cameras]]\nid = \"gate\"\nsource = {source:?}\npace = \"realtime\"\nrepeat = true\n\
         pipeline = \"changeling\"\nsettings = {{ every = 1 }}\n"
    )
}

fn store(folder: &Path) -> String {
    format!("[store]\ndirectory = {:?}\n", folder.display().to_string())
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_goes_on_with_a_backup_that_was_made_while_another_ran() {
    let site = tempfile::tempdir().unwrap();
    let receiver = HookReceiver::start().await;
    let hook = receiver.section("hook", "from = \"beginning\"");
    let pipelines = PipelineFolder::with(&["changeling"]);
    let host = Ocelli::start(&(pipelines.section() + &hook + &eventful())).await;
    receiver.until("events", |receiver| receiver.numbers("gate").len() > 20).await;

    let backup = site.path().join("backup");
    let back_up = ["backup", "--json", backup.to_str().unwrap()];
    let (status, said, error) = run(&host, &back_up).await;
    assert_eq!(status, 0, "{error}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(said["bytes"].as_u64().unwrap() > 10_000, "{said}");
    let (status, _, error) = run(&host, &back_up).await;
    assert!(status == 1 && error.contains("is there"), "{status} {error}");
    assert_eq!(std::fs::read_dir(site.path()).unwrap().count(), 1, "nothing else is left there");
    assert!(!pipelines.folder().join("backup").exists());

    // What happens now is in no backup, and others have seen it.
    let at_backup = *receiver.numbers("gate").iter().max().unwrap();
    receiver
        .until("more events", |receiver| {
            receiver.numbers("gate").iter().any(|number| *number > at_backup + 25)
        })
        .await;
    let original = host.events("gate").await;
    host.process().signal(Signal::KILL);
    assert!(host.process().ends_within(DEADLINE));
    drop(host);
    let seen: BTreeSet<u64> = receiver.numbers("gate").into_iter().collect();
    let last_seen = *seen.last().unwrap();
    let before = receiver.numbers("gate").len();

    let restored = site.path().join("restored");
    copy_folder(&backup, &restored);
    let host = Ocelli::start(&(store(&restored) + &hook + &eventful())).await;
    // Up to the backup everything is there, with its numbers; whatever comes has greater ones than
    // the host that is gone has given.
    receiver
        .until("new events", |receiver| {
            receiver.numbers("gate").iter().any(|number| *number > last_seen + 1_000_000)
        })
        .await;
    let events = host.events("gate").await;
    let number = |event: &Value| event["seq"].as_u64().unwrap();
    let (old, new): (Vec<&Value>, Vec<&Value>) =
        events.iter().partition(|event| number(event) <= last_seen);
    assert!(old.len() as u64 > 20 && !new.is_empty(), "{} {}", old.len(), new.len());
    for (restored, original) in old.iter().zip(&original) {
        assert_eq!(*restored, original);
    }
    let in_backup = number(old.last().unwrap());
    assert!(in_backup < last_seen, "{in_backup} {last_seen}");

    // A subscriber goes on, whether the backup has what it saw last or not.
    for after in [in_backup - 5, last_seen] {
        let mut client = host.client().await;
        client.send(&json!({"type": "subscribe", "session": "gate", "after": after})).await;
        let event = client.next_of("event").await;
        let expected = if after < in_backup { after + 1 } else { number(new[0]) };
        assert_eq!(number(&event), expected, "after {after}");
    }
    // The receiver has all, and of old events again at most those behind the backup's cursor.
    let again = receiver.numbers("gate").split_off(before);
    let old: Vec<u64> = again.iter().copied().filter(|number| *number <= last_seen).collect();
    if let Some(first) = old.first() {
        assert!(*first > 1, "its cursor is lost: {again:?}");
        assert_eq!(old, (*first..=in_backup).collect::<Vec<_>>());
    }
    let all: BTreeSet<u64> = receiver.numbers("gate").into_iter().collect();
    assert!((1..=in_backup).all(|number| all.contains(&number)));
    // `ocelli events` crosses the numbers that no event has.
    let lines = (events.len() + 25).to_string();
    let (_, told, _) = run(&host, &["events", "gate", "--json", "--lines", &lines]).await;
    assert!(told.lines().any(|line| line.contains("\"seq\":1,")), "{told}");
}
