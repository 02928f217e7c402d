//! Chunks that are named and not here: to be fetched, or passed over.

use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

use super::merged::MergedRows;
use super::{Store, StoreError};
use crate::codec::{decode_merged, encode_merged};
use crate::types::{ChunkId, ChunkRef};

/// A chunk that is to be fetched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// Names and opens it.
    pub chunk: ChunkRef,
    /// It is a node of a manifest: what it names is wanted too.
    pub is_node: bool,
}

impl Store {
    /// Chunks to be fetched, those behind `after` in the order of their ids, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::merged_entry`].
    pub fn wanted_page(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<ChunkId>, StoreError> {
        self.chunk_ids("SELECT id FROM wanted WHERE id > ?1 ORDER BY id LIMIT ?2", after, limit)
    }

    /// Is any chunk still to be fetched?
    ///
    /// # Errors
    /// The database's.
    pub fn wants_chunks(&self) -> Result<bool, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT 1 FROM wanted LIMIT 1")?;
            Ok(select.exists([])?)
        })
    }

    /// What is wanted of a chunk, if it is to be fetched.
    ///
    /// # Errors
    /// As [`Store::merged_entry`].
    pub fn wanted(&self, id: &ChunkId) -> Result<Option<Wanted>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT record FROM wanted WHERE id = ?1")?;
            let record: Option<Vec<u8>> = select.query_row([id.0], |row| row.get(0)).optional()?;
            Ok(record.map(|bytes| decode_merged(&bytes)).transpose()?)
        })
    }

    /// May a chunk that a version names be absent: is it still to be fetched, or was it passed over?
    ///
    /// # Errors
    /// As [`Store::merged_entry`].
    pub fn may_lack(&self, id: &ChunkId) -> Result<bool, StoreError> {
        Ok(self.wanted(id)?.is_some() || self.is_passed(id)?)
    }

    /// Is it the root of a version whose content nobody is to fetch any more?
    ///
    /// # Errors
    /// The database's.
    pub fn is_passed(&self, id: &ChunkId) -> Result<bool, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT 1 FROM passed WHERE id = ?1")?;
            Ok(select.exists([id.0])?)
        })
    }
}

impl crate::codec::MergedRecord for Wanted {
    const WHAT: &'static str = "wanted chunk";
}

pub(super) fn put_wanted(
    transaction: &Transaction<'_>,
    rows: &MergedRows,
) -> Result<(), StoreError> {
    for (id, wanted) in &rows.wanted {
        match wanted {
            Some(wanted) => {
                let sql = "INSERT OR REPLACE INTO wanted VALUES (?1, ?2)";
                transaction.prepare_cached(sql)?.execute(params![id.0, encode_merged(wanted)])?
            }
            None => {
                transaction.prepare_cached("DELETE FROM wanted WHERE id = ?1")?.execute([id.0])?
            }
        };
    }
    for (id, is_passed) in &rows.passed {
        let sql = if *is_passed {
            "INSERT OR IGNORE INTO passed VALUES (?1)"
        } else {
            "DELETE FROM passed WHERE id = ?1"
        };
        transaction.prepare_cached(sql)?.execute([id.0])?;
    }
    Ok(())
}
