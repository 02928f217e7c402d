//! The one writer: a commit is one transaction, after the chunks that it names are on the disk.

use rusqlite::{Connection, Transaction, params};

use super::loading::{LoadRows, put_load};
use super::merged::{MergedRows, put_merged};
use super::{Store, StoreError};
use crate::codec::{encode_node, encode_version};
use crate::types::{
    DeviceId, EntryId, EntryRecord, FileId, Ino, NameHash, NodeRecord, VersionId, VersionRecord,
};

/// When a commit has to be on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// On return.
    Durable,
    /// With the next durable commit, or sooner.
    Later,
}

/// What one commit changes, all or nothing.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Encoded batches: journal number, first seq, bytes.
    pub batches: Vec<(u16, u64, Vec<u8>)>,
    /// Nodes to put, or to delete.
    pub nodes: Vec<(Ino, Option<NodeRecord>)>,
    /// Names to put.
    pub entries_put: Vec<EntryRecord>,
    /// Names to remove.
    pub entries_removed: Vec<(Ino, NameHash, EntryId)>,
    /// Versions to put.
    pub versions_put: Vec<(FileId, VersionId, VersionRecord)>,
    /// Versions to remove.
    pub versions_removed: Vec<(FileId, VersionId)>,
    /// How many nodes have a name, if that changed.
    pub live_nodes: Option<u64>,
    /// What the merge keeps under the view.
    pub merged: MergedRows,
    /// Of a store that is being filled from another device's.
    pub load: LoadRows,
}

/// The store's one writer.
pub struct Writer {
    connection: Connection,
    store: Store,
    latched: bool,
    synchronous: Option<Sync>,
}

impl Writer {
    pub(super) fn new(connection: Connection, store: Store) -> Self {
        Self { connection, store, latched: false, synchronous: None }
    }

    /// Applies a commit. With [`Sync::Durable`] it survives a power cut once this has returned,
    /// and so does every commit before it. Blocks for the disk.
    ///
    /// # Errors
    /// [`StoreError::Full`]: nothing was changed, and it may be tried again. After any other
    /// error the writer is latched.
    pub fn commit(&mut self, commit: &Commit, sync: Sync) -> Result<(), StoreError> {
        self.commit_after(commit, sync, |_| Ok(()))
    }

    /// As [`Writer::commit`], with something done first in its transaction.
    pub(super) fn commit_after(
        &mut self,
        commit: &Commit,
        sync: Sync,
        first: impl FnOnce(&Transaction<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.guarded(|this| this.apply(commit, sync, first))
    }

    /// Makes every commit so far durable.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.guarded(|this| {
            this.store.inner.segments.sync()?;
            this.set_synchronous(Sync::Durable)?;
            // Any write will do: it is the sync of the write-ahead log that counts.
            this.connection.execute(
                "INSERT INTO meta VALUES ('syncs', 1)
                 ON CONFLICT DO UPDATE SET value = value + 1",
                [],
            )?;
            Ok(())
        })
    }

    /// Notes a journal's number, for good.
    ///
    /// # Errors
    /// The database's.
    pub fn add_journal(&mut self, number: u16, device: &DeviceId) -> Result<(), StoreError> {
        self.guarded(|this| {
            this.set_synchronous(Sync::Durable)?;
            this.connection
                .execute("INSERT INTO journal VALUES (?1, ?2)", params![number, device.0])?;
            Ok(())
        })
    }

    /// Moves the write-ahead log into the database and empties it. For a clean end.
    ///
    /// # Errors
    /// The database's; nothing is lost then.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    /// The store that it writes to.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Direct access for upkeep, which holds the workspace alone.
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn guarded<R>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        if self.latched {
            return Err(StoreError::Latched);
        }
        let result = act(self).map_err(|error| error.or_full(1, 0));
        self.latched = matches!(&result, Err(error) if !matches!(error, StoreError::Full { .. }));
        result
    }

    fn apply(
        &mut self,
        commit: &Commit,
        sync: Sync,
        first: impl FnOnce(&Transaction<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let named = self.store.inner.segments.to_name();
        // Also when the commit itself may wait: the database may reach the disk at any time.
        if !named.chunks.is_empty() || sync == Sync::Durable {
            self.store.inner.segments.sync()?;
        }
        self.set_synchronous(sync)?;
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        first(&transaction)?;
        put_chunks(&transaction, &named)?;
        put_tree(&transaction, commit)?;
        put_journal(&transaction, commit)?;
        put_merged(&transaction, &commit.merged)?;
        put_load(&transaction, &commit.load)?;
        transaction.commit()?;
        self.store.inner.segments.named(&named);
        Ok(())
    }

    fn set_synchronous(&mut self, sync: Sync) -> Result<(), StoreError> {
        if self.synchronous != Some(sync) {
            let level = match sync {
                Sync::Durable => "FULL",
                Sync::Later => "NORMAL",
            };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.synchronous = Some(sync);
        }
        Ok(())
    }
}

