//! POSIX meaning: inodes, names, open files, drafts.
//!
//! The room owns the tree in memory and what each system call does to it. It refuses to know how
//! bytes are stored or signed. Invariants:
//!
//! - One lock guards the tree; nobody holds it across I/O. An operation that lacks something says
//!   what (`load::Miss`), having changed nothing; that is fetched without the lock, and the
//!   operation starts again.
//! - What a commit has not stored stays in memory. A commit takes everything changed so far, so
//!   what a crash loses is always the last changes, never some in the middle.

mod attr;
mod body;
mod cache;
mod changes;
mod dir;
mod error;
mod load;
mod ops;
mod space;
mod tree;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub use attr::{
    Allocate, Attr, Caller, DirEntry, RenameMode, Seek, SetAttr, SetTime, StatFs, Wait, XattrMode,
};
pub use error::{FsError, FsResult};
pub use ops::{Making, Writing};

use crate::chunk::Sealer;
use crate::engine::{
    CommitHandle, CommitThread, EngineError, LocalReplica, OpenWorkspace, PendingOps, Source,
    Urgency,
};
use crate::env::Env;
use crate::store::Store;
use crate::types::limits::CHUNK_BYTES_MAX;
use crate::types::{ChunkId, ConflictResolution, Ino, Name, Standing, Timestamp};
use cache::ChunkCache;
use load::{Loaded, Miss};
use space::{OP_BYTES, Space};
use tree::Tree;

/// The answer to a sync: called once, from the commit thread.
pub type SyncDone = Box<dyn FnOnce(FsResult<()>) + Send>;

/// Something that another device changed, and that the kernel may have kept.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Notice {
    /// What a name in a directory stands for.
    Name(Ino, Name),
    /// A file's attributes.
    Attributes(Ino),
    /// A directory's attributes and names.
    Listing(Ino),
}

/// Hears of changes that other devices made, from the commit thread.
pub type Watcher = Box<dyn Fn(&[Notice]) + Send + Sync>;

/// Brings chunks from other devices.
pub trait Fetch: Send + Sync {
    /// Fetches a chunk and stores it. Waits, within a bound.
    ///
    /// # Errors
    /// Why it could not be had.
    fn fetch(&self, chunk: &ChunkId) -> Result<(), String>;
}

/// The name at the root that is kept for tidefs itself.
pub const RESERVED_NAME: &[u8] = b".tidefs";

/// How long a listing or a change waits for what is still to come of a workspace that is being
/// filled.
const LOADING_WAIT: Duration = Duration::from_secs(30);

/// How often an operation may find that what it fetched was forgotten again before it gives up.
const ATTEMPTS_MAX: u32 = 1000;

/// How a workspace is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Refuse every change.
    pub read_only: bool,
    /// Bound of caches and drafts, in bytes (`max_memory_mb`).
    pub memory_bytes_max: u64,
    /// What becomes of files that were changed on two devices apart.
    pub conflict_resolution: ConflictResolution,
    /// New content is cut into chunks of at most this many bytes (`chunk_size`).
    pub chunk_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: false,
            memory_bytes_max: 512 << 20,
            conflict_resolution: ConflictResolution::default(),
            chunk_bytes_max: CHUNK_BYTES_MAX,
        }
    }
}

/// A workspace, open for file operations, from any thread. Cheap to clone.
///
/// Every call that takes a [`Wait`] returns [`FsError::WouldBlock`], having changed nothing, if it
/// would have to wait and may not.
#[derive(Clone)]
pub struct Filesystem {
    inner: Arc<Inner>,
    commit_thread: Arc<Mutex<Option<CommitThread>>>,
    replica: Arc<LocalReplica>,
}

/// What the operations share.
struct Inner {
    tree: Mutex<Tree>,
    /// Signalled after each commit, for writers that wait for memory.
    room: Condvar,
    draft_bytes_max: u64,
    store: Store,
    sealer: Arc<Sealer>,
    chunks: ChunkCache,
    space: Space,
    commit: CommitHandle,
    env: Env,
    read_only: bool,
    /// Why nothing can be changed any more.
    latched: OnceLock<String>,
    /// Hears what other devices changed.
    watcher: OnceLock<Watcher>,
    replica: Arc<LocalReplica>,
    /// Brings chunks that are not here.
    fetcher: OnceLock<Arc<dyn Fetch>>,
}

/// Why an attempt at an operation ended.
enum Stop {
    /// With this error.
    Fail(FsError),
    /// For want of this.
    Miss(Miss),
}

impl Stop {
    /// What the caller hears who may not wait.
    fn error(self) -> FsError {
        match self {
            Self::Fail(error) => error,
            Self::Miss(_) => FsError::WouldBlock,
        }
    }
}

impl From<FsError> for Stop {
    fn from(error: FsError) -> Self {
        Self::Fail(error)
    }
}

impl From<Miss> for Stop {
    fn from(miss: Miss) -> Self {
        Self::Miss(miss)
    }
}

