//! What the store keeps of the merge, as the merge reads it.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::merge::Records;
use crate::store::{Store, StoreError};
use crate::types::merged::{Entry, Inode, Move, Version};
use crate::types::{EntryId, FileId, Name, OpId, VersionId};

/// The store's records; the log of moves is held in memory.
#[derive(Clone)]
pub struct Kept {
    store: Store,
    moves: Arc<Vec<Move>>,
    /// How far each journal was folded: what later ops make is not in the store.
    folded: HashMap<u16, u64>,
}

impl Kept {
    pub fn new(store: Store, moves: Arc<Vec<Move>>, folded: HashMap<u16, u64>) -> Self {
        Self { store, moves, folded }
    }

    fn is_new(&self, op: OpId) -> bool {
        op != FileId::ROOT.0 && self.folded.get(&op.journal()).is_none_or(|last| op.seq() > *last)
    }
}

impl Records for Kept {
    type Error = StoreError;

    fn entry(&self, id: EntryId) -> Result<Option<Entry>, StoreError> {
        if self.is_new(id.0) { Ok(None) } else { self.store.merged_entry(id) }
    }

    fn inode(&self, id: FileId) -> Result<Option<Inode>, StoreError> {
        if self.is_new(id.0) { Ok(None) } else { self.store.merged_inode(id) }
    }

    fn version(&self, file: FileId, id: VersionId) -> Result<Option<Version>, StoreError> {
        if self.is_new(id.0) { Ok(None) } else { self.store.merged_version(file, id) }
    }

    fn children(&self, directory: FileId) -> Result<BTreeSet<EntryId>, StoreError> {
        if self.is_new(directory.0) {
            return Ok(BTreeSet::new());
        }
        Ok(self.store.merged_children(directory, None)?.into_iter().collect())
    }

    fn named(&self, directory: FileId, name: &Name) -> Result<BTreeSet<EntryId>, StoreError> {
        if self.is_new(directory.0) {
            return Ok(BTreeSet::new());
        }
        Ok(self.store.merged_children(directory, Some(name))?.into_iter().collect())
    }

    fn removed(&self) -> Result<BTreeSet<EntryId>, StoreError> {
        Ok(self.store.merged_removed()?.into_iter().collect())
    }

    fn moves(&self) -> Result<Arc<Vec<Move>>, StoreError> {
        Ok(Arc::clone(&self.moves))
    }
}

/// Keeps the first error of calls that can return none.
#[derive(Default)]
pub struct Failing(RefCell<Option<StoreError>>);

impl Failing {
    pub fn get<T>(&self, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.0.borrow_mut().get_or_insert(error);
                None
            }
        }
    }

    pub fn into_result(self) -> Result<(), StoreError> {
        self.0.into_inner().map_or(Ok(()), Err)
    }
}
