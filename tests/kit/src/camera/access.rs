//! User names and passwords as cameras ask for them: Basic, and Digest with MD5 or SHA-256
//! (RFC 7616).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use sha2::Sha256;

use super::answer::{Answer, Request};

/// What a camera asks for.
#[derive(Debug, Clone)]
pub struct Access {
    user: String,
    password: String,
    /// Values of `WWW-Authenticate`, in order; `{nonce}` is replaced.
    challenges: Vec<String>,
    one_use: bool,
    says_stale: bool,
    asked_for: &'static [&'static str],
}

/// The nonce of one connection.
#[derive(Debug, Default)]
pub(super) struct Nonce {
    number: u64,
}

impl Access {
    /// A camera that asks `admin` for the password `secret` with these challenges, in which
    /// `{nonce}` stands for the nonce, before each request but OPTIONS.
    pub fn asking(challenges: &[&str]) -> Self {
        Self {
            user: "admin".to_owned(),
            password: "secret".to_owned(),
            challenges: challenges.iter().map(ToString::to_string).collect(),
            one_use: false,
            says_stale: true,
            asked_for: &["DESCRIBE", "SETUP", "PLAY", "GET_PARAMETER", "SET_PARAMETER"],
        }
    }

    /// Each nonce is good for one request. `says_stale` is whether the refusal of a used one says
    /// so.
    pub fn one_use(mut self, says_stale: bool) -> Self {
        (self.one_use, self.says_stale) = (true, says_stale);
        self
    }

    /// Asks at these methods alone.
    pub fn at(mut self, methods: &'static [&'static str]) -> Self {
        self.asked_for = methods;
        self
    }

    /// As they stand in a URL.
    pub(super) fn credentials(&self) -> String {
        format!("{}:{}@", self.user, self.password)
    }

    /// The refusal of a request; none where it may pass.
    pub(super) fn refusal(&self, nonce: &mut Nonce, request: &Request) -> Option<Answer> {
        if !self.asked_for.contains(&request.method.as_str()) {
            return None;
        }
        let given = request.header("authorization");
        let stale = match given.split_once(' ') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("digest") => {
                if field(rest, "nonce") == nonce.text() {
                    if self.is_right_digest(rest, &request.method) {
                        nonce.number += u64::from(self.one_use);
                        return None;
                    }
                    false
                } else {
                    self.says_stale
                }
            }
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") => {
                if self.is_right_basic(rest) {
                    return None;
                }
                false
            }
            _ => false,
        };
        nonce.number += 1;
        let mut answer = Answer::new("401 Unauthorized");
        for challenge in &self.challenges {
            let stale = if stale && challenge.contains("{nonce}") { ", stale=TRUE" } else { "" };
            let value = challenge.replace("{nonce}", &nonce.text()) + stale;
            answer.add("WWW-Authenticate", &value);
        }
        Some(answer)
    }

    fn is_right_basic(&self, given: &str) -> bool {
        let offered = self.challenges.iter().any(|challenge| challenge.starts_with("Basic"));
        offered && given.trim() == STANDARD.encode(format!("{}:{}", self.user, self.password))
    }

    fn is_right_digest(&self, given: &str, method: &str) -> bool {
        let algorithm = field(given, "algorithm").to_lowercase();
        let offered = |challenge: &String| {
            let challenge = challenge.to_lowercase();
            // MD5 is the one that needs no name.
            let unnamed = !challenge.contains("algorithm") && matches!(&*algorithm, "" | "md5");
            let named = !algorithm.is_empty() && challenge.contains(&algorithm);
            challenge.starts_with("digest") && (unnamed || named || algorithm.is_empty())
        };
        if !self.challenges.iter().any(offered) {
            return false;
        }
        // A client need not repeat the algorithm where one alone is offered.
        let sha256 = algorithm.starts_with("sha-256")
            || algorithm.is_empty() && self.challenges.iter().all(|text| text.contains("SHA-256"));
        let hash = |text: String| if sha256 { hex::<Sha256>(&text) } else { hex::<Md5>(&text) };
        let [nonce, nc, cnonce, qop] = ["nonce", "nc", "cnonce", "qop"].map(|n| field(given, n));
        let mut secret = hash(format!("{}:{}:{}", self.user, field(given, "realm"), self.password));
        if algorithm.ends_with("-sess") {
            secret = hash(format!("{secret}:{nonce}:{cnonce}"));
        }
        let asked = hash(format!("{method}:{}", field(given, "uri")));
        let expected = if qop.is_empty() {
            hash(format!("{secret}:{nonce}:{asked}"))
        } else {
            hash(format!("{secret}:{nonce}:{nc}:{cnonce}:{qop}:{asked}"))
        };
        field(given, "username") == self.user && field(given, "response") == expected
    }
}

impl Nonce {
    fn text(&self) -> String {
        format!("{:032x}", self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// A parameter of an `Authorization` header, without its quotes; empty where there is none.
fn field(parameters: &str, name: &str) -> String {
    let mut rest = parameters;
    while let Some((key, value)) = rest.split_once('=') {
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => {
                let end = end_of_quoted(quoted);
                (&quoted[..end], quoted.get(end + 1..).unwrap_or_default())
            }
            None => value.split_at(value.find(',').unwrap_or(value.len())),
        };
        if key.trim().trim_start_matches(',').trim().eq_ignore_ascii_case(name) {
            return value.trim().to_owned();
        }
        rest = after;
    }
    String::new()
}

/// Where a quoted text ends: at the first quote that no backslash stands before.
fn end_of_quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            '"' if !escaped => return at,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

fn hex<H: Digest>(text: &str) -> String {
    H::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7616_is_let_in() {
        let access = Access {
            user: "Mufasa".into(),
            password: "Circle of Life".into(),
            ..Access::asking(&["Digest algorithm=SHA-256"])
        };
        let given = |response: &str| {
            format!(
                "username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", \
                 algorithm=SHA-256, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                 nc=00000001, cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
                 response=\"{response}\""
            )
        };
        let right = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1";
        assert!(access.is_right_digest(&given(right), "GET"));
        assert!(!access.is_right_digest(&given(right), "DESCRIBE"));
        assert!(!access.is_right_digest(&given(&right.replace('7', "8")), "GET"));
    }
}
