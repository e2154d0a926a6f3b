//! The host behind real reverse proxies, with the configs that `config/reverse-proxy` has.

use std::process::Command;

use ocelli_client::{Client, Error, Message, Subscribe};
use ocelli_testkit::{ClientProcess, Ocelli, PipelineFolder, ReverseProxy, clip, program, within};
use serde_json::Value;

/// From where `curl` asks, to tell it from the proxy.
const ASKER: &str = "127.0.0.77";

/// A host with a session `gate`, which has events with pictures, and one that is silent. The folder
/// of the pipeline must outlive it; the text is an admin's token.
async fn host(server: &str) -> (PipelineFolder, Ocelli, String) {
    let store = PipelineFolder::with(&["changeling"]);
    let source = format!("file:{}", clip("bikes.mp4").display());
    let camera = |id: &str, settings: &str| {
        format!(
            "[[cameras]]\nid = {id:?}\nsource = {source:?}\npace = \"realtime\"\nrepeat = true\n\
             pipeline = \"changeling\"\nsettings = {{ {settings} }}\n"
        )
    };
    let made = Command::new(program("ocelli"))
        .args(["token", "new", "ann", "--role", "admin", "--json"])
        .output()
        .unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let part = |name: &str| made[name].as_str().unwrap().to_owned();
    let config = [
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n{server}\n"
        ),
        part("config"),
        store.section(),
        camera("gate", "every = 5, attach = true"),
        camera("silent", "every = 1000000"),
    ];
    (store, Ocelli::start(&config.join("\n")).await, part("token"))
}

/// What `curl` gets: head and body.
fn get(proxy: &ReverseProxy, url: &str, options: &[&str]) -> (String, Vec<u8>) {
    let got = proxy.curl().args(["-i", "--interface", ASKER]).args(options).arg(url).output();
    let got = got.unwrap();
    assert!(got.status.success(), "{url}: {}", String::from_utf8_lossy(&got.stderr));
    let end = got.stdout.windows(4).position(|it| it == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&got.stdout[..end]).to_lowercase();
    (head, got.stdout[end + 4..].to_vec())
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

fn assert_ok(got: &(String, Vec<u8>), kind: &str) {
    let (head, body) = got;
    let first = head.lines().next().unwrap_or_default();
    assert!(first.contains(" 200"), "{head}\n{}", String::from_utf8_lossy(body));
    assert!(header(head, "content-type").starts_with(kind), "{head}");
}

/// The dashboard: the page and each file that it names.
fn the_page_comes(proxy: &ReverseProxy, base: &str) {
    for place in ["/", "/cameras/gate"] {
        let page = get(proxy, &proxy.url(&format!("{base}{place}")), &[]);
        assert_ok(&page, "text/html");
        let text = String::from_utf8(page.1).unwrap();
        assert!(text.contains(&format!("name=\"base\" content=\"{base}/\"")), "{text}");
        let after = ["src=\"", "href=\""].into_iter().flat_map(|it| text.split(it).skip(1));
        let files: Vec<&str> = after.filter_map(|rest| Some(rest.split_once('"')?.0)).collect();
        assert!(files.len() >= 3, "{text}");
        for file in files {
            let kind = match file.rsplit('.').next().unwrap() {
                "js" => "text/javascript",
                "css" => "text/css",
                _ => "image/svg+xml",
            };
            assert_ok(&get(proxy, &proxy.url(file), &[]), kind);
        }
    }
    if !base.is_empty() {
        let (head, _) = get(proxy, &proxy.url(base), &[]);
        assert!(header(&head, "location").ends_with(&format!("{base}/")), "{head}");
    }
}

/// A login by cookie, a command by it, and what the audit log has of both. Returns the cookie.
fn a_login_works(proxy: &ReverseProxy, base: &str, token: &str) -> String {
    let login = proxy.url(&format!("{base}/v1/login"));
    let body = format!("{{\"token\":{token:?}}}");
    let spoofed = "X-Forwarded-For: 203.0.113.9";
    let origin = format!("Origin: {}", proxy.url(""));
    let by_page = ["-H", "X-Ocelli: 1", "-H", &origin, "-H", spoofed];
    let raw = proxy
        .curl()
        .args(["-i", "--interface", ASKER, "--data", &body])
        .args(by_page)
        .arg(&login)
        .output()
        .unwrap();
    // An id has capital letters.
    let raw = String::from_utf8(raw.stdout).unwrap();
    let cookie = raw.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("set-cookie").then(|| value.to_owned())
    });
    let cookie = cookie.unwrap_or_else(|| panic!("{raw}"));
    let (name, path) = match base {
        "" => ("__Host-ocelli=", "/"),
        base => ("__Secure-ocelli-ocelli=", base),
    };
    assert!(cookie.starts_with(name), "{cookie}");
    assert!(
        cookie.contains(&format!("; Path={path};")) && cookie.ends_with("; Secure"),
        "{cookie}"
    );
    let pair = cookie.split_once(';').unwrap().0.to_owned();

    let me = get(proxy, &proxy.url(&format!("{base}/v1/me")), &["-b", &pair]);
    assert_ok(&me, "application/json");
    assert_eq!(serde_json::from_slice::<Value>(&me.1).unwrap()["name"], "ann");
    let restart = proxy.url(&format!("{base}/v1/sessions/silent/restart"));
    let (head, _) = get(proxy, &restart, &[&["-b", &pair, "-X", "POST"], &by_page[..]].concat());
    assert!(head.lines().next().unwrap().contains(" 202"), "{head}");
    let id = header(&head, "x-request-id").to_owned();
    assert!(!id.is_empty(), "{head}");
    let evil =
        ["-b", &pair, "-X", "POST", "-H", "X-Ocelli: 1", "-H", "Origin: https://evil.example"];
    let (head, body) = get(proxy, &restart, &evil);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["code"], "foreign_origin", "{head}");

    let audit = get(proxy, &proxy.url(&format!("{base}/v1/audit?lines=2")), &["-b", &pair]);
    let audit: Value = serde_json::from_slice(&audit.1).unwrap();
    let member = |index: usize, key: &str| audit["lines"][index][key].clone();
    assert_eq!((member(0, "action"), member(1, "action")), ("login".into(), "restart".into()));
    assert_eq!((member(0, "peer"), member(1, "peer")), (ASKER.into(), ASKER.into()), "{audit}");
    assert_eq!(member(1, "request_id"), id);
    pair
}

