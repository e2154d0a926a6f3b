//! A real OCI registry on a port of its own: Debian's `docker-registry`.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::{ClosedPort, DEADLINE};

/// Between two looks at a server that tells nobody when it listens.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The one user of a registry with a login, and the password, whose hash is the one that there is.
pub const REGISTRY_LOGIN: (&str, &str) = ("ann", "hunter2");
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

/// A place for a registry: a port, which refuses connections while no server runs, and a folder
/// for what it keeps. The server is killed when this is dropped.
#[derive(Debug)]
pub struct OciRegistry {
    port: ClosedPort,
    folder: TempDir,
    server: Option<Child>,
}

impl OciRegistry {
    /// Starts one that lets everyone pull and push.
    pub fn start() -> Self {
        Self::start_with("", "")
    }

    /// Starts one for [`REGISTRY_LOGIN`] alone.
    pub fn with_login() -> Self {
        Self::start_with("", "auth: {htpasswd: {realm: tests, path: FOLDER/users}}\n")
    }

    /// Starts one with TLS, whose [`certificate`](Self::certificate) nobody else vouches for.
    pub fn with_tls() -> Self {
        Self::start_with(", tls: {certificate: FOLDER/cert.pem, key: FOLDER/key.pem}", "")
    }

    fn start_with(http: &str, more: &str) -> Self {
        let (port, folder) = (ClosedPort::new(), tempfile::tempdir().unwrap());
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: \
             FOLDER/blobs}}}}\nhttp: {{addr: \"{}\"{http}}}\n{more}",
            port.address
        );
        let config = config.replace("FOLDER", folder.path().to_str().unwrap());
        for (name, text) in [
            ("config.yml", config),
            ("users", format!("{}:{HASH}\n", REGISTRY_LOGIN.0)),
            ("cert.pem", certificate.pem()),
            ("key.pem", key.serialize_pem()),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut registry = Self { port, folder, server: None };
        registry.run();
        registry
    }

    /// Starts the server. Returns when it listens.
    pub fn run(&mut self) {
        assert!(self.server.is_none(), "it runs");
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(self.folder.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is missing: `./x setup` says how to get it");
        self.server = Some(server);
        let begun = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            assert!(begun.elapsed() < DEADLINE, "docker-registry does not listen");
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Ends the server. What it has stored stays.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Where it listens: the registry's name in references.
    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// A reference to a component in it: `team/loiter:1` or `team/loiter@sha256:...`.
    pub fn reference(&self, name: &str) -> String {
        format!("oci://{}/{name}", self.address())
    }

    /// The file with its certificate, in PEM.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }
}

impl Drop for OciRegistry {
    fn drop(&mut self) {
        self.kill();
    }
}
