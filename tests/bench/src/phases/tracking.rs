//! How good the boxes and tracks are that subscribers get, against a ground truth, and what they
//! cost: a file, every frame of which is looked at; cameras that play the same clip, with settings
//! that may look at fewer frames; and a scene that is mostly still. Without cameras the settings are
//! those of the file: it has as many runs of the model as they say, so figures repeat.
//!
//! A camera is joined at a key frame of its clip, and which one is found by where boxes and truth
//! fit best. The first seconds are not scored: models warm up, and tracks begin.
//!
//! The truth of the still scene is the result of the same host on every frame of a clip of the
//! checkout, whose first picture is held for a while before it begins. What is scored there is what
//! less frequent looks lose, not the model.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ocelli_client::Detections;
use ocelli_sdk::assign::assign;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Environment, SETTLE};
use crate::bare;
use crate::cameras::Cameras;
use crate::chain::{Camera, Chain, Session};
use crate::machine::{Role, Snapshot};
use crate::statistics::percentile;
use crate::subscriber::Subscriber;
use crate::table::Table;
use crate::tracking::{self, Located, Scores, Truth};

/// Frames at a camera's beginning that are not scored, in seconds.
const WARM_UP_S: f64 = 3.0;

/// How long the still scene stands before people walk for ten seconds.
const HOLD: Duration = Duration::from_secs(30);

/// Looks a second, if nothing else is asked for: each frame of a camera at 10, a third, a fifth.
const RATES: [Option<f64>; 3] = [None, Some(3.33), Some(2.0)];

/// Most cameras at once, and most idle ones.
const MAX_CAMERAS: usize = 40;

/// The `source` of results for which the model ran; those of pipelines that run it for each have
/// none.
const MODEL: &str = "model";

/// Added to the track numbers of each further camera, so that none is another's.
const NUMBERS: u64 = 1 << 32;

/// What is measured against what.
#[derive(Debug)]
pub struct Judged {
    clip: PathBuf,
    truth: Truth,
    settings: Vec<Map<String, Value>>,
    cameras: usize,
    idle: usize,
}

impl Judged {
    /// Reads the folder of a truth. Without settings, cameras have those that limit how often they
    /// are looked at. Without cameras the settings are the file's. Idle cameras are further ones.
    pub fn read(folder: &Path, settings: &[String], cameras: usize, idle: usize) -> Result<Self> {
        ensure!(cameras <= MAX_CAMERAS, "--cameras is at most {MAX_CAMERAS}");
        ensure!(idle <= MAX_CAMERAS, "--idle is at most {MAX_CAMERAS}");
        ensure!(idle == 0 || cameras > 0, "--idle needs cameras that are scored");
        let clip = folder.join("clip.mp4");
        let clip = clip.canonicalize().with_context(|| format!("no file {}", clip.display()))?;
        let truth = Truth::read(&folder.join("gt.txt"))?;
        let read = |text: &String| {
            serde_json::from_str(text).with_context(|| format!("--settings {text}: not an object"))
        };
        let settings = match settings {
            [] => RATES.into_iter().map(at_rate).collect(),
            given => given.iter().map(read).collect::<Result<_>>()?,
        };
        Ok(Self { clip, truth, settings, cameras, idle })
    }
}

/// The settings of so many looks a second.
fn at_rate(rate: Option<f64>) -> Map<String, Value> {
    rate.map(|rate| ("max_results_per_second".to_owned(), json!(rate))).into_iter().collect()
}

/// The figures of this phase.
#[derive(Debug, Serialize)]
pub struct Tracking {
    /// The clip with the truth.
    pub clip: PathBuf,
    /// A row for each source and settings.
    pub rows: Vec<TrackingRow>,
}

/// One source with one kind of settings.
#[derive(Debug, Serialize)]
pub struct TrackingRow {
    /// `file`, `camera` or `still`.
    pub source: &'static str,
    /// Of the pipeline, in JSON.
    pub settings: String,
    /// How many are scored, with a worker each.
    pub cameras: usize,
    /// How many show a still picture meanwhile, with a worker each.
    pub idle: usize,
    /// The frame of the clip with which each began.
    pub joined: Vec<usize>,
    /// Frames that were scored, of all cameras.
    pub frames: usize,
    /// Those of them with a result.
    pub results: usize,
    /// Runs of the model a second, for each camera.
    pub runs_per_second: f64,
    /// Milliseconds of CPU of all processes for each decoded frame of a camera.
    pub cpu_ms_per_frame: f64,
    /// Cores that all processes kept busy, on average.
    pub cores: f64,
    /// Milliseconds from a picture's arrival to its result; of a file there is no such time.
    pub age_ms: Option<Age>,
    /// Frames without a result have no boxes.
    pub none: Scores,
    /// Frames without a result have those of the last one.
    pub hold: Scores,
    /// The same, moved on: as each went from the last result but one to the last.
    pub moved: Scores,
}

