//! The strict reader: one session of an RTSP camera with retina, in a process of its own, up to the
//! fault that ends it.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use ocelli_protocol::rtsp::{Moment, OfferedStream, Picture, ReaderError};
use ocelli_protocol::worker::{Codec, Orientation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::{debug, trace, warn};

use super::delivery::{Delivery, ReceivedPicture};
use super::fault::{OtherReader, StreamError, one_line};
use super::ingest::{IngestError, StrictItem, StrictLauncher, StrictProcess};
use super::nal::{NalCodec, PictureInfo, PictureInspector, RECOVERY_POINT_H264, split_annex_b};
use super::packet_flaws::PacketFlaws;
use super::timing::{RtpTime, SenderReport};
use super::{SourceFault, SourceFaultKind, SourceStep};
use crate::config::source::RtspSource;

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

/// The strict reader of one camera.
pub(super) struct StrictReader {
    source: RtspSource,
    processes: StrictLauncher,
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
    pub(super) fn new(source: RtspSource, processes: StrictLauncher) -> Self {
        Self { source, processes }
    }

    /// One session, up to the fault that ends it.
    ///
    /// `impatient`: another reader is at hand, which bears more. The session ends as soon as it
    /// would do better.
    pub(super) async fn run_once(&self, delivery: &mut Delivery, impatient: bool) -> SourceFault {
        match self.session(delivery, impatient).await {
            Ok(never) => match never {},
            Err(fault) => fault,
        }
    }

    /// Waits, for a bounded time, until the server has been told of the end of the session before.
    pub(super) async fn teardown(&self) {
        self.processes.teardown().await;
    }

    async fn session(
        &self,
        delivery: &mut Delivery,
        impatient: bool,
    ) -> Result<Infallible, SourceFault> {
        let (process, streams, video) = self.open().await?;
        delivery.new_session();
        let others = streams.iter().enumerate().filter(|(index, _)| *index != video.index);
        let others = others.map(|(_, OfferedStream { media, encoding })| {
            one_line(&self.source.scrub(&format!("{media} {encoding}")))
        });
        delivery.set_other_streams(others.collect());
        if impatient {
            delivery.be_impatient();
        }
        self.stream(process, video, delivery, impatient).await
    }

    /// DESCRIBE, SETUP and PLAY, each within its limit.
    async fn open(&self) -> Result<(StrictProcess, Vec<OfferedStream>, Video), SourceFault> {
        let source = &self.source;
        let lost = |step| move |error: IngestError| SourceFault::of_reader(source, step, &error);
        let failed = |step| move |error: ReaderError| SourceFault::retina(source, step, &error);
        debug!(target: "ocelli::source", %source, "connecting");

        let started = self.processes.start(source).await;
        let mut process = started.map_err(lost(SourceStep::Describe))?;
        let streams = match process.described(DESCRIBE_LIMIT).await {
            Err(IngestError::Silent(_)) => {
                drop(process);
                let first_bytes = self.first_bytes().await;
                let first_bytes = first_bytes.as_deref();
                return Err(SourceFault::no_first_answer(source, DESCRIBE_LIMIT, first_bytes));
            }
            described => described
                .map_err(lost(SourceStep::Describe))?
                .map_err(failed(SourceStep::Describe))?,
        };
        let video = self.choose(&streams)?;
        process.play(video.index).await.map_err(lost(SourceStep::Setup))?;
        for step in [SourceStep::Setup, SourceStep::Play] {
            let answer = match step {
                SourceStep::Setup => process.set_up(REQUEST_LIMIT).await,
                _ => process.playing(REQUEST_LIMIT).await,
            };
            match answer {
                Err(IngestError::Silent(limit)) => {
                    return Err(SourceFault::no_answer(source, step, limit));
                }
                answer => answer.map_err(lost(step))?.map_err(failed(step))?,
            }
        }
        Ok((process, streams, video))
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

    /// The first video stream that can be decoded.
    fn choose(&self, streams: &[OfferedStream]) -> Result<Video, SourceFault> {
        let is_video = |media: &str| matches!(media, "video" | "image");
        let known =
            streams.iter().enumerate().filter(|(_, stream)| is_video(&stream.media)).find_map(
                |(index, stream)| codec_of(&stream.encoding).map(|codec| Video { index, codec }),
            );
        known.ok_or_else(|| {
            let list = |names: Vec<&str>| one_line(&self.source.scrub(&names.join(", ")));
            let offered: Vec<&str> = streams
                .iter()
                .filter(|stream| is_video(&stream.media))
                .map(|stream| stream.encoding.as_str())
                .collect();
            if offered.is_empty() {
                let media = list(streams.iter().map(|stream| stream.media.as_str()).collect());
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
        mut process: StrictProcess,
        video: Video,
        delivery: &mut Delivery,
        impatient: bool,
    ) -> Result<Infallible, SourceFault> {
        let source = &self.source;
        let mut stream = PictureStream::new(video, Instant::now());
        // The library's stream ends behind some errors of packets.
        let mut last_error = None;
        loop {
            let left = delivery.silence_deadline().saturating_duration_since(Instant::now());
            let item = process.next(left).await;
            let (now, error_before) = (Instant::now(), last_error.take());
            match item {
                Ok(StrictItem::Parameters(sets)) => {
                    stream.parameters = sets;
                    last_error = error_before;
                }
                Ok(StrictItem::Picture(picture, data)) => {
                    if let Some(picture) = stream.received(picture, data, now) {
                        stream.delivered(source, delivery.deliver(picture), now)?;
                    }
                }
                Ok(StrictItem::Report(report)) => {
                    stream.has_reports = true;
                    delivery.alive(now);
                    if let Some(report) = report {
                        delivery.sender_report(sender_report(&report));
                    }
                }
                Ok(StrictItem::Error(error)) => match StreamError::retina(source, &error) {
                    StreamError::Packet(flaw) => {
                        stream.flaws.note(flaw, now);
                        delivery.left_out(flaw.words());
                        trace!(target: "ocelli::source", %source, "left out: {}", error.text);
                        last_error = Some(error);
                    }
                    StreamError::Keepalive => {
                        if !std::mem::replace(&mut stream.lacks_keepalives, true) {
                            warn!(target: "ocelli::source", %source, "refuses or ignores keepalives");
                        }
                    }
                    StreamError::Ended(fault) => return Err(fault),
                },
                Ok(StrictItem::Ended) => {
                    return Err(match error_before {
                        Some(error) => SourceFault::retina(source, SourceStep::Stream, &error),
                        None => self.closed(),
                    });
                }
                // The deadline is judged below.
                Err(IngestError::Silent(_)) => {}
                Err(error) => {
                    return Err(SourceFault::of_reader(source, SourceStep::Stream, &error));
                }
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

fn sender_report(report: &ocelli_protocol::rtsp::SenderReport) -> SenderReport {
    let ocelli_protocol::rtsp::SenderReport { moment, ntp } = *report;
    SenderReport {
        rtp: rtp_time(&moment),
        ntp,
        received_ns: moment.received_ns,
        received_wall_ns: moment.received_wall_ns,
    }
}

/// What is known of the pictures of one session.
struct PictureStream {
    video: Video,
    inspector: Option<PictureInspector>,
    /// The stream's own, in Annex B form; empty where it has not sent any yet.
    parameters: Bytes,
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
        let inspector = NalCodec::of(video.codec).map(PictureInspector::new);
        Self {
            video,
            inspector,
            parameters: Bytes::new(),
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
        frame: Picture,
        mut data: Bytes,
        now: Instant,
    ) -> Option<ReceivedPicture> {
        let Picture { moment, lost, has_sets } = frame;
        let (codec, time) = (self.video.codec, rtp_time(&moment));
        self.lost |= lost;
        let picture = match &mut self.inspector {
            // No picture refers to another, but sessions that skip disposable ones need some.
            None => PictureInfo { key: true, disposable: false, whole: true, unmarked: false },
            Some(inspector) => {
                let sets = &self.parameters;
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
            received_ns: moment.received_ns,
            received_wall_ns: moment.received_wall_ns,
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

fn rtp_time(moment: &Moment) -> RtpTime {
    RtpTime { ticks: moment.ticks, rate: moment.rate.get() }
}
