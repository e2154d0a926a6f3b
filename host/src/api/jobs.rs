//! `/v1/jobs`: requests that are answered later, and lists of results.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::access::{Caller, Right};
use super::control::Control;
use super::extract::InPath;
use super::problem::Problem;
use super::state::ApiState;
use crate::analyze::{Analysis, ImageOutcome, JobState, JobStatus};
use crate::config::BasePath;
use crate::event::{rfc3339, unix_ns};
use crate::shape::TIME;

/// The results of a list, in the order of its pictures.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AnalysisResults")]
pub(super) struct Results<'a> {
    results: Vec<One<'a>>,
}

impl<'a> Results<'a> {
    pub(super) fn of<I: Borrow<ImageOutcome>>(items: &'a [I]) -> Self {
        Self {
            results: items
                .iter()
                .enumerate()
                .map(|(index, item)| One::of(index, item.borrow()))
                .collect(),
        }
    }
}

/// An analysis, or the error of a picture with its place in the list.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum One<'a> {
    Analysed(&'a Analysis),
    Failed {
        /// The picture's place in the list, from 0.
        index: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        filename: Option<&'a str>,
        error: Problem,
    },
}

impl<'a> One<'a> {
    fn of(index: usize, item: &'a ImageOutcome) -> Self {
        match &item.outcome {
            Ok(analysis) => Self::Analysed(analysis),
            Err(fault) => Self::Failed {
                index,
                filename: item.filename.as_deref(),
                error: fault.clone().into(),
            },
        }
    }
}

/// A job without its results. Times are RFC 3339 in UTC, with milliseconds.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Job")]
pub(super) struct JobView<'a> {
    id: &'a str,
    state: JobState,
    pipeline: &'a str,
    images: usize,
    answered: usize,
    /// When it was submitted: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    created: String,
    /// When its first picture went to a worker: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    started: Option<String>,
    /// When it ended: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    finished: Option<String>,
    /// When its results are deleted: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    expires: Option<String>,
}

impl<'a> From<&'a JobStatus> for JobView<'a> {
    fn from(job: &'a JobStatus) -> Self {
        Self {
            id: &job.id,
            state: job.state,
            pipeline: &job.pipeline,
            images: job.images,
            answered: job.answered,
            created: time(job.created),
            started: job.started.map(time),
            finished: job.finished.map(time),
            expires: job.expires.map(time),
        }
    }
}

fn time(time: SystemTime) -> String {
    rfc3339(unix_ns(time))
}

/// A job, with its results once it has ended.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "JobWithResults")]
pub(super) struct JobWithResults<'a> {
    #[serde(flatten)]
    status: JobView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Analysis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
    #[serde(flatten)]
    results: Option<Results<'a>>,
}

/// The answer to a request for a job.
pub(super) fn accepted(job: &JobStatus, base: &BasePath) -> Response {
    let location = format!("{base}/v1/jobs/{}", job.id);
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(JobView::from(job))).into_response()
}

/// Whether a job is the caller's, or one that it may see all the same. To others it does not exist.
fn owns(caller: &Caller, job: &JobStatus) -> bool {
    job.owner == caller.name || caller.may(Right::Administer)
}

pub(super) async fn list<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let mut jobs = state.control.analyses().jobs();
    jobs.retain(|job| owns(&caller, job));
    Json(json!({"jobs": jobs.iter().map(JobView::from).collect::<Vec<_>>()})).into_response()
}

pub(super) async fn show<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
) -> Result<Response, Problem> {
    let job = state.control.analyses().job(&id).filter(|(job, _)| owns(&caller, job));
    let (job, items) = job.ok_or_else(|| unknown(&id))?;
    let over = job.finished.is_some();
    let single = items.first().filter(|_| over && !job.list).map(|item| &item.outcome);
    let problem =
        single.and_then(|outcome| outcome.as_ref().err()).map(|fault| Problem::from(fault.clone()));
    let whole = JobWithResults {
        status: JobView::from(&job),
        result: single.and_then(|outcome| outcome.as_ref().ok()),
        error: problem,
        results: (over && job.list).then(|| Results::of(&items)),
    };
    Ok(Json(whole).into_response())
}

pub(super) async fn cancel<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
) -> Result<StatusCode, Problem> {
    let analyses = state.control.analyses();
    if analyses.job(&id).is_some_and(|(job, _)| owns(&caller, &job)) && analyses.cancel(&id) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown(&id))
    }
}

fn unknown(id: &str) -> Problem {
    let detail = format!("there is no job {id:?}, or no longer");
    Problem::new(StatusCode::NOT_FOUND, "unknown_job", detail)
}
