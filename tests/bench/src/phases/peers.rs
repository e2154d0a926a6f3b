//! Other programs that watch cameras, turn by turn with Ocelli on the same cameras: results a
//! second, CPU, memory, start.
//!
//! The programs are scripts in a folder that is given and only read. Each runs in a virtual
//! environment of its own, which is made once in another folder, and prints a line of JSON. One
//! that is not there, cannot be installed or fails is told in the table, in the place of its
//! figures.

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::{Environment, live};
use crate::cameras::Cameras;
use crate::child::Running;
use crate::table::Table;

/// Numbers of cameras: as many as two cores served with the larger model, twice as many, and as
/// many as `session_processes.max_concurrent_sessions` allows by default.
const CAMERAS: [usize; 3] = [4, 8, 20];

/// The model that all peers run, so that Ocelli runs it in one of its turns, too.
const MODEL: &str = "nanodet-g-416";

/// The Python that makes environments, with pip.
const MAKER: &str = "python3";

/// Cameras' server, interpreter and models of twenty processes take their time on two cores.
const START_LIMIT: Duration = Duration::from_secs(240);

/// Packages of up to 7 GB.
const INSTALL_LIMIT: Duration = Duration::from_secs(1200);

/// Bytes of a peer's output that are kept. Its result is a line of less than 1 KiB.
const MAX_OUTPUT: u64 = 1 << 20;

/// Letters of a reason for which a peer was skipped.
const SHOWN: usize = 200;

/// Where the scripts are, and where their environments are made.
#[derive(Debug, Clone)]
pub struct PeerFolders {
    /// The scripts.
    pub scripts: PathBuf,
    /// Their environments, and folders to work in.
    pub cache: PathBuf,
}

/// A script, by what its first comment says of it.
struct Peer {
    name: &'static str,
    script: &'static str,
    /// From PyPI.
    packages: &'static [&'static str],
    arguments: Arguments,
    /// Where its line has the figures, and what brings them to the units of [`Figures`].
    results_per_second: &'static str,
    cpu_per_result: (&'static str, f64),
    pss_per_camera: &'static str,
    first_result: &'static str,
}

/// How a script is told what to do.
#[derive(Clone, Copy)]
enum Arguments {
    /// The model's file, seconds, and the cameras' addresses.
    Addresses,
    /// The number of cameras, which it plays itself by the same launcher, and seconds. `engine`
    /// is the package in which its pipeline lies.
    Number { engine: &'static str },
}

/// Each of them takes pictures of RTSP cameras through the same detector.
const PEERS: [Peer; 3] = [
    Peer {
        name: "process per session",
        script: "seed_worker.py",
        packages: &["onnxruntime==1.28.0", "numpy", "opencv-python-headless", "pillow"],
        arguments: Arguments::Addresses,
        results_per_second: "results_per_s",
        cpu_per_result: ("cpu_s_per_result", 1000.0),
        pss_per_camera: "pss_mb_per_session",
        first_result: "first_result_s",
    },
    roboflow("Roboflow inference", "inference", &["inference"]),
    roboflow(
        "Roboflow streamvision",
        "streamvision",
        &["streamvision", "onnxruntime==1.28.0", "pillow"],
    ),
];

const fn roboflow(
    name: &'static str,
    engine: &'static str,
    packages: &'static [&'static str],
) -> Peer {
    Peer {
        name,
        script: "peer_roboflow.py",
        packages,
        arguments: Arguments::Number { engine },
        results_per_second: "results_per_s",
        cpu_per_result: ("cpu_ms_per_result", 1.0),
        pss_per_camera: "pss_mb_per_camera",
        first_result: "first_result_s",
    }
}

/// One turn.
#[derive(Debug, Serialize)]
pub struct Turn {
    /// Of 10 pictures a second each.
    pub cameras: usize,
    /// Who had it.
    pub who: String,
    /// What came of it.
    pub figures: Option<Figures>,
    /// Why nothing did.
    pub skipped: Option<String>,
}

/// All turns, in the order in which they were taken.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct PeerTurns(Vec<Turn>);

