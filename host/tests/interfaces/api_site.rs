//! Two hosts of a site, each a real server: whichever is asked, the one that has a session answers.

mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use ocelli::analyze::Analyses;
use ocelli::api::{
    Control, EngineStatus, MemberState, Refusal, Server, Site, SiteCamera, SiteHost, SiteStatus,
    Timing,
};
use ocelli::cluster::{CameraOwner, SiteToken, SiteTokenError, SiteTokenList};
use ocelli::config::{Config, Role, ServerConfig, Token, TokenHash};
use ocelli::event::{Hub, SessionState};
use ocelli::session::{EncodedPicture, PictureError};
use ocelli::source::{AccessUnit, PictureFeed, PictureFeedOwner, PictureTap};
use ocelli_cluster::member::CoordError;
use ocelli_protocol::digest::Digest;
use ocelli_protocol::worker::{
    CaptureClock, Codec, Orientation, PictureWish, RequestKind, UnitHeader,
};
use ocelli_testkit::http::{self, HttpResponse};
use ocelli_testkit::within;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use crate::support::Client;

/// A camera whose name has to be encoded in a path.
const GATE: &str = "display-001;gate/1 ü";

/// Its path.
const GATE_PATH: &str = "/v1/sessions/display-001;gate%2F1%20%C3%BC";

/// What both hosts believe of the site.
#[derive(Debug, Default)]
struct Believed {
    /// The host of each camera; `None`: it is between two.
    owners: BTreeMap<String, Option<String>>,
    addresses: BTreeMap<String, String>,
    wishes: Vec<String>,
    tokens: watch::Sender<SiteTokenList>,
    /// etcd does not answer.
    away: bool,
}

/// The site as one host sees it.
#[derive(Clone)]
struct Double {
    name: &'static str,
    believed: Arc<Mutex<Believed>>,
    sessions: Arc<Mutex<BTreeSet<String>>>,
    pictures: Arc<PictureFeedOwner>,
    analyses: Analyses,
}

impl Site for Double {
    fn host(&self) -> &str {
        self.name
    }

    fn owner(&self, camera: &str) -> CameraOwner {
        let believed = self.believed.lock();
        match believed.owners.get(camera) {
            None => CameraOwner::Unknown,
            Some(None) => CameraOwner::Nobody,
            Some(Some(host)) if host == self.name => CameraOwner::Here,
            Some(Some(host)) => match believed.addresses.get(host) {
                Some(address) => CameraOwner::At { host: host.clone(), address: address.clone() },
                None => CameraOwner::Nobody,
            },
        }
    }

    fn address(&self, host: &str) -> Option<String> {
        self.believed.lock().addresses.get(host).cloned()
    }

    fn status(&self) -> SiteStatus {
        let believed = self.believed.lock();
        let hosts = believed.addresses.iter().map(|(id, address)| SiteHost {
            id: id.clone(),
            address: address.clone(),
            version: "1".into(),
            capacity: 9,
            cameras: 0,
            labels: Vec::new(),
            networks: Vec::new(),
            draining: false,
            planner: false,
            here: id == self.name,
        });
        let cameras = believed.owners.iter().map(|(id, host)| SiteCamera {
            id: id.clone(),
            host: host.clone(),
            epoch: None,
            planned: None,
            pinned: None,
            labels: Vec::new(),
            networks: Vec::new(),
            unplaced: None,
            reason: None,
        });
        SiteStatus {
            site: "hall".into(),
            host: self.name.into(),
            state: MemberState::Member,
            reason: None,
            planner: None,
            plan: 1,
            etcd: EngineStatus::up(),
            nats: EngineStatus::down("no servers".into()),
            hosts: hosts.collect(),
            cameras: cameras.collect(),
        }
    }

    fn streams_of(&self, _: &str) -> (String, String) {
        ("rtsp://h/1".into(), "eye".into())
    }

    fn fault(&self, _: &str) -> Option<String> {
        None
    }

