//! Zones: parts of the picture, and which tracks are in them.
//!
//! A track is where its foot point is, the middle of its box's lower edge: of what stands on the ground the box's other points lie
//! over what is behind it. A detector's boxes tremble from frame to frame, so at a zone's edge a single look says little: a track
//! has entered when a second look in a row finds it inside, and has left when a second one in a row finds it outside. Times count
//! from the first of the two. A track that is out of sight stays where it was; when it ends, it has left.

use std::collections::BTreeMap;

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::track::TrackInfo;
use serde::{Deserialize, Serialize};

use crate::happening::{Happening, What};
use crate::settings::Zone;

/// How far within the picture a foot point counts as at least, in parts of it: objects that the lower edge of the picture cuts
/// off stand on that edge, which is no part of a polygon that ends there. Less than half a pixel of any camera.
const EDGE: f32 = 1.0 / 65536.0;

/// The zones of one camera with what is in them.
#[derive(Debug, Clone)]
pub(crate) struct Zones(Vec<Watched>);

#[derive(Debug, Clone)]
struct Watched {
    zone: Zone,
    /// By track.
    tracks: BTreeMap<u64, Presence>,
}

/// A track that is in a zone, or was found there once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Presence {
    /// Presentation time of the first look inside, in nanoseconds.
    since: u64,
    /// Whether a second look has confirmed it.
    inside: bool,
    /// Presentation time of a first look outside.
    out_since: Option<u64>,
}

/// A zone's part of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    name: String,
    polygon: Vec<[f32; 2]>,
    tracks: Vec<TrackState>,
}

/// See [`Presence`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TrackState {
    track: u64,
    since: u64,
    inside: bool,
    out_since: Option<u64>,
}

impl Zones {
    /// Zones with nothing in them.
    pub(crate) fn new(zones: &[Zone]) -> Self {
        Self(zones.iter().map(|zone| Watched { zone: zone.clone(), tracks: BTreeMap::new() }).collect())
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out the tracks that have ended.
    pub(crate) fn end(&mut self, ended: &[TrackInfo]) -> Vec<Happening> {
        let mut left = Vec::new();
        for track in ended {
            for Watched { zone, tracks } in &mut self.0 {
                let presence = tracks.remove(&track.id).filter(|presence| presence.inside);
                left.extend(presence.map(|p| zone_left(zone, track, &p, track.last_seen)));
            }
        }
        left
    }

    /// Looks where the tracks are that the frame at `time` shows, a picture of `size` pixels. At most `room` objects more enter:
    /// for the others it is as if their second look were still to come.
    pub(crate) fn look(
        &mut self,
        time: u64,
        size: (u32, u32),
        seen: &[TrackInfo],
        mut room: usize,
    ) -> Vec<Happening> {
        let mut happened = Vec::new();
        for track in seen {
            let foot = foot(&track.bbox, size);
            for Watched { zone, tracks } in &mut self.0 {
                let there = zone.labels.wants(track.class) && contains(&zone.polygon, foot);
                match (tracks.get_mut(&track.id), there) {
                    (None, true) => {
                        tracks.insert(track.id, Presence { since: time, inside: false, out_since: None });
                    }
                    (None, false) => {}
                    (Some(presence), true) if presence.inside => presence.out_since = None,
                    (Some(presence), true) => {
                        if room > 0 {
                            room -= 1;
                            presence.inside = true;
                            let what = What::ZoneEntered { zone: zone.name.clone() };
                            happened.push(Happening::new(what, track));
                        }
                    }
                    (Some(presence), false) => {
                        let presence = *presence;
                        match presence.out_since {
                            None if presence.inside => {
                                tracks.insert(track.id, Presence { out_since: Some(time), ..presence });
                            }
                            _ => {
                                tracks.remove(&track.id);
                                let left = presence.inside.then(|| zone_left(zone, track, &presence, time));
                                happened.extend(left);
                            }
                        }
                    }
                }
            }
        }
        happened
    }

    /// The tracks inside, with their zones and since when, presentation time in nanoseconds.
    pub(crate) fn inside(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.0.iter().flat_map(|Watched { zone, tracks }| {
            let inside = tracks.iter().filter(|(_, presence)| presence.inside);
            inside.map(|(&track, presence)| (zone.name.as_str(), track, presence.since))
        })
    }

    /// What a snapshot keeps.
    pub(crate) fn state(&self) -> Vec<State> {
        let state = |Watched { zone, tracks }: &Watched| State {
            name: zone.name.clone(),
            polygon: zone.polygon.clone(),
            tracks: tracks
                .iter()
                .map(|(&track, &Presence { since, inside, out_since })| TrackState {
                    track,
                    since,
                    inside,
                    out_since,
                })
                .collect(),
        };
        self.0.iter().map(state).collect()
    }

    /// Zones that go on from another instance's [`Zones::state`] where name and polygon are the same; the others have nothing in
    /// them. `tracks` are those that are alive.
    ///
    /// # Errors
    /// A state that cannot have come from here.
    pub(crate) fn resume(zones: &[Zone], state: &[State], tracks: &[TrackInfo]) -> Result<Self, String> {
        let alive: BTreeMap<u64, &TrackInfo> = tracks.iter().map(|track| (track.id, track)).collect();
        let mut resumed = Self::new(zones);
        for State { name, polygon, tracks } in state {
            let mut presences = BTreeMap::new();
            for TrackState { track, since, inside, out_since } in tracks {
                let refuse = |why: &str| Err(format!("track {track} in zone {name:?} {why}"));
                let Some(info) = alive.get(track) else { return refuse("is not alive") };
                let in_order = info.first_seen <= *since
                    && *since <= out_since.unwrap_or(info.last_seen)
                    && out_since.is_none_or(|out| out <= info.last_seen && *inside);
                if !in_order {
                    return refuse("has times that no look gives");
                }
                let presence = Presence { since: *since, inside: *inside, out_since: *out_since };
                if presences.insert(*track, presence).is_some() {
                    return refuse("is there twice");
                }
            }
            let same = |w: &&mut Watched| w.zone.is(name, polygon);
            if let Some(watched) = resumed.0.iter_mut().find(same) {
                watched.tracks = presences;
            }
        }
        Ok(resumed)
    }

    /// Whether what this state holds of a zone is gone on with.
    pub(crate) fn keep(&self, state: &State) -> bool {
        self.0.iter().any(|watched| watched.zone.is(&state.name, &state.polygon))
    }
}

impl State {
    /// The zone's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

fn zone_left(zone: &Zone, track: &TrackInfo, presence: &Presence, time: u64) -> Happening {
    let until = presence.out_since.unwrap_or(time);
    let what = What::ZoneLeft { zone: zone.name.clone(), dwell: until.saturating_sub(presence.since) };
    Happening::new(what, track)
}

/// The middle of the lower edge of a box, in parts of the picture.
fn foot(bbox: &BBox, (width, height): (u32, u32)) -> [f32; 2] {
    let x = (bbox.left + bbox.right) / 2.0 / width as f32;
    let y = bbox.bottom / height as f32;
    [x, y].map(|part| part.clamp(EDGE, 1.0 - EDGE))
}

/// Whether a point lies in a polygon: whether a ray from it to the right crosses an odd number of its edges. Of two polygons that
/// share an edge, a point on it is in one.
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
