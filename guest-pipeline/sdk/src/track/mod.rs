//! The same number for the same object from frame to frame: ByteTrack (Zhang et al., "ByteTrack:
//! Multi-Object Tracking by Associating Every Detection Box", ECCV 2022), with a motion model after
//! BoT-SORT's, time in place of frame counts, and more than overlap to pair by.
//!
//! # How it works
//!
//! An update takes the detections of one frame, those of low score too, and the frame's time. Every
//! track is first moved on to that time by its Kalman filter. Then three times an optimal
//! assignment pairs tracks and detections of one class:
//!
//! 1. all confirmed tracks, lost ones too, with the detections of high score, by overlap, distance
//!    from where the track is expected, height, and what they look like, where that is known
//!    ([`Tracker::update_with`]). A lost track is expected in a place that grows with the time since
//!    its last sight. Of two that meet the one in front has the better claim (`fit`);
//! 2. confirmed tracks that were seen in the update before and got nothing, with the detections of
//!    low score, by IoU: an object half hidden scores low, background scores low too but is seldom
//!    where a track is expected;
//! 3. unconfirmed tracks with what is left of the detections of high score, by IoU.
//!
//! With few updates a second objects move by more than their size from one to the next, and boxes
//! of one object no longer overlap. So a fourth assignment pairs the tracks (lost ones if they were
//! missed once) and the detections of high score that are left, by their distance in sizes and time
//! (`reach`). Where several are as near, that is a guess: [`Tracker::is_reliable`] says when too
//! many of the last pairings were.
//!
//! A detection of still higher score that is left begins an unconfirmed track, unless it overlaps
//! one that has a track: that is the same object seen twice. The track is confirmed, and gets its
//! number, when it is seen again in the next update; otherwise it is dropped in silence. A
//! confirmed track that is not seen is lost: it is moved on and may be found again, until it has
//! been out of sight for [`TrackerConfig::lost_for`]; then it ends.
//!
//! Between updates [`Tracker::follow`] moves the tracks on by what the pixels of each frame did, so
//! that a detector need not look at every frame.
//!
//! Where this departs from the authors' program: pairing by more than IoU; tracks of the first
//! frame need confirmation too; a track keeps its class; no second track for what is seen twice;
//! and since a pipeline skips frames, durations count in presentation time. The same updates give
//! the same tracks, also across [`Tracker::state`] and [`Tracker::resume`].
//!
//! Constants that are no author's were chosen on people who walk and meet, played forwards and
//! backwards, at 10, 3.3 and 2 looks a second, with two detectors, where each has a broad optimum.

mod fit;
mod follow;
mod kalman;
mod look;
mod reach;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::assign::assign;
use crate::geometry::BBox;
pub use follow::{Footing, MAX_POINTS, Points, Sight};
use kalman::Motion;
pub use look::Look;
pub use reach::Certainty;

/// Detections that an update looks at, best score first. Assignment takes time with their square; a
/// picture with more objects than this to follow is beyond the method.
pub const MAX_DETECTIONS: usize = 200;
/// Tracks alive at a time, for the same reason. Detections begin no track while there are as many.
pub const MAX_TRACKS: usize = 400;
/// A gap between updates of this many times [`TrackerConfig::lost_for`] ends every track: what is
/// there afterwards is something else, and extrapolation over such a time is a guess.
const HOPELESS: u32 = 3;
/// A box that was last measured so long ago, and went on by its motion since, says nothing.
const PREDICTED_FOR: Duration = Duration::from_secs(1);
/// What pairing by where a track's pixels went weighs, for each second since its last detection,
/// beside pairing by where it is expected: over a step of 0.3 s motion tells two who pass each
/// other apart, and pixels take one along with the other; over a second motion is a guess.
const FOLLOWED: f32 = 0.7;
/// A detection that overlaps one that has a track by more than this IoU is the same object seen
/// twice: it begins no track. Below what suppression leaves, which is 0.5 by most settings.
const TWICE: f32 = 0.3;
/// A detection that overlaps another by more than this IoU shows some of it: nothing is learnt of
/// its look.
const CLEAR: f32 = 0.1;

