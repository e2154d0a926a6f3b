//! Real RTSP cameras: Debian's gst-rtsp-server, fed with clips by `tests/cameras/rtsp_cameras.py`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::{ClosedPort, Process, clip, root};

/// A server on a port that is its own between its lives, too; killed when dropped.
#[derive(Debug)]
pub struct Cameras {
    arguments: Vec<String>,
    place: ClosedPort,
    running: Option<Child>,
}

impl Cameras {
    /// Starts a server. `mounts` are paths and the clips that they play. Returns when cameras can
    /// be connected to.
    pub fn start(options: &[&str], mounts: &[(&str, &str)]) -> Self {
        let mounts = mounts.iter().map(|(path, name)| format!("{path}={}", clip(name).display()));
        let arguments = options.iter().map(ToString::to_string).chain(mounts).collect();
        let mut cameras = Self { arguments, place: ClosedPort::new(), running: None };
        cameras.restart();
        cameras
    }

    /// The server's port: the same after a restart.
    pub fn port(&self) -> u16 {
        self.place.address.port()
    }

    /// The URL of a mount.
    pub fn url(&self, path: &str) -> String {
        format!("rtsp://{}{path}", self.place.address)
    }

    /// The URL of a mount with user name and password, which are percent-encoded already.
    pub fn url_with(&self, credentials: &str, path: &str) -> String {
        format!("rtsp://{credentials}@{}{path}", self.place.address)
    }

    /// Ends the server as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the server again after [`kill`](Self::kill). Returns when cameras can be connected
    /// to.
    pub fn restart(&mut self) {
        self.kill();
        let mut child = Command::new("/usr/bin/python3")
            .arg(root().join("tests/cameras/rtsp_cameras.py"))
            .args(["--port", &self.port().to_string()])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("/usr/bin/python3 starts");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.filter_map(|line| line.strip_prefix("READY ")?.trim().parse().ok()).next();
        self.running = Some(child);
        assert_eq!(port, Some(self.port()), "the RTSP server starts (`./x setup` installs it)");
    }

    /// Stops the server's execution; its connections stay open.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen server run on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        // One that was killed stays so.
        if let Some(child) = &self.running {
            Process::open(child.id()).expect("the server lives").signal(signal);
        }
    }
}

impl Drop for Cameras {
    fn drop(&mut self) {
        self.kill();
    }
}
