//! Deployments with a session that says what the test wants: no process, no compiler.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use ocelli_protocol::component::{CheckReport, Problem, ProblemKind};
use ocelli_protocol::digest::Digest;
use ocelli_protocol::worker::Description;
use ocelli_testkit::{FakeServer, OciRegistry};
use parking_lot::Mutex;
use serde_json::{Map, json};
use tokio::sync::watch;

use super::super::admission::MemoryBudget;
use super::super::components::ComponentStore;
use super::super::history::{self, History};
use super::super::pipelines::PipelineFolders;
use super::super::request::{Component, DeployRequest, MAX_WAITING};
use super::*;
use crate::config::source::Source as Camera;
use crate::config::{Config, OciReference};
use crate::event::Event;
use crate::journal::Journal;
use crate::registry::{Interfaces, Registry, RegistryAccess};
use crate::session::rollout::{Comparison, Swapped};
use crate::session::{CompiledPipeline, SessionHandle};

/// A host whose session hands each change to the test.
struct Fake {
    session: Mutex<Option<SessionHandle>>,
    swaps: mpsc::UnboundedSender<SwapRequest>,
    /// Bytes of memory that there are.
    available: u64,
    memory: MemoryBudget,
    events: watch::Sender<Vec<Event>>,
    /// Where the process stops and says so, for the test that kills it.
    hangs: Option<Step>,
}

impl Fake {
    async fn hang(&self, step: Step) {
        if self.hangs == Some(step) {
            println!("\nat {step}");
            std::future::pending::<()>().await;
        }
    }
}

impl DeployBackend for Fake {
    fn session(&self, _: &str) -> Option<SessionHandle> {
        self.session.lock().clone()
    }

    async fn prepare(
        &self,
        _: &str,
        pipeline: &str,
        source: ComponentSource,
    ) -> Result<PreparedComponent, CompileError> {
        self.hang(Step::Check).await;
        let mut bytes = Vec::new();
        source.open().unwrap().read_to_end(&mut bytes).unwrap();
        let (digest, size) = super::super::components::digest(bytes.as_slice()).unwrap();
        let mut report = CheckReport {
            version: None,
            supported: Vec::new(),
            signed_by: None,
            problems: Vec::new(),
            check_ms: 1,
            compile_ms: Some(20),
        };
        if bytes.starts_with(b"bad") {
            let message = "it is bad".to_owned();
            report.problems.push(Problem {
                kind: ProblemKind::NotWasm,
                item: None,
                found: None,
                expected: None,
                message,
            });
            return Err(CompileError::Refused {
                pipeline: pipeline.to_owned(),
                report: Box::new(report),
            });
        }
        let compiled = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
        Ok(PreparedComponent { digest, size, compiled, report, cached: false })
    }

    /// A component "nose, sent" or "old, sent" is that pipeline, any other the session's.
    async fn describe(
        &self,
        pipeline: &str,
        component: &PreparedComponent,
        _: &Config,
    ) -> anyhow::Result<Arc<Description>> {
        let is = |bytes: &str| component.digest == Digest::of(bytes).to_string();
        let names = ["nose", "old"].into_iter();
        let mut names = names.filter(|name| is(&format!("{name}, sent")));
        anyhow::ensure!(!is("mute"), "{pipeline} is mute");
        Ok(Arc::new(Description {
            name: names.next().unwrap_or("eye").into(),
            version: "1.0.0".into(),
            models: Vec::new(),
            settings_schema: String::new(),
        }))
    }

    async fn admit(&self, _: &str, reserve: u64) -> Result<Admission, AdmissionError> {
        self.hang(Step::Admit).await;
        self.memory.reserve(0, self.available, reserve)
    }

    async fn swap(&self, swap: SwapRequest) -> Result<(), SessionError> {
        self.hang(Step::Start).await;
        let session = SessionHandle::without_task(swap.spec.clone()).with_description("eye");
        *self.session.lock() = Some(session);
        self.swaps.send(swap).unwrap();
        Ok(())
    }

    async fn start(
        &self,
        spec: Spec,
        _: Option<SessionHandle>,
        _: Option<ProbationRequest>,
    ) -> Result<SessionHandle, SessionError> {
        Err(SessionError::Exists(spec.id))
    }

