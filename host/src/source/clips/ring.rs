//! What one session keeps for its clips: the access units of the last seconds, and those of clips
//! that are being collected. Decides by the units' own times; knows no clock, no file and no lock.

use std::collections::VecDeque;
use std::sync::Arc;

use super::parameters::ParameterSets;
use crate::source::AccessUnit;
use crate::source::nal::NalCodec;

/// How much longer than the seconds before an event the ring is: results come after their pictures,
/// by the time that a worker may take for one.
const LATE_NS: i64 = 3_000_000_000;

/// How far a picture may lie before or after the latest one. Encoders reorder by fewer than 16
/// pictures; a camera is given up that is silent for longer than the second.
const BACK_NS: i64 = 4_000_000_000;
const AHEAD_NS: i64 = 15_000_000_000;

/// Bytes of a ring, and of a clip: 10 s of 25 Mbit/s, the rate of a 4K camera.
pub(super) const MAX_BYTES: usize = 32 << 20;

/// Units of a ring, and of a clip: what they take beside their bytes. 60 s at 60 pictures a second.
const MAX_UNITS: usize = 3600;

/// Times the seconds before and after an event that a clip of several events lasts.
const MAX_WINDOWS: i64 = 2;

/// Clips of a session at once: two where events come in their order, and those that late ones keep
/// open. A worker that tells times in any order has no more.
const MAX_OPEN: usize = 4;

/// How long a clip is, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClipTerms {
    pub(super) before: i64,
    pub(super) after: i64,
}

/// Why a clip ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Cut {
    /// The source delivers nothing any more, or the session has another one.
    SourceEnded,
    /// The pictures that follow have another size or coding.
    ParametersChanged,
    /// The pictures' times jump.
    TimeJumped,
    /// It has as many bytes or pictures as a clip may have, or all clips together have.
    TooLarge,
    /// The config has no clips of this session any more.
    TurnedOff,
}

/// A clip whose pictures are all there.
#[derive(Debug)]
pub(super) struct CollectedClip {
    pub(super) id: u64,
    pub(super) units: Vec<Arc<AccessUnit>>,
    pub(super) sets: ParameterSets,
    pub(super) cut: Option<Cut>,
    /// Bytes that it had of the host's budget.
    pub(super) bytes: usize,
}

/// Why an event has no clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are no clips of this session.
    Off,
    /// There is no picture of its time: the source has none, or they are too large or far apart.
    NoPictures,
    /// All clips that are being collected take too much memory, or the session has too many.
    Memory,
}

/// The bytes that may be collected for all clips of the host.
pub(super) trait ClipBudget {
    /// Takes so many, if there are.
    fn take(&self, bytes: usize) -> bool;
}

#[derive(Debug)]
pub(super) struct ClipRing {
    terms: Option<ClipTerms>,
    gops: VecDeque<KeptGop>,
    bytes: usize,
    units: usize,
    sets: Option<ParameterSets>,
    /// The latest time of a picture.
    newest: i64,
    open: Vec<OpenClip>,
}

/// A key unit and those that follow it.
#[derive(Debug, Default)]
struct KeptGop {
    begin: i64,
    bytes: usize,
    units: Vec<Arc<AccessUnit>>,
}

/// A clip that is being collected.
#[derive(Debug)]
struct OpenClip {
    id: u64,
    begin: i64,
    /// What its length counts from: it begins earlier where key pictures are far apart.
    since: i64,
    /// It is whole with the first picture from this time on.
    until: i64,
    /// The time of that picture. Those that show before it may be decoded after it: they come until
    /// one does that shows later.
    last: Option<i64>,
    bytes: usize,
    units: Vec<Arc<AccessUnit>>,
}

impl ClipRing {
    pub(super) fn new(terms: Option<ClipTerms>) -> Self {
        Self {
            terms,
            gops: VecDeque::new(),
            bytes: 0,
            units: 0,
            sets: None,
            newest: 0,
            open: Vec::new(),
        }
    }

    /// Bytes of the pictures that are kept for events to come.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes other terms over: for clips that begin from now on. The clips that are turned off.
    pub(super) fn set_terms(&mut self, terms: Option<ClipTerms>) -> Vec<CollectedClip> {
        self.terms = terms;
        if terms.is_some() { Vec::new() } else { self.end(Cut::TurnedOff) }
    }

    /// Nothing that follows continues what was: all that is collected ends.
    pub(super) fn end(&mut self, cut: Cut) -> Vec<CollectedClip> {
        self.clear();
        let sets = self.sets.take();
        let open = std::mem::take(&mut self.open);
        sets.map(|sets| open.into_iter().map(|clip| clip.end(&sets, Some(cut))).collect())
            .unwrap_or_default()
    }

