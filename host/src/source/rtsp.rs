//! Reads one RTSP camera in a loop: connect, deliver units until a fault, wait, reconnect.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use ocelli_protocol::clock;
use ocelli_protocol::worker::{CaptureClock, Codec, Orientation, UnitHeader};
use retina::client::{
    Credentials, Demuxed, Described, InitialTimestampPolicy, PlayOptions, Session, SessionGroup,
    SessionIdPolicy, SessionOptions, SetupOptions, TcpTransportOptions, TeardownPolicy,
    Transport as RetinaTransport, UdpTransportOptions, UnassignedChannelDataPolicy,
    UnknownRtcpSsrcPolicy,
};
use retina::codec::{CodecItem, FrameFormat, ParametersRef, VideoFrame};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::fanout::Fanout;
use super::fault::RtspStep;
use super::key_frame_gate::KeyFrameGate;
use super::nal::{NalCodec, PictureInspector, split_annex_b};
use super::retry::ReconnectBackoff;
use super::timing::{CaptureClock, PresentationClock, RtpTime};
use super::udp::enlarge_receive_buffer;
use super::{AccessUnit, SourceFault, SourceFaultKind, SourceSettings};
use crate::config::source::{RtspSource, Transport};

/// Connecting, the request and the second one with the password. A camera that has just started
/// takes 2 to 3 s; one that takes longer than this is as good as away.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(5);
/// One request and its answer on an open connection.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// From PLAY to the first picture: some cameras start their encoder only then.
const FIRST_PICTURE_LIMIT: Duration = Duration::from_secs(8);
/// Longest time without a key picture. A new session makes most encoders send one.
const KEY_LIMIT: Duration = Duration::from_secs(30);
/// After an unanswered request: a server that accepts connections is silent, else unreachable.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// How long a new attempt waits for the old session's TEARDOWN. Cameras with few session slots need
/// it; a dead one answers never.
const TEARDOWN_LIMIT: Duration = Duration::from_secs(1);

/// Reads the camera until the task is dropped.
pub(super) async fn run(source: RtspSource, fanout: Arc<Fanout>, settings: SourceSettings) {
    let group = Arc::new(SessionGroup::default());
    let mut reader = RtspReader {
        source,
        fanout,
        settings,
        group: Arc::clone(&group),
        number: 0,
        gate: KeyFrameGate::default(),
        presentation: PresentationClock::default(),
        capture: CaptureClock::default(),
        up_since: None,
    };
    let mut retry = ReconnectBackoff::default();
    loop {
        let fault = reader.run_once().await;
        let up_for = reader.up_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        let wait = retry.after(fault.kind, up_for, rand::random());
        let (kind, retry_ms) = (fault.kind.code(), wait.as_millis());
        // A camera that is off for a night is logged once, not at every attempt.
        if reader.fanout.down(fault.clone()) {
            warn!(target: "ocelli::source", kind, retry_ms, "{fault}");
        } else {
            debug!(target: "ocelli::source", kind, retry_ms, "still: {fault}");
        }
        let stale = group.stale_sessions();
        let _ = tokio::join!(
            tokio::time::sleep(wait),
            timeout(TEARDOWN_LIMIT, group.await_stale_sessions(&stale))
        );
    }
}

/// State that outlives one RTSP session.
struct RtspReader {
    source: RtspSource,
    fanout: Arc<Fanout>,
    settings: SourceSettings,
    group: Arc<SessionGroup>,
    /// The next unit's number.
    number: u64,
    gate: KeyFrameGate,
    presentation: PresentationClock,
    capture: CaptureClock,
    /// Since when this session delivers.
    up_since: Option<Instant>,
}

/// A stream that can be decoded.
#[derive(Clone, Copy)]
struct Video {
    index: usize,
    codec: Codec,
}

impl RtspReader {
    /// One session, up to the fault that ends it. A panic of the RTSP library ends only the
    /// session.
    async fn run_once(&mut self) -> SourceFault {
        match AssertUnwindSafe(self.session()).catch_unwind().await {
            Ok(Err(fault)) => fault,
            Ok(Ok(never)) => match never {},
            Err(_panic) => SourceFault::rtsp(
                &self.source,
                SourceFaultKind::Protocol,
                "the RTSP client failed on this stream",
            ),
        }
    }

    async fn session(&mut self) -> Result<std::convert::Infallible, SourceFault> {
        let (session, video) = self.open().await?;
        self.gate.new_session();
        self.presentation.new_session();
        self.capture.new_session();
        self.stream(session, video).await
    }

