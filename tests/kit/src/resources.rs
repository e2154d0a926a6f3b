//! What a process holds of the machine, as the kernel tells it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

/// At one moment. What a process has given back by then is not in it, so a process that ends
/// meanwhile counts as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessResources {
    /// Pages in memory, in KiB; those that it shares with others count in full.
    pub resident_kib: u64,
    /// The most that these ever were.
    pub peak_kib: u64,
    /// Threads.
    pub threads: u64,
    /// What its open descriptors refer to, sorted.
    pub descriptors: Vec<String>,
    /// Anonymous shared memory that it has open or mapped: bytes by inode, so that what two
    /// processes share can be counted once.
    pub shared: BTreeMap<u64, u64>,
}

/// What `/proc` says of a process; empty of one that has ended.
fn status(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

/// A figure of it; 0 where it is not there.
fn number(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

impl ProcessResources {
    /// Looks at a process.
    pub fn of(pid: u32) -> Self {
        let status = status(pid);
        let number = |key: &str| number(&status, key);
        let mut held = Self {
            resident_kib: number("VmRSS"),
            peak_kib: number("VmHWM"),
            threads: number("Threads"),
            ..Self::default()
        };
        held.look_at_descriptors(pid);
        held.look_at_mappings(pid);
        held
    }

    /// The most pages in memory that a process ever had, in KiB; 0 of one that has ended.
    pub fn peak_of(pid: u32) -> u64 {
        number(&status(pid), "VmHWM")
    }

    /// Open descriptors but those of log files: a host keeps a number of them open for sessions
    /// that may come again.
    pub fn descriptors_but_logs(&self) -> usize {
        self.descriptors.iter().filter(|target| !target.ends_with(".log")).count()
    }

    /// Bytes of anonymous shared memory.
    pub fn shared_bytes(&self) -> u64 {
        self.shared.values().sum()
    }

    fn look_at_descriptors(&mut self, pid: u32) {
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return };
        for entry in entries.filter_map(Result::ok) {
            // A descriptor may be closed between the listing and the look at it.
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            if target.starts_with("/memfd:")
                && let Ok(about) = std::fs::metadata(entry.path())
            {
                self.shared.insert(about.ino(), about.len());
            }
            self.descriptors.push(target);
        }
        self.descriptors.sort();
    }

    /// Memory stays mapped when its descriptor is closed.
    fn look_at_mappings(&mut self, pid: u32) {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        for line in maps.lines().filter(|line| line.contains("/memfd:")) {
            // proc(5): addresses, permissions, offset, device, inode, path.
            let mut fields = line.split_whitespace();
            let length = fields.next().and_then(|range| {
                let (from, to) = range.split_once('-')?;
                Some(u64::from_str_radix(to, 16).ok()? - u64::from_str_radix(from, 16).ok()?)
            });
            if let (Some(length), Some(inode)) =
                (length, fields.nth(3).and_then(|inode| inode.parse().ok()))
            {
                let known = self.shared.entry(inode).or_default();
                *known = length.max(*known);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    #[test]
    fn a_process_finds_what_it_holds_itself() {
        let before = ProcessResources::of(std::process::id());
        assert!(before.resident_kib > 0 && before.peak_kib >= before.resident_kib, "{before:?}");
        assert!(before.threads > 0 && before.descriptors.len() > 2, "{before:?}");
        let memory = memfd_create("held", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, 4096).unwrap();
        let with = ProcessResources::of(std::process::id());
        assert_eq!(with.shared_bytes(), before.shared_bytes() + 4096, "{with:?}");
    }

    #[test]
    fn a_process_that_has_ended_holds_nothing() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(ProcessResources::of(child.id()), ProcessResources::default());
    }
}
