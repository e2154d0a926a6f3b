use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ocelli_protocol::worker::StoreChange;

use super::*;

fn set(key: &str, value: impl Into<Vec<u8>>) -> StoreChange {
    StoreChange { bucket: "b".into(), key: key.into(), value: Some(value.into()) }
}

fn delete(key: &str) -> StoreChange {
    StoreChange { bucket: "b".into(), key: key.into(), value: None }
}

async fn keys(journal: &Journal, session: &str) -> Vec<String> {
    let kept = journal.store_contents(session).await.unwrap();
    kept.get("b").into_iter().flat_map(|bucket| bucket.keys().cloned()).collect()
}

fn row(number: u64, record: &str) -> DeploymentRow {
    DeploymentRow { session: "cam".into(), number, record: record.into() }
}

#[tokio::test]
async fn a_store_is_read_back_as_it_was_written_by_its_session_alone() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    journal.commit_store("one", vec![set("x", "1"), set("y", "2")]).await.unwrap();
    journal.commit_store("two", vec![set("x", "other")]).await.unwrap();
    journal
        .commit_store("one", vec![set("x", "3"), delete("y"), delete("never there")])
        .await
        .unwrap();
    assert_eq!(
        journal.store_contents("one").await.unwrap()["b"],
        [("x".into(), b"3".to_vec())].into()
    );
    journal.flush().await.unwrap();
    drop(journal);
    let journal = Journal::open(folder.path()).unwrap();
    assert_eq!(
        journal.store_contents("one").await.unwrap()["b"],
        [("x".into(), b"3".to_vec())].into()
    );
    assert_eq!(keys(&journal, "two").await, ["x"]);
    assert!(journal.store_contents("three").await.unwrap().is_empty());
}

#[tokio::test]
async fn beyond_the_bound_the_store_that_was_used_longest_ago_goes() {
    let journal = Journal::temporary().unwrap();
    for session in 0..kv_store::MAX_STORES {
        journal.commit_store(&format!("s{session}"), vec![set("x", "1")]).await.unwrap();
    }
    assert_eq!(keys(&journal, "s0").await, ["x"], "which is a use");
    journal.commit_store("one more", vec![set("x", "1")]).await.unwrap();
    assert_eq!(keys(&journal, "s0").await, ["x"]);
    assert!(keys(&journal, "s1").await.is_empty());
    let stores = journal
        .read(|c| c.query_row("SELECT COUNT(*) FROM kept", [], |row| row.get::<_, usize>(0)));
    assert_eq!(stores.await.unwrap(), kv_store::MAX_STORES);
}

#[tokio::test]
async fn deployments_are_numbered_by_session_and_read_newest_first() {
    let journal = Journal::temporary().unwrap();
    for session in ["cam", "other", "cam"] {
        journal.add_deployment(session, true, |number| format!("begun {number}")).await.unwrap();
    }
    assert_eq!(
        journal.deployments("cam", 9).await.unwrap(),
        [row(2, "begun 2"), row(1, "begun 1")]
    );
    journal.set_deployment(row(1, "done"), false, Some("entry".into())).await.unwrap();
    assert_eq!(journal.entry("cam").await.unwrap().as_deref(), Some("entry"));
    assert_eq!(journal.entry("other").await.unwrap(), None);
    let under_way = journal.deployments_under_way().await.unwrap();
    assert_eq!(
        under_way.iter().map(|row| row.session.as_str()).collect::<Vec<_>>(),
        ["other", "cam"],
        "the first of cam has ended"
    );
    journal.forget_deployments("cam", vec![1]).await.unwrap();
    assert_eq!(journal.deployments("cam", 1).await.unwrap(), [row(2, "begun 2")]);
    assert_eq!(journal.add_deployment("cam", true, |_| String::new()).await.unwrap(), 3);
}

#[tokio::test]
async fn of_subscribers_sessions_the_oldest_are_forgotten_and_of_cameras_none() {
    let journal = Journal::temporary().unwrap();
    journal.add_deployment("camera", true, |_| String::new()).await.unwrap();
    // A batch at a time, as the writer takes them.
    let adding = (0..deployments::MAX_SESSIONS + 2).map(|session| {
        let journal = journal.clone();
        async move {
            journal.add_deployment(&format!("s{session}"), false, |_| String::new()).await.unwrap()
        }
    });
    futures_util::future::join_all(adding).await;
    for (session, kept) in [("camera", 1), ("s0", 0), ("s1", 0), ("s2", 1)] {
        assert_eq!(journal.deployments(session, 9).await.unwrap().len(), kept, "{session}");
    }
}

#[tokio::test]
async fn a_write_that_fails_takes_none_of_its_parts_and_no_other_with_it() {
    let journal = Journal::temporary().unwrap();
    journal.commit_store("cam", vec![set("before", "1")]).await.unwrap();
    let failed = journal.commit(|connection| {
        connection.execute("INSERT INTO entries VALUES ('half', 'done')", [])?;
        connection.execute("INSERT INTO nowhere VALUES (1)", [])
    });
    assert!(failed.await.unwrap_err().to_string().contains("nowhere"));
    journal.commit_store("cam", vec![set("after", "1")]).await.unwrap();
    journal.flush().await.unwrap();
    assert_eq!(keys(&journal, "cam").await, ["after", "before"]);
    assert_eq!(journal.entry("half").await.unwrap(), None);
}

