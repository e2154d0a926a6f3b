//! Many changes in a row, fifty in a full run: every frame of the source exactly once, the numbers
//! of events and objects unbroken.

use std::time::{Duration, Instant};

use ocelli_testkit::depth::rounds;
use ocelli_testkit::{
    Cameras, FileSession, Ocelli, PipelineFolder, Received, Recording, built_in_pipeline, clip,
    tagged,
};
use serde_json::{Value, json};

use super::{
    CLIP, COMMON, assert_events_unbroken, assert_seamless, deployed, events, host_with_changeling,
    missed, more_results, number, playing, results, shown, version, watch,
};
use crate::camera;

fn swaps() -> usize {
    rounds(50)
}

/// Between two frames of [`CLIP`].
const FRAME: Duration = Duration::from_millis(40);

/// Deploys two versions in turn, and lets each give some results. The records.
async fn swap(host: &Ocelli, recording: &Recording, versions: [&[u8]; 2]) -> Vec<Value> {
    let mut records = Vec::new();
    for number in 0..swaps() {
        let record = deployed(host, "cam", "", versions[number % 2]).await;
        more_results(recording, 4).await;
        records.push(record);
    }
    records
}

/// Prints how long nothing came at each change, beside how long nothing came otherwise.
fn print_gaps(what: &str, messages: &[Received], records: &[Value]) {
    let results = results(messages);
    let apart = |pair: &[&Received]| pair[1].at - pair[0].at;
    let changes =
        |pair: &&[&Received]| pair[0].message["deployment"] != pair[1].message["deployment"];
    let gaps: Vec<Duration> = results.windows(2).filter(changes).map(apart).collect();
    let others: Vec<Duration> =
        results.windows(2).filter(|pair| !changes(pair)).map(apart).collect();
    assert_eq!(gaps.len(), records.len(), "changes of the deployment in the results");
    let told = |key: &str| -> Vec<Duration> {
        let ms = records.iter().filter_map(|record| record["swapped"][key].as_f64());
        ms.map(|ms| Duration::from_secs_f64(ms / 1e3)).collect()
    };
    println!(
        "{what}: {} changes, {} results, a frame every {} ms",
        gaps.len(),
        results.len(),
        FRAME.as_millis()
    );
    println!(
        "  from the old version's last result to the new one's first, at the subscriber: {}",
        shown(gaps)
    );
    println!("  the same, as the host tells it: {}", shown(told("gap_ms")));
    println!("  between two other results: {}", shown(others));
    println!("  the change, from the session's hearing of it: {}", shown(told("total_ms")));
}

/// Each frame that was received was processed or skipped, but for the few that are on their way.
async fn assert_counters_add_up(host: &Ocelli, on_their_way: u64) -> Value {
    let frames = host.session("cam").await["frames"].clone();
    let skipped: u64 = frames["skipped"].as_object().unwrap().values().map(number).sum();
    let done = number(&frames["processed"]) + skipped;
    let received = number(&frames["received"]);
    assert!(done <= received && received - done <= on_their_way, "{frames}");
    frames
}

/// Frames that a worker may hold: in its socket, its decoder and its queue.
const HELD: u64 = 64;

