//! What has to be true in the end.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ocelli_testkit::program;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::site::{LOOK_AGAIN, PER_SERVER, SERVERS, Site, changing, id};

/// How long subscribers, Redis and alerts may take to come to where the journal is.
const SETTLE: Duration = Duration::from_secs(120);

/// How long processes may take to end after their host.
const END: Duration = Duration::from_secs(10);

/// What is wrong while the host runs and nothing disturbs it any more, each in words.
pub(super) async fn of(site: &mut Site) -> Vec<String> {
    let mut wrong = site.witness().breaks();
    wrong.extend(alerts(site).await);
    for camera in 0..SERVERS * PER_SERVER {
        wrong.extend(events(site, &id(camera)).await);
    }
    for camera in changing() {
        wrong.extend(counts(site, &id(camera)).await);
    }
    wrong
}

/// What is wrong when the host has ended.
pub(super) async fn of_end(site: Site) -> Vec<String> {
    let status = site.stop().await;
    let mut wrong = Vec::new();
    if status != Some(0) {
        wrong.push(format!("the host ends with {status:?}"));
    }
    let begun = Instant::now();
    loop {
        let left = left_behind();
        if left.is_empty() {
            return wrong;
        }
        if begun.elapsed() > END {
            wrong.extend(left.into_iter().map(|process| format!("left behind: {process}")));
            return wrong;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Alerts that stay raised.
async fn alerts(site: &Site) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let sessions: Value =
            serde_json::from_str(&site.host().get("/v1/sessions").await).expect("JSON");
        let raised: Vec<String> = sessions["sessions"]
            .as_array()
            .expect("a list of sessions")
            .iter()
            .filter(|session| session["alerts"].as_array().is_none_or(|alerts| !alerts.is_empty()))
            .map(|session| format!("alerts of {}: {}", session["id"], session["alerts"]))
            .collect();
        if raised.is_empty() || begun.elapsed() > SETTLE {
            return raised;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// A session's events in the journal have every number once from the oldest on that a full disk has
/// left; the subscriber and Redis have them all from the first on; the last word about each alert
/// is that it is cleared.
async fn events(site: &Site, session: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let (oldest, events) = site.host().journal(session).await;
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    let newest = numbers.last().copied().unwrap_or(oldest - 1);
    if numbers != (oldest..=newest).collect::<Vec<_>>() {
        wrong.push(format!("{session}: the journal has gaps from {oldest} on: {numbers:?}"));
    }
    let mut last_words: BTreeMap<String, bool> = BTreeMap::new();
    for event in events.iter().filter(|event| event["kind"] == "alert") {
        let alert = event["data"]["alert"].to_string();
        last_words.insert(alert, event["data"]["raised"] == true);
    }
    let raised = last_words.into_iter().filter(|(_, raised)| *raised);
    wrong.extend(raised.map(|(alert, _)| format!("{session}: alert {alert} is never cleared")));
    let begun = Instant::now();
    while site.witness().last(session) < newest && begun.elapsed() < SETTLE {
        sleep(LOOK_AGAIN).await;
    }
    if site.witness().last(session) < newest {
        let last = site.witness().last(session);
        wrong.push(format!("{session}: {newest} events, the subscriber has {last}"));
    }
    wrong.extend(stream(site, session, oldest, newest).await);
    wrong
}

/// A session's stream in Redis has every event up to the newest once, in order, or says that the
/// journal had deleted it before Redis was there to take it.
async fn stream(site: &Site, session: &str, oldest: u64, newest: u64) -> Option<String> {
    let begun = Instant::now();
    loop {
        let entries = site.redis().entries(&format!("ocelli:events:{session}"));
        let numbers = entries.iter().flat_map(|entry| match entry.get("kind") {
            // What the journal still has is not gone.
            "events_gone" => entry.number("from")..=entry.number("to").min(oldest - 1),
            _ => entry.number("seq")..=entry.number("seq"),
        });
        let numbers: Vec<u64> = numbers.collect();
        let last = numbers.last().copied().unwrap_or(0);
        if last >= newest || begun.elapsed() > SETTLE {
            let whole = numbers == (1..=last.max(newest)).collect::<Vec<_>>();
            return (!whole).then(|| format!("{session}: Redis has {} of {newest}", numbers.len()));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// The pipeline has counted its events in its store: each of them is in the journal, since both
/// are written together, or was before a full disk cost the journal its oldest.
async fn counts(site: &Site, session: &str) -> Option<String> {
    let mut client = site.host().client().await;
    client.subscribe(session).await;
    client.send(&json!({"type": "query", "session": session, "query": {}})).await;
    let kept = client.next_of("answer").await["answer"]["kept"].as_u64().unwrap_or(0);
    client.close().await;
    // It goes on counting meanwhile.
    let (oldest, events) = site.host().journal(session).await;
    let counted = events.iter().filter(|event| event["kind"] == "counted").count() as u64;
    let retired = oldest - 1;
    (counted + retired < kept).then(|| {
        format!("{session} has counted {kept} events, {counted} are there, {retired} are retired")
    })
}

/// Programs of the product that run in this mount namespace.
fn left_behind() -> Vec<String> {
    let own = fs::read_link("/proc/self/ns/mnt").expect("a mount namespace");
    let programs = program("ocelli");
    let programs = programs.parent().expect("a folder");
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| process_in(&entry.path(), &own, programs)).collect()
}

/// The process, if it is one of these programs in this namespace.
fn process_in(process: &Path, namespace: &Path, programs: &Path) -> Option<String> {
    let theirs = fs::read_link(process.join("ns/mnt")).ok()?;
    let program = fs::read_link(process.join("exe")).ok()?;
    let name = program.file_name()?.to_string_lossy().into_owned();
    let ours = program.starts_with(programs) && !name.starts_with("ocelli-soak");
    (theirs == namespace && ours).then(|| format!("{name} {}", process.display()))
}
