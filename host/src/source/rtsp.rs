//! The strict reader: one session of an RTSP camera with retina, up to the fault that ends it.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use ocelli_protocol::clock;
use ocelli_protocol::worker::{Codec, Orientation};
use retina::PacketContext;
use retina::client::{
    Credentials, Demuxed, Described, InitialTimestampPolicy, PlayOptions, Session, SessionGroup,
    SessionIdPolicy, SessionOptions, SetupOptions, TcpTransportOptions, TeardownPolicy,
    Transport as RetinaTransport, UdpTransportOptions, UnassignedChannelDataPolicy,
    UnknownRtcpSsrcPolicy,
};
use retina::codec::{CodecItem, FrameFormat, ParametersRef, VideoFrame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, trace, warn};

use super::delivery::{Delivery, ReceivedPicture};
use super::fault::{OtherReader, StreamError};
use super::nal::{NalCodec, PictureInfo, PictureInspector, RECOVERY_POINT_H264, split_annex_b};
use super::packet_flaws::PacketFlaws;
use super::timing::{RtpTime, SenderReport};
use super::udp::enlarge_receive_buffer;
use super::{SourceFault, SourceFaultKind, SourceStep};
use crate::config::source::{RtspSource, Transport};

/// Connecting, the request and the second one with the password. A camera that has just started
/// takes 2 to 3 s; one that takes longer than this is as good as away.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(5);
/// One request and its answer on an open connection.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Longest time without a key picture. A new session makes most encoders send one.
const KEY_LIMIT: Duration = Duration::from_secs(30);
/// After an unanswered request, for each step of another one: a server that accepts connections is
/// silent, else unreachable.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// The library does not wake its reader after a request of the server's own: whatever follows waits
/// until it is asked again. So it is asked again when nothing came for this long; a slow camera
/// costs 20 polls a second, a microsecond each.
const POLL_AGAIN: Duration = Duration::from_millis(50);
/// Once a keepalive was not answered, the library repeats that error whenever no packet is there.
/// This long a pause keeps that from filling a core, and a packet waits half of it on average.
const AFTER_KEEPALIVE: Duration = Duration::from_millis(20);
/// How long a new attempt waits for the old session's TEARDOWN. Cameras with few session slots need
/// it; a dead one answers never.
const TEARDOWN_LIMIT: Duration = Duration::from_secs(1);

/// The strict reader of one camera.
pub(super) struct StrictReader {
    source: RtspSource,
    group: Arc<SessionGroup>,
}

/// A stream that can be decoded.
#[derive(Clone, Copy)]
struct Video {
    index: usize,
    codec: Codec,
}

/// The codec of a name as the RTSP library gives it, in lower case.
fn codec_of(name: &str) -> Option<Codec> {
    match name {
        "h264" => Some(Codec::H264),
        "h265" => Some(Codec::H265),
        "jpeg" => Some(Codec::Mjpeg),
        _ => None,
    }
}

impl StrictReader {
    pub(super) fn new(source: RtspSource) -> Self {
        Self { source, group: Arc::default() }
    }

