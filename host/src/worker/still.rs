//! One picture of a source, decoded in a confined process: the host itself has no decoder.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ocelli_protocol::wire;
use ocelli_protocol::worker::{StillReport, ToWorker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::source::AccessUnit;

/// Limit for the process. It takes some ten milliseconds, and a second for the largest picture.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of its answer that are read: the largest picture without any compression, 8192 x 4320.
const MAX_ANSWER: u64 = 128 << 20;

/// Bytes of its complaint that are read: a few lines.
const MAX_COMPLAINT: u64 = 4 << 10;

/// The kind of file that a picture becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StillFormat {
    /// Without loss.
    Png,
    /// A tenth of that, for a page.
    Jpeg,
}

/// Decodes access units, the first of them a key unit, with the program `ocelli-worker`: what it
/// says of the first sound picture, and that as a file.
pub(crate) async fn still(
    program: &Path,
    units: &[Arc<AccessUnit>],
    format: StillFormat,
) -> anyhow::Result<(StillReport, Vec<u8>)> {
    let mut child = Command::new(program)
        .arg("--still")
        .args((format == StillFormat::Jpeg).then_some("jpeg"))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let pipes = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
    let ((mut input, output), complaints) = pipes.context("its pipes are missing")?;
    let write = async move {
        for unit in units {
            let Ok(message) = wire::encode(&ToWorker::Unit(unit.header.clone()), unit.data.len())
            else {
                return;
            };
            // It reads no further than its first picture.
            if input.write_all(&message).await.is_err()
                || input.write_all(&unit.data).await.is_err()
            {
                return;
            }
        }
    };
    let (mut answer, mut complaint) = (Vec::new(), Vec::new());
    let (mut output, mut complaints) = (output.take(MAX_ANSWER), complaints.take(MAX_COMPLAINT));
    let read = output.read_to_end(&mut answer);
    let listen = complaints.read_to_end(&mut complaint);
    let all = async { tokio::join!(write, read, listen, child.wait()) };
    let Ok((_, read, _, status)) = tokio::time::timeout(TIMEOUT, all).await else {
        bail!("no picture was decoded within {} s", TIMEOUT.as_secs());
    };
    read.context("reading the picture")?;
    let line = answer.iter().position(|&byte| byte == b'\n');
    let Some((report, file)) = line.and_then(|end| answer.split_at_checked(end)) else {
        let complaint = String::from_utf8_lossy(&complaint);
        bail!("the decoder's process has failed: {}; {}", status?, complaint.trim());
    };
    let report = serde_json::from_slice(report).context("the decoder's process answers wrongly")?;
    Ok((report, file.get(1..).unwrap_or_default().to_vec()))
}
