//! `/v1/jobs`: requests whose answer is asked for later, and how lists of results are told.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::problem::{Body, Problem};
use super::{Control, State};
use crate::analyze::{Analysis, Item, JobStatus};
use crate::event::{rfc3339, unix_ns};

/// The results of a list, in the order of its pictures.
#[derive(Serialize)]
pub(super) struct Results<'a> {
    results: Vec<One<'a>>,
}

impl<'a> Results<'a> {
    pub(super) fn of<I: Borrow<Item>>(items: &'a [I]) -> Self {
        let results = items.iter().enumerate().map(|(index, item)| One { index, item: item.borrow() });
        Self { results: results.collect() }
    }
}

/// One of them: the analysis, or where the picture stood and what was wrong with it.
struct One<'a> {
    index: usize,
    item: &'a Item,
}

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.item.outcome {
            Ok(analysis) => analysis.serialize(serializer),
            Err(fault) => {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("index", &self.index)?;
                if let Some(filename) = &self.item.filename {
                    map.serialize_entry("filename", filename)?;
                }
                map.serialize_entry("error", &Problem::from(fault.clone()).body())?;
                map.end()
            }
        }
    }
}

/// A job as it is told. Times are RFC 3339 in UTC.
#[derive(Serialize)]
struct Status<'a> {
    id: &'a str,
    state: &'a str,
    pipeline: &'a str,
    images: usize,
    answered: usize,
    created: String,
    started: Option<String>,
    finished: Option<String>,
    expires: Option<String>,
}

impl<'a> From<&'a JobStatus> for Status<'a> {
    fn from(job: &'a JobStatus) -> Self {
        Self {
            id: &job.id,
            state: job.state.as_str(),
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

/// A job with what it has come to, once it is over.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    status: Status<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Analysis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Body<'a>>,
    #[serde(flatten)]
    results: Option<Results<'a>>,
}

/// The answer to a request whose answer is asked for later.
pub(super) fn accepted(job: &JobStatus) -> Response {
    let location = format!("/v1/jobs/{}", job.id);
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(Status::from(job))).into_response()
}

pub(super) async fn list<C: Control>(Extract(state): Extract<Arc<State<C>>>) -> Response {
    let jobs = state.control.analyses().jobs();
    Json(json!({"jobs": jobs.iter().map(Status::from).collect::<Vec<_>>()})).into_response()
}

pub(super) async fn show<C: Control>(
    Extract(state): Extract<Arc<State<C>>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = id(path)?;
    let (job, items) = state.control.analyses().job(&id).ok_or_else(|| unknown(&id))?;
    let over = job.finished.is_some();
    let single = items.first().filter(|_| over && !job.list).map(|item| &item.outcome);
    let problem = single.and_then(|outcome| outcome.as_ref().err()).map(|fault| Problem::from(fault.clone()));
    let whole = Whole {
        status: Status::from(&job),
        result: single.and_then(|outcome| outcome.as_ref().ok()),
        error: problem.as_ref().map(Problem::body),
        results: (over && job.list).then(|| Results::of(&items)),
    };
    Ok(Json(whole).into_response())
}

pub(super) async fn cancel<C: Control>(
    Extract(state): Extract<Arc<State<C>>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let id = id(path)?;
    if state.control.analyses().cancel(&id) { Ok(StatusCode::NO_CONTENT) } else { Err(unknown(&id)) }
}

fn id(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(id)| id)
        .map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, "bad_path", rejection.body_text()))
}

fn unknown(id: &str) -> Problem {
    let detail = format!("there is no job {id:?}, or no longer");
    Problem::new(StatusCode::NOT_FOUND, "unknown_job", detail)
}
