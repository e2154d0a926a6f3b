//! The sandbox: what a worker cannot do, tried from inside, and what the kernel and the host say of
//! running processes.

use std::process::{Command, Stdio};

use ocelli_testkit::skip::skip;
use ocelli_testkit::{Ocelli, children, clip, program};
use serde_json::Value;

use crate::camera;

/// What must be refused, and the errors with which it may be.
const ATTEMPTS: [(&str, &[&str]); 20] = [
    ("open_file", DENIED),
    ("create_file", DENIED),
    ("connect_tcp", DENIED),
    ("listen", DENIED),
    ("send_udp", DENIED),
    ("send_udp_message", DENIED),
    ("create_unix_socket", DENIED),
    ("fork", DENIED),
    ("execute", DENIED),
    ("trace_process", DENIED),
    ("signal_process", DENIED),
    ("create_shared_memory", DENIED),
    ("map_shared_memory", DENIED),
    ("map_growing_stack", DENIED),
    ("write_executable_memory", DENIED),
    ("raise_limit", DENIED),
    ("allocate_past_limit", &["ENOMEM"]),
    ("map_past_limit", &["ENOMEM"]),
    ("open_past_limit", &["EMFILE"]),
    ("start_thread", DENIED),
];

const DENIED: &[&str] = &["EPERM", "EACCES"];

const MEASURES: [&str; 7] = [
    "no_new_privileges",
    "files",
    "network",
    "scopes",
    "system_calls",
    "parent_death",
    "core_dumps",
];

/// What `ocelli-worker --sandbox-check` prints, and whether it is content.
fn check() -> (Value, bool) {
    let output = Command::new(program("ocelli-worker"))
        .arg("--sandbox-check")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    let check = serde_json::from_str(&printed).unwrap_or_else(|error| {
        panic!("{error} in {printed:?}; {}: {complaint}", output.status);
    });
    (check, output.status.success())
}

/// What this kernel cannot enforce, with its reasons.
fn missing(confinement: &Value) -> Vec<String> {
    let missing = confinement["missing"].as_array().unwrap();
    let missing: Vec<String> =
        missing.iter().map(|one| one["measure"].as_str().unwrap().to_owned()).collect();
    if !missing.is_empty() {
        skip(&format!("in part: this kernel does not enforce {}", missing.join(", ")));
    }
    missing
}

/// A line of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
}

/// Every thread of a process, for what the kernel keeps for each.
fn threads(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn from_inside_a_worker_every_attempt_is_refused() {
    let (check, content) = check();
    let attempts = check["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), ATTEMPTS.len(), "{check}");
    for (name, errors) in ATTEMPTS {
        let attempt = attempts.iter().find(|attempt| attempt["attempt"] == name);
        let attempt = attempt.unwrap_or_else(|| panic!("{name} was not tried: {check}"));
        assert_eq!(attempt["refused"], true, "{attempt}");
        assert!(errors.contains(&attempt["error"].as_str().unwrap()), "{attempt}");
    }
    assert!(content, "{check}");
}

#[test]
fn no_library_that_draws_is_in_a_worker_or_a_reader() {
    for name in ["ocelli-worker", "ocelli-ingest"] {
        // The loader prints what it would load.
        let output = Command::new(program(name)).env("LD_TRACE_LOADED_OBJECTS", "1").output();
        let loaded = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(loaded.contains("libavcodec"), "{name}: {loaded}");
        let drawing = loaded.lines().filter(|line| line.contains("libpango"));
        assert_eq!(drawing.collect::<Vec<_>>(), [""; 0], "{name}");
    }
}

#[test]
fn every_measure_is_in_force_or_missing_for_a_reason() {
    let (check, _) = check();
    let confinement = &check["confinement"];
    let missing = missing(confinement);
    for measure in MEASURES {
        let enforced = confinement["enforced"].as_array().unwrap().contains(&measure.into());
        assert_ne!(
            enforced,
            missing.iter().any(|other| other == measure),
            "{measure}: {confinement}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_session_is_confined_and_shows_it() {
    let clip = format!("file:{}", clip("people-576-high-b3.mp4").display());
    let host = Ocelli::start(&camera("cam", &clip, "")).await;
    // While it plays: a session on a file ends with it, and its worker with the session.
    let session = host
        .wait_for_session("cam", |session| {
            session["sandbox"].is_object() && session["results"] != 0
        })
        .await;
    let (check, _) = check();
    assert_eq!(session["sandbox"], check["confinement"], "{session}");

    let worker = host.worker("cam").await;
    let inference =
        children(host.process().pid).into_iter().find(|child| child.name == "ocelli-inferenc");
    let inference = inference.expect("an inference process");
    let system_calls = !missing(&session["sandbox"]).contains(&"system_calls".to_owned());
    for process in [&worker, &inference] {
        let threads = threads(process.pid);
        assert!(threads.len() > 1, "{process:?} has not started its threads: {threads:?}");
        for thread in threads {
            assert_eq!(status(thread, "NoNewPrivs"), "1", "{process:?}");
            if system_calls {
                assert_eq!(status(thread, "Seccomp"), "2", "{process:?}");
            }
        }
        let environment =
            std::fs::read_to_string(format!("/proc/{}/environ", process.pid)).unwrap();
        let names =
            environment.split_terminator('\0').filter_map(|variable| variable.split('=').next());
        assert!(names.clone().all(|name| name == "ORT_DISABLE_TELEMETRY"), "{environment:?}");
    }
    assert_eq!(u64::from_str_radix(&status(worker.pid, "CapEff"), 16), Ok(0));
}
