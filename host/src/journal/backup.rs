//! A backup of a data directory whose host runs on: what `ocelli backup` copies.
//!
//! # Theory of operation
//!
//! Both databases are written anew, each as of one moment: `journal.db` by its own thread between
//! two commits, `events.db` beside its writer, on a connection that only reads. Attachments, clips
//! and components never change under their names, so they get a second one and take no further
//! room; what people may write is copied. A picture is on the disk before the event that names it is
//! committed, and retention may delete one at any time: files are taken before the databases are
//! read, for those that go meanwhile, and after it, for those that come.
//!
//! The backup lies in the data directory, on the same disk, until whoever asked for it has copied
//! it. There is one: the next one takes its place, and so does the next start of the host remove it.
//! [`MANIFEST`] is written last: a backup without it is not whole, and its number tells a reader
//! at the end whether it is still the one of the beginning.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::events::EventJournal;
use super::{Journal, JournalError};
use crate::util::folder::{DRAFT, Folder};

/// The folder of the backup, in the data directory.
const FOLDER: &str = "backup";

/// The file that says what the backup is.
const MANIFEST: &str = "backup.json";

/// What of the data directory is left out: what was compiled, the backup and the ballast are made
/// anew; the last is the file system's, and root's alone, where the directory is a disk.
const LEFT_OUT: [&str; 4] = ["compiled", FOLDER, super::events::BALLAST, "lost+found"];

/// Folders whose files are the host's own and never change under their names: they get a second
/// name. All else is copied.
const LINKED: [&str; 3] = ["attachments", "clips", "components"];

/// The ending of an attachment that is being written.
const BEGUN: &str = ".new";

/// How deep folders are followed: deeper than the host makes any.
const DEPTH: usize = 8;

/// A backup, as the API tells of it and as its manifest does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backup {
    /// Where it lies on the host's machine.
    pub directory: PathBuf,
    /// Another one for each.
    pub id: String,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: i64,
    /// The version of Ocelli that made it.
    pub version: String,
    pub files: u64,
    /// What the files take together; one that several folders have counts in each.
    pub bytes: u64,
}

/// Removes a backup, where there is one: whether it went. What stays goes with the next backup.
pub(super) fn remove(data: &Folder) -> bool {
    if !data.has(FOLDER) {
        return false;
    }
    let removed = data.remove_folder(FOLDER);
    if let Err(error) = &removed {
        tracing::warn!(target: "ocelli::journal", "an old backup cannot be removed: {error}");
    }
    removed.is_ok()
}

impl Journal {
    /// Makes a backup of the data directory, in the place of the one before.
    pub async fn backup(&self) -> Result<Backup, JournalError> {
        let _one = self.backups.try_lock().map_err(|_| JournalError::BackupUnderWay)?;
        let made = self.make_backup().await;
        if made.is_err() {
            remove(&self.folder);
        }
        made
    }

