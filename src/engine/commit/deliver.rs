//! What peers have sent, committed by the same thread: batches through the merger, chunks, members.

use std::collections::HashMap;
use std::sync::Arc;

use super::Committer;
use crate::chunk::Manifest;
use crate::engine::EngineError;
use crate::engine::error::DeliverError;
use crate::engine::handle::{Delivery, MemberAsk};
use crate::engine::journal::micros;
use crate::engine::merger::MergeError;
use crate::store::{Commit, StoreError, Sync, Wanted};
use crate::types::{AttrChange, ChunkId, EpochSecret, FileId, Op};

/// A row of what is wanted: to be put, or removed.
type WantedRow = (ChunkId, Option<Wanted>);

impl Committer {
    /// Takes in what a peer has sent. Durable when this returns, but for chunks, which are soon.
    pub(super) fn take_delivery(&mut self, delivery: Delivery) -> Result<(), DeliverError> {
        self.unless_latched(|this| match delivery {
            // Its journal goes on elsewhere: nothing is added to it here.
            Delivery::Members(_) | Delivery::NewEpoch if this.is_overtaken => Ok(()),
            Delivery::Batches(batches, chunks) => {
                this.held(|this| this.merge(&batches, chunks.into_iter().collect()))
            }
            Delivery::Members(asked) => this.held(|this| this.say_of_members(&asked)),
            Delivery::NewEpoch => this.held(Self::begin_epoch),
            Delivery::Epochs(told) => this.held(|this| this.learn_epochs(&told)),
            Delivery::Overtaken => this.held(Self::set_overtaken),
            Delivery::History(journal, batches) => this.take_history(&journal, &batches),
            Delivery::Page(rows, is_last) => this.take_page(*rows, is_last),
            Delivery::Company(is_ready) => this.expect_company(&is_ready),
            Delivery::Pin(slot) => this.pin(&slot),
        })
    }

    /// Notes chunks that were wanted and have been appended.
    pub(super) fn take_chunks(&mut self, chunks: &[ChunkId]) -> Result<(), DeliverError> {
        self.unless_latched(|this| this.name_chunks(chunks))
    }

    /// Changes wait meanwhile.
    fn held(
        &mut self,
        take: impl FnOnce(&mut Self) -> Result<(), DeliverError>,
    ) -> Result<(), DeliverError> {
        self.source.hold(true);
        let taken = take(self);
        let result = match taken {
            Ok(()) if self.merger.wants_epoch() => self.begin_epoch(),
            other => other,
        };
        self.source.hold(false);
        result
    }

    fn unless_latched<R>(
        &mut self,
        take: impl FnOnce(&mut Self) -> Result<R, DeliverError>,
    ) -> Result<R, DeliverError> {
        if let Some(why) = &self.latched {
            return Err(EngineError::Latched(why.clone()).into());
        }
        let result = take(self);
        match &result {
            Ok(_)
            | Err(
                DeliverError::Refused(MergeError::Refused { .. })
                | DeliverError::Engine(
                    EngineError::Store(StoreError::Full { .. }) | EngineError::Snapshot(_),
                ),
            ) => {}
            Err(error) => {
                let why = format!("merging failed: {error}");
                self.source.latch(&why);
                self.latched = Some(why);
            }
        }
        result
    }

    /// Folds this device's own batches. What is shown hardly ever changes by that, so changes go on
    /// meanwhile; where it does, the round is made anew while they wait.
    pub(super) fn fold_own(&mut self) -> Result<(), DeliverError> {
        let now = self.env.clock.now();
        let is_shown = self.unless_latched(|this| {
            let reads = this.store.hold_reads()?;
            let round = this.merger.round(&[], now, micros(now))?;
            drop(reads);
            if !round.view.is_empty() {
                return Ok(false);
            }
            this.forked.extend(&round.view.conflicted);
            let (commit, _, known) = round.into_parts();
            // The batches are in the store: folded anew after a power cut.
            this.writer.commit(&commit, Sync::Later)?;
            this.merger.advance(known);
            this.publish();
            Ok(true)
        })?;
        if is_shown {
            Ok(())
        } else {
            self.take_delivery(Delivery::Batches(Vec::new(), Vec::new()))
        }
    }

    /// One round of the merger, while no change is made here.
    pub(super) fn merge(
        &mut self,
        batches: &[Vec<u8>],
        carried: HashMap<ChunkId, Vec<u8>>,
    ) -> Result<(), DeliverError> {
        self.commit_all(self.merger.is_shared())?;
        let now = self.env.clock.now();
        let reads = self.store.hold_reads()?;
        let round = self.merger.round(batches, now, micros(now))?;
        let (mut commit, view, known) = round.into_parts();
        self.take_carried(&mut commit.merged.wanted, carried)?;
        let live_nodes = self.store.live_nodes()?.saturating_add_signed(view.live_nodes);
        commit.live_nodes = Some(live_nodes);
        drop(reads);
        // This device's own batches are in the store: folded anew after a power cut.
        let sync = if commit.batches.is_empty() { Sync::Later } else { Sync::Durable };
        self.writer.commit(&commit, sync)?;
        self.merger.advance(known);
        self.publish();
        self.forked.extend(&view.conflicted);
        if !view.is_empty() {
            self.source.merged(view);
        }
        Ok(())
    }

