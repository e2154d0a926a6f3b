//! Processes that are not our own children: found by their parent, held by a descriptor so that a
//! number that is used again is never mistaken for them.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process that was alive when it was opened.
#[derive(Debug)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The first 15 bytes of its program's name.
    pub name: String,
    descriptor: OwnedFd,
}

impl Process {
    /// None where there is no such process (any more).
    pub fn open(pid: u32) -> Option<Self> {
        let descriptor = pidfd_open(raw(pid), PidfdFlags::empty()).ok()?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned();
        Some(Self { pid, name, descriptor })
    }

    /// Sends a signal; to a process that has ended it does nothing.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.descriptor, signal);
    }

    /// Waits until it has ended. False where it still lives after `limit`.
    pub fn ends_within(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).unwrap();
        poll(&mut [PollFd::new(&self.descriptor, PollFlags::IN)], Some(&limit)).unwrap() > 0
    }
}

/// The children of a process.
pub fn children(parent: u32) -> Vec<Process> {
    let numbers = std::fs::read_dir("/proc").unwrap();
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|pid| parent_of(*pid) == Some(parent)).filter_map(Process::open).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; behind it come the state and the parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}
