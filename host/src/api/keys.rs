//! The valid tokens, as the config and the site have them now.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::RwLock;
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::access::{Caller, Role, Scope};
use crate::cluster::{SiteTokenList, tokens_in_force};
use crate::config::{Config, Token, TokenHash};

/// The interval of checks for expired tokens; a change of the system's clock counts within it.
const CLOCK: Duration = Duration::from_secs(15);

/// Why a request has no valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AuthError {
    /// No token came with the request.
    Missing,
    /// No token of this host or its site has this text.
    Wrong,
    /// The token of this name has expired.
    Expired(String),
    /// The cookie's login is over, or was never one.
    LoggedOut,
}

/// What the valid tokens are taken from.
#[derive(Debug, Clone)]
pub(super) struct TokenSources {
    config: watch::Receiver<Arc<Config>>,
    /// `None`: the host stands alone.
    site: Option<watch::Receiver<SiteTokenList>>,
}

impl TokenSources {
    pub(super) fn new(
        config: watch::Receiver<Arc<Config>>,
        site: Option<watch::Receiver<SiteTokenList>>,
    ) -> Self {
        Self { config, site }
    }

    /// The config that is in force.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Those of both that are in force.
    pub(super) fn all(&self) -> Vec<Token> {
        let site = self.site.as_ref().map(|site| Arc::clone(&site.borrow()));
        tokens_in_force(&self.config().server.tokens, site.as_ref())
    }

    async fn changed(&mut self) {
        let Self { config, site } = self;
        let of_site = async {
            match site {
                Some(site) => change(site).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = change(config) => {}
            () = of_site => {}
        }
    }
}

/// The next change; never where there are no more.
async fn change<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The valid tokens and their callers.
#[derive(Debug)]
pub(super) struct Keys {
    /// Whether only this machine reaches the host, so that it can do without tokens.
    loopback: bool,
    table: RwLock<TokenTable>,
}

#[derive(Debug, Default)]
struct TokenTable {
    entries: Vec<TokenEntry>,
    /// The caller of all requests while there are no tokens.
    local: Option<Caller>,
}

#[derive(Debug)]
struct TokenEntry {
    token: Token,
    caller: Caller,
}

impl TokenEntry {
    fn new(token: &Token) -> Self {
        let scope = match &token.sessions {
            Some(sessions) if token.role == Role::Viewer => {
                Scope::Named(sessions.iter().cloned().collect())
            }
            _ => Scope::All,
        };
        let caller = Caller {
            name: token.name.as_str().into(),
            role: token.role,
            scope,
            revoked: CancellationToken::new(),
        };
        Self { token: token.clone(), caller }
    }

    fn ended(&self, now: Timestamp) -> bool {
        self.token.expires.is_some_and(|expires| expires <= now)
    }
}

impl Keys {
    /// `loopback`: the host listens on a loopback address.
    pub(super) fn new(tokens: &[Token], loopback: bool, now: Timestamp) -> Self {
        let keys = Self { loopback, table: RwLock::default() };
        keys.update(tokens, now);
        keys
    }

    /// Takes the tokens as they are now. Connections of tokens that are removed, changed or expired
    /// end.
    pub(super) fn refresh(&self, sources: &TokenSources, now: Timestamp) {
        let mut table = self.table.write();
        // Read under the lock: of two who do this at once, the later one has the later tokens.
        self.replace(&mut table, &sources.all(), now);
    }

    fn update(&self, tokens: &[Token], now: Timestamp) {
        self.replace(&mut self.table.write(), tokens, now);
    }

    fn replace(&self, table: &mut TokenTable, tokens: &[Token], now: Timestamp) {
        let TokenTable { entries: mut before, local } = std::mem::take(table);
        for token in tokens {
            let same = before.iter().position(|entry| entry.token == *token);
            table.entries.push(
                same.map_or_else(|| TokenEntry::new(token), |index| before.swap_remove(index)),
            );
        }
        if tokens.is_empty() && self.loopback {
            table.local = Some(local.unwrap_or_else(Caller::local));
        } else {
            // Without tokens, other machines get no access.
            local.iter().for_each(|local| local.revoked.cancel());
        }
        before.iter().for_each(|entry| entry.caller.revoked.cancel());
        table.revoke_ended(now);
    }

    /// Whether the host needs no tokens.
    pub(super) fn open(&self) -> bool {
        self.table.read().local.is_some()
    }

    /// The caller of this token. The comparison takes the same time for every token.
    pub(super) fn authenticate(
        &self,
        presented: Option<&str>,
        now: Timestamp,
    ) -> Result<Caller, AuthError> {
        let table = self.table.read();
        match &table.local {
            Some(local) => Ok(local.clone()),
            None => table.find(&TokenHash::of(presented.ok_or(AuthError::Missing)?), now),
        }
    }

    /// Whether there is a token of this hash that has not expired.
    pub(super) fn has(&self, hash: &TokenHash, now: Timestamp) -> bool {
        self.table.read().find(hash, now).is_ok()
    }

    /// Revokes expired tokens. Whether there are tokens that expire.
    fn tick(&self, now: Timestamp) -> bool {
        self.table.write().revoke_ended(now)
    }

