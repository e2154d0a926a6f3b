//! One pipeline on recorded frames, without a host: `ocelli pipeline run` and `ocelli pipeline
//! test`.
//!
//! # Theory of operation
//!
//! A [`Player`] has what a host has for one session, with the limits of a config: the compiler, the
//! inference process, the readers of files, and a launcher of workers. So a pipeline runs in the
//! same program, confined in the same way, and within the same limits as in production, but for the
//! control group, which takes rights that an author seldom has.
//!
//! [`Player::play`] starts a worker and lets it process [`Footage`] up to its end, each frame of
//! it: one task reads and sends ([`feed`](footage::feed)), which waits where the worker is not done,
//! and the caller's task takes the outcomes in the order of the frames. There is one worker: what a
//! session would survive by starting another ends the run and is its result.
//!
//! A run may end in the middle with the pipeline's state, and another one go on from there: its
//! worker stands by, gets the store and the state, and leaves out the frames up to the last one of
//! the first run, as in a deployment.

mod figures;
mod footage;
mod line;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ocelli_protocol::decode_device::DecodeDevice;
use ocelli_protocol::inference::Priority;
use ocelli_protocol::worker::{
    Counters, Decode, Description, FrameResult, FromWorker, ToWorker, WorkerLimits,
};
use serde_json::{Map, Value};
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, Isolation, Sandbox};
use crate::deploy::{CompileError, Compiler, ComponentSource, PreparedComponent};
use crate::inference::InferenceHandle;
use crate::inference::catalog::Catalog;
use crate::journal::Journal;
use crate::redis::Redis;
use crate::session::StoreReplica;
use crate::source::Sources;
use crate::worker::{
    Handshake, Programs, READY_TIMEOUT, WorkerFault, WorkerHandle, WorkerLaunch, WorkerLauncher,
    Workload,
};

pub(crate) use figures::{Figures, Spread};
pub(crate) use footage::Footage;
use footage::{FedUnits, feed};
pub(crate) use line::{EventLine, FrameLine};

/// How long a worker that is done may take to end by itself.
const END_GRACE: Duration = Duration::from_secs(2);

/// The worker's name in the list of processes.
const NAME: &str = "pipeline-run";

/// What pipelines run with. See the module's documentation.
pub(crate) struct Player {
    compiler: Compiler,
    workers: WorkerLauncher,
    sources: Sources,
}

/// A run of a pipeline.
pub(crate) struct Playback<'a> {
    pub(crate) component: &'a PreparedComponent,
    pub(crate) settings: &'a Map<String, Value>,
    pub(crate) footage: &'a Footage,
    /// Whether each outcome has a picture with what was found drawn in.
    pub(crate) annotate: bool,
    /// The end of an earlier run, to go on from.
    pub(crate) resume: Option<&'a Handover>,
    /// The number of access units after which the run ends with the pipeline's state. `None`: it
    /// goes on to the end of the footage.
    pub(crate) until: Option<u64>,
}

/// What a run that ended in the middle leaves to the next.
pub(crate) struct Handover {
    /// Version of the pipeline that made the state.
    version: String,
    /// Empty: there is none.
    pub(crate) state: Vec<u8>,
    /// The last frame that was processed.
    pub(crate) last_frame: Option<u64>,
    store: StoreReplica,
}

/// The outcome of one frame.
pub(crate) struct FrameOutcome {
    pub(crate) line: FrameLine,
    pub(crate) picture: Option<AnnotatedPicture>,
}

/// A frame with what was found drawn in.
pub(crate) struct AnnotatedPicture {
    pub(crate) frame: u64,
    /// Presentation time in nanoseconds.
    pub(crate) presentation_ns: i64,
    /// Width and height in pixels.
    pub(crate) size: (u32, u32),
    pub(crate) jpeg: Vec<u8>,
}

/// A run that came to its end.
pub(crate) struct Played {
    pub(crate) description: Description,
    /// The measures of the sandbox that this machine lacks.
    pub(crate) unconfined: Option<String>,
    pub(crate) figures: Figures,
    pub(crate) end: PlaybackEnd,
}

/// How a run ended.
pub(crate) enum PlaybackEnd {
    /// At the end of the footage.
    Complete,
    /// In the middle, as it was to.
    Suspended(Handover),
    /// The worker is lost: a trap, a limit, a crash. In words, with a backtrace if there is one.
    Lost(String),
    /// The pipeline does not take the state that it was given, in its words.
    StateRefused(String),
}

