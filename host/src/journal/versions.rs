//! Journals of earlier versions, `tests/journals/VERSION`, opened by this one.
//!
//! Each was written by its own version: `OCELLI_WRITE_JOURNAL=1 cargo test -p ocelli --lib
//! journal::versions` writes one of this version, once, when it is released. `contents.json` beside
//! it says what that version read from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocelli_protocol::digest::Digest;
use ocelli_protocol::worker::StoreChange;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::events::{Attachment, EventDraft, EventFilter, EventQuery, EventSearch};
use super::tests::close;
use super::*;

/// Set where a journal of this version is to be written.
const WRITE: &str = "OCELLI_WRITE_JOURNAL";

/// What is said of a journal beside it.
const CONTENTS: &str = "contents.json";

/// An event: its number, kind and body.
type Told = (u64, String, Value);

/// What a journal holds, as its own version read it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Contents {
    /// By session: the number of the last event, and each event.
    events: BTreeMap<String, (u64, Vec<Told>)>,
    /// Session and number of each event in the order in which they were kept, by their numbers
    /// among those of all sessions.
    all: BTreeMap<u64, (String, u64)>,
    /// The last of those numbers.
    last: u64,
    /// By sink and session.
    cursors: BTreeMap<String, BTreeMap<String, u64>>,
    /// The alerts that are raised.
    raised: Vec<(String, String)>,
    /// The pictures by their digests: their sessions, and their bytes as text.
    pictures: BTreeMap<String, (Vec<String>, String)>,
    /// By session, bucket and key.
    stores: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
    /// By session: number and record, the newest first.
    deployments: BTreeMap<String, Vec<(u64, String)>>,
    under_way: Vec<(String, u64)>,
    /// The entry of the config by session.
    entries: BTreeMap<String, Option<String>>,
    /// Reason and time by the source's digest.
    readers: BTreeMap<String, Option<(String, u64)>>,
}

impl Contents {
    /// What a journal holds of all that these contents name.
    async fn of(journal: &Journal, named: &Self) -> Self {
        let events = journal.events();
        let mut found = Self {
            events: BTreeMap::new(),
            all: BTreeMap::new(),
            last: 0,
            cursors: BTreeMap::new(),
            raised: Vec::new(),
            pictures: BTreeMap::new(),
            stores: BTreeMap::new(),
            deployments: BTreeMap::new(),
            under_way: Vec::new(),
            entries: BTreeMap::new(),
            readers: BTreeMap::new(),
        };
        for (session, _) in events.sessions().await.unwrap() {
            let query = EventQuery { limit: usize::MAX, ..EventQuery::default() };
            let page = events.page(&session, query).await.unwrap();
            let body = |text: &str| serde_json::from_str(text).unwrap();
            let list =
                page.events.iter().map(|one| (one.seq, one.kind.to_string(), body(&one.body)));
            found.events.insert(session.to_string(), (page.span.newest, list.collect()));
        }
        let page = events.kept_after(0, usize::MAX).await.unwrap();
        found.last = page.last;
        let row =
            |one: &events::NumberedEvent| (one.number, (one.session.to_string(), one.event.seq));
        found.all = page.events.iter().map(row).collect();
        for sink in named.cursors.keys() {
            let cursors = events.cursors(&sink.as_str().into()).await.unwrap().into_iter();
            let cursors = cursors.map(|(session, seq)| (session.to_string(), seq)).collect();
            found.cursors.insert(sink.clone(), cursors);
        }
        let raised = events.raised_alerts().await.unwrap().into_iter();
        found.raised = raised.map(|(session, alert)| (session.to_string(), alert)).collect();
        for digest in named.pictures.keys() {
            let picture = events.attachment(digest.parse().unwrap()).await.unwrap();
            let (bytes, owners) = picture.expect("the picture is kept");
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            let owners = owners.iter().map(ToString::to_string).collect();
            found.pictures.insert(digest.clone(), (owners, text));
        }
        for session in named.stores.keys() {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            let bucket = |bucket: BTreeMap<String, Vec<u8>>| {
                bucket.into_iter().map(|(key, value)| (key, text(value))).collect()
            };
            let store = journal.store_contents(session).await.unwrap().into_iter();
            let store =
                store.map(|(name, kept)| (name, bucket(kept.into_iter().collect()))).collect();
            found.stores.insert(session.clone(), store);
        }
        for session in named.deployments.keys() {
            let rows = journal.deployments(session, usize::MAX).await.unwrap().into_iter();
            let rows = rows.map(|row| (row.number, row.record)).collect();
            found.deployments.insert(session.clone(), rows);
        }
        let under_way = journal.deployments_under_way().await.unwrap().into_iter();
        found.under_way = under_way.map(|row| (row.session, row.number)).collect();
        for session in named.entries.keys() {
            found.entries.insert(session.clone(), journal.entry(session).await.unwrap());
        }
        for source in named.readers.keys() {
            let row = journal.reader(source.clone()).await.unwrap();
            found.readers.insert(source.clone(), row.map(|row| (row.reason, row.since)));
        }
        found
    }