/// Thresholds of a tracker. The defaults of the scores are ByteTrack's.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackerConfig {
    /// Detections of this score and more are paired first.
    pub high_score: f32,
    /// Detections below this score are not looked at.
    pub low_score: f32,
    /// Detections of this score and more begin tracks.
    pub new_score: f32,
    /// A track paired with a detection of low score overlaps it by more than this IoU.
    pub low_iou: f32,
    /// The same for an unconfirmed track and a detection of high score.
    pub unconfirmed_iou: f32,
    /// How long a lost track stays alive.
    pub lost_for: Duration,
    /// In how many updates, at least, a track is looked for in vain before it ends: with few
    /// updates a second, `lost_for` may be over after a single one.
    pub lost_updates: u32,
    /// A lost track that overlaps one that is seen by more than this IoU is the same object; the
    /// younger of them ends.
    pub duplicate_iou: f32,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            high_score: 0.6,
            low_score: 0.1,
            new_score: 0.7,
            // ByteTrack's 0.5 lets what remains of a hidden object draw its track away.
            low_iou: 0.6,
            unconfirmed_iou: 0.3,
            // Behind a lamp post or another person people are for a second or a little more.
            lost_for: Duration::from_secs(2),
            lost_updates: 3,
            duplicate_iou: 0.85,
        }
    }
}

impl TrackerConfig {
    /// ByteTrack's thresholds in proportion to a detector's own: detections of `score` and more are
    /// of high score, and a new track needs 0.1 more.
    #[must_use]
    pub fn for_score(score: f32) -> Self {
        let default = Self::default();
        let new_score = (score + 0.1).min(1.0);
        Self { high_score: score, low_score: default.low_score.min(score), new_score, ..default }
    }
}

/// One detection of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// In frame pixels.
    pub bbox: BBox,
    /// 0 to 1.
    pub score: f32,
    /// Number of the class.
    pub class: u32,
}

/// A confirmed track.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrackInfo {
    /// From 1 upwards, in order of confirmation; never used again.
    pub id: u64,
    /// Number of the class.
    pub class: u32,
    /// The score of the last detection.
    pub score: f32,
    /// The box of the last detection, in frame pixels, as the detector gave it; moved on from there
    /// where pixels are followed ([`Tracker::follow`]).
    pub bbox: BBox,
    /// Presentation time of the first detection, in nanoseconds.
    pub first_seen: u64,
    /// Presentation time of the last detection, or of the last frame in which its pixels were
    /// found, in nanoseconds.
    pub last_seen: u64,
    /// Whether the last update looked for it in vain, or for a second its pixels were not found.
    pub lost: bool,
}

impl TrackInfo {
    /// From the first detection to the last.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.last_seen.saturating_sub(self.first_seen))
    }
}

/// The result of an update.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrackUpdate {
    /// For each observation, in the order given, the track that it belongs to. `None` where that is
    /// not confirmed yet.
    pub tracks: Vec<Option<u64>>,
    /// Tracks that were confirmed, in order of their numbers.
    pub began: Vec<TrackInfo>,
    /// Tracks that ended, in order of their numbers.
    pub ended: Vec<TrackInfo>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Track {
    /// `None` until confirmed.
    id: Option<u64>,
    class: u32,
    score: f32,
    bbox: BBox,
    first_seen: u64,
    last_seen: u64,
    /// Updates in a row that looked for it in vain.
    missed: u32,
    motion: Motion,
    /// What `bbox` rests on. States of older versions have nothing from here on.
    #[serde(default)]
    footing: Footing,
    /// Whether nothing changed there from the frame before to the last one.
    #[serde(default)]
    still: bool,
    /// Whether something changed there since the last detection that found it at rest: it may be
    /// gone since.
    #[serde(default)]
    restless: bool,
    /// Presentation time of the last detection; 0 in states of older versions.
    #[serde(default)]
    last_detected: u64,
    /// Pixels a second by which its pixels went since then, where they were found.
    #[serde(default)]
    drift: Option<[f32; 2]>,
    /// What it looks like; none while nobody has said so.
    #[serde(default)]
    look: Option<Look>,
}

impl Track {
    fn begin(seen: &Observation, time: u64) -> Self {
        let Observation { bbox, score, class } = *seen;
        let motion = Motion::new(&bbox);
        Self {
            id: None,
            class,
            score,
            bbox,
            first_seen: time,
            last_seen: time,
            missed: 0,
            motion,
            footing: Footing::Detected,
            still: false,
            restless: false,
            last_detected: time,
            drift: None,
            look: None,
        }
    }

