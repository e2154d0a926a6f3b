//! One run of `ocelli-compile`.

use std::fs::File;
use std::num::NonZero;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping, FdMappingCollision};
use ocelli_protocol::component::{CheckReport, MAX_REPORT};
use ocelli_protocol::process::compile as descriptor;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::blocking;
use super::error::CompileError;
use crate::config::{self, Sandbox, Signatures};
use crate::worker::{ControlGroup, ControlGroups, CpuLimit, GroupLimits};

/// Longest message on standard error in bytes: a compiler's message names a function and a reason;
/// the rest is a backtrace.
const MAX_WORDS: u64 = 2000;

/// The part of the processor that a compiler has beside others that want it: a worker has 100.
/// Components compile in a reasonable time on a busy machine, and cameras hardly notice.
const CPU_WEIGHT: u32 = 30;

/// Threads of a compiler beside one for each processor, to spare.
const OTHER_THREADS: u64 = 8;

/// The program, its confinement, and where it gets control groups.
pub(super) struct CompilerProcess {
    pub(super) program: PathBuf,
    pub(super) sandbox: Sandbox,
    pub(super) groups: Option<ControlGroups>,
}

impl CompilerProcess {
    /// Checks a component, and compiles it into `output`, if that is given. A report with problems
    /// is an error.
    pub(super) async fn run(
        &self,
        pipeline: &str,
        component: File,
        output: Option<File>,
        settings: &config::DeployConfig,
    ) -> Result<CheckReport, CompileError> {
        let start = |message: String| CompileError::start(pipeline, message);
        let mut command = self.command(component, output, settings).map_err(start)?;
        let mut child = command.spawn().map_err(|error| start(error.to_string()))?;
        let _group = self.enter_group(pipeline, child.id()).await;
        let (printed, complaint) = (child.stdout.take(), child.stderr.take());
        let ending = async {
            tokio::join!(bounded(printed, MAX_REPORT), bounded(complaint, MAX_WORDS), child.wait())
        };
        let seconds = settings.compile_timeout_s;
        let Ok((printed, complaint, status)) =
            tokio::time::timeout(Duration::from_secs(seconds), ending).await
        else {
            // It fails only if the child has ended by itself.
            let _ = child.kill().await;
            return Err(CompileError::Timeout { pipeline: pipeline.to_owned(), seconds });
        };
        let status = status.map_err(|error| start(error.to_string()))?;
        judge(pipeline, status, &printed, &one_line(&complaint))
    }

    /// Puts the process into a group of its own, where there are groups.
    async fn enter_group(&self, pipeline: &str, pid: Option<u32>) -> Option<ControlGroup> {
        let (groups, pid) = (self.groups.clone()?, pid?);
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
        let limits = GroupLimits {
            memory: descriptor::MEMORY,
            cpu: CpuLimit::Weight(CPU_WEIGHT),
            threads: processors + OTHER_THREADS,
        };
        // The kernel may take some ten milliseconds over it.
        let entered = blocking(move || {
            let group = groups.create(limits)?;
            group.admit(pid)?;
            Ok(group)
        });
        let entered = entered.await;
        entered
            .inspect_err(|error| {
                tracing::warn!(target: "ocelli::deploy", pipeline, "no control group: {error}");
            })
            .ok()
    }

    fn command(
        &self,
        component: File,
        output: Option<File>,
        settings: &config::DeployConfig,
    ) -> Result<Command, String> {
        let mut command = Command::new(&self.program);
        if self.sandbox == Sandbox::Required {
            command.arg("--require-sandbox");
        }
        command.arg("--max-bytes").arg((u64::from(settings.max_component_mb) << 20).to_string());
        if let Some(keys) = trusted(settings) {
            command.arg("--require-signature");
            keys.iter().for_each(|key| {
                command.arg("--trusted-key").arg(key);
            });
        }
        let mut passed =
            vec![FdMapping { parent_fd: component.into(), child_fd: descriptor::COMPONENT }];
        match output {
            Some(output) => {
                passed.push(FdMapping { parent_fd: output.into(), child_fd: descriptor::OUTPUT });
            }
            None => {
                command.arg("--check");
            }
        }
        command
            .fd_mappings(passed)
            .map_err(|FdMappingCollision| "descriptors collide".to_owned())?;
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(command)
    }
}

/// The keys of which one has to have signed a component. `None`: signatures are not checked.
pub(super) fn trusted(settings: &config::DeployConfig) -> Option<&[String]> {
    match settings.signatures {
        Signatures::Off => None,
        Signatures::Required => Some(&settings.trusted_keys),
    }
}

/// The report of a run that has ended, or its error.
fn judge(
    pipeline: &str,
    status: ExitStatus,
    printed: &[u8],
    said: &str,
) -> Result<CheckReport, CompileError> {
    if let Some(signal) = status.signal() {
        let (pipeline, said) = (pipeline.to_owned(), said.to_owned());
        return Err(CompileError::Ended { pipeline, signal: signal_name(signal), said });
    }
    let report: Result<CheckReport, _> = serde_json::from_slice(printed);
    match (report, status.code()) {
        (Ok(report), Some(0)) if report.problems.is_empty() => Ok(report),
        (Ok(report), Some(1)) if !report.problems.is_empty() => {
            Err(CompileError::Refused { pipeline: pipeline.to_owned(), report: Box::new(report) })
        }
        (report, _) => {
            let lacks =
                report.err().map_or_else(String::new, |error| format!("; no report: {error}"));
            Err(CompileError::start(pipeline, format!("{status}{lacks}; {said}")))
        }
    }
}

/// A signal's name, with its usual reason for a compiler.
fn signal_name(signal: i32) -> String {
    let named = match signal {
        6 => "SIGABRT (it ran out of the memory that it may use, or found a fault of its own)",
        7 => "SIGBUS",
        9 => "SIGKILL (somebody killed it, or its control group or the machine ran out of memory)",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        24 => "SIGXCPU (it used more processor time than a component of this size may)",
        31 => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    named.to_owned()
}

/// The first bytes of a pipe. The rest is not read: a process that writes more ends by the broken
/// pipe.
async fn bounded(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // The bytes before an error are all there are.
        let _ = pipe.take(most).read_to_end(&mut bytes).await;
    }
    bytes
}

/// A child's standard error on one line.
pub(super) fn one_line(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).split_whitespace().collect::<Vec<_>>().join(" ")
}
