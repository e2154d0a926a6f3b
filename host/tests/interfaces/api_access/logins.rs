//! Browsers: a token traded for a cookie, what the cookie does, and when it ends.

use std::net::Ipv4Addr;

use futures_util::SinkExt;
use ocelli_testkit::within;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::Who::{Admin, Expired, Operator, Stranger, Viewer, ViewerOfA};
use super::sockets::refused;
use super::{Answer, Host, Section, Who};

/// What a page sends beside its cookie.
const BY_PAGE: &str = "X-Ocelli: 1\r\n";

/// Where a proxy ended TLS.
const BY_TLS: &str = "X-Forwarded-Proto: https\r\n";

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

impl Host {
    /// A request with a body.
    pub(super) async fn post(
        &self,
        from: Ipv4Addr,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Answer {
        let text = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: {}\r\n\
                Connection: close\r\n\r\n{body}",
            self.server.address(),
            body.len()
        );
        self.raw(from, &text).await
    }

    async fn log_in_with(&self, from: Ipv4Addr, headers: &str, body: &str) -> Answer {
        self.post(from, "/v1/login", headers, body).await
    }

    /// The line with the cookie of a new login.
    async fn log_in(&self, who: Who) -> String {
        let body = json!({"token": who.text()}).to_string();
        // Heads are read in small letters, which an id is not.
        let text = format!(
            "POST /v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
                Connection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = self.raw_text(Ipv4Addr::LOCALHOST, &text).await;
        let (_, cookie) = answer.split_once("set-cookie: ").expect(&answer);
        format!("Cookie: {}\r\n", cookie.split_once(';').unwrap().0)
    }

    async fn with_cookie(&self, request: &str, headers: &str) -> Answer {
        self.send(Ipv4Addr::LOCALHOST, request, headers).await
    }

    pub(super) async fn ask_by_cookie(&self, who: Who, request: &str) -> Answer {
        let cookie = self.log_in(who).await;
        if !request.starts_with("GET") && !request.ends_with("/login") {
            let answer = self.with_cookie(request, &cookie).await;
            assert_eq!((answer.status, answer.code().as_str()), (403, "header_missing"));
        }
        self.with_cookie(request, &format!("{cookie}{BY_PAGE}")).await
    }
}

#[tokio::test]
async fn a_token_is_traded_for_a_cookie_that_no_script_reads_and_no_other_page_sends() {
    let host = Host::start().await;
    let body = json!({"token": Viewer.text()}).to_string();
    let answer = host.log_in_with(Ipv4Addr::LOCALHOST, "", &body).await;
    let cookie = answer.header("set-cookie").unwrap();
    assert!(answer.status == 204 && answer.body.is_empty());
    assert!(cookie.starts_with("ocelli="), "{cookie}");
    assert!(cookie.ends_with("; path=/; max-age=43200; httponly; samesite=strict"), "{cookie}");
    assert!(!cookie.contains(&Viewer.text().to_lowercase()));

    let secure = host.log_in_with(Ipv4Addr::LOCALHOST, BY_TLS, &body).await;
    let cookie = secure.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__host-ocelli=") && cookie.ends_with("; secure"), "{cookie}");
    // A neighbour of the domain can set the plain one.
    let plain = host.log_in(Viewer).await;
    assert_eq!(host.with_cookie("GET /v1/me", &plain).await.status, 200);
    assert_eq!(host.with_cookie("GET /v1/me", &format!("{plain}{BY_TLS}")).await.status, 401);
    let prefixed = plain.replace("ocelli=", "__Host-ocelli=");
    assert_eq!(host.with_cookie("GET /v1/me", &format!("{prefixed}{BY_TLS}")).await.status, 200);
    let neighbour = format!("{plain}Sec-Fetch-Site: same-site\r\n");
    assert_eq!(host.with_cookie("GET /v1/me", &neighbour).await.status, 401);
    // A token counts first, a wrong one too.
    let both = format!("{plain}{}", Operator.header());
    assert!(host.with_cookie("GET /v1/me", &both).await.body.contains("\"Operator\""));
    let wrong = format!("{plain}{}", Stranger.header());
    assert_eq!(host.with_cookie("GET /v1/me", &wrong).await.status, 401);
}

#[tokio::test]
async fn who_asks_is_told_who_it_is() {
    let host = Host::start().await;
    let me = async |who| {
        let told: Value =
            serde_json::from_str(&host.ask_by_cookie(who, "GET /v1/me").await.body).unwrap();
        told
    };
    let viewer_of_a =
        json!({"name": "ViewerOfA", "role": "viewer", "sessions": ["a"], "login": true});
    assert_eq!(me(ViewerOfA).await, viewer_of_a);
    let admin = json!({"name": "Admin", "role": "admin", "sessions": null, "login": true});
    assert_eq!(me(Admin).await, admin);
}

#[tokio::test]
async fn without_tokens_everyone_is_an_admin_and_no_cookie_is_needed() {
    let host = Host::with(Section::default()).await;
    let me: Value = serde_json::from_str(&host.with_cookie("GET /v1/me", "").await.body).unwrap();
    let local = json!({"name": "local", "role": "admin", "sessions": null, "login": false});
    assert_eq!(me, local);
    let answer = host.log_in_with(Ipv4Addr::LOCALHOST, "", r#"{"token":""}"#).await;
    assert_eq!((answer.status, answer.header("set-cookie")), (204, None));
    // A cookie of another host at this address does no harm.
    let restart = "POST /v1/sessions/a/restart";
    assert_eq!(host.with_cookie(restart, "Cookie: ocelli=x\r\n").await.status, 202);
}

#[tokio::test]
async fn wrong_tokens_are_guesses_and_a_page_without_one_is_asked_for_it_every_time() {
    let host = Host::start().await;
    let guesser = Ipv4Addr::new(127, 0, 6, 1);
    let guess = json!({"token": Stranger.text()}).to_string();
    for number in 0..50 {
        let headers = if number % 2 == 0 { "" } else { "Cookie: ocelli=of-before\r\n" };
        assert_eq!(host.send(guesser, "GET /v1/me", headers).await.status, 401);
    }
    for _ in 0..10 {
        assert_eq!(host.log_in_with(guesser, "", &guess).await.status, 401);
    }
    let limited = host.log_in_with(guesser, "", &guess).await;
    assert_eq!((limited.status, limited.code().as_str()), (429, "rate_limited"));
    let right = json!({"token": Viewer.text()}).to_string();
    assert_eq!(host.log_in_with(guesser, "", &right).await.status, 204, "a good token is good");
    let expired = json!({"token": Expired.text()}).to_string();
    assert_eq!(host.log_in_with(Ipv4Addr::new(127, 0, 6, 2), "", &expired).await.status, 401);
}

#[tokio::test]
async fn a_login_is_a_small_object_with_a_token() {
    let host = Host::start().await;
    for body in ["", "{}", r#"{"token":1}"#, r#"{"token":"x","more":1}"#, "\"ocelli_Viewer\""] {
        let answer = host.log_in_with(Ipv4Addr::LOCALHOST, "", body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_body"), "{body}");
        assert!(!answer.body.contains("ocelli_"), "{}", answer.body);
    }
    let long = json!({"token": "x".repeat(5000)}).to_string();
    let answer = host.log_in_with(Ipv4Addr::LOCALHOST, "", &long).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    let foreign = "Origin: https://evil.example\r\n";
    let right = json!({"token": Viewer.text()}).to_string();
    let answer = host.log_in_with(Ipv4Addr::LOCALHOST, foreign, &right).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "foreign_origin"));
}

#[tokio::test]
async fn a_login_and_its_socket_end_by_a_logout_and_with_the_token_and_not_those_of_others() {
    let host = Host::start().await;
    let cookies = [host.log_in(Viewer).await, host.log_in(Viewer).await, host.log_in(Admin).await];
    let value = |cookie: &str| cookie.trim().split_once(": ").unwrap().1.to_owned();
    let [mut first, mut second, mut other] = [
        host.socket("cookie", &value(&cookies[0])).await,
        host.socket("cookie", &value(&cookies[1])).await,
        host.socket("cookie", &value(&cookies[2])).await,
    ];
    let query = json!({"type": "query", "session": "a", "query": {}}).to_string();
    for socket in [&mut first, &mut second, &mut other] {
        socket.send(Message::text(query.clone())).await.unwrap();
        assert_eq!(refused(socket).await, None);
    }
    let logout = host.with_cookie("POST /v1/logout", &format!("{}{BY_PAGE}", cookies[0])).await;
    assert_eq!(logout.status, 204);
    assert!(logout.header("set-cookie").unwrap().starts_with("ocelli=; path=/; max-age=0"));
    assert_eq!(refused(&mut first).await.unwrap().0, "token_revoked");
    assert_eq!(host.with_cookie("GET /v1/me", &cookies[0]).await.status, 401);
    assert_eq!(host.with_cookie("GET /v1/me", &cookies[1]).await.status, 200);

    host.edit(|server| server.tokens.retain(|token| token.name != Viewer.name()));
    assert_eq!(refused(&mut second).await.unwrap().0, "token_revoked");
    assert_eq!(host.with_cookie("GET /v1/me", &cookies[1]).await.status, 401);
    // The token comes back, the login does not.
    host.edit(|server| server.tokens.extend(Viewer.token()));
    let back = async { while host.ask(Viewer, "GET /v1/me").await.status != 200 {} };
    within(back).await;
    assert_eq!(host.with_cookie("GET /v1/me", &cookies[1]).await.status, 401);
    other.send(Message::text(query)).await.unwrap();
    assert_eq!(refused(&mut other).await, None, "others go on");
}

#[tokio::test]
async fn logins_are_in_the_audit_log_without_token_or_cookie() {
    let (log, _guard) = crate::support::Log::begin(tracing::Level::INFO);
    let host = Host::start().await;
    let cookie = host.log_in(Viewer).await;
    host.with_cookie("POST /v1/logout", &format!("{cookie}{BY_PAGE}")).await;
    host.with_cookie("GET /v1/me", &cookie).await;
    let text = log.text();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("ocelli::audit")).collect();
    let expected: [&[&str]; 3] = [
        &["done", "caller=\"Viewer\"", "action=\"login\"", "outcome=\"204\""],
        &["done", "caller=\"Viewer\"", "action=\"logout\"", "outcome=\"204\""],
        &["not authenticated", "action=\"me\"", "no such login"],
    ];
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, parts) in lines.iter().zip(expected) {
        parts.iter().for_each(|part| assert!(line.contains(part), "{part}: {line}"));
    }
    let id = cookie.trim().split_once('=').unwrap().1;
    assert!(!text.contains(id) && !text.contains("ocelli_"), "{text}");
}

