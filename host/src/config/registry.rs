//! Registries of components: a reference to a component in one, and what the config says of them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ocelli_protocol::digest::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::Config;

/// The beginning of every reference.
const SCHEME: &str = "oci://";

/// The name of the algorithm before a digest.
const ALGORITHM: &str = "sha256:";

/// Longest name of a registry or a repository in bytes: many registries allow no longer one.
const MAX_NAME: usize = 255;

/// Longest tag in bytes (OCI distribution specification, "Pulling manifests").
const MAX_TAG: usize = 128;

/// A component in a registry: `oci://HOST[:PORT]/REPOSITORY:TAG`, with `@sha256:DIGEST` of its
/// manifest behind the tag or in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciReference {
    /// The registry: HOST, or HOST:PORT.
    pub registry: String,
    /// The name in the registry: `team/loiter`.
    pub repository: String,
    /// The version's name, which may lead to another component tomorrow. `None`: the digest says
    /// all.
    pub tag: Option<String>,
    /// SHA-256 of the manifest.
    pub digest: Option<Digest>,
}

/// What a text lacks of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OciReferenceError {
    /// It begins otherwise, or ends behind the registry.
    #[error("a reference has the form oci://HOST[:PORT]/REPOSITORY:TAG")]
    Form,
    /// What stands before the first slash is no host.
    #[error("a registry is HOST or HOST:PORT, by name or address, without user and password")]
    Registry,
    /// The name in the registry has other characters.
    #[error(
        "a repository has small letters and digits, `.`, `_` and `-` between them, and slashes: \
         at most {MAX_NAME} bytes"
    )]
    Repository,
    /// What stands behind the colon.
    #[error(
        "a tag has letters, digits, `_`, `.` and `-`: at most {MAX_TAG}, `.` and `-` not first"
    )]
    Tag,
    /// What stands behind the `@`.
    #[error("a digest is sha256: and 64 hexadecimal digits, small letters")]
    Digest,
    /// Neither tag nor digest.
    #[error("it names no version: :TAG or @sha256:DIGEST is missing at its end")]
    NoVersion,
}

impl OciReference {
    /// Whether a pipeline is named by a reference, whatever its form. Neither a pipeline's name nor
    /// a path of a file begins so.
    pub fn is_meant_by(pipeline: &str) -> bool {
        pipeline.starts_with(SCHEME)
    }

    /// The tag or the digest by which the registry is asked: the digest, if there is one.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{ALGORITHM}{digest}"),
            (None, tag) => tag.clone().unwrap_or_default(),
        }
    }
}

impl FromStr for OciReference {
    type Err = OciReferenceError;

    fn from_str(text: &str) -> Result<Self, OciReferenceError> {
        let named = text.strip_prefix(SCHEME).ok_or(OciReferenceError::Form)?;
        let (registry, named) = named.split_once('/').ok_or(OciReferenceError::Form)?;
        let registry = registry.to_ascii_lowercase();
        if !is_registry(&registry) {
            return Err(OciReferenceError::Registry);
        }
        let (named, digest) = match named.split_once('@') {
            None => (named, None),
            Some((named, digest)) => {
                let digest = digest.strip_prefix(ALGORITHM).and_then(|digits| digits.parse().ok());
                (named, Some(digest.ok_or(OciReferenceError::Digest)?))
            }
        };
        let (repository, tag) = match named.split_once(':') {
            None => (named, None),
            Some((repository, tag)) => (repository, Some(tag)),
        };
        if !is_repository(repository) {
            return Err(OciReferenceError::Repository);
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(OciReferenceError::Tag);
        }
        if tag.is_none() && digest.is_none() {
            return Err(OciReferenceError::NoVersion);
        }
        let (repository, tag) = (repository.to_owned(), tag.map(str::to_owned));
        Ok(Self { registry, repository, tag, digest })
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, repository, tag, digest } = self;
        write!(f, "{SCHEME}{registry}/{repository}")?;
        tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        digest.iter().try_for_each(|digest| write!(f, "@{ALGORITHM}{digest}"))
    }
}

/// Whether this is HOST or HOST:PORT, in small letters.
pub(super) fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let digits = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
    let is_port = |port: &str| digits(port) && port.parse::<u16>().is_ok_and(|port| port > 0);
    text.len() <= MAX_NAME
        && port.is_none_or(is_port)
        && url::Host::parse(host).is_ok_and(|parsed| parsed.to_string() == host)
}

