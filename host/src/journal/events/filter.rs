//! Which events are asked for over several sessions, and what an event is found by.

use std::collections::BTreeSet;

use serde::Deserialize;

/// Which events are asked for. Of several values of one member one is enough; every member has to
/// fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// None: of every session.
    pub sessions: Option<BTreeSet<String>>,
    /// Empty: of every kind; likewise the others.
    pub kinds: BTreeSet<String>,
    pub labels: BTreeSet<String>,
    pub zones: BTreeSet<String>,
}

/// What is not text is passed over: `data` is the pipeline's own.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Text(String),
    Other(serde::de::IgnoredAny),
}

impl Word {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Other(_) => None,
        }
    }
}

/// The labels and zones of an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct EventWords {
    /// Of its detections, and `data.label`.
    pub(crate) labels: BTreeSet<String>,
    /// `data.zone`.
    pub(crate) zone: Option<String>,
}

impl EventWords {
    /// Those of an event's body. One that is no event has none.
    pub(crate) fn of(body: &str) -> Self {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            detections: Vec<Found>,
            #[serde(default)]
            data: Data,
        }

        #[derive(Deserialize)]
        struct Found {
            label: String,
        }

        #[derive(Default, Deserialize)]
        struct Data {
            label: Option<Word>,
            zone: Option<Word>,
        }

        let Ok(Body { detections, data }) = serde_json::from_str(body) else {
            return Self::default();
        };
        let labels = detections.into_iter().map(|found| found.label);
        let labels = labels.chain(data.label.and_then(Word::text)).collect();
        Self { labels, zone: data.zone.and_then(Word::text) }
    }
}

impl EventFilter {
    /// Whether events of this session are asked for.
    pub fn concerns(&self, session: &str) -> bool {
        self.sessions.as_ref().is_none_or(|sessions| sessions.contains(session))
    }

    /// Whether it asks for some events of a session alone.
    pub fn chooses(&self) -> bool {
        !(self.kinds.is_empty() && self.labels.is_empty() && self.zones.is_empty())
    }

    /// Whether an event is asked for.
    pub fn passes(&self, session: &str, kind: &str, body: &str) -> bool {
        if !self.concerns(session) || !(self.kinds.is_empty() || self.kinds.contains(kind)) {
            return false;
        }
        if self.labels.is_empty() && self.zones.is_empty() {
            return true;
        }
        let words = EventWords::of(body);
        let labelled = self.labels.is_empty() || !self.labels.is_disjoint(&words.labels);
        let placed = self.zones.is_empty()
            || words.zone.as_ref().is_some_and(|zone| self.zones.contains(zone));
        labelled && placed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn an_event_has_the_labels_of_what_it_is_about_and_the_zone_of_its_data() {
        let body = r#"{"detections":[{"label":"car","box":[1,2,3,4]},{"label":"bus"}],
            "data":{"label":"truck","zone":"road"}}"#;
        let words = EventWords::of(body);
        assert_eq!(words.labels, set(&["bus", "car", "truck"]));
        assert_eq!(words.zone.as_deref(), Some("road"));
        let odd = EventWords::of(r#"{"detections":[],"data":{"label":7,"zone":["road"]}}"#);
        assert_eq!(odd, EventWords::default());
        assert_eq!(EventWords::of("no JSON"), EventWords::default());
    }

    #[test]
    fn one_value_of_each_member_has_to_fit() {
        let body = r#"{"detections":[{"label":"car"}],"data":{"zone":"road"}}"#;
        let passes = |filter: EventFilter| filter.passes("gate", "entered", body);
        let filter = EventFilter::default();
        assert!(passes(filter.clone()) && !filter.chooses());
        let filter = EventFilter { labels: set(&["car", "bus"]), ..filter };
        assert!(passes(filter.clone()) && filter.chooses());
        assert!(passes(EventFilter { zones: set(&["road"]), ..filter.clone() }));
        assert!(!passes(EventFilter { zones: set(&["lawn"]), ..filter.clone() }));
        assert!(!passes(EventFilter { kinds: set(&["left"]), ..filter.clone() }));
        assert!(!passes(EventFilter { sessions: Some(set(&["yard"])), ..filter.clone() }));
        assert!(passes(EventFilter { sessions: Some(set(&["gate"])), ..filter }));
        assert!(!passes(EventFilter { labels: set(&["bus"]), ..EventFilter::default() }));
    }
}
