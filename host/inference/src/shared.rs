//! State that all threads of the engine share.

use std::sync::atomic::{AtomicU64, Ordering};

use ocelli_protocol::inference::LoadedModel;
use parking_lot::Mutex;

use crate::budget::Budget;
use crate::catalog_versions::CatalogVersions;
use crate::deadline_timer::DeadlineTimer;
use crate::hook::Hook;
use crate::job::Job;
use crate::queue::Queue;

/// Most sessions at once, and so most requests that wait. Far above what one machine decodes; each
/// costs a few descriptors, of which a process commonly has 1024 before its limit is raised.
pub const MAX_SESSIONS: usize = 256;

/// State of the engine for all its threads.
pub(crate) struct EngineShared {
    pub(crate) catalogs: CatalogVersions,
    pub(crate) queue: Queue<Job>,
    /// What those may run that ask. Locked for moments.
    pub(crate) budget: Mutex<Budget>,
    pub(crate) timer: DeadlineTimer,
    pub(crate) before_run: Hook,
    /// Reports to the host a model that was loaded on demand.
    pub(crate) loaded: Box<dyn Fn(LoadedModel) + Send + Sync>,
    /// Counts clients that left and catalog versions that came: a loaded model may be unused since.
    pub(crate) changes: AtomicU64,
}

impl EngineShared {
    /// Makes each runner free unused models before its next request.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }
}
