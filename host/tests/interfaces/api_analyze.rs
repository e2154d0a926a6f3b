//! The analysis of single pictures over HTTP, against a real server and the real pool, with doubles
//! of the workers.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ocelli::analyze::{
    Analyses, AnalysisError, AnalysisErrorKind, ImageResult, ImageWorker, ImageWorkerLost,
    ImageWorkerStartError, WorkerFactory,
};
use ocelli::api::{Server, Timing};
use ocelli::config::{AnalyzeConfig, Config, Role, ServerConfig, Token, TokenHash};
use ocelli::event::{Attributes, Detection, Hub};
use ocelli_testkit::http::{self, HttpResponse};
use ocelli_testkit::within;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

/// What begins a picture; what follows tells the double what to do.
const JPEG: &str = "JFIF";

#[derive(Clone, Default)]
struct Doubles {
    gate: Arc<Notify>,
    /// Pictures that have come to a worker.
    taken: watch::Sender<usize>,
}

impl WorkerFactory for Doubles {
    fn find(&self, pipeline: &str) -> Result<(), AnalysisError> {
        if pipeline == "eye" {
            Ok(())
        } else {
            Err(AnalysisError::new(AnalysisErrorKind::UnknownPipeline, "there is none"))
        }
    }

    fn start(
        &self,
        _: Arc<str>,
        _: Arc<Map<String, Value>>,
    ) -> BoxFuture<'static, Result<Box<dyn ImageWorker>, ImageWorkerStartError>> {
        let double = Box::new(Double(self.clone()));
        Box::pin(async { Ok(double as Box<dyn ImageWorker>) })
    }
}

struct Double(Doubles);

impl ImageWorker for Double {
    fn analyze(
        &mut self,
        image: Bytes,
        settings: Option<Arc<str>>,
    ) -> BoxFuture<'_, Result<Result<ImageResult, AnalysisError>, ImageWorkerLost>> {
        Box::pin(async move {
            self.0.taken.send_modify(|taken| *taken += 1);
            let text = String::from_utf8_lossy(&image).into_owned();
            let word = text.split(JPEG).nth(1).unwrap_or_default();
            match word {
                "damaged" => {
                    return Ok(Err(AnalysisError::new(
                        AnalysisErrorKind::DamagedImage,
                        "it ends too soon",
                    )));
                }
                "die" => {
                    return Err(ImageWorkerLost { reason: "signal 11".into(), received: true });
                }
                "gate" => self.0.gate.notified().await,
                _ => {}
            }
            let found = Detection {
                label: word.to_owned(),
                score: 0.5,
                area: [1.0, 2.0, 3.0, 4.0],
                track: None,
                attributes: Attributes::default(),
                embedding: Some(vec![0.1, -0.25]),
            };
            let deployment = settings.as_deref().unwrap_or("none").to_owned();
            let (width, height) = (image.len() as u32, 1);
            let detections = vec![found];
            Ok(Ok(ImageResult {
                deployment,
                width,
                height,
                detections,
                events: vec![],
                timestamps: Default::default(),
            }))
        })
    }

    fn watch_idle(&mut self) -> BoxFuture<'_, String> {
        Box::pin(std::future::pending())
    }

    fn end(self: Box<Self>, _: bool) -> BoxFuture<'static, String> {
        Box::pin(async { "ended".into() })
    }
}

#[derive(Clone)]
struct Operator(Analyses);

no_sessions!(Operator, 0);
no_deployments!(Operator);
no_insight!(Operator);
no_config!(Operator);

struct Host {
    server: Server,
    analyses: Analyses,
    doubles: Doubles,
}

impl Host {
    async fn start(config: AnalyzeConfig) -> Self {
        Self::start_for(config, Vec::new())
    }

