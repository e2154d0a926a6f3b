//! `[server]`: where the API listens, who gets in, and how much of it one client may take.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use jiff::Timestamp;
use ocelli_protocol::digest::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::base_path::BasePath;
use super::text;
use super::trusted_proxy::TrustedProxy;

/// Prefix of a token's hash.
const SHA256: &str = "sha256:";

/// The HTTP and WebSocket API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port. Without tokens a non-loopback address is refused, but of a host of a site,
    /// which may have the site's.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// What the path of every address begins with, for a host behind a reverse proxy: `/ocelli`.
    /// Empty: the root.
    #[schemars(with = "String")]
    pub base_path: BasePath,
    /// Certificate and key of HTTPS; left out: plain HTTP. The files are read again when they
    /// change.
    pub tls: Option<Tls>,
    /// Authorised callers. Empty: everyone who reaches the loopback address.
    pub tokens: Vec<Token>,
    /// Origins, besides the API's own, whose web pages may use it: `https://dash.example`.
    #[schemars(with = "Vec<String>", inner(length(min = 1)))]
    pub origins: Vec<WebOrigin>,
    /// Names, besides those of the loopback address, under which a host without tokens may be
    /// asked.
    #[schemars(inner(length(min = 1)))]
    pub hosts: Vec<String>,
    /// Addresses and networks of reverse proxies that are believed who their client is
    /// (`X-Forwarded-For`), for limits and logs.
    #[schemars(with = "Vec<String>", inner(length(min = 1)))]
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Connections of callers at the same time. Those without a valid request yet are not counted.
    #[schemars(range(min = 1, max = 12_000))]
    pub max_connections: usize,
    /// Of these, from one address.
    #[schemars(range(min = 1, max = 12_000))]
    pub max_connections_per_address: usize,
    /// HTTP requests of one caller in a second, in the long run. 0: any number.
    #[schemars(range(min = 0, max = 100_000))]
    pub requests_per_second: u32,
    /// Whether administrators may change cameras and tokens in the config file over the API. The
    /// host then writes the file as they say, which names folders and programs of this machine.
    pub edit_config: bool,
    /// A file beside this one with more cameras, TOML of `[[cameras]]` alone: those that the API
    /// makes, changes and removes, while those of the config itself stay as they are. Relative to
    /// the config's folder; made with the first such camera. Left out: the API changes the config.
    #[schemars(length(min = 1))]
    pub cameras_file: Option<PathBuf>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8001)),
            base_path: BasePath::default(),
            tls: None,
            tokens: Vec::new(),
            origins: Vec::new(),
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            // More than the WebSockets that are served.
            max_connections: 5000,
            // A thousand displays behind one proxy, twice.
            max_connections_per_address: 2000,
            requests_per_second: 100,
            edit_config: false,
            cameras_file: None,
        }
    }
}

/// Where certificate and key lie, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate and those between it and its root, in this order.
    #[schemars(length(min = 1))]
    pub certificate: PathBuf,
    /// PEM file of the certificate's private key: PKCS #8, PKCS #1 or SEC 1.
    #[schemars(length(min = 1))]
    pub key: PathBuf,
}

/// A caller of the API, known by the hash of a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// As the log and the history of deployments name who did something. Unique.
    #[schemars(length(min = 1))]
    pub name: String,
    /// SHA-256 of the token's text, as `ocelli token new` prints it: sha256: and 64 hexadecimal
    /// digits.
    #[serde(with = "text")]
    #[schemars(with = "String", length(min = 1), extend("writeOnly" = true))]
    pub hash: TokenHash,
    /// viewer: reads sessions. operator: also analyses images, deploys, restarts, makes sessions.
    /// admin: also stores pipelines.
    pub role: Role,
    /// The sessions that a viewer sees; left out: all.
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    pub sessions: Option<Vec<String>>,
    /// When it ends, as RFC 3339 writes it; left out: never.
    #[serde(default, with = "super::text::optional")]
    #[schemars(with = "String", length(min = 1))]
    pub expires: Option<Timestamp>,
}

/// The permissions of a token.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Role {
    /// Reads named sessions or all.
    Viewer,
    /// And analyses images, deploys, restarts, makes sessions.
    Operator,
    /// And stores pipelines: everything.
    Admin,
}

impl Role {
    /// As the config writes it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The SHA-256 of a token, which has 256 random bits: nothing slower is needed to keep it from
/// being guessed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenHash(Digest);

impl TokenHash {
    /// Of a token's text.
    pub fn of(token: &str) -> Self {
        Self(Digest::of(token))
    }

    /// The digest: 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        self.0.bytes()
    }
}

/// A text that is not the hash of a token. The text is not repeated: it may be the token itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected \"{SHA256}\" and 64 hexadecimal digits, as `ocelli token new` prints it (not shown)"
)]
pub struct TokenHashError;

impl FromStr for TokenHash {
    type Err = TokenHashError;

    fn from_str(text: &str) -> Result<Self, TokenHashError> {
        let digits = text.strip_prefix(SHA256).ok_or(TokenHashError)?;
        digits.to_ascii_lowercase().parse().map(Self).map_err(|_| TokenHashError)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SHA256}{}", self.0)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHA256)?;
        f.write_str("***")
    }
}

/// The origin of web pages as a browser's `Origin` header names it: scheme, host, and the port
/// unless it is the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebOrigin {
    text: String,
    host: String,
}

impl WebOrigin {
    /// The value of the header.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host's name or address.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// A text that is not the origin of web pages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected SCHEME://HOST[:PORT] such as https://dash.example, found {0:?}")]
pub struct OriginError(String);

impl FromStr for WebOrigin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let malformed = || OriginError(text.to_owned());
        let url = Url::parse(text).map_err(|_| malformed())?;
        let bare = matches!(url.scheme(), "http" | "https")
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let host = url.host_str().filter(|_| bare).ok_or_else(malformed)?;
        Ok(Self { text: url.origin().ascii_serialization(), host: host.to_owned() })
    }
}

impl TryFrom<String> for WebOrigin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        text.parse()
    }
}

impl From<WebOrigin> for String {
    fn from(origin: WebOrigin) -> Self {
        origin.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written_and_a_malformed_one_is_not_repeated() {
        let hash = TokenHash::of("ocelli_abc");
        assert_eq!(hash.to_string().parse::<TokenHash>().unwrap(), hash);
        assert_eq!(
            hash.to_string()
                .to_uppercase()
                .replace("SHA256", "sha256")
                .parse::<TokenHash>()
                .unwrap(),
            hash
        );
        let digits = "0".repeat(64);
        for text in [
            "ocelli_secret".to_owned(),
            digits.clone(),
            format!("sha256:{}", digits.replacen("00", "+0", 1)),
            format!("sha256:{digits}0"),
            format!("sha256:{}", "é".repeat(32)),
        ] {
            let error = text.parse::<TokenHash>().unwrap_err().to_string();
            assert!(!error.contains(&text) && error.contains("ocelli token new"), "{error}");
        }
        assert!(!format!("{hash:?}").contains(&hash.to_string()));
    }

    #[test]
    fn an_origin_is_told_as_browsers_tell_it() {
        let origin =
            |text: &str| text.parse::<WebOrigin>().map(|origin| origin.as_str().to_owned());
        assert_eq!(origin("https://Dash.example:443/").unwrap(), "https://dash.example");
        assert_eq!(origin("http://10.0.0.1:3000").unwrap(), "http://10.0.0.1:3000");
        for text in [
            "dash.example",
            "https://dash.example/path",
            "https://u@dash.example",
            "ftp://a",
            "null",
            "*",
            "",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
