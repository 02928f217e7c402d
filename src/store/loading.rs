//! A store that is filled from another device's, and what is read to fill one.
//!
//! While it is filled, a row of `meta` says so: a store that is opened with it is not whole. A
//! directory whose names have not all come stands in `unlisted`. Journals of which only the end
//! came stand in `base` until their beginnings are here too.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::read::unsigned;
use super::write::signed;
use super::{Commit, Store, StoreError, Sync, Writer};
use crate::codec::{MergedRecord, decode_merged, encode_merged};
use crate::types::merged::{Entry, Inode, Version};
use crate::types::{EntryId, FileId, Ino, Kind, OpId, VersionId};

/// Every table but those of chunks, which stay: they are named by their content.
const TABLES: [&str; 21] = [
    "meta",
    "journal",
    "batch",
    "node",
    "entry",
    "version",
    "heard",
    "folded",
    "merged_entry",
    "merged_inode",
    "merged_version",
    "move",
    "member",
    "void",
    "face",
    "crowded",
    "wanted",
    "passed",
    "base",
    "special",
    "unlisted",
];

/// What one commit changes of it.
#[derive(Clone, Debug, Default)]
pub struct LoadRows {
    /// Directories whose names have still to come (or have come).
    pub unlisted: Vec<(Ino, bool)>,
    /// Batches from before what the journal was continued from: number, first seq, bytes.
    pub older: Vec<(u16, u64, Vec<u8>)>,
    /// What symbolic links and special files are whose making is in such a part of a journal.
    pub specials: Vec<(FileId, Kind)>,
    /// Where journals begin here, or that they are here from their beginning.
    pub bases: Vec<(u16, Option<Base>)>,
    /// How many names have come, or that everything has.
    pub named: Option<Option<u64>>,
}

/// Where the end of a journal begins that is here without what comes before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Base {
    /// The first op of the batch that it begins with.
    pub seq: u64,
    /// Up to here its beginning is here too.
    pub upto: u64,
}

impl Store {
    /// This moment of the store, for one reader: it sees nothing of what is committed later. As long
    /// as it lives, the write-ahead log grows by what is.
    ///
    /// # Errors
    /// The database's.
    pub fn pin(&self) -> Result<Self, StoreError> {
        let connection = self.reader()?;
        connection.execute_batch("BEGIN")?;
        // The moment is that of the first read.
        connection.query_row("SELECT count(*) FROM meta", [], |_| Ok(()))?;
        Ok(self.pinned(connection))
    }

