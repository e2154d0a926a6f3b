//! A host below a path, and clients behind a trusted proxy.

use std::net::Ipv4Addr;

use ocelli_testkit::within;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::Who::{Admin, Stranger, Viewer};
use super::{Answer, Host, Section, tokens};

/// Below `/cams/site`, with everybody's tokens.
async fn below() -> Host {
    let base_path = "/cams/site".parse().unwrap();
    Host::with(Section { tokens: tokens(), base_path, ..Section::default() }).await
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn a_host_below_a_path_answers_with_it_and_without_as_proxies_pass_it_on_or_remove_it() {
    let host = below().await;
    for base in ["/cams/site", ""] {
        for (path, status) in [
            ("/healthz", 200),
            ("/v1/sessions/a", 200),
            ("/v1/sessions/a?x=1", 200),
            ("/v1/nothing", 404),
            ("/cameras/gate", 200),
            ("/", 200),
        ] {
            let answer = host.ask(Viewer, &format!("GET {base}{path}")).await;
            assert_eq!(answer.status, status, "{base}{path}: {}", answer.body);
        }
        let page = host.ask(Viewer, &format!("GET {base}/cameras/gate")).await.body;
        assert!(page.contains(r#"<meta name="base" content="/cams/site/""#), "{page}");
        let (_, rest) = page.split_once(r#"src=""#).unwrap();
        let script = rest.split_once('"').unwrap().0;
        assert!(script.starts_with("/cams/site/assets/"), "{script}");
        assert_eq!(host.ask(Viewer, &format!("GET {script}")).await.status, 200);
        let document = json_of(&host.ask(Viewer, &format!("GET {base}/openapi.json")).await);
        assert_eq!(document["servers"], json!([{"url": "/cams/site"}]));
        let document = json_of(&host.ask(Viewer, &format!("GET {base}/asyncapi.json")).await);
        assert_eq!(document["channels"]["ws"]["address"], "/cams/site/v1/ws");
        let url = format!("ws://{}{base}/v1/ws", host.server.address());
        let mut request = url.into_client_request().unwrap();
        let token = format!("Bearer {}", Viewer.text()).parse().unwrap();
        request.headers_mut().insert("authorization", token);
        within(tokio_tungstenite::connect_async(request)).await.unwrap();
    }
    assert_eq!(host.ask(Viewer, "GET /cams/site").await.status, 200);
    for elsewhere in ["/cams", "/cams/sites/v1/sessions", "/cams/site/cams/site/v1/sessions"] {
        assert_eq!(host.ask(Viewer, &format!("GET {elsewhere}")).await.status, 404, "{elsewhere}");
    }
    assert!(host.server.url().ends_with("/cams/site"), "{}", host.server.url());
}

#[tokio::test]
async fn the_cookie_of_a_login_is_for_the_hosts_path_alone() {
    let host = below().await;
    let body = json!({"token": Viewer.text()}).to_string();
    for (headers, name, end) in [
        ("", "ocelli-cams-site=", "samesite=strict"),
        ("X-Forwarded-Proto: https\r\n", "__secure-ocelli-cams-site=", "; secure"),
    ] {
        let path = "/cams/site/v1/login";
        let answer = host.post(Ipv4Addr::LOCALHOST, path, headers, &body).await;
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.starts_with(name) && cookie.ends_with(end), "{cookie}");
        assert!(cookie.contains("; path=/cams/site;"), "{cookie}");
    }
}

#[tokio::test]
async fn a_client_behind_a_trusted_proxy_is_known_by_its_own_address() {
    let host = below().await;
    let guess = async |client: &str| {
        let headers = format!("{}X-Forwarded-For: {client}\r\n", Stranger.header());
        host.send(Ipv4Addr::new(127, 0, 9, 9), "GET /v1/sessions", &headers).await.status
    };
    let peers = async || {
        let lines = json_of(&host.ask(Admin, "GET /v1/audit?lines=2").await)["lines"].clone();
        [0, 1].map(|index| lines[index]["peer"].as_str().unwrap().to_owned())
    };
    for client in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(guess(client).await, 401);
    }
    assert!(peers().await.iter().all(|peer| peer.starts_with("127.0.9.9:")), "nobody is believed");

    host.edit(|server| server.trusted_proxies = vec!["127.0.9.0/24".parse().unwrap()]);
    for client in ["198.51.100.1, 192.0.2.1", "192.0.2.2"] {
        assert_eq!(guess(client).await, 401);
    }
    assert_eq!(peers().await, ["192.0.2.1", "192.0.2.2"]);
    // Who guesses too often is slowed down alone.
    let mut answers = Vec::new();
    for _ in 0..12 {
        answers.push(guess("192.0.2.1").await);
    }
    assert_eq!((answers.last(), guess("192.0.2.2").await), (Some(&429), 401));
}
