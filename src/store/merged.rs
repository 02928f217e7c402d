//! What the merge keeps under the view, and what is wanted from peers.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, Transaction, params};

use super::members::put_members;
use super::read::unsigned;
use super::wanted::{Wanted, put_wanted};
use super::write::signed;
use super::{Store, StoreError};
use crate::codec::{decode_merged, encode_merged};
use crate::types::merged::{Entry, Inode, MemberOp, Move, Version};
use crate::types::{
    ChunkId, ConflictResolution, DeviceId, EntryId, EpochId, FileId, Ino, Name, OpId, TreeRoot,
    VersionId, WrappedSecret,
};

/// What one commit changes of it, `None` for what goes.
#[derive(Clone, Debug, Default)]
pub struct MergedRows {
    /// Journals met for the first time: their numbers here.
    pub journals: Vec<(u16, DeviceId)>,
    /// How much a journal's author had heard of another, by its last batch here.
    pub heard: Vec<(u16, u16, u64)>,
    /// How far each journal is folded.
    pub folded: Vec<(u16, u64)>,
    /// Entries.
    pub entries: Vec<(EntryId, Option<Entry>)>,
    /// Inodes.
    pub inodes: Vec<(FileId, Option<Inode>)>,
    /// Versions.
    pub versions: Vec<(FileId, VersionId, Version)>,
    /// Moves of directories in the log.
    pub moves: Vec<(OpId, Option<Move>)>,
    /// Roles and Cuts.
    pub members: Vec<MemberOp>,
    /// Ops that do not count (or now do), and what they would have made.
    pub voids: Vec<(OpId, Option<u8>)>,
    /// How often the tree was folded anew, if it was once more.
    pub folds_anew: Option<u64>,
    /// The tree is to be folded anew, which has to wait, or has been.
    pub anew_due: Option<bool>,
    /// Batches that journals' devices have signed beside those that are here. The first is kept.
    pub forks: Vec<(u16, u64, Vec<u8>)>,
    /// Secrets of epochs, sealed for this device.
    pub epochs: Vec<(EpochId, WrappedSecret)>,
    /// Others have more of this device's journal than it has itself. Never taken back.
    pub is_overtaken: bool,
    /// Files and directories known here by a number that is not their own.
    pub faces: Vec<(FileId, Option<Ino>)>,
    /// Directories in which something stands beside its name (or no longer does).
    pub crowded: Vec<(Ino, bool)>,
    /// How the view shows files with several heads, if that changed.
    pub conflicts: Option<ConflictResolution>,
    /// The root of the tree, if that changed.
    pub root: Option<TreeRoot>,
    /// Chunks that the tree names and that are not here (or now are).
    pub wanted: Vec<(ChunkId, Option<Wanted>)>,
    /// Roots of versions that others superseded before their content was fetched, which nobody is
    /// to fetch any more (or now is).
    pub passed: Vec<(ChunkId, bool)>,
}

impl Store {
    /// An entry as the merge keeps it.
    ///
    /// # Errors
    /// The database's, or a record that does not decode; so below.
    pub fn merged_entry(&self, id: EntryId) -> Result<Option<Entry>, StoreError> {
        self.merged("SELECT record FROM merged_entry WHERE id = ?1", id.packed())
    }

    /// An inode as the merge keeps it.
    ///
    /// # Errors
    /// As [`Store::merged_entry`].
    pub fn merged_inode(&self, id: FileId) -> Result<Option<Inode>, StoreError> {
        self.merged("SELECT record FROM merged_inode WHERE id = ?1", id.packed())
    }

