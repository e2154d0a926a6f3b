//! HTTPS: certificate and key from files, read again when they change.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch::Sender;

use crate::config::Tls;
use crate::util::watch::{FileStamp, Watch};

/// Limit for a TLS handshake.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// Reads certificate and key. TLS 1.2 and 1.3, by the ring provider.
pub(super) fn load(files: &Tls) -> anyhow::Result<Arc<ServerConfig>> {
    let Tls { certificate, key } = files;
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("reading the certificate {}", certificate.display()))?;
    ensure!(!chain.is_empty(), "{} holds no certificate in PEM", certificate.display());
    let private = PrivateKeyDer::from_pem_file(key)
        // The error's own text may contain the file's content.
        .map_err(|error| anyhow::anyhow!("{}", reason(&error)))
        .with_context(|| format!("reading the private key {}", key.display()))?;
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .context("setting TLS up")?
            .with_no_client_auth()
            .with_single_cert(chain, private);
    let mut config = config.with_context(|| {
        format!("the key {} does not fit the certificate {}", key.display(), certificate.display())
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The fault of a PEM file, without any of its content.
fn reason(error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::Io(error) => error.to_string(),
        Error::NoItemsFound => "it holds none in PEM".into(),
        _ => "it is not valid PEM".into(),
    }
}

/// Puts what the files hold into `current` whenever they have changed, until it is dropped. A pair
/// that is not good is logged, and the one before stays.
pub(super) async fn follow(files: Tls, current: Sender<Arc<ServerConfig>>) {
    let mut watch = Watch::new({
        let Tls { certificate, key } = files.clone();
        move || (FileStamp::of(&certificate), FileStamp::of(&key))
    });
    // The first report is of the files as found at the start: mostly nothing new.
    let mut first = true;
    loop {
        watch.changed().await;
        let first = std::mem::take(&mut first);
        let read = files.clone();
        match tokio::task::spawn_blocking(move || load(&read)).await {
            Ok(Ok(config)) => {
                current.send_replace(config);
                if !first {
                    tracing::info!(certificate = %files.certificate.display(), "the certificate \
                        was read again");
                }
            }
            Ok(Err(error)) => {
                tracing::error!(
                    "the certificate is not changed, the one before stays in use: {error:#}"
                );
            }
            Err(error) => tracing::error!("reading the certificate: {error}"),
        }
        tracing::debug!("the files of the certificate were looked at");
    }
}
