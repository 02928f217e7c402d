//! The commit: the one function through which a change becomes durable.
//!
//! One thread runs it. It takes from the tree all that changed so far, stores drafts as chunks or
//! as patches, signs the ops as batches of this device's journal, and hands everything to the
//! store as one transaction. So a crash leaves the tree as it was at some commit: what is lost is
//! the last changes, never some in the middle.

mod changes;
mod deliver;
mod drafts;
mod history;
mod load;
mod texts;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub use changes::{Changes, DraftTarget, Source, StoredDraft, TakenDraft};
use drafts::record_version;
pub(super) use load::PinSlot;
use parking_lot::Mutex;

use super::EngineError;
use super::handle::{Asked, CommitHandle};
use super::journal::{HeardSoFar, JournalWriter};
use super::loading::Loading;
use super::merger::{self, Merger};
use super::published::{Fresh, Published};
use super::workspace::OpenWorkspace;
use crate::chunk::Sealer;
use crate::store::{Commit, Store, StoreError, Sync, Writer};
use crate::types::{
    ChunkId, ConflictResolution, DeviceId, FileId, Hlc, Ino, NameHasher, NodeRecord, Op, TreeRoot,
};

/// Pause before a commit that found the disk full is tried again.
const FULL_RETRY: Duration = Duration::from_millis(500);

/// The running thread. Dropped without [`CommitThread::finish`], it still commits and ends.
pub struct CommitThread {
    handle: CommitHandle,
    work: Work,
}

/// Who commits.
enum Work {
    Thread(JoinHandle<Result<(), EngineError>>),
    /// Whoever waits for an answer.
    ByHand(Arc<Mutex<Committer>>),
    Ended,
}

impl CommitThread {
    /// Starts committing what `source` collects.
    ///
    /// # Errors
    /// [`EngineError::Thread`] if the system gives no thread.
    pub fn start(
        workspace: OpenWorkspace,
        handle: CommitHandle,
        source: Arc<dyn Source>,
    ) -> Result<Self, EngineError> {
        let mut committer = Committer::new(workspace, handle.clone(), source);
        committer.publish();
        #[expect(clippy::disallowed_methods, reason = "the engine is the home of threads")]
        let thread = std::thread::Builder::new()
            .name("commit".into())
            .spawn(move || committer.run())
            .map_err(EngineError::Thread)?;
        Ok(Self { handle, work: Work::Thread(thread) })
    }

    /// The same committer without a thread: it works when someone waits for its answer, on that
    /// one's thread, and at each [`CommitThread::turn`]. So a simulation knows what happens when.
    pub fn by_hand(
        workspace: OpenWorkspace,
        handle: CommitHandle,
        source: Arc<dyn Source>,
    ) -> Self {
        let mut committer = Committer::new(workspace, handle.clone(), source);
        committer.publish();
        committer.begin();
        let committer = Arc::new(Mutex::new(committer));
        let weak = Arc::downgrade(&committer);
        handle.work_by_hand(Box::new(move || {
            if let Some(committer) = weak.upgrade() {
                committer.lock().turn_now();
            }
        }));
        Self { handle, work: Work::ByHand(committer) }
    }

    /// Without a thread: does what is asked and commits, as the thread would once it was due. With
    /// one, there is nothing to do.
    pub fn turn(&self) {
        if let Work::ByHand(committer) = &self.work {
            committer.lock().turn_now();
        }
    }

    /// Commits what is left, closes the store and ends the thread. Waits for the disk.
    ///
    /// # Errors
    /// The last commit's.
    pub fn finish(mut self) -> Result<(), EngineError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), EngineError> {
        self.handle.stop();
        match std::mem::replace(&mut self.work, Work::Ended) {
            Work::Thread(thread) => thread.join().unwrap_or(Err(EngineError::Closed)),
            Work::ByHand(committer) => {
                let result = committer.lock().turn_now();
                self.handle.leave();
                result.unwrap_or(Err(EngineError::Closed))
            }
            Work::Ended => Ok(()),
        }
    }
}

impl Drop for CommitThread {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            tracing::error!("the last commit failed: {error}");
        }
    }
}

struct Committer {
    handle: CommitHandle,
    source: Arc<dyn Source>,
    store: Store,
    writer: Writer,
    sealer: Arc<Sealer>,
    journal: JournalWriter,
    merger: Merger,
    published: Arc<Published>,
    loading: Arc<Loading>,
    /// What the records of the snapshot add up to that have come since this thread began.
    loaded: TreeRoot,
    device: DeviceId,
    hasher: NameHasher,
    env: crate::env::Env,
    /// Taken from the tree, and not yet in the store because the disk was full.
    unfinished: Option<Changes>,
    /// Why nothing can be stored any more.
    latched: Option<String>,
    /// Chunks that are in the store, and that the full disk has kept from being noted.
    unnoted: Vec<ChunkId>,
    /// Files that have several heads, to be merged if that is asked for.
    forked: BTreeSet<FileId>,
    /// Others have more of this device's journal than it has itself.
    is_overtaken: bool,
    /// Commits since the last durable one.
    not_durable: bool,
    /// Holds the lock as long as the store is open; let go of last.
    _workspace: OpenWorkspace,
}

