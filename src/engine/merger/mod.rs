//! The merger: batches of other devices become records under the view, and changes of the view.
//!
//! It runs on the commit thread. It reads what the store keeps, folds this device's own batches
//! that it has not folded yet and then those that arrived, and says in one [`Commit`] what the
//! store has to change, all or nothing. Nothing of it is remembered before that commit is done.

mod ops;
mod records;
mod texts;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use ops::add;
pub use texts::Fork;
pub use view::ViewChange;

use super::EngineError;
use super::journal::context;
use crate::chunk::Sealer;
use crate::codec::{decode_batch, decode_ops, encode_batch};
use crate::keys::Chain;
use crate::merge::{Delivered, Made, Membership, State, Verdict, fold, judge, pass_over};
use crate::store::{Commit, Store, StoreError, Wanted};
use crate::types::limits::{BATCH_BYTES_HARD_MAX, CLOCK_AHEAD_US_MAX};
use crate::types::merged::{Key, MemberChange, MemberOp, Move, Stamp};
use crate::types::{
    Batch, ConflictResolution, Content, DeviceId, EntryId, FileId, Hlc, Name, NameHasher, Op, OpId,
    Role, Timestamp, VersionId, VersionRecord,
};
use records::{Failing, Kept};

/// Ops of this device that one round folds at most, beside what has arrived.
const OWN_OPS_MAX: u64 = 65_536;