    fn authorities(&self) -> Option<PathBuf> {
        None
    }

    fn object(&self, digest: Digest) -> BoxFuture<'_, Option<Bytes>> {
        let kept = digest == Digest::of(PICTURE);
        Box::pin(async move { kept.then(|| Bytes::from_static(PICTURE)) })
    }

    fn set_draining<'a>(
        &'a self,
        host: &'a str,
        draining: bool,
    ) -> BoxFuture<'a, Result<(), CoordError>> {
        self.believed.lock().wishes.push(format!("drain {host} {draining}"));
        Box::pin(async { Ok(()) })
    }

    fn move_camera<'a>(
        &'a self,
        camera: &'a str,
        host: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, CoordError>> {
        let mut believed = self.believed.lock();
        believed.wishes.push(format!("move {camera} {host:?}"));
        let known = believed.owners.contains_key(camera);
        Box::pin(async move { Ok(known) })
    }

    fn tokens(&self) -> watch::Receiver<SiteTokenList> {
        self.believed.lock().tokens.subscribe()
    }

    fn make_token(&self, token: Token, by: String) -> BoxFuture<'_, Result<(), SiteTokenError>> {
        let made = "2026-11-30T12:00:00.000Z".into();
        let believed = self.believed.lock();
        let result = believed.reach().and_then(|()| {
            if believed.tokens.borrow().iter().any(|it| it.token.name == token.name) {
                return Err(SiteTokenError::Exists(token.name));
            }
            let token = SiteToken { token, by, made };
            believed.tokens.send_modify(|all| Arc::make_mut(all).push(token));
            Ok(())
        });
        Box::pin(async { result })
    }

    fn revoke_token<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, SiteTokenError>> {
        let believed = self.believed.lock();
        let result = believed.reach().map(|()| {
            believed.tokens.send_if_modified(|all| {
                let all = Arc::make_mut(all);
                let before = all.len();
                all.retain(|it| it.token.name != name);
                all.len() < before
            })
        });
        Box::pin(async { result })
    }
}

impl Believed {
    fn reach(&self) -> Result<(), SiteTokenError> {
        if self.away { Err(CoordError::Unavailable("no server".into()).into()) } else { Ok(()) }
    }
}

/// A picture of an event that the site keeps.
const PICTURE: &[u8] = &[0xff, 0xd8, 0xff, 0xe0];

impl Control for Double {
    type Status = Value;
    type Models = Value;

    fn site(&self) -> Option<Arc<dyn Site>> {
        // Named of a host that stands alone.
        (!self.name.is_empty()).then(|| Arc::new(self.clone()) as Arc<dyn Site>)
    }

    fn models(&self) -> Value {
        json!({})
    }

    fn sessions(&self) -> Vec<Value> {
        let session = |id: &String| json!({"id": id, "state": "running", "by": self.name});
        self.sessions.lock().iter().map(session).collect()
    }

    fn id(status: &Value) -> &str {
        status["id"].as_str().unwrap()
    }

    fn session(&self, id: &str) -> Option<Value> {
        self.sessions().into_iter().find(|session| session["id"] == id)
    }

    async fn picture(
        &self,
        _: &str,
        _: PictureWish,
    ) -> Option<Result<EncodedPicture, PictureError>> {
        let jpeg = Bytes::from_static(PICTURE);
        Some(Ok(EncodedPicture { frame: 7, presentation_ns: 5, jpeg }))
    }

    fn pictures(&self, id: &str) -> Option<PictureFeed> {
        self.session(id).map(|_| self.pictures.feed())
    }

    async fn ensure(
        &self,
        id: &str,
        _: &str,
        _: &str,
        _: Map<String, Value>,
    ) -> Result<(), Refusal> {
        Err(Refusal::unknown(id))
    }

