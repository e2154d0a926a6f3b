//! How many objects entered and left: of each zone and, where the settings ask for it, of the
//! picture; by label.
//!
//! The numbers have one owner, the session's store: they outlive swaps, restarts and crashes. They
//! are read and written in the call that tells the events which they count, so after a crash events
//! and numbers still agree. What is inside *now* is no number of theirs: the tracks know it.

use ocelli_sdk::{log, store::Bucket};
use serde::{Deserialize, Serialize};

use crate::engine::{Occupancy, label};
use crate::happening::TrackEvent;
use crate::settings::Settings;

const BUCKET: &str = env!("CARGO_PKG_NAME");
const KEY: &str = "counts";

/// How many of a label came and went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LabelCounts {
    pub(crate) label: String,
    pub(crate) entered: u64,
    pub(crate) left: u64,
}

/// The numbers of a label among others.
pub(crate) fn label_counts<'a>(
    tallies: &'a mut Vec<LabelCounts>,
    label: &str,
) -> Option<&'a mut LabelCounts> {
    if !tallies.iter().any(|tally| tally.label == label) {
        tallies.push(LabelCounts { label: label.into(), ..LabelCounts::default() });
    }
    tallies.iter_mut().find(|tally| tally.label == label)
}

/// The value in the store: of the zones that there are, and of the picture.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) zones: Vec<ZoneCounts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) objects: Option<Vec<LabelCounts>>,
}

/// Of one zone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ZoneCounts {
    pub(crate) zone: String,
    polygon: Vec<[f32; 2]>,
    pub(crate) labels: Vec<LabelCounts>,
}

impl Counts {
    /// Whether the settings ask for any.
    fn are_wanted(settings: &Settings) -> bool {
        settings.count_objects || !settings.zones.is_empty()
    }

    /// The numbers so far of what the settings ask for. What another version counted of the same is
    /// gone on with; zones with another polygon begin at 0. A value that is none of this pipeline's
    /// is told to the log and replaced.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn read(settings: &Settings) -> Result<Self, String> {
        let mut kept = Self::default();
        if Self::are_wanted(settings)
            && let Some(value) = Bucket::open(BUCKET)?.get(KEY)?
        {
            let text = str::from_utf8(&value).map_err(|error| error.to_string());
            match text
                .and_then(|text| serde_json::from_str(text).map_err(|error| error.to_string()))
            {
                Ok(counts) => kept = counts,
                Err(error) => {
                    log::warn("counts", &format!("unreadable, counting begins anew: {error}"))
                }
            }
        }
        let zones = settings.zones.iter().map(|zone| {
            let same = kept.zones.iter().find(|k| zone.is(&k.zone, &k.polygon));
            let labels = same.map(|same| same.labels.clone()).unwrap_or_default();
            ZoneCounts { zone: zone.name.clone(), polygon: zone.polygon.clone(), labels }
        });
        let objects = settings.count_objects.then(|| kept.objects.unwrap_or_default());
        Ok(Self { zones: zones.collect(), objects })
    }

    fn write(&self) -> Result<(), String> {
        Bucket::open(BUCKET)?.set_json(KEY, self)
    }

    /// Counts what is told. Where nothing of it is counted, the store is not touched.
    ///
    /// # Errors
    /// The store cannot be read or is full; nothing is counted then.
    pub(crate) fn add(settings: &Settings, told: &[TrackEvent]) -> Result<(), String> {
        let counted = |h: &&TrackEvent| h.zone().is_some() || settings.count_objects;
        let mut counted = told.iter().filter(counted).peekable();
        if counted.peek().is_none() {
            return Ok(());
        }
        let mut counts = Self::read(settings)?;
        for happening in counted {
            let tallies = counts.of(happening.zone());
            if let Some(tally) = tallies.and_then(|t| label_counts(t, label(happening.track.class)))
            {
                let number =
                    if happening.is_entry() { &mut tally.entered } else { &mut tally.left };
                *number = number.saturating_add(1);
            }
        }
        counts.write()
    }

    /// Begins anew: what is inside now counts as entered.
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
            if let Some(tallies) = counts.of(zone) {
                tallies.push(LabelCounts { label: label.into(), entered, left: 0 });
            }
        }
        counts.write()
    }

    /// The numbers of a zone, or of the picture; none where they are not asked for.
    fn of(&mut self, zone: Option<&str>) -> Option<&mut Vec<LabelCounts>> {
        match zone {
            Some(name) => self.zones.iter_mut().find(|z| z.zone == name).map(|z| &mut z.labels),
            None => self.objects.as_mut(),
        }
    }
}
