//! Inference that dies, hangs and grows: what it costs, and whom. Each promise is held at each
//! isolation level that makes it; at level `in-process` nothing of the kind is promised, since what
//! happens to the engine there happens to the host.
//!
//! The host has `faulty-inference` in the place of its inference program, and sessions run the
//! pipeline `marked`, whose settings say in which frames the program is to fail. Files are played
//! as fast as they are taken and skip nothing, so the results of a neighbour have to be the same
//! with a fault beside it as without.

use std::time::Duration;

use ocelli_testkit::{
    Client, DEADLINE, FileSession, Ocelli, PipelineFolder, Programs, assert_identical, clip,
};
use ocelli_testkit::{children, program, root};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// The levels at which a fault of native code stays outside the host.
const APART: [&str; 2] = ["process", "session"];

/// What `faulty-inference` does, by the numbers that it knows.
const ABORT: u8 = 1;
const SEGFAULT: u8 = 2;
const DOUBLE_FREE: u8 = 3;
const HANG: u8 = 4;
const EXHAUST_MEMORY: u8 = 5;
const TAKE_LONG: u8 = 6;
const LEAK: u8 = 7;

/// More than any request takes on a busy machine, where time is not what is tested.
const PATIENT: &str = "timeout_ms = 60000";

/// The clip that is played: 100 frames and more, each of which costs little.
const CLIP: &str = "people-576-high.mp4";

/// The frame at which sessions that fail do so: late enough for their neighbours to be under way.
const FRAME: u64 = 20;

/// Milliseconds within which there are results again where a process stands by. Promised for a
/// machine that has nothing else to do: printed, and for the bench to judge.
const BACK: u32 = 300;

/// A host at an isolation level. `inference` are further keys of that section of its config.
struct Faulty {
    host: Ocelli,
    level: &'static str,
    _programs: Programs,
    _store: PipelineFolder,
}

impl Faulty {
    async fn start(level: &'static str, inference: &str) -> Self {
        let programs = Programs::with_inference(&program("faulty-inference"));
        let store = PipelineFolder::with(&["marked"]);
        let host = Ocelli::start_from(&programs, &config(level, inference, &store)).await;
        let faulty = Self { host, level, _programs: programs, _store: store };
        // The first session has the pipeline compiled and the model learned.
        play(session("first", TAKE_LONG), &faulty.host).await;
        faulty.at_rest().await;
        faulty
    }

    /// A sample of `/metrics`.
    async fn metric(&self, series: &str) -> f64 {
        self.host.metric(series).await.unwrap_or_else(|| panic!("no {series}"))
    }

    async fn restarts(&self, reason: &str) -> f64 {
        self.metric(&format!("ocelli_inference_restarts_total{{reason={reason:?}}}")).await
    }

