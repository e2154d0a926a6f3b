//! The section `[cluster]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// The site that this host belongs to, whose hosts stand in for each other. Without the section: it
/// stands alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// The site's name: a to z, 0 to 9 and -.
    #[schemars(length(min = 1, max = 32))]
    pub site: String,
    /// This host's name, of which the site has one: likewise.
    #[schemars(length(min = 1, max = 32))]
    pub host: String,
    /// Where other hosts of the site reach this host's API: https://HOST:PORT, or http://.
    #[schemars(length(min = 1))]
    pub address: String,
    /// The etcd servers: https://HOST:2379, or http:// at a loopback address.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub etcd: Vec<String>,
    /// The NATS servers: tls://HOST:4222, or nats:// at a loopback address.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub nats: Vec<String>,
    /// A PEM file with the authorities that vouch for the servers and for other hosts' APIs. Left
    /// out: servers at loopback addresses without TLS.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub ca: Option<PathBuf>,
    /// PEM file of this host's certificate, which it shows to the servers.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub certificate: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub key: Option<PathBuf>,
    /// A file with the site's key, 64 hexadecimal digits, by which cameras' entries are encrypted in
    /// etcd: the same for all hosts. Left out: they lie there as they are, passwords included.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub secret_file: Option<PathBuf>,
    /// Cameras that this host takes. Left out: session_processes.max_concurrent_sessions.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub capacity: Option<u32>,
    /// What this host has, for cameras that ask for it: "gpu".
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    pub labels: Vec<String>,
    /// The networks of cameras that this host reaches, by names of your own.
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    pub networks: Vec<String>,
    /// Servers that hold each event: 3 in a site of three, 1 with a single NATS server.
    #[serde(default = "replicas")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: usize,
    /// Streams that the site's events are spread over; each has a leader of its own. The same for
    /// all hosts, for good.
    #[serde(default = "streams")]
    #[schemars(range(min = 1, max = 8))]
    pub streams: u8,
}

impl ClusterConfig {
    /// The keys whose values do not do, and why.
    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        for (key, name) in [("site", &self.site), ("host", &self.host)] {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if !name.chars().all(fits) {
                problems.push((key.to_owned(), "expected a to z, 0 to 9 and -".to_owned()));
            }
        }
        let files = [&self.ca, &self.certificate, &self.key];
        let has_tls = files.iter().all(|file| file.is_some());
        if !has_tls && files.iter().any(|file| file.is_some()) {
            let message = "ca, certificate and key belong together".to_owned();
            problems.push(("ca".to_owned(), message));
        }
        for (key, urls, [plain, tls]) in
            [("etcd", &self.etcd, ["http", "https"]), ("nats", &self.nats, ["nats", "tls"])]
        {
            for (index, text) in urls.iter().enumerate() {
                if let Some(message) = server_problem(text, plain, tls, has_tls) {
                    problems.push((format!("{key}[{index}]"), message));
                }
            }
        }
        let address = Url::parse(&self.address).ok();
        let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        if !address.as_ref().is_some_and(is_http) {
            let message = "expected https://HOST:PORT or http://HOST:PORT".to_owned();
            problems.push(("address".to_owned(), message));
        }
        problems
    }
}

/// What is wrong with the address of a server.
fn server_problem(text: &str, plain: &str, tls: &str, has_tls: bool) -> Option<String> {
    let form = || format!("expected {tls}://HOST:PORT, or {plain}:// at a loopback address");
    let Some(url) = Url::parse(text).ok().filter(Url::has_host) else { return Some(form()) };
    if url.scheme() == tls {
        let message = "TLS takes `ca`, `certificate` and `key` of this section".to_owned();
        return (!has_tls).then_some(message);
    }
    let is_loopback = url.host_str().is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    });
    (url.scheme() != plain || !is_loopback).then(form)
}

fn replicas() -> usize {
    3
}

fn streams() -> u8 {
    4
}
