//! The steps that confine a process, and the proof of each that can be read back.

use std::io;
use std::os::fd::RawFd;

use ocelli_protocol::confinement::{Confinement, Measure, MissingMeasure};
use ocelli_protocol::process::die_with_parent;
use rustix::process::{Resource, Signal, getrlimit, parent_process_death_signal};
use rustix::thread::{
    CapabilitySet, CapabilitySets, SecureComputingMode, capabilities, no_new_privs,
    secure_computing_mode, set_capabilities, set_no_new_privs,
};

use crate::error::MeasureError;
use crate::profile::{ProcessKind, Profile};
use crate::{domain, limit, syscalls};

/// Ties the process to its parent, and closes every descriptor above `promised`, the largest number
/// that the parent has promised. Descriptors left open by mistake are out of reach from then on.
///
/// # Safety
///
/// To be called first of all in `main`: before the process opens a descriptor that it keeps, and
/// before anything in it owns one with a number above `promised`.
#[allow(unsafe_code)]
pub unsafe fn enter(promised: RawFd) -> io::Result<()> {
    die_with_parent()?;
    let first = libc::c_uint::try_from(promised).map_or(0, |promised| promised.saturating_add(1));
    // By number, since libraries that are older than the kernel lack the function. SAFETY: the call
    // takes three numbers; the caller guarantees that the descriptors have no owner.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    if closed == 0 {
        return Ok(());
    }
    // Before Linux 5.9, and where a container's own filter does not know the call.
    let numbers = getrlimit(Resource::Nofile).current.and_then(|limit| limit.try_into().ok());
    for number in first..numbers.unwrap_or(MOST_DESCRIPTORS).min(MOST_DESCRIPTORS) {
        // SAFETY: as above; a number that is not open is an error that changes nothing.
        unsafe { libc::close(number.cast_signed()) };
    }
    Ok(())
}

/// Numbers that are closed one by one where the kernel does not close all at once: above what a
/// host has open, which asks for 16,384.
const MOST_DESCRIPTORS: libc::c_uint = 1 << 16;

/// Confines the calling thread and all that it will start, and reports each measure. Call it while
/// the process has one thread, but for those of a driver.
pub fn confine(profile: &Profile<'_>) -> Confinement {
    let threads = threads();
    let privileges = give_up_privileges(profile.kind);
    let parent_death = die_with_parent().map_err(MeasureError::from);
    let core_dumps = limit::no_core_dumps().map_err(MeasureError::from);
    let domain = domain::restrict(profile);
    let system_calls = match profile.devices {
        false => syscalls::restrict(profile).map_err(MeasureError::from),
        true => Err(MeasureError::Devices),
    };

    let on_every_thread = |done: Result<(), MeasureError>| match threads {
        0..=1 => done,
        _ => Err(MeasureError::Threads(threads)),
    };
    let mut confinement = Confinement::default();
    for (measure, done) in [
        (
            Measure::NoNewPrivileges,
            on_every_thread(privileges.and_then(|()| privileges_are_gone())),
        ),
        (Measure::Files, on_every_thread(domain.files)),
        (Measure::Network, on_every_thread(domain.network)),
        (Measure::Scopes, on_every_thread(domain.scopes)),
        (
            Measure::SystemCalls,
            match profile.render_node {
                // Its list takes effect on all threads.
                true => system_calls.and_then(|()| calls_are_filtered()),
                false => on_every_thread(system_calls.and_then(|()| calls_are_filtered())),
            },
        ),
        (Measure::ParentDeath, parent_death.and_then(|()| dies_with_parent())),
        (Measure::CoreDumps, core_dumps),
    ] {
        match done {
            Ok(()) => confinement.enforced.push(measure),
            Err(error) => {
                confinement.missing.push(MissingMeasure { measure, reason: error.to_string() })
            }
        }
    }
    confinement
}

/// Closes the last door of a worker, once its component is mapped: from then on nothing is opened
/// by name, landlock or not. A worker that was granted folders opens their files still, which is
/// landlock's part: `opens_files`. Does nothing where system calls are not filtered. It takes
/// effect on all threads.
pub fn seal(confinement: &Confinement, opens_files: bool) -> io::Result<()> {
    if confinement.enforced.contains(&Measure::SystemCalls) {
        syscalls::seal(opens_files).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Forbids a worker to start threads, once it has all that it needs; the list of system calls is
/// final then. Does nothing where system calls are not filtered. It takes effect on all threads.
pub fn seal_threads(confinement: &Confinement) -> io::Result<()> {
    if confinement.enforced.contains(&Measure::SystemCalls) {
        syscalls::seal_threads().map_err(io::Error::other)?;
    }
    Ok(())
}

/// Number of threads of this process. 0 if unknown.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Drops capabilities and the ability to gain privileges by executing a program. The inference
/// process keeps the right to read other users' files: a host that runs as root needs it for
/// models.
fn give_up_privileges(kind: ProcessKind) -> Result<(), MeasureError> {
    set_no_new_privs(true)?;
    let held = capabilities(None)?.permitted;
    let kept = match kind {
        ProcessKind::Inference => held & CapabilitySet::DAC_READ_SEARCH,
        ProcessKind::Worker | ProcessKind::Compile | ProcessKind::Ingest | ProcessKind::Rtsp => {
            CapabilitySet::empty()
        }
    };
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(MeasureError::Capabilities)
}

fn privileges_are_gone() -> Result<(), MeasureError> {
    if no_new_privs()? { Ok(()) } else { Err(MeasureError::NotInForce("that it is off".into())) }
}

fn calls_are_filtered() -> Result<(), MeasureError> {
    match secure_computing_mode()? {
        SecureComputingMode::Filter => Ok(()),
        other => Err(MeasureError::NotInForce(format!("{other:?}"))),
    }
}

fn dies_with_parent() -> Result<(), MeasureError> {
    match parent_process_death_signal()? {
        Some(Signal::KILL) => Ok(()),
        other => Err(MeasureError::NotInForce(format!("{other:?}"))),
    }
}
