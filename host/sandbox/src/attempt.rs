//! Attempts at forbidden actions. Each is really made, so that the report shows what the kernel
//! enforces. In an unconfined process each succeeds and does no harm.

use std::fs::File;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use ocelli_protocol::confinement::Attempt;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, SocketType, sendmsg_addr, socket,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, getrlimit, setrlimit};

use crate::limit;

/// The argument with which the attempt to execute starts this very program. A process that reads it
/// has escaped, and ends with [`EXECUTED_STATUS`].
pub const EXECUTED: &str = "--sandbox-executed";

/// The exit status of a process that could execute a program.
pub const EXECUTED_STATUS: u8 = 42;

/// Targets of the attempts, made before the process is confined.
pub struct Targets {
    program: PathBuf,
    folder: PathBuf,
    listener: TcpListener,
    receiver: UdpSocket,
    parent: Pid,
    limits: Limits,
}

/// The limits that the attempts are to find.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of private writable memory.
    pub memory: u64,
    /// Bytes of addresses.
    pub address_space: u64,
    /// Descriptors.
    pub open_files: u64,
}

impl Limits {
    /// Those of a check. A process's own are the host's or the config's; that the kernel keeps to
    /// them does not depend on the figures.
    pub const CHECK: Self = Self { memory: 256 << 20, address_space: 16 << 30, open_files: 64 };

    /// Sets them for this process.
    pub fn set(&self) -> io::Result<()> {
        limit::memory(self.memory)?;
        limit::address_space(self.address_space)?;
        limit::open_files(self.open_files)
    }
}

impl Targets {
    /// Sockets of loopback that listen, the names of the rest, and the limits that are to be found.
    pub fn new(limits: Limits) -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            folder: std::env::temp_dir(),
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
            receiver: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
            // A parent outside this PID namespace has no number; the first process is as foreign.
            parent: getppid().unwrap_or(Pid::INIT),
            limits,
        })
    }
}

/// The errors of landlock and seccomp.
const DENIED: &[Errno] = &[Errno::PERM, Errno::ACCESS];

/// An attempt: its name, the errors that mean that confinement refused it, and how it is made.
/// Other errors come from elsewhere, and say nothing about confinement.
type Try = (&'static str, &'static [Errno], fn(&Targets) -> io::Result<()>);

/// The attempt that a process with threads of its own does not make.
const START_THREAD: &str = "start_thread";

const ATTEMPTS: &[Try] = &[
    ("open_file", DENIED, open_file),
    ("create_file", DENIED, create_file),
    ("connect_tcp", DENIED, connect_tcp),
    ("listen", DENIED, listen),
    ("send_udp", DENIED, send_udp),
    ("send_udp_message", DENIED, send_udp_message),
    ("create_unix_socket", DENIED, create_unix_socket),
    ("fork", DENIED, fork),
    ("trace_process", DENIED, trace_process),
    ("signal_process", DENIED, signal_process),
    ("create_shared_memory", DENIED, create_shared_memory),
    ("map_shared_memory", DENIED, map_shared_memory),
    ("map_growing_stack", DENIED, map_growing_stack),
    ("write_executable_memory", DENIED, write_executable_memory),
    ("raise_limit", DENIED, raise_limit),
    ("allocate_past_limit", &[Errno::NOMEM], allocate_past_limit),
    ("map_past_limit", &[Errno::NOMEM], map_past_limit),
    ("open_past_limit", &[Errno::MFILE], open_past_limit),
    (START_THREAD, DENIED, start_thread),
    // The last: where it succeeds, this program is no more.
    ("execute", DENIED, execute),
];

/// The names of all attempts, in their order.
pub fn names() -> impl Iterator<Item = &'static str> {
    ATTEMPTS.iter().map(|(name, ..)| *name)
}

/// Makes all attempts in their order, but to start a thread where the process `has_threads`. The
/// last one ends the process if it succeeds.
pub fn make_all(targets: &Targets, has_threads: bool) -> Vec<Attempt> {
    let made = ATTEMPTS.iter().filter(|(name, ..)| !(has_threads && *name == START_THREAD));
    made.map(|attempt| make(attempt, targets)).collect()
}

/// Makes one attempt. `None` if no attempt has that name.
pub fn make_one(name: &str, targets: &Targets) -> Option<Attempt> {
    ATTEMPTS.iter().find(|(other, ..)| *other == name).map(|attempt| make(attempt, targets))
}

fn make((name, refusals, attempt): &Try, targets: &Targets) -> Attempt {
    let error = attempt(targets).err();
    let errno = error.as_ref().and_then(Errno::from_io_error);
    let refused = errno.is_some_and(|errno| refusals.contains(&errno));
    let error =
        error.map(|error| errno.and_then(symbol).map_or_else(|| error.to_string(), str::to_owned));
    Attempt { attempt: (*name).to_owned(), refused, error }
}

/// How the manuals call an error.
fn symbol(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::PERM => Some("EPERM"),
        Errno::ACCESS => Some("EACCES"),
        Errno::NOMEM => Some("ENOMEM"),
        Errno::MFILE => Some("EMFILE"),
        _ => None,
    }
}

fn open_file(targets: &Targets) -> io::Result<()> {
    File::open(&targets.program).map(drop)
}

