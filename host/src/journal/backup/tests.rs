use std::collections::BTreeSet;
use std::sync::Arc;

use ocelli_protocol::digest::Digest;
use ocelli_protocol::worker::StoreChange;

use super::*;
use crate::journal::events::{Attachment, EventDraft, EventQuery, SequenceRange};

fn draft(number: u64, picture: Option<u8>) -> EventDraft {
    let bytes = |picture| bytes::Bytes::from(vec![picture; 100]);
    let attachments = picture
        .map(|picture| Attachment { digest: Digest::of(bytes(picture)), bytes: bytes(picture) });
    EventDraft {
        kind: "seen".into(),
        time_ms: 1_700_000_000_000,
        body: format!("{{\"n\":{number}}}").into(),
        attachments: attachments.into_iter().collect(),
        clip: None,
    }
}

async fn numbers(journal: &Journal, session: &str) -> (SequenceRange, Vec<u64>) {
    let query = EventQuery { limit: usize::MAX, ..EventQuery::default() };
    let page = journal.events().page(session, query).await.unwrap();
    (page.span, page.events.iter().map(|event| event.seq).collect())
}

/// The files below a folder, by their paths in it.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        match std::fs::read_dir(&path) {
            Ok(entries) => waiting.extend(entries.map(|entry| entry.unwrap().path())),
            Err(_) => {
                found.insert(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found
}

#[tokio::test]
async fn a_copy_of_a_running_journal_goes_on_above_all_numbers_of_the_original() {
    let site = tempfile::tempdir().unwrap();
    let data = site.path().join("data");
    let journal = Journal::open(&data).unwrap();
    for number in 1..=5 {
        journal.events().append("cam", draft(number, Some(1)));
    }
    journal.events().flush().await.unwrap();
    let sink: Arc<str> = "redis".into();
    journal.events().set_cursors(&sink, vec![("cam".into(), 3)]);
    let change = StoreChange { bucket: "b".into(), key: "k".into(), value: Some(b"v".to_vec()) };
    journal.commit_store("cam", vec![change]).await.unwrap();
    journal.add_deployment("cam", true, |number| number.to_string()).await.unwrap();
    journal.events().flush().await.unwrap();
    for (path, text) in [
        ("components/one.wasm", "component"),
        ("pipelines/own.wasm", "own"),
        ("compiled/cache", "made anew"),
        ("lost+found/0", "of a file system"),
        ("attachments/ab/begun.new", "half"),
    ] {
        std::fs::create_dir_all(data.join(path).parent().unwrap()).unwrap();
        std::fs::write(data.join(path), text).unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", data.join("components/link")).unwrap();

    let backup = journal.backup().await.unwrap();
    // What comes later is the original's alone.
    for number in 6..=9 {
        journal.events().append("cam", draft(number, Some(2)));
    }
    journal.events().flush().await.unwrap();
    let copied = site.path().join("backup");
    copy(&backup, &copied).unwrap();
    // A copy is no host's: root neither copies nor deletes what an answer names.
    let elsewhere = Backup { directory: copied.clone(), ..backup.clone() };
    assert!(copy(&elsewhere, &site.path().join("no")).is_err());
    assert!(discard(&elsewhere).is_err() && copied.join(MANIFEST).exists());
    // A person may write into a file of their own; the backup has it as it was.
    std::fs::write(data.join("pipelines/own.wasm"), "new").unwrap();
    assert_eq!(std::fs::read(data.join(FOLDER).join("pipelines/own.wasm")).unwrap(), b"own");
    discard(&backup).unwrap();
    assert!(!data.join(FOLDER).exists());
    let picture = Digest::of([1; 100]);
    assert_eq!(
        files(&copied),
        [
            "backup.json".to_owned(),
            "components/one.wasm".to_owned(),
            "events.db".to_owned(),
            "journal.db".to_owned(),
            "pipelines/own.wasm".to_owned(),
            format!("attachments/{picture:.2}/{picture}.jpg"),
        ]
        .into()
    );

    let restored = Journal::open(&copied).unwrap();
    let (span, seen) = numbers(&restored, "cam").await;
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    assert!(span.newest > 1_700_000_000_000, "{span:?}");
    assert!(restored.events().attachment(picture).await.unwrap().is_some());
    assert_eq!(restored.events().cursors(&sink).await.unwrap(), [("cam".into(), 3)]);
    assert_eq!(restored.store_contents("cam").await.unwrap()["b"]["k"], b"v");
    assert_eq!(restored.deployments("cam", 9).await.unwrap().len(), 1);
    restored.events().append("cam", draft(10, None));
    restored.events().append("new", draft(1, None));
    restored.events().flush().await.unwrap();
    assert_eq!(numbers(&restored, "cam").await.1.last(), Some(&(span.newest + 1)));
    assert!(numbers(&restored, "new").await.1[0] > span.newest - 1_000_000);
    // Of all sessions, too.
    let all = restored.events().kept_after(0, 99).await.unwrap();
    assert!(all.events[5].number > 1_700_000_000_000, "{all:?}");
    // It is a copy no longer.
    let known = numbers(&restored, "cam").await.0;
    crate::journal::tests::close(restored, &copied).await;
    let again = Journal::open(&copied).unwrap();
    assert_eq!(numbers(&again, "cam").await.0, known);
    // The original knows nothing of it.
    assert_eq!(numbers(&journal, "cam").await.1, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn a_snapshot_takes_the_place_of_the_one_before_and_its_copy_is_refused_then() {
    let site = tempfile::tempdir().unwrap();
    let data = site.path().join("data");
    let journal = Journal::open(&data).unwrap();
    let first = journal.backup().await.unwrap();
    let second = journal.backup().await.unwrap();
    assert_eq!(first.directory, second.directory);
    let error = copy(&first, &site.path().join("one")).unwrap_err();
    assert!(error.to_string().contains("is not the backup"), "{error:#}");
    copy(&second, &site.path().join("two")).unwrap();
    drop(journal);
    drop(Journal::open(&data));
    assert!(!data.join(FOLDER).exists(), "the next start removes it");
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_made_leaves_nothing_and_the_journal_goes_on() {
    let site = tempfile::tempdir().unwrap();
    let data = site.path().join("data");
    let journal = Journal::open(&data).unwrap();
    journal.events().append("cam", draft(1, None));
    journal.events().flush().await.unwrap();
    // SQLite cannot open it a second time.
    let away = data.join("away");
    std::fs::rename(data.join("events.db"), &away).unwrap();
    let error = journal.backup().await.unwrap_err().to_string();
    assert!(error.contains("events.db"), "{error}");
    assert!(!data.join(FOLDER).exists());
    std::fs::rename(away, data.join("events.db")).unwrap();
    journal.backup().await.unwrap();
    journal.events().append("cam", draft(2, None));
    journal.events().flush().await.unwrap();
    assert_eq!(numbers(&journal, "cam").await.1, [1, 2]);
}
