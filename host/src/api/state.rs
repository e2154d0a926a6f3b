//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Caller;
use super::control::Control;
use super::documents::Documents;
use super::gate::Gate;
use super::limits::Entered;
use super::problem::Problem;
use super::site::{OwnToken, SiteLink};
use super::websocket::CompressedMessages;
use crate::event::Hub;

#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Interval of pings to a WebSocket.
    pub ping: Duration,
    /// A client that sends nothing for this long, no pong either, is gone.
    pub silence: Duration,
    /// A client that takes no byte of a message for this long does not read.
    pub send: Duration,
    /// Limit from the first byte of a client's message to its last.
    pub message: Duration,
    /// Limit for the last message, the closing handshake, and requests under way when the host
    /// stops.
    pub farewell: Duration,
}

impl Default for Timing {
    /// Three pings within the silence: one may be lost in a change of networks, and proxies that
    /// close a connection idle for a minute see traffic.
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(15),
            silence: Duration::from_secs(45),
            send: Duration::from_secs(20),
            message: Duration::from_secs(30),
            farewell: Duration::from_secs(2),
        }
    }
}

const STOPPING: &str = "the host is stopping";

/// The state that all requests share.
pub(super) struct ApiState<C> {
    pub(super) control: C,
    pub(super) gate: Arc<Gate>,
    pub(super) hub: Hub,
    /// The site that the host belongs to. `None`: it stands alone.
    pub(super) site: Option<Arc<SiteLink>>,
    pub(super) timing: Timing,
    /// Whether the cameras have been started.
    pub(super) ready: Arc<AtomicBool>,
    pub(super) stop: CancellationToken,
    /// Permits for WebSockets and streams.
    pub(super) sockets: Arc<Semaphore>,
    pub(super) squeezed: CompressedMessages,
    /// Permits for uploads of components.
    pub(super) uploads: Semaphore,
    /// Held while a token is revoked: two at once could each count on the other's admin.
    pub(super) revoking: tokio::sync::Mutex<()>,
    /// The permit for a search for cameras.
    pub(super) searches: Semaphore,
    /// Queries and commands over HTTP that wait, by caller.
    pub(super) asked: Entered,
    pub(super) documents: Documents,
    /// Permits for clients of `mjpeg`.
    pub(super) displays: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
}

impl<C: Control> ApiState<C> {
    /// Whether there is a session of this name, here or on another host of the site.
    pub(super) fn knows(&self, session: &str) -> bool {
        self.site.as_ref().is_some_and(|site| site.knows(session))
            || self.control.session(session).is_some()
    }
}

impl<C> ApiState<C> {
    /// What a login keeps of its token: itself where requests go on to other hosts of a site, which
    /// know nothing of logins here.
    pub(super) fn kept(&self, token: &str) -> OwnToken {
        OwnToken(self.site.as_ref().map(|_| token.into()))
    }

    /// An error once the host stops.
    pub(super) fn check_running(&self) -> Result<(), Problem> {
        if self.stop.is_cancelled() {
            return Err(Problem::unavailable("shutting_down", STOPPING));
        }
        Ok(())
    }

    /// Takes one of the permits for WebSockets and streams.
    pub(super) fn reserve_socket(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.check_running()?;
        Arc::clone(&self.sockets).try_acquire_owned().map_err(|_| {
            let detail = "as many WebSockets and streams are open as this host serves";
            Problem::unavailable("too_many_subscribers", detail)
        })
    }

    /// Waits for a reason of the host's own to end a subscriber's connection: its code and text.
    pub(super) async fn ended(&self, caller: &Caller) -> (&'static str, &'static str) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => ("shutting_down", STOPPING),
            () = caller.revoked.cancelled() => ("token_revoked", "the token is valid no more"),
        }
    }

    /// Counts a subscriber that took no byte for [`Timing::send`], and gives the text for it.
    pub(super) fn note_untaken(&self) -> String {
        self.hub.note_untaken();
        format!("no message was taken for {} s", self.timing.send.as_secs_f32())
    }
}
