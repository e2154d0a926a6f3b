//! The strict reader's process: one session of an RTSP camera with retina, for the host.
//!
//! retina keeps what belongs to a picture or an answer until it is whole, and has no bound for
//! that. So it runs here, where a camera can fill no other camera's memory: bytes are counted as
//! they come ([`crate::network`]) and end at a budget, and the process has a limit of memory for
//! what grows beyond the bytes that made it. Pictures, reports and errors go to the host as they
//! are: it judges them.
//!
//! ```text
//! host --Open, Play--> session --Described, SetUp, Playing, pictures, errors--> host
//!                         | retina <== socket of the camera
//!                         '-- connect, getaddrinfo --> host
//! ```

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use bytes::Buf;
use futures_util::StreamExt;
use ocelli_protocol::clock;
use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::rtsp::{
    ANSWER_BUDGET, FromReader, MAX_PARAMETERS, MAX_PICTURE, MAX_STREAMS, Moment, OfferedStream,
    OpenCamera, PICTURE_BUDGET, Picture, Play, ReaderError, SenderReport, error_text, word,
};
use ocelli_protocol::wire;
use ocelli_sandbox::limit;
use retina::client::{
    Credentials, Demuxed, InitialTimestampPolicy, PlayOptions, Session, SessionGroup,
    SessionIdPolicy, SessionOptions, SetupOptions, TcpTransportOptions, TeardownPolicy, Transport,
    UdpTransportOptions, UnassignedChannelDataPolicy, UnknownRtcpSsrcPolicy,
};
use retina::codec::{CodecItem, FrameFormat, ParametersRef, VideoFrame};
use retina::rtcp::ReceivedCompoundPacket;
use retina::{PacketContext, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::network::{Network, allow, is_over_budget};
use crate::session::{Inherited, limit_memory};

/// The library does not wake its reader after a request of the server's own: whatever follows waits
/// until it is asked again. So it is asked again when nothing came for this long; a slow camera
/// costs 20 polls a second, a microsecond each.
const POLL_AGAIN: Duration = Duration::from_millis(50);

/// Once a keepalive was not answered, the library repeats that error whenever no packet is there.
/// This long a pause keeps that from filling a core, and a packet waits half of it on average.
const AFTER_ERROR: Duration = Duration::from_millis(20);

/// Reports that are passed on have at least this long between them: a camera sends one in some
/// seconds, and more of them say no more.
const BETWEEN_REPORTS: Duration = Duration::from_millis(50);

/// How long the process goes on for TEARDOWN. Cameras with few session slots need it; a dead one
/// answers never.
const TEARDOWN_LIMIT: Duration = Duration::from_secs(1);

/// Descriptors: the inherited ones, those of the runtime, the session's socket and two of UDP, the
/// host's on the way, and as many again for TEARDOWN.
const OPEN_FILES: u64 = 48;

/// Reads what the host asks for. A fault of the camera is reported to the host and is no error.
/// `confine` confines the process, and says what is in force.
pub fn run(inherited: Inherited, confine: &dyn Fn() -> Confinement) -> anyhow::Result<()> {
    let Inherited { host, network, file: _null } = inherited;
    // It makes sockets of its own at its start. One thread beside this one resolves the camera's
    // name, once it is confined.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(1)
        .build()?;
    let confinement = confine();
    let mut requests = wire::Reader::new(UnixStream::from(host));
    let (open, _): (OpenCamera, _) = requests.read().context("what to read")?;
    limit_memory(open.memory)?;
    limit::open_files(OPEN_FILES).context("limiting descriptors")?;
    let host = requests.get_ref().try_clone()?;
    wire::write(&mut &host, &FromReader::SandboxReport(confinement), &[])?;
    Network::install(network);
    host.set_nonblocking(true)?;
    runtime.block_on(serve(host, open))
}

/// One session, and its end for the camera.
async fn serve(host: UnixStream, open: OpenCamera) -> anyhow::Result<()> {
    let (mut commands, host) = tokio::net::UnixStream::from_std(host)?.into_split();
    let group = Arc::<SessionGroup>::default();
    let mut session = CameraSession { open, group: Arc::clone(&group), host: HostSocket(host) };
    let done = session.run(&mut commands).await;
    let stale = group.stale_sessions();
    let _ = timeout(TEARDOWN_LIMIT, group.await_stale_sessions(&stale)).await;
    done
}

/// The stream socket to the host.
struct HostSocket(OwnedWriteHalf);

impl HostSocket {
    async fn send(&mut self, message: &FromReader, payload: &[u8]) -> anyhow::Result<()> {
        let head = wire::encode(message, payload.len())?;
        // In one call: the host wakes once.
        Ok(self.0.write_all_buf(&mut Buf::chain(head.as_slice(), payload)).await?)
    }
}

struct CameraSession {
    open: OpenCamera,
    group: Arc<SessionGroup>,
    host: HostSocket,
}

impl CameraSession {
    /// Up to the camera's end or the host's.
    async fn run(&mut self, commands: &mut OwnedReadHalf) -> anyhow::Result<()> {
        allow(ANSWER_BUDGET);
        let url = self.open.url.parse().context("the URL")?;
        let describe = Session::describe(url, self.options());
        let mut session = tokio::select! {
            described = describe => match described {
                Ok(session) => session,
                Err(error) => return self.failed(&error).await,
            },
            // It says nothing before it knows what is there: it has closed its end.
            _ = commands.readable() => return Ok(()),
        };
        let streams = session.streams().iter().take(MAX_STREAMS);
        let streams = streams.map(|stream| OfferedStream {
            media: word(stream.media()),
            encoding: word(stream.encoding_name()),
        });
        self.host.send(&FromReader::Described(streams.collect()), &[]).await?;
        let Some(Play { stream }) = command(commands).await? else { return Ok(()) };

        allow(PICTURE_BUDGET);
        let index = usize::try_from(stream)?;
        anyhow::ensure!(index < session.streams().len(), "no stream {stream}");
        let play = async {
            let transport = match self.open.udp {
                false => Transport::Tcp(TcpTransportOptions::default()),
                true => Transport::Udp(UdpTransportOptions::default()),
            };
            let setup =
                SetupOptions::default().transport(transport).frame_format(FrameFormat::SIMPLE);
            if let Err(error) = session.setup(index, setup).await {
                return self.failed(&error).await;
            }
            self.host.send(&FromReader::SetUp, &[]).await?;
            // Cameras get RTP-Info wrong in many ways, and nothing here needs it: there is one
            // stream.
            let play = PlayOptions::default()
                .initial_timestamp(InitialTimestampPolicy::Permissive)
                .unknown_rtcp_ssrc(UnknownRtcpSsrcPolicy::ProcessPackets);
            match session.play(play).await.and_then(Session::demuxed) {
                Ok(playing) => {
                    self.host.send(&FromReader::Playing, &[]).await?;
                    self.stream(playing, index).await
                }
                Err(error) => self.failed(&error).await,
            }
        };
        tokio::select! {
            done = play => done,
            _ = commands.read_u8() => Ok(()),
        }
    }

    fn options(&self) -> SessionOptions {
        let credentials = self.open.credentials.clone();
        let credentials =
            credentials.map(|(username, password)| Credentials { username, password });
        SessionOptions::default()
            .creds(credentials)
            .user_agent(self.open.user_agent.clone())
            .session_group(Arc::clone(&self.group))
            .teardown(TeardownPolicy::Auto)
            .unassigned_channel_data(UnassignedChannelDataPolicy::Auto)
            .session_id(SessionIdPolicy::UseFirst)
    }

    async fn failed(&mut self, error: &retina::Error) -> anyhow::Result<()> {
        self.host.send(&FromReader::Failed(reader_error(error)), &[]).await
    }

    /// Sends what comes until the camera ends it.
    async fn stream(&mut self, mut session: Demuxed, index: usize) -> anyhow::Result<()> {
        let mut parameters = Vec::new();
        let mut reported = None::<Instant>;
        loop {
            let Ok(item) = timeout(POLL_AGAIN, session.next()).await else { continue };
            match item {
                Some(Ok(CodecItem::VideoFrame(frame))) => {
                    allow(PICTURE_BUDGET);
                    let now = parameter_sets(&session, index);
                    if now != parameters && now.len() <= MAX_PARAMETERS {
                        now.clone_into(&mut parameters);
                        self.host.send(&FromReader::Parameters, &parameters).await?;
                    }
                    self.picture(frame).await?;
                }
                Some(Ok(CodecItem::Rtcp(packet))) => {
                    if reported.is_none_or(|at| at.elapsed() >= BETWEEN_REPORTS) {
                        reported = Some(Instant::now());
                        self.reports(&packet).await?;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let error = reader_error(&error);
                    // The library writes the packet's place behind errors of packets.
                    let is_of_packet = error.text.contains("\npkt: ");
                    self.host.send(&FromReader::Error(error), &[]).await?;
                    if !is_of_packet {
                        tokio::time::sleep(AFTER_ERROR).await;
                    }
                }
                None => return self.host.send(&FromReader::Ended, &[]).await,
            }
        }
    }

    async fn picture(&mut self, frame: VideoFrame) -> anyhow::Result<()> {
        let picture = Picture {
            // The first packet is sent right after the picture was taken; the last one may be much
            // later.
            moment: Moment {
                received_wall_ns: received_wall_ns(frame.start_ctx()),
                ..moment(frame.timestamp(), frame.end_ctx())
            },
            lost: frame.loss() > 0,
            has_sets: frame.is_random_access_point(),
        };
        let data = frame.data();
        if data.len() > MAX_PICTURE {
            let text = format!("a picture of {} bytes", data.len());
            let error = ReaderError { status: None, is_over_budget: true, text };
            return self.host.send(&FromReader::Error(error), &[]).await;
        }
        self.host.send(&FromReader::Picture(picture), data).await
    }

    async fn reports(&mut self, packet: &ReceivedCompoundPacket) -> anyhow::Result<()> {
        let report = packet.rtp_timestamp().and_then(|rtp| {
            let report = packet.pkts().find_map(|report| report.as_sender_report().ok().flatten());
            let ntp = report?.ntp_timestamp().0;
            Some(SenderReport { moment: moment(rtp, packet.ctx()), ntp })
        });
        self.host.send(&FromReader::Report(report), &[]).await
    }
}

/// The host's next command. `None` where it has closed its end.
async fn command(from: &mut OwnedReadHalf) -> anyhow::Result<Option<Play>> {
    let mut header = [0; wire::HEADER];
    if from.read_exact(&mut header).await.is_err() {
        return Ok(None);
    }
    let (message, _) = wire::decode_header(header)?;
    let mut bytes = vec![0; message];
    from.read_exact(&mut bytes).await?;
    Ok(Some(wire::decode(&bytes)?))
}

fn reader_error(error: &retina::Error) -> ReaderError {
    ReaderError {
        status: error.status_code(),
        is_over_budget: is_over_budget(),
        text: error_text(&error.to_string()),
    }
}

fn moment(timestamp: Timestamp, at: &PacketContext) -> Moment {
    let ago = u64::try_from(at.received().elapsed().as_nanos()).unwrap_or(u64::MAX);
    Moment {
        ticks: timestamp.timestamp(),
        rate: timestamp.clock_rate(),
        received_ns: clock::monotonic_ns().saturating_sub(ago),
        received_wall_ns: received_wall_ns(at),
    }
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
