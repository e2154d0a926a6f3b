//! Seccomp: the system calls that a process may make, and with which arguments.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use libc::{c_int, c_long};
use ocelli_protocol::process::ingest;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter, apply_filter_all_threads,
};

use crate::profile::{ProcessKind, Profile};

/// A call's number, and the rules for its arguments, any of which allows it. No rule: any
/// arguments.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls of every confined process: memory, threads, time, waiting, open descriptors.
const ALLOWED: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    // Answered with ENOSYS by its own filter: its flags lie in memory, out of sight.
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_lseek,
    libc::SYS_membarrier,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    // Carries an address in memory, which the sockets that a confined process holds ignore or
    // refuse: they are connected.
    libc::SYS_sendmsg,
    libc::SYS_set_robust_list,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_write,
    libc::SYS_writev,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

/// Further calls of the compiler, which flushes its output.
const COMPILE: &[c_long] = &[libc::SYS_fdatasync, libc::SYS_fsync];

/// Further calls of the reader process, whose library makes its own sockets: what they are, and
/// where they are bound. It neither connects nor listens: the host connects for it.
const INGEST: &[c_long] =
    &[libc::SYS_bind, libc::SYS_getpeername, libc::SYS_getsockname, libc::SYS_getsockopt];

/// Further calls of a worker that reads files of folders that it was granted. Which ones is
/// landlock's part.
const READ_DIRECTORIES: &[c_long] = &[
    libc::SYS_fadvise64,
    libc::SYS_getdents64,
    libc::SYS_newfstatat,
    libc::SYS_openat2,
    libc::SYS_readlinkat,
    libc::SYS_statx,
];

/// Further calls of a worker that may change files of such folders. It makes no links.
const WRITE_DIRECTORIES: &[c_long] = &[
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_mkdirat,
    libc::SYS_pwrite64,
    libc::SYS_pwritev2,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
];

/// The flags with which the C library starts a thread. A process started with others would have a
/// life, a number, or names of its own.
const THREAD: c_int = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID;

/// Further flags of private mappings: those of allocators, of stacks and of Wasmtime. Left out are
/// `MAP_GROWSDOWN`, whose memory counts as a stack and not against a limit, huge pages, and pages
/// that are locked.
const PRIVATE_MAPPING: c_int = libc::MAP_ANONYMOUS
    | libc::MAP_DENYWRITE
    | libc::MAP_FIXED
    | libc::MAP_FIXED_NOREPLACE
    | libc::MAP_NORESERVE
    | libc::MAP_STACK;

/// Further protections of memory: code that may be jumped to, where the processor distinguishes it
/// (`PROT_BTI`). Left out is `PROT_GROWSDOWN`.
const PROTECTION: c_int = if cfg!(target_arch = "aarch64") { 0x10 } else { 0 };

/// Guards of stacks, of Linux 6.13.
const MADV_GUARD: [c_int; 2] = [102, 103];

/// What allocators and Wasmtime advise. Left out is above all `MADV_REMOVE`: it would take pages of
/// shared tensors away, for which another process then has to find memory.
const MADVISE: &[c_int] = &[
    libc::MADV_NORMAL,
    libc::MADV_RANDOM,
    libc::MADV_SEQUENTIAL,
    libc::MADV_WILLNEED,
    libc::MADV_DONTNEED,
    libc::MADV_FREE,
    libc::MADV_HUGEPAGE,
    libc::MADV_NOHUGEPAGE,
    libc::MADV_DONTDUMP,
    MADV_GUARD[0],
    MADV_GUARD[1],
];

/// The part of a control call's number that says which kind of node it is for, and that of nodes of
/// GPUs (`DRM_IOCTL_BASE`, "d").
const IOCTL_TYPE: c_int = 0xff00;
const IOCTL_DRM: c_int = 0x6400;

/// `PR_GET_AUXV` of Linux 6.4: reads the auxiliary vector.
const PR_GET_AUXV: c_int = 0x4155_5856;

/// Options for names, for confinement itself, and for its state. None reverts a measure.
const PRCTL: &[c_int] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_VMA,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_SECCOMP,
    libc::PR_GET_PDEATHSIG,
    PR_GET_AUXV,
];

