//! This device's workspace, as replication sees it.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::bootstrap::Telling;
use super::commit::PinSlot;
use super::epochs::Epochs;
use super::error::{DeliverError, EngineError};
use super::handle::{CommitHandle, Delivery, MemberAsk};
use super::invitations::Invitations;
use super::journal::micros;
use super::loading::Loading;
use super::merger::MergeError;
use super::published::Published;
use super::sync::{Replica, ReplicaError, Snapshot};
use super::workspace::{OpenWorkspace, Workspace};
use crate::codec::{batch_hash, batch_span};
use crate::env::Env;
use crate::keys::DeviceKey;
use crate::store::{Store, StoreError};
use crate::types::limits::EPOCHS_MAX;
use crate::types::{
    ChunkId, DeviceId, DeviceName, DeviceNames, EpochSecret, Frontier, Held, Ino, JoinRequest,
    Refusal, Role, Settings, SnapshotRows, Standing, TreeRoot, Welcome, WorkspaceId,
};

/// Batches read from the store at once.
const PAGE_BATCHES: usize = 64;
/// Wanted chunks looked at in one go.
const PAGE_CHUNKS: usize = 1024;

/// A workspace that is open, for replication. Cheap to clone.
#[derive(Clone)]
pub struct LocalReplica {
    store: Store,
    commit: CommitHandle,
    published: Arc<Published>,
    settings: Settings,
    loading: Arc<Loading>,
    device: DeviceId,
    epochs: Epochs,
    founder: DeviceId,
    dir: PathBuf,
    env: Env,
    awaited: Arc<Mutex<HashSet<ChunkId>>>,
}

impl LocalReplica {
    /// Of `workspace`, whose commit thread `commit` reaches.
    ///
    /// # Errors
    /// The store's.
    pub fn new(workspace: &OpenWorkspace, commit: CommitHandle) -> Result<Self, EngineError> {
        let journals = workspace.store.journals()?;
        let founder = journals.iter().find(|(number, _)| *number == super::merger::FOUNDER);
        let founder = founder.map_or(workspace.device(), |(_, device)| *device);
        Ok(Self {
            store: workspace.store.clone(),
            commit,
            published: workspace.published(),
            settings: workspace.settings.clone(),
            loading: workspace.loading(),
            device: workspace.device(),
            epochs: workspace.epochs(),
            founder,
            dir: workspace.dir.clone(),
            env: workspace.env.clone(),
            awaited: Arc::default(),
        })
    }

    /// What is durable here.
    pub fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// Who began the workspace.
    pub fn founder(&self) -> DeviceId {
        self.founder
    }

    /// Whether the workspace is still being filled.
    pub fn loading(&self) -> &Arc<Loading> {
        &self.loading
    }

    /// Another device is about to join: what a workspace that was never shared has not folded yet is
    /// folded. Blocks for it, some 50 microseconds for each file; nothing else has to wait.
    ///
    /// # Errors
    /// The store's.
    pub fn expect_company(&self) -> Result<(), DeliverError> {
        let is_ready = Arc::new(AtomicBool::new(false));
        while !is_ready.load(Ordering::Acquire) {
            self.deliver_and_wait(Delivery::Company(Arc::clone(&is_ready)))?;
        }
        Ok(())
    }

    /// Lays a page of the snapshot that this workspace is filled from into the store. After the last
    /// one it is whole, and durable. If it is refused, no other will be taken.
    ///
    /// # Errors
    /// Why it is refused, or the store's.
    pub fn lay_page(&self, rows: Box<SnapshotRows>, is_last: bool) -> Result<(), DeliverError> {
        self.deliver_and_wait(Delivery::Page(rows, is_last))
    }

    /// Do the records say what the ops make? Not while the tree waits to be folded anew.
    fn is_tree_right(&self) -> bool {
        self.store.is_anew_due().is_ok_and(|is_due| !is_due)
    }

    /// What devices are called, by what is committed here.
    ///
    /// # Errors
    /// The store's.
    pub fn device_names(&self) -> Result<DeviceNames, StoreError> {
        device_names(&self.store)
    }

    fn own_name(&self) -> Result<String, StoreError> {
        let names = self.device_names()?;
        let name = names.get(&self.device).map(ToString::to_string);
        Ok(name.unwrap_or_else(|| names.label(&self.device)))
    }

    /// What this device may do; `None` if it is no member (yet, or any more).
    pub fn own_role(&self) -> Option<Role> {
        self.published.role(&self.device)
    }