/// Two percentiles.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Age {
    /// The median.
    pub p50: f64,
    /// One in twenty is larger.
    pub p95: f64,
}

/// A clip as this phase needs it.
struct Clip {
    file: PathBuf,
    /// Frames a second.
    rate: f64,
    /// Frames.
    length: usize,
    /// The numbers of its key frames, in presentation order.
    keys: Vec<usize>,
    /// Boxes of the truth, of each frame.
    truth: Vec<Vec<Located>>,
}

impl Clip {
    /// A clip whose truth is added later.
    async fn read(file: &Path) -> Result<Self> {
        let units = bare::units(file).await?;
        let period_s = bare::period_ns(&units)? as f64 / 1e9;
        let time = |unit: &ocelli::source::AccessUnit| unit.header.presentation_ns;
        let first = units.iter().filter_map(time).min().context("the clip has no times")?;
        let (length, rate) = (units.len(), units.len() as f64 / period_s);
        let number = |time: i64| ((time - first) as f64 / 1e9 * rate).round() as usize;
        let keys = units.iter().filter(|unit| unit.header.key).filter_map(time).map(number);
        Ok(Self { file: file.into(), rate, length, keys: keys.collect(), truth: Vec::new() })
    }

    fn with(self, truth: Vec<Vec<Located>>) -> Result<Self> {
        ensure!(
            truth.len() <= self.length,
            "the truth has {} frames, and the clip {}",
            truth.len(),
            self.length
        );
        let mut truth = truth;
        truth.resize(self.length, Vec::new());
        Ok(Self { truth, ..self })
    }

    /// The same after its first picture has been held for so many frames. The picture has the boxes
    /// of the frame behind it: only from its second frame on a track has a number.
    fn held(self, frames: usize) -> Self {
        let keys = self.keys.iter().map(|key| key + frames);
        let keys = (0..frames).chain(keys).collect();
        let second = self.truth.get(1).cloned().unwrap_or_default();
        let still = std::iter::repeat_n(second.clone(), frames + 1);
        let truth = still.chain(self.truth.into_iter().skip(1)).collect();
        Self { keys, truth, length: self.length + frames, ..self }
    }

    /// The frame that a source shows at a time, where it began with frame 0.
    fn number(&self, found: &Detections) -> usize {
        (found.presentation_ns.max(0) as f64 / 1e9 * self.rate).round() as usize
    }
}

/// What a subscriber got, and what that took.
struct Heard {
    /// By camera and by frame since it was joined.
    results: Vec<BTreeMap<usize, Detections>>,
    runs_per_second: f64,
    cpu_ms_per_frame: f64,
    cores: f64,
}

