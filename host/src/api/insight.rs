//! What operators look at: a session's figures and its log, and the whole of the machine.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::control::{Control, Refusal};
use super::deployments::DeploymentControl;
use super::extract::{InPath, InQuery};
use super::problem::Problem;
use super::site::is_forwarded;
use super::state::ApiState;
use crate::config::source::Source;
use crate::deploy::ConfigStatus;
use crate::journal::{Backup, JournalError};
use crate::monitor::SystemStatus;
use crate::probe::{ProbeError, ProbeReport};
use crate::telemetry::{LogPart, LogPosition, MAX_TAIL_LINES};

/// Lines of a log unless the client sets `lines`: a page's height.
const LINES: usize = 100;

/// What the host measures of itself, as the API needs it.
pub trait InsightControl: Clone + Send + Sync + 'static {
    /// A session's figures, as `GET /v1/sessions/{id}/stats` shows them.
    type Stats: Serialize + Send;

    /// A session's figures; `None` if there is none of this name.
    fn stats(&self, session: &str) -> impl Future<Output = Option<Self::Stats>> + Send;

    /// The host and its machine, as they are now; `None` if that cannot be found out.
    fn system(&self) -> impl Future<Output = Option<SystemStatus>> + Send;

    /// Makes a backup of the data directory. Runs to its end even if the caller stops waiting.
    fn backup(&self) -> impl Future<Output = Result<Backup, JournalError>> + Send;

    /// The source of a session; `None` if there is none of this name.
    fn source(&self, session: &str) -> Option<Source>;

    /// The source as an operator may have it probed.
    fn admitted(&self, source: Source) -> Result<Source, ProbeError>;

    /// What a source is, and a picture of it as a JPEG file.
    fn probe(
        &self,
        source: &Source,
    ) -> impl Future<Output = Result<(ProbeReport, Option<Vec<u8>>), ProbeError>> + Send;

    /// Results in a second that this machine has room for beside those that it gives, of a camera
    /// of this rate; `None` where it is not known.
    fn suggested_rate(&self, rate: Option<f64>) -> impl Future<Output = Option<f64>> + Send;

    /// The last `lines` lines of a session's log, the newest last; of those behind a place, the
    /// first ones.
    fn log(
        &self,
        session: &str,
        after: Option<LogPosition>,
        lines: usize,
    ) -> impl Future<Output = std::io::Result<LogPart>> + Send;
}

/// The answer of `GET /v1/system`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "System")]
pub(super) struct SystemAnswer {
    #[serde(flatten)]
    status: SystemStatus,
    /// The config in force, as in `GET /v1/config`.
    config: ConfigStatus,
}

/// The query of `GET /v1/system`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SystemQuery {
    /// Another host of the site.
    host: Option<String>,
}

/// What runs each model is in `GET /v1/models`.
pub(super) async fn system<C: InsightControl + DeploymentControl>(
    State(state): State<Arc<ApiState<C>>>,
    InQuery(SystemQuery { host }): InQuery<SystemQuery>,
    request: Request,
) -> Result<Response, Problem> {
    if let (Some(host), Some(link)) = (&host, &state.site)
        && let Some(other) = link.host(host, is_forwarded(request.headers()))?
    {
        return link.forward(&other, "", request).await;
    }
    let status = state.control.system().await;
    let status = status.ok_or_else(|| Problem::internal("the host's figures cannot be read"))?;
    Ok(Json(SystemAnswer { status, config: state.control.config() }).into_response())
}

pub(super) async fn stats<C: InsightControl>(
    State(state): State<Arc<ApiState<C>>>,
    InPath(id): InPath,
) -> Result<Response, Problem> {
    let stats = state.control.stats(&id).await.ok_or_else(|| Refusal::unknown(&id))?;
    Ok(Json(stats).into_response())
}

/// The query of `GET /v1/sessions/{id}/log`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    lines: Option<usize>,
    after: Option<String>,
}

/// The answer of `GET /v1/sessions/{id}/log`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LogLines")]
pub(super) struct LogTail {
    /// Lines as they stand in the file, the newest last.
    lines: Vec<String>,
    /// The place behind them: `after` of the request for those that follow.
    next: String,
    /// Whether lines between `after` and these are gone: too many came, or somebody removed them.
    missed: bool,
}

pub(super) async fn log<C: Control + InsightControl>(
    State(state): State<Arc<ApiState<C>>>,
    InPath(id): InPath,
    InQuery(LogQuery { lines, after }): InQuery<LogQuery>,
) -> Result<Response, Problem> {
    let lines = lines.unwrap_or(LINES);
    let after = after.map(|after| after.parse::<LogPosition>()).transpose();
    let after =
        after.map_err(|_| Problem::bad("bad_query", "after is the `next` of an earlier answer"))?;
    if !(1..=MAX_TAIL_LINES).contains(&lines) {
        return Err(Problem::bad("bad_query", format!("lines is 1 to {MAX_TAIL_LINES}")));
    }
    // A name without a session may have the log of one that has ended, which is not shown.
    if state.control.session(&id).is_none() {
        return Err(Refusal::unknown(&id).into());
    }
    let part = state.control.log(&id, after, lines).await.map_err(Problem::internal)?;
    let LogPart { lines, next, missed } = part;
    Ok(Json(LogTail { lines, next: next.to_string(), missed }).into_response())
}
