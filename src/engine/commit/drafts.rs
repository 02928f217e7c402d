//! How a draft becomes content: bytes in the op, a patch, or chunks.

use std::sync::Arc;

use super::super::EngineError;
use super::super::published::Fresh;
use super::Committer;
use super::changes::{DraftTarget, StoredDraft, TakenDraft};
use crate::chunk::{self, Extent, ExtentMap, Item, Manifest, SealedChunk};
use crate::store::Commit;
use crate::types::limits::{INLINE_BYTES_MAX, LATE_FROM_BYTES, PATCH_BYTES_MAX};
use crate::types::{
    ChunkRef, Content, FileId, Hlc, Ino, Op, PatchData, PatchExtent, VersionId, VersionRecord,
};

impl Committer {
    /// A version's record with its patches folded into chunks.
    pub(super) fn folded(
        &self,
        file: FileId,
        id: VersionId,
        content: Content,
    ) -> Result<Option<(FileId, VersionId, VersionRecord)>, EngineError> {
        let record = self.store.version(file, id)?;
        Ok(record.map(|record| (file, id, VersionRecord { content, ..record })))
    }

    /// Turns a draft into content: bytes in the op, a patch, or chunks.
    pub(super) fn store_draft(
        &self,
        draft: &TakenDraft,
        durable: bool,
        fresh: &mut Fresh,
    ) -> Result<(Content, StoredDraft), EngineError> {
        if let Some(parent) = patch_parent(draft, durable) {
            return Ok(patch(draft, parent));
        }
        let overlay = if draft.patches.is_empty() {
            Arc::clone(&draft.frozen)
        } else {
            let mut overlay = (*draft.patches).clone();
            overlay.merge_newer((*draft.frozen).clone());
            Arc::new(overlay)
        };
        let size = draft.size_bytes;
        let mut open = |chunk: &ChunkRef| self.source.open_chunk(chunk);
        if size <= INLINE_BYTES_MAX as u64 {
            let bytes = chunk::read_range(&draft.base, &[&*overlay], 0, size, size, &mut open)?;
            return Ok(inline(draft.ino, bytes));
        }
        let store = &self.store;
        // What will be cut otherwise when the file is finished does not go along.
        let is_passing = matches!(draft.target, DraftTarget::Version { interim: true, .. })
            && size > LATE_FROM_BYTES;
        let mut emit = |chunk: SealedChunk| -> Result<(), EngineError> {
            if store.append(&chunk.chunk.id, &chunk.bytes)? && !is_passing {
                fresh.add(chunk.chunk.id, chunk.bytes.len());
            }
            Ok(())
        };
        let base = chunk::rebuild(&draft.base, &overlay, size, &self.sealer, &mut open, &mut emit)?;
        let content = match base.items() {
            [Item::Chunk(chunk)] => Content::Chunk(chunk.clone()),
            _ => Content::Manifest(base.save(&self.sealer, &mut emit)?),
        };
        let stored_bytes = base.stored_bytes();
        let patches = Arc::new(ExtentMap::default());
        let base = Arc::new(base);
        Ok((content, StoredDraft { ino: draft.ino, base, patches, patch_count: 0, stored_bytes }))
    }
}

/// The head that a patch can be laid over, where one will do: a sync waits, and the change is
/// small. So an fsync of a small write is one commit of the write-ahead log.
fn patch_parent(draft: &TakenDraft, durable: bool) -> Option<VersionId> {
    let DraftTarget::Version { parent, .. } = draft.target else { return None };
    let small = draft.frozen.memory_bytes() <= PATCH_BYTES_MAX && !draft.frozen.has_shared();
    let worth_it = draft.size_bytes > INLINE_BYTES_MAX as u64;
    parent.filter(|_| durable && draft.may_patch && small && worth_it)
}

fn patch(draft: &TakenDraft, base: VersionId) -> (Content, StoredDraft) {
    let extents = draft
        .frozen
        .iter()
        .map(|(offset, extent)| PatchExtent {
            offset,
            data: match extent {
                Extent::Bytes(bytes) => PatchData::Bytes(bytes.clone()),
                Extent::Zero(len_bytes) => PatchData::Zero(*len_bytes),
                Extent::Shared { .. } => unreachable!("patch_parent refuses shared extents"),
            },
        })
        .collect();
    let mut patches = (*draft.patches).clone();
    patches.merge_newer((*draft.frozen).clone());
    let stored_bytes = draft.base.stored_bytes() + patches.data_bytes();
    let settled = StoredDraft {
        ino: draft.ino,
        base: Arc::clone(&draft.base),
        patches: Arc::new(patches),
        patch_count: draft.patch_count + 1,
        stored_bytes,
    };
    (Content::Patch { base, extents }, settled)
}

fn inline(ino: Ino, bytes: Vec<u8>) -> (Content, StoredDraft) {
    let mut patches = ExtentMap::default();
    patches.write(0, &bytes);
    let stored_bytes = bytes.len() as u64;
    let base = Arc::new(Manifest::default());
    let patches = Arc::new(patches);
    (Content::Inline(bytes), StoredDraft { ino, base, patches, patch_count: 0, stored_bytes })
}

/// Puts a draft's version into the commit, and its op among the writes.
pub(super) fn record_version(
    draft: &TakenDraft,
    content: Content,
    commit: &mut Commit,
    writes: &mut Vec<Op>,
) {
    let size_bytes = draft.size_bytes;
    match draft.target {
        DraftTarget::Nameless | DraftTarget::Fold { .. } => {}
        DraftTarget::Version {
            file, id, parent, ref resolved, replaces, interim, mtime, ..
        } => {
            let is_base =
                matches!(&content, Content::Patch { base, .. } if Some(*base) == replaces);
            commit.versions_removed.extend(replaces.filter(|_| !is_base).map(|old| (file, old)));
            let parents = parent.into_iter().chain(resolved.iter().copied()).collect();
            let hlc = Hlc::default();
            let record =
                VersionRecord { hlc, size_bytes, mtime, content: content.clone(), interim };
            commit.versions_put.push((file, id, record));
            writes.push(Op::Write { file, parents, size_bytes, content, mtime, interim });
        }
    }
}
