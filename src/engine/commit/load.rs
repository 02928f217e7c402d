//! A snapshot's rows, laid into the store page by page by the thread that commits everything else.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Committer;
use crate::codec::{decode_batch, encode_unsigned_batch};
use crate::engine::EngineError;
use crate::engine::bootstrap::{SnapshotError, commit_of, wrong_row};
use crate::engine::error::DeliverError;
use crate::engine::merger::Merger;
use crate::keys::is_signed_by;
use crate::merge::add_records;
use crate::store::{Base, Commit, Store, StoreError, Sync, Wanted};
use crate::types::{Content, DeviceId, Ino, Kind, OpId, SnapshotRows};

/// A moment of the store, to be told to others.
pub(in crate::engine) type PinSlot = Arc<parking_lot::Mutex<Option<Store>>>;

impl Committer {
    /// Lays one page into the store. After the last one the workspace is whole.
    pub(super) fn take_page(
        &mut self,
        rows: SnapshotRows,
        is_last: bool,
    ) -> Result<(), DeliverError> {
        let laid = self.lay_page(rows);
        let taken = if is_last { laid.and_then(|()| self.finish_loading()) } else { laid };
        match &taken {
            Ok(()) if is_last => self.loading.end(),
            Ok(()) => self.loading.page_came(),
            Err(error) => self.loading.give_up(&error.to_string()),
        }
        taken.map_err(DeliverError::Engine)
    }

    fn lay_page(&mut self, rows: SnapshotRows) -> Result<(), EngineError> {
        let Some(names) = self.store.loading()? else {
            return Err(SnapshotError::Unsuited("it is whole already").into());
        };
        let journals = self.merger.journals();
        let mut commit = commit_of(rows, journals, &self.hasher)?;
        let reads = self.store.hold_reads()?;
        self.place_names(&mut commit)?;
        self.want_contents(&mut commit)?;
        drop(reads);
        let entries = commit.merged.entries.iter();
        let entries = entries.filter_map(|(id, entry)| Some((*id, entry.as_ref()?)));
        let inodes = commit.merged.inodes.iter();
        let inodes = inodes.filter_map(|(id, inode)| Some((*id, inode.as_ref()?)));
        add_records(&mut self.loaded, entries, inodes, |number| self.merger.device(number));
        commit.load.named = Some(Some(names + commit.entries_put.len() as u64));
        self.writer.commit(&commit, Sync::Later)?;
        Ok(())
    }

    /// Names may stand only in a directory that has come and is not listed yet, and lead only to what
    /// has come; a directory has one name. So the tree has no circle, and nothing hangs in the air.
    fn place_names(&self, commit: &mut Commit) -> Result<(), EngineError> {
        let listed = std::mem::take(&mut commit.load.unlisted);
        let mut open: HashMap<Ino, bool> = HashMap::new();
        let mut unnamed: HashSet<Ino> = HashSet::new();
        for (ino, node) in &commit.nodes {
            let is_dir = node.as_ref().is_some_and(|node| node.kind == Kind::Directory);
            let Some(node) = node.as_ref().filter(|node| is_dir && node.nlink > 0) else {
                continue;
            };
            if !unnamed.insert(*ino) || self.store.node(*ino)?.is_some() {
                return Err(wrong_row("directory", ino.0, "has two names").into());
            }
            if node.size_bytes > 0 {
                open.insert(*ino, true);
                commit.load.unlisted.push((*ino, true));
            }
        }
        for entry in &mut commit.entries_put {
            let id = entry.entry.packed();
            if !self.is_open(&mut open, entry.parent)? {
                let why = "stands where no names are to come";
                return Err(wrong_row("name", id, why).into());
            }
            if entry.kind_bits == 0 {
                let node = self.store.node(entry.ino)?;
                let node = node.ok_or_else(|| wrong_row("name", id, "leads nowhere"))?;
                entry.kind_bits = node.kind.bits();
            }
            if entry.kind_bits == Kind::Directory.bits() && !unnamed.remove(&entry.ino) {
                return Err(wrong_row("directory", entry.ino.0, "has two names").into());
            }
        }
        if let Some(ino) = unnamed.into_iter().next() {
            return Err(wrong_row("directory", ino.0, "has no name").into());
        }
        for (ino, _) in listed {
            if !self.is_open(&mut open, ino)? {
                return Err(wrong_row("directory", ino.0, "is listed twice, or not there").into());
            }
            open.insert(ino, false);
            commit.load.unlisted.push((ino, false));
        }
        Ok(())
    }

    fn is_open(&self, open: &mut HashMap<Ino, bool>, dir: Ino) -> Result<bool, StoreError> {
        if let Some(is_open) = open.get(&dir) {
            return Ok(*is_open);
        }
        let is_open = self.store.is_unlisted(dir)?;
        open.insert(dir, is_open);
        Ok(is_open)
    }

