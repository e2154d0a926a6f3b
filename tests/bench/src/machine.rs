//! What the kernel knows: CPU time and memory of processes, and what the machine is.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

/// What a process of the chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// `ocelli`.
    Host,
    /// `ocelli-worker`.
    Worker,
    /// `ocelli-inference`.
    Inference,
    /// `ocelli-rtsp` or `ocelli-ingest`.
    Ingest,
    /// Any other child of the host.
    Other,
}

/// A process of the chain.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// See [`Role`].
    pub role: Role,
    /// User and system time so far, in seconds.
    pub cpu_s: f64,
}

/// The host and its children at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// All of them.
    pub processes: Vec<Process>,
    machine: Ticks,
    taken: Instant,
}

/// CPU time between two snapshots.
#[derive(Debug, Clone)]
pub struct Spent {
    /// Seconds by role.
    pub by_role: BTreeMap<Role, f64>,
    /// Wall-clock seconds.
    pub wall_s: f64,
    /// Cores that programs outside the chain kept busy, on average; the hypervisor's share
    /// included.
    pub other_cores: f64,
}

impl Spent {
    /// Seconds of all processes together.
    pub fn total(&self) -> f64 {
        self.by_role.values().sum()
    }
}

impl Snapshot {
    /// Looks at the host `pid` and its children.
    pub fn take(pid: u32) -> Result<Self> {
        let taken = Instant::now();
        let mut processes = Vec::new();
        for entry in fs::read_dir("/proc").context("listing processes")? {
            let name = entry?.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may end between the listing and the look at it.
            let Some(stat) = Stat::read(number) else { continue };
            let role = match stat.name.as_str() {
                _ if number == pid => Role::Host,
                _ if stat.parent != pid => continue,
                "ocelli-worker" => Role::Worker,
                // The kernel keeps 15 bytes of a name.
                "ocelli-inferenc" => Role::Inference,
                "ocelli-rtsp" | "ocelli-ingest" => Role::Ingest,
                _ => Role::Other,
            };
            processes.push(Process { pid: number, role, cpu_s: stat.cpu_s });
        }
        anyhow::ensure!(
            processes.iter().any(|process| process.role == Role::Host),
            "the host, process {pid}, is gone"
        );
        Ok(Self { processes, machine: Ticks::read()?, taken })
    }

    /// What was spent since `earlier`. A process that has started meanwhile counts from its start.
    pub fn since(&self, earlier: &Self) -> Spent {
        let mut by_role = BTreeMap::new();
        for process in &self.processes {
            let before = earlier
                .processes
                .iter()
                .find(|old| old.pid == process.pid)
                .map_or(0.0, |old| old.cpu_s);
            *by_role.entry(process.role).or_insert(0.0) += process.cpu_s - before;
        }
        let wall_s = self.taken.duration_since(earlier.taken).as_secs_f64();
        let own: f64 = by_role.values().sum();
        let other_cores = (self.machine.busy_since(earlier.machine) - own).max(0.0) / wall_s;
        Spent { by_role, wall_s, other_cores }
    }

    /// The process of a role that has used the most CPU time so far.
    pub fn busiest(&self, role: Role) -> Option<u32> {
        let of_role = self.processes.iter().filter(|process| process.role == role);
        of_role.max_by(|one, other| one.cpu_s.total_cmp(&other.cpu_s)).map(|process| process.pid)
    }

    /// Numbers of the processes of a role.
    pub fn pids(&self, role: Role) -> impl Iterator<Item = u32> {
        self.processes.iter().filter(move |process| process.role == role).map(|process| process.pid)
    }
}

/// Seconds that all cores together were busy since the machine started.
#[derive(Debug, Clone, Copy)]
pub struct Ticks(f64);

impl Ticks {
    /// Reads them.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        // proc(5): user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in
        // user and nice.
        let fields = line.split_whitespace().skip(1).take(8).enumerate();
        let busy = fields.filter(|(index, _)| ![3, 4].contains(index));
        let ticks: f64 = busy.filter_map(|(_, field)| field.parse::<f64>().ok()).sum();
        Ok(Self(ticks / tick_rate()))
    }

    /// Busy seconds since `earlier`.
    pub fn busy_since(self, earlier: Self) -> f64 {
        self.0 - earlier.0
    }
}

struct Stat {
    name: String,
    parent: u32,
    cpu_s: f64,
}

impl Stat {
    /// proc(5): the name in parentheses may hold anything, so fields are counted from the last
    /// parenthesis.
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let ticks = field(11)?.checked_add(field(12)?)?;
        Some(Self {
            name: name.to_owned(),
            parent: u32::try_from(field(1)?).ok()?,
            cpu_s: ticks as f64 / tick_rate(),
        })
    }
}

fn tick_rate() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// User and system time of a process in seconds; the kernel counts it in hundredths.
pub fn cpu_s(pid: u32) -> Result<f64> {
    Ok(Stat::read(pid).with_context(|| format!("process {pid} is gone"))?.cpu_s)
}

/// Memory of a process in MB (10^6 bytes): its own pages, and its share of those that others map,
/// too.
pub fn pss_mb(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("{path} has no Pss"))? * 1024.0 / 1e6)
}

