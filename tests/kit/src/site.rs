//! Both engines of a site.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::{Authority, EnginePlace, Etcd, Nats, NatsAccount, NatsSettings, SignedCertificate};

/// An etcd and a NATS, of one server each or of three.
#[derive(Debug)]
pub struct Site {
    /// Who owns what.
    pub etcd: Etcd,
    /// What outlasts a host.
    pub nats: Nats,
    authority: Option<Authority>,
    _folder: TempDir,
}

impl Site {
    /// One server of each on this machine. None, and the test is skipped, where an engine is
    /// missing.
    pub fn single() -> Option<Self> {
        Self::start(&[EnginePlace::loopback()], None, &[])
    }

    /// Three servers of each; likewise.
    pub fn cluster() -> Option<Self> {
        Self::start(&[const { EnginePlace::loopback() }; 3], None, &[])
    }

    /// One server of each, which ask for certificates, with these accounts; likewise.
    pub fn with_tls(accounts: &[NatsAccount]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path());
        Self::start(&[EnginePlace::loopback()], Some((authority, folder)), accounts)
    }

    fn start(
        places: &[EnginePlace],
        authority: Option<(Authority, TempDir)>,
        accounts: &[NatsAccount],
    ) -> Option<Self> {
        let (authority, folder) = match authority {
            Some((authority, folder)) => (Some(authority), folder),
            None => (None, tempfile::tempdir().unwrap()),
        };
        let settings =
            NatsSettings { authority: authority.as_ref(), accounts, ..Default::default() };
        let nats = Nats::start(places, settings)?;
        let etcd = Etcd::start(places, authority.as_ref(), &[]);
        Some(Self { etcd, nats, authority, _folder: folder })
    }

    /// Signs a client's certificate, of this common name; the authority's own comes with it.
    pub fn client(&self, name: &str) -> (PathBuf, SignedCertificate) {
        let authority = self.authority.as_ref().expect("a site with TLS");
        (authority.file(), authority.sign(name, &[name]))
    }
}
