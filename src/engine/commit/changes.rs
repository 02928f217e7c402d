//! What a commit takes from the tree, and what the tree hears of it.

use std::sync::Arc;

use super::super::EngineError;
use super::super::merger::ViewChange;
use super::super::pending::TakenOps;
use crate::chunk::{ExtentMap, Manifest};
use crate::types::{
    ChunkRef, EntryId, EntryRecord, FileId, Ino, NameHash, NodeRecord, Op, Timestamp, VersionId,
};

/// The tree, as the commit thread sees it.
pub trait Source: Send + std::marker::Sync {
    /// Takes all that changed since the last call.
    fn collect(&self) -> Changes;
    /// Commit `number`, with these nodes and drafts, is in the store.
    fn committed(&self, number: u64, inos: &[Ino], drafts: Vec<StoredDraft>);
    /// Nothing can be stored any more.
    fn latch(&self, why: &str);
    /// Changes wait (true) until they are let go again. Reads go on.
    fn hold(&self, held: bool);
    /// The store has taken in what other devices did; nothing here is changed meanwhile.
    fn merged(&self, change: ViewChange);
    /// Appends an op of this device's own that no file operation makes.
    fn emit(&self, op: Op);
    /// The whole content of a version, all of whose chunks are here.
    ///
    /// # Errors
    /// If the store cannot read it.
    fn read_version(&self, file: FileId, version: VersionId) -> Result<Vec<u8>, EngineError>;
    /// A chunk's plain bytes.
    ///
    /// # Errors
    /// If the store cannot read it.
    fn open_chunk(&self, chunk: &ChunkRef) -> Result<Arc<[u8]>, EngineError>;
}

/// What one commit takes.
#[derive(Debug)]
pub struct Changes {
    /// From 1, growing by one.
    pub number: u64,
    /// Ops, and the numbers of the writes that follow them.
    pub ops: TakenOps,
    /// Content to store.
    pub drafts: Vec<TakenDraft>,
    /// Nodes to put, or to delete.
    pub nodes: Vec<(Ino, Option<NodeRecord>)>,
    /// Names to put.
    pub entries_put: Vec<EntryRecord>,
    /// Names to remove.
    pub entries_removed: Vec<(Ino, NameHash, EntryId)>,
    /// How many nodes then have a name.
    pub live_nodes: u64,
}

/// A file's draft, taken by value.
#[derive(Debug)]
pub struct TakenDraft {
    /// The file here.
    pub ino: Ino,
    /// What becomes of it.
    pub target: DraftTarget,
    /// Chunks below.
    pub base: Arc<Manifest>,
    /// Committed patches over them.
    pub patches: Arc<ExtentMap>,
    /// How many versions those are.
    pub patch_count: u32,
    /// The draft.
    pub frozen: Arc<ExtentMap>,
    /// Length of the file, in bytes.
    pub size_bytes: u64,
    /// The layers stand on the head, which can take one more patch.
    pub may_patch: bool,
}

/// What becomes of a draft.
#[derive(Debug)]
pub enum DraftTarget {
    /// A new version of a file.
    Version {
        /// Which file.
        file: FileId,
        /// The new version.
        id: VersionId,
        /// The head before.
        parent: Option<VersionId>,
        /// Heads beside it that a person has decided against.
        resolved: Vec<VersionId>,
        /// The head before, if history need not keep it.
        replaces: Option<VersionId>,
        /// History need not keep this one either.
        interim: bool,
        /// The file's modification time.
        mtime: Timestamp,
        /// Written through a file opened before a peer's change replaced it: the new version
        /// stands beside the peer's.
        detached: bool,
    },
    /// A version that exists is stored anew, without patches.
    Fold {
        /// Which file.
        file: FileId,
        /// Which version.
        id: VersionId,
    },
    /// Content without a name: its chunks free memory, and go with the last open handle.
    Nameless,
}

/// Where a file's content stands after a commit.
#[derive(Debug)]
pub struct StoredDraft {
    /// The file here.
    pub ino: Ino,
    /// Chunks.
    pub base: Arc<Manifest>,
    /// Patches over them.
    pub patches: Arc<ExtentMap>,
    /// How many.
    pub patch_count: u32,
    /// Bytes that are not holes.
    pub stored_bytes: u64,
}

impl Changes {
    /// Only ops so far.
    pub fn new(ops: TakenOps) -> Self {
        Self {
            number: 0,
            ops,
            drafts: Vec::new(),
            nodes: Vec::new(),
            entries_put: Vec::new(),
            entries_removed: Vec::new(),
            live_nodes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ops.ops.is_empty()
            && self.drafts.is_empty()
            && self.nodes.is_empty()
            && self.entries_put.is_empty()
            && self.entries_removed.is_empty()
    }
}
