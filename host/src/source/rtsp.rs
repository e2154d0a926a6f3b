//! The strict reader: one session of an RTSP camera with retina, up to the fault that ends it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use ocelli_protocol::clock;
use ocelli_protocol::worker::{Codec, Orientation};
use retina::client::{
    Credentials, Demuxed, Described, InitialTimestampPolicy, PlayOptions, Session, SessionGroup,
    SessionIdPolicy, SessionOptions, SetupOptions, TcpTransportOptions, TeardownPolicy,
    Transport as RetinaTransport, UdpTransportOptions, UnassignedChannelDataPolicy,
    UnknownRtcpSsrcPolicy,
};
use retina::codec::{CodecItem, FrameFormat, ParametersRef, VideoFrame};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::delivery::{Delivery, ReceivedPicture};
use super::nal::{NalCodec, PictureInspector, split_annex_b};
use super::timing::RtpTime;
use super::udp::enlarge_receive_buffer;
use super::{SourceFault, SourceFaultKind, SourceSettings, SourceStep};
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

/// The strict reader of one camera.
pub(super) struct StrictReader {
    source: RtspSource,
    settings: SourceSettings,
    group: Arc<SessionGroup>,
}

/// A stream that can be decoded.
#[derive(Clone, Copy)]
struct Video {
    index: usize,
    codec: Codec,
}

impl StrictReader {
    pub(super) fn new(source: RtspSource, settings: SourceSettings) -> Self {
        Self { source, settings, group: Arc::default() }
    }

    /// One session, up to the fault that ends it. A panic of the RTSP library ends only the
    /// session.
    pub(super) async fn run_once(&self, delivery: &mut Delivery) -> SourceFault {
        match AssertUnwindSafe(self.session(delivery)).catch_unwind().await {
            Ok(Err(fault)) => fault,
            Ok(Ok(never)) => match never {},
            Err(_panic) => SourceFault::rtsp(
                &self.source,
                SourceFaultKind::Protocol,
                SourceStep::Stream,
                "the RTSP client failed on this stream",
            ),
        }
    }

    /// Waits, for a bounded time, until the server has been told of the end of the sessions so far.
    pub(super) async fn teardown(&self) {
        let stale = self.group.stale_sessions();
        let _ = timeout(TEARDOWN_LIMIT, self.group.await_stale_sessions(&stale)).await;
    }

    async fn session(
        &self,
        delivery: &mut Delivery,
    ) -> Result<std::convert::Infallible, SourceFault> {
        let (session, video) = self.open().await?;
        delivery.new_session();
        self.stream(session, video, delivery).await
    }

    /// DESCRIBE, SETUP and PLAY, each within its limit.
    async fn open(&self) -> Result<(Demuxed, Video), SourceFault> {
        let source = &self.source;
        let failed = |step| move |error: retina::Error| SourceFault::retina(source, step, &error);
        debug!(target: "ocelli::source", %source, "connecting");

        let describe = Session::describe(source.url().clone(), self.options());
        let mut session = match timeout(DESCRIBE_LIMIT, describe).await {
            Ok(session) => session.map_err(failed(SourceStep::Describe))?,
            Err(_) => {
                let accepts = matches!(
                    timeout(PROBE_LIMIT, TcpStream::connect(source.address())).await,
                    Ok(Ok(_))
                );
                return Err(SourceFault::no_answer(
                    source,
                    SourceStep::Describe,
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
            .map_err(|_| SourceFault::no_answer(source, SourceStep::Setup, REQUEST_LIMIT, true))?
            .map_err(failed(SourceStep::Setup))?;
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
            .map_err(|_| SourceFault::no_answer(source, SourceStep::Play, REQUEST_LIMIT, true))?
            .map_err(failed(SourceStep::Play))?;
        Ok((session.demuxed().map_err(failed(SourceStep::Describe))?, video))
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
                    SourceStep::Describe,
                    format!("has no video: it offers {media}"),
                );
            }
            let offered = list(offered);
            let cause = format!(
                "video is {offered}, which is not supported; known are h264, h265 and jpeg"
            );
            let kind = SourceFaultKind::UnsupportedCodec;
            SourceFault::rtsp(&self.source, kind, SourceStep::Describe, cause)
        })
    }

    /// Delivers frames until the stream fails.
    async fn stream(
        &self,
        mut session: Demuxed,
        video: Video,
        delivery: &mut Delivery,
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
                .map_err(|_| SourceFault::no_answer(&self.source, SourceStep::Stream, limit, true))?
                .ok_or_else(|| {
                    SourceFault::rtsp(
                        &self.source,
                        SourceFaultKind::Closed,
                        SourceStep::Stream,
                        "the server closed the connection",
                    )
                })?
                .map_err(|error| SourceFault::retina(&self.source, SourceStep::Stream, &error))?;
            match item {
                CodecItem::VideoFrame(frame) => {
                    limit = self.settings.silence_limit;
                    last_picture = Instant::now();
                    let picture = received(frame, &session, video, inspector.as_mut());
                    if delivery.deliver(picture) {
                        last_admitted = last_picture;
                    } else if last_admitted.elapsed() > KEY_LIMIT {
                        let cause = format!("no key picture for {} s", KEY_LIMIT.as_secs());
                        return Err(SourceFault::rtsp(
                            &self.source,
                            SourceFaultKind::Protocol,
                            SourceStep::Stream,
                            cause,
                        ));
                    }
                }
                CodecItem::Rtcp(packet) => note_sender_report(&packet, delivery),
                _ => {}
            }
        }
    }
}

fn note_sender_report(packet: &retina::rtcp::ReceivedCompoundPacket, delivery: &mut Delivery) {
    let Some(rtp) = packet.rtp_timestamp() else { return };
    for report in packet.pkts() {
        if let Ok(Some(report)) = report.as_sender_report() {
            delivery.sender_report(rtp_time(rtp), report.ntp_timestamp().0);
        }
    }
}

/// A frame as it came, judged.
fn received(
    frame: VideoFrame,
    session: &Demuxed,
    video: Video,
    inspector: Option<&mut PictureInspector>,
) -> ReceivedPicture {
    let received = frame.end_ctx().received().elapsed();
    let received_ns = clock::monotonic_ns()
        .saturating_sub(u64::try_from(received.as_nanos()).unwrap_or(u64::MAX));
    // The first packet is sent right after the picture was taken; the last one may be much later.
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
    ReceivedPicture {
        data,
        codec: video.codec,
        key,
        disposable,
        lost,
        orientation: Orientation::default(),
        time: rtp,
        received_ns,
        received_wall_ns,
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
