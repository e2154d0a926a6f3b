//! Waiting for a descriptor.

use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Waits until the descriptor is ready, at most until `deadline`. Gives whether it is.
pub(crate) fn ready_by(
    fd: impl AsFd,
    events: PollFlags,
    deadline: Instant,
) -> rustix::io::Result<bool> {
    let timeout = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
    let mut descriptors = [PollFd::new(&fd, events)];
    Ok(rustix::io::retry_on_intr(|| poll(&mut descriptors, timeout.as_ref()))? > 0)
}