#[tokio::test]
async fn admins_see_the_tokens_and_who_did_or_tried_what_and_nothing_to_get_in_with() {
    let host = Host::start().await;
    host.log_in(Viewer).await;
    host.log_in(Viewer).await;
    let cookie = host.log_in(Admin).await;
    host.ask(Operator, "POST /v1/sessions/a/restart").await;
    host.ask(Viewer, "POST /v1/sessions/a/restart").await;
    host.ask(Operator, "GET /v1/config").await;
    host.ask(Stranger, "GET /v1/sessions").await;
    let read = async |path: &str| {
        let answer = host.with_cookie(&format!("GET {path}"), &cookie).await;
        assert!(!answer.body.contains("ocelli_") && !answer.body.contains("sha256"));
        let told: Value = serde_json::from_str(&answer.body).unwrap();
        told
    };
    let tokens = read("/v1/tokens").await;
    let token = |name: &str| {
        let all = tokens["tokens"].as_array().unwrap();
        all.iter().find(|token| token["name"] == name).unwrap().clone()
    };
    assert_eq!(
        token("ViewerOfA"),
        json!({
            "name": "ViewerOfA", "role": "viewer", "sessions": ["a"], "expires": null,
            "expired": false, "logins": 0
        })
    );
    assert_eq!(
        (&token("Viewer")["logins"], &token("Viewer")["sessions"]),
        (&json!(2), &json!(null))
    );
    let expired = token("Expired");
    assert_eq!(
        (&expired["expired"], &expired["expires"]),
        (&json!(true), &json!("1970-01-01T00:00:00Z"))
    );

    let audit = read("/v1/audit?lines=4").await;
    let lines: Vec<_> = audit["lines"].as_array().unwrap().iter().collect();
    let member = |index: usize, key: &str| lines[index][key].as_str().unwrap_or_default();
    // To look at something is no change.
    let [login, restart, denied, unknown] = [0, 1, 2, 3]
        .map(|index| [member(index, "what"), member(index, "caller"), member(index, "action")]);
    assert_eq!(login, ["done", "Admin", "login"]);
    assert_eq!(restart, ["done", "Operator", "restart"]);
    assert_eq!((member(1, "subject"), member(1, "outcome")), ("a", "202"));
    assert_eq!(denied, ["denied", "Viewer", "restart"]);
    assert_eq!(unknown, ["not_authenticated", "", "list_sessions"]);
    assert_eq!(member(3, "reason"), "unknown token");
    assert!(member(3, "peer").starts_with("127.0.1."));
    for wrong in ["0", "1001", "x"] {
        let path = format!("GET /v1/audit?lines={wrong}");
        assert_eq!(host.with_cookie(&path, &cookie).await.status, 400);
    }
}
