//! Events of tracks.

use std::time::Duration;

use ocelli_sdk::Event;
use ocelli_sdk::counts::Step;
use ocelli_sdk::lines::{Direction, LineCrossing};
use ocelli_sdk::track::TrackInfo;
use ocelli_sdk::zones::{Passage, ZoneChange};
use serde::{Deserialize, Serialize};

use crate::objects::{Labels, tracking};

/// An event of a track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrackEvent {
    pub(crate) kind: TrackEventKind,
    /// The track at that time.
    pub(crate) track: TrackInfo,
    /// Whether tracks could not be relied on then: it may be of another object than it says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) uncertain: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TrackEventKind {
    Entered,
    Left,
    ZoneEntered {
        zone: String,
    },
    ZoneLeft {
        zone: String,
        /// From the first frame inside to the first one outside, or to the track's last one;
        /// nanoseconds.
        dwell: u64,
    },
    LineCrossed {
        line: String,
        direction: Direction,
    },
}

/// The content of an event's `data`.
#[derive(Serialize)]
struct Data<'a> {
    track: u64,
    label: &'a str,
    /// From the first frame to the last, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dwell_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<Direction>,
    /// There where tracks could not be relied on.
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking: Option<&'static str>,
}

impl TrackEvent {
    pub(crate) fn new(kind: TrackEventKind, track: &TrackInfo) -> Self {
        Self { kind, track: *track, uncertain: false }
    }

    pub(crate) fn of_zone(ZoneChange { zone, track, passage }: ZoneChange) -> Self {
        let kind = match passage {
            Passage::Entered => TrackEventKind::ZoneEntered { zone },
            Passage::Left { dwell } => TrackEventKind::ZoneLeft { zone, dwell },
        };
        Self { kind, track, uncertain: false }
    }

    pub(crate) fn of_line(LineCrossing { line, track, direction, .. }: LineCrossing) -> Self {
        Self { kind: TrackEventKind::LineCrossed { line, direction }, track, uncertain: false }
    }

    /// The line of a crossing.
    pub(crate) fn line(&self) -> Option<&str> {
        match &self.kind {
            TrackEventKind::LineCrossed { line, .. } => Some(line),
            _ => None,
        }
    }

    /// The zone of a zone event.
    pub(crate) fn zone(&self) -> Option<&str> {
        match &self.kind {
            TrackEventKind::Entered | TrackEventKind::Left | TrackEventKind::LineCrossed { .. } => {
                None
            }
            TrackEventKind::ZoneEntered { zone } | TrackEventKind::ZoneLeft { zone, .. } => {
                Some(zone)
            }
        }
    }

    /// What is counted.
    pub(crate) fn step<'a>(&'a self, labels: &'a Labels) -> Step<'a> {
        let label = labels.of(self.track.class);
        Step { place: self.zone().or(self.line()), label, entered: self.is_entry() }
    }

    /// Whether an object enters, rather than leaves; of a line, whether it comes to its right side.
    pub(crate) fn is_entry(&self) -> bool {
        match self.kind {
            TrackEventKind::Entered | TrackEventKind::ZoneEntered { .. } => true,
            TrackEventKind::Left | TrackEventKind::ZoneLeft { .. } => false,
            TrackEventKind::LineCrossed { direction, .. } => direction == Direction::ToRight,
        }
    }

    /// As subscribers get it.
    pub(crate) fn event(&self, labels: &Labels) -> Event {
        let Self { kind, track, uncertain } = self;
        let (kind, duration, dwell) = match kind {
            TrackEventKind::Entered => ("entered", None, None),
            TrackEventKind::Left => ("left", Some(track.duration()), None),
            TrackEventKind::ZoneEntered { .. } => ("zone_entered", None, None),
            TrackEventKind::ZoneLeft { dwell, .. } => {
                ("zone_left", None, Some(Duration::from_nanos(*dwell)))
            }
            TrackEventKind::LineCrossed { .. } => ("line_crossed", None, None),
        };
        let direction = match self.kind {
            TrackEventKind::LineCrossed { direction, .. } => Some(direction),
            _ => None,
        };
        let data = Data {
            track: track.id,
            label: labels.of(track.class),
            duration_s: duration.map(|duration| duration.as_secs_f64()),
            zone: self.zone(),
            dwell_s: dwell.map(|dwell| dwell.as_secs_f64()),
            line: self.line(),
            direction,
            tracking: uncertain.then(|| tracking(false)),
        };
        let about = labels.detection(track.class, track.score, track.bbox, Some(track.id));
        Event {
            detections: vec![about],
            // Numbers and plain strings always serialise.
            data: serde_json::to_string(&data).unwrap_or_default(),
            ..Event::new(kind)
        }
    }
}
