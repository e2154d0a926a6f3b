//! The path below which a host answers behind a reverse proxy.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most bytes of the path: it is in the address of every request.
const MAX_BYTES: usize = 100;

/// First parts of the host's own addresses: with and without the path, they would be taken for it.
const OWN: [&str; 6] = ["assets", "healthz", "login", "metrics", "readyz", "v1"];

/// The beginning of the path of every address of the host: empty, or such as `/ocelli`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BasePath(String);

/// Why a text is not such a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BasePathError {
    #[error("expected a path that begins with a slash, such as /ocelli, found {0:?}")]
    NoSlash(String),
    #[error("a path without a slash at its end: {0:?}; the root is \"\"")]
    SlashAtEnd(String),
    #[error("a path without empty parts, \".\" and \"..\", found {0:?}")]
    Part(String),
    #[error(
        "a path of letters, digits, \"-\", \".\", \"_\" and \"~\", which no proxy and no browser \
         writes in another way, found {0:?}"
    )]
    Character(char),
    #[error("{0:?} is one of the host's own paths")]
    Own(String),
    #[error("a path of at most {MAX_BYTES} bytes, this one has {0}")]
    Long(usize),
}

impl BasePath {
    /// Without a slash at its end; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What of a path follows: it is empty, or begins with a slash or a question mark. `None`: the
    /// path lies elsewhere, or there is nothing to remove.
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(&self.0).filter(|_| !self.0.is_empty())?;
        (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
    }
}

impl FromStr for BasePath {
    type Err = BasePathError;

    fn from_str(text: &str) -> Result<Self, BasePathError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > MAX_BYTES {
            return Err(BasePathError::Long(text.len()));
        }
        let parts = text.strip_prefix('/').ok_or_else(|| BasePathError::NoSlash(text.into()))?;
        let plain = |it: &char| it.is_ascii_alphanumeric() || "/-._~".contains(*it);
        if let Some(other) = parts.chars().find(|it| !plain(it)) {
            return Err(BasePathError::Character(other));
        }
        if parts.ends_with('/') || parts.is_empty() {
            return Err(BasePathError::SlashAtEnd(text.into()));
        }
        if parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(BasePathError::Part(text.into()));
        }
        if parts.split('/').next().is_some_and(|first| OWN.contains(&first)) {
            return Err(BasePathError::Own(text.into()));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for BasePath {
    type Error = BasePathError;

    fn try_from(text: String) -> Result<Self, BasePathError> {
        text.parse()
    }
}

impl From<BasePath> for String {
    fn from(path: BasePath) -> Self {
        path.0
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling_and_what_it_lacks_is_said() {
        let longest = format!("/{}", "a".repeat(MAX_BYTES - 1));
        for good in ["", "/ocelli", "/a/b-c/D_1.x~", longest.as_str()] {
            assert_eq!(good.parse::<BasePath>().unwrap().as_str(), good);
        }
        let wrong = |text: &str| text.parse::<BasePath>().unwrap_err();
        assert_eq!(wrong("ocelli"), BasePathError::NoSlash("ocelli".into()));
        assert_eq!(wrong("https://h/ocelli"), BasePathError::NoSlash("https://h/ocelli".into()));
        for end in ["/", "/ocelli/", "//"] {
            assert_eq!(wrong(end), BasePathError::SlashAtEnd(end.into()));
        }
        for part in ["//a", "/a//b", "/..", "/a/../b", "/./a"] {
            assert_eq!(wrong(part), BasePathError::Part(part.into()));
        }
        for (text, character) in [
            ("/a b", ' '),
            ("/a%2Fb", '%'),
            ("/a?b", '?'),
            ("/a#b", '#'),
            ("/ü", 'ü'),
            ("/a\"", '"'),
        ] {
            assert_eq!(wrong(text), BasePathError::Character(character));
        }
        assert_eq!(wrong(&"/a".repeat(99)), BasePathError::Long(198));
        for own in ["/v1", "/metrics/a", "/assets"] {
            assert_eq!(wrong(own), BasePathError::Own(own.into()));
        }
    }

    #[test]
    fn it_is_removed_in_front_of_a_whole_part_alone() {
        let path: BasePath = "/a/b".parse().unwrap();
        assert_eq!(path.strip("/a/b"), Some(""));
        assert_eq!(path.strip("/a/b?x"), Some("?x"));
        assert_eq!(path.strip("/a/b/v1/ws"), Some("/v1/ws"));
        for other in ["/a/bc", "/a", "/", "/v1/a/b", "/A/b/"] {
            assert_eq!(path.strip(other), None, "{other}");
        }
        assert_eq!(BasePath::default().strip("/v1"), None);
    }
}
