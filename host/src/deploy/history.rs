//! The history of a session's deployments, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::record::{DeploymentState, Outcome, Record, now};
use super::site::HealthyRecords;
use crate::journal::{DeploymentRow, Journal};
use crate::telemetry::otlp::{self, DeploymentNote};

/// A camera's pipeline in the config, with the component that its file was at the time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CameraEntry {
    pub(super) pipeline: String,
    pub(super) settings: Map<String, Value>,
    /// SHA-256 of the pipeline's file.
    pub(super) digest: String,
}

/// The histories of all sessions, in the journal.
#[derive(Debug)]
pub(super) struct History {
    journal: Journal,
    /// Whether the last write failed: a disk that stays full is one line in the log.
    failing: AtomicBool,
    /// The entries that cameras were given last, as far as this host has read or written them.
    entries: Mutex<BTreeMap<String, CameraEntry>>,
    /// Told of versions that proved themselves, where the host belongs to a site.
    healthy: OnceLock<HealthyRecords>,
}

impl History {
    pub(super) fn new(journal: Journal) -> Self {
        Self {
            journal,
            failing: AtomicBool::new(false),
            entries: Mutex::default(),
            healthy: OnceLock::new(),
        }
    }

    /// Tells of versions that prove themselves from now on. To be called once.
    pub(super) fn tell_healthy(&self, healthy: HealthyRecords) {
        if self.healthy.set(healthy).is_err() {
            tracing::error!(target: "ocelli::deploy", "the history has a listener already");
        }
    }

    /// Adds a deployment and gives it its number. On the disk when it returns.
    pub(super) async fn begin(&self, record: &mut Record, configured: bool) -> anyhow::Result<()> {
        let mut draft = record.clone();
        let text = move |number| {
            draft.number = number;
            text(&draft)
        };
        record.number = self.journal.add_deployment(&record.session, configured, text).await?;
        trace(record);
        Ok(())
    }

    /// Writes a deployment as it is now, with the entry that the camera has by it. On the disk when
    /// it returns. An error is logged and the deployment goes on: a full disk is no reason to run
    /// another version.
    pub(super) async fn write(&self, record: &Record, entry: Option<&CameraEntry>) {
        self.adopt(record, entry).await;
        if let Some(healthy) = self.healthy.get().filter(|_| record.healthy()) {
            let entry = entry.cloned().or_else(|| self.applied(&record.session));
            if healthy.try_send((record.clone(), entry)).is_err() {
                let session = &record.session;
                tracing::warn!(target: "ocelli::deploy", session, "the site is not told of its \
                    version");
            }
        }
    }

    /// As [`write`](Self::write), of what the site knows already.
    pub(super) async fn adopt(&self, record: &Record, entry: Option<&CameraEntry>) {
        trace(record);
        let row = DeploymentRow {
            session: record.session.clone(),
            number: record.number,
            record: text(record),
        };
        entry.into_iter().for_each(|entry| self.remember(&record.session, entry));
        let entry = entry.and_then(|entry| serde_json::to_string(entry).ok());
        let written = self.journal.set_deployment(row, record.outcome().is_none(), entry).await;
        match written {
            Ok(()) => self.failing.store(false, Ordering::Relaxed),
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    let session = &record.session;
                    tracing::error!(target: "ocelli::deploy", session, "the history is not \
                        written: {error:#}");
                }
            }
        }
    }

    /// The deployments of a session, newest first. Rows that cannot be read are left out.
    pub(super) async fn list(&self, session: &str, limit: usize) -> anyhow::Result<Vec<Record>> {
        let rows = self.journal.deployments(session, limit).await?;
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Closes the deployments that were under way when the host before this one ended.
    pub(super) async fn close_interrupted(&self) -> anyhow::Result<Vec<Record>> {
        let rows = self.journal.deployments_under_way().await?;
        let mut closed: Vec<Record> = rows.iter().filter_map(read).collect();
        for record in &mut closed {
            record.reason = Some(format!("the host ended during {}", record.step));
            record.state = DeploymentState::Ended(Outcome::Interrupted);
            record.ended = Some(now());
            self.write(record, None).await;
        }
        Ok(closed)
    }

    /// The entry that a camera was given last.
    pub(super) async fn entry(&self, session: &str) -> anyhow::Result<Option<CameraEntry>> {
        let entry = self.journal.entry(session).await?;
        let entry = entry.and_then(|entry| serde_json::from_str(&entry).ok());
        entry.iter().for_each(|entry| self.remember(session, entry));
        Ok(entry)
    }

    fn remember(&self, session: &str, entry: &CameraEntry) {
        self.entries.lock().insert(session.to_owned(), entry.clone());
    }

    /// The entry that a camera was given last, as far as this host knows.
    pub(super) fn applied(&self, session: &str) -> Option<CameraEntry> {
        self.entries.lock().get(session).cloned()
    }

    /// Notes the entry that a camera has without a deployment.
    pub(super) async fn set_entry(&self, session: &str, entry: &CameraEntry) -> anyhow::Result<()> {
        self.remember(session, entry);
        Ok(self.journal.set_entry(session, serde_json::to_string(entry)?).await?)
    }

    /// Deletes the oldest deployments beyond `most`. Returns the digests of the components that are
    /// still needed.
    pub(super) async fn prune(
        &self,
        session: &str,
        running: Option<u64>,
        most: usize,
    ) -> anyhow::Result<BTreeSet<String>> {
        let records = self.list(session, usize::MAX).await?;
        let surplus = surplus(&records, running, most);
        if !surplus.is_empty() {
            self.journal.forget_deployments(session, surplus).await?;
        }
        Ok(needed(&records, running).map(|record| record.digest.clone()).collect())
    }
}