    /// Of what batches make wanted, stores what came along with them; what nothing wants is dropped.
    fn take_carried(
        &self,
        rows: &mut Vec<WantedRow>,
        mut carried: HashMap<ChunkId, Vec<u8>>,
    ) -> Result<(), StoreError> {
        let mut index = 0;
        while let Some((id, wanted)) = rows.get(index).cloned() {
            index += 1;
            let Some(wanted) = wanted else { continue };
            let is_here = match carried.remove(&id) {
                Some(sealed) => self.store.append(&id, &sealed).map(|_| true)?,
                // A node that is here already has told nobody yet what it names.
                None => wanted.is_node && self.store.has_chunk(&id)?,
            };
            if is_here {
                rows[index - 1].1 = None;
                self.want_named(&wanted, rows)?;
            }
        }
        Ok(())
    }

    /// Names chunks that were wanted and have come; nodes of manifests make what they name wanted.
    fn name_chunks(&mut self, chunks: &[ChunkId]) -> Result<(), DeliverError> {
        let mut commit = Commit::default();
        let rows = &mut commit.merged.wanted;
        let mut has_grown = false;
        let reads = self.store.hold_reads()?;
        for id in chunks {
            let Some(wanted) = self.store.wanted(id)? else { continue };
            has_grown |= self.want_named(&wanted, rows)?;
            rows.push((*id, None));
        }
        drop(reads);
        self.writer.commit(&commit, Sync::Later)?;
        if has_grown {
            self.published.set_named();
        }
        Ok(())
    }

    /// Adds what a node that is here names and that is not; is there any?
    fn want_named(&self, node: &Wanted, rows: &mut Vec<WantedRow>) -> Result<bool, StoreError> {
        if !node.is_node {
            return Ok(false);
        }
        let sealed = self.store.read_chunk(&node.chunk.id)?;
        // What does not open stays as it is: reading the file tells.
        let named = Manifest::node_references(&node.chunk, &self.sealer, &sealed);
        let before = rows.len();
        for (chunk, is_node) in named.unwrap_or_default() {
            if is_node || !self.store.has_chunk(&chunk.id)? {
                rows.push((chunk.id, Some(Wanted { chunk, is_node })));
            }
        }
        Ok(rows.len() > before)
    }

    /// Begins another epoch: what is sealed from now on opens to those alone who are members now.
    fn begin_epoch(&mut self) -> Result<(), DeliverError> {
        if self.is_overtaken || !self.merger.may_begin_epoch() {
            return Ok(());
        }
        self.commit_all(true)?;
        let random = Arc::clone(&self.env.random);
        let op = self.merger.next_epoch(|| {
            let mut drawn = [0; 32];
            random.fill(&mut drawn);
            drawn
        });
        self.source.emit(op);
        self.commit_all(true)?;
        self.merge(&[], HashMap::new())
    }

    /// Keeps secrets of epochs that a member has told.
    fn learn_epochs(&mut self, told: &[EpochSecret]) -> Result<(), DeliverError> {
        let mut commit = Commit::default();
        let epochs = self.merger.epochs().clone();
        for told in told {
            let mut drawn = [0; 32];
            self.env.random.fill(&mut drawn);
            let wrapped = epochs.told(told, &drawn);
            commit.merged.epochs.extend(wrapped.map(|wrapped| (told.epoch, wrapped)));
        }
        if !commit.merged.epochs.is_empty() {
            self.writer.commit(&commit, Sync::Durable)?;
            self.merger.enter_best_epoch();
        }
        Ok(())
    }

    /// Notes that this device's journal goes on elsewhere: it is not continued here, ever.
    fn set_overtaken(&mut self) -> Result<(), DeliverError> {
        self.commit_all(true)?;
        let mut commit = Commit::default();
        commit.merged.is_overtaken = true;
        self.writer.commit(&commit, Sync::Durable)?;
        self.is_overtaken = true;
        self.publish();
        Ok(())
    }

    /// Says who is a member and may do what, and folds it: durable when this returns.
    fn say_of_members(&mut self, asked: &[MemberAsk]) -> Result<(), DeliverError> {
        // What was done before is signed before.
        self.commit_all(true)?;
        for ask in asked {
            match ask {
                MemberAsk::Role(device, role, name) => {
                    let journal = if let Some(number) = self.merger.number(device) {
                        number
                    } else {
                        let number = self.merger.next_number();
                        self.writer.add_journal(number, device)?;
                        self.merger.add_journal(number, *device);
                        number
                    };
                    self.source.emit(Op::Role { journal, role: *role });
                    if let Some(name) = name {
                        let change = AttrChange::name_device(device, name);
                        self.source.emit(Op::Attr { file: FileId::ROOT, change });
                    }
                }
                MemberAsk::Cut(device) => {
                    if let Some((last, hash)) = self.merger.heard_of(device) {
                        self.source.emit(Op::Cut { last, hash });
                    }
                }
            }
        }
        self.commit_all(true)?;
        self.merge(&[], HashMap::new())
    }

    /// Tells the other threads what is durable here.
    pub(super) fn publish(&self) {
        if self.merger.is_shared() {
            self.handle.set_shared();
        }
        let (mut roles, revoked) = (self.merger.roles(), self.merger.revoked());
        if self.is_overtaken {
            roles.retain(|(device, _)| *device != self.merger.own_device());
        }
        self.published.set_epochs(self.merger.epoch_ids());
        self.published.set_late(self.merger.late(), micros(self.env.clock.now()));
        self.published.set(self.merger.held(), roles, revoked, self.is_overtaken);
    }
}
