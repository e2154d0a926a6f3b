//! What servers of a site's two engines have in common: a process that can be killed, frozen and
//! started again with what it has kept, here or in a network namespace.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{ClosedPort, DEADLINE, Process};

/// Between two looks at a server that tells nobody when it is ready.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long one look may take: a server that is frozen takes connections and answers nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Lines shown of the log of a server that does not get ready.
const TAIL: usize = 20;

/// Where a server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnginePlace {
    /// Its address.
    pub address: Ipv4Addr,
    /// The network namespace, as `ip netns` names it, in which the engine's usual ports are taken;
    /// this process's own otherwise, and free ports.
    pub namespace: Option<String>,
    /// The folder for what it keeps; one that goes with the server otherwise.
    pub folder: Option<PathBuf>,
}

impl EnginePlace {
    /// On this machine, for this machine alone.
    pub const fn loopback() -> Self {
        Self { address: Ipv4Addr::LOCALHOST, namespace: None, folder: None }
    }
}

/// A port of a server.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    _held: Option<ClosedPort>,
}

impl Port {
    /// The usual one in a namespace, or else a free one.
    pub(crate) fn of(place: &EnginePlace, usual: u16) -> Self {
        if place.namespace.is_some() {
            return Self { address: (place.address, usual).into(), _held: None };
        }
        let held = ClosedPort::on(place.address);
        Self { address: held.address, _held: Some(held) }
    }
}

/// A server that may run.
#[derive(Debug)]
pub(crate) struct Server {
    /// The program with its arguments, in its namespace.
    command: Vec<String>,
    log: PathBuf,
    /// Where it answers, over HTTP, whether it is ready.
    health: SocketAddr,
    /// What is asked there.
    path: &'static str,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn new(
        place: &EnginePlace,
        command: Vec<String>,
        log: PathBuf,
        health: SocketAddr,
        path: &'static str,
    ) -> Self {
        let inside = place.namespace.iter().flat_map(|name| ["ip", "netns", "exec", name]);
        let command = inside.map(str::to_owned).chain(command).collect();
        Self { command, log, health, path, child: None }
    }

    fn run(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let (program, arguments) = self.command.split_first().unwrap();
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} is missing (`./x setup`): {error}"));
        self.child = Some(child);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            if let Some(process) = Process::open(child.id()) {
                process.signal(signal);
            }
            let _ = child.wait();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn await_ready(&mut self) {
        let begun = Instant::now();
        while get(self.health, self.path).is_none() {
            let ended = self.child.as_mut().map(|child| child.try_wait());
            let ended = matches!(ended, Some(Ok(Some(_))));
            if ended || begun.elapsed() > DEADLINE {
                let log = self.log();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
                panic!("{:?} does not get ready:\n{tail}", self.command);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Signal::KILL);
    }
}

/// What a server says over HTTP; `None` where it says that it is not well, or nothing.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut connection = TcpStream::connect_timeout(&address, LOOK).ok()?;
    connection.set_read_timeout(Some(LOOK)).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    let (head, text) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).is_some_and(|status| status == "200").then(|| text.to_owned())
}

/// The servers of one engine, by number from 0. They are killed when this is dropped.
#[derive(Debug)]
pub struct Servers {
    pub(crate) servers: Vec<Server>,
}

impl Servers {
    /// How many there are, running or not.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// Starts one that does not run, with what it has kept. It gets ready by itself; see
    /// [`await_ready`](Self::await_ready).
    pub fn run(&mut self, number: usize) {
        self.servers[number].run();
    }

    /// Waits until each that runs says that it is well: that it knows a leader and has what the
    /// others have.
    pub fn await_ready(&mut self) {
        for server in self.servers.iter_mut().filter(|server| server.child.is_some()) {
            server.await_ready();
        }
    }

    /// Ends one as a power cut would, but that the disk keeps what the kernel has.
    pub fn kill(&mut self, number: usize) {
        self.servers[number].end(Signal::KILL);
    }

    /// Has one end in order.
    pub fn stop(&mut self, number: usize) {
        self.servers[number].end(Signal::TERM);
    }

    /// Stops one's process, or lets it go on: it takes connections and answers nothing meanwhile.
    /// One that does not run stays so.
    pub fn pause(&self, number: usize, paused: bool) {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        if let Some(process) = self.pid(number).and_then(Process::open) {
            process.signal(signal);
        }
    }

    /// Takes note of one that has ended by itself, which may be [`run`](Self::run) again then.
    pub fn forget_ended(&mut self, number: usize) {
        let child = &mut self.servers[number].child;
        if child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
            *child = None;
        }
    }

    /// The number of one's process, where it runs.
    pub fn pid(&self, number: usize) -> Option<u32> {
        self.servers[number].child.as_ref().map(Child::id)
    }

    /// What one has written to its log.
    pub fn log(&self, number: usize) -> String {
        self.servers[number].log()
    }
}

/// A folder of a server: the place's own, or one of this name in that of all.
pub(crate) fn folder(place: &EnginePlace, all: &Path, name: &str) -> PathBuf {
    let folder = place.folder.clone().unwrap_or_else(|| all.join(name));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
