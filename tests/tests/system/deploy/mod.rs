//! Changing the pipeline of a running session: no frame is lost by a good version, none by a bad
//! one, and none by a kill.
//!
//! The pipeline `changeling` makes it visible: each of its results says how many frames it and the
//! versions before it have processed. Where that number grows by one from frame to frame, nothing
//! was left out, nothing came twice, and the state went from hand to hand.

mod bad;
mod killed;
mod registry;
mod swaps;
mod ways;

use std::time::Duration;

use ocelli_testkit::{Ocelli, PipelineFolder, Received, Recording, changeling, clip};
use serde_json::{Value, json};

/// 25 frames a second, 10 s.
const CLIP: &str = "bikes.mp4";

/// Frames for which each of changeling's objects stays in view.
const STAYS: [u64; 2] = [150, 230];

/// Room for many deployments in a short time, and no events of the host's that come by the clock.
const COMMON: &str = "[alerts]\nmemory_percent = 0\nno_results_s = 0\nrestarts_per_hour = \
    0\nsource_down_s = 0\ndisk_free_percent = 0\n\
    [analyze]\nworkers = 0\n[deploy]\nreserve_mb = 0\nhistory = 1000\n";

/// A good version of changeling.
fn version(version: &str) -> Vec<u8> {
    changeling(&json!({"version": version}))
}

/// A version of changeling with something wrong; `more` are further members of the fault.
fn faulty(version: &str, at: &str, does: &str, more: Value) -> Vec<u8> {
    let mut fault = json!({"at": at, "does": does});
    for (key, value) in more.as_object().into_iter().flatten() {
        fault[key] = value.clone();
    }
    changeling(&json!({"version": version, "fault": fault}))
}

/// The table of a camera on a file that plays for ever at its own speed. `more` are further lines.
fn playing(id: &str, pipeline: &str, more: &str) -> String {
    let source = format!("file:{}", clip(CLIP).display());
    format!(
        "[[cameras]]\nid = {id:?}\nsource = {source:?}\npipeline = {pipeline:?}\npace = \
            \"realtime\"\nrepeat = true\n{more}\n"
    )
}

/// A host whose camera `cam` runs changeling 1.0.0 on a file, with a subscriber that has had a
/// result. `more` goes on from the section `deploy`.
async fn host_with_changeling(store: &PipelineFolder, more: &str) -> (Ocelli, Recording) {
    store.put("changeling", &version("1.0.0"));
    let host = Ocelli::start(&format!(
        "{}{COMMON}{more}\n{}",
        store.section(),
        playing("cam", "changeling", "")
    ))
    .await;
    let recording = watch(&host, "cam").await;
    (host, recording)
}

/// A subscriber of a session that takes down what comes, once there was a result.
async fn watch(host: &Ocelli, session: &str) -> Recording {
    let mut client = host.client().await;
    client.subscribe(session).await;
    let recording = Recording::of(client);
    recording.find(0, is_result).await;
    recording
}

fn is_result(message: &Value) -> Option<()> {
    (message["type"] == "detections").then_some(())
}

/// Waits for this many results from now on.
async fn more_results(recording: &Recording, count: usize) {
    let mut seen = 0;
    let enough = |message: &Value| {
        seen += usize::from(message["type"] == "detections");
        (seen >= count).then_some(())
    };
    recording.find(recording.len(), enough).await;
}

/// Results among messages.
fn results(messages: &[Received]) -> Vec<&Received> {
    messages.iter().filter(|received| received.message["type"] == "detections").collect()
}

/// Events of a kind.
fn events<'a>(messages: &'a [Received], kind: &str) -> Vec<&'a Value> {
    let events = messages.iter().map(|received| &received.message);
    events.filter(|message| message["type"] == "event" && message["kind"] == kind).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// Frames that a result of changeling says were processed by it and the versions before it.
