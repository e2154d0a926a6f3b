//! Counts of objects that entered and left, by label: of each zone and, if the settings say so, of
//! the picture.
//!
//! The numbers have one owner, the session's store: they outlive swaps, restarts and crashes. They
//! are read and written in the call that reports the events, so after a crash events and numbers
//! still agree. The number of objects inside *now* is not among them: the tracks give it.

use ocelli_sdk::{log, store::Bucket};
use serde::{Deserialize, Serialize};

use crate::objects::{Occupancy, label};
use crate::settings::Settings;
use crate::track_event::TrackEvent;

const BUCKET: &str = env!("CARGO_PKG_NAME");
const KEY: &str = "counts";

/// Objects of one label that entered and left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LabelCounts {
    pub(crate) label: String,
    pub(crate) entered: u64,
    pub(crate) left: u64,
}

/// The counts of a label, added if missing.
pub(crate) fn label_counts<'a>(
    counts: &'a mut Vec<LabelCounts>,
    label: &str,
) -> Option<&'a mut LabelCounts> {
    if !counts.iter().any(|counts| counts.label == label) {
        counts.push(LabelCounts { label: label.into(), ..LabelCounts::default() });
    }
    counts.iter_mut().find(|counts| counts.label == label)
}

/// The value in the store: the counts of the zones and of the picture.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) zones: Vec<ZoneCounts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) objects: Option<Vec<LabelCounts>>,
}

/// The counts of one zone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ZoneCounts {
    pub(crate) zone: String,
    polygon: Vec<[f32; 2]>,
    pub(crate) labels: Vec<LabelCounts>,
}

impl Counts {
    /// Whether the settings ask for counts.
    fn are_wanted(settings: &Settings) -> bool {
        settings.count_objects || !settings.zones.is_empty()
    }

    /// The counts so far that the settings ask for. Counts of another version go on; zones with
    /// another polygon begin at 0. An unreadable value is logged and replaced.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn read(settings: &Settings) -> Result<Self, String> {
        let mut stored = Self::default();
        if Self::are_wanted(settings)
            && let Some(value) = Bucket::open(BUCKET)?.get(KEY)?
        {
            let text = str::from_utf8(&value).map_err(|error| error.to_string());
            match text
                .and_then(|text| serde_json::from_str(text).map_err(|error| error.to_string()))
            {
                Ok(counts) => stored = counts,
                Err(error) => {
                    log::warn("counts", &format!("unreadable, counting begins anew: {error}"))
                }
            }
        }
        let zones = settings.zones.iter().map(|zone| {
            let same = stored.zones.iter().find(|s| zone.is(&s.zone, &s.polygon));
            let labels = same.map(|same| same.labels.clone()).unwrap_or_default();
            ZoneCounts { zone: zone.name.clone(), polygon: zone.polygon.clone(), labels }
        });
        let objects = settings.count_objects.then(|| stored.objects.unwrap_or_default());
        Ok(Self { zones: zones.collect(), objects })
    }

    fn write(&self) -> Result<(), String> {
        Bucket::open(BUCKET)?.set_json(KEY, self)
    }

    /// Counts events. If none of them is counted, the store is not touched.
    ///
    /// # Errors
    /// The store cannot be read or is full; nothing is counted then.
    pub(crate) fn add(settings: &Settings, events: &[TrackEvent]) -> Result<(), String> {
        let counted = |h: &&TrackEvent| h.zone().is_some() || settings.count_objects;
        let mut counted = events.iter().filter(counted).peekable();
        if counted.peek().is_none() {
            return Ok(());
        }
        let mut counts = Self::read(settings)?;
        for event in counted {
            let counts = counts.of(event.zone());
            if let Some(counts) = counts.and_then(|c| label_counts(c, label(event.track.class))) {
                let number = if event.is_entry() { &mut counts.entered } else { &mut counts.left };
                *number = number.saturating_add(1);
            }
        }
        counts.write()
    }

    /// Begins anew: objects inside now count as entered.
    ///
    /// # Errors
    /// The store cannot be read or is full.
    pub(crate) fn reset(settings: &Settings, inside: &[Occupancy<'_>]) -> Result<(), String> {
        if !Self::are_wanted(settings) {
            return Ok(());
        }
        let mut counts = Self::read(settings)?;
        counts.zones.iter_mut().for_each(|zone| zone.labels.clear());
        counts.objects.iter_mut().for_each(Vec::clear);
        for &Occupancy { zone, label, count: entered } in inside {
            if let Some(labels) = counts.of(zone) {
                labels.push(LabelCounts { label: label.into(), entered, left: 0 });
            }
        }
        counts.write()
    }

    /// The counts of a zone, or of the picture. `None` if the settings do not ask for them.
    fn of(&mut self, zone: Option<&str>) -> Option<&mut Vec<LabelCounts>> {
        match zone {
            Some(name) => self.zones.iter_mut().find(|z| z.zone == name).map(|z| &mut z.labels),
            None => self.objects.as_mut(),
        }
    }
}
