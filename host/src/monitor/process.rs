//! What a process uses, from `/proc`.

use procfs::process::Process;

use crate::session::Observation;

/// CPU time and memory of a process at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ProcessUsage {
    /// Which life this is: the process's number and when it was started, in ticks since boot.
    pub(super) identity: (u32, u64),
    /// User and system time of all its threads so far, in seconds, to a hundredth.
    pub(super) cpu: f64,
    /// Bytes of memory in use, shared ones included.
    pub(super) resident: u64,
    /// Bytes of private memory that it asked for, used or not: what RLIMIT_DATA bounds.
    pub(super) data: u64,
    pub(super) threads: u64,
}

impl ProcessUsage {
    pub(super) fn own() -> Option<Self> {
        Self::read(&Process::myself().ok()?).map(|(usage, _)| usage)
    }

    /// Of a child of this process. None where it is none, or has ended: its number may be another's
    /// by now.
    pub(super) fn of_child(pid: u32) -> Option<Self> {
        let (usage, parent) = Self::read(&open(pid)?)?;
        (parent == std::process::id()).then_some(usage)
    }

    /// With the parent's number.
    fn read(process: &Process) -> Option<(Self, u32)> {
        let (stat, memory) = (process.stat().ok()?, process.statm().ok()?);
        let (page, ticks) = (procfs::page_size(), procfs::ticks_per_second());
        let usage = Self {
            identity: (stat.pid.unsigned_abs(), stat.starttime),
            cpu: stat.utime.saturating_add(stat.stime) as f64 / ticks as f64,
            resident: memory.resident.saturating_mul(page),
            data: memory.data.saturating_mul(page),
            threads: stat.num_threads.unsigned_abs(),
        };
        Some((usage, stat.ppid.unsigned_abs()))
    }

    /// Of several processes as if they were one: the life is that of the first.
    pub(super) fn together(all: &[Self]) -> Option<Self> {
        all.iter().copied().reduce(|one, other| Self {
            identity: one.identity,
            cpu: one.cpu + other.cpu,
            resident: one.resident.saturating_add(other.resident),
            data: one.data.saturating_add(other.data),
            threads: one.threads.saturating_add(other.threads),
        })
    }

    /// When the process was started, in seconds since 1970.
    pub(super) fn started(&self) -> Option<f64> {
        let boot = procfs::boot_time_secs().ok()?;
        Some(boot as f64 + self.identity.1 as f64 / procfs::ticks_per_second() as f64)
    }
}

/// Bytes of a process's memory, what it shares divided by the number of those who share it. The
/// kernel walks the process's page tables for it, half a millisecond for a worker, in which the
/// worker cannot map memory; None where the host may not ask.
pub(super) fn proportional(pid: u32) -> Option<u64> {
    let rollup = open(pid)?.smaps_rollup().ok()?;
    let total: u64 =
        rollup.memory_map_rollup.iter().filter_map(|map| map.extension.map.get("Pss")).sum();
    Some(total)
}

/// Open descriptors of this process, and how many it may have.
pub(super) fn descriptors() -> Option<(u64, u64)> {
    use rustix::process::{Resource, getrlimit};
    let open = Process::myself().ok()?.fd_count().ok()?;
    Some((u64::try_from(open).ok()?, getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)))
}

fn open(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

/// CPU time of processes that follow one another in one role. It never goes back: what an earlier
/// process had used when it was last looked at stays in the sum.
#[derive(Debug, Clone, Copy, Default)]
struct CpuTotal {
    past: f64,
    life: Option<(u32, u64)>,
    current: f64,
}

impl CpuTotal {
    /// Takes in what the process in the role has used; None where there is none now. The sum so
    /// far, in seconds.
    fn update(&mut self, usage: Option<ProcessUsage>) -> f64 {
        if let Some(usage) = usage {
            if self.life != Some(usage.identity) {
                self.past += self.current;
                (self.life, self.current) = (Some(usage.identity), 0.0);
            }
            self.current = self.current.max(usage.cpu);
        }
        self.past + self.current
    }
}

/// CPU time of processes that share a role, and follow one another in it. It never goes back, as
/// [`CpuTotal`].
#[derive(Debug, Clone, Default)]
pub(super) struct RoleCpuTotal {
    past: f64,
    current: std::collections::BTreeMap<(u32, u64), f64>,
}

impl RoleCpuTotal {
    /// Takes in what the processes in the role have used. The sum so far, in seconds.
    pub(super) fn update(&mut self, usages: &[ProcessUsage]) -> f64 {
        let before = std::mem::take(&mut self.current);
        for usage in usages {
            let known = before.get(&usage.identity).copied().unwrap_or_default();
            self.current.insert(usage.identity, usage.cpu.max(known));
        }
        let gone = before.iter().filter(|(life, _)| !self.current.contains_key(life));
        self.past += gone.map(|(_, cpu)| cpu).sum::<f64>();
        self.past + self.current.values().sum::<f64>()
    }
}

/// The worker of a session as it was last looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WorkerUsage {
    /// None where there is no worker.
    pub(super) now: Option<ProcessUsage>,
    /// Seconds of all workers of the session.
    pub(super) cpu: f64,
}