fn text(record: &Record) -> String {
    // Keys are strings and numbers finite: nothing to refuse.
    serde_json::to_string(record).unwrap_or_default()
}

fn read(row: &DeploymentRow) -> Option<Record> {
    let record = serde_json::from_str(&row.record);
    if let Err(error) = &record {
        let (session, number) = (&row.session, row.number);
        tracing::warn!(target: "ocelli::deploy", session, "deployment {number} in the journal \
            cannot be read: {error}");
    }
    record.ok()
}

/// The last version that passed its probation. `records`, here and below, are a session's, newest
/// first.
pub(super) fn last_healthy(records: &[Record]) -> Option<&Record> {
    records.iter().find(|record| record.healthy())
}

pub(super) fn find_number(records: &[Record], number: u64) -> Option<&Record> {
    records.iter().find(|record| record.number == number)
}

/// The version before the running one: the last that served and was another. A rollback counts as
/// the deployment to which it led back, so a second rollback leads further back.
pub(super) fn previous_version(records: &[Record], running: Option<u64>) -> Option<&Record> {
    let mut running = running.and_then(|number| find_number(records, number));
    while let Some(first) = running.and_then(|record| find_number(records, record.back_to?)) {
        // Numbers that lead back descend, so this ends.
        running = Some(first);
    }
    records.iter().find(|record| {
        let other = |running: &Record| {
            record.number < running.number && !running.same_as(&record.digest, &record.settings)
        };
        record.served() && running.is_none_or(other)
    })
}

/// Rollbacks in a row whose components are stored: each may be tens of megabytes.
const ROLLBACKS: usize = 4;

/// The deployments that a session runs, or may go back to.
fn needed(records: &[Record], running: Option<u64>) -> impl Iterator<Item = &Record> {
    let healthy = last_healthy(records);
    let back = move |record: Option<&Record>| {
        previous_version(records, record.map(|record| record.number))
    };
    let from = running.and_then(|number| find_number(records, number)).or(healthy);
    let chain = std::iter::successors(from, move |record| back(Some(*record)));
    chain.take(1 + ROLLBACKS).chain(healthy).chain(back(healthy))
}

/// Numbers of the deployments beyond the newest `most` that no other depends on.
fn surplus(records: &[Record], running: Option<u64>, most: usize) -> Vec<u64> {
    let mut needed: BTreeSet<u64> = needed(records, running).map(|record| record.number).collect();
    // The target of a rollback decides where the next one leads.
    needed.extend(running.and_then(|number| find_number(records, number)?.back_to));
    let old = records.iter().skip(most).filter(|record| record.outcome().is_some());
    old.map(|record| record.number).filter(|number| !needed.contains(number)).collect()
}

/// Notes in the deployment's trace how it stands.
fn trace(record: &Record) {
    let outcome = record.outcome().map(|outcome| {
        let failed = matches!(
            outcome,
            Outcome::Refused | Outcome::Aborted | Outcome::RolledBack | Outcome::Unverified
        );
        (outcome.name(), failed)
    });
    otlp::deployment(&DeploymentNote {
        session: &record.session,
        number: record.number,
        deployment: &record.deployment,
        pipeline: &record.pipeline,
        cause: record.cause.name(),
        step: record.step.name(),
        compile_ms: record.compile_ms,
        parent: record.trace,
        outcome,
        reason: record.reason.as_deref(),
    });
}

#[cfg(test)]
mod tests {
    use super::super::record::Cause;
    use super::super::record::tests::record;
    use super::*;

    use Outcome::*;

    /// Newest first, as given: digest and outcome, numbered from the end.
    fn history(rows: &[(char, Outcome)]) -> Vec<Record> {
        let numbers = (1..=rows.len() as u64).rev();
        let made = rows.iter().zip(numbers).map(|((digest, outcome), number)| {
            record(number, *digest, Cause::Request, DeploymentState::Ended(*outcome))
        });
        made.collect()
    }

