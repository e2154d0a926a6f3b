//! Who may do what: every route with every kind of caller, against a real server, and what happens
//! at the edges: tokens that go while they are used, guesses, floods, web pages of other origins.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ocelli::analyze::Analyses;
use ocelli::api::{Control, Refusal, Server, Timing};
use ocelli::config::{Config, Role, ServerConfig as Section, Token, TokenHash};
use ocelli::event::Hub;
use ocelli::session::{EncodedPicture, PictureError};
use ocelli::source::{PictureFeed, PictureFeedOwner};
use ocelli_protocol::worker::{PictureWish, RequestKind};
use ocelli_testkit::within;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

mod base_path;
mod insight;
mod logins;
mod request_ids;
mod sockets;
mod tokens;

/// Sessions a and b, and a config that is changed in memory.
#[derive(Clone)]
struct Double(Analyses, Arc<PictureFeedOwner>, watch::Sender<Arc<Config>>);

no_deployments!(Double);

impl Control for Double {
    type Status = Value;
    type Models = Value;

    fn models(&self) -> Value {
        json!({})
    }

    fn sessions(&self) -> Vec<Value> {
        vec![json!({"id": "a"}), json!({"id": "b"})]
    }

    fn id(status: &Value) -> &str {
        status["id"].as_str().unwrap()
    }

    fn session(&self, id: &str) -> Option<Value> {
        self.sessions().into_iter().find(|session| session["id"] == id)
    }

    async fn picture(
        &self,
        id: &str,
        _: PictureWish,
    ) -> Option<Result<EncodedPicture, PictureError>> {
        self.session(id).map(|_| Err(PictureError::None))
    }

    fn pictures(&self, id: &str) -> Option<PictureFeed> {
        self.session(id).map(|_| self.1.feed())
    }

    async fn ensure(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: Map<String, Value>,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    async fn ask(&self, id: &str, _: RequestKind, _: Value) -> Result<Value, Refusal> {
        self.session(id).ok_or_else(|| Refusal::unknown(id))
    }

    async fn restart(&self, id: &str) -> Result<(), Refusal> {
        self.session(id).map(drop).ok_or_else(|| Refusal::unknown(id))
    }

    async fn stop(&self, id: &str) -> Result<(), Refusal> {
        self.restart(id).await
    }

    fn analyses(&self) -> &Analyses {
        &self.0
    }

    async fn metrics(&self) -> String {
        "# EOF\n".into()
    }
}

/// Who asks, by the text of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Stranger,
    Expired,
    ViewerOfA,
    Viewer,
    Operator,
    Admin,
}

use Who::{Admin, Expired, Nobody, Operator, Stranger, Viewer, ViewerOfA};

const EVERYBODY: [Who; 7] = [Nobody, Stranger, Expired, ViewerOfA, Viewer, Operator, Admin];

impl Who {
    fn token(self) -> Option<Token> {
        let (role, sessions) = match self {
            Nobody | Stranger => return None,
            ViewerOfA => (Role::Viewer, Some(vec!["a".to_owned()])),
            Viewer => (Role::Viewer, None),
            Operator => (Role::Operator, None),
            Expired | Admin => (Role::Admin, None),
        };
        let expires = (self == Expired).then_some(jiff::Timestamp::UNIX_EPOCH);
        Some(Token {
            name: self.name(),
            hash: TokenHash::of(&self.text()),
            role,
            sessions,
            expires,
        })
    }

    fn name(self) -> String {
        format!("{self:?}")
    }

    fn text(self) -> String {
        format!("ocelli_{self:?}")
    }

    fn header(self) -> String {
        if self == Nobody {
            String::new()
        } else {
            format!("Authorization: Bearer {}\r\n", self.text())
        }
    }
}

/// What a request comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// 401.
    Unknown,
    /// 403.
    Forbidden,
    /// The session does not exist, or nobody says that it does.
    NoSession,
    /// The route has answered.
    Through,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn fate(&self) -> Fate {
        match self.status {
            401 => {
                assert!(self.head.contains("www-authenticate: bearer"), "{}", self.head);
                Fate::Unknown
            }
            403 => Fate::Forbidden,
            404 if self.body.contains("\"unknown_session\"") => Fate::NoSession,
            429 => panic!("limited: {}", self.body),
            _ => Fate::Through,
        }
    }

    fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }
}

