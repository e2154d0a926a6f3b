//! Reads one camera in a loop: a session up to its fault, a wait, the next session.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::SourceSettings;
use super::delivery::Delivery;
use super::fanout::Fanout;
use super::retry::{FaultLog, ReconnectBackoff};
use super::rtsp::StrictReader;
use crate::config::source::RtspSource;

/// Reads the camera until the task is dropped.
pub(super) async fn run(source: RtspSource, fanout: Arc<Fanout>, settings: SourceSettings) {
    let mut delivery = Delivery::new(&source, Arc::clone(&fanout), settings);
    let strict = StrictReader::new(source);
    let (mut retry, mut log) = (ReconnectBackoff::new(), FaultLog::default());
    loop {
        let fault = strict.run_once(&mut delivery, false).await;
        let up_for = delivery.end_session().unwrap_or(Duration::ZERO);
        let wait = retry.after(fault.key(), up_for, rand::random());
        let (kind, retry_ms) = (fault.kind.code(), wait.as_millis());
        // A camera that is off for a night is logged once an hour, not at every attempt.
        match log.take(fault.key(), up_for, Instant::now()) {
            Some(0) => warn!(target: "ocelli::source", kind, retry_ms, "{fault}"),
            Some(before) => {
                warn!(target: "ocelli::source", kind, retry_ms, before, "still: {fault}");
            }
            None => {
                let other = fault.other_reader();
                debug!(target: "ocelli::source", kind, retry_ms, ?other, "still: {fault}");
            }
        }
        fanout.down(fault);
        tokio::join!(tokio::time::sleep(wait), strict.teardown());
    }
}
