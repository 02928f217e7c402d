//! A workspace in memory: journals that are checked as real ones, chunks in a map.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidefs::codec::{batch_span, decode_batch, encode_batch};
use tidefs::engine::sync::{Replica, ReplicaError};
use tidefs::keys::{Chain, DeviceKey};
use tidefs::types::{
    ChunkId, DeviceId, Frontier, Hlc, JoinRequest, Refusal, Role, Settings, SharedSecret, Token,
    TreeRoot, Welcome, WorkspaceId,
};

pub const WORKSPACE: WorkspaceId = WorkspaceId([7; 16]);

/// All devices' clocks: later than anything heard.
static CLOCK: AtomicU64 = AtomicU64::new(1);

pub struct Memory {
    seed: [u8; 32],
    device: DeviceId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    members: BTreeSet<DeviceId>,
    chains: BTreeMap<DeviceId, Chain>,
    journals: BTreeMap<DeviceId, Vec<Vec<u8>>>,
    named: BTreeSet<ChunkId>,
    chunks: HashMap<ChunkId, Vec<u8>>,
    arrived: HashMap<ChunkId, u32>,
    served: usize,
    serve_delay: Duration,
    refused: usize,
    root: Option<TreeRoot>,
    /// Whether it has expired, and who has used it.
    invitations: HashMap<[u8; 16], (bool, Option<DeviceId>)>,
}