    fn publish(&self, _: &str, event: &Event) {
        self.events.send_modify(|events| events.push(event.clone()));
    }
}

struct Site {
    executor: Arc<Executor<Fake>>,
    swaps: mpsc::UnboundedReceiver<SwapRequest>,
    config: watch::Sender<Arc<Config>>,
    folder: tempfile::TempDir,
}

const PLENTY: u64 = 1 << 40;

impl Site {
    async fn new() -> Self {
        Self::with(PLENTY, Journal::temporary().unwrap(), None).await
    }

    async fn with(available: u64, journal: Journal, hangs: Option<Step>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (swaps, swapped) = mpsc::unbounded_channel();
        let spec = Spec {
            id: "cam".into(),
            source: Camera::parse("file:clip.mp4", None, None, false).unwrap(),
            substream: None,
            pipeline: CompiledPipeline::missing("eye", String::new()),
            settings: Map::new(),
            decode: Default::default(),
            decode_device: Default::default(),
            priority: Default::default(),
            redis_prefix: None,
            directories: Vec::new(),
        };
        let session = SessionHandle::without_task(spec).with_description("eye");
        let backend = Fake {
            session: Mutex::new(Some(session.clone())),
            swaps,
            available,
            memory: MemoryBudget::default(),
            events: watch::Sender::default(),
            hangs,
        };
        let mut config = Config::default();
        config.store.directory = folder.path().to_owned();
        let pipelines = PipelineFolders::new(&config);
        let config = watch::Sender::new(Arc::new(config));
        let components = ComponentStore::open(&folder.path().join("components")).unwrap();
        let history = History::new(journal);
        let state = DeployState::new(history, components, pipelines, config.subscribe());
        let executor = Arc::new(Executor::new(backend, state));
        executor.state.sessions.insert(&session, "eye", true, None);
        executor.on_cameras_started().await;
        Self { executor, swaps: swapped, config, folder }
    }

    /// Deploys without waiting for what becomes of it.
    fn deploy(&self, bytes: &'static str) -> tokio::task::JoinHandle<Result<Record, DeployError>> {
        self.deploy_from(Origin::Request(request(bytes)))
    }

    fn deploy_from(&self, origin: Origin) -> tokio::task::JoinHandle<Result<Record, DeployError>> {
        let executor = Arc::clone(&self.executor);
        tokio::spawn(async move { executor.deploy("cam", origin).await })
    }

    /// Deploys to the end that the session's reports bring.
    async fn deployed(&mut self, bytes: &'static str, reports: Vec<Report>) -> Record {
        self.deployed_from(Origin::Request(request(bytes)), reports).await
    }

    async fn deployed_from(&mut self, origin: Origin, reports: Vec<Report>) -> Record {
        let asked = self.deploy_from(origin);
        let swap = self.swaps.recv().await.unwrap();
        for report in reports {
            swap.reports.send(report).await.unwrap();
        }
        drop(swap);
        let number = asked.await.unwrap().unwrap().number;
        self.ended(number).await
    }

    async fn healthy(&mut self, bytes: &'static str) -> Record {
        self.deployed(bytes, vec![swapped(), Report::Healthy]).await
    }

    async fn record(&self, number: u64) -> Record {
        let records = self.executor.state.history.list("cam", usize::MAX).await.unwrap();
        history::find_number(&records, number).unwrap().clone()
    }

    /// The record once everything of the deployment is done with.
    async fn ended(&self, number: u64) -> Record {
        let last = |event: &Event| {
            event.data["number"] == number
                && !["pending", "probation"].contains(&event.data["state"].as_str().unwrap())
        };
        let mut events = self.executor.backend.events.subscribe();
        events.wait_for(|events| events.iter().any(last)).await.unwrap();
        self.record(number).await
    }

    fn running(&self) -> Option<u64> {
        self.executor.state.sessions.running("cam").map(|running| running.number)
    }
}

fn request(bytes: &'static str) -> DeployRequest {
    DeployRequest {
        session: "cam".into(),
        component: Component::Bytes {
            name: "new.wasm".into(),
            bytes: Bytes::from_static(bytes.as_bytes()),
        },
        settings: None,
        shadow: Shadow::default(),
        handover: None,
        by: "test".into(),
        trace: None,
    }
}

