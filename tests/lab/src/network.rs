//! Machines of a site in one: network namespaces, each joined by a cable to a bridge in one more.
//!
//! Everything has a name that begins with this process's prefix, cables are made inside the
//! namespaces, and nothing outside them is touched. All goes, processes included, when the network
//! is dropped; what a lab that was killed has left goes when the next begins.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How names of all labs' namespaces begin; the number of the process follows.
const PREFIX: &str = "ocelli-lab-";

/// The namespace of the bridge: the lab's own place.
const HUB: &str = "hub";

/// Addresses are of this network, which exists inside the namespaces alone.
const NETWORK: [u8; 3] = [10, 77, 0];

/// The first machine's number in it.
const FIRST: u8 = 10;

/// Which way a machine is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing comes and nothing goes.
    Both,
    /// It speaks, and hears nothing.
    Deaf,
    /// It hears, and nobody hears it.
    Mute,
}

/// The namespaces and cables.
#[derive(Debug)]
pub(crate) struct Network {
    machines: usize,
}

impl Network {
    /// Makes a network of so many machines, and moves the calling thread, from which all others
    /// come, to the hub.
    pub(crate) fn new(machines: usize) -> Result<Self> {
        remove_leftovers();
        // Dropped where a step fails, so that the steps before it are taken back.
        let network = Self { machines };
        let hub = name(HUB);
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "set", "lo", "up"])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        let own = format!("{}/24", address_of(1));
        ip(&["-n", &hub, "address", "add", &own, "dev", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        for machine in 0..machines {
            let (inside, port) = (network.namespace(machine), port(machine));
            ip(&["netns", "add", &inside])?;
            ip(&["-n", &inside, "link", "set", "lo", "up"])?;
            let cable = ["link", "add", "eth0", "netns", &inside, "type", "veth", "peer"];
            ip(&[&cable[..], &["name", &port, "netns", &hub]].concat())?;
            ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"])?;
            let address = format!("{}/24", network.address(machine));
            ip(&["-n", &inside, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &inside, "link", "set", "eth0", "up"])?;
        }
        let file = format!("/run/netns/{hub}");
        let file = File::open(&file).with_context(|| format!("cannot open {file}"))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(network)
    }

    /// The namespace of a machine.
    pub(crate) fn namespace(&self, machine: usize) -> String {
        name(&format!("m{machine}"))
    }

    /// The address of a machine.
    pub(crate) fn address(&self, machine: usize) -> Ipv4Addr {
        address_of(FIRST + u8::try_from(machine).unwrap())
    }

    /// Pulls the cable of a machine, or plugs it in.
    pub(crate) fn plug(&self, machine: usize, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        ip(&["-n", &name(HUB), "link", "set", &port(machine), state])
    }

    /// Loses a machine's packets on the way, in one direction or both.
    pub(crate) fn cut(&self, machine: usize, cut: Cut) -> Result<()> {
        let lose = |hook: &str, interface: &str| {
            format!(
                "chain {hook} {{ type filter hook {hook} priority 0; {interface} \"eth0\" drop; }}"
            )
        };
        let (incoming, outgoing) = (lose("input", "iifname"), lose("output", "oifname"));
        let chains = match cut {
            Cut::Both => format!("{incoming}\n{outgoing}"),
            Cut::Deaf => incoming,
            Cut::Mute => outgoing,
        };
        self.nft(machine, &format!("table inet lab {{\n{chains}\n}}"))
    }

    /// Heals a [`cut`](Self::cut).
    pub(crate) fn heal(&self, machine: usize) -> Result<()> {
        self.nft(machine, "delete table inet lab")
    }

    fn nft(&self, machine: usize, rules: &str) -> Result<()> {
        // nftables knows a table no more than once; and rules come by name, not by a file.
        let namespace = self.namespace(machine);
        run(Command::new("ip").args(["netns", "exec", &namespace, "nft", rules]))
    }

    /// Kills every process of a machine.
    pub(crate) fn kill_all(&self, machine: usize) {
        kill_in(&self.namespace(machine));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for machine in 0..self.machines {
            let name = self.namespace(machine);
            kill_in(&name);
            let _ = ip(&["netns", "del", &name]);
        }
        // This process is in the hub itself: the namespace goes when it does.
        let _ = ip(&["netns", "del", &name(HUB)]);
    }
}

/// Whether this process may make namespaces; why not, otherwise.
pub(crate) fn possible() -> Result<()> {
    let probe = name("probe");
    ip(&["netns", "add", &probe])?;
    let rules = "table inet lab { }";
    let tried = run(Command::new("ip").args(["netns", "exec", &probe, "nft", rules]));
    ip(&["netns", "del", &probe])?;
    tried
}

fn name(of: &str) -> String {
    format!("{PREFIX}{}-{of}", std::process::id())
}

/// The bridge's end of a machine's cable.
fn port(machine: usize) -> String {
    format!("port{machine}")
}

fn address_of(number: u8) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, number)
}

/// What labs have left that did not end by themselves.
fn remove_leftovers() {
    let Ok(list) = std::fs::read_dir("/run/netns") else { return };
    for entry in list.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let pid = rest.split('-').next().unwrap_or_default();
        if std::fs::exists(format!("/proc/{pid}")).is_ok_and(|lives| !lives) {
            kill_in(&name);
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

/// Kills every process in a namespace but this one.
fn kill_in(namespace: &str) {
    let Ok(output) = Command::new("ip").args(["netns", "pids", namespace]).output() else { return };
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pids = text.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok());
    for pid in pids.filter(|pid| *pid != own).filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(())
}
