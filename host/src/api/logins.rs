//! Logins: a browser trades a token for a random id in a cookie, so that no script of a page ever
//! holds the token.
//!
//! A login ends with its token, by a logout, or when its time is over, and so do the connections
//! that it opened. Logins are in memory: a restart of the host ends them, and a browser that still
//! has the token trades it again.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ocelli_protocol::digest::Digest;
use parking_lot::Mutex;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::access::Caller;
use super::site::OwnToken;
use crate::config::TokenHash;

/// How long a login lasts: a working day, however often it is used.
pub(super) const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Most logins, one for each WebSocket that is served. One takes some 300 bytes.
const MAX_LOGINS: usize = 4096;

/// Random bytes of an id: not to be guessed.
const BYTES: usize = 32;

/// The cookie's name on plain HTTP.
const PLAIN: &str = "ocelli";

/// Its name under TLS. Browsers take a name with this prefix from this host alone, not from a
/// neighbour of the same domain, who could slip in a login of its own.
const SECURE: &str = "__Host-ocelli";

/// As [`SECURE`], for a host below a path of its name, which a cookie of that prefix cannot be for.
/// Other programs of the name do not get it.
const SECURE_BELOW: &str = "__Secure-ocelli";

/// How the browser reached the host, which decides about the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CookieKind<'a> {
    /// By HTTPS.
    pub(super) secure: bool,
    /// Below this path; empty: anywhere.
    pub(super) base: &'a str,
}

impl CookieKind<'_> {
    /// A name for each path: a browser sends the cookie of a host below `/` to one below `/cams`,
    /// too.
    fn name(self) -> String {
        let name = match (self.secure, self.base.is_empty()) {
            (false, _) => PLAIN,
            (true, true) => SECURE,
            (true, false) => SECURE_BELOW,
        };
        format!("{name}{}", self.base.replace('/', "-"))
    }

    /// The id in a request. Two cookies of the name count as none. A page of another origin on this
    /// machine sends the cookie too, but says in `Sec-Fetch-Site` that it is not this host's.
    pub(super) fn id(self, headers: &HeaderMap) -> Option<&str> {
        let foreign = |value: &HeaderValue| value != "same-origin" && value != "none";
        if headers.get("sec-fetch-site").is_some_and(foreign) {
            return None;
        }
        let known = self.name();
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|it| it.split_once('='));
        let mut ids = pairs.filter(|(name, _)| name.trim() == known).map(|(_, id)| id.trim());
        ids.next().filter(|_| ids.next().is_none())
    }

    /// The header that sets the cookie.
    pub(super) fn set(self, id: &str) -> String {
        self.header(id, LIFETIME.as_secs())
    }

    /// The header that removes it.
    pub(super) fn remove(self) -> String {
        self.header("", 0)
    }

    fn header(self, id: &str, seconds: u64) -> String {
        let (name, base) = (self.name(), self.base);
        let path = if base.is_empty() { "/" } else { base };
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{name}={id}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
    }
}

/// Which login a request came by. Kept instead of the id, from which it cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LoginKey(Digest);

/// The logins that are open.
#[derive(Debug, Default)]
pub(super) struct Logins {
    open: Mutex<HashMap<LoginKey, Login>>,
    begun: Notify,
}

#[derive(Debug, Clone)]
pub(super) struct Login {
    /// The token that it was traded for.
    pub(super) token: TokenHash,
    /// The token itself, where requests go on to other hosts of a site.
    pub(super) kept: OwnToken,
    /// Its caller, whose connections end with the login.
    pub(super) caller: Caller,
    ends: Instant,
}

impl Login {
    fn over(&self, now: Instant) -> bool {
        self.ends <= now || self.caller.revoked.is_cancelled()
    }
}

impl Logins {
    /// Begins a login of the caller with this token. Its id is shown this once. Where there are too
    /// many, the oldest goes of the token that has the most.
    pub(super) fn begin(
        &self,
        caller: &Caller,
        token: TokenHash,
        kept: OwnToken,
        now: Instant,
    ) -> Result<String, rand::rngs::SysError> {
        let mut random = [0; BYTES];
        SysRng.try_fill_bytes(&mut random)?;
        let id = BASE64_URL_SAFE_NO_PAD.encode(random);
        let caller = Caller { revoked: caller.revoked.child_token(), ..caller.clone() };
        let mut open = self.open.lock();
        if open.len() >= MAX_LOGINS {
            sweep(&mut open, now);
        }
        if open.len() >= MAX_LOGINS
            && let Some(gone) = oldest_of_the_most(&open).and_then(|key| open.remove(&key))
        {
            gone.caller.revoked.cancel();
        }
        open.insert(key(&id), Login { token, kept, caller, ends: now + LIFETIME });
        self.begun.notify_one();
        Ok(id)
    }