struct Host {
    server: Server,
    config: watch::Sender<Arc<Config>>,
    /// Each guess comes from an address of its own: those of one address are slowed down.
    guesses: Mutex<u8>,
}

impl Host {
    /// With everybody's tokens.
    async fn start() -> Self {
        Self::with(Section { tokens: tokens(), ..Section::default() }).await
    }

    async fn with(server: Section) -> Self {
        let (config, seen) = watch::channel(Arc::new(Config { server, ..Config::default() }));
        let analyses = Analyses::start(&Default::default(), Box::new(crate::support::NoPipelines));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(
            listener,
            Hub::new(crate::support::events()),
            Double(analyses, Arc::default(), config.clone()),
            Timing::default(),
            seen,
        )
        .unwrap();
        Self { server, config, guesses: Mutex::new(1) }
    }

    fn edit(&self, edit: impl FnOnce(&mut Section)) {
        self.config.send_modify(|config| {
            let mut new = Config::clone(config);
            edit(&mut new.server);
            *config = Arc::new(new);
        });
    }

    async fn ask(&self, who: Who, request: &str) -> Answer {
        let from = match who {
            Nobody | Stranger | Expired => {
                let mut guesses = self.guesses.lock();
                *guesses += 1;
                Ipv4Addr::new(127, 0, 1, *guesses)
            }
            _ => Ipv4Addr::LOCALHOST,
        };
        self.send(from, request, &who.header()).await
    }

    /// `request` is method and path, `headers` are whole lines.
    async fn send(&self, from: Ipv4Addr, request: &str, headers: &str) -> Answer {
        let text = format!("{request} HTTP/1.1\r\nHost: {}\r\n{headers}", self.server.address());
        self.raw(from, &format!("{text}Content-Length: 0\r\nConnection: close\r\n\r\n")).await
    }

