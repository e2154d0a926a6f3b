//! Zones: parts of the picture, and which tracks are in them.
//!
//! A track is where its foot point is, the middle of its box's lower edge: the other points of an
//! object that stands on the ground cover the ground behind it. A detector's boxes tremble from
//! frame to frame, so at a zone's edge a single frame says little: a track has entered when a
//! second frame in a row finds it inside, and has left when a second one in a row finds it outside.
//! Times count from the first of the two. A lost track stays where it was; when it ends, it has
//! left.

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::track::TrackInfo;
use serde::{Deserialize, Serialize};

use crate::settings::Zone;
use crate::track_event::{TrackEvent, TrackEventKind};

/// Least distance of a foot point from the edges of the picture, as a share of it: objects that the
/// lower edge cuts off stand on that edge, which is outside a polygon that ends there. Less than
/// half a pixel of any camera.
const EDGE: f32 = 1.0 / 65536.0;

/// The zones of one camera, each with its tracks.
#[derive(Debug, Clone)]
pub(crate) struct Zones(Vec<ZoneTracks>);

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
pub(crate) struct ZoneState {
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

    /// Removes a track, last seen at `time`; gives the event if it was inside.
    fn remove(&mut self, track: &TrackInfo, time: u64) -> Option<TrackEvent> {
        let presence = self.place(track.id).ok().map(|place| self.tracks.remove(place))?;
        let until = presence.out_since.unwrap_or(time);
        let dwell = until.saturating_sub(presence.since);
        let kind = TrackEventKind::ZoneLeft { zone: self.zone.name.clone(), dwell };
        presence.inside.then(|| TrackEvent::new(kind, track))
    }

    /// Records that the frame at `time` shows a track inside or outside; gives the event of it.
    /// Unless it `may_enter`, a second frame inside confirms nothing.
    fn record(
        &mut self,
        track: &TrackInfo,
        there: bool,
        time: u64,
        may_enter: bool,
    ) -> Option<TrackEvent> {
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
                let kind = TrackEventKind::ZoneEntered { zone: self.zone.name.clone() };
                return Some(TrackEvent::new(kind, track));
            }
            (false, true) => {}
        }
        None
    }
}

impl Zones {
    /// Empty zones.
    pub(crate) fn new(zones: &[Zone]) -> Self {
        Self(zones.iter().map(ZoneTracks::new).collect())
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes the tracks that have ended.
    pub(crate) fn end(&mut self, ended: &[TrackInfo]) -> Vec<TrackEvent> {
        let mut left = Vec::new();
        for track in ended {
            left.extend(
                self.0.iter_mut().filter_map(|watched| watched.remove(track, track.last_seen)),
            );
        }
        left
    }

    /// Locates the tracks that the frame at `time` shows, a picture of `size` pixels. At most
    /// `entries` more objects enter.
    pub(crate) fn observe(
        &mut self,
        time: u64,
        size: (u32, u32),
        seen: &[TrackInfo],
        mut entries: usize,
    ) -> Vec<TrackEvent> {
        let mut events = Vec::new();
        for track in seen {
            let foot = foot(&track.bbox, size);
            for watched in &mut self.0 {
                let Zone { polygon, labels, .. } = &watched.zone;
                let there = labels.wants(track.class) && contains(polygon, foot);
                let event = watched.record(track, there, time, entries > 0);
                entries -= usize::from(event.as_ref().is_some_and(TrackEvent::is_entry));
                events.extend(event);
            }
        }
        events
    }

    /// The tracks inside, with their zones and since when, presentation time in nanoseconds.
    pub(crate) fn inside(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.0.iter().flat_map(|ZoneTracks { zone, tracks }| {
            let inside = tracks.iter().filter(|presence| presence.inside);
            inside.map(|presence| (zone.name.as_str(), presence.track, presence.since))
        })
    }

    /// The zones' part of a snapshot.
    pub(crate) fn state(&self) -> Vec<ZoneState> {
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
    pub(crate) fn resume(
        zones: &[Zone],
        state: Vec<ZoneState>,
        alive: &[TrackInfo],
    ) -> Result<Self, String> {
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
            if let Some([_, next]) = tracks.array_windows().find(|[a, b]| a.track >= b.track) {
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
    pub(crate) fn is_of(&self, name: &str, zones: &[Zone]) -> bool {
        self.name == name && zones.iter().any(|zone| zone.is(name, &self.polygon))
    }
}

/// The middle of the lower edge of a box, in parts of the picture.
fn foot(bbox: &BBox, (width, height): (u32, u32)) -> [f32; 2] {
    let x = (bbox.left + bbox.right) / 2.0 / width as f32;
    let y = bbox.bottom / height as f32;
    [x, y].map(|part| part.clamp(EDGE, 1.0 - EDGE))
}

/// Whether a point lies in a polygon: whether a ray from it to the right crosses an odd number of
/// its edges. Of two polygons that share an edge, a point on it is in one.
fn contains(polygon: &[[f32; 2]], [x, y]: [f32; 2]) -> bool {
    let before = polygon.iter().cycle().skip(polygon.len().saturating_sub(1));
    polygon.iter().zip(before).fold(false, |inside, (&[ax, ay], &[bx, by])| {
        let crosses = (ay > y) != (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax;
        inside != crosses
    })
}

#[cfg(test)]
#[path = "zones_tests.rs"]
mod tests;
