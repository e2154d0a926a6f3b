//! The sessions' `wasi:keyvalue` stores.

use std::sync::Arc;

use ocelli_protocol::worker::{StoreChange, StoreContents};
use rusqlite::{Connection, params};

use super::{Journal, JournalError};

/// Sessions whose stores are kept; beyond that the one that was used longest ago goes. A store has
/// a megabyte unless the config says otherwise, and subscribers' sessions have names without end.
pub(super) const MAX_STORES: usize = 1000;

impl Journal {
    /// What a session's store holds, all changes before included.
    pub async fn store_contents(&self, session: &str) -> Result<StoreContents, JournalError> {
        let used = session.to_owned();
        self.enqueue_write(move |connection| touch(connection, &used).map(drop)).await?;
        let session = session.to_owned();
        self.read(move |connection| {
            let mut rows = connection
                .prepare_cached("SELECT bucket, key, value FROM kept WHERE session = ?")?;
            let rows =
                rows.query_map([&session], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            let mut kept = StoreContents::new();
            for row in rows {
                let (bucket, key, value): (String, String, Vec<u8>) = row?;
                kept.entry(bucket).or_default().insert(key, value);
            }
            Ok(kept)
        })
        .await
    }

    /// Has somebody told of each change of a store from now on. To be called once.
    pub fn set_store_mirror(&self, mirror: Arc<dyn StoreMirror>) {
        if self.mirror.set(mirror).is_err() {
            tracing::error!(target: "ocelli::journal", "stores have a mirror already");
        }
    }

    /// Puts other contents in the place of a session's store, without telling the mirror.
    pub async fn replace_store(
        &self,
        session: &str,
        contents: StoreContents,
    ) -> Result<(), JournalError> {
        let session = session.to_owned();
        let entries = contents.into_iter().flat_map(|(bucket, entries)| {
            let change =
                move |(key, value)| StoreChange { bucket: bucket.clone(), key, value: Some(value) };
            entries.into_iter().map(change)
        });
        let entries: Vec<StoreChange> = entries.collect();
        self.commit(move |connection| {
            connection.execute("DELETE FROM kept WHERE session = ?", [&session])?;
            keep(connection, &session, &entries)
        })
        .await
    }

    /// Keeps changes of a session's store: all of them or none. Waits for room in the queue, not
    /// for the disk; the module says what that means.
    pub async fn commit_store(
        &self,
        session: &str,
        changes: Vec<StoreChange>,
    ) -> Result<(), JournalError> {
        if let Some(mirror) = self.mirror.get() {
            mirror.changed(session, &changes);
        }
        let session = session.to_owned();
        self.enqueue_write(move |connection| keep(connection, &session, &changes)).await
    }
}

/// Hears of changes of sessions' stores.
pub trait StoreMirror: Send + Sync {
    /// The changes of one call, in their order. Never waits.
    fn changed(&self, session: &str, changes: &[StoreChange]);
}

impl std::fmt::Debug for dyn StoreMirror {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("StoreMirror")
    }
}

fn keep(connection: &Connection, session: &str, changes: &[StoreChange]) -> rusqlite::Result<()> {
    if !touch(connection, session)? {
        connection.execute(
            "INSERT INTO stores (session, used) VALUES (?, (SELECT COALESCE(MAX(used), 0) + 1 \
                FROM stores))",
            [session],
        )?;
        connection.execute(
            "DELETE FROM stores WHERE session IN (SELECT session FROM stores ORDER BY used DESC \
                LIMIT -1 OFFSET ?)",
            [MAX_STORES],
        )?;
    }
    let mut set = connection.prepare_cached(
        "INSERT INTO kept (session, bucket, key, value) VALUES (?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET value = excluded.value",
    )?;
    let mut delete = connection
        .prepare_cached("DELETE FROM kept WHERE session = ? AND bucket = ? AND key = ?")?;
    for StoreChange { bucket, key, value } in changes {
        match value {
            Some(value) => set.execute(params![session, bucket, key, value])?,
            None => delete.execute(params![session, bucket, key])?,
        };
    }
    Ok(())
}

/// Notes that a store is used now. False where there is none.
fn touch(connection: &Connection, session: &str) -> rusqlite::Result<bool> {
    let mut touch = connection.prepare_cached(
        "UPDATE stores SET used = (SELECT COALESCE(MAX(used), 0) + 1 FROM stores) WHERE session = \
            ?",
    )?;
    Ok(touch.execute([session])? > 0)
}
