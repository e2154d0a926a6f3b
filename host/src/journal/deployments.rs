//! The rows of the sessions' deployments, and the entries of the config that cameras were given.
//! What a row says is the deployer's: here it is text.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Journal, JournalError};

/// Sessions of subscribers whose deployments are kept: their names have no end. Those of cameras
/// are never forgotten.
pub(super) const MAX_SESSIONS: usize = 1000;

/// One deployment of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentRow {
    pub session: String,
    /// Counts the session's deployments from 1 on.
    pub number: u64,
    /// What the deployer says of it.
    pub record: String,
}

impl Journal {
    /// Adds a deployment that is under way under the session's next number, which `record` is told.
    /// On the disk when it returns. `configured`: the session is the config's.
    pub async fn add_deployment(
        &self,
        session: &str,
        configured: bool,
        record: impl FnOnce(u64) -> String + Send + 'static,
    ) -> Result<u64, JournalError> {
        let session = session.to_owned();
        self.commit(move |connection| {
            let last = "SELECT COALESCE(MAX(number), 0) FROM deployments WHERE session = ?";
            let number = connection.query_row(last, [&session], |row| row.get::<_, u64>(0))? + 1;
            connection.execute(
                "INSERT INTO deployments (session, number, seq, under_way, configured, record)
                 VALUES (?, ?, (SELECT COALESCE(MAX(seq), 0) + 1 FROM deployments), 1, ?, ?)",
                params![session, number, configured, record(number)],
            )?;
            if number == 1 {
                forget_sessions(connection)?;
            }
            Ok(number)
        })
        .await
    }

    /// Writes a deployment anew, and the entry of the config that it brought the session to. On the
    /// disk when it returns.
    pub async fn set_deployment(
        &self,
        row: DeploymentRow,
        under_way: bool,
        entry: Option<String>,
    ) -> Result<(), JournalError> {
        self.commit(move |connection| {
            let DeploymentRow { session, number, record } = row;
            connection.execute(
                "UPDATE deployments SET record = ?, under_way = ? WHERE session = ? AND number = ?",
                params![record, under_way, session, number],
            )?;
            entry.map_or(Ok(()), |entry| set_entry(connection, &session, &entry))
        })
        .await
    }

    /// The deployments of a session, newest first.
    pub async fn deployments(
        &self,
        session: &str,
        limit: usize,
    ) -> Result<Vec<DeploymentRow>, JournalError> {
        let session = session.to_owned();
        self.read(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT session, number, record FROM deployments WHERE session = ? ORDER BY \
                    number DESC LIMIT ?",
            )?;
            rows.query_map(params![session, i64::try_from(limit).unwrap_or(i64::MAX)], row)?
                .collect()
        })
        .await
    }

    /// The deployments of all sessions that are under way.
    pub async fn deployments_under_way(&self) -> Result<Vec<DeploymentRow>, JournalError> {
        self.read(|connection| {
            let mut rows = connection.prepare(
                "SELECT session, number, record FROM deployments WHERE under_way ORDER BY seq",
            )?;
            rows.query_map([], row)?.collect()
        })
        .await
    }

    /// Forgets deployments of a session.
    pub async fn forget_deployments(
        &self,
        session: &str,
        numbers: Vec<u64>,
    ) -> Result<(), JournalError> {
        let session = session.to_owned();
        self.enqueue_write(move |connection| {
            let mut forget = connection
                .prepare_cached("DELETE FROM deployments WHERE session = ? AND number = ?")?;
            numbers.iter().try_for_each(|number| forget.execute(params![session, number]).map(drop))
        })
        .await
    }

    /// The entry of the config that a camera was given last.
    pub async fn entry(&self, session: &str) -> Result<Option<String>, JournalError> {
        let session = session.to_owned();
        self.read(move |connection| {
            let entry = "SELECT entry FROM entries WHERE session = ?";
            connection.query_row(entry, [&session], |row| row.get(0)).optional()
        })
        .await
    }

    /// Notes the entry of the config that a camera has. On the disk when it returns.
    pub async fn set_entry(&self, session: &str, entry: String) -> Result<(), JournalError> {
        let session = session.to_owned();
        self.commit(move |connection| set_entry(connection, &session, &entry)).await
    }
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<DeploymentRow> {
    Ok(DeploymentRow { session: row.get(0)?, number: row.get(1)?, record: row.get(2)? })
}

fn set_entry(connection: &Connection, session: &str, entry: &str) -> rusqlite::Result<()> {
    let set = "INSERT INTO entries (session, entry) VALUES (?, ?) ON CONFLICT DO UPDATE SET entry \
        = excluded.entry";
    connection.execute(set, [session, entry]).map(drop)
}

/// Keeps the number of subscribers' sessions bounded: those go that have been deployed to longest
/// ago.
fn forget_sessions(connection: &Connection) -> rusqlite::Result<()> {
    let forget = "DELETE FROM deployments WHERE session IN (
        SELECT session FROM deployments GROUP BY session HAVING NOT MAX(configured)
        ORDER BY MAX(seq) DESC LIMIT -1 OFFSET ?)";
    connection.execute(forget, [MAX_SESSIONS]).map(drop)
}