/// Threads of a process.
pub fn threads(pid: u32) -> Result<usize> {
    entries(&format!("/proc/{pid}/task"))
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> Result<usize> {
    entries(&format!("/proc/{pid}/fd"))
}

fn entries(folder: &str) -> Result<usize> {
    Ok(fs::read_dir(folder).with_context(|| folder.to_owned())?.count())
}

/// What a process maps of one file, or of one kind of memory without a file.
#[derive(Debug, Clone, Serialize)]
pub struct Mapping {
    /// The file's name without its folder, or what the kernel calls it.
    pub name: String,
    /// MB of PSS.
    pub pss_mb: f64,
    /// MB that the process alone has and has written to: relocated or changed.
    pub private_dirty_mb: f64,
}

/// What a process maps, the largest first.
pub fn mappings(pid: u32) -> Result<Vec<Mapping>> {
    let path = format!("/proc/{pid}/smaps");
    Ok(parse_mappings(&fs::read_to_string(&path).with_context(|| path.clone())?))
}

/// proc(5): a line of six fields, the name last and often missing, then a line `Key: NUMBER kB` for
/// each figure.
fn parse_mappings(text: &str) -> Vec<Mapping> {
    let mut sums = BTreeMap::<&str, (f64, f64)>::new();
    let mut name = "";
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let first = fields.next().unwrap_or_default();
        let Some(key) = first.strip_suffix(':') else {
            let path = fields.nth(4).unwrap_or("[anonymous]");
            name = path.rsplit('/').next().unwrap_or(path);
            continue;
        };
        let megabytes =
            fields.next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0 / 1e6;
        let sum = sums.entry(name).or_default();
        match key {
            "Pss" => sum.0 += megabytes,
            "Private_Dirty" => sum.1 += megabytes,
            _ => {}
        }
    }
    let mapping = |(name, (pss_mb, private_dirty_mb)): (&str, _)| Mapping {
        name: name.to_owned(),
        pss_mb,
        private_dirty_mb,
    };
    let mut mappings: Vec<Mapping> = sums.into_iter().map(mapping).collect();
    mappings.sort_by(|one, other| other.pss_mb.total_cmp(&one.pss_mb));
    mappings
}

/// File names of the libraries of a process that begin with one of `names`: they tell their
/// versions.
pub fn libraries(pid: u32, names: &[&str]) -> Result<Vec<String>> {
    let maps =
        fs::read_to_string(format!("/proc/{pid}/maps")).context("reading a process's mappings")?;
    let files = maps.lines().filter_map(|line| line.rsplit_once('/').map(|(_, file)| file));
    let mut found: Vec<String> = files
        .filter(|file| names.iter().any(|name| file.starts_with(name)))
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// The machine and how busy it was.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// As the kernel names it.
    pub cpu: String,
    /// Cores that this program may use.
    pub cores: usize,
    /// Of the whole machine, in 10^9 bytes.
    pub memory_gb: f64,
    /// Linux.
    pub kernel: String,
    /// Processes that ran or wanted to, averaged over the minute before the bench.
    pub load_before: f64,
}

impl Machine {
    /// Asks the kernel.
    pub fn read() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
        let value = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
        };
        let memory = value(&read("/proc/meminfo")?, "MemTotal");
        let memory = memory.and_then(|text| text.trim_end_matches(" kB").parse::<f64>().ok());
        let load = read("/proc/loadavg")?;
        Ok(Self {
            cpu: value(&read("/proc/cpuinfo")?, "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            memory_gb: memory.unwrap_or(f64::NAN) * 1024.0 / 1e9,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load_before: load
                .split_whitespace()
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(f64::NAN),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_any_name_is_read() {
        let text = "12 (a) b (c) S 7 12 12 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 100 0 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.name.as_str(), stat.parent), ("a) b (c", 7));
        assert_eq!(stat.cpu_s, 200.0 / tick_rate());
        assert!(Stat::parse("12 (a").is_none());
    }

    #[test]
    fn mappings_of_one_file_count_together() {
        let text = "\
7f00-7f10 r--p 00000000 08:01 5    /usr/lib/libx.so.1
Pss:                1000 kB
Private_Dirty:         0 kB
7f10-7f20 rw-p 00010000 08:01 5    /usr/lib/libx.so.1
Pss:                1000 kB
Private_Dirty:       500 kB
7f20-7f30 rw-p 00000000 00:00 0
Pss:                  10 kB
VmFlags: rd wr
";
        let found = parse_mappings(text);
        let names: Vec<&str> = found.iter().map(|mapping| mapping.name.as_str()).collect();
        assert_eq!(names, ["libx.so.1", "[anonymous]"]);
        assert_eq!((found[0].pss_mb, found[0].private_dirty_mb), (2.048, 0.512));
    }

    #[test]
    fn a_process_finds_itself() {
        let own = std::process::id();
        let snapshot = Snapshot::take(own).unwrap();
        assert_eq!(snapshot.pids(Role::Host).collect::<Vec<_>>(), [own]);
        assert!(pss_mb(own).unwrap() > 0.1);
        let held = fs::File::open("/dev/null").unwrap();
        assert!(descriptors(own).unwrap() > 3 && threads(own).unwrap() >= 1);
        drop(held);
        let before = cpu_s(own).unwrap();
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while cpu_s(own).unwrap() <= before {
            assert!(std::time::Instant::now() < limit, "its CPU time stays at {before} s");
        }
    }
}
