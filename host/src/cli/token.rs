//! `ocelli token`: makes tokens for the API.

use std::collections::BTreeMap;

use anyhow::Context;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use crate::config::{Role, Token, TokenRequest};

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
        let Self::New(NewToken { name, role, sessions, expires, json }) = self;
        let sessions = (!sessions.is_empty()).then_some(sessions);
        let (text, token) = TokenRequest { name, role, sessions, expires }.make()?;
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

    #[test]
    fn what_is_printed_is_what_the_config_takes() {
        let until = Some("2100-01-31T12:00:00Z");
        let some = Some(&["a;b", "c"][..]);
        for (role, sessions, expires) in
            [(Role::Viewer, some, until), (Role::Viewer, None, None), (Role::Admin, None, None)]
        {
            let name = "dash \"1\"".into();
            let sessions = sessions.map(|all| all.iter().map(|it| (*it).to_owned()).collect());
            let expires = expires.map(|time| time.parse().unwrap());
            let (_, token) = TokenRequest { name, role, sessions, expires }.make().unwrap();
            let text = format!("[server]\nlisten = \"0.0.0.0:1\"\n{}", entry(&token).unwrap());
            let config = Config::from_text(Path::new("a.toml"), &text, &[])
                .unwrap_or_else(|e| panic!("{e}: {text}"));
            assert_eq!(config.server.tokens, [token]);
        }
    }
}
