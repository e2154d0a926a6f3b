//! One deployment at a time for each session: the others wait in the order in which they came.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::request::{DeployError, MAX_WAITING};
use crate::session::rollout::Step;

/// The sessions' queues. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct DeployQueue {
    lanes: Arc<Mutex<BTreeMap<String, SessionQueue>>>,
}

#[derive(Debug, Default)]
struct SessionQueue {
    /// Those that wait, and the one under way.
    places: usize,
    /// Closes when the last place that was given is free again.
    last: Option<oneshot::Receiver<()>>,
    under_way: Option<(u64, Step)>,
}

/// A place in a session's queue. Free again when it is dropped, and that only after its turn has
/// come.
#[derive(Debug)]
pub(super) struct Turn {
    session: String,
    lanes: DeployQueue,
    before: Option<oneshot::Receiver<()>>,
    _free: oneshot::Sender<()>,
}

impl DeployQueue {
    /// Takes a place; or says what is under way where no more may wait.
    pub(super) fn enqueue(&self, session: &str) -> Result<Turn, DeployError> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(session.to_owned()).or_default();
        if lane.places > MAX_WAITING {
            // The first has no number before its component is read.
            let (number, step) = lane.under_way.unwrap_or((0, Step::Check));
            return Err(DeployError::UnderWay { session: session.to_owned(), number, step });
        }
        let (free, freed) = oneshot::channel();
        lane.places += 1;
        let before = lane.last.replace(freed);
        Ok(Turn { session: session.to_owned(), lanes: self.clone(), before, _free: free })
    }
}

impl Turn {
    /// Waits for the turn.
    pub(super) async fn wait(&mut self) {
        if let Some(before) = self.before.take() {
            // Nothing is ever sent: it closes.
            let _ = before.await;
        }
    }

    /// Tells how far the deployment under way is.
    pub(super) fn set_progress(&self, number: u64, step: Step) {
        if let Some(lane) = self.lanes.lanes.lock().get_mut(&self.session) {
            lane.under_way = Some((number, step));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lanes.lock();
        let Some(lane) = lanes.get_mut(&self.session) else { return };
        lane.places = lane.places.saturating_sub(1);
        lane.under_way = None;
        if lane.places == 0 {
            lanes.remove(&self.session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_come_in_order_and_only_so_many_wait() {
        let lanes = DeployQueue::default();
        let mut first = lanes.enqueue("cam").unwrap();
        first.wait().await;
        first.set_progress(7, Step::Shadow);
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        let waiting: Vec<_> = (0..MAX_WAITING).map(|_| lanes.enqueue("cam").unwrap()).collect();
        let refused = lanes.enqueue("cam").unwrap_err();
        assert!(
            matches!(refused, DeployError::UnderWay { number: 7, step: Step::Shadow, .. }),
            "{refused}"
        );
        assert!(lanes.enqueue("other").is_ok(), "a session has nothing to do with another");
        // The last to wait is polled first.
        for (number, mut place) in waiting.into_iter().enumerate().rev() {
            let told = told.clone();
            tokio::spawn(async move {
                place.wait().await;
                told.send(number).unwrap();
            });
        }
        drop((first, told));
        for number in 0..MAX_WAITING {
            assert_eq!(order.recv().await, Some(number));
        }
        assert_eq!(order.recv().await, None);
        assert!(lanes.lanes.lock().is_empty());
    }
}
