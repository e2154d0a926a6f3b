//! The life of a reader process: it takes what to read, says how it is confined, and sends what it
//! reads until the end of the input or a fault.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::ingest::{FromIngest, Input, Open};
use ocelli_protocol::process::ingest as descriptor;
use ocelli_protocol::process::inherited;
use ocelli_protocol::rtsp::PICTURE_BUDGET;
use ocelli_protocol::wire;
use ocelli_sandbox::limit;

use crate::network::{Network, allow, received};
use crate::reader::{Item, Reader, Watch};

/// Descriptors of a reader: the inherited ones, the sockets of an RTSP session (one, and two for
/// each video stream over UDP), and one that the host passes.
const OPEN_FILES: u64 = 32;

/// Addresses beside private memory, in bytes: the program and its libraries, and what an allocator
/// reserves.
const OTHER_ADDRESSES: u64 = 4 << 30;

/// Limits the memory of a reader to so many bytes of its own.
pub(crate) fn limit_memory(private: u64) -> anyhow::Result<()> {
    limit::memory(private).context("limiting memory")?;
    limit::address_space(private.saturating_add(OTHER_ADDRESSES)).context("limiting addresses")
}

/// How often a camera that sends something, but no picture, is reported to be alive.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Reads of the network that opening a camera may take: names, connections, and some requests, each
/// perhaps twice.
const OPEN_READS: u32 = 4;

/// The descriptors that a reader inherits.
pub struct Inherited {
    /// Stream socket to the host.
    pub host: OwnedFd,
    /// Packet socket to the host.
    pub network: OwnedFd,
    /// The file.
    pub file: OwnedFd,
}

/// Takes over what the host has passed.
///
/// # Safety
///
/// To be called once, at the start of a process that was given these descriptors.
#[allow(unsafe_code)]
pub unsafe fn inherit() -> Inherited {
    // SAFETY: as the caller promises.
    unsafe {
        Inherited {
            host: inherited(descriptor::HOST),
            network: inherited(descriptor::NETWORK),
            file: inherited(descriptor::FILE),
        }
    }
}

/// Reads what the host asks for. A fault of the input is reported to the host and is no
/// error. `confinement` is what the process has found to be in force.
pub fn run(inherited: Inherited, confinement: Confinement) -> anyhow::Result<()> {
    let Inherited { host, network, file } = inherited;
    let mut requests = wire::Reader::new(UnixStream::from(host));
    let (open, _): (Open, _) = requests.read().context("what to read")?;
    let host = Host(Rc::new(RefCell::new(requests.get_ref().try_clone()?)));
    limit_memory(open.memory)?;
    limit::open_files(OPEN_FILES).context("limiting descriptors")?;
    host.send(&FromIngest::SandboxReport(confinement), &[])?;
    Network::install(network);

    let clock = Rc::new(Clock::new(Duration::from_millis(open.read_timeout_ms.into())));
    let reader = match &open.input {
        Input::Camera { url, udp } => {
            Reader::open_camera(url, *udp, watch_camera(clock.clone(), host.clone()))
        }
        Input::File { ending } => Reader::open_file(file, ending, watch_file(clock.clone())),
    };
    match reader {
        Ok(reader) => send_all(reader, &clock, &host),
        Err(fault) => host.send(&FromIngest::Failed(fault), &[]),
    }
}

fn send_all(mut reader: Reader, clock: &Clock, host: &Host) -> anyhow::Result<()> {
    host.send(&FromIngest::Opened(reader.info().clone()), &[])?;
    loop {
        clock.read_starts();
        allow(PICTURE_BUDGET);
        match reader.next_item() {
            Item::Unit(unit) => host.send(&FromIngest::Unit(unit), reader.data())?,
            Item::Damage(damage) => host.send(&FromIngest::Damage(damage), &[])?,
            Item::Ended => return host.send(&FromIngest::Ended, &[]),
            Item::Failed(fault) => return host.send(&FromIngest::Failed(fault), &[]),
        }
    }
}

/// The stream socket to the host.
#[derive(Clone)]
struct Host(Rc<RefCell<UnixStream>>);

impl Host {
    fn send(&self, message: &FromIngest, payload: &[u8]) -> anyhow::Result<()> {
        wire::write(&mut *self.0.borrow_mut(), message, payload).context("sending to the host")
    }
}

/// The times of what is under way.
struct Clock {
    timeout: Duration,
    /// When the call to the reader began.
    started: Cell<Instant>,
    opened: Cell<bool>,
}

impl Clock {
    fn new(timeout: Duration) -> Self {
        Self { timeout, started: Cell::new(Instant::now()), opened: Cell::new(false) }
    }

    /// The input is open, and a read begins.
    fn read_starts(&self) {
        self.opened.set(true);
        self.started.set(Instant::now());
    }
}

/// A file stops if one picture takes longer than the bound: a demuxer may look through all of a
/// damaged file for one.
fn watch_file(clock: Rc<Clock>) -> Watch {
    Box::new(move || clock.started.get().elapsed() > clock.timeout)
}

/// A camera stops if nothing comes for the bound, or if opening it takes a multiple of that. What
/// comes without a picture is reported.
fn watch_camera(clock: Rc<Clock>, host: Host) -> Watch {
    let mut heard = (received(), Instant::now());
    let mut reported = Instant::now();
    Box::new(move || {
        let (now, bytes) = (Instant::now(), received());
        if bytes != heard.0 {
            heard = (bytes, now);
            let since = reported.max(clock.started.get());
            if clock.opened.get() && now.duration_since(since) >= ALIVE_INTERVAL {
                reported = now;
                if host.send(&FromIngest::Alive, &[]).is_err() {
                    // The host is gone.
                    return true;
                }
            }
        }
        let opening = !clock.opened.get()
            && now.duration_since(clock.started.get()) > clock.timeout * OPEN_READS;
        // The time in which the host does not read is not the camera's.
        let silent_since = heard.1.max(clock.started.get());
        opening || now.duration_since(silent_since) > clock.timeout
    })
}