    async fn ask(&self, id: &str, kind: RequestKind, request: Value) -> Result<Value, Refusal> {
        self.session(id).ok_or_else(|| Refusal::unknown(id))?;
        if request == json!("refuse") {
            return Err(Refusal { code: "no_queries", message: "it takes none".into() });
        }
        Ok(json!({"echo": request, "writes": kind == RequestKind::Command, "by": self.name}))
    }

    async fn restart(&self, id: &str) -> Result<(), Refusal> {
        self.session(id).map(drop).ok_or_else(|| Refusal::unknown(id))
    }

    async fn stop(&self, id: &str) -> Result<(), Refusal> {
        self.sessions.lock().remove(id).then_some(()).ok_or_else(|| Refusal::unknown(id))
    }

    fn analyses(&self) -> &Analyses {
        &self.analyses
    }

    async fn metrics(&self) -> String {
        "# EOF\n".into()
    }
}

no_deployments!(Double);
no_insight!(Double);
no_config!(Double);

struct Host {
    server: Server,
    hub: Hub,
    double: Double,
    config: watch::Sender<Arc<Config>>,
}

const TOKEN: &str = "ocelli_ann";

/// The admin's header.
const ANN: &str = "Authorization: Bearer ocelli_ann\r\n";

fn tokens(text: &str) -> ServerConfig {
    let hash = TokenHash::of(text);
    let token =
        Token { name: "ann".into(), hash, role: Role::Admin, sessions: None, expires: None };
    ServerConfig { tokens: vec![token], ..ServerConfig::default() }
}

impl Host {
    async fn start(
        name: &'static str,
        believed: &Arc<Mutex<Believed>>,
        server: ServerConfig,
    ) -> Self {
        let hub = Hub::new(crate::support::events());
        let analyses = Analyses::start(&Default::default(), Box::new(crate::support::NoPipelines));
        let believed = Arc::clone(believed);
        let (sessions, pictures) = (Arc::default(), Arc::default());
        let double = Double { name, believed, sessions, pictures, analyses };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (config, seen) = watch::channel(Arc::new(Config { server, ..Config::default() }));
        let (told, timing) = (hub.clone(), Timing::default());
        let server = Server::start(listener, told, double.clone(), timing, seen).unwrap();
        double.believed.lock().addresses.insert(name.into(), server.url());
        Self { server, hub, double, config }
    }

