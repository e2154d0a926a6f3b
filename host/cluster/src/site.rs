//! What a host has to know of its site.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Counts the changes of owners: etcd's revision of the one that made this host the owner. A greater
/// one is later, over all cameras.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Where a site's engines are, and who this host is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteOptions {
    /// The site's name: 1 to 32 of a-z, 0-9 and `-`.
    pub site: String,
    /// This host's name, of which the site has one: likewise.
    pub host: String,
    /// `http://` or `https://` URLs of the etcd servers.
    pub etcd: Vec<String>,
    /// `nats://` or `tls://` URLs of the NATS servers.
    pub nats: Vec<String>,
    /// `None`: neither engine is asked for its certificate. For tests and loopback.
    pub tls: Option<SiteTls>,
}

/// The files by which host and engines know each other, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteTls {
    /// Who vouches for the engines.
    pub ca: PathBuf,
    /// This host's certificate, with those between it and the engines' authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a site cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// A name that a site or a host cannot have.
    #[error("{0:?} is no name of a {1}: 1 to 32 of a-z, 0-9 and -")]
    Name(String, &'static str),
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// An address of an engine that cannot be used as it is written.
    #[error("{0:?}: {1}")]
    Address(String, String),
}

/// The longest name of a site or a host, in bytes: a part of keys, subjects and client names.
const MAX_NAME: usize = 32;

impl SiteOptions {
    /// Fails where the site's or the host's name is none.
    pub fn check(&self) -> Result<(), SiteError> {
        for (name, of) in [(&self.site, "site"), (&self.host, "host")] {
            if !is_name(name) {
                return Err(SiteError::Name(name.clone(), of));
            }
        }
        Ok(())
    }

    /// What all keys of the site in etcd begin with.
    pub(crate) fn prefix(&self) -> String {
        format!("/ocelli/{}/", self.site)
    }
}

/// Whether a site or a host can have this name.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(fits)
}

impl SiteTls {
    /// Reads one of the files.
    pub fn read(path: &std::path::Path) -> Result<Vec<u8>, SiteError> {
        std::fs::read(path).map_err(|source| SiteError::File { path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parts_of_keys_and_subjects() {
        let options = |site: &str, host: &str| SiteOptions {
            site: site.into(),
            host: host.into(),
            etcd: Vec::new(),
            nats: Vec::new(),
            tls: None,
        };
        options("hall-1", "a").check().unwrap();
        for (site, host, said) in [
            ("", "a", "site"),
            ("hall.1", "a", "site"),
            ("hall", "A", "host"),
            ("hall", "a/b", "host"),
            ("hall", &"a".repeat(33), "host"),
            ("hall", "*", "host"),
        ] {
            let error = options(site, host).check().unwrap_err().to_string();
            assert!(error.contains(said), "{site:?} {host:?}: {error}");
        }
    }
}