    fn see(&mut self, seen: &Observation, time: u64) {
        self.motion.correct(&seen.bbox);
        (self.bbox, self.score, self.last_seen, self.missed) = (seen.bbox, seen.score, time, 0);
        (self.footing, self.last_detected, self.drift) = (Footing::Detected, time, None);
        self.restless &= !self.still;
    }

    /// How long ago its pixels were seen, in seconds.
    fn unseen(&self, time: u64) -> f32 {
        Duration::from_nanos(time.saturating_sub(self.last_seen)).as_secs_f32()
    }

    /// How long ago it was detected, in seconds: pixels may mislead meanwhile.
    fn undetected(&self, time: u64) -> f32 {
        Duration::from_nanos(time.saturating_sub(self.last_detected)).as_secs_f32()
    }

    /// How well a sight at `time` fits by overlap, distance, height and look, where the track is
    /// expected or where its pixels went; `hidden`: another track is in front of it.
    fn fit(&self, seen: &BBox, look: Option<&Look>, time: u64, hidden: bool) -> f32 {
        let (lost, undetected) = (self.missed > 0, self.undetected(time));
        let likeness = self.look.zip(look).map_or(0.0, |(own, look)| own.likeness(look));
        let more = likeness - fit::doubt(lost, hidden);
        let gain = |there: &BBox| fit::gain(there, &self.bbox, seen, undetected, more);
        let expected = gain(&self.motion.bbox());
        let is_followed = self.footing == Footing::Followed && !lost;
        if !is_followed {
            return expected;
        }
        expected.max((FOLLOWED * undetected).min(1.0) * gain(&self.bbox))
    }

    /// Takes in what it looks like now; where others are in its box that counts only if nothing is
    /// known.
    fn learn(&mut self, look: &Look, is_clear: bool) {
        match &mut self.look {
            None => self.look = Some(*look),
            Some(own) if is_clear => own.learn(look),
            Some(_) => {}
        }
    }

    /// How well a sight at `time` fits by its distance: from where its pixels went, if they were
    /// found, else from where it is expected.
    fn reach(&self, seen: &BBox, time: u64) -> f32 {
        let is_known = self.id.is_some();
        let followed = self.footing == Footing::Followed;
        let there = if followed { self.bbox } else { self.motion.bbox() };
        reach::gain(&there, &self.bbox, seen, self.undetected(time), is_known)
    }

    fn miss(&mut self) {
        self.motion.hold_size();
        self.missed = self.missed.saturating_add(1);
    }

    /// The public part of the track at `time`; `None` until confirmed.
    fn info(&self, time: u64) -> Option<TrackInfo> {
        let Self { class, score, bbox, first_seen, last_seen, .. } = *self;
        let lost = self.is_lost(time);
        self.id.map(|id| TrackInfo { id, class, score, bbox, first_seen, last_seen, lost })
    }

    /// Whether the last update looked for it in vain, or its box is predicted for so long that it
    /// says nothing.
    fn is_lost(&self, time: u64) -> bool {
        let unseen = Duration::from_nanos(time.saturating_sub(self.last_seen));
        self.missed > 0 || self.footing == Footing::Predicted && unseen > PREDICTED_FOR
    }

    fn is_sound(&self, state: &TrackerState) -> bool {
        self.id.is_none_or(|id| id >= 1 && id < state.next_id)
            && self.score.is_finite()
            && self.bbox.is_proper()
            && self.first_seen <= self.last_seen
            && self.last_seen <= state.time
            && self.last_detected <= self.last_seen
            && self.motion.is_sound()
            && self.look.is_none_or(|look| look.is_sound())
    }
}

/// All that a tracker knows, to be kept and taken up again by another instance or a following
/// version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackerState {
    /// Presentation time of the last update, in nanoseconds.
    time: u64,
    next_id: u64,
    tracks: Vec<Track>,
}

/// Follows the objects of one camera.
#[derive(Debug, Clone)]
pub struct Tracker {
    config: TrackerConfig,
    state: TrackerState,
    certainty: Certainty,
}

impl Tracker {
    /// A tracker that has seen nothing.
    #[must_use]
    pub fn new(config: TrackerConfig) -> Self {
        let state = TrackerState { time: 0, next_id: 1, tracks: Vec::new() };
        Self { config, state, certainty: Certainty::default() }
    }

