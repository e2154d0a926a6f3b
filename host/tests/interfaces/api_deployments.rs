//! Deployments over HTTP and by the command line, against a real server with a double in place of
//! the deployer.

use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use ocelli::analyze::Analyses;
use ocelli::api::{DeploymentControl, Server, Timing};
use ocelli::config::AnalyzeConfig;
use ocelli::deploy::{
    Cause, CompileError, Component, DeployError, DeployRequest, DeploymentState, DescribedPipeline,
    NamedPipeline, Outcome, PipelineError, Record,
};
use ocelli::event::Hub;
use ocelli::session::rollout::{Shadow, StateHandover, Step, Swapped};
use ocelli::session::{SessionError, SessionSettings};
use ocelli_protocol::component::{CheckReport, Problem, ProblemKind};
use ocelli_testkit::http::{self, HttpResponse};
use ocelli_testkit::within;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// A session's name with all that has to be encoded in a path.
const NAME: &str = "display-001;cam/001 ü";

const MIB: usize = 1 << 20;

#[derive(Clone)]
struct Double {
    analyses: Analyses,
    /// What was asked for.
    asked: Arc<Mutex<Vec<String>>>,
    /// Deployments of the component "slow" are done once this is notified.
    gate: Arc<Notify>,
    /// Deployments that have come to their end.
    ended: watch::Sender<usize>,
}

no_sessions!(Double, analyses);
no_insight!(Double);
no_config!(Double);

/// A deployment of this many bytes that has come to a step.
fn record(step: Step, state: DeploymentState) -> Record {
    Record {
        number: 7,
        session: NAME.into(),
        deployment: "0a1b2c3d4e5f".into(),
        digest: "0a1b2c3d4e5f".repeat(5),
        size: 9,
        pipeline: "eye".into(),
        name: Some("eye".into()),
        version: Some("0.2.0".into()),
        settings: Map::new(),
        cause: Cause::Request,
        by: "operator".into(),
        shadow: 0,
        shadow_only: false,
        threshold: None,
        changed: Vec::new(),
        requested: "2026-01-01T00:00:00.000Z".into(),
        probation_ends: None,
        ended: None,
        before: Some("ffffffffffff".into()),
        back_to: None,
        step,
        state,
        reason: None,
        check: None,
        compile_ms: Some(183),
        cached: false,
        admitted: Some(1 << 28),
        comparison: None,
        trace: None,
        swapped: Some(Swapped { total_ms: 96.4, gap_ms: Some(38.0), ..Swapped::default() }),
    }
}

fn speaks() -> Record {
    record(Step::Probation, DeploymentState::Probation)
}

fn ended(step: Step, outcome: Outcome) -> Record {
    Record {
        reason: Some(format!("{step} failed")),
        swapped: None,
        ..record(step, DeploymentState::Ended(outcome))
    }
}

fn report() -> CheckReport {
    let problem = |item: &str| Problem {
        kind: ProblemKind::MismatchedExport,
        item: Some(item.into()),
        found: Some("func()".into()),
        expected: Some("func(state: list<u8>)".into()),
        message: format!("{item} differs"),
    };
    CheckReport {
        version: Some("0.1.0".into()),
        supported: vec!["0.1.0".into()],
        signed_by: None,
        problems: vec![problem("snapshot"), problem("restore")],
        check_ms: 1,
        compile_ms: None,
    }
}

fn unknown(session: &str) -> DeployError {
    SessionError::Unknown(session.to_owned()).into()
}

impl DeploymentControl for Double {
    fn config(&self) -> ocelli::deploy::ConfigStatus {
        Default::default()
    }

    fn component_bytes(&self) -> usize {
        MIB
    }

    async fn deploy(&self, order: DeployRequest) -> Result<Record, DeployError> {
        if order.session != NAME {
            return Err(unknown(&order.session));
        }
        self.asked.lock().push(format!("{order:?}"));
        let Component::Bytes { bytes, .. } = order.component else { return Ok(speaks()) };
        let record = match &*bytes {
            b"slow" => {
                self.gate.notified().await;
                speaks()
            }
            b"bad" => Record { check: Some(report()), ..ended(Step::Check, Outcome::Refused) },
            b"aborted" => ended(Step::DryRun, Outcome::Aborted),
            b"large" => ended(Step::Admit, Outcome::Refused),
            _ => speaks(),
        };
        self.ended.send_modify(|ended| *ended += 1);
        Ok(record)
    }