/// The figures of one turn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Of all cameras together.
    pub results_per_second: f64,
    /// Milliseconds of CPU of all processes.
    pub cpu_ms_per_result: f64,
    /// MB of PSS of all processes, divided by the number of cameras.
    pub pss_mb_per_camera: f64,
    /// From the start of the program to the first result of any camera, in seconds.
    pub first_result_s: f64,
}

/// Measures; `progress` gets each turn before it begins.
pub async fn measure(
    environment: &Environment,
    folders: &PeerFolders,
    progress: impl Fn(&str),
) -> Result<PeerTurns> {
    ensure!(folders.scripts.is_dir(), "--peers: no folder {}", folders.scripts.display());
    let mut peers = Vec::new();
    for peer in &PEERS {
        progress(&format!("the environment of {}", peer.name));
        let python = install(peer, folders).await;
        if let Err(reason) = &python {
            progress(&format!("SKIPPED: {}: {reason:#}", peer.name));
        }
        peers.push((peer, python));
    }
    let mut turns = Vec::new();
    for cameras in CAMERAS {
        for model in [MODEL, ocelli_sdk::nanodet::DEFAULT.name] {
            let who = format!("Ocelli, {model}");
            progress(&format!("{cameras} cameras: {who}"));
            let live = live::measure_model(environment, cameras, model).await?;
            let figures = Figures {
                results_per_second: live.results_per_second,
                cpu_ms_per_result: live.cpu_ms_per_result,
                pss_mb_per_camera: live.memory.all_per_camera,
                first_result_s: live.first_result_s,
            };
            turns.push(Turn { cameras, who, figures: Some(figures), skipped: None });
        }
        for (peer, python) in &peers {
            progress(&format!("{cameras} cameras: {}", peer.name));
            let outcome = match python {
                Ok(python) => turn(environment, folders, peer, python, cameras).await,
                Err(reason) => Err(anyhow::anyhow!("{reason:#}")),
            };
            let (figures, skipped) = match outcome {
                Ok(figures) => (Some(figures), None),
                Err(reason) => (None, Some(shortened(&format!("{reason:#}")))),
            };
            if let Some(reason) = &skipped {
                progress(&format!("SKIPPED: {}: {reason}", peer.name));
            }
            turns.push(Turn { cameras, who: peer.name.into(), figures, skipped });
        }
    }
    Ok(PeerTurns(turns))
}

/// The Python of a peer's environment, which is made unless it is there.
async fn install(peer: &Peer, folders: &PeerFolders) -> Result<PathBuf> {
    let script = folders.scripts.join(peer.script);
    ensure!(script.is_file(), "{} is not there", script.display());
    let own = own_folder(peer, folders);
    let python = own.join("venv/bin/python");
    let (stamp, wanted) = (own.join("packages.txt"), peer.packages.join("\n"));
    // Written last: an environment that was not finished is made anew.
    if std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && python.is_file() {
        return Ok(python);
    }
    std::fs::create_dir_all(&own).with_context(|| own.display().to_string())?;
    let mut maker = Command::new(MAKER);
    // Without a pip of its own: that one would not know the configuration of the Python that makes
    // it.
    maker.args(["-m", "venv", "--clear", "--without-pip"]).arg(own.join("venv"));
    done("python3 -m venv", maker, INSTALL_LIMIT).await?;
    let mut pip = Command::new(MAKER);
    pip.args(["-m", "pip", "--python"]).arg(&python);
    pip.args(["--no-input", "--disable-pip-version-check", "install", "--quiet"]);
    // Some packages have parts without a wheel.
    pip.arg("--prefer-binary").args(peer.packages);
    done("pip", pip, INSTALL_LIMIT).await.context("it cannot be installed")?;
    std::fs::write(&stamp, wanted).with_context(|| stamp.display().to_string())?;
    Ok(python)
}

/// A folder for each engine: two of them share a script.
fn own_folder(peer: &Peer, folders: &PeerFolders) -> PathBuf {
    folders.cache.join(peer.name.to_lowercase().replace(' ', "-"))
}

