//! Looking names up, making and removing them.

use super::super::body::Body;
use super::super::dir::{Dir, Entry};
use super::super::load::Miss;
use super::super::tree::{Node, Tree, new_record};
use super::super::{Attr, Caller, Filesystem, FsError, FsResult, RESERVED_NAME, Stop, Wait};
use super::company::{Adoption, Leaving};
use super::xattr::{DEFAULT_ACL, inherit_acl};
use super::{attr_of, company};
use crate::types::limits::{LINKS_MAX, SYMLINK_BYTES_MAX};
use crate::types::{EntryId, FileId, Ino, Kind, Name, NameHash, Op, PlaceId, Timestamp, VersionId};

const S_ISGID: u32 = 0o2000;

/// What is to be made.
pub struct Making<'a> {
    /// The directory.
    pub parent: Ino,
    /// The name in it.
    pub name: &'a [u8],
    /// What it is.
    pub kind: Kind,
    /// The low 12 mode bits as asked for, the umask not applied.
    pub mode: u32,
    /// The caller's umask; a default ACL of the directory takes its place.
    pub umask: u32,
    /// Who asks.
    pub caller: Caller,
}

impl Filesystem {
    /// Looks `name` up. A hit counts one kernel reference, to be given back by `forget`.
    ///
    /// `.` of anything, not only of a directory, finds it as long as it has a name: so the kernel
    /// asks when a program comes with a file handle (`open_by_handle_at(2)`).
    ///
    /// # Errors
    /// [`FsError::NotFound`], [`FsError::NotDirectory`], or the store's.
    pub fn lookup(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<Attr> {
        self.inner.run(wait, |tree, _| {
            let ino = match name {
                b"." if tree.node(parent)?.rec.nlink == 0 => return Err(FsError::NotFound.into()),
                b"." => parent,
                b".." => tree.dir(parent)?.rec.parent,
                _ => tree.existing(parent, name)?.ino,
            };
            let attr = attr_of(ino, tree.node(ino)?);
            tree.add_ref(ino);
            Ok(attr)
        })
    }

    /// The kernel gives back `count` references. Never waits.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.inner.tree.lock().drop_refs(ino, count);
    }

    /// Makes a directory, symbolic link, special file or empty regular file. Counts one kernel
    /// reference.
    ///
    /// # Errors
    /// As `mkdir(2)`, `symlink(2)`, `mknod(2)`.
    pub fn make(&self, making: &Making<'_>, wait: Wait) -> FsResult<Attr> {
        self.make_opened(making, None, wait)
    }

    /// As [`Filesystem::make`] for a regular file, and opens it.
    ///
    /// # Errors
    /// As `open(2)` with `O_CREAT | O_EXCL`.
    pub fn create(&self, making: &Making<'_>, write: bool, wait: Wait) -> FsResult<Attr> {
        self.make_opened(making, Some(write), wait)
    }

    fn make_opened(&self, making: &Making<'_>, open: Option<bool>, wait: Wait) -> FsResult<Attr> {
        check_unreserved(making.parent, making.name)?;
        if matches!(&making.kind, Kind::Symlink(t) if t.len() > SYMLINK_BYTES_MAX) {
            return Err(FsError::TargetTooLong);
        }
        let now = self.inner.now();
        self.inner.run_change(wait, |tree, _| {
            let (name, hash) = tree.vacant(making.parent, making.name)?;
            self.inner.take_op_room(tree)?;
            let ino = make_node(tree, making, name, hash, now)?;
            let node = tree.change(ino);
            if let Some(write) = open {
                node.opens += 1;
                node.write_opens += u32::from(write);
            }
            let attr = attr_of(ino, node);
            tree.add_ref(ino);
            Ok(attr)
        })
    }

