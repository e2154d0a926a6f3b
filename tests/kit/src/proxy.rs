//! A real reverse proxy in front of a host, with a config of `config/reverse-proxy`.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{BrokerCertificates, ClosedPort, DEADLINE, root};

/// Between two looks at a server that tells nobody when it listens.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a config of nginx stands in. It runs in the foreground, as one process, and writes nothing
/// outside its folder.
const NGINX: &str = "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\n\
    events {}\nhttp {\naccess_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\n\
    fastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\n";

/// The global options of Caddy: it asks nobody for certificates, and listens to its port alone.
const CADDY: &str = "{\n\tadmin off\n\tauto_https off\n}\n";

/// The proxy, with TLS on a port of 127.0.0.1. It is killed when this is dropped.
#[derive(Debug)]
pub struct ReverseProxy {
    port: ClosedPort,
    ca: PathBuf,
    server: Child,
    folder: TempDir,
}

impl ReverseProxy {
    /// Starts the proxy of this file, `nginx...` or `Caddyfile...`, in front of a host. Returns when
    /// it listens.
    pub fn start(file: &str, host: SocketAddr) -> Self {
        Self::start_with(file, host, |config| config)
    }

    /// As [`start`](Self::start), with a config that was changed.
    pub fn start_with(file: &str, host: SocketAddr, change: impl FnOnce(String) -> String) -> Self {
        let (port, folder) = (ClosedPort::new(), tempfile::tempdir().unwrap());
        let certificates = BrokerCertificates::make(folder.path());
        let written = root().join("config/reverse-proxy").join(file);
        let written = std::fs::read_to_string(written).unwrap();
        let config = replaced(&written, "127.0.0.1:8001", &host.to_string());
        let (certificate, key) = &certificates.server;
        let mut command = if file.starts_with("nginx") {
            let config =
                replaced(&config, "listen 443 ssl", &format!("listen {} ssl", port.address));
            let config = set(&config, "ssl_certificate ", certificate);
            let config = change(set(&config, "ssl_certificate_key ", key));
            let place = folder.path().join("nginx.conf");
            std::fs::write(&place, format!("{NGINX}{config}}}\n")).unwrap();
            // Not on the PATH of every user on Debian.
            let installed = ["/usr/sbin/nginx", "/usr/bin/nginx"];
            let program = installed.into_iter().find(|path| Path::new(path).is_file());
            let mut command = Command::new(program.unwrap_or("nginx"));
            command.arg("-p").arg(folder.path()).arg("-e").arg("error.log").arg("-c").arg(place);
            command
        } else {
            let name = written.lines().find(|line| line.ends_with(".example {")).unwrap();
            let site = format!(
                "https://{} {{\n\tbind 127.0.0.1\n\ttls {} {}",
                port.address,
                certificate.display(),
                key.display()
            );
            let config = change(format!("{CADDY}{}", replaced(&config, name, &site)));
            let place = folder.path().join("Caddyfile");
            std::fs::write(&place, config).unwrap();
            let mut command = Command::new("caddy");
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(place);
            command.env("HOME", folder.path()).env("XDG_DATA_HOME", folder.path());
            command.env("XDG_CONFIG_HOME", folder.path());
            command
        };
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let server = command.spawn().expect("the proxy is missing: `./x setup` says how to get it");
        let mut proxy = Self { port, ca: certificates.ca, server, folder };
        proxy.listens();
        proxy
    }

    fn listens(&mut self) {
        let begun = Instant::now();
        while TcpStream::connect(self.port.address).is_err() {
            let ended = self.server.try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < DEADLINE,
                "the proxy does not listen ({ended:?}): {}{}",
                std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default(),
                std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
            );
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// The address of a path behind it.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.port.address)
    }

    /// The certificate of who vouches for it, in PEM.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// `curl`, which trusts it and says what goes wrong.
    pub fn curl(&self) -> Command {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "50", "--cacert"]).arg(&self.ca);
        command
    }
}

impl Drop for ReverseProxy {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A committed config is told the place of a test, and stands otherwise as it is.
fn replaced(config: &str, from: &str, to: &str) -> String {
    assert_eq!(config.matches(from).count(), 1, "{from} in {config}");
    config.replace(from, to)
}

/// Gives a setting of nginx another file.
fn set(config: &str, name: &str, file: &Path) -> String {
    let (before, rest) = config.split_once(name).expect(name);
    let (_, after) = rest.split_once(';').unwrap();
    format!("{before}{name}{};{after}", file.display())
}
