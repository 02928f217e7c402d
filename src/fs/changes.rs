//! What a commit takes from the tree, and what it gives back.

use std::sync::Arc;

use super::body::Body;
use super::dir::Entry;
use super::tree::{Node, Tree};
use super::{FsError, Inner, Notice};
use crate::engine::{
    Changes, DraftTarget, EngineError, Source, StoredDraft, TakenDraft, ViewChange,
};
use crate::store::StoreError;
use crate::types::{ChunkRef, FileId, Ino, Kind, NodeRecord, Op, VersionId};

impl Source for Inner {
    fn collect(&self) -> Changes {
        let mut tree = self.tree.lock();
        let number = tree.next_commit;
        tree.next_commit += 1;
        let inos = std::mem::take(&mut tree.changed_nodes);
        let writes = inos.iter().filter(|ino| writes_version(&mut tree, **ino)).count();
        let ops = tree.pending.take(writes);
        let mut appended = 0..writes;
        let mut changes = Changes { number, ..Changes::new(ops) };
        for ino in inos {
            let Some(node) = tree.peek(ino) else { continue };
            let version = writes_version_of(node)
                .then(|| VersionId(changes.ops.appended(appended.next().expect("counted above"))));
            changes.drafts.extend(take_draft(ino, node, version));
            changes.nodes.push((ino, stored_record(node)));
        }
        for ((parent, hash, id), entry) in tree.changed_entries.drain() {
            match entry {
                Some(entry) => changes.entries_put.push(entry),
                None => changes.entries_removed.push((parent, hash, id)),
            }
        }
        changes.live_nodes = tree.live_nodes;
        changes
    }

    fn committed(&self, number: u64, inos: &[Ino], drafts: Vec<StoredDraft>) {
        let mut tree = self.tree.lock();
        tree.committed = number;
        for draft in drafts {
            settle_draft(&mut tree, draft);
        }
        for ino in inos {
            tree.drop_if_unreachable(*ino);
        }
        if tree.is_large() {
            tree.shrink();
        }
        self.room.notify_all();
    }

    fn latch(&self, why: &str) {
        if self.latched.set(why.to_owned()).is_ok() {
            tracing::error!("{why}; nothing can be changed until the next mount");
        }
        self.room.notify_all();
    }

    fn hold(&self, held: bool) {
        self.tree.lock().pending.held = held;
        if !held {
            self.room.notify_all();
        }
    }

    fn merged(&self, change: ViewChange) {
        let mut notices = Vec::new();
        {
            let mut tree = self.tree.lock();
            tree.forgotten += 1;
            tree.live_nodes = tree.live_nodes.saturating_add_signed(change.live_nodes);
            learn_nodes(&mut tree, &change, &mut notices);
            learn_entries(&mut tree, change, &mut notices);
        }
        // No lock is held while the kernel is told: it may be waiting for an answer of ours.
        if let Some(watcher) = self.watcher.get() {
            watcher(&notices);
        }
    }

    fn emit(&self, op: Op) {
        self.tree.lock().emit(op);
    }

    fn read_version(&self, file: FileId, version: VersionId) -> Result<Vec<u8>, EngineError> {
        Inner::read_version(self, file, version)
            .map_err(|error| EngineError::Read(error.to_string()))
    }

    fn open_chunk(&self, chunk: &ChunkRef) -> Result<Arc<[u8]>, EngineError> {
        Inner::open_chunk(self, chunk).map_err(|error| EngineError::Read(error.to_string()))
    }
}

/// Lays the nodes that other devices changed over those in memory.
fn learn_nodes(tree: &mut Tree, change: &ViewChange, notices: &mut Vec<Notice>) {
    for ino in &change.detached {
        let Some(node) = tree.peek(*ino) else { continue };
        node.detached = true;
        node.rec.nlink = 0;
        tree.drop_if_unreachable(*ino);
    }
    for (ino, record) in &change.nodes {
        let Some(node) = tree.peek(*ino) else { continue };
        match record {
            Some(record) => {
                let is_dir = record.kind == Kind::Directory;
                // What is written to it yet is an edit that the remover has not seen.
                let is_removed = node.rec.nlink > 0 && record.nlink == 0;
                node.detached |= is_removed && node.write_opens > 0;
                // What was written while it had no name is no version's content.
                let is_back = node.rec.nlink == 0 && record.nlink > 0;
                let body = if is_back { node.body.take() } else { None };
                node.rec = record.clone();
                let draft_bytes = body.as_ref().map_or(0, Body::draft_bytes);
                tree.draft_bytes = tree.draft_bytes.saturating_sub(draft_bytes);
                notices.push(if is_dir { Notice::Listing(*ino) } else { Notice::Attributes(*ino) });
            }
            None if !node.detached => {
                node.rec.nlink = 0;
                tree.drop_if_unreachable(*ino);
                notices.push(Notice::Attributes(*ino));
            }
            None => {}
        }
    }
}