impl Filesystem {
    /// Opens the workspace whose state is in `dir`, and starts its commit thread.
    ///
    /// # Errors
    /// [`EngineError::Locked`] if a process holds it, [`EngineError::Missing`] if none is there.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, EngineError> {
        Self::serve(OpenWorkspace::open(dir, &Env::real())?, options)
    }

    /// Serves a workspace that is open already.
    ///
    /// # Errors
    /// If the commit thread cannot be started.
    pub fn serve(workspace: OpenWorkspace, options: &Options) -> Result<Self, EngineError> {
        Self::over(workspace, options, CommitThread::start)
    }

    /// Serves a workspace without a thread of its own: what is committed is committed by those who
    /// wait for it, and at each [`Filesystem::turn`]. For simulations, where nothing may depend on
    /// when a thread runs; only one thread may use it.
    ///
    /// # Errors
    /// As [`Filesystem::serve`].
    pub fn serve_by_hand(workspace: OpenWorkspace, options: &Options) -> Result<Self, EngineError> {
        Self::over(workspace, options, |workspace, handle, source| {
            Ok(CommitThread::by_hand(workspace, handle, source))
        })
    }

    fn over(
        mut workspace: OpenWorkspace,
        options: &Options,
        commit_by: impl FnOnce(
            OpenWorkspace,
            CommitHandle,
            Arc<dyn Source>,
        ) -> Result<CommitThread, EngineError>,
    ) -> Result<Self, EngineError> {
        workspace.set_conflicts(options.conflict_resolution);
        workspace.sealer.set_chunk_bytes_max(options.chunk_bytes_max);
        let memory = options.memory_bytes_max;
        let pending = PendingOps::new(workspace.journal_number(), workspace.next_seq());
        let live_nodes = workspace.store.live_nodes()?;
        let tree = Tree::new(workspace.name_hasher(), pending, live_nodes, memory / 4);
        let commit = CommitHandle::default();
        let replica = Arc::new(LocalReplica::new(&workspace, commit.clone())?);
        let inner = Arc::new(Inner {
            tree: Mutex::new(tree),
            room: Condvar::new(),
            draft_bytes_max: memory / 4,
            store: workspace.store.clone(),
            sealer: Arc::clone(&workspace.sealer),
            chunks: ChunkCache::new(memory / 4),
            space: Space::default(),
            commit,
            env: workspace.env.clone(),
            read_only: options.read_only,
            latched: OnceLock::new(),
            watcher: OnceLock::new(),
            replica: Arc::clone(&replica),
            fetcher: OnceLock::new(),
        });
        let source = Arc::clone(&inner);
        let thread = commit_by(workspace, inner.commit.clone(), source)?;
        Ok(Self { inner, commit_thread: Arc::new(Mutex::new(Some(thread))), replica })
    }

    /// The workspace, as replication sees it.
    pub fn replica(&self) -> &Arc<LocalReplica> {
        &self.replica
    }

    /// Tells `watcher` what other devices change. The first that is set stays.
    pub fn set_watcher(&self, watcher: Watcher) {
        if self.inner.watcher.set(watcher).is_err() {
            tracing::warn!("another watcher is there already");
        }
    }

    /// Asks `fetcher` for chunks that are not here. The first that is set stays.
    pub fn set_fetcher(&self, fetcher: Arc<dyn Fetch>) {
        if self.inner.fetcher.set(fetcher).is_err() {
            tracing::warn!("another fetcher is there already");
        }
    }

    /// Commits everything, stops the commit thread and closes the store. Later calls find
    /// nothing to do. Waits for the disk.
    ///
    /// # Errors
    /// If the last commit failed: what was not durable before is lost.
    pub fn close(&self) -> Result<(), EngineError> {
        match self.commit_thread.lock().take() {
            Some(thread) => thread.finish(),
            None => Ok(()),
        }
    }

    /// Served by hand: commits what has changed so far, as the thread would once it is due.
    pub fn turn(&self) {
        if let Some(committer) = &*self.commit_thread.lock() {
            committer.turn();
        }
    }

    /// Makes everything done before this call durable, then calls `done` from the commit thread.
    ///
    /// `file` is the one that was asked for: its content becomes a version of its own in history.
    pub fn sync(&self, file: Option<Ino>, done: SyncDone) {
        if let Some(ino) = file {
            let mut tree = self.inner.tree.lock();
            let mut is_unfinished = false;
            if let Some(node) = tree.peek(ino)
                && let Some(body) = node.body.as_mut()
            {
                // A commit may have taken it already: the head is to stay.
                body.finish_head(node.rec.size_bytes);
                body.keep_version = body.changed;
                is_unfinished = body.changed;
            }
            if is_unfinished {
                tree.change(ino);
            }
        }
        self.inner.commit.sync(Box::new(move |result| done(result.map_err(FsError::from))));
    }

    /// As [`Filesystem::sync`], waiting for it.
    ///
    /// # Errors
    /// [`FsError::NoSpace`], or [`FsError::Io`] if it is not durable and will not be.
    pub fn sync_now(&self, file: Option<Ino>) -> FsResult<()> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.sync(file, Box::new(move |result| drop(sender.send(result))));
        let replied = self.inner.commit.wait_for(&receiver);
        replied.unwrap_or_else(|_| Err(FsError::Io("the workspace is closed".into())))
    }
}

