//! URLs of servers that the host sends requests to.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// Where requests go that the operator has set up. It may hold a secret, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(Url);

/// What a text lacks of such a place. The text is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected https://HOST[:PORT]/PATH or http://..., without user and password (not shown)")]
pub struct HttpUrlError;

impl HttpUrl {
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Whether without TLS.
    pub fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }
}

impl FromStr for HttpUrl {
    type Err = HttpUrlError;

    fn from_str(text: &str) -> Result<Self, HttpUrlError> {
        let mut url = Url::parse(text).map_err(|_| HttpUrlError)?;
        let web = matches!(url.scheme(), "http" | "https") && url.has_host();
        let open = url.username().is_empty() && url.password().is_none();
        url.set_fragment(None);
        (web && open).then_some(Self(url)).ok_or(HttpUrlError)
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.as_str())
    }
}
