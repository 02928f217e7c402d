//! What the store keeps of who is a member: Roles, Cuts and epochs, and what does not count.

use rusqlite::{OptionalExtension, Transaction, params};

use super::merged::MergedRows;
use super::read::unsigned;
use super::write::signed;
use super::{Store, StoreError};
use crate::codec::{decode_merged, encode_merged};
use crate::types::merged::MemberOp;
use crate::types::{DeviceId, EpochId, OpId, WrappedSecret};

impl Store {
    /// All Roles and Cuts that arrived, by their ids.
    ///
    /// # Errors
    /// As [`Store::merged_entry`].
    pub fn member_ops(&self) -> Result<Vec<MemberOp>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT record FROM member ORDER BY op")?;
            let rows = select.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
            rows.map(|record| Ok(decode_merged(&record?)?)).collect()
        })
    }

    /// What an op that does not count would have made; `None` if it counts.
    ///
    /// # Errors
    /// The database's.
    pub fn void(&self, op: OpId) -> Result<Option<u8>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT made FROM void WHERE op = ?1")?;
            Ok(select.query_row([signed(op.packed())], |row| row.get(0)).optional()?)
        })
    }

    /// All ops that do not count, and what they would have made.
    ///
    /// # Errors
    /// The database's.
    pub fn voids(&self) -> Result<Vec<(OpId, u8)>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT op, made FROM void")?;
            let rows = select
                .query_map([], |row| Ok((OpId::from_packed(unsigned(row, 0)?), row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How often the tree was folded anew.
    ///
    /// # Errors
    /// The database's.
    pub fn folds_anew(&self) -> Result<u64, StoreError> {
        self.with_reader(|db| {
            let mut select =
                db.prepare_cached("SELECT value FROM meta WHERE key = 'folds_anew'")?;
            Ok(select.query_row([], |row| unsigned(row, 0)).optional()?.unwrap_or(0))
        })
    }

    /// The secrets of epochs, sealed for this device.
    ///
    /// # Errors
    /// The database's, or [`StoreError::Corrupt`].
    pub fn epochs(&self) -> Result<Vec<(EpochId, WrappedSecret)>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT author, seq, number, wrapped FROM epoch")?;
            let mut rows = select.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let (author, seq) = (DeviceId(row.get(0)?), unsigned(row, 1)?);
                let wrapped = WrappedSecret::from_bytes(&row.get::<_, Vec<u8>>(3)?);
                let wrapped = wrapped
                    .ok_or_else(|| StoreError::Corrupt("an epoch's secret has 80 bytes".into()))?;
                found.push((EpochId { number: row.get(2)?, author, seq }, wrapped));
            }
            Ok(found)
        })
    }

    /// Is the tree to be folded anew once the beginnings of all journals are here?
    ///
    /// # Errors
    /// The database's.
    pub fn is_anew_due(&self) -> Result<bool, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT 1 FROM meta WHERE key = 'anew_due'")?;
            Ok(select.exists([])?)
        })
    }

    /// Was it found that others have more of this device's journal than it has itself?
    ///
    /// # Errors
    /// The database's.
    pub fn is_overtaken(&self) -> Result<bool, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT 1 FROM meta WHERE key = 'overtaken'")?;
            Ok(select.exists([])?)
        })
    }

    /// The journals that are forked, and the first op of the batch that shows it.
    ///
    /// # Errors
    /// The database's.
    pub fn forks(&self) -> Result<Vec<(u16, u64)>, StoreError> {
        self.with_reader(|db| {
            let mut select = db.prepare_cached("SELECT journal, seq FROM fork")?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

pub(super) fn put_members(
    transaction: &Transaction<'_>,
    rows: &MergedRows,
) -> Result<(), StoreError> {
    for op in &rows.members {
        let mut put =
            transaction.prepare_cached("INSERT OR REPLACE INTO member VALUES (?1, ?2)")?;
        put.execute(params![signed(op.id.packed()), encode_merged(op)])?;
    }
    for (op, made) in &rows.voids {
        let op = signed(op.packed());
        match made {
            Some(made) => transaction
                .prepare_cached("INSERT OR REPLACE INTO void VALUES (?1, ?2)")?
                .execute(params![op, made])?,
            None => transaction.prepare_cached("DELETE FROM void WHERE op = ?1")?.execute([op])?,
        };
    }
    for (journal, seq, bytes) in &rows.forks {
        let mut put =
            transaction.prepare_cached("INSERT OR IGNORE INTO fork VALUES (?1, ?2, ?3)")?;
        put.execute(params![journal, signed(*seq), bytes])?;
    }
    for (epoch, wrapped) in &rows.epochs {
        let mut put =
            transaction.prepare_cached("INSERT OR REPLACE INTO epoch VALUES (?1, ?2, ?3, ?4)")?;
        let (author, seq) = (epoch.author.0, signed(epoch.seq));
        put.execute(params![author, seq, epoch.number, wrapped.to_bytes()])?;
    }
    if rows.is_overtaken {
        transaction.execute("INSERT OR REPLACE INTO meta VALUES ('overtaken', 1)", [])?;
    }
    if let Some(count) = rows.folds_anew {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES ('folds_anew', ?1)")?
            .execute([signed(count)])?;
    }
    match rows.anew_due {
        Some(true) => {
            transaction.execute("INSERT OR REPLACE INTO meta VALUES ('anew_due', 1)", [])?;
        }
        Some(false) => {
            transaction.execute("DELETE FROM meta WHERE key = 'anew_due'", [])?;
        }
        None => {}
    }
    Ok(())
}
