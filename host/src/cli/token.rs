//! `ocelli token`: tokens for the API, of one host's config or of all hosts of a site.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use hyper::Method;
use jiff::Timestamp;
use ocelli_client::Request;
use serde_json::{Map, Value, json};

use super::host::{Asked, HostArgs};
use super::table::{Look, entries, printable};
use crate::config::{Role, Token, TokenRequest};

/// Columns of the table of tokens: heading, member.
const COLUMNS: [(&str, &str); 6] = [
    ("NAME", "name"),
    ("ROLE", "role"),
    ("SESSIONS", "sessions"),
    ("EXPIRES", "expires"),
    ("MADE", "made"),
    ("BY", "by"),
];

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token: it goes to standard output, once, and what the config needs to know of it to
    /// standard error.
    New(NewToken),
    /// Make a token that all hosts of a running host's site know at once. It goes to standard
    /// output, once.
    Add(AddToken),
    /// List the tokens of a running host's site.
    List(HostArgs),
    /// Revoke tokens on all hosts of a running host's site: what they opened ends.
    Revoke(RevokeTokens),
}

#[derive(Args)]
pub(super) struct NewToken {
    #[command(flatten)]
    wanted: WantedToken,
    /// Both as one JSON object on standard output, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct AddToken {
    #[command(flatten)]
    wanted: WantedToken,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args)]
pub(super) struct RevokeTokens {
    /// The token, or several.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args)]
struct WantedToken {
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
        match self {
            Self::New(new) => new.run(),
            Self::Add(add) => add.run(),
            Self::List(host) => list(&host),
            Self::Revoke(revoke) => revoke.run(),
        }
    }
}

impl WantedToken {
    fn request(self) -> TokenRequest {
        let Self { name, role, sessions, expires } = self;
        let sessions = (!sessions.is_empty()).then_some(sessions);
        TokenRequest { name, role, sessions, expires }
    }
}

impl AddToken {
    fn run(self) -> anyhow::Result<()> {
        let Self { wanted, host } = self;
        let TokenRequest { name, role, sessions, expires } = wanted.request();
        let mut body = Map::from_iter([
            ("name".to_owned(), Value::from(name)),
            ("role".to_owned(), role.name().into()),
        ]);
        body.extend(sessions.map(|sessions| ("sessions".to_owned(), sessions.into())));
        body.extend(expires.map(|expires| ("expires".to_owned(), expires.to_string().into())));
        let request = Request::post(&["cluster", "tokens"]);
        let request = request.content("application/json", Value::from(body).to_string().into());
        let answer = host.answer(&request, Asked::nothing())?;
        let Some(text) = answer.get("token").and_then(Value::as_str) else {
            bail!("{} does not answer as an Ocelli host does", host.url);
        };
        host.told(&answer, &printable(text));
        if !host.json {
            eprintln!("# The token is shown this once. Each host of the site knows it.");
        }
        Ok(())
    }
}

impl RevokeTokens {
    fn run(&self) -> anyhow::Result<()> {
        for name in &self.names {
            let request = Request::new(Method::DELETE, &["cluster", "tokens", name]);
            self.host.answer(&request, Asked::nothing())?;
            let answer = json!({"name": name, "state": "revoked"});
            self.host.told(&answer, &format!("{}: revoked", printable(name)));
        }
        Ok(())
    }
}

/// Lists the tokens of the site.
fn list(host: &HostArgs) -> anyhow::Result<()> {
    let request = Request::get(&["cluster", "tokens"]);
    if let Some(list) = host.list(&request, "tokens", Asked::nothing())? {
        let rows: Vec<Value> = list.into_iter().map(row).collect();
        anstream::print!("{}", entries(&rows, &COLUMNS, "reason", Look::stdout()));
    }
    Ok(())
}

fn row(mut token: Value) -> Value {
    let is = |member: &str| token.get(member).and_then(Value::as_bool).unwrap_or_default();
    let reason = match (is("overridden"), is("expired")) {
        (true, _) => Some("the host that answers has another one of this name in its config"),
        (_, true) => Some("it has expired"),
        _ => None,
    };
    if let Some(members) = token.as_object_mut() {
        members.insert("reason".to_owned(), reason.into());
        if members.get("sessions").is_some_and(Value::is_null) {
            members.insert("sessions".to_owned(), "all".into());
        }
    }
    token
}

impl NewToken {
    fn run(self) -> anyhow::Result<()> {
        let Self { wanted, json } = self;
        let (text, token) = wanted.request().make()?;
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
    fn the_sites_tokens_are_a_table() {
        let token = |name: &str, sessions: Value, overridden: bool| {
            json!({"name": name, "role": "viewer", "sessions": sessions, "expires": null,
                "expired": false, "by": "ann", "made": "2026-11-30T12:00:00.000Z",
                "overridden": overridden, "logins": 0})
        };
        let list = [token("wall", json!(["gate", "yard"]), false), token("ops", json!(null), true)];
        let rows: Vec<Value> = list.into_iter().map(row).collect();
        let expected = "\
NAME  ROLE    SESSIONS    EXPIRES  MADE                      BY
wall  viewer  gate, yard  -        2026-11-30T12:00:00.000Z  ann
ops   viewer  all         -        2026-11-30T12:00:00.000Z  ann
  reason: the host that answers has another one of this name in its config
";
        assert_eq!(entries(&rows, &COLUMNS, "reason", Look::PLAIN), expected);
    }

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
