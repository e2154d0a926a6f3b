//! The metrics of the events that go to Redis.

use std::fmt;

use super::{Exposition, FamilyEncoder, bare};

impl Exposition {
    pub(super) fn redis(&self, out: &mut FamilyEncoder<'_, '_>) -> fmt::Result {
        let Some(figures) = &self.redis else { return Ok(()) };
        out.gauge("redis_up", "Whether Redis takes events", None, bare(figures.up.into()))?;
        out.gauge(
            "redis_behind_events",
            "Events of the journal that Redis does not have yet",
            None,
            bare(figures.behind),
        )?;
        out.counter("redis_events", "Events written to Redis", None, bare(figures.written))?;
        out.counter(
            "redis_errors",
            "Times that Redis did not do what it was asked",
            None,
            bare(figures.errors),
        )?;
        out.counter(
            "redis_gaps",
            "Times that the journal had deleted events before Redis had them",
            None,
            bare(figures.gaps),
        )
    }
}