    /// What this device is in the workspace.
    pub fn standing(&self) -> Standing {
        match self.own_role() {
            _ if self.published.is_overtaken() => Standing::Overtaken,
            Some(role) => Standing::Member(role),
            None if self.published.revoked(&self.device).is_some() => Standing::Revoked,
            None => Standing::Unknown,
        }
    }

    /// Does this device's own journal go through this op, with this batch?
    fn goes_through(&self, held: &Held) -> Result<bool, StoreError> {
        if held.seq == 0 {
            return Ok(true);
        }
        let Some(number) = self.journal(&self.device)? else { return Ok(true) };
        let Some(bytes) = self.store.batch_with(number, held.seq)? else { return Ok(false) };
        Ok(batch_span(&bytes)?.last_seq == held.seq && batch_hash(&bytes) == held.hash)
    }

    /// Makes a device a member or gives it another role. Durable on return.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`]. What a device that is no admin says has no effect.
    pub fn set_role(&self, device: &DeviceId, role: Role) -> Result<(), ReplicaError> {
        self.say_of_member(MemberAsk::Role(*device, role, None))
    }

    /// Lets nothing of a device's journal count behind what is here of it. Durable on return.
    ///
    /// # Errors
    /// As [`LocalReplica::set_role`].
    pub fn revoke(&self, device: &DeviceId) -> Result<(), ReplicaError> {
        self.say_of_member(MemberAsk::Cut(*device))
    }

    /// The secrets of epochs after the first that this device has.
    pub fn own_epochs(&self) -> Vec<EpochSecret> {
        self.epochs.all()
    }

    /// Begins another epoch, if this device is an admin and the workspace is encrypted; tells whether
    /// it did. Durable on return.
    ///
    /// # Errors
    /// As [`LocalReplica::set_role`].
    pub fn begin_epoch(&self) -> Result<bool, ReplicaError> {
        let before = self.published.epochs().len();
        self.deliver_and_wait(Delivery::NewEpoch).map_err(failed)?;
        Ok(self.published.epochs().len() > before)
    }

    fn say_of_member(&self, ask: MemberAsk) -> Result<(), ReplicaError> {
        self.deliver_and_wait(Delivery::Members(vec![ask])).map_err(failed)
    }

    /// Takes this chunk, should it come while `fetch` runs, whether or not the store knows by then
    /// that it is wanted: a reader waits for it.
    pub fn awaiting<R>(&self, id: &ChunkId, fetch: impl FnOnce() -> R) -> R {
        self.awaited.lock().insert(*id);
        let result = fetch();
        self.awaited.lock().remove(id);
        result
    }

    fn deliver_and_wait(&self, delivery: Delivery) -> Result<(), DeliverError> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.commit.deliver(delivery, Box::new(move |result| drop(sender.send(result))));
        self.commit.wait_for(&receiver).unwrap_or(Err(EngineError::Closed.into()))
    }

    /// Wanted chunks that are not here; and nodes of manifests that are, but that nobody has read: a
    /// full disk or a crash came between. What those name is missing too.
    fn look_for_missing(
        &self,
        limit: usize,
        except: &HashSet<ChunkId>,
    ) -> (Vec<ChunkId>, Vec<ChunkId>) {
        let (mut missing, mut unread) = (Vec::new(), Vec::new());
        let (late, _) = self.published.late(micros(self.env.clock.now()));
        let mut after = None;
        while missing.len() < limit && unread.len() < limit {
            let Ok(page) = self.store.wanted_page(after, PAGE_CHUNKS) else { break };
            let Some(last) = page.last() else { break };
            after = Some(*last);
            let is_due = |id: &ChunkId| !except.contains(id) && !late.contains(id);
            for id in page.into_iter().filter(is_due) {
                if !self.store.has_chunk(&id).unwrap_or(false) {
                    missing.push(id);
                } else if matches!(self.store.wanted(&id), Ok(Some(wanted)) if wanted.is_node) {
                    unread.push(id);
                }
            }
        }
        missing.truncate(limit);
        (missing, unread)
    }

    fn journal(&self, device: &DeviceId) -> Result<Option<u16>, StoreError> {
        let journals = self.store.journals()?;
        Ok(journals.into_iter().find(|(_, known)| known == device).map(|(number, _)| number))
    }
}

/// What devices are called, by the root's attributes.
pub(super) fn device_names(store: &Store) -> Result<DeviceNames, StoreError> {
    let attrs = store.node(Ino::ROOT)?.map(|root| root.xattrs).unwrap_or_default();
    let attrs = attrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    Ok(DeviceNames::from_attrs(attrs))
}

impl Snapshot for Telling {
    fn next_part(&mut self) -> Result<Option<Vec<u8>>, ReplicaError> {
        Telling::next_part(self).map_err(failed)
    }
}

