//! Copies of the file, which backups hold.
//!
//! The journal that was copied goes on, and gives numbers that the copy does not know: subscribers
//! and sinks have seen them. So a copy bears a mark, and a journal that begins with it gives no
//! number up to the milliseconds since 1970, as where a file was damaged: none comes twice, and
//! whoever goes on behind an event that the copy lacks misses none of the new ones.

use rusqlite::{Connection, OpenFlags};

use super::FILE;
use crate::util::folder::Folder;

/// The mark: a table with when the copy was made, in milliseconds since 1970. No schema has it.
const MARK: &str = "copied";

/// Writes a copy, as of one moment, into a file that is not there yet. Readers and the writer go on
/// meanwhile: what is read is what was committed when this began.
pub(in crate::journal::events) fn write(
    folder: &Folder,
    to: &std::path::Path,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(folder.path().join(FILE), flags)?;
    connection.execute("VACUUM INTO ?", [to.to_string_lossy()])?;
    let copy = Connection::open(to)?;
    copy.execute_batch(&format!("CREATE TABLE {MARK} (at INTEGER NOT NULL)"))?;
    copy.execute(&format!("INSERT INTO {MARK} VALUES (?)"), [now_ms])?;
    Ok(())
}

/// Sees to it that a journal that begins with a copy gives no number a second time.
pub(super) fn take_over(connection: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    if !connection.table_exists(None, MARK)? {
        return Ok(());
    }
    // The clock may be behind that of the copy.
    let made: i64 =
        connection.query_row(&format!("SELECT MAX(at) FROM {MARK}"), [], |row| row.get(0))?;
    let floor = made.max(now_ms);
    let change = connection.unchecked_transaction()?;
    change.execute("UPDATE streams SET last = MAX(last, ?)", [floor])?;
    change.execute(
        "UPDATE numbering SET floor = MAX(floor, ?1), deleted = MAX(deleted, ?1)",
        [floor],
    )?;
    change.execute_batch(&format!("DROP TABLE {MARK}"))?;
    change.commit()?;
    tracing::info!(
        target: "ocelli::journal",
        "events go on with a backup: numbers of new ones begin above {floor}"
    );
    Ok(())
}