    /// Is this store still being filled, and how many names have come? `None` once it is whole.
    ///
    /// # Errors
    /// The database's.
    pub fn loading(&self) -> Result<Option<u64>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT value FROM meta WHERE key = 'loading'")?;
            Ok(select.query_row([], |row| unsigned(row, 0)).optional()?)
        })
    }

    /// Have names of this directory still to come?
    ///
    /// # Errors
    /// The database's.
    pub fn is_unlisted(&self, ino: Ino) -> Result<bool, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT 1 FROM unlisted WHERE ino = ?1")?;
            Ok(select.exists([signed(ino.0)])?)
        })
    }

    /// A directory whose names have still to come, if there is any.
    ///
    /// # Errors
    /// The database's.
    pub fn any_unlisted(&self) -> Result<Option<Ino>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT ino FROM unlisted LIMIT 1")?;
            Ok(select.query_row([], |row| Ok(Ino(unsigned(row, 0)?))).optional()?)
        })
    }

    /// The journals whose beginnings are not here.
    ///
    /// # Errors
    /// The database's.
    pub fn bases(&self) -> Result<Vec<(u16, Base)>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT journal, seq, upto FROM base")?;
            let rows = select.query_map([], |row| {
                let base = Base { seq: unsigned(row, 1)?, upto: unsigned(row, 2)? };
                Ok((row.get(0)?, base))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// What a symbolic link or special file is that a snapshot has told of.
    ///
    /// # Errors
    /// The database's, or a record that does not decode.
    pub fn special(&self, file: FileId) -> Result<Option<Kind>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT kind FROM special WHERE file = ?1")?;
            let kind: Option<Vec<u8>> =
                select.query_row([signed(file.packed())], |row| row.get(0)).optional()?;
            Ok(kind.map(|bytes| decode_merged(&bytes)).transpose()?)
        })
    }

    /// Where a journal begins here, if its beginning is missing.
    ///
    /// # Errors
    /// The database's.
    pub fn base(&self, journal: u16) -> Result<Option<Base>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT seq, upto FROM base WHERE journal = ?1")?;
            let base = |row: &Row<'_>| Ok(Base { seq: unsigned(row, 0)?, upto: unsigned(row, 1)? });
            Ok(select.query_row([journal], base).optional()?)
        })
    }

    /// Entries of the merge above `after`, in the order of their ids.
    ///
    /// # Errors
    /// The database's, or a record that does not decode.
    pub fn merged_entries_page(
        &self,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, Entry)>, StoreError> {
        let sql = "SELECT id, record FROM merged_entry WHERE id > ?1 ORDER BY id LIMIT ?2";
        let page = self.numbered_page(sql, after.map(EntryId::packed), limit)?;
        decoded(page, EntryId::from_packed)
    }

    /// Inodes of the merge, likewise.
    ///
    /// # Errors
    /// The database's, or a record that does not decode.
    pub fn merged_inodes_page(
        &self,
        after: Option<FileId>,
        limit: usize,
    ) -> Result<Vec<(FileId, Inode)>, StoreError> {
        let sql = "SELECT id, record FROM merged_inode WHERE id > ?1 ORDER BY id LIMIT ?2";
        let page = self.numbered_page(sql, after.map(FileId::packed), limit)?;
        decoded(page, FileId::from_packed)
    }

    fn numbered_page(
        &self,
        sql: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(sql)?;
            let after = after.map_or(i64::MIN, signed);
            let rows = select
                .query_map(params![after, limit], |row| Ok((unsigned(row, 0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Versions of the merge behind `after`.
    ///
    /// # Errors
    /// The database's, or a record that does not decode.
    pub fn merged_versions_page(
        &self,
        after: Option<(FileId, VersionId)>,
        limit: usize,
    ) -> Result<Vec<(FileId, VersionId, Version)>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(
                "SELECT file, id, record FROM merged_version WHERE (file, id) > (?1, ?2)
                 ORDER BY file, id LIMIT ?3",
            )?;
            let (file, id) = after.map_or((i64::MIN, i64::MIN), |(file, id)| {
                (signed(file.packed()), signed(id.packed()))
            });
            let mut rows = select.query(params![file, id, limit])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let file = FileId::from_packed(unsigned(row, 0)?);
                let id = VersionId::from_packed(unsigned(row, 1)?);
                found.push((file, id, decode_merged(&row.get::<_, Vec<u8>>(2)?)?));
            }
            Ok(found)
        })
    }

    /// Numbers that are not a file's own.
    ///
    /// # Errors
    /// The database's.
    pub fn faces_page(
        &self,
        after: Option<FileId>,
        limit: usize,
    ) -> Result<Vec<(FileId, Ino)>, StoreError> {
        let sql = "SELECT file, ino FROM face WHERE file > ?1 ORDER BY file LIMIT ?2";
        let pairs = self.pairs_page(sql, after.map(FileId::packed), limit)?;
        Ok(pairs.into_iter().map(|(file, ino)| (FileId::from_packed(file), Ino(ino))).collect())
    }

    /// Ops that do not count, and what they would have made.
    ///
    /// # Errors
    /// The database's.
    pub fn voids_page(
        &self,
        after: Option<OpId>,
        limit: usize,
    ) -> Result<Vec<(OpId, u8)>, StoreError> {
        let sql = "SELECT op, made FROM void WHERE op > ?1 ORDER BY op LIMIT ?2";
        let pairs = self.pairs_page(sql, after.map(OpId::packed), limit)?;
        let void = |(op, made)| (OpId::from_packed(op), u8::try_from(made).unwrap_or(0));
        Ok(pairs.into_iter().map(void).collect())
    }

    fn pairs_page(
        &self,
        sql: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, u64)>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(sql)?;
            let after = after.map_or(i64::MIN, signed);
            let pair = |row: &Row<'_>| Ok((unsigned(row, 0)?, unsigned(row, 1)?));
            let rows = select.query_map(params![after, limit], pair)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

fn decoded<I, T: MergedRecord>(
    page: Vec<(u64, Vec<u8>)>,
    id: impl Fn(u64) -> I,
) -> Result<Vec<(I, T)>, StoreError> {
    page.into_iter().map(|(number, record)| Ok((id(number), decode_merged(&record)?))).collect()
}

impl Writer {
    /// Empties every table but those of chunks, and applies `commit` in the same transaction.
    /// Durable on return.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub fn begin_anew(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.commit_after(commit, Sync::Durable, |transaction| {
            for table in TABLES {
                transaction.execute(&format!("DELETE FROM {table}"), [])?;
            }
            Ok(())
        })
    }
}

pub(super) fn put_load(transaction: &Transaction<'_>, rows: &LoadRows) -> Result<(), StoreError> {
    for (ino, is_unlisted) in &rows.unlisted {
        let sql = if *is_unlisted {
            "INSERT OR IGNORE INTO unlisted VALUES (?1)"
        } else {
            "DELETE FROM unlisted WHERE ino = ?1"
        };
        transaction.prepare_cached(sql)?.execute([signed(ino.0)])?;
    }
    for (journal, seq, bytes) in &rows.older {
        let sql = "INSERT OR IGNORE INTO batch VALUES (?1, ?2, ?3)";
        transaction.prepare_cached(sql)?.execute(params![journal, signed(*seq), bytes])?;
    }
    for (file, kind) in &rows.specials {
        let sql = "INSERT OR REPLACE INTO special VALUES (?1, ?2)";
        transaction
            .prepare_cached(sql)?
            .execute(params![signed(file.packed()), encode_merged(kind)])?;
    }
    for (journal, base) in &rows.bases {
        match base {
            Some(base) => transaction
                .prepare_cached("INSERT OR REPLACE INTO base VALUES (?1, ?2, ?3)")?
                .execute(params![journal, signed(base.seq), signed(base.upto)])?,
            None => transaction
                .prepare_cached("DELETE FROM base WHERE journal = ?1")?
                .execute([journal])?,
        };
    }
    match rows.named {
        Some(Some(named)) => transaction
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES ('loading', ?1)")?
            .execute([signed(named)])?,
        Some(None) => {
            transaction.prepare_cached("DELETE FROM meta WHERE key = 'loading'")?.execute([])?
        }
        None => 0,
    };
    Ok(())
}
