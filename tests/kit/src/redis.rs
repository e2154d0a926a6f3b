//! A real Redis on a port of its own, and `redis-cli` beside it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{ClosedPort, DEADLINE, Process};

/// Between two looks at a server that tells nobody when it listens.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A place for a Redis: a port, which refuses connections while no server runs, and a folder for
/// what it keeps. The server that runs there is killed when this is dropped.
#[derive(Debug)]
pub struct Redis {
    port: ClosedPort,
    folder: TempDir,
    server: Option<Child>,
}

impl Redis {
    /// Takes a port, and starts nothing there yet.
    pub fn nowhere() -> Self {
        Self { port: ClosedPort::new(), folder: tempfile::tempdir().unwrap(), server: None }
    }

    /// Starts a server that keeps everything in memory alone.
    pub fn start() -> Self {
        let mut redis = Self::nowhere();
        redis.run(&[]);
        redis
    }

    /// Starts the server, with further settings: a name and its value, one after the other. Returns
    /// when it answers.
    pub fn run(&mut self, settings: &[&str]) {
        assert!(self.server.is_none(), "it runs");
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port().to_string()])
            .args(["--save", "", "--daemonize", "no", "--dir"])
            .arg(self.folder.path())
            .args(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is missing: `./x setup` says how to get it");
        self.server = Some(server);
        let begun = Instant::now();
        while self.try_cli(&["PING"]).as_deref() != Some("PONG") {
            assert!(begun.elapsed() < DEADLINE, "redis-server does not answer");
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Ends the server as a power cut would. What it kept in memory alone is gone.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Stops the process, or lets it go on: it takes connections and answers nothing meanwhile. One
    /// that was killed stays so.
    pub fn pause(&self, paused: bool) {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        if let Some(server) = &self.server {
            Process::open(server.id()).expect("it lives").signal(signal);
        }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://{}/0", self.port.address)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port.address.port()
    }

    /// A section of a host's config, with further lines.
    pub fn section(&self, more: &str) -> String {
        format!("[redis]\nurl = \"{}\"\n{more}\n", self.url())
    }

    /// What `redis-cli` says to a command, without its last line break.
    pub fn cli(&self, command: &[&str]) -> String {
        self.try_cli(command).unwrap_or_else(|| panic!("redis-cli {command:?} failed"))
    }

    /// Starts `redis-cli` with a command that goes on for ever. What it says is to be read from its
    /// standard output.
    pub fn follow(&self, command: &[&str]) -> Child {
        let mut cli = self.command(command);
        cli.stdout(Stdio::piped()).spawn().expect("redis-cli is there")
    }

    fn try_cli(&self, command: &[&str]) -> Option<String> {
        let output = self.command(command).output().expect("redis-cli is there");
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim_end_matches('\n').to_owned())
    }

    fn command(&self, command: &[&str]) -> Command {
        let mut cli = Command::new("redis-cli");
        cli.args(["-h", "127.0.0.1", "-p", &self.port().to_string()])
            .args(command)
            .stdin(Stdio::null());
        cli
    }

    /// The entries of a stream, each with its id and its fields. Read in bounded pages.
    pub fn entries(&self, stream: &str) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let start = entries.last().map_or("-".to_owned(), |entry| format!("({}", entry.id));
            let text = self.cli(&["--json", "XRANGE", stream, &start, "+", "COUNT", "1000"]);
            let page: Vec<(String, Vec<String>)> = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("XRANGE {stream}: {error}: {text:.300}"));
            if page.is_empty() {
                return entries;
            }
            entries.extend(page.into_iter().map(|(id, fields)| Entry { id, fields }));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: String,
    fields: Vec<String>,
}

impl Entry {
    /// A field.
    pub fn get(&self, name: &str) -> &str {
        let field = self.fields.chunks(2).find(|field| field[0] == name);
        field.map(|field| field[1].as_str()).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// A field that is a number.
    pub fn number(&self, name: &str) -> u64 {
        self.get(name).parse().unwrap_or_else(|_| panic!("{name} is no number in {self:?}"))
    }
}