/// A peer's turn.
async fn turn(
    environment: &Environment,
    folders: &PeerFolders,
    peer: &Peer,
    python: &Path,
    cameras: usize,
) -> Result<Figures> {
    let seconds = environment.segment.as_secs_f64().to_string();
    let mut arguments: Vec<OsString> = vec!["--seconds".into(), seconds.into()];
    // They play until the end of the turn.
    let mut server = None;
    match peer.arguments {
        Arguments::Addresses => {
            let playing = Cameras::start(&environment.paths, cameras).await?;
            let model = environment.paths.models.join(MODEL).join("model.onnx");
            arguments.extend(["--model".into(), model.into_os_string()]);
            arguments.extend((0..cameras).map(|index| playing.url(index).into()));
            server = Some(playing);
        }
        Arguments::Number { engine } => {
            arguments.extend(["-n".into(), cameras.to_string().into()]);
            arguments.extend(["--engine".into(), engine.into()]);
        }
    }
    // Scripts write their children's complaints into `out` of the folder in which they work.
    let work = own_folder(peer, folders).join("work");
    std::fs::create_dir_all(work.join("out")).with_context(|| work.display().to_string())?;
    let mut command = Command::new(python);
    command.arg(folders.scripts.join(peer.script)).args(arguments).current_dir(&work);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let printed = done(peer.name, command, START_LIMIT + environment.segment).await;
    if let Some(server) = server {
        server.stop().await?;
    }
    figures(peer, &printed?)
}

/// What a program prints, which has to end well and in time.
async fn done(name: &'static str, mut command: Command, limit: Duration) -> Result<String> {
    // Its complaints go to a file: a pipe that nobody reads would stop it.
    let complaints = tempfile::tempfile().context("making a file for complaints")?;
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(complaints.try_clone().context("sharing a file")?);
    let mut running = Running::start(name, command)?;
    let output = running.child.stdout.take().context("no output")?;
    let ended = tokio::time::timeout(limit, async {
        let mut printed = String::new();
        output.take(MAX_OUTPUT).read_to_string(&mut printed).await?;
        anyhow::Ok((printed, running.child.wait().await?))
    });
    let Ok(ended) = ended.await else {
        kill_with_children(running.pid());
        bail!("it has not ended after {} s", limit.as_secs());
    };
    let (printed, status) = ended?;
    if !status.success() {
        let words = last_words(complaints).unwrap_or_default();
        bail!("it ended with {status}: {words}");
    }
    Ok(printed)
}

/// The last line of a file that has something in it.
fn last_words(mut file: std::fs::File) -> Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(end.saturating_sub(MAX_OUTPUT)))?;
    let mut bytes = Vec::new();
    file.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    Ok(shortened(last.unwrap_or_default().trim()))
}

/// Kills a program and all that it has started: a script whose time is over may leave processes
/// that go on without it.
fn kill_with_children(pid: u32) {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let threads = std::fs::read_dir(format!("/proc/{parent}/task"));
        for thread in threads.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(thread.path().join("children"));
            let children = children.unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    for pid in found {
        // One that has ended meanwhile is as wanted.
        let _ = crate::child::terminate(pid, rustix::process::Signal::KILL);
    }
}

/// The figures of the line of JSON among what a peer prints.
fn figures(peer: &Peer, printed: &str) -> Result<Figures> {
    let lines = printed.lines().rev().filter(|line| line.starts_with('{'));
    let line = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()).next();
    let line = line.context("it printed no line of JSON")?;
    let number = |key: &str| {
        let value = line.get(key).with_context(|| format!("its line has no {key:?}"))?;
        // Of several times the first counts.
        let value = value.as_array().and_then(|values| values.first()).unwrap_or(value);
        value.as_f64().with_context(|| format!("its {key:?} is no number: {value}"))
    };
    let (cpu, to_ms) = peer.cpu_per_result;
    let figures = Figures {
        results_per_second: number(peer.results_per_second)?,
        cpu_ms_per_result: number(cpu)? * to_ms,
        pss_mb_per_camera: number(peer.pss_per_camera)?,
        first_result_s: number(peer.first_result)?,
    };
    ensure!(figures.results_per_second > 0.0, "it brought no result");
    Ok(figures)
}

fn shortened(text: &str) -> String {
    text.get(..text.floor_char_boundary(SHOWN)).unwrap_or_default().to_owned()
}