    async fn rollback(&self, session: &str, by: &str) -> Result<Record, DeployError> {
        if session != NAME {
            return Err(DeployError::NoPreviousVersion(session.into()));
        }
        Ok(Record { by: by.into(), ..speaks() })
    }

    async fn deployments(&self, session: &str, limit: usize) -> Result<Vec<Record>, DeployError> {
        if session != NAME {
            return Ok(Vec::new());
        }
        Ok(vec![speaks(); limit.min(50)])
    }

    fn settings(&self, session: &str) -> Option<SessionSettings> {
        let schema = json!({"properties": {"score": {"type": "number"}}});
        (session == NAME).then(|| SessionSettings {
            pipeline: "eye".into(),
            deployment: "0a1b2c3d4e5f".into(),
            settings: Map::from_iter([("score".to_owned(), json!(0.5))]),
            schema: Some(schema),
        })
    }

    async fn pipelines(&self) -> Result<Vec<NamedPipeline>, DeployError> {
        Ok(vec![named("eye", 3)])
    }

    async fn described(&self, name: &str) -> Result<DescribedPipeline, DeployError> {
        let (pipeline, reason) = (name.to_owned(), "it took too long".to_owned());
        match name {
            "eye" => Ok(DescribedPipeline {
                name: pipeline,
                digest: "0a".repeat(32),
                pipeline: "eye".into(),
                version: "1.0.0".into(),
                models: vec!["seer".into()],
                schema: json!({"properties": {"score": {"type": "number"}}}),
            }),
            "mute" => Err(DeployError::Undescribed { pipeline, reason }),
            _ => Err(PipelineError::Unknown { name: pipeline, looked: Vec::new() }.into()),
        }
    }

    async fn put_pipeline(
        &self,
        name: &str,
        component: Bytes,
        _: &str,
    ) -> Result<NamedPipeline, DeployError> {
        if *component == *b"bad" {
            let report = Box::new(report());
            return Err(CompileError::Refused { pipeline: name.into(), report }.into());
        }
        Ok(named(name, component.len() as u64))
    }
}

fn named(name: &str, size: u64) -> NamedPipeline {
    NamedPipeline {
        name: name.into(),
        file: format!("{name}.wasm").into(),
        size,
        digest: String::new(),
        sessions: Vec::new(),
    }
}

struct Host {
    server: Server,
    double: Double,
}