impl Memory {
    pub fn new(n: u8) -> Arc<Self> {
        let seed = [n; 32];
        let device = DeviceKey::from_seed(&seed).device();
        Arc::new(Self { seed, device, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics inside")
    }

    pub fn seed(&self) -> [u8; 32] {
        self.seed
    }

    pub fn device(&self) -> DeviceId {
        self.device
    }

    pub fn add_members(&self, members: &[DeviceId]) {
        self.state().members.extend(members);
    }

    pub fn cut(&self, member: &DeviceId) {
        self.state().members.remove(member);
    }

    pub fn invite(&self, token: &Token, expired: bool) {
        self.state().invitations.insert(token.0, (expired, None));
    }

    pub fn shows(&self, root: TreeRoot) {
        self.state().root = Some(root);
    }

    pub fn serve_slowly(&self, delay: Duration) {
        self.state().serve_delay = delay;
    }

    /// One batch that names these chunks.
    pub fn write(&self, chunks: &[&[u8]]) -> Vec<ChunkId> {
        let mut state = self.state();
        let ids: Vec<ChunkId> = chunks.iter().map(|bytes| ChunkId::of(bytes)).collect();
        for (id, bytes) in ids.iter().zip(chunks) {
            state.chunks.insert(*id, bytes.to_vec());
            state.named.insert(*id);
        }
        let ops = ids.iter().flat_map(|id| id.0).collect();
        let hlc = Hlc(CLOCK.fetch_add(1, Ordering::Relaxed));
        let device = self.device;
        let chain = state.chains.entry(device).or_insert_with(|| Chain::new(device));
        let (_, bytes) =
            chain.append(&DeviceKey::from_seed(&self.seed), hlc, 1, 0, Vec::new(), ops);
        state.journals.entry(device).or_default().push(bytes);
        ids
    }

    /// A batch whose signature is wrong.
    pub fn write_unsigned(&self) {
        self.write(&[b"unsigned"]);
        let mut state = self.state();
        let last = state.journals.get_mut(&self.device).and_then(|journal| journal.last_mut());
        let last = last.expect("just written");
        let mut batch = decode_batch(last).expect("a batch");
        batch.signature = [0; 64];
        *last = encode_batch(&batch);
    }

    pub fn journals(&self) -> Frontier {
        self.frontier()
    }

    pub fn has(&self, chunk: &ChunkId) -> bool {
        self.state().chunks.contains_key(chunk)
    }

    pub fn lacking(&self) -> usize {
        let state = self.state();
        state.named.iter().filter(|id| !state.chunks.contains_key(id)).count()
    }

    pub fn arrived(&self) -> usize {
        self.state().arrived.len()
    }

    pub fn arrived_twice(&self) -> usize {
        self.state().arrived.values().filter(|count| **count > 1).count()
    }

    pub fn served(&self) -> usize {
        self.state().served
    }

    pub fn refused(&self) -> usize {
        self.state().refused
    }
}

impl State {
    fn take(&mut self, bytes: Vec<u8>) -> Result<(), ReplicaError> {
        let refused = |why: String| ReplicaError::Refused(why);
        let batch = decode_batch(&bytes).map_err(|e| refused(e.to_string()))?;
        if !self.members.contains(&batch.journal) {
            return Err(refused("its author is no member".into()));
        }
        let device = batch.journal;
        let chain = self.chains.entry(device).or_insert_with(|| Chain::new(device));
        if batch.seq < chain.next_seq() {
            return Ok(());
        }
        chain.accept(&batch).map_err(|e| refused(e.to_string()))?;
        for id in batch.sealed_ops.chunks(32) {
            self.named.insert(ChunkId(id.try_into().expect("whole ids")));
        }
        self.journals.entry(device).or_default().push(bytes);
        Ok(())
    }
}

impl Replica for Memory {
    fn workspace(&self) -> WorkspaceId {
        WORKSPACE
    }

    fn device(&self) -> DeviceId {
        self.device
    }

    fn is_member(&self, device: &DeviceId) -> bool {
        self.state().members.contains(device)
    }

    fn members(&self) -> Vec<DeviceId> {
        self.state().members.iter().copied().collect()
    }

    fn frontier(&self) -> Frontier {
        let state = self.state();
        let ends = state.chains.iter().map(|(device, chain)| (*device, chain.next_seq() - 1));
        ends.filter(|(_, seq)| *seq > 0).collect()
    }

    fn tree_root(&self, _: &Frontier) -> Option<TreeRoot> {
        self.state().root
    }

    fn batches(
        &self,
        journal: &DeviceId,
        after_seq: u64,
        bytes_max: usize,
    ) -> Result<Vec<Vec<u8>>, ReplicaError> {
        let state = self.state();
        let mut total = 0;
        let behind = state
            .journals
            .get(journal)
            .into_iter()
            .flatten()
            .filter(|bytes| batch_span(bytes).expect("a batch").first_seq > after_seq);
        let batches = behind.take_while(|bytes| {
            let fits = total == 0 || total + bytes.len() <= bytes_max;
            total += bytes.len();
            fits
        });
        Ok(batches.cloned().collect())
    }

    fn deliver(
        &self,
        _from: &DeviceId,
        batches: Vec<Vec<u8>>,
        chunks: Vec<(ChunkId, Vec<u8>)>,
    ) -> Result<(), ReplicaError> {
        let mut state = self.state();
        for bytes in batches {
            if let Err(error) = state.take(bytes) {
                state.refused += 1;
                return Err(error);
            }
        }
        for (id, bytes) in chunks {
            if state.named.contains(&id) {
                *state.arrived.entry(id).or_insert(0) += 1;
                state.chunks.insert(id, bytes);
            }
        }
        Ok(())
    }

    fn read_chunk(&self, id: &ChunkId) -> Result<Option<Vec<u8>>, ReplicaError> {
        let (chunk, delay) = {
            let mut state = self.state();
            let chunk = state.chunks.get(id).cloned();
            state.served += usize::from(chunk.is_some());
            (chunk, state.serve_delay)
        };
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        Ok(chunk)
    }

    fn store_chunks(&self, chunks: Vec<(ChunkId, Vec<u8>)>) -> Result<(), ReplicaError> {
        let mut state = self.state();
        for (id, bytes) in chunks {
            assert_eq!(ChunkId::of(&bytes), id, "replication has verified it");
            *state.arrived.entry(id).or_insert(0) += 1;
            state.chunks.insert(id, bytes);
        }
        Ok(())
    }

    fn missing_chunks(&self, limit: usize, except: &HashSet<ChunkId>) -> Vec<ChunkId> {
        let state = self.state();
        let missing = state.named.iter().filter(|id| !state.chunks.contains_key(id));
        missing.filter(|id| !except.contains(id)).take(limit).copied().collect()
    }

    fn admit(&self, joiner: &DeviceId, request: &JoinRequest) -> Result<Welcome, ReplicaError> {
        let mut state = self.state();
        let refuse = |why| Err(ReplicaError::NotAdmitted(why));
        let Some((expired, used_by)) = state.invitations.get_mut(&request.token.0) else {
            return refuse(Refusal::UnknownInvitation);
        };
        if used_by.is_some_and(|by| by != *joiner) {
            return refuse(Refusal::UsedInvitation);
        }
        if *expired {
            return refuse(Refusal::ExpiredInvitation);
        }
        *used_by = Some(*joiner);
        state.members.insert(*joiner);
        let settings = Settings {
            workspace: WORKSPACE,
            name: "work".into(),
            encryption: true,
            compression: true,
        };
        Ok(Welcome {
            settings,
            secret: Some(SharedSecret([9; 32])),
            founder: self.device,
            role: Role::Writer,
            inviter_name: "ada".into(),
        })
    }
}