    /// Has a session from now on.
    fn has(&self, session: &str) {
        self.double.sessions.lock().insert(session.into());
        self.hub.publish_state(session, SessionState::Running, None);
        let owner = Some(self.double.name.to_owned());
        self.double.believed.lock().owners.insert(session.into(), owner);
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    async fn ask(&self, request: &str, headers: &str, body: &str) -> HttpResponse {
        let headers = format!("{headers}Content-Length: {}\r\n", body.len());
        let sent = http::request(self.address(), request, &headers, body.as_bytes());
        HttpResponse::read(&mut within(sent).await.unwrap()).await
    }

    async fn get(&self, path: &str) -> HttpResponse {
        self.ask(&format!("GET {path}"), ANN, "").await
    }
}

/// Host a, which has the gate, and host b, which has none; they have the same tokens.
async fn two() -> (Host, Host) {
    let believed = Arc::default();
    let below = ServerConfig { base_path: "/cams".parse().unwrap(), ..tokens(TOKEN) };
    let a = Host::start("a", &believed, below).await;
    let b = Host::start("b", &believed, tokens(TOKEN)).await;
    a.has(GATE);
    (a, b)
}

#[tokio::test]
async fn any_host_answers_in_the_words_of_the_one_that_has_the_session() {
    let (a, b) = two().await;
    let id = format!("{ANN}X-Request-Id: trace-7\r\n");
    let told = b.ask(&format!("GET {GATE_PATH}"), &id, "").await;
    assert_eq!((told.status, &told.body["by"]), (200, &json!("a")), "{told:?}");
    assert_eq!(told.header("x-request-id"), "trace-7");
    assert_eq!(told.head.matches("x-request-id").count(), 1, "{}", told.head);

    let asked = b.ask(&format!("POST {GATE_PATH}/query"), ANN, "{\"what\":1}").await;
    let answer = json!({"echo": {"what": 1}, "writes": false, "by": "a"});
    assert_eq!(asked.body, json!({"session": GATE, "answer": answer}));
    let refused = b.ask(&format!("POST {GATE_PATH}/query"), ANN, "\"refuse\"").await;
    refused.assert_problem(409, "no_queries");
    b.ask(&format!("POST {GATE_PATH}/query"), ANN, "{").await.assert_problem(400, "bad_json");
    let picture = b.get(&format!("{GATE_PATH}/frame.jpg?width=64")).await;
    assert_eq!((picture.status, picture.header("ocelli-frame")), (200, "7"));
    assert_eq!(picture.header("content-length"), "4");
    b.get(&format!("{GATE_PATH}/frame.jpg?width=1")).await.assert_problem(400, "bad_query");

    b.get("/v1/sessions/nobody").await.assert_problem(404, "unknown_session");
    assert_eq!(b.ask(&format!("DELETE {GATE_PATH}"), ANN, "").await.status, 204);
    assert!(a.double.sessions.lock().is_empty(), "host a has ended it");
    let gone = b.get(GATE_PATH).await;
    gone.assert_problem(503, "between_hosts");
    assert_eq!(gone.header("retry-after"), "1");
}

#[tokio::test]
async fn a_login_at_one_host_is_enough() {
    let (_a, b) = two().await;
    let login = json!({"token": TOKEN}).to_string();
    let text = format!(
        "POST /v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{login}",
        login.len()
    );
    let mut connection = tokio::net::TcpStream::connect(b.address()).await.unwrap();
    connection.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(connection.read_to_string(&mut answer)).await.unwrap();
    let (_, cookie) = answer.split_once("set-cookie: ").expect(&answer);
    let cookie = cookie.split_once(';').unwrap().0;
    let page = format!("Cookie: {cookie}\r\nX-Ocelli: 1\r\nSec-Fetch-Site: same-origin\r\n");
    let page = format!("{page}Origin: http://{}\r\n", b.address());
    let told = b.ask(&format!("GET {GATE_PATH}"), &page, "").await;
    assert_eq!((told.status, &told.body["by"]), (200, &json!("a")), "{told:?}");
    let restarted = b.ask(&format!("POST {GATE_PATH}/restart"), &page, "").await;
    assert_eq!(restarted.status, 202, "{restarted:?}");
    let cookie = Client::connect(b.address(), &[("cookie", cookie)]).await;
    answers_for_another(cookie).await;
}

/// A pipeline of another host answers a query and a command.
async fn answers_for_another(mut client: Client) {
    for (what, writes) in [("query", false), ("command", true)] {
        let ask = json!({"type": what, "session": GATE, "id": 1, what: {"a": 2}});
        let answer = client.ask(ask).await;
        let expected = json!({"echo": {"a": 2}, "writes": writes, "by": "a"});
        assert_eq!((&answer["type"], &answer["answer"]), (&json!("answer"), &expected), "{answer}");
    }
    let refused = client.ask(json!({"type": "query", "session": GATE, "query": "refuse"})).await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("no_queries")));
}

#[tokio::test]
async fn a_websocket_asks_the_host_that_has_the_session() {
    let (_a, b) = two().await;
    let bearer = format!("ocelli.v1, ocelli.bearer.{TOKEN}");
    let mut client = Client::connect(b.address(), &[("sec-websocket-protocol", &bearer)]).await;
    client.subscribe(GATE).await;
    answers_for_another(client).await;
    let mut client = Client::connect(b.address(), &[("authorization", "Bearer ocelli_ann")]).await;
    let unknown = client.ask(json!({"type": "query", "session": "nobody", "query": 1})).await;
    assert_eq!(unknown["code"], "unknown_session");
    b.double.believed.lock().owners.insert(GATE.into(), None);
    let between = client.ask(json!({"type": "query", "session": GATE, "query": 1})).await;
    assert_eq!(between["code"], "between_hosts");
    client.subscribe(GATE).await;
}

