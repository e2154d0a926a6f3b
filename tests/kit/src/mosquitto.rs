//! A real MQTT broker on a port of its own, and `mosquitto_sub` beside it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Authority, ClosedPort, DEADLINE, Process};

/// Between two looks at a server that tells nobody when it listens.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What the broker is told in any case: who subscribes gets everything, however slow, and what it
/// has acknowledged outlasts its restart.
const SETTINGS: &str = "user root\nlog_type none\npersistence true\nautosave_interval 0\n\
    max_queued_messages 0\n";

/// A place for a broker: a port, which refuses connections while no broker runs, and a folder for
/// what it keeps. The broker that runs there is killed when this is dropped.
#[derive(Debug)]
pub struct Mosquitto {
    port: ClosedPort,
    folder: TempDir,
    server: Option<Child>,
}

/// Certificates of a broker at 127.0.0.1 and of a client, with the authority that has signed both.
#[derive(Debug, Clone)]
pub struct BrokerCertificates {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The client's certificate and key.
    pub client: (PathBuf, PathBuf),
    /// That of a server at 127.0.0.1.
    pub(crate) server: (PathBuf, PathBuf),
}

impl Mosquitto {
    /// Takes a port, and starts nothing there yet.
    pub fn nowhere() -> Self {
        Self { port: ClosedPort::new(), folder: tempfile::tempdir().unwrap(), server: None }
    }

    /// Starts a broker that admits everybody.
    pub fn start() -> Self {
        let mut broker = Self::nowhere();
        broker.run("allow_anonymous true\n");
        broker
    }

    /// Starts the broker, with further lines of its config. Returns when it listens.
    pub fn run(&mut self, settings: &str) {
        assert!(self.server.is_none(), "it runs");
        let folder = self.folder.path();
        let listener = format!("listener {} 127.0.0.1\n", self.port());
        let place = format!("persistence_location {}/\n", folder.display());
        let file = folder.join("mosquitto.conf");
        std::fs::write(&file, format!("{SETTINGS}{place}{listener}{settings}")).unwrap();
        let server = Command::new(broker())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is missing: `./x setup` says how to get it");
        self.server = Some(server);
        let begun = Instant::now();
        while TcpStream::connect(self.port.address).is_err() {
            assert!(begun.elapsed() < DEADLINE, "mosquitto does not listen");
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Has the broker end, and keep what it has.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            Process::open(server.id()).expect("it lives").signal(Signal::TERM);
            let _ = server.wait();
        }
    }

    /// Stops the process, or lets it go on: it takes connections and answers nothing meanwhile.
    pub fn pause(&self, paused: bool) {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        if let Some(server) = &self.server {
            Process::open(server.id()).expect("it lives").signal(signal);
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port.address.port()
    }

    /// A section of a host's config, with further lines.
    pub fn section(&self, more: &str) -> String {
        format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nname = \"box\"\n{more}\n", self.port())
    }

    /// Adds a user, and gives the lines of the broker's config by which nobody else is admitted.
    pub fn user(&self, name: &str, password: &str) -> String {
        let file = self.folder.path().join("passwords");
        let made = Command::new("mosquitto_passwd")
            .args(["-b", "-c"])
            .arg(&file)
            .args([name, password])
            .status();
        assert!(made.expect("mosquitto_passwd is there").success());
        format!("allow_anonymous false\npassword_file {}\n", file.display())
    }

    /// Makes certificates, and gives the lines of the broker's config by which it uses them and asks
    /// for the client's.
    pub fn certificates(&self) -> (BrokerCertificates, String) {
        let certificates = BrokerCertificates::make(self.folder.path());
        let (certificate, key) = &certificates.server;
        let settings = format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nallow_anonymous true\n",
            certificates.ca.display(),
            certificate.display(),
            key.display()
        );
        (certificates, settings)
    }

    /// Listens to these topics: gets everything that is published from now on, also what comes while
    /// it or the broker is away, and what is retained.
    pub fn subscribe(&self, topics: &[&str]) -> MqttSubscriber {
        self.subscribe_as(topics, &[])
    }

    /// As [`Self::subscribe`], with further arguments of `mosquitto_sub`.
    pub fn subscribe_as(&self, topics: &[&str], more: &[&str]) -> MqttSubscriber {
        let id = format!("check-{:x}", fastrand::u64(..));
        let command = |format: &[&str]| {
            let mut command = Command::new("mosquitto_sub");
            command
                .args(["-h", "127.0.0.1", "-p", &self.port().to_string(), "-V", "mqttv5"])
                .args(["-i", &id, "-c", "-x", "3600", "-q", "1"])
                .args(topics.iter().flat_map(|topic| ["-t", topic]))
                .args(more)
                .args(format)
                .stdin(Stdio::null());
            command
        };
        // The broker knows the subscriber from then on.
        let known = command(&["-E"]).stdout(Stdio::null()).status();
        assert!(known.expect("mosquitto_sub is missing").success(), "no subscription");
        let child = command(&["-F", "%r\t%t\t%p"]).stdout(Stdio::piped()).spawn();
        MqttSubscriber::of(child.expect("mosquitto_sub is there"))
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl BrokerCertificates {
    pub(crate) fn make(folder: &Path) -> Self {
        let authority = Authority::new(folder);
        let signed = |name: &str, place: &str| {
            let files = authority.sign(name, &[place]);
            (files.certificate, files.key)
        };
        Self {
            client: signed("client", "client"),
            server: signed("server", "127.0.0.1"),
            ca: authority.file(),
        }
    }
}

/// A message as a subscriber got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttMessage {
    /// Whether it was there before the subscriber.
    pub retained: bool,
    /// Its topic.
    pub topic: String,
    /// What it says; empty where it is taken back.
    pub payload: String,
}

/// A subscriber of a program that nobody here wrote. It is killed when this is dropped.
#[derive(Debug)]
pub struct MqttSubscriber {
    child: Child,
    heard: Arc<(Mutex<VecDeque<MqttMessage>>, Condvar)>,
}

impl MqttSubscriber {
    fn of(mut child: Child) -> Self {
        let heard = Arc::<(Mutex<VecDeque<MqttMessage>>, Condvar)>::default();
        let (lines, told) = (child.stdout.take().unwrap(), Arc::clone(&heard));
        std::thread::spawn(move || {
            for line in BufReader::new(lines).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let mut parts = line.splitn(3, '\t');
                let mut part = || parts.next().unwrap_or_default().to_owned();
                let (retained, topic, payload) = (part() == "1", part(), part());
                told.0.lock().push_back(MqttMessage { retained, topic, payload });
                told.1.notify_all();
            }
        });
        Self { child, heard }
    }

    /// The next message. Blocks.
    pub fn received(&mut self) -> MqttMessage {
        let (heard, told) = &*self.heard;
        let mut heard = heard.lock();
        let waited = told.wait_while_for(&mut heard, |heard| heard.is_empty(), DEADLINE);
        assert!(!waited.timed_out(), "no message comes");
        heard.pop_front().unwrap()
    }

    /// The first message that is wanted; those before it are gone. Blocks.
    pub fn find<T>(&mut self, mut wanted: impl FnMut(&MqttMessage) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.received()) {
                return found;
            }
        }
    }
}

impl Drop for MqttSubscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian has it where only root's PATH looks.
fn broker() -> &'static str {
    const DEBIAN: &str = "/usr/sbin/mosquitto";
    if std::path::Path::new(DEBIAN).exists() { DEBIAN } else { "mosquitto" }
}
