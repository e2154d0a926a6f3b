//! The C library's functions that reach the network, in this program's own version: libavformat and
//! Rust's library call these, because the linker finds a program's symbols before those of
//! libraries. So is the one source of random numbers that wants a file.
//!
//! What comes is counted, and ends where the budget does ([`is_over_budget`]).
//!
//! Nothing depends on that for safety: the system calls behind the C library's own are not allowed
//! in this process. Before a network is installed ([`ocelli_ingest::network`]) these functions make
//! just those system calls.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::null_mut;

use libc::{addrinfo, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t, ssize_t};
use ocelli_ingest::network::{Network, Refusal, count_received, is_over_budget, network};
use ocelli_protocol::ingest::{MAX_ADDRESSES, MAX_DATAGRAM};
use ocelli_protocol::process::ingest;
use rustix::io::Errno;

/// As `connect(2)`: the host connects, and its socket takes the number of this one.
///
/// # Safety
///
/// As the C library's: `address` points to `length` bytes.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn connect(fd: RawFd, address: *const sockaddr, length: socklen_t) -> c_int {
    let Some(network) = network() else {
        // SAFETY: the caller's arguments, unchanged.
        return unsafe { libc::syscall(libc::SYS_connect, fd, address, length) } as c_int;
    };
    // SAFETY: the caller promises what `address` points to.
    let connected = unsafe { read_address(address, length) }
        .ok_or(Errno::AFNOSUPPORT)
        .and_then(|address| connect_through(network, fd, address));
    status(connected)
}

#[allow(unsafe_code)]
fn connect_through(network: &Network, fd: RawFd, address: SocketAddr) -> Result<(), Errno> {
    // SAFETY: the library passes a socket that it has open.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    if rustix::net::sockopt::socket_type(socket)? != rustix::net::SocketType::STREAM {
        return network.bind(socket, address).map_err(|refusal| refusal.errno());
    }
    let flags = rustix::fs::fcntl_getfl(socket)?;
    let connected = network.connect(address).map_err(|refusal| refusal.errno())?;
    rustix::fs::fcntl_setfl(&connected, flags)?;
    // SAFETY: `fd` is open, and what it was is closed by this.
    match unsafe { libc::dup3(connected.as_raw_fd(), fd, libc::O_CLOEXEC) } {
        0.. => Ok(()),
        _ => Err(last_error()),
    }
}

/// As `sendto(2)`: the host sends a datagram that has an address.
///
/// # Safety
///
/// As the C library's: `data` points to `size` bytes, `address` to `length`.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn sendto(
    fd: RawFd,
    data: *const c_void,
    size: usize,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> ssize_t {
    let network = match network() {
        Some(network) if !address.is_null() => network,
        _ => {
            // SAFETY: the caller's arguments, unchanged.
            let sent =
                unsafe { libc::syscall(libc::SYS_sendto, fd, data, size, flags, address, length) };
            return sent as ssize_t;
        }
    };
    if data.is_null() || size > MAX_DATAGRAM {
        return status(Err(Errno::MSGSIZE)) as ssize_t;
    }
    // SAFETY: the caller promises `size` bytes at `data`, `length` at `address`, and a socket that
    // it has open.
    let (data, address, socket) = unsafe {
        (
            std::slice::from_raw_parts(data.cast::<u8>(), size),
            read_address(address, length),
            BorrowedFd::borrow_raw(fd),
        )
    };
    let sent = address.ok_or(Errno::AFNOSUPPORT).and_then(|address| {
        network.send(socket, address, data).map_err(|refusal: Refusal| refusal.errno())
    });
    match status(sent) {
        0 => size as ssize_t,
        failed => failed as ssize_t,
    }
}

/// As `recv(2)`, and counts what comes.
///
/// # Safety
///
/// As the C library's: `buffer` has room for `size` bytes.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn recv(fd: RawFd, buffer: *mut c_void, size: usize, flags: c_int) -> ssize_t {
    // SAFETY: the caller's arguments; no address is asked for.
    unsafe { recvfrom(fd, buffer, size, flags, null_mut(), null_mut()) }
}

