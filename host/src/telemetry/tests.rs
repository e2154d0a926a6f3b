//! What an operator finds in the log files, from the event to the disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::ToSpan;
use ocelli_testkit::small_disk::SmallDisk;
use tracing::Level;

use super::queue::LogEntry;
use super::*;

const ROTATION: Rotation = Rotation { max_bytes: 1 << 20, backups: 2 };

/// A log in a folder of its own, written when it is ended.
struct Log {
    folder: tempfile::TempDir,
    format: LogFormat,
}

impl Log {
    fn new(format: LogFormat) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), format }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Logs what `what` logs, and returns when it is on the disk.
    fn during(&self, what: impl FnOnce()) -> u64 {
        let lost = Arc::<AtomicU64>::default();
        let queue = Arc::new(LogQueue::new(FILES_ROOM, Arc::clone(&lost)));
        let files =
            LogFiles::open(self.path(), self.format, ROTATION, Arc::clone(&lost), Timestamp::now())
                .unwrap();
        let layer = LogLayer { format: self.format, files: Arc::clone(&queue), console: None };
        let mut guard = LogGuard::default();
        guard.add("log files", queue, |queue| files.write_all(queue)).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), what);
        drop(guard);
        lost.load(Ordering::Relaxed)
    }

    fn files(&self) -> BTreeMap<String, String> {
        listed(self.path())
    }
}

fn listed(folder: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    files
        .filter_map(|file| {
            Some((file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).ok()?))
        })
        .collect()
}

/// What follows the time of each line.
fn said(text: &str) -> Vec<&str> {
    text.lines().map(|line| line.split_once(' ').unwrap().1).collect()
}

fn open(folder: &Path, rotation: Rotation) -> (LogFiles, Arc<AtomicU64>, Arc<LogQueue>) {
    let lost = Arc::<AtomicU64>::default();
    let console = Arc::new(LogQueue::new(CONSOLE_ROOM, Arc::default()));
    let files =
        LogFiles::open(folder, LogFormat::Text, rotation, Arc::clone(&lost), now()).unwrap();
    (files.with_console(Arc::clone(&console)), lost, console)
}

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

/// A line about a session, or of its pipeline.
fn entry(session: &str, guest: bool, line: &str) -> LogEntry {
    let line = format!("{line}\n").into();
    LogEntry { time: now(), level: Level::WARN, session: Some(session.into()), guest, line }
}

/// The messages that wait for the console.
fn told(console: &LogQueue) -> Vec<String> {
    console.close();
    std::iter::from_fn(|| Some(console.pop()?.0.line.to_string())).collect()
}

#[test]
fn a_line_is_in_the_file_of_its_session_and_in_no_other() {
    let log = Log::new(LogFormat::Text);
    let lost = log.during(|| {
        tracing::info!(target: "ocelli::serve", cameras = 2, "ready");
        tracing::info!(target: "ocelli::session", session = "one", state = "running", "session state");
        tracing::warn!(target: "ocelli::session", session = "display-001;cam-001", "source down");
        let (deployment, frame) = ("8a51bc", Some(12u64));
        tracing::info!(target: "ocelli::pipeline", session = "one", deployment, frame, "a car");
        tracing::error!(target: "ocelli::pipeline", session = "one", deployment, frame, "no plate");
        tracing::warn!(target: "ocelli::worker", session = %"two", "a last word");
    });
    assert_eq!(lost, 0);
    let files = log.files();
    let file = |name: &str| said(&files[name]);
    let (state, down) = (
        r#" INFO ocelli::session session="one": session state state="running""#,
        " WARN ocelli::session",
    );
    let down = format!("{down} session=\"display-001;cam-001\": source down");
    let car = r#" INFO ocelli::pipeline session="one" deployment="8a51bc" frame=12: a car"#;
    let plate = r#"ERROR ocelli::pipeline session="one" deployment="8a51bc" frame=12: no plate"#;
    let word = r#" WARN ocelli::worker session="two": a last word"#;
    assert_eq!(file(MAIN_LOG), [" INFO ocelli::serve: ready cameras=2", state, &down, plate, word]);
    assert_eq!(file("detector_worker_camera_one.log"), [state, car, plate]);
    assert_eq!(file("detector_worker_camera_two.log"), [word]);
    assert_eq!(file(&session_log("display-001;cam-001")), [&down]);
    assert_eq!(files.len(), 4);
    for line in files.values().flat_map(|text| text.lines()) {
        line.split_once(' ').unwrap().0.parse::<Timestamp>().unwrap();
    }
}

