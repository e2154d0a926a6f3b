//! The cameras that this host owns, on their way from the site to the config.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The cameras of the site that this host runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedCameras {
    /// Grows with each change.
    generation: u64,
    cameras: Arc<BTreeMap<String, OwnedCamera>>,
}

/// A camera of the site that this host runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnedCamera {
    /// Its lines of a config.
    pub(super) lines: Arc<str>,
    /// Whether subscribers had it made.
    pub(super) made: bool,
}

impl OwnedCameras {
    /// Cameras with these names and lines, and whether subscribers had them made.
    #[cfg(test)]
    pub(crate) fn new(cameras: &[(&str, &str, bool)]) -> Self {
        let camera = |(id, lines, made): &(&str, &str, bool)| {
            ((*id).to_owned(), OwnedCamera { lines: (*lines).into(), made: *made })
        };
        Self { generation: 1, cameras: Arc::new(cameras.iter().map(camera).collect()) }
    }

    /// The cameras as a config has them.
    pub fn text(&self) -> String {
        self.cameras.values().flat_map(|camera| [&*camera.lines, "\n"]).collect()
    }

    /// Whether subscribers had a camera made.
    pub fn is_made(&self, id: &str) -> bool {
        self.cameras.get(id).is_some_and(|camera| camera.made)
    }

    /// The camera that has a line of [`text`](Self::text), counted from 1.
    pub fn camera_at(&self, line: usize) -> Option<&str> {
        let mut end = 0;
        let found = self.cameras.iter().find(|(_, camera)| {
            end += camera.lines.matches('\n').count() + 1;
            line <= end
        });
        found.map(|(camera, _)| camera.as_str())
    }

    /// These without some.
    pub fn without<T>(&self, gone: &BTreeMap<String, T>) -> Self {
        let mut cameras = (*self.cameras).clone();
        cameras.retain(|camera, _| !gone.contains_key(camera));
        Self { generation: self.generation, cameras: Arc::new(cameras) }
    }
}

/// Gives the cameras to whoever applies configs, and hears of it.
pub(super) struct OwnedSender {
    cameras: watch::Sender<OwnedCameras>,
    applied: watch::Receiver<AppliedCameras>,
}

/// What has become of the cameras.
#[derive(Debug, Default)]
struct AppliedCameras {
    generation: u64,
    /// Why some do not go with this host's config, by name.
    unfit: BTreeMap<String, String>,
}

/// The end that applies them.
#[derive(Debug, Clone)]
pub struct OwnedFeed {
    cameras: watch::Receiver<OwnedCameras>,
    applied: Arc<watch::Sender<AppliedCameras>>,
}

/// Both ends.
pub(super) fn channel() -> (OwnedSender, OwnedFeed) {
    let (cameras, receiver) = watch::channel(OwnedCameras::default());
    let (applied, heard) = watch::channel(AppliedCameras::default());
    let sender = OwnedSender { cameras, applied: heard };
    (sender, OwnedFeed { cameras: receiver, applied: Arc::new(applied) })
}

impl OwnedSender {
    /// Makes these the cameras. Returns the generation of them, for [`applied`](Self::applied).
    pub(super) fn send(&self, owned: BTreeMap<String, OwnedCamera>) -> u64 {
        self.cameras.send_if_modified(|before| {
            let differs = *before.cameras != owned;
            if differs {
                let generation = before.generation + 1;
                *before = OwnedCameras { generation, cameras: Arc::new(owned) };
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
            let _ = applied.wait_for(|applied| applied.generation >= generation).await;
        }
    }

    /// Why cameras do not run that do not go with this host's config, by name.
    pub(super) fn unfit(&self) -> UnfitCameras {
        UnfitCameras(self.applied.clone())
    }
}

/// See [`OwnedSender::unfit`].
pub(super) struct UnfitCameras(watch::Receiver<AppliedCameras>);

impl UnfitCameras {
    pub(super) fn now(&self) -> BTreeMap<String, String> {
        self.0.borrow().unfit.clone()
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

    /// These cameras are in force, but for those that do not go with this host's config.
    pub fn note_applied(&self, cameras: &OwnedCameras, unfit: BTreeMap<String, String>) {
        self.applied.send_replace(AppliedCameras { generation: cameras.generation, unfit });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_gives_cameras_away_hears_when_they_are_no_longer_run() {
        let (sender, mut feed) = channel();
        let owned = |made| {
            BTreeMap::from([("a".into(), OwnedCamera { lines: "[[cameras]]\n".into(), made })])
        };
        let first = sender.send(owned(false));
        let given = feed.changed().await;
        assert_eq!(given.text(), "[[cameras]]\n\n");
        assert!(!given.is_made("a"));
        feed.note_applied(&given, BTreeMap::new());
        sender.applied(first).await;
        assert_eq!(sender.send(owned(false)), first);
        assert!(sender.send(owned(true)) > first);
        assert!(feed.clone().changed().await.is_made("a"));
        let second = sender.send(BTreeMap::new());
        let applied = tokio::spawn(sender.applied(second));
        assert!(!applied.is_finished());
        feed.note_applied(&feed.clone().changed().await, BTreeMap::new());
        applied.await.unwrap();
    }

    #[test]
    fn each_line_is_a_cameras() {
        let lines = [("a", "[[cameras]]\nid = 1\n"), ("b", "x"), ("c", "y\n")];
        let cameras = OwnedCameras::new(&lines.map(|(id, lines)| (id, lines, false)));
        assert_eq!(cameras.text(), "[[cameras]]\nid = 1\n\nx\ny\n\n");
        let found: Vec<_> = (1..8).map(|line| cameras.camera_at(line)).collect();
        let (a, b, c) = (Some("a"), Some("b"), Some("c"));
        assert_eq!(found, [a, a, a, b, c, c, None]);
        assert_eq!(cameras.without(&BTreeMap::from([("a".into(), ())])).text(), "x\ny\n\n");
    }
}
