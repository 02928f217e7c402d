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
