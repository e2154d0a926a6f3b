//! Which host is to have which camera.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// How many cameras move at a time from a host that lives to another: each needs a second worker for
/// a while, and has a gap of some frames.
pub const MOVES: usize = 20;

/// What a host offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The sum of the costs of the cameras that it can have.
    pub capacity: u32,
    pub labels: BTreeSet<String>,
    pub networks: BTreeSet<String>,
    /// It gets no camera, and loses those that it has.
    pub draining: bool,
}

/// What a camera asks of its host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    pub labels: BTreeSet<String>,
    pub networks: BTreeSet<String>,
    pub cost: u32,
}

/// Why a camera has no host, or only one that is to be emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unplaced {
    /// No host is there.
    NoHost,
    /// No host has its labels.
    Labels,
    /// No host with its labels reaches its networks.
    Networks,
    /// Each host that it could go to is being drained.
    Draining,
    /// Each host that it could go to is full.
    Full,
}

impl fmt::Display for Unplaced {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoHost => "no host is there",
            Self::Labels => "no host has its labels",
            Self::Networks => "no host with its labels reaches its networks",
            Self::Draining => "each host that it could go to is being drained",
            Self::Full => "each host that it could go to is full",
        })
    }
}

/// Which host is to have which camera.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Counts the plans of a site.
    pub version: u64,
    /// The host of each camera that has one.
    pub cameras: BTreeMap<String, String>,
    /// The cameras that no host can take; those that stay on a draining host have one, too.
    pub unplaced: BTreeMap<String, Unplaced>,
}

/// Plans anew. `owners` has the cameras whose owner lives, `pins` the hosts that cameras are wished
/// to.
pub fn plan(
    _hosts: &BTreeMap<String, Place>,
    _cameras: &BTreeMap<String, Needs>,
    _owners: &BTreeMap<String, String>,
    previous: &Plan,
    _pins: &BTreeMap<String, String>,
) -> Plan {
    previous.clone()
}
