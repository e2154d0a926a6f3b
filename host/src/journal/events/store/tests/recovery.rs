//! Disks that fail, hosts that are killed, files that are damaged.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

/// The file and its log as a power cut would leave them.
fn copy(from: &Path, to: &Path, cut: impl FnOnce(&mut Vec<u8>)) {
    std::fs::copy(from.join(store::FILE), to.join(store::FILE)).unwrap();
    let log = format!("{}-wal", store::FILE);
    let mut bytes = std::fs::read(from.join(&log)).unwrap();
    cut(&mut bytes);
    std::fs::write(to.join(log), bytes).unwrap();
}

#[test]
fn of_a_log_that_is_cut_anywhere_whole_commits_are_found_and_numbering_goes_on_behind_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    let mut commits = vec![0];
    for count in (1..=3).cycle().take(30) {
        let first = keep(&mut store, "cam", (0..count).map(draft).collect(), 0);
        commits.push(first + count - 1);
    }
    let length =
        std::fs::metadata(folder.path().join(format!("{}-wal", store::FILE))).unwrap().len();
    let mut before = 0;
    // A prime: cuts within headers and pages alike.
    let cuts = (0..length).step_by(4099).chain([length]);
    for cut in cuts {
        for garbage in [0, 10_000] {
            let torn = tempfile::tempdir().unwrap();
            copy(folder.path(), torn.path(), |bytes| {
                bytes.truncate(usize::try_from(cut).unwrap());
                bytes.extend(std::iter::repeat_n(0x5a, garbage));
            });
            let mut torn = open_at(torn.path(), 0);
            let found = numbers(&torn, "cam");
            let last = found.len() as u64;
            assert!(commits.contains(&last), "{last} is no whole commit");
            assert!(last >= before, "more of the log has more of the events");
            assert_eq!(found, (1..=last).collect::<Vec<_>>());
            assert_eq!(keep(&mut torn, "cam", vec![draft(1)], 0), last + 1);
            consistent(&torn);
            before = last;
        }
    }
    assert_eq!(before, *commits.last().unwrap(), "what was synced is all there");
}

#[test]
fn a_damaged_file_is_put_aside_and_numbers_go_on_above_all_that_were_given() {
    // After the file's own time, which counts where the clock is behind it.
    let now = 4_000_000_000_000;
    for damage in [0..100, 8192..20_000] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open_at(folder.path(), 0);
        store.connection.execute("UPDATE numbering SET floor = ?", [7]).unwrap();
        for _ in 0..50 {
            keep(&mut store, "cam", (0..30).map(draft).collect(), 0);
        }
        drop(store);
        let path = folder.path().join(store::FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[damage].fill(0x5a);
        std::fs::write(&path, &bytes).unwrap();
        let mut store = open_at(folder.path(), now);
        assert!(numbers(&store, "cam").is_empty());
        assert_eq!(keep(&mut store, "cam", vec![draft(1)], now), now.unsigned_abs() + 1);
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let aside = names
            .filter(|path| path.to_string_lossy().contains(".damaged-"))
            // Not what was written beside it when it was looked into.
            .filter(|path| {
                !path.to_string_lossy().ends_with("-shm")
                    && !path.to_string_lossy().ends_with("-wal")
            })
            .collect::<Vec<_>>();
        // Opening it counts in its header.
        assert_eq!(
            std::fs::read(&aside[0]).unwrap()[100..],
            bytes[100..],
            "nothing of it is deleted"
        );
    }
}

#[test]
fn a_number_beyond_the_clock_is_found_in_a_damaged_file_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    store.connection.execute("UPDATE numbering SET floor = 5000", []).unwrap();
    drop(store);
    store = open_at(folder.path(), 0);
    keep(&mut store, "cam", (0..30).map(draft).collect(), 0);
    // An index that lacks a row is damage, and the rest can be read.
    store
        .connection
        .execute_batch(
            "INSERT INTO attachments VALUES (x'00', 1, 1, 1);
             PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = 'CREATE INDEX attachments_kept ON attachments (bytes)'
                 WHERE name = 'attachments_kept';
             UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = \
             'numbering')
                 WHERE name = 'attachments_stream';",
        )
        .unwrap();
    drop(store);
    let mut store = open_at(folder.path(), 100);
    assert_eq!(keep(&mut store, "cam", vec![draft(1)], 100), 5031);
}

#[test]
fn a_batch_that_finds_no_room_takes_no_number_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    keep(&mut store, "cam", vec![draft(1)], 0);
    let pages: u64 =
        store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    let bound = |store: &EventStore, pages: u64| {
        store
            .connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .unwrap();
    };
    bound(&store, pages + 2);
    let large =
        || [part("new", vec![draft(1)]), part("cam", (0..20).map(|_| sized(2000)).collect())];
    let error = store.commit(&large(), &BTreeMap::new(), 0, true).unwrap_err();
    assert!(format!("{error:#}").contains("full"), "{error:#}");
    assert_eq!(numbers(&store, "cam"), [1]);
    assert!(!store.streams.contains_key("new"));
    consistent(&store);
    bound(&store, 1 << 30);
    assert_eq!(store.commit(&large(), &BTreeMap::new(), 0, true).unwrap(), [1, 2]);
    assert_eq!(numbers(&store, "cam"), (1..=21).collect::<Vec<_>>());
    consistent(&store);
}