impl Player {
    /// Starts the inference process with these models, if there are any. Compiled components are kept in `cache`.
    pub(crate) async fn new(
        mut config: Config,
        models: &Catalog,
        cache: &Path,
    ) -> anyhow::Result<Self> {
        // A spare is for sessions that must not wait.
        config.inference.spare = false;
        config.inference.isolation = Isolation::Process;
        config.inference.preload.clear();
        // What this machine lacks, the run says.
        config.session_processes.sandbox = Sandbox::BestEffort;
        let programs = Programs::find()?;
        let sandbox = config.session_processes.sandbox;
        let compiler =
            Compiler::new(programs.compile.clone(), cache, sandbox, None, &config.deploy).await?;
        // Whoever needs no model needs no ONNX Runtime.
        let inference = match models.names().next() {
            None if !config.inference.load => InferenceHandle::without_models(),
            _ => InferenceHandle::start(programs.inference.clone(), models, &config).await?,
        };
        let sources = Sources::new(programs.readers.clone(), Journal::temporary()?, &config);
        let workers = WorkerLauncher::new(&programs, inference, Redis::new(None), None, &config);
        Ok(Self { compiler, workers, sources })
    }

    /// Checks a component and compiles it, as a deployment does.
    pub(crate) async fn prepare(&self, file: PathBuf) -> Result<PreparedComponent, CompileError> {
        let shown = file.display().to_string();
        self.compiler.prepare(NAME, &shown, ComponentSource::Path(file)).await
    }

    /// What a worker may use.
    pub(crate) fn limits(&self) -> WorkerLimits {
        self.workers.limits()
    }

    /// Runs a pipeline; `take` gets the outcome of each frame, in their order. Fails where the
    /// pipeline does not start, or the footage cannot be read or has no picture, and with the
    /// error of `take`.
    pub(crate) async fn play(
        &self,
        playback: Playback<'_>,
        take: &mut (dyn FnMut(FrameOutcome) -> anyhow::Result<()> + Send),
    ) -> anyhow::Result<Played> {
        let started = self.start(&playback).await;
        let (mut worker, mut store) = started.context("the pipeline does not start")?;
        let description = worker.description().cloned().context("it has not described itself")?;
        let unconfined = worker
            .confinement()
            .filter(|confinement| !confinement.is_complete())
            .map(|confinement| confinement.missing_text());
        let mut sender = worker.take_sender().context("the worker is gone")?;
        if let Some(Handover { version, state, last_frame, store }) = playback.resume {
            // A worker that is gone is noticed by its messages.
            let _ = sender.send(&ToWorker::LoadStore, &store.encode()).await;
            if !state.is_empty() {
                let restore = ToWorker::Restore { version: version.clone() };
                let _ = sender.send(&restore, state).await;
            }
            let _ = sender.send(&ToWorker::Activate { after: *last_frame }, &[]).await;
        }
        let (footage, sources) = (playback.footage.clone(), self.sources.clone());
        let feeding = tokio::spawn(feed(footage, sources, sender, playback.until));
        let mut feeding = AbortOnDropHandle::new(feeding);
        let mut run = Run::new(&playback);
        let mut fed: Option<FedUnits> = None;
        let mut fault = None;
        let end = loop {
            let message = tokio::select! {
                done = &mut feeding, if fed.is_none() => {
                    fed = Some(done.context("reading the footage")??);
                    continue;
                }
                message = worker.next() => message,
            };
            let ended = match message {
                Ok((message, payload)) => {
                    run.on_message(message, payload, (&worker, &mut store), &description, take)?
                }
                Err(lost) => {
                    fault = Some(lost.to_string());
                    Some(PlaybackEnd::Lost(String::new()))
                }
            };
            if let Some(end) = ended {
                break end;
            }
        };
        let used = worker.used();
        if !matches!(end, PlaybackEnd::Complete | PlaybackEnd::Suspended(_)) && !run.has_failed {
            // It may live, and take nothing more of what is sent to it.
            worker.kill();
        }
        let fed = match fed {
            Some(fed) => fed,
            // The worker is done, so its reader is, or has nobody to send to.
            None => match tokio::time::timeout(END_GRACE, &mut feeding).await {
                Ok(done) => done.context("reading the footage")??,
                // It has said that it ends, and does not.
                Err(_) => {
                    worker.kill();
                    feeding.await.context("reading the footage")??
                }
            },
        };
        let FedUnits { units, lost, damaged, sender } = fed;
        drop(sender);
        let exit = worker.end(END_GRACE).await;
        let end = match fault {
            Some(fault) => PlaybackEnd::Lost(format!("{fault} ({})", exit.status)),
            None => end,
        };
        run.figures.close(units, lost, damaged, used);
        Ok(Played { description, unconfined, figures: run.figures, end })
    }

