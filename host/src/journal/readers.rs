//! The cameras that the compatible reader reads, so that a restart of the host goes on with it.

use rusqlite::{OptionalExtension, params};

use super::{Journal, JournalError};

/// Cameras that are remembered: of a config several times over. Beyond that those go that were
/// noted longest ago, and are looked at anew.
const MAX_READERS: usize = 1000;

/// Why and since when a camera has the compatible reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderRow {
    /// For people.
    pub reason: String,
    /// Seconds since 1970.
    pub since: u64,
}

impl Journal {
    /// What is remembered of a source, by a digest that tells nothing of it.
    pub async fn reader(&self, source: String) -> Result<Option<ReaderRow>, JournalError> {
        self.read(move |connection| {
            let known = "SELECT reason, since FROM readers WHERE source = ?";
            let row =
                |row: &rusqlite::Row<'_>| Ok(ReaderRow { reason: row.get(0)?, since: row.get(1)? });
            connection.query_row(known, [source], row).optional()
        })
        .await
    }

    /// Remembers the compatible reader of a source, or forgets it. Waits for room in the queue, not
    /// for the disk.
    pub async fn set_reader(
        &self,
        source: String,
        reader: Option<ReaderRow>,
    ) -> Result<(), JournalError> {
        self.enqueue_write(move |connection| {
            let Some(ReaderRow { reason, since }) = reader else {
                let forget = "DELETE FROM readers WHERE source = ?";
                return connection.execute(forget, [source]).map(drop);
            };
            connection.execute(
                "INSERT INTO readers (source, reason, since) VALUES (?, ?, ?)
                 ON CONFLICT DO UPDATE SET reason = excluded.reason, since = excluded.since",
                params![source, reason, since],
            )?;
            let bound = "DELETE FROM readers WHERE source IN (
                SELECT source FROM readers ORDER BY since DESC LIMIT -1 OFFSET ?)";
            connection.execute(bound, [MAX_READERS]).map(drop)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_is_remembered_until_it_is_forgotten_and_across_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let row = ReaderRow { reason: "DESCRIBE failed".to_owned(), since: 1_800_000_000 };
        {
            let journal = Journal::open(folder.path()).unwrap();
            assert_eq!(journal.reader("a".to_owned()).await.unwrap(), None);
            journal.set_reader("a".to_owned(), Some(row.clone())).await.unwrap();
            journal.flush().await.unwrap();
        }
        let journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.reader("a".to_owned()).await.unwrap(), Some(row));
        journal.set_reader("a".to_owned(), None).await.unwrap();
        assert_eq!(journal.reader("a".to_owned()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn readers_are_bounded_and_the_newest_stay() {
        let journal = Journal::temporary().unwrap();
        for at in 0..=MAX_READERS as u64 {
            let row = ReaderRow { reason: String::new(), since: at };
            journal.set_reader(format!("camera {at}"), Some(row)).await.unwrap();
        }
        assert_eq!(journal.reader("camera 0".to_owned()).await.unwrap(), None);
        assert!(journal.reader("camera 1".to_owned()).await.unwrap().is_some());
    }
}
