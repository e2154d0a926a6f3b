//! What the event journal keeps, and what it could not.

use std::fmt;

use prometheus_client::registry::Unit;

use super::{Exposition, FamilyEncoder, bare};

impl Exposition {
    pub(super) fn journal(&self, out: &mut FamilyEncoder<'_, '_>) -> fmt::Result {
        let figures = self.journal;
        out.counter(
            "journal_events",
            "Events that were kept and told",
            None,
            bare(figures.events),
        )?;
        out.counter(
            "journal_events_lost",
            "Events lost because too many of their session waited for the disk",
            None,
            bare(figures.lost),
        )?;
        out.counter(
            "journal_commit_failures",
            "Times that events could not be written to the disk",
            None,
            bare(figures.failures),
        )?;
        out.gauge("journal", "Size of the events' file", Some(Unit::Bytes), bare(figures.bytes))?;
        out.gauge(
            "attachments",
            "Size of the events' attachments",
            Some(Unit::Bytes),
            bare(figures.attachment_bytes),
        )
    }
}
