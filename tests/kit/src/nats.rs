//! Real nats-servers with JetStream, one or three.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::engine::{Port, Server, folder, get};
use crate::skip::skip;
use crate::{Authority, EnginePlace, Servers, SignedCertificate};

/// Says where the program lies: `./x test` has it from a wheel.
const VARIABLE: &str = "OCELLI_NATS_SERVER";

/// Every write is on the disk before it is acknowledged: the default, every two minutes, loses
/// acknowledged messages in a power cut.
const SYNC: &str = "sync_interval: always";

/// Servers of one NATS.
#[derive(Debug)]
pub struct Nats {
    servers: Servers,
    ports: Vec<NatsPorts>,
    tls: bool,
    _folder: TempDir,
}

#[derive(Debug)]
struct NatsPorts {
    client: Port,
    peer: Port,
    /// Health and figures, without TLS.
    monitor: Port,
}

/// An account, which sees nothing of the others, with JetStream.
#[derive(Debug, Clone)]
pub struct NatsAccount {
    /// Its name.
    pub name: String,
    /// Who belongs to it.
    pub users: Vec<NatsUser>,
}

/// Whoever has a certificate of this common name.
#[derive(Debug, Clone)]
pub struct NatsUser {
    /// The common name.
    pub name: String,
    /// Subjects to which it may publish; empty: to all.
    pub publish: Vec<String>,
    /// Subjects to which it may subscribe; empty: to all.
    pub subscribe: Vec<String>,
}

impl NatsUser {
    /// One who may do everything in the account.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), publish: Vec::new(), subscribe: Vec::new() }
    }

    fn line(&self) -> String {
        let right = |name: &str, subjects: &[String]| {
            let subjects = serde_json::to_string(subjects).unwrap();
            if subjects == "[]" { String::new() } else { format!("{name}: {subjects}, ") }
        };
        let rights = right("publish", &self.publish) + &right("subscribe", &self.subscribe);
        format!("{{user: \"CN={}\", permissions: {{{rights}}}}}", self.name)
    }
}

/// How servers are to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct NatsSettings<'a> {
    /// Servers and clients ask each other for a certificate of this authority.
    pub authority: Option<&'a Authority>,
    /// The accounts; none: one for everybody. They take an authority: a certificate says who
    /// somebody is.
    pub accounts: &'a [NatsAccount],
    /// Further lines of the config.
    pub more: &'a str,
    /// Further lines of its section `jetstream`.
    pub jetstream: &'a str,
}

impl Nats {
    /// One on this machine. None, and the test is skipped, where there is no such program.
    pub fn single() -> Option<Self> {
        Self::start(&[EnginePlace::loopback()], NatsSettings::default())
    }

    /// Three on this machine; likewise.
    pub fn cluster() -> Option<Self> {
        Self::start(&[const { EnginePlace::loopback() }; 3], NatsSettings::default())
    }

    /// One at each of these places; likewise. Returns when all are ready.
    pub fn start(places: &[EnginePlace], settings: NatsSettings<'_>) -> Option<Self> {
        let program = program()?;
        let all = tempfile::tempdir().unwrap();
        let ports: Vec<NatsPorts> = places
            .iter()
            .map(|place| NatsPorts {
                client: Port::of(place, 4222),
                peer: Port::of(place, 6222),
                monitor: Port::of(place, 8222),
            })
            .collect();
        let server = |(number, (place, own)): (usize, (&EnginePlace, &NatsPorts))| {
            let name = format!("nats-{number}");
            let folder = folder(place, all.path(), &name);
            let mut config = format!(
                "server_name: {name}\nlisten: \"{}\"\nhttp: \"{}\"\n{}\njetstream {{store_dir: \
                 {:?}, {SYNC}\n{}\n}}\n",
                own.client.address,
                own.monitor.address,
                settings.more,
                folder.join("data"),
                settings.jetstream
            );
            let tls = settings.authority.map(|authority| tls(authority, &name, place));
            if let Some(tls) = &tls {
                let map = if settings.accounts.is_empty() { "verify" } else { "verify_and_map" };
                config += &format!("tls {{{tls}, {map}: true}}\n");
            }
            config += &accounts(settings.accounts);
            if ports.len() > 1 {
                config += &cluster(&ports, own, tls.as_deref());
            }
            let file = folder.join("nats.conf");
            std::fs::write(&file, config).unwrap();
            let command =
                vec![program.display().to_string(), "-c".into(), file.display().to_string()];
            Server::new(place, command, folder.join("log"), own.monitor.address, "/healthz")
        };
        let servers = places.iter().zip(&ports).enumerate().map(server).collect();
        let tls = settings.authority.is_some();
        let mut nats = Self { servers: Servers { servers }, ports, tls, _folder: all };
        (0..nats.count()).for_each(|number| nats.run(number));
        nats.await_ready();
        Some(nats)
    }

