//! A journal's chain: each batch names the one before it, so none can be changed or left out.

use super::{DeviceKey, is_signed_by};
use crate::codec::{batch_hash, encode_batch, encode_unsigned_batch};
use crate::types::{Batch, BatchHash, DeviceId, Hlc};

/// How far a journal has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    device: DeviceId,
    next_seq: u64,
    previous: BatchHash,
    hlc: Hlc,
}

/// Why a batch does not follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChainError {
    /// It is another device's.
    #[error("the batch belongs to another journal")]
    Journal,
    /// Batches between are missing, or it came before.
    #[error("the batch has op {found}, where op {expected} follows")]
    Seq {
        /// The number that follows.
        expected: u64,
        /// The batch's.
        found: u64,
    },
    /// It names another batch as the one before it: a fork, or a changed batch.
    #[error("the batch does not name the one before it")]
    Previous,
    /// Its clock goes back.
    #[error("the batch's clock goes back")]
    Clock,
    /// Its signature is not the device's.
    #[error("the batch's signature is wrong")]
    Signature,
}

impl Chain {
    /// A journal with nothing in it.
    pub fn new(device: DeviceId) -> Self {
        Self { device, next_seq: 1, previous: [0; 32], hlc: Hlc::default() }
    }

    /// A journal that ends with this batch, which was checked when it was taken in.
    pub fn after(batch: &Batch) -> Self {
        let mut chain = Self::new(batch.journal);
        chain.advance(batch);
        chain
    }

    /// Whose journal it is.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// A journal that goes on with this batch, whatever came before it.
    pub fn before(batch: &Batch) -> Self {
        let mut chain = Self::new(batch.journal);
        (chain.next_seq, chain.previous) = (batch.seq, batch.previous);
        chain
    }

    /// The number of the next op.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The hash of the last batch; zeros if there is none.
    pub fn last_hash(&self) -> BatchHash {
        self.previous
    }

    /// The clock of the last op.
    pub fn hlc(&self) -> Hlc {
        self.hlc
    }

    /// Makes the next batch of this device's own journal, and moves behind it. Returns it encoded.
    pub fn append(
        &mut self,
        key: &DeviceKey,
        hlc: Hlc,
        count: u32,
        epoch: u32,
        frontier_delta: Vec<(DeviceId, u64)>,
        sealed_ops: Vec<u8>,
    ) -> (u64, Vec<u8>) {
        let mut batch = Batch {
            journal: self.device,
            seq: self.next_seq,
            count,
            hlc,
            epoch,
            previous: self.previous,
            frontier_delta,
            sealed_ops,
            signature: [0; 64],
        };
        batch.signature = key.sign(&encode_unsigned_batch(&batch));
        self.advance(&batch);
        (batch.seq, encode_batch(&batch))
    }

    /// Moves behind `batch` if it is what follows and is signed.
    ///
    /// # Errors
    /// [`ChainError`] says why not; the chain is then as before.
    pub fn accept(&mut self, batch: &Batch) -> Result<(), ChainError> {
        if batch.journal != self.device {
            return Err(ChainError::Journal);
        }
        if batch.seq != self.next_seq {
            return Err(ChainError::Seq { expected: self.next_seq, found: batch.seq });
        }
        if batch.previous != self.previous {
            return Err(ChainError::Previous);
        }
        if batch.hlc <= self.hlc {
            return Err(ChainError::Clock);
        }
        if !is_signed_by(&batch.journal, &encode_unsigned_batch(batch), &batch.signature) {
            return Err(ChainError::Signature);
        }
        self.advance(batch);
        Ok(())
    }

    /// Does this batch, which does not follow, show that the journal has two branches: is it signed by
    /// the journal's device?
    pub fn is_forked_by(&self, batch: &Batch) -> bool {
        batch.journal == self.device
            && is_signed_by(&batch.journal, &encode_unsigned_batch(batch), &batch.signature)
    }

    fn advance(&mut self, batch: &Batch) {
        self.next_seq = batch.seq + u64::from(batch.count);
        self.previous = batch_hash(&encode_batch(batch));
        self.hlc = Hlc(batch.hlc.0 + u64::from(batch.count) - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_batch;

    #[test]
    fn a_chain_takes_its_own_batches_in_order_and_nothing_else() {
        let key = DeviceKey::from_seed(&[1; 32]);
        let mut writer = Chain::new(key.device());
        let batches: Vec<Batch> = (0..3)
            .map(|n| {
                let (_, bytes) =
                    writer.append(&key, Hlc(1000 * (n + 1)), 2, 0, Vec::new(), vec![7; 10]);
                decode_batch(&bytes).expect("decodes")
            })
            .collect();
        let mut reader = Chain::new(key.device());
        reader.accept(&batches[0]).expect("follows");
        assert_eq!(reader.accept(&batches[0]), Err(ChainError::Seq { expected: 3, found: 1 }));
        assert_eq!(reader.accept(&batches[2]), Err(ChainError::Seq { expected: 3, found: 5 }));
        let forged = Batch { sealed_ops: vec![8; 10], ..batches[1].clone() };
        assert_eq!(reader.accept(&forged), Err(ChainError::Signature));
        let forked = Batch { previous: [9; 32], ..batches[1].clone() };
        assert_eq!(reader.accept(&forked), Err(ChainError::Previous));
        let back = Batch { hlc: Hlc(1), ..batches[1].clone() };
        assert_eq!(reader.accept(&back), Err(ChainError::Clock));
        reader.accept(&batches[1]).expect("follows");
        reader.accept(&batches[2]).expect("follows");
        assert_eq!(reader, Chain::after(&batches[2]));
        assert_eq!(reader.next_seq(), 7);
    }
}
