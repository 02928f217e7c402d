//! The merger: batches of other devices become records under the view, and changes of the view.
//!
//! It runs on the commit thread. It reads what the store keeps, folds this device's own batches
//! that it has not folded yet and then those that arrived, and says in one [`Commit`] what the
//! store has to change, all or nothing. Nothing of it is remembered before that commit is done.

mod anew;
mod epochs;
mod folding;
mod history;
mod late;
mod ops;
mod records;
mod texts;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use folding::Folding;
use late::Late;
pub use ops::add;
pub use texts::Fork;
pub use view::ViewChange;

use super::EngineError;
use super::epochs::Epochs;
use super::journal::context;
use crate::chunk::Sealer;
use crate::codec::{decode_batch, decode_ops};
use crate::keys::Chain;
use crate::merge::Membership;
use crate::store::{Commit, Store, StoreError};
use crate::types::limits::BATCH_BYTES_HARD_MAX;
use crate::types::merged::{MemberOp, Move};
use crate::types::{
    BatchHash, ChunkId, ConflictResolution, DeviceId, FileId, Frontier, Held, Hlc, NameHasher, Op,
    OpId, Role, Timestamp, TreeRoot,
};

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
    root: TreeRoot,
    /// How often the tree was folded anew.
    folds_anew: u64,
    /// It is to be once more, as soon as the beginnings of all journals are here.
    is_anew_due: bool,
    late: Late,
}

/// Merges journals.
pub struct Merger {
    store: Store,
    sealer: Arc<Sealer>,
    hasher: NameHasher,
    own: u16,
    epochs: Epochs,
    known: Known,
    /// How files with several heads are to be shown, and how the view in the store shows them.
    conflicts: ConflictResolution,
    conflicts_shown: ConflictResolution,
    expects_company: bool,
}