fn processed(result: &Value) -> u64 {
    let frames = &result["detections"][0]["attributes"]["frames"]["value"];
    frames
        .as_str()
        .and_then(|frames| frames.parse().ok())
        .unwrap_or_else(|| panic!("not changeling's: {result}"))
}

/// The numbers of changeling's objects after so many frames, as one instance would give them.
fn tracks(frames: u64) -> [u64; 2] {
    let (mut tracks, mut next) = ([1, 2], 3);
    for frame in 1..=frames {
        for (track, stays) in tracks.iter_mut().zip(STAYS) {
            if frame % stays == 0 {
                *track = next;
                next += 1;
            }
        }
    }
    tracks
}

/// Messages that a subscriber was too slow for.
fn missed(messages: &[Received]) -> u64 {
    let lagged = messages.iter().filter(|received| received.message["type"] == "lagged");
    lagged.map(|received| number(&received.message["missed"])).sum()
}

/// Holds changeling's results to what one instance without a change would have given: every frame
/// once, in order, each with the number of frames before it and the objects that belong to it.
/// `every` is whether the source is a file: of a live one frames may be skipped, and they are
/// ascending.
fn assert_seamless(messages: &[Received], every: bool) {
    let results = results(messages);
    let mut not_shown = missed(messages);
    for pair in results.windows(2) {
        let [before, after] = [&pair[0].message, &pair[1].message];
        let (frame, next) = (number(&before["frame"]), number(&after["frame"]));
        assert!(next > frame, "frame {next} came after {frame}");
        let steps = processed(after).checked_sub(processed(before));
        let steps = steps.unwrap_or_else(|| panic!("the count went back: {before}, {after}"));
        // What a slow subscriber missed the pipeline has counted all the same.
        assert!(
            steps >= 1 && steps - 1 <= not_shown,
            "{steps} frames processed between {before} and {after}"
        );
        not_shown -= steps - 1;
        if every {
            assert_eq!(next - frame, steps, "frames were left out between {before} and {after}");
        }
    }
    for result in &results {
        let got: Vec<u64> = result.message["detections"]
            .as_array()
            .unwrap()
            .iter()
            .map(|object| number(&object["track"]))
            .collect();
        assert_eq!(got, tracks(processed(&result.message)), "{}", result.message);
    }
    assert_events_unbroken(messages);
    for counted in events(messages, "counted") {
        assert_eq!(counted["data"]["repeated"], 0, "{counted}");
        if every {
            assert_eq!(counted["data"]["missing"], 0, "{counted}");
        }
    }
}

/// Holds results to every frame of a file exactly once, whoever processed it.
fn assert_every_frame(messages: &[Received]) {
    assert_eq!(missed(messages), 0, "a subscriber was too slow");
    for pair in results(messages).windows(2) {
        let [before, after] = [&pair[0].message, &pair[1].message];
        assert_eq!(
            number(&after["frame"]),
            number(&before["frame"]) + 1,
            "between {before} and {after}"
        );
    }
    assert_events_unbroken(messages);
}

/// Events are numbered without a gap, whoever they come from.
fn assert_events_unbroken(messages: &[Received]) {
    let events = messages
        .iter()
        .map(|received| &received.message)
        .filter(|message| message["type"] == "event");
    let seqs: Vec<u64> = events.map(|event| number(&event["seq"])).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
}

/// Percentiles of durations, in words.
fn shown(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: f64| {
        times.get(((times.len() - 1) as f64 * share).round() as usize).copied().unwrap_or_default()
    };
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    format!("p50 {}, p99 {}, max {} ms of {}", ms(at(0.5)), ms(at(0.99)), ms(at(1.0)), times.len())
}

/// What a deployment that went well is answered with.
async fn deployed(host: &Ocelli, session: &str, query: &str, component: &[u8]) -> Value {
    let (status, answer) = host.deploy(session, query, component).await;
    assert_eq!(status, 200, "{answer}");
    answer
}
