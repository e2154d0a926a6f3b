//! Pipelines that do harm, each in a session of its own on a host with four healthy cameras. The
//! healthy ones give the results, byte by byte, that they give without them; and of each harm the
//! operator reads what it was.

use ocelli_testkit::{FileSession, Ocelli, PipelineFolder, assert_identical, clip};
use serde_json::{Value, json};

/// What becomes of a session.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// Its worker is lost each time, soon after its start: after some times the session is given
    /// up.
    Fails,
    /// Its worker is lost too, but that takes so long that one loss has to do.
    Restarts,
    /// It goes on.
    Runs,
}

/// A harm, and what is told of it.
struct Harm {
    /// The setting `do` of the pipeline `hostile`, or another pipeline. The session has this name
    /// too.
    deed: &'static str,
    fate: Fate,
    /// Stands in the session's log, and in its last error where it has one.
    said: &'static str,
    /// The limit that is counted.
    limit: Option<&'static str>,
}

/// A harm that a limit ends: the error names it.
fn limited(deed: &'static str, said: &'static str) -> Harm {
    Harm { deed, fate: Fate::Fails, said, limit: said.strip_prefix("limit ") }
}

/// A harm that meets no limit and ends its worker.
fn broken(deed: &'static str, said: &'static str) -> Harm {
    Harm { deed, fate: Fate::Fails, said, limit: None }
}

/// A harm that its session outlives.
fn outlived(deed: &'static str, said: &'static str, limit: Option<&'static str>) -> Harm {
    Harm { deed, fate: Fate::Runs, said, limit }
}

impl Harm {
    fn camera(&self) -> String {
        let Self { deed, .. } = self;
        let source = format!("file:{}", clip("people-576-baseline.mp4").display());
        let pipeline = match *deed {
            "table-bomb" => "pipeline = \"table-bomb\"".to_owned(),
            _ => format!("pipeline = \"hostile\"\nsettings = {{ do = {deed:?} }}"),
        };
        // What outlives its harm does it at a camera's pace; else a file would be done with before
        // the others have begun.
        let pace = if self.fate == Fate::Runs { "realtime" } else { "as-fast" };
        format!(
            "[[cameras]]\nid = {deed:?}\nsource = {source:?}\nrepeat = true\npace = \
                {pace:?}\n{pipeline}\n"
        )
    }

    /// Waits until the session's entry says what happened, and holds the log to it.
    async fn is_told(&self, host: &Ocelli) {
        let Self { deed, said, .. } = self;
        let says = |text: &Value| text.as_str().is_some_and(|text| text.contains(said));
        let counted = |session: &Value| {
            self.limit.is_none_or(|limit| session["limits"][limit].as_u64() > Some(0))
        };
        let session = host
            .wait_for_session(deed, |session| {
                counted(session)
                    && match self.fate {
                        Fate::Fails => session["state"] == "failed" && says(&session["reason"]),
                        Fate::Restarts => {
                            session["restarts"].as_u64() > Some(0) && says(&session["last_error"])
                        }
                        Fate::Runs => {
                            session["state"] == "running"
                                && session["frames"]["processed"].as_u64() > Some(2)
                        }
                    }
            })
            .await;
        if self.fate != Fate::Runs {
            assert!(says(&session["last_error"]), "{deed}: {session}");
        } else {
            assert_eq!(session["restarts"], 0, "{deed}: {session}");
        }
        println!("{deed}: {}, {}, {}", session["state"], session["limits"], session["last_error"]);
        host.wait_for_session_log(deed, said).await;
    }
}

/// The four cameras that are healthy: two of them run the model.
fn healthy() -> [FileSession<'static>; 4] {
    let detecting =
        |name, clip, settings| FileSession { settings, ..FileSession::detecting(name, clip) };
    [
        detecting("healthy-1", "people-576-high-b3.mp4", json!({"max_results_per_second": 3})),
        detecting(
            "healthy-2",
            "people-576-hevc.mp4",
            json!({"max_results_per_second": 2, "score": 0.3}),
        ),
        FileSession {
            name: "healthy-3",
            clip: "bikes.mp4",
            pipeline: "motion",
            settings: json!({}),
        },
        FileSession {
            name: "healthy-4",
            clip: "people-576-high.mp4",
            pipeline: "fingerprint",
            settings: json!({"width": 160, "height": 160, "float": true, "letterbox": true}),
        },
    ]
}

/// Room for all, patience for a machine that is kept busy, a health check that leaves each limit
/// the time to speak, and no alerts: they are events of their sessions and come by the clock.
const COMMON: &str = "[session_processes]\nmax_concurrent_sessions = 40\nhealth_check_interval = \
    60\n[inference]\ntimeout_ms = 60000\n\
    [alerts]\nmemory_percent = 0\nno_results_s = 0\nrestarts_per_hour = 0\nsource_down_s = \
    0\ndisk_free_percent = 0\n";