/// Lays the names that other devices changed over those in memory.
fn learn_entries(tree: &mut Tree, change: ViewChange, notices: &mut Vec<Notice>) {
    for gone in change.entries_removed {
        tree.learn_change(gone.parent, gone.hash, None);
        notices.push(Notice::Name(gone.parent, gone.name));
    }
    for put in change.entries_put {
        notices.push(Notice::Name(put.parent, put.name.clone()));
        let entry = Entry {
            id: put.entry,
            place: put.place,
            ino: put.ino,
            kind_bits: put.kind_bits,
            name: put.name,
        };
        tree.learn_change(put.parent, put.hash, Some(entry));
        tree.trim_dir(put.parent);
    }
}

fn writes_version(tree: &mut Tree, ino: Ino) -> bool {
    tree.peek(ino).is_some_and(|node| writes_version_of(node))
}

fn writes_version_of(node: &Node) -> bool {
    (node.rec.nlink > 0 || node.detached)
        && node.rec.file.is_some()
        && node.body.as_ref().is_some_and(|body| body.changed)
}

/// Freezes a file's draft for the commit; `version` is the op that will tell of it.
fn take_draft(ino: Ino, node: &mut Node, version: Option<VersionId>) -> Option<TakenDraft> {
    let is_open = node.write_opens > 0;
    let body = node.body.as_mut()?;
    assert!(body.frozen.is_none(), "one commit at a time");
    let target = match (version, node.rec.file) {
        (Some(id), Some(file)) => {
            let resolved = std::mem::take(&mut node.resolved);
            version_target(&mut node.rec, body, file, id, (is_open, node.detached), resolved)
        }
        (None, Some(file))
            if !body.changed && body.fold && body.patch_count > 0 && body.is_local =>
        {
            DraftTarget::Fold { file, id: node.rec.head? }
        }
        _ if !body.dirty.is_empty() => DraftTarget::Nameless,
        _ => return None,
    };
    let frozen = Arc::new(std::mem::take(&mut body.dirty));
    body.frozen = Some(Arc::clone(&frozen));
    let rewrites = matches!(&target, DraftTarget::Version { resolved, .. } if !resolved.is_empty());
    let may_patch = body.takes_patches() && !body.rebase && !rewrites;
    body.changed = false;
    body.keep_version = false;
    Some(TakenDraft {
        ino,
        target,
        base: Arc::clone(&body.base),
        patches: Arc::clone(&body.patches),
        patch_count: body.patch_count,
        frozen,
        size_bytes: node.rec.size_bytes,
        may_patch,
    })
}

fn version_target(
    rec: &mut NodeRecord,
    body: &mut Body,
    file: FileId,
    id: VersionId,
    (is_open, detached): (bool, bool),
    resolved: Vec<VersionId>,
) -> DraftTarget {
    let interim = is_open && !body.keep_version;
    let parent = rec.head.replace(id);
    let replaces = parent.filter(|_| body.head_is_interim);
    body.head_is_interim = interim;
    let mtime = rec.mtime;
    DraftTarget::Version { file, id, parent, resolved, replaces, interim, mtime, detached }
}

/// What the store keeps of a node: nothing of what has no name, unless history names it.
fn stored_record(node: &Node) -> Option<NodeRecord> {
    let rec = &node.rec;
    (rec.nlink > 0 || rec.is_in_history() && !node.detached).then(|| rec.clone())
}

fn settle_draft(tree: &mut Tree, draft: StoredDraft) {
    let Some(node) = tree.peek(draft.ino) else { return };
    node.rec.stored_bytes = draft.stored_bytes;
    let Some(body) = node.body.as_mut() else { return };
    let before = body.draft_bytes();
    body.frozen = None;
    body.base = draft.base;
    body.patches = draft.patches;
    body.patch_count = draft.patch_count;
    if !body.changed {
        body.rebase = false;
    }
    body.fold &= body.patch_count > 0;
    let after = body.draft_bytes();
    let clean_bytes = body.clean_bytes();
    tree.count_content(clean_bytes);
    tree.draft_bytes = (tree.draft_bytes + after).saturating_sub(before);
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { needed_bytes, free_bytes } => {
                Self::NoSpace { needed_bytes, free_bytes }
            }
            StoreError::Latched => Self::ReadOnly(error.to_string()),
            other => Self::Io(other.to_string()),
        }
    }
}

impl From<crate::chunk::ChunkError> for FsError {
    fn from(error: crate::chunk::ChunkError) -> Self {
        Self::Io(error.to_string())
    }
}

impl From<EngineError> for FsError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            other => Self::Io(other.to_string()),
        }
    }
}
