//! Zones: parts of the picture, which tracks are in them, and for how long.
//!
//! A track is where its foot point is, the middle of its box's lower edge: the other points of an
//! object that stands on the ground cover the ground behind it. A detector's boxes tremble from
//! frame to frame, so at a zone's edge a single frame says little: a track has entered when a
//! second frame in a row finds it inside, and has left when a second one in a row finds it outside.
//! Times count from the first of the two. A lost track stays where it was; when it ends, it has
//! left.
//!
//! ```
//! use ocelli_sdk::labels::Classes;
//! use ocelli_sdk::track::TrackInfo;
//! use ocelli_sdk::zones::{Passage, Zone, Zones};
//!
//! # let seen = [TrackInfo { id: 1, class: 0, score: 0.9, first_seen: 0, last_seen: 0, lost: false,
//! #     bbox: ocelli_sdk::geometry::BBox::from_xywh(10.0, 10.0, 20.0, 40.0) }];
//! // The left half of the picture.
//! let door = Zone {
//!     name: "door".into(),
//!     polygon: vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]],
//!     classes: Classes::all(),
//! };
//! let mut zones = Zones::new(&[door]);
//! let size = (640, 480);
//! assert!(zones.observe(0, size, &seen, usize::MAX).is_empty(), "a first look says little");
//! let changes = zones.observe(100_000_000, size, &seen, usize::MAX);
//! assert_eq!(changes[0].passage, Passage::Entered);
//! assert_eq!(zones.inside().next(), Some(("door", 1, 0)), "since the first of the two");
//! ```

mod dwell;
mod polygon;
mod settings;

use serde::{Deserialize, Serialize};

pub use dwell::{DwellWatch, Stay};
pub use polygon::{CORNERS, check_polygon, contains, foot};
pub(crate) use polygon::{check_point, cross};
pub use settings::ZoneSettings;

use crate::labels::Classes;
use crate::track::TrackInfo;

/// Zones that settings should define at most. Each track is compared with each of them in every
/// frame.
pub const MAX_ZONES: usize = 32;

/// Characters of the name of a zone or a line: it is part of every event of it.
pub const MAX_ZONE_NAME: usize = 64;

/// A part of the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Name in events and counts.
    pub name: String,
    /// Its corners in turn, x and y in parts of the picture, 0 to 1.
    pub polygon: Vec<[f32; 2]>,
    /// The objects that count.
    pub classes: Classes,
}

impl Zone {
    /// Whether the zone has this name and polygon. The classes may change while its counts go on.
    #[must_use]
    pub fn is(&self, name: &str, polygon: &[[f32; 2]]) -> bool {
        self.name == name && self.polygon == polygon
    }
}

/// A track that has entered or left a zone.
#[derive(Debug, Clone, PartialEq)]
pub struct ZoneChange {
    /// The zone's name.
    pub zone: String,
    /// The track at that time.
    pub track: TrackInfo,
    /// What it did.
    pub passage: Passage,
}

/// In or out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// It is inside.
    Entered,
    /// It is outside, or has ended.
    Left {
        /// From the first frame inside to the first one outside, or to the track's last one;
        /// nanoseconds.
        dwell: u64,
    },
}

/// Checks the name of a zone or a line; `path` is where it stands in the settings.
///
/// # Errors
/// No name, a longer one than [`MAX_ZONE_NAME`], one with a line break or the like.
pub fn check_name(name: &str, path: &str) -> Result<(), String> {
    let letters = name.chars().count();
    if (1..=MAX_ZONE_NAME).contains(&letters) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!("{path}: {name:?} is not 1 to {MAX_ZONE_NAME} letters in one line"))
}

/// The zones of one camera, each with its tracks.
#[derive(Debug, Clone)]
pub struct Zones(Vec<ZoneTracks>);

#[derive(Debug, Clone)]
struct ZoneTracks {
    zone: Zone,
    /// Ordered by track.
    tracks: Vec<Presence>,
}

/// A track in a zone. It has entered once a second frame confirms it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Presence {
    track: u64,
    /// Presentation time of the first frame inside, in nanoseconds.
    since: u64,
    /// Whether a second frame has confirmed it.
    inside: bool,
    /// Presentation time of a first frame outside, in nanoseconds.
    out_since: Option<u64>,
}

/// A zone's part of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZoneState {
    name: String,
    polygon: Vec<[f32; 2]>,
    tracks: Vec<Presence>,
}

impl ZoneTracks {
    fn new(zone: &Zone) -> Self {
        Self { zone: zone.clone(), tracks: Vec::new() }
    }

    /// The index of a track, or the index to insert it at.
    fn place(&self, track: u64) -> Result<usize, usize> {
        self.tracks.binary_search_by_key(&track, |presence| presence.track)
    }

    fn change(&self, track: &TrackInfo, passage: Passage) -> ZoneChange {
        ZoneChange { zone: self.zone.name.clone(), track: *track, passage }
    }

    /// Removes a track, last seen at `time`; gives the change if it was inside.
    fn remove(&mut self, track: &TrackInfo, time: u64) -> Option<ZoneChange> {
        let presence = self.place(track.id).ok().map(|place| self.tracks.remove(place))?;
        let until = presence.out_since.unwrap_or(time);
        let dwell = until.saturating_sub(presence.since);
        presence.inside.then(|| self.change(track, Passage::Left { dwell }))
    }

