use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::*;
use crate::config::AnalyzePipeline;

/// What workers do is told by their pictures.
#[derive(Clone, Default)]
struct Doubles {
    state: Arc<Mutex<DoublesState>>,
    gate: Arc<Notify>,
}

#[derive(Default)]
struct DoublesState {
    alive: BTreeMap<u64, String>,
    most: usize,
    started: u64,
    /// The pictures' words in the order in which they came to a worker.
    order: Vec<String>,
    /// How often a worker is to die before it takes the next picture.
    deaths: usize,
}

impl Doubles {
    fn alive(&self) -> usize {
        self.state.lock().alive.len()
    }

    /// Workers started so far, and most of them at a time.
    fn counts(&self) -> (u64, usize) {
        let state = self.state.lock();
        (state.started, state.most)
    }

    fn order(&self) -> Vec<String> {
        self.state.lock().order.clone()
    }
}

impl WorkerFactory for Doubles {
    fn find(&self, pipeline: &str) -> Result<(), AnalysisError> {
        if pipeline == "nobody" {
            Err(AnalysisError::new(AnalysisErrorKind::UnknownPipeline, "no"))
        } else {
            Ok(())
        }
    }

    fn start(
        &self,
        pipeline: Arc<str>,
        settings: Arc<Map<String, Value>>,
    ) -> BoxFuture<'static, Result<Box<dyn ImageWorker>, ImageWorkerStartError>> {
        let doubles = self.clone();
        Box::pin(async move {
            if &*pipeline == "broken" {
                return Err(ImageWorkerStartError {
                    error: AnalysisError::new(AnalysisErrorKind::ModelMissing, "no"),
                    permanent: true,
                });
            }
            let mut state = doubles.state.lock();
            let number = state.started;
            state.started += 1;
            state.alive.insert(number, pipeline.to_string());
            state.most = state.most.max(state.alive.len());
            drop(state);
            let settings = Value::Object((*settings).clone()).to_string();
            Ok(Box::new(Double { doubles, number, settings }) as Box<dyn ImageWorker>)
        })
    }
}

struct Double {
    doubles: Doubles,
    number: u64,
    settings: String,
}

impl Drop for Double {
    fn drop(&mut self) {
        self.doubles.state.lock().alive.remove(&self.number);
    }
}

impl ImageWorker for Double {
    fn analyze(
        &mut self,
        image: Bytes,
        settings: Option<Arc<str>>,
    ) -> BoxFuture<'_, Result<Result<ImageResult, AnalysisError>, ImageWorkerLost>> {
        Box::pin(async move {
            let word = String::from_utf8_lossy(&image[3..]).into_owned();
            {
                let mut state = self.doubles.state.lock();
                if state.deaths > 0 {
                    state.deaths -= 1;
                    return Err(ImageWorkerLost { reason: "gone".into(), received: false });
                }
                state.order.push(word.clone());
            }
            match word.as_str() {
                "hang" => std::future::pending().await,
                "die" => {
                    return Err(ImageWorkerLost { reason: "signal 11".into(), received: true });
                }
                "damaged" => {
                    return Ok(Err(AnalysisError::new(AnalysisErrorKind::DamagedImage, "no")));
                }
                "gate" => self.doubles.gate.notified().await,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
            let deployment = settings.as_deref().unwrap_or(&self.settings).to_owned();
            let (width, height) = (4, 3);
            Ok(Ok(ImageResult {
                deployment,
                width,
                height,
                detections: vec![],
                events: vec![],
                timestamps: Default::default(),
            }))
        })
    }

    fn watch_idle(&mut self) -> BoxFuture<'_, String> {
        Box::pin(std::future::pending())
    }

    fn end(self: Box<Self>, _: bool) -> BoxFuture<'static, String> {
        Box::pin(async move {
            drop(self);
            "ended".into()
        })
    }
}

fn analyses(config: AnalyzeConfig) -> (Analyses, Doubles) {
    let doubles = Doubles::default();
    (Analyses::start(&config, Box::new(doubles.clone())), doubles)
}

fn picture(analyses: &Analyses, word: &str) -> ImageFile {
    let image = [b"\xff\xd8\xff".as_slice(), word.as_bytes()].concat();
    let room = analyses.reserve_memory(image.len()).unwrap();
    ImageFile::new(image.into(), now(), room).unwrap()
}