/// Plays the healthy cameras alone, then on another host beside the harm; compares; and holds each
/// hostile session to what is told of it. Gives that host.
async fn beside_healthy_cameras(limits: &str, harms: &[Harm]) -> Ocelli {
    let store = PipelineFolder::with(&["fingerprint", "hostile", "motion", "table-bomb"]);
    let config =
        format!("{}{}{COMMON}[resource_limits]\n{limits}\n", store.section(), FileSession::ALLOWED);
    let healthy = healthy();
    let alone = Ocelli::start(&config).await;
    let expected = FileSession::play_all(&healthy, &alone).await;
    drop(alone);
    for (session, expected) in healthy.iter().zip(&expected) {
        let has = |kind: &str| {
            expected.iter().any(|text| text.starts_with(&format!("{{\"type\":\"{kind}\"")))
        };
        assert!(has("detections") && has("event"), "{} has nothing to compare", session.name);
    }

    let cameras: String = harms.iter().map(Harm::camera).collect();
    let host = Ocelli::start(&(config + &cameras)).await;
    let results = FileSession::play_all(&healthy, &host).await;
    for ((session, expected), results) in healthy.iter().zip(&expected).zip(&results) {
        assert_identical(session.name, expected, results);
    }
    for harm in harms {
        harm.is_told(&host).await;
    }
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_that_never_return_cost_their_neighbours_nothing() {
    // Enough for the healthy ones on a busy machine; the hostile ones wait for each to be over.
    let limits = "call_cpu_ms = 400\nhost_call_ms = 2000\ncall_timeout_ms = 8000";
    let harms = [
        limited("infinite-loop", "limit cpu_time"),
        limited("loop-in-init", "limit cpu_time"),
        limited("sleep", "limit host_call"),
        limited("sleep-in-init", "limit host_call"),
        Harm { fate: Fate::Restarts, ..limited("naps", "limit call_time") },
    ];
    beside_healthy_cameras(limits, &harms).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_that_take_memory_cost_their_neighbours_nothing() {
    // Pictures lie in the worker's own memory: there is room for more of them than a pipeline may
    // hold.
    let limits = "memory_per_process_mb = 192\nguest_memory_mb = 48";
    let harms = [
        limited("memory-bomb", "limit memory"),
        limited("table-bomb", "limit tables"),
        limited("stack-overflow", "limit stack"),
        // The component's own stack ends at the beginning of its memory.
        broken("deep-frames", "out of bounds memory access"),
        // The host's answer is an error that a pipeline can handle; this one passes it on.
        outlived("huge-tensor", "1048576 x 1048576", Some("tensor")),
        limited("huge-tensor-data", "limit tensor"),
        broken("huge-random", "requested len 18446744073709551615"),
        Harm { fate: Fate::Restarts, ..limited("leak-tensors", "limit handles") },
        outlived("leak-images", "the component holds pictures of more than", Some("memory")),
    ];
    beside_healthy_cameras(limits, &harms).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_that_say_too_much_cost_their_neighbours_nothing() {
    // The hostile ones hold 100 MB before they give them out.
    let limits = "memory_per_process_mb = 512\nguest_memory_mb = 160";
    let harms = [
        limited("many-events", "limit events"),
        limited("many-detections", "limit detections"),
        limited("many-attachments", "limit attachments"),
        limited("large-event", "limit event_bytes"),
        limited("huge-event", "limit output_bytes"),
        limited("shared-text", "limit output_bytes"),
        limited("huge-log-line", "limit output_bytes"),
        outlived("log-flood", "limit log_lines", Some("log_lines")),
        broken("nan-score", "not finite"),
        outlived("not-json", "not a JSON object", None),
        outlived("deep-json", "not a JSON object", None),
        // It is asked below.
        outlived("huge-answer", "", None),
    ];
    let host = beside_healthy_cameras(limits, &harms).await;

    let flood = host.wait_for_session_log("log-flood", "of a flood").await;
    assert!(
        flood.len() < 1 << 20,
        "{} bytes of a log that is limited to 50 lines a second",
        flood.len()
    );

    let mut client = host.client().await;
    client.send(&json!({"type": "command", "session": "huge-answer", "command": {}})).await;
    let answer = client.next().await;
    assert_eq!(answer["type"], "error", "an answer of 100 MB: {:.300}", answer.to_string());
    let session =
        host.wait_for_session("huge-answer", |session| session["last_error"].is_string()).await;
    assert!(
        session["last_error"].as_str().is_some_and(|error| error.contains("limit output_bytes")),
        "{session}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_that_break_cost_their_neighbours_nothing() {
    let harms = [
        broken("panic", "a bug of the author's on frame 0"),
        broken("trap-on-frame50", "unreachable"),
        broken("trap-in-init", "unreachable"),
        broken("unknown-handle", "unknown handle index 123456"),
        broken("dropped-handle", "unknown handle index"),
        outlived("error-on-every-frame", "this pipeline has an error for every frame", None),
    ];
    let host = beside_healthy_cameras("", &harms).await;
    for session in ["panic", "trap-on-frame50", "trap-in-init", "unknown-handle"] {
        host.wait_for_session_log(session, "wasm backtrace").await;
    }
    host.wait_for_session_log("trap-on-frame50", "frame=50").await;
}