    #[test]
    fn a_rollback_leads_to_the_last_other_version_that_served() {
        let target = |rows: &[(char, Outcome)], running| {
            previous_version(&history(rows), running).map(|record| record.number)
        };
        assert_eq!(target(&[('a', Healthy)], Some(1)), None, "there was no other");
        assert_eq!(target(&[('b', Healthy), ('a', Healthy)], Some(2)), Some(1));
        assert_eq!(
            target(&[('b', Healthy), ('b', Healthy), ('a', Healthy)], Some(3)),
            Some(1),
            "the same twice"
        );
        assert_eq!(
            target(&[('c', Healthy), ('b', Aborted), ('a', Healthy)], Some(3)),
            Some(1),
            "b never served"
        );
        assert_eq!(
            target(&[('c', Healthy), ('b', RolledBack), ('a', Healthy)], Some(3)),
            Some(1),
            "b was lost"
        );
        assert_eq!(target(&[('c', Healthy), ('b', Superseded), ('a', Healthy)], Some(3)), Some(2));
        assert_eq!(
            target(&[('c', RolledBack), ('b', Healthy), ('a', Healthy)], Some(2)),
            Some(1),
            "c is gone again"
        );
        let mut back = history(&[('b', Healthy), ('c', Healthy), ('b', Healthy), ('a', Healthy)]);
        assert_eq!(
            previous_version(&back, Some(4)).map(|record| record.number),
            Some(3),
            "b was asked for again"
        );
        back[0].back_to = Some(2);
        assert_eq!(
            previous_version(&back, Some(4)).map(|record| record.number),
            Some(1),
            "a second rollback"
        );
        assert_eq!(
            target(&[('c', Superseded), ('b', Healthy), ('a', Healthy)], Some(2)),
            Some(1),
            "after a restart"
        );
        assert_eq!(target(&[('b', Refused), ('a', Healthy)], None), Some(1), "nothing runs");
        let mut other_settings = history(&[('a', Healthy), ('a', Healthy)]);
        other_settings[0].settings.insert("score".into(), 0.5.into());
        assert_eq!(previous_version(&other_settings, Some(2)).map(|record| record.number), Some(1));
    }

    #[test]
    fn the_bound_spares_what_something_depends_on() {
        let rows = [
            ('z', Aborted),
            ('y', Aborted),
            ('b', Healthy),
            ('x', Refused),
            ('a', Healthy),
            ('w', Aborted),
        ];
        let records = history(&rows);
        assert_eq!(surplus(&records, Some(4), 2), [3, 1]);
        assert_eq!(surplus(&records, Some(4), 10), [0u64; 0]);
        let needed: BTreeSet<u64> = needed(&records, Some(4)).map(|record| record.number).collect();
        assert_eq!(needed, [2, 4].into());
        let mut under_way = history(&rows);
        under_way[5].state = DeploymentState::Pending;
        assert_eq!(surplus(&under_way, Some(4), 2), [3]);
    }

    #[tokio::test]
    async fn what_was_under_way_is_closed_with_its_step_and_nothing_else_is_touched() {
        let history = History::new(Journal::temporary().unwrap());
        let mut first = record(0, 'a', Cause::Config, DeploymentState::Ended(Healthy));
        history.begin(&mut first, true).await.unwrap();
        history.write(&first, None).await;
        let mut second = record(0, 'b', Cause::Request, DeploymentState::Pending);
        history.begin(&mut second, true).await.unwrap();
        second.step = crate::session::rollout::Step::CatchUp;
        history.write(&second, None).await;
        assert_eq!((first.number, second.number), (1, 2));
        assert_eq!(history.close_interrupted().await.unwrap().len(), 1);
        let records = history.list("cam", 9).await.unwrap();
        assert_eq!(records[0].state, DeploymentState::Ended(Interrupted));
        assert_eq!(records[0].reason.as_deref(), Some("the host ended during catch_up"));
        assert_eq!(records[1], first);
        assert!(history.close_interrupted().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_history_is_bounded() {
        let history = History::new(Journal::temporary().unwrap());
        for _ in 0..20 {
            let mut record = record(0, 'a', Cause::Request, DeploymentState::Pending);
            history.begin(&mut record, true).await.unwrap();
            record.state = DeploymentState::Ended(Healthy);
            history.write(&record, None).await;
            history.prune("cam", Some(1), 5).await.unwrap();
        }
        let numbers: Vec<u64> =
            history.list("cam", 99).await.unwrap().iter().map(|record| record.number).collect();
        assert_eq!(numbers, [20, 19, 18, 17, 16, 1]);
    }
}
