//! Certificates of servers and clients, and the authority that has signed them.

use std::fmt;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// An authority, whose certificates lie in a folder that is not its own.
pub struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCertificate {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// Its private key's file.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one, with its certificate in this folder.
    pub fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two authorities of one name differ by their signatures alone.
        let name = format!("authority {}", folder.display());
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { folder: folder.to_owned(), issuer };
        std::fs::write(authority.file(), authority.issuer.pem()).unwrap();
        authority
    }

    /// The file of its own certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Signs a certificate of this common name, good for servers at these names and addresses and
    /// for clients.
    pub fn sign(&self, name: &str, places: &[&str]) -> SignedCertificate {
        let key = KeyPair::generate().unwrap();
        let places: Vec<String> = places.iter().map(|place| (*place).to_owned()).collect();
        let mut params = CertificateParams::new(places).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = SignedCertificate {
            certificate: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Authority").field("folder", &self.folder).finish_non_exhaustive()
    }
}