/// As `recvfrom(2)`, and counts what comes.
///
/// # Safety
///
/// As the C library's: `buffer` has room for `size` bytes, `address` for `*length`.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn recvfrom(
    fd: RawFd,
    buffer: *mut c_void,
    size: usize,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    counted(fd, || {
        // SAFETY: the caller's arguments, unchanged.
        unsafe { libc::syscall(libc::SYS_recvfrom, fd, buffer, size, flags, address, length) }
    })
}

/// As `readv(2)`, and counts what comes.
///
/// # Safety
///
/// As the C library's: `parts` points to `count` buffers.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn readv(fd: RawFd, parts: *const libc::iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's arguments, unchanged.
    counted(fd, || unsafe { libc::syscall(libc::SYS_readv, fd, parts, count) })
}

/// As `recvmsg(2)`, and counts what comes.
///
/// # Safety
///
/// As the C library's: `message` is valid.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn recvmsg(fd: RawFd, message: *mut libc::msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's arguments, unchanged.
    counted(fd, || unsafe { libc::syscall(libc::SYS_recvmsg, fd, message, flags) })
}

/// Receives from a socket of the library's while the budget lasts. The host's are not counted.
fn counted(fd: RawFd, receive: impl FnOnce() -> c_long) -> ssize_t {
    if fd <= ingest::FILE {
        return receive() as ssize_t;
    }
    if is_over_budget() {
        return status(Err(Errno::MSGSIZE)) as ssize_t;
    }
    let received = receive();
    count_received(u64::try_from(received).unwrap_or_default());
    received as ssize_t
}

/// As `getaddrinfo(3)`, without files and sockets: an address is read here, a name by the host.
///
/// # Safety
///
/// As the C library's: texts end with a zero, `hints` is null or valid, `list` can be written.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    list: *mut *mut addrinfo,
) -> c_int {
    let text = |text: *const c_char| match text.is_null() {
        true => Some(""),
        // SAFETY: the caller promises null or a text.
        false => unsafe { CStr::from_ptr(text) }.to_str().ok(),
    };
    let (Some(node), Some(service)) = (text(node), text(service)) else {
        return libc::EAI_NONAME;
    };
    let Ok(port) = (if service.is_empty() { Ok(0) } else { service.parse::<u16>() }) else {
        return libc::EAI_SERVICE;
    };
    // SAFETY: null or valid, promises the caller.
    let hints = unsafe { hints.as_ref() };
    let hint = |get: fn(&addrinfo) -> c_int| hints.map_or(0, get);
    let (family, kind, flags) =
        (hint(|h| h.ai_family), hint(|h| h.ai_socktype), hint(|h| h.ai_flags));
    let addresses = match addresses(node, flags) {
        Ok(addresses) => addresses,
        Err(error) => return error,
    };
    let wanted = addresses.into_iter().filter(|address| match family {
        libc::AF_INET => address.is_ipv4(),
        libc::AF_INET6 => address.is_ipv6(),
        _ => true,
    });
    let mut first = null_mut();
    let wanted: Vec<_> = wanted.take(MAX_ADDRESSES).collect();
    for address in wanted.into_iter().rev() {
        first = entry(SocketAddr::new(address, port), kind, first);
    }
    if first.is_null() {
        return libc::EAI_NONAME;
    }
    // SAFETY: it can be written, promises the caller.
    unsafe { *list = first };
    0
}

/// The addresses of a node, or an error of `getaddrinfo`.
fn addresses(node: &str, flags: c_int) -> Result<Vec<IpAddr>, c_int> {
    if node.is_empty() {
        return Ok(match flags & libc::AI_PASSIVE {
            0 => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            _ => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        });
    }
    if let Ok(address) = node.parse() {
        return Ok(vec![address]);
    }
    match network() {
        Some(network) if flags & libc::AI_NUMERICHOST == 0 => {
            network.resolve(node).map_err(|_| libc::EAI_NONAME)
        }
        _ => Err(libc::EAI_NONAME),
    }
}

