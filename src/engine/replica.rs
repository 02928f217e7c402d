//! This device's workspace, as replication sees it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::{DeliverError, EngineError};
use super::handle::{CommitHandle, Delivery};
use super::invitations::Invitations;
use super::journal::micros;
use super::merger::MergeError;
use super::published::Published;
use super::sync::{Replica, ReplicaError};
use super::workspace::{OpenWorkspace, Workspace};
use crate::env::Env;
use crate::store::{Store, StoreError};
use crate::types::{
    ChunkId, DeviceId, DeviceName, DeviceNames, Frontier, Ino, JoinRequest, Refusal, Role,
    Settings, Welcome, WorkspaceId,
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
    device: DeviceId,
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
            device: workspace.device(),
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

    /// Makes a device a member or gives it another role. Durable on return.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`]. What a device that is no admin says has no effect.
    pub fn set_role(&self, device: &DeviceId, role: Role) -> Result<(), ReplicaError> {
        self.deliver_and_wait(Delivery::Members(vec![(*device, role, None)])).map_err(failed)
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
        // Before the first batches have come, a new member knows the founder alone.
        self.published.role(device).is_some() || *device == self.founder
    }

    fn members(&self) -> Vec<DeviceId> {
        self.published.roles().into_iter().map(|(device, _)| device).collect()
    }

    fn frontier(&self) -> Frontier {
        self.published.frontier().into_iter().filter(|(_, seq)| *seq > 0).collect()
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
        let mut bytes_total = 0;
        let page = self.store.batches(number, after_seq + 1, PAGE_BATCHES).map_err(failed)?;
        for (seq, bytes) in page {
            let is_enough = !batches.is_empty() && bytes_total + bytes.len() > bytes_max;
            if seq > durable || is_enough {
                break;
            }
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
        self.deliver_and_wait(Delivery::Batches(batches, chunks)).map_err(|error| match error {
            DeliverError::Refused(MergeError::Refused { .. }) => {
                ReplicaError::Refused(error.to_string())
            }
            other => failed(other),
        })
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
        if self.published.role(joiner).is_none() {
            let name = DeviceName::new(&request.name).ok();
            self.deliver_and_wait(Delivery::Members(vec![(*joiner, role, name)]))
                .map_err(failed)?;
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
