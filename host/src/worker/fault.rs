//! How workers fail: before they are ready, and at any time.

use ocelli_protocol::wire::WireError;
use ocelli_protocol::worker::{Description, FromWorker, WorkerStage};

use super::health::HealthFault;
use super::inbox::InboxError;
use crate::util::line::line;

/// Why a worker is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerFault {
    /// It has exited, or reported that it cannot go on.
    #[error("{0}")]
    Exited(String),
    /// The device that is to decode is not there, or does not decode the stream.
    #[error("decode_device: {0}")]
    Device(String),
    /// It has to be killed.
    #[error("{0}")]
    ProtocolViolation(String),
    /// It has to be killed.
    #[error(transparent)]
    Unhealthy(#[from] HealthFault),
}

impl WorkerFault {
    /// The worker's own report that it cannot go on.
    pub(crate) fn failed(stage: WorkerStage, message: &str) -> Self {
        match stage {
            WorkerStage::Device => Self::Device(message.to_owned()),
            _ => Self::Exited(format!("{stage:?}: {message}")),
        }
    }

    /// A message that may not come now. The reason has only its beginning: a message may have
    /// megabytes.
    pub(crate) fn unexpected(message: &FromWorker) -> Self {
        const SHOWN: usize = 200;
        Self::ProtocolViolation(line(&format!("out of turn: {:.SHOWN$}", format!("{message:?}"))))
    }
}

impl From<InboxError> for WorkerFault {
    fn from(error: InboxError) -> Self {
        match error {
            InboxError::Wire(WireError::Closed) => Self::Exited("the connection is closed".into()),
            InboxError::Wire(WireError::Io(error)) => Self::Exited(error.to_string()),
            error => Self::ProtocolViolation(format!("it broke the protocol: {error}")),
        }
    }
}

/// Why a worker did not get ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// It has exited, hangs, or broke the protocol.
    #[error(transparent)]
    Fault(#[from] WorkerFault),
    /// It refuses the pipeline's settings, in its own words.
    #[error("settings: {0}")]
    Settings(String),
    /// It reported that it cannot start the pipeline, in its own words.
    #[error("{stage:?}: {message}")]
    Failed { stage: WorkerStage, message: String },
    /// Its sandbox is not what the config requires.
    #[error("{0}")]
    Sandbox(String),
    /// A model that the pipeline needs is missing or another than it needs.
    #[error("{0}")]
    Model(String),
}

/// How the start of a worker goes that was given no settings of its own but those that the session
/// has, of pipeline `settings_of`. They are not another pipeline's, and where they do not fit, the
/// error says what can be done.
pub(crate) fn check_inherited(
    settings_of: Option<&str>,
    described: Option<&Description>,
    ready: Result<bool, StartError>,
) -> Result<bool, StartError> {
    let Some(settings_of) = settings_of else { return ready };
    let words = match (described, ready) {
        (Some(Description { name, .. }), _) if name != settings_of => format!(
            "the component is pipeline {name:?}, and the session's settings are of {settings_of:?}"
        ),
        (_, Err(StartError::Settings(words))) => words,
        (_, ready) => return ready,
    };
    Err(StartError::Settings(format!(
        "{words}; no settings were given, so these are the session's: give the pipeline its own, \
            or {{}} for its defaults"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_inherited_are_the_same_pipelines_and_the_error_says_both_ways_out() {
        let described = |name: &str| Description {
            name: name.into(),
            version: "1.0.0".into(),
            models: Vec::new(),
            settings_schema: String::new(),
        };
        let (eye, nose) = (described("eye"), described("nose"));
        let refused = || Err(StartError::Settings("settings.scope: unknown".into()));
        let says = |checked: Result<bool, StartError>| checked.unwrap_err().to_string();
        for (checked, words) in [
            (check_inherited(Some("eye"), Some(&nose), Ok(false)), "pipeline \"nose\""),
            (check_inherited(Some("eye"), Some(&nose), refused()), "of \"eye\""),
            (check_inherited(Some("eye"), Some(&eye), refused()), "settings.scope: unknown"),
        ] {
            let said = says(checked);
            for part in [words, "give the pipeline its own", "{} for its defaults"] {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
        assert!(matches!(check_inherited(Some("eye"), Some(&eye), Ok(true)), Ok(true)));
        assert!(matches!(check_inherited(Some("eye"), None, Ok(false)), Ok(false)));
        assert!(matches!(check_inherited(None, Some(&nose), Ok(true)), Ok(true)));
        assert!(!says(check_inherited(None, Some(&nose), refused())).contains("defaults"));
    }
}
