//! Time for models that is short: what pipelines get that ask for it.

use futures_util::future::join_all;
use ocelli_testkit::{DEADLINE, Ocelli, PipelineFolder};
use serde_json::Value;
use tokio::time::timeout;

/// Cameras, each a live one: a clip with 25 frames a second that plays for ever.
const CAMERAS: [&str; 4] = ["one", "two", "three", "four"];

/// Results of a run that each camera gets before the test looks at what they cost.
const RUNS: usize = 3;

/// Milliseconds that results grow older than: four runs of 8 ms, on a fast processor, take a tenth
/// of a core 320 ms.
const OLD_MS: u64 = 200;

fn config(store: &PipelineFolder, cameras: &ocelli_testkit::Cameras) -> String {
    let mut config = format!("[inference]\nbudget_cores = 0.1\nthreads = 1\n{}", store.section());
    for id in CAMERAS {
        let source = cameras.url("/bikes");
        config += &format!("[[cameras]]\nid = {id:?}\nsource = {source:?}\npipeline = \"asker\"\n");
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_tenth_of_a_core_results_grow_old_and_say_so_and_nobody_starves_and_nothing_queues()
{
    let store = PipelineFolder::with(&["asker"]);
    let cameras = ocelli_testkit::Cameras::start(&[], &[("/bikes", "bikes.mp4")]);
    let host = Ocelli::start(&config(&store, &cameras)).await;
    let watched = CAMERAS.map(async |session| {
        let mut client = host.client().await;
        client.subscribe(session).await;
        let (mut runs, mut oldest) = (0, 0);
        // A busy machine may show a client the newest of several results alone.
        while runs < RUNS || oldest <= OLD_MS {
            let message = client.detections(session).await;
            let age = message["model_age_ms"].as_u64().unwrap();
            match message["source"].as_str().unwrap() {
                "model" => {
                    assert_eq!(age, 0, "{message}");
                    runs += 1;
                }
                source => assert_eq!(source, "predicted", "{message}"),
            }
            oldest = oldest.max(age);
        }
    });
    timeout(DEADLINE, join_all(watched)).await.expect("results grow old, and come");
    let mut sessions = Vec::new();
    for session in CAMERAS {
        // The mean of some seconds, which a fast machine has not seen yet.
        let ran = |status: &Value| status["runs_per_second"].as_f64() > Some(0.0);
        sessions.push(host.wait_for_session(session, ran).await);
    }
    let frames = |session: &Value, key: &str| session["frames"][key].as_u64().unwrap();
    let most = sessions.iter().map(|session| frames(session, "inferred")).max().unwrap();
    for session in &sessions {
        let [asked, granted, inferred] =
            ["budget_asked", "budget_granted", "inferred"].map(|key| frames(session, key));
        assert!(
            session["last_run_age_s"].as_f64().unwrap() < session["uptime_s"].as_f64().unwrap()
        );
        assert!(granted < asked && inferred <= granted, "{session}");
        assert!(inferred as usize >= RUNS && 3 * inferred >= most, "{inferred} of {most}");
        // Runs wait for those that were granted before them: never for more than two.
        let [wait, run] = ["inference_wait_ns", "inference_run_ns"].map(|key| frames(session, key));
        assert!(wait <= 2 * run, "{session}");
    }
}