#[test]
fn a_restart_appends() {
    let log = Log::new(LogFormat::Text);
    for round in 0..3 {
        log.during(|| tracing::warn!(session = "cam", round, "the source is down"));
    }
    let files = log.files();
    assert_eq!(files.len(), 2);
    for text in files.values() {
        let rounds: Vec<_> =
            text.lines().map(|line| line.rsplit_once("round=").unwrap().1).collect();
        assert_eq!(rounds, ["0", "1", "2"]);
    }
}

#[test]
fn a_pipeline_cannot_forge_a_line_or_move_the_cursor() {
    let hostile = "fine\n2026-03-01T12:00:00.000000Z ERROR ocelli::session session=\"other\": \
        worker lost\r\n\r\
                   \x1b[2J\u{9b}31m\u{85}\u{2028}\u{202e}\x7f\x08\n\n  at frame 1\n";
    for format in [LogFormat::Text, LogFormat::Json] {
        let log = Log::new(format);
        log.during(|| {
            tracing::error!(target: "ocelli::pipeline", session = "cam", context = hostile, shown = %hostile, "{hostile}");
        });
        let files = log.files();
        assert_eq!(files.len(), 2);
        for text in files.values() {
            let harmless =
                |c: char| c == '\n' || !c.is_control() && !('\u{2028}'..='\u{202e}').contains(&c);
            assert!(text.chars().all(harmless), "{text:?}");
            let begun: Vec<_> = text.lines().filter(|line| !line.starts_with("    ")).collect();
            assert_eq!(begun.len(), 1, "{text}");
            match format {
                LogFormat::Text => {
                    assert!(
                        begun[0].contains(
                            r#"ERROR ocelli::pipeline session="cam": fine context="fine\n"#
                        )
                    );
                    assert_eq!(text.lines().count(), 5, "{text}");
                    assert!(text.ends_with("\n      at frame 1\n"), "{text}");
                }
                LogFormat::Json => {
                    let entry: serde_json::Value = serde_json::from_str(text).unwrap();
                    assert_eq!(entry["message"], hostile);
                    assert_eq!(entry["fields"]["context"], hostile);
                }
            }
        }
    }
}