/// Without those that name a process to be signalled.
const FCNTL: &[c_int] = &[
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GET_SEALS,
];

/// Restricts this thread, and those that it will start, to the calls of its kind.
pub(crate) fn restrict(profile: &Profile<'_>) -> Result<(), seccompiler::Error> {
    let lists = || -> Result<_, BackendError> {
        let own = std::process::id();
        // The kernel takes the stricter answer of two filters, and an error is stricter than leave.
        Ok([
            refusing([(libc::SYS_clone3, Vec::new())], libc::ENOSYS)?,
            allowing(of_profile(rules(profile.kind, own)?, profile)?)?,
        ])
    };
    let lists: [BpfProgram; 2] = lists()?;
    lists.iter().try_for_each(|list| match profile.render_node {
        // Its driver has threads.
        true => apply_filter_all_threads(list),
        false => apply_filter(list),
    })
}

/// The rules with those calls that what the process was granted needs.
fn of_profile(mut rules: Rules, profile: &Profile<'_>) -> Result<Rules, BackendError> {
    if profile.render_node {
        rules.entry(libc::SYS_ioctl).or_default().push(masked(1, IOCTL_TYPE, IOCTL_DRM)?);
    }
    Ok(with_directories(rules, &profile.directories))
}

/// Forbids a worker the calls that map its component, unless it opens files of folders.
pub(crate) fn seal(opens_files: bool) -> Result<(), seccompiler::Error> {
    if opens_files {
        return Ok(());
    }
    let calls = [libc::SYS_openat, libc::SYS_statx].map(|call| (call, Vec::new()));
    let list = refusing(calls, libc::EPERM)?;
    apply_filter_all_threads(&list)
}

/// Forbids a worker further threads, once it has all, and further filters.
pub(crate) fn seal_threads() -> Result<(), seccompiler::Error> {
    let calls = [libc::SYS_clone, libc::SYS_seccomp].map(|call| (call, Vec::new()));
    let list = refusing(calls, libc::EPERM)?;
    apply_filter_all_threads(&list)
}