    /// The names alone, as [`write`] gives them.
    fn named() -> Self {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        fn empty<V: Default>(names: Vec<String>) -> BTreeMap<String, V> {
            names.into_iter().map(|name| (name, V::default())).collect()
        }
        Self {
            events: BTreeMap::new(),
            all: BTreeMap::new(),
            last: 0,
            cursors: empty(names(&["redis", "mqtt", "webhook:backend", "redis starts"])),
            raised: Vec::new(),
            pictures: empty(PICTURES.map(|text| Digest::of(text).to_string()).to_vec()),
            stores: empty(names(&["gate", "yard"])),
            deployments: empty(names(&["gate", "yard"])),
            under_way: Vec::new(),
            entries: empty(names(&["gate", "yard"])),
            readers: empty(names(&["0123456789abcdef"])),
        }
    }
}

/// Pictures, though nobody sees them as such.
const PICTURES: [&str; 2] = ["the picture of one session", "the picture of two sessions"];

fn journals() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/journals")
}

fn draft(number: u64, kind: &str, members: Value, pictures: &[&str]) -> EventDraft {
    let mut body = json!({
        "time": format!("2026-11-30T10:00:{number:02}.000Z"), "clock": "host", "kind": kind,
        "deployment": "c2247ebd57c7", "detections": [], "data": {},
    });
    for (key, value) in members.as_object().unwrap() {
        body[key] = value.clone();
    }
    let picture = |text: &&str| Attachment {
        digest: Digest::of(text),
        bytes: bytes::Bytes::copy_from_slice(text.as_bytes()),
    };
    EventDraft {
        kind: kind.to_owned(),
        time_ms: 1_796_032_800_000 + i64::try_from(number).unwrap() * 1000,
        body: body.to_string().into(),
        attachments: pictures.iter().map(picture).collect(),
        clip: None,
    }
}

