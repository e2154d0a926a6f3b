//! A host whose sessions have figures and nothing else to look at.

use ocelli::api::{Control, InsightControl};
use ocelli::config::source::Source;
use ocelli::journal::{Backup, JournalError};
use ocelli::monitor::SystemStatus;
use ocelli::probe::{ProbeError, ProbeReport};
use ocelli::telemetry::{LogPart, LogPosition};
use serde_json::Value;

use super::Double;

impl InsightControl for Double {
    type Stats = Value;

    async fn stats(&self, id: &str) -> Option<Value> {
        self.session(id)
    }

    async fn system(&self) -> Option<SystemStatus> {
        None
    }

    async fn backup(&self) -> Result<Backup, JournalError> {
        Err(JournalError::BackupUnderWay)
    }

    fn source(&self, _: &str) -> Option<Source> {
        None
    }

    fn admitted(&self, _: Source) -> Result<Source, ProbeError> {
        Err(ProbeError::NotAllowed)
    }

    async fn probe(&self, _: &Source) -> Result<(ProbeReport, Option<Vec<u8>>), ProbeError> {
        Err(ProbeError::Busy)
    }

    async fn suggested_rate(&self, _: Option<f64>) -> Option<f64> {
        None
    }

    async fn log(&self, _: &str, _: Option<LogPosition>, _: usize) -> std::io::Result<LogPart> {
        Ok(LogPart::default())
    }
}
