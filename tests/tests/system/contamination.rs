//! Twelve sessions with four pipelines and different settings on six sources: together on one host
//! they give the results, byte by byte, that each gives on a host of its own.

use std::collections::BTreeSet;

use ocelli_testkit::{FileSession, Ocelli, PipelineFolder, assert_identical};
use serde_json::json;

const ALERTS_OFF: &str = "[alerts]\nmemory_percent = 0\nno_results_s = 0\nrestarts_per_hour = \
    0\nsource_down_s = 0\n\
    disk_free_percent = 0\n";

/// Two sessions on each source, never with the same pipeline and settings. The model runs on few
/// frames: it is nearly all of the cost.
fn sessions() -> [FileSession<'static>; 12] {
    let on = |name, clip, pipeline, settings| FileSession { name, clip, pipeline, settings };
    [
        on("a1", "people-576-baseline.mp4", "object-detect", json!({"max_results_per_second": 2})),
        on("a2", "people-576-baseline.mp4", "motion", json!({"threshold": 12, "grid": 10})),
        on("b1", "people-576-high.mp4", "scene", json!({"every": 20})),
        on(
            "b2",
            "people-576-high.mp4",
            "fingerprint",
            json!({"width": 128, "height": 96, "every": 7}),
        ),
        on(
            "c1",
            "people-576-high-b3.mp4",
            "object-detect",
            json!({"max_results_per_second": 1, "score": 0.25, "labels": ["person"]}),
        ),
        on(
            "c2",
            "people-576-high-b3.mp4",
            "fingerprint",
            json!({"region": [0.25, 0.25, 0.5, 0.5], "float": true, "bgr": true}),
        ),
        on("d1", "people-576-hevc.mp4", "scene", json!({"every": 25, "rows": true, "score": 0.1})),
        on("d2", "people-576-hevc.mp4", "motion", json!({"threshold": 4, "grid": 24})),
        on("e1", "bikes.mp4", "motion", json!({"threshold": 20, "grid": 16})),
        on(
            "e2",
            "bikes.mp4",
            "fingerprint",
            json!({"width": 200, "height": 200, "letterbox": true, "every": 50}),
        ),
        on(
            "f1",
            "people-1080-baseline.mp4",
            "object-detect",
            json!({"max_results_per_second": 2, "iou": 0.3}),
        ),
        on("f2", "people-1080-baseline.mp4", "motion", json!({})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_sessions_give_together_what_each_gives_alone() {
    let store = PipelineFolder::with(&["fingerprint", "motion", "scene"]);
    // Twelve workers on two cores: an inference may wait long for its turn.
    let patience = "[inference]\ntimeout_ms = 60000\n";
    let config = format!("{}{}{patience}{ALERTS_OFF}", store.section(), FileSession::ALLOWED);
    let sessions = sessions();
    let host = Ocelli::start(&config).await;
    let together = FileSession::play_all(&sessions, &host).await;
    drop(host);

    for (session, together) in sessions.iter().zip(&together) {
        let host = Ocelli::start(&config).await;
        let alone = session.play(&host).await;
        println!("{}: {} messages", session.name, alone.len());
        assert!(
            alone.iter().any(|text| text.contains("\"label\"")),
            "{} found nothing",
            session.name
        );
        assert_identical(session.name, &alone, together);
    }
    // Two sessions with the same results could not show that they were mixed up.
    let nameless = sessions.iter().zip(&together).map(|(session, results)| {
        let name = format!("\"session\":\"{}\"", session.name);
        results.iter().map(|text| text.replacen(&name, "", 1)).collect::<Vec<_>>()
    });
    let different: BTreeSet<_> = nameless.collect();
    assert_eq!(different.len(), sessions.len());
}
