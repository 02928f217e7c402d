//! Batches from before a snapshot: checked against what it said, and kept.

use super::Committer;
use crate::codec::{decode_batch, encode_batch};
use crate::engine::error::DeliverError;
use crate::engine::merger::MergeError;
use crate::keys::Chain;
use crate::store::{Base, Commit, StoreError, Sync};
use crate::types::{Batch, DeviceId};

impl Committer {
    /// Stores batches of the beginning of a journal. The last of them must be what the first batch of
    /// its end names, so that the journal is whole and nobody has changed it.
    pub(super) fn take_history(
        &mut self,
        journal: &DeviceId,
        batches: &[Vec<u8>],
    ) -> Result<(), DeliverError> {
        let Some(number) = self.merger.number(journal) else { return Ok(()) };
        let Some(base) = self.store.base(number)? else { return Ok(()) };
        let mut chain = self.history_so_far(number, journal, base)?;
        let mut commit = Commit::default();
        let mut left = Some(base);
        for bytes in batches {
            let batch = decoded(bytes, journal)?;
            let seq = batch.seq;
            let is_end = seq >= base.seq;
            chain.accept(&batch).map_err(|error| refused(journal, seq, error.to_string()))?;
            if is_end {
                let end = self.store.batch_with(number, base.seq)?;
                if end.as_ref() != Some(bytes) {
                    let why = "it is another batch than the snapshot told".to_owned();
                    return Err(refused(journal, seq, why).into());
                }
                left = None;
                break;
            }
            commit.load.older.push((number, seq, encode_batch(&batch)));
            left = Some(Base { upto: chain.next_seq() - 1, ..base });
        }
        commit.load.bases.push((number, left));
        Ok(self.writer.commit(&commit, Sync::Later)?)
    }

    /// The journal as far as its beginning is here.
    fn history_so_far(
        &self,
        number: u16,
        journal: &DeviceId,
        base: Base,
    ) -> Result<Chain, StoreError> {
        if base.upto == 0 {
            return Ok(Chain::new(*journal));
        }
        let lacking = || StoreError::Corrupt(format!("op {} of {journal} is not here", base.upto));
        let bytes = self.store.batch_with(number, base.upto)?.ok_or_else(lacking)?;
        Ok(Chain::after(&decode_batch(&bytes)?))
    }
}

fn decoded(bytes: &[u8], journal: &DeviceId) -> Result<Batch, MergeError> {
    decode_batch(bytes).map_err(|error| refused(journal, 0, error.to_string()))
}

fn refused(journal: &DeviceId, seq: u64, why: String) -> MergeError {
    MergeError::Refused { journal: *journal, seq, why }
}
