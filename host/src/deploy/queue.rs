//! One deployment at a time for each session; the others wait in their order.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::request::{DeployError, MAX_WAITING};
use crate::session::rollout::Step;

/// The sessions' queues. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct DeployQueue {
    sessions: Arc<Mutex<BTreeMap<String, SessionQueue>>>,
}

#[derive(Debug, Default)]
struct SessionQueue {
    /// The deployments that wait, and the one under way.
    length: usize,
    /// Closes when the newest turn is over.
    last: Option<oneshot::Receiver<()>>,
    under_way: Option<(u64, Step)>,
}

/// A place in a session's queue. Its turn is over when it is dropped, which is after its turn has
/// come.
#[derive(Debug)]
pub(super) struct Turn {
    session: String,
    queue: DeployQueue,
    before: Option<oneshot::Receiver<()>>,
    _free: oneshot::Sender<()>,
}

impl DeployQueue {
    /// Joins a session's queue. An error with the deployment under way if the queue is full.
    pub(super) fn enqueue(&self, session: &str) -> Result<Turn, DeployError> {
        let mut sessions = self.sessions.lock();
        let queue = sessions.entry(session.to_owned()).or_default();
        if queue.length > MAX_WAITING {
            // The deployment has no number before its component is read.
            let (number, step) = queue.under_way.unwrap_or((0, Step::Check));
            return Err(DeployError::UnderWay { session: session.to_owned(), number, step });
        }
        let (free, freed) = oneshot::channel();
        queue.length += 1;
        let before = queue.last.replace(freed);
        Ok(Turn { session: session.to_owned(), queue: self.clone(), before, _free: free })
    }
}

impl Turn {
    /// Waits until every earlier turn is over.
    pub(super) async fn wait(&mut self) {
        if let Some(before) = self.before.take() {
            // Nothing is sent: it closes.
            let _ = before.await;
        }
    }

    /// Notes the step of the deployment under way.
    pub(super) fn set_progress(&self, number: u64, step: Step) {
        if let Some(queue) = self.queue.sessions.lock().get_mut(&self.session) {
            queue.under_way = Some((number, step));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut sessions = self.queue.sessions.lock();
        let Some(queue) = sessions.get_mut(&self.session) else { return };
        queue.length = queue.length.saturating_sub(1);
        queue.under_way = None;
        if queue.length == 0 {
            sessions.remove(&self.session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_come_in_order_and_only_so_many_wait() {
        let queue = DeployQueue::default();
        let mut first = queue.enqueue("cam").unwrap();
        first.wait().await;
        first.set_progress(7, Step::Shadow);
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        let waiting: Vec<_> = (0..MAX_WAITING).map(|_| queue.enqueue("cam").unwrap()).collect();
        let refused = queue.enqueue("cam").unwrap_err();
        assert!(
            matches!(refused, DeployError::UnderWay { number: 7, step: Step::Shadow, .. }),
            "{refused}"
        );
        assert!(queue.enqueue("other").is_ok(), "a session has nothing to do with another");
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
        assert!(queue.sessions.lock().is_empty());
    }
}
