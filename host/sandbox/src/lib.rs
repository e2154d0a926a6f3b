//! Confines a child process before it starts a thread: only what its work needs remains.
//!
//! A child calls two functions at its start. [`enter`] comes first of all: it ties the process to
//! its parent and closes every descriptor that the parent did not promise. [`confine`] comes as
//! soon as nothing has to be opened any more. It takes effect on the calling thread and on the
//! threads that this one starts, so it stands before the first of them.
//!
//! In this order, because the last step takes away the system calls that the others need:
//!
//! - no new privileges, and no capabilities: what the process could do as root it can do no longer;
//! - the parent-death signal, no core dumps;
//! - landlock: no file by name but those that the [`Profile`] grants for reading, no TCP, no
//!   signals to other processes and no abstract sockets;
//! - seccomp: a list of system calls, with their arguments where those matter. Every other call
//!   fails with `EPERM` rather than killing the process: a library that tries something for a
//!   better value (the number of processors, the system's overcommit setting) continues without it,
//!   and an attacker gains nothing either way.
//!
//! A missing measure is no error here. [`confine`] reports it, and the host decides.
//!
//! Kernel versions: landlock restricts files from Linux 6.2 on (its version 3), TCP from 6.7 (4),
//! signals and abstract sockets from 6.12 (6). With an older landlock, seccomp still keeps a worker
//! from making a socket, from signalling, and from opening a file after [`seal`]. The other
//! measures work everywhere. Wasmtime maps compiled code by name only, so a worker may open the one
//! file that it inherited, through `/proc/self/fd`, until `seal` takes `openat` away.
//! `seal_threads` takes away the start of threads, once a worker has all of them.
//!
//! Memory is bounded by three limits together ([`limit`]): private writable memory, the stack, and
//! the address space, of which page tables take a 512th. Seccomp keeps a process from memory that
//! counts against none of them: shared memory of its own, and further stacks.
//!
//! The kernel sends the parent-death signal when the *thread* that started the child ends: a host
//! starts children from threads that last, never from a pool whose threads come and go.
//!
//! Two measures that suggest themselves are left out. `PR_SET_DUMPABLE` at 0 would close
//! `/proc/PID/smaps_rollup` to a host that is not root, which takes its memory figures from there;
//! core dumps are prevented by the limit alone. The environment is cleared by the host: here a
//! library may have read it already.
//!
//! [`attempt`] makes forbidden calls and so finds out what the kernel really enforces.

pub mod attempt;
mod confine;
mod domain;
mod error;
pub mod limit;
mod profile;
mod syscalls;

pub use confine::{confine, enter, seal, seal_threads};
pub use profile::Profile;
