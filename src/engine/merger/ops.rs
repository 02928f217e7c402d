//! What this device's own ops have to say beside what the user did: the heads that a row stood for
//! without showing them.

use super::Merger;
use crate::store::StoreError;
use crate::types::{EntryId, FileId, Op, VersionId};

impl Merger {
    /// The heads of a file, as far as they are folded: a row stands for all of them (A1).
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn heads(&self, file: FileId) -> Result<Vec<VersionId>, StoreError> {
        let inode = self.store.merged_inode(file)?;
        Ok(inode.map_or_else(Vec::new, |inode| inode.heads.into_iter().collect()))
    }

    /// The heads for which a row stands that shows the content of `shown` (A1): all of the file, or
    /// where siblings stand beside it, those of equal content.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn stands_for(
        &self,
        file: FileId,
        shown: &[VersionId],
    ) -> Result<Vec<VersionId>, StoreError> {
        let heads = self.heads(file)?;
        if !self.conflicts.shows_siblings() {
            return Ok(heads);
        }
        let content = |id: &VersionId| -> Result<_, StoreError> {
            Ok(self.store.merged_version(file, *id)?.map(|version| version.content))
        };
        let mut contents = Vec::new();
        for id in shown {
            contents.extend(content(id)?);
        }
        let mut equal = Vec::new();
        for head in heads {
            if content(&head)?.is_some_and(|content| contents.contains(&content)) {
                equal.push(head);
            }
        }
        Ok(equal)
    }

    /// Lets the removal of a file's last name list all its heads (A2).
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn complete(&self, op: &mut Op) -> Result<(), StoreError> {
        let Op::Unlink { entry, seen_heads, .. } = op else { return Ok(()) };
        if seen_heads.is_empty() {
            return Ok(());
        }
        let Some(kept) = self.store.merged_entry(EntryId(entry.0))? else { return Ok(()) };
        add(seen_heads, self.heads(kept.inode)?);
        Ok(())
    }
}

/// Adds those that are not there.
pub fn add(heads: &mut Vec<VersionId>, more: Vec<VersionId>) {
    for head in more {
        if !heads.contains(&head) {
            heads.push(head);
        }
    }
}
