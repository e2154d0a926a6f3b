//! The cameras that this host owns, on their way from the site to the config.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The cameras of the site that this host runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedCameras {
    /// Grows with each change.
    generation: u64,
    /// The lines of a config for each, by name.
    lines: Arc<BTreeMap<String, Arc<str>>>,
}

impl OwnedCameras {
    /// The cameras as a config has them.
    pub fn text(&self) -> String {
        self.lines.values().flat_map(|lines| [&**lines, "\n"]).collect()
    }
}

/// Gives the cameras to whoever applies configs, and hears of it.
pub(super) struct OwnedSender {
    cameras: watch::Sender<OwnedCameras>,
    applied: watch::Receiver<u64>,
}

/// The end that applies them.
#[derive(Debug, Clone)]
pub struct OwnedFeed {
    cameras: watch::Receiver<OwnedCameras>,
    applied: Arc<watch::Sender<u64>>,
}

/// Both ends.
pub(super) fn channel() -> (OwnedSender, OwnedFeed) {
    let (cameras, receiver) = watch::channel(OwnedCameras::default());
    let (applied, heard) = watch::channel(0);
    let sender = OwnedSender { cameras, applied: heard };
    (sender, OwnedFeed { cameras: receiver, applied: Arc::new(applied) })
}

impl OwnedSender {
    /// Makes these the cameras. Returns the generation of them, for [`applied`](Self::applied).
    pub(super) fn send(&self, lines: BTreeMap<String, Arc<str>>) -> u64 {
        self.cameras.send_if_modified(|cameras| {
            let differs = *cameras.lines != lines;
            if differs {
                let generation = cameras.generation + 1;
                *cameras = OwnedCameras { generation, lines: Arc::new(lines) };
            }
            differs
        });
        self.cameras.borrow().generation
    }

    /// Waits until the cameras of this generation, or of a later one, are in force.
    pub(super) fn applied(&self, generation: u64) -> impl Future<Output = ()> + Send + use<> {
        let mut applied = self.applied.clone();
        async move {
            // Nobody applies any more: the host stops.
            let _ = applied.wait_for(|applied| *applied >= generation).await;
        }
    }
}

impl OwnedFeed {
    /// Of a host that belongs to no site.
    pub fn none() -> Self {
        channel().1
    }

    /// Waits for other cameras. Never returns where there is no site.
    pub async fn changed(&mut self) -> OwnedCameras {
        if self.cameras.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.cameras.borrow_and_update().clone()
    }

    /// These cameras are in force.
    pub fn note_applied(&self, cameras: &OwnedCameras) {
        self.applied.send_replace(cameras.generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_gives_cameras_away_hears_when_they_are_no_longer_run() {
        let (sender, mut feed) = channel();
        let first = sender.send(BTreeMap::from([("a".into(), "[[cameras]]\n".into())]));
        let given = feed.changed().await;
        assert_eq!(given.text(), "[[cameras]]\n\n");
        feed.note_applied(&given);
        sender.applied(first).await;
        assert_eq!(sender.send(BTreeMap::from([("a".into(), "[[cameras]]\n".into())])), first);
        let second = sender.send(BTreeMap::new());
        let applied = tokio::spawn(sender.applied(second));
        assert!(!applied.is_finished());
        feed.note_applied(&feed.clone().changed().await);
        applied.await.unwrap();
    }
}
