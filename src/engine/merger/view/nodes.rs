//! The node that shows a directory or a file: its number, and its record.

use std::collections::BTreeMap;

use super::Viewing;
use crate::engine::merger::MergeError;
use crate::merge::Row;
use crate::store::StoreError;
use crate::types::merged::{AttrName, Key};
use crate::types::{
    AttrChange, FileId, Ino, Kind, NodeRecord, Op, Timestamp, VersionId, VersionRecord,
};

/// Where in a number stands which fold anew gave it; no journal has so many ops, and siblings have
/// a bit above.
const ANEW_SHIFT: u32 = 41;
/// So many folds anew in a row give a file numbers that all differ.
const ANEW_MAX: u64 = (1 << 6) - 1;

impl Viewing<'_, '_> {
    /// The node of directories that are one, which may be several numbers' until now.
    pub(super) fn directory_node(&mut self, parent: Ino, row: &Row) -> Result<Ino, MergeError> {
        let files: Vec<FileId> = row.entries.iter().map(|entry| FileId(entry.0)).collect();
        let mut own = None;
        for file in &files {
            let ino = self.face(*file)?;
            let is_live = self.node(ino)?.is_some_and(|node| {
                node.nlink > 0 && node.file.is_some_and(|owner| files.contains(&owner))
            });
            if is_live && own.is_none() {
                own = Some(ino);
            } else if is_live && own != Some(ino) {
                self.empty_out(ino)?;
            } else if !is_live && ino != Ino::from(*file) {
                // It stood merged with another, which now is without it.
                self.list_anew(ino);
            }
        }
        let ino = own.unwrap_or(Ino::from(files[0]));
        for file in &files {
            if self.face(*file)? != ino {
                self.faces.insert(*file, ino);
                self.list_anew(ino);
            }
        }
        if let Some(mut node) = self.node(ino)?.filter(|_| own.is_some()) {
            if node.parent != parent {
                node.parent = parent;
                self.nodes.insert(ino, Some(node));
            }
        } else {
            let mut node = self.fresh(files[0], None)?;
            node.parent = parent;
            self.nodes.insert(ino, Some(node));
            let was_shown = self.folding.merger.store.node(ino)?.is_some_and(|node| node.nlink > 0);
            self.change.live_nodes += i64::from(!was_shown);
            self.emptied.remove(&ino);
            if files.len() == 1 && self.folding.is_foreign_news(files[0].0) {
                self.fresh_directories.insert(ino);
            }
            self.list_anew(ino);
        }
        Ok(ino)
    }

    /// Which directories are one under this number has changed, perhaps after it was listed.
    pub(super) fn list_anew(&mut self, ino: Ino) {
        self.done.remove(&ino);
        self.queue.push(ino);
    }

    /// The node that shows a file's head.
    pub(super) fn file_node(&mut self, row: &Row) -> Result<Ino, MergeError> {
        let file = row.inode;
        let face = self.face(file)?;
        let is_news = self.folding.is_foreign_news(file.0) && !self.nodes.contains_key(&face);
        let node = if is_news { None } else { self.node(face)? };
        let node = node.filter(|node| node.file == Some(file));
        match node {
            // Shown, or given back in this round.
            Some(node)
                if node.head == row.head && (node.nlink > 0 || self.nodes.contains_key(&face)) =>
            {
                Ok(face)
            }
            Some(node) if node.head == row.head => self.file_back(row, face, &node),
            // Written again by who decided between heads: nothing changes for who reads it.
            Some(mut node) if node.nlink > 0 && self.is_equal(file, node.head, row.head)? => {
                node.head = row.head;
                self.nodes.insert(face, Some(node));
                Ok(face)
            }
            Some(node) => {
                let ino = match row.head.filter(|_| !self.folding.is_anew) {
                    Some(head) => Ino(head.packed()),
                    // A head that was there before is back, or there is none any more.
                    None => self.number_anew(row)?,
                };
                self.faces.insert(file, ino);
                let mut fresh = self.fresh(file, row.head)?;
                (fresh.btime, fresh.nlink) = (node.btime, 0);
                self.nodes.insert(ino, Some(fresh));
                self.nodes.insert(face, None);
                self.change.live_nodes -= i64::from(node.nlink > 0);
                self.change.detached.push(face);
                // Names come over one by one; the old number's go with it.
                Ok(ino)
            }
            None => {
                let none_free =
                    || StoreError::Corrupt(format!("no inode number is free for {file:?}"));
                let ino = if self.folding.is_anew {
                    self.number_anew(row)?
                } else {
                    self.free_number(row)?.ok_or_else(none_free)?
                };
                if ino != face {
                    self.faces.insert(file, ino);
                }
                let mut node = self.fresh(file, row.head)?;
                node.nlink = 0;
                self.nodes.insert(ino, Some(node));
                Ok(ino)
            }
        }
    }

