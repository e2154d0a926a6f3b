//! What a camera or a file is, which reader plays it and why, or why it does not play and what to
//! do: `ocelli probe`, `ocelli check --probe`, and `POST /v1/probe`.

mod measure;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::config::source::{Source, Transport};
use crate::source::{ReaderStatus, SourceFault, SourceFaultKind, SourceStep, Sources};
use crate::worker::still;
use measure::{Measured, ProbeOutcome, measure};

pub use crate::worker::StillFormat;

/// Probes of one host at the same time. Each has a reader's process and, at its end, a decoder's.
pub const MAX_PROBES: usize = 4;

/// How long the host measures a camera: two seconds tell the rate, and a person waits.
const SPAN: Duration = Duration::from_secs(2);

/// Bytes of a picture that an answer has at most: a picture of a 4K camera in good quality.
const MAX_PICTURE: usize = 2 << 20;

/// What a source is, or why it does not play.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct ProbeReport {
    /// The source, without credentials.
    pub source: String,
    /// Whether a picture of it could be decoded.
    pub plays: bool,
    /// Of a camera.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader: Option<ReaderStatus>,
    /// Of a camera: how RTP packets came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Width and height in pixels, as shown.
    pub size: Option<(u32, u32)>,
    /// Streams that are not read: "audio aac".
    pub left_out: Vec<String>,
    #[serde(flatten)]
    pub measured: Measured,
    /// Why it does not play; null: it does.
    pub fault: Option<ProbeFault>,
}

/// Why a source does not play.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct ProbeFault {
    /// The kind of the fault, as in the log of a host; `damaged` where no picture can be decoded.
    pub kind: &'static str,
    /// The step that failed.
    pub step: Option<SourceStep>,
    pub message: String,
    /// What to do.
    pub advice: &'static str,
}

impl ProbeReport {
    /// What it is, or why it does not play and what to do, on one line.
    pub fn summary(&self) -> String {
        if let (false, Some(ProbeFault { kind, message, advice, .. })) = (self.plays, &self.fault) {
            return format!("does not play: {kind}: {message}; {advice}");
        }
        let measured =
            self.measured.lines().into_iter().map(|(name, value)| format!("{name} {value}"));
        let size = self.size.map(|(width, height)| format!("{width} x {height}"));
        let plays = if self.plays { "plays" } else { "does not play" };
        let parts = std::iter::once(plays.to_owned()).chain(size).chain(measured);
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// Reads a source as a host does, a camera for `span`. Also gives the picture of the report as a
/// file, empty without one.
pub async fn look(
    sources: &Sources,
    worker: &Path,
    source: &Source,
    span: Duration,
    format: StillFormat,
) -> anyhow::Result<(ProbeReport, Vec<u8>)> {
    let mut subscription = sources.subscribe(source);
    let reader = subscription.reader();
    let ProbeOutcome { measured, units, fault } =
        measure(&mut subscription, source.is_live(), span).await;
    let mut report = ProbeReport {
        source: source.to_string(),
        plays: false,
        reader: reader.status(),
        transport: match source {
            Source::Rtsp(source) => Some(source.transport),
            Source::File(_) => None,
        },
        size: None,
        left_out: subscription.other_streams(),
        measured,
        fault: fault.map(|fault| ProbeFault::of_source(&fault)),
    };
    if units.is_empty() {
        return Ok((report, Vec::new()));
    }
    let (still, file) = still(worker, &units, format).await?;
    report.size = still.size;
    report.plays = still.size.is_some();
    if !report.plays {
        report.fault.get_or_insert_with(|| ProbeFault {
            kind: "damaged",
            step: None,
            message: still.fault.unwrap_or_else(|| "the decoder makes no picture".to_owned()),
            advice: "no picture of the first GOP is sound: set another codec or profile in the \
                     camera, or try the other transport",
        });
    }
    Ok((report, file))
}

/// The source as an operator may have it probed: as a subscriber may name it.
pub fn admitted(source: Source, config: &Config) -> Result<Source, ProbeError> {
    let source = source.of_subscriber();
    let subscriptions = &config.subscriptions;
    let admitted = subscriptions.sources.iter().find_map(|pattern| pattern.admitted(&source));
    let source = admitted.ok_or(ProbeError::NotAllowed)?;
    if source.needs_compatible_reader() && !subscriptions.compatible {
        return Err(ProbeError::ReaderNotAllowed);
    }
    Ok(source)
}

/// Why there was no probe.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The config does not let operators name this source.
    #[error(
        "this source is not among those that an operator may name: `[subscriptions] sources` in \
            the config, by default none; an administrator may name any"
    )]
    NotAllowed,
    /// The config does not let sources of operators have the reader that this one needs.
    #[error(
        "rtsps:// is read by the compatible reader, which an operator's sources get with \
            `[subscriptions] compatible = true` in the config alone"
    )]
    ReaderNotAllowed,
    /// So many are under way.
    #[error("{MAX_PROBES} probes are under way")]
    Busy,
    /// A process of the host's failed.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