    /// Follows config, site and clock until it is dropped.
    pub(super) async fn follow(self: Arc<Self>, mut sources: TokenSources) {
        loop {
            let ends = self.tick(Timestamp::now());
            tokio::select! {
                () = sources.changed() => self.refresh(&sources, Timestamp::now()),
                () = tokio::time::sleep(CLOCK), if ends => {}
            }
        }
    }
}

impl TokenTable {
    fn find(&self, hash: &TokenHash, now: Timestamp) -> Result<Caller, AuthError> {
        let mut found = None;
        for entry in &self.entries {
            if bool::from(entry.token.hash.bytes().ct_eq(hash.bytes())) {
                found = Some(entry);
            }
        }
        match found {
            None => Err(AuthError::Wrong),
            Some(entry) if entry.ended(now) => Err(AuthError::Expired(entry.token.name.clone())),
            Some(entry) => Ok(entry.caller.clone()),
        }
    }

    /// Ends the connections of expired tokens: whether any expires. One that a wrong clock had
    /// expired is valid again.
    fn revoke_ended(&mut self, now: Timestamp) -> bool {
        for entry in &mut self.entries {
            if entry.ended(now) {
                entry.caller.revoked.cancel();
            } else if entry.caller.revoked.is_cancelled() {
                entry.caller.revoked = CancellationToken::new();
            }
        }
        self.entries.iter().any(|entry| entry.token.expires.is_some())
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    fn token(
        name: &str,
        role: Role,
        sessions: Option<&[&str]>,
        expires: Option<Timestamp>,
    ) -> Token {
        Token {
            name: name.into(),
            hash: TokenHash::of(&format!("secret of {name}")),
            role,
            sessions: sessions.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            expires,
        }
    }

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH + 20_000.hours()
    }

    #[test]
    fn only_the_text_of_a_token_gets_in_and_only_until_it_ends() {
        let (one, two) = (
            token("one", Role::Viewer, Some(&["a"]), None),
            token("two", Role::Operator, None, Some(now() + 1.second())),
        );
        let keys = Keys::new(&[one.clone(), two], true, now());
        assert!(!keys.open());
        let caller = keys.authenticate(Some("secret of one"), now()).unwrap();
        assert_eq!((&*caller.name, caller.role), ("one", Role::Viewer));
        assert!(caller.sees("a") && !caller.sees("b") && !caller.sees_all());
        assert!(keys.authenticate(Some("secret of two"), now()).unwrap().sees_all());
        assert_eq!(
            keys.authenticate(Some("secret of two"), now() + 1.second()).unwrap_err(),
            AuthError::Expired("two".into())
        );
        assert_eq!(keys.authenticate(None, now()).unwrap_err(), AuthError::Missing);
        for wrong in ["", "secret of", "secret of one ", &one.hash.to_string()] {
            assert_eq!(
                keys.authenticate(Some(wrong), now()).unwrap_err(),
                AuthError::Wrong,
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_was_opened_with_a_token_ends_when_it_is_removed_changed_or_over_and_not_before() {
        let [one, two, three, four] =
            ["one", "two", "three", "four"].map(|name| token(name, Role::Viewer, None, None));
        let three = Token { expires: Some(now() + 1.minute()), ..three };
        let keys = Keys::new(&[one.clone(), two.clone(), three.clone(), four.clone()], true, now());
        let revoked = |name: &str| {
            keys.authenticate(Some(&format!("secret of {name}")), now()).unwrap().revoked
        };
        let [first, second, third, fourth] = ["one", "two", "three", "four"].map(revoked);
        keys.update(&[four, Token { sessions: Some(vec!["a".into()]), ..two }, three], now());
        assert!(
            first.is_cancelled()
                && second.is_cancelled()
                && !third.is_cancelled()
                && !fourth.is_cancelled()
        );
        assert!(!revoked("two").is_cancelled(), "the changed one may come again");
        assert!(keys.tick(now()) && !third.is_cancelled());
        keys.tick(now() + 1.minute());
        assert!(third.is_cancelled() && !fourth.is_cancelled());
        keys.tick(now());
        assert!(!revoked("three").is_cancelled(), "the clock was ahead for a while");
    }

    #[test]
    fn without_tokens_whoever_reaches_a_loopback_address_gets_in_and_nobody_else() {
        let open = Keys::new(&[], true, now());
        let local = open.authenticate(None, now()).unwrap();
        assert!(open.open() && local.sees_all() && local.role == Role::Admin);
        open.update(&[token("one", Role::Admin, None, None)], now());
        assert!(local.revoked.is_cancelled() && open.authenticate(None, now()).is_err());
        open.update(&[], now());
        assert!(!open.authenticate(Some("anything"), now()).unwrap().revoked.is_cancelled());

        let reachable = Keys::new(&[token("one", Role::Admin, None, None)], false, now());
        reachable.update(&[], now());
        assert!(!reachable.open() && reachable.authenticate(None, now()).is_err());
        assert!(reachable.authenticate(Some("secret of one"), now()).is_err());
    }
}
