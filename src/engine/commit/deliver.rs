//! What peers have sent, committed by the same thread: batches through the merger, chunks, members.

use super::Committer;
use crate::chunk::Manifest;
use crate::engine::EngineError;
use crate::engine::error::DeliverError;
use crate::engine::handle::Delivery;
use crate::engine::journal::micros;
use crate::engine::merger::MergeError;
use crate::store::{Commit, StoreError, Sync, Wanted};
use crate::types::{ChunkId, DeviceId, Op, Role};

impl Committer {
    /// Takes in what a peer has sent. Durable when this returns, but for chunks, which are soon.
    pub(super) fn take_delivery(&mut self, delivery: Delivery) -> Result<(), DeliverError> {
        if let Some(why) = &self.latched {
            return Err(EngineError::Latched(why.clone()).into());
        }
        let result = match delivery {
            Delivery::Batches(batches) => {
                self.source.hold(true);
                let result = self.merge(&batches);
                self.source.hold(false);
                result
            }
            Delivery::Chunks(chunks) => self.take_chunks(&chunks),
            Delivery::Members(members) => self.admit(&members),
        };
        match &result {
            Ok(())
            | Err(
                DeliverError::Refused(MergeError::Refused { .. })
                | DeliverError::Engine(EngineError::Store(StoreError::Full { .. })),
            ) => {}
            Err(error) => {
                let why = format!("merging failed: {error}");
                self.source.latch(&why);
                self.latched = Some(why);
            }
        }
        result
    }

    /// One round of the merger, while no change is made here.
    fn merge(&mut self, batches: &[Vec<u8>]) -> Result<(), DeliverError> {
        self.commit_all(self.merger.is_shared())?;
        let now = self.env.clock.now();
        let round = self.merger.round(batches, now, micros(now))?;
        let (mut commit, view, known) = round.into_parts();
        let live_nodes = self.store.live_nodes()?.saturating_add_signed(view.live_nodes);
        commit.live_nodes = Some(live_nodes);
        // This device's own batches are in the store: folded anew after a power cut.
        let sync = if commit.batches.is_empty() { Sync::Later } else { Sync::Durable };
        self.writer.commit(&commit, sync)?;
        self.merger.advance(known);
        self.publish();
        if !view.is_empty() {
            self.source.merged(view);
        }
        Ok(())
    }

    /// Names chunks that were wanted and have come; nodes of manifests make what they name wanted.
    fn take_chunks(&mut self, chunks: &[ChunkId]) -> Result<(), DeliverError> {
        let mut commit = Commit::default();
        let mut grew = false;
        for id in chunks {
            let Some(wanted) = self.store.wanted(id)? else { continue };
            if wanted.is_node {
                let sealed = self.store.read_chunk(id)?;
                // What does not open stays as it is: reading the file tells.
                let named = Manifest::node_references(&wanted.chunk, &self.sealer, &sealed);
                for (chunk, is_node) in named.unwrap_or_default() {
                    if is_node || !self.store.has_chunk(&chunk.id)? {
                        let id = chunk.id;
                        grew = true;
                        commit.merged.wanted.push((id, Some(Wanted { chunk, is_node })));
                    }
                }
            }
            commit.merged.wanted.push((*id, None));
        }
        self.writer.commit(&commit, Sync::Later)?;
        if grew {
            self.published.set_named();
        }
        Ok(())
    }

    /// Makes devices members, or changes what they may do.
    fn admit(&mut self, members: &[(DeviceId, Role)]) -> Result<(), DeliverError> {
        for (device, role) in members {
            let journal = if let Some(number) = self.merger.number(device) {
                number
            } else {
                let number = self.merger.next_number();
                self.writer.add_journal(number, device)?;
                self.merger.add_journal(number, *device);
                number
            };
            self.source.emit(Op::Role { journal, role: *role });
        }
        self.commit_all(true)?;
        self.merge(&[])
    }

    /// Tells the other threads what is durable here.
    pub(super) fn publish(&self) {
        if self.merger.is_shared() {
            self.handle.set_shared();
        }
        self.published.set(self.merger.frontier(), self.merger.roles());
    }
}
