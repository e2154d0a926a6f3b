//! The check at the host's start: a worker and a reader process try what the sandbox has to refuse
//! on this machine.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use ocelli_protocol::confinement::{Attempt, Confinement, Measure, SandboxCheck};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::Programs;
use crate::config::Sandbox;

/// Limit for the check. It takes a few milliseconds; loading the program's libraries comes before.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of the check's output that are read: a few lines for each measure and attempt.
const MAX_OUTPUT: u64 = 64 << 10;

/// The result of the check.
#[derive(Debug)]
pub(crate) struct SandboxReport {
    check: SandboxCheck,
}

/// Runs the check and logs its result. Fails if it found less than `sandbox` requires.
pub async fn check_sandbox(programs: &Programs, sandbox: Sandbox) -> anyhow::Result<()> {
    let readers = &programs.readers;
    for (whose, program) in [
        ("", &programs.worker),
        ("strict readers' ", &readers.strict),
        ("compatible readers' ", &readers.compatible),
    ] {
        let report = check(program).await.context("checking the sandbox")?;
        let summary = format!("{whose}{}", report.summary());
        if report.is_complete() {
            tracing::info!("{summary}");
        } else if sandbox == Sandbox::BestEffort {
            tracing::warn!("{summary}");
        } else {
            bail!("session_processes.sandbox = \"required\", but {summary}");
        }
    }
    Ok(())
}

/// Starts a process that confines itself and tries what it must not be able to do. Fails if the
/// check itself does not work; its findings are in the report.
pub(crate) async fn check(path: &Path) -> anyhow::Result<SandboxReport> {
    let program = path.display();
    let mut child = Command::new(path)
        .arg("--sandbox-check")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let (printed, complaint) = (child.stdout.take(), child.stderr.take());
    let ending = async { tokio::join!(bounded(printed), bounded(complaint), child.wait()) };
    let Ok((printed, complaint, status)) = tokio::time::timeout(TIMEOUT, ending).await else {
        bail!("{program} --sandbox-check did not end within {} s", TIMEOUT.as_secs());
    };
    let check = serde_json::from_slice(&printed).with_context(|| {
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        format!(
            "{program} --sandbox-check: {status}; {}",
            String::from_utf8_lossy(&complaint).trim()
        )
    })?;
    Ok(SandboxReport { check })
}

/// Reads the first bytes of a pipe. A writer of more gets a broken pipe.
async fn bounded(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // Bytes before an error are enough.
        let _ = pipe.take(MAX_OUTPUT).read_to_end(&mut bytes).await;
    }
    bytes
}

impl SandboxReport {
    /// Whether every measure is in force and the kernel refused every attempt.
    pub(crate) fn is_complete(&self) -> bool {
        self.check.confinement.is_complete()
            && !self.check.attempts.is_empty()
            && self.check.attempts.iter().all(|attempt| attempt.refused)
    }

    /// The measures in force, and those that are missing.
    pub(crate) fn confinement(&self) -> &Confinement {
        &self.check.confinement
    }

    /// The attempts that the kernel did not refuse.
    pub(crate) fn not_refused(&self) -> impl Iterator<Item = &Attempt> {
        self.check.attempts.iter().filter(|attempt| !attempt.refused)
    }

    /// One line for the log, or for the error if the sandbox is required.
    pub(crate) fn summary(&self) -> String {
        let confinement = self.confinement();
        let names: Vec<_> = confinement.enforced.iter().copied().map(Measure::name).collect();
        let enforced = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let mut line = format!("sandbox: enforced {enforced}");
        if !confinement.missing.is_empty() {
            line += &format!("; missing {}", confinement.missing_text());
        }
        let refused = self.check.attempts.iter().filter(|attempt| attempt.refused).count();
        line += &format!("; {refused} of {} attempts refused", self.check.attempts.len());
        let succeeded: Vec<_> = self.not_refused().map(describe_attempt).collect();
        if !succeeded.is_empty() {
            line += &format!(", not refused: {}", succeeded.join(", "));
        }
        line
    }
}

fn describe_attempt(attempt: &Attempt) -> String {
    match &attempt.error {
        None => attempt.attempt.clone(),
        Some(error) => format!("{} (failed with {error})", attempt.attempt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::confinement::MissingMeasure;
    use std::os::unix::fs::PermissionsExt;

    fn attempt(name: &str, refused: bool, error: Option<&str>) -> Attempt {
        Attempt { attempt: name.into(), refused, error: error.map(str::to_owned) }
    }

    fn complete() -> SandboxReport {
        let confinement = Confinement { enforced: Measure::ALL.to_vec(), missing: Vec::new() };
        let attempts = vec![attempt("fork", true, Some("EPERM"))];
        SandboxReport { check: SandboxCheck { confinement, attempts } }
    }

    /// A program that does what the shell is told, as the worker.
    async fn checked(script: &str) -> anyhow::Result<SandboxReport> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("worker");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        check(&program).await
    }

    #[test]
    fn the_line_says_what_is_missing_and_what_was_not_refused() {
        let mut report = complete();
        assert!(report.is_complete());
        assert!(
            report.summary().starts_with("sandbox: enforced no_new_privileges, files, network,")
        );
        assert!(report.summary().ends_with("; 1 of 1 attempts refused"), "{}", report.summary());

        report.check.attempts.push(attempt("connect_tcp", false, None));
        assert!(!report.is_complete());
        assert!(report.summary().ends_with("1 of 2 attempts refused, not refused: connect_tcp"));

        let mut report = complete();
        report.check.confinement.enforced.retain(|measure| *measure != Measure::Scopes);
        let missing =
            MissingMeasure { measure: Measure::Scopes, reason: "the kernel is old".into() };
        report.check.confinement.missing.push(missing);
        assert!(!report.is_complete());
        assert!(
            report.summary().contains("; missing scopes (the kernel is old); "),
            "{}",
            report.summary()
        );
    }

    #[tokio::test]
    async fn what_the_worker_prints_is_the_report() {
        let text = serde_json::to_string(&complete().check).unwrap();
        let report = checked(&format!("cat <<'END'\n{text}\nEND")).await.unwrap();
        assert!(report.is_complete());
    }

    #[tokio::test]
    async fn a_check_that_does_not_work_is_an_error_with_its_words() {
        let error = checked("echo 'no such thing' >&2; exit 3").await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("no such thing") && text.contains("exit status: 3"), "{text}");
    }

    #[tokio::test]
    async fn an_attempt_list_that_is_empty_holds_nothing() {
        let report =
            checked(r#"echo '{"confinement":{"enforced":[],"missing":[]},"attempts":[]}'"#).await;
        assert!(!report.unwrap().is_complete());
    }
}
