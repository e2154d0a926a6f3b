//! Control groups (cgroup v2): bounds on memory, CPU time and threads of a worker, and of a
//! compiler, that the kernel enforces from outside the process.
//!
//! # Theory of operation
//!
//! Groups are folders. The host may make some if the folder that it runs in was *delegated* to it:
//! by systemd (`Delegate=yes` in the shipped unit), or by the one who made the folder for the host's
//! user. Everything below a delegated folder is the host's own business; the limits of the folder
//! itself are not.
//!
//! ```text
//! .../ocelli.service            delegated; its `cgroup.subtree_control` hands memory, cpu and pids
//!                               down
//!     host/                     the host and the inference process, without limits
//!     child-0/  child-1/ ...    one for each worker and each compiler, removed with it
//! ```
//!
//! A group hands controllers down only while it holds no process itself, so
//! [`ControlGroups::set_up`] moves the host into the leaf `host` first. A worker enters its group
//! right after its start, before it is told what to run. It cannot leave the group, since it
//! reaches no file.
//!
//! `RLIMIT_DATA` and the engine bound a pipeline's memory first, both with an error that says so.
//! The group bounds what those do not count, with a margin, so that it never comes before them.

mod locate;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::Access;
use rustix::io::Errno;
use tokio::task::JoinHandle;

use crate::util::backoff::BackoffPolicy;

/// The name of the leaf that the host moves into.
const HOST: &str = "host";

/// The name of a child's group without its number.
const CHILD: &str = "child-";

/// Bytes by which `memory.max` exceeds the child's `RLIMIT_DATA`. A group counts what that limit
/// does not: the pages of programs, libraries and compiled components that the worker was the first
/// to touch (libavcodec 15 MiB, the worker 5 MiB, a component made of Python 30 MiB), page tables
/// (4 MiB for 2 GiB), stacks and socket buffers (1 MiB). Tensors are counted where they were
/// allocated, with the host.
pub(super) const UNCOUNTED_MEMORY: u64 = 64 << 20;

/// Microseconds over which CPU time is measured: the kernel's default. A worker that has used up
/// its share waits for the next period, at most this long.
const CPU_PERIOD_US: u64 = 100_000;

/// Delays before the next attempt to remove a group that still holds a process.
const WAITS: BackoffPolicy = BackoffPolicy {
    free: 0,
    first: Duration::from_millis(10),
    longest: Duration::from_secs(10),
    jitter: 0.0,
};

/// Attempts to remove a group: some 20 s together. A killed process is gone long before, unless it
/// hangs in the kernel.
const ATTEMPTS: u32 = 11;

/// Numbers that are tried for one group: an earlier host may have left some that could not be
/// removed.
const NUMBERS: u32 = 1000;

/// Why workers run without control groups. The [`REMEDY`] is the same in all cases.
#[derive(Debug, thiserror::Error)]
pub enum ControlGroupsUnavailable {
    /// There is only cgroup v1, or nothing.
    #[error("no cgroup v2 hierarchy is mounted")]
    NotMounted,
    /// The mount shows a part of the hierarchy without the host's group.
    #[error("the host's own control group is not below the cgroup v2 mount {}", .0.display())]
    OutOfSight(PathBuf),
    /// The host runs in the kernel's own group, which cannot be divided.
    #[error("the host runs in the root control group {}, which is the system's", .0.display())]
    Root(PathBuf),
    /// The host's group has neither controller.
    #[error(
        "the control group {} has neither the memory nor the cpu controller{}",
        group.display(),
        if *v1 { ": cgroup v1 holds them" } else { "" }
    )]
    NoControllers {
        /// The host's own group.
        group: PathBuf,
        /// Whether cgroup v1 holds at least one of them.
        v1: bool,
    },
    /// The host's group belongs to someone else.
    #[error("the control group {} is not delegated to the host", .0.display())]
    NotDelegated(PathBuf),
    /// The host's group belongs to another user, or is mounted read-only, as in most containers.
    #[error("the control group {} cannot be written: {source}", path.display())]
    NotWritable {
        /// The folder or file that cannot be written.
        path: PathBuf,
        source: io::Error,
    },
    /// Other processes run in the host's group, which then hands no controllers down.
    #[error("other processes than the host run in the control group {}", .0.display())]
    Busy(PathBuf),
    #[error("{}: {source}", path.display())]
    Io {
        /// The file that could not be read or written.
        path: PathBuf,
        source: io::Error,
    },
}

/// How an operator gets control groups, as a part of a sentence.
pub const REMEDY: &str =
    "run the host as a systemd service with Delegate=yes, as config/ocelli.service has it";

/// The groups of this host's children. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ControlGroups {
    inner: Arc<DelegatedGroup>,
}

#[derive(Debug)]
struct DelegatedGroup {
    folder: PathBuf,
    controllers: Controllers,
    next: AtomicU64,
}

