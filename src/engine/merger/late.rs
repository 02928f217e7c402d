//! Large files that another device is still writing: each version that it commits on the way has nodes
//! of its own, and an end that the next one cuts otherwise. So what such a version names is fetched
//! once in a while; one that the same device supersedes before that is passed over.

use std::collections::HashMap;

use super::MergeError;
use super::folding::Folding;
use crate::types::limits::{LATE_FILES_MAX, LATE_FROM_BYTES};
use crate::types::{ChunkId, ChunkRef, Content, FileId, VersionId};

/// The versions whose content is left for later, one a file. Forgotten when the process ends: then
/// their content is fetched as any other.
#[derive(Clone, Default)]
pub(super) struct Late(HashMap<FileId, (VersionId, ChunkRef)>);

impl Late {
    pub fn roots(&self) -> impl Iterator<Item = (FileId, ChunkId)> {
        self.0.iter().map(|(file, (_, root))| (*file, root.id))
    }

    /// Something else names this root: it waits no longer.
    fn forget(&mut self, root: &ChunkId) {
        self.0.retain(|_, (_, late)| late.id != *root);
    }
}

/// Another device's version, as it is folded.
pub(super) struct Foreign<'a> {
    pub file: FileId,
    pub id: VersionId,
    pub parents: &'a [VersionId],
    pub size_bytes: u64,
    pub content: &'a Content,
    pub interim: bool,
}

impl Folding<'_> {
    /// Makes the content of another device's version wanted, now or later, and that of an interim
    /// one below it no longer.
    pub(super) fn want_content(&mut self, version: &Foreign<'_>) -> Result<(), MergeError> {
        if let Content::Patch { base, .. } = version.content {
            return self.want_base(version.file, *base);
        }
        self.pass_over(version);
        match version.content {
            Content::Chunk(chunk) => self.want(chunk, false),
            Content::Manifest(root) => {
                let is_late = version.interim
                    && version.size_bytes > LATE_FROM_BYTES
                    && self.known.late.0.len() < LATE_FILES_MAX
                    && !self.is_wanted(&root.id)?;
                self.want(root, true)?;
                if is_late {
                    self.known.late.0.insert(version.file, (version.id, root.clone()));
                } else {
                    self.known.late.forget(&root.id);
                }
                Ok(())
            }
            Content::Inline(_) | Content::Patch { .. } => Ok(()),
        }
    }

    /// The interim version below this one, by the same device, is wanted by nobody who has not
    /// begun to read it.
    fn pass_over(&mut self, version: &Foreign<'_>) {
        let Some((below, root)) = self.known.late.0.get(&version.file) else { return };
        if below.0.journal() == version.id.0.journal() && version.parents.contains(below) {
            let root = root.id;
            self.known.late.0.remove(&version.file);
            self.commit.merged.wanted.push((root, None));
            self.commit.merged.passed.push((root, true));
        }
    }

    /// A patch shows what lies below it: that is wanted now, even if it was passed over.
    fn want_base(&mut self, file: FileId, base: VersionId) -> Result<(), MergeError> {
        let fresh =
            self.versions.get(&base).map(|index| self.commit.versions_put[*index].2.clone());
        let record = match fresh {
            Some(record) => Some(record),
            None => self.merger.store.version(file, base)?,
        };
        let Some(Content::Manifest(root)) = record.map(|record| record.content) else {
            return Ok(());
        };
        self.known.late.forget(&root.id);
        let in_round = self.commit.merged.passed.iter().rev().find(|(id, _)| *id == root.id);
        let is_passed = match in_round {
            Some((_, is_passed)) => *is_passed,
            None => self.merger.store.is_passed(&root.id)?,
        };
        if is_passed { self.want(&root, true) } else { Ok(()) }
    }

    fn is_wanted(&self, root: &ChunkId) -> Result<bool, MergeError> {
        let in_round = self.commit.merged.wanted.iter().rev().find(|(id, _)| id == root);
        match in_round {
            Some((_, row)) => Ok(row.is_some()),
            None => Ok(self.merger.store.wanted(root)?.is_some()),
        }
    }
}