    /// Records that the frame at `time` shows a track inside or outside; gives the change if that
    /// is one. Unless it `may_enter`, a second frame inside confirms nothing.
    fn record(
        &mut self,
        track: &TrackInfo,
        there: bool,
        time: u64,
        may_enter: bool,
    ) -> Option<ZoneChange> {
        let place = self.place(track.id);
        let Some(presence) = place.ok().and_then(|place| self.tracks.get_mut(place)) else {
            if there {
                let first =
                    Presence { track: track.id, since: time, inside: false, out_since: None };
                self.tracks.insert(place.unwrap_or_else(|place| place), first);
            }
            return None;
        };
        match (presence.inside, there) {
            (true, true) => presence.out_since = None,
            (true, false) if presence.out_since.is_none() => presence.out_since = Some(time),
            (_, false) => return self.remove(track, time),
            (false, true) if may_enter => {
                presence.inside = true;
                return Some(self.change(track, Passage::Entered));
            }
            (false, true) => {}
        }
        None
    }
}

impl Zones {
    /// Empty zones.
    #[must_use]
    pub fn new(zones: &[Zone]) -> Self {
        Self(zones.iter().map(ZoneTracks::new).collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes the tracks that have ended.
    pub fn end(&mut self, ended: &[TrackInfo]) -> Vec<ZoneChange> {
        let mut left = Vec::new();
        for track in ended {
            left.extend(self.0.iter_mut().filter_map(|zone| zone.remove(track, track.last_seen)));
        }
        left
    }

    /// Locates the tracks that the frame at `time` shows, a picture of `size` pixels; lost tracks
    /// are not among `seen`. At most `entries` more objects enter: those that follow enter with a
    /// later look. [`EventQueue::room`](crate::events::EventQueue::room) tells how many there may
    /// be.
    pub fn observe(
        &mut self,
        time: u64,
        size: (u32, u32),
        seen: &[TrackInfo],
        mut entries: usize,
    ) -> Vec<ZoneChange> {
        let mut changes = Vec::new();
        for track in seen {
            let foot = foot(&track.bbox, size);
            for watched in &mut self.0 {
                let Zone { polygon, classes, .. } = &watched.zone;
                let there = classes.wants(track.class) && contains(polygon, foot);
                let change = watched.record(track, there, time, entries > 0);
                let entered = |change: &ZoneChange| change.passage == Passage::Entered;
                entries -= usize::from(change.as_ref().is_some_and(entered));
                changes.extend(change);
            }
        }
        changes
    }

    /// The tracks inside, with their zones and since when, presentation time in nanoseconds.
    pub fn inside(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.0.iter().flat_map(|ZoneTracks { zone, tracks }| {
            let inside = tracks.iter().filter(|presence| presence.inside);
            inside.map(|presence| (zone.name.as_str(), presence.track, presence.since))
        })
    }

    /// The zones' part of a snapshot.
    #[must_use]
    pub fn state(&self) -> Vec<ZoneState> {
        let state = |ZoneTracks { zone, tracks }: &ZoneTracks| ZoneState {
            name: zone.name.clone(),
            polygon: zone.polygon.clone(),
            tracks: tracks.clone(),
        };
        self.0.iter().map(state).collect()
    }

    /// Zones that go on from another instance's [`Zones::state`] where name and polygon are the
    /// same; the others have nothing in them. `alive` are the tracks that are, ordered by number.
    ///
    /// # Errors
    /// A state that cannot have come from here.
    pub fn resume(
        zones: &[Zone],
        state: Vec<ZoneState>,
        alive: &[TrackInfo],
    ) -> Result<Self, String> {
        let count = state.len();
        if count > MAX_ZONES.max(zones.len()) {
            return Err(format!("{count} zones are more than {MAX_ZONES}"));
        }
        let mut resumed = Self::new(zones);
        for ZoneState { name, polygon, tracks } in state {
            let refuse =
                |track: u64, why: &str| Err(format!("track {track} in zone {name:?} {why}"));
            for &Presence { track, since, inside, out_since } in &tracks {
                let info = alive.binary_search_by_key(&track, |info| info.id).ok();
                let Some(info) = info.and_then(|place| alive.get(place)) else {
                    return refuse(track, "is not alive");
                };
                let in_order = info.first_seen <= since
                    && since <= out_since.unwrap_or(info.last_seen)
                    && out_since.is_none_or(|out| out <= info.last_seen && inside);
                if !in_order {
                    return refuse(track, "has times that no look gives");
                }
            }
            let mut pairs = tracks.iter().zip(tracks.iter().skip(1));
            if let Some((_, next)) = pairs.find(|(one, next)| one.track >= next.track) {
                return refuse(next.track, "is there twice or out of order");
            }
            let same = |watched: &&mut ZoneTracks| watched.zone.is(&name, &polygon);
            if let Some(watched) = resumed.0.iter_mut().find(same) {
                watched.tracks = tracks;
            }
        }
        Ok(resumed)
    }
}

impl ZoneState {
    /// Whether this is the state of the zone of this name, and that is one of `zones` still.
    #[must_use]
    pub fn is_of(&self, name: &str, zones: &[Zone]) -> bool {
        self.name == name && zones.iter().any(|zone| zone.is(name, &self.polygon))
    }
}

#[cfg(test)]
mod tests;