/// Measures. `progress` is told what is measured next.
pub async fn measure(
    environment: &Environment,
    judged: &Judged,
    progress: &impl Fn(&str),
) -> Result<Tracking> {
    let mut rows = Vec::new();
    let clip = Clip::read(&judged.clip).await?.with(judged.truth.frames.clone())?;
    progress("tracks of a file");
    let heard = file(environment, &clip, &Map::new()).await.context("a file")?;
    ensure!(heard.results.iter().all(|r| r.len() == clip.length), "a frame without a result");
    rows.push(row("file", &Map::new(), &clip, &heard, 0.0)?);
    if judged.cameras == 0 {
        for settings in &judged.settings {
            progress(&format!("tracks of a file with {}", json!(settings)));
            let heard = file(environment, &clip, settings).await?;
            rows.push(row("file", settings, &clip, &heard, 0.0)?);
        }
        return Ok(Tracking { clip: judged.clip.clone(), rows });
    }
    for settings in &judged.settings {
        progress(&format!("tracks of cameras with {}", json!(settings)));
        let heard = cameras(environment, &clip, judged, settings, Duration::ZERO).await?;
        let row = row("camera", settings, &clip, &heard, WARM_UP_S)?;
        rows.push(TrackingRow { idle: judged.idle, ..row });
    }
    // The still scene is about cameras that are all alike.
    if judged.idle > 0 {
        return Ok(Tracking { clip: judged.clip.clone(), rows });
    }
    let still = Clip::read(&environment.paths.clip).await?;
    let every =
        file(environment, &still, &Map::new()).await.context("the still scene as a file")?;
    let frames = every.results.first().context("no result")?;
    let truth = (0..still.length).map(|n| frames.get(&n).map(boxes).unwrap_or_default());
    let truth = truth.map(|frame| frame.into_iter().filter(|b| b.object.is_some()).collect());
    let truth = truth.collect();
    let rate = still.rate;
    let still = still.with(truth)?.held((HOLD.as_secs_f64() * rate).round() as usize);
    for settings in &judged.settings {
        progress(&format!("tracks of a still scene with {}", json!(settings)));
        let heard = cameras(environment, &still, judged, settings, HOLD).await?;
        rows.push(row("still", settings, &still, &heard, WARM_UP_S)?);
    }
    Ok(Tracking { clip: judged.clip.clone(), rows })
}

/// The settings, for people alone: the truth is about nothing else.
fn of_people(settings: &Map<String, Value>) -> Map<String, Value> {
    let mut settings = settings.clone();
    settings.entry("labels").or_insert_with(|| json!(["person"]));
    settings
}

/// The clip as a file. Runs are those in a second of the clip, however long that took.
async fn file(
    environment: &Environment,
    clip: &Clip,
    settings: &Map<String, Value>,
) -> Result<Heard> {
    let chain = Chain::start(&environment.paths, &environment.workplace, &[]).await?;
    let mut subscriber = chain.subscriber().await?;
    let source = format!("file:{}", clip.file.display());
    subscriber.make_with("file", &source, of_people(settings)).await?;
    let heard = listen(&chain, &mut subscriber, clip, &["file".to_owned()]).await?;
    chain.stop().await?;
    let results = heard.results.iter().flat_map(BTreeMap::values);
    let runs = results.filter(|found| matches!(found.source.as_str(), "" | MODEL)).count();
    let runs_per_second = runs as f64 / (clip.length as f64 / clip.rate);
    Ok(Heard { runs_per_second, ..heard })
}

/// Cameras that play the clip, after its first picture for the time `hold`, and idle ones that go
/// on to show its first picture. All have a subscriber.
async fn cameras(
    environment: &Environment,
    clip: &Clip,
    judged: &Judged,
    settings: &Map<String, Value>,
    hold: Duration,
) -> Result<Heard> {
    let Environment { paths, workplace, .. } = environment;
    let server = Cameras::play_held(paths, &clip.file, judged.cameras, hold).await?;
    let settings = Value::Object(of_people(settings));
    let camera = |index, url| Camera::live(index, url).with(settings.clone());
    let mut cameras: Vec<Camera> =
        (0..judged.cameras).map(|index| camera(index, server.url(index))).collect();
    let ids: Vec<String> = cameras.iter().map(|camera| camera.id.clone()).collect();
    let mut idle = None;
    if judged.idle > 0 {
        let server = Cameras::show_still(paths, &clip.file, judged.idle).await?;
        cameras.extend((0..judged.idle).map(|n| camera(judged.cameras + n, server.url(n))));
        idle = Some(server);
    }
    let chain = Chain::start(paths, workplace, &cameras).await?;
    let mut subscriber = chain.subscriber().await?;
    for camera in &cameras {
        subscriber.subscribe(&camera.id).await?;
    }
    let heard = listen(&chain, &mut subscriber, clip, &ids).await?;
    chain.stop().await?;
    server.stop().await?;
    if let Some(idle) = idle {
        idle.stop().await?;
    }
    Ok(heard)
}

