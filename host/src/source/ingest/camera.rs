//! The compatible reader: one session of an RTSP camera through a process of its own, up to the
//! fault that ends it.

use std::convert::Infallible;
use std::io;
use std::time::{Duration, SystemTime};

use ocelli_protocol::clock;
use ocelli_protocol::inference::packet_pair;
use ocelli_protocol::ingest::{
    IngestFault, IngestFaultKind, IngestStep, IngestUnit, Input, StreamInfo,
};
use tokio::time::Instant;

use super::broker::{Admitted, Broker, NetworkRefusal};
use super::pictures::PictureReader;
use super::process::{Descriptors, IngestError, IngestItem, IngestLauncher, IngestProcess};
use super::tls::TlsError;
use crate::config::source::{RtspSource, Transport};
use crate::source::delivery::{Delivery, ReceivedPicture};
use crate::source::fault::{OtherReader, SourceFault, SourceFaultKind, SourceStep, one_line};
use crate::source::timing::{RtpTime, SenderReport};
use crate::util::bucket::{RateLimit, TokenBucket};

/// From the start to the first picture: connecting, four requests, and a camera that sends one
/// picture in some seconds.
const OPEN_LIMIT: Duration = Duration::from_secs(40);

/// Longest time without a key picture. A new session makes most encoders send one.
const KEY_LIMIT: Duration = Duration::from_secs(30);

/// Messages of a process: three times those of a camera with 120 pictures a second and its reports,
/// and at once what may have waited in its socket while the host was busy.
const PACE: RateLimit = RateLimit { burst: 1000.0, per_second: 400.0 };

/// Ticks of the process's times in a second: nanoseconds.
const RATE: u32 = 1_000_000_000;

/// How far the camera's clock and the stream's may drift apart before it is told anew, in
/// nanoseconds.
const CLOCK_STEP_NS: u64 = 1_000_000;

/// From 1900-01-01, where NTP counts from, to 1970-01-01, in seconds (RFC 868).
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// The compatible reader of one camera.
#[derive(Debug)]
pub(in crate::source) struct CompatibleReader {
    source: RtspSource,
    launcher: IngestLauncher,
    admitted: Admitted,
}

impl CompatibleReader {
    pub(in crate::source) fn new(
        source: RtspSource,
        launcher: IngestLauncher,
        admitted: Admitted,
    ) -> Self {
        Self { source, launcher, admitted }
    }

    /// One session, up to the fault that ends it.
    pub(in crate::source) async fn run_once(&self, delivery: &mut Delivery) -> SourceFault {
        match self.session(delivery).await {
            Ok(never) => match never {},
            Err(fault) => fault,
        }
    }

    async fn session(&self, delivery: &mut Delivery) -> Result<Infallible, SourceFault> {
        let no_process =
            |error: io::Error| self.fault(SourceStep::Describe, IngestError::Start(error), None);
        let (ours, theirs) = packet_pair().map_err(no_process)?;
        let broker = Broker::start(self.source.clone(), self.admitted.clone(), ours);
        let broker = broker.map_err(no_process)?;
        let descriptors = Descriptors::of_camera(theirs).map_err(no_process)?;
        let input = Input::Camera {
            url: self.source.request_url(),
            udp: self.source.transport == Transport::Udp,
        };
        // The path of a camera may be its password.
        let (host, port) = self.source.address();
        let name = format!("{host}:{port}");
        let opened = self.launcher.open(&name, input, descriptors, OPEN_LIMIT).await;
        let (process, stream) = opened
            .map_err(|error| self.fault(SourceStep::Describe, error, broker.take_refusal()))?;
        delivery.new_session();
        delivery.set_other_streams(stream.left_out.clone());
        self.stream(process, &stream, delivery)
            .await
            .map_err(|error| self.fault(SourceStep::Stream, error, broker.take_refusal()))?
    }