    /// Goes on from a state that [`Tracker::state`] gave.
    ///
    /// # Errors
    /// A state that cannot have come from a tracker.
    pub fn resume(config: TrackerConfig, mut state: TrackerState) -> Result<Self, String> {
        let count = state.tracks.len();
        if count > MAX_TRACKS {
            return Err(format!(
                "{count} tracks are more than the {MAX_TRACKS} that a tracker keeps"
            ));
        }
        if let Some(number) = state.tracks.iter().position(|track| !track.is_sound(&state)) {
            return Err(format!("track {number} of {count} has values that no tracker makes"));
        }
        let mut ids: Vec<_> = state.tracks.iter().filter_map(|track| track.id).collect();
        ids.sort_unstable();
        if let Some((id, _)) = ids.iter().zip(ids.iter().skip(1)).find(|(a, b)| a == b) {
            return Err(format!("track number {id} is there twice"));
        }
        for track in state.tracks.iter_mut().filter(|track| track.last_detected == 0) {
            track.last_detected = track.last_seen;
        }
        Ok(Self { config, state, certainty: Certainty::default() })
    }

    /// The thresholds of this tracker.
    #[must_use]
    pub fn config(&self) -> &TrackerConfig {
        &self.config
    }

    /// All that the tracker knows.
    #[must_use]
    pub fn state(&self) -> &TrackerState {
        &self.state
    }