/// The controllers that the host's group has: at least memory or cpu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Controllers {
    memory: bool,
    cpu: bool,
    pids: bool,
}

impl Controllers {
    /// Reads the text of `cgroup.controllers`.
    fn parse(list: &str) -> Option<Self> {
        let has = |name| list.split_whitespace().any(|controller| controller == name);
        let found = Self { memory: has("memory"), cpu: has("cpu"), pids: has("pids") };
        (found.memory || found.cpu).then_some(found)
    }

    /// Each by its name, with whether it is there.
    fn named(self) -> [(&'static str, bool); 3] {
        [("memory", self.memory), ("cpu", self.cpu), ("pids", self.pids)]
    }

    /// As it is written to `cgroup.subtree_control`.
    fn enabling(self) -> String {
        let there = self.named().into_iter().filter(|(_, there)| *there);
        there.map(|(name, _)| format!("+{name}")).collect::<Vec<_>>().join(" ")
    }
}

/// What a child may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupLimits {
    /// The child's `RLIMIT_DATA` in bytes.
    pub(crate) memory: u64,
    pub(crate) cpu: CpuLimit,
    pub(crate) threads: u64,
}

/// The CPU time of a group.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CpuLimit {
    /// At most so many percent of one core.
    Percent(u32),
    /// All that the others leave, and beside them this part: other groups have 100.
    Weight(u32),
}

impl ControlGroups {
    /// Takes the host's own control group over, where it is the host's to divide: moves the host
    /// into a leaf, hands the controllers down, and removes what an earlier host has left. To be
    /// called once, before any child is started: children begin in the group of their parent.
    pub fn set_up() -> Result<Self, ControlGroupsUnavailable> {
        let read = |path: &str| {
            fs::read_to_string(path)
                .map_err(|source| ControlGroupsUnavailable::Io { path: path.into(), source })
        };
        let own = locate::own_group(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)?;
        Self::claim(&own, is_delegated(&own))
    }

    /// [`set_up`](Self::set_up) for a given group.
    fn claim(own: &locate::OwnGroup, delegated: bool) -> Result<Self, ControlGroupsUnavailable> {
        let folder = &own.folder;
        // The kernel's own group alone has no type.
        if !folder.join("cgroup.type").exists() {
            return Err(if folder.join("cgroup.controllers").exists() && !own.v1_controllers {
                ControlGroupsUnavailable::Root(folder.clone())
            } else {
                ControlGroupsUnavailable::NoControllers {
                    group: folder.clone(),
                    v1: own.v1_controllers,
                }
            });
        }
        let path = folder.join("cgroup.controllers");
        let list = fs::read_to_string(&path)
            .map_err(|source| ControlGroupsUnavailable::Io { path, source })?;
        let controllers =
            Controllers::parse(&list).ok_or_else(|| ControlGroupsUnavailable::NoControllers {
                group: folder.clone(),
                v1: own.v1_controllers,
            })?;
        if !delegated {
            return Err(ControlGroupsUnavailable::NotDelegated(folder.clone()));
        }
        for name in ["", "cgroup.procs", "cgroup.subtree_control"] {
            let path = if name.is_empty() { folder.clone() } else { folder.join(name) };
            rustix::fs::access(&path, Access::WRITE_OK).map_err(|error| {
                ControlGroupsUnavailable::NotWritable { path, source: error.into() }
            })?;
        }
        hand_down(folder, controllers)?;
        let groups = Self {
            inner: Arc::new(DelegatedGroup {
                folder: folder.clone(),
                controllers,
                next: AtomicU64::new(0),
            }),
        };
        groups.remove_leftovers();
        Ok(groups)
    }

