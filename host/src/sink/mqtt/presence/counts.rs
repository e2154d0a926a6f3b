//! How many objects a session has: by label, from its detections; by zone, as its pipeline says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::worker::RequestKind;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, timeout};

use super::PresenceSources;
use crate::event::SessionState;
use crate::session::{SessionError, SessionStatus};

/// Labels of a session that are counted, and zones: a pipeline may make up any number.
const MAX_NAMES: usize = 64;

/// Longest name that is counted, in bytes.
const MAX_NAME: usize = 128;

/// Between two questions to a pipeline.
const ASK: Duration = Duration::from_secs(2);

/// How long one pipeline may take to answer: the others wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The detections of a frame, as far as they are counted.
#[derive(Deserialize)]
struct DetectionsHead {
    session: String,
    detections: Vec<Labelled>,
}

#[derive(Deserialize)]
struct Labelled {
    label: String,
}

/// The most of each label in any frame since the last look, by session.
#[derive(Debug, Default)]
pub(super) struct LabelCounts {
    most: HashMap<String, BTreeMap<String, u64>>,
}

impl LabelCounts {
    /// Takes in a message with detections.
    pub(super) fn take_in(&mut self, message: &str) {
        let Ok(DetectionsHead { session, detections }) = serde_json::from_str(message) else {
            return;
        };
        let mut frame = BTreeMap::<String, u64>::new();
        for Labelled { label } in detections {
            *frame.entry(label).or_default() += 1;
        }
        let most = self.most.entry(session).or_default();
        for (label, count) in frame {
            let known = most.len();
            match most.get_mut(&label) {
                Some(most) => *most = count.max(*most),
                None if known < MAX_NAMES && label.len() <= MAX_NAME => {
                    most.insert(label, count);
                }
                None => {}
            }
        }
    }

    /// What there is of each label since the last look; none where nothing was heard. `known` are
    /// those that were there before: they have gone.
    pub(super) fn take(
        &mut self,
        session: &str,
        running: bool,
        known: &BTreeSet<String>,
    ) -> Option<BTreeMap<String, u64>> {
        let seen = self.most.remove(session);
        let mut counts = if running { seen? } else { BTreeMap::new() };
        for label in known {
            counts.entry(label.clone()).or_default();
        }
        let room = MAX_NAMES.saturating_sub(known.len());
        let new: BTreeSet<String> =
            counts.keys().filter(|label| !known.contains(*label)).skip(room).cloned().collect();
        counts.retain(|label, _| !new.contains(label));
        Some(counts)
    }
}

/// How many are in each zone, by session. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct ZoneCounts {
    inside: Arc<Mutex<HashMap<String, BTreeMap<String, u64>>>>,
}

/// The answer to `counts`, as the SDK's zones give it.
#[derive(Deserialize)]
struct CountsAnswer {
    zones: Vec<ZoneAnswer>,
}

#[derive(Deserialize)]
struct ZoneAnswer {
    zone: String,
    #[serde(default)]
    labels: BTreeMap<String, InsideAnswer>,
}

#[derive(Deserialize)]
struct InsideAnswer {
    #[serde(default)]
    inside: u64,
}

impl ZoneCounts {
    /// What the pipeline said last; none where it knows no zones.
    pub(super) fn of(&self, session: &str) -> Option<BTreeMap<String, u64>> {
        self.inside.lock().get(session).cloned()
    }