/// What a round has worked out.
pub struct Round {
    /// For the store.
    pub commit: Commit,
    /// For the tree in memory and the kernel.
    pub view: ViewChange,
    known: Known,
    /// Own ops are left.
    is_partial: bool,
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
        epochs: Epochs,
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
        let (root, _) = store.tree_root()?;
        let folds_anew = store.folds_anew()?;
        let is_anew_due = store.is_anew_due()?;
        let late = Late::default();
        let known = Known {
            chains,
            heard,
            folded,
            devices,
            numbers,
            member_ops,
            members,
            moves,
            root,
            folds_anew,
            is_anew_due,
            late,
        };
        let conflicts_shown = store.conflicts_shown()?;
        let conflicts = conflicts_shown;
        for (epoch, wrapped) in store.epochs()? {
            if !epochs.open(epoch, &wrapped) {
                return Err(StoreError::Corrupt("an epoch's secret does not open".into()).into());
            }
        }
        let merger = Self {
            store,
            sealer,
            hasher,
            own,
            epochs,
            known,
            conflicts,
            conflicts_shown,
            expects_company: false,
        };
        merger.enter_best_epoch();
        Ok(merger)
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
        let is_due = relists || self.has_own_to_fold() || self.can_fold_anew();
        (self.is_shared() || self.expects_company) && is_due
    }

    /// Are the tree's records not what its ops make, because others void some that are not all here?
    pub fn is_anew_due(&self) -> bool {
        self.known.is_anew_due
    }

    fn can_fold_anew(&self) -> bool {
        self.known.is_anew_due && self.store.bases().is_ok_and(|bases| bases.is_empty())
    }

    /// Another device is about to join: folding what there is begins.
    pub fn expect_company(&mut self) {
        self.expects_company = true;
    }

    /// Are there batches of this device's own that no round has folded?
    pub fn has_own_to_fold(&self) -> bool {
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

    /// How many journals there are.
    pub fn journals(&self) -> usize {
        self.known.devices.len()
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
        self.roles_and_gone().0
    }

    /// The same, and the roles of those who are revoked, as they were last.
    pub fn roles_and_gone(&self) -> (Roles, Roles) {
        let mut roles = BTreeMap::from([(FOUNDER, Role::Admin)]);
        let mut granted: Vec<&MemberOp> = self.known.member_ops.iter().collect();
        granted.sort_by_key(|op| op.key);
        for op in granted.into_iter().filter(|op| self.known.members.stands(op.id)) {
            roles.extend(op.role());
        }
        let is_member = |journal: &u16| self.known.members.cut_seq(*journal).is_none();
        let (now, gone): (Vec<_>, Vec<_>) =
            roles.into_iter().partition(|(journal, _)| is_member(journal));
        let named = |roles: Vec<(u16, Role)>| {
            roles.into_iter().map(|(journal, role)| (self.device(journal), role)).collect()
        };
        (named(now), named(gone))
    }

    /// The last op of a device's journal that is here, and the hash of the batch that ends with it.
    pub fn heard_of(&self, device: &DeviceId) -> Option<(OpId, BatchHash)> {
        let number = self.number(device)?;
        let chain = self.known.chains.get(&number)?;
        Some((OpId::new(number, chain.next_seq() - 1), chain.last_hash()))
    }

    /// The devices that were members and are revoked, as far as this device has heard.
    pub fn revoked(&self) -> Vec<Revoked> {
        let mut cuts: Vec<&MemberOp> = self.known.members.cuts().iter().collect();
        cuts.sort_by_key(|cut| cut.key);
        let mut revoked: BTreeMap<u16, Revoked> = BTreeMap::new();
        for cut in cuts {
            let Some(last) = cut.cut() else { continue };
            let heard = cut.frontier.iter().map(|(number, seq)| (self.device(*number), *seq));
            let mut told: Frontier = heard.collect();
            told.insert(self.device(cut.id.journal()), cut.id.seq());
            let device = self.device(last.journal());
            revoked.entry(last.journal()).or_insert(Revoked { device, told });
        }
        revoked.into_values().collect()
    }

    /// How far each journal is here, this device's own as the store has it.
    pub fn frontier(&self) -> BTreeMap<DeviceId, u64> {
        let last = |chain: &Chain| chain.next_seq() - 1;
        let chains = self.known.chains.iter();
        chains.map(|(number, chain)| (self.device(*number), last(chain))).collect()
    }

    /// The last op of each journal that is here, and the hash of its last batch.
    pub fn held(&self) -> BTreeMap<DeviceId, Held> {
        let held = |chain: &Chain| Held { seq: chain.next_seq() - 1, hash: chain.last_hash() };
        let chains = self.known.chains.iter();
        chains.map(|(number, chain)| (self.device(*number), held(chain))).collect()
    }

    /// This device.
    pub fn own_device(&self) -> DeviceId {
        self.device(self.own)
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
        let mut round = Folding::new(self)?;
        round.own()?;
        if round.is_partial {
            // What has arrived comes again.
            return round.finish(now);
        }
        round.note_shown();
        if self.conflicts != self.conflicts_shown {
            round.relist()?;
        }
        round.arrived(batches, now_us)?;
        round.fold_anew_if_needed()?;
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
                (batch.epoch, &batch.sealed_ops),
                BATCH_BYTES_HARD_MAX,
            )
            .map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let ops = decode_ops(&plain, |device| self.known.numbers.get(device).copied())?;
        let index = usize::try_from(id.seq() - batch.seq).unwrap_or(usize::MAX);
        Ok(ops.into_iter().nth(index))
    }

    /// The roots whose content is left for later, with their files.
    pub fn late(&self) -> impl Iterator<Item = (FileId, ChunkId)> {
        self.known.late.roots()
    }

    /// The round's commit is in the store.
    pub fn advance(&mut self, round: Advance) {
        self.known = round.known;
        if !round.is_partial {
            self.conflicts_shown = self.conflicts;
        }
        self.enter_best_epoch();
    }
}

/// Devices and their roles.
type Roles = Vec<(DeviceId, Role)>;

/// A device that is a member no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revoked {
    /// Which.
    pub device: DeviceId,
    /// What it may be told of each journal: up to the op that revoked it, and that op's past.
    pub told: Frontier,
}

/// What a round leaves the merger with.
pub struct Advance {
    known: Known,
    is_partial: bool,
}

impl Round {
    /// Takes the round apart: for the store, for the tree, for the merger once it is stored.
    pub fn into_parts(self) -> (Commit, ViewChange, Advance) {
        let advance = Advance { known: self.known, is_partial: self.is_partial };
        (self.commit, self.view, advance)
    }
}

/// The founder's journal, on every device.
pub const FOUNDER: u16 = 0;
