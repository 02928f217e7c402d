//! What the commit thread tells other threads: how far each journal is here, and who is a member.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use parking_lot::{Condvar, Mutex};

use super::merger::Revoked;
use crate::types::limits::{CARRY_BYTES, CARRY_CHUNKS_MAX, FRESH_COMMITS_MAX};
use crate::types::{ChunkId, DeviceId, EpochId, FileId, Frontier, Held, Role};

/// Content of a large file that is still being written is fetched this often.
const LATE_US: u64 = 5_000_000;

/// Kept up to date by the commit thread; read by any.
#[derive(Default)]
pub struct Published {
    now: Mutex<Now>,
    changed: Condvar,
    watcher: Mutex<Option<Box<dyn Fn() + Send>>>,
}

#[derive(Clone, Default)]
struct Now {
    /// The last op of each journal, and the hash of its last batch.
    heads: BTreeMap<DeviceId, Held>,
    roles: Vec<(DeviceId, Role)>,
    revoked: Vec<Revoked>,
    is_overtaken: bool,
    epochs: Vec<EpochId>,
    named: u64,
    /// The chunks that the last commits have stored, each with the last op that it is of.
    fresh: VecDeque<(u64, Vec<ChunkId>)>,
    late: HashMap<FileId, LateRoot>,
}

/// A root that is fetched later, unless another has taken its place by then.
#[derive(Clone)]
struct LateRoot {
    id: ChunkId,
    due_us: u64,
}

/// The chunks that a commit stores, as long as they are few enough to go along with its batches.
#[derive(Default)]
pub(super) struct Fresh {
    ids: Vec<ChunkId>,
    bytes: usize,
}

impl Fresh {
    /// One more.
    pub fn add(&mut self, id: ChunkId, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= CARRY_BYTES && self.ids.len() < CARRY_CHUNKS_MAX {
            self.ids.push(id);
        } else {
            // Some of it would only be in the way of asking for all of it.
            self.bytes = usize::MAX;
            self.ids.clear();
        }
    }
}

impl Published {
    pub(super) fn set(
        &self,
        heads: BTreeMap<DeviceId, Held>,
        roles: Vec<(DeviceId, Role)>,
        revoked: Vec<Revoked>,
        is_overtaken: bool,
    ) {
        let is_new = {
            let mut now = self.now.lock();
            let is_new = now.heads != heads || now.is_overtaken != is_overtaken;
            (now.heads, now.roles, now.revoked) = (heads, roles, revoked);
            now.is_overtaken = is_overtaken;
            is_new
        };
        self.changed.notify_all();
        if is_new {
            self.tell();
        }
    }

    /// A commit whose last op is `seq` has stored these. Told before the commit is.
    pub(super) fn add_fresh(&self, seq: u64, fresh: Fresh) {
        if fresh.ids.is_empty() {
            return;
        }
        let mut now = self.now.lock();
        if now.fresh.len() == FRESH_COMMITS_MAX {
            now.fresh.pop_front();
        }
        now.fresh.push_back((seq, fresh.ids));
    }

    /// Chunks stored with this device's ops behind `after_seq` up to `upto_seq`, as far as they are
    /// remembered.
    pub fn fresh(&self, after_seq: u64, upto_seq: u64) -> Vec<ChunkId> {
        let now = self.now.lock();
        let commits = now.fresh.iter().filter(|(seq, _)| (after_seq + 1..=upto_seq).contains(seq));
        commits.flat_map(|(_, ids)| ids).copied().collect()
    }

    /// These files are still being written: what these roots of theirs name is to be fetched some
    /// seconds after the first of a row.
    pub(super) fn set_late(&self, roots: impl Iterator<Item = (FileId, ChunkId)>, now_us: u64) {
        let mut now = self.now.lock();
        let before = std::mem::take(&mut now.late);
        for (file, id) in roots {
            let known = before.get(&file).filter(|late| late.id == id || late.due_us > now_us);
            let due_us = known.map_or(now_us + LATE_US, |late| late.due_us);
            now.late.insert(file, LateRoot { id, due_us });
        }
    }

    /// The roots that are not due yet, and when the first of them will be.
    pub(super) fn late(&self, now_us: u64) -> (HashSet<ChunkId>, Option<u64>) {
        let now = self.now.lock();
        // A clock that was set back must not make it much later.
        let waits = |late: &&LateRoot| (now_us..=now_us + LATE_US).contains(&(late.due_us - 1));
        let late = now.late.values().filter(waits);
        (late.clone().map(|late| late.id).collect(), late.map(|late| late.due_us).min())
    }

    /// Chunks that have come name others, which are not here.
    pub(super) fn set_named(&self) {
        self.now.lock().named += 1;
        self.tell();
    }

    fn tell(&self) {
        if let Some(watcher) = &*self.watcher.lock() {
            watcher();
        }
    }

    /// How often chunks that came have named others. A batch that names some is not counted.
    pub fn named(&self) -> u64 {
        self.now.lock().named
    }

    /// Calls `watcher`, which must not wait, whenever a journal has grown durably, and whenever
    /// chunks that came have named others.
    pub fn watch(&self, watcher: Box<dyn Fn() + Send>) {
        *self.watcher.lock() = Some(watcher);
    }

    /// The last op of each journal that is durable here.
    pub fn frontier(&self) -> BTreeMap<DeviceId, u64> {
        let now = self.now.lock();
        now.heads.iter().map(|(device, held)| (*device, held.seq)).collect()
    }

    pub(super) fn set_epochs(&self, epochs: Vec<EpochId>) {
        self.now.lock().epochs = epochs;
    }

    /// The epochs after the first that were heard of.
    pub fn epochs(&self) -> Vec<EpochId> {
        self.now.lock().epochs.clone()
    }

    /// How far a journal is durable here.
    pub fn head(&self, device: &DeviceId) -> Option<Held> {
        self.now.lock().heads.get(device).copied()
    }

    /// Do others have more of this device's journal than it has itself?
    pub fn is_overtaken(&self) -> bool {
        self.now.lock().is_overtaken
    }

    /// The members and their roles, as far as this device has heard.
    pub fn roles(&self) -> Vec<(DeviceId, Role)> {
        self.now.lock().roles.clone()
    }

    /// What a device may do; `None` if it is no member.
    pub fn role(&self, device: &DeviceId) -> Option<Role> {
        self.now.lock().roles.iter().find(|(of, _)| of == device).map(|(_, role)| *role)
    }

    /// Was a device a member, and is revoked? Then up to where it may be told of each journal.
    pub fn revoked(&self, device: &DeviceId) -> Option<Frontier> {
        let now = self.now.lock();
        let revoked = now.revoked.iter().find(|revoked| revoked.device == *device);
        revoked.map(|revoked| revoked.told.clone())
    }

    /// Waits until a device may do something else than `role`; says what.
    pub fn wait_for_other_role(&self, device: &DeviceId, role: Option<Role>) -> Option<Role> {
        let mut now = self.now.lock();
        let role_in = |now: &Now| now.roles.iter().find(|(of, _)| of == device).map(|of| of.1);
        self.changed.wait_while(&mut now, |now| role_in(now) == role);
        role_in(&now)
    }

    /// Waits until this device is a member, at most `wait`. False if it is not even then.
    pub fn wait_for_role(&self, device: &DeviceId, wait: std::time::Duration) -> bool {
        let mut now = self.now.lock();
        let is_member = |now: &Now| now.roles.iter().any(|(of, _)| of == device);
        self.changed.wait_while_for(&mut now, |now| !is_member(now), wait);
        is_member(&now)
    }
}