    /// Gives a file one more name. Counts one kernel reference.
    ///
    /// # Errors
    /// As `link(2)`.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8], wait: Wait) -> FsResult<Attr> {
        check_unreserved(parent, name)?;
        let now = self.inner.now();
        self.inner.run_change(wait, |tree, _| {
            let (checked, hash) = tree.vacant(parent, name)?;
            let home = company::home(tree, parent)?;
            let kept = company::kept(tree, ino)?;
            let node = tree.node(ino)?;
            if node.is_dir() {
                return Err(FsError::NotPermitted("hard links to directories").into());
            }
            if node.rec.file.is_none() || node.rec.nlink == 0 {
                return Err(FsError::NotFound.into());
            }
            if node.rec.nlink >= LINKS_MAX {
                return Err(FsError::TooManyLinks.into());
            }
            let kind_bits = node.rec.kind.bits();
            let adoption = company::adoption(tree, ino)?;
            self.inner.take_op_room(tree)?;
            if let Some(adoption) = adoption {
                adoption.apply(tree, true, now);
            }
            if let Some(kept) = kept {
                kept.apply(tree, now);
            }
            let file = tree.node(ino)?.rec.file.ok_or(FsError::NotFound)?;
            let home = home.enter(tree);
            let op = tree.emit(Op::Link { parent: home, name: checked.clone(), file });
            let (id, place) = (EntryId(op), PlaceId(op));
            tree.put_entry(parent, hash, Entry { id, place, ino, kind_bits, name: checked });
            tree.touch_dir(parent, 1, 0, now);
            let node = tree.change(ino);
            node.rec.nlink += 1;
            node.rec.ctime = now;
            let attr = attr_of(ino, node);
            tree.add_ref(ino);
            tree.trim_dir(parent);
            Ok(attr)
        })
    }

    /// Removes a name of something that is no directory.
    ///
    /// # Errors
    /// As `unlink(2)`.
    pub fn unlink(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<()> {
        let now = self.inner.now();
        self.inner.run_change(wait, |tree, _| {
            let entry = tree.existing(parent, name)?;
            if tree.node(entry.ino)?.is_dir() {
                return Err(FsError::IsDirectory.into());
            }
            // A removal takes no room: it must work on a full disk.
            let removal = removal(tree, parent, &entry)?;
            if tree.pending.is_full() {
                return Err(Miss::Room.into());
            }
            removal.apply(tree, parent, &entry, now);
            tree.touch_dir(parent, -1, 0, now);
            Ok(())
        })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As `rmdir(2)`.
    pub fn rmdir(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<()> {
        let now = self.inner.now();
        self.inner.run_change(wait, |tree, _| {
            let entry = tree.existing(parent, name)?;
            expect_empty_dir(tree, entry.ino)?;
            let removal = removal(tree, parent, &entry)?;
            if tree.pending.is_full() {
                return Err(Miss::Room.into());
            }
            removal.apply(tree, parent, &entry, now);
            tree.touch_dir(parent, -1, -1, now);
            Ok(())
        })
    }
}

/// Refuses the name at the root that is kept for tidefs itself.
pub fn check_unreserved(parent: Ino, name: &[u8]) -> FsResult<()> {
    if parent == Ino::ROOT && name == RESERVED_NAME {
        return Err(FsError::Access("`.tidefs` at the root is kept for tidefs itself"));
    }
    Ok(())
}

/// Checks that a directory is one and holds nothing.
pub fn expect_empty_dir(tree: &mut Tree, ino: Ino) -> Result<(), Stop> {
    match tree.dir(ino)?.rec.size_bytes {
        0 => Ok(()),
        _ => Err(FsError::NotEmpty.into()),
    }
}

fn make_node(
    tree: &mut Tree,
    making: &Making<'_>,
    name: Name,
    hash: NameHash,
    now: Timestamp,
) -> Result<Ino, Stop> {
    let home = company::home(tree, making.parent)?;
    let dir = tree.dir(making.parent)?;
    let default_acl = dir.rec.xattrs.get(DEFAULT_ACL).cloned();
    let inherits_group = dir.rec.mode & S_ISGID != 0;
    let is_dir = making.kind == Kind::Directory;
    let gid = if inherits_group { dir.rec.gid } else { making.caller.gid };
    let mut mode = making.mode;
    if inherits_group && is_dir {
        mode |= S_ISGID;
    }
    let acl = default_acl.filter(|_| !matches!(making.kind, Kind::Symlink(_)));
    let (mode, xattrs) = match acl {
        Some(acl) => inherit_acl(&acl, mode, is_dir),
        None => (mode & !making.umask, std::collections::BTreeMap::new()),
    };
    let uid = making.caller.uid;
    let kind = making.kind.clone();
    let home = home.enter(tree);
    let op = Op::Make { parent: home, name: name.clone(), kind, mode, uid, gid };
    let id = tree.emit(op);
    let file = FileId(id);
    for (key, value) in &xattrs {
        let change = crate::types::AttrChange::Xattr(key.clone(), Some(value.clone()));
        tree.emit(Op::Attr { file, change });
    }
    let ino = Ino::from(file);
    let mut node = Node::new(new_record(file, making.kind.clone(), making.parent, now));
    (node.rec.mode, node.rec.uid, node.rec.gid, node.rec.xattrs) = (mode, uid, gid, xattrs);
    if is_dir {
        node.dir = Some(Dir::new_empty());
    } else if making.kind == Kind::Regular {
        node.body = Some(Body::new_empty());
    }
    tree.add_node(ino, node);
    let kind_bits = making.kind.bits();
    let entry = Entry { id: EntryId(id), place: PlaceId(id), ino, kind_bits, name };
    tree.put_entry(making.parent, hash, entry);
    tree.touch_dir(making.parent, 1, i32::from(is_dir), now);
    tree.trim_dir(making.parent);
    Ok(ino)
}

/// What is to be removed.
pub enum Removal {
    /// A name, and what goes along with it.
    Entry(Leaving),
    /// A head that is shown beside its file.
    Sibling(Adoption),
}

/// Looks at an entry that is to be removed.
pub fn removal(tree: &mut Tree, parent: Ino, entry: &Entry) -> Result<Removal, Stop> {
    match company::adoption(tree, entry.ino)? {
        Some(sibling) => Ok(Removal::Sibling(sibling)),
        None => Ok(Removal::Entry(company::leaving(tree, parent, entry, true)?)),
    }
}

impl Removal {
    /// Takes the entry away, and what it stood for if that was its last name.
    ///
    /// The directory's own times and count are the caller's to change.
    pub fn apply(&self, tree: &mut Tree, parent: Ino, entry: &Entry, now: Timestamp) {
        match self {
            Self::Sibling(sibling) => sibling.remove(tree, now),
            Self::Entry(leaving) => {
                leaving.settle(tree, parent, entry, now);
                remove_entry(tree, parent, entry, now);
            }
        }
    }
}

fn remove_entry(tree: &mut Tree, parent: Ino, entry: &Entry, now: Timestamp) {
    let node = tree.change(entry.ino);
    let is_dir = node.is_dir();
    node.rec.nlink = if is_dir { 0 } else { node.rec.nlink - 1 };
    node.rec.ctime = now;
    let is_last = node.rec.nlink == 0;
    let head: Option<VersionId> = node.rec.head.filter(|_| is_last);
    let seen_heads = head.into_iter().collect();
    let others = if is_dir { company::other_parts(&node.rec, entry.id) } else { Vec::new() };
    tree.emit(Op::Unlink { entry: entry.id, seen_place: entry.place, seen_heads });
    for part in others {
        let (entry, seen_place) = (part.entry, part.place);
        tree.emit(Op::Unlink { entry, seen_place, seen_heads: Vec::new() });
    }
    company::drop_twins(tree, entry.ino, Some(entry.id));
    company::forget(tree, entry.ino, entry.id);
    let hash = tree.hash(entry.name.as_bytes());
    tree.take_entry(parent, hash, entry.id);
    if is_last {
        tree.live_nodes = tree.live_nodes.saturating_sub(1);
    }
}
