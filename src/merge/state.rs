//! The tree as the merge sees it: kept records, and what the ops folded now changed of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::types::merged::{Entry, Inode, Move, Version};
use crate::types::{EntryId, FileId, Name, VersionId};

/// What is kept between two folds, to be looked up.
pub trait Records {
    /// Why a record cannot be read.
    type Error;

    /// An entry.
    ///
    /// # Errors
    /// If it cannot be read; so below.
    fn entry(&self, id: EntryId) -> Result<Option<Entry>, Self::Error>;
    /// An inode.
    ///
    /// # Errors
    /// As [`Records::entry`].
    fn inode(&self, id: FileId) -> Result<Option<Inode>, Self::Error>;
    /// A version of a file.
    ///
    /// # Errors
    /// As [`Records::entry`].
    fn version(&self, file: FileId, id: VersionId) -> Result<Option<Version>, Self::Error>;
    /// The entries that stand in a directory, visible or not.
    ///
    /// # Errors
    /// As [`Records::entry`].
    fn children(&self, directory: FileId) -> Result<BTreeSet<EntryId>, Self::Error>;
    /// The entries of this name that stand in a directory, visible or not.
    ///
    /// # Errors
    /// As [`Records::entry`].
    fn named(&self, directory: FileId, name: &Name) -> Result<BTreeSet<EntryId>, Self::Error>;
    /// The entries on which an `Unlink` lies, standing or not.
    ///
    /// # Errors
    /// As [`Records::entry`].
    fn removed(&self) -> Result<BTreeSet<EntryId>, Self::Error>;
    /// The log of directory moves that are not yet stable, in key order.
    ///
    /// # Errors
    /// As [`Records::entry`].
    fn moves(&self) -> Result<Arc<Vec<Move>>, Self::Error>;
}

/// A workspace of which nothing is kept elsewhere: the state holds it all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRecords;

impl Records for NoRecords {
    type Error = std::convert::Infallible;

    fn entry(&self, _: EntryId) -> Result<Option<Entry>, Self::Error> {
        Ok(None)
    }

    fn inode(&self, _: FileId) -> Result<Option<Inode>, Self::Error> {
        Ok(None)
    }

    fn version(&self, _: FileId, _: VersionId) -> Result<Option<Version>, Self::Error> {
        Ok(None)
    }

    fn children(&self, _: FileId) -> Result<BTreeSet<EntryId>, Self::Error> {
        Ok(BTreeSet::new())
    }

    fn named(&self, _: FileId, _: &Name) -> Result<BTreeSet<EntryId>, Self::Error> {
        Ok(BTreeSet::new())
    }

    fn removed(&self) -> Result<BTreeSet<EntryId>, Self::Error> {
        Ok(BTreeSet::new())
    }

    fn moves(&self) -> Result<Arc<Vec<Move>>, Self::Error> {
        Ok(Arc::default())
    }
}

/// The records that ops changed, to be kept: `None` for what is gone.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    /// Entries.
    pub entries: HashMap<EntryId, Option<Entry>>,
    /// Inodes.
    pub inodes: HashMap<FileId, Option<Inode>>,
    /// Versions.
    pub versions: HashMap<(FileId, VersionId), Version>,
    /// Entries that came to stand in a directory (true) or left it.
    pub children: HashMap<FileId, BTreeMap<EntryId, bool>>,
    /// Entries that got their first `Unlink` (true) or went.
    pub removed: BTreeMap<EntryId, bool>,
    /// Entries that were put under a name, whether they still stand there or not.
    named: HashMap<(FileId, Name), BTreeSet<EntryId>>,
}

/// The tree: what [`Records`] has, under what was changed since.
#[derive(Clone, Debug)]
pub struct State<R> {
    records: R,
    changed: Changed,
    moves: Arc<Vec<Move>>,
    arrivals: u64,
}

impl<R: Records> State<R> {
    /// Over `records`, after `arrivals` ops.
    ///
    /// # Errors
    /// If they cannot be read; so each function below.
    pub fn new(records: R, arrivals: u64) -> Result<Self, R::Error> {
        let moves = records.moves()?;
        let mut state = Self { records, changed: Changed::default(), moves, arrivals };
        if state.inode(FileId::ROOT)?.is_none() {
            let root = Inode { is_directory: true, ..Inode::default() };
            state.put_inode(FileId::ROOT, root);
        }
        Ok(state)
    }

    /// What was kept before.
    pub fn records(&self) -> &R {
        &self.records
    }

    /// How many ops have arrived.
    pub fn arrivals(&self) -> u64 {
        self.arrivals
    }

    pub(super) fn count_arrival(&mut self) {
        self.arrivals += 1;
    }

    /// What was changed, to be kept, and the log of moves as it is now.
    pub fn into_changed(self) -> (Changed, Arc<Vec<Move>>) {
        (self.changed, self.moves)
    }

    /// An entry.
    ///
    /// # Errors
    /// As [`State::new`].
    pub fn entry(&self, id: EntryId) -> Result<Option<Entry>, R::Error> {
        match self.changed.entries.get(&id) {
            Some(entry) => Ok(entry.clone()),
            None => self.records.entry(id),
        }
    }

