//! Tokens that both hosts know: made and revoked at one, in force at both.

use std::sync::Arc;

use ocelli::config::{Config, ServerConfig, Token};
use ocelli_testkit::within;
use serde_json::{Value, json};

use super::{ANN, GATE, GATE_PATH, Host, tokens, two};
use crate::support::Client;

/// A token of the site, made at this host: its text.
async fn made(host: &Host, body: Value) -> String {
    let made = host.ask("POST /v1/cluster/tokens", ANN, &body.to_string()).await;
    assert_eq!((made.status, &made.body["name"]), (201, &body["name"]), "{}", made.text);
    assert!(made.head.to_lowercase().contains("cache-control: no-store"), "{}", made.head);
    made.body["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_of_the_site_is_in_force_at_every_host_until_it_is_revoked() {
    let (a, b) = two().await;
    let text = made(&a, json!({"name": "wall", "role": "viewer", "sessions": [GATE]})).await;
    let wall = format!("Authorization: Bearer {text}\r\n");
    // The other host hears of it by the watch, and asks a with the same token.
    let mut client = within(async {
        while b.ask(&format!("GET {GATE_PATH}"), &wall, "").await.status != 200 {
            tokio::task::yield_now().await;
        }
        Client::connect(b.address(), &[("authorization", &format!("Bearer {text}"))]).await
    })
    .await;
    let me = b.ask("GET /v1/me", &wall, "").await.body;
    assert_eq!((&me["name"], &me["role"]), (&json!("wall"), &json!("viewer")));
    b.ask("GET /v1/cluster", &wall, "").await.assert_problem(403, "forbidden");
    b.ask("GET /v1/sessions/yard", &wall, "").await.assert_problem(404, "unknown_session");
    let listed = b.get("/v1/cluster/tokens").await;
    assert!(!listed.text.contains(&text) && !listed.text.contains("sha256"), "{}", listed.text);
    let expected = json!({"name": "wall", "role": "viewer", "sessions": [GATE], "expires": null,
        "expired": false, "by": "ann", "made": "2026-11-30T12:00:00.000Z", "overridden": false,
        "logins": 0});
    assert_eq!(listed.body["tokens"], json!([expected]));

    let revoked = a.ask("DELETE /v1/cluster/tokens/wall", ANN, "").await;
    assert_eq!(revoked.status, 204, "{}", revoked.text);
    a.ask("GET /v1/me", &wall, "").await.assert_problem(401, "unauthorized");
    assert_eq!(client.next().await.unwrap()["code"], "token_revoked");
    assert_eq!(client.next().await, Err(1008));
    b.ask("GET /v1/me", &wall, "").await.assert_problem(401, "unauthorized");
    let again = a.ask("DELETE /v1/cluster/tokens/wall", ANN, "").await;
    again.assert_problem(404, "unknown_token");
    let audit = a.get("/v1/audit").await.text;
    assert!(audit.contains("make_site_token") && audit.contains("revoke_site_token"), "{audit}");
}

#[tokio::test]
async fn a_token_of_the_config_counts_in_the_place_of_the_sites() {
    let (a, b) = two().await;
    let text = made(&a, json!({"name": "wall", "role": "operator"})).await;
    let wall = format!("Authorization: Bearer {text}\r\n");
    let own = tokens("ocelli_own");
    b.config.send_modify(|config| {
        let mut new = Config::clone(config);
        new.server.tokens.push(Token { name: "wall".into(), ..own.tokens[0].clone() });
        *config = Arc::new(new);
    });
    let own = "Authorization: Bearer ocelli_own\r\n";
    within(async {
        while b.ask("GET /v1/me", own, "").await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    b.ask("GET /v1/me", &wall, "").await.assert_problem(401, "unauthorized");
    assert_eq!(a.ask("GET /v1/me", &wall, "").await.status, 200);
    assert_eq!(b.get("/v1/cluster/tokens").await.body["tokens"][0]["overridden"], true);
    let body = json!({"name": "ann", "role": "viewer"}).to_string();
    let taken = a.ask("POST /v1/cluster/tokens", ANN, &body).await;
    taken.assert_problem(409, "exists");
}

#[tokio::test]
async fn what_cannot_be_a_token_of_the_site_is_refused() {
    let (a, _b) = two().await;
    made(&a, json!({"name": "wall", "role": "viewer"})).await;
    for (body, status, code) in [
        (json!({"name": "wall", "role": "viewer"}), 409, "exists"),
        (json!({"name": "", "role": "viewer"}), 422, "invalid_config"),
        (json!({"name": "local", "role": "viewer"}), 422, "invalid_config"),
        (json!({"name": "x".repeat(201), "role": "viewer"}), 422, "invalid_config"),
        (json!({"name": "x", "role": "admin", "sessions": ["gate"]}), 422, "invalid_config"),
        (json!({"name": "x", "role": "viewer", "sessions": [""]}), 422, "invalid_config"),
        (
            json!({"name": "x", "role": "viewer", "expires": "1970-01-01T00:00:00Z"}),
            422,
            "invalid_config",
        ),
        (json!({"name": "x", "role": "owner"}), 400, "bad_json"),
        (json!({"name": "x", "role": "viewer", "hash": "sha256:00"}), 400, "bad_json"),
    ] {
        let answer = a.ask("POST /v1/cluster/tokens", ANN, &body.to_string()).await;
        answer.assert_problem(status, code);
    }
    a.double.believed.lock().away = true;
    let body = json!({"name": "x", "role": "viewer"}).to_string();
    let away = a.ask("POST /v1/cluster/tokens", ANN, &body).await;
    away.assert_problem(503, "site_unavailable");
    let away = a.ask("DELETE /v1/cluster/tokens/wall", ANN, "").await;
    away.assert_problem(503, "site_unavailable");
    assert_eq!(a.get("/v1/cluster/tokens").await.body["tokens"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_site_keeps_an_admin_and_hosts_without_tokens_close_with_the_first() {
    let believed = Arc::default();
    let open = Host::start("a", &believed, ServerConfig::default()).await;
    let viewer = json!({"name": "wall", "role": "viewer"}).to_string();
    let first = open.ask("POST /v1/cluster/tokens", "", &viewer).await;
    first.assert_problem(409, "no_admin");
    let text = made(&open, json!({"name": "ops", "role": "admin"})).await;
    open.ask("GET /v1/me", "", "").await.assert_problem(401, "unauthorized");
    let ops = format!("Authorization: Bearer {text}\r\n");
    let last = open.ask("DELETE /v1/cluster/tokens/ops", &ops, "").await;
    last.assert_problem(409, "no_admin");
    let body = json!({"name": "ann", "role": "admin"}).to_string();
    assert_eq!(open.ask("POST /v1/cluster/tokens", &ops, &body).await.status, 201);
    assert_eq!(open.ask("DELETE /v1/cluster/tokens/ops", &ops, "").await.status, 204);
}