impl Display for PeerTurns {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## Other systems\n")?;
        writeln!(f, "RTSP cameras of 10 pictures a second, in turn; peers run `{MODEL}`.")?;
        let headings = ["system", "cameras", "results/s", "CPU per result", "PSS per camera"];
        let mut table = Table::new(headings.into_iter().chain(["start"]));
        for Turn { cameras, who, figures, skipped } in &self.0 {
            let cells = match figures {
                Some(figures) => [
                    format!("{:.1}", figures.results_per_second),
                    format!("{:.1} ms", figures.cpu_ms_per_result),
                    format!("{:.1} MB", figures.pss_mb_per_camera),
                    format!("{:.2} s", figures.first_result_s),
                ],
                None => {
                    let reason = format!("SKIPPED: {}", skipped.as_deref().unwrap_or_default());
                    [reason, String::new(), String::new(), String::new()]
                }
            };
            table.row([who.to_string(), cameras.to_string()].into_iter().chain(cells));
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(scripts: &Path, cache: &Path) -> PeerFolders {
        PeerFolders { scripts: scripts.to_owned(), cache: cache.to_owned() }
    }

    #[test]
    fn the_figures_of_a_script_come_in_one_unit() {
        let printed = "# a note\n{\"results_per_s\":28.6,\"cpu_s_per_result\":0.068,\
                       \"pss_mb_per_session\":112.0,\"first_result_s\":[1.5,1.6,1.9]}\n";
        let expected = Figures {
            results_per_second: 28.6,
            cpu_ms_per_result: 68.0,
            pss_mb_per_camera: 112.0,
            first_result_s: 1.5,
        };
        assert_eq!(figures(&PEERS[0], printed).unwrap(), expected);
        let other = "{\"results_per_s\":28.6,\"cpu_ms_per_result\":68,\"pss_mb_per_camera\":112,\
                     \"first_result_s\":1.5}";
        assert_eq!(figures(&PEERS[1], other).unwrap(), expected);
    }

    #[test]
    fn a_line_without_figures_is_told_by_what_it_lacks() {
        for (printed, words) in [
            ("", "no line of JSON"),
            ("Traceback\n", "no line of JSON"),
            ("{\"results_per_s\":1}", "no \"cpu_s_per_result\""),
            ("{\"results_per_s\":\"many\"}", "\"results_per_s\" is no number"),
            (
                "{\"results_per_s\":0,\"cpu_s_per_result\":0,\"pss_mb_per_session\":1,\
                 \"first_result_s\":[1]}",
                "no result",
            ),
        ] {
            let error = figures(&PEERS[0], printed).unwrap_err().to_string();
            assert!(error.contains(words), "{error} for {printed}");
        }
    }

    #[tokio::test]
    async fn a_peer_without_its_script_is_named_with_where_it_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let folders = folders(folder.path(), &folder.path().join("cache"));
        let error = install(&PEERS[0], &folders).await.unwrap_err().to_string();
        assert!(error.contains("seed_worker.py is not there"), "{error}");
        assert!(!folders.cache.exists());
    }

    #[tokio::test]
    async fn a_script_that_fails_or_does_not_end_is_told_and_leaves_no_process() {
        let shell = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]);
            command
        };
        let limit = Duration::from_secs(60);
        assert_eq!(done("good", shell("echo good"), limit).await.unwrap(), "good\n");
        let failing = shell("echo first >&2; echo no such module >&2; exit 3");
        let error = done("failing", failing, limit).await.unwrap_err().to_string();
        assert!(error.contains("no such module") && error.contains('3'), "{error}");

        let folder = tempfile::tempdir().unwrap();
        let child = folder.path().join("child");
        // Again where the limit came before the shell had written the number.
        let text = format!("sleep 600 & echo $! > {}.new; mv {0}.new {0}; wait", child.display());
        let error = loop {
            let error = done("endless", shell(&text), Duration::from_secs(1)).await.unwrap_err();
            if child.exists() {
                break error.to_string();
            }
        };
        assert!(error.contains("not ended"), "{error}");
        let pid = std::fs::read_to_string(&child).unwrap();
        let gone = async {
            // Gone, or waiting for whoever got it to notice.
            while std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
                .is_ok_and(|stat| !stat.contains(") Z "))
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(limit, gone).await.expect("it was killed");
    }
}
