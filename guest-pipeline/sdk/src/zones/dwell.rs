//! Objects that stay in a zone for long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Zones;

/// Tells of each stay in a zone once, when it has lasted for long enough: somebody loiters, a car
/// stands where it must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DwellWatch {
    /// Nanoseconds.
    after: u64,
    /// The long stays that last.
    told: Vec<Stay>,
}

/// An object that has been in a zone for long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stay {
    /// The zone's name.
    pub zone: String,
    /// The track's number.
    pub track: u64,
    /// Presentation time of the first frame inside, in nanoseconds.
    pub since: u64,
}

impl DwellWatch {
    /// Tells of stays of `after` and more.
    #[must_use]
    pub fn new(after: Duration) -> Self {
        Self { after: u64::try_from(after.as_nanos()).unwrap_or(u64::MAX), told: Vec::new() }
    }

    /// The stays that have become long with the frame at `time`. Call it after
    /// [`Zones::observe`].
    pub fn observe(&mut self, time: u64, zones: &Zones) -> Vec<Stay> {
        let long = zones.inside().filter(|(_, _, since)| time.saturating_sub(*since) >= self.after);
        let stay =
            |(zone, track, since): (&str, u64, u64)| Stay { zone: zone.into(), track, since };
        let long: Vec<Stay> = long.map(stay).collect();
        let new = long.iter().filter(|stay| !self.told.contains(stay)).cloned().collect();
        // What has left is not among them, so the list is never longer than that of those inside.
        self.told = long;
        new
    }

    /// The long stays that last, for a snapshot.
    #[must_use]
    pub fn told(&self) -> &[Stay] {
        &self.told
    }

    /// Goes on from another instance's [`DwellWatch::told`]: these stays are not told of again.
    /// What is not inside is forgotten with the next frame.
    pub fn resume(&mut self, told: Vec<Stay>) {
        self.told = told;
    }
}