fn named(analyses: &Analyses, word: &str) -> NamedImage {
    NamedImage { filename: Some(word.to_owned()), image: Ok(picture(analyses, word)) }
}

async fn analyze(
    analyses: &Analyses,
    pipeline: &str,
    word: &str,
) -> Result<Analysis, AnalysisError> {
    analyses.analyze(&analyses.request(pipeline)?, picture(analyses, word)).await
}

fn kind(outcome: Result<Analysis, AnalysisError>) -> AnalysisErrorKind {
    outcome.unwrap_err().kind
}

/// Lets everything happen that does not wait for time.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_picture_is_analysed_and_its_worker_kept_for_the_next() {
    let (analyses, doubles) = analyses(AnalyzeConfig::default());
    let analysis = analyze(&analyses, "p", "one").await.unwrap();
    assert_eq!((analysis.width, analysis.height, analysis.pipeline.as_str()), (4, 3, "p"));
    assert!(analysis.latency_ms.total >= 10.0, "{analysis:?}");
    analyze(&analyses, "p", "two").await.unwrap();
    assert_eq!(doubles.counts(), (1, 1));
    tokio::time::sleep(Duration::from_secs(62)).await;
    assert_eq!(doubles.alive(), 0, "nobody needed it for analyze.idle_s");
    assert_eq!(analyses.figures().outcomes, [("ok", 2)]);
}

