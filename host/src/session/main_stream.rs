//! The main stream of a camera whose substream is analysed: what viewers get.
//!
//! It is read while somebody views or clips of its events are recorded, and for a while after. Its
//! pictures get the presentation times of the substream, so that results and pictures have one time.
//! What becomes of it concerns viewers and clips alone: the session goes by the substream.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::handle::SessionShared;
use crate::config::source::Source;
use crate::source::{
    Alignment, PictureFeed, PictureTap, SourceEvent, Sources, StreamTimeline, Subscription,
};
use crate::util::line;

/// How long it is read after the last viewer has left, where no clips are recorded: a page that is
/// loaded anew, or another one, comes within it, and joins without waiting for the camera.
const LINGER: Duration = Duration::from_secs(20);

/// The main stream as `GET /v1/sessions` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct MainStreamStatus {
    pub state: MainStreamState,
    /// Why it is `down`; null otherwise.
    pub reason: Option<String>,
}

/// Whether viewers get pictures of the main stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum MainStreamState {
    /// Nobody views, and there are no clips of its events: it is not read.
    #[default]
    Idle,
    /// It is to be read, and its first picture has not come.
    Connecting,
    /// It delivers.
    Up,
    /// It delivers nothing, and is tried again.
    Down,
}

/// The session's end. Dropping it ends the reading.
pub(super) struct MainStream {
    source: Source,
    pictures: PictureTap,
    /// Pictures of the substream.
    analysed: Arc<Mutex<PictureTap>>,
    _task: AbortOnDropHandle<()>,
}

impl MainStream {
    /// Reads the source while `feed` has viewers, or a recorder of clips.
    pub(super) fn start(
        source: Source,
        sources: Sources,
        shared: Arc<SessionShared>,
        feed: PictureFeed,
    ) -> Self {
        let (pictures, analysed) = (PictureTap::default(), Arc::default());
        let task = MainStreamTask {
            source: source.clone(),
            sources,
            shared,
            pictures: pictures.clone(),
            analysed: Arc::clone(&analysed),
        };
        let task = tokio::spawn(task.run(feed.counts().watch()));
        Self { source, pictures, analysed, _task: AbortOnDropHandle::new(task) }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// Where viewers join.
    pub(super) fn pictures(&self) -> PictureTap {
        self.pictures.clone()
    }

    /// The pictures whose times those of the main stream get.
    pub(super) fn align_with(&self, analysed: PictureTap) {
        *self.analysed.lock() = analysed;
    }
}

struct MainStreamTask {
    source: Source,
    sources: Sources,
    shared: Arc<SessionShared>,
    pictures: PictureTap,
    analysed: Arc<Mutex<PictureTap>>,
}

impl MainStreamTask {
    async fn run(self, mut viewers: watch::Receiver<u64>) {
        loop {
            self.show(MainStreamState::Idle, None);
            if viewers.wait_for(|count| *count > 0).await.is_err() {
                return;
            }
            self.show(MainStreamState::Connecting, None);
            let subscription = self.sources.subscribe(&self.source);
            tokio::select! {
                () = self.deliver(subscription) => {}
                () = deserted(&mut viewers) => {}
            }
            // What was kept for viewers that join is old by the time the next one comes.
            self.pictures.clear();
        }
    }

    async fn deliver(&self, mut subscription: Subscription) {
        let own = subscription.pictures();
        let mut alignment = Alignment::default();
        loop {
            match subscription.next().await {
                SourceEvent::Unit(unit) => {
                    let analysed: StreamTimeline = self.analysed.lock().timeline();
                    self.pictures.unit(&alignment.place(&unit, &own.timeline(), &analysed));
                }
                SourceEvent::Up => self.show(MainStreamState::Up, None),
                SourceEvent::Down(fault) => {
                    self.pictures.clear();
                    let (session, reason) = (&self.shared.spec().id, line::text(&fault.message));
                    tracing::warn!(target: "ocelli::session", session, "main stream down: {reason}");
                    self.shared.note_error(&format!("main stream, for viewers: {reason}"));
                    self.show(MainStreamState::Down, Some(reason));
                }
                // Of files.
                SourceEvent::Damaged(_) | SourceEvent::Ended => {}
            }
        }
    }

    fn show(&self, state: MainStreamState, reason: Option<String>) {
        let status = MainStreamStatus { state, reason };
        self.shared.update(|inner| inner.shown.main_stream = Some(status));
    }
}

/// Returns once there was neither viewer nor recorder of clips for [`LINGER`].
async fn deserted(viewers: &mut watch::Receiver<u64>) {
    loop {
        if viewers.wait_for(|count| *count == 0).await.is_err() {
            return;
        }
        let returned = tokio::time::timeout(LINGER, viewers.wait_for(|count| *count > 0)).await;
        if !matches!(returned, Ok(Ok(_))) {
            return;
        }
    }
}
