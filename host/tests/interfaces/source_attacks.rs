//! Cameras that send without end: the program that reads them does not grow, ends each with a fault
//! that has a name, and says it in a line.

use std::process::Stdio;
use std::time::Duration;

use ocelli_testkit::camera::{Attack, Camera, Script, attacks};
use ocelli_testkit::{ProcessResources, program};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How much the program may grow over what it takes to read a camera that behaves.
const GROWTH_KIB: u64 = 64 << 10;

/// Attacks at a time: each fills a connection as fast as it can.
const AT_ONCE: usize = 8;

/// What became of a camera.
#[derive(Debug)]
struct Outcome {
    fault: Value,
    /// The most memory that the program ever had.
    peak_kib: u64,
}

/// Reads a camera as a host does, in a process that can be measured.
async fn probe(camera: &Camera, reader: &str) -> Outcome {
    let mut child = Command::new(program("ocelli"))
        .args(["probe", "--json", "--seconds", "3", "--reader", reader, &camera.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = child.id().unwrap();
    let mut printed = String::new();
    let mut output = child.stdout.take().unwrap();
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    let mut peak_kib = 0;
    {
        let mut reading = std::pin::pin!(output.read_to_string(&mut printed));
        loop {
            tokio::select! {
                read = &mut reading => {
                    read.unwrap();
                    break;
                }
                _ = looks.tick() => peak_kib = peak_kib.max(ProcessResources::peak_of(pid)),
            }
        }
    }
    child.wait().await.unwrap();
    let report: Value = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{printed:?}"));
    Outcome { fault: report["fault"].clone(), peak_kib }
}

async fn against(reader: &'static str) {
    let calm = Camera::start(Script::default().answer("DESCRIBE", |_, answer| {
        answer.refuse("404 Not Found");
    }))
    .await;
    let rest = probe(&calm, reader).await.peak_kib;
    let only = std::env::var("OCELLI_ATTACK").ok();
    let mut waiting =
        attacks().into_iter().filter(|attack| only.as_ref().is_none_or(|only| only == attack.name));
    let mut running = tokio::task::JoinSet::new();
    let mut faults = Vec::new();
    loop {
        while running.len() < AT_ONCE {
            let Some(Attack { name, faults, script }) = waiting.next() else { break };
            running.spawn(async move {
                let camera = Camera::start(script).await;
                (name, faults, probe(&camera, reader).await)
            });
        }
        let Some(done) = running.join_next().await else { break };
        let (name, expected, Outcome { fault, peak_kib }) = done.unwrap();
        let growth = peak_kib.saturating_sub(rest);
        let (kind, message) = (fault["kind"].as_str(), fault["message"].as_str());
        println!("{reader} {name}: {kind:?}, {growth} KiB over {rest}: {message:?}");
        let is_named = kind.is_some_and(|kind| expected.contains(&kind));
        let is_line = message.is_some_and(|message| {
            message.chars().count() <= 600 && !message.contains(char::is_control)
        });
        if growth > GROWTH_KIB || !is_named || !is_line {
            faults.push(format!("{name}: {growth} KiB, {fault}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_camera_sends_without_end_fills_no_host_by_the_strict_reader() {
    against("strict").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_camera_sends_without_end_fills_no_host_by_the_compatible_reader() {
    against("compatible").await;
}