    /// The folder of the groups, for the log.
    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    /// The controllers that the host's group lacks: what they count is not bounded.
    pub fn missing_controllers(&self) -> Vec<&'static str> {
        let all = self.inner.controllers.named().into_iter();
        all.filter(|(_, there)| !there).map(|(name, _)| name).collect()
    }

    /// Whether the groups bound memory.
    pub fn bound_memory(&self) -> bool {
        self.inner.controllers.memory
    }

    /// Makes a group for a child.
    pub(crate) fn create(&self, limits: GroupLimits) -> io::Result<ControlGroup> {
        let group = self.make_folder()?;
        let Controllers { memory, cpu, pids } = self.inner.controllers;
        if memory {
            group.write("memory.max", limits.memory.saturating_add(UNCOUNTED_MEMORY))?;
            // A worker that is swapped out does not reach its limit: it makes all others wait for
            // the disk. A kernel without swap has no such file.
            group.write_if_there("memory.swap.max", 0)?;
            group.write_if_there("memory.oom.group", 1)?;
        }
        match limits.cpu {
            CpuLimit::Percent(percent) if cpu => {
                let quota = u64::from(percent) * CPU_PERIOD_US / 100;
                group.write("cpu.max", format_args!("{quota} {CPU_PERIOD_US}"))?;
            }
            CpuLimit::Weight(weight) if cpu => group.write("cpu.weight", weight)?,
            CpuLimit::Percent(_) | CpuLimit::Weight(_) => {}
        }
        if pids {
            group.write("pids.max", limits.threads)?;
        }
        Ok(group)
    }

    fn make_folder(&self) -> io::Result<ControlGroup> {
        for _ in 0..NUMBERS {
            let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
            let folder = self.inner.folder.join(format!("{CHILD}{number}"));
            match fs::create_dir(&folder) {
                Ok(()) => return Ok(ControlGroup { folder }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(named(&folder, error)),
            }
        }
        Err(io::Error::other(format!("{NUMBERS} groups of earlier hosts are in the way")))
    }

    /// Removes groups of an earlier host. Children die with their host, so the groups are empty.
    /// One that is not belongs to someone else and stays.
    fn remove_leftovers(&self) {
        let Ok(entries) = fs::read_dir(&self.inner.folder) else { return };
        let folders = entries.flatten().filter(|entry| {
            entry.file_type().is_ok_and(|kind| kind.is_dir())
                && entry.file_name().to_str().is_some_and(|name| name.starts_with(CHILD))
        });
        for folder in folders.map(|entry| entry.path()) {
            if let Err(error) = fs::remove_dir(&folder) {
                tracing::warn!(target: "ocelli::session", "{} stays: {error}", folder.display());
            }
        }
    }
}

/// Moves the host into its leaf and hands controllers down. If one step fails, undoes those before.
fn hand_down(folder: &Path, controllers: Controllers) -> Result<(), ControlGroupsUnavailable> {
    let leaf = folder.join(HOST);
    let not_writable =
        |path: PathBuf| |source| ControlGroupsUnavailable::NotWritable { path, source };
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(not_writable(leaf)(error));
        }
        _ => {}
    }
    // 0 stands for the writing process, with all its threads.
    let procs = leaf.join("cgroup.procs");
    fs::write(&procs, "0").map_err(not_writable(procs))?;
    let path = folder.join("cgroup.subtree_control");
    let Err(error) = fs::write(&path, controllers.enabling()) else { return Ok(()) };
    let _ = fs::write(folder.join("cgroup.procs"), "0");
    let _ = fs::remove_dir(&leaf);
    Err(match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => ControlGroupsUnavailable::Busy(folder.to_owned()),
        _ => not_writable(path)(error),
    })
}

/// Whether a group was delegated to the host. Root can write everything, so write access proves
/// nothing then.
fn is_delegated(own: &locate::OwnGroup) -> bool {
    // systemd marks delegated groups; the second name is older and only root can read it.
    let marked = ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::getxattr(&own.folder, *name, &mut value)
            .is_ok_and(|length| length == 1 && value == *b"1")
    });
    // A container whose view of the hierarchy begins at its own group owns that group, if it can
    // write it.
    marked || own.is_view || !rustix::process::geteuid().is_root()
}

/// A child's group. Dropping it removes the group as soon as the child is gone.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    folder: PathBuf,
}

impl ControlGroup {
    /// Moves a process into the group, with all its threads. May wait some ten milliseconds for the
    /// kernel.
    pub(crate) fn admit(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", pid)
    }

    /// Whether the kernel has killed a process of the group because its memory was used up.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|count| count > 0)
    }

    /// Removes the group: now, or in a task once its process is gone.
    fn remove(&mut self) -> Option<JoinHandle<()>> {
        let folder = std::mem::take(&mut self.folder);
        let error = remove(&folder).err()?;
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if is_busy(&error) => Some(runtime.spawn(remove_when_empty(folder))),
            _ => {
                tracing::warn!(target: "ocelli::session", "{} stays: {error}", folder.display());
                None
            }
        }
    }

    fn write(&self, file: &str, value: impl std::fmt::Display) -> io::Result<()> {
        let path = self.folder.join(file);
        // In one write: the kernel takes each for a whole value.
        fs::write(&path, value.to_string()).map_err(|error| named(&path, error))
    }

    fn write_if_there(&self, file: &str, value: u64) -> io::Result<()> {
        if self.folder.join(file).exists() { self.write(file, value) } else { Ok(()) }
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // The task goes on by itself.
        drop(self.remove());
    }
}

/// Removes a group whose process is about to end.
async fn remove_when_empty(folder: PathBuf) {
    for attempt in 1..=ATTEMPTS {
        tokio::time::sleep(WAITS.delay(attempt, 0.0)).await;
        match remove(&folder) {
            Ok(()) => return,
            Err(error) if is_busy(&error) && attempt < ATTEMPTS => {}
            Err(error) => {
                tracing::warn!(target: "ocelli::session", "{} stays: {error}", folder.display());
                return;
            }
        }
    }
}

/// Removes a group. One that does not exist counts as removed.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_busy(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