#[test]
fn a_name_in_quotes_does_not_end_at_a_quote_of_its_own() {
    let log = Log::new(LogFormat::Text);
    log.during(|| tracing::info!(session = r#"a" frame=7: b\"#, "up"));
    let text = &log.files()[MAIN_LOG];
    assert!(text.contains(r#" session="a\" frame=7: b\\": up"#), "{text}");
}

#[test]
fn every_line_of_json_is_an_object() {
    let log = Log::new(LogFormat::Json);
    log.during(|| {
        tracing::info!(
            session = "cam",
            deployment = "8a",
            frame = 3u64,
            ms = 1.5,
            cold = true,
            n = -1,
            "up\nand\nrunning"
        );
        tracing::info!("ready");
        tracing::warn!(bad = f64::NAN, error = ?std::io::ErrorKind::NotFound, "odd");
    });
    let files = log.files();
    let entries: Vec<serde_json::Value> =
        files[MAIN_LOG].lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(entries.len(), 3);
    let first = &entries[0];
    first["time"].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!(
        (
            &first["level"],
            &first["session"],
            &first["deployment"],
            &first["frame"],
            &first["message"]
        ),
        (&"INFO".into(), &"cam".into(), &"8a".into(), &3.into(), &"up\nand\nrunning".into())
    );
    assert_eq!(first["fields"], serde_json::json!({ "ms": 1.5, "cold": true, "n": -1 }));
    assert_eq!(entries[1].get("session"), None);
    assert_eq!(entries[2]["fields"], serde_json::json!({ "bad": null, "error": "NotFound" }));
    assert_eq!(
        files["detector_worker_camera_cam.log"].lines().next(),
        files[MAIN_LOG].lines().next()
    );
}

#[test]
fn an_entry_is_bounded_and_says_what_was_cut() {
    let log = Log::new(LogFormat::Text);
    let long = "ä".repeat(1 << 20);
    log.during(|| tracing::info!(value = long, "{long}"));
    let text = &log.files()[MAIN_LOG];
    assert!(text.len() < 40 << 10, "{}", text.len());
    let cut = |kept: usize| format!("ä [cut: {} bytes]", (2 << 20) - kept);
    assert!(text.contains(&cut(32 << 10)) && text.contains(&cut(4 << 10)), "{}", text.len());
}

#[test]
fn a_record_of_the_log_crate_has_its_own_target() {
    let log = Log::new(LogFormat::Text);
    log.during(|| {
        let record = tracing_log::log::Record::builder()
            .target("rustls::server")
            .level(tracing_log::log::Level::Error)
            .args(format_args!("an odd client"))
            .build();
        tracing_log::format_trace(&record).unwrap();
    });
    assert_eq!(said(&log.files()[MAIN_LOG]), ["ERROR rustls::server: an odd client"]);
}

#[test]
fn a_flood_of_one_pipeline_neither_blocks_nor_costs_others_a_line() {
    let lost = Arc::<AtomicU64>::default();
    let queue = Arc::new(LogQueue::new(1 << 20, Arc::clone(&lost)));
    let layer = LogLayer { format: LogFormat::Text, files: Arc::clone(&queue), console: None };
    // Nobody takes anything out meanwhile.
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        for _ in 0..20_000 {
            tracing::info!(target: "ocelli::pipeline", session = "loud", "flood");
        }
        tracing::info!(target: "ocelli::pipeline", session = "quiet", "still heard");
        tracing::info!(target: "ocelli::session", session = "loud", "a state");
    });
    queue.close();
    let folder = tempfile::tempdir().unwrap();
    let (files, ..) = open(folder.path(), ROTATION);
    files.write_all(&queue);
    let files = listed(folder.path());
    let written = files["detector_worker_camera_loud.log"].matches("flood").count() as u64;
    assert!(written > 0);
    assert_eq!(lost.load(Ordering::Relaxed), 20_000 - written);
    let sum = format!("{} log lines are lost", 20_000 - written);
    for (file, word) in
        [("camera_loud.log", sum.as_str()), ("main.log", &sum), ("camera_quiet.log", "still heard")]
    {
        assert!(files[&format!("detector_worker_{file}")].contains(word), "{file}");
    }
    assert!(!files["detector_worker_camera_quiet.log"].contains("lost"));
}

#[test]
fn the_main_log_shows_a_complaining_pipeline_and_not_each_complaint() {
    let folder = tempfile::tempdir().unwrap();
    let (mut files, lost, _) = open(folder.path(), ROTATION);
    for minute in 0..2 {
        for _ in 0..100 {
            for session in ["loud", "other"] {
                files.write(&LogEntry {
                    time: now() + minute.minutes(),
                    ..entry(session, true, session)
                });
            }
        }
        files.write(&entry("loud", false, "a state"));
    }
    let main = fs::read_to_string(folder.path().join(MAIN_LOG)).unwrap();
    let lines = |word: &str| main.lines().filter(|line| *line == word).count();
    assert_eq!((lines("loud"), lines("other"), lines("a state")), (20, 20, 2));
    assert_eq!(
        main.matches(
            "further warnings of this minute are in detector_worker_camera_loud.log alone"
        )
        .count(),
        2
    );
    let own = fs::read_to_string(folder.path().join("detector_worker_camera_loud.log")).unwrap();
    assert_eq!(own.lines().filter(|line| *line == "loud").count(), 200);
    assert_eq!(lost.load(Ordering::Relaxed), 0);
}

#[test]
fn a_log_that_is_a_link_costs_its_own_lines_alone_and_they_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let full = folder.path().join("detector_worker_camera_full.log");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    let (mut files, lost, console) = open(folder.path(), ROTATION);
    for _ in 0..50 {
        files.write(&entry("full", true, "gone"));
        files.write(&entry("well", true, "kept"));
    }
    fs::remove_file(&full).unwrap();
    files.write(&entry("full", true, "back"));
    assert_eq!(lost.load(Ordering::Relaxed), 50);
    let written = listed(folder.path());
    assert_eq!(written["detector_worker_camera_well.log"].lines().count(), 50);
    let back: Vec<_> = written["detector_worker_camera_full.log"].lines().collect();
    assert_eq!((back.len(), back[1]), (2, "back"));
    assert!(
        back[0].contains("50 log lines are lost: Too many levels of symbolic links"),
        "{}",
        back[0]
    );
    let told = told(&console);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("camera_full.log: Too many levels of symbolic links"), "{told:?}");
    assert!(written[MAIN_LOG].contains(&told[0]));
}

#[test]
fn trouble_is_told_on_the_console_once_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    // A folder stands where the file should.
    fs::create_dir(folder.path().join("detector_worker_camera_cam.log")).unwrap();
    let (mut files, lost, console) = open(folder.path(), ROTATION);
    for second in 0..180 {
        files.write(&LogEntry { time: now() + second.seconds(), ..entry("cam", true, "gone") });
    }
    assert_eq!(lost.load(Ordering::Relaxed), 180);
    let told = told(&console);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[2].ends_with("log lines lost since the start: 121\n"), "{told:?}");
}