    /// The URLs for clients, one for each server.
    pub fn urls(&self) -> Vec<String> {
        let scheme = if self.tls { "tls" } else { "nats" };
        self.ports.iter().map(|ports| format!("{scheme}://{}", ports.client.address)).collect()
    }

    /// The server that leads the cluster's own group, which places streams.
    pub fn leader(&self) -> Option<usize> {
        self.number(&self.jetstream()?["meta_cluster"]["leader"])
    }

    /// The server that leads a stream.
    pub fn stream_leader(&self, stream: &str) -> Option<usize> {
        let jetstream = self.jetstream()?;
        let accounts = jetstream["account_details"].as_array()?;
        let streams = accounts.iter().filter_map(|account| account["stream_detail"].as_array());
        let found = streams.flatten().find(|found| found["name"] == stream)?;
        self.number(&found["cluster"]["leader"])
    }

    /// What the first server that answers says of JetStream.
    fn jetstream(&self) -> Option<Value> {
        let ask = |ports: &NatsPorts| get(ports.monitor.address, "/jsz?accounts=true&streams=true");
        serde_json::from_str(&self.ports.iter().find_map(ask)?).ok()
    }

    fn number(&self, name: &Value) -> Option<usize> {
        name.as_str()?.strip_prefix("nats-")?.parse().ok()
    }
}

/// The program; `None`, and the test is skipped, where there is none.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    let program = named.unwrap_or_else(|| PathBuf::from("nats-server"));
    match Command::new(&program).arg("--version").output() {
        Ok(output) if output.status.success() => Some(program),
        refused => {
            skip(&format!("there is no nats-server ({VARIABLE}): {refused:?}"));
            None
        }
    }
}

/// Lines of a section `tls`.
fn tls(authority: &Authority, name: &str, place: &EnginePlace) -> String {
    let SignedCertificate { certificate, key } =
        authority.sign(name, &[&place.address.to_string()]);
    format!("cert_file: {certificate:?}, key_file: {key:?}, ca_file: {:?}", authority.file())
}

fn accounts(accounts: &[NatsAccount]) -> String {
    let account = |account: &NatsAccount| {
        let users: Vec<String> = account.users.iter().map(NatsUser::line).collect();
        format!("{}: {{jetstream: enabled, users: [{}]}}\n", account.name, users.join(", "))
    };
    let accounts: String = accounts.iter().map(account).collect();
    if accounts.is_empty() { accounts } else { format!("accounts {{\n{accounts}}}\n") }
}

fn cluster(all: &[NatsPorts], own: &NatsPorts, tls: Option<&str>) -> String {
    let others =
        all.iter().map(|ports| ports.peer.address).filter(|peer| *peer != own.peer.address);
    let routes: Vec<String> = others.map(|peer| format!("\"nats://{peer}\"")).collect();
    let tls = tls.map_or(String::new(), |tls| format!("tls {{{tls}, verify: true}}\n"));
    let (listen, routes) = (own.peer.address, routes.join(", "));
    format!("cluster {{name: site, listen: \"{listen}\", routes: [{routes}]\n{tls}}}\n")
}

impl Deref for Nats {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        &self.servers
    }
}

impl DerefMut for Nats {
    fn deref_mut(&mut self) -> &mut Servers {
        &mut self.servers
    }
}