    /// A host that these tokens may ask.
    fn start_for(config: AnalyzeConfig, tokens: Vec<Token>) -> Self {
        let server = ServerConfig { tokens, ..ServerConfig::default() };
        let followed = watch::channel(Arc::new(Config { server, ..Config::default() })).1;
        let doubles = Doubles::default();
        let analyses = Analyses::start(&config, Box::new(doubles.clone()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let operator = Operator(analyses.clone());
        let server = Server::start(
            listener,
            Hub::new(crate::support::events()),
            operator,
            Timing::default(),
            followed,
        )
        .unwrap();
        Self { server, analyses, doubles }
    }

    /// Sends a head (method, path, and whole lines of headers) and a body, then reads the answer.
    async fn send(&self, request: &str, headers: &str, body: &[u8]) -> HttpResponse {
        HttpResponse::read(&mut self.open(request, headers, body).await).await
    }

    async fn open(&self, request: &str, headers: &str, body: &[u8]) -> TcpStream {
        http::request(self.server.address(), request, headers, body).await.unwrap()
    }

    async fn analyze(&self, query: &str, media_type: &str, body: &[u8]) -> HttpResponse {
        let headers = format!("Content-Type: {media_type}\r\nContent-Length: {}\r\n", body.len());
        self.send(&format!("POST /v1/analyze/eye{query}"), &headers, body).await
    }

    async fn list(&self, query: &str, parts: &[(&str, &[u8])]) -> HttpResponse {
        self.analyze(query, "multipart/form-data; boundary=xyz", &list(parts)).await
    }

    async fn get(&self, path: &str) -> HttpResponse {
        self.send(&format!("GET {path}"), "", &[]).await
    }

    /// Waits until workers have been given so many pictures.
    async fn taken(&self, count: usize) {
        let mut taken = self.doubles.taken.subscribe();
        within(taken.wait_for(|taken| *taken >= count)).await.unwrap();
    }

    /// Asks for a job until it is over.
    async fn over(&self, path: &str) -> Value {
        within(async {
            loop {
                let job = self.get(path).await;
                assert_eq!(job.status, 200, "{job:?}");
                if job.body["state"] == "done" || job.body["state"] == "failed" {
                    return job.body;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

fn jpeg(word: &str) -> Vec<u8> {
    [b"\xff\xd8\xff".as_slice(), JPEG.as_bytes(), word.as_bytes()].concat()
}

/// Parts by name and content, as browsers and curl write them.
fn list(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (index, (name, content)) in parts.iter().enumerate() {
        let mut head = format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"");
        if *name == "image" {
            write!(head, "; filename=\"{index}.jpg\"\r\nContent-Type: image/jpeg").unwrap();
        }
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(b"\r\n\r\n");
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--xyz--\r\n");
    body
}

#[tokio::test]
async fn a_picture_is_answered_with_what_was_found_in_it() {
    let host = Host::start(AnalyzeConfig::default()).await;
    let answer = host.analyze("", "image/jpeg", &jpeg("cat")).await;
    assert_eq!((answer.status, &answer.body["pipeline"]), (200, &json!("eye")), "{answer:?}");
    assert_eq!((&answer.body["width"], &answer.body["height"]), (&json!(10), &json!(1)));
    let found = json!([{"label": "cat", "score": 0.5, "box": [1.0, 2.0, 3.0, 4.0], "attributes": {}, "embedding": [0.1, -0.25]}]);
    assert_eq!((&answer.body["detections"], &answer.body["events"]), (&found, &json!([])));
    let latency = &answer.body["latency_ms"];
    let total = latency["total"].as_f64().unwrap();
    for stage in ["queued", "decode", "inference", "pipeline", "total"] {
        assert!((0.0..=total).contains(&latency[stage].as_f64().unwrap()), "{stage} in {latency}");
    }
    assert_eq!(answer.body["deployment"], "none");
    let settings =
        host.analyze("?settings=%7B%22score%22%3A0.2%7D", "image/jpeg", &jpeg("cat")).await;
    assert_eq!(settings.body["deployment"], r#"{"score":0.2}"#);
}

#[tokio::test]
async fn what_cannot_be_analysed_is_a_problem_with_a_code() {
    let host =
        Host::start(AnalyzeConfig { max_image_mb: 1, max_images: 2, ..AnalyzeConfig::default() })
            .await;
    let cases: [(&str, &str, &[u8], u16, &str); 13] = [
        ("", "image/jpeg", b"", 400, "empty_image"),
        ("", "image/jpeg", b"just text", 415, "unsupported_image"),
        ("", "text/plain", b"just text", 415, "unsupported_media_type"),
        ("", "image/gif", b"GIF89a", 415, "unsupported_image"),
        ("", "image/jpeg", &jpeg("damaged"), 422, "damaged_image"),
        ("", "image/jpeg", &jpeg("die"), 500, "pipeline_crashed"),
        ("?settings=%5B1%5D", "image/jpeg", &jpeg("cat"), 400, "bad_settings"),
        ("?settings=%7B", "image/jpeg", &jpeg("cat"), 400, "bad_settings"),
        ("?asink=1", "image/jpeg", &jpeg("cat"), 400, "bad_query"),
        ("?async=maybe", "image/jpeg", &jpeg("cat"), 400, "bad_query"),
        ("", "multipart/form-data", b"", 400, "bad_multipart"),
        ("", "multipart/form-data; boundary=xyz", b"--xyz\r\nnonsense", 400, "bad_multipart"),
        ("", "multipart/form-data; boundary=xyz", b"--xyz--\r\n", 400, "no_images"),
    ];
    for (query, media_type, body, status, code) in cases {
        let answer = host.analyze(query, media_type, body).await;
        answer.assert_problem(status, code);
    }
    let many = [("image", &*jpeg("a")), ("image", &*jpeg("b")), ("image", &*jpeg("c"))];
    host.list("", &many).await.assert_problem(413, "too_many_images");
    host.list("", &[("image", &jpeg("a")), ("settings", b"{}")])
        .await
        .assert_problem(400, "bad_settings");
    host.list("", &[("settings", b"7"), ("image", &jpeg("a"))])
        .await
        .assert_problem(400, "bad_settings");
    host.list("?settings=%7B%7D", &[("settings", b"{}")]).await.assert_problem(400, "bad_settings");
    let headers = "Content-Type: image/jpeg\r\nContent-Length: 0\r\n";
    for pipeline in ["nose", "..%2Feye", "%20"] {
        let unknown = host.send(&format!("POST /v1/analyze/{pipeline}"), headers, &[]).await;
        unknown.assert_problem(404, "unknown_pipeline");
    }
    assert_eq!(host.analyze("", "image/jpeg", &jpeg("cat")).await.status, 200);
}

#[tokio::test]
async fn an_image_is_what_its_bytes_say_whatever_its_media_type() {
    let host = Host::start(AnalyzeConfig::default()).await;
    for media_type in
        ["image/jpg", "IMAGE/JPEG; q=1", "image/png", "image/gif", "application/octet-stream", ""]
    {
        let answer = host.analyze("", media_type, &jpeg("cat")).await;
        assert_eq!(answer.status, 200, "{media_type}");
        let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
        let refused = host.analyze("", media_type, heic).await;
        refused.assert_problem(415, "unsupported_image");
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains("HEIC") && detail.contains("JPEG and PNG"), "{detail}");
    }
}

#[tokio::test]
async fn a_picture_that_is_too_large_is_refused_unread() {
    let host = Host::start(AnalyzeConfig { max_image_mb: 1, ..AnalyzeConfig::default() }).await;
    // Nothing of the body is ever sent.
    let headers = "Content-Type: image/jpeg\r\nContent-Length: 1048577\r\n";
    host.send("POST /v1/analyze/eye", headers, &[]).await.assert_problem(413, "image_too_large");
    // One that does not say how long it is.
    let chunk = vec![b'x'; (1 << 20) + 1];
    let body = [format!("{:x}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n"].concat();
    let headers = "Content-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n";
    host.send("POST /v1/analyze/eye", headers, &body).await.assert_problem(413, "image_too_large");
    // Beside others it costs itself alone.
    let large = [jpeg("large"), vec![b'x'; 1 << 20]].concat();
    let answer = host.list("", &[("image", &large), ("image", &jpeg("cat"))]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = &answer.body["results"];
    assert_eq!(results[0]["error"]["code"], "image_too_large");
    assert_eq!(results[1]["detections"][0]["label"], "cat");
}

#[tokio::test]
async fn a_list_is_answered_item_by_item_each_with_its_own_error() {
    let host = Host::start(AnalyzeConfig { queue: 1, ..AnalyzeConfig::default() }).await;
    let (cat, damaged, dog) = (jpeg("cat"), jpeg("damaged"), jpeg("dog"));
    let parts: [(&str, &[u8]); 5] = [
        ("settings", br#"{"a":1}"#),
        ("image", &cat),
        ("image", &damaged),
        ("picture", b""),
        ("image", &dog),
    ];
    let answer = host.list("", &parts).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    assert_eq!(
        (&results[0]["detections"][0]["label"], &results[0]["deployment"]),
        (&json!("cat"), &json!(r#"{"a":1}"#))
    );
    let error = json!({"title": "Unprocessable \
        Entity", "status": 422, "code": "damaged_image", "detail": "it ends too soon"});
    assert_eq!(results[1], json!({"index": 1, "filename": "2.jpg", "error": error}));
    assert_eq!(
        (&results[2]["index"], &results[2]["error"]["code"]),
        (&json!(2), &json!("empty_image"))
    );
    assert_eq!(results[3]["detections"][0]["label"], "dog");
}

#[tokio::test]
async fn a_job_is_its_own_tokens_and_admins_alone() {
    let token = |name: &str, role| Token {
        name: name.to_owned(),
        hash: TokenHash::of(&format!("ocelli_{name}")),
        role,
        sessions: None,
        expires: None,
    };
    let tokens = vec![
        token("one", Role::Operator),
        token("other", Role::Operator),
        token("admin", Role::Admin),
    ];
    let host = Host::start_for(AnalyzeConfig::default(), tokens);
    let by = |name: &str| format!("Authorization: Bearer ocelli_{name}\r\n");
    let picture = jpeg("cat");
    let headers =
        format!("{}Content-Type: image/jpeg\r\nContent-Length: {}\r\n", by("one"), picture.len());
    let accepted = host.send("POST /v1/analyze/eye?async=1", &headers, &picture).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let path = accepted.header("location").to_owned();
    for (name, sees) in [("other", false), ("one", true), ("admin", true)] {
        let jobs = host.send("GET /v1/jobs", &by(name), &[]).await;
        assert_eq!(jobs.body["jobs"].as_array().unwrap().len(), usize::from(sees), "{name}");
        let job = host.send(&format!("GET {path}"), &by(name), &[]).await;
        assert_eq!(job.status, if sees { 200 } else { 404 }, "{name}");
        if !sees {
            job.assert_problem(404, "unknown_job");
            let cancelled = host.send(&format!("DELETE {path}"), &by(name), &[]).await;
            cancelled.assert_problem(404, "unknown_job");
        }
    }
    assert_eq!(host.send(&format!("DELETE {path}"), &by("one"), &[]).await.status, 204);
}

#[tokio::test]
async fn a_job_is_asked_for_until_it_is_done_and_can_be_cancelled() {
    let host = Host::start(AnalyzeConfig { workers: 1, jobs: 2, ..AnalyzeConfig::default() }).await;
    let accepted = host.analyze("?async=1", "image/jpeg", &jpeg("gate")).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let path = accepted.header("location").to_owned();
    assert_eq!(path, format!("/v1/jobs/{}", accepted.body["id"].as_str().unwrap()));
    host.taken(1).await;
    let running = host.get(&path).await.body;
    assert_eq!(
        (&running["state"], &running["finished"]),
        (&json!("running"), &Value::Null),
        "{running}"
    );
    let second =
        host.list("?async=1", &[("image", &jpeg("cat")), ("image", &jpeg("damaged"))]).await;
    assert_eq!((second.status, &second.body["state"]), (202, &json!("queued")), "{second:?}");
    let full = host.analyze("?async=1", "image/jpeg", &jpeg("cat")).await;
    full.assert_problem(503, "jobs_full");
    assert_eq!(full.header("retry-after"), "1");
    assert_eq!(host.get("/v1/jobs").await.body["jobs"].as_array().unwrap().len(), 2);
    host.doubles.gate.notify_one();
    let done = host.over(&path).await;
    assert_eq!(
        (&done["state"], &done["result"]["pipeline"]),
        (&json!("done"), &json!("eye")),
        "{done}"
    );
    assert!(done["expires"].as_str() > done["finished"].as_str(), "{done}");
    let second = host.over(second.header("location")).await;
    assert_eq!(second["results"][0]["detections"][0]["label"], "cat", "{second}");
    assert_eq!(second["results"][1]["error"]["code"], "damaged_image", "{second}");
    assert_eq!(host.send(&format!("DELETE {path}"), "", &[]).await.status, 204);
    host.get(&path).await.assert_problem(404, "unknown_job");
    host.send(&format!("DELETE {path}"), "", &[]).await.assert_problem(404, "unknown_job");
    let failed = host.analyze("?async=true", "image/jpeg", &jpeg("damaged")).await;
    let failed = host.over(failed.header("location")).await;
    assert_eq!(
        (&failed["state"], &failed["error"]["code"]),
        (&json!("failed"), &json!("damaged_image"))
    );
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_again_and_whoever_goes_away_makes_room() {
    let host =
        Host::start(AnalyzeConfig { workers: 1, queue: 1, ..AnalyzeConfig::default() }).await;
    let open = async |word: &str| {
        let picture = jpeg(word);
        let headers = format!("Content-Type: image/jpeg\r\nContent-Length: {}\r\n", picture.len());
        host.open("POST /v1/analyze/eye", &headers, &picture).await
    };
    let first = open("gate").await;
    host.taken(1).await;
    let waiting = open("waits").await;
    let becomes = async |count: usize| {
        within(async {
            while host.analyses.figures().load.waiting != count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    };
    becomes(1).await;
    let refused = host.analyze("", "image/jpeg", &jpeg("cat")).await;
    refused.assert_problem(503, "busy");
    assert_eq!(refused.header("retry-after"), "1");
    drop(waiting);
    becomes(0).await;
    host.doubles.gate.notify_one();
    assert_eq!(host.analyze("", "image/jpeg", &jpeg("cat")).await.status, 200);
    drop(first);
}

#[tokio::test]
async fn no_worker_no_analysis() {
    let host = Host::start(AnalyzeConfig { workers: 0, ..AnalyzeConfig::default() }).await;
    host.analyze("", "image/jpeg", &jpeg("cat")).await.assert_problem(403, "analysis_disabled");
}
