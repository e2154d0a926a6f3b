//! Resource limits of a process: without capabilities it cannot raise them again.

use std::io;

use rustix::process::{
    Resource, Rlimit, getpriority_process, getrlimit, setpriority_process, setrlimit,
};

/// Most bytes of the first thread's stack: the usual limit. The kernel extends this stack by itself
/// and counts it against `RLIMIT_STACK` alone, which some systems leave open.
const MAX_STACK: u64 = 8 << 20;

/// Bounds private writable memory, in bytes (`RLIMIT_DATA`), and the stack of the first thread.
pub fn memory(bytes: u64) -> io::Result<()> {
    set(Resource::Data, bytes)?;
    set(Resource::Stack, MAX_STACK)
}

/// Bounds all addresses, in bytes (`RLIMIT_AS`), and with them page tables: memory that is only
/// read counts nowhere else, but takes a page table of 4 KiB for each 2 MiB. The bound has to hold
/// what the process reserves without using it: Wasmtime 4 GiB for each linear memory.
pub fn address_space(bytes: u64) -> io::Result<()> {
    set(Resource::As, bytes)
}

/// Bounds the numbers of descriptors (`RLIMIT_NOFILE`): one more than the largest.
pub fn open_files(count: u64) -> io::Result<()> {
    set(Resource::Nofile, count)
}

/// Bounds CPU time of all threads in seconds (`RLIMIT_CPU`). Beyond it the kernel sends SIGXCPU,
/// which says why, and kills a second later.
pub fn cpu_time(seconds: u64) -> io::Result<()> {
    set(Resource::Cpu, seconds.saturating_add(1))?;
    let maximum = getrlimit(Resource::Cpu).maximum;
    Ok(setrlimit(Resource::Cpu, Rlimit { current: maximum.map(|_| seconds), maximum })?)
}

/// Lowers the priority of a process of one thread, and of the threads that it will start, to this
/// niceness. One that is nicer already stays so.
pub fn priority(nice: i32) -> io::Result<()> {
    let nice = getpriority_process(None)?.max(nice);
    Ok(setpriority_process(None, nice)?)
}

/// Bounds the size of each file that is written, in bytes (`RLIMIT_FSIZE`). A write beyond it is an
/// error (`EFBIG`).
#[allow(unsafe_code)]
pub fn file_size(bytes: u64) -> io::Result<()> {
    // SAFETY: no function is installed, the signal is ignored. It would end the process.
    if unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    set(Resource::Fsize, bytes)
}

/// The size in bytes at which no core dump is made: smaller than any, so none becomes a file. For a
/// dump that is piped to a program the kernel ignores the limit, unless it is 1.
const NO_CORE: u64 = 1;

pub(crate) fn no_core_dumps() -> io::Result<()> {
    set(Resource::Core, NO_CORE)?;
    match getrlimit(Resource::Core) {
        Rlimit { current: Some(NO_CORE), maximum: Some(NO_CORE) } => Ok(()),
        other => Err(io::Error::other(format!("the limit is {other:?}"))),
    }
}

fn set(resource: Resource, limit: u64) -> io::Result<()> {
    // A maximum that is lower already stays: a process without capabilities cannot raise it.
    let maximum = getrlimit(resource).maximum.map_or(limit, |maximum| maximum.min(limit));
    Ok(setrlimit(resource, Rlimit { current: Some(maximum), maximum: Some(maximum) })?)
}