#[tokio::test(flavor = "multi_thread")]
async fn many_changes_on_a_file_lose_no_frame_and_give_none_twice() {
    let store = PipelineFolder::with(&["changeling"]);
    let (host, recording) = host_with_changeling(&store, "").await;
    let versions = [version("1.0.1"), version("1.0.2")];
    let records = swap(&host, &recording, [&versions[0], &versions[1]]).await;
    let messages = recording.messages();
    print_gaps("changeling on a file", &messages, &records);
    assert_eq!(missed(&messages), 0, "a subscriber was too slow");
    assert_seamless(&messages, true);
    for record in &records {
        let swapped = &record["swapped"];
        assert_eq!(number(&swapped["first_frame"]), number(&swapped["last_frame"]) + 1, "{record}");
        assert!(number(&swapped["state_bytes"]) > 0 && swapped["fresh"] == false, "{record}");
    }
    let last = events(&messages, "counted").last().copied().cloned().unwrap();
    // All changes up to that event: how many lie behind it depends on the machine.
    let until = number(&last["frame"]);
    let before =
        records.iter().filter(|record| number(&record["swapped"]["first_frame"]) <= until).count();
    assert!(before > 1, "{last}");
    assert_eq!(
        number(&last["data"]["changes"]),
        before as u64,
        "the state went from hand to hand: {last}"
    );
    let frames = assert_counters_add_up(&host, HELD).await;
    assert_eq!(frames["skipped"]["newer"], 0, "{frames}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_changes_on_a_live_camera_lose_no_frame_and_give_none_twice() {
    let store = PipelineFolder::with(&["changeling"]);
    store.put("changeling", &version("1.0.0"));
    let server = Cameras::start(
        &[],
        &[("/cam", CLIP), ("/beside-1", "people-576-high.mp4"), ("/beside-2", CLIP)],
    );
    let cam = camera("cam", &server.url("/cam"), "").replace("object-detect", "changeling");
    let beside = |id: &str| {
        camera(id, &server.url(&format!("/{id}")), "settings = { max_results_per_second = 5 }")
    };
    let config =
        [store.section(), COMMON.to_owned(), cam, beside("beside-1"), beside("beside-2")].concat();
    let host = Ocelli::start(&config).await;
    let recording = watch(&host, "cam").await;
    let versions = [version("1.0.1"), version("1.0.2")];
    let records = swap(&host, &recording, [&versions[0], &versions[1]]).await;
    let messages = recording.messages();
    print_gaps("changeling on an RTSP camera", &messages, &records);
    assert_seamless(&messages, false);

    // A frame without a result was skipped for a newer one, and is counted as such.
    let frames = assert_counters_add_up(&host, HELD).await;
    let seen = results(&messages);
    let span =
        number(&seen[seen.len() - 1].message["frame"]) - number(&seen[0].message["frame"]) + 1;
    let without = span - seen.len() as u64 - missed(&messages);
    let skipped: u64 = frames["skipped"].as_object().unwrap().values().map(number).sum();
    assert!(without <= skipped, "{without} frames without a result: {frames}");
    println!("  frames without a result: {without}; counted as skipped: {skipped}");
    assert_eq!(host.session("cam").await["restarts"], 0);
}

/// Two results of object-detect: objects of both, by their boxes, and whether they kept their
/// numbers. How many did.
fn assert_same_tracks(before: &Value, after: &Value) -> usize {
    let objects = |message: &Value| message["detections"].as_array().unwrap().clone();
    let mut same = 0;
    for old in objects(before).iter().filter(|object| object["track"].is_u64()) {
        let best = objects(after)
            .into_iter()
            .filter(|new| new["label"] == old["label"] && new["track"].is_u64())
            .map(|new| (overlap(&old["box"], &new["box"]), new))
            .max_by(|one, other| one.0.total_cmp(&other.0));
        // Objects that cross each other may be taken for each other: those that hardly moved cannot
        // be.
        if let Some((iou, new)) = best
            && iou >= 0.8
        {
            assert_eq!(old["track"], new["track"], "IoU {iou}: {old}, {new}");
            same += 1;
        }
    }
    same
}

/// Intersection over union.
fn overlap(one: &Value, other: &Value) -> f64 {
    let sides = |area: &Value| [0, 1, 2, 3].map(|side| area[side].as_f64().unwrap());
    let ([x, y, w, h], [a, b, c, d]) = (sides(one), sides(other));
    let shared = |from: f64, length: f64, other: f64, its: f64| {
        ((from + length).min(other + its) - from.max(other)).max(0.0)
    };
    let both = shared(x, w, a, c) * shared(y, h, b, d);
    both / (w * h + c * d - both)
}

/// Prints the gaps, and holds objects to their numbers across each change.
fn assert_objects_stay(what: &str, messages: &[Received], records: &[Value]) {
    print_gaps(what, messages, records);
    let results = results(messages);
    let frames: Vec<u64> = results.iter().map(|result| number(&result.message["frame"])).collect();
    assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "{frames:?}");
    assert_events_unbroken(messages);
    let changes = results
        .windows(2)
        .filter(|pair| pair[0].message["deployment"] != pair[1].message["deployment"]);
    let same: usize =
        changes.map(|pair| assert_same_tracks(&pair[0].message, &pair[1].message)).sum();
    println!("  objects that kept their number across a change: {same}");
    assert!(same > 0, "no object was in view at any change");
}

