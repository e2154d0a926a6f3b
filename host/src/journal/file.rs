//! The journal's file: opened, looked through, and brought to the schema of this version.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use rusqlite::{Connection, ErrorCode};

/// What leads from each version of the schema to the next; `user_version` counts those that a file has had.
const SCHEMA: [&str; 1] = ["
    CREATE TABLE stores (session TEXT PRIMARY KEY, used INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX stores_used ON stores (used);
    CREATE TABLE kept (
        session TEXT NOT NULL REFERENCES stores ON DELETE CASCADE,
        bucket TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (session, bucket, key)
    ) WITHOUT ROWID;
    CREATE TABLE deployments (
        session TEXT NOT NULL,
        number INTEGER NOT NULL,
        -- Ascends over all sessions.
        seq INTEGER NOT NULL,
        under_way INTEGER NOT NULL,
        -- Whether the session is the config's.
        configured INTEGER NOT NULL,
        -- JSON.
        record TEXT NOT NULL,
        PRIMARY KEY (session, number)
    ) WITHOUT ROWID;
    CREATE INDEX deployments_seq ON deployments (seq);
    CREATE INDEX deployments_under_way ON deployments (under_way) WHERE under_way;
    -- The entry of the config that a camera was given last.
    CREATE TABLE entries (session TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID;
"];

/// How long a host that is just ending may still have the file.
const BUSY: Duration = Duration::from_secs(5);

/// Opens the file, or begins one. One that is damaged is put aside.
pub(super) fn open(path: &Path) -> anyhow::Result<Connection> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| {
            format!("making {}: set `store.directory` to a folder that can be written", folder.display())
        })?;
    }
    let damage = match taken(path).and_then(|connection| Ok((damage(&connection)?, connection))) {
        Ok((None, connection)) => return prepared(connection).with_context(|| format!("{}", path.display())),
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
    let aside = put_aside(path).with_context(|| format!("putting {} aside: {damage}", path.display()))?;
    tracing::error!(
        target: "ocelli::journal",
        "{} is damaged ({damage}): it is kept as {}, and the host goes on without the sessions' stores and the history \
         of deployments that it held",
        path.display(),
        aside.display()
    );
    let connection = taken(path).with_context(|| format!("beginning {}", path.display()))?;
    prepared(connection).with_context(|| format!("beginning {}", path.display()))
}

/// A journal that ends with the process.
pub(super) fn in_memory() -> anyhow::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    connection.pragma_update(None, "foreign_keys", true)?;
    prepared(connection)
}

/// The file, which no other process may open from now on.
fn taken(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    // One process at a time, and no shared memory beside the file: it may lie on a network file system.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Takes the lock.
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
fn prepared(mut connection: Connection) -> anyhow::Result<Connection> {
    let had: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    ensure!(had <= SCHEMA.len(), "a newer version of ocelli has written it (schema {had})");
    let change = connection.transaction()?;
    for step in SCHEMA.iter().skip(had) {
        change.execute_batch(step)?;
    }
    change.pragma_update(None, "user_version", SCHEMA.len())?;
    change.commit()?;
    Ok(connection)
}

/// Gives the file, and what belongs to it, a name that says when it was found to be damaged.
fn put_aside(path: &Path) -> std::io::Result<PathBuf> {
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