fn put_chunks(
    transaction: &Transaction<'_>,
    named: &super::segment::Named,
) -> Result<(), StoreError> {
    let mut put =
        transaction.prepare_cached("INSERT OR IGNORE INTO chunk VALUES (?1, ?2, ?3, ?4)")?;
    for (id, place) in &named.chunks {
        put.execute(params![id.0, place.segment, place.offset, place.bytes])?;
    }
    let mut put = transaction.prepare_cached(
        "INSERT INTO segment VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET bytes = max(bytes, excluded.bytes)",
    )?;
    for (number, end) in &named.ends {
        put.execute(params![number, end])?;
    }
    Ok(())
}

fn put_tree(transaction: &Transaction<'_>, commit: &Commit) -> Result<(), StoreError> {
    let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO node VALUES (?1, ?2)")?;
    let mut remove = transaction.prepare_cached("DELETE FROM node WHERE ino = ?1")?;
    for (ino, record) in &commit.nodes {
        match record {
            Some(record) => put.execute(params![signed(ino.0), encode_node(record)])?,
            None => remove.execute([signed(ino.0)])?,
        };
    }
    let mut remove = transaction
        .prepare_cached("DELETE FROM entry WHERE parent = ?1 AND hash = ?2 AND entry = ?3")?;
    for (parent, hash, entry) in &commit.entries_removed {
        remove.execute([signed(parent.0), signed(hash.0), signed(entry.packed())])?;
    }
    let mut put = transaction
        .prepare_cached("INSERT OR REPLACE INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for entry in &commit.entries_put {
        put.execute(params![
            signed(entry.parent.0),
            signed(entry.hash.0),
            signed(entry.entry.packed()),
            signed(entry.place.packed()),
            signed(entry.ino.0),
            entry.kind_bits,
            entry.name.as_bytes(),
        ])?;
    }
    if let Some(live_nodes) = commit.live_nodes {
        let mut put =
            transaction.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('live_nodes', ?1)")?;
        put.execute([signed(live_nodes)])?;
    }
    Ok(())
}

fn put_journal(transaction: &Transaction<'_>, commit: &Commit) -> Result<(), StoreError> {
    let mut put = transaction.prepare_cached("INSERT INTO batch VALUES (?1, ?2, ?3)")?;
    for (journal, seq, bytes) in &commit.batches {
        put.execute(params![journal, signed(*seq), bytes])?;
    }
    let mut put =
        transaction.prepare_cached("INSERT OR REPLACE INTO version VALUES (?1, ?2, ?3)")?;
    for (file, id, record) in &commit.versions_put {
        put.execute(params![signed(file.packed()), signed(id.packed()), encode_version(record)])?;
    }
    let mut remove =
        transaction.prepare_cached("DELETE FROM version WHERE file = ?1 AND id = ?2")?;
    for (file, id) in &commit.versions_removed {
        remove.execute([signed(file.packed()), signed(id.packed())])?;
    }
    Ok(())
}

/// `SQLite` has signed numbers only: the same 64 bits.
pub(super) fn signed(number: u64) -> i64 {
    number.cast_signed()
}
