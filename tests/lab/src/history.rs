//! What has happened, as the checker reads it: what hosts say that they did, and what a reader saw
//! that is none of them. Times are nanoseconds of CLOCK_BOOTTIME, which all processes of a machine
//! have in common.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A time of CLOCK_BOOTTIME, in nanoseconds.
pub(crate) type Nanos = u64;

/// The number of a camera of the lab.
pub(crate) type Camera = u16;

/// Whether a camera speaks several times as often as the others: by one in ten, all over the hosts,
/// short silences are seen at a tenth of the cost.
pub(crate) fn speaks_often(camera: Camera) -> bool {
    camera.is_multiple_of(10)
}

/// How many times.
pub(crate) const OFTEN: u32 = 5;

/// The number of a host of the lab.
pub(crate) type Host = u16;

/// Now.
pub(crate) fn now() -> Nanos {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// From one time to a later one; nothing where it is none.
pub(crate) fn since(earlier: Nanos, later: Nanos) -> Duration {
    Duration::from_nanos(later.saturating_sub(earlier))
}

/// A live message that a reader got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) camera: Camera,
    pub(crate) epoch: u64,
    pub(crate) host: Host,
    pub(crate) sent: Nanos,
    pub(crate) received: Nanos,
}

/// An event as the engine keeps it, in the order in which it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) camera: Camera,
    pub(crate) seq: u64,
    pub(crate) epoch: u64,
    pub(crate) host: Host,
    /// Which event it is: the host's own name of it, or [`TAKEOVER`].
    pub(crate) id: Box<str>,
}

/// The id of the event by which a host begins to speak for a camera.
pub(crate) const TAKEOVER: &str = "takeover";

/// An event that a host may tell, since the engine has acknowledged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acked {
    pub(crate) camera: Camera,
    pub(crate) epoch: u64,
    pub(crate) host: Host,
    pub(crate) seq: u64,
    pub(crate) id: Box<str>,
    /// When it happened.
    pub(crate) made: Nanos,
    /// When it was acknowledged.
    pub(crate) at: Nanos,
}

/// When a host has spoken for a camera under an epoch, by its own account: also what no reader could
/// get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Voice {
    pub(crate) camera: Camera,
    pub(crate) epoch: u64,
    pub(crate) host: Host,
    pub(crate) first: Nanos,
    pub(crate) last: Nanos,
}

/// An event that a subscriber at another host got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Followed {
    /// Which follower: each life of its host begins anew.
    pub(crate) life: usize,
    pub(crate) camera: Camera,
    pub(crate) seq: u64,
}

/// All of it, since a moment at which nothing was wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) heard: Vec<Heard>,
    pub(crate) stored: Vec<Stored>,
    pub(crate) acked: Vec<Acked>,
    pub(crate) voices: Vec<Voice>,
    pub(crate) followed: Vec<Followed>,
}
