//! How the host is, from what is measured of its parts: a value that reads no clock and no process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::event::{HostStatus, PartState};
use crate::journal::events::EventHealth;
use crate::sink::SinkMetrics;

/// How long inference or a sink may be away before that is told: a process is replaced, and a
/// connection opened again, within that.
const GRACE: Duration = Duration::from_secs(5);

/// The name of the collector of traces among the sinks.
const TRACES: &str = "otlp";

/// What is measured.
#[derive(Debug, Clone, Default)]
pub(super) struct HostReading {
    pub(super) events: EventHealth,
    /// Why the stores of sessions and the history of deployments cannot be written.
    pub(super) stores: Option<String>,
    /// What the `disk` alert says, while it is raised.
    pub(super) disk: Option<String>,
    /// Why the file of the config is not in force as it is.
    pub(super) config: Option<String>,
    /// Whether every session has what runs its models.
    pub(super) inference_serves: bool,
    /// Why the collector of traces takes none, if it does not; none without a collector.
    pub(super) traces: Option<Option<String>>,
    /// Each sink that has settings.
    pub(super) sinks: BTreeMap<Arc<str>, SinkMetrics>,
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct HostWatch {
    inference_down: Option<Instant>,
    sinks_down: BTreeMap<Arc<str>, Option<Instant>>,
}

impl HostWatch {
    /// Notes in `host` what a look says.
    pub(super) fn take_in(
        &mut self,
        host: &mut HostStatus,
        reading: &HostReading,
        now: Instant,
        wall: SystemTime,
    ) {
        let (state, reason) = storage(reading);
        host.storage.set(state, reason, wall);
        let events = &reading.events;
        let (state, reason) = match &events.clock {
            Some(jump) => (PartState::Degraded, Some(jump.message.clone())),
            None => (PartState::Ok, None),
        };
        host.clock.set(state, reason, wall);
        // Some always wait for the next commit: they are not worth a word.
        host.events_waiting = if events.failing.is_some() { events.waiting } else { 0 };
        host.events_lost = events.lost;
        host.pictures_lost = events.pictures_lost;

        let state = match &reading.config {
            Some(_) => PartState::Degraded,
            None => PartState::Ok,
        };
        host.config.set(state, reading.config.clone(), wall);

        let serves = reading.inference_serves;
        let down = outlasts_grace(&mut self.inference_down, !serves, now);
        let (state, reason) = match down {
            true => (PartState::Failed, Some("no process runs models".to_owned())),
            false => (PartState::Ok, None),
        };
        host.inference.set(state, reason, wall);

        self.sinks_down.retain(|name, _| reading.sinks.contains_key(name));
        let sinks = reading.sinks.iter().map(|(name, sink)| {
            let since = self.sinks_down.entry(Arc::clone(name)).or_default();
            let told = match outlasts_grace(since, !sink.up, now) {
                true => {
                    let behind = sink.behind;
                    let reason = format!("it takes no events: {behind} wait in the journal");
                    (PartState::Degraded, Some(reason))
                }
                false => (PartState::Ok, None),
            };
            (&**name, told)
        });
        let traces = reading.traces.as_ref().map(|fault| match fault {
            Some(why) => {
                (PartState::Degraded, Some(format!("the collector takes no spans: {why}")))
            }
            None => (PartState::Ok, None),
        });
        host.set_sinks(sinks.chain(traces.map(|told| (TRACES, told))), wall);
    }
}

/// Whether something has been down for more than [`GRACE`].
fn outlasts_grace(since: &mut Option<Instant>, down: bool, now: Instant) -> bool {
    *since = if down { since.or(Some(now)) } else { None };
    since.is_some_and(|since| now.saturating_duration_since(since) >= GRACE)
}

/// The worst that is so of the disk.
fn storage(reading: &HostReading) -> (PartState, Option<String>) {
    let EventHealth { failing, pictures, .. } = &reading.events;
    if let Some(why) = failing {
        return (PartState::Failed, Some(format!("events cannot be written, they wait: {why}")));
    }
    let stores = reading
        .stores
        .as_ref()
        .map(|why| format!("stores of sessions and deployments cannot be written: {why}"));
    match stores.or_else(|| pictures.clone()).or_else(|| reading.disk.clone()) {
        Some(why) => (PartState::Degraded, Some(why)),
        None => (PartState::Ok, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct HostBench {
        watch: HostWatch,
        host: HostStatus,
        begun: Instant,
    }

    impl HostBench {
        fn new() -> Self {
            let host = HostStatus::new(SystemTime::UNIX_EPOCH);
            Self { watch: HostWatch::default(), host, begun: Instant::now() }
        }

        fn look(&mut self, second: u64, reading: &HostReading) -> &HostStatus {
            let after = Duration::from_secs(second);
            let (now, wall) = (self.begun + after, SystemTime::UNIX_EPOCH + after);
            self.watch.take_in(&mut self.host, reading, now, wall);
            &self.host
        }
    }

    fn well() -> HostReading {
        HostReading { inference_serves: true, ..HostReading::default() }
    }

    #[test]
    fn a_disk_that_takes_no_events_is_told_with_its_reason_and_what_waits_until_it_does() {
        let mut bench = HostBench::new();
        assert!(bench.look(0, &well()).is_well());
        let events = EventHealth { waiting: 7, ..EventHealth::default() };
        let busy = bench.look(1, &HostReading { events, ..well() });
        assert!(busy.is_well() && busy.events_waiting == 0, "some always wait for the next commit");
        let events = EventHealth {
            failing: Some("database or disk is full".into()),
            waiting: 7,
            lost: 2,
            ..EventHealth::default()
        };
        let host = bench.look(9, &HostReading { events, ..well() });
        assert_eq!(host.storage.state, PartState::Failed);
        assert_eq!(host.storage.since, "1970-01-01T00:00:09.000Z");
        assert!(host.storage.reason.as_ref().unwrap().contains("disk is full"), "{host:?}");
        assert_eq!((host.events_waiting, host.events_lost), (7, 2));
        let disk = Some("3 MiB free for store, 0.5 % of the disk".to_owned());
        let host = bench.look(20, &HostReading { disk: disk.clone(), ..well() });
        assert_eq!((host.storage.state, &host.storage.reason), (PartState::Degraded, &disk));
        assert!(bench.look(21, &well()).is_well());
    }

    #[test]
    fn a_process_or_a_connection_that_is_replaced_at_once_is_not_told() {
        let mut bench = HostBench::new();
        let away = SinkMetrics { up: false, behind: 4, ..SinkMetrics::default() };
        let sinks = BTreeMap::from([("redis".into(), away), ("mqtt".into(), away)]);
        let down = HostReading { inference_serves: false, sinks, ..HostReading::default() };
        assert!(bench.look(0, &down).is_well());
        assert!(bench.look(4, &down).is_well());
        bench.look(5, &well());
        assert!(bench.look(6, &down).is_well(), "down anew");
        let host = bench.look(11, &down);
        assert_eq!(host.inference.state, PartState::Failed);
        let redis = host.redis.as_ref().unwrap();
        assert_eq!(redis.state, PartState::Degraded);
        assert!(redis.reason.as_ref().unwrap().contains("4 wait"), "{redis:?}");
        assert_eq!(host.sinks.keys().map(String::as_str).collect::<Vec<_>>(), ["mqtt", "redis"]);
        assert_eq!(host.sinks.get("mqtt"), Some(redis));
        let host = bench.look(12, &well());
        assert!(host.is_well() && host.redis.is_none() && host.sinks.is_empty());
    }
}