/// Tells those who wait, however the thread ends.
struct Leaving(CommitHandle, Arc<dyn Source>);

impl Drop for Leaving {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.latch("the commit thread failed");
        }
        self.0.leave();
    }
}

impl Committer {
    fn new(mut workspace: OpenWorkspace, handle: CommitHandle, source: Arc<dyn Source>) -> Self {
        Self {
            handle,
            source,
            store: workspace.store.clone(),
            writer: workspace.take_writer(),
            sealer: Arc::clone(&workspace.sealer),
            journal: workspace.take_journal(),
            merger: workspace.take_merger(),
            published: workspace.published(),
            loading: workspace.loading(),
            loaded: TreeRoot::default(),
            device: workspace.device(),
            hasher: workspace.name_hasher(),
            env: workspace.env.clone(),
            unfinished: None,
            latched: None,
            unnoted: Vec::new(),
            forked: BTreeSet::new(),
            is_overtaken: workspace.is_overtaken(),
            not_durable: false,
            _workspace: workspace,
        }
    }

    fn run(&mut self) -> Result<(), EngineError> {
        let _leaving = Leaving(self.handle.clone(), Arc::clone(&self.source));
        self.begin();
        loop {
            let asked = self.handle.next();
            if let Some(end) = self.turn(asked) {
                return end;
            }
            if self.unfinished.is_some() || !self.unnoted.is_empty() {
                std::thread::sleep(FULL_RETRY);
                self.handle.nudge(super::Urgency::Soon);
            }
        }
    }

    /// Does what a start leaves to be done: folding is not durable at once, and the view may be
    /// asked to show conflicts otherwise than it does.
    fn begin(&mut self) {
        if self.merger.conflicts() == ConflictResolution::Merge {
            match self.store.conflicted() {
                Ok(files) => self.forked.extend(files.into_iter().map(|(file, _)| file)),
                Err(error) => tracing::warn!("texts changed apart are not merged: {error}"),
            }
        }
        self.fold_what_is_new();
    }

    fn fold_what_is_new(&mut self) {
        if !self.loading.is_coming()
            && self.merger.needs_a_round()
            && let Err(error) = self.fold_own()
        {
            tracing::warn!("this device's own changes wait to be merged: {error}");
            return;
        }
        if !self.loading.is_coming() && self.merger.needs_a_round() {
            self.handle.nudge(super::Urgency::Soon);
        }
    }

    fn turn_now(&mut self) -> Option<Result<(), EngineError>> {
        let asked = self.handle.take_now();
        self.turn(asked)
    }

    /// Does what is asked, and commits. How the last commit ended, if asked to stop.
    fn turn(&mut self, asked: Asked) -> Option<Result<(), EngineError>> {
        for (delivery, reply) in asked.deliveries {
            reply(self.take_delivery(delivery));
        }
        self.unnoted.extend(asked.chunks);
        let came = std::mem::take(&mut self.unnoted);
        if !came.is_empty()
            && let Err(error) = self.take_chunks(&came)
        {
            tracing::warn!("chunks that came wait to be noted: {error}");
            self.unnoted = if self.latched.is_none() { came } else { Vec::new() };
        }
        // What peers are told of must be durable, lest a number of the journal is used twice.
        let is_shared = self.merger.is_shared();
        let durable = asked.stop || !asked.syncs.is_empty() || is_shared;
        let result = self.commit(durable);
        for reply in asked.syncs {
            reply(result.as_ref().copied().map_err(EngineError::summary));
        }
        self.fold_what_is_new();
        match self.merge_texts() {
            Ok(true) => self.fold_what_is_new(),
            Ok(false) => {}
            Err(error) => tracing::warn!("texts changed apart wait to be merged: {error}"),
        }
        if asked.stop
            && let Err(error) = self.writer.checkpoint()
        {
            tracing::warn!("the write-ahead log stays for the next start: {error}");
        }
        asked.stop.then_some(result)
    }

    /// Stores all that changed so far; with `durable`, on the disk when this returns.
    fn commit(&mut self, durable: bool) -> Result<(), EngineError> {
        if let Some(why) = &self.latched {
            return Err(EngineError::Latched(why.clone()));
        }
        let result = self.commit_all(durable);
        match &result {
            Err(EngineError::Store(StoreError::Full { .. })) | Ok(()) => {}
            Err(error) => {
                let why = format!("a commit failed: {error}");
                self.source.latch(&why);
                self.latched = Some(why);
            }
        }
        result
    }

