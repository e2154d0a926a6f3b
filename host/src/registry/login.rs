//! How a registry is logged in to: it answers a first request with a challenge (RFC 9110, 11.6.1),
//! which asks for the password, or for a token that its own service gives.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use url::Url;

use super::error::RegistryFault;
use super::http::{Call, Http, MAX_ANSWER, read, refusal};

/// What a fault of a token's service is about.
const TOKEN: &str = "the token";

/// A user's name and password. Without `Debug`: it holds a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RegistryUser {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token of the service at `realm`.
    Bearer { realm: String, service: Option<String> },
}

/// The header with which a challenge is met. `None`: a password is asked for, and there is none.
/// `scope` is what the token is to be good for.
pub(super) async fn meet(
    http: &mut Http,
    challenge: &HeaderMap,
    login: Option<&RegistryUser>,
    scope: &str,
) -> Result<Option<HeaderValue>, RegistryFault> {
    let basic = login.map(basic).transpose()?;
    let (realm, service) = match Challenge::of(challenge) {
        Some(Challenge::Basic) => return Ok(basic),
        Some(Challenge::Bearer { realm, service }) => (realm, service),
        None => return Err(RegistryFault::strange(TOKEN, "it asks for a login of no known kind")),
    };
    let realm = Url::parse(&realm);
    let mut url = realm.map_err(|_| RegistryFault::strange(TOKEN, "its realm is no URL"))?;
    http.admit(&url)?;
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &service {
            query.append_pair("service", service);
        }
        query.append_pair("scope", scope);
    }
    let mut call = Call::get(TOKEN, url);
    if let Some(basic) = basic {
        call.headers.insert(AUTHORIZATION, basic);
    }
    let token = token(http, call, login.is_some()).await?;
    header(&format!("Bearer {token}")).map(Some)
}

async fn token(http: &mut Http, call: Call, logged_in: bool) -> Result<String, RegistryFault> {
    #[derive(Deserialize)]
    struct TokenAnswer {
        token: Option<String>,
        access_token: Option<String>,
    }
    // Its headers are for this place alone.
    let answer = http.send_here(&call).await?;
    if answer.status() != StatusCode::OK {
        return Err(refusal(TOKEN, answer, logged_in).await);
    }
    let body = read(answer, MAX_ANSWER).await?;
    let body = body.ok_or_else(|| RegistryFault::strange(TOKEN, "it is too long"))?;
    let TokenAnswer { token, access_token } = serde_json::from_slice(&body)
        .map_err(|_| RegistryFault::strange(TOKEN, "it is no JSON object"))?;
    let token = token.or(access_token).filter(|token| !token.is_empty());
    token.ok_or_else(|| RegistryFault::strange(TOKEN, "there is none"))
}

fn basic(RegistryUser { user, password }: &RegistryUser) -> Result<HeaderValue, RegistryFault> {
    header(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
}

fn header(text: &str) -> Result<HeaderValue, RegistryFault> {
    let header = HeaderValue::from_str(text);
    let mut header =
        header.map_err(|_| RegistryFault::strange(TOKEN, "it has unprintable characters"))?;
    header.set_sensitive(true);
    Ok(header)
}

impl Challenge {
    /// The first one that can be met.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(WWW_AUTHENTICATE).iter();
        values.find_map(|value| Self::parse(value.to_str().ok()?))
    }

    fn parse(text: &str) -> Option<Self> {
        let challenges = http_auth::parse_challenges(text).ok()?;
        challenges.iter().find_map(|challenge| {
            let parameter = |name: &str| {
                let mut parameters = challenge.params.iter();
                let (_, value) = parameters.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                Some(value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                return Some(Self::Basic);
            }
            let is_bearer = challenge.scheme.eq_ignore_ascii_case("bearer");
            let realm = parameter("realm").filter(|_| is_bearer)?;
            Some(Self::Bearer { realm, service: parameter("service") })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned) })
        };
        for (text, expected) in [
            ("Basic realm=\"basic-realm\"", Some(Challenge::Basic)),
            ("Negotiate, basic realm=\"x\"", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://a.example/token\",service=\"r.example\",\
                 scope=\"repository:a/b:pull,push\"",
                bearer("https://a.example/token", Some("r.example")),
            ),
            ("bearer service=r, realm=\"https://a/t?x=1\"", bearer("https://a/t?x=1", Some("r"))),
            ("Bearer realm=\"https://a/t\"", bearer("https://a/t", None)),
            ("Bearer service=\"r\"", None),
            ("Bearer realm=\"never ends", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(text), expected, "{text}");
        }
    }
}