    /// What versions name and is not here is to be fetched, once all names are.
    fn want_contents(&self, commit: &mut Commit) -> Result<(), StoreError> {
        for (_, _, version) in &commit.versions_put {
            let (chunk, is_node) = match &version.content {
                Content::Chunk(chunk) => (chunk, false),
                Content::Manifest(root) => (root, true),
                Content::Inline(_) | Content::Patch { .. } => continue,
            };
            if is_node || !self.store.has_chunk(&chunk.id)? {
                let wanted = Wanted { chunk: chunk.clone(), is_node };
                commit.merged.wanted.push((chunk.id, Some(wanted)));
            }
        }
        // Near each other in the table, they are cheaper to put there.
        commit.merged.wanted.sort_by_key(|(id, _)| id.0);
        Ok(())
    }

    /// The last page is in the store: looks at what no page shows by itself, and goes on as a device
    /// that has heard everything up to there.
    fn finish_loading(&mut self) -> Result<(), EngineError> {
        if let Some(ino) = self.store.any_unlisted()? {
            let why = format!("the names of directory {ino} have not come");
            return Err(SnapshotError::Incomplete(why).into());
        }
        let (root, folded) = self.store.tree_root()?;
        if self.loaded != root {
            let why = "its records do not add up to the root that it names".to_owned();
            return Err(SnapshotError::Incomplete(why).into());
        }
        let folded: HashMap<u16, u64> = folded.into_iter().collect();
        let mut commit = Commit::default();
        let mut own = None;
        for (number, device) in self.store.journals()? {
            let end = folded.get(&number).copied().unwrap_or(0);
            let first = self.last_batch(number, &device, end)?;
            if device == self.device {
                own = Some(end);
            }
            if first > 1 {
                commit.load.bases.push((number, Some(Base { seq: first, upto: 0 })));
            }
        }
        if own != Some(0) {
            return Err(SnapshotError::Unsuited("it has ops that this device lacks").into());
        }
        let (store, sealer) = (self.store.clone(), Arc::clone(&self.sealer));
        let number = self.merger.number(&self.device).unwrap_or(0);
        let epochs = self.merger.epochs().clone();
        let mut merger = Merger::open(store, sealer, self.hasher.clone(), number, epochs)?;
        merger.set_conflicts(self.merger.conflicts());
        if !merger.roles().iter().any(|(device, _)| *device == self.device) {
            return Err(SnapshotError::Unsuited("it knows nothing of this device").into());
        }
        commit.load.named = Some(None);
        self.writer.commit(&commit, Sync::Durable)?;
        self.merger = merger;
        self.begin();
        self.publish();
        Ok(())
    }

    /// Where the last batch of a journal begins, which must end where the journal is folded; 0 for an
    /// empty journal.
    fn last_batch(&self, journal: u16, device: &DeviceId, end: u64) -> Result<u64, EngineError> {
        let Some(bytes) = self.store.last_batch(journal)? else {
            if end == 0 {
                return Ok(0);
            }
            let why = format!("the last batch of journal {journal} has not come");
            return Err(SnapshotError::Incomplete(why).into());
        };
        let batch = decode_batch(&bytes)?;
        let last = batch.seq + u64::from(batch.count) - 1;
        let is_good = batch.journal == *device
            && last == end
            && is_signed_by(device, &encode_unsigned_batch(&batch), &batch.signature);
        if is_good {
            Ok(batch.seq)
        } else {
            let id = OpId::new(journal, batch.seq).packed();
            Err(wrong_row("batch", id, "is not the last of its journal").into())
        }
    }

    /// One round towards having folded all that this device has done alone.
    pub(super) fn expect_company(&mut self, is_ready: &AtomicBool) -> Result<(), DeliverError> {
        self.merger.expect_company();
        if self.merger.has_own_to_fold() {
            self.fold_own()?;
        }
        is_ready.store(!self.merger.has_own_to_fold(), Ordering::Release);
        Ok(())
    }

    /// Pins a moment at which all that is in the store is folded too, so that the view and the merge's
    /// records say the same. The slot stays empty where more is left to be folded than one round
    /// does: between two rounds others have their turn.
    pub(super) fn pin(&mut self, slot: &PinSlot) -> Result<(), DeliverError> {
        if self.merger.needs_a_round() {
            self.fold_own()?;
        }
        if self.merger.is_anew_due() {
            let why = "the device that tells it waits for the beginnings of journals itself";
            return Err(EngineError::from(SnapshotError::Unsuited(why)).into());
        }
        if self.merger.needs_a_round() {
            return Ok(());
        }
        self.source.hold(true);
        let merged = self.merge(&[], HashMap::new());
        self.source.hold(false);
        merged?;
        if !self.merger.has_own_to_fold() {
            *slot.lock() = Some(self.store.pin()?);
        }
        Ok(())
    }
}
