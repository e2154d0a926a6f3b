//! TLS to a camera, in the host: which certificates are trusted, and what is said of one that is
//! not.

use std::sync::Arc;

use ocelli_protocol::digest::Digest;
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::source::{RtspSource, TlsTrust};
use crate::util::authorities::{of_file, of_system};

/// Why a camera's TLS does not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// A setting of the host does not do.
    #[error("{0}")]
    Setting(String),
    /// The certificate is not trusted; its SHA-256 in hexadecimal.
    #[error(
        "its certificate is not trusted ({reason}): if it is the camera's own, set \
         certificate_sha256 = \"{fingerprint}\""
    )]
    Certificate { reason: String, fingerprint: String },
    /// The handshake failed otherwise.
    #[error("no TLS: {0}")]
    Handshake(std::io::Error),
}

/// Speaks TLS over a connection to the camera.
pub(super) async fn handshake(
    source: &RtspSource,
    trust: TlsTrust,
    connection: TcpStream,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let host = source.address().0.to_owned();
    let name = ServerName::try_from(host)
        .map_err(|_| TlsError::Setting("the host's name cannot stand in a certificate".into()))?;
    // The system's certificates are some hundred files.
    let verifier = tokio::task::spawn_blocking(move || CameraVerifier::new(trust)).await;
    let verifier = verifier.map_err(|error| TlsError::Setting(error.to_string()))??;
    let verifier = Arc::new(verifier);
    let config = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| TlsError::Setting(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, connection).await;
    connected.map_err(|error| match verifier.refused.lock().take() {
        Some((reason, fingerprint)) => TlsError::Certificate { reason, fingerprint },
        None => TlsError::Handshake(error),
    })
}

/// Verifies a camera's certificate by the source's own rule, and remembers one that it refuses.
#[derive(Debug)]
struct CameraVerifier {
    provider: Arc<CryptoProvider>,
    rule: CertificateRule,
    /// The reason and the fingerprint.
    refused: Mutex<Option<(String, String)>>,
}

#[derive(Debug)]
enum CertificateRule {
    Authorities(Arc<WebPkiServerVerifier>),
    Pinned(Digest),
}

impl CameraVerifier {
    fn new(trust: TlsTrust) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let rule = match trust {
            TlsTrust::Pinned(digest) => CertificateRule::Pinned(digest),
            TlsTrust::System => {
                let cause = "this machine has no certificate authorities (package \
                             ca-certificates): set ca or certificate_sha256";
                let roots = of_system().ok_or_else(|| TlsError::Setting(cause.to_owned()))?;
                authorities(roots, &provider)?
            }
            TlsTrust::Authorities(file) => {
                let roots = of_file(&file).map_err(|error| TlsError::Setting(error.to_string()))?;
                authorities(roots, &provider)?
            }
        };
        Ok(Self { provider, rule, refused: Mutex::default() })
    }
}

fn authorities(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<CertificateRule, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map(CertificateRule::Authorities)
        .map_err(|error| TlsError::Setting(error.to_string()))
}

impl ServerCertVerifier for CameraVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let digest = Digest::of(certificate);
        let verified = match &self.rule {
            CertificateRule::Authorities(verifier) => {
                verifier.verify_server_cert(certificate, intermediates, name, ocsp, now)
            }
            CertificateRule::Pinned(pinned) if *pinned == digest => {
                Ok(ServerCertVerified::assertion())
            }
            CertificateRule::Pinned(_) => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
        };
        verified.inspect_err(|error| {
            let reason = match (&self.rule, error) {
                (CertificateRule::Pinned(_), _) => "it is not the one that is pinned".to_owned(),
                (_, Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                    "no authority that is known has signed it".to_owned()
                }
                (_, error) => error.to_string(),
            };
            *self.refused.lock() = Some((reason, digest.to_string()));
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