/// Why a peer's batches are not taken.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// They are not what an honest device sends; it costs the peer its connection.
    #[error("journal {journal}, op {seq}: {why}")]
    Refused {
        /// Whose batch.
        journal: DeviceId,
        /// Its first op.
        seq: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// What is known of the journals.
#[derive(Clone)]
struct Known {
    chains: HashMap<u16, Chain>,
    /// By journal: what its author had heard of the others, by its last batch here.
    heard: HashMap<u16, BTreeMap<u16, u64>>,
    folded: HashMap<u16, u64>,
    devices: Vec<DeviceId>,
    numbers: HashMap<DeviceId, u16>,
    member_ops: Vec<MemberOp>,
    members: Membership,
    moves: Arc<Vec<Move>>,
}

/// Merges journals.
pub struct Merger {
    store: Store,
    sealer: Arc<Sealer>,
    hasher: NameHasher,
    own: u16,
    known: Known,
    /// How files with several heads are to be shown, and how the view in the store shows them.
    conflicts: ConflictResolution,
    conflicts_shown: ConflictResolution,
}

/// What a round has worked out.
pub struct Round {
    /// For the store.
    pub commit: Commit,
    /// For the tree in memory and the kernel.
    pub view: ViewChange,
    known: Known,
}

impl Merger {
    /// Over a store whose own journal has this number.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn open(
        store: Store,
        sealer: Arc<Sealer>,
        hasher: NameHasher,
        own: u16,
    ) -> Result<Self, EngineError> {
        let mut journals = store.journals()?;
        journals.sort_unstable();
        let devices: Vec<DeviceId> = journals.iter().map(|(_, device)| *device).collect();
        let numbers = journals.iter().map(|(number, device)| (*device, *number)).collect();
        let mut chains = HashMap::new();
        for (number, device) in &journals {
            let chain = match store.last_batch(*number)? {
                Some(bytes) => Chain::after(&decode_batch(&bytes)?),
                None => Chain::new(*device),
            };
            chains.insert(*number, chain);
        }
        let mut heard: HashMap<u16, BTreeMap<u16, u64>> = HashMap::new();
        for (journal, of, seq) in store.heard()? {
            heard.entry(journal).or_default().insert(of, seq);
        }
        let member_ops = store.member_ops()?;
        let members = Membership::founded(vec![(FOUNDER, Role::Admin)]).refolded(&member_ops);
        let mut moves = store.moves()?;
        moves.sort_by_key(|line| line.to.key);
        let folded = store.folded()?.into_iter().collect();
        let moves = Arc::new(moves);
        let known = Known { chains, heard, folded, devices, numbers, member_ops, members, moves };
        let conflicts_shown = store.conflicts_shown()?;
        let conflicts = conflicts_shown;
        Ok(Self { store, sealer, hasher, own, known, conflicts, conflicts_shown })
    }

    /// How files with several heads are shown.
    pub fn conflicts(&self) -> ConflictResolution {
        self.conflicts
    }

    /// Files with several heads are to be shown so from the next round on.
    pub fn set_conflicts(&mut self, conflicts: ConflictResolution) {
        self.conflicts = conflicts;
    }

    /// Has any other device ever been a member?
    pub fn is_shared(&self) -> bool {
        self.known.devices.len() > 1
    }

    /// Are there batches of this device's own that no round has folded, or is the view to change,
    /// and does anybody care?
    pub fn needs_a_round(&self) -> bool {
        let relists = self.conflicts != self.conflicts_shown;
        self.is_shared() && (relists || self.has_own_to_fold())
    }

    fn has_own_to_fold(&self) -> bool {
        let last = self.known.chains.get(&self.own).map_or(0, |chain| chain.next_seq() - 1);
        self.known.folded.get(&self.own).copied().unwrap_or(0) < last
    }

    /// A device's journal here.
    pub fn number(&self, device: &DeviceId) -> Option<u16> {
        self.known.numbers.get(device).copied()
    }

    /// The number that the next journal gets.
    ///
    /// # Panics
    /// If there are 65,536 already.
    pub fn next_number(&self) -> u16 {
        u16::try_from(self.known.devices.len()).expect("a workspace has fewer than 65,536 devices")
    }

    /// A journal that the store has just noted.
    pub fn add_journal(&mut self, number: u16, device: DeviceId) {
        self.known.devices.push(device);
        self.known.numbers.insert(device, number);
        self.known.chains.insert(number, Chain::new(device));
    }

    /// Who a journal belongs to.
    pub fn device(&self, number: u16) -> DeviceId {
        self.known.devices[usize::from(number)]
    }

    /// The members and their roles, as far as this device has heard.
    pub fn roles(&self) -> Vec<(DeviceId, Role)> {
        let mut roles = BTreeMap::from([(FOUNDER, Role::Admin)]);
        let mut granted: Vec<&MemberOp> = self.known.member_ops.iter().collect();
        granted.sort_by_key(|op| op.key);
        for op in granted.into_iter().filter(|op| self.known.members.stands(op.id)) {
            roles.extend(op.role());
        }
        let is_member = |journal: &u16| self.known.members.cut_seq(*journal).is_none();
        let roles = roles.into_iter().filter(|(journal, _)| is_member(journal));
        roles.map(|(journal, role)| (self.device(journal), role)).collect()
    }

    /// How far each journal is here, this device's own as the store has it.
    pub fn frontier(&self) -> BTreeMap<DeviceId, u64> {
        let last = |chain: &Chain| chain.next_seq() - 1;
        let chains = self.known.chains.iter();
        chains.map(|(number, chain)| (self.device(*number), last(chain))).collect()
    }

    /// What the next batch of this device's own journal says that it has heard since its last.
    pub fn frontier_delta(&self) -> Vec<(DeviceId, u64)> {
        let told = self.known.heard.get(&self.own);
        let mut delta: Vec<(DeviceId, u64)> = self
            .known
            .chains
            .iter()
            .filter(|(number, _)| **number != self.own)
            .map(|(number, chain)| (*number, chain.next_seq() - 1))
            .filter(|(number, last)| {
                *last > told.and_then(|told| told.get(number)).copied().unwrap_or(0)
            })
            .map(|(number, last)| (self.device(number), last))
            .collect();
        delta.sort_unstable();
        delta
    }

    /// This device's own batches are in the store.
    pub fn own_committed(&mut self, chain: &Chain, told: &[(DeviceId, u64)]) {
        self.known.chains.insert(self.own, chain.clone());
        let numbers = &self.known.numbers;
        let heard = self.known.heard.entry(self.own).or_default();
        heard.extend(told.iter().filter_map(|(device, seq)| Some((*numbers.get(device)?, *seq))));
    }

    /// The clock of the greatest op heard, for this device's next.
    pub fn clock(&self) -> Hlc {
        self.known.chains.values().map(Chain::hlc).max().unwrap_or_default()
    }

    /// Folds this device's own batches and `batches`, which came from a peer. Batches that are
    /// here already are passed over, and those whose past is not here are left for later.
    ///
    /// # Errors
    /// [`MergeError::Refused`] if one is not an honest device's: nothing of it or behind it counts,
    /// and what was before it is not taken either, but will be when it comes again.
    pub fn round(
        &self,
        batches: &[Vec<u8>],
        now: Timestamp,
        now_us: u64,
    ) -> Result<Round, MergeError> {
        let (moves, folded) = (Arc::clone(&self.known.moves), self.known.folded.clone());
        let kept = Kept::new(self.store.clone(), moves, folded);
        let arrivals = self.known.folded.values().sum();
        let mut round = Folding {
            merger: self,
            known: self.known.clone(),
            state: State::new(kept, arrivals)?,
            commit: Commit::default(),
            makes: HashMap::new(),
            voids: HashMap::new(),
            versions: HashMap::new(),
            shown: Vec::new(),
        };
        round.own()?;
        round.note_shown();
        if self.conflicts != self.conflicts_shown {
            round.relist()?;
        }
        round.arrived(batches, now_us)?;
        round.finish(now)
    }

    /// An op that is here.
    ///
    /// # Errors
    /// If the store cannot be read, or what it has does not decode.
    pub fn op(&self, id: OpId) -> Result<Option<Op>, StoreError> {
        let Some(bytes) = self.store.batch_with(id.journal(), id.seq())? else { return Ok(None) };
        let batch = decode_batch(&bytes)?;
        let plain = self
            .sealer
            .open_record(
                &context(&batch.journal, batch.seq),
                &batch.sealed_ops,
                BATCH_BYTES_HARD_MAX,
            )
            .map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let ops = decode_ops(&plain, |device| self.known.numbers.get(device).copied())?;
        let index = usize::try_from(id.seq() - batch.seq).unwrap_or(usize::MAX);
        Ok(ops.into_iter().nth(index))
    }

    /// The round's commit is in the store.
    pub fn advance(&mut self, round: Advance) {
        self.known = round.0;
        self.conflicts_shown = self.conflicts;
    }
}

