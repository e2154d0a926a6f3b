//! `ocelli token`: makes tokens for the API.

use std::collections::BTreeMap;

use crate::config::{Role, Token, TokenHash, check_token_name};
use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use rand::TryRng;
use rand::rngs::SysRng;
use serde_json::json;

/// The beginning of every token, by which scanners and people recognise one.
const PREFIX: &str = "ocelli_";

/// Random bytes of a token: not to be guessed, nor found from its hash.
const BYTES: usize = 32;

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token: it goes to standard output, once, and what the config needs to know of it to
    /// standard error.
    New(NewToken),
}

#[derive(Args)]
pub(super) struct NewToken {
    /// As the log and the history of deployments will name who uses it.
    name: String,
    /// viewer: looks at sessions. operator: also analyses pictures, deploys, restarts, makes
    /// sessions. admin: everything.
    #[arg(long, value_parser = role)]
    role: Role,
    /// A session that a viewer sees; may be given several times. Left out: all.
    #[arg(long = "session", value_name = "ID")]
    sessions: Vec<String>,
    /// When it ends: 2030-01-31T12:00:00Z. Left out: never.
    #[arg(long, value_name = "TIME")]
    expires: Option<Timestamp>,
    /// Both as one JSON object on standard output, for programs.
    #[arg(long)]
    json: bool,
}

fn role(text: &str) -> Result<Role, String> {
    let roles = [Role::Viewer, Role::Operator, Role::Admin];
    roles
        .into_iter()
        .find(|role| role.name() == text)
        .ok_or_else(|| "viewer, operator or admin".into())
}

impl TokenCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self::New(new) = self;
        let mut random = [0; BYTES];
        SysRng.try_fill_bytes(&mut random).context("asking the system for random bytes")?;
        new.run(&format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random)))
    }
}

impl NewToken {
    fn run(self, text: &str) -> anyhow::Result<()> {
        let json = self.json;
        let token = self.token(text, Timestamp::now())?;
        let entry = entry(&token)?;
        if json {
            println!("{}", json!({"token": text, "entry": token, "config": entry}));
        } else {
            println!("{text}");
            eprintln!(
                "# The token is shown this once. This goes into the config of the host, which \
                    takes it over at once:\n\n{entry}"
            );
        }
        Ok(())
    }

    fn token(self, text: &str, now: Timestamp) -> anyhow::Result<Token> {
        let Self { name, role, sessions, expires, .. } = self;
        check_token_name(&name)?;
        if role != Role::Viewer && !sessions.is_empty() {
            bail!("only a viewer's sessions are named; role \"{}\" sees all", role.name());
        }
        if expires.is_some_and(|expires| expires <= now) {
            bail!("it would have ended already");
        }
        let sessions = (!sessions.is_empty()).then_some(sessions);
        Ok(Token { name, hash: TokenHash::of(text), role, sessions, expires })
    }
}

/// The table of the config.
fn entry(token: &Token) -> anyhow::Result<String> {
    let config = BTreeMap::from([("server", BTreeMap::from([("tokens", [token])]))]);
    // The table alone: the config has a section of that name already.
    let text = toml::to_string(&config).context("writing the table")?;
    Ok(text.trim_start_matches("[server]").trim_start().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    use super::*;

    fn new(role: Role, sessions: &[&str], expires: Option<&str>) -> NewToken {
        NewToken {
            name: "dash \"1\"".into(),
            role,
            sessions: sessions.iter().map(|name| (*name).to_owned()).collect(),
            expires: expires.map(|time| time.parse().unwrap()),
            json: false,
        }
    }

    #[test]
    fn what_is_printed_is_what_the_config_takes() {
        for new in [
            new(Role::Viewer, &["a;b", "c"], Some("2100-01-31T12:00:00Z")),
            new(Role::Viewer, &[], None),
            new(Role::Admin, &[], None),
        ] {
            let token = new.token("ocelli_text", Timestamp::now()).unwrap();
            let text = format!("[server]\nlisten = \"0.0.0.0:1\"\n{}", entry(&token).unwrap());
            let config = Config::from_text(Path::new("a.toml"), &text, &[])
                .unwrap_or_else(|e| panic!("{e}: {text}"));
            assert_eq!(config.server.tokens, [token]);
        }
    }

    #[test]
    fn a_token_that_the_config_would_refuse_or_that_is_over_is_not_made() {
        let refused = |new: NewToken| new.token("t", Timestamp::now()).unwrap_err().to_string();
        assert!(refused(new(Role::Operator, &["a"], None)).contains("viewer"));
        assert!(refused(new(Role::Viewer, &[], Some("2001-01-01T00:00:00Z"))).contains("ended"));
        assert!(
            refused(NewToken { name: "local".into(), ..new(Role::Viewer, &[], None) })
                .contains("local")
        );
    }
}
