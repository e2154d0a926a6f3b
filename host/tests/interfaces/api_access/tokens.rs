//! Tokens that admins make and revoke.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ocelli::api::ConfigControl;
use ocelli::config::edit::{ChangeError, ConfigChange, ConfigEdit, ConfigEntry, EditError};
use ocelli::config::{Config, Role, Token, TokenHash};
use ocelli::deploy::ReloadReport;
use serde_json::{Value, json};

use super::Who::{Admin, Expired, Operator, Viewer};
use super::{Answer, Double, Host, Section, tokens};

impl ConfigControl for Double {
    async fn camera_entry(&self, _: &str) -> Result<ConfigEntry, EditError> {
        Err(EditError::Stopping)
    }

    async fn reload_config(&self, _: &str) -> Result<ReloadReport, EditError> {
        Err(EditError::Stopping)
    }

    async fn edit_config(&self, edit: ConfigEdit) -> Result<(), EditError> {
        let mut config = Config::clone(&self.2.borrow());
        if !config.server.edit_config {
            let (reason, toml) = ("it may not".to_owned(), edit.change.toml());
            return Err(EditError::NotEditable { reason, toml });
        }
        let tokens = &mut config.server.tokens;
        match edit.change {
            ConfigChange::AddToken { table } => {
                let token: Token = serde_json::from_value(table.into()).unwrap();
                if tokens.iter().any(|other| other.name == token.name) {
                    return Err(ChangeError::Exists(token.name).into());
                }
                tokens.push(token);
            }
            ConfigChange::RemoveToken { name } => {
                let before = tokens.len();
                tokens.retain(|token| token.name != name);
                if tokens.len() == before {
                    return Err(ChangeError::Unknown("token", name).into());
                }
            }
            other => panic!("{other:?}"),
        }
        self.2.send_replace(Arc::new(config));
        Ok(())
    }
}

async fn editable(tokens: Vec<Token>) -> Host {
    Host::with(Section { tokens, edit_config: true, ..Section::default() }).await
}

/// The answer to a wish for a token, by an admin.
async fn make(host: &Host, wanted: Value) -> Answer {
    host.post(Ipv4Addr::LOCALHOST, "/v1/tokens", &Admin.header(), &wanted.to_string()).await
}