    fn commit_all(&mut self, durable: bool) -> Result<(), EngineError> {
        if let Some(changes) = self.unfinished.take() {
            self.commit_changes(changes, durable)?;
        }
        let changes = self.source.collect();
        if !changes.is_empty() {
            return self.commit_changes(changes, durable);
        }
        self.source.committed(changes.number, &[], Vec::new());
        if durable && self.not_durable {
            self.writer.sync()?;
            self.not_durable = false;
        }
        Ok(())
    }

    fn commit_changes(&mut self, mut changes: Changes, durable: bool) -> Result<(), EngineError> {
        match self.store_changes(&mut changes, durable) {
            Ok(drafts) => {
                self.not_durable = !durable;
                let inos: Vec<Ino> = changes.nodes.iter().map(|(ino, _)| *ino).collect();
                self.source.committed(changes.number, &inos, drafts);
                Ok(())
            }
            Err(error) => {
                self.unfinished = Some(changes);
                Err(error)
            }
        }
    }

    fn store_changes(
        &mut self,
        changes: &mut Changes,
        durable: bool,
    ) -> Result<Vec<StoredDraft>, EngineError> {
        let mut commit = Commit::default();
        let mut writes = Vec::new();
        let mut folded = Vec::new();
        let mut stored = Vec::with_capacity(changes.drafts.len());
        let mut fresh = Fresh::default();
        let reads = self.store.hold_reads()?;
        for draft in &changes.drafts {
            let (content, settled) = self.store_draft(draft, durable, &mut fresh)?;
            if let DraftTarget::Fold { file, id } = draft.target {
                folded.extend(self.folded(file, id, content)?);
            } else {
                record_version(draft, content, &mut commit, &mut writes);
            }
            if let DraftTarget::Version { file, detached, .. } = draft.target {
                let shared = self.merger.is_shared() && !detached;
                if let Some(Op::Write { parents, .. }) = writes.last_mut().filter(|_| shared) {
                    merger::add(parents, self.merger.stands_for(file, parents)?);
                }
            }
            stored.push(settled);
        }
        if self.merger.is_shared() {
            // Another device may have laid a patch over any version that it has been told of.
            commit.versions_removed.clear();
            for op in &mut changes.ops.ops {
                self.merger.complete(op)?;
            }
        }
        let frontier_delta = self.merger.frontier_delta();
        let device = |number| self.merger.device(number);
        let clock = self.merger.clock();
        let heard = HeardSoFar { device: &device, frontier_delta, clock };
        let hlc = self.journal.append(&changes.ops, &writes, &heard, &self.sealer, &mut commit);
        stamp(&mut commit, hlc, changes.ops.ops.len());
        commit.versions_put.extend(folded);
        let sizes: HashMap<Ino, u64> =
            stored.iter().map(|draft| (draft.ino, draft.stored_bytes)).collect();
        for (ino, record) in &mut changes.nodes {
            if let (Some(record), Some(bytes)) = (record, sizes.get(ino)) {
                record.stored_bytes = *bytes;
            }
        }
        commit.nodes.clone_from(&changes.nodes);
        commit.merged.faces.extend(changes.nodes.iter().filter_map(saved_face));
        commit.entries_put.clone_from(&changes.entries_put);
        commit.entries_removed.clone_from(&changes.entries_removed);
        commit.live_nodes = Some(changes.live_nodes);
        drop(reads);
        let sync = if durable { Sync::Durable } else { Sync::Later };
        self.writer.commit(&commit, sync)?;
        let told = if commit.batches.is_empty() { Vec::new() } else { heard.frontier_delta };
        self.merger.own_committed(self.journal.advance(), &told);
        self.published.add_fresh(self.journal.next_seq() - 1, fresh);
        if durable {
            self.publish();
        }
        Ok(stored)
    }
}

/// A document that an editor's save has put under another number.
fn saved_face((ino, record): &(Ino, Option<NodeRecord>)) -> Option<(FileId, Option<Ino>)> {
    let record = record.as_ref().filter(|record| record.nlink > 0 && !record.is_sibling())?;
    let file = record.file?;
    (Ino::from(file) != *ino).then_some((file, Some(*ino)))
}

/// Gives each new version the clock of its op: the writes follow the other ops.
fn stamp(commit: &mut Commit, first: Hlc, ops: usize) {
    for (index, (_, _, record)) in commit.versions_put.iter_mut().enumerate() {
        record.hlc = Hlc(first.0 + (ops + index) as u64);
    }
}