#[tokio::test(start_paused = true)]
async fn kept_workers_are_there_from_the_start_with_their_settings() {
    let settings = serde_json::json!({"score": 0.25}).as_object().cloned().unwrap();
    let kept = AnalyzePipeline { name: "p".into(), workers: 2, settings };
    let (analyses, doubles) =
        analyses(AnalyzeConfig { pipelines: vec![kept], ..AnalyzeConfig::default() });
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(doubles.alive(), 2);
    assert_eq!(analyze(&analyses, "p", "one").await.unwrap().deployment, r#"{"score":0.25}"#);
    let mut order = analyses.request("p").unwrap();
    order.set_settings(&Map::new());
    let other = analyses.analyze(&order, picture(&analyses, "two")).await.unwrap();
    assert_eq!(other.deployment, "{}", "a request's own settings count");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_analysed_is_refused_by_kind() {
    let (analyses, _) = analyses(AnalyzeConfig::default());
    assert_eq!(analyses.request("nobody").unwrap_err().kind, AnalysisErrorKind::UnknownPipeline);
    assert_eq!(kind(analyze(&analyses, "broken", "x").await), AnalysisErrorKind::ModelMissing);
    assert_eq!(kind(analyze(&analyses, "p", "damaged").await), AnalysisErrorKind::DamagedImage);
    let new = |bytes: &'static [u8]| {
        ImageFile::new(bytes.into(), now(), analyses.reserve_memory(bytes.len()).unwrap())
            .unwrap_err()
            .kind
    };
    assert_eq!(new(b""), AnalysisErrorKind::EmptyImage);
    assert_eq!(new(b"some text"), AnalysisErrorKind::UnsupportedImage);
    assert_eq!(new(b"\xff\xd8"), AnalysisErrorKind::UnsupportedImage);
    let (disabled, _) =
        super::tests::analyses(AnalyzeConfig { workers: 0, ..AnalyzeConfig::default() });
    assert_eq!(disabled.request("p").unwrap_err().kind, AnalysisErrorKind::Disabled);
}

#[tokio::test(start_paused = true)]
async fn a_picture_that_takes_too_long_is_answered_and_its_worker_replaced() {
    let (analyses, doubles) = analyses(AnalyzeConfig { workers: 1, ..AnalyzeConfig::default() });
    let begun = now();
    let waits = async {
        settle().await;
        // It comes later, so there is time left when the worker is replaced.
        tokio::time::sleep(Duration::from_secs(1)).await;
        analyze(&analyses, "p", "waits").await
    };
    let (hung, waited) = tokio::join!(analyze(&analyses, "p", "hang"), waits);
    assert_eq!(kind(hung), AnalysisErrorKind::Timeout);
    waited.unwrap();
    let took = now() - begun;
    assert!((60..61).contains(&took.as_secs()), "{took:?}");
    assert_eq!(doubles.counts(), (2, 1));
    assert_eq!(analyses.figures().lost_workers, 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_counts_as_time_too() {
    let (analyses, doubles) = analyses(AnalyzeConfig { workers: 1, ..AnalyzeConfig::default() });
    let first = analyze(&analyses, "p", "gate");
    let second = async {
        settle().await;
        analyze(&analyses, "q", "never").await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(
        (kind(first), kind(second)),
        (AnalysisErrorKind::Timeout, AnalysisErrorKind::Timeout)
    );
    assert_eq!(doubles.order(), ["gate"], "nobody waits for the other any more");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_costs_its_picture_alone() {
    let (analyses, doubles) = analyses(AnalyzeConfig { workers: 1, ..AnalyzeConfig::default() });
    let (died, next) =
        tokio::join!(analyze(&analyses, "p", "die"), analyze(&analyses, "p", "next"));
    assert_eq!(kind(died), AnalysisErrorKind::PipelineCrashed);
    next.unwrap();
    doubles.state.lock().deaths = 1;
    analyze(&analyses, "p", "again").await.unwrap();
    doubles.state.lock().deaths = 2;
    assert_eq!(kind(analyze(&analyses, "p", "twice").await), AnalysisErrorKind::PipelineCrashed);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_single_pictures_and_says_when_to_come_again() {
    let (analyses, doubles) =
        analyses(AnalyzeConfig { workers: 1, queue: 1, ..AnalyzeConfig::default() });
    let first = tokio::spawn({
        let analyses = analyses.clone();
        async move { analyze(&analyses, "p", "gate").await }
    });
    settle().await;
    let second = tokio::spawn({
        let analyses = analyses.clone();
        async move { analyze(&analyses, "p", "second").await }
    });
    settle().await;
    let refused = analyze(&analyses, "p", "third").await.unwrap_err();
    assert_eq!((refused.kind, refused.retry_after_s), (AnalysisErrorKind::Busy, Some(1)));
    assert_eq!(analyses.admit().unwrap_err().kind, AnalysisErrorKind::Busy);
    doubles.gate.notify_one();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    analyses.admit().unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_leaves_the_queue() {
    let (analyses, doubles) =
        analyses(AnalyzeConfig { workers: 1, queue: 2, ..AnalyzeConfig::default() });
    let busy = tokio::spawn({
        let analyses = analyses.clone();
        async move { analyze(&analyses, "p", "gate").await }
    });
    settle().await;
    {
        let gone = analyze(&analyses, "p", "gone");
        tokio::pin!(gone);
        assert!(futures_util::poll!(&mut gone).is_pending());
        assert_eq!(analyses.figures().load.waiting, 1);
    }
    assert_eq!(analyses.figures().load.waiting, 0);
    doubles.gate.notify_one();
    busy.await.unwrap().unwrap();
    analyze(&analyses, "p", "last").await.unwrap();
    assert_eq!(doubles.order(), ["gate", "last"]);
    assert_eq!(analyses.figures().outcomes, [("cancelled", 1), ("ok", 2)]);
    let all =
        (analyses.shared.memory.available_permits(), analyses.shared.places.available_permits());
    assert_eq!(all, (IMAGE_MEMORY / MEMORY_UNIT, 2), "everything is given back");
}

#[tokio::test(start_paused = true)]
async fn a_long_list_keeps_a_single_picture_waiting_for_few_of_its_own() {
    let (analyses, doubles) = analyses(AnalyzeConfig { workers: 1, ..AnalyzeConfig::default() });
    let words: Vec<String> = (0..64).map(|number| format!("list {number}")).collect();
    let list = tokio::spawn({
        let (analyses, words) = (analyses.clone(), words.clone());
        async move {
            let order = analyses.request("p").unwrap();
            let pictures: Vec<_> =
                words.iter().map(|word| Ok::<_, ()>(named(&analyses, word))).collect();
            analyses
                .analyze_all(&order, stream::iter(pictures))
                .try_collect::<Vec<_>>()
                .await
                .unwrap()
        }
    });
    tokio::time::sleep(Duration::from_millis(55)).await;
    analyze(&analyses, "p", "single").await.unwrap();
    let place = doubles.order().iter().position(|word| word == "single").unwrap();
    assert!(place <= 8, "{place}: {:?}", doubles.order());
    let items = list.await.unwrap();
    let names: Vec<String> = items.iter().map(|item| item.filename.clone().unwrap()).collect();
    assert_eq!(names, words, "in the order in which they came");
    assert!(items.iter().all(|item| item.outcome.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_longer_than_the_queue_comes_through_with_each_item_its_own_error() {
    let (analyses, _) =
        analyses(AnalyzeConfig { workers: 2, queue: 1, ..AnalyzeConfig::default() });
    let order = analyses.request("p").unwrap();
    let words = ["a", "damaged", "b", "die", "c", "d", "e"];
    let mut pictures: Vec<NamedImage> = words.iter().map(|word| named(&analyses, word)).collect();
    let empty = Err(AnalysisError::new(AnalysisErrorKind::EmptyImage, "no"));
    pictures.insert(1, NamedImage { filename: None, image: empty });
    let pictures = stream::iter(pictures.into_iter().map(Ok::<_, ()>));
    let items: Vec<ImageOutcome> =
        analyses.analyze_all(&order, pictures).try_collect().await.unwrap();
    let kinds: Vec<_> =
        items.iter().map(|item| item.outcome.as_ref().err().map(|f| f.kind)).collect();
    let (empty, damaged, died) = (
        AnalysisErrorKind::EmptyImage,
        AnalysisErrorKind::DamagedImage,
        AnalysisErrorKind::PipelineCrashed,
    );
    assert_eq!(kinds, [None, Some(empty), Some(damaged), None, Some(died), None, None, None]);
}

#[tokio::test(start_paused = true)]
async fn a_job_tells_how_it_goes_and_ends_when_it_is_cancelled() {
    let (analyses, doubles) =
        analyses(AnalyzeConfig { workers: 1, jobs: 2, ..AnalyzeConfig::default() });
    let submit = |words: &[&str]| {
        let pictures = words.iter().map(|word| named(&analyses, word)).collect();
        analyses.submit(analyses.request("p").unwrap(), words.len() > 1, pictures)
    };
    let job = submit(&["gate", "x", "y"]).unwrap();
    assert_eq!((job.state, job.images, job.list), (JobState::Queued, 3, true));
    settle().await;
    assert_eq!(analyses.job(&job.id).unwrap().0.state, JobState::Running);
    let other = submit(&["z"]).unwrap();
    assert_eq!(submit(&["w"]).unwrap_err().kind, AnalysisErrorKind::JobsFull);
    assert_eq!(analyses.jobs().len(), 2);
    assert!(analyses.cancel(&other.id) && !analyses.cancel(&other.id));
    doubles.gate.notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (done, items) = analyses.job(&job.id).unwrap();
    assert_eq!((done.state, done.answered, items.len()), (JobState::Done, 3, 3));
    assert!(!doubles.order().contains(&"z".to_owned()), "{:?}", doubles.order());
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert!(analyses.job(&job.id).is_none());
    assert_eq!(analyses.shared.memory.available_permits(), IMAGE_MEMORY / MEMORY_UNIT);
}

#[tokio::test(start_paused = true)]
async fn memory_for_pictures_is_bounded_and_counted_by_what_they_are() {
    let (analyses, _) = analyses(AnalyzeConfig::default());
    let whole = analyses.reserve_memory(IMAGE_MEMORY).unwrap();
    assert_eq!(analyses.reserve_memory(1).unwrap_err().kind, AnalysisErrorKind::Busy);
    let in_turn = analyses.wait_for_memory(16 << 20);
    tokio::pin!(in_turn);
    assert!(futures_util::poll!(&mut in_turn).is_pending());
    drop(whole);
    let mut room = in_turn.await.unwrap();
    room.shrink_to(1);
    assert_eq!(analyses.shared.memory.available_permits(), IMAGE_MEMORY / MEMORY_UNIT - 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_everybody_and_leaves_no_worker() {
    let (analyses, doubles) = analyses(AnalyzeConfig { workers: 1, ..AnalyzeConfig::default() });
    let waiting = tokio::spawn({
        let analyses = analyses.clone();
        async move { tokio::join!(analyze(&analyses, "p", "one"), analyze(&analyses, "p", "two")) }
    });
    settle().await;
    analyses.stop().await;
    let (one, two) = waiting.await.unwrap();
    one.unwrap();
    assert_eq!(kind(two), AnalysisErrorKind::ShuttingDown);
    assert_eq!(doubles.alive(), 0);
    assert_eq!(kind(analyze(&analyses, "p", "late").await), AnalysisErrorKind::ShuttingDown);
}