/// As libavutil's function, which reads `/dev/urandom`, or else counts clock ticks for a tenth of a
/// second: the nonces of digest authentication, and ports.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn av_get_random_seed() -> u32 {
    let mut bytes = [0; 4];
    // SAFETY: the buffer has room for so many bytes. The call cannot fail for as few as these.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    u32::from_ne_bytes(bytes)
}

/// An entry of a list as `getaddrinfo` gives it, with the address behind it.
#[repr(C)]
struct Entry {
    info: addrinfo,
    address: sockaddr_storage,
}

/// A new entry before `next`, which may be null.
#[allow(unsafe_code)]
fn entry(address: SocketAddr, kind: c_int, next: *mut addrinfo) -> *mut addrinfo {
    // SAFETY: structures of numbers and pointers, of which all zeros is a value.
    let (info, storage) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let entry = Box::leak(Box::new(Entry { info, address: storage }));
    let (family, length) = write_address(address, &mut entry.address);
    entry.info.ai_family = family;
    entry.info.ai_socktype = kind;
    entry.info.ai_addrlen = length;
    entry.info.ai_addr = (&raw mut entry.address).cast();
    entry.info.ai_next = next;
    (&raw mut *entry).cast()
}

/// As `freeaddrinfo(3)`, for lists of [`getaddrinfo`].
///
/// # Safety
///
/// As the C library's: null, or a list that nothing uses any more.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn freeaddrinfo(mut list: *mut addrinfo) {
    while !list.is_null() {
        // SAFETY: each entry was made by `entry`, from a box, and begins with its `addrinfo`.
        let entry = unsafe { Box::from_raw(list.cast::<Entry>()) };
        list = entry.info.ai_next;
    }
}

/// Writes an address as C has it. Gives its family and length.
#[allow(unsafe_code)]
fn write_address(address: SocketAddr, storage: &mut sockaddr_storage) -> (c_int, socklen_t) {
    let to: *mut sockaddr_storage = storage;
    match address {
        SocketAddr::V4(v4) => {
            let value = sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is larger than any address, and aligned for each.
            unsafe { to.cast::<sockaddr_in>().write(value) };
            (libc::AF_INET, size_of::<sockaddr_in>() as socklen_t)
        }
        SocketAddr::V6(v6) => {
            let value = sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { to.cast::<sockaddr_in6>().write(value) };
            (libc::AF_INET6, size_of::<sockaddr_in6>() as socklen_t)
        }
    }
}

/// Reads an address as C has it. `None` for other families than IPv4 and IPv6.
///
/// # Safety
///
/// `address` is null or points to `length` bytes.
#[allow(unsafe_code)]
unsafe fn read_address(address: *const sockaddr, length: socklen_t) -> Option<SocketAddr> {
    let length = length as usize;
    if address.is_null() || length < size_of::<libc::sa_family_t>() {
        return None;
    }
    // SAFETY: so many bytes are there, says the caller, of which the first two are the family.
    // They need not be aligned.
    unsafe {
        match c_int::from(address.cast::<libc::sa_family_t>().read_unaligned()) {
            libc::AF_INET if length >= size_of::<sockaddr_in>() => {
                let v4 = address.cast::<sockaddr_in>().read_unaligned();
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some((ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 if length >= size_of::<sockaddr_in6>() => {
                let v6 = address.cast::<sockaddr_in6>().read_unaligned();
                let (ip, port) = (Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port));
                Some(
                    std::net::SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id)
                        .into(),
                )
            }
            _ => None,
        }
    }
}

/// What a C function returns, with `errno` set.
#[allow(unsafe_code)]
fn status(done: Result<(), Errno>) -> c_int {
    match done {
        Ok(()) => 0,
        Err(error) => {
            // SAFETY: the thread's own `errno`.
            unsafe { *libc::__errno_location() = error.raw_os_error() };
            -1
        }
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