    /// Takes the next unit, in decoding order. The clips that are at their ends.
    pub(super) fn unit(
        &mut self,
        unit: &Arc<AccessUnit>,
        budget: &impl ClipBudget,
    ) -> Vec<CollectedClip> {
        let Some(terms) = self.terms else { return Vec::new() };
        // No browser shows Motion JPEG in a file of MP4.
        let Some(codec) = NalCodec::of(unit.header.codec) else {
            return self.end(Cut::ParametersChanged);
        };
        let time = unit.header.shown_ns();
        let mut ended = Vec::new();
        let since = time.saturating_sub(self.newest);
        if !self.gops.is_empty() && !(-BACK_NS..=AHEAD_NS).contains(&since) {
            ended = self.end(Cut::TimeJumped);
        }
        if unit.header.key {
            let sets = ParameterSets::before(codec, &unit.data);
            if sets.is_some() && sets != self.sets {
                if self.sets.is_some() {
                    ended.extend(self.end(Cut::ParametersChanged));
                }
                self.sets = sets;
            }
        }
        if self.sets.is_none() || (self.gops.is_empty() && !unit.header.key) {
            return ended;
        }
        self.newest = if self.gops.is_empty() { time } else { self.newest.max(time) };
        self.keep(unit, time, terms);
        ended.extend(self.collect(unit, budget));
        ended
    }

    fn keep(&mut self, unit: &Arc<AccessUnit>, time: i64, terms: ClipTerms) {
        if unit.header.key {
            self.gops.push_back(KeptGop { begin: time, ..KeptGop::default() });
        }
        let Some(gop) = self.gops.back_mut() else { return };
        gop.bytes = gop.bytes.saturating_add(unit.data.len());
        gop.units.push(Arc::clone(unit));
        self.bytes = self.bytes.saturating_add(unit.data.len());
        self.units += 1;
        let since = self.newest.saturating_sub(terms.before.saturating_add(LATE_NS));
        while self.gops.get(1).is_some_and(|next| next.begin <= since || self.is_full()) {
            if let Some(gone) = self.gops.pop_front() {
                self.bytes = self.bytes.saturating_sub(gone.bytes);
                self.units = self.units.saturating_sub(gone.units.len());
            }
        }
        if self.is_full() {
            // Its key picture is too far back, or it is itself too large.
            self.clear();
        }
    }

    fn is_full(&self) -> bool {
        self.bytes > MAX_BYTES || self.units > MAX_UNITS
    }

    fn clear(&mut self) {
        self.gops.clear();
        (self.bytes, self.units) = (0, 0);
    }

    /// Adds a unit to the clips that are being collected.
    fn collect(&mut self, unit: &Arc<AccessUnit>, budget: &impl ClipBudget) -> Vec<CollectedClip> {
        let Some(sets) = &self.sets else { return Vec::new() };
        let (time, bytes) = (unit.header.shown_ns(), unit.data.len());
        let mut ended = Vec::new();
        for mut clip in std::mem::take(&mut self.open) {
            if clip.last.is_some_and(|last| time > last) {
                ended.push(clip.end(sets, None));
                continue;
            }
            let fits = clip.bytes.saturating_add(bytes) <= MAX_BYTES
                && clip.units.len() < MAX_UNITS
                && budget.take(bytes);
            if !fits {
                ended.push(clip.end(sets, Some(Cut::TooLarge)));
                continue;
            }
            clip.bytes += bytes;
            clip.units.push(Arc::clone(unit));
            if time >= clip.until {
                clip.last = clip.last.or(Some(time));
            }
            self.open.push(clip);
        }
        ended
    }

    /// An event of the picture with this time. The clip that shows it: one that is being collected
    /// already, or another, which `id` names. Where events come late it goes on after their time, so
    /// that those that follow share it.
    pub(super) fn event(
        &mut self,
        time: i64,
        id: impl FnOnce() -> u64,
        budget: &impl ClipBudget,
    ) -> Result<u64, Refused> {
        let terms = self.terms.ok_or(Refused::Off)?;
        let since = time.saturating_sub(terms.before);
        let until = time.saturating_add(terms.after);
        let longest = terms.before.saturating_add(terms.after).saturating_mul(MAX_WINDOWS);
        let end = if until > self.newest { until } else { self.newest.saturating_add(terms.after) };
        let joined = self
            .open
            .iter_mut()
            .find(|clip| time >= clip.begin && until.saturating_sub(clip.since) <= longest);
        if let Some(clip) = joined {
            clip.until = clip.until.max(end);
            clip.last = clip.last.filter(|last| *last >= clip.until);
            return Ok(clip.id);
        }
        let first = self.gops.front().ok_or(Refused::NoPictures)?.begin;
        if time < first || time > self.newest.saturating_add(AHEAD_NS) {
            return Err(Refused::NoPictures);
        }
        if self.open.len() >= MAX_OPEN {
            return Err(Refused::Memory);
        }
        let skipped = self.gops.iter().skip(1).take_while(|gop| gop.begin <= since).count();
        let gops = || self.gops.iter().skip(skipped);
        let begin = gops().next().map_or(first, |gop| gop.begin);
        let bytes = gops().map(|gop| gop.bytes).sum();
        if !budget.take(bytes) {
            return Err(Refused::Memory);
        }
        let units = gops().flat_map(|gop| &gop.units).map(Arc::clone).collect();
        let (id, since) = (id(), since.max(begin));
        self.open.push(OpenClip { id, begin, since, until: end, last: None, bytes, units });
        Ok(id)
    }
}

impl OpenClip {
    fn end(self, sets: &ParameterSets, cut: Option<Cut>) -> CollectedClip {
        let Self { id, units, bytes, last, .. } = self;
        CollectedClip { id, units, sets: sets.clone(), cut: cut.filter(|_| last.is_none()), bytes }
    }
}
