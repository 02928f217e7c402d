//! Reading the tables.

use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;

use super::upkeep::ChunkPlace;
use super::write::signed;
use super::{Store, StoreError};
use crate::codec::{decode_node, decode_version};
use crate::types::{
    ChunkId, DeviceId, EntryId, EntryRecord, FileId, Ino, Name, NameHash, NodeRecord, PlaceId,
    VersionId, VersionRecord,
};

/// How much a store holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// Files and directories with a name.
    pub files: u64,
    /// Names.
    pub entries: u64,
    /// Committed versions of files.
    pub versions: u64,
    /// Signed batches.
    pub batches: u64,
    /// Chunks.
    pub chunks: u64,
    /// Bytes of all sealed chunks.
    pub chunk_bytes: u64,
}

/// Rows of nodes, each of which may be damaged.
pub type NodesPage = Vec<(Ino, Result<NodeRecord, StoreError>)>;
/// Rows of versions, each of which may be damaged.
pub type VersionsPage = Vec<(FileId, VersionId, Result<VersionRecord, StoreError>)>;

impl Store {
    /// A node's record.
    ///
    /// # Errors
    /// The database's, or a record that does not decode.
    pub fn node(&self, ino: Ino) -> Result<Option<NodeRecord>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT record FROM node WHERE ino = ?1")?;
            let record: Option<Vec<u8>> =
                select.query_row([signed(ino.0)], |row| row.get(0)).optional()?;
            Ok(record.map(|bytes| decode_node(&bytes)).transpose()?)
        })
    }

    /// The nodes numbered above `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::node`].
    pub fn nodes_page(&self, after: Option<Ino>, limit: usize) -> Result<NodesPage, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(
                "SELECT ino, record FROM node WHERE ino > ?1 ORDER BY ino LIMIT ?2",
            )?;
            let after = after.map_or(i64::MIN, |ino| signed(ino.0));
            let rows = select.query_map(params![after, limit], |row| {
                let record: Vec<u8> = row.get(1)?;
                Ok((Ino(unsigned(row, 0)?), decode_node(&record).map_err(StoreError::from)))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The entries whose name has this hash.
    ///
    /// # Errors
    /// As [`Store::node`].
    pub fn entry(&self, parent: Ino, hash: NameHash) -> Result<Vec<EntryRecord>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(
                "SELECT parent, hash, entry, place, ino, kind, name FROM entry
                 WHERE parent = ?1 AND hash = ?2 ORDER BY entry",
            )?;
            let rows = select.query_map([signed(parent.0), signed(hash.0)], entry_row)?;
            rows.map(|row| row?).collect()
        })
    }

    /// The entries of a directory behind `after`, in hash order, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::node`].
    pub fn entries_page(
        &self,
        parent: Ino,
        after: Option<NameHash>,
        limit: usize,
    ) -> Result<Vec<EntryRecord>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(
                "SELECT parent, hash, entry, place, ino, kind, name FROM entry
                 WHERE parent = ?1 AND hash > ?2 ORDER BY hash, entry LIMIT ?3",
            )?;
            let after = after.map_or(-1, |hash| signed(hash.0));
            let rows = select.query_map(params![signed(parent.0), after, limit], entry_row)?;
            rows.map(|row| row?).collect()
        })
    }

    /// The directories that have entries, numbered above `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    pub fn parents_page(&self, after: Option<Ino>, limit: usize) -> Result<Vec<Ino>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(
                "SELECT DISTINCT parent FROM entry WHERE parent > ?1 ORDER BY parent LIMIT ?2",
            )?;
            let after = after.map_or(i64::MIN, |ino| signed(ino.0));
            let rows = select.query_map(params![after, limit], |row| Ok(Ino(unsigned(row, 0)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// A name of a node, and the directory that it is in; reads all entries if need be.
    ///
    /// # Errors
    /// As [`Store::node`].
    pub fn name_of(&self, ino: Ino) -> Result<Option<(Ino, Name)>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(
                "SELECT parent, hash, entry, place, ino, kind, name FROM entry
                 WHERE ino = ?1 LIMIT 1",
            )?;
            let entry = select.query_row([signed(ino.0)], entry_row).optional()?.transpose()?;
            Ok(entry.map(|entry| (entry.parent, entry.name)))
        })
    }

    /// One version of a file.
    ///
    /// # Errors
    /// As [`Store::node`].
    pub fn version(
        &self,
        file: FileId,
        id: VersionId,
    ) -> Result<Option<VersionRecord>, StoreError> {
        self.with_reader(|db| {
            let mut select =
                db.prepare_cached("SELECT record FROM version WHERE file = ?1 AND id = ?2")?;
            let record: Option<Vec<u8>> = select
                .query_row([signed(file.packed()), signed(id.packed())], |row| row.get(0))
                .optional()?;
            Ok(record.map(|bytes| decode_version(&bytes)).transpose()?)
        })
    }

    /// The versions behind `after`, by file and age, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::node`].
    pub fn versions_page(
        &self,
        after: Option<(FileId, VersionId)>,
        limit: usize,
    ) -> Result<VersionsPage, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(
                "SELECT file, id, record FROM version WHERE (file, id) > (?1, ?2)
                 ORDER BY file, id LIMIT ?3",
            )?;
            let (file, id) = after.map_or((i64::MIN, i64::MIN), |(file, id)| {
                (signed(file.packed()), signed(id.packed()))
            });
            let rows = select.query_map(params![file, id, limit], |row| {
                let record: Vec<u8> = row.get(2)?;
                Ok((
                    FileId::from_packed(unsigned(row, 0)?),
                    VersionId::from_packed(unsigned(row, 1)?),
                    decode_version(&record).map_err(StoreError::from),
                ))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// A journal's encoded batches from `seq` on, in order, at most `limit`: first seq and bytes.
    ///
    /// # Errors
    /// The database's.
    pub fn batches(
        &self,
        journal: u16,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(
                "SELECT seq, bytes FROM batch WHERE journal = ?1 AND seq >= ?2
                 ORDER BY seq LIMIT ?3",
            )?;
            let rows = select.query_map(params![journal, signed(seq), limit], |row| {
                Ok((unsigned(row, 0)?, row.get(1)?))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// A journal's newest batch.
    ///
    /// # Errors
    /// The database's.
    pub fn last_batch(&self, journal: u16) -> Result<Option<Vec<u8>>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(
                "SELECT bytes FROM batch WHERE journal = ?1 ORDER BY seq DESC LIMIT 1",
            )?;
            Ok(select.query_row([journal], |row| row.get(0)).optional()?)
        })
    }

    /// The journals known here, by their numbers.
    ///
    /// # Errors
    /// The database's.
    pub fn journals(&self) -> Result<Vec<(u16, DeviceId)>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT number, device FROM journal")?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, DeviceId(row.get(1)?))))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How many nodes have a name.
    ///
    /// # Errors
    /// The database's.
    pub fn live_nodes(&self) -> Result<u64, StoreError> {
        self.with_reader(|db| {
            let mut select =
                db.prepare_cached("SELECT value FROM meta WHERE key = 'live_nodes'")?;
            Ok(select.query_row([], |row| unsigned(row, 0)).optional()?.unwrap_or(0))
        })
    }

    /// Counts everything; reads all keys of the database.
    ///
    /// # Errors
    /// The database's.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        let files = self.live_nodes()?;
        self.with_reader(|db| {
            let one = |sql: &str| db.query_row(sql, [], |row| unsigned(row, 0));
            Ok(Counts {
                files,
                entries: one("SELECT count(*) FROM entry")?,
                versions: one("SELECT count(*) FROM version")?,
                batches: one("SELECT count(*) FROM batch")?,
                chunks: one("SELECT count(*) FROM chunk")?,
                chunk_bytes: one("SELECT coalesce(sum(bytes), 0) FROM chunk")?,
            })
        })
    }

    pub(super) fn chunk_place(&self, id: &ChunkId) -> Result<Option<ChunkPlace>, StoreError> {
        self.with_reader(|db| {
            let mut select =
                db.prepare_cached("SELECT segment, offset, bytes FROM chunk WHERE id = ?1")?;
            Ok(select.query_row([id.0], |row| place_row(row, 0)).optional()?)
        })
    }
}

/// A column as the unsigned number that was stored.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

pub(super) fn place_row(row: &Row<'_>, first: usize) -> rusqlite::Result<ChunkPlace> {
    Ok(ChunkPlace {
        segment: row.get(first)?,
        offset: row.get(first + 1)?,
        bytes: row.get(first + 2)?,
    })
}

fn entry_row(row: &Row<'_>) -> rusqlite::Result<Result<EntryRecord, StoreError>> {
    let name: Vec<u8> = row.get(6)?;
    let record = EntryRecord {
        parent: Ino(unsigned(row, 0)?),
        hash: NameHash(unsigned(row, 1)?),
        entry: EntryId::from_packed(unsigned(row, 2)?),
        place: PlaceId::from_packed(unsigned(row, 3)?),
        ino: Ino(unsigned(row, 4)?),
        kind_bits: row.get(5)?,
        name: match Name::new(&name) {
            Ok(name) => name,
            Err(error) => return Ok(Err(StoreError::Corrupt(format!("an entry's name: {error}")))),
        },
    };
    Ok(Ok(record))
}