/// A WebSocket and a stream, of which nothing waits for more to come, and pictures.
async fn messages_and_pictures_come(proxy: &ReverseProxy, base: &str, token: &str, cookie: &str) {
    let client = Client::new(&proxy.url(&format!("{base}/"))).unwrap().with_token(token).unwrap();
    let client = client.with_certificates(&std::fs::read(proxy.ca()).unwrap()).unwrap();
    assert!(client.is_ready().await.unwrap());
    let mut subscriber = client.subscriber();
    subscriber.subscribe(Subscribe::to("gate").after(0)).await;
    let (mut results, mut event) = (false, None);
    while !results || event.is_none() {
        match within(subscriber.next()).await.unwrap() {
            Message::Detections(_) => results = true,
            Message::Event(it) if it.kind == "counted" => event = Some(it),
            _ => {}
        }
    }

    // Its first message is short, and no other follows it.
    let stream = proxy.url(&format!("{base}/v1/sessions/silent/stream?detections=false"));
    let mut curl = proxy.curl();
    let mut stream = ClientProcess::start(curl.args(["--no-buffer", "-b", cookie, &stream]));
    let first = stream.find(|line| line.strip_prefix("data: ").map(str::to_owned)).await;
    assert!(first.contains("\"subscribed\""), "{first}");

    let frame = proxy.url(&format!("{base}/v1/sessions/gate/frame.jpg"));
    let frame = get(proxy, &frame, &["-b", cookie]);
    assert_ok(&frame, "image/jpeg");
    assert!(frame.1.starts_with(b"\xff\xd8"));
    let attachments = serde_json::to_value(event.unwrap()).unwrap()["attachments"].clone();
    let digest = attachments[0]["digest"].as_str().expect("a picture of the event").to_owned();
    let picture =
        get(proxy, &proxy.url(&format!("{base}/v1/attachments/{digest}")), &["-b", cookie]);
    assert_ok(&picture, "image/jpeg");
    let mjpeg = proxy.url(&format!("{base}/v1/sessions/gate/mjpeg"));
    let mut curl = proxy.curl();
    let mut pictures =
        ClientProcess::start(curl.args(["-i", "--no-buffer", "-b", cookie, "-o", "-", &mjpeg]));
    pictures
        .find(|line| line.to_lowercase().contains("multipart/x-mixed-replace").then_some(()))
        .await;
    pictures.find(|line| line.to_lowercase().contains("image/jpeg").then_some(())).await;
}

async fn works(file: &str, host: &Ocelli, base: &str, token: &str) {
    let proxy = ReverseProxy::start(file, host.address());
    the_page_comes(&proxy, base);
    let cookie = a_login_works(&proxy, base, token);
    messages_and_pictures_come(&proxy, base, token, &cookie).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_and_caddy_serve_the_host_under_a_name_of_its_own() {
    let (_store, host, token) = host("").await;
    works("nginx.conf", &host, "", &token).await;
    works("Caddyfile", &host, "", &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_and_caddy_serve_the_host_below_a_path_of_a_name() {
    let (_store, host, token) = host("base_path = \"/ocelli\"").await;
    works("nginx-path.conf", &host, "/ocelli", &token).await;
    works("Caddyfile-path", &host, "/ocelli", &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_passes_no_upgrade_on_is_told_so() {
    let (_store, host, token) = host("").await;
    let proxy = ReverseProxy::start_with("nginx.conf", host.address(), |config| {
        let lines = config.lines().filter(|line| {
            !line.contains("proxy_set_header Upgrade")
                && !line.contains("proxy_set_header Connection")
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    let client = Client::new(&proxy.url("")).unwrap().with_token(&token).unwrap();
    let client = client.with_certificates(&std::fs::read(proxy.ca()).unwrap()).unwrap();
    assert!(client.session("gate").await.is_ok(), "the rest works");
    let mut subscriber = client.subscriber();
    subscriber.subscribe(Subscribe::to("gate")).await;
    let refused = within(subscriber.next()).await.unwrap_err();
    let Error::Problem(problem) = refused else { panic!("{refused}") };
    assert_eq!((problem.status, problem.code.as_str()), (426, "not_a_websocket"));
    assert!(problem.detail.contains("a reverse proxy in front passes on"), "{problem}");
}