    /// One session, up to the fault that ends it. A panic of the RTSP library ends only the
    /// session.
    ///
    /// `impatient`: another reader is at hand, which bears more. The session ends as soon as it
    /// would do better.
    pub(super) async fn run_once(&self, delivery: &mut Delivery, impatient: bool) -> SourceFault {
        match AssertUnwindSafe(self.session(delivery, impatient)).catch_unwind().await {
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
        impatient: bool,
    ) -> Result<Infallible, SourceFault> {
        let (session, video) = self.open().await?;
        delivery.new_session();
        let others = session.streams().iter().enumerate();
        let others = others.filter(|(index, _)| *index != video.index).map(|(_, stream)| {
            self.source.scrub(&format!("{} {}", stream.media(), stream.encoding_name()))
        });
        delivery.set_other_streams(others.collect());
        if impatient {
            delivery.be_impatient();
        }
        self.stream(session, video, delivery, impatient).await
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
                let first_bytes = self.first_bytes().await;
                let first_bytes = first_bytes.as_deref();
                return Err(SourceFault::no_first_answer(source, DESCRIBE_LIMIT, first_bytes));
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
            .map_err(|_| SourceFault::no_answer(source, SourceStep::Setup, REQUEST_LIMIT))?
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
            .map_err(|_| SourceFault::no_answer(source, SourceStep::Play, REQUEST_LIMIT))?
            .map_err(failed(SourceStep::Play))?;
        Ok((session.demuxed().map_err(failed(SourceStep::Describe))?, video))
    }

    /// How the server answers a request on a connection of its own: its first bytes, none if it
    /// says nothing. `None` if it takes no connection.
    async fn first_bytes(&self) -> Option<Vec<u8>> {
        let connect = timeout(PROBE_LIMIT, TcpStream::connect(self.source.address())).await;
        let mut connection = connect.ok()?.ok()?;
        let mut answer = vec![0; 16];
        let ask = async {
            let request = format!("OPTIONS {} RTSP/1.0\r\nCSeq: 1\r\n\r\n", self.source.url());
            connection.write_all(request.as_bytes()).await?;
            connection.read(&mut answer).await
        };
        let read = timeout(PROBE_LIMIT, ask).await.map_or(0, Result::unwrap_or_default);
        answer.truncate(read);
        Some(answer)
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
                    codec_of(stream.encoding_name()).map(|codec| Video { index, codec })
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
            let misspelt = offered.iter().any(|name| codec_of(name.trim()).is_some());
            let offered = list(offered);
            let cause = format!(
                "video is {offered}, which is not supported; known are h264, h265 and jpeg"
            );
            let kind = SourceFaultKind::UnsupportedCodec;
            let fault = SourceFault::rtsp(&self.source, kind, SourceStep::Describe, cause);
            if misspelt { fault.with_other_reader(OtherReader::Helps) } else { fault }
        })
    }

    /// Delivers frames until the stream fails, or is silent for too long.
    async fn stream(
        &self,
        mut session: Demuxed,
        video: Video,
        delivery: &mut Delivery,
        impatient: bool,
    ) -> Result<Infallible, SourceFault> {
        let source = &self.source;
        let mut stream = PictureStream::new(video, Instant::now());
        // The library's stream ends behind some errors of packets.
        let mut last_error = None;
        loop {
            let until = delivery.silence_deadline().min(Instant::now() + POLL_AGAIN);
            let item = timeout_at(until, session.next()).await;
            let (now, error_before) = (Instant::now(), last_error.take());
            match item {
                Ok(Some(Ok(CodecItem::VideoFrame(frame)))) => {
                    if let Some(picture) = stream.received(frame, &session, now) {
                        stream.delivered(source, delivery.deliver(picture), now)?;
                    }
                }
                Ok(Some(Ok(CodecItem::Rtcp(packet)))) => {
                    stream.has_reports = true;
                    note_reports(&packet, delivery);
                }
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => match StreamError::retina(source, &error) {
                    StreamError::Packet(flaw) => {
                        stream.flaws.note(flaw, now);
                        delivery.left_out(flaw.words());
                        trace!(target: "ocelli::source", %source, "left out: {error}");
                        last_error = Some(error);
                    }
                    StreamError::Keepalive => {
                        if !std::mem::replace(&mut stream.lacks_keepalives, true) {
                            warn!(target: "ocelli::source", %source, "refuses or ignores keepalives");
                        }
                        tokio::time::sleep(AFTER_KEEPALIVE).await;
                    }
                    StreamError::Ended(fault) => return Err(fault),
                },
                Ok(None) => {
                    return Err(match error_before {
                        Some(error) => SourceFault::retina(source, SourceStep::Stream, &error),
                        None => self.closed(),
                    });
                }
                Err(_) => {}
            }
            stream.check(source, impatient, now)?;
            if now >= delivery.silence_deadline() {
                let silent = delivery.silent_for(now);
                let fault = SourceFault::no_answer(source, SourceStep::Stream, silent);
                // It is alive, and what it sends besides makes no picture for the library.
                let never_began = stream.has_reports && !stream.has_delivered;
                return Err(if never_began {
                    fault.with_other_reader(OtherReader::Helps)
                } else {
                    fault
                });
            }
        }
    }

    fn closed(&self) -> SourceFault {
        SourceFault::rtsp(
            &self.source,
            SourceFaultKind::Closed,
            SourceStep::Stream,
            "the server closed the connection",
        )
    }
}

fn note_reports(packet: &retina::rtcp::ReceivedCompoundPacket, delivery: &mut Delivery) {
    delivery.alive(Instant::now());
    let Some(rtp) = packet.rtp_timestamp() else { return };
    for report in packet.pkts() {
        if let Ok(Some(report)) = report.as_sender_report() {
            delivery.sender_report(SenderReport {
                rtp: rtp_time(rtp),
                ntp: report.ntp_timestamp().0,
                received_ns: received_ns(packet.ctx()),
                received_wall_ns: received_wall_ns(packet.ctx()),
            });
        }
    }
}