fn refused_or_failed(error: DeliverError) -> ReplicaError {
    match error {
        DeliverError::Refused(MergeError::Refused { .. }) => {
            ReplicaError::Refused(error.to_string())
        }
        other => failed(other),
    }
}

fn failed(error: impl std::fmt::Display) -> ReplicaError {
    ReplicaError::Failed(error.to_string())
}

impl Replica for LocalReplica {
    fn workspace(&self) -> WorkspaceId {
        self.settings.workspace
    }

    fn device(&self) -> DeviceId {
        self.device
    }

    fn is_member(&self, device: &DeviceId) -> bool {
        if self.published.is_overtaken() {
            return false;
        }
        // Before the first batches have come, a new member knows the founder alone.
        let is_founder = *device == self.founder && self.published.revoked(device).is_none();
        self.published.role(device).is_some() || is_founder
    }

    fn parting(&self, device: &DeviceId) -> Option<Frontier> {
        self.published.revoked(device)
    }

    fn members(&self) -> Vec<DeviceId> {
        if !self.standing().takes_part() {
            // Nobody would talk to this device, or be right to.
            return Vec::new();
        }
        self.published.roles().into_iter().map(|(device, _)| device).collect()
    }

    fn frontier(&self) -> Frontier {
        self.published.frontier().into_iter().filter(|(_, seq)| *seq > 0).collect()
    }

    fn tree_root(&self, at: &Frontier) -> Option<TreeRoot> {
        let (root, folded) = self.store.tree_root().ok().filter(|_| self.is_tree_right())?;
        let devices: BTreeMap<u16, DeviceId> = self.store.journals().ok()?.into_iter().collect();
        let folded = folded.into_iter().filter(|(_, seq)| *seq > 0);
        let reached: Option<Frontier> =
            folded.map(|(number, seq)| Some((*devices.get(&number)?, seq))).collect();
        (reached? == *at).then_some(root)
    }

    fn held(&self, journal: &DeviceId) -> Option<Held> {
        self.published.head(journal).filter(|held| held.seq > 0)
    }

    fn epochs_for(&self, peer: &DeviceId) -> Vec<EpochSecret> {
        if self.published.role(peer).is_none_or(|role| role == Role::Keeper) {
            return Vec::new();
        }
        let heard_of = self.published.epochs().into_iter().rev().take(EPOCHS_MAX);
        heard_of.filter_map(|epoch| self.epochs.secret(epoch)).collect()
    }

    fn learn_epochs(&self, told: Vec<EpochSecret>) -> Result<(), ReplicaError> {
        self.deliver_and_wait(Delivery::Epochs(told)).map_err(failed)
    }

    fn hear_of_own(&self, held: &Held) -> Result<bool, ReplicaError> {
        if self.goes_through(held).map_err(failed)? {
            return Ok(true);
        }
        tracing::error!(
            "a member has op {} of this device's journal, and this device has not: {}",
            held.seq,
            "it was restored from a backup, or its key is in use elsewhere"
        );
        self.deliver_and_wait(Delivery::Overtaken).map_err(failed)?;
        Ok(false)
    }

    fn batches(
        &self,
        journal: &DeviceId,
        after_seq: u64,
        bytes_max: usize,
    ) -> Result<Vec<Vec<u8>>, ReplicaError> {
        let Some(number) = self.journal(journal).map_err(failed)? else { return Ok(Vec::new()) };
        let durable = self.published.frontier().get(journal).copied().unwrap_or(0);
        let mut batches = Vec::new();
        let (mut bytes_total, mut next_seq) = (0, after_seq + 1);
        let page = self.store.batches(number, next_seq, PAGE_BATCHES).map_err(failed)?;
        for (seq, bytes) in page {
            let is_enough = !batches.is_empty() && bytes_total + bytes.len() > bytes_max;
            // Of a journal that a snapshot stood for, a part may be missing: nothing is sent behind it.
            if seq > durable || seq != next_seq || is_enough {
                break;
            }
            next_seq = batch_span(&bytes).map_err(failed)?.last_seq + 1;
            bytes_total += bytes.len();
            batches.push(bytes);
        }
        Ok(batches)
    }

    fn deliver(
        &self,
        _: &DeviceId,
        batches: Vec<Vec<u8>>,
        chunks: Vec<(ChunkId, Vec<u8>)>,
    ) -> Result<(), ReplicaError> {
        self.deliver_and_wait(Delivery::Batches(batches, chunks)).map_err(refused_or_failed)
    }