    async fn raw(&self, from: Ipv4Addr, text: &str) -> Answer {
        let answer = self.raw_text(from, text).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    async fn raw_text(&self, from: Ipv4Addr, text: &str) -> String {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let mut stream = within(socket.connect(self.server.address())).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A stream of events has no end, nor have pictures.
        let endless = |answer: &[u8]| {
            let text = String::from_utf8_lossy(answer);
            let endless = ["text/event-stream", "multipart/x-mixed-replace"];
            let head = text.split_once("\r\n\r\n").map(|(head, _)| head);
            head.is_some_and(|head| endless.iter().any(|kind| head.contains(kind)))
        };
        while within(stream.read_buf(&mut answer)).await.unwrap() > 0 && !endless(&answer) {}
        String::from_utf8(answer).unwrap()
    }
}

fn tokens() -> Vec<Token> {
    EVERYBODY.into_iter().filter_map(Who::token).collect()
}

/// Who gets to a route. `seen`: a viewer of a gets to it for a alone; it stands as `{id}` in the
/// path.
struct Rule {
    request: &'static str,
    who: &'static [Who],
    seen: bool,
}

const ALL: &[Who] = &EVERYBODY;
const LOOK: &[Who] = &[ViewerOfA, Viewer, Operator, Admin];
const LOOK_AT_ALL: &[Who] = &[Viewer, Operator, Admin];
const OPERATE: &[Who] = &[Operator, Admin];
const ADMINISTER: &[Who] = &[Admin];

const RULES: &[Rule] = &[
    Rule { request: "GET /healthz", who: ALL, seen: false },
    Rule { request: "GET /readyz", who: ALL, seen: false },
    Rule { request: "GET /metrics", who: LOOK_AT_ALL, seen: false },
    Rule { request: "GET /openapi.json", who: LOOK, seen: false },
    Rule { request: "GET /asyncapi.json", who: LOOK, seen: false },
    Rule { request: "POST /v1/login", who: ALL, seen: false },
    Rule { request: "POST /v1/logout", who: LOOK, seen: false },
    Rule { request: "GET /v1/me", who: LOOK, seen: false },
    Rule { request: "GET /v1/audit", who: ADMINISTER, seen: false },
    Rule { request: "GET /v1/tokens", who: ADMINISTER, seen: false },
    Rule { request: "POST /v1/tokens", who: ADMINISTER, seen: false },
    Rule { request: "DELETE /v1/tokens/{name}", who: ADMINISTER, seen: false },
    Rule { request: "GET /v1/config", who: OPERATE, seen: false },
    Rule { request: "POST /v1/config/reload", who: OPERATE, seen: false },
    Rule { request: "GET /v1/config/cameras/{id}", who: OPERATE, seen: false },
    Rule { request: "PUT /v1/config/cameras/{id}", who: ADMINISTER, seen: false },
    Rule { request: "DELETE /v1/config/cameras/{id}", who: ADMINISTER, seen: false },
    Rule { request: "POST /v1/backup", who: ADMINISTER, seen: false },
    Rule { request: "GET /v1/cluster", who: OPERATE, seen: false },
    Rule { request: "POST /v1/cluster/hosts/{id}/drain", who: ADMINISTER, seen: false },
    Rule { request: "POST /v1/cluster/cameras/{id}/move", who: ADMINISTER, seen: false },
    Rule { request: "GET /v1/cluster/tokens", who: ADMINISTER, seen: false },
    Rule { request: "POST /v1/cluster/tokens", who: ADMINISTER, seen: false },
    Rule { request: "DELETE /v1/cluster/tokens/{name}", who: ADMINISTER, seen: false },
    Rule { request: "GET /v1/cluster/rollouts", who: OPERATE, seen: false },
    Rule { request: "POST /v1/cluster/rollouts", who: OPERATE, seen: false },
    Rule { request: "GET /v1/cluster/rollouts/{id}", who: OPERATE, seen: false },
    Rule { request: "POST /v1/cluster/rollouts/{id}/stop", who: OPERATE, seen: false },
    Rule { request: "GET /v1/system", who: OPERATE, seen: false },
    Rule { request: "GET /v1/sessions", who: LOOK, seen: false },
    Rule { request: "GET /v1/sessions/{id}", who: LOOK, seen: true },
    Rule { request: "GET /v1/sessions/{id}/stats", who: LOOK, seen: true },
    Rule { request: "GET /v1/sessions/{id}/log", who: OPERATE, seen: true },
    Rule { request: "DELETE /v1/sessions/{id}", who: OPERATE, seen: true },
    Rule { request: "POST /v1/sessions/{id}/restart", who: OPERATE, seen: true },
    Rule { request: "POST /v1/sessions/{id}/query", who: LOOK, seen: true },
    Rule { request: "POST /v1/sessions/{id}/command", who: OPERATE, seen: true },
    Rule { request: "PUT /v1/sessions/{id}/pipeline", who: OPERATE, seen: true },
    Rule { request: "POST /v1/sessions/{id}/rollback", who: OPERATE, seen: true },
    Rule { request: "GET /v1/sessions/{id}/deployments", who: LOOK, seen: true },
    Rule { request: "GET /v1/sessions/{id}/settings", who: LOOK, seen: true },
    Rule { request: "GET /v1/sessions/{id}/stream", who: LOOK, seen: true },
    Rule { request: "GET /v1/events", who: LOOK, seen: false },
    Rule { request: "GET /v1/events/{id}/clip.mp4", who: LOOK, seen: false },
    Rule { request: "GET /v1/stream", who: LOOK, seen: false },
    Rule { request: "GET /v1/sessions/{id}/events", who: LOOK, seen: true },
    Rule { request: "GET /v1/sessions/{id}/frame.jpg", who: LOOK, seen: true },
    Rule { request: "GET /v1/sessions/{id}/mjpeg", who: LOOK, seen: true },
    Rule { request: "GET /v1/attachments/{digest}", who: LOOK, seen: false },
    Rule { request: "POST /v1/probe", who: OPERATE, seen: false },
    Rule { request: "POST /v1/discover", who: OPERATE, seen: false },
    Rule { request: "GET /v1/pipelines", who: LOOK, seen: false },
    Rule { request: "GET /v1/pipelines/{name}/schema", who: OPERATE, seen: false },
    Rule { request: "PUT /v1/pipelines/{name}", who: ADMINISTER, seen: false },
    Rule { request: "GET /v1/models", who: LOOK, seen: false },
    Rule { request: "POST /v1/analyze/{pipeline}", who: OPERATE, seen: false },
    Rule { request: "GET /v1/jobs", who: OPERATE, seen: false },
    Rule { request: "GET /v1/jobs/{id}", who: OPERATE, seen: false },
    Rule { request: "DELETE /v1/jobs/{id}", who: OPERATE, seen: false },
    Rule { request: "GET /v1/ws", who: LOOK, seen: false },
];

#[tokio::test]
async fn every_route_lets_in_whom_it_is_for_and_nobody_else() {
    let host = Host::start().await;
    let routes: BTreeSet<String> =
        host.server.routes().iter().map(|(method, path)| format!("{method} {path}")).collect();
    let rules: BTreeSet<String> = RULES.iter().map(|rule| rule.request.to_owned()).collect();
    assert_eq!(routes, rules, "every route has a rule here");
    for Rule { request, who, seen } in RULES {
        let sessions: &[&str] = if *seen { &["a", "b"] } else { &["x"] };
        for session in sessions {
            let asked =
                request.replace("{id}", session).replace("{name}", "x").replace("{pipeline}", "x");
            for caller in EVERYBODY {
                let fate = host.ask(caller, &asked).await.fate();
                if caller.token().is_some() && caller != Expired {
                    let by_cookie = host.ask_by_cookie(caller, &asked).await.fate();
                    assert_eq!(by_cookie, fate, "{caller:?} by cookie: {asked}");
                }
                let expected = match caller {
                    _ if *who == ALL => Fate::Through,
                    Nobody | Stranger | Expired => Fate::Unknown,
                    ViewerOfA if *seen && *session == "b" => Fate::NoSession,
                    _ if who.contains(&caller) => Fate::Through,
                    _ => Fate::Forbidden,
                };
                assert_eq!(fate, expected, "{caller:?}: {asked}");
            }
        }
    }
}

#[tokio::test]
async fn a_session_that_is_not_seen_is_as_one_that_does_not_exist_to_the_byte() {
    let host = Host::start().await;
    for Rule { request, .. } in RULES.iter().filter(|rule| rule.seen) {
        let [unseen, nonexistent] = ["b", "c"].map(|id| request.replace("{id}", id));
        let headers = format!("{}X-Request-Id: same\r\n", ViewerOfA.header());
        let ask = async |request: &str| host.send(Ipv4Addr::LOCALHOST, request, &headers).await;
        let (unseen, nonexistent) = (ask(&unseen).await, ask(&nonexistent).await);
        let date =
            |head: &str| head.lines().filter(|line| !line.starts_with("date:")).collect::<String>();
        assert_eq!(unseen.body.replace("\\\"b\\\"", "\\\"c\\\""), nonexistent.body, "{request}");
        assert_eq!(date(&unseen.head), date(&nonexistent.head), "{request}");
    }
    // However the name is written.
    for path in ["/v1/sessions/%62", "/v1/sessions/a%2f..%2fb", "/v1/sessions/a%20"] {
        assert_eq!(
            host.ask(ViewerOfA, &format!("GET {path}")).await.fate(),
            Fate::NoSession,
            "{path}"
        );
    }
    assert_eq!(host.ask(ViewerOfA, "GET /v1/sessions/%61").await.status, 200);
    assert_eq!(host.ask(ViewerOfA, "HEAD /v1/sessions/b").await.status, 404);
}

#[tokio::test]
async fn lists_show_what_the_caller_sees() {
    let host = Host::start().await;
    let sessions =
        |answer: Answer| serde_json::from_str::<Value>(&answer.body).unwrap()["sessions"].clone();
    assert_eq!(sessions(host.ask(ViewerOfA, "GET /v1/sessions").await), json!([{"id": "a"}]));
    assert_eq!(sessions(host.ask(Viewer, "GET /v1/sessions").await).as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_in_no_table_is_not_told_to_strangers() {
    let host = Host::start().await;
    for request in [
        "POST /",
        "GET /v1/nothing",
        "GET /v1/sessions/",
        "PATCH /v1/sessions/a",
        "TRACE /v1/sessions",
    ] {
        assert_eq!(host.ask(Stranger, request).await.fate(), Fate::Unknown, "{request}");
        let code = host.ask(ViewerOfA, request).await.code();
        assert!(["unknown_path", "wrong_method"].contains(&code.as_str()), "{request}: {code}");
    }
}

#[tokio::test]
async fn the_dashboards_page_needs_no_right_but_no_foreign_page_gets_it() {
    let host = Host::start().await;
    for caller in EVERYBODY {
        for path in ["/", "/login", "/cameras/a"] {
            let answer = host.ask(caller, &format!("GET {path}")).await;
            let expected = answer.status == 200 || answer.code() == "no_dashboard";
            assert!(expected, "{caller:?} {path}: {} {}", answer.status, answer.body);
        }
    }
    let foreign = "Origin: https://evil.example\r\n";
    let answer = host.send(Ipv4Addr::LOCALHOST, "GET /", foreign).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "foreign_origin"));
}

#[tokio::test]
async fn who_has_no_right_is_told_which() {
    let host = Host::start().await;
    let answer = host.ask(ViewerOfA, "POST /v1/sessions/a/restart").await;
    assert_eq!(answer.code(), "forbidden");
    assert!(answer.body.contains("operate"), "{}", answer.body);
    let answer = host.ask(ViewerOfA, "GET /metrics").await;
    assert!(answer.body.contains("sees all sessions"), "{}", answer.body);
}

#[tokio::test]
async fn tokens_are_taken_over_while_the_host_runs() {
    let host = Host::start().await;
    assert_eq!(host.ask(Viewer, "GET /v1/sessions").await.status, 200);
    host.edit(|server| server.tokens.retain(|token| token.name != Viewer.name()));
    // A token that is refused counts as a guess: each time from another address.
    let gone = async {
        let mut last = 1;
        while host
            .send(Ipv4Addr::new(127, 0, 2, last), "GET /v1/sessions", &Viewer.header())
            .await
            .status
            != 401
        {
            last += 1;
        }
    };
    within(gone).await;
    assert_eq!(host.ask(Operator, "GET /v1/sessions").await.status, 200, "others stay");
    // A host without tokens lets in whoever reaches its loopback address.
    host.edit(|server| server.tokens.clear());
    let open = async {
        let mut last = 1;
        while host.send(Ipv4Addr::new(127, 0, 3, last), "GET /v1/sessions", "").await.status != 200
        {
            last += 1;
        }
    };
    within(open).await;
}

#[tokio::test]
async fn guesses_of_one_address_are_slowed_down_and_shut_nobody_out() {
    let host = Host::start().await;
    let (guesser, other) = (Ipv4Addr::new(127, 0, 4, 1), Ipv4Addr::new(127, 0, 4, 2));
    let wrong = Stranger.header();
    for _ in 0..10 {
        assert_eq!(host.send(guesser, "GET /v1/sessions", &wrong).await.status, 401);
    }
    let answer = host.send(guesser, "GET /v1/sessions", &wrong).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
    let wait = answer.head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    assert!((1..=6).contains(&wait.parse::<u32>().unwrap()), "{wait}");
    assert_eq!(
        host.send(guesser, "GET /v1/sessions", &Viewer.header()).await.status,
        200,
        "a good token is good"
    );
    assert_eq!(
        host.send(other, "GET /v1/sessions", &wrong).await.status,
        401,
        "others have guesses of their own"
    );
}

#[tokio::test]
async fn a_caller_that_asks_too_often_waits_and_others_do_not() {
    let host =
        Host::with(Section { tokens: tokens(), requests_per_second: 1, ..Section::default() })
            .await;
    let mut passed = 0;
    let limited = loop {
        let answer = host.ask(Viewer, "GET /v1/sessions").await;
        if answer.status == 429 {
            break answer;
        }
        passed += 1;
        assert!(passed < 1000, "the limit holds");
    };
    assert!(passed >= 20, "{passed}");
    assert_eq!(limited.code(), "rate_limited");
    assert!(limited.head.contains("retry-after: 1"), "{}", limited.head);
    assert_eq!(host.ask(Operator, "GET /v1/sessions").await.status, 200);
    assert_eq!(
        host.ask(Viewer, "GET /healthz").await.status,
        200,
        "whoever watches the process is never limited"
    );
}

#[tokio::test]
async fn pages_of_named_origins_may_ask_and_read_the_answer_and_no_others() {
    let server = Section {
        tokens: tokens(),
        origins: vec!["https://dash.example".parse().unwrap()],
        ..Section::default()
    };
    let host = Host::with(server).await;
    let send =
        async |request: &str, headers: &str| host.send(Ipv4Addr::LOCALHOST, request, headers).await;
    let dash = "Origin: https://dash.example\r\n";
    let preflight =
        send("OPTIONS /v1/sessions", &format!("{dash}Access-Control-Request-Method: GET\r\n"))
            .await;
    assert_eq!(preflight.status, 204, "a browser asks without the token");
    for line in [
        "access-control-allow-origin: https://dash.example",
        "access-control-allow-headers: authorization",
        "vary: origin",
    ] {
        assert!(preflight.head.contains(line), "{line}: {}", preflight.head);
    }
    for who in [Viewer, Stranger] {
        let answer = send("GET /v1/sessions", &format!("{dash}{}", who.header())).await;
        assert!(
            answer.head.contains("access-control-allow-origin: https://dash.example"),
            "{}",
            answer.head
        );
        assert_eq!(answer.fate() == Fate::Through, who == Viewer);
    }
    for origin in ["https://evil.example", "null"] {
        for request in ["GET /v1/sessions", "OPTIONS /v1/sessions", "GET /healthz"] {
            let answer = send(request, &format!("Origin: {origin}\r\n{}", Admin.header())).await;
            assert_eq!((answer.status, answer.code().as_str()), (403, "foreign_origin"));
            assert!(!answer.head.contains("access-control"), "{}", answer.head);
        }
    }
}

#[tokio::test]
async fn without_tokens_a_name_that_resolves_to_this_machine_does_not_open_it_to_web_pages() {
    let host = Host::with(Section { hosts: vec!["cams.local".into()], ..Section::default() }).await;
    let ask = async |name: &str| {
        let text = format!(
            "GET /v1/sessions HTTP/1.1\r\nHost: {name}\r\nOrigin: http://{name}\r\nConnection: \
                close\r\n\r\n"
        );
        host.raw(Ipv4Addr::LOCALHOST, &text).await
    };
    assert_eq!(ask("localhost:8001").await.status, 200);
    assert_eq!(ask("cams.local").await.status, 200);
    let answer = ask("evil.example:8001").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "foreign_host"));
    // With tokens a page has none to show.
    host.edit(|server| server.tokens = tokens());
    within(async { while ask("evil.example").await.status == 403 {} }).await;
}