/// What a round leaves the merger with.
pub struct Advance(Known);

impl Round {
    /// Takes the round apart: for the store, for the tree, for the merger once it is stored.
    pub fn into_parts(self) -> (Commit, ViewChange, Advance) {
        (self.commit, self.view, Advance(self.known))
    }
}

/// The founder's journal, on every device.
pub const FOUNDER: u16 = 0;

struct Folding<'a> {
    merger: &'a Merger,
    known: Known,
    state: State<Kept>,
    commit: Commit,
    /// Made by the ops of this round.
    makes: HashMap<FileId, Op>,
    voids: HashMap<OpId, u8>,
    /// Where in the commit the versions of this round stand.
    versions: HashMap<VersionId, usize>,
    /// Where this device's own ops, folded only now, have left what they touched: there it is
    /// shown until now.
    shown: Vec<(FileId, Name)>,
}

impl Folding<'_> {
    /// Folds own batches that were committed since the last round.
    fn own(&mut self) -> Result<(), MergeError> {
        let own = self.merger.own;
        let first = self.known.folded.get(&own).copied().unwrap_or(0);
        let last = self.known.chains.get(&own).map_or(0, |chain| chain.next_seq() - 1);
        let mut done = first;
        while done < last && done - first < OWN_OPS_MAX {
            let page = self.merger.store.batches(own, done + 1, 64)?;
            if page.is_empty() {
                let why = format!("the batch with op {} of this device is not here", done + 1);
                return Err(crate::store::StoreError::Corrupt(why).into());
            }
            for (_, bytes) in page {
                let batch = decode_batch(&bytes).map_err(crate::store::StoreError::from)?;
                done = batch.seq + u64::from(batch.count) - 1;
                self.fold_batch(own, &batch)?;
            }
        }
        Ok(())
    }

    /// Was this made by another device, in a batch that no round before has folded? Then nothing of
    /// it stands in the store.
    fn is_foreign_news(&self, op: OpId) -> bool {
        let folded = self.merger.known.folded.get(&op.journal());
        op.journal() != self.merger.own && folded.is_none_or(|last| op.seq() > *last)
    }

    fn note_shown(&mut self) {
        let entries = self.state.changed().entries.values().flatten();
        let places = entries.filter_map(|entry| entry.place.as_ref());
        self.shown = places.map(|place| (place.parent, place.name.clone())).collect();
    }

    /// Has every name of a file with several heads looked at again.
    fn relist(&mut self) -> Result<(), MergeError> {
        for (_, inode) in self.merger.store.conflicted()? {
            for id in &inode.entries {
                let place = self.state.entry(*id)?.and_then(|entry| entry.place);
                self.shown.extend(place.map(|place| (place.parent, place.name)));
            }
        }
        self.commit.merged.conflicts = Some(self.merger.conflicts);
        Ok(())
    }

    fn arrived(&mut self, batches: &[Vec<u8>], now_us: u64) -> Result<(), MergeError> {
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
            } else {
                Err(refused("another batch with this number is here: the journal is forked".into()))
            };
        }
        if batch.seq > chain.next_seq() || batch.hlc.0 > now_us.saturating_add(CLOCK_AHEAD_US_MAX) {
            return Ok(false);
        }
        for (device, seq) in &batch.frontier_delta {
            let Some(of) = self.known.numbers.get(device) else { return Ok(false) };
            if *seq >= self.known.chains[of].next_seq() {
                return Ok(false);
            }
            if *seq > 0 && self.hlc_of(*of, *seq)?.is_none_or(|heard| heard >= batch.hlc) {
                return Err(refused("its clock is not above what its author had heard".into()));
            }
        }
        let mut next = chain.clone();
        next.accept(batch).map_err(|error| refused(error.to_string()))?;
        self.known.chains.insert(number, next);
        self.fold_batch(number, batch)?;
        self.commit.batches.push((number, batch.seq, encode_batch(batch)));
        Ok(true)
    }

    fn is_here(&self, number: u16, batch: &Batch) -> Result<bool, MergeError> {
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

    fn fold_batch(&mut self, number: u16, batch: &Batch) -> Result<(), MergeError> {
        let refused =
            |why: String| MergeError::Refused { journal: batch.journal, seq: batch.seq, why };
        let context = context(&batch.journal, batch.seq);
        let sealer = &self.merger.sealer;
        let plain = sealer
            .open_record(&context, &batch.sealed_ops, BATCH_BYTES_HARD_MAX)
            .map_err(|error| refused(error.to_string()))?;
        let mut frontier = self.known.heard.get(&number).cloned().unwrap_or_default();
        for (device, seq) in &batch.frontier_delta {
            if let Some(of) = self.known.numbers.get(device) {
                frontier.insert(*of, *seq);
                self.commit.merged.heard.push((number, *of, *seq));
            }
        }
        self.known.heard.insert(number, frontier.clone());
        let ops = self.decode(&plain).map_err(|error| refused(error.to_string()))?;
        if ops.len() != batch.count as usize {
            return Err(refused(format!("it says {} ops and holds {}", batch.count, ops.len())));
        }
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
            _ => None,
        };
        if let Some(body) = body {
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
            self.commit.merged.voids.push((stamp.id, made));
            pass_over(&mut self.state);
            return Ok(());
        }
        fold(&mut self.state, stamp, &op)?;
        self.keep(stamp, op)
    }

    /// Notes what the view needs beside the merge's own records.
    fn keep(&mut self, stamp: &Stamp<'_>, op: Op) -> Result<(), MergeError> {
        match op {
            Op::Make { .. } => drop(self.makes.insert(FileId(stamp.id), op)),
            Op::Write { file, size_bytes, content, mtime, interim, .. } => {
                let (own, id) = (self.merger.own, VersionId(stamp.id));
                let is_own = stamp.id.journal() == own;
                if is_own && self.merger.store.version(file, id)?.is_some() {
                    return Ok(());
                }
                match &content {
                    Content::Chunk(chunk) if !is_own => self.want(chunk, false)?,
                    Content::Manifest(root) if !is_own => self.want(root, true)?,
                    _ => {}
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

    fn want(&mut self, chunk: &crate::types::ChunkRef, is_node: bool) -> Result<(), MergeError> {
        if is_node || !self.merger.store.has_chunk(&chunk.id)? {
            let wanted = Wanted { chunk: chunk.clone(), is_node };
            self.commit.merged.wanted.push((chunk.id, Some(wanted)));
        }
        Ok(())
    }

    fn finish(mut self, now: Timestamp) -> Result<Round, MergeError> {
        let view = view::change(&mut self, now)?;
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
        Ok(Round { commit: self.commit, view, known: self.known })
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

fn made_bits(made: Made) -> u8 {
    1 | u8::from(made.is_directory) << 1 | u8::from(made.is_inode) << 2
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
        let bits = self.void(op).filter(|bits| bits & 1 != 0)?;
        Some(Made { is_directory: bits & 2 != 0, is_inode: bits & 4 != 0 })
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