/// Writes a journal that has something of all that a journal keeps.
async fn write(folder: &Path) {
    let journal = Journal::open(folder).unwrap();
    let events = journal.events();
    for number in 1..=40 {
        let found =
            json!([{"label": "person", "score": 0.5, "box": [1, 2, 3, 4], "attributes": {}}]);
        let zone = json!({"zone": "door", "label": "person"});
        let pictures = if number == 7 { PICTURES.as_slice() } else { &[] };
        let members = json!({"frame": number, "detections": found, "data": zone});
        events.append("gate", draft(number, "entered", members, pictures));
        if number % 4 == 0 {
            let pictures = if number == 8 { &PICTURES[1..] } else { &[] };
            events.append("yard", draft(number, "left", json!({"frame": number}), pictures));
        }
    }
    for (number, alert, raised) in
        [(41, "disk", true), (42, "source_down", true), (43, "disk", false)]
    {
        let data = json!({"alert": alert, "raised": raised, "message": "a test"});
        events.append("gate", draft(number, events::ALERT_KIND, json!({"data": data}), &[]));
    }
    events.append("a session; of a subscriber", draft(44, "seen", json!({"frame": 1}), &[]));
    events.flush().await.unwrap();
    let cursor = |session: &str, seq| (Arc::from(session), seq);
    events.set_cursors(&"redis".into(), vec![cursor("gate", 43), cursor("yard", 10)]);
    events.set_cursors(&"mqtt".into(), vec![cursor("gate", 12)]);
    events.set_cursors(&"webhook:backend".into(), vec![cursor("yard", 3)]);
    events.set_cursors(&"redis starts".into(), vec![cursor("", 0), cursor("gate", 5)]);
    let set = |key: &str, value: &str| StoreChange {
        bucket: "counts".into(),
        key: key.into(),
        value: Some(value.into()),
    };
    journal.commit_store("gate", vec![set("in", "17"), set("out", "4")]).await.unwrap();
    journal.commit_store("yard", vec![set("in", "1")]).await.unwrap();
    for session in ["gate", "gate", "yard"] {
        let record = |number| json!({"number": number, "state": "healthy"}).to_string();
        let number = journal.add_deployment(session, true, record).await.unwrap();
        let row = DeploymentRow { session: session.into(), number, record: record(number) };
        let entry = Some(format!("{{\"id\":\"{session}\"}}"));
        journal.set_deployment(row, false, entry).await.unwrap();
    }
    journal.add_deployment("yard", true, |_| "{\"state\":\"pending\"}".to_owned()).await.unwrap();
    let reader = ReaderRow { reason: "no SDP".into(), since: 1_796_032_800 };
    journal.set_reader("0123456789abcdef".into(), Some(reader)).await.unwrap();
    events.flush().await.unwrap();
    let contents = Contents::of(&journal, &Contents::named()).await;
    let text = serde_json::to_string_pretty(&contents).unwrap() + "\n";
    std::fs::write(folder.join(CONTENTS), text).unwrap();
    close(journal, folder).await;
    // All in one file: the log is written back, once the threads have closed theirs.
    let log = folder.join("events.db-wal");
    while log.exists() {
        let connection = Connection::open(folder.join("events.db")).unwrap();
        connection.pragma_update(None, "wal_checkpoint", "TRUNCATE").unwrap();
        drop(connection);
        std::thread::yield_now();
    }
}

/// A copy of a journal of that version, which tests may change.
fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copied(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// All files below a folder, with what is in them.
fn bytes_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(bytes_of(&path)),
            false => drop(found.insert(path.clone(), std::fs::read(path).unwrap())),
        }
    }
    found
}

/// The folders of the journals, each with its version.
fn versions() -> Vec<PathBuf> {
    let mut all: Vec<_> =
        std::fs::read_dir(journals()).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    assert!(!all.is_empty());
    all
}