fn swapped() -> Report {
    Report::Swapped(Swapped { total_ms: 400.0, gap_ms: Some(40.0), ..Swapped::default() })
}

fn reason() -> String {
    "because".into()
}

#[tokio::test]
async fn a_reference_of_the_config_is_what_it_served_with_and_a_request_has_it_as_it_is_now() {
    let (mut site, mut registry) = (Site::new().await, OciRegistry::start());
    let tag = registry.reference("eye:1");
    let reference: OciReference = tag.parse().unwrap();
    let push = async |component: &'static str| {
        let registry = Registry::new(&reference, RegistryAccess::default()).unwrap();
        let component = Bytes::from_static(component.as_bytes());
        registry.push(component, &Interfaces::default()).await.unwrap();
    };
    let from_config = || Origin::Config { pipeline: tag.clone(), settings: Map::new() };
    let component = Component::Reference(reference.clone());
    let requested = || DeployRequest { component: component.clone(), ..request("") };
    push("one").await;
    let refused = site.deploy_from(Origin::Request(requested())).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), "registry_not_allowed", "{refused}");

    // Its host ended before it had served for its probation: what is stored does where the registry
    // is away, and what the tag means where it is not.
    let first = site.deployed_from(from_config(), vec![swapped()]).await;
    assert_eq!((first.size, first.served()), (3, false), "{first:?}");
    registry.kill();
    let again = site.deployed_from(from_config(), vec![swapped()]).await;
    assert_eq!(again.digest, first.digest);
    registry.run();
    push("three").await;
    let healthy = || vec![swapped(), Report::Healthy];
    let served = site.deployed_from(from_config(), healthy()).await;
    assert_eq!((served.size, served.pipeline.as_str()), (5, tag.as_str()));

    push("seven").await;
    assert_eq!(site.deployed_from(from_config(), healthy()).await.digest, served.digest);
    site.config.send_modify(|config| {
        let text = format!("[[deploy.registries]]\nhost = \"{}\"\n", reference.registry);
        let named = Config::from_text(Path::new("test.toml"), &text, &[]).unwrap().deploy;
        *config = Arc::new(Config { deploy: named, ..(**config).clone() });
    });
    let newest = site.deployed_from(Origin::Request(requested()), healthy()).await;
    assert_eq!(newest.digest, Digest::of("seven").to_string());
    assert_eq!(site.deployed_from(from_config(), healthy()).await.digest, newest.digest);
    registry.kill();
    let away = site.deploy_from(Origin::Request(requested())).await.unwrap().unwrap_err();
    assert_eq!(away.code(), "registry_failed", "{away}");
}

