//! A round under way: batches are verified, judged and folded, and what that changes is noted.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::journal::context;
use super::late::Foreign;
use super::records::{Failing, Kept};
use super::view::{self, ViewChange};
use super::{Known, MergeError, Merger, Round};
use crate::codec::{decode_batch, decode_ops, encode_batch};
use crate::keys::{Chain, ChainError};
use crate::merge::{
    Delivered, Made, State, Verdict, bring_up, fold, is_well_formed, judge, pass_over,
};
use crate::store::{Commit, Wanted};
use crate::types::limits::{BATCH_BYTES_HARD_MAX, CLOCK_AHEAD_US_MAX};
use crate::types::merged::{Key, MemberChange, MemberOp, Move, Stamp};
use crate::types::{
    Batch, DeviceId, EntryId, EpochId, FileId, Hlc, Name, Op, OpId, Timestamp, VersionId,
    VersionRecord,
};

/// The ops of a batch, each with its id and its place in the order.
pub(super) type Taken = Vec<(OpId, Key, Op)>;

/// Ops of this device that one round folds at most, as long as no other device's are folded: a
/// workspace that was never shared may have any number.
const OWN_OPS_MAX: u64 = 16_384;

pub(super) struct Folding<'a> {
    pub(super) merger: &'a Merger,
    pub(super) known: Known,
    pub(super) state: State<Kept>,
    pub(super) commit: Commit,
    /// Made by the ops of this round.
    pub(super) makes: HashMap<FileId, Op>,
    voids: HashMap<OpId, u8>,
    /// Other Cuts stand than before: what was folded may be void, and what was void may stand.
    pub(super) is_anew: bool,
    /// Where in the commit the versions of this round stand.
    pub(super) versions: HashMap<VersionId, usize>,
    /// Where this device's own ops, folded only now, have left what they touched: there it is
    /// shown until now.
    pub(super) shown: Vec<(FileId, Name)>,
    /// Some of this device's own ops are left for the next round. What is shown is ahead of what is
    /// folded, then, and stays as it is: nothing that is folded so far is another device's.
    pub(super) is_partial: bool,
}

impl<'a> Folding<'a> {
    /// Over what `merger` keeps.
    pub(super) fn new(merger: &'a Merger) -> Result<Self, MergeError> {
        Ok(Self {
            merger,
            known: merger.known.clone(),
            state: kept(merger)?,
            commit: Commit::default(),
            makes: HashMap::new(),
            voids: HashMap::new(),
            is_anew: false,
            versions: HashMap::new(),
            shown: Vec::new(),
            is_partial: false,
        })
    }

    /// Forgets what was folded in this round, but not which batches have come.
    pub(super) fn start_again(&mut self) -> Result<(), MergeError> {
        self.state = kept(self.merger)?;
        self.makes.clear();
        self.versions.clear();
        self.commit.versions_put.clear();
        self.commit.merged.wanted.clear();
        Ok(())
    }

    pub(super) fn set_voids(&mut self, voids: HashMap<OpId, u8>) {
        self.voids = voids;
    }

    /// Folds own batches that were committed since the last round.
    pub(super) fn own(&mut self) -> Result<(), MergeError> {
        let own = self.merger.own;
        let first = self.known.folded.get(&own).copied().unwrap_or(0);
        let last = self.known.chains.get(&own).map_or(0, |chain| chain.next_seq() - 1);
        let is_alone = self.known.folded.keys().all(|journal| *journal == own);
        let mut done = first;
        while done < last && !(is_alone && done - first >= OWN_OPS_MAX) {
            let page = self.merger.store.batches(own, done + 1, 64)?;
            if page.is_empty() {
                let why = format!("the batch with op {} of this device is not here", done + 1);
                return Err(crate::store::StoreError::Corrupt(why).into());
            }
            for (_, bytes) in page {
                let batch = decode_batch(&bytes).map_err(crate::store::StoreError::from)?;
                done = batch.seq + u64::from(batch.count) - 1;
                let ops = self.ops_of(&batch)?;
                self.fold_batch(own, &batch, ops)?;
            }
        }
        self.is_partial = done < last;
        Ok(())
    }