    /// A worker that is ready, and the store as its `init` has left it.
    async fn start(&self, playback: &Playback<'_>) -> anyhow::Result<(WorkerHandle, StoreReplica)> {
        let pipeline = playback.component.compiled_pipeline("");
        let mut replica = playback.resume.map(|before| before.store.clone()).unwrap_or_default();
        let store = replica.encode();
        let launch = WorkerLaunch {
            name: NAME,
            deployment: pipeline.id(),
            component: &playback.component.compiled,
            settings: playback.settings,
            limits: self.workers.limits(),
            workload: Workload::Stream {
                live: false,
                priority: Priority::default(),
                decode: Decode::All,
                decode_device: &DecodeDevice::Cpu,
                standby: playback.resume.is_some(),
                redis_prefix: None,
                directories: &[],
                store: &store,
                annotate: playback.annotate,
            },
        };
        let mut worker = self.workers.launch(launch).await?;
        let ready = async {
            loop {
                let (message, _) = worker.next().await.map_err(anyhow::Error::from)?;
                match worker.handshake(message)? {
                    Handshake::Ready => return anyhow::Ok(()),
                    Handshake::StoreCommit(changes) => replica.apply(&changes, worker.limits())?,
                    Handshake::Pending => {}
                }
            }
        };
        let ready = tokio::time::timeout(READY_TIMEOUT, ready).await;
        ready.with_context(|| format!("not ready within {} s", READY_TIMEOUT.as_secs()))??;
        Ok((worker, replica))
    }
}

/// What came of a run so far.
struct Run {
    deployment: String,
    /// The footage's path, to be shown.
    footage: String,
    figures: Figures,
    /// The totals with the last outcome.
    counters: Counters,
    /// The picture of the frame whose outcome comes next.
    picture: Option<AnnotatedPicture>,
    /// The worker has said that it cannot go on, and ends by itself.
    has_failed: bool,
}

impl Run {
    fn new(playback: &Playback<'_>) -> Self {
        Self {
            deployment: playback.component.compiled_pipeline("").id().to_owned(),
            footage: playback.footage.shown(),
            figures: Figures::default(),
            counters: Counters::default(),
            picture: None,
            has_failed: false,
        }
    }

    /// Handles a message of the worker. Whether the run is at its end, and how.
    fn on_message(
        &mut self,
        message: FromWorker,
        payload: Vec<u8>,
        (worker, store): (&WorkerHandle, &mut StoreReplica),
        description: &Description,
        take: &mut (dyn FnMut(FrameOutcome) -> anyhow::Result<()> + Send),
    ) -> anyhow::Result<Option<PlaybackEnd>> {
        match message {
            FromWorker::Heartbeat { .. } | FromWorker::Active | FromWorker::Restored(Ok(())) => {}
            FromWorker::Annotated { frame, presentation_ns, size } => {
                let jpeg = payload;
                self.picture = Some(AnnotatedPicture { frame, presentation_ns, size, jpeg });
            }
            FromWorker::Result { result, counters } => {
                if let Err(exceeded) = worker.validate(&result) {
                    return Ok(Some(PlaybackEnd::Lost(exceeded.to_string())));
                }
                let outcome = self.on_result(&result, counters)?;
                take(outcome)?;
            }
            FromWorker::FrameFailed { frame, message, counters } => {
                self.counters = counters;
                self.figures.on_failed(frame, &message);
                let line = FrameLine::failed(frame, message);
                take(FrameOutcome { line, picture: self.picture.take() })?;
            }
            FromWorker::StoreCommit(changes) => {
                if let Err(fault) = store.apply(&changes, worker.limits()) {
                    return Ok(Some(PlaybackEnd::Lost(fault.to_string())));
                }
            }
            FromWorker::Snapshot { last_frame, .. } => {
                let (version, store) = (description.version.clone(), store.clone());
                let handover = Handover { version, state: payload, last_frame, store };
                return Ok(Some(PlaybackEnd::Suspended(handover)));
            }
            FromWorker::Finished { counters, damage } => {
                self.figures.on_finished(&counters);
                if counters.decoded == 0 {
                    let why = damage.map(|words| format!(": {words}")).unwrap_or_default();
                    bail!("{}: no picture of it can be decoded{why}", self.footage);
                }
                return Ok(Some(PlaybackEnd::Complete));
            }
            FromWorker::Restored(Err(words)) => {
                return Ok(Some(PlaybackEnd::StateRefused(words)));
            }
            FromWorker::Failed { stage, message, .. } => {
                self.has_failed = true;
                let fault = WorkerFault::failed(stage, &message);
                return Ok(Some(PlaybackEnd::Lost(fault.to_string())));
            }
            other => {
                let fault = WorkerFault::unexpected(&other);
                return Ok(Some(PlaybackEnd::Lost(fault.to_string())));
            }
        }
        Ok(None)
    }

    fn on_result(
        &mut self,
        result: &FrameResult,
        counters: Counters,
    ) -> anyhow::Result<FrameOutcome> {
        let before = std::mem::replace(&mut self.counters, counters);
        let call_ns = result.timestamps.emitted.saturating_sub(result.timestamps.submitted);
        let inference_ns =
            counters.inference_call_ns.saturating_sub(before.inference_call_ns).min(call_ns);
        let inferred = counters.inferred > before.inferred;
        let line = FrameLine::of(result, &self.deployment)?
            .timed(call_ns - inference_ns, inferred.then_some(inference_ns));
        self.figures.on_line(&line, call_ns - inference_ns, inferred.then_some(inference_ns));
        Ok(FrameOutcome { line, picture: self.picture.take() })
    }
}
