//! The commands of a person at a terminal, and of a script without one, against a running host.

use std::process::{Command, Output, Stdio};

use ocelli_testkit::{
    ClientProcess, DEADLINE, Ocelli, PipelineFolder, client_python, program, root,
};
use serde_json::Value;
use tokio::time::timeout;

use crate::delivery::eventful;

/// A host with two sessions that make an event of each frame, 25 a second.
async fn host() -> (PipelineFolder, Ocelli) {
    let store = PipelineFolder::with(&["changeling"]);
    let cameras = eventful("gate", "realtime") + &eventful("yard", "realtime");
    let host = Ocelli::start(&(store.section() + "[deploy]\nprobation_s = 1\n" + &cameras)).await;
    (store, host)
}

fn command(host: &Ocelli, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("ocelli"));
    command.args(arguments).env("OCELLI_URL", format!("http://{}", host.address()));
    command
}

/// Runs it to its end: status, standard output and standard error.
pub(crate) async fn run(host: &Ocelli, arguments: &[&str]) -> (i32, String, String) {
    let mut command = command(host, arguments);
    let run = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    let Output { status, stdout, stderr } =
        timeout(DEADLINE, run).await.expect("it ends in time").unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Runs it on a terminal of so many columns and 24 lines: what it has drawn.
async fn on_a_terminal(host: &Ocelli, columns: &str, arguments: &[&str]) -> String {
    let program = command(host, arguments);
    let mut terminal = Command::new(client_python());
    terminal.arg(root().join("tests/clients/terminal.py")).args([columns, "24"]);
    terminal.arg(program.get_program()).args(program.get_args());
    terminal.env("OCELLI_URL", format!("http://{}", host.address())).env("TERM", "xterm-256color");
    terminal.env_remove("NO_COLOR");
    let ended = ClientProcess::start(&mut terminal).end();
    let (good, said) = timeout(DEADLINE, ended).await.expect("it ends in time");
    assert!(good, "{said}");
    said
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_restarted_and_ended_and_a_misspelt_name_is_put_right() {
    let (_store, host) = host().await;
    host.wait_for_session("gate", |session| session["state"] == "running").await;
    for command in [
        ["restart", "gaet"],
        ["end", "gaet"],
        ["events", "gaet"],
        ["logs", "gaet"],
        ["watch", "gaet"],
        ["deployments", "gaet"],
        ["rollback", "gaet"],
    ] {
        let (status, said, why) = run(&host, &command).await;
        assert_eq!((status, said.as_str()), (1, ""), "{command:?}: {why}");
        assert!(why.contains("did you mean \"gate\"?"), "{command:?}: {why}");
    }
    let (status, _, why) = run(&host, &["deploy", "gate", "chanelging"]).await;
    assert!(status == 1 && why.contains("did you mean \"changeling\"?"), "{why}");

    let before = host.session("gate").await["pid"].clone();
    let (status, said, why) = run(&host, &["restart", "gate", "yard", "--json"]).await;
    let names: Vec<Value> = said.lines().map(|line| json(line)["id"].clone()).collect();
    assert_eq!((status, names), (0, vec!["gate".into(), "yard".into()]), "{why}");
    host.wait_for_session("gate", |it| it["state"] == "running" && it["pid"] != before).await;

    let (status, said, why) = run(&host, &["end", "yard"]).await;
    assert!(status == 0 && said.starts_with("yard: ended"), "{said}{why}");
    let (_, said, _) = run(&host, &["sessions", "--json"]).await;
    let left = json(&said)["sessions"].as_array().unwrap().len();
    assert_eq!(left, 1, "{said}");
    // A refusal is the answer of a program.
    let (status, said, _) = run(&host, &["end", "yard", "--json"]).await;
    assert_eq!((status, &json(&said)["code"]), (1, &"unknown_session".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_listed_filtered_and_followed_without_a_gap() {
    let (_store, host) = host().await;
    let numbers = |said: &str| -> Vec<u64> {
        said.lines().map(|line| json(line)["seq"].as_u64().unwrap()).collect()
    };
    let mut follow = ClientProcess::start(&mut command(
        &host,
        &["events", "gate", "--after", "0", "-f", "--json"],
    ));
    let mut deployed = false;
    for expected in 1..=40 {
        let event = follow.find(|line| Some(json(line))).await;
        deployed |= event["kind"] == "deployment";
        assert_eq!((&event["seq"], &event["type"]), (&expected.into(), &"event".into()));
    }
    let (status, said, why) = run(&host, &["events", "gate", "--lines", "5", "--json"]).await;
    let last = numbers(&said);
    assert_eq!((status, last.len()), (0, 5), "{why}");
    // The last by their times, of which pictures have those of their file.
    assert!(last.iter().all(|number| *number > 5) && last.is_sorted(), "{last:?}");
    // One of many: that of the deployment, when its probation is over.
    while !deployed {
        deployed = follow.find(|line| Some(json(line)["kind"] == "deployment")).await;
    }
    let (_, said, _) = run(&host, &["events", "gate", "--kind", "deployment", "--json"]).await;
    assert!(
        !said.is_empty() && said.lines().all(|line| json(line)["kind"] == "deployment"),
        "{said}"
    );
    let (status, said, _) = run(&host, &["events", "--label", "unheard-of"]).await;
    assert_eq!((status, said.as_str()), (0, ""));
    let (_, said, _) = run(&host, &["events", "--lines", "30"]).await;
    assert_eq!(said.lines().count(), 30, "{said}");
    assert!(said.contains("  gate  ") && said.contains("  yard  "), "{said}");
    let (status, _, why) = run(&host, &["events", "gate", "--after", "999999"]).await;
    assert!(status == 1 && why.contains("999999"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_asked_and_its_answer_is_printed() {
    let (_store, host) = host().await;
    host.wait_for_session("gate", |session| session["results"].as_u64() > Some(0)).await;
    let (status, said, why) = run(&host, &["query", "gate", "{}", "--json"]).await;
    let answer = json(&said);
    assert_eq!((status, &answer["session"]), (0, &"gate".into()), "{why}");
    assert!(answer["answer"]["frames"].is_u64(), "{said}");
    let (status, said, why) = run(&host, &["query", "gate", "{}"]).await;
    assert!(status == 0 && said.contains("\"frames\": "), "{said}{why}");
    let (status, _, why) = run(&host, &["query", "gate", "tracks"]).await;
    assert!(status == 2 && why.contains("'\"tracks\"'"), "{why}");
    let (status, said, why) = run(&host, &["command", "gaet", "{}", "--json"]).await;
    assert_eq!((status, &json(&said)["code"]), (1, &"unknown_session".into()), "{why}");
    assert!(why.contains("did you mean \"gate\"?"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sessions_do_is_drawn_in_its_place_on_a_terminal_and_in_lines_elsewhere() {
    let (_store, host) = host().await;
    host.wait_for_session("gate", |session| session["results"].as_u64() > Some(0)).await;
    let drawn = on_a_terminal(&host, "100", &["watch", "--seconds", "4"]).await;
    // The cursor is hidden, lines take the place of those before, and the cursor comes back.
    for part in [
        "\u{1b}[?25l",
        "IN THE PICTURE",
        "\u{1b}[K",
        "\u{1b}[J",
        "2 object",
        "counted",
        "Ctrl-C ends",
        "\u{1b}[?25h",
        " results",
    ] {
        assert!(drawn.contains(part), "{part:?} is not in {drawn:?}");
    }
    let again = drawn.matches("IN THE PICTURE").count();
    assert!((2..=10).contains(&again), "drawn {again} times in 4 s");
    let (status, said, why) = run(&host, &["watch", "--seconds", "3"]).await;
    assert_eq!(status, 0, "{why}");
    assert!(said.contains("results/s") && !said.contains('\u{1b}'), "{said}");
    let lines = on_a_terminal(&host, "100", &["watch", "gate", "--lines", "--seconds", "3"]).await;
    assert!(lines.starts_with("subscribed to session gate") && !lines.contains("[?25l"), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_fits_its_terminal_and_has_colours_there_alone() {
    let (_store, host) = host().await;
    host.wait_for_session("gate", |session| session["state"] == "running").await;
    let (_, plain, _) = run(&host, &["sessions"]).await;
    assert!(!plain.contains('\u{1b}') && plain.contains("bikes.mp4"), "{plain}");
    let mut sources = plain.lines().filter(|line| line.contains("bikes.mp4"));
    assert!(sources.all(|line| line.chars().count() > 90), "{plain}");
    let drawn = on_a_terminal(&host, "90", &["sessions"]).await;
    assert!(drawn.contains("\u{1b}[32mrunning\u{1b}[0m") && drawn.contains('…'), "{drawn:?}");
    for line in drawn.lines().filter(|line| line.contains("gate")) {
        let shown: String =
            line.split('\u{1b}').map(|part| part.split_once('m').map_or(part, |it| it.1)).collect();
        assert!(line.starts_with("gate") && shown.trim_end().chars().count() <= 90, "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_analysed_file_by_file_and_pipelines_are_listed() {
    let (_store, host) = host().await;
    let (status, said, why) = run(&host, &["pipelines", "--json"]).await;
    let answer = json(&said);
    let names: Vec<&str> = answer["pipelines"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it["name"].as_str())
        .collect();
    assert!(status == 0 && names.contains(&"object-detect"), "{said}{why}");
    let (_, table, _) = run(&host, &["pipelines"]).await;
    assert!(table.starts_with("PIPELINE") && table.contains("gate, yard"), "{table}");

    let picture = root().join("tests/faces/three.jpg").display().to_string();
    let none = root().join("README.md").display().to_string();
    let analyze = ["analyze", "object-detect", &picture, &none, "/nowhere.jpg", "--json"];
    let (status, said, why) = run(&host, &analyze).await;
    assert_eq!(status, 1, "{why}");
    let found: Vec<Value> = said.lines().map(json).collect();
    assert_eq!(found[0]["file"], picture.as_str(), "{said}");
    assert!(found[0]["detections"].is_array() && found[0]["width"].is_u64(), "{said}");
    assert_eq!(found[1]["code"], "unsupported_image", "{said}");
    assert!(why.contains("2 of 3 files") && why.contains("/nowhere.jpg"), "{why}");
    let (status, _, why) = run(&host, &["analyze", "objekt-detect", &picture]).await;
    assert!(status == 1 && why.contains("did you mean \"object-detect\"?"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_all_sessions_are_merged_by_time() {
    let (_store, host) = host().await;
    for session in ["gate", "yard"] {
        host.wait_for_session_log(session, "session state").await;
    }
    let (status, said, why) = run(&host, &["logs", "--json"]).await;
    assert_eq!(status, 0, "{why}");
    let lines: Vec<Value> = said.lines().map(json).collect();
    for session in ["gate", "yard"] {
        assert!(lines.iter().any(|line| line["session"] == session), "{said}");
    }
    let times: Vec<&str> = lines.iter().filter_map(|line| line["time"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let (_, text, _) = run(&host, &["logs"]).await;
    assert!(text.lines().all(|line| line.starts_with("gate  ") || line.starts_with("yard  ")));
    let (_, few, _) = run(&host, &["logs", "--lines", "2", "yard", "gate"]).await;
    assert_eq!(few.lines().count(), 2, "{few}");
    let (_, grave, _) = run(&host, &["logs", "--level", "error", "--json"]).await;
    assert!(grave.lines().map(json).all(|line| line["level"] == "error"), "{grave}");
    let (status, alone, why) = run(&host, &["logs", "gate", "--level", "info"]).await;
    assert!(status == 0 && alone.contains("session state"), "{alone}{why}");

    let mut follow = command(&host, &["logs", "--follow", "--lines", "1"]);
    let mut follower = ClientProcess::start(&mut follow);
    for session in ["yard", "gate"] {
        host.restart(session).await;
        let starts = |line: &str| line.starts_with(session) && line.contains("state=starting");
        follower.find(|line| starts(line).then_some(())).await;
    }
}

#[test]
fn a_host_that_is_not_there_has_a_status_of_its_own() {
    for arguments in [
        &["sessions"][..],
        &["watch"],
        &["events"],
        &["logs", "gate"],
        &["logs"],
        &["reload"],
        &["restart", "gate"],
        &["deploy", "gate", "eye"],
        &["analyze", "eye", "/dev/null"],
    ] {
        // Nothing listens on port 1 of a machine that runs tests.
        let run = Command::new(program("ocelli"))
            .args(arguments)
            .env("OCELLI_URL", "http://127.0.0.1:1")
            .output()
            .unwrap();
        let why = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(3), "{arguments:?}: {why}");
        assert!(why.contains("OCELLI_URL") && run.stdout.is_empty(), "{arguments:?}: {why}");
    }
}