    /// DESCRIBE, SETUP and PLAY, each within its limit.
    async fn open(&self) -> Result<(Demuxed, Video), SourceFault> {
        let source = &self.source;
        let failed = |step| move |error: retina::Error| SourceFault::retina(source, step, &error);
        debug!(target: "ocelli::source", %source, "connecting");

        let describe = Session::describe(source.url().clone(), self.options());
        let mut session = match timeout(DESCRIBE_LIMIT, describe).await {
            Ok(session) => session.map_err(failed(RtspStep::Describe))?,
            Err(_) => {
                let accepts = matches!(
                    timeout(PROBE_LIMIT, TcpStream::connect(source.address())).await,
                    Ok(Ok(_))
                );
                return Err(SourceFault::no_answer(
                    source,
                    RtspStep::Describe,
                    DESCRIBE_LIMIT,
                    accepts,
                ));
            }
        };
        let video = self.choose(&session)?;

        let transport = match source.transport {
            Transport::Tcp => RetinaTransport::Tcp(TcpTransportOptions::default()),
            Transport::Udp => RetinaTransport::Udp(UdpTransportOptions::default()),
        };
        let setup = SetupOptions::default().transport(transport).frame_format(FrameFormat::SIMPLE);
        timeout(REQUEST_LIMIT, session.setup(video.index, setup))
            .await
            .map_err(|_| SourceFault::no_answer(source, RtspStep::Setup, REQUEST_LIMIT, true))?
            .map_err(failed(RtspStep::Setup))?;
        if let (Transport::Udp, Some(stream)) =
            (source.transport, session.streams().get(video.index))
        {
            stream.ctx().into_iter().for_each(enlarge_receive_buffer);
        }

        // Cameras get RTP-Info wrong in many ways, and nothing here needs it: there is one stream.
        let play = PlayOptions::default()
            .initial_timestamp(InitialTimestampPolicy::Permissive)
            .unknown_rtcp_ssrc(UnknownRtcpSsrcPolicy::ProcessPackets);
        let session = timeout(REQUEST_LIMIT, session.play(play))
            .await
            .map_err(|_| SourceFault::no_answer(source, RtspStep::Play, REQUEST_LIMIT, true))?
            .map_err(failed(RtspStep::Play))?;
        Ok((session.demuxed().map_err(failed(RtspStep::Describe))?, video))
    }

    fn options(&self) -> SessionOptions {
        let credentials = self.source.credentials.as_ref();
        let credentials = credentials.map(|credentials| Credentials {
            username: credentials.user.clone(),
            password: credentials.password.clone(),
        });
        SessionOptions::default()
            .creds(credentials)
            .user_agent(concat!("ocelli/", env!("CARGO_PKG_VERSION")).to_owned())
            .session_group(Arc::clone(&self.group))
            .teardown(TeardownPolicy::Auto)
            .unassigned_channel_data(UnassignedChannelDataPolicy::Auto)
            .session_id(SessionIdPolicy::UseFirst)
    }

    /// The first video stream that can be decoded.
    fn choose(&self, session: &Session<Described>) -> Result<Video, SourceFault> {
        let streams = session.streams();
        let is_video = |media: &str| matches!(media, "video" | "image");
        let known =
            streams.iter().enumerate().filter(|(_, stream)| is_video(stream.media())).find_map(
                |(index, stream)| {
                    let codec = match stream.encoding_name() {
                        "h264" => Codec::H264,
                        "h265" => Codec::H265,
                        "jpeg" => Codec::Mjpeg,
                        _ => return None,
                    };
                    Some(Video { index, codec })
                },
            );
        known.ok_or_else(|| {
            let list = |names: Vec<&str>| {
                self.source.scrub(&names.join(", ").replace(char::is_control, ""))
            };
            let offered: Vec<&str> = streams
                .iter()
                .filter(|stream| is_video(stream.media()))
                .map(|s| s.encoding_name())
                .collect();
            if offered.is_empty() {
                let media = list(streams.iter().map(|stream| stream.media()).collect());
                let media =
                    if media.is_empty() { "nothing".to_owned() } else { format!("only {media}") };
                return SourceFault::rtsp(
                    &self.source,
                    SourceFaultKind::NoVideo,
                    format!("has no video: it offers {media}"),
                );
            }
            let offered = list(offered);
            let cause = format!(
                "video is {offered}, which is not supported; known are h264, h265 and jpeg"
            );
            SourceFault::rtsp(&self.source, SourceFaultKind::UnsupportedCodec, cause)
        })
    }