/// Looks at the workers, and keeps the CPU time of those that are gone.
#[derive(Debug, Default)]
pub(super) struct WorkerUsageTracker {
    totals: std::collections::BTreeMap<String, CpuTotal>,
}

impl WorkerUsageTracker {
    /// What each session's worker uses now. Reads two small files of `/proc` for each: not for a
    /// thread that others wait for.
    pub(super) fn look(&mut self, observations: &[Observation]) -> Vec<WorkerUsage> {
        let seen = observations.iter().map(|observation| {
            let status = &observation.status;
            let now = status.pid.and_then(ProcessUsage::of_child);
            (status.id.as_str(), now)
        });
        self.take_in(seen)
    }

    fn take_in<'a>(
        &mut self,
        seen: impl Iterator<Item = (&'a str, Option<ProcessUsage>)>,
    ) -> Vec<WorkerUsage> {
        let mut before = std::mem::take(&mut self.totals);
        let mut taken = Vec::new();
        for (session, now) in seen {
            let mut total = before.remove(session).unwrap_or_default();
            taken.push(WorkerUsage { now, cpu: total.update(now) });
            self.totals.insert(session.to_owned(), total);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn used(life: (u32, u64), cpu: f64) -> Option<ProcessUsage> {
        Some(ProcessUsage { identity: life, cpu, resident: 0, data: 0, threads: 1 })
    }

    #[test]
    fn what_a_process_uses_is_read() {
        let own = ProcessUsage::own().unwrap();
        assert_eq!(own.identity.0, std::process::id());
        assert!(own.resident > 100_000 && own.data > 100_000 && own.threads >= 1, "{own:?}");
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let age = since - own.started().unwrap();
        // The time of boot is known to the second.
        assert!((-2.0..3600.0).contains(&age), "started {age} s ago");
        let (open, limit) = descriptors().unwrap();
        assert!((3..=limit).contains(&open));
        let proportional = proportional(std::process::id()).unwrap();
        assert!((100_000..=own.resident * 2).contains(&proportional), "{proportional} of {own:?}");
    }

    #[test]
    fn a_process_that_is_no_child_is_not_taken_for_a_worker() {
        assert_eq!(ProcessUsage::of_child(std::process::id()), None);
        assert_eq!(ProcessUsage::of_child(u32::MAX), None);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(ProcessUsage::of_child(child.id()).unwrap().identity.0, child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(ProcessUsage::of_child(child.id()), None);
    }

    #[test]
    fn a_replaced_workers_cpu_time_stays_counted_and_a_sessions_goes_with_it() {
        let mut workers = WorkerUsageTracker::default();
        let mut look = |seen: &[(&'static str, Option<ProcessUsage>)]| -> Vec<f64> {
            workers.take_in(seen.iter().copied()).iter().map(|worker| worker.cpu).collect()
        };
        assert_eq!(look(&[("a", used((7, 1), 2.0)), ("b", used((8, 1), 1.0))]), [2.0, 1.0]);
        assert_eq!(look(&[("a", None), ("b", used((8, 1), 1.5))]), [2.0, 1.5]);
        // The same number, used again.
        assert_eq!(look(&[("a", used((7, 9), 0.25)), ("b", None)]), [2.25, 1.5]);
        assert_eq!(look(&[("b", None)]), [1.5]);
        assert_eq!(look(&[("a", used((7, 9), 0.5)), ("b", None)]), [0.5, 1.5]);
    }

    proptest! {
        #[test]
        fn cpu_time_of_a_crew_is_that_of_all_its_processes(
            looks in proptest::collection::vec(proptest::collection::btree_map(1u32..5, 0u32..9, 0..4), 1..40),
        ) {
            let (mut crew, mut sum) = (RoleCpuTotal::default(), 0);
            // A number that was away is that of another process.
            let mut clocks = std::collections::BTreeMap::<u32, (u64, u32)>::new();
            for (start, present) in (0..).zip(looks) {
                clocks.retain(|pid, _| present.contains_key(pid));
                let usages: Vec<ProcessUsage> = present
                    .iter()
                    .filter_map(|(pid, more)| {
                        let (started, clock) = clocks.entry(*pid).or_insert((start, 0));
                        *clock += more;
                        sum += more;
                        used((*pid, *started), f64::from(*clock))
                    })
                    .collect();
                prop_assert_eq!(crew.update(&usages), f64::from(sum));
            }
        }

        #[test]
        fn cpu_time_never_goes_back(steps in proptest::collection::vec((0u32..3, 0u32..500), 1..60)) {
            let (mut total, mut last) = (CpuTotal::default(), 0.0);
            for (pid, hundredths) in steps {
                let cpu = f64::from(hundredths) / 100.0;
                let usage = if pid == 0 { None } else { used((pid, 1), cpu) };
                let now = total.update(usage);
                prop_assert!(now >= last, "{now} after {last}");
                prop_assert!(now <= last + cpu, "{now} after {last}: no more than what came to it");
                prop_assert!(usage.is_none() || now >= cpu, "{now}: no less than what one process \
                    used");
                last = now;
            }
        }
    }
}