#[tokio::test]
async fn a_journal_of_every_version_is_read_whole_and_goes_on() {
    let own = journals().join(env!("CARGO_PKG_VERSION"));
    if std::env::var_os(WRITE).is_some() {
        assert!(!own.exists(), "{} is of a version that is released", own.display());
        write(&own).await;
    }
    // The journal of this version has this version's form.
    for (name, known) in [(FILE, KIND.migrations.len()), (events::FILE, events::schema())] {
        let site = tempfile::tempdir().unwrap();
        copied(&own, &site.path().join("data"));
        let connection = Connection::open(site.path().join("data").join(name)).unwrap();
        let found: usize =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(found, known, "{name}: write {} anew before the release", own.display());
    }
    for version in versions() {
        let site = tempfile::tempdir().unwrap();
        let folder = site.path().join("data");
        copied(&version, &folder);
        let text = std::fs::read(folder.join(CONTENTS)).unwrap();
        let mut contents: Contents = serde_json::from_slice(&text).unwrap();
        let journal = Journal::open(&folder).unwrap();
        assert_eq!(Contents::of(&journal, &contents).await, contents, "{}", version.display());

        // New events follow the last ones, and filters find old and new ones together.
        let body = json!({"frame": 99, "data": {"zone": "door"}});
        for session in ["gate", "yard", "new"] {
            journal.events().append(session, draft(59, "entered", body.clone(), &PICTURES[..1]));
        }
        journal.events().flush().await.unwrap();
        for session in ["gate", "yard", "new"] {
            let (last, events) = contents.events.entry(session.to_owned()).or_default();
            (*last, contents.last) = (*last + 1, contents.last + 1);
            let event = draft(59, "entered", body.clone(), &[]);
            events.push((*last, event.kind, serde_json::from_str(&event.body).unwrap()));
            contents.all.insert(contents.last, (session.to_owned(), *last));
        }
        let search = EventSearch {
            filter: EventFilter { zones: ["door".to_owned()].into(), ..EventFilter::default() },
            limit: 999,
            ..EventSearch::default()
        };
        let found = journal.events().search(search).await.unwrap().events;
        let in_zone = |(_, _, body): &&Told| body["data"]["zone"] == "door";
        let expected = contents.events.values().flat_map(|(_, events)| events).filter(in_zone);
        assert_eq!(found.len(), expected.count());

        // A deployment that was under way is there to be closed, and numbers go on.
        let number =
            journal.add_deployment("gate", true, |number| format!("{number}")).await.unwrap();
        let deployments = contents.deployments.get_mut("gate").unwrap();
        assert_eq!(number, deployments[0].0 + 1);
        deployments.insert(0, (number, number.to_string()));
        contents.under_way.push(("gate".into(), number));
        let digest = Digest::of(PICTURES[0]).to_string();
        contents.pictures.get_mut(&digest).unwrap().0 =
            ["gate", "new", "yard"].map(str::to_owned).to_vec();
        close(journal, &folder).await;
        let journal = Journal::open(&folder).unwrap();
        assert_eq!(Contents::of(&journal, &contents).await, contents, "after a restart");
    }
}

/// Sets a file's schema, as a version to come would.
fn set_schema(file: &Path, schema: usize) {
    let connection = Connection::open(file).unwrap();
    connection.pragma_update(None, "user_version", schema).unwrap();
    connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).unwrap();
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
}

#[test]
fn a_journal_of_a_version_to_come_is_refused_by_name_and_nothing_is_written() {
    let newest = versions().pop().unwrap();
    for newer in ["journal.db", "events.db"] {
        let site = tempfile::tempdir().unwrap();
        let folder = site.path().join("data");
        copied(&newest, &folder);
        // The other file is of a version before: it would be brought to this version's schema.
        let old = Connection::open(folder.join("journal.db")).unwrap();
        old.execute_batch("DROP TABLE readers; PRAGMA user_version = 1").unwrap();
        drop(old);
        set_schema(&folder.join(newer), 99);
        let before = bytes_of(&folder);
        let error = Journal::open(&folder).unwrap_err();
        let refused = error.downcast_ref::<JournalError>();
        assert!(matches!(refused, Some(JournalError::Newer { found: 99, .. })), "{error:#}");
        let text = format!("{error:#}");
        assert!(text.contains("newer_store") && text.contains(newer), "{text}");
        assert_eq!(bytes_of(&folder), before, "{newer}");
    }
}

#[test]
fn a_newer_schema_that_is_in_the_log_alone_is_refused_as_well() {
    let site = tempfile::tempdir().unwrap();
    let folder = site.path().join("data");
    copied(&versions().pop().unwrap(), &folder);
    // A host that was killed: its log was never written back.
    let killed = site.path().join("killed");
    let connection = Connection::open(folder.join("events.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    copied(&folder, &killed);
    drop(connection);
    assert!(std::fs::metadata(killed.join("events.db-wal")).unwrap().len() > 0);
    let error = Journal::open(&killed).unwrap_err();
    let refused = error.downcast_ref::<JournalError>();
    assert!(matches!(refused, Some(JournalError::Newer { found: 99, .. })), "{error:#}");
}