/// A registry that has too much to do at first.
#[tokio::test]
async fn a_fault_of_a_registry_that_may_pass_costs_another_attempt_and_no_other_does() {
    let site = Site::new().await;
    let digest = |of: &str| format!("sha256:{}", Digest::of(of));
    let layer = |media_type: &str, of: &str| json!({"mediaType": media_type, "digest": digest(of), "size": of.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": layer("application/vnd.wasm.config.v0+json", "{}"),
        "layers": [layer("application/wasm", "one")],
    })
    .to_string();
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let server = FakeServer::replying(move |request| {
        let mut count = count.lock();
        *count += 1;
        let (status, body) = match request {
            _ if *count == 1 => ("503 Busy", ""),
            request if request.starts_with("GET /v2/x/manifests/1 ") => ("200 OK", &*manifest),
            request if request.starts_with("GET /v2/x/blobs/") => ("200 OK", "one"),
            _ => ("404 Not Found", ""),
        };
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let server = server.await;
    let address = server.address;
    let pull = |name: &str| {
        let reference: OciReference = format!("oci://{address}/{name}").parse().unwrap();
        let executor = Arc::clone(&site.executor);
        async move { executor.state.pull(&reference).await }
    };
    let lease = pull("x:1").await.unwrap();
    assert_eq!((lease.digest.as_str(), *asked.lock()), (&*Digest::of("one").to_string(), 3));
    let unknown = pull("y:1").await.unwrap_err();
    assert_eq!((unknown.code(), *asked.lock()), ("unknown_pipeline", 4), "asked once");
}

#[tokio::test]
async fn settings_are_inherited_by_the_same_pipeline_and_not_by_another_one() {
    let mut site = Site::new().await;
    let pipelines = site.folder.path().join("pipelines");
    std::fs::create_dir_all(&pipelines).unwrap();
    for name in ["new", "nose", "old"] {
        std::fs::write(pipelines.join(format!("{name}.wasm")), name).unwrap();
    }
    let settings = Map::from_iter([("score".to_owned(), 0.5.into())]);
    let of_entry = Map::from_iter([("iou".to_owned(), 0.25.into())]);
    site.config.send_modify(|config| {
        let text = "[[cameras]]\nid = \"cam\"\nsource = \"file:a.mp4\"\npipeline = \"old\"\n\
             settings = { iou = 0.25 }\n";
        let edited = Config::from_text(Path::new("test.toml"), text, &[]).unwrap();
        let config = Arc::make_mut(config);
        config.cameras = edited.cameras;
    });
    let named = |name: &str| Component::Pipeline(name.into());
    for (component, given, expected, inherits) in [
        (request("one").component, Some(settings.clone()), settings.clone(), false),
        (request("two").component, None, settings.clone(), true),
        (request("mute").component, None, settings.clone(), true),
        (request("nose, sent").component, None, Map::new(), false),
        (request("old, sent").component, None, of_entry.clone(), false),
        (request("one").component, Some(settings.clone()), settings.clone(), false),
        (named("new"), None, settings.clone(), true),
        (named("nose"), None, Map::new(), false),
        (named("new"), Some(settings.clone()), settings.clone(), false),
        (named("old"), None, of_entry.clone(), false),
    ] {
        let words = format!("{component:?}");
        let request = DeployRequest { component, settings: given, ..request("") };
        let asked = site.deploy_from(Origin::Request(request));
        let swap = site.swaps.recv().await.unwrap();
        assert_eq!((&swap.spec.settings, swap.inherits_settings), (&expected, inherits), "{words}");
        swap.reports.send(swapped()).await.unwrap();
        swap.reports.send(Report::Healthy).await.unwrap();
        drop(swap);
        let record = asked.await.unwrap().unwrap();
        assert_eq!(record.settings, expected, "{words}");
        site.ended(record.number).await;
    }
}

#[tokio::test]
async fn every_end_of_a_change_is_an_outcome_and_the_session_runs_what_it_says() {
    use Outcome::*;
    let kept =
        |step| vec![Report::StepStarted(Step::Start), Report::Aborted { step, reason: reason() }];
    for (reports, outcome, step, runs) in [
        (kept(Step::Start), Aborted, Step::Start, 1),
        (kept(Step::Restore), Aborted, Step::Restore, 1),
        (vec![Report::StepStarted(Step::Shadow), Report::OnlyCompared], Compared, Step::Shadow, 1),
        (vec![swapped(), Report::Healthy], Healthy, Step::Probation, 2),
        (vec![swapped(), Report::Superseded], Superseded, Step::Probation, 2),
        (vec![swapped(), Report::Unverified { reason: reason() }], Unverified, Step::Probation, 2),
        (
            vec![swapped(), Report::RolledBack { reason: reason(), with_state: true }],
            RolledBack,
            Step::Probation,
            1,
        ),
        (
            vec![swapped(), Report::RolledBack { reason: reason(), with_state: false }],
            RolledBack,
            Step::Probation,
            1,
        ),
        // The session ends without a last word.
        (vec![Report::StepStarted(Step::CatchUp)], Interrupted, Step::CatchUp, 1),
        (vec![swapped()], Unverified, Step::Probation, 2),
    ] {
        let mut site = Site::new().await;
        site.healthy("one").await;
        let record = site.deployed("two", reports.clone()).await;
        assert_eq!((record.outcome(), record.step), (Some(outcome), step), "{reports:?}");
        assert_eq!(site.running(), Some(runs), "{reports:?}");
        assert!(record.ended.is_some() && record.before.is_some(), "{record:?}");
        let told = site.executor.backend.events.borrow().clone();
        let states: Vec<&str> =
            told.iter().map(|event| event.data["state"].as_str().unwrap()).collect();
        assert_eq!(states[..3], ["pending", "probation", "healthy"]);
        assert_eq!((states[3], states.last()), ("pending", Some(&outcome.name())));
        assert_eq!(
            site.executor.figures.lock().outcomes[&outcome],
            if outcome == Healthy { 2 } else { 1 }
        );
    }
}

#[tokio::test]
async fn an_answer_comes_when_the_new_version_speaks_and_the_probation_goes_on() {
    let mut site = Site::new().await;
    let mut asked = request("two");
    let shadow = Shadow { frames: 3, ..Shadow::default() };
    (asked.shadow, asked.settings) =
        (shadow, Some(Map::from_iter([("score".to_owned(), 0.5.into())])));
    let answered = site.deploy_from(Origin::Request(asked));
    let swap = site.swaps.recv().await.unwrap();
    assert_eq!((swap.shadow.frames, swap.spec.settings["score"].as_f64()), (3, Some(0.5)));
    let described = Report::Described { name: "eye".into(), version: "2.0.0".into() };
    let comparison = Comparison { frames: 3, ..Comparison::default() };
    for report in
        [described, Report::StepStarted(Step::Shadow), Report::Compared(comparison), swapped()]
    {
        swap.reports.send(report).await.unwrap();
    }
    let record = answered.await.unwrap().unwrap();
    assert_eq!((record.state, record.step), (DeploymentState::Probation, Step::Probation));
    assert!(record.probation_ends.as_ref().is_some_and(|ends| *ends > record.requested));
    assert_eq!(record.changed, ["settings.score"]);
    assert_eq!((record.name.as_deref(), record.version.as_deref()), (Some("eye"), Some("2.0.0")));
    assert_eq!(record.comparison.as_ref().map(|comparison| comparison.frames), Some(3));
    assert_eq!((record.compile_ms, record.cached, record.size), (Some(20), false, 3));
    assert_eq!(site.record(1).await, record, "as it is on the disk");
    swap.reports.send(Report::Healthy).await.unwrap();
    assert!(site.ended(1).await.healthy());
}

#[tokio::test]
async fn a_deployment_runs_to_its_end_without_its_caller() {
    let mut site = Site::new().await;
    let asked = site.deploy("two");
    let swap = site.swaps.recv().await.unwrap();
    asked.abort();
    for report in [swapped(), Report::Healthy] {
        swap.reports.send(report).await.unwrap();
    }
    assert!(site.ended(1).await.healthy());
}

#[tokio::test]
async fn what_is_refused_never_reaches_the_session() {
    let mut site = Site::new().await;
    let record = site.deploy("bad").await.unwrap().unwrap();
    assert_eq!((record.outcome(), record.step), (Some(Outcome::Refused), Step::Check));
    assert_eq!(record.check.unwrap().problems[0].kind, ProblemKind::NotWasm);
    assert!(record.reason.unwrap().contains("it is bad"));

    site.config.send_modify(|config| Arc::make_mut(config).deploy.max_component_mb = 0);
    let record = site.deploy("bad but too large to be kept").await.unwrap().unwrap();
    assert_eq!((record.outcome(), record.digest.as_str()), (Some(Outcome::Refused), ""));
    assert!(site.swaps.try_recv().is_err());

    let mut small = Site::with(300 << 20, Journal::temporary().unwrap(), None).await;
    let record = small.deploy("two").await.unwrap().unwrap();
    assert_eq!((record.outcome(), record.step), (Some(Outcome::Refused), Step::Admit));
    assert!(record.reason.unwrap().contains("64 MiB"));
    assert!(small.swaps.try_recv().is_err());

    *small.executor.backend.session.lock() = None;
    let error = small.deploy("two").await.unwrap().unwrap_err();
    assert_eq!(error.code(), "unknown_session");
    let shadow = Origin::Request(DeployRequest {
        shadow: Shadow { frames: MAX_SHADOW + 1, ..Shadow::default() },
        ..request("two")
    });
    let error = small.deploy_from(shadow).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "invalid_shadow");
}

#[tokio::test]
async fn the_next_deployment_begins_when_the_one_before_speaks() {
    let mut site = Site::new().await;
    let first = site.deploy("one");
    let swap = site.swaps.recv().await.unwrap();
    let waiting: Vec<_> = (0..MAX_WAITING).map(|_| site.deploy("two")).collect();
    // They take their places.
    tokio::task::yield_now().await;
    let refused = site.deploy("three").await.unwrap().unwrap_err();
    assert!(matches!(refused, DeployError::UnderWay { number: 1, .. }), "{refused}");
    drop(waiting);
    assert!(site.swaps.try_recv().is_err(), "one at a time");
    swap.reports.send(swapped()).await.unwrap();
    assert_eq!(first.await.unwrap().unwrap().number, 1);
    let next = site.swaps.recv().await.unwrap();
    assert_eq!(site.running(), Some(1));
    next.reports.send(swapped()).await.unwrap();
    swap.reports.send(Report::Superseded).await.unwrap();
    assert_eq!(
        site.record(2).await.before.as_deref(),
        Some(site.record(1).await.deployment.as_str())
    );
}

#[tokio::test]
async fn a_version_that_is_lost_late_does_not_take_the_place_of_the_one_after_it() {
    let mut site = Site::new().await;
    site.healthy("one").await;
    let second = site.deploy("two");
    let two = site.swaps.recv().await.unwrap();
    two.reports.send(swapped()).await.unwrap();
    second.await.unwrap().unwrap();
    let third = site.deploy("three");
    let three = site.swaps.recv().await.unwrap();
    three.reports.send(swapped()).await.unwrap();
    third.await.unwrap().unwrap();
    assert_eq!(site.running(), Some(3));
    two.reports.send(Report::RolledBack { reason: reason(), with_state: true }).await.unwrap();
    assert_eq!(site.ended(2).await.outcome(), Some(Outcome::RolledBack));
    assert_eq!(site.running(), Some(3));
    three.reports.send(Report::Healthy).await.unwrap();
    assert!(site.ended(3).await.healthy());
}

#[tokio::test]
async fn a_rollback_is_a_deployment_of_the_one_before_with_its_settings() {
    let mut site = Site::new().await;
    let back = |site: &Site| site.deploy_from(Origin::Rollback { by: "test".into() });
    let one = site.healthy("one").await;
    assert_eq!(back(&site).await.unwrap().unwrap_err().code(), "no_previous_version");
    let two = site.healthy("two").await;
    site.healthy("three").await;
    for (number, expected) in [(4, &two), (5, &one)] {
        let asked = back(&site);
        let swap = site.swaps.recv().await.unwrap();
        assert_eq!(swap.spec.pipeline.digest, expected.digest);
        for report in [swapped(), Report::Healthy] {
            swap.reports.send(report).await.unwrap();
        }
        let record = asked.await.unwrap().unwrap();
        assert_eq!((record.number, record.cause), (number, Cause::Rollback));
        assert_eq!((record.back_to, &record.pipeline), (Some(expected.number), &expected.pipeline));
        site.ended(number).await;
    }
    assert_eq!(back(&site).await.unwrap().unwrap_err().code(), "no_previous_version");
}

#[tokio::test]
async fn components_are_kept_for_what_runs_and_what_may_come_back_and_no_longer() {
    let mut site = Site::new().await;
    let one = site.healthy("one").await;
    let two = site.healthy("two").await;
    let has =
        |site: &Site, record: &Record| site.executor.state.components.contains(&record.digest);
    assert!(has(&site, &one) && has(&site, &two));
    let three =
        site.deployed("three", vec![Report::Aborted { step: Step::Start, reason: reason() }]).await;
    let refused = site.deploy("bad").await.unwrap().unwrap();
    assert!(has(&site, &one) && has(&site, &two) && !has(&site, &three) && !has(&site, &refused));
    for bytes in ["four", "five", "six"] {
        site.healthy(bytes).await;
    }
    assert!(has(&site, &one), "four rollbacks away");
    let seven = site.healthy("seven").await;
    assert!(!has(&site, &one) && has(&site, &two) && has(&site, &seven));
    site.executor.state.sessions.remove("cam");
    site.executor.on_cameras_started().await;
    assert!(!has(&site, &two) && !has(&site, &seven), "the camera is gone");
}

#[tokio::test]
async fn what_the_config_says_is_applied_unless_it_was_interrupted() {
    let mut site = Site::new().await;
    for (bytes, reports, applied) in [
        ("one", vec![swapped(), Report::Healthy], true),
        ("two", vec![swapped(), Report::RolledBack { reason: reason(), with_state: true }], true),
        ("three", vec![Report::StepStarted(Step::CatchUp)], false),
    ] {
        let file = site.folder.path().join("eye.wasm");
        std::fs::write(&file, bytes).unwrap();
        let (pipeline, settings) = (file.display().to_string(), Map::new());
        let asked = site.deploy_from(Origin::Config { pipeline, settings });
        let swap = site.swaps.recv().await.unwrap();
        for report in reports {
            swap.reports.send(report).await.unwrap();
        }
        drop(swap);
        let number = asked.await.unwrap().unwrap().number;
        let record = site.ended(number).await;
        let entry = site.executor.state.history.entry("cam").await.unwrap().unwrap();
        assert_eq!(entry.digest == record.digest, applied, "{bytes}");
    }
}

#[tokio::test]
async fn a_host_that_stops_blames_no_version_for_it() {
    let mut site = Site::new().await;
    let asked = site.deploy("two");
    let swap = site.swaps.recv().await.unwrap();
    swap.reports.send(swapped()).await.unwrap();
    asked.await.unwrap().unwrap();
    site.executor.stop();
    swap.reports.send(Report::Unverified { reason: "the session has ended".into() }).await.unwrap();
    assert_eq!(site.ended(1).await.outcome(), Some(Outcome::Interrupted));
    assert_eq!(site.deploy("three").await.unwrap().unwrap_err().code(), "stopping");
}

/// The journal's folder and the step for [`stops_at_a_step`].
const FOLDER: &str = "OCELLI_TEST_DEPLOY";
const STEP: &str = "OCELLI_TEST_STEP";

/// Every step with what has been reported when it has begun.
fn steps() -> Vec<(Step, Vec<Report>)> {
    let in_session = [
        Step::CatchUp,
        Step::DryRun,
        Step::Shadow,
        Step::Handoff,
        Step::Restore,
        Step::FirstResult,
    ];
    let mut steps: Vec<(Step, Vec<Report>)> = [Step::Check, Step::Admit, Step::Start]
        .into_iter()
        .map(|step| (step, Vec::new()))
        .collect();
    steps.extend(in_session.map(|step| (step, vec![Report::StepStarted(step)])));
    steps.push((Step::Probation, vec![swapped()]));
    steps
}

/// Not a test of its own: the host that the next one kills in the middle of a deployment.
#[tokio::test]
#[ignore = "run by another test"]
async fn stops_at_a_step() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let wanted = std::env::var(STEP).unwrap();
    let (step, reports) = steps().into_iter().find(|(step, _)| step.name() == wanted).unwrap();
    let journal = Journal::open(std::path::Path::new(&folder)).unwrap();
    let mut site = Site::with(PLENTY, journal.clone(), None).await;
    site.healthy("one").await;
    let mut site = Site::with(PLENTY, journal.clone(), Some(step)).await;
    let _asked = site.deploy("two");
    let swap = site.swaps.recv().await.unwrap();
    for report in reports {
        swap.reports.send(report).await.unwrap();
    }
    while site.record(2).await.step != step {
        tokio::task::yield_now().await;
    }
    journal.flush().await.unwrap();
    println!("\nat {step}");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_host_that_is_killed_leaves_a_history_that_says_at_which_step() {
    for (step, _) in steps() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = Command::new(std::env::current_exe().unwrap());
        host.args([
            "--exact",
            "deploy::execute::tests::stops_at_a_step",
            "--ignored",
            "--nocapture",
        ]);
        let host = host.env(FOLDER, folder.path()).env(STEP, step.name()).stdout(Stdio::piped());
        let mut host = host.spawn().unwrap();
        let mut lines = BufReader::new(host.stdout.take().unwrap()).lines().map_while(Result::ok);
        let at = lines.find_map(|line| line.strip_prefix("at ").map(str::to_owned));
        host.kill().unwrap();
        host.wait().unwrap();
        assert_eq!(at.as_deref(), Some(step.name()));

        let history = History::new(Journal::open(folder.path()).unwrap());
        assert_eq!(history.close_interrupted().await.unwrap().len(), 1, "{step}");
        let records = history.list("cam", 9).await.unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].outcome(), records[0].step), (Some(Outcome::Interrupted), step));
        assert!(records[0].reason.as_ref().unwrap().contains(step.name()));
        assert!(records[1].healthy());
        assert_eq!(history::last_healthy(&records).unwrap().number, 1);
    }
}