    /// Asks the pipelines of the cameras again and again, where that is `wanted`. One that does not
    /// answer as the SDK's zones do is asked once for each deployment.
    pub(super) async fn ask(self, sources: PresenceSources, wanted: bool) {
        if !wanted {
            return std::future::pending().await;
        }
        let mut turns = tokio::time::interval(ASK);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent = HashMap::<String, String>::new();
        let question = json!("counts");
        loop {
            turns.tick().await;
            let sessions = sources.sessions.list();
            silent.retain(|id, _| sessions.iter().any(|status| status.id == *id));
            let is_there = |id: &String| sessions.iter().any(|status| status.id == *id);
            self.inside.lock().retain(|id, _| is_there(id));
            for status in &sessions {
                let known = silent.get(&status.id).is_some_and(|it| *it == status.deployment);
                if known || status.state != SessionState::Running {
                    continue;
                }
                let Some(handle) = sources.sessions.get(&status.id) else { continue };
                let asked = handle.ask(RequestKind::Query, &question);
                match timeout(PATIENCE, asked).await {
                    Ok(Ok(answer)) => match inside(answer) {
                        Some(zones) => {
                            self.inside.lock().insert(status.id.clone(), zones);
                        }
                        None => self.fall_silent(&mut silent, status),
                    },
                    Ok(Err(SessionError::Refused(_))) => self.fall_silent(&mut silent, status),
                    // It is busy, or not there now.
                    Ok(Err(_)) | Err(_) => {}
                }
            }
        }
    }
}

impl ZoneCounts {
    /// Asks this deployment no more. The zones of the one before are empty now.
    fn fall_silent(&self, silent: &mut HashMap<String, String>, status: &SessionStatus) {
        silent.insert(status.id.clone(), status.deployment.clone());
        if let Some(zones) = self.inside.lock().get_mut(&status.id) {
            zones.clear();
        }
    }
}

/// How many are in each zone; none where the answer has another shape.
fn inside(answer: Value) -> Option<BTreeMap<String, u64>> {
    let CountsAnswer { zones } = serde_json::from_value(answer).ok()?;
    let zones = zones.into_iter().filter(|zone| zone.zone.len() <= MAX_NAME).take(MAX_NAMES);
    let sum = |zone: &ZoneAnswer| {
        zone.labels.values().fold(0_u64, |sum, label| sum.saturating_add(label.inside))
    };
    Some(zones.map(|zone| (zone.zone.clone(), sum(&zone))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(labels: &[&str]) -> String {
        let detections: Vec<Value> = labels.iter().map(|label| json!({"label": label})).collect();
        json!({"type": "detections", "session": "gate", "detections": detections}).to_string()
    }

    #[test]
    fn the_most_of_a_label_counts_and_what_has_gone_is_none() {
        let mut counts = LabelCounts::default();
        let known = BTreeSet::from(["car".to_owned()]);
        assert_eq!(counts.take("gate", true, &known), None, "nothing was heard");
        counts.take_in(&frame(&["person", "person"]));
        counts.take_in(&frame(&["person"]));
        let expected = BTreeMap::from([("car".to_owned(), 0), ("person".to_owned(), 2)]);
        assert_eq!(counts.take("gate", true, &known), Some(expected));
        counts.take_in(&frame(&[]));
        let none = BTreeMap::from([("car".to_owned(), 0)]);
        assert_eq!(counts.take("gate", true, &known), Some(none.clone()));
        assert_eq!(counts.take("gate", false, &known), Some(none), "it runs no more");
    }

    #[test]
    fn a_pipeline_that_makes_up_labels_fills_nothing() {
        let mut counts = LabelCounts::default();
        let mut known = BTreeSet::new();
        for round in 0..10 {
            let labels: Vec<String> = (0..100).map(|label| format!("{round}-{label}")).collect();
            counts.take_in(&frame(&labels.iter().map(String::as_str).collect::<Vec<_>>()));
            let taken = counts.take("gate", true, &known).unwrap();
            known.extend(taken.into_keys());
            assert!(known.len() <= MAX_NAMES, "{}", known.len());
        }
    }

    #[test]
    fn zones_are_read_as_the_sdk_gives_them() {
        let answer = json!({
            "zones": [
                {"zone": "door", "labels": {"person": {"entered": 5, "left": 4, "inside": 1},
                    "dog": {"entered": 2, "left": 0, "inside": 2}}},
                {"zone": "yard", "labels": {}},
            ],
            "objects": {},
        });
        let expected = BTreeMap::from([("door".to_owned(), 3), ("yard".to_owned(), 0)]);
        assert_eq!(inside(answer), Some(expected));
        assert_eq!(inside(json!({"counts": 3})), None);
    }
}