    /// Waits until the host has as many children as it has where no session is: at level `process`
    /// the one that serves and the one that stands by, at level `session` the latter.
    async fn at_rest(&self) {
        let begun = Instant::now();
        let expected = if self.level == "process" { 2 } else { 1 };
        loop {
            let found = children(self.host.process().pid);
            if found.len() == expected && self.metric("ocelli_inference_spare_ready").await == 1.0 {
                return;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "{}: {expected} children expected: {found:?}",
                self.level
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn config(level: &str, inference: &str, store: &PipelineFolder) -> String {
    let models = root().join("tests/models");
    format!(
        "[inference]\nisolation = {level:?}\nthreads = 2\n{inference}\n[models]\ndirectory = \
            {models:?}\n{}{}",
        // A call waits for as long as a process takes to be replaced, and again where that one
        // ends, too.
        "[subscriptions]\ngrace_s = 1\nsources = [\"file:/\"]\n[resource_limits]\ncall_timeout_ms \
            = 50000\n\
         [session_processes]\nhealth_check_interval = 60\n",
        store.section()
    )
}

/// Plays sessions at the same time, and waits until their names are free again.
async fn play_all(sessions: &[FileSession<'_>], host: &Ocelli) -> Vec<Vec<String>> {
    let results = FileSession::play_all(sessions, host).await;
    for session in sessions {
        host.wait_for_session(session.name, Value::is_null).await;
    }
    results
}

async fn play(session: FileSession<'_>, host: &Ocelli) -> Vec<String> {
    play_all(&[session], host).await.concat()
}

/// A session all of whose frames are marked with one deed.
fn session(name: &str, deed: u8) -> FileSession<'_> {
    FileSession { name, clip: CLIP, pipeline: "marked", settings: json!({"otherwise": deed}) }
}

/// A session that is like its neighbours but for one frame.
fn failing(name: &str, deed: u8) -> FileSession<'_> {
    let settings = json!({"deed": deed, "frames": [FRAME], "otherwise": TAKE_LONG});
    FileSession { settings, ..session(name, deed) }
}

fn neighbours() -> [FileSession<'static>; 2] {
    ["one", "two"].map(|name| session(name, TAKE_LONG))
}

/// Plays neighbours by themselves, and then beside others. The results of the others.
async fn beside(faulty: &Faulty, others: &[FileSession<'_>]) -> Vec<Vec<String>> {
    let alone = play_all(&neighbours(), &faulty.host).await;
    let all: Vec<FileSession<'_>> =
        neighbours().into_iter().chain(others.iter().cloned()).collect();
    let mut together = play_all(&all, &faulty.host).await;
    let results = together.split_off(alone.len());
    for ((neighbour, alone), together) in neighbours().iter().zip(&alone).zip(&together) {
        assert!(
            alone.len() > 2 * FRAME as usize,
            "{} messages are too few to compare",
            alone.len()
        );
        assert_identical(neighbour.name, alone, together);
    }
    assert!(!faulty.host.process().ends_within(Duration::ZERO), "the host has ended");
    results
}

/// The errors that a session's pipeline was given, with their frames.
fn errors(results: &[String]) -> Vec<(u64, String)> {
    let events = results.iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
    let refused = events.filter(|message| message["kind"] == "refused");
    let error = |event: Value| {
        let data = &event["data"];
        (data["frame"].as_u64().unwrap(), data["error"].as_str().unwrap().to_owned())
    };
    refused.map(error).collect()
}

/// The one error of a session that fails in one frame, and that it went on after it.
fn only_error(session: &FileSession<'_>, results: &[String]) -> String {
    let errors = errors(results);
    let [(FRAME, error)] = errors.as_slice() else { panic!("{}: {errors:?}", session.name) };
    println!("{}: {error}", session.name);
    // Events follow all detections in what a session gave.
    let last = results.iter().rfind(|result| result.contains("\"type\":\"detections\"")).unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["detections"][0]["label"], "echo", "{last}");
    error.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_ends_its_process_is_refused_and_its_neighbours_lose_nothing() {
    for level in APART {
        let faulty = Faulty::start(level, PATIENT).await;
        let others = [("abort", ABORT), ("segfault", SEGFAULT), ("double-free", DOUBLE_FREE)]
            .map(|(n, d)| failing(n, d));
        let results = beside(&faulty, &others).await;
        let words = [
            ["SIGABRT", "a fault of the tests: abort"],
            ["SIGSEGV", "a fault of the tests: null is written to"],
            ["SIGABRT", "free(): double free detected"],
        ];
        for ((session, results), words) in others.iter().zip(&results).zip(words) {
            let error = only_error(session, results);
            assert!(error.contains("poison request:"), "{level}, {}: {error}", session.name);
            assert!(
                words.iter().all(|word| error.contains(word)),
                "{level}, {}: {error}",
                session.name
            );
        }
        assert_eq!(faulty.metric("ocelli_inference_poison_requests_total").await, 3.0, "{level}");
        let crashes = faulty.restarts("crash").await;
        assert!((4.0..=6.0).contains(&crashes), "{level}: {crashes} crashes");
        faulty.at_rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_all_memory_ends_its_process_and_no_other() {
    for level in APART {
        // Twice as much is what the process may have at all.
        let faulty = Faulty::start(level, &format!("{PATIENT}\nmemory_mb = 400")).await;
        let others = [failing("greedy", EXHAUST_MEMORY)];
        let results = beside(&faulty, &others).await;
        let error = only_error(&others[0], &results[0]);
        assert!(
            error.contains("poison request:") && error.contains("memory allocation"),
            "{level}: {error}"
        );
        assert!(!error.contains("no limit was met"), "{level}: {error}");
        faulty.at_rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_ended_is_ended_with_its_process_and_answered_as_too_late() {
    for level in APART {
        // Neighbours wait for as long as the host waits for the run: that is within their time.
        let faulty = Faulty::start(level, "timeout_ms = 3000").await;
        let alone = play_all(&neighbours(), &faulty.host).await;
        let hanging = failing("hanging", HANG);
        let results = play(hanging.clone(), &faulty.host).await;
        let error = only_error(&hanging, &results);
        assert!(error.contains("Timeout"), "{level}: {error}");
        assert_eq!(faulty.restarts("timeout").await, 1.0, "{level}");
        let again = play_all(&neighbours(), &faulty.host).await;
        for (alone, again) in alone.iter().zip(&again) {
            assert_identical("a neighbour", alone, again);
        }
        faulty.at_rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_requests_end_processes_again_and_again_is_refused_everything() {
    for level in APART {
        let faulty = Faulty::start(level, PATIENT).await;
        let others = [session("poisonous", ABORT)];
        let results = beside(&faulty, &others).await;
        let errors = errors(&results[0]);
        assert_eq!(
            errors.len(),
            results[0].len() / 2,
            "{level}: every frame has an error and a detection"
        );
        assert!(
            errors[3..].iter().all(|(_, error)| error.contains("poison session:")),
            "{level}: {errors:?}"
        );
        assert_eq!(faulty.restarts("crash").await, 6.0, "{level}: three requests, twice each");
        faulty.at_rest().await;
    }
}

/// Does something to a process that serves a session while it is played, and tells the longest time
/// without a result.
async fn played_while(faulty: &Faulty, deed: Signal) -> (Vec<String>, Duration) {
    let session = session("watched", TAKE_LONG);
    let mut client = faulty.host.client().await;
    let source = format!("file:{}", clip(session.clip).display());
    let subscribe = json!({"type": "subscribe", "session": session.name, "source": source,
        "pipeline": session.pipeline, "settings": session.settings});
    client.send(&subscribe).await;
    for _ in 0..FRAME {
        client.detections(session.name).await;
    }
    let [process] = faulty.host.inference().await.try_into().unwrap();
    let mut last = Instant::now();
    process.signal(deed);
    let mut longest = Duration::ZERO;
    while until_stopped(&mut client).await {
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    assert!(process.ends_within(DEADLINE), "{process:?} lives on");
    let results =
        client.received().iter().filter(|text| text.starts_with("{\"type\":\"detections\""));
    (results.cloned().collect(), longest)
}

/// False where the session has stopped. Any message but a result fails the test.
async fn until_stopped(client: &mut Client) -> bool {
    let message = client.next().await;
    match message["type"].as_str().unwrap() {
        "session" if message["state"] == "stopped" => false,
        "detections" => true,
        _ => panic!("{message}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_replaced_at_once_by_the_one_that_stands_by() {
    for level in APART {
        let faulty = Faulty::start(level, PATIENT).await;
        let undisturbed = play(session("watched", TAKE_LONG), &faulty.host).await;
        let (results, longest) = played_while(&faulty, Signal::KILL).await;
        assert_eq!(results.len(), undisturbed.len(), "{level}: no result is missing");
        assert!(
            results.iter().all(|result| result.contains("\"label\":\"echo\"")),
            "{level}: {results:?}"
        );
        println!("{level}: {} ms without a result ({BACK} ms are promised)", longest.as_millis());
        assert_eq!(faulty.restarts("crash").await, 1.0, "{level}");
        faulty.at_rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_is_noticed_and_replaced() {
    for level in APART {
        let faulty = Faulty::start(level, PATIENT).await;
        let undisturbed = play(session("watched", TAKE_LONG), &faulty.host).await;
        let (results, longest) = played_while(&faulty, Signal::STOP).await;
        assert_eq!(results.len(), undisturbed.len(), "{level}: no result is missing");
        println!("{level}: {} ms without a result", longest.as_millis());
        assert_eq!(faulty.restarts("hang").await, 1.0, "{level}");
        faulty.at_rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_grows_too_large_is_replaced_without_a_missed_result() {
    for level in APART {
        let faulty = Faulty::start(level, &format!("{PATIENT}\nmemory_mb = 200")).await;
        let sound = play(session("leaking", TAKE_LONG), &faulty.host).await;
        let leaking = play(session("leaking", LEAK), &faulty.host).await;
        assert_identical("leaking", &sound, &leaking);
        assert!(faulty.restarts("memory").await >= 1.0, "{level}");
        assert_eq!(faulty.restarts("crash").await, 0.0, "{level}");
        faulty.at_rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_the_same_at_every_isolation_level() {
    let store = PipelineFolder::with(&["marked"]);
    let mut before: Option<Vec<Vec<String>>> = None;
    for level in ["process", "session", "in-process"] {
        let mut host = Ocelli::start(&config(level, PATIENT, &store)).await;
        let processes = children(host.process().pid).len();
        let expected = if level == "in-process" { 0 } else { 1 };
        assert!(
            processes >= expected && (level != "in-process" || processes == 0),
            "{level}: {processes}"
        );
        let results = play_all(&neighbours(), &host).await;
        assert!(
            results.iter().all(|results| results.len() > 2 * FRAME as usize),
            "{level}: too few to compare"
        );
        if let Some(before) = &before {
            for (before, now) in before.iter().zip(&results) {
                assert_identical(level, before, now);
            }
        }
        before = Some(results);
        let exit = host.stop().await;
        assert_eq!(exit.status, Some(0), "{level}: {}", exit.stderr);
        assert_eq!(
            exit.stderr.contains("a crash of ONNX Runtime"),
            level == "in-process",
            "{}",
            exit.stderr
        );
    }
}
