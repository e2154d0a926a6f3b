//! One `ocelli-rtsp` process: a session of a camera with the strict reader, in steps.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use ocelli_protocol::clock;
use ocelli_protocol::inference::packet_pair;
use ocelli_protocol::rtsp::{
    FromReader, MAX_PARAMETERS, MAX_PICTURE, MAX_STREAMS, Moment, OfferedStream, OpenCamera,
    Picture, Play, ReaderError, SenderReport,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::broker::{Admitted, Broker};
use super::process::{CAMERA_MEMORY, Descriptors, IngestError, IngestLauncher, IngestProcess};
use crate::config::source::{RtspSource, Transport};
use crate::util::bucket::{RateLimit, TokenBucket};

/// Messages of a process: a camera whose packets of a second stream are all unusable, one message
/// for each, beside its pictures; and at once what may have waited in the socket while the host was
/// busy.
const PACE: RateLimit = RateLimit { burst: 10_000.0, per_second: 4000.0 };

/// How long a process may go on to tell the camera of the session's end, and then to exit.
const TEARDOWN_LIMIT: Duration = Duration::from_millis(1500);

/// How long ago something may have come that is handed on now: what waits in the socket of a host
/// that was busy. A process that says otherwise is not believed.
const MAX_AGE_NS: u64 = 60_000_000_000;

/// Starts the strict reader's processes of one camera, one after the other.
#[derive(Clone, Debug)]
pub(in crate::source) struct StrictLauncher {
    launcher: IngestLauncher,
    admitted: Admitted,
    /// Has one permit, which a process holds until it has exited.
    place: Arc<Semaphore>,
}

/// What a process sends while it plays.
#[derive(Debug)]
pub(in crate::source) enum StrictItem {
    /// Parameter sets in Annex B.
    Parameters(Bytes),
    Picture(Picture, Bytes),
    Report(Option<SenderReport>),
    /// Something could not be used.
    Error(ReaderError),
    /// The camera has closed the connection.
    Ended,
}

impl StrictLauncher {
    pub(in crate::source) fn new(launcher: IngestLauncher, admitted: Admitted) -> Self {
        Self { launcher, admitted, place: Arc::new(Semaphore::new(1)) }
    }

    /// Starts a process, which connects and asks what the camera offers.
    pub(in crate::source) async fn start(
        &self,
        source: &RtspSource,
    ) -> Result<StrictProcess, IngestError> {
        // The one before has a bounded time to end.
        let place = Arc::clone(&self.place).acquire_owned().await;
        let place = place.map_err(|closed| IngestError::Start(std::io::Error::other(closed)))?;
        let (ours, theirs) = packet_pair().map_err(IngestError::Start)?;
        let broker = Broker::start(source.clone(), self.admitted.clone(), ours);
        let broker = broker.map_err(IngestError::Start)?;
        let descriptors = Descriptors::of_camera(theirs).map_err(IngestError::Start)?;
        let credentials = source.credentials.as_ref();
        let open = OpenCamera {
            url: source.url().to_string(),
            credentials: credentials.map(|known| (known.user.clone(), known.password.clone())),
            udp: source.transport == Transport::Udp,
            user_agent: concat!("ocelli/", env!("CARGO_PKG_VERSION")).to_owned(),
            memory: CAMERA_MEMORY,
        };
        // The path of a camera may be its password.
        let (host, port) = source.address();
        let name = format!("{host}:{port}");
        let process = self.launcher.start_strict(&name, &open, descriptors).await?;
        let messages = TokenBucket::full(PACE, Instant::now());
        Ok(StrictProcess {
            running: Some(Running { process, _broker: broker, _place: place }),
            messages,
        })
    }

    /// Waits, for a bounded time, until the camera has been told of the end of the session before.
    pub(in crate::source) async fn teardown(&self) {
        // Whether it was is of no matter: the next process waits for its place in any case.
        let _ = timeout(TEARDOWN_LIMIT, self.place.acquire()).await;
    }
}

/// A running process. Where it is dropped, it still tells the camera of the session's end.
#[derive(Debug)]
pub(in crate::source) struct StrictProcess {
    running: Option<Running>,
    messages: TokenBucket,
}

#[derive(Debug)]
struct Running {
    process: IngestProcess,
    /// It also connects for TEARDOWN.
    _broker: Broker,
    _place: OwnedSemaphorePermit,
}

impl StrictProcess {
    /// What the camera offers.
    pub(in crate::source) async fn described(
        &mut self,
        limit: Duration,
    ) -> Result<Result<Vec<OfferedStream>, ReaderError>, IngestError> {
        match self.receive(limit).await? {
            (FromReader::Described(mut streams), _) => {
                streams.truncate(MAX_STREAMS);
                Ok(Ok(streams))
            }
            other => self.failed(other),
        }
    }

    /// Asks for a stream.
    pub(in crate::source) async fn play(&mut self, stream: usize) -> Result<(), IngestError> {
        let stream = u32::try_from(stream).unwrap_or(u32::MAX);
        // One that has ended says so by its status.
        let _ = self.process()?.send(&Play { stream }).await;
        Ok(())
    }

    /// Waits for the answer to SETUP.
    pub(in crate::source) async fn set_up(
        &mut self,
        limit: Duration,
    ) -> Result<Result<(), ReaderError>, IngestError> {
        match self.receive(limit).await? {
            (FromReader::SetUp, _) => Ok(Ok(())),
            other => self.failed(other),
        }
    }

    /// Waits for the answer to PLAY.
    pub(in crate::source) async fn playing(
        &mut self,
        limit: Duration,
    ) -> Result<Result<(), ReaderError>, IngestError> {
        match self.receive(limit).await? {
            (FromReader::Playing, _) => Ok(Ok(())),
            other => self.failed(other),
        }
    }

    /// What comes next while it plays.
    pub(in crate::source) async fn next(
        &mut self,
        limit: Duration,
    ) -> Result<StrictItem, IngestError> {
        let item = match self.receive(limit).await? {
            (FromReader::Parameters, payload) => StrictItem::Parameters(payload.into()),
            (FromReader::Picture(mut picture), payload) => {
                believe(&mut picture.moment);
                StrictItem::Picture(picture, payload.into())
            }
            (FromReader::Report(mut report), _) => {
                report.iter_mut().for_each(|report| believe(&mut report.moment));
                StrictItem::Report(report)
            }
            (FromReader::Error(error), _) => StrictItem::Error(error),
            (FromReader::Ended, _) => StrictItem::Ended,
            (other, _) => return Err(self.process()?.broke_off(&other)),
        };
        if self.messages.take(PACE, Instant::now()).is_err() {
            return Err(IngestError::Flood);
        }
        Ok(item)
    }

    fn failed<T>(
        &mut self,
        (message, _): (FromReader, Vec<u8>),
    ) -> Result<Result<T, ReaderError>, IngestError> {
        match message {
            FromReader::Failed(error) => Ok(Err(error)),
            other => Err(self.process()?.broke_off(&other)),
        }
    }

    async fn receive(&mut self, limit: Duration) -> Result<(FromReader, Vec<u8>), IngestError> {
        let payload = |message: &FromReader| match message {
            FromReader::Picture(_) => MAX_PICTURE,
            FromReader::Parameters => MAX_PARAMETERS,
            _ => 0,
        };
        self.process()?.receive(limit, payload).await
    }

    fn process(&mut self) -> Result<&mut IngestProcess, IngestError> {
        let running = self.running.as_mut().map(|running| &mut running.process);
        running.ok_or_else(|| IngestError::Protocol("it has ended".to_owned()))
    }
}

impl Drop for StrictProcess {
    fn drop(&mut self) {
        let Some(Running { process, _broker, _place }) = self.running.take() else { return };
        // Without a runtime the host itself ends, and the process with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                process.end(TEARDOWN_LIMIT).await;
                drop((_broker, _place));
            });
        }
    }
}

/// Keeps the times of receipt within what can be.
fn believe(moment: &mut Moment) {
    let now = clock::monotonic_ns();
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let wall = u64::try_from(wall.as_nanos()).unwrap_or_default();
    moment.received_ns = moment.received_ns.clamp(now.saturating_sub(MAX_AGE_NS), now);
    moment.received_wall_ns = moment.received_wall_ns.clamp(wall.saturating_sub(MAX_AGE_NS), wall);
}