/// A connection of this address that has sent `text`.
async fn connection(host: &Host, from: Ipv4Addr, text: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let mut stream = within(socket.connect(host.server.address())).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// A request of a caller on a connection that stays open.
async fn ask_on(stream: &mut TcpStream) -> String {
    let text = format!("HEAD /v1/sessions HTTP/1.1\r\nHost: localhost\r\n{}\r\n", Viewer.header());
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") && within(stream.read_buf(&mut answer)).await.unwrap() > 0
    {
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn connections_of_one_address_have_a_bound_and_free_their_places() {
    let server = Section { max_connections_per_address: 2, tokens: tokens(), ..Section::default() };
    let host = Host::with(server).await;
    let connect = async || connection(&host, Ipv4Addr::LOCALHOST, "").await;
    let (mut one, mut two) = (connect().await, connect().await);
    assert!(ask_on(&mut one).await.starts_with("HTTP/1.1 200"));
    assert!(ask_on(&mut two).await.starts_with("HTTP/1.1 200"));
    assert!(ask_on(&mut two).await.starts_with("HTTP/1.1 200"), "it has its place already");
    let third = host.ask(Viewer, "GET /v1/sessions").await;
    assert_eq!((third.status, third.code().as_str()), (503, "too_many_connections"));
    assert!(third.head.contains("connection: close") && third.head.contains("retry-after"));
    assert_eq!(host.send(Ipv4Addr::LOCALHOST, "GET /healthz", "").await.status, 200);
    let elsewhere = Ipv4Addr::new(127, 0, 5, 1);
    assert_eq!(host.send(elsewhere, "GET /v1/sessions", &Viewer.header()).await.status, 200);
    drop(one);
    within(async { while host.ask(Viewer, "GET /v1/sessions").await.status != 200 {} }).await;
}

#[tokio::test]
async fn connections_that_ask_nothing_or_slowly_keep_no_caller_out() {
    let server = Section { max_connections: 10, tokens: tokens(), ..Section::default() };
    let host = Host::with(server).await;
    let (here, there) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 5, 1));
    let mut caller = connection(&host, there, "").await;
    assert!(ask_on(&mut caller).await.starts_with("HTTP/1.1 200"));
    let mut new = connection(&host, there, "").await;
    let mut flood = Vec::new();
    for number in 0..600 {
        // Some say nothing, some begin a request, some guess a token.
        let text = ["", "GET /v1/sess", "GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\n\r\n"];
        flood.push(connection(&host, here, text[number % 3]).await);
    }
    // The first of them are closed, and neither the caller nor who is new.
    within(async { while !matches!(flood[0].read(&mut [0; 512]).await, Ok(0) | Err(_)) {} }).await;
    assert!(ask_on(&mut caller).await.starts_with("HTTP/1.1 200"));
    assert!(ask_on(&mut new).await.starts_with("HTTP/1.1 200"));
    // Also from where the flood comes.
    assert_eq!(host.ask(Viewer, "GET /v1/sessions").await.status, 200);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let host = Host::start().await;
    let head = format!("X-Long: {}\r\n", "x".repeat(64 << 10));
    assert_eq!(host.send(Ipv4Addr::LOCALHOST, "GET /healthz", &head).await.status, 431);
    let many = "X: y\r\n".repeat(200);
    assert_eq!(host.send(Ipv4Addr::LOCALHOST, "GET /healthz", &many).await.status, 431);
}

#[tokio::test]
async fn what_operators_do_and_who_is_turned_away_is_logged_without_a_token() {
    let (log, _guard) = crate::support::Log::begin(tracing::Level::INFO);
    let host = Host::start().await;
    host.ask(Operator, "POST /v1/sessions/a/restart").await;
    host.ask(Operator, "DELETE /v1/sessions/c").await;
    host.ask(Admin, "PUT /v1/pipelines/eye").await;
    host.ask(ViewerOfA, "POST /v1/sessions/b/rollback").await;
    host.ask(Viewer, "POST /v1/sessions/b/rollback").await;
    host.ask(Stranger, "GET /v1/sessions").await;
    host.ask(Expired, "GET /v1/sessions").await;
    host.ask(Viewer, "GET /v1/sessions").await;
    // A look is no change, however often a page takes one.
    assert_eq!(host.ask(Operator, "GET /v1/sessions/a/log").await.status, 200);
    assert_eq!(host.ask(Operator, "GET /v1/sessions/a/log?after=1-2-3").await.status, 200);
    assert_eq!(host.ask(Operator, "GET /v1/sessions/a/log?after=1").await.status, 400);
    let text = log.text();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("ocelli::audit")).collect();
    let expected: [&[&str]; 7] = [
        &[
            "done",
            "caller=\"Operator\"",
            "role=\"operator\"",
            "peer=127.0.0.1:",
            "action=\"restart\"",
            "subject=\"a\"",
            "outcome=\"202\"",
        ],
        &["done", "action=\"stop\"", "subject=\"c\"", "outcome=\"404\""],
        &["done", "caller=\"Admin\"", "action=\"put_pipeline\"", "subject=\"eye\""],
        &["denied", "caller=\"ViewerOfA\"", "action=\"rollback\"", "subject=\"b\""],
        &["denied", "caller=\"Viewer\"", "action=\"rollback\"", "subject=\"b\""],
        &["not authenticated", "reason=\"unknown token\"", "peer=127.0.1."],
        &["not authenticated", "Expired", "has expired"],
    ];
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, parts) in lines.iter().zip(expected) {
        parts.iter().for_each(|part| assert!(line.contains(part), "{part}: {line}"));
    }
    assert!(!text.contains("ocelli_"), "{text}");
}
