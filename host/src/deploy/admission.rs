//! Admits a second worker beside the running one, if there is memory for it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use procfs::process::Process;
use procfs::{Current, Meminfo};

/// Bytes that a second worker needs at least: 6 to 24 MB for its decoder, and its component.
const LEAST: u64 = 64 << 20;

/// The figures of the decision, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryFigures {
    /// Private memory of the running worker.
    pub(super) running: u64,
    /// Memory that the machine can give without swapping, or that the host's control group can
    /// still have, whichever is less.
    pub(super) available: u64,
    /// Memory that has to stay free: `deploy.reserve_mb`.
    pub(super) reserve: u64,
    /// Memory reserved for other deployments under way.
    pub(super) promised: u64,
}

impl MemoryFigures {
    /// Memory that a second worker needs: half as much again as the running one, since the new
    /// version may hold more.
    pub(super) fn need(&self) -> u64 {
        self.running.saturating_add(self.running / 2).max(LEAST)
    }

    /// Memory that is available to it.
    fn free(&self) -> u64 {
        self.available.saturating_sub(self.reserve).saturating_sub(self.promised)
    }

    /// The bytes to reserve.
    pub(super) fn admit(self) -> Result<u64, AdmissionError> {
        let need = self.need();
        if need <= self.free() { Ok(need) } else { Err(AdmissionError::TooLittle(self)) }
    }
}

/// Why a second worker is not admitted.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdmissionError {
    #[error("the machine's free memory is not known: {0}")]
    Unknown(#[from] procfs::ProcError),
    #[error(
        "a second worker needs {} MiB (the running one holds {} MiB), and there are {} MiB: {} MiB \
         are available, of which {} MiB have to stay free (deploy.reserve_mb) and {} MiB are \
         promised to other deployments",
        .0.need() >> 20, .0.running >> 20, .0.free() >> 20, .0.available >> 20, .0.reserve >> 20,
        .0.promised >> 20
    )]
    TooLittle(MemoryFigures),
    /// The task that reads the figures has failed.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

/// Memory that is reserved for deployments under way. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryBudget {
    promised: Arc<Mutex<u64>>,
}

/// Memory that stays reserved for a deployment while this exists.
#[derive(Debug)]
pub(super) struct Admission {
    /// Bytes.
    pub(super) bytes: u64,
    budget: MemoryBudget,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut promised = self.budget.promised.lock();
        *promised = promised.saturating_sub(self.bytes);
    }
}

impl MemoryBudget {
    /// Reserves memory for a second worker beside the process `running`. Reads `/proc`, which may
    /// block.
    pub(super) fn admit(
        &self,
        running: Option<u32>,
        reserve: u64,
    ) -> Result<Admission, AdmissionError> {
        let running = running.and_then(private).unwrap_or(0);
        let available = available()?;
        self.reserve(running, available, reserve)
    }

    pub(super) fn reserve(
        &self,
        running: u64,
        available: u64,
        reserve: u64,
    ) -> Result<Admission, AdmissionError> {
        let mut promised = self.promised.lock();
        let bytes = MemoryFigures { running, available, reserve, promised: *promised }.admit()?;
        *promised += bytes;
        Ok(Admission { bytes, budget: self.clone() })
    }
}

/// Bytes of memory that a process shares with no other.
fn private(pid: u32) -> Option<u64> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    if let Ok(rollup) = process.smaps_rollup() {
        let maps = rollup.memory_map_rollup.iter();
        return Some(maps.filter_map(|map| map.extension.map.get("Private_Dirty")).sum());
    }
    // The host may have no right to the exact figure.
    let memory = process.statm().ok()?;
    Some(memory.resident.saturating_sub(memory.shared).saturating_mul(procfs::page_size()))
}

/// Bytes that the machine can give, or the host's control group.
fn available() -> Result<u64, AdmissionError> {
    let machine = Meminfo::current()?;
    let machine = machine.mem_available.unwrap_or(machine.mem_free);
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|groups| headroom(&groups, Path::new("/sys/fs/cgroup")));
    Ok(group.map_or(machine, |group| group.min(machine)))
}

