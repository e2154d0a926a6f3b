//! `./x setup`: asks for each thing that a build or a run needs, and installs those that are
//! missing.
//!
//! A need is asked for by its use and not by a package's name, so a machine that has it from
//! elsewhere installs nothing.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::helm::HELM;
use crate::nats_server::NATS_SERVER;
use crate::programs::GUEST_TARGET;
use crate::workspace::Workspace;
use crate::{clients, onnxruntime, process, promtool};

/// The system's Python: the GObject bindings are Debian packages, which another Python on the PATH
/// does not see.
pub(crate) const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// A Debian package, and a command that succeeds where what the package gives is there.
struct Need {
    package: &'static str,
    probe: &'static [&'static str],
}

const fn need(package: &'static str, probe: &'static [&'static str]) -> Need {
    Need { package, probe }
}

/// What building takes.
const TO_BUILD: &[Need] = &[
    need("build-essential", &["c++", "--version"]),
    need("pkg-config", &["pkg-config", "--version"]),
    // etcd's client is made of etcd's protocol definitions, which import protobuf's own.
    need("protobuf-compiler", &["protoc", "--version"]),
    need("libprotobuf-dev", &["test", "-e", "/usr/include/google/protobuf/descriptor.proto"]),
    need("libavcodec-dev", &["pkg-config", "--exists", "libavcodec"]),
    need("libavformat-dev", &["pkg-config", "--exists", "libavformat"]),
    need("libavutil-dev", &["pkg-config", "--exists", "libavutil"]),
];

/// What the cameras of the demo and the tests take.
const TO_RUN: &[Need] = &[
    need("python3", &[SYSTEM_PYTHON, "--version"]),
    need("python3-gi", &[SYSTEM_PYTHON, "-c", "import gi"]),
    need(
        "gir1.2-gst-rtsp-server-1.0",
        &[SYSTEM_PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"],
    ),
    need("gstreamer1.0-tools", &["gst-inspect-1.0", "--version"]),
    need("gstreamer1.0-plugins-base", &["gst-inspect-1.0", "--exists", "appsrc"]),
    need("gstreamer1.0-plugins-good", &["gst-inspect-1.0", "--exists", "rtph264pay"]),
    need("gstreamer1.0-plugins-bad", &["gst-inspect-1.0", "--exists", "h265parse"]),
];

/// What building and checking the dashboard takes; other packagers of Node.js include npm.
const TO_BUILD_UI: &[Need] =
    &[need("nodejs", &["node", "--version"]), need("npm", &["npm", "--version"])];

/// The package and the program.
const BROWSER: &str = "chromium-headless-shell";

/// What the tests take besides: a Redis, an MQTT broker, a registry, reverse proxies, and clients
/// that nobody here wrote.
const TO_TEST: &[Need] = &[
    need("redis-server", &["redis-server", "--version"]),
    need("redis-tools", &["redis-cli", "--version"]),
    need("mosquitto", &["sh", "-c", "PATH=$PATH:/usr/sbin; mosquitto -h | grep -q version"]),
    need("mosquitto-clients", &["sh", "-c", "mosquitto_sub --help | grep -q version"]),
    need("docker-registry", &["docker-registry", "--version"]),
    need("etcd-server", &["etcd", "--version"]),
    need("nginx-light", &["sh", "-c", "PATH=$PATH:/usr/sbin; nginx -v"]),
    need("caddy", &["caddy", "version"]),
    need("curl", &["curl", "--version"]),
    need(BROWSER, &[BROWSER, "--version"]),
];

/// What packing takes: `nasm` for FFmpeg's decoders, `mmdebstrap` for the image's libc.
const TO_PACKAGE: &[Need] = &[
    need("git", &["git", "--version"]),
    need("dpkg-dev", &["dpkg-shlibdeps", "--version"]),
    need("mmdebstrap", &["mmdebstrap", "--version"]),
    need("nasm", &["nasm", "--version"]),
    need("patchelf", &["patchelf", "--version"]),
    need("python3", &[SYSTEM_PYTHON, "--version"]),
    need("zlib1g-dev", &["pkg-config", "--exists", "zlib"]),
    need("zstd", &["zstd", "--version"]),
];

/// Installs what `./x build` and `./x lint` need and the machine lacks.
pub(crate) fn for_building() -> Result<()> {
    packages(TO_BUILD.iter())?;
    wasm_target()
}

/// Installs what `./x package` needs and the machine lacks.
pub(crate) fn for_packaging() -> Result<()> {
    packages(TO_PACKAGE.iter().chain(TO_BUILD).chain(TO_BUILD_UI))
}

/// What trying packages in bare systems takes.
const TO_TRY_PACKAGES: &[Need] = &[
    need("debootstrap", &["debootstrap", "--version"]),
    need("lintian", &["lintian", "--version"]),
    need("podman", &["podman", "--version"]),
    need("runc", &["runc", "--version"]),
    need("python3-venv", &[SYSTEM_PYTHON, "-c", "import ensurepip"]),
    need("skopeo", &["skopeo", "--version"]),
];

/// Installs what the trial of the packages needs and the machine lacks.
pub(crate) fn for_trying_packages() -> Result<()> {
    packages(TO_TRY_PACKAGES.iter())
}

/// Installs what `./x ui` and `./x lint` need and the machine lacks.
pub(crate) fn for_the_dashboard() -> Result<()> {
    packages(TO_BUILD_UI.iter())
}

/// Installs all that the machine lacks.
pub(crate) fn everything() -> Result<()> {
    packages(TO_BUILD.iter().chain(TO_RUN))?;
    wasm_target()?;
    onnx_runtime()
}

/// What of [`TO_TEST`] the bench takes: a browser, and what sinks write to.
const TO_MEASURE: [&str; 5] = [BROWSER, "etcd-server", "redis-server", "redis-tools", "mosquitto"];

/// Installs all that the bench needs and the machine lacks.
pub(crate) fn for_measuring() -> Result<()> {
    everything()?;
    packages(TO_TEST.iter().filter(|need| TO_MEASURE.contains(&need.package)))?;
    NATS_SERVER.install()
}

/// Installs all that the tests need and the machine lacks.
pub(crate) fn for_testing(workspace: &Workspace) -> Result<()> {
    everything()?;
    packages(TO_TEST.iter().chain(TO_CONNECT))?;
    promtool::install()?;
    HELM.install()?;
    NATS_SERVER.install()?;
    clients::install(workspace)
}

/// What of [`TO_TEST`] the lab takes.
const TO_LOSE: [&str; 1] = ["etcd-server"];

/// What makes the lab's networks, and gives a host a clock of its own.
const TO_CONNECT: &[Need] = &[
    need("faketime", &["faketime", "--version"]),
    need("iproute2", &["sh", "-c", "PATH=$PATH:/usr/sbin; ip -V"]),
    need("nftables", &["sh", "-c", "PATH=$PATH:/usr/sbin; nft --version"]),
];

/// Installs all that the lab needs and the machine lacks.
pub(crate) fn for_the_lab() -> Result<()> {
    for_building()?;
    packages(TO_TEST.iter().filter(|need| TO_LOSE.contains(&need.package)).chain(TO_CONNECT))?;
    NATS_SERVER.install()
}

/// Installs a component of the Rust toolchain that gives cargo the command `subcommand`.
pub(crate) fn rust_component(component: &str, subcommand: &str) -> Result<()> {
    if process::succeeds(Command::new("cargo").args([subcommand, "--version"])) {
        return Ok(());
    }
    rustup(&["component", "add", component])
}

/// Programs that Cargo builds from crates.io, each with the one version that this project is tried
/// with.
const TOOLS: [(&str, &str); 3] =
    [("cargo-deny", "0.20.2"), ("cargo-fuzz", "0.13.2"), ("cargo-nextest", "0.9.143")];

/// The path of one of [`TOOLS`]; built into the user's cache folder unless the machine has it.
/// Debug builds: they are made in a third of the time, and what they do here takes a second.
pub(crate) fn tool(name: &str) -> Result<PathBuf> {
    if process::succeeds(Command::new(name).arg("--version")) {
        return Ok(PathBuf::from(name));
    }
    let (_, version) = TOOLS.into_iter().find(|(tool, _)| *tool == name).context("no such tool")?;
    let root = onnxruntime::cache()?.join("tools");
    let program = root.join("bin").join(name);
    if !process::succeeds(Command::new(&program).arg("--version")) {
        process::step(&format!("building {name} {version} (once; some minutes)"), || {
            let mut cargo = Command::new("cargo");
            cargo.args(["install", "--locked", "--debug", "--root"]).arg(&root);
            process::run(
                cargo.args(["--version", version, name]).env("CARGO_PROFILE_DEV_DEBUG", "0"),
            )
        })?;
    }
    Ok(program)
}

fn packages(needs: impl Iterator<Item = &'static Need>) -> Result<()> {
    let lacking = missing(needs);
    if lacking.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = lacking.iter().map(|need| need.package).collect();
    process::step(&format!("installing with apt: {}", names.join(" ")), || install(&names))?;
    match missing(lacking.into_iter()).first() {
        Some(need) => bail!("{} is installed, but `{}` fails", need.package, need.probe.join(" ")),
        None => Ok(()),
    }
}

/// Those whose probe fails. All probes run at once: each waits for a process to start.
fn missing(needs: impl Iterator<Item = &'static Need>) -> Vec<&'static Need> {
    let probes: Vec<_> = needs.map(|need| (need, start(need.probe))).collect();
    let lacking = |probe: Option<Child>| {
        !probe.is_some_and(|mut child| child.wait().is_ok_and(|end| end.success()))
    };
    probes.into_iter().filter_map(|(need, probe)| lacking(probe).then_some(need)).collect()
}

/// None where there is no such program.
fn start(probe: &[&str]) -> Option<Child> {
    let (program, arguments) = probe.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().ok()
}

/// Installs Debian packages, as root or through a sudo that asks nothing.
fn install(packages: &[&str]) -> Result<()> {
    let by_hand = format!(
        "run this, then ./x again: sudo apt-get update && sudo apt-get install -y \
            --no-install-recommends {}",
        packages.join(" ")
    );
    if !process::succeeds(Command::new("apt-get").arg("--version")) {
        bail!("this machine has no apt-get; on Debian or Ubuntu {by_hand}");
    }
    let prefix: &[&str] = if rustix::process::geteuid().is_root() {
        &["env"]
    } else if process::succeeds(Command::new("sudo").args(["-n", "true"])) {
        &["sudo", "-n", "env"]
    } else {
        bail!("installing packages needs root; {by_hand}");
    };
    // In runlevel 1 no service is started because its package was installed: the tests' Redis is
    // their own process, on a port of its own. (Where systemd runs, it is started, which does no
    // harm.)
    let environment = ["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"];
    let apt_get = |arguments: &[&str]| {
        let words =
            [prefix, &environment, &["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]].concat();
        let (program, rest) = words.split_first().context("no command")?;
        process::run(Command::new(program).args(rest).args(arguments).stdin(Stdio::null()))
    };
    apt_get(&["update"])
        .and_then(|()| apt_get(&[&["install", "-y", "--no-install-recommends"], packages].concat()))
        .context(by_hand)
}

fn wasm_target() -> Result<()> {
    let asked = process::output(Command::new("rustc").args([
        "--print",
        "target-libdir",
        "--target",
        GUEST_TARGET,
    ]));
    if asked.is_ok_and(|folder| Path::new(folder.trim()).exists()) {
        return Ok(());
    }
    rustup(&["target", "add", GUEST_TARGET])
}

fn rustup(arguments: &[&str]) -> Result<()> {
    let command = format!("rustup {}", arguments.join(" "));
    process::step(&command, || {
        let by_hand = format!("Rust lacks a part; run this, then ./x again: {command}");
        process::run(Command::new("rustup").args(arguments)).context(by_hand)
    })
}

fn onnx_runtime() -> Result<()> {
    let library = onnxruntime::library()?;
    if onnxruntime::is_installed(&library) {
        return Ok(());
    }
    let python = python_with_pip()?;
    process::step("downloading ONNX Runtime (20 MB)", || onnxruntime::install(&library, python))
}

/// The user's own Python first: pip's configuration may belong to it.
pub(crate) fn python_with_pip() -> Result<&'static str> {
    let pip =
        |python: &&str| process::succeeds(Command::new(python).args(["-m", "pip", "--version"]));
    if let Some(python) = ["python3", SYSTEM_PYTHON].into_iter().find(pip) {
        return Ok(python);
    }
    process::step("installing with apt: python3-pip", || install(&["python3-pip"]))?;
    [SYSTEM_PYTHON]
        .into_iter()
        .find(pip)
        .context("python3-pip is installed, but `python3 -m pip` fails")
}