/// What two cores keep up with, the machine's other work included: a run of the model takes 56 ms
/// of one.
const RATE: &str = "settings = { max_results_per_second = 8, score = 0.3 }";

#[tokio::test(flavor = "multi_thread")]
async fn objects_keep_their_numbers_through_many_changes_on_a_file() {
    let host = Ocelli::start(&format!("{COMMON}{}", playing("cam", "object-detect", RATE))).await;
    let recording = watch(&host, "cam").await;
    let component = std::fs::read(built_in_pipeline("object-detect")).unwrap();
    let versions = [tagged(&component, "one"), tagged(&component, "two")];
    let records = swap(&host, &recording, [&versions[0], &versions[1]]).await;
    let messages = recording.messages();
    assert_objects_stay("object-detect on a file, 8 of 25 frames a second", &messages, &records);
    for record in &records {
        let swapped = &record["swapped"];
        assert_eq!(number(&swapped["first_frame"]), number(&swapped["last_frame"]) + 1, "{record}");
    }
    let frames = assert_counters_add_up(&host, HELD).await;
    assert_eq!(frames["skipped"]["newer"], 0, "{frames}");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_keep_their_numbers_through_many_changes_on_a_live_camera() {
    let server = Cameras::start(&[], &[("/cam", CLIP), ("/beside", "people-576-high.mp4")]);
    let beside =
        camera("beside", &server.url("/beside"), "settings = { max_results_per_second = 4 }");
    let host =
        Ocelli::start(&format!("{COMMON}{}{beside}", camera("cam", &server.url("/cam"), RATE)))
            .await;
    let recording = watch(&host, "cam").await;
    let component = std::fs::read(built_in_pipeline("object-detect")).unwrap();
    let versions = [tagged(&component, "one"), tagged(&component, "two")];
    let records = swap(&host, &recording, [&versions[0], &versions[1]]).await;
    let messages = recording.messages();
    assert_objects_stay(
        "object-detect on an RTSP camera, 8 of 25 frames a second",
        &messages,
        &records,
    );
    assert_counters_add_up(&host, HELD).await;
}

/// A message without what tells one version from another.
fn without_deployment(message: &str) -> String {
    let mut value: Value = serde_json::from_str(message).unwrap();
    value["deployment"] = Value::Null;
    value["seq"] = Value::Null;
    value.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_played_through_changes_gives_what_it_gives_without() {
    let config = format!("{COMMON}{}", FileSession::ALLOWED);
    // The larger model: the file lasts until the first change is compiled.
    let session = FileSession {
        settings: json!({"score": 0.3, "model": "nanodet-g-416"}),
        ..FileSession::detecting("cam", "people-576-high-b3.mp4")
    };
    let host = Ocelli::start(&config).await;
    let alone = session.play(&host).await;
    drop(host);

    let host = Ocelli::start(&config).await;
    let component = std::fs::read(built_in_pipeline("object-detect")).unwrap();
    let begun = Instant::now();
    let playing = session.play(&host);
    let changing = async {
        host.wait_for_session("cam", |session| session["state"] == "running").await;
        let mut changes = 0;
        for tag in ["one", "two", "three", "four", "five"] {
            let (status, answer) = host.deploy("cam", "", &tagged(&component, tag)).await;
            // The file may end at any time.
            if status != 200 {
                println!("after {changes} changes: {status}: {}", answer["detail"]);
                break;
            }
            changes += 1;
        }
        changes
    };
    let (changed, changes) = tokio::join!(playing, changing);
    println!("{changes} changes within {:.1} s", begun.elapsed().as_secs_f64());
    assert!(
        changes > 0,
        "{} has ended before the first change",
        clip("people-576-high-b3.mp4").display()
    );
    let changed: Vec<String> = changed
        .iter()
        .filter(|text| !text.contains("\"kind\":\"deployment\""))
        .map(|text| without_deployment(text))
        .collect();
    let alone: Vec<String> = alone.iter().map(|text| without_deployment(text)).collect();
    ocelli_testkit::assert_identical("cam", &alone, &changed);
}