/// Bytes that a process in these control groups (the text of `/proc/PID/cgroup`) can still have:
/// the least of its own group and of those above. `None` if no group has a limit. `root` is the
/// mount point of the groups.
fn headroom(groups: &str, root: &Path) -> Option<u64> {
    let lines = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let mut least = None::<u64>;
    for (controllers, path) in lines {
        // Version 2 has one hierarchy and names no controllers; version 1 has one for each.
        let (top, limit, usage) = if controllers.is_empty() {
            (root.to_owned(), "memory.max", "memory.current")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            continue;
        };
        let own = top.join(path.trim_start_matches('/'));
        // In a container the mount may show the process's own group alone, under another path.
        for group in
            own.ancestors().take_while(|group| group.starts_with(&top)).chain([top.as_path()])
        {
            let number =
                |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
            let (Some(limit), Some(usage)) = (number(limit), number(usage)) else { continue };
            let free = limit.saturating_sub(usage.saturating_sub(cached(group)));
            least = Some(least.map_or(free, |least| least.min(free)));
        }
    }
    least
}

/// Bytes of a group's file cache, which the kernel gives up under pressure.
fn cached(group: &Path) -> u64 {
    let Ok(text) = fs::read_to_string(group.join("memory.stat")) else { return 0 };
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok())
    };
    // Version 1 counts the groups below in another line.
    value("total_inactive_file").or_else(|| value("inactive_file")).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_second_worker_is_admitted_where_half_more_than_the_first_holds_is_free() {
        let figures = |running, available, reserve, promised| MemoryFigures {
            running: running * MIB,
            available: available * MIB,
            reserve: reserve * MIB,
            promised: promised * MIB,
        };
        for (given, admitted) in [
            (figures(100, 406, 256, 0), Some(150)),
            (figures(100, 405, 256, 0), None),
            (figures(0, 64, 0, 0), Some(64)),
            (figures(10, 63, 0, 0), None),
            (figures(100, 1000, 256, 594), Some(150)),
            (figures(100, 1000, 256, 595), None),
            (figures(100, 100, 256, 0), None),
        ] {
            assert_eq!(given.admit().ok(), admitted.map(|mib| mib * MIB), "{given:?}");
        }
        let refused = figures(100, 700, 256, 300).admit().unwrap_err().to_string();
        for figure in
            ["150 MiB", "100 MiB", "144 MiB", "700 MiB", "256 MiB", "300 MiB", "deploy.reserve_mb"]
        {
            assert!(refused.contains(figure), "{refused:?} lacks {figure}");
        }
        assert!(figures(u64::MAX >> 20, 1, 0, 0).admit().is_err());
    }

    #[test]
    fn what_is_promised_counts_until_the_deployment_is_done_with_it() {
        let budget = MemoryBudget::default();
        let first = budget.reserve(0, 150 * MIB, 0).unwrap();
        let second = budget.reserve(0, 150 * MIB, 0).unwrap();
        let refused = budget.reserve(0, 150 * MIB, 0).unwrap_err().to_string();
        assert!(
            refused.contains("22 MiB") && refused.contains("128 MiB are promised"),
            "{refused}"
        );
        drop((first, second));
        assert_eq!(budget.reserve(0, 64 * MIB, 0).unwrap().bytes, 64 * MIB);
    }

    #[test]
    fn the_figures_of_this_machine_are_read() {
        assert!(private(std::process::id()).unwrap() > 100_000);
        assert_eq!(private(u32::MAX), None);
        assert!(available().unwrap() > MIB);
    }

    #[test]
    fn a_control_group_bounds_what_is_available_and_so_does_one_above_it() {
        let root = tempfile::tempdir().unwrap();
        let write = |group: &str, files: &[(&str, &str)]| {
            fs::create_dir_all(root.path().join(group)).unwrap();
            files.iter().for_each(|(file, text)| {
                fs::write(root.path().join(group).join(file), text).unwrap()
            });
        };
        write("a/b", &[("memory.max", "max\n"), ("memory.current", "500\n")]);
        assert_eq!(headroom("0::/a/b\n", root.path()), None, "unbounded");
        write("a", &[("memory.max", "1000\n"), ("memory.current", "900\n")]);
        assert_eq!(headroom("0::/a/b\n", root.path()), Some(100));
        write("a", &[("memory.stat", "anon 1\ninactive_file 300\n")]);
        assert_eq!(headroom("0::/a/b\n", root.path()), Some(400));
        write("a/b", &[("memory.max", "600\n")]);
        assert_eq!(headroom("0::/a/b\n", root.path()), Some(100));
        write("memory", &[("memory.limit_in_bytes", "70"), ("memory.usage_in_bytes", "50")]);
        assert_eq!(
            headroom("4:cpu,memory:/elsewhere\n0::/a/b\n", root.path()),
            Some(20),
            "version 1, in a container"
        );
        assert_eq!(headroom("", root.path()), None);
    }
}