    /// What it knows of its own certainty and pace.
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        self.certainty
    }

    /// The same tracker, which goes on with what another one knew of its certainty and pace.
    #[must_use]
    pub fn with_certainty(self, certainty: Certainty) -> Self {
        Self { certainty, ..self }
    }

    /// Updates a second, of the last twenty or so. `None` before the second one.
    #[must_use]
    pub fn pace(&self) -> Option<f32> {
        self.certainty.pace()
    }

    /// Whether the tracks of late can be relied on. They cannot where too much time passes between
    /// two updates for objects this near to each other: more than a quarter of the last pairings
    /// could have been others.
    #[must_use]
    pub fn is_reliable(&self) -> bool {
        !self.certainty.is_uncertain()
    }

    /// The confirmed tracks that are alive, lost ones too, in order of their numbers.
    #[must_use]
    pub fn tracks(&self) -> Vec<TrackInfo> {
        infos(&self.state.tracks, self.state.time)
    }

    /// Takes in the detections of the frame at `time`, its presentation time in nanoseconds. Those
    /// of low score too; see [`TrackerConfig::low_score`]. Observations that are not finite or have
    /// no area are passed over.
    ///
    /// Time that runs backwards, or a gap of three times [`TrackerConfig::lost_for`], ends every
    /// track first.
    pub fn update(&mut self, time: u64, observations: &[Observation]) -> TrackUpdate {
        self.update_with(time, observations, &[])
    }

    /// As [`Tracker::update`]. `looks` says, in the order of the observations, what they look like
    /// ([`Look::of`]), as far as that is known: tracks that meet are told apart by it.
    // Every index is one of a track or an observation, made here from the lengths of these two
    // lists.
    #[allow(clippy::indexing_slicing)]
    pub fn update_with(
        &mut self,
        time: u64,
        observations: &[Observation],
        looks: &[Option<Look>],
    ) -> TrackUpdate {
        let mut ended = self.advance(time);
        let config = &self.config;
        let tracks = &mut self.state.tracks;
        let (high, low) = split(observations, config);
        let hidden = hidden(tracks);
        let look = |o: usize| looks.get(o).and_then(Option::as_ref);

        let mut seen_as: Vec<Option<usize>> = vec![None; tracks.len()];
        let mut used = vec![false; observations.len()];
        let mut stage = |eligible: &dyn Fn(&Track) -> bool,
                         from: &[usize],
                         gain: &dyn Fn(usize, usize) -> f32| {
            let rows: Vec<usize> = (0..tracks.len())
                .filter(|&t| seen_as[t].is_none() && eligible(&tracks[t]))
                .collect();
            let columns: Vec<usize> = from.iter().copied().filter(|&o| !used[o]).collect();
            let gains = rows.iter().flat_map(|&t| columns.iter().map(move |&o| (t, o)));
            let of_class = |t: usize, o: usize| tracks[t].class == observations[o].class;
            let gains = gains.map(|(t, o)| if of_class(t, o) { gain(t, o) } else { 0.0 });
            let gains: Vec<f32> = gains.collect();
            let pairs = assign(rows.len(), columns.len(), |row, column| {
                f64::from(gains[row * columns.len() + column])
            });
            for (row, column) in pairs {
                seen_as[rows[row]] = Some(columns[column]);
                used[columns[column]] = true;
            }
        };
        let seen = |o: usize| &observations[o].bbox;
        let overlap = |t: usize, o: usize| tracks[t].motion.bbox().iou(seen(o));
        let fit = |t: usize, o: usize| tracks[t].fit(seen(o), look(o), time, hidden[t]);
        stage(&|t| t.id.is_some(), &high, &fit);
        stage(&|t| t.id.is_some() && t.missed == 0, &low, &|t, o| overlap(t, o) - config.low_iou);
        stage(&|t| t.id.is_none(), &high, &|t, o| overlap(t, o) - config.unconfirmed_iou);
        stage(&|t| t.missed == 0, &high, &|t, o| tracks[t].reach(seen(o), time));
        let (pairs, doubtful) = doubts(tracks, observations, &seen_as, &high, time);
        self.certainty.look(pairs, doubtful);

        let mut began = Vec::new();
        let mut numbers = vec![None; observations.len()];
        for (track, seen) in tracks.iter_mut().zip(&seen_as) {
            let Some(observation) = *seen else {
                track.miss();
                continue;
            };
            track.see(&observations[observation], time);
            if let Some(look) = look(observation) {
                track.learn(look, is_clear(observation, &high, observations));
            }
            if track.id.is_none() {
                track.id = Some(self.state.next_id);
                self.state.next_id += 1;
                began.extend(track.info(time));
            }
            numbers[observation] = track.id;
        }

        let over = |t: &Track| {
            let unseen = Duration::from_nanos(time.saturating_sub(t.last_seen));
            t.missed > 0
                && (t.id.is_none() || unseen > config.lost_for && t.missed >= config.lost_updates)
        };
        let mut gone: Vec<Track> = tracks.extract_if(.., |t| over(t)).collect();
        gone.extend(drop_duplicates(tracks, config.duplicate_iou));
        ended.extend(infos(&gone, time));
        ended.sort_by_key(|t| t.id);

        begin(tracks, observations, &high, used, config.new_score, time);
        TrackUpdate { tracks: numbers, began, ended }
    }

    /// Moves all tracks on to `time`, or ends them where that makes no sense. Gives the confirmed
    /// ones that ended.
    fn advance(&mut self, time: u64) -> Vec<TrackInfo> {
        let elapsed = time.checked_sub(self.state.time).map(Duration::from_nanos);
        self.state.time = time;
        match elapsed {
            Some(elapsed) if elapsed <= self.config.lost_for.saturating_mul(HOPELESS) => {
                let seconds = elapsed.as_secs_f64();
                self.certainty.wait(seconds as f32);
                self.state.tracks.iter_mut().for_each(|track| track.motion.predict(seconds));
                Vec::new()
            }
            _ => {
                let ended = infos(&std::mem::take(&mut self.state.tracks), time);
                self.certainty.look(ended.len(), ended.len());
                ended
            }
        }
    }
}

/// Begins tracks of observations that have none, and are not another's object seen twice.
// Every index is one of an observation, made from the length of their list.
#[allow(clippy::indexing_slicing)]
fn begin(
    tracks: &mut Vec<Track>,
    observations: &[Observation],
    high: &[usize],
    mut used: Vec<bool>,
    least: f32,
    time: u64,
) {
    for &o in high {
        let observation = &observations[o];
        let twice = observations.iter().zip(&used).any(|(other, used)| {
            *used && other.class == observation.class && other.bbox.iou(&observation.bbox) > TWICE
        });
        let begins = observation.score >= least && !used[o] && !twice;
        if begins && tracks.len() < MAX_TRACKS {
            used[o] = true;
            tracks.push(Track::begin(observation, time));
        }
    }
}

