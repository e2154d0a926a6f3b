//! The bare loop: the work of a session as one native loop in one process, without any isolation.
//!
//! What it shares with the chain is not imitated but linked: the worker's decoder and resampler,
//! and the default pipeline's boxes, suppression and tracks. What it leaves out is the chain's own:
//! RTSP or file reading (the clip is in memory), sockets, processes, WebAssembly, supervision,
//! JSON.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use object_detect::engine::Engine;
use object_detect::settings::Settings;
use ocelli::config::source::Source;
use ocelli::source::{AccessUnit, SourceEvent};
use ocelli_protocol::worker::Decode;
use ocelli_sdk::Letterbox;
use ocelli_sdk::nanodet::{self, Variant};
use ocelli_worker::video::{self, Frame, Resampler, Stream, TensorSpec};
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What one segment of the loop did.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Segment {
    /// Frames that went all the way.
    pub results: u64,
    /// Objects found in them.
    pub detections: u64,
    /// User and system time of the process, in seconds.
    pub cpu_s: f64,
    /// Wall-clock seconds.
    pub wall_s: f64,
    /// CPU time of the loop's thread by station, in seconds.
    pub stations: FrameTimes,
}

/// CPU seconds of the loop's parts.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct FrameTimes {
    /// Access unit to picture.
    pub decode_s: f64,
    /// Picture to tensor.
    pub tensor_s: f64,
    /// The model.
    pub model_s: f64,
    /// Boxes, suppression, tracks.
    pub boxes_s: f64,
}

/// Says `ready` when everything is loaded and warm. Then each line of `commands`, a number of
/// seconds, is answered by a [`Segment`] in JSON. Returns at the end of `commands`.
pub fn serve(
    library: &Path,
    model: &Path,
    clip: &Path,
    commands: impl BufRead,
    mut answers: impl Write,
) -> Result<()> {
    let mut bare = BareLoop::new(library, model, clip)?;
    // The first run of a model costs twice as much as those that follow.
    bare.run(Duration::from_millis(500))?;
    writeln!(answers, "ready")?;
    answers.flush()?;
    for line in commands.lines() {
        let line = line?;
        let seconds =
            line.trim().parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
        let seconds = seconds.with_context(|| format!("{line:?} is no number of seconds"))?;
        serde_json::to_writer(&mut answers, &bare.run(seconds)?)?;
        writeln!(answers)?;
        answers.flush()?;
    }
    Ok(())
}

/// Everything that the loop needs, loaded.
pub struct BareLoop {
    units: Vec<AccessUnit>,
    /// Nanoseconds from one beginning of the clip to the next.
    period_ns: i64,
    /// How many times the clip was begun.
    rounds: u64,
    next: usize,
    stream: Stream,
    decoded: Vec<Frame>,
    work: Work,
}

/// What turns a picture into a result.
struct Work {
    variant: Variant,
    spec: TensorSpec,
    resampler: Resampler,
    input: Vec<f32>,
    session: Session,
    engine: Engine,
}

impl BareLoop {
    /// Loads library, model and clip.
    pub fn new(library: &Path, model: &Path, clip: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let units = runtime.block_on(units(clip))?;
        let settings = Settings::read("{}").map_err(anyhow::Error::msg)?;
        let variant =
            nanodet::find(&settings.model, "settings.model").map_err(anyhow::Error::msg)?;
        let spec = spec(&variant);
        let environment = ort::init_from(library)
            .map_err(|error| anyhow::anyhow!("{}: {error}", library.display()))?
            .with_name("bare-loop")
            .with_telemetry(false)
            .build()?;
        environment.set_log_level(LogLevel::Warning);
        let work = Work {
            variant,
            spec,
            resampler: Resampler::new(),
            input: vec![0.0; spec.bytes() / size_of::<f32>()],
            session: session(&environment, model)?,
            engine: Engine::new(settings),
        };
        Ok(Self {
            period_ns: period_ns(&units)?,
            units,
            rounds: 0,
            next: 0,
            stream: Stream::new(Decode::All),
            decoded: Vec::new(),
            work,
        })
    }

    /// Works for `duration`, from where it stopped before.
    pub fn run(&mut self, duration: Duration) -> Result<Segment> {
        let mut segment = Segment::default();
        let begun = Instant::now();
        let cpu = seconds(ClockId::ProcessCPUTime);
        while begun.elapsed() < duration {
            let decoding = seconds(ClockId::ThreadCPUTime);
            self.decode_one()?;
            segment.stations.decode_s += seconds(ClockId::ThreadCPUTime) - decoding;
            for frame in self.decoded.drain(..) {
                segment.detections += self.work.result(&frame, &mut segment.stations)?;
                segment.results += 1;
            }
        }
        segment.cpu_s = seconds(ClockId::ProcessCPUTime) - cpu;
        segment.wall_s = begun.elapsed().as_secs_f64();
        Ok(segment)
    }

    fn decode_one(&mut self) -> Result<()> {
        if self.next == self.units.len() {
            self.next = 0;
            self.rounds += 1;
        }
        let count = self.units.len() as u64;
        let unit = self.units.get(self.next).context("the clip has no pictures")?;
        let mut header = unit.header.clone();
        let shift = self.period_ns.saturating_mul(i64::try_from(self.rounds).unwrap_or(i64::MAX));
        header.number += count * self.rounds;
        header.presentation_ns = header.presentation_ns.map(|time| time.saturating_add(shift));
        header.discontinuity = self.next == 0;
        let decoded = &mut self.decoded;
        self.stream.push(&header, &unit.data, &mut |frame| decoded.push(frame))?;
        self.next += 1;
        match self.stream.take_fault() {
            Some(fault) => bail!("{fault}"),
            None => Ok(()),
        }
    }
}

