//! Answers of a host over HTTP. Members that a type does not name are in its `more`, since a host
//! may be newer than this crate.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::message::{Event, SessionState};

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// The session's name.
    pub id: String,
    /// The state of the session.
    pub state: SessionState,
    /// The reason of the state, for a person.
    pub reason: Option<String>,
    /// The process number of its worker.
    pub pid: Option<u32>,
    /// The URL or the file of its pictures, without passwords.
    pub source: String,
    /// The name or the file of its pipeline.
    pub pipeline: String,
    /// The component that runs: the first 12 digits of its SHA-256.
    pub deployment: String,
    /// Restarts of its worker since the session was made, or restarted over the API.
    pub restarts: u64,
    /// The reason of its last worker's loss.
    pub last_error: Option<String>,
    /// Frames with a result since the session was made.
    pub results: u64,
    /// Events since the session was made.
    pub events: u64,
    /// Members that this crate does not know.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A page of a session's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventPage {
    /// The session's name.
    pub session: String,
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// The number of the first event in the journal.
    pub oldest: u64,
    /// The number of the session's last event.
    pub newest: u64,
    /// The `after` of the next page. `None` after the last page.
    pub next: Option<u64>,
    /// Requested events that are no longer in the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
}

/// Numbers of events that are no longer in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// The first number.
    pub from: u64,
    /// The last number.
    pub to: u64,
}

/// The record of a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Counts the session's deployments, from 1.
    pub number: u64,
    /// The session's name.
    pub session: String,
    /// The component: the first 12 digits of its SHA-256.
    pub deployment: String,
    /// The pipeline's name for itself.
    pub name: Option<String>,
    /// The pipeline's version.
    pub version: Option<String>,
    /// The step that it reached: `check` to `probation`.
    pub step: String,
    /// `pending`, `probation`, or the outcome: `healthy`, `aborted`, ...
    pub state: String,
    /// The reason of the outcome, for a person.
    pub reason: Option<String>,
    /// Members that this crate does not know.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// The models of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Models {
    /// Counts their changes since the host was started.
    pub catalog_version: u64,
    /// The models, sorted by name.
    pub models: Vec<Model>,
    /// Members that this crate does not know.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The model's name.
    pub name: String,
    /// SHA-256 of the model's file, hexadecimal.
    pub sha256: String,
    /// `loaded` or `available`.
    pub state: String,
    /// The names of its classes, by index.
    pub labels: Vec<String>,
    /// Members that this crate does not know.
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
