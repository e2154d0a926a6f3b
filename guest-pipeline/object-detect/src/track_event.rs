//! Events of tracks, and the queue that spreads them over frames.

use std::collections::VecDeque;
use std::time::Duration;

use ocelli_sdk::Event;
use ocelli_sdk::track::TrackInfo;
use serde::{Deserialize, Serialize};

use crate::objects::{EVENTS_PER_FRAME, MAX_PENDING, detection, label, tracking};

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
}

/// The content of an event's `data`.
#[derive(Serialize)]
struct Data<'a> {
    track: u64,
    label: &'static str,
    /// From the first frame to the last, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dwell_s: Option<f64>,
    /// There where tracks could not be relied on.
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking: Option<&'static str>,
}

impl TrackEvent {
    pub(crate) fn new(kind: TrackEventKind, track: &TrackInfo) -> Self {
        Self { kind, track: *track, uncertain: false }
    }

    /// The zone of a zone event.
    pub(crate) fn zone(&self) -> Option<&str> {
        match &self.kind {
            TrackEventKind::Entered | TrackEventKind::Left => None,
            TrackEventKind::ZoneEntered { zone } | TrackEventKind::ZoneLeft { zone, .. } => {
                Some(zone)
            }
        }
    }

    /// Whether an object enters, rather than leaves.
    pub(crate) fn is_entry(&self) -> bool {
        matches!(self.kind, TrackEventKind::Entered | TrackEventKind::ZoneEntered { .. })
    }

    /// As subscribers get it.
    pub(crate) fn event(&self) -> Event {
        let Self { kind, track, uncertain } = self;
        let (kind, duration, dwell) = match kind {
            TrackEventKind::Entered => ("entered", None, None),
            TrackEventKind::Left => ("left", Some(track.duration()), None),
            TrackEventKind::ZoneEntered { .. } => ("zone_entered", None, None),
            TrackEventKind::ZoneLeft { dwell, .. } => {
                ("zone_left", None, Some(Duration::from_nanos(*dwell)))
            }
        };
        let data = Data {
            track: track.id,
            label: label(track.class),
            duration_s: duration.map(|duration| duration.as_secs_f64()),
            zone: self.zone(),
            dwell_s: dwell.map(|dwell| dwell.as_secs_f64()),
            tracking: uncertain.then(|| tracking(false)),
        };
        Event {
            detections: vec![detection(track.class, track.score, track.bbox, Some(track.id))],
            // Numbers and plain strings always serialise.
            data: serde_json::to_string(&data).unwrap_or_default(),
            ..Event::new(kind)
        }
    }
}

/// Events that no output has reported yet, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct PendingEvents(VecDeque<TrackEvent>);

impl PendingEvents {
    /// Goes on with the pending events of another instance.
    pub(crate) fn resume(events: Vec<TrackEvent>) -> Self {
        Self(events.into())
    }

    pub(crate) fn extend(&mut self, events: impl IntoIterator<Item = TrackEvent>) {
        self.0.extend(events);
    }

    /// Takes the events of one frame.
    pub(crate) fn take(&mut self) -> Vec<TrackEvent> {
        let count = EVENTS_PER_FRAME.max(self.0.len().saturating_sub(MAX_PENDING));
        self.0.drain(..count.min(self.0.len())).collect()
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &TrackEvent> {
        self.0.iter()
    }
}