impl Work {
    /// Takes a frame all the way; returns how many objects were found.
    fn result(&mut self, frame: &Frame, stations: &mut FrameTimes) -> Result<u64> {
        let start = seconds(ClockId::ThreadCPUTime);
        let out = bytemuck::cast_slice_mut(&mut self.input);
        let placement = self.resampler.tensor(&frame.picture, None, &self.spec, out)?;
        let resampled = seconds(ClockId::ThreadCPUTime);
        let shape = [1, 3, i64::from(self.spec.height), i64::from(self.spec.width)];
        let input = TensorRef::from_array_view((shape, self.input.as_slice()))?;
        let outputs = self.session.run(ort::inputs![nanodet::INPUT => input])?;
        let inferred = seconds(ClockId::ThreadCPUTime);
        let picture = Letterbox {
            width: frame.picture.width(),
            height: frame.picture.height(),
            placement: ocelli_sdk::Placement {
                scale_x: placement.scale_x,
                scale_y: placement.scale_y,
                offset_x: placement.offset_x,
                offset_y: placement.offset_y,
            },
        };
        let mut found = Vec::new();
        for names in nanodet::LEVELS {
            let floats = |name: &str| -> Result<&[f32]> {
                let output = outputs
                    .get(name)
                    .with_context(|| format!("the model has no output {name:?}"))?;
                Ok(output.try_extract_tensor::<f32>()?.1)
            };
            let (scores, sides) = (floats(names.scores)?, floats(names.sides)?);
            let level =
                self.variant.level(names.stride, scores, sides).map_err(anyhow::Error::msg)?;
            let filter = self.engine.filter();
            let wants = |class| filter.wants(class);
            found.extend(nanodet::in_frame(&level, filter.least_score, &wants, &picture));
        }
        let size = (picture.width, picture.height);
        let output = self.engine.finish(frame.presentation_ns, size, found);
        stations.tensor_s += resampled - start;
        stations.model_s += inferred - resampled;
        stations.boxes_s += seconds(ClockId::ThreadCPUTime) - inferred;
        Ok(output.detections.map_or(0, |detections| detections.len() as u64))
    }
}

/// The options of `ocelli-inference`, less the arena that its sessions share: here there is one
/// session.
pub(crate) fn session(environment: &Environment, model: &Path) -> Result<Session> {
    let bytes = std::fs::read(model).with_context(|| model.display().to_string())?;
    let build = || -> ort::Result<Session> {
        SessionBuilder::new(environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_parallel_execution(false)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .commit_from_memory(&bytes)
    };
    build().with_context(|| model.display().to_string())
}

/// What the pipeline asks the worker for, in the worker's words.
fn spec(variant: &Variant) -> TensorSpec {
    let wanted = variant.input();
    let three = |(a, b, c): (f32, f32, f32)| [a, b, c];
    TensorSpec {
        width: wanted.width,
        height: wanted.height,
        fit: match wanted.fit {
            ocelli_sdk::Fit::Letterbox => video::Fit::Letterbox,
            ocelli_sdk::Fit::Stretch => video::Fit::Stretch,
        },
        channels: match wanted.channels {
            ocelli_sdk::Channels::Rgb => video::Channels::Rgb,
            ocelli_sdk::Channels::Bgr => video::Channels::Bgr,
        },
        layout: match wanted.layout {
            ocelli_sdk::Layout::Nchw => video::Layout::Nchw,
            ocelli_sdk::Layout::Nhwc => video::Layout::Nhwc,
        },
        element: match wanted.element {
            ocelli_sdk::Element::F32 => video::Element::F32,
            ocelli_sdk::Element::U8 => video::Element::U8,
        },
        fill: three(wanted.fill),
        mean: three(wanted.mean),
        std: three(wanted.std),
    }
}

/// The longest time from one key frame of a clip to the next, in seconds, its repetition included.
pub async fn longest_gop_s(clip: &Path) -> Result<f64> {
    let units = units(clip).await?;
    let keys =
        units.iter().filter(|unit| unit.header.key).filter_map(|unit| unit.header.presentation_ns);
    let end = period_ns(&units)?.checked_add(keys.clone().min().unwrap_or(0));
    let times: Vec<i64> = keys.chain(end).collect();
    let gaps = times.iter().zip(times.iter().skip(1)).map(|(key, next)| next - key);
    Ok(gaps.max().context("the clip has no key frame")? as f64 / 1e9)
}

/// Nanoseconds that a clip lasts: from its first picture to its repetition.
pub(crate) fn period_ns(units: &[AccessUnit]) -> Result<i64> {
    let times = || units.iter().filter_map(|unit| unit.header.presentation_ns);
    let (first, last) = times().min().zip(times().max()).context("the clip has no times")?;
    let steps = i64::try_from(units.len()).unwrap_or(i64::MAX).saturating_sub(1).max(1);
    Ok(last - first + (last - first) / steps)
}

/// All access units of a clip, read as the host reads files.
pub(crate) async fn units(clip: &Path) -> Result<Vec<AccessUnit>> {
    let source = Source::parse(&format!("file:{}", clip.display()), None, None, false)?;
    let mut subscription = crate::paths::sources()?.subscribe(&source);
    let mut units = Vec::new();
    loop {
        match subscription.next().await {
            SourceEvent::Unit(unit) => units.push(AccessUnit::clone(&unit)),
            SourceEvent::Up => {}
            SourceEvent::Down(fault) => bail!("{}", fault.message),
            SourceEvent::Damaged(reason) => bail!("{reason}"),
            SourceEvent::Ended => break,
        }
    }
    ensure!(!units.is_empty(), "{} has no pictures", clip.display());
    Ok(units)
}

/// What a clock of the kernel has counted.
pub(crate) fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
