//! New tokens, for `ocelli token new` and for the API.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rand::TryRng;
use rand::rngs::{SysError, SysRng};
use serde::Deserialize;

use super::check::{NameError, check_token_name};
use super::server::{Role, Token, TokenHash};

/// The beginning of every token, by which scanners and people recognise one.
const PREFIX: &str = "ocelli_";

/// Random bytes of a token: not to be guessed, nor found from its hash.
const BYTES: usize = 32;

/// A token that is to be made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// As the log and the history of deployments will name who uses it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The sessions that a viewer sees; left out: all.
    #[serde(default)]
    pub sessions: Option<Vec<String>>,
    /// When it ends, as RFC 3339 writes it; left out: never.
    #[serde(default, with = "super::text::optional")]
    pub expires: Option<Timestamp>,
}

/// Why a token is not made.
#[derive(Debug, thiserror::Error)]
pub enum TokenRequestError {
    /// The config would refuse its name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Sessions of another role.
    #[error("only a viewer's sessions are named; role \"{}\" sees all", .0.name())]
    Sessions(Role),
    /// It ends before it begins.
    #[error("it would have ended already")]
    Over,
    /// There are no random bytes.
    #[error("asking the system for random bytes: {0}")]
    Random(#[from] SysError),
}

impl TokenRequest {
    /// Makes the token: its text, which is shown once, and what the config holds.
    pub fn make(self) -> Result<(String, Token), TokenRequestError> {
        let mut random = [0; BYTES];
        SysRng.try_fill_bytes(&mut random)?;
        let text = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random));
        let token = self.with_text(&text, Timestamp::now())?;
        Ok((text, token))
    }

    fn with_text(self, text: &str, now: Timestamp) -> Result<Token, TokenRequestError> {
        let Self { name, role, sessions, expires } = self;
        check_token_name(&name)?;
        let sessions = sessions.filter(|sessions| !sessions.is_empty());
        if role != Role::Viewer && sessions.is_some() {
            return Err(TokenRequestError::Sessions(role));
        }
        if expires.is_some_and(|expires| expires <= now) {
            return Err(TokenRequestError::Over);
        }
        Ok(Token { name, hash: TokenHash::of(text), role, sessions, expires })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(role: Role, sessions: &[&str]) -> TokenRequest {
        let sessions = sessions.iter().map(|name| (*name).to_owned()).collect();
        TokenRequest { name: "dash".into(), role, sessions: Some(sessions), expires: None }
    }

    #[test]
    fn a_token_that_the_config_would_refuse_or_that_is_over_is_not_made() {
        let refused = |wanted: TokenRequest| wanted.make().unwrap_err().to_string();
        assert!(refused(wanted(Role::Operator, &["a"])).contains("viewer"));
        let past = Some(Timestamp::UNIX_EPOCH);
        let over = TokenRequest { expires: past, ..wanted(Role::Viewer, &[]) };
        assert!(refused(over).contains("ended"));
        let local = TokenRequest { name: "local".into(), ..wanted(Role::Viewer, &[]) };
        assert!(refused(local).contains("local"));
    }

    #[test]
    fn a_new_token_is_random_and_only_its_hash_is_kept() {
        let [(one, token), (two, _)] = [(); 2].map(|()| wanted(Role::Viewer, &[]).make().unwrap());
        assert!(one.starts_with(PREFIX) && one.len() == PREFIX.len() + 43 && one != two);
        assert_eq!(token.hash, TokenHash::of(&one));
        // An empty list would admit to no session; without a list, all are seen.
        assert_eq!(token.sessions, None);
    }
}