    /// Delivers pictures until the stream fails: a fault of the process, or what the host finds.
    async fn stream(
        &self,
        mut process: IngestProcess,
        stream: &StreamInfo,
        delivery: &mut Delivery,
    ) -> Result<Result<Infallible, SourceFault>, IngestError> {
        let mut pictures = PictureReader::new(stream);
        let mut clock_offset = None;
        let mut lost = false;
        let mut messages = TokenBucket::full(PACE, std::time::Instant::now());
        let mut last_admitted = Instant::now();
        loop {
            let now = Instant::now();
            let left = delivery.silence_deadline().saturating_duration_since(now);
            let item = match process.next(left).await {
                Err(IngestError::Silent(_)) => {
                    let silent = delivery.silent_for(Instant::now());
                    let step = SourceStep::Stream;
                    return Ok(Err(SourceFault::no_answer(&self.source, step, silent)));
                }
                item => item?,
            };
            if messages.take(PACE, std::time::Instant::now()).is_err() {
                return Err(IngestError::Flood);
            }
            let (unit, data) = match item {
                IngestItem::Unit(unit, data) => (unit, data),
                IngestItem::Damage(_) => {
                    delivery.left_out("a part of the stream that does not fit");
                    lost = true;
                    continue;
                }
                IngestItem::Alive => {
                    delivery.alive(Instant::now());
                    continue;
                }
                IngestItem::Ended => {
                    let cause = "the server ended the stream";
                    let (kind, step) = (SourceFaultKind::Closed, SourceStep::Stream);
                    return Ok(Err(SourceFault::rtsp(&self.source, kind, step, cause)));
                }
            };
            let received = Received::now(&unit);
            if let Some(report) = received.new_report(&unit, &mut clock_offset) {
                delivery.sender_report(report);
            }
            lost |= unit.corrupt;
            let Some((picture, data)) = pictures.read(&unit, data) else { continue };
            let picture = ReceivedPicture {
                data,
                codec: pictures.codec(),
                // One that is incomplete is no place to start.
                key: picture.key && !unit.corrupt,
                disposable: picture.disposable,
                lost: std::mem::take(&mut lost),
                orientation: stream.orientation,
                time: received.time,
                received_ns: received.ns,
                received_wall_ns: received.wall_ns,
            };
            if delivery.deliver(picture) {
                last_admitted = Instant::now();
            } else if last_admitted.elapsed() > KEY_LIMIT {
                let cause = format!("no key picture for {} s", KEY_LIMIT.as_secs());
                let (kind, step) = (SourceFaultKind::Protocol, SourceStep::Stream);
                return Ok(Err(SourceFault::rtsp(&self.source, kind, step, cause)));
            }
        }
    }

    /// A fault of the process, or of the camera as it tells it. `refusal`: what the host knows
    /// better.
    fn fault(
        &self,
        step: SourceStep,
        error: IngestError,
        refusal: Option<NetworkRefusal>,
    ) -> SourceFault {
        let source = &self.source;
        let fault = |kind, cause: String| SourceFault::rtsp(source, kind, step, cause);
        match (error, refusal) {
            (IngestError::Failed(_), Some(NetworkRefusal::NotAdmitted(place))) => {
                let cause = format!("leads to {place}, which this source may not reach");
                fault(SourceFaultKind::Protocol, source.scrub(&cause))
            }
            (IngestError::Failed(_), Some(NetworkRefusal::TooMany)) => {
                let cause = "leads from one address to the next without end";
                fault(SourceFaultKind::Protocol, cause.to_owned())
            }
            (IngestError::Failed(_), Some(NetworkRefusal::Tls(error))) => match error {
                TlsError::Certificate { .. } => {
                    fault(SourceFaultKind::Certificate, error.to_string())
                }
                TlsError::Setting(cause) => fault(SourceFaultKind::Certificate, cause),
                TlsError::Handshake(cause) => {
                    fault(SourceFaultKind::Protocol, format!("no TLS: {cause}"))
                }
            },
            (IngestError::Failed(failed), None) => self.failed(failed),
            (IngestError::Silent(limit), _) => {
                let cause = format!("no picture within {} s", limit.as_secs());
                SourceFault::rtsp(source, SourceFaultKind::Silent, SourceStep::Play, cause)
            }
            (error, _) => SourceFault::of_reader(source, step, &error),
        }
    }