/// Of each track whether it is behind another one that was in sight.
fn hidden(tracks: &[Track]) -> Vec<bool> {
    let expected: Vec<_> = tracks.iter().map(|track| track.motion.bbox()).collect();
    let all = || tracks.iter().zip(&expected);
    let hidden = |(track, here): (&Track, &BBox)| {
        let in_front = |(other, there): (&Track, &BBox)| {
            let in_sight = other.id.is_some() && other.missed == 0;
            in_sight && other.class == track.class && fit::hides(there, here)
        };
        all().any(in_front)
    };
    all().map(hidden).collect()
}

/// Whether nothing of another observation is in the box of this one.
fn is_clear(own: usize, high: &[usize], observations: &[Observation]) -> bool {
    let bbox = |o: usize| observations.get(o).map(|observation| &observation.bbox);
    let meets = |other: usize| {
        other != own && bbox(own).zip(bbox(other)).is_some_and(|(a, b)| a.iou(b) > CLEAR)
    };
    !high.iter().any(|&other| meets(other))
}

/// The pairings of a look and how many of them are in doubt: another object is as near as this one
/// may have come, or one that was there has no pair while a new one has none either.
// Every index is one of a track or an observation, made from the lengths of these two lists.
#[allow(clippy::indexing_slicing)]
fn doubts(
    tracks: &[Track],
    observations: &[Observation],
    seen_as: &[Option<usize>],
    high: &[usize],
    time: u64,
) -> (usize, usize) {
    let mut taken = vec![false; observations.len()];
    seen_as.iter().flatten().for_each(|&o| taken[o] = true);
    let (mut pairs, mut doubtful) = (0, 0);
    for (track, pair) in tracks.iter().zip(seen_as) {
        let Some(own) = *pair else { continue };
        let unseen = track.unseen(time);
        let others = high.iter().filter(|&&o| o != own && observations[o].class == track.class);
        let mut others = others.map(|&o| &observations[o].bbox);
        pairs += 1;
        doubtful += usize::from(others.any(|other| reach::is_near(&track.bbox, other, unseen)));
    }
    let in_sight = |track: &Track| track.id.is_some() && track.missed == 0;
    let gone = tracks.iter().zip(seen_as).filter(|(t, pair)| in_sight(t) && pair.is_none()).count();
    let new = high.iter().filter(|&&o| !taken[o]).count();
    let broken = gone.min(new);
    (pairs + broken, doubtful + broken)
}

/// The confirmed tracks among these, in order of their numbers.
fn infos(tracks: &[Track], time: u64) -> Vec<TrackInfo> {
    let mut infos: Vec<_> = tracks.iter().filter_map(|track| track.info(time)).collect();
    infos.sort_by_key(|info| info.id);
    infos
}

/// Indices of the observations of high and of low score, best first.
fn split(observations: &[Observation], config: &TrackerConfig) -> (Vec<usize>, Vec<usize>) {
    let usable =
        |o: &Observation| o.score.is_finite() && o.score >= config.low_score && o.bbox.is_proper();
    let mut ranked: Vec<_> = observations.iter().enumerate().filter(|(_, o)| usable(o)).collect();
    ranked.sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score));
    ranked.truncate(MAX_DETECTIONS);
    let high = ranked.partition_point(|(_, o)| o.score >= config.high_score);
    let low = ranked.split_off(high).into_iter().map(|(index, _)| index).collect();
    (ranked.into_iter().map(|(index, _)| index).collect(), low)
}

/// Takes out of `tracks` what is another track's object: of a lost track and one that was seen the
/// one that began later.
fn drop_duplicates(tracks: &mut Vec<Track>, iou: f32) -> Vec<Track> {
    let seen: Vec<_> = tracks.iter().filter(|t| t.id.is_some() && t.missed == 0).collect();
    let lost = tracks.iter().filter(|t| t.id.is_some() && t.missed > 0);
    let mut drop = Vec::new();
    for lost in lost {
        let there = lost.motion.bbox();
        let same = |t: &&&Track| t.class == lost.class && t.motion.bbox().iou(&there) > iou;
        if let Some(seen) = seen.iter().find(same) {
            drop.extend(if seen.first_seen <= lost.first_seen { lost.id } else { seen.id });
        }
    }
    tracks.extract_if(.., |t| t.id.is_some_and(|id| drop.contains(&id))).collect()
}

#[cfg(test)]
mod tests;
