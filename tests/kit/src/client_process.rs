//! Programs that nobody here wrote, as clients of a host.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::DEADLINE;
use crate::host::program;

/// The Python that has the packages of `tests/clients/requirements.txt`.
pub fn client_python() -> PathBuf {
    let target = program("ocelli").parent().and_then(Path::parent).map(Path::to_owned);
    let path = target.unwrap().join("clients/bin/python");
    assert!(path.is_file(), "{} is missing: `./x test` installs it", path.display());
    path
}

/// The script of axe-core, which looks for what keeps people from using a page.
pub fn axe_core() -> String {
    let python = client_python();
    let libraries = python.ancestors().nth(2).unwrap().join("lib");
    let found = std::fs::read_dir(&libraries).unwrap().filter_map(Result::ok).find_map(|python| {
        let package = python.path().join("site-packages/axe_playwright_python");
        std::fs::read_to_string(package.join("axe.min.js")).ok()
    });
    found.unwrap_or_else(|| panic!("no axe in {}: `./x test` installs it", libraries.display()))
}

/// A running program whose lines are read; killed when dropped.
#[derive(Debug)]
pub struct ClientProcess {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    seen: Vec<String>,
}

impl ClientProcess {
    /// Starts it. What it writes to standard error goes to the test's.
    pub fn start(command: &mut Command) -> Self {
        // A group of its own: what is started may be a script, whose program has to end with it.
        let spawned = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| {
            panic!("{:?} does not start (`./x test` installs it): {error}", command.get_program())
        });
        let (sender, lines) = mpsc::unbounded_channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        // Ends with the program.
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// The first line from now on for which `wanted` has an answer.
    pub async fn find<T>(&mut self, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        let search = async {
            while let Some(line) = self.lines.recv().await {
                let found = wanted(&line);
                self.seen.push(line);
                if found.is_some() {
                    return found;
                }
            }
            None
        };
        let found = timeout(DEADLINE, search).await.ok().flatten();
        found.unwrap_or_else(|| {
            panic!("not what was waited for; it said:\n{}", self.seen.join("\n"))
        })
    }

    /// Waits until it ends by itself: whether it went well, and all that it said.
    pub async fn end(mut self) -> (bool, String) {
        while let Some(line) = self.lines.recv().await {
            self.seen.push(line);
        }
        let status = self.child.wait().unwrap();
        (status.success(), self.seen.join("\n"))
    }
}

impl Drop for ClientProcess {
    fn drop(&mut self) {
        // The number of one that has been waited for may be another's.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