fn create_file(targets: &Targets) -> io::Result<()> {
    let path = targets.folder.join(format!("ocelli-sandbox-{}", std::process::id()));
    File::create_new(&path)?;
    std::fs::remove_file(path)
}

fn connect_tcp(targets: &Targets) -> io::Result<()> {
    TcpStream::connect(targets.listener.local_addr()?).map(drop)
}

/// On a port that the kernel chooses.
fn listen(_: &Targets) -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    Ok(rustix::net::listen(&socket, 1)?)
}

/// With the call whose address lies in memory, out of the filter's sight.
fn send_udp_message(targets: &Targets) -> io::Result<()> {
    let to = targets.receiver.local_addr()?;
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let message = [IoSlice::new(b"ocelli")];
    let mut control = SendAncillaryBuffer::default();
    Ok(sendmsg_addr(&socket, &to, &message, &mut control, SendFlags::empty()).map(drop)?)
}

/// With a socket of its own, and with one that it already has.
fn send_udp(targets: &Targets) -> io::Result<()> {
    let to = targets.receiver.local_addr()?;
    let own = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    own.and_then(|socket| socket.send_to(b"ocelli", to))
        .or_else(|_| targets.receiver.send_to(b"ocelli", to))
        .map(drop)
}

fn create_unix_socket(_: &Targets) -> io::Result<()> {
    UnixDatagram::unbound().map(drop)
}

#[allow(unsafe_code)]
fn fork(_: &Targets) -> io::Result<()> {
    // SAFETY: no precondition in a process of one thread. The child does nothing but end.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the child at once.
        0 => unsafe { libc::_exit(0) },
        child => {
            rustix::process::waitpid(Pid::from_raw(child), rustix::process::WaitOptions::empty())?;
            Ok(())
        }
    }
}

fn execute(targets: &Targets) -> io::Result<()> {
    Err(Command::new(&targets.program).arg(EXECUTED).exec())
}

/// Takes hold of the parent as a debugger does, without stopping it. Lets go by ending.
#[allow(unsafe_code)]
fn trace_process(targets: &Targets) -> io::Result<()> {
    let parent = targets.parent.as_raw_nonzero().get();
    // SAFETY: the request takes no memory of ours.
    match unsafe { libc::ptrace(libc::PTRACE_SEIZE, parent, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Tests whether the parent can be signalled, then sends SIGCONT, which changes nothing.
fn signal_process(targets: &Targets) -> io::Result<()> {
    let asked = rustix::process::test_kill_process(targets.parent);
    let told = rustix::process::kill_process(targets.parent, Signal::CONT);
    Ok(asked.or(told)?)
}

fn create_shared_memory(_: &Targets) -> io::Result<()> {
    Ok(memfd_create("ocelli-sandbox", MemfdFlags::CLOEXEC).map(drop)?)
}

/// Without a descriptor: of a process's limits none counts it.
fn map_shared_memory(_: &Targets) -> io::Result<()> {
    map(4096, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)
}

/// Grows by itself, and counts as a stack.
fn map_growing_stack(_: &Targets) -> io::Result<()> {
    map(4096, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::GROWSDOWN)
}

fn write_executable_memory(_: &Targets) -> io::Result<()> {
    map(4096, ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC, MapFlags::PRIVATE)
}

fn raise_limit(_: &Targets) -> io::Result<()> {
    let limit = getrlimit(Resource::Data);
    let doubled = limit.maximum.map(|maximum| maximum.saturating_mul(2));
    setrlimit(Resource::Data, Rlimit { current: doubled, maximum: doubled })?;
    Ok(setrlimit(Resource::Data, limit)?)
}

/// As much private memory as the limit allows, on top of what the process has.
fn allocate_past_limit(targets: &Targets) -> io::Result<()> {
    let bytes = usize::try_from(targets.limits.memory).unwrap_or(usize::MAX);
    map(bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE)
}

/// As many addresses as the limit allows, on top of those in use. Memory that is only read takes
/// page tables, and nothing that another limit counts.
fn map_past_limit(targets: &Targets) -> io::Result<()> {
    let bytes = usize::try_from(targets.limits.address_space).unwrap_or(usize::MAX);
    map(bytes, ProtFlags::READ, MapFlags::PRIVATE | MapFlags::NORESERVE)
}

fn start_thread(_: &Targets) -> io::Result<()> {
    let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(|| {})?;
    thread.join().map_err(|_| io::Error::other("the thread panicked"))
}

/// As many descriptors as the limit allows, on top of those that are open.
fn open_past_limit(targets: &Targets) -> io::Result<()> {
    let opened: Result<Vec<OwnedFd>, Errno> =
        (0..targets.limits.open_files).map(|_| eventfd(0, EventfdFlags::CLOEXEC)).collect();
    Ok(opened.map(drop)?)
}

/// Maps memory without a file and gives it back at once.
#[allow(unsafe_code)]
fn map(bytes: usize, protection: ProtFlags, flags: MapFlags) -> io::Result<()> {
    // SAFETY: the kernel chooses a free address; no reference points into the memory that is
    // unmapped.
    unsafe {
        let memory = rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, protection, flags)?;
        Ok(rustix::mm::munmap(memory, bytes)?)
    }
}