/// Why a device of this standing can change nothing.
pub fn why_read_only(standing: Standing) -> &'static str {
    match standing {
        Standing::Member(_) => {
            "this device is a reader of the workspace; an admin can make it a writer"
        }
        Standing::Revoked => {
            "this device was revoked: an admin has taken it out of the workspace; what is here can \
             be read"
        }
        Standing::Overtaken => {
            "other devices have more of this device's journal than it has: it was restored from a \
             backup, or another machine uses its key. What is here can be read. Join anew under \
             another name with a ticket from another device, then copy over what is only here"
        }
        Standing::Unknown => {
            "this device is no member of the workspace, or has not heard that it is"
        }
    }
}

impl Inner {
    /// Attempts `step` under the lock until it has all it needs.
    fn run<R>(
        &self,
        wait: Wait,
        mut step: impl FnMut(&mut Tree, &mut Loaded) -> Result<R, Stop>,
    ) -> FsResult<R> {
        let mut loaded = Loaded::default();
        let mut fetched = None;
        for _ in 0..ATTEMPTS_MAX {
            let (miss, forgotten) = {
                let mut tree = self.tree.lock();
                let has_fetched = fetched.is_some();
                // Laid in and used under one lock, lest another's need of memory takes it away.
                if let Some((fetched, forgotten)) = fetched.take()
                    && tree.forgotten == forgotten
                {
                    Self::install(&mut tree, fetched)?;
                }
                if loaded.forgotten != tree.forgotten {
                    loaded.page = None;
                    loaded.forgotten = tree.forgotten;
                }
                match step(&mut tree, &mut loaded) {
                    Err(Stop::Miss(miss)) if wait != Wait::Never => (miss, tree.forgotten),
                    result => {
                        if has_fetched && tree.is_large() {
                            tree.shrink();
                        }
                        return result.map_err(Stop::error);
                    }
                }
            };
            let found = match wait {
                Wait::May => self.fetch(miss, &mut loaded)?,
                _ => self.fetch_briefly(miss, &mut loaded)?,
            };
            fetched = Some((found, forgotten));
        }
        Err(FsError::Io("memory is too small for what is going on".into()))
    }

    /// As [`Inner::run`], for an operation that changes names or attributes.
    fn run_change<R>(
        &self,
        wait: Wait,
        mut step: impl FnMut(&mut Tree, &mut Loaded) -> Result<R, Stop>,
    ) -> FsResult<R> {
        self.begin_change(wait)?;
        let result = self.run(wait, |tree, loaded| {
            self.check_turn(tree)?;
            step(tree, loaded)
        })?;
        self.commit.nudge(Urgency::Soon);
        Ok(result)
    }

    /// Before a change: it waits until the workspace is whole, for what it changes may still come.
    fn begin_change(&self, wait: Wait) -> FsResult<()> {
        let loading = self.replica.loading();
        if loading.is_coming() && !self.read_only {
            if wait != Wait::May {
                return Err(FsError::WouldBlock);
            }
            loading.wait_until_whole(LOADING_WAIT).map_err(FsError::Io)?;
        }
        self.check_writable()
    }

    fn check_writable(&self) -> FsResult<()> {
        if self.read_only {
            return Err(FsError::ReadOnly("mounted read-only".into()));
        }
        match self.latched.get() {
            Some(why) => Err(FsError::ReadOnly(why.clone())),
            None => self.check_role(),
        }
    }

    /// Nothing that this device may not change is changed here: it would count nowhere else.
    fn check_role(&self) -> FsResult<()> {
        match self.replica.standing() {
            standing if standing.may_write() => Ok(()),
            standing => Err(FsError::ReadOnly(why_read_only(standing).into())),
        }
    }

    /// A change waits while another device's changes are merged: they may be of what it works on,
    /// or of what this device may do.
    fn check_turn(&self, tree: &Tree) -> Result<(), Stop> {
        if tree.pending.held {
            return Err(Miss::Room.into());
        }
        Ok(self.check_role()?)
    }

    /// Takes room for a change of names or attributes.
    fn take_op_room(&self, tree: &Tree) -> Result<(), Stop> {
        if tree.pending.is_full() {
            return Err(Miss::Room.into());
        }
        Ok(self.take_room(OP_BYTES, tree)?)
    }

    fn take_room(&self, bytes: u64, tree: &Tree) -> FsResult<()> {
        let uncommitted = tree.draft_bytes + tree.pending.len() as u64 * OP_BYTES;
        self.space.take(bytes, uncommitted, || Ok(self.store.free_space()?.available_bytes))
    }

    fn now(&self) -> Timestamp {
        self.env.clock.now()
    }
}

#[cfg(test)]
mod tests;
