//! What replication needs of a workspace.

use std::collections::HashSet;

use crate::types::{
    ChunkId, DeviceId, EpochSecret, Frontier, Held, JoinRequest, Refusal, TreeRoot, Welcome,
    WorkspaceId,
};

/// A workspace, as replication sees it. Calls may block for the disk; none is made from an async
/// worker.
pub trait Replica: Send + Sync + 'static {
    /// Which workspace it is.
    fn workspace(&self) -> WorkspaceId;

    /// This device.
    fn device(&self) -> DeviceId;

    /// May this device talk to us: is it a member that is not cut?
    ///
    /// Must not block: it is asked for each connection that comes in, by an async worker.
    fn is_member(&self, device: &DeviceId) -> bool;

    /// Was this device a member, and is revoked? Then up to where it may be told of each journal: so
    /// far that it learns of it.
    ///
    /// Must not block, as above.
    fn parting(&self, _device: &DeviceId) -> Option<Frontier> {
        None
    }

    /// How far a journal is here, durably; `None` if nothing is. Must not block, as above.
    fn held(&self, _journal: &DeviceId) -> Option<Held> {
        None
    }

    /// The secrets that a member may be told.
    fn epochs_for(&self, _peer: &DeviceId) -> Vec<EpochSecret> {
        Vec::new()
    }

    /// Keeps secrets that a member has told. Durable on return.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`].
    fn learn_epochs(&self, _told: Vec<EpochSecret>) -> Result<(), ReplicaError> {
        Ok(())
    }

    /// A member has so much of this device's own journal. If this device has not, then it was
    /// restored from a backup, or another machine uses its key: it must not go on with that journal,
    /// and the answer is false.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`] if it cannot be read, or be noted.
    fn hear_of_own(&self, _held: &Held) -> Result<bool, ReplicaError> {
        Ok(true)
    }

    /// All members that are not cut; this device may be among them.
    fn members(&self) -> Vec<DeviceId>;

    /// How far each journal is here, durably.
    fn frontier(&self) -> Frontier;

    /// The root of the tree at this frontier; `None` if not all of it is folded yet.
    fn tree_root(&self, _at: &Frontier) -> Option<TreeRoot> {
        None
    }

    /// Encoded batches of a journal that follow `after_seq`, oldest first, at least one if there is any,
    /// up to about `bytes_max`. None if what follows is not here, whatever comes later.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`] if they cannot be read.
    fn batches(
        &self,
        journal: &DeviceId,
        after_seq: u64,
        bytes_max: usize,
    ) -> Result<Vec<Vec<u8>>, ReplicaError>;

    /// Verifies, merges and stores batches; durable on return. Batches already here are skipped.
    /// Of `chunks`, which bear their true ids, those are stored too that the tree then lacks.
    ///
    /// One call runs at a time.
    ///
    /// # Errors
    /// [`ReplicaError::Refused`] costs the peer its connection.
    fn deliver(
        &self,
        from: &DeviceId,
        batches: Vec<Vec<u8>>,
        chunks: Vec<(ChunkId, Vec<u8>)>,
    ) -> Result<(), ReplicaError>;

    /// Sealed chunks that this device stored with its own ops behind `after_seq` up to `upto_seq`,
    /// oldest first: what is remembered of them, at most `bytes_max` in all.
    fn fresh_chunks(&self, _after_seq: u64, _upto_seq: u64, _bytes_max: usize) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// A chunk's sealed bytes, or `None` if it is not here.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`] if it cannot be read.
    fn read_chunk(&self, id: &ChunkId) -> Result<Option<Vec<u8>>, ReplicaError>;

    /// Stores sealed chunks, which bear their true ids. Durable soon; what they name counts as missing
    /// once [`Replica::named`] has grown.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`] if they cannot be kept: they are asked for again later.
    fn store_chunks(&self, chunks: Vec<(ChunkId, Vec<u8>)>) -> Result<(), ReplicaError>;

    /// Chunks named by the tree that are not here, at most `limit`, not those in `except`.
    fn missing_chunks(&self, limit: usize, except: &HashSet<ChunkId>) -> Vec<ChunkId>;

    /// In how many milliseconds more will be missing, if nothing else happens.
    fn missing_later_ms(&self) -> Option<u64> {
        None
    }

    /// Grows when chunks that were stored turn out to name others that are not here. What batches
    /// name is not counted.
    fn named(&self) -> u64 {
        0
    }

    /// This moment of the workspace, to be told to a member that has nothing yet. Waits until what was
    /// done so far is committed and folded.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`] if it is not told here: the member hears the journals instead.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReplicaError> {
        Err(ReplicaError::Failed("no snapshot is told here".into()))
    }

    /// Journals of which a snapshot stood for the beginning, each with the last op of what has come of
    /// it since.
    fn gaps(&self) -> Vec<(DeviceId, u64)> {
        Vec::new()
    }

    /// Takes in batches that follow such an op: checked and stored, no more, for what they did is in
    /// the tree already.
    ///
    /// # Errors
    /// [`ReplicaError::Refused`] if they do not lead to what the snapshot said.
    fn store_history(
        &self,
        _journal: &DeviceId,
        _batches: Vec<Vec<u8>>,
    ) -> Result<(), ReplicaError> {
        Ok(())
    }

    /// A joiner shows the invitation's token: makes it a member (durable) or says why not.
    ///
    /// A joiner that was admitted with this token before, and lost the answer, is told it again.
    ///
    /// # Errors
    /// [`ReplicaError::NotAdmitted`] is told to the joiner; any other error reads there as
    /// [`Refusal::Failed`].
    fn admit(&self, joiner: &DeviceId, request: &JoinRequest) -> Result<Welcome, ReplicaError>;
}

/// One moment of a workspace.
pub trait Snapshot: Send {
    /// The next encoded part; none behind the last. Reads the disk.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`] if it cannot be read.
    fn next_part(&mut self) -> Result<Option<Vec<u8>>, ReplicaError>;
}

/// Why the workspace did not do what replication asked.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// What a peer sent is wrong: not signed, a fork, not allowed.
    #[error("refused: {0}")]
    Refused(String),
    /// The joiner is not admitted.
    #[error("not admitted: {0}")]
    NotAdmitted(Refusal),
    /// This device could not, through no fault of the peer: disk full, closed, damaged.
    #[error("{0}")]
    Failed(String),
}
