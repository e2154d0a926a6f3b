//! A queue that spreads events over frames.
//!
//! The host ends an instance whose frame has more events than its limit (`events_per_frame`, 100
//! unless configured), and they come in bursts: when a stream resumes after an outage, all tracks
//! end at once, in their zones too. So a pipeline puts events into the queue and takes a portion
//! with each frame. The [snapshot](crate::Pipeline::snapshot) has what waits.
//!
//! ```
//! use ocelli_sdk::events::{EVENTS_PER_FRAME, EventQueue};
//!
//! let mut queue = EventQueue::default();
//! queue.extend(0..100);
//! assert_eq!(queue.take().len(), EVENTS_PER_FRAME);
//! assert_eq!(queue.take().len(), 100 - EVENTS_PER_FRAME);
//! ```

use std::collections::VecDeque;

/// Events of one frame: the host's usual limit leaves room for others.
pub const EVENTS_PER_FRAME: usize = 64;

/// Events that wait for the next frames. More than that are returned at once: no camera shows as
/// much, and if one does, the host's limit reports it.
pub const MAX_PENDING: usize = 2048;

/// Events that no output has reported yet, in order.
#[derive(Debug, Clone)]
pub struct EventQueue<T>(VecDeque<T>);

impl<T> Default for EventQueue<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> EventQueue<T> {
    /// Goes on with what waited in another instance's queue.
    ///
    /// # Errors
    /// More than [`MAX_PENDING`]: no queue holds as many between two frames.
    pub fn resume(events: Vec<T>) -> Result<Self, String> {
        let count = events.len();
        if count > MAX_PENDING {
            return Err(format!("{count} pending events are more than {MAX_PENDING}"));
        }
        Ok(Self(events.into()))
    }

    /// Adds events behind those that wait.
    pub fn extend(&mut self, events: impl IntoIterator<Item = T>) {
        self.0.extend(events);
    }

    /// Takes the events of one frame, the oldest first.
    pub fn take(&mut self) -> Vec<T> {
        let count = EVENTS_PER_FRAME.max(self.0.len().saturating_sub(MAX_PENDING));
        self.0.drain(..count.min(self.0.len())).collect()
    }

    /// What waits, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.0.iter()
    }

    /// How many more events the queue holds. Whoever has to report two things of an object, that it
    /// came and that it went, begins with it where there is room for both.
    #[must_use]
    pub fn room(&self) -> usize {
        MAX_PENDING.saturating_sub(self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_and_in_portions() {
        let mut queue = EventQueue::default();
        queue.extend(0..150);
        let portions: Vec<Vec<i32>> = std::iter::repeat_with(|| queue.take()).take(4).collect();
        assert_eq!(portions.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 22, 0]);
        assert_eq!(portions.concat(), (0..150).collect::<Vec<_>>());
    }

    #[test]
    fn more_than_may_wait_come_at_once() {
        let mut queue = EventQueue::default();
        queue.extend(0..MAX_PENDING + 100);
        assert_eq!(queue.room(), 0);
        assert_eq!(queue.take().len(), 100);
        assert_eq!(queue.iter().len(), MAX_PENDING);
        assert_eq!(queue.take().len(), EVENTS_PER_FRAME);
        assert_eq!(queue.room(), EVENTS_PER_FRAME);
    }

    #[test]
    fn a_queue_goes_on_from_another_that_can_have_been_one() {
        let mut queue = EventQueue::resume(vec![1, 2]).unwrap();
        queue.extend([3]);
        assert_eq!(queue.take(), [1, 2, 3]);
        assert!(EventQueue::resume(vec![0; MAX_PENDING]).is_ok());
        assert!(
            EventQueue::resume(vec![0; MAX_PENDING + 1]).is_err_and(|e| e.contains("2049 pending"))
        );
    }
}
