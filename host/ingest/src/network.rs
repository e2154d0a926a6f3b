//! What the host does for this process in the network: names, connections and datagrams, asked for
//! over the packet socket.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ocelli_protocol::ingest::{MAX_NETWORK_MESSAGE, NetworkRequest, NetworkResponse};
use ocelli_protocol::wire;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};

/// Requests of one process: some redirects, each with some addresses, and then reports twice a
/// second for weeks. Datagrams do not count.
const MAX_REQUESTS: u64 = 64;

/// Bytes that the library has received from the network.
static RECEIVED: AtomicU64 = AtomicU64::new(0);

/// Counts received bytes: a silent camera has none, one that sends no picture has some.
pub fn count_received(bytes: u64) {
    RECEIVED.fetch_add(bytes, Ordering::Relaxed);
}

/// Bytes that were received so far.
pub(crate) fn received() -> u64 {
    RECEIVED.load(Ordering::Relaxed)
}

/// How far [`RECEIVED`] may come.
static BUDGET: AtomicU64 = AtomicU64::new(u64::MAX);

/// So many further bytes may come from the network. Functions that receive fail beyond it, so that
/// a camera that sends without end is noticed before its bytes fill this process.
pub(crate) fn allow(bytes: u64) {
    BUDGET.store(received().saturating_add(bytes), Ordering::Relaxed);
}

/// Whether more has come than was allowed.
pub fn is_over_budget() -> bool {
    received() > BUDGET.load(Ordering::Relaxed)
}

thread_local! {
    /// Why the last connection came to nothing; `None` if it did not.
    static REFUSAL: RefCell<Option<Refusal>> = const { RefCell::new(None) };
}

/// Why the last connection of this thread came to nothing.
pub(crate) fn last_refusal() -> Option<Refusal> {
    REFUSAL.with(|refusal| refusal.borrow().clone())
}

/// Why a request came to nothing. Says where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The source's rule does not admit it.
    NotAdmitted(String),
    /// An error of the system.
    Failed(String, Errno),
}

impl Refusal {
    /// The error as which libavformat sees it.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotAdmitted(_) => Errno::ACCESS,
            Self::Failed(_, errno) => *errno,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAdmitted(to) => write!(f, "{to}: the host does not admit it"),
            Self::Failed(to, errno) => write!(f, "{to}: {}", io::Error::from(*errno)),
        }
    }
}

/// The packet socket to the host.
#[derive(Debug)]
pub struct Network {
    socket: OwnedFd,
    requests: AtomicU64,
}

static NETWORK: OnceLock<Network> = OnceLock::new();

/// The network of this process. `None` before [`Network::install`].
pub fn network() -> Option<&'static Network> {
    NETWORK.get()
}

impl Network {
    /// Makes the socket the one over which this process reaches the network.
    pub fn install(socket: OwnedFd) {
        // A second one would be a mistake of this program's; the first stays.
        let _ = NETWORK.set(Self { socket, requests: AtomicU64::new(0) });
    }

    /// The addresses of a name.
    pub fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Refusal> {
        let request = NetworkRequest::Resolve { name: name.to_owned() };
        let answer = match self.ask(&request, None) {
            Ok((NetworkResponse::Resolved(addresses), _)) if !addresses.is_empty() => Ok(addresses),
            other => Err(refusal(name.to_owned(), other)),
        };
        remember(answer)
    }

    /// A socket that is connected to `address`.
    pub fn connect(&self, address: SocketAddr) -> Result<OwnedFd, Refusal> {
        let answer = match self.ask(&NetworkRequest::Connect { address }, None) {
            Ok((NetworkResponse::Connected, Some(socket))) => Ok(socket),
            other => Err(refusal(address.to_string(), other)),
        };
        remember(answer)
    }

    /// Binds a UDP socket of this process to the camera's address.
    pub fn bind(&self, socket: BorrowedFd<'_>, address: SocketAddr) -> Result<(), Refusal> {
        match self.ask(&NetworkRequest::Bind { address }, Some(socket)) {
            Ok((NetworkResponse::Bound, _)) => Ok(()),
            other => Err(refusal(address.to_string(), other)),
        }
    }

    /// Sends a datagram from a socket of this process. What becomes of it is no matter for a fault:
    /// the camera sends without it, too.
    pub fn send(
        &self,
        from: BorrowedFd<'_>,
        address: SocketAddr,
        data: &[u8],
    ) -> Result<(), Refusal> {
        let request = NetworkRequest::Send { address, data: data.to_vec() };
        match self.ask(&request, Some(from)) {
            Ok((NetworkResponse::Sent, _)) => Ok(()),
            other => Err(refusal(address.to_string(), other)),
        }
    }

    fn ask(
        &self,
        request: &NetworkRequest,
        with: Option<BorrowedFd<'_>>,
    ) -> Result<(NetworkResponse, Option<OwnedFd>), Errno> {
        let counts = !matches!(request, NetworkRequest::Send { .. });
        if counts && self.requests.fetch_add(1, Ordering::Relaxed) >= MAX_REQUESTS {
            return Err(Errno::LOOP);
        }
        let message = wire::to_bytes(request).map_err(|_| Errno::MSGSIZE)?;
        match with {
            None => send(&self.socket, &message, SendFlags::NOSIGNAL)?,
            Some(descriptor) => {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let descriptors = [descriptor];
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
                let message = [IoSlice::new(&message)];
                sendmsg(&self.socket, &message, &mut control, SendFlags::NOSIGNAL)?
            }
        };
        self.receive()
    }

    fn receive(&self) -> Result<(NetworkResponse, Option<OwnedFd>), Errno> {
        let mut message = [0; MAX_NETWORK_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut message)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let answer = match recvmsg(&self.socket, &mut parts, &mut control, flags) {
                Err(Errno::INTR) => continue,
                answer => answer?,
            };
            let descriptor = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            if answer.bytes == 0 || answer.flags.contains(ReturnFlags::TRUNC) {
                return Err(Errno::PIPE);
            }
            let bytes = message.get(..answer.bytes).unwrap_or_default();
            return Ok((wire::decode(bytes).map_err(|_| Errno::PROTO)?, descriptor));
        }
    }
}

fn refusal(to: String, answer: Result<(NetworkResponse, Option<OwnedFd>), Errno>) -> Refusal {
    match answer {
        Ok((NetworkResponse::NotAdmitted, _)) => Refusal::NotAdmitted(to),
        Ok((NetworkResponse::Failed { error }, _)) => {
            Refusal::Failed(to, Errno::from_raw_os_error(error.clamp(1, 4095)))
        }
        Ok(_) => Refusal::Failed(to, Errno::PROTO),
        Err(errno) => Refusal::Failed(to, errno),
    }
}

fn remember<T>(answer: Result<T, Refusal>) -> Result<T, Refusal> {
    REFUSAL.with(|last| last.replace(answer.as_ref().err().cloned()));
    answer
}
