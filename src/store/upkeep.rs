//! Looking after the store: which chunks nothing names, and giving their room back.

use rusqlite::params;

use super::read::{place_row, unsigned};
use super::write::signed;
use super::{Store, StoreError, Writer};
use crate::types::{ChunkId, EntryId, Ino, NameHash};

/// Where a chunk's sealed bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkPlace {
    /// Which segment file.
    pub segment: u64,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How many.
    pub bytes: u32,
}

impl Store {
    /// Ids of chunks above `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    pub fn chunks_page(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<ChunkId>, StoreError> {
        self.chunk_ids("SELECT id FROM chunk WHERE id > ?1 ORDER BY id LIMIT ?2", after, limit)
    }

    /// The ids that `sql` selects above its first parameter, as many as its second says.
    pub(super) fn chunk_ids(
        &self,
        sql: &str,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<ChunkId>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(sql)?;
            let after = after.map_or(Vec::new(), |id| id.0.to_vec());
            let rows = select.query_map(params![after, limit], |row| Ok(ChunkId(row.get(0)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Is this chunk in the store?
    ///
    /// # Errors
    /// The database's.
    pub fn has_chunk(&self, id: &ChunkId) -> Result<bool, StoreError> {
        Ok(self.inner.segments.pending(id).is_some() || self.chunk_place(id)?.is_some())
    }

    /// What the database itself finds wrong with its file; empty if nothing.
    ///
    /// # Errors
    /// The database's.
    pub fn database_problems(&self) -> Result<Vec<String>, StoreError> {
        self.with_reader(|db| {
            let mut check = db.prepare("PRAGMA integrity_check(100)")?;
            let rows = check.query_map([], |row| row.get::<_, String>(0))?;
            let lines: Vec<String> = rows.collect::<Result<_, _>>()?;
            Ok(lines.into_iter().filter(|line| line != "ok").collect())
        })
    }
}

/// What the entries say of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// How many names lead to it.
    pub names: u64,
    /// One directory that names it.
    pub parent: Ino,
    /// How many names stand in it.
    pub entries: u64,
    /// How many of those are directories.
    pub subdirs: u64,
}

impl Writer {
    /// Counts names by node and by directory, in temporary tables: memory stays bounded.
    ///
    /// # Errors
    /// The database's.
    pub fn tally_begin(&mut self) -> Result<(), StoreError> {
        self.connection().execute_batch(
            "DROP TABLE IF EXISTS temp.names; DROP TABLE IF EXISTS temp.dirs;
             CREATE TEMP TABLE names (ino INTEGER PRIMARY KEY, names INTEGER, parent INTEGER);
             INSERT INTO names SELECT ino, count(*), max(parent) FROM entry GROUP BY ino;
             CREATE TEMP TABLE dirs (ino INTEGER PRIMARY KEY, entries INTEGER, subdirs INTEGER);
             INSERT INTO dirs SELECT parent, count(*), sum(kind = 4) FROM entry GROUP BY parent",
        )?;
        Ok(())
    }

    /// What was counted for a node.
    ///
    /// # Errors
    /// The database's.
    pub fn tally(&mut self, ino: Ino) -> Result<Tally, StoreError> {
        let mut select = self.connection().prepare_cached(
            "SELECT n.names, n.parent, d.entries, d.subdirs
             FROM (SELECT ?1 AS ino) LEFT JOIN temp.names n USING (ino)
             LEFT JOIN temp.dirs d USING (ino)",
        )?;
        Ok(select.query_row([signed(ino.0)], |row| {
            let number = |column| -> rusqlite::Result<u64> {
                Ok(row.get::<_, Option<i64>>(column)?.unwrap_or(0).cast_unsigned())
            };
            Ok(Tally {
                names: number(0)?,
                parent: Ino(number(1)?),
                entries: number(2)?,
                subdirs: number(3)?,
            })
        })?)
    }

    /// Entries without a directory or without a node, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    pub fn dangling_entries(
        &mut self,
        limit: usize,
    ) -> Result<Vec<(Ino, NameHash, EntryId)>, StoreError> {
        let mut select = self.connection().prepare(
            "SELECT parent, hash, entry FROM entry e
             WHERE NOT EXISTS (SELECT 1 FROM node WHERE ino = e.ino)
                OR NOT EXISTS (SELECT 1 FROM node WHERE ino = e.parent)
             LIMIT ?1",
        )?;
        let rows = select.query_map([limit], |row| {
            let entry = EntryId::from_packed(unsigned(row, 2)?);
            Ok((Ino(unsigned(row, 0)?), NameHash(unsigned(row, 1)?), entry))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Starts a sweep: the marks live in a temporary table, so memory stays bounded.
    ///
    /// # Errors
    /// The database's.
    pub fn sweep_begin(&mut self) -> Result<(), StoreError> {
        self.connection().execute_batch(
            "DROP TABLE IF EXISTS temp.marked;
             CREATE TEMP TABLE marked (id BLOB PRIMARY KEY) WITHOUT ROWID",
        )?;
        Ok(())
    }

    /// This chunk is named.
    ///
    /// # Errors
    /// The database's.
    pub fn sweep_mark(&mut self, id: &ChunkId) -> Result<(), StoreError> {
        let mut put =
            self.connection().prepare_cached("INSERT OR IGNORE INTO temp.marked VALUES (?1)")?;
        put.execute([id.0])?;
        Ok(())
    }

    /// How many chunks, and of how many bytes, nothing has marked.
    ///
    /// # Errors
    /// The database's.
    pub fn sweep_unmarked(&mut self) -> Result<(u64, u64), StoreError> {
        Ok(self.connection().query_row(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM chunk
             WHERE id NOT IN (SELECT id FROM temp.marked)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?)
    }

    /// Removes every chunk that nothing has marked, the rows first, then gives the room back. A
    /// crash between the two leaves room that is not given back, never a name without its chunk.
    ///
    /// # Errors
    /// The database's and the disk's.
    pub fn sweep_remove(&mut self) -> Result<(), StoreError> {
        let transaction = self.connection().transaction()?;
        let places: Vec<ChunkPlace> = {
            let mut remove = transaction.prepare(
                "DELETE FROM chunk WHERE id NOT IN (SELECT id FROM temp.marked)
                 RETURNING segment, offset, bytes",
            )?;
            let rows = remove.query_map([], |row| place_row(row, 0))?;
            rows.collect::<Result<_, _>>()?
        };
        transaction.commit()?;
        self.sync()?;
        places.into_iter().try_for_each(|place| self.store().inner.segments.punch(place))
    }
}
