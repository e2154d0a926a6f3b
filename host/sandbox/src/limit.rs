//! Resource limits of a process: without capabilities it cannot raise them again.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Bounds private writable memory, in bytes (`RLIMIT_DATA`). Never `RLIMIT_AS`: that would count
/// the gigabytes of address space that Wasmtime reserves without using them.
pub fn memory(bytes: u64) -> io::Result<()> {
    set(Resource::Data, bytes)
}

/// Bounds the numbers of descriptors (`RLIMIT_NOFILE`): one more than the largest.
pub fn open_files(count: u64) -> io::Result<()> {
    set(Resource::Nofile, count)
}

/// Bounds CPU time of all threads in seconds (`RLIMIT_CPU`). The kernel kills beyond it.
pub fn cpu_time(seconds: u64) -> io::Result<()> {
    set(Resource::Cpu, seconds)
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
