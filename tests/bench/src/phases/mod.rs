//! What is measured, one module each. Each phase starts the processes that it needs and ends them.

pub mod cost;
pub mod deploying;
pub mod embeddings;
pub mod fairness;
pub mod fanout;
pub mod growth;
pub mod isolation;
pub mod joining;
pub mod live;
pub mod page;
pub mod peers;
pub mod readers;
pub mod recovery;
pub mod sinks;
pub mod site;
pub mod takeover;
pub mod tracking;
pub mod twenty;

use std::time::Duration;

use crate::chain::BenchFolder;
use crate::paths::Paths;

/// What all phases need.
pub struct Environment {
    /// Files and programs.
    pub paths: Paths,
    /// Shared by all hosts of the run.
    pub workplace: BenchFolder,
    /// How long one measurement lasts.
    pub segment: Duration,
    /// How often what is compared is measured side by side.
    pub rounds: usize,
    /// How often a single moment, like a first result, is measured.
    pub repeats: usize,
}

/// What a machine needs to come to rest after processes have started: caches fill, the model's
/// first runs are slow.
const SETTLE: Duration = Duration::from_secs(1);