    async fn make_backup(&self) -> Result<Backup, JournalError> {
        let data = self.folder.clone();
        let folder = blocking(move || {
            data.remove_folder(FOLDER).context("removing the backup before")?;
            let folder = data.subfolder(FOLDER).context("making its folder")?;
            take(&data, &folder, 0, false)?;
            Ok(folder)
        })
        .await?;
        let database = folder.path().join(super::FILE);
        let copy = database.to_string_lossy().into_owned();
        self.read_outside(move |connection| connection.execute("VACUUM INTO ?", [copy]))
            .await
            .map_err(|error| JournalError::Backup(error.into()))?;
        let data = self.folder.clone();
        blocking(move || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let made_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
            EventJournal::copy(&data, &folder.path().join(super::events::FILE), made_ms)
                .context(super::events::FILE)?;
            take(&data, &folder, 0, false)?;
            finish(&folder, made_ms)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, JournalError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| JournalError::Ended)?.map_err(JournalError::Backup)
}

/// Takes the files of a folder, and of those in it, into another: by a second name where `linked`,
/// else as copies. What goes meanwhile is left out; links and what is no file are, too.
fn take(from: &Folder, to: &Folder, depth: usize, linked: bool) -> anyhow::Result<()> {
    for name in from.names()? {
        let left_out = name.starts_with(DRAFT)
            || name.ends_with(BEGUN)
            || (depth == 0 && (name.contains(".db") || LEFT_OUT.contains(&name.as_str())));
        if left_out {
            continue;
        }
        let Ok(about) = from.about(&name) else { continue };
        let path = || from.path().join(&name).display().to_string();
        if about.is_file() {
            let taken = match linked {
                true => from.link(&name, to),
                false => from.copy(&name, to),
            };
            match taken {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                taken => taken.with_context(path)?,
            }
        } else if about.is_dir() && depth < DEPTH {
            let linked = linked || (depth == 0 && LINKED.contains(&name.as_str()));
            let below = to.subfolder(&name).with_context(path)?;
            take(&from.open_folder(&name).with_context(path)?, &below, depth + 1, linked)?;
        }
    }
    Ok(())
}

/// Counts what is there, and writes the manifest.
fn finish(folder: &Folder, made_ms: i64) -> anyhow::Result<Backup> {
    for name in [super::FILE, super::events::FILE] {
        // SQLite made it, by the umask.
        folder.private_file(name).with_context(|| name.to_owned())?;
    }
    let (files, bytes) = size(folder)?;
    let backup = Backup {
        directory: std::path::absolute(folder.path())?,
        id: format!("{:016x}", rand::random::<u64>()),
        made_ms,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        files,
        bytes,
    };
    let mut draft = folder.draft()?;
    draft.file.write_all(&serde_json::to_vec_pretty(&backup)?)?;
    draft.persist(MANIFEST)?;
    Ok(backup)
}

/// How many files lie in a folder and those in it, and what they take.
fn size(folder: &Folder) -> anyhow::Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for name in folder.names()? {
        let about = folder.about(&name)?;
        let (more, size) = match about.is_dir() {
            true => size(&folder.open_folder(&name)?)?,
            false => (1, about.len()),
        };
        (files, bytes) = (files + more, bytes + size);
    }
    Ok((files, bytes))
}

/// Opens a backup, of which an answer tells: the data directory, and its folder there. Root may
/// ask, and the host's user may exchange what lies in the data directory: no link that leads out of
/// it is followed, and a copy elsewhere names another directory than its own.
fn open(backup: &Backup) -> anyhow::Result<(Folder, Folder)> {
    let directory = &backup.directory;
    let shown = || format!("opening {}", directory.display());
    let of_host = directory.file_name() == Some(std::ffi::OsStr::new(FOLDER));
    let data = directory.parent().filter(|_| of_host).context("it is no backup of a host");
    let data = Folder::open(data.with_context(shown)?).with_context(shown)?;
    let folder = data.open_folder(FOLDER).with_context(shown)?;
    Ok((data, folder))
}

fn is_it(folder: &Folder, backup: &Backup) -> bool {
    let manifest = folder.read(MANIFEST).ok();
    let manifest = manifest.and_then(|file| serde_json::from_reader::<_, Backup>(file).ok());
    manifest.is_some_and(|now| now == *backup)
}

/// Removes a backup that is copied. What stays goes with the next one.
pub fn discard(backup: &Backup) -> anyhow::Result<()> {
    let (data, folder) = open(backup)?;
    ensure!(is_it(&folder, backup), "{} is another backup", backup.directory.display());
    Ok(data.remove_folder(FOLDER)?)
}

/// Copies a backup into an empty folder: all of it is on the disk when this returns. Nothing but
/// files is copied, and no link is followed.
///
/// # Errors
///
/// If the folder is not that backup, before and after: a host of another machine may have told of
/// it, or another backup has taken its place. If a file cannot be copied.
pub fn copy(backup: &Backup, to: &Path) -> anyhow::Result<()> {
    let (_, from) = open(backup)?;
    let shown = backup.directory.display();
    ensure!(is_it(&from, backup), "{shown} is not the backup that was made");
    let to = Folder::private(to)?;
    let copied = copy_all(&from, &to);
    ensure!(
        is_it(&from, backup),
        "it is gone: another was asked for meanwhile, or the host's disk had no room"
    );
    copied?;
    rustix::fs::syncfs(to.handle(".")?).context("writing to the disk")
}

fn copy_all(from: &Folder, to: &Folder) -> anyhow::Result<()> {
    for name in from.names()? {
        let path = || from.path().join(&name).display().to_string();
        let about = from.about(&name).with_context(path)?;
        if about.is_dir() {
            let below = to.subfolder(&name)?;
            copy_all(&from.open_folder(&name).with_context(path)?, &below)?;
        } else if about.is_file() {
            let mut source = from.read(&name).with_context(path)?;
            let mut target = to.create(&name).with_context(path)?;
            std::io::copy(&mut source, &mut target).with_context(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
