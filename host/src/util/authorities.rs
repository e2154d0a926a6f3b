//! Certificate authorities: the system's, or those of a file that the config names as `ca`.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Why a file has no certificate authorities.
#[derive(Debug, thiserror::Error)]
#[error("ca = {}: {cause}", file.display())]
pub(crate) struct AuthoritiesError {
    file: PathBuf,
    cause: String,
}

/// The system's. `None`: it has none, and every certificate would be refused. May block: they are
/// some hundred files.
pub(crate) fn of_system() -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    (!roots.is_empty()).then_some(roots)
}

/// Those of a PEM file. May block.
pub(crate) fn of_file(file: &Path) -> Result<RootCertStore, AuthoritiesError> {
    let failed = |cause: String| AuthoritiesError { file: file.to_owned(), cause };
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(file).map_err(|error| failed(error.to_string()))?
    {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no certificate in PEM".to_owned()));
    }
    Ok(roots)
}

/// Why a file cannot be used; `None` where it can. May block.
pub(crate) fn fault_of_file(file: &Path) -> Option<String> {
    of_file(file).err().map(|error| error.to_string())
}
