//! What a host answers over HTTP. Members that a type does not name are in its `more`: a host may
//! be newer than this crate.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::message::{Event, SessionState};

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Its name.
    pub id: String,
    /// What it is doing.
    pub state: SessionState,
    /// Why, for a person.
    pub reason: Option<String>,
    /// Its worker's process.
    pub pid: Option<u32>,
    /// Where its pictures come from, without passwords.
    pub source: String,
    /// Its pipeline.
    pub pipeline: String,
    /// The component that runs: the first 12 digits of its SHA-256.
    pub deployment: String,
    /// Workers after the first since it was made, or started anew by a person.
    pub restarts: u64,
    /// Why its last worker was lost.
    pub last_error: Option<String>,
    /// Frames with a result since it was made.
    pub results: u64,
    /// Events since it was made.
    pub events: u64,
    /// The rest.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A part of a session's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventPage {
    /// The session.
    pub session: String,
    /// Oldest first.
    pub events: Vec<Event>,
    /// The first event that is kept.
    pub oldest: u64,
    /// The last event that there was.
    pub newest: u64,
    /// The `after` of the next page. None: that was all.
    pub next: Option<u64>,
    /// Events that were asked for and are kept no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
}

/// Numbers of events that are kept no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// The record of a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its number in the session.
    pub number: u64,
    /// The session.
    pub session: String,
    /// The component: the first 12 digits of its SHA-256.
    pub deployment: String,
    /// What the pipeline calls itself.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// How far it came.
    pub step: String,
    /// What became of it.
    pub state: String,
    /// Why, where it did not become what was wanted.
    pub reason: Option<String>,
    /// The rest.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// The models of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Models {
    /// How often they have changed since the host was started.
    pub catalog_version: u64,
    /// By name.
    pub models: Vec<Model>,
    /// The rest.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// SHA-256 of its file, in hexadecimal digits.
    pub sha256: String,
    /// `loaded` or `available`.
    pub state: String,
    /// Its classes, by index.
    pub labels: Vec<String>,
    /// The rest.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_newer_host_says_is_kept() {
        let said = json!({"id": "gate", "state": "pondering", "reason": null, "pid": 7, "source": "file:a", "pipeline": "p",
            "deployment": "0a1b2c3d4e5f", "restarts": 0, "last_error": null, "results": 1, "events": 2, "mood": "good"});
        let session = Session::deserialize(&said).unwrap();
        assert_eq!(session.state, SessionState::Other("pondering".into()));
        assert_eq!(session.more.get("mood"), Some(&json!("good")));
        assert_eq!(serde_json::to_value(&session).unwrap(), said);
    }
}
