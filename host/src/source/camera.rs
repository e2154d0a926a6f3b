//! Reads one camera in a loop: a session up to its fault, a wait, the next session.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use super::SourceSettings;
use super::delivery::Delivery;
use super::fanout::Fanout;
use super::retry::ReconnectBackoff;
use super::rtsp::StrictReader;
use crate::config::source::RtspSource;

/// Reads the camera until the task is dropped.
pub(super) async fn run(source: RtspSource, fanout: Arc<Fanout>, settings: SourceSettings) {
    let mut delivery = Delivery::new(source.to_string(), Arc::clone(&fanout));
    let strict = StrictReader::new(source, settings);
    let mut retry = ReconnectBackoff::default();
    loop {
        let fault = strict.run_once(&mut delivery).await;
        let up_for = delivery.end_session().unwrap_or(Duration::ZERO);
        let wait = retry.after(fault.kind, up_for, rand::random());
        let (kind, retry_ms) = (fault.kind.code(), wait.as_millis());
        // A camera that is off for a night is logged once, not at every attempt.
        if fanout.down(fault.clone()) {
            warn!(target: "ocelli::source", kind, retry_ms, "{fault}");
        } else {
            debug!(target: "ocelli::source", kind, retry_ms, "still: {fault}");
        }
        tokio::join!(tokio::time::sleep(wait), strict.teardown());
    }
}