    /// The open login with this id.
    pub(super) fn find(&self, id: &str, now: Instant) -> Option<(LoginKey, Login)> {
        let key = key(id);
        let open = self.open.lock();
        open.get(&key).filter(|login| !login.over(now)).map(|login| (key, login.clone()))
    }

    /// Open logins of the token of this name.
    pub(super) fn count(&self, token: &str, now: Instant) -> usize {
        let open = self.open.lock();
        open.values().filter(|it| &*it.caller.name == token && !it.over(now)).count()
    }

    /// Ends a login, and the connections that it opened.
    pub(super) fn end(&self, key: LoginKey) {
        if let Some(login) = self.open.lock().remove(&key) {
            login.caller.revoked.cancel();
        }
    }

    /// Ends logins whose time is over, until it is dropped.
    pub(super) async fn follow(&self) {
        loop {
            let next = sweep(&mut self.open.lock(), Instant::now());
            let over = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => {}
                () = self.begun.notified() => {}
            }
        }
    }
}

/// Ends those that are over. When the next one is.
fn sweep(open: &mut HashMap<LoginKey, Login>, now: Instant) -> Option<Instant> {
    open.retain(|_, login| {
        let over = login.over(now);
        if over {
            login.caller.revoked.cancel();
        }
        !over
    });
    open.values().map(|login| login.ends).min()
}

fn key(id: &str) -> LoginKey {
    LoginKey(Digest::of(id))
}

