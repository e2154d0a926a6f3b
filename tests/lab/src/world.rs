//! A site of machines, engines and simulated hosts, and its reader.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ocelli_testkit::small_disk::SmallDisk;
use ocelli_testkit::{EnginePlace, Etcd, Nats, NatsSettings, Process};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::checker::{self, Heads};
use crate::history::{Camera, History, Host, Nanos, now, since};
use crate::host::{Bookmark, Request, Settings};
use crate::network::Network;
use crate::reader::Reader;

/// The site's name.
const SITE: &str = "lab";

/// Machines with a server of each engine.
pub(crate) const ENGINES: usize = 3;

/// How long a host may take to answer: minutes for a thousand cameras on a busy machine.
const ANSWER: Duration = Duration::from_secs(300);

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// KiB of a disk that is to be filled: above what etcd and NATS take at once.
const DISK_KIB: u64 = 400 << 10;

/// The library that gives a process a clock of its own (Debian: `libfaketime`).
const OWN_CLOCK: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// What a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Honest,
    /// Disobeys lease and plan.
    Disobedient,
    /// Has the time of day from this file.
    OwnClock(PathBuf),
}

/// How large a lab is.
#[derive(Debug, Clone)]
pub(crate) struct Size {
    pub(crate) machines: usize,
    pub(crate) hosts: Host,
    pub(crate) cameras: Camera,
    pub(crate) event_ms: u64,
    pub(crate) live_ms: u64,
    pub(crate) streams: u8,
    /// Whether engines have disks that can be filled.
    pub(crate) small_disks: bool,
}

/// All of it. What is above in this list ends first.
pub(crate) struct World {
    pub(crate) size: Size,
    hosts: Vec<SimulatedHost>,
    reader: Reader,
    pub(crate) etcd: Etcd,
    pub(crate) nats: Nats,
    /// Those of etcd and of NATS, by machine.
    pub(crate) disks: Vec<[SmallDisk; 2]>,
    pub(crate) network: Network,
    folder: TempDir,
    heads: Heads,
    /// Acknowledgements read while waiting for the site to settle.
    seen: Seen,
}

/// One host, through all its lives.
struct SimulatedHost {
    number: Host,
    machine: usize,
    running: Option<Running>,
    /// The folder and the place in it of each life.
    lives: Vec<(PathBuf, Bookmark)>,
}

struct Running {
    child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What diaries have said since the run began.
#[derive(Default)]
struct Seen {
    history: History,
    refused: usize,
    /// The epoch of the last acknowledged event of each camera.
    epochs: BTreeMap<Camera, u64>,
}

impl World {
    /// Starts the engines and all hosts, and gives the site its cameras. None where an engine is
    /// missing.
    pub(crate) async fn start(size: Size, network: Network) -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let (mut places, mut disks) = (Vec::new(), Vec::new());
        for machine in 0..ENGINES {
            let own = folder.path().join(format!("machine-{machine}"));
            let folders = [own.join("etcd"), own.join("nats")];
            folders.iter().try_for_each(std::fs::create_dir_all)?;
            if size.small_disks {
                let [etcd, nats] = folders.each_ref().map(|at| SmallDisk::mount(at, DISK_KIB));
                disks.push([etcd.context("no disk")?, nats.context("no disk")?]);
            }
            places.push(folders.map(|folder| EnginePlace {
                address: network.address(machine),
                namespace: Some(network.namespace(machine)),
                folder: Some(folder),
            }));
        }
        let (etcds, natses): (Vec<EnginePlace>, Vec<EnginePlace>) =
            places.into_iter().map(|[etcd, nats]| (etcd, nats)).unzip();
        let Some(nats) = Nats::start(&natses, NatsSettings::default()) else { return Ok(None) };
        let etcd = Etcd::start(&etcds, None, &[]);
        let reader = Reader::start(SITE, &nats.urls(), size.streams).await?;
        let hosts = (0..size.hosts).map(|number| SimulatedHost {
            number,
            machine: usize::from(number) % size.machines,
            running: None,
            lives: Vec::new(),
        });
        let mut world = Self {
            hosts: hosts.collect(),
            reader,
            etcd,
            nats,
            disks,
            network,
            folder,
            heads: Heads::new(),
            seen: Seen::default(),
            size,
        };
        for host in 0..world.size.hosts {
            world.start_host(host).await?;
        }
        let cameras = world.size.cameras;
        world.ask(0, &Request::PutCameras(cameras)).await?;
        Ok(Some(world))
    }

    pub(crate) fn machine_of(&self, host: Host) -> usize {
        self.hosts[usize::from(host)].machine
    }

    pub(crate) fn hosts_on(&self, machine: usize) -> BTreeSet<Host> {
        (0..self.size.hosts).filter(|host| self.machine_of(*host) == machine).collect()
    }

    /// Starts a host's next life.
    pub(crate) async fn start_host(&mut self, host: Host) -> Result<()> {
        self.start_host_as(host, Kind::Honest).await
    }

