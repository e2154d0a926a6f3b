//! `ocelli pipeline check`: checks a component as a deployment does.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config::{self, Sandbox, Signatures};
use crate::deploy::{CompileError, check_component};
use crate::worker::Programs;
use anyhow::{Context, bail};
use clap::Args;
use ocelli_protocol::component::{CheckReport, Problem};
use ocelli_protocol::key::{KeyError, TrustedKey};

use super::super::table::printable;

/// See the module's documentation.
#[derive(Args)]
pub(in crate::cli) struct PipelineCheckCommand {
    /// The component.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// It has to be signed by this key: OpenSSH's `ssh-ed25519 ...` or PEM, or a file that holds
    /// it. May be repeated.
    #[arg(long, value_name = "KEY|FILE")]
    trusted_key: Vec<String>,
    /// The report, for programs.
    #[arg(long)]
    json: bool,
}

impl PipelineCheckCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        check(&self.file, &self.trusted_key, self.json)
    }
}

/// Checks a component that was built here, and prints what is found, for a person.
pub(super) fn check_and_tell(file: &Path) -> anyhow::Result<()> {
    check(file, &[], false)
}

fn check(file: &Path, keys: &[String], json: bool) -> anyhow::Result<()> {
    let mut settings = config::DeployConfig::default();
    if !keys.is_empty() {
        settings.signatures = Signatures::Required;
        settings.trusted_keys =
            keys.iter().map(|key| read_key(key)).collect::<anyhow::Result<_>>()?;
    }
    let program = Programs::find()?.compile;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let checked = check_component(program, Sandbox::BestEffort, file, &settings);
    let (report, refused) = match runtime.block_on(checked) {
        Ok(report) => (report, false),
        Err(CompileError::Refused { report, .. }) => (*report, true),
        Err(error) => return Err(error.into()),
    };
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(out, "{}", format_report(&file.display().to_string(), &report))?;
    }
    if refused {
        bail!("{}: problems: {}", file.display(), report.problems.len());
    }
    Ok(())
}

/// A key, or the content of a file that holds one.
fn read_key(given: &str) -> anyhow::Result<String> {
    if TrustedKey::parse(given).is_ok() {
        return Ok(given.to_owned());
    }
    // What was given may be a key with a fault in it, and is not repeated.
    let text = std::fs::read_to_string(given).map_err(|_| KeyError::Unknown);
    let text = text.context("--trusted-key: no file that can be read, and no key")?;
    TrustedKey::parse(&text).context("--trusted-key")?;
    Ok(text)
}

/// A report for a person.
fn format_report(file: &str, report: &CheckReport) -> String {
    let version = report.version.as_ref().map(|version| format!(", for ocelli:pipeline {version}"));
    let signer = report.signed_by.as_ref().map(|key| format!(", signed by {key}"));
    let (version, signer) = (version.unwrap_or_default(), signer.unwrap_or_default());
    if report.problems.is_empty() {
        return printable(&format!("{file}: good{version}{signer}")) + "\n";
    }
    let mut text = printable(&format!("{file}{version}{signer}:")) + "\n";
    for Problem { found, expected, message, .. } in &report.problems {
        text += &format!("  {}\n", printable(message));
        if let Some(found) = found {
            text += &format!("      component: {}\n", printable(found));
        }
        if let Some(expected) = expected {
            text += &format!("      contract:  {}\n", printable(expected));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::component::ProblemKind;

    #[test]
    fn each_problem_is_told_with_both_types_and_nothing_moves_the_cursor() {
        let mut report = CheckReport {
            version: Some("0.1.0".into()),
            supported: vec!["0.1.0".into()],
            signed_by: None,
            problems: vec![Problem {
                kind: ProblemKind::MismatchedExport,
                item: Some("pipeline#snapshot".into()),
                found: Some("func() -> \u{1b}string".into()),
                expected: Some("func() -> list<u8>".into()),
                message: "it exports snapshot with another type".into(),
            }],
            check_ms: 1,
            compile_ms: None,
        };
        let text = "a.wasm, for ocelli:pipeline 0.1.0:\n  it exports snapshot with another type\n      \
                    component: func() -> \u{fffd}string\n      contract:  func() -> list<u8>\n";
        assert_eq!(format_report("a.wasm", &report), text);
        report.problems.clear();
        assert_eq!(format_report("a.wasm", &report), "a.wasm: good, for ocelli:pipeline 0.1.0\n");
    }

    #[test]
    fn a_key_that_is_none_is_not_repeated() {
        let error = read_key("-----BEGIN OPENSSH PRIVATE KEY-----").unwrap_err();
        assert!(!format!("{error:#}").contains("PRIVATE"), "{error:#}");
    }
}