/// The oldest login of the token that has the most.
fn oldest_of_the_most(open: &HashMap<LoginKey, Login>) -> Option<LoginKey> {
    let mut by_token = HashMap::<&str, usize>::new();
    for login in open.values() {
        *by_token.entry(&*login.caller.name).or_default() += 1;
    }
    let (most, _) = by_token.into_iter().max_by_key(|(_, count)| *count)?;
    let of_it = open.iter().filter(|(_, login)| &*login.caller.name == most);
    of_it.min_by_key(|(_, login)| login.ends).map(|(key, _)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> Caller {
        Caller { name: name.into(), ..Caller::local() }
    }

    fn token() -> TokenHash {
        TokenHash::of("ocelli_x")
    }

    #[test]
    fn a_login_ends_with_its_token_by_a_logout_and_when_its_time_is_over() {
        let (logins, now) = (Logins::default(), Instant::now());
        let [one, two] = ["one", "two"].map(caller);
        let begin = |caller| logins.begin(caller, token(), OwnToken::default(), now).unwrap();
        let ids = [begin(&one), begin(&one), begin(&two), begin(&two)];
        let found = ids.each_ref().map(|id| logins.find(id, now).unwrap());
        assert!(ids.iter().all(|id| id.len() >= 43) && ids[0] != ids[1]);
        assert!(logins.find("", now).is_none() && logins.find("x", now).is_none());
        assert!(!format!("{logins:?}").contains(&ids[0]), "the id itself is kept nowhere");

        logins.end(found[0].0);
        let there = |now| ids.each_ref().map(|id| logins.find(id, now).is_some());
        assert_eq!(there(now), [false, true, true, true]);
        assert!(found[0].1.caller.revoked.is_cancelled() && !one.revoked.is_cancelled());

        two.revoked.cancel();
        assert_eq!(there(now), [false, true, false, false]);
        assert!(found[2].1.caller.revoked.is_cancelled());

        let last = now + LIFETIME - Duration::from_secs(1);
        assert_eq!(there(last), [false, true, false, false]);
        assert_eq!(there(now + LIFETIME), [false; 4]);
        assert!(!found[1].1.caller.revoked.is_cancelled());
        assert_eq!(sweep(&mut logins.open.lock(), now + LIFETIME), None);
        assert!(found[1].1.caller.revoked.is_cancelled(), "its connections end too");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_login_opened_ends_when_its_time_is_over() {
        let logins = Logins::default();
        let ended = async {
            let id = {
                let (kept, now) = (OwnToken::default(), Instant::now());
                logins.begin(&caller("one"), token(), kept, now).unwrap()
            };
            let (_, login) = logins.find(&id, Instant::now()).unwrap();
            let begun = Instant::now();
            login.caller.revoked.cancelled().await;
            begun.elapsed()
        };
        tokio::select! {
            () = logins.follow() => unreachable!(),
            lasted = ended => assert!(lasted >= LIFETIME && lasted < LIFETIME * 2, "{lasted:?}"),
        }
    }

    #[test]
    fn where_there_are_too_many_the_oldest_goes_of_the_token_with_the_most() {
        let (logins, now) = (Logins::default(), Instant::now());
        let (few, many) = (caller("few"), caller("many"));
        let begin = |caller, after| {
            let now = now + Duration::from_secs(after);
            logins.begin(caller, token(), OwnToken::default(), now).unwrap()
        };
        let rare = begin(&few, 0);
        let often: Vec<_> = (0..MAX_LOGINS as u64).map(|after| begin(&many, after)).collect();
        let there = |id: &str| logins.find(id, now).is_some();
        assert!(there(&rare) && !there(&often[0]) && often[1..].iter().all(|id| there(id)));
    }

    #[test]
    fn the_cookie_is_for_this_host_alone_and_no_script_reads_it() {
        let kind = |secure| CookieKind { secure, base: "" };
        let (plain, secure) = (kind(false), kind(true));
        let text = "ocelli=abc; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict";
        assert_eq!(plain.set("abc"), text);
        assert_eq!(secure.set("abc"), format!("__Host-{text}; Secure"));
        assert!(plain.remove().starts_with("ocelli=; Path=/; Max-Age=0; "));
        let id = |kind: CookieKind<'_>, lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            kind.id(&headers).map(str::to_owned)
        };
        assert_eq!(id(plain, &[("cookie", "ocelli=abc")]).as_deref(), Some("abc"));
        assert_eq!(id(plain, &[("cookie", "a=b; ocelli=abc ;c=d")]).as_deref(), Some("abc"));
        assert_eq!(id(secure, &[("cookie", "__Host-ocelli=abc")]).as_deref(), Some("abc"));
        for own in ["same-origin", "none"] {
            let lines = [("cookie", "ocelli=abc"), ("sec-fetch-site", own)];
            assert_eq!(id(plain, &lines).as_deref(), Some("abc"), "{own}");
        }
        for (kind, lines) in [
            (plain, &[("cookie", "__Host-ocelli=abc")][..]),
            (secure, &[("cookie", "ocelli=abc")]),
            (plain, &[("cookie", "ocelli=abc; ocelli=def")]),
            (plain, &[("cookie", "ocelli=abc"), ("cookie", "ocelli=def")]),
            (plain, &[("cookie", "ocelli")]),
            (plain, &[("cookie", "ocelli=abc"), ("sec-fetch-site", "same-site")]),
            (plain, &[("cookie", "ocelli=abc"), ("sec-fetch-site", "cross-site")]),
            (plain, &[]),
        ] {
            assert_eq!(id(kind, lines), None, "{lines:?}");
        }
    }

    #[test]
    fn below_a_path_the_cookie_is_for_that_path_and_has_a_name_of_its_own() {
        let kind = |secure, base| CookieKind { secure, base };
        let text = "Path=/a/b; Max-Age=43200; HttpOnly; SameSite=Strict";
        assert_eq!(kind(false, "/a/b").set("x"), format!("ocelli-a-b=x; {text}"));
        assert_eq!(kind(true, "/a/b").set("x"), format!("__Secure-ocelli-a-b=x; {text}; Secure"));
        let mut headers = HeaderMap::new();
        let all = "ocelli=1; ocelli-a=2; ocelli-a-b=3; __Host-ocelli=4; __Secure-ocelli-a=5";
        headers.insert(header::COOKIE, HeaderValue::from_static(all));
        for (secure, base, id) in [
            (false, "", "1"),
            (false, "/a", "2"),
            (false, "/a/b", "3"),
            (true, "", "4"),
            (true, "/a", "5"),
        ] {
            assert_eq!(kind(secure, base).id(&headers), Some(id), "{secure} {base}");
        }
    }
}
