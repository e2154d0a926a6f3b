//! The host as the API needs it.

use std::sync::Arc;

use ocelli_protocol::worker::{PictureWish, RequestKind};
use serde::Serialize;
use serde_json::{Map, Value};

use super::site::Site;
use crate::analyze::Analyses;
use crate::fleet::Fleet;
use crate::session::{EncodedPicture, PictureError};
use crate::source::PictureFeed;

/// Sessions, models and metrics as the API needs them.
pub trait Control: Clone + Send + Sync + 'static {
    /// A session as `GET /v1/sessions` shows it.
    type Status: Serialize + Send;

    /// All models, as `GET /v1/models` shows them.
    type Models: Serialize + Send;

    /// The site that the host belongs to. `None`: it stands alone.
    fn site(&self) -> Option<Arc<dyn Site>> {
        None
    }

    /// The rollouts of that site.
    fn fleet(&self) -> Option<Fleet> {
        None
    }

    /// All sessions of this host, sorted by name.
    fn sessions(&self) -> Vec<Self::Status>;

    /// The session's name in its status.
    fn id(status: &Self::Status) -> &str;

    /// One session; `None` if there is none of this name.
    fn session(&self, id: &str) -> Option<Self::Status>;

    /// The pictures of a session; `None` if there is none of this name.
    fn pictures(&self, id: &str) -> Option<PictureFeed>;

    /// The newest picture of a session, encoded for people; `None` if there is no session of this
    /// name.
    fn picture(
        &self,
        id: &str,
        wish: PictureWish,
    ) -> impl Future<Output = Option<Result<EncodedPicture, PictureError>>> + Send;

    /// Makes sure that a session of this name runs this pipeline on this source. Runs to its end
    /// even if the caller stops waiting.
    fn ensure(
        &self,
        id: &str,
        source: &str,
        pipeline: &str,
        settings: Map<String, Value>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Asks a session's pipeline for an answer.
    fn ask(
        &self,
        id: &str,
        kind: RequestKind,
        request: Value,
    ) -> impl Future<Output = Result<Value, Refusal>> + Send;

    /// Restarts a session's worker.
    fn restart(&self, id: &str) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Ends a session. Returns when it has ended.
    fn stop(&self, id: &str) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The models as `GET /v1/models` shows them.
    fn models(&self) -> Self::Models;

    /// The analysis of single pictures.
    fn analyses(&self) -> &Analyses;

    /// The metrics of the host and its sessions in the OpenMetrics text format.
    fn metrics(&self) -> impl Future<Output = String> + Send;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A stable code for programs: `unknown_session`, `timeout`, ...
    pub code: &'static str,
    /// The reason, for a person. Holds no credential.
    pub message: String,
}

impl Refusal {
    /// There is no session of this name.
    pub fn unknown(id: &str) -> Self {
        Self { code: "unknown_session", message: format!("there is no session {id:?}") }
    }
}