    /// Likewise, as a host of this kind.
    pub(crate) async fn start_host_as(&mut self, number: Host, kind: Kind) -> Result<()> {
        let (size, namespace) = (&self.size, self.network.namespace(self.machine_of(number)));
        let follows = number == self.follower();
        let host = &mut self.hosts[usize::from(number)];
        ensure!(host.running.is_none(), "host {number} runs");
        let life = host.lives.len();
        let folder = self.folder.path().join(format!("host-{number}/life-{life}"));
        std::fs::create_dir_all(&folder)?;
        let settings = Settings {
            site: SITE.into(),
            number,
            etcd: self.etcd.urls(),
            nats: self.nats.urls(),
            folder: folder.clone(),
            // Twice what a host has where all live.
            capacity: 1 + 2 * u32::from(size.cameras) / u32::from(size.hosts),
            event_ms: size.event_ms,
            live_ms: size.live_ms,
            streams: size.streams,
            disobeys: kind == Kind::Disobedient,
            follows,
        };
        let file = folder.join("settings.json");
        std::fs::write(&file, serde_json::to_vec(&settings)?)?;
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace]).arg(std::env::current_exe()?);
        command.arg("host").arg(&file).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let stdin = child.stdin.take().context("no input")?;
        let answers = BufReader::new(child.stdout.take().context("no output")?).lines();
        host.running = Some(Running { child, stdin, answers });
        host.lives.push((folder, Bookmark::default()));
        Ok(())
    }

    /// Sets the clock of hosts that have one of their own, by so many hours from the machine's.
    pub(crate) fn clock(&self, hours: i32) -> Result<PathBuf> {
        let file = self.folder.path().join("clock");
        std::fs::write(&file, format!("{hours:+}h\n"))?;
        Ok(file)
    }

    /// The host that follows all events: on a machine without engines, where there is one.
    pub(crate) fn follower(&self) -> Host {
        self.size.hosts - 1
    }

    /// Ends a host's process as a crash would.
    pub(crate) async fn kill_host(&mut self, host: Host) -> Result<()> {
        if let Some(mut running) = self.hosts[usize::from(host)].running.take() {
            running.child.kill().await?;
        }
        Ok(())
    }

    /// Freezes a host's process, or lets it go on.
    pub(crate) fn freeze_host(&self, host: Host, frozen: bool) {
        let running = self.hosts[usize::from(host)].running.as_ref();
        let process = running.and_then(|running| Process::open(running.child.id()?));
        if let Some(process) = process {
            process.signal(if frozen { Signal::STOP } else { Signal::CONT });
        }
    }

    pub(crate) fn runs(&self, host: Host) -> bool {
        self.hosts[usize::from(host)].running.is_some()
    }

    /// Asks a host for something, and waits for its answer.
    pub(crate) async fn ask(&mut self, host: Host, request: &Request) -> Result<()> {
        let running = self.hosts[usize::from(host)].running.as_mut();
        let running = running.with_context(|| format!("host {host} does not run"))?;
        let line = serde_json::to_string(request)? + "\n";
        running.stdin.write_all(line.as_bytes()).await?;
        let answer = timeout(ANSWER, running.answers.next_line()).await;
        match answer.with_context(|| format!("host {host}: no answer to {request:?}"))?? {
            Some(ok) if ok == "ok" => Ok(()),
            Some(error) => bail!("host {host}: {request:?}: {error}"),
            None => bail!("host {host} has ended"),
        }
    }

    /// Has a host leave in order, and waits for its end.
    pub(crate) async fn leave(&mut self, host: Host) -> Result<()> {
        self.ask_to_leave(host).await?;
        self.await_left(host).await
    }

    /// Has a host leave in order.
    pub(crate) async fn ask_to_leave(&mut self, host: Host) -> Result<()> {
        let running = self.hosts[usize::from(host)].running.as_mut();
        let running = running.with_context(|| format!("host {host} does not run"))?;
        let line = serde_json::to_string(&Request::Leave)? + "\n";
        Ok(running.stdin.write_all(line.as_bytes()).await?)
    }

    /// Waits for the end of a host that was asked to leave.
    pub(crate) async fn await_left(&mut self, host: Host) -> Result<()> {
        if let Some(mut running) = self.hosts[usize::from(host)].running.take() {
            let ended = timeout(ANSWER, running.child.wait()).await;
            ended.with_context(|| format!("host {host} does not end"))??;
        }
        Ok(())
    }

    /// The power of a machine fails: everything on it, and its link.
    pub(crate) async fn power_off(&mut self, machine: usize) -> Result<()> {
        self.network.plug(machine, false)?;
        self.network.kill_all(machine);
        for host in self.hosts_on(machine) {
            self.kill_host(host).await?;
        }
        if machine < ENGINES {
            self.etcd.kill(machine);
            self.nats.kill(machine);
        }
        Ok(())
    }

    /// It comes back: its link, its engines, its hosts.
    pub(crate) async fn power_on(&mut self, machine: usize) -> Result<()> {
        self.network.plug(machine, true)?;
        if machine < ENGINES {
            self.etcd.run(machine);
            self.nats.run(machine);
        }
        for host in self.hosts_on(machine) {
            self.start_host(host).await?;
        }
        Ok(())
    }

    /// Takes all faults back, and starts whatever does not run.
    pub(crate) async fn repair(&mut self) -> Result<()> {
        for machine in 0..self.size.machines {
            self.network.plug(machine, true)?;
            // Most are not cut off.
            let _ = self.network.heal(machine);
        }
        (0..self.size.hosts).for_each(|host| self.freeze_host(host, false));
        self.restart_ended();
        for number in 0..ENGINES {
            if self.etcd.pid(number).is_none() {
                self.etcd.run(number);
            }
            if self.nats.pid(number).is_none() {
                self.nats.run(number);
            }
        }
        self.etcd.await_ready();
        self.nats.await_ready();
        for host in 0..self.size.hosts {
            if !self.runs(host) {
                self.start_host(host).await?;
            }
        }
        Ok(())
    }

    /// Forgets servers that have ended by themselves, so that they can be started.
    pub(crate) fn restart_ended(&mut self) {
        for number in 0..ENGINES {
            self.etcd.forget_ended(number);
            self.nats.forget_ended(number);
        }
    }

    /// Cameras that are not spoken for at the moment, or whose voice has no event acknowledged yet.
    fn unsettled(&mut self) -> (Vec<Camera>, u64) {
        self.read_diaries();
        let (latest, time) = (self.reader.latest(), now());
        // A few messages of each camera.
        let fresh = Duration::from_millis(3 * self.size.live_ms + 700);
        let unsettled = |camera: &Camera| {
            latest.get(camera).is_none_or(|heard| {
                since(heard.received, time) > fresh
                    || self.seen.epochs.get(camera).is_none_or(|epoch| *epoch < heard.epoch)
            })
        };
        let cameras = (0..self.size.cameras).filter(unsettled).collect();
        (cameras, latest.values().map(|heard| heard.epoch).max().unwrap_or_default())
    }

    /// Waits until every camera speaks and writes, and no owner has changed for some time.
    pub(crate) async fn settle(&mut self, calm: Duration, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        let (mut highest, mut since) = (0, Instant::now());
        loop {
            let (unsettled, epoch) = self.unsettled();
            if epoch != highest || !unsettled.is_empty() {
                (highest, since) = (epoch, Instant::now());
            }
            if since.elapsed() >= calm {
                return Ok(());
            }
            if begun.elapsed() > limit {
                let count = unsettled.len();
                let some: Vec<_> = unsettled.into_iter().take(10).collect();
                bail!("{count} cameras do not settle in {limit:?}, such as {some:?}");
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn read_diaries(&mut self) {
        for host in &mut self.hosts {
            for (life, (folder, bookmark)) in host.lives.iter_mut().enumerate() {
                let entries = bookmark.read(folder, host.number, life);
                for event in &entries.acked {
                    let epoch = self.seen.epochs.entry(event.camera).or_default();
                    *epoch = event.epoch.max(*epoch);
                }
                self.seen.history.acked.extend(entries.acked);
                self.seen.history.followed.extend(entries.followed);
                self.seen.refused += entries.refused;
            }
        }
    }

    /// Begins a run: what was before is no part of its history.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        self.read_diaries();
        let stored = self.reader.stored().await?;
        self.heads = checker::advanced(&self.heads, &stored);
        self.reader.take();
        self.seen.history = History::default();
        self.seen.refused = 0;
        Ok(())
    }

    /// Ends a run: its history from `begun` on, the heads that it goes on from, and how many appends
    /// fences refused in it.
    pub(crate) async fn end(&mut self, begun: Nanos) -> Result<(History, Heads, usize)> {
        // First the acknowledgements, then the streams: what is acknowledged has to be there.
        self.read_diaries();
        let mut history = std::mem::take(&mut self.seen.history);
        history.stored = self.reader.stored().await?;
        history.heard = self.reader.take();
        for host in &self.hosts {
            for (life, (folder, bookmark)) in host.lives.iter().enumerate() {
                let voices = bookmark.clone().read(folder, host.number, life).voices;
                history.voices.extend(voices.into_iter().filter(|voice| voice.last >= begun));
            }
        }
        let before = std::mem::take(&mut self.heads);
        self.heads = checker::advanced(&before, &history.stored);
        Ok((history, before, std::mem::take(&mut self.seen.refused)))
    }

    /// Leaves what hosts and engines have written where it can be looked at.
    pub(crate) fn keep_logs(&mut self) {
        self.folder.disable_cleanup(true);
        eprintln!("    logs and diaries: {}", self.folder.path().display());
    }

    /// The highest epoch that each camera has been heard under.
    pub(crate) fn epochs(&self) -> BTreeMap<Camera, u64> {
        self.reader.latest().into_iter().map(|(camera, heard)| (camera, heard.epoch)).collect()
    }
}

/// Whether hosts can have clocks of their own.
pub(crate) fn own_clocks() -> bool {
    std::fs::exists(OWN_CLOCK).unwrap_or_default()
}