    /// Delivers frames until the stream fails.
    async fn stream(
        &mut self,
        mut session: Demuxed,
        video: Video,
    ) -> Result<std::convert::Infallible, SourceFault> {
        let mut inspector = match video.codec {
            // For H.265, retina takes only IDR for random access points, and marks none as
            // disposable.
            Codec::H265 => Some(PictureInspector::new(NalCodec::H265)),
            Codec::H264 | Codec::Mjpeg => None,
        };
        let mut limit = FIRST_PICTURE_LIMIT.max(self.settings.silence_limit);
        let mut last_picture = Instant::now();
        let mut last_admitted = last_picture;
        loop {
            let item = timeout_at(last_picture + limit, session.next())
                .await
                .map_err(|_| SourceFault::no_answer(&self.source, RtspStep::Stream, limit, true))?
                .ok_or_else(|| {
                    SourceFault::rtsp(
                        &self.source,
                        SourceFaultKind::Closed,
                        "the server closed the connection",
                    )
                })?
                .map_err(|error| SourceFault::retina(&self.source, RtspStep::Stream, &error))?;
            match item {
                CodecItem::VideoFrame(frame) => {
                    limit = self.settings.silence_limit;
                    last_picture = Instant::now();
                    let frame = ReceivedFrame::new(frame, &session, video, inspector.as_mut());
                    if self.hand_on(frame, video.codec) {
                        last_admitted = last_picture;
                    } else if last_admitted.elapsed() > KEY_LIMIT {
                        let cause = format!("no key picture for {} s", KEY_LIMIT.as_secs());
                        return Err(SourceFault::rtsp(
                            &self.source,
                            SourceFaultKind::Protocol,
                            cause,
                        ));
                    }
                }
                CodecItem::Rtcp(packet) => self.note_sender_report(&packet),
                _ => {}
            }
        }
    }

    /// Delivers a frame, unless one that it refers to is missing. Whether it did.
    fn hand_on(&mut self, frame: ReceivedFrame, codec: Codec) -> bool {
        let Some(discontinuity) = self.gate.admit(frame.key, frame.lost) else { return false };
        if self.up_since.is_none() {
            self.up_since = Some(Instant::now());
            info!(target: "ocelli::source", source = %self.source, ?codec, "up");
            self.fanout.up();
        }
        let header = UnitHeader {
            number: self.number,
            codec,
            key: frame.key,
            disposable: frame.disposable,
            discontinuity,
            presentation_ns: Some(self.presentation.place(frame.rtp, frame.received_ns)),
            capture_ns: self.capture.capture_ns(frame.rtp, frame.received_wall_ns),
            capture_clock: CaptureClock::default(),
            orientation: Orientation::default(),
            hidden: false,
            received_ns: frame.received_ns,
        };
        self.number += 1;
        self.fanout.unit(AccessUnit { header, data: frame.data });
        true
    }

    fn note_sender_report(&mut self, packet: &retina::rtcp::ReceivedCompoundPacket) {
        let Some(rtp) = packet.rtp_timestamp() else { return };
        for report in packet.pkts() {
            if let Ok(Some(report)) = report.as_sender_report() {
                self.capture.report(rtp_time(rtp), report.ntp_timestamp().0);
            }
        }
    }
}

/// A frame as it came, judged.
struct ReceivedFrame {
    data: Bytes,
    key: bool,
    disposable: bool,
    lost: bool,
    rtp: RtpTime,
    received_ns: u64,
    received_wall_ns: u64,
}

impl ReceivedFrame {
    fn new(
        frame: VideoFrame,
        session: &Demuxed,
        video: Video,
        inspector: Option<&mut PictureInspector>,
    ) -> Self {
        let received = frame.end_ctx().received().elapsed();
        let received_ns = clock::monotonic_ns()
            .saturating_sub(u64::try_from(received.as_nanos()).unwrap_or(u64::MAX));
        // The first packet is sent right after the picture was taken; the last one may be much
        // later.
        let received_wall: SystemTime = frame.start_ctx().received_wall().into();
        let received_wall_ns = received_wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .and_then(|since| u64::try_from(since.as_nanos()).ok())
            .unwrap_or_default();
        let (lost, rtp) = (frame.loss() > 0, rtp_time(frame.timestamp()));
        let has_sets = frame.is_random_access_point();
        let mut key = has_sets;
        // No picture refers to JPEG ones, but sessions that skip disposable ones need some.
        let mut disposable = frame.is_disposable() && video.codec != Codec::Mjpeg;
        let mut data = Bytes::from(frame.into_data());
        if let Some(inspector) = inspector {
            let sets = parameter_sets(session, video.index);
            inspector.inspect(split_annex_b(sets));
            if let Some(picture) = inspector.inspect(split_annex_b(&data)) {
                (key, disposable) = (picture.key, picture.disposable);
            }
            if key && !has_sets {
                let mut with_sets = BytesMut::with_capacity(sets.len() + data.len());
                with_sets.extend_from_slice(sets);
                with_sets.extend_from_slice(&data);
                data = with_sets.freeze();
            }
        }
        Self { data, key, disposable, lost, rtp, received_ns, received_wall_ns }
    }
}

/// The stream's parameter sets in Annex B form; empty where it has not sent any yet.
fn parameter_sets(session: &Demuxed, index: usize) -> &[u8] {
    match session.streams().get(index).and_then(|stream| stream.parameters()) {
        Some(ParametersRef::Video(parameters)) => parameters.extra_data(),
        _ => &[],
    }
}

fn rtp_time(timestamp: retina::Timestamp) -> RtpTime {
    RtpTime { ticks: timestamp.timestamp(), rate: timestamp.clock_rate().get() }
}