#[tokio::test]
async fn a_session_that_no_host_has_is_asked_for_again() {
    let (_a, b) = two().await;
    b.double.believed.lock().owners.insert(GATE.into(), None);
    let between = b.get(GATE_PATH).await;
    between.assert_problem(503, "between_hosts");
    assert_eq!(between.header("retry-after"), "1");
    assert_eq!(b.get(&format!("{GATE_PATH}/events")).await.body["events"], json!([]));
}

#[tokio::test]
async fn a_request_goes_on_once() {
    let (a, b) = two().await;
    // Each believes that the other one has it.
    let other = Arc::new(Mutex::new(Believed::default()));
    other.lock().addresses.insert("b".into(), b.server.url());
    other.lock().owners.insert(GATE.into(), Some("b".into()));
    let believes = Host::start("a", &other, tokens(TOKEN)).await;
    b.double.believed.lock().addresses.insert("a".into(), believes.server.url());
    let between = b.get(GATE_PATH).await;
    between.assert_problem(503, "between_hosts");
    let forwarded = format!("{ANN}Ocelli-Forwarded-By: b\r\n");
    let refused = believes.ask(&format!("GET {GATE_PATH}"), &forwarded, "").await;
    refused.assert_problem(421, "not_owner");
    let answered = a.ask(&format!("GET {GATE_PATH}"), &forwarded, "").await;
    assert_eq!(answered.status, 200);
}

