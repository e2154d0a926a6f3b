//! What happens to tracks, and in what portions it is told.

use std::collections::VecDeque;
use std::time::Duration;

use ocelli_sdk::Event;
use ocelli_sdk::track::TrackInfo;
use serde::{Deserialize, Serialize};

use crate::engine::{detection, label};

/// Events of one look. The host ends an instance that gives more than its limit (100 unless
/// configured), and when a stream goes on after an outage, all that was in view leaves at once, its
/// zones too.
pub(crate) const EVENTS_PER_LOOK: usize = 64;

/// Happenings that wait for the next looks. What is beyond is told at once: no camera shows as
/// much, and if one does, the host's limit says so.
pub(crate) const MAX_PENDING: usize = 2048;

/// One change, at the moment when it was noticed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrackEvent {
    pub(crate) kind: TrackEventKind,
    /// As it was then.
    pub(crate) track: TrackInfo,
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
        /// From the first look inside to the first outside, or to the track's last sight;
        /// nanoseconds.
        dwell: u64,
    },
}

/// What an event's `data` holds.
#[derive(Serialize)]
struct Data<'a> {
    track: u64,
    label: &'static str,
    /// From the first sight to the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dwell_s: Option<f64>,
}

impl TrackEvent {
    pub(crate) fn new(what: TrackEventKind, track: &TrackInfo) -> Self {
        Self { kind: what, track: *track }
    }

    /// The zone that it is about, if it is about one.
    pub(crate) fn zone(&self) -> Option<&str> {
        match &self.kind {
            TrackEventKind::Entered | TrackEventKind::Left => None,
            TrackEventKind::ZoneEntered { zone } | TrackEventKind::ZoneLeft { zone, .. } => {
                Some(zone)
            }
        }
    }

    /// Whether it is a coming and not a going.
    pub(crate) fn is_entry(&self) -> bool {
        matches!(self.kind, TrackEventKind::Entered | TrackEventKind::ZoneEntered { .. })
    }

    /// As subscribers get it.
    pub(crate) fn event(&self) -> Event {
        let Self { kind: what, track } = self;
        let (kind, duration, dwell) = match what {
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
        };
        Event {
            detections: vec![detection(track.class, track.score, track.bbox, Some(track.id))],
            // Numbers and plain strings always serialise.
            data: serde_json::to_string(&data).unwrap_or_default(),
            ..Event::new(kind)
        }
    }
}

/// What has happened and is not told yet, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct PendingEvents(VecDeque<TrackEvent>);

impl PendingEvents {
    /// Goes on with what another instance had not told.
    pub(crate) fn resume(happenings: Vec<TrackEvent>) -> Self {
        Self(happenings.into())
    }

    pub(crate) fn extend(&mut self, happenings: impl IntoIterator<Item = TrackEvent>) {
        self.0.extend(happenings);
    }

    /// What this look tells.
    pub(crate) fn take(&mut self) -> Vec<TrackEvent> {
        let count = EVENTS_PER_LOOK.max(self.0.len().saturating_sub(MAX_PENDING));
        self.0.drain(..count.min(self.0.len())).collect()
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &TrackEvent> {
        self.0.iter()
    }
}