    fn fresh_chunks(&self, after_seq: u64, upto_seq: u64, bytes_max: usize) -> Vec<Vec<u8>> {
        let (mut chunks, mut left_bytes) = (Vec::new(), bytes_max);
        for id in self.published.fresh(after_seq, upto_seq) {
            // What cannot be read is asked for by itself, and fails there.
            let Ok(sealed) = self.store.read_chunk(&id) else { continue };
            let Some(left) = left_bytes.checked_sub(sealed.len()) else { break };
            left_bytes = left;
            chunks.push(sealed);
        }
        chunks
    }

    fn read_chunk(&self, id: &ChunkId) -> Result<Option<Vec<u8>>, ReplicaError> {
        match self.store.read_chunk(id) {
            Ok(sealed) => Ok(Some(sealed)),
            Err(StoreError::MissingChunk(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn store_chunks(&self, chunks: Vec<(ChunkId, Vec<u8>)>) -> Result<(), ReplicaError> {
        let mut kept = Vec::with_capacity(chunks.len());
        for (id, sealed) in chunks {
            // What the tree does not name is not kept.
            let is_awaited = self.awaited.lock().contains(&id);
            if is_awaited || self.store.wanted(&id).map_err(failed)?.is_some() {
                self.store.append(&id, &sealed).map_err(failed)?;
                kept.push(id);
            }
        }
        self.commit.chunks_came(kept);
        Ok(())
    }

    fn missing_chunks(&self, limit: usize, except: &HashSet<ChunkId>) -> Vec<ChunkId> {
        let (missing, unread) = self.look_for_missing(limit, except);
        if !unread.is_empty() {
            // Once they are read, `named` grows.
            self.commit.chunks_came(unread);
        }
        missing
    }

    fn missing_later_ms(&self) -> Option<u64> {
        let now_us = micros(self.env.clock.now());
        let (_, due_us) = self.published.late(now_us);
        due_us.map(|due_us| (due_us - now_us).div_ceil(1000))
    }

    fn named(&self) -> u64 {
        self.published.named()
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReplicaError> {
        if self.loading.is_coming() {
            return Err(ReplicaError::Failed("this device is being filled itself".into()));
        }
        let seed = Workspace::device_seed(&self.dir, &self.env).map_err(failed)?;
        let slot = PinSlot::default();
        let store = loop {
            self.deliver_and_wait(Delivery::Pin(Arc::clone(&slot))).map_err(failed)?;
            if let Some(store) = slot.lock().take() {
                break store;
            }
        };
        // Under the first secret, which is all that a joiner knows for certain.
        let sealer = Workspace::sealer(&self.dir, &self.settings, &self.env).map_err(failed)?;
        let key = DeviceKey::from_seed(&seed);
        Ok(Box::new(Telling::new(store, Arc::new(sealer), key, self.settings.workspace)))
    }

    fn gaps(&self) -> Vec<(DeviceId, u64)> {
        let Ok((bases, journals)) =
            self.store.bases().and_then(|bases| Ok((bases, self.store.journals()?)))
        else {
            return Vec::new();
        };
        let device = |number| journals.iter().find(|(known, _)| *known == number);
        let gaps = bases.into_iter();
        gaps.filter_map(|(number, base)| Some((device(number)?.1, base.upto))).collect()
    }

    fn store_history(&self, journal: &DeviceId, batches: Vec<Vec<u8>>) -> Result<(), ReplicaError> {
        self.deliver_and_wait(Delivery::History(*journal, batches)).map_err(refused_or_failed)
    }

    fn admit(&self, joiner: &DeviceId, request: &JoinRequest) -> Result<Welcome, ReplicaError> {
        if self.published.role(&self.device) != Some(Role::Admin) {
            tracing::warn!("{joiner} asks to join, but this device is no admin");
            return Err(ReplicaError::NotAdmitted(Refusal::Failed));
        }
        let invitations = Invitations::of(&self.dir, &self.env);
        let role = invitations
            .redeem(&request.token, joiner)
            .map_err(failed)?
            .map_err(ReplicaError::NotAdmitted)?;
        if self.published.revoked(joiner).is_some() {
            return Err(ReplicaError::NotAdmitted(Refusal::Revoked));
        }
        if self.published.role(joiner).is_none() {
            let name = DeviceName::new(&request.name).ok();
            self.say_of_member(MemberAsk::Role(*joiner, role, name))?;
            tracing::info!("{joiner}, called {:?}, is now a member ({role:?})", request.name);
        }
        let secret = Workspace::secret(&self.dir, &self.env).map_err(failed)?;
        Ok(Welcome {
            settings: self.settings.clone(),
            secret: (role != Role::Keeper).then_some(secret),
            founder: self.founder,
            role,
            inviter_name: self.own_name().map_err(failed)?,
        })
    }
}
