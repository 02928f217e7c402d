//! This device's journal: ops become signed, sealed batches.

use std::sync::Arc;

use super::pending::TakenOps;
use crate::chunk::Sealer;
use crate::codec::encode_ops;
use crate::env::Clock;
use crate::keys::{Chain, DeviceKey};
use crate::store::Commit;
use crate::types::limits::{BATCH_BYTES_MAX, BATCH_OPS_MAX};
use crate::types::{AttrChange, Content, DeviceId, Hlc, Op, PatchData, Timestamp};

/// What an op takes beside its strings of bytes, generously.
const OP_OVERHEAD_BYTES: usize = 96;
const CHUNK_REF_BYTES: usize = 72;
const WRAPPED_BYTES: usize = 83;
const DEVICE_BYTES: usize = 32;

/// Appends to this device's journal.
pub struct JournalWriter {
    key: DeviceKey,
    number: u16,
    chain: Chain,
    /// The chain with what the commit under way has appended.
    ahead: Option<Chain>,
    clock: Arc<dyn Clock>,
}

/// What an author has heard, as its next batch is to say.
pub struct HeardSoFar<'a> {
    /// Whose the journals are that ops name by their local numbers.
    pub device: &'a dyn Fn(u16) -> DeviceId,
    /// How much of other journals, where that grew since the last batch.
    pub frontier_delta: Vec<(DeviceId, u64)>,
    /// The greatest clock of them all.
    pub clock: Hlc,
}

impl JournalWriter {
    /// Goes on where `chain` ends.
    pub fn new(key: DeviceKey, number: u16, chain: Chain, clock: Arc<dyn Clock>) -> Self {
        Self { key, number, chain, ahead: None, clock }
    }

    /// Lays the batches of these ops into a commit; returns the first op's clock.
    ///
    /// Called again before [`JournalWriter::advance`], it starts from the same place: so a commit
    /// that found the disk full can be made anew.
    ///
    /// # Panics
    /// If the ops are not numbered as the journal goes on.
    pub fn append(
        &mut self,
        taken: &TakenOps,
        writes: &[Op],
        heard: &HeardSoFar<'_>,
        sealer: &Sealer,
        commit: &mut Commit,
    ) -> Hlc {
        let mut chain = self.chain.clone();
        assert_eq!(taken.first_seq, chain.next_seq(), "ops are numbered as the journal goes on");
        let now_us = micros(self.clock.now());
        let mut delta = heard.frontier_delta.clone();
        let first = chain.hlc().max(heard.clock).next(now_us);
        let ops: Vec<&Op> = taken.ops.iter().chain(writes).collect();
        let mut rest = ops.as_slice();
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(batch_len(rest));
            let hlc = chain.hlc().max(heard.clock).next(now_us);
            let ops: Vec<Op> = batch.iter().map(|op| (*op).clone()).collect();
            let device = self.key.device();
            let plain = encode_ops(&ops, heard.device);
            let (epoch, sealed_ops) =
                sealer.seal_record(&context(&device, chain.next_seq()), &plain);
            let count = u32::try_from(batch.len()).expect("a batch is bounded");
            let (seq, bytes) =
                chain.append(&self.key, hlc, count, epoch, std::mem::take(&mut delta), sealed_ops);
            commit.batches.push((self.number, seq, bytes));
            rest = later;
        }
        self.ahead = Some(chain);
        first
    }

    /// The commit is in the store. Returns the chain as it is now.
    pub fn advance(&mut self) -> &Chain {
        if let Some(chain) = self.ahead.take() {
            self.chain = chain;
        }
        &self.chain
    }

    /// The number of the next op.
    pub fn next_seq(&self) -> u64 {
        self.chain.next_seq()
    }
}

/// What a batch's sealed ops are bound to.
pub fn context(device: &DeviceId, seq: u64) -> Vec<u8> {
    [&device.0[..], &seq.to_le_bytes()].concat()
}

/// Microseconds since 1970.
pub fn micros(now: Timestamp) -> u64 {
    u64::try_from(now.secs).unwrap_or(0) * 1_000_000 + u64::from(now.nanos / 1000)
}

/// How many of the ops make the next batch: at least one.
fn batch_len(ops: &[&Op]) -> usize {
    let mut bytes = 0;
    for (index, op) in ops.iter().enumerate().take(BATCH_OPS_MAX) {
        bytes += op_bytes(op);
        if bytes > BATCH_BYTES_MAX {
            return index.max(1);
        }
    }
    ops.len().min(BATCH_OPS_MAX)
}

fn op_bytes(op: &Op) -> usize {
    OP_OVERHEAD_BYTES
        + match op {
            Op::Write { content: Content::Inline(bytes), .. } => bytes.len(),
            Op::Write { content: Content::Patch { extents, .. }, .. } => extents
                .iter()
                .map(|extent| match &extent.data {
                    PatchData::Bytes(bytes) => bytes.len() + 16,
                    PatchData::Zero(_) => 16,
                })
                .sum(),
            Op::Write { .. } => CHUNK_REF_BYTES,
            Op::Make { name, kind: crate::types::Kind::Symlink(target), .. } => {
                name.as_bytes().len() + target.len()
            }
            Op::Make { name, .. } | Op::Link { name, .. } | Op::Place { name, .. } => {
                name.as_bytes().len()
            }
            Op::Attr { change: AttrChange::Xattr(key, value), .. } => {
                key.len() + value.as_ref().map_or(0, Vec::len)
            }
            Op::Found { settings, .. } => settings.name.len(),
            Op::Epoch { wrapped, .. } => wrapped.len() * (WRAPPED_BYTES + DEVICE_BYTES),
            Op::Attr { .. } | Op::Unlink { .. } | Op::Ack | Op::Role { .. } | Op::Cut { .. } => 0,
        }
}