#[test]
fn a_disk_that_fills_up_and_is_cleared_has_whole_lines_alone() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), 64) else { return };
    let (mut files, lost, console) = open(disk.path(), ROTATION);
    let line = "x".repeat(999);
    for _ in 0..200 {
        files.write(&entry("cam", false, &line));
    }
    let gone = lost.load(Ordering::Relaxed);
    assert!(gone > 300, "{gone}");
    for text in listed(disk.path()).values() {
        let whole = |kept: &str| kept == line || kept.contains(" ocelli::telemetry: ");
        assert!(text.ends_with('\n') && text.lines().all(whole), "half a line is left");
    }
    assert_eq!(told(&console).len(), 1);
    fs::remove_file(disk.path().join("detector_worker_camera_cam.log")).unwrap();
    files.write(&entry("cam", false, "a state"));
    let written = listed(disk.path());
    assert_eq!(lost.load(Ordering::Relaxed), gone);
    for file in [MAIN_LOG, "detector_worker_camera_cam.log"] {
        assert!(written[file].contains("log lines are lost: No space left"), "{file}");
        assert!(written[file].ends_with("\na state\n"), "{file}");
    }
    drop(files);
}

#[test]
fn session_logs_on_disk_are_bounded_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let (mut files, lost, _) = open(folder.path(), Rotation { max_bytes: 20, backups: 1 });
    for index in 0..1010 {
        let name = session_log(&format!("old {index}"));
        let file = fs::File::create(folder.path().join(&name)).unwrap();
        file.set_modified((now() - 10.hours() + i64::from(index).seconds()).try_into().unwrap())
            .unwrap();
        let older = fs::File::create(folder.path().join(format!("{name}.1"))).unwrap();
        older.set_modified((now() - 20.hours()).try_into().unwrap()).unwrap();
    }
    fs::write(folder.path().join("notes.log"), "an operator's").unwrap();
    for _ in 0..3 {
        files.write(&entry("new", true, "a line"));
        files.write(&entry("newer", true, "a line"));
    }
    let left = listed(folder.path());
    let logs = left
        .keys()
        .filter(|name| name.starts_with("detector_worker_camera_") && name.ends_with(".log"));
    assert_eq!(logs.count(), 1000);
    assert!(left.contains_key("notes.log") && left.contains_key("detector_worker_camera_new.log"));
    for (index, there) in [(0, false), (11, false), (12, true), (1009, true)] {
        let name = session_log(&format!("old {index}"));
        assert_eq!(left.contains_key(&name), there, "{index}");
        assert_eq!(left.contains_key(&format!("{name}.1")), there, "{index}");
    }
    assert_eq!(lost.load(Ordering::Relaxed), 0);
}

#[test]
fn more_sessions_than_files_may_be_open_lose_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let (mut files, lost, _) = open(folder.path(), ROTATION);
    let before = open_in(folder.path());
    for _ in 0..2 {
        for index in 0..200 {
            files.write(&entry(&format!("s{index}"), true, "a line"));
        }
    }
    assert_eq!(lost.load(Ordering::Relaxed), 0);
    assert_eq!(open_in(folder.path()) - before, 64);
    let written = listed(folder.path());
    assert!(
        (0..200).all(|index| written[&session_log(&format!("s{index}"))] == "a line\na line\n")
    );
}

/// Descriptors of this process for files in `folder`.
fn open_in(folder: &Path) -> usize {
    let open =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    open.filter(|path| path.starts_with(folder)).count()
}

#[test]
fn a_log_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let (path, source) =
        LogFiles::open(&file, LogFormat::Text, ROTATION, Arc::default(), now()).err().unwrap();
    let error = TelemetryError::File { path, source }.to_string();
    assert!(error.contains(MAIN_LOG) && error.contains("directory"), "{error}");
}

#[test]
fn the_first_variable_counts_and_a_wrong_one_is_refused() {
    let set = |name: &'static str, value: &'static str| {
        move |asked: &str| (asked == name).then(|| value.into())
    };
    assert_eq!(filter(|_| None).unwrap().to_string(), DEFAULT_FILTER);
    assert_eq!(filter(set("OCELLI_LOG", "debug")).unwrap().to_string(), "debug");
    assert_eq!(filter(set("RUST_LOG", "warn")).unwrap().to_string(), "warn");
    assert_eq!(filter(set("OCELLI_LOG", "")).unwrap().to_string(), DEFAULT_FILTER);
    let error = filter(set("OCELLI_LOG", "ocelli=loud")).unwrap_err().to_string();
    assert!(error.contains("OCELLI_LOG"), "{error}");
}
