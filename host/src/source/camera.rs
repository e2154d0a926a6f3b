//! Reads one camera in a loop: a session up to its fault, a wait, the next session, with the reader
//! that the camera needs.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use ocelli_protocol::digest::Digest;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::SourceSettings;
use super::choice::{Next, ReaderChooser, ReaderInUse, ReaderKind, ReaderView, SessionEnd};
use super::delivery::Delivery;
use super::fanout::Fanout;
use super::fault::SourceFault;
use super::ingest::{Admitted, CompatibleReader, IngestLauncher, StrictLauncher};
use super::retry::{FaultLog, ReconnectBackoff};
use super::rtsp::StrictReader;
use crate::config::source::{ReaderSetting, RtspSource};
use crate::journal::{Journal, ReaderRow};

/// What the reading of a camera needs of the host.
pub(super) struct CameraServices {
    pub(super) settings: SourceSettings,
    pub(super) setting: ReaderSetting,
    pub(super) launcher: IngestLauncher,
    pub(super) admitted: Admitted,
    pub(super) journal: Journal,
}

/// Reads the camera until the task is dropped.
pub(super) async fn run(
    source: RtspSource,
    fanout: Arc<Fanout>,
    view: ReaderView,
    services: CameraServices,
) {
    let mut memory = ReaderMemory::recall(&source, services.journal).await;
    let remembered = memory.known.clone();
    let chooser = ReaderChooser::new(&source, services.setting, remembered, unix_now());
    view.show(chooser.in_use());
    let delivery = Delivery::new(&source, Arc::clone(&fanout), services.settings);
    let CameraServices { launcher, admitted, .. } = services;
    let processes = StrictLauncher::new(launcher.clone(), Arc::clone(&admitted));
    let compatible = CompatibleReader::new(source.clone(), launcher, admitted);
    let strict = StrictReader::new(source.clone(), processes);
    let mut camera = CameraReaders { source, strict, compatible, delivery, chooser };
    let (mut retry, mut log) = (ReconnectBackoff::new(), FaultLog::default());
    loop {
        let (mut fault, up_for) = camera.session(&mut memory).await;
        let cause = camera.cause(&fault);
        if let Some(both) = camera.chooser.with_other_cause(&cause) {
            fault = fault.with_message(&format!("{}: {both}", camera.source));
        }
        let end = SessionEnd { up_for, other_reader: fault.other_reader(), cause };
        let next = camera.chooser.session_ended(&end, unix_now());
        let wait = match next {
            Next::Same => retry.after(fault.key(), up_for, rand::random()),
            Next::Other => Duration::ZERO,
            Next::OtherSlowly => retry.slowly(fault.key(), rand::random()),
        };
        log_fault(&mut log, &fault, up_for, wait);
        if next != Next::Same {
            let ReaderInUse { kind, reason, .. } = camera.chooser.in_use();
            info!(target: "ocelli::source", source = %camera.source, "{kind} reader from now on: {reason}");
            view.show(camera.chooser.in_use());
        }
        fanout.down(fault);
        tokio::join!(tokio::time::sleep(wait), camera.strict.teardown());
    }
}

fn log_fault(log: &mut FaultLog, fault: &SourceFault, up_for: Duration, wait: Duration) {
    let (kind, retry_ms) = (fault.kind.code(), wait.as_millis());
    // A camera that is off for a night is logged once an hour, not at every attempt.
    match log.take(fault.key(), up_for, Instant::now()) {
        Some(0) => warn!(target: "ocelli::source", kind, retry_ms, "{fault}"),
        Some(before) => {
            warn!(target: "ocelli::source", kind, retry_ms, before, "still: {fault}");
        }
        None => debug!(target: "ocelli::source", kind, retry_ms, "still: {fault}"),
    }
}

/// One camera with both of its readers.
struct CameraReaders {
    source: RtspSource,
    strict: StrictReader,
    compatible: CompatibleReader,
    delivery: Delivery,
    chooser: ReaderChooser,
}

impl CameraReaders {
    /// One session: its fault, and how long it has delivered.
    async fn session(&mut self, memory: &mut ReaderMemory) -> (SourceFault, Duration) {
        let Self { strict, compatible, delivery, chooser, .. } = self;
        let (kind, has_other) = (chooser.in_use().kind, chooser.has_other());
        let started = delivery.started();
        let fault = {
            let mut session = pin!(async {
                match kind {
                    ReaderKind::Strict => strict.run_once(delivery, has_other).await,
                    ReaderKind::Compatible => compatible.run_once(delivery).await,
                }
            });
            loop {
                tokio::select! {
                    fault = &mut session => break fault,
                    () = started.notified() => {
                        chooser.plays();
                        memory.keep(chooser).await;
                    }
                }
            }
        };
        // A session may end as soon as it has started.
        if started.notified().now_or_never().is_some() {
            chooser.plays();
        }
        (fault, delivery.end_session().unwrap_or(Duration::ZERO))
    }

    /// A fault's text without the source's name.
    fn cause(&self, fault: &SourceFault) -> String {
        let name = format!("{}: ", self.source);
        fault.message.strip_prefix(&name).unwrap_or(&fault.message).to_owned()
    }
}

/// The reader that has played a camera, over restarts of the host.
struct ReaderMemory {
    journal: Journal,
    /// A digest of the source: its URL may hold a secret.
    key: String,
    /// The compatible reader, if it is what has played.
    known: Option<ReaderInUse>,
}

impl ReaderMemory {
    async fn recall(source: &RtspSource, journal: Journal) -> Self {
        let text = format!("{} {:?}", source.url(), source.transport);
        let key = Digest::of(text).to_string();
        let known = match journal.reader(key.clone()).await {
            Ok(known) => known.map(|ReaderRow { reason, since }| ReaderInUse {
                kind: ReaderKind::Compatible,
                reason,
                since,
            }),
            Err(error) => {
                warn!(target: "ocelli::source", %source, "its reader is not known: {error}");
                None
            }
        };
        Self { journal, key, known }
    }

    /// Notes the reader that plays.
    async fn keep(&mut self, chooser: &ReaderChooser) {
        if chooser.is_fixed() {
            return;
        }
        let in_use = chooser.in_use();
        let plays = (in_use.kind == ReaderKind::Compatible).then(|| in_use.clone());
        if plays == self.known {
            return;
        }
        self.known = plays;
        let row =
            self.known.clone().map(|ReaderInUse { reason, since, .. }| ReaderRow { reason, since });
        if let Err(error) = self.journal.set_reader(self.key.clone(), row).await {
            debug!(target: "ocelli::source", "the reader of a camera is not kept: {error}");
        }
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