impl Host {
    async fn start() -> Self {
        let analyses =
            Analyses::start(&AnalyzeConfig::default(), Box::new(crate::support::NoPipelines));
        let double = Double {
            analyses,
            asked: Arc::default(),
            gate: Arc::default(),
            ended: watch::Sender::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(
            listener,
            Hub::new(crate::support::events()),
            double.clone(),
            Timing::default(),
            crate::support::defaults(),
        )
        .unwrap();
        Self { server, double }
    }

    async fn open(&self, request: &str, headers: &str, body: &[u8]) -> TcpStream {
        let headers = format!("{headers}Content-Length: {}\r\n", body.len());
        http::request(self.server.address(), request, &headers, body).await.unwrap()
    }

    /// Status and body.
    async fn send(&self, request: &str, headers: &str, body: &[u8]) -> (u16, Value) {
        let answer = HttpResponse::read(&mut self.open(request, headers, body).await).await;
        if answer.status >= 400 {
            assert!(answer.head.contains("application/problem+json"), "{answer:?}");
        }
        (answer.status, answer.body)
    }

    /// `query` begins with `?` or is empty.
    async fn put(&self, query: &str, body: &[u8]) -> (u16, Value) {
        self.send(&format!("PUT {}{query}", path("pipeline")), "User-Agent: curl/8 (x)\r\n", body)
            .await
    }

    /// Runs the command line with this host's address. Exit status, standard output, standard
    /// error.
    async fn ocelli(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli"));
        command.args(arguments).env("OCELLI_URL", format!("http://{}", self.server.address()));
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        let Output { status, stdout, stderr } = output.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }
}

/// Of the session [`NAME`].
fn path(what: &str) -> String {
    format!("/v1/sessions/display-001%3Bcam%2F001%20%C3%BC/{what}")
}

#[tokio::test]
async fn a_component_is_deployed_with_what_the_query_says() {
    let host = Host::start().await;
    let (status, answer) = host.put("", b"component").await;
    assert_eq!((status, &answer), (200, &json!(speaks())));
    let query = "?shadow=25&shadow_only=true&threshold=0.9&state=fresh&name=eye&settings=%7B%22score%22%3A0.5%7D";
    assert_eq!(host.put(query, b"component").await.0, 200);
    assert_eq!(host.put("?pipeline=eye&state=keep", b"").await.0, 200);
    let sent = |name: &str| Component::Bytes {
        name: name.into(),
        bytes: Bytes::from_static(b"component"),
    };
    let plain = DeployRequest {
        session: NAME.into(),
        component: sent("component"),
        settings: None,
        shadow: Shadow::default(),
        handover: None,
        by: "operator (curl)".into(),
        trace: None,
    };
    let full = DeployRequest {
        component: sent("eye"),
        settings: json!({"score": 0.5}).as_object().cloned(),
        shadow: Shadow { frames: 25, only: true, threshold: Some(0.9) },
        handover: Some(StateHandover::Fresh),
        ..plain.clone()
    };
    let named = DeployRequest {
        component: Component::Pipeline("eye".into()),
        handover: Some(StateHandover::Keep),
        ..plain.clone()
    };
    let asked = host.double.asked.lock();
    assert_eq!(*asked, [plain, full, named].map(|order| format!("{order:?}")));
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_anything_is_done() {
    let host = Host::start().await;
    let cases: [(&str, &[u8], &str); 12] = [
        ("", b"", "bad_request"),
        ("?pipeline=eye", b"component", "bad_request"),
        ("?pipeline=eye&name=nose", b"", "bad_request"),
        ("?name=eye", b"", "bad_request"),
        ("?shadow=15001", b"component", "bad_query"),
        ("?shadow=-1", b"component", "bad_query"),
        ("?shadow_only=true", b"component", "bad_query"),
        ("?threshold=0.5", b"component", "bad_query"),
        ("?shadow=5&threshold=1.5", b"component", "bad_query"),
        ("?state=maybe", b"component", "bad_query"),
        ("?shadows=1", b"component", "bad_query"),
        ("?settings=%5B%5D", b"component", "bad_settings"),
    ];
    for (query, body, code) in cases {
        let (status, answer) = host.put(query, body).await;
        assert_eq!((status, &answer["code"]), (400, &json!(code)), "{query}: {answer}");
    }
    let (status, answer) = host.put("", &vec![0; MIB + 1]).await;
    assert_eq!((status, &answer["code"]), (413, &json!("component_too_large")), "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("1 MiB"), "{answer}");
    // One that does not say how long it is.
    let chunk =
        [format!("{:x}\r\n", MIB + 1).as_bytes(), &vec![0; MIB + 1], b"\r\n0\r\n\r\n"].concat();
    let mut stream = TcpStream::connect(host.server.address()).await.unwrap();
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        path("pipeline")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let answer = async {
        let mut answer = [0; 12];
        read.read_exact(&mut answer).await.unwrap();
        answer
    };
    // The host may close the connection before it has read all.
    let (answer, _) = tokio::join!(answer, write.write_all(&chunk));
    assert_eq!(answer, *b"HTTP/1.1 413");
    assert!(host.double.asked.lock().is_empty());
}

#[tokio::test]
async fn a_refusal_tells_the_step_all_problems_and_the_deployment() {
    let host = Host::start().await;
    let (status, answer) = host.put("", b"bad").await;
    assert_eq!(
        (status, &answer["code"], &answer["step"]),
        (422, &json!("invalid_pipeline"), &json!("check"))
    );
    let problems = answer["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{answer}");
    for problem in problems {
        assert_eq!(problem["kind"], "mismatched_export", "{answer}");
        assert_eq!(problem["found"], "func()", "{answer}");
        assert_eq!(problem["expected"], "func(state: list<u8>)", "{answer}");
    }
    assert_eq!(answer["deployment"]["state"], "refused", "{answer}");
    let (status, answer) = host.put("", b"aborted").await;
    assert_eq!(
        (status, &answer["code"], &answer["step"]),
        (409, &json!("aborted"), &json!("dry_run"))
    );
    let (status, answer) = host.put("", b"large").await;
    assert_eq!((status, &answer["step"]), (507, &json!("admit")), "{answer}");
    let (status, answer) = host.send("PUT /v1/sessions/nobody/pipeline", "", b"component").await;
    assert_eq!((status, &answer["code"]), (404, &json!("unknown_session")), "{answer}");
}

#[tokio::test]
async fn a_client_that_goes_away_stops_no_deployment() {
    let host = Host::start().await;
    let mut ended = host.double.ended.subscribe();
    let client = host.open(&format!("PUT {}", path("pipeline")), "", b"slow").await;
    let asked = async {
        while host.double.asked.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    within(asked).await;
    drop(client);
    // Another one is answered meanwhile.
    assert_eq!(host.put("", b"component").await.0, 200);
    host.double.gate.notify_one();
    within(ended.wait_for(|ended| *ended == 2)).await.unwrap();
}

#[tokio::test]
async fn rollback_history_and_pipelines_have_their_paths() {
    let host = Host::start().await;
    let agent = "User-Agent: ocelli/1\r\n";
    let (status, answer) = host.send(&format!("POST {}", path("rollback")), agent, b"").await;
    assert_eq!((status, &answer["by"]), (200, &json!("operator (ocelli)")), "{answer}");
    let (status, answer) = host.send("POST /v1/sessions/new/rollback", agent, b"").await;
    assert_eq!((status, &answer["code"]), (409, &json!("no_previous_version")), "{answer}");

    let count = |answer: &Value| answer["deployments"].as_array().map(Vec::len);
    let (_, answer) = host.send(&format!("GET {}", path("deployments")), "", b"").await;
    assert_eq!(count(&answer), Some(20), "{answer}");
    let (_, answer) = host.send(&format!("GET {}?limit=3", path("deployments")), "", b"").await;
    assert_eq!(count(&answer), Some(3), "{answer}");
    let (status, answer) = host.send("GET /v1/sessions/nobody/deployments", "", b"").await;
    assert_eq!((status, &answer["code"]), (404, &json!("unknown_session")), "{answer}");
    for limit in ["0", "10001", "many"] {
        let (status, answer) =
            host.send(&format!("GET {}?limit={limit}", path("deployments")), "", b"").await;
        assert_eq!((status, &answer["code"]), (400, &json!("bad_query")), "{answer}");
    }

    let (_, answer) = host.send(&format!("GET {}", path("settings")), "", b"").await;
    assert_eq!(answer["settings"], json!({"score": 0.5}), "{answer}");
    assert_eq!(answer["schema"]["properties"]["score"]["type"], "number", "{answer}");
    let (status, answer) = host.send("GET /v1/sessions/nobody/settings", "", b"").await;
    assert_eq!((status, &answer["code"]), (404, &json!("unknown_session")), "{answer}");

    let (_, answer) = host.send("GET /v1/pipelines", "", b"").await;
    assert_eq!(answer["pipelines"][0]["name"], "eye", "{answer}");
    let (status, answer) = host.send("GET /v1/pipelines/eye/schema", "", b"").await;
    let score = &answer["schema"]["properties"]["score"];
    assert_eq!((status, &score["type"]), (200, &json!("number")), "{answer}");
    for (name, expected) in
        [("nobody", (404, "unknown_pipeline")), ("mute", (422, "invalid_pipeline"))]
    {
        let (status, answer) =
            host.send(&format!("GET /v1/pipelines/{name}/schema"), "", b"").await;
        assert_eq!((status, answer["code"].as_str().unwrap()), expected, "{answer}");
    }
    let (status, answer) = host.send("PUT /v1/pipelines/nose", agent, b"component").await;
    assert_eq!(
        (status, &answer["name"], &answer["size"]),
        (200, &json!("nose"), &json!(9)),
        "{answer}"
    );
    let (status, answer) = host.send("PUT /v1/pipelines/nose", agent, b"bad").await;
    assert_eq!((status, answer["problems"].as_array().map(Vec::len)), (422, Some(2)), "{answer}");
    let (status, answer) = host.send("PUT /v1/pipelines/nose", agent, b"").await;
    assert_eq!((status, &answer["code"]), (400, &json!("bad_request")), "{answer}");
}

#[tokio::test]
async fn the_command_line_says_what_became_of_it() {
    let host = Host::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (status, out, _) = host.ocelli(&["deploy", NAME, &file("eye.wasm", b"component")]).await;
    let said = "display-001;cam/001 ü: ffffffffffff -> 0a1b2c3d4e5f eye 0.2.0, compiled in 183 \
        ms, swapped in 96 ms, gap 38 ms\n";
    assert_eq!((status, out.as_str()), (0, said));
    let arguments = [
        "deploy",
        NAME,
        "eye",
        "--shadow",
        "5",
        "--shadow-only",
        "--threshold",
        "0.9",
        "--state",
        "fresh",
        "--settings",
        r#"{"a":"b&c"}"#,
        "--json",
    ];
    let (status, out, _) = host.ocelli(&arguments).await;
    assert_eq!((status, serde_json::from_str::<Value>(&out).unwrap()), (0, json!(speaks())));
    let asked = host.double.asked.lock().clone();
    assert!(
        asked[0].contains(r#"name: "eye""#) && asked[0].contains("operator (ocelli)"),
        "{asked:?}"
    );
    for part in
        ["frames: 5, only: true, threshold: Some(0.9)", "Some(Fresh)", r#"Pipeline("eye")"#, "b&c"]
    {
        assert!(asked[1].contains(part), "{part}: {}", asked[1]);
    }

    let (status, out, error) = host.ocelli(&["deploy", NAME, &file("bad.wasm", b"bad")]).await;
    assert_eq!((status, out.as_str()), (1, ""));
    for part in ["at step check", "snapshot differs", "restore differs", "func(state: list<u8>)"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let (status, out, _) =
        host.ocelli(&["deploy", NAME, &file("aborted.wasm", b"aborted"), "--json"]).await;
    assert_eq!(
        (status, &serde_json::from_str::<Value>(&out).unwrap()["step"]),
        (1, &json!("dry_run"))
    );
    let (status, _, error) =
        host.ocelli(&["deploy", NAME, &file("huge.wasm", &vec![0; MIB + 1])]).await;
    assert!(status == 1 && error.contains("1 MiB"), "{status}: {error}");
    let (status, _, error) = host.ocelli(&["deploy", NAME, "nowhere.wasm"]).await;
    assert!(status == 1 && error.contains("nowhere.wasm"), "{status}: {error}");
    let (status, _, error) = host.ocelli(&["deploy", "nobody", "eye"]).await;
    assert!(status == 1 && error.contains("there is no session"), "{status}: {error}");
    for wrong in [["--shadow", "many"], ["--state", "maybe"], ["--settings", "[]"]] {
        assert_eq!(
            host.ocelli(&["deploy", NAME, "eye", wrong[0], wrong[1]]).await.0,
            2,
            "{wrong:?}"
        );
    }

    let (status, out, _) = host.ocelli(&["rollback", NAME]).await;
    assert_eq!((status, out.as_str()), (0, said));
    let (status, _, error) = host.ocelli(&["rollback", "new"]).await;
    assert!(status == 1 && error.contains("nothing to go back to"), "{status}: {error}");
    let (status, out, _) = host.ocelli(&["deployments", NAME, "--limit", "2"]).await;
    assert_eq!((status, out.lines().count()), (0, 3), "{out}");
    assert!(out.contains("0a1b2c3d4e5f") && out.contains("probation"), "{out}");
}
