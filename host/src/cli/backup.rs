//! `ocelli backup`: the data directory of a running host, copied.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use ocelli_client::Request;
use serde_json::json;

use super::host::{Asked, HostArgs};
use super::pipeline::parent;
use crate::journal::{Backup, copy_backup, discard_backup};

/// What is copied, and where to.
#[derive(Args)]
pub(super) struct BackupCommand {
    /// The folder that is made. There is none of this name yet.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(flatten)]
    host: HostArgs,
}

impl BackupCommand {
    /// Has the host make a backup, copies it, and removes it. A folder of this name is whole: it
    /// gets its name last.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let directory = &self.directory;
        ensure!(
            directory.symlink_metadata().is_err(),
            "{} is there: a backup has a folder of its own",
            directory.display()
        );
        let parent = parent(directory);
        // First what can fail without a backup. It goes by itself where the copy is not whole.
        let partial = tempfile::Builder::new().prefix(".ocelli-backup-").tempdir_in(parent);
        let partial = partial.with_context(|| format!("writing in {}", parent.display()))?;
        let answer = self.host.answer(&Request::post(&["backup"]).patient(), Asked::nothing())?;
        let backup: Backup = serde_json::from_value(answer)
            .with_context(|| format!("{} does not answer as an Ocelli host does", self.host.url))?;
        let inside = backup.directory.parent().is_some_and(|data| {
            let place = partial.path().canonicalize();
            place.is_ok_and(|place| data.canonicalize().is_ok_and(|data| place.starts_with(data)))
        });
        ensure!(
            !inside,
            "{} lies in the host's data directory: the next backup would hold it",
            directory.display()
        );
        let copied = copy_backup(&backup, partial.path());
        if copied.is_ok() {
            // What stays is removed by the next one, and by the host's next start.
            let _ = discard_backup(&backup);
        }
        copied.with_context(|| {
            format!(
                "copying {}: this takes the host's machine, and its user or root",
                backup.directory.display()
            )
        })?;
        std::fs::rename(partial.keep(), directory)
            .with_context(|| format!("naming {}", directory.display()))?;
        let Backup { files, bytes, .. } = backup;
        if self.host.json {
            println!("{}", json!({"directory": directory, "files": files, "bytes": bytes}));
        } else {
            println!("{}: {files} files, {bytes} bytes", directory.display());
        }
        Ok(())
    }
}