/// The rules of a worker with those calls that its folders need.
fn with_directories(mut rules: Rules, directories: &[(BorrowedFd<'_>, bool)]) -> Rules {
    let reads = READ_DIRECTORIES.iter().filter(|_| !directories.is_empty());
    let writes = WRITE_DIRECTORIES.iter().filter(|_| directories.iter().any(|(_, write)| *write));
    rules.extend(reads.chain(writes).map(|call| (*call, Vec::new())));
    rules
}

/// `own` is the process's number.
fn rules(kind: ProcessKind, own: u32) -> Result<Rules, BackendError> {
    let (calls, fcntl): (&[c_long], &[c_int]) = match kind {
        ProcessKind::Worker => (&[], &[]),
        ProcessKind::Compile => (COMPILE, &[]),
        ProcessKind::Inference => (&[], &[]),
        ProcessKind::Ingest | ProcessKind::Rtsp => (INGEST, &[]),
    };
    let mut rules: Rules = ALLOWED.iter().chain(calls).map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![masked(0, !libc::CLONE_DETACHED, THREAD)?]);
    rules.insert(libc::SYS_fcntl, any_of(1, FCNTL.iter().chain(fcntl))?);
    rules.insert(libc::SYS_ioctl, vec![masked(1, !0, libc::FIONBIO as c_int)?]);
    restrict_memory(&mut rules)?;
    rules.insert(libc::SYS_prctl, any_of(0, PRCTL)?);
    // The process itself, by number or as 0.
    rules.insert(libc::SYS_prlimit64, vec![number(0, 0)?, number(0, own)?]);
    rules.insert(libc::SYS_sendto, vec![no_pointer(4)?]);
    // `abort` signals its own thread.
    rules.insert(libc::SYS_tgkill, vec![number(0, own)?]);
    if kind == ProcessKind::Worker {
        // For `seal` and `seal_threads`: a filter for all threads, which can only take away.
        let flags = libc::SECCOMP_FILTER_FLAG_TSYNC as u32;
        let arguments = [condition(0, libc::SECCOMP_SET_MODE_FILTER)?, condition(1, flags)?];
        rules.insert(libc::SYS_seccomp, vec![SeccompRule::new(arguments.into())?]);
    }
    if matches!(kind, ProcessKind::Ingest | ProcessKind::Rtsp) {
        restrict_sockets(&mut rules)?;
    }
    if kind == ProcessKind::Ingest {
        // It has one thread.
        rules.remove(&libc::SYS_clone);
    }
    if matches!(kind, ProcessKind::Worker | ProcessKind::Inference) {
        // Which files is landlock's part; none is made, changed or written to.
        let writes = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
        rules.insert(libc::SYS_openat, vec![masked(2, writes, libc::O_RDONLY)?]);
        // The size of an open file.
        rules.insert(libc::SYS_statx, vec![masked(2, libc::AT_EMPTY_PATH, libc::AT_EMPTY_PATH)?]);
    }
    Ok(rules)
}

/// Memory that is bounded: private, or of an open descriptor, which the host has allocated. Shared
/// memory without a descriptor counts against no limit of a process.
fn restrict_memory(rules: &mut Rules) -> Result<(), BackendError> {
    let (write, execute) = (libc::PROT_WRITE, libc::PROT_EXEC);
    let shared = (!0, libc::MAP_SHARED);
    let private = (!PRIVATE_MAPPING, libc::MAP_PRIVATE);
    let (mut maps, mut protects) = (Vec::new(), Vec::new());
    // No memory is writable and executable at the same time. Compiled components are made
    // executable when they are whole.
    for bits in [0, write, execute] {
        let protection = || bits_are(2, !(libc::PROT_READ | PROTECTION), bits);
        protects.push(SeccompRule::new(vec![protection()?])?);
        for (mask, kind) in [shared, private] {
            maps.push(SeccompRule::new(vec![protection()?, bits_are(3, mask, kind)?])?);
        }
    }
    rules.insert(libc::SYS_mmap, maps);
    rules.insert(libc::SYS_mprotect, protects);
    rules.insert(libc::SYS_mremap, vec![masked(3, !libc::MREMAP_MAYMOVE, 0)?]);
    rules.insert(libc::SYS_madvise, any_of(2, MADVISE)?);
    Ok(())
}

/// What a reader process may do with sockets of its own: receive.
fn restrict_sockets(rules: &mut Rules) -> Result<(), BackendError> {
    let flags = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).cast_unsigned();
    let without_flags = SeccompCmpOp::MaskedEq(u64::from(!flags));
    let kinds = [libc::AF_INET, libc::AF_INET6]
        .into_iter()
        .flat_map(|family| [libc::SOCK_STREAM, libc::SOCK_DGRAM].map(|kind| (family, kind)));
    // The protocol is the kind's first: others have calls of their own that connect.
    let sockets = kinds.map(|(family, kind)| {
        SeccompRule::new(vec![
            condition(0, family.cast_unsigned())?,
            compared(1, without_flags.clone(), kind.cast_unsigned())?,
            condition(2, 0)?,
        ])
    });
    rules.insert(libc::SYS_socket, sockets.collect::<Result<_, _>>()?);
    let receive_buffer =
        vec![condition(1, libc::SOL_SOCKET as u32)?, condition(2, libc::SO_RCVBUF as u32)?];
    rules.insert(libc::SYS_setsockopt, vec![SeccompRule::new(receive_buffer)?]);
    // A message's address lies in memory, out of sight. So only the host's packet socket, which is
    // connected, takes one; and no other socket can come to its number.
    rules.insert(libc::SYS_sendmsg, vec![number(0, ingest::NETWORK.cast_unsigned())?]);
    let inherited = ingest::FILE.cast_unsigned();
    for (call, argument) in [(libc::SYS_close, 0), (libc::SYS_dup3, 1)] {
        let above = compared(argument, SeccompCmpOp::Gt, inherited)?;
        rules.insert(call, vec![SeccompRule::new(vec![above])?]);
    }
    Ok(())
}

