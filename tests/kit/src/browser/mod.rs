//! A real browser: Debian's headless Chromium, whose windows a test drives as a person would, by
//! what is on the page, the mouse and the keys.
//!
//! It is driven over its own protocol, DevTools, which is JSON: a library for it would be tens of
//! thousands of generated lines, and WebDriver a second program that cannot do all of this.

mod devtools;
mod keys;
mod window;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use window::Window;

use devtools::DevTools;

/// The size of a window, in pixels, where a test does not say otherwise.
const SIZE: (u32, u32) = (1280, 800);

/// The browser, with a profile of its own; ended when dropped.
///
/// It reads its orders from a pipe and ends when that is closed, so it does not outlive a test that
/// is killed either.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    devtools: DevTools,
    _profile: TempDir,
}

impl Browser {
    /// Starts it.
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut child = command(profile.path())
            .spawn()
            .expect("sh starts `chromium-headless-shell`, which `./x test` installs");
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let browser = Self { child, devtools: DevTools::over(to, from), _profile: profile };
        let version = browser.call("Browser.getVersion", json!({})).await;
        assert!(version["product"].is_string(), "{version}");
        browser
    }

    /// A window of somebody who has never been here: no cookies, nothing stored.
    pub async fn person(&self) -> Person<'_> {
        let made = self.call("Target.createBrowserContext", json!({})).await;
        Person { browser: self, context: made["browserContextId"].as_str().unwrap().to_owned() }
    }

    /// A new person's first window, on this page.
    pub async fn open(&self, url: &str) -> Window {
        let window = self.person().await.window().await;
        window.go(url).await;
        window
    }

    /// The CPU time that all its processes have taken, in seconds.
    pub async fn cpu_seconds(&self) -> f64 {
        let processes = self.call("SystemInfo.getProcessInfo", json!({})).await;
        let processes = processes["processInfo"].as_array().expect("a list of processes");
        processes.iter().filter_map(|process| process["cpuTime"].as_f64()).sum()
    }

    async fn call(&self, method: &str, parameters: Value) -> Value {
        let answer = self.devtools.call("", method, parameters).await;
        answer.unwrap_or_else(|error| panic!("the browser: {error}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // All of its processes: a profile cannot be removed while one of them writes in it.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Somebody with cookies of their own, in windows that share them.
#[derive(Debug)]
pub struct Person<'a> {
    browser: &'a Browser,
    context: String,
}

impl Person<'_> {
    /// A new, empty window.
    pub async fn window(&self) -> Window {
        let parameters = json!({"url": "about:blank", "browserContextId": self.context,
            "width": SIZE.0, "height": SIZE.1, "newWindow": true});
        let target = self.browser.call("Target.createTarget", parameters).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.browser.call("Target.attachToTarget", attach).await;
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        Window::new(self.browser.devtools.clone(), session, target["targetId"].clone()).await
    }
}

/// The browser's command. The shell gives it the pipes as descriptors 3 and 4, where it looks for
/// them, and is then the browser itself.
fn command(profile: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args([
        "-c",
        "exec chromium-headless-shell \"$@\" 3<&0 4>&1 </dev/null >/dev/null",
        "sh",
    ]);
    // The tests may run as root, for whom it has no sandbox; without /dev/shm of a size that
    // containers do not have.
    command.args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    // Every window counts as the one in front, as on a wall of screens: a timer of a page behind
    // another runs once a second.
    command.args([
        "--disable-background-timer-throttling",
        "--disable-backgrounding-occluded-windows",
        "--disable-renderer-backgrounding",
    ]);
    // It looks for nothing outside of this machine.
    command.args(["--disable-background-networking", "--disable-component-update"]);
    command.arg("--remote-debugging-pipe");
    command.arg(format!("--user-data-dir={}", profile.display())).env("HOME", profile);
    // What it says of a machine without D-Bus and video acceleration helps nobody.
    command.stderr(Stdio::null()).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    command
}