async fn me(host: &Host, headers: &str) -> Value {
    let answer = host.send(Ipv4Addr::LOCALHOST, "GET /v1/me", headers).await;
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn a_new_token_works_at_once_is_shown_once_and_only_its_hash_is_in_the_config() {
    let (log, _guard) = crate::support::Log::begin(tracing::Level::INFO);
    let host = editable(tokens()).await;
    let wanted = json!({
        "name": "hall", "role": "viewer", "sessions": ["a"], "expires": "2100-01-31T12:00:00Z"
    });
    let answer = make(&host, wanted.clone()).await;
    assert_eq!((answer.status, answer.header("cache-control")), (201, Some("no-store")));
    assert_eq!(answer.header("set-cookie"), None);
    let made: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(made["name"], "hall");
    let text = made["token"].as_str().unwrap();
    let bearer = format!("Authorization: Bearer {text}\r\n");
    let hall = json!({"name": "hall", "role": "viewer", "sessions": ["a"], "login": true});
    assert_eq!(me(&host, &bearer).await, hall);

    let config = host.config.borrow().server.tokens.clone();
    let kept = config.iter().find(|token| token.name == "hall").unwrap();
    assert_eq!((&kept.hash, kept.role), (&TokenHash::of(text), Role::Viewer));
    assert_eq!(kept.expires.unwrap().to_string(), "2100-01-31T12:00:00Z");
    let listed = host.ask(Admin, "GET /v1/tokens").await.body;
    assert!(listed.contains("hall") && !listed.contains(text));
    let (said, audit) = (log.text(), host.ask(Admin, "GET /v1/audit").await.body);
    assert!(said.contains("action=\"make_token\"") && audit.contains("make_token"));
    assert!(audit.contains(r#"{\"name\":\"hall\",\"role\":\"viewer\"}"#), "{audit}");
    assert!(!said.contains(text) && !audit.contains(text));

    let again = make(&host, wanted).await;
    assert_eq!((again.status, again.code().as_str()), (409, "exists"));
}

#[tokio::test]
async fn a_revoked_token_ends_at_once_and_the_last_admins_stays() {
    let host = editable(tokens()).await;
    let revoke = async |name: &str| host.ask(Admin, &format!("DELETE /v1/tokens/{name}")).await;
    assert_eq!(host.ask(Viewer, "GET /v1/me").await.status, 200);
    assert_eq!(revoke("Viewer").await.status, 204);
    assert_eq!(host.ask(Viewer, "GET /v1/me").await.status, 401);
    assert_eq!(host.ask(Operator, "GET /v1/me").await.status, 200);
    let gone = revoke("Viewer").await;
    assert_eq!((gone.status, gone.code().as_str()), (404, "not_in_config"));
    // The expired one is an admin's, and lets nobody in.
    let last = revoke("Admin").await;
    assert_eq!((last.status, last.code().as_str()), (409, "no_admin"));
    assert_eq!(revoke(&Expired.name()).await.status, 204);
    assert_eq!(make(&host, json!({"name": "other", "role": "admin"})).await.status, 201);
    assert_eq!(revoke("Admin").await.status, 204);
    assert_eq!(host.ask(Admin, "GET /v1/me").await.status, 401);
}

#[tokio::test]
async fn who_makes_the_first_token_is_an_admin_and_stays_logged_in() {
    let host = editable(Vec::new()).await;
    let make = async |role| {
        let wanted = json!({"name": "first", "role": role}).to_string();
        host.post(Ipv4Addr::LOCALHOST, "/v1/tokens", "", &wanted).await
    };
    let viewer = make("viewer").await;
    assert_eq!((viewer.status, viewer.code().as_str()), (409, "no_admin"));
    let first = make("admin").await;
    assert_eq!(first.status, 201);
    assert!(first.header("set-cookie").unwrap().starts_with("ocelli="));
    assert_eq!(host.send(Ipv4Addr::LOCALHOST, "GET /v1/me", "").await.status, 401);
    let made: Value = serde_json::from_str(&first.body).unwrap();
    let bearer = format!("Authorization: Bearer {}\r\n", made["token"].as_str().unwrap());
    assert_eq!(me(&host, &bearer).await["role"], "admin");
    let listed = host.send(Ipv4Addr::LOCALHOST, "GET /v1/tokens", &bearer).await;
    assert!(listed.body.contains("\"logins\":1"), "{}", listed.body);
}

#[tokio::test]
async fn a_token_that_the_config_would_refuse_is_not_made_and_a_closed_config_says_how() {
    let host = editable(tokens()).await;
    let local = json!({"name": "local", "role": "viewer"});
    let sessions = json!({"name": "x", "role": "admin", "sessions": ["a"]});
    let over = json!({"name": "x", "role": "viewer", "expires": "2001-01-01T00:00:00Z"});
    for wanted in [local, sessions, over] {
        let answer = make(&host, wanted.clone()).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "invalid_config"), "{wanted}");
    }
    for malformed in [json!({"name": "x"}), json!({"name": "x", "role": "god"}), json!([])] {
        assert_eq!(make(&host, malformed.clone()).await.status, 400, "{malformed}");
    }
    let before = host.config.borrow().server.tokens.clone();
    host.edit(|server| server.edit_config = false);
    let answer = make(&host, json!({"name": "hall", "role": "viewer"})).await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "config_not_editable"));
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("ocelli token new \"hall\" --role viewer"), "{detail}");
    assert_eq!(body.get("toml"), None, "an entry without its token is of no use");
    assert_eq!(host.config.borrow().server.tokens, before);
}