fn allowing(rules: Rules) -> Result<BpfProgram, BackendError> {
    filter(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}

fn refusing(
    calls: impl IntoIterator<Item = (c_long, Vec<SeccompRule>)>,
    error: c_int,
) -> Result<BpfProgram, BackendError> {
    filter(calls.into_iter().collect(), SeccompAction::Allow, SeccompAction::Errno(error as u32))
}

fn filter(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, matched, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// An argument that is one of some numbers.
fn any_of<'a>(
    argument: u8,
    values: impl IntoIterator<Item = &'a c_int>,
) -> Result<Vec<SeccompRule>, BackendError> {
    values.into_iter().map(|value| masked(argument, !0, *value)).collect()
}

/// An argument of which the bits in `mask` are `bits`.
fn masked(argument: u8, mask: c_int, bits: c_int) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![bits_are(argument, mask, bits)?])
}

fn bits_are(argument: u8, mask: c_int, bits: c_int) -> Result<SeccompCondition, BackendError> {
    // As unsigned first: a sign would spread over bits that the kernel does not look at.
    let operator = SeccompCmpOp::MaskedEq(u64::from(mask.cast_unsigned()));
    compared(argument, operator, bits.cast_unsigned())
}

fn number(argument: u8, value: u32) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![condition(argument, value)?])
}

fn condition(argument: u8, value: u32) -> Result<SeccompCondition, BackendError> {
    compared(argument, SeccompCmpOp::Eq, value)
}

fn compared(
    argument: u8,
    operator: SeccompCmpOp,
    value: u32,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
}

fn no_pointer(argument: u8) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::Eq,
        0,
    )?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [ProcessKind; 5] = [
        ProcessKind::Worker,
        ProcessKind::Compile,
        ProcessKind::Inference,
        ProcessKind::Ingest,
        ProcessKind::Rtsp,
    ];
    const READERS: [ProcessKind; 2] = [ProcessKind::Ingest, ProcessKind::Rtsp];

    #[test]
    fn every_kind_has_a_list_that_fits_the_kernel() {
        for kind in KINDS {
            assert!(allowing(rules(kind, 7).unwrap()).unwrap().len() < 4096, "{kind:?}");
        }
    }

    #[test]
    fn control_calls_of_gpus_are_allowed_to_who_was_granted_one_and_no_others() {
        let ioctl = |profile: &Profile<'_>| {
            let rules = of_profile(rules(ProcessKind::Worker, 7).unwrap(), profile).unwrap();
            allowing(rules.clone()).unwrap();
            rules[&libc::SYS_ioctl].len()
        };
        assert_eq!(ioctl(&Profile::worker(None)), 1);
        assert_eq!(ioctl(&Profile::worker(None).with_render_node()), 2);
    }

    #[test]
    fn no_list_holds_a_call_that_reaches_another_process_or_a_new_socket() {
        for kind in KINDS {
            let rules = rules(kind, 7).unwrap();
            for call in [libc::SYS_socket, libc::SYS_setsockopt, libc::SYS_bind, libc::SYS_dup3] {
                assert_eq!(rules.contains_key(&call), READERS.contains(&kind), "{kind:?}");
            }
            for call in [
                libc::SYS_socketpair,
                libc::SYS_connect,
                libc::SYS_listen,
                libc::SYS_accept,
                libc::SYS_accept4,
                libc::SYS_sendmmsg,
                libc::SYS_close_range,
                libc::SYS_execve,
                libc::SYS_execveat,
                libc::SYS_kill,
                libc::SYS_tkill,
                libc::SYS_pidfd_open,
                libc::SYS_pidfd_send_signal,
                libc::SYS_ptrace,
                libc::SYS_process_vm_readv,
                libc::SYS_process_vm_writev,
                libc::SYS_io_uring_setup,
                libc::SYS_unshare,
                libc::SYS_setns,
                libc::SYS_mount,
                libc::SYS_memfd_create,
                libc::SYS_remap_file_pages,
                libc::SYS_mlock,
            ] {
                assert!(!rules.contains_key(&call), "{kind:?}: {call}");
            }
        }
        let ingest = rules(ProcessKind::Ingest, 7).unwrap();
        for call in [libc::SYS_clone, libc::SYS_openat, libc::SYS_statx] {
            assert!(!ingest.contains_key(&call), "a reader has one thread and opens nothing");
        }
    }
}
