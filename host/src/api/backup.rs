//! `POST /v1/backup`: a backup of the data directory while the host runs.

use std::io::ErrorKind;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use rusqlite::ErrorCode;
use serde_json::json;

use super::audit::AuditDetail;
use super::insight::InsightControl;
use super::problem::Problem;
use super::state::ApiState;
use crate::journal::JournalError;

/// Seconds after which most backups are made.
const RETRY_S: u64 = 10;

/// Answers when the backup is whole and on the disk.
pub(super) async fn make<C: InsightControl>(
    State(state): State<Arc<ApiState<C>>>,
) -> Result<Response, Problem> {
    state.check_running()?;
    let made = state.control.backup().await?;
    let detail = json!({"files": made.files, "bytes": made.bytes});
    Ok((Extension(AuditDetail(detail)), Json(made)).into_response())
}

impl From<JournalError> for Problem {
    fn from(error: JournalError) -> Self {
        match &error {
            JournalError::BackupUnderWay => {
                Self::unavailable("busy", "another backup is under way").retry_after(RETRY_S)
            }
            error if is_full(error) => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "storage_full",
                "the disk of the data directory has no room for a copy of the databases",
            ),
            error => Self::internal(error),
        }
    }
}

fn is_full(error: &JournalError) -> bool {
    let of_sqlite =
        |error: &rusqlite::Error| error.sqlite_error_code() == Some(ErrorCode::DiskFull);
    let JournalError::Backup(error) = error else { return false };
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        let journal = cause.downcast_ref::<JournalError>();
        io.is_some_and(|error| error.kind() == ErrorKind::StorageFull)
            || cause.downcast_ref().is_some_and(of_sqlite)
            || matches!(journal, Some(JournalError::Read(error)) if of_sqlite(error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_second_backup_are_told_apart_from_faults() {
        let full = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(13), None);
        let nested = JournalError::Backup(JournalError::Read(full).into());
        assert_eq!(Problem::from(nested).status().as_u16(), 507);
        let disk = std::io::Error::from(ErrorKind::StorageFull);
        let written = JournalError::Backup(anyhow::Error::new(disk).context("events.db"));
        assert_eq!(Problem::from(written).status().as_u16(), 507);
        assert_eq!(Problem::from(JournalError::BackupUnderWay).status().as_u16(), 503);
        assert_eq!(Problem::from(JournalError::Ended).status().as_u16(), 500);
    }
}