/// Between two looks at processes that may end: often enough for a file of seconds, and too seldom
/// to cost.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Takes the results of all sessions, until each has shown as many frames as the clip has, or a
/// file has ended. What is spent counts from the moment when all have spoken and have come to rest.
async fn listen(
    chain: &Chain,
    subscriber: &mut Subscriber,
    clip: &Clip,
    ids: &[String],
) -> Result<Heard> {
    let mut results = vec![BTreeMap::new(); ids.len()];
    let mut before: Option<(Snapshot, Vec<Session>)> = None;
    // The processes of a file are gone when its end is told: the last look at them counts then.
    let (mut last, mut looked) = (None, std::time::Instant::now());
    let ripe = (SETTLE.as_secs_f64() * clip.rate) as usize;
    let shown = |results: &[BTreeMap<usize, Detections>], least: usize| {
        results.iter().all(|r| r.last_key_value().is_some_and(|(last, _)| *last >= least))
    };
    while !shown(&results, clip.length - 1) {
        let Some(found) = subscriber.detections().await? else { break };
        let Some(index) = ids.iter().position(|id| *id == found.session) else { continue };
        if let Some(results) = results.get_mut(index) {
            results.insert(clip.number(&found), found);
        }
        if before.is_none() && shown(&results, ripe) {
            before = Some((chain.snapshot()?, chain.sessions().await?));
        } else if before.is_some() && looked.elapsed() >= LOOK_EVERY {
            looked = std::time::Instant::now();
            let snapshot = chain.snapshot()?;
            if snapshot.pids(Role::Worker).next().is_some() {
                last = Some((snapshot, chain.sessions().await?));
            }
        }
    }
    let (snapshot, sessions) = before.context("the clip is too short")?;
    let (after, sessions_after) = match shown(&results, clip.length - 1) {
        true => (chain.snapshot()?, chain.sessions().await?),
        false => last.context("the file has ended before a second look at it")?,
    };
    let spent = after.since(&snapshot);
    let new = |value: fn(&Session) -> u64| {
        let sum = |sessions: &[Session]| sessions.iter().map(value).sum::<u64>();
        sum(&sessions_after).saturating_sub(sum(&sessions)) as f64
    };
    Ok(Heard {
        results,
        runs_per_second: new(|s| s.frames.inferred) / spent.wall_s / sessions.len() as f64,
        cpu_ms_per_frame: spent.total() * 1e3 / new(|s| s.frames.decoded),
        cores: spent.total() / spent.wall_s,
    })
}

/// Scores what was heard, from `warm_up` seconds after the clip's beginning on.
fn row(
    source: &'static str,
    settings: &Map<String, Value>,
    clip: &Clip,
    heard: &Heard,
    warm_up: f64,
) -> Result<TrackingRow> {
    let (mut truth, mut none) = (Vec::new(), Vec::new());
    let (mut hold, mut moved) = (Vec::new(), Vec::new());
    let (mut results, mut ages, mut begun) = (0, Vec::new(), Vec::new());
    for (heard, number) in heard.results.iter().zip(0u64..) {
        let joined = joined(clip, heard)?;
        begun.push(joined);
        let first = joined.max((warm_up * clip.rate).round() as usize);
        let own = |located: Located| Located {
            object: located.object.map(|object| object + number * NUMBERS),
            ..located
        };
        let own = |frame: &[Located]| frame.iter().copied().map(own).collect::<Vec<_>>();
        let frames = clip.truth.iter().enumerate().skip(first);
        let [mut before, mut last] = [const { Looked { frame: 0, boxes: Vec::new() } }; 2];
        for (frame, boxes_of_truth) in frames {
            let found = heard.get(&(frame - joined));
            truth.push(own(boxes_of_truth));
            none.push(own(&found.map(boxes).unwrap_or_default()));
            if let Some(found) = found {
                before = std::mem::replace(&mut last, Looked { frame, boxes: boxes(found) });
                results += 1;
                ages.extend(found.latency_ms.get("total").copied());
            }
            hold.push(own(&last.boxes));
            moved.push(own(&last.moved_on(&before, frame)));
        }
    }
    ensure!(results > 0, "no frame that is scored has a result");
    let age = Age { p50: percentile(&ages, 0.5), p95: percentile(&ages, 0.95) };
    Ok(TrackingRow {
        source,
        settings: json!(settings).to_string(),
        cameras: heard.results.len(),
        idle: 0,
        joined: begun,
        frames: truth.len(),
        results,
        runs_per_second: heard.runs_per_second,
        cpu_ms_per_frame: heard.cpu_ms_per_frame,
        cores: heard.cores,
        age_ms: (source != "file").then_some(age),
        none: tracking::score(&truth, &none, clip.rate),
        hold: tracking::score(&truth, &hold, clip.rate),
        moved: tracking::score(&truth, &moved, clip.rate),
    })
}

