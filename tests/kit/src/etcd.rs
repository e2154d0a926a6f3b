//! Real etcd servers, one or three.

use std::ops::{Deref, DerefMut};

use tempfile::TempDir;

use crate::engine::{Port, Server, folder, get};
use crate::{Authority, EnginePlace, Servers, SignedCertificate};

/// Servers of one etcd.
#[derive(Debug)]
pub struct Etcd {
    servers: Servers,
    ports: Vec<EtcdPorts>,
    tls: bool,
    _folder: TempDir,
}

#[derive(Debug)]
struct EtcdPorts {
    client: Port,
    peer: Port,
    /// Health and metrics, without TLS.
    metrics: Port,
}

impl Etcd {
    /// One on this machine.
    pub fn single() -> Self {
        Self::start(&[EnginePlace::loopback()], None, &[])
    }

    /// Three on this machine.
    pub fn cluster() -> Self {
        Self::start(&[const { EnginePlace::loopback() }; 3], None, &[])
    }

    /// One at each of these places, with further arguments. With an authority, servers and clients
    /// ask each other for a certificate of it. Returns when all are ready.
    pub fn start(places: &[EnginePlace], authority: Option<&Authority>, more: &[&str]) -> Self {
        let all = tempfile::tempdir().unwrap();
        let ports: Vec<EtcdPorts> = places
            .iter()
            .map(|place| EtcdPorts {
                client: Port::of(place, 2379),
                peer: Port::of(place, 2380),
                metrics: Port::of(place, 2381),
            })
            .collect();
        let scheme = if authority.is_some() { "https" } else { "http" };
        let members: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(number, ports)| format!("etcd-{number}={scheme}://{}", ports.peer.address))
            .collect();
        let members = members.join(",");
        let server = |(number, (place, ports)): (usize, (&EnginePlace, &EtcdPorts))| {
            let name = format!("etcd-{number}");
            let folder = folder(place, all.path(), &name);
            let client = format!("{scheme}://{}", ports.client.address);
            let peer = format!("{scheme}://{}", ports.peer.address);
            let mut command = vec!["etcd".to_owned()];
            let mut option = |name: &str, value: &str| command.push(format!("--{name}={value}"));
            option("name", &name);
            option("data-dir", &folder.join("data").display().to_string());
            option("listen-client-urls", &client);
            option("advertise-client-urls", &client);
            option("listen-peer-urls", &peer);
            option("initial-advertise-peer-urls", &peer);
            option("initial-cluster", &members);
            option("listen-metrics-urls", &format!("http://{}", ports.metrics.address));
            option("logger", "zap");
            if let Some(authority) = authority {
                let SignedCertificate { certificate, key } =
                    authority.sign(&name, &[&place.address.to_string()]);
                for of in ["", "peer-"] {
                    option(&format!("{of}cert-file"), &certificate.display().to_string());
                    option(&format!("{of}key-file"), &key.display().to_string());
                    let ca = authority.file().display().to_string();
                    option(&format!("{of}trusted-ca-file"), &ca);
                    option(&format!("{of}client-cert-auth"), "true");
                }
            }
            command.extend(more.iter().map(|argument| (*argument).to_owned()));
            let log = folder.join("log");
            Server::new(place, command, log, ports.metrics.address, "/health")
        };
        let servers = places.iter().zip(&ports).enumerate().map(server).collect();
        let mut etcd =
            Self { servers: Servers { servers }, ports, tls: authority.is_some(), _folder: all };
        // Each waits for the others before it is ready.
        (0..etcd.count()).for_each(|number| etcd.run(number));
        etcd.await_ready();
        etcd
    }

    /// The URLs for clients, one for each server.
    pub fn urls(&self) -> Vec<String> {
        let scheme = if self.tls { "https" } else { "http" };
        let urls = self.ports.iter().map(|ports| format!("{scheme}://{}", ports.client.address));
        urls.collect()
    }

    /// The one that says that it leads.
    pub fn leader(&self) -> Option<usize> {
        let leads = |ports: &EtcdPorts| {
            let metrics = get(ports.metrics.address, "/metrics").unwrap_or_default();
            metrics.lines().any(|line| line == "etcd_server_is_leader 1")
        };
        self.ports.iter().position(leads)
    }
}

impl Deref for Etcd {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        &self.servers
    }
}

impl DerefMut for Etcd {
    fn deref_mut(&mut self) -> &mut Servers {
        &mut self.servers
    }
}
