//! The journal's files: opened, looked through, and brought to the schema of this version.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{DatabaseSpec, JournalError};
use crate::util::folder::Folder;

/// How long a host that is just ending may still have the file.
const BUSY: Duration = Duration::from_secs(5);

/// The ending of the log of a file of SQLite.
const LOG: &str = "-wal";

/// What belongs to a file of SQLite beside it.
const BESIDE: [&str; 2] = [LOG, "-shm"];

/// Opens the folder of the journal, which is made where it is missing.
pub(super) fn folder(path: &Path) -> anyhow::Result<Folder> {
    Folder::private(path).with_context(|| {
        format!("making {}: set `store.directory` to a folder that can be written", path.display())
    })
}

/// Opens the file of this name, or begins one. One that is damaged is put aside: the path says where
/// it is now.
///
/// SQLite opens by path, since it makes, locks and deletes files beside this one, which get its
/// mode. That path is a regular file of the folder, for the host's user alone, before SQLite sees it.
pub(super) fn open(
    folder: &Folder,
    name: &str,
    kind: &DatabaseSpec,
) -> anyhow::Result<(Connection, Option<PathBuf>)> {
    let path = &folder.path().join(name);
    let opening = || format!("opening {}", path.display());
    folder.private_file(name).with_context(opening)?;
    for beside in BESIDE.map(|ending| format!("{name}{ending}")) {
        if folder.has(&beside) {
            folder.private_file(&beside).with_context(opening)?;
        }
    }
    let damage = match taken(path, kind)
        .and_then(|connection| Ok((damage(&connection)?, connection)))
    {
        Ok((None, connection)) => {
            check_schema(path, schema(&connection)?, kind)?;
            let connection =
                migrate(connection, kind).with_context(|| format!("{}", path.display()))?;
            return Ok((connection, None));
        }
        Ok((Some(damage), _)) => damage,
        Err(error) if is_damage(&error) => error.to_string(),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => bail!(
            "{}: another process has it: each host needs a `store.directory` of its own",
            path.display()
        ),
        Err(error) => {
            return Err(error).with_context(|| {
                format!("{}: set `store.directory` to a folder that can be written", path.display())
            });
        }
    };
    let aside = quarantine(folder, name)
        .with_context(|| format!("putting {} aside: {damage}", path.display()))?;
    folder.private_file(name).with_context(opening)?;
    tracing::error!(
        target: "ocelli::journal",
        "{} is damaged ({damage}): it is kept as {}, and the host goes on without {} that it held",
        path.display(),
        aside.display(),
        kind.contents
    );
    let begun = || -> anyhow::Result<Connection> { migrate(taken(path, kind)?, kind) };
    let connection = begun().with_context(|| format!("beginning {}", path.display()))?;
    Ok((connection, Some(aside)))
}

/// An error where the file of this name has a schema of a version to come. To be asked of all files
/// before the first is opened: [`open`] may change what an older version could still have read. A
/// file that another host has, or that is damaged, is for [`open`] to tell of.
pub(super) fn refuse_newer(
    folder: &Folder,
    name: &str,
    kind: &DatabaseSpec,
) -> Result<(), JournalError> {
    let path = folder.path().join(name);
    let log = folder.size(&format!("{name}{LOG}")).unwrap_or(0);
    let found = match log {
        0 => schema_of_header(folder, name),
        // The log may have the newer header. A connection that only reads leaves both as they are.
        _ => Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok().and_then(
            |connection| {
                connection.busy_timeout(Duration::ZERO).ok()?;
                schema(&connection).ok()
            },
        ),
    };
    found.map_or(Ok(()), |found| check_schema(&path, found, kind))
}

/// The version of the schema by the header of a file that has no log: SQLite itself would make
/// files beside it. None where there is no header.
fn schema_of_header(folder: &Folder, name: &str) -> Option<usize> {
    // https://www.sqlite.org/fileformat.html#the_database_header
    let mut header = [0; 64];
    folder.read(name).ok()?.read_exact(&mut header).ok()?;
    let version = header.strip_prefix(b"SQLite format 3\0")?.last_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*version)).ok()
}

/// The version of a file's schema.
fn schema(connection: &Connection) -> rusqlite::Result<usize> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn check_schema(path: &Path, found: usize, kind: &DatabaseSpec) -> Result<(), JournalError> {
    let known = kind.migrations.len();
    if found <= known {
        return Ok(());
    }
    Err(JournalError::Newer { path: path.to_owned(), found, known })
}

/// The file, whose lock was free.
fn taken(path: &Path, kind: &DatabaseSpec) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    for (name, value) in kind.pragmas {
        connection.pragma_update(None, name, value)?;
    }
    connection.execute_batch("BEGIN EXCLUSIVE; COMMIT")?;
    Ok(connection)
}

/// What is wrong with the file.
fn damage(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?;
    Ok((found != "ok").then_some(found))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Brings the schema to this version's. One that is there already needs no room on the disk.
fn migrate(mut connection: Connection, kind: &DatabaseSpec) -> anyhow::Result<Connection> {
    let had = schema(&connection)?;
    if had == kind.migrations.len() {
        return Ok(connection);
    }
    let change = connection.transaction()?;
    for step in kind.migrations.iter().skip(had) {
        change.execute_batch(step)?;
    }
    change.pragma_update(None, "user_version", kind.migrations.len())?;
    change.commit()?;
    Ok(connection)
}

/// Gives the file, and what belongs to it, a name that says when it was found to be damaged.
fn quarantine(folder: &Folder, name: &str) -> std::io::Result<PathBuf> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let aside = format!("{name}.damaged-{}", since.as_millis());
    for ending in BESIDE {
        match folder.rename(&format!("{name}{ending}"), &format!("{aside}{ending}")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    folder.rename(name, &aside)?;
    Ok(folder.path().join(aside))
}