#[tokio::test]
async fn a_damaged_file_is_put_aside_and_nothing_of_it_is_deleted() {
    for damage in [
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2),
        |bytes: &mut Vec<u8>| bytes[..64].fill(b'x'),
        |bytes: &mut Vec<u8>| {
            let half = bytes.len() / 2;
            bytes[half..].fill(0x5a);
        },
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let journal = Journal::open(folder.path()).unwrap();
        for number in 0..50u8 {
            journal
                .commit_store("cam", vec![set(&format!("k{number}"), vec![number; 4000])])
                .await
                .unwrap();
        }
        close(journal, folder.path()).await;
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();

        let journal = Journal::open(folder.path()).unwrap();
        assert!(journal.store_contents("cam").await.unwrap().is_empty());
        journal.commit_store("cam", vec![set("x", "1")]).await.unwrap();
        assert_eq!(keys(&journal, "cam").await, ["x"]);
        let aside =
            std::fs::read_dir(folder.path()).unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        let aside: Vec<_> =
            aside.filter(|path| path.to_string_lossy().contains(".damaged-")).collect();
        assert_eq!(std::fs::read(&aside[0]).unwrap(), bytes);
    }
}

/// Waits until another may open the file.
pub(super) async fn close(journal: Journal, folder: &Path) {
    journal.flush().await.unwrap();
    drop(journal);
    // Waits for the lock.
    let connection = file::open(&file::folder(folder).unwrap(), FILE, &KIND).unwrap().0;
    connection.pragma_update(None, "wal_checkpoint", "TRUNCATE").unwrap();
}

#[test]
fn a_file_that_is_opened_again_is_written_nothing() {
    let site = tempfile::tempdir().unwrap();
    let folder = file::folder(site.path()).unwrap();
    let first = file::open(&folder, FILE, &KIND).unwrap().0;
    first.pragma_update(None, "wal_checkpoint", "TRUNCATE").unwrap();
    drop(first);
    let content = || std::fs::read(site.path().join(FILE)).unwrap();
    let before = content();
    let again = file::open(&folder, FILE, &KIND).unwrap().0;
    let log = std::fs::metadata(site.path().join(format!("{FILE}-wal")));
    assert_eq!(log.map_or(0, |log| log.len()), 0, "a full disk would have no room for it");
    assert_eq!(again.total_changes(), 0);
    drop(again);
    assert!(content() == before);
}

#[tokio::test]
async fn a_newer_schema_is_no_damage_and_a_second_host_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    let error = Journal::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("another process has it"), "{error}");
    journal.commit(|connection| connection.pragma_update(None, "user_version", 99)).await.unwrap();
    close_unread(journal, folder.path()).await;
    let error = format!("{:#}", Journal::open(folder.path()).unwrap_err());
    assert!(error.contains("newer version") && error.contains("99"), "{error}");
    assert!(folder.path().join(FILE).is_file());
}

async fn close_unread(journal: Journal, folder: &Path) {
    drop(journal);
    let connection = Connection::open(folder.join(FILE)).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    connection.execute_batch("BEGIN EXCLUSIVE; COMMIT").unwrap();
}

/// The folder that [`writes_until_it_is_killed`] writes to.
const FOLDER: &str = "OCELLI_TEST_JOURNAL";

/// Not a test of its own: the process that the next one kills. It says what it knows to be on the
/// disk.
#[tokio::test]
#[ignore = "run by another test"]
async fn writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let journal = Journal::open(Path::new(&folder)).unwrap();
    for number in 1.. {
        for write in 0..20 {
            let value = format!("{}", number * 100 + write);
            journal
                .commit_store("cam", vec![set("x", value.clone()), set("y", value)])
                .await
                .unwrap();
        }
        let added = journal.add_deployment("cam", true, |number| number.to_string()).await.unwrap();
        assert_eq!(added, number);
        println!("\nwritten {number}");
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_said_to_be_written_and_leaves_nothing_half_done() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = 0u64;
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([
            "--exact",
            "journal::tests::writes_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ]);
        // Each process counts from 1 on: a session of its own would not find the rows of the one
        // before.
        let own = folder.path().join(round.to_string());
        let mut child = child.env(FOLDER, &own).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut written = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("written ")?.parse().ok());
        for _ in 0..round * 7 {
            said = written.next().expect("the process writes");
        }
        child.kill().unwrap();
        // What it said between the last line that was read and its death.
        said = written.last().unwrap_or(said);
        child.wait().unwrap();

        let journal = Journal::open(&own).unwrap();
        let rows = journal.deployments("cam", usize::MAX).await.unwrap();
        assert!(rows.len() as u64 >= said, "{} of {said}", rows.len());
        for (row, number) in rows.iter().rev().zip(1..) {
            assert_eq!((row.number, row.record.clone()), (number, number.to_string()));
        }
        let kept = journal.store_contents("cam").await.unwrap();
        assert_eq!(kept["b"]["x"], kept["b"]["y"]);
        let value: u64 = String::from_utf8(kept["b"]["x"].clone()).unwrap().parse().unwrap();
        assert!(value >= said * 100 + 19, "{value} after {said}");
    }
}