/// The boxes of a result.
struct Looked {
    frame: usize,
    boxes: Vec<Located>,
}

impl Looked {
    /// The boxes in a later frame, where each object goes on as it went since the result before.
    fn moved_on(&self, before: &Self, frame: usize) -> Vec<Located> {
        let part = (frame - self.frame) as f64 / (self.frame - before.frame).max(1) as f64;
        let moved = |located: &Located| {
            let earlier =
                before.boxes.iter().find(|b| b.object.is_some() && b.object == located.object);
            let ([x, y, width, height], [a, b, ..]) =
                (located.area, earlier.unwrap_or(located).area);
            Located { area: [x + part * (x - a), y + part * (y - b), width, height], ..*located }
        };
        self.boxes.iter().map(moved).collect()
    }
}

/// The key frame of the clip that a source began with: where boxes and truth fit best. A source
/// that is no camera begins with the first.
fn joined(clip: &Clip, heard: &BTreeMap<usize, Detections>) -> Result<usize> {
    let fit = |key: usize| -> f64 {
        let pairs = heard.iter().filter_map(|(n, found)| Some((clip.truth.get(key + n)?, found)));
        pairs.map(|(truth, found)| common(truth, &boxes(found))).sum()
    };
    let fits = clip.keys.iter().map(|key| (*key, fit(*key)));
    let best = fits.max_by(|(_, one), (_, other)| one.total_cmp(other));
    best.map(|(key, _)| key).context("the clip has no key frame")
}

/// The sum of IoU of boxes that are paired for it.
fn common(truth: &[Located], found: &[Located]) -> f64 {
    let overlap = |row: usize, column: usize| {
        let pair = truth.get(row).zip(found.get(column));
        pair.map_or(0.0, |(one, other)| one.overlap(other))
    };
    let pairs = assign(truth.len(), found.len(), overlap);
    pairs.into_iter().map(|(row, column)| overlap(row, column)).sum()
}

fn boxes(found: &Detections) -> Vec<Located> {
    let located = |d: &ocelli_client::Detection| Located { object: d.track, area: d.area };
    found.detections.iter().map(located).collect()
}

impl Display for Tracking {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## Tracking\n")?;
        writeln!(f, "Boxes and tracks against the truth of `{}`.", self.clip.display())?;
        let headings = ["source, settings", "frames with a result", "runs/s a camera"];
        let costly = ["CPU a frame", "cores", "age p50 / p95"];
        let mut costs = Table::new(headings.into_iter().chain(costly));
        let headings = ["source, settings", "without a result", "MOTA", "IDF1", "switches"];
        let mut judged = Table::new(headings.into_iter().chain(["HOTA", "F1", "moving"]));
        for row in &self.rows {
            let TrackingRow { source, cameras, idle, frames, results, settings, .. } = row;
            let name = match (cameras, idle) {
                (1, 0) => format!("{source}, `{settings}`"),
                (_, 0) => format!("{source} x {cameras}, `{settings}`"),
                _ => format!("{source} x {cameras}, {idle} idle, `{settings}`"),
            };
            let age = row
                .age_ms
                .map_or_else(|| "-".into(), |age| format!("{:.0} / {:.0} ms", age.p50, age.p95));
            costs.row([
                name.clone(),
                format!("{results} of {frames}"),
                format!("{:.2}", row.runs_per_second),
                format!("{:.1} ms", row.cpu_ms_per_frame),
                format!("{:.2}", row.cores),
                age,
            ]);
            if results < frames {
                judged.row(scored(name, "no boxes", &row.none));
                judged.row(scored(String::new(), "the last", &row.hold));
                judged.row(scored(String::new(), "that, moved on", &row.moved));
            } else {
                judged.row(scored(name, "-", &row.none));
            }
        }
        write!(f, "{costs}{judged}")
    }
}

fn scored(name: String, held: &str, scores: &Scores) -> [String; 8] {
    let Scores { mota, idf1, switches, hota, f1, moving_recall } = scores;
    let share = |value: &f64| format!("{value:.3}");
    let (mota, idf1, hota) = (share(mota), share(idf1), share(hota));
    let (f1, moving) = (share(f1), share(moving_recall));
    [name, held.to_owned(), mota, idf1, switches.to_string(), hota, f1, moving]
}