    fn failed(&self, fault: IngestFault) -> SourceFault {
        let step = match fault.step {
            IngestStep::Open => SourceStep::Describe,
            IngestStep::Probe => SourceStep::Play,
            IngestStep::Read => SourceStep::Stream,
        };
        let text = one_line(&self.source.scrub(&fault.reason));
        let (kind, cause) = match fault.kind {
            IngestFaultKind::Unauthorized => {
                let refused = SourceFault::refused(&self.source, step, 401, &text);
                return refused.with_other_reader(OtherReader::OneAttempt);
            }
            IngestFaultKind::Status(status) => {
                return SourceFault::refused(&self.source, step, status, &text);
            }
            IngestFaultKind::Unreachable => (SourceFaultKind::Unreachable, text),
            IngestFaultKind::NotAdmitted => (SourceFaultKind::Protocol, text),
            IngestFaultKind::NoVideo => (SourceFaultKind::NoVideo, format!("has no video: {text}")),
            IngestFaultKind::UnsupportedCodec(codec) => {
                let codec = one_line(&codec);
                let cause = format!(
                    "video is {codec}, which is not supported; known are h264, h265 and jpeg"
                );
                (SourceFaultKind::UnsupportedCodec, cause)
            }
            IngestFaultKind::Timeout if step == SourceStep::Stream => {
                (SourceFaultKind::Silent, text)
            }
            IngestFaultKind::Timeout => (SourceFaultKind::Timeout, text),
            IngestFaultKind::Closed => {
                (SourceFaultKind::Closed, format!("the server closed the connection: {text}"))
            }
            IngestFaultKind::TooLarge => return SourceFault::too_large(&self.source, step),
            IngestFaultKind::InvalidData
            | IngestFaultKind::UnknownContainer
            | IngestFaultKind::Other => (SourceFaultKind::Protocol, text),
        };
        SourceFault::rtsp(&self.source, kind, step, cause)
    }
}

/// When a unit came, and its time on the stream's clock.
struct Received {
    time: RtpTime,
    ns: u64,
    wall_ns: u64,
}

impl Received {
    fn now(unit: &IngestUnit) -> Self {
        let ns = clock::monotonic_ns();
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall_ns = u64::try_from(wall.as_nanos()).unwrap_or_default();
        // A stream without times has those of its arrival.
        let ticks = unit.presentation_ns.or(unit.decoding_ns).unwrap_or(ns.cast_signed());
        Self { time: RtpTime { ticks, rate: RATE }, ns, wall_ns }
    }

    /// What the unit says of the camera's clock, if it is news. `offset`: of that clock from the
    /// stream's, as it was told last.
    fn new_report(&self, unit: &IngestUnit, offset: &mut Option<i64>) -> Option<SenderReport> {
        let capture_ns = unit.capture_ns?;
        let new = capture_ns.cast_signed().wrapping_sub(self.time.ticks);
        if offset.is_some_and(|known| known.wrapping_sub(new).unsigned_abs() < CLOCK_STEP_NS) {
            return None;
        }
        *offset = Some(new);
        let (seconds, rest) = (capture_ns / u64::from(RATE), capture_ns % u64::from(RATE));
        // The 32 bits of the seconds start again in 2036.
        let ntp = (seconds.wrapping_add(NTP_TO_UNIX) << 32) | ((rest << 32) / u64::from(RATE));
        Some(SenderReport {
            rtp: self.time,
            ntp,
            received_ns: self.ns,
            received_wall_ns: self.wall_ns,
        })
    }
}