/// Whether this is a repository's name: parts between slashes, each of small letters and digits
/// with separators between them.
fn is_repository(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_separator = |separator: &str| {
        matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
    };
    let is_part = |part: &str| {
        let ends = [part.bytes().next(), part.bytes().next_back()];
        ends.iter().all(|end| end.is_some_and(is_word))
            && part
                .split(|character: char| u8::try_from(character).is_ok_and(is_word))
                .all(is_separator)
    };
    text.len() <= MAX_NAME && text.split('/').all(is_part)
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

/// A registry of components.
// Its `Debug` leaves out the password.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// HOST or HOST:PORT, as references have it.
    #[schemars(length(min = 1))]
    pub host: String,
    /// The name by which the host logs in. Left out: it does not.
    #[schemars(length(min = 1))]
    pub user: Option<String>,
    /// The password, or an access token, of this user.
    #[schemars(length(min = 1), extend("writeOnly" = true))]
    pub password: Option<String>,
    /// A PEM file with the certificate authorities that are trusted, instead of the system's.
    /// Relative to the working directory.
    #[schemars(length(min = 1))]
    pub ca: Option<PathBuf>,
    /// Whether it is asked without TLS. Left out: one at a loopback address is, no other.
    pub plain_http: Option<bool>,
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Registry").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Config {
    /// What the config says of a registry.
    pub fn registry(&self, host: &str) -> Option<&RegistryConfig> {
        self.deploy.registries.iter().find(|registry| registry.host.eq_ignore_ascii_case(host))
    }

    /// Whether the config names a registry: among its registries, or in a camera's pipeline. Others
    /// are not asked, so that no client of the API leads the host to a place of its own choice.
    pub fn names_registry(&self, host: &str) -> bool {
        let of_camera = |pipeline: &str| {
            pipeline.parse().is_ok_and(|reference: OciReference| reference.registry == host)
        };
        self.registry(host).is_some()
            || self.cameras.iter().any(|camera| of_camera(&camera.pipeline))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_reference_is_read_and_written_alike() {
        let digest = Digest::of("manifest");
        for text in [
            "oci://registry.example/loiter:1.2".to_owned(),
            "oci://127.0.0.1:5000/team/a--b/c__d.e:latest".to_owned(),
            "oci://[::1]:5000/x:_".to_owned(),
            format!("oci://registry.example/x@sha256:{digest}"),
            format!("oci://registry.example/x:1@sha256:{digest}"),
        ] {
            assert_eq!(text.parse::<OciReference>().unwrap().to_string(), text);
        }
        let both: OciReference = format!("oci://R.example/x:1@sha256:{digest}").parse().unwrap();
        assert_eq!((both.registry.as_str(), both.tag.as_deref()), ("r.example", Some("1")));
        assert_eq!(both.version(), format!("sha256:{digest}"));
    }

    #[test]
    fn what_is_no_reference_is_refused_with_its_part() {
        use OciReferenceError::{Form, NoVersion, Registry, Repository, Tag};
        let long = "a".repeat(256);
        for (text, expected) in [
            ("loiter", Form),
            ("oci://registry.example", Form),
            ("oci:///x:1", Registry),
            ("oci://user:secret@registry.example/x:1", Registry),
            ("oci://a b/x:1", Registry),
            ("oci://h:0/x:1", Registry),
            ("oci://h:70000/x:1", Registry),
            ("oci://h:+1/x:1", Registry),
            ("oci://127.1/x:1", Registry),
            ("oci://h/:1", Repository),
            ("oci://h/Team/x:1", Repository),
            ("oci://h/../x:1", Repository),
            ("oci://h/x//y:1", Repository),
            ("oci://h/x_-y:1", Repository),
            ("oci://h/x-:1", Repository),
            ("oci://h/x?y=1:1", Repository),
            (&format!("oci://h/{long}:1"), Repository),
            ("oci://h/x:", Tag),
            ("oci://h/x:.1", Tag),
            ("oci://h/x:1/2", Tag),
            (&format!("oci://h/x:{long}"), Tag),
            ("oci://h/x", NoVersion),
            ("oci://h/x@sha256:00", OciReferenceError::Digest),
            ("oci://h/x@sha512:00", OciReferenceError::Digest),
        ] {
            assert_eq!(text.parse::<OciReference>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn registries_are_named_by_the_config_and_passwords_are_not_shown() {
        let text = "[[deploy.registries]]\nhost = \"a.example\"\nuser = \"ann\"\n\
            password = \"hunter2\"\n[[cameras]]\nid = \"cam\"\nsource = \"file:a.mp4\"\n\
            pipeline = \"oci://b.example:5000/x:1\"\n";
        let config = Config::from_text(Path::new("test.toml"), text, &[]).unwrap();
        for (host, named) in
            [("a.example", true), ("b.example:5000", true), ("b.example", false), ("c", false)]
        {
            assert_eq!(config.names_registry(host), named, "{host}");
        }
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_registry_that_is_none_is_told_with_its_key() {
        let refused = |text: &str| {
            let read = Config::from_text(Path::new("test.toml"), text, &[]);
            read.unwrap_err().to_string()
        };
        let registry = |text: &str| refused(&format!("[[deploy.registries]]\n{text}\n"));
        let said = registry("host = \"https://a.example\"");
        assert!(said.contains("deploy.registries[0].host: expected HOST or HOST:PORT"), "{said}");
        let said = registry("host = \"a\"\n[[deploy.registries]]\nhost = \"A\"");
        assert!(said.contains("deploy.registries[1].host"), "{said}");
        let said = registry("host = \"a\"\npassword = \"hunter2\"");
        assert!(said.contains("[0].password") && !said.contains("hunter2"), "{said}");
        let said = registry("host = \"a\"\nuser = \"ann\"");
        assert!(said.contains("deploy.registries[0].user"), "{said}");
        let said = refused(
            "[[cameras]]\nid = \"cam\"\nsource = \"file:a.mp4\"\npipeline = \"oci://h/x\"\n",
        );
        assert!(said.contains("cameras[0].pipeline: it names no version"), "{said}");
    }
}