    /// Was this made by another device, in a batch that no round before has folded? Then nothing of
    /// it stands in the store.
    pub(super) fn is_foreign_news(&self, op: OpId) -> bool {
        let folded = self.merger.known.folded.get(&op.journal());
        op.journal() != self.merger.own && folded.is_none_or(|last| op.seq() > *last)
    }

    pub(super) fn note_shown(&mut self) {
        let entries = self.state.changed().entries.values().flatten();
        let places = entries.filter_map(|entry| entry.place.as_ref());
        self.shown = places.map(|place| (place.parent, place.name.clone())).collect();
    }

    /// Has every name of a file with several heads looked at again.
    pub(super) fn relist(&mut self) -> Result<(), MergeError> {
        for (_, inode) in self.merger.store.conflicted()? {
            for id in &inode.entries {
                let place = self.state.entry(*id)?.and_then(|entry| entry.place);
                self.shown.extend(place.map(|place| (place.parent, place.name)));
            }
        }
        self.commit.merged.conflicts = Some(self.merger.conflicts);
        Ok(())
    }

    pub(super) fn arrived(&mut self, batches: &[Vec<u8>], now_us: u64) -> Result<(), MergeError> {
        let mut waiting: Vec<Batch> = Vec::with_capacity(batches.len());
        for bytes in batches {
            let batch = decode_batch(bytes).map_err(|error| MergeError::Refused {
                journal: DeviceId([0; 32]),
                seq: 0,
                why: error.to_string(),
            })?;
            waiting.push(batch);
        }
        // Causes first: a batch may wait for one of another journal that stands behind it.
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut later = Vec::new();
            for batch in waiting {
                if !self.take(&batch, now_us)? {
                    later.push(batch);
                }
            }
            if later.len() == before {
                break;
            }
            waiting = later;
        }
        Ok(())
    }

    /// Takes in one batch; false if its past is not here yet.
    fn take(&mut self, batch: &Batch, now_us: u64) -> Result<bool, MergeError> {
        let refused =
            |why: String| MergeError::Refused { journal: batch.journal, seq: batch.seq, why };
        let Some(number) = self.known.numbers.get(&batch.journal).copied() else {
            return Ok(false);
        };
        let chain = self.known.chains.get(&number).expect("each journal has a chain");
        if batch.seq < chain.next_seq() {
            return if number == self.merger.own || self.is_here(number, batch)? {
                Ok(true)
            } else if chain.is_forked_by(batch) {
                self.note_fork(number, batch);
                Ok(true)
            } else {
                Err(refused(
                    "another batch with this number is here, and this is not signed".into(),
                ))
            };
        }
        if number == self.merger.own {
            // It is for replication to find out that this journal goes on elsewhere.
            return Ok(true);
        }
        if batch.seq > chain.next_seq() || batch.hlc.0 > now_us.saturating_add(CLOCK_AHEAD_US_MAX) {
            return Ok(false);
        }
        for (device, seq) in &batch.frontier_delta {
            let Some(of) = self.known.numbers.get(device) else { return Ok(false) };
            if *seq >= self.known.chains[of].next_seq() {
                return Ok(false);
            }
            // Its clock is not known before the beginning of that journal is here.
            if self.is_before_here(*of, *seq)? {
                return Ok(false);
            }
            if *seq > 0 && self.hlc_of(*of, *seq)?.is_none_or(|heard| heard >= batch.hlc) {
                return Err(refused("its clock is not above what its author had heard".into()));
            }
        }
        let mut next = chain.clone();
        match next.accept(batch) {
            Err(ChainError::Previous) if next.is_forked_by(batch) => {
                self.note_fork(number, batch);
                return Ok(true);
            }
            other => other.map_err(|error| refused(error.to_string()))?,
        }
        let ops = match self.ops_of(batch) {
            Err(error) if batch.epoch > 0 => {
                // Its epoch's secret may still come.
                tracing::debug!("a batch of epoch {} waits: {error}", batch.epoch);
                return Ok(false);
            }
            other => other?,
        };
        self.known.chains.insert(number, next);
        self.fold_batch(number, batch, ops)?;
        self.commit.batches.push((number, batch.seq, encode_batch(batch)));
        Ok(true)
    }

    /// Is this op in that part of a journal which a snapshot stood for, and which is not here yet?
    fn is_before_here(&self, number: u16, seq: u64) -> Result<bool, MergeError> {
        let base = self.merger.store.base(number)?;
        Ok(base.is_some_and(|base| (base.upto + 1..base.seq).contains(&seq)))
    }

    /// A journal's device has signed a batch beside those that are here. Whoever brings it is not to
    /// blame. What is here stays; both are kept, and shown.
    fn note_fork(&mut self, number: u16, other: &Batch) {
        tracing::warn!("the journal of {} is forked at or before op {}", other.journal, other.seq);
        self.commit.merged.forks.push((number, other.seq, encode_batch(other)));
    }

    fn is_here(&self, number: u16, batch: &Batch) -> Result<bool, MergeError> {
        if self.is_before_here(number, batch.seq)? {
            return Ok(true);
        }
        let bytes = self.merger.store.batch_with(number, batch.seq)?;
        let pending = self
            .commit
            .batches
            .iter()
            .find(|(journal, seq, _)| *journal == number && *seq == batch.seq);
        let here = pending.map(|(_, _, bytes)| bytes.clone()).or(bytes);
        Ok(here.is_some_and(|bytes| bytes == encode_batch(batch)))
    }

    /// The clock of an op that is here.
    fn hlc_of(&self, journal: u16, seq: u64) -> Result<Option<Hlc>, MergeError> {
        let fresh = self.commit.batches.iter().rev();
        let fresh = fresh.filter(|(number, first, _)| *number == journal && *first <= seq);
        let bytes = match fresh.map(|(_, _, bytes)| bytes.clone()).next() {
            Some(bytes) => Some(bytes),
            None => self.merger.store.batch_with(journal, seq)?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let batch = decode_batch(&bytes).map_err(crate::store::StoreError::from)?;
        Ok(Some(Hlc(batch.hlc.0 + (seq - batch.seq))))
    }

    fn fold_batch(&mut self, number: u16, batch: &Batch, ops: Vec<Op>) -> Result<(), MergeError> {
        let mut frontier = self.known.heard.get(&number).cloned().unwrap_or_default();
        for (device, seq) in &batch.frontier_delta {
            if let Some(of) = self.known.numbers.get(device) {
                frontier.insert(*of, *seq);
                self.commit.merged.heard.push((number, *of, *seq));
            }
        }
        self.known.heard.insert(number, frontier.clone());
        for (index, op) in ops.into_iter().enumerate() {
            let offset = index as u64;
            let id = OpId::new(number, batch.seq + offset);
            let key = Key { hlc: Hlc(batch.hlc.0 + offset), device: batch.journal };
            self.fold_op(&Stamp { id, key, frontier: &frontier }, op)?;
        }
        let last = batch.seq + u64::from(batch.count) - 1;
        self.known.folded.insert(number, last);
        self.commit.merged.folded.push((number, last));
        Ok(())
    }

    /// A batch's ops, opened and in local form.
    pub(super) fn ops_of(&mut self, batch: &Batch) -> Result<Vec<Op>, MergeError> {
        let refused =
            |why: String| MergeError::Refused { journal: batch.journal, seq: batch.seq, why };
        let context = context(&batch.journal, batch.seq);
        let sealer = &self.merger.sealer;
        let plain = sealer
            .open_record(&context, (batch.epoch, &batch.sealed_ops), BATCH_BYTES_HARD_MAX)
            .map_err(|error| refused(error.to_string()))?;
        let ops = self.decode(&plain).map_err(|error| refused(error.to_string()))?;
        if ops.len() != batch.count as usize {
            return Err(refused(format!("it says {} ops and holds {}", batch.count, ops.len())));
        }
        Ok(ops)
    }

    /// Ops in local form. A device that a `Role` names for the first time gets a journal here.
    fn decode(&mut self, plain: &[u8]) -> Result<Vec<Op>, crate::codec::CodecError> {
        let fresh = std::cell::RefCell::new(Vec::new());
        let known = &self.known.numbers;
        let first = self.known.devices.len();
        let ops = decode_ops(plain, |device| {
            known.get(device).copied().or_else(|| {
                let mut fresh = fresh.borrow_mut();
                let index = fresh.iter().position(|new| new == device).unwrap_or_else(|| {
                    fresh.push(*device);
                    fresh.len() - 1
                });
                u16::try_from(first + index).ok()
            })
        })?;
        for device in fresh.into_inner() {
            self.add_journal(device);
        }
        Ok(ops)
    }

    fn add_journal(&mut self, device: DeviceId) {
        let number = u16::try_from(self.known.devices.len()).expect("decode has checked");
        self.known.devices.push(device);
        self.known.numbers.insert(device, number);
        self.known.chains.insert(number, Chain::new(device));
        self.commit.merged.journals.push((number, device));
    }

    fn fold_op(&mut self, stamp: &Stamp<'_>, op: Op) -> Result<(), MergeError> {
        let body = match &op {
            Op::Role { journal, role } => Some(MemberChange::Role(*journal, *role)),
            Op::Cut { last, .. } => Some(MemberChange::Cut(*last)),
            Op::Epoch { number, wrapped } => {
                let own = wrapped.iter().find(|(journal, _)| *journal == self.merger.own);
                let (author, seq) = (stamp.key.device, stamp.id.seq());
                let epoch = EpochId { number: *number, author, seq };
                // Void or not: somebody may have sealed under it.
                if let Some((_, wrapped)) = own.filter(|own| self.merger.epochs.open(epoch, &own.1))
                {
                    self.commit.merged.epochs.push((epoch, *wrapped));
                }
                Some(MemberChange::Epoch(*number))
            }
            _ => None,
        };
        let heard = Heard { folding: self, failing: Failing::default() };
        let is_well_formed = body.is_some() && is_well_formed(&heard, stamp, &op);
        heard.failing.into_result()?;
        if let Some(body) = body.filter(|_| is_well_formed) {
            let (id, key, frontier) = (stamp.id, stamp.key, stamp.frontier.clone());
            let member = MemberOp { id, key, frontier, body };
            self.known.member_ops.push(member.clone());
            self.known.members = self.known.members.refolded(&self.known.member_ops);
            self.commit.merged.members.push(member);
        }
        let heard = Heard { folding: self, failing: Failing::default() };
        let verdict = judge(&self.known.members, &heard, stamp, &op);
        heard.failing.into_result()?;
        if verdict != Verdict::Stands {
            tracing::warn!("op {:?} does not count: {verdict:?}", stamp.id);
            let made = Made::by(&op).map_or(0, made_bits);
            self.voids.insert(stamp.id, made);
            self.commit.merged.voids.push((stamp.id, Some(made)));
            pass_over(&mut self.state);
            return Ok(());
        }
        fold(&mut self.state, stamp, &op)?;
        self.keep(stamp, op)
    }

    /// Notes what the view needs beside the merge's own records.
    pub(super) fn keep(&mut self, stamp: &Stamp<'_>, op: Op) -> Result<(), MergeError> {
        match op {
            Op::Make { .. } => drop(self.makes.insert(FileId(stamp.id), op)),
            Op::Write { file, parents, size_bytes, content, mtime, interim } => {
                let (own, id) = (self.merger.own, VersionId(stamp.id));
                let is_own = stamp.id.journal() == own;
                let may_be_kept = is_own || self.is_anew;
                if may_be_kept && self.merger.store.version(file, id)?.is_some() {
                    return Ok(());
                }
                if !is_own {
                    let (parents, content) = (parents.as_slice(), &content);
                    let foreign = Foreign { file, id, parents, size_bytes, content, interim };
                    self.want_content(&foreign)?;
                }
                let hlc = stamp.key.hlc;
                let record = VersionRecord { hlc, size_bytes, mtime, content, interim };
                self.versions.insert(id, self.commit.versions_put.len());
                self.commit.versions_put.push((file, id, record));
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes a chunk that is to be fetched, or a node that may name some.
    pub(super) fn want(
        &mut self,
        chunk: &crate::types::ChunkRef,
        is_node: bool,
    ) -> Result<(), MergeError> {
        if is_node {
            self.commit.merged.passed.push((chunk.id, false));
        }
        if is_node || !self.merger.store.has_chunk(&chunk.id)? {
            let wanted = Wanted { chunk: chunk.clone(), is_node };
            self.commit.merged.wanted.push((chunk.id, Some(wanted)));
        }
        Ok(())
    }

    pub(super) fn finish(mut self, now: Timestamp) -> Result<Round, MergeError> {
        let view =
            if self.is_partial { ViewChange::default() } else { view::change(&mut self, now)? };
        let devices = &self.known.devices;
        let mut root = self.known.root;
        bring_up(&mut root, &self.state, |number| devices[usize::from(number)])?;
        (self.known.root, self.commit.merged.root) = (root, Some(root));
        let (changed, moves) = self.state.into_changed();
        let rows = &mut self.commit.merged;
        rows.entries.extend(changed.entries);
        rows.inodes.extend(changed.inodes);
        let versions = changed.versions.into_iter();
        rows.versions.extend(versions.map(|((file, id), version)| (file, id, version)));
        if !Arc::ptr_eq(&self.known.moves, &moves) {
            rows.moves = moved(&self.known.moves, &moves);
            self.known.moves = moves;
        }
        let is_partial = self.is_partial;
        Ok(Round { commit: self.commit, view, known: self.known, is_partial })
    }
}

/// The lines of the log that differ.
fn moved(before: &[Move], after: &[Move]) -> Vec<(OpId, Option<Move>)> {
    let mut old: HashMap<OpId, &Move> = before.iter().map(|line| (line.to.op.0, line)).collect();
    let mut rows = Vec::new();
    for line in after {
        let op = line.to.op.0;
        if old.remove(&op) != Some(line) {
            rows.push((op, Some(line.clone())));
        }
    }
    rows.extend(old.into_keys().map(|op| (op, None)));
    rows
}

/// What is noted of an op that does not count: what it would have made.
pub(super) fn made_bits(made: Made) -> u8 {
    1 | u8::from(made.is_directory) << 1 | u8::from(made.is_inode) << 2
}

/// Back from [`made_bits`]; `None` if it would have made nothing.
pub(super) fn made_of_bits(bits: u8) -> Option<Made> {
    (bits & 1 != 0).then_some(Made { is_directory: bits & 2 != 0, is_inode: bits & 4 != 0 })
}

/// What `merger` keeps, nothing folded yet.
fn kept(merger: &Merger) -> Result<State<Kept>, MergeError> {
    let known = &merger.known;
    let kept = Kept::new(merger.store.clone(), Arc::clone(&known.moves), known.folded.clone());
    Ok(State::new(kept, known.folded.values().sum())?)
}

/// What of the delivered ops the judge asks for.
struct Heard<'a, 'b> {
    folding: &'a Folding<'b>,
    failing: Failing,
}

impl Heard<'_, '_> {
    fn void(&self, op: OpId) -> Option<u8> {
        match self.folding.voids.get(&op) {
            Some(made) => Some(*made),
            None => self.failing.get(self.folding.merger.store.void(op)).flatten(),
        }
    }
}

impl Delivered for Heard<'_, '_> {
    fn made(&self, op: OpId) -> Option<Made> {
        let entry = self.failing.get(self.folding.state.entry(EntryId(op))).flatten();
        if let Some(entry) = entry {
            let is_inode = entry.inode.0 == op;
            return Some(Made { is_directory: entry.is_directory, is_inode });
        }
        made_of_bits(self.void(op)?)
    }

    fn is_void(&self, op: OpId) -> bool {
        self.void(op).is_some()
    }

    /// The chain holds each journal's clock, and a batch whose clock is not above what its author
    /// had heard is refused: so no op's past reaches above it.
    fn reach(&self, _: OpId) -> Option<Key> {
        None
    }
}
