//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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

/// The state that all requests share.
pub(super) struct ApiState<C> {
    pub(super) control: C,
    pub(super) hub: Hub,
    pub(super) timing: Timing,
    pub(super) ready: Arc<AtomicBool>,
    pub(super) stop: CancellationToken,
    /// Permits for WebSockets and streams.
    pub(super) sockets: Arc<Semaphore>,
    pub(super) squeezed: CompressedMessages,
    /// Permits for uploads of components.
    pub(super) uploads: Semaphore,
    pub(super) tasks: TaskTracker,
}
