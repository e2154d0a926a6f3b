//! How the host is, part by part: told to subscribers and shown by `/readyz` without the journal,
//! so that a disk that takes nothing silences nothing of it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

use super::time::{rfc3339, unix_ns};
use crate::journal::events::REDIS_SINK;
use crate::shape::TIME;

/// How a part of the host works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "HostPartState")]
pub enum PartState {
    /// As it should.
    #[default]
    Ok,
    /// Not all of it, or not for long.
    Degraded,
    /// Not at all.
    Failed,
}

/// A part of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "HostPart")]
pub struct PartStatus {
    /// How it works.
    pub state: PartState,
    /// Why, for a person; null while it is `ok`. Has no path and no credential.
    pub reason: Option<String>,
    /// Since when `state` is so: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    pub since: String,
}

/// How the host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HostStatus {
    /// Whether events and pictures can be written, and go on to be.
    pub storage: PartStatus,
    /// Whether the host's clock runs evenly.
    pub clock: PartStatus,
    /// Whether the config's file is the one that is in force.
    pub config: PartStatus,
    /// Whether models can be run.
    pub inference: PartStatus,
    /// Whether Redis takes events; left out where there is no `[redis]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<PartStatus>,
    /// Whether each sink takes events, by its name, Redis among them; left out where there is none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sinks: BTreeMap<String, PartStatus>,
    /// Events that wait for the disk, and for their numbers.
    pub events_waiting: u64,
    /// Events since the host was started for which there was no room to wait.
    pub events_lost: u64,
    /// Pictures of events since then that were not kept, or went early, for want of room.
    pub pictures_lost: u64,
}

impl PartStatus {
    fn new(now: SystemTime) -> Self {
        Self { state: PartState::Ok, reason: None, since: rfc3339(unix_ns(now)) }
    }

    /// Notes how it is; `since` stays as long as the state does.
    pub fn set(&mut self, state: PartState, reason: Option<String>, now: SystemTime) {
        if self.state != state {
            self.since = rfc3339(unix_ns(now));
        }
        (self.state, self.reason) = (state, reason);
    }
}

impl HostStatus {
    /// All is well, since now.
    pub fn new(now: SystemTime) -> Self {
        let part = PartStatus::new(now);
        Self {
            storage: part.clone(),
            clock: part.clone(),
            config: part.clone(),
            inference: part,
            redis: None,
            sinks: BTreeMap::new(),
            events_waiting: 0,
            events_lost: 0,
            pictures_lost: 0,
        }
    }

    /// Notes how the sinks are; one that is not named has no settings any more.
    pub fn set_sinks<'a>(
        &mut self,
        sinks: impl IntoIterator<Item = (&'a str, (PartState, Option<String>))>,
        now: SystemTime,
    ) {
        let mut before = std::mem::take(&mut self.sinks);
        for (name, (state, reason)) in sinks {
            let (name, mut sink) =
                before.remove_entry(name).unwrap_or_else(|| (name.into(), PartStatus::new(now)));
            sink.set(state, reason, now);
            self.sinks.insert(name, sink);
        }
        self.redis = self.sinks.get(REDIS_SINK).cloned();
    }

    /// Whether no part is degraded or failed.
    pub fn is_well(&self) -> bool {
        [&self.storage, &self.clock, &self.config, &self.inference]
            .into_iter()
            .chain(self.sinks.values())
            .all(|part| part.state == PartState::Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_part_is_so_since_its_state_changed_whatever_its_reason_does() {
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        let mut host = HostStatus::new(at(0));
        assert!(host.is_well());
        host.storage.set(PartState::Failed, Some("full".into()), at(1));
        host.storage.set(PartState::Failed, Some("still full".into()), at(2));
        assert_eq!(host.storage.since, "1970-01-01T00:00:01.000Z");
        assert_eq!(host.storage.reason.as_deref(), Some("still full"));
        assert!(!host.is_well());
        host.storage.set(PartState::Ok, None, at(3));
        assert_eq!(host.storage.since, "1970-01-01T00:00:03.000Z");
        host.set_sinks([("redis", (PartState::Degraded, None))], at(4));
        assert_eq!(host.redis, host.sinks.get("redis").cloned());
        assert!(!host.is_well());
        host.set_sinks([], at(5));
        assert!(host.is_well() && host.redis.is_none(), "there is no Redis any more");
    }
}
