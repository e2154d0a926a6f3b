//! Tells the host at a steady interval that the process is alive, whatever pipeline and intake do
//! meanwhile.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use ocelli_protocol::worker::FromWorker;

use crate::counters::SharedCounters;
use crate::host_link::HostLink;

/// Stack of the thread, in bytes: it encodes one small message. The 2 MiB that threads have by
/// default would count against the process's private memory.
const STACK: usize = 128 << 10;

/// A thread that sends [`FromWorker::Heartbeat`]. It ends when this is dropped, after the message
/// that it may be sending.
///
/// It takes three locks, the link's and within it those of the counters, each held by others for a
/// moment.
/// The link is held longer only by a thread that writes to a full socket, and then the host is the
/// one that does not listen.
pub struct Heartbeat {
    _stop: Sender<()>,
}

impl Heartbeat {
    /// Starts the thread; the first message comes after one `interval`.
    pub fn start(
        host: HostLink,
        counters: Arc<SharedCounters>,
        interval: Duration,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        std::thread::Builder::new().name("heartbeat".into()).stack_size(STACK).spawn(
            move || {
                while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                    host.send_atomically(|| FromWorker::Heartbeat {
                        counters: counters.snapshot(),
                        guest_memory: counters.guest_memory(),
                        damage: counters.damage(),
                    });
                }
            },
        )?;
        Ok(Self { _stop: stop })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::limit::Limit;
    use ocelli_protocol::wire::{Reader, WireError};
    use std::os::unix::net::UnixStream;

    const INTERVAL: Duration = Duration::from_millis(2);

    #[test]
    fn it_beats_with_the_latest_totals_until_it_is_dropped() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let shared = Arc::new(SharedCounters::default());
        let heartbeat =
            Heartbeat::start(HostLink::from_stream(ours), Arc::clone(&shared), INTERVAL).unwrap();
        let mut reader = Reader::new(theirs);
        let mut next = || reader.read::<FromWorker>().map(|(message, _)| message);
        let FromWorker::Heartbeat { counters, guest_memory, damage: None } = next().unwrap() else {
            panic!("another message")
        };
        assert_eq!((counters.limits.of(Limit::Memory), guest_memory), (0, 0));

        shared.count_limit(Limit::Memory);
        shared.set_guest_memory(7 << 20);
        shared.set_damage(Some("no picture"));
        let has_totals = |message| {
            matches!(message, FromWorker::Heartbeat { counters, guest_memory, damage: Some(words) }
                if counters.limits.of(Limit::Memory) == 1 && guest_memory == 7 << 20
                    && words == "no picture")
        };
        while !has_totals(next().unwrap()) {}

        drop(heartbeat);
        let end = loop {
            if let Err(end) = next() {
                break end;
            }
        };
        assert!(matches!(end, WireError::Closed), "{end}");
    }
}