    /// An inode.
    ///
    /// # Errors
    /// As [`State::new`].
    pub fn inode(&self, id: FileId) -> Result<Option<Inode>, R::Error> {
        match self.changed.inodes.get(&id) {
            Some(inode) => Ok(inode.clone()),
            None => self.records.inode(id),
        }
    }

    /// A version of a file.
    ///
    /// # Errors
    /// As [`State::new`].
    pub fn version(&self, file: FileId, id: VersionId) -> Result<Option<Version>, R::Error> {
        match self.changed.versions.get(&(file, id)) {
            Some(version) => Ok(Some(*version)),
            None => self.records.version(file, id),
        }
    }

    /// The entries that stand in a directory, visible or not.
    ///
    /// # Errors
    /// As [`State::new`].
    pub fn children(&self, directory: FileId) -> Result<BTreeSet<EntryId>, R::Error> {
        let mut children = self.records.children(directory)?;
        overlay(&mut children, self.changed.children.get(&directory));
        Ok(children)
    }

    /// The entries of this name that stand in a directory, visible or not.
    ///
    /// # Errors
    /// As [`State::new`].
    pub fn named(&self, directory: FileId, name: &Name) -> Result<BTreeSet<EntryId>, R::Error> {
        let mut named = self.records.named(directory, name)?;
        named.extend(self.changed.named.get(&(directory, name.clone())).into_iter().flatten());
        named.retain(|id| match self.changed.entries.get(id) {
            Some(entry) => entry
                .as_ref()
                .and_then(|entry| entry.place.as_ref())
                .is_some_and(|at| at.parent == directory && at.name == *name),
            None => true,
        });
        Ok(named)
    }

    /// What was changed so far.
    pub fn changed(&self) -> &Changed {
        &self.changed
    }

    /// The entries on which an `Unlink` lies.
    ///
    /// # Errors
    /// As [`State::new`].
    pub fn removed(&self) -> Result<BTreeSet<EntryId>, R::Error> {
        let mut removed = self.records.removed()?;
        overlay(&mut removed, Some(&self.changed.removed));
        Ok(removed)
    }

    /// The log of moves, in key order.
    pub fn moves(&self) -> &[Move] {
        &self.moves
    }

    pub(super) fn moves_mut(&mut self) -> &mut Vec<Move> {
        Arc::make_mut(&mut self.moves)
    }

    /// Keeps an entry, where it stands now.
    pub(super) fn put_entry(&mut self, id: EntryId, entry: Entry) -> Result<(), R::Error> {
        let before = self.entry(id)?.and_then(|entry| entry.place).map(|place| place.parent);
        let after = entry.place.as_ref().map(|place| place.parent);
        self.note_child(id, before, after);
        if let Some(place) = &entry.place {
            let at = (place.parent, place.name.clone());
            self.changed.named.entry(at).or_default().insert(id);
        }
        if !entry.removals.is_empty() {
            self.changed.removed.insert(id, true);
        }
        self.changed.entries.insert(id, Some(entry));
        Ok(())
    }

    pub(super) fn remove_entry(&mut self, id: EntryId) -> Result<(), R::Error> {
        let before = self.entry(id)?.and_then(|entry| entry.place).map(|place| place.parent);
        self.note_child(id, before, None);
        self.changed.removed.insert(id, false);
        self.changed.entries.insert(id, None);
        Ok(())
    }

    fn note_child(&mut self, id: EntryId, before: Option<FileId>, after: Option<FileId>) {
        if let Some(parent) = before {
            self.changed.children.entry(parent).or_default().insert(id, false);
        }
        if let Some(parent) = after {
            self.changed.children.entry(parent).or_default().insert(id, true);
        }
    }

    pub(super) fn put_inode(&mut self, id: FileId, inode: Inode) {
        self.changed.inodes.insert(id, Some(inode));
    }

    pub(super) fn remove_inode(&mut self, id: FileId) {
        self.changed.inodes.insert(id, None);
    }

    pub(super) fn put_version(&mut self, file: FileId, id: VersionId, version: Version) {
        self.changed.versions.insert((file, id), version);
    }

    /// This arrival bears on these inodes (C2).
    pub(super) fn touch(&mut self, inodes: &[FileId]) -> Result<(), R::Error> {
        for id in inodes {
            if let Some(mut inode) = self.inode(*id)? {
                inode.touch = self.arrivals;
                self.put_inode(*id, inode);
            }
        }
        Ok(())
    }

    /// So many ops have arrived, however many were folded again.
    pub fn set_arrivals(&mut self, arrivals: u64) {
        self.arrivals = arrivals;
    }

    /// Touches every inode that was changed since this state was made: all, after a fold anew, as a
    /// change of the standing Cuts asks for (C6).
    pub fn touch_changed(&mut self) {
        for inode in self.changed.inodes.values_mut().flatten() {
            inode.touch = self.arrivals;
        }
    }
}

fn overlay(base: &mut BTreeSet<EntryId>, changes: Option<&BTreeMap<EntryId, bool>>) {
    for (id, is_there) in changes.into_iter().flatten() {
        if *is_there {
            base.insert(*id);
        } else {
            base.remove(id);
        }
    }
}