#[tokio::test]
async fn an_owner_that_is_not_reached_is_named() {
    let (_a, b) = two().await;
    let address = |address: String| {
        b.double.believed.lock().addresses.insert("a".into(), address);
    };
    // Nothing listens on port 1 of a machine that runs tests.
    address("http://127.0.0.1:1".into());
    let refused = b.get(GATE_PATH).await;
    refused.assert_problem(502, "owner_unreachable");
    assert!(refused.text.contains("127.0.0.1:1"), "{refused:?}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    address(format!("http://{}", silent.local_addr().unwrap()));
    let asked = b.get(GATE_PATH);
    let dies = async {
        let accepted = silent.accept().await.unwrap();
        b.double.believed.lock().addresses.remove("a");
        accepted
    };
    let (late, _open) = tokio::join!(asked, dies);
    late.assert_problem(504, "owner_unreachable");
}

#[tokio::test]
async fn a_host_with_other_tokens_does_not_log_the_caller_out() {
    let believed = Arc::default();
    let a = Host::start("a", &believed, tokens("ocelli_other")).await;
    let b = Host::start("b", &believed, tokens(TOKEN)).await;
    a.has(GATE);
    b.get(GATE_PATH).await.assert_problem(502, "owner_refuses");
}

#[tokio::test]
async fn the_owner_hears_who_asks_and_nothing_of_the_page() {
    let (_a, b) = two().await;
    let owner = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/cams/", owner.local_addr().unwrap());
    b.double.believed.lock().addresses.insert("a".into(), address);
    let headers = format!(
        "{ANN}Cookie: ocelli=x\r\nX-Forwarded-For: 10.9.9.9\r\nTE: trailers\r\nRange: bytes=0-1\r\n"
    );
    let request = format!("GET {GATE_PATH}/stats?x=%20");
    let asked = b.ask(&request, &headers, "");
    let hears = async {
        let (mut connection, _) = owner.accept().await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let mut byte = [0];
            within(connection.read_exact(&mut byte)).await.unwrap();
            head.push(char::from(byte[0]));
        }
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5\r\n\
                      X-Own: 1\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        connection.write_all(answer.as_bytes()).await.unwrap();
        head.to_lowercase()
    };
    let (told, head) = tokio::join!(asked, hears);
    assert!(head.starts_with("get /cams/v1/sessions/display-001;gate%2f1%20%c3%bc/stats?x=%20 "));
    for line in [
        "authorization: bearer ocelli_ann\r\n",
        "ocelli-forwarded-by: b\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "range: bytes=0-1\r\n",
        "x-request-id: ",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    for word in ["cookie", "10.9.9.9", "te:"] {
        assert!(!head.contains(word), "{word}: {head}");
    }
    assert_eq!((told.status, told.header("x-own")), (200, "1"), "{told:?}");
    assert!(told.text.contains("hi") && !told.head.contains("keep-alive"), "{told:?}");
}

#[tokio::test]
async fn the_list_has_the_sessions_of_all_hosts_once() {
    let (a, b) = two().await;
    b.has("yard");
    let dead = "http://127.0.0.1:1".to_owned();
    b.double.believed.lock().addresses.insert("c".into(), dead);
    for (camera, host) in [("attic", Some("c".to_owned())), ("hall", None)] {
        b.double.believed.lock().owners.insert(camera.into(), host);
    }
    let told = b.get("/v1/sessions").await;
    let sessions: Vec<_> = told.body["sessions"].as_array().unwrap().iter().collect();
    let of = |key: &str| sessions.iter().map(|one| one[key].clone()).collect::<Vec<_>>();
    assert_eq!(Value::from(of("id")), json!(["attic", GATE, "hall", "yard"]));
    assert_eq!(Value::from(of("host")), json!(["c", "a", null, "b"]), "{told:?}");
    assert_eq!(of("by")[1], "a");
    assert_eq!((&of("source")[0], &of("state")[0]), (&json!("rtsp://h/1"), &json!("starting")));
    let why = of("reason")[0].as_str().unwrap().to_owned();
    assert!(why.contains("host c cannot be reached"), "{why}");
    let local = a.get("/v1/sessions?local=true").await;
    assert_eq!(local.body["sessions"].as_array().unwrap().len(), 1, "{local:?}");
}

#[tokio::test]
async fn a_picture_of_an_event_comes_from_the_site() {
    let (_a, b) = two().await;
    let kept = b.get(&format!("/v1/attachments/{}", Digest::of(PICTURE))).await;
    assert_eq!((kept.status, kept.header("content-type")), (200, "image/jpeg"));
    let gone = b.get(&format!("/v1/attachments/{}", Digest::of("other"))).await;
    gone.assert_problem(404, "unknown_attachment");
    b.get(&format!("/v1/events/{}/clip.mp4", "gate:1")).await.assert_problem(404, "unknown_event");
}

#[tokio::test]
async fn an_admin_sees_the_site_and_wishes_something_of_it() {
    let (_a, b) = two().await;
    let told = b.get("/v1/cluster").await.body;
    assert_eq!((&told["site"], &told["host"]), (&json!("hall"), &json!("b")));
    assert_eq!(told["nats"], json!({"state": "down", "reason": "no servers"}));
    assert_eq!(told["hosts"][0]["id"], "a");
    let drain = |host: &str| format!("POST /v1/cluster/hosts/{host}/drain");
    let drained = b.ask(&drain("a"), ANN, "{\"draining\":true}").await;
    assert_eq!(drained.body, json!({"id": "a", "draining": true}));
    b.ask(&drain("z"), ANN, "{\"draining\":true}").await.assert_problem(404, "unknown_host");
    let gone = b.ask(&drain("z"), ANN, "{\"draining\":false}").await;
    assert_eq!(gone.status, 200, "a wish of a host that is gone can be taken back");
    b.ask(&drain("a"), ANN, "{}").await.assert_problem(400, "bad_json");
    let path = GATE_PATH.replace("sessions", "cluster/cameras");
    let wish = |path: &str| format!("POST {path}/move");
    let moved = b.ask(&wish(&path), ANN, "{\"host\":\"b\"}").await;
    assert_eq!(moved.body, json!({"id": GATE, "host": "b"}));
    b.ask(&wish(&path), ANN, "{\"host\":null}").await;
    b.ask(&wish(&path), ANN, "{\"host\":\"z\"}").await.assert_problem(404, "unknown_host");
    let nobody = b.ask(&wish("/v1/cluster/cameras/nobody"), ANN, "{\"host\":null}").await;
    nobody.assert_problem(404, "unknown_camera");
    let wishes = b.double.believed.lock().wishes.clone();
    assert_eq!(wishes[..2], ["drain a true", "drain z false"]);
    assert_eq!(wishes[2..4], [format!("move {GATE} Some(\"b\")"), format!("move {GATE} None")]);
    let audit = b.get("/v1/audit").await.text;
    assert!(audit.contains("drain_host") && audit.contains("move_camera"), "{audit}");
}

#[tokio::test]
async fn a_host_that_stands_alone_has_no_site() {
    let alone = Host::start("", &Arc::default(), tokens(TOKEN)).await;
    alone.has("gate");
    alone.get("/v1/cluster").await.assert_problem(404, "no_cluster");
    alone.get("/v1/cluster/tokens").await.assert_problem(404, "no_cluster");
    let body = json!({"name": "wall", "role": "viewer"}).to_string();
    let made = alone.ask("POST /v1/cluster/tokens", ANN, &body).await;
    made.assert_problem(404, "no_cluster");
    let revoked = alone.ask("DELETE /v1/cluster/tokens/wall", ANN, "").await;
    revoked.assert_problem(404, "no_cluster");
    let told = alone.get("/v1/sessions").await.body;
    assert_eq!(told["sessions"][0], json!({"id": "gate", "state": "running", "by": ""}));
}

/// A key picture.
fn picture(number: u64) -> Arc<AccessUnit> {
    let header = UnitHeader {
        number,
        codec: Codec::H264,
        key: true,
        disposable: false,
        discontinuity: false,
        presentation_ns: Some(0),
        capture_ns: 1,
        capture_clock: CaptureClock::Camera,
        orientation: Orientation::Upright,
        hidden: false,
        received_ns: ocelli_protocol::clock::monotonic_ns(),
    };
    Arc::new(AccessUnit { header, data: Bytes::from_static(b"unit") })
}

/// The next picture of the client: its stream and its number.
async fn shown(client: &mut Client) -> (u32, u64) {
    loop {
        if let Message::Binary(bytes) = within(client.0.next()).await.unwrap().unwrap() {
            assert_eq!(&bytes[40..], b"unit");
            let stream = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
            return (stream, u64::from_be_bytes(bytes[8..16].try_into().unwrap()));
        }
    }
}

#[tokio::test]
async fn pictures_come_from_the_host_that_has_the_session_and_follow_it() {
    let (a, b) = two().await;
    let (there, here) = (PictureTap::default(), PictureTap::default());
    a.double.pictures.follow(there.clone());
    b.double.pictures.follow(here.clone());
    there.unit(&picture(1));
    let mut client = Client::connect(b.address(), &[("authorization", "Bearer ocelli_ann")]).await;
    let watch = json!({"type": "watch", "session": GATE, "pictures": "all"});
    let answer = client.ask(&watch).await;
    assert_eq!((&answer["type"], &answer["stream"]), (&json!("watching"), &json!(1)), "{answer}");
    assert_eq!(shown(&mut client).await, (1, 1));
    there.unit(&picture(2));
    assert_eq!(shown(&mut client).await, (1, 2));

    b.has(GATE);
    a.double.sessions.lock().clear();
    here.unit(&picture(40));
    let (stream, number) = shown(&mut client).await;
    assert_eq!(number, 40, "it is host b's own by now");
    assert_ne!(stream, 1, "a stream of its own");
    let ended = json!({"type": "watch", "session": GATE, "pictures": "none"});
    client.say(ended).await;
    loop {
        let told = client.next().await.unwrap();
        if told["pictures"] == "none" {
            assert_eq!(told["stream"], stream);
            break;
        }
    }
}