    fn merged<T: crate::codec::MergedRecord>(
        &self,
        sql: &str,
        id: u64,
    ) -> Result<Option<T>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(sql)?;
            let record: Option<Vec<u8>> =
                select.query_row([signed(id)], |row| row.get(0)).optional()?;
            Ok(record.map(|bytes| decode_merged(&bytes)).transpose()?)
        })
    }

    /// A version as the merge keeps it.
    ///
    /// # Errors
    /// As [`Store::merged_entry`].
    pub fn merged_version(
        &self,
        file: FileId,
        id: VersionId,
    ) -> Result<Option<Version>, StoreError> {
        self.with_reader(|db| {
            let mut select =
                db.prepare_cached("SELECT record FROM merged_version WHERE file = ?1 AND id = ?2")?;
            let record: Option<Vec<u8>> = select
                .query_row([signed(file.packed()), signed(id.packed())], |row| row.get(0))
                .optional()?;
            Ok(record.map(|bytes| decode_merged(&bytes)).transpose()?)
        })
    }

    /// The entries that stand in a directory; with `name`, those of that name.
    ///
    /// # Errors
    /// The database's.
    pub fn merged_children(
        &self,
        directory: FileId,
        name: Option<&Name>,
    ) -> Result<Vec<EntryId>, StoreError> {
        let parent = signed(directory.packed());
        let id = |row: &rusqlite::Row<'_>| Ok(EntryId::from_packed(unsigned(row, 0)?));
        self.with_reader(|db| {
            let mut ids = Vec::new();
            if let Some(name) = name {
                let sql = "SELECT id FROM merged_entry WHERE parent = ?1 AND name = ?2";
                let mut select = db.prepare_cached(sql)?;
                for found in select.query_map(params![parent, name.as_bytes()], id)? {
                    ids.push(found?);
                }
            } else {
                let sql = "SELECT id FROM merged_entry WHERE parent = ?1";
                let mut select = db.prepare_cached(sql)?;
                for found in select.query_map([parent], id)? {
                    ids.push(found?);
                }
            }
            Ok(ids)
        })
    }

    /// The entries on which an `Unlink` lies.
    ///
    /// # Errors
    /// The database's.
    pub fn merged_removed(&self) -> Result<Vec<EntryId>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT id FROM merged_entry WHERE removed")?;
            let rows = select.query_map([], |row| Ok(EntryId::from_packed(unsigned(row, 0)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The log of directory moves, in no order.
    ///
    /// # Errors
    /// As [`Store::merged_entry`].
    pub fn moves(&self) -> Result<Vec<Move>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT record FROM move")?;
            let rows = select.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
            rows.map(|record| Ok(decode_merged(&record?)?)).collect()
        })
    }

    /// How much each journal's author had heard of the others.
    ///
    /// # Errors
    /// The database's.
    pub fn heard(&self) -> Result<Vec<(u16, u16, u64)>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT journal, of, seq FROM heard")?;
            let rows =
                select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, unsigned(row, 2)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How far each journal is folded.
    ///
    /// # Errors
    /// The database's.
    pub fn folded(&self) -> Result<Vec<(u16, u64)>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT journal, seq FROM folded")?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How the view that is stored shows files with several heads.
    ///
    /// # Errors
    /// The database's.
    pub fn conflicts_shown(&self) -> Result<ConflictResolution, StoreError> {
        self.with_reader(|db| {
            let mut select =
                db.prepare_cached("SELECT value FROM meta WHERE key = 'conflict_resolution'")?;
            let number: Option<usize> = select.query_row([], |row| row.get(0)).optional()?;
            let known = number.and_then(|number| ConflictResolution::ALL.get(number));
            Ok(known.copied().unwrap_or_default())
        })
    }

    /// The root of the tree that the folded ops make, and how far each journal is folded: of one
    /// moment.
    ///
    /// # Errors
    /// The database's.
    pub fn tree_root(&self) -> Result<(TreeRoot, Vec<(u16, u64)>), StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(
                "SELECT root, journal, seq
                 FROM (SELECT (SELECT value FROM meta WHERE key = 'tree_root') AS root)
                 LEFT JOIN folded",
            )?;
            let (mut root, mut folded) = (TreeRoot::default(), Vec::new());
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                if let Some(bytes) = row.get::<_, Option<[u8; 32]>>(0)? {
                    root = TreeRoot(bytes);
                }
                if let Some(journal) = row.get::<_, Option<u16>>(1)? {
                    folded.push((journal, unsigned(row, 2)?));
                }
            }
            Ok((root, folded))
        })
    }

    /// How many files were changed on devices apart, and not settled since.
    ///
    /// # Errors
    /// As [`Store::merged_entry`].
    pub fn conflicts(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        for (file, inode) in self.conflicted()? {
            let mut contents = HashSet::new();
            for head in inode.heads {
                contents.extend(self.merged_version(file, head)?.map(|version| version.content));
            }
            count += u64::from(contents.len() > 1);
        }
        Ok(count)
    }

    /// The files that have several heads.
    ///
    /// # Errors
    /// As [`Store::merged_entry`].
    pub fn conflicted(&self) -> Result<Vec<(FileId, Inode)>, StoreError> {
        self.with_reader(|db| {
            let mut select =
                db.prepare_cached("SELECT id, record FROM merged_inode WHERE conflicted")?;
            let mut rows = select.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let inode = decode_merged(&row.get::<_, Vec<u8>>(1)?)?;
                found.push((FileId::from_packed(unsigned(row, 0)?), inode));
            }
            Ok(found)
        })
    }

    /// The number by which a file or directory is known here.
    ///
    /// # Errors
    /// The database's.
    pub fn face(&self, file: FileId) -> Result<Ino, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT ino FROM face WHERE file = ?1")?;
            let ino = select
                .query_row([signed(file.packed())], |row| Ok(Ino(unsigned(row, 0)?)))
                .optional()?;
            Ok(ino.unwrap_or(Ino::from(file)))
        })
    }

    /// The files or directories known here by this number, though it is not their own.
    ///
    /// # Errors
    /// The database's.
    pub fn faced(&self, ino: Ino) -> Result<Vec<FileId>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT file FROM face WHERE ino = ?1")?;
            let rows = select
                .query_map([signed(ino.0)], |row| Ok(FileId::from_packed(unsigned(row, 0)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Does something in this directory stand beside its name?
    ///
    /// # Errors
    /// The database's.
    pub fn is_crowded(&self, ino: Ino) -> Result<bool, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT 1 FROM crowded WHERE ino = ?1")?;
            Ok(select.exists([signed(ino.0)])?)
        })
    }

    /// All directories in which something stands beside its name.
    ///
    /// # Errors
    /// The database's.
    pub fn crowded(&self) -> Result<Vec<Ino>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT ino FROM crowded ORDER BY ino")?;
            let rows = select.query_map([], |row| Ok(Ino(unsigned(row, 0)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The batch of a journal that holds op `seq`.
    ///
    /// # Errors
    /// The database's.
    pub fn batch_with(&self, journal: u16, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached(
                "SELECT bytes FROM batch WHERE journal = ?1 AND seq <= ?2
                 ORDER BY seq DESC LIMIT 1",
            )?;
            Ok(select.query_row(params![journal, signed(seq)], |row| row.get(0)).optional()?)
        })
    }
}

