//! The cameras of the config file, or of the site that the host belongs to: what it says of each,
//! and changes of it where the operator allows that.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use super::access::Caller;
use super::audit::AuditDetail;
use super::body;
use super::extract::InPath;
use super::problem::Problem;
use super::state::ApiState;
use crate::config::edit::{ChangeError, ConfigChange, ConfigEdit, ConfigEntry, EditError};
use crate::deploy::ReloadReport;

/// Seconds after which a site that cannot be asked may be asked again: an election takes one.
const SITE_RETRY_S: u64 = 1;

/// The config file as the API needs it.
pub trait ConfigControl: Clone + Send + Sync + 'static {
    /// A camera's table in the config file.
    fn camera_entry(&self, id: &str)
    -> impl Future<Output = Result<ConfigEntry, EditError>> + Send;

    /// Changes the config file, and returns once the change is applied. Runs to its end even if the
    /// caller stops waiting.
    fn edit_config(&self, edit: ConfigEdit) -> impl Future<Output = Result<(), EditError>> + Send;

    /// Reads the config and its file of cameras again and applies them, for the caller of this
    /// name. Runs to its end even if the caller stops waiting.
    fn reload_config(
        &self,
        by: &str,
    ) -> impl Future<Output = Result<ReloadReport, EditError>> + Send;
}

/// Applies the config as its files are now.
pub(super) async fn reload<C: ConfigControl>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<ReloadReport>, Problem> {
    Ok(Json(state.control.reload_config(&caller.name).await?))
}

pub(super) async fn camera<C: ConfigControl>(
    State(state): State<Arc<ApiState<C>>>,
    InPath(id): InPath,
) -> Result<Response, Problem> {
    Ok(entry(state.control.camera_entry(&id).await?))
}

/// Answers with the entry as it then is.
pub(super) async fn put_camera<C: ConfigControl>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let of = of(&headers)?;
    let mut table: Map<String, Value> = body::json(request).await?;
    if table.remove("id").is_some_and(|named| named != id.as_str()) {
        let detail = "the camera's name is that of the path: to give it another, add one of that \
                      name and remove this one";
        return Err(Problem::bad("bad_request", detail));
    }
    // No values: a source has secrets.
    let detail = json!({"keys": table.keys().collect::<Vec<_>>()});
    let change = ConfigChange::PutCamera { id: id.clone(), table };
    let by = caller.name.to_string();
    state.control.edit_config(ConfigEdit { change, of, by }).await?;
    let written = entry(state.control.camera_entry(&id).await?);
    Ok((Extension(AuditDetail(detail)), written).into_response())
}

pub(super) async fn delete_camera<C: ConfigControl>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let (of, change) = (of(&headers)?, ConfigChange::RemoveCamera { id });
    let by = caller.name.to_string();
    state.control.edit_config(ConfigEdit { change, of, by }).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn entry(entry: ConfigEntry) -> Response {
    let tag = HeaderValue::try_from(format!("\"{}\"", entry.digest)).ok();
    let mut response = Json(entry).into_response();
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// The file that a change is of, by `If-Match`. `None`: the file as it is.
fn of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    // A proxy that compresses answers makes it a weak one.
    let tag = value.to_str().ok().map(str::trim);
    let tag = tag.map(|tag| tag.strip_prefix("W/").unwrap_or(tag));
    match tag {
        Some("*") => Ok(None),
        Some(tag) if tag.len() > 1 && tag.starts_with('"') && tag.ends_with('"') => {
            Ok(Some(tag.trim_matches('"').to_owned()))
        }
        _ => Err(Problem::bad("bad_request", "If-Match is one ETag of this path")),
    }
}

impl From<EditError> for Problem {
    fn from(error: EditError) -> Self {
        let detail = error.to_string();
        match error {
            EditError::Change(ChangeError::Unknown(..)) => {
                Self::new(StatusCode::NOT_FOUND, "not_in_config", detail)
            }
            EditError::Change(ChangeError::Exists(_)) => {
                Self::new(StatusCode::CONFLICT, "exists", detail)
            }
            EditError::Change(ChangeError::Form(_) | ChangeError::Syntax(_)) => {
                Self::new(StatusCode::CONFLICT, "config_not_editable", detail)
            }
            EditError::Change(ChangeError::Hidden | ChangeError::Null(_)) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", detail)
            }
            EditError::NotEditable { toml, .. } => {
                Self::new(StatusCode::CONFLICT, "config_not_editable", detail).with_toml(toml)
            }
            EditError::ReadOnly { toml, .. } => {
                Self::new(StatusCode::CONFLICT, "camera_read_only", detail).with_toml(toml)
            }
            EditError::Changed => {
                Self::new(StatusCode::PRECONDITION_FAILED, "config_changed", detail)
            }
            EditError::Wrong(problems) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", detail)
                    .with_config_problems(problems)
            }
            EditError::NotApplied(problems) | EditError::Refused(problems) => {
                Self::new(StatusCode::CONFLICT, "config_not_applied", detail)
                    .with_config_problems(problems)
            }
            EditError::NotInSite(_) => Self::new(StatusCode::NOT_FOUND, "not_in_config", detail),
            EditError::Site(_) => {
                Self::unavailable("site_unavailable", detail).retry_after(SITE_RETRY_S)
            }
            EditError::File(error) => Self::internal(format!("the config file: {error}")),
            EditError::Stopping => Self::unavailable("shutting_down", detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_is_written_and_not_applied_is_told() {
        let problem = Problem::from(EditError::NotApplied(Vec::new()));
        let told = serde_json::to_value(&problem).unwrap();
        assert_eq!((&told["status"], &told["code"]), (&json!(409), &json!("config_not_applied")));
        assert_eq!(told["config_problems"], json!([]));
    }

    #[test]
    fn a_change_is_of_the_file_that_its_etag_names() {
        let of = |value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            value.map(|value| headers.insert(header::IF_MATCH, HeaderValue::from_static(value)));
            super::of(&headers).map_err(drop)
        };
        assert_eq!(of(None), Ok(None));
        assert_eq!(of(Some("*")), Ok(None));
        assert_eq!(of(Some("\"ab\"")), Ok(Some("ab".to_owned())));
        assert_eq!([of(Some("ab")), of(Some("\"")), of(Some(""))], [Err(()), Err(()), Err(())]);
    }
}