/// What is known of the pictures of one session.
struct PictureStream {
    video: Video,
    inspector: Option<PictureInspector>,
    flaws: PacketFlaws,
    /// Packets were lost before the next picture.
    lost: bool,
    lacks_keepalives: bool,
    has_reports: bool,
    /// Whether a picture was delivered, and when the last one was; at first, when the session
    /// began.
    has_delivered: bool,
    last_delivered: Instant,
}

impl PictureStream {
    fn new(video: Video, now: Instant) -> Self {
        let inspector = match video.codec {
            Codec::H264 => Some(PictureInspector::new(NalCodec::H264)),
            Codec::H265 => Some(PictureInspector::new(NalCodec::H265)),
            Codec::Mjpeg => None,
        };
        Self {
            video,
            inspector,
            flaws: PacketFlaws::new(now),
            lost: false,
            lacks_keepalives: false,
            has_reports: false,
            has_delivered: false,
            last_delivered: now,
        }
    }

    /// A frame as it came, judged. `None` if it holds no picture.
    fn received(
        &mut self,
        frame: VideoFrame,
        session: &Demuxed,
        now: Instant,
    ) -> Option<ReceivedPicture> {
        let codec = self.video.codec;
        // The first packet is sent right after the picture was taken; the last one may be much
        // later.
        let received_ns = received_ns(frame.end_ctx());
        let received_wall_ns = received_wall_ns(frame.start_ctx());
        let time = rtp_time(frame.timestamp());
        self.lost |= frame.loss() > 0;
        let has_sets = frame.is_random_access_point();
        let mut data = Bytes::from(frame.into_data());
        let picture = match &mut self.inspector {
            // No picture refers to another, but sessions that skip disposable ones need some.
            None => PictureInfo { key: true, disposable: false, whole: true, unmarked: false },
            Some(inspector) => {
                let sets = parameter_sets(session, self.video.index);
                inspector.inspect(split_annex_b(sets));
                let picture = inspector.inspect(split_annex_b(&data))?;
                if picture.key && (!has_sets || picture.unmarked) {
                    let mark: &[u8] = if picture.unmarked { &RECOVERY_POINT_H264 } else { &[] };
                    data = [sets, mark, &data].concat().into();
                }
                picture
            }
        };
        let lost = std::mem::take(&mut self.lost);
        let lost = self.flaws.frame(time, picture.whole || lost, now) || lost || !picture.whole;
        Some(ReceivedPicture {
            data,
            codec,
            key: picture.key && picture.whole,
            disposable: picture.disposable,
            lost,
            orientation: Orientation::default(),
            time,
            received_ns,
            received_wall_ns,
        })
    }

    /// Notes whether a picture was delivered. Without a key picture none is.
    fn delivered(
        &mut self,
        source: &RtspSource,
        delivered: bool,
        now: Instant,
    ) -> Result<(), SourceFault> {
        if delivered {
            (self.has_delivered, self.last_delivered) = (true, now);
        } else if now.duration_since(self.last_delivered) > KEY_LIMIT {
            return Err(broken(source, format!("no key picture for {} s", KEY_LIMIT.as_secs())));
        }
        Ok(())
    }

    /// Whether there is use in going on in spite of unusable packets.
    fn check(&self, source: &RtspSource, impatient: bool, now: Instant) -> Result<(), SourceFault> {
        let count = self.flaws.total();
        if self.flaws.is_hopeless(now) {
            let cause = format!("sends packets that cannot be used ({count} so far), and no other");
            let fault = broken(source, cause);
            return Err(match self.has_delivered {
                // A server that counts its packets anew: the next session is like the first.
                true => fault.with_other_reader(OtherReader::IfRepeated),
                false => fault,
            });
        }
        if impatient && self.flaws.call_for_other_reader(self.has_delivered, now) {
            let cause = format!(
                "{count} packets could not be used, and pictures are missing because of them"
            );
            return Err(broken(source, cause));
        }
        Ok(())
    }
}

fn broken(source: &RtspSource, cause: String) -> SourceFault {
    SourceFault::rtsp(source, SourceFaultKind::Protocol, SourceStep::Stream, cause)
}

fn received_ns(at: &PacketContext) -> u64 {
    let ago = u64::try_from(at.received().elapsed().as_nanos()).unwrap_or(u64::MAX);
    clock::monotonic_ns().saturating_sub(ago)
}

fn received_wall_ns(at: &PacketContext) -> u64 {
    let wall: SystemTime = at.received_wall().into();
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or_default()
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