/// The probes of a running host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Prober {
    sources: Sources,
    worker: PathBuf,
    turns: Arc<Semaphore>,
}

impl Prober {
    /// Probes join the readers of `sources`: a camera that is read has no second connection.
    /// `worker`: the program that decodes the picture.
    pub fn new(sources: Sources, worker: PathBuf) -> Self {
        Self { sources, worker, turns: Arc::new(Semaphore::new(MAX_PROBES)) }
    }

    /// What a source is, and a picture of it as a JPEG file, if there is one that is not too
    /// large. It ends when nobody waits for it.
    pub async fn probe(
        &self,
        source: &Source,
    ) -> Result<(ProbeReport, Option<Vec<u8>>), ProbeError> {
        let _turn = self.turns.try_acquire().map_err(|_| ProbeError::Busy)?;
        let looked = look(&self.sources, &self.worker, source, SPAN, StillFormat::Jpeg).await;
        let (report, file) = looked?;
        let fits = (1..=MAX_PICTURE).contains(&file.len());
        Ok((report, fits.then_some(file)))
    }
}

impl ProbeFault {
    fn of_source(fault: &SourceFault) -> Self {
        let (step, message) = (Some(fault.step), fault.message.clone());
        Self { kind: fault.kind.code(), step, message, advice: advice(fault.kind) }
    }
}

/// What an operator does about a fault.
fn advice(kind: SourceFaultKind) -> &'static str {
    match kind {
        SourceFaultKind::Unauthorized => {
            "check the user name and password, and that this account may see the stream; in a URL \
             : / ? # @ % are written as %3A %2F %3F %23 %40 %25"
        }
        SourceFaultKind::Unreachable => {
            "check the address and the port, and that a firewall lets this machine reach it"
        }
        SourceFaultKind::NotRtsp => "check the port: RTSP has 554 on most cameras",
        SourceFaultKind::NoVideo => "the path has no video: look for another one in the manual",
        SourceFaultKind::UnsupportedCodec => {
            "set the camera to H.264, H.265 or Motion JPEG, or encode the file anew"
        }
        SourceFaultKind::Silent => {
            "restart the camera, lower the number of its viewers, or try the other transport"
        }
        SourceFaultKind::Timeout => "try again; if it stays, restart the camera",
        SourceFaultKind::Closed => {
            "lower the number of the camera's viewers: many take no more than a few"
        }
        SourceFaultKind::Protocol => {
            "check the path; try the other transport, or the reader `compatible`"
        }
        SourceFaultKind::Certificate => {
            "name the authority (`ca`) or the certificate (`certificate_sha256`)"
        }
        SourceFaultKind::Reader => "the log says why: `./x build` makes the readers",
        SourceFaultKind::TooLarge => {
            "set the camera to a lower resolution or rate of bits; if it is no camera, leave it out"
        }
        SourceFaultKind::File => "check the path, and that the file is whole and of a known kind",
    }
}