    /// The node of a file whose last name had gone, with its head as before. What is still open under
    /// the old number may hold bytes that no version has: it keeps that number, if there is another.
    pub(super) fn file_back(
        &mut self,
        row: &Row,
        face: Ino,
        old: &NodeRecord,
    ) -> Result<Ino, MergeError> {
        let mut fresh = self.fresh(row.inode, row.head)?;
        (fresh.btime, fresh.nlink) = (old.btime, 0);
        let free = if self.folding.is_anew {
            Some(self.number_anew(row)?)
        } else {
            self.free_number(row)?
        };
        let Some(ino) = free else {
            self.nodes.insert(face, Some(fresh));
            return Ok(face);
        };
        self.faces.insert(row.inode, ino);
        self.nodes.insert(ino, Some(fresh));
        self.nodes.insert(face, None);
        self.change.detached.push(face);
        Ok(ino)
    }

    /// A number for a file that is not shown yet: its own if it is new, else that of the op which
    /// brought it back. None is used twice, for the kernel may still know what bore it before.
    pub(super) fn free_number(&self, row: &Row) -> Result<Option<Ino>, StoreError> {
        let is_free = |ino: Ino| -> Result<bool, StoreError> {
            Ok(!self.nodes.contains_key(&ino) && self.folding.merger.store.node(ino)?.is_none())
        };
        let own = Ino::from(row.inode);
        if self.folding.makes.contains_key(&row.inode) && is_free(own)? {
            return Ok(Some(own));
        }
        let state = &self.folding.state;
        let mut ops = Vec::with_capacity(2);
        ops.extend(state.entry(row.entries[0])?.map(|e| (e.place().key, e.place().op.packed())));
        if let Some(head) = row.head {
            let version = state.version(row.inode, head)?;
            ops.extend(version.map(|version| (version.key, head.packed())));
        }
        ops.sort_unstable();
        for number in ops.into_iter().rev().map(|(_, number)| Ino(number)).chain([own]) {
            if is_free(number)? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// A number for a file that a fold anew shows as it was before, or for the first time: made of its
    /// head's and of how often the tree was folded anew, in a range that no op's id reaches.
    fn number_anew(&self, row: &Row) -> Result<Ino, StoreError> {
        let base = row.head.map_or(row.inode.0, |head| head.0).packed();
        for folds in (1..=ANEW_MAX).map(|more| self.folding.known.folds_anew + more) {
            let ino = Ino(base | (1 + folds % ANEW_MAX) << ANEW_SHIFT);
            if !self.nodes.contains_key(&ino) && self.folding.merger.store.node(ino)?.is_none() {
                return Ok(ino);
            }
        }
        Err(StoreError::Corrupt(format!("no inode number is free for {:?}", row.inode)))
    }

    /// Do two heads of a file hold the same?
    pub(super) fn is_equal(
        &self,
        file: FileId,
        one: Option<VersionId>,
        other: Option<VersionId>,
    ) -> Result<bool, StoreError> {
        let (Some(one), Some(other)) = (one, other) else { return Ok(false) };
        let one = self.folding.state.version(file, one)?;
        let other = self.folding.state.version(file, other)?;
        Ok(one.zip(other).is_some_and(|(one, other)| one.content == other.content))
    }

    /// A node's record from the merge, the version and the op that made it.
    pub(super) fn fresh(
        &self,
        file: FileId,
        head: Option<VersionId>,
    ) -> Result<NodeRecord, MergeError> {
        let (kind, made_at) = self.made(file)?;
        let version = match head {
            Some(head) => self.version(file, head)?,
            None => None,
        };
        let is_dir = kind == Kind::Directory;
        let mut record = NodeRecord {
            file: Some(file),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: if is_dir { 2 } else { 0 },
            size_bytes: version.as_ref().map_or(0, |version| version.size_bytes),
            stored_bytes: version.as_ref().map_or(0, |version| version.size_bytes),
            atime: made_at,
            mtime: version.as_ref().map_or(made_at, |version| version.mtime),
            ctime: self.now,
            btime: made_at,
            head,
            parent: Ino::ROOT,
            xattrs: BTreeMap::new(),
            company: None,
        };
        self.attribute(file, &mut record)?;
        Ok(record)
    }

    /// Lays the shared attributes into a record.
    pub(super) fn attribute(
        &self,
        file: FileId,
        record: &mut NodeRecord,
    ) -> Result<(), MergeError> {
        let Some(inode) = self.folding.state.inode(file)? else { return Ok(()) };
        let written: Option<Key> = match record.head {
            Some(head) => self.folding.state.version(file, head)?.map(|version| version.key),
            None => None,
        };
        record.xattrs.clear();
        for (name, (key, change)) in inode.attrs {
            match change {
                AttrChange::Mode(mode) => record.mode = mode & 0o7777,
                AttrChange::Uid(uid) => record.uid = uid,
                AttrChange::Gid(gid) => record.gid = gid,
                AttrChange::Mtime(mtime) if written.is_none_or(|written| key > written) => {
                    record.mtime = mtime;
                }
                AttrChange::Mtime(_) => {}
                AttrChange::Xattr(_, value) => {
                    if let (AttrName::Xattr(name), Some(value)) = (name, value) {
                        record.xattrs.insert(name, value);
                    }
                }
            }
        }
        Ok(())
    }

    /// Lays attributes that ops of this round changed into the nodes that are shown.
    pub(super) fn attributes(&mut self) -> Result<(), MergeError> {
        let files: Vec<FileId> = self.folding.state.changed().inodes.keys().copied().collect();
        for file in files {
            let ino = self.face(file)?;
            let node = self.node(ino)?.filter(|node| attributed_to(node) == Some(file));
            let Some(node) = node else { continue };
            let siblings = node.company.map_or_else(Vec::new, |company| company.siblings);
            for ino in std::iter::once(ino).chain(siblings.into_iter().map(|(_, ino)| ino)) {
                let Some(before) = self.node(ino)? else { continue };
                let mut after = before.clone();
                if let Some(head) = after.head.filter(|_| self.folding.is_anew) {
                    // A time that was set by hand may be void.
                    after.mtime =
                        self.version(file, head)?.map_or(after.mtime, |version| version.mtime);
                }
                self.attribute(file, &mut after)?;
                if after != before {
                    after.ctime = self.now;
                    self.nodes.insert(ino, Some(after));
                }
            }
        }
        Ok(())
    }

    pub(super) fn version(
        &self,
        file: FileId,
        id: VersionId,
    ) -> Result<Option<VersionRecord>, StoreError> {
        match self.folding.versions.get(&id) {
            Some(at) => Ok(Some(self.folding.commit.versions_put[*at].2.clone())),
            None => self.folding.merger.store.version(file, id),
        }
    }

    /// What a file or directory is, and when it was made: from this round, its node, or its journal.
    pub(super) fn made(&self, file: FileId) -> Result<(Kind, Timestamp), MergeError> {
        if file == FileId::ROOT {
            return Ok((Kind::Directory, self.now));
        }
        if let Some(Op::Make { kind, .. }) = self.folding.makes.get(&file) {
            return Ok((kind.clone(), self.now));
        }
        if let Some(node) = self.node(self.face(file)?)?.filter(|node| node.file == Some(file)) {
            return Ok((node.kind, self.now));
        }
        let inode = self.folding.state.inode(file)?;
        match self.folding.merger.op(file.0)? {
            Some(Op::Make { kind, .. }) => Ok((kind, self.now)),
            // Its journal may be here from later on.
            _ if inode.as_ref().is_some_and(|inode| inode.is_directory) => {
                Ok((Kind::Directory, self.now))
            }
            _ if inode.is_some_and(|inode| inode.special.is_none()) => {
                Ok((Kind::Regular, self.now))
            }
            _ => match self.folding.merger.store.special(file)? {
                Some(kind) => Ok((kind, self.now)),
                None => {
                    Err(StoreError::Corrupt(format!("the op that made {file:?} is not here"))
                        .into())
                }
            },
        }
    }
}

/// Whose attributes a node shows: of directories that are one, those of the first placed.
pub(super) fn attributed_to(node: &NodeRecord) -> Option<FileId> {
    let first = node.company.as_ref().and_then(|company| company.parts.first());
    let first = first.filter(|_| node.kind == Kind::Directory);
    first.map(|part| FileId(part.entry.0)).or(node.file)
}