#[tokio::test]
async fn what_cannot_be_kept_is_told_to_nobody_and_what_was_lost_has_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (store, reader) = store::open(&file::folder(folder.path()).unwrap(), 0).unwrap();
    store.connection.busy_timeout(Duration::ZERO).unwrap();
    let failures = Connection::open(folder.path().join(store::FILE)).unwrap();
    failures.busy_timeout(Duration::from_secs(10)).unwrap();
    let events =
        EventJournal::start(store, reader, Box::new(|| ClockReading { wall: 77, boot: 0 }))
            .unwrap();
    let told = told(&events);
    events.append("cam", draft(1));
    events.flush().await.unwrap();

    // Whoever else writes the file keeps the journal from it.
    failures.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut progress = events.changed();
    let mut lost = 0u64;
    for number in 2..=outbox::EVENTS as u64 + 100 {
        lost += u64::from(!events.append("cam", draft(number)));
    }
    while events.metrics().failures == 0 {
        progress.changed().await.unwrap();
    }
    assert!(!events.wait_for_capacity("cam").await);
    assert!(!events.wait_for_capacity("other").await, "the disk takes nothing");
    let error = events.flush().await.unwrap_err().to_string();
    assert!(error.contains("cannot be kept"), "{error}");
    assert_eq!(told.lock().len(), 1);
    assert_eq!(events.page("cam", all()).await.unwrap().span.newest, 1);

    failures.execute_batch("COMMIT").unwrap();
    while events.flush().await.is_err() {
        progress.changed().await.unwrap();
    }
    assert!(events.wait_for_capacity("cam").await);
    assert!(events.append("cam", draft(0)));
    events.flush().await.unwrap();
    let page = events.page("cam", all()).await.unwrap();
    assert_eq!(page.events.len(), told.lock().len());
    let place = page.events.iter().position(|entry| &*entry.kind == "events_lost").unwrap();
    assert!(lost > 0);
    assert_eq!(
        place as u64,
        outbox::EVENTS as u64 + 99 - lost + 1,
        "behind those that were kept before"
    );
    assert_eq!(place + 2, page.events.len(), "before the one that came after");
    let body: serde_json::Value = serde_json::from_str(&page.events[place].body).unwrap();
    assert_eq!(body["data"], serde_json::json!({ "events": lost }));
    assert_eq!(body["time"], "1970-01-01T00:00:00.077Z");
    assert_eq!(body["clock"], "host");
    let figures = events.metrics();
    assert_eq!((figures.lost, figures.events), (lost, page.events.len() as u64));
}

/// The folder that [`tells_until_it_is_killed`] writes to.
const FOLDER: &str = "OCELLI_TEST_EVENTS";

/// Not a test of its own: the process that the next one kills. It says what it was told of.
#[tokio::test]
#[ignore = "run by another test"]
async fn tells_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let events = EventJournal::open(&file::folder(Path::new(&folder)).unwrap()).unwrap();
    events.set_delivery_handler(Box::new(|session, entry| {
        println!("\ntold {session} {} {}", entry.seq, entry.body)
    }));
    for number in 1.. {
        for session in ["one", "two"] {
            events.append(session, pictured(number, u8::try_from(number % 200).unwrap(), 100));
        }
        events.wait_for_capacity("one").await;
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_told_and_numbers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut told: HashMap<String, u64> = HashMap::new();
    for round in 1..=6usize {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let name = "journal::events::store::tests::recovery::tells_until_it_is_killed";
        child.args(["--exact", name, "--ignored", "--nocapture"]).env(FOLDER, folder.path());
        let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut lines = lines.filter_map(|line| {
            let (session, rest) = line.strip_prefix("told ")?.split_once(' ')?;
            let (seq, body) = rest.split_once(' ')?;
            // The last line may be half a line.
            Some((
                session.to_owned(),
                seq.parse::<u64>().ok()?,
                body.ends_with('}').then(|| body.to_owned())?,
            ))
        });
        let mut all_told = Vec::new();
        all_told.extend(lines.by_ref().take(round * 53));
        child.kill().unwrap();
        // What it said between the last line that was read and its death.
        all_told.extend(lines);
        child.wait().unwrap();
        assert!(all_told.len() >= round * 53, "the child told of {} events", all_told.len());

        let store = open_at(folder.path(), 0);
        for session in ["one", "two"] {
            let found = numbers(&store, session);
            assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
        }
        for (session, seq, body) in all_told {
            let last = told.entry(session.clone()).or_default();
            assert!(seq > *last, "{session} {seq} after {last}: numbers go on");
            *last = seq;
            let query = EventQuery { after: seq - 1, limit: 1, ..EventQuery::default() };
            let page = reader::page(&store.connection, &session, &query).unwrap();
            assert_eq!(&*page.events[0].body, body, "{session} {seq}");
            let number =
                serde_json::from_str::<serde_json::Value>(&body).unwrap()["n"].as_u64().unwrap();
            let digest = [u8::try_from(number % 200).unwrap(); 32].into();
            assert!(
                store.pictures.read(&digest).unwrap().is_some(),
                "pictures are there before their event"
            );
        }
    }
}

#[test]
fn numbers_do_not_go_back_where_the_clock_was_set_back_before_the_file_was_damaged() {
    let folder = tempfile::tempdir().unwrap();
    drop(open_at(folder.path(), 0));
    let path = folder.path().join(store::FILE);
    std::fs::write(&path, vec![0x5a; 10_000]).unwrap();
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    let written = written.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let mut store = open_at(folder.path(), 5000);
    let first = keep(&mut store, "cam", vec![draft(1)], 5000);
    assert!(u128::from(first) > written, "{first}: a damaged file before gave numbers by its time");
}
