//! The journal's files: opened, looked through, and brought to the schema of this version.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use rusqlite::{Connection, ErrorCode};

use super::DatabaseSpec;

/// How long a host that is just ending may still have the file.
const BUSY: Duration = Duration::from_secs(5);

/// Opens the file, or begins one. One that is damaged is put aside: the path says where it is now.
pub(super) fn open(
    path: &Path,
    kind: &DatabaseSpec,
) -> anyhow::Result<(Connection, Option<PathBuf>)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| {
            format!(
                "making {}: set `store.directory` to a folder that can be written",
                folder.display()
            )
        })?;
    }
    let damage = match taken(path, kind)
        .and_then(|connection| Ok((damage(&connection)?, connection)))
    {
        Ok((None, connection)) => {
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
    let aside =
        quarantine(path).with_context(|| format!("putting {} aside: {damage}", path.display()))?;
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

/// Brings the schema to this version's.
fn migrate(mut connection: Connection, kind: &DatabaseSpec) -> anyhow::Result<Connection> {
    let had: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    ensure!(
        had <= kind.migrations.len(),
        "a newer version of ocelli has written it (schema {had})"
    );
    let change = connection.transaction()?;
    for step in kind.migrations.iter().skip(had) {
        change.execute_batch(step)?;
    }
    change.pragma_update(None, "user_version", kind.migrations.len())?;
    change.commit()?;
    Ok(connection)
}

/// Gives the file, and what belongs to it, a name that says when it was found to be damaged.
fn quarantine(path: &Path) -> std::io::Result<PathBuf> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let beside = |path: &Path, ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let aside = beside(path, &format!(".damaged-{}", since.as_millis()));
    for ending in ["-wal", "-shm"] {
        match std::fs::rename(beside(path, ending), beside(&aside, ending)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, &aside)?;
    Ok(aside)
}