pub(super) fn put_merged(
    transaction: &Transaction<'_>,
    rows: &MergedRows,
) -> Result<(), StoreError> {
    put_known(transaction, rows)?;
    put_members(transaction, rows)?;
    put_records(transaction, rows)?;
    put_root(transaction, rows.root)?;
    put_faces(transaction, rows)
}

fn put_known(transaction: &Transaction<'_>, rows: &MergedRows) -> Result<(), StoreError> {
    for (number, device) in &rows.journals {
        let mut put = transaction.prepare_cached("INSERT INTO journal VALUES (?1, ?2)")?;
        put.execute(params![number, device.0])?;
    }
    for (journal, of, seq) in &rows.heard {
        let mut put =
            transaction.prepare_cached("INSERT OR REPLACE INTO heard VALUES (?1, ?2, ?3)")?;
        put.execute(params![journal, of, signed(*seq)])?;
    }
    for (journal, seq) in &rows.folded {
        let mut put =
            transaction.prepare_cached("INSERT OR REPLACE INTO folded VALUES (?1, ?2)")?;
        put.execute(params![journal, signed(*seq)])?;
    }
    put_wanted(transaction, rows)
}

fn put_records(transaction: &Transaction<'_>, rows: &MergedRows) -> Result<(), StoreError> {
    let mut put = transaction
        .prepare_cached("INSERT OR REPLACE INTO merged_entry VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let mut remove = transaction.prepare_cached("DELETE FROM merged_entry WHERE id = ?1")?;
    for (id, entry) in &rows.entries {
        match entry {
            Some(entry) => {
                let place = entry.place();
                put.execute(params![
                    signed(id.packed()),
                    signed(place.parent.packed()),
                    place.name.as_bytes(),
                    !entry.removals.is_empty(),
                    encode_merged(entry),
                ])?
            }
            None => remove.execute([signed(id.packed())])?,
        };
    }
    let mut put =
        transaction.prepare_cached("INSERT OR REPLACE INTO merged_inode VALUES (?1, ?2, ?3)")?;
    let mut remove = transaction.prepare_cached("DELETE FROM merged_inode WHERE id = ?1")?;
    for (id, inode) in &rows.inodes {
        match inode {
            Some(inode) => put.execute(params![
                signed(id.packed()),
                inode.is_conflicted(),
                encode_merged(inode)
            ])?,
            None => remove.execute([signed(id.packed())])?,
        };
    }
    let mut put =
        transaction.prepare_cached("INSERT OR REPLACE INTO merged_version VALUES (?1, ?2, ?3)")?;
    for (file, id, version) in &rows.versions {
        put.execute(params![signed(file.packed()), signed(id.packed()), encode_merged(version)])?;
    }
    let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO move VALUES (?1, ?2)")?;
    let mut remove = transaction.prepare_cached("DELETE FROM move WHERE op = ?1")?;
    for (op, line) in &rows.moves {
        match line {
            Some(line) => put.execute(params![signed(op.packed()), encode_merged(line)])?,
            None => remove.execute([signed(op.packed())])?,
        };
    }
    Ok(())
}

fn put_root(transaction: &Transaction<'_>, root: Option<TreeRoot>) -> Result<(), StoreError> {
    if let Some(root) = root {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES ('tree_root', ?1)")?
            .execute([root.0])?;
    }
    Ok(())
}

fn put_faces(transaction: &Transaction<'_>, rows: &MergedRows) -> Result<(), StoreError> {
    for (file, ino) in &rows.faces {
        let file = signed(file.packed());
        match ino {
            Some(ino) => transaction
                .prepare_cached("INSERT OR REPLACE INTO face VALUES (?1, ?2)")?
                .execute([file, signed(ino.0)])?,
            None => {
                transaction.prepare_cached("DELETE FROM face WHERE file = ?1")?.execute([file])?
            }
        };
    }
    if let Some(conflicts) = rows.conflicts {
        let number = ConflictResolution::ALL.iter().position(|way| *way == conflicts);
        transaction
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES ('conflict_resolution', ?1)")?
            .execute([number])?;
    }
    for (ino, is_crowded) in &rows.crowded {
        let sql = if *is_crowded {
            "INSERT OR IGNORE INTO crowded VALUES (?1)"
        } else {
            "DELETE FROM crowded WHERE ino = ?1"
        };
        transaction.prepare_cached(sql)?.execute([signed(ino.0)])?;
    }
    Ok(())
}
