//! Moving names, and the save that editors do by moving one over another.

use super::super::dir::{Dir, Entry};
use super::super::load::Miss;
use super::super::tree::Tree;
use super::super::{Filesystem, FsError, FsResult, RenameMode, Stop, Wait};
use super::company::{self, Home};
use super::names::{check_unreserved, expect_empty_dir, removal};
use crate::types::{AttrChange, Ino, Kind, Name, NodeRecord, Op, PlaceId, Timestamp, VersionId};

/// One end of a rename.
struct End {
    dir: Ino,
    home: Home,
    name: Name,
}

impl Filesystem {
    /// Moves a name.
    ///
    /// A file of this device's own that is moved over another one, both with one name, is an
    /// editor's save: it becomes a new version of the document, which so keeps its identity and
    /// history. The kernel goes on knowing the content by the number of the moved file, as
    /// `rename(2)` wants.
    ///
    /// # Errors
    /// As `renameat2(2)`.
    pub fn rename(
        &self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        mode: RenameMode,
        wait: Wait,
    ) -> FsResult<()> {
        check_unreserved(from.0, from.1)?;
        check_unreserved(to.0, to.1)?;
        let now = self.inner.now();
        self.inner.run_change(wait, |tree, _| {
            let source = tree.existing(from.0, from.1)?;
            let target = tree.entry(to.0, to.1)?;
            if tree.pending.is_full() {
                return Err(Miss::Room.into());
            }
            let end = |tree: &mut Tree, (dir, name): (Ino, &[u8])| -> Result<End, Stop> {
                let name = Name::new(name).map_err(FsError::from)?;
                if tree.dir(dir)?.rec.nlink == 0 {
                    return Err(FsError::NotFound.into());
                }
                Ok(End { dir, home: company::home(tree, dir)?, name })
            };
            let (from, to) = (end(tree, from)?, end(tree, to)?);
            check_no_cycle(tree, source.ino, to.dir)?;
            match (mode, target) {
                (RenameMode::Exchange, None) => Err(FsError::NotFound.into()),
                (RenameMode::Exchange, Some(target)) => {
                    check_no_cycle(tree, target.ino, from.dir)?;
                    let source = owned(tree, &from, source, now)?;
                    let target = owned(tree, &to, target, now)?;
                    exchange(tree, &from, &source, &to, &target, now)
                }
                (RenameMode::NoReplace, Some(_)) => Err(FsError::Exists.into()),
                (_, Some(target)) => replace(tree, &from, &source, &to, &target, now),
                (_, None) => {
                    let source = owned(tree, &from, source, now)?;
                    let leaving = company::leaving(tree, from.dir, &source, false)?;
                    self.inner.take_op_room(tree)?;
                    leaving.settle(tree, from.dir, &source, now);
                    leave(tree, &from, &source, now)?;
                    arrive(tree, &to, &source, now);
                    Ok(())
                }
            }
        })
    }
}

/// A directory cannot move into itself or below.
fn check_no_cycle(tree: &mut Tree, moved: Ino, into: Ino) -> Result<(), Stop> {
    if !tree.node(moved)?.is_dir() {
        return Ok(());
    }
    let mut at = into;
    loop {
        if at == moved {
            return Err(FsError::Invalid("a directory cannot move into itself").into());
        }
        if at == Ino::ROOT {
            return Ok(());
        }
        at = tree.dir(at)?.rec.parent;
    }
}

/// A sibling that is renamed becomes a file of its own first.
fn owned(tree: &mut Tree, end: &End, entry: Entry, now: Timestamp) -> Result<Entry, Stop> {
    let Some(adoption) = company::adoption(tree, entry.ino)? else { return Ok(entry) };
    adoption.apply(tree, true, now);
    tree.existing(end.dir, end.name.as_bytes())
}

fn replace(
    tree: &mut Tree,
    from: &End,
    source: &Entry,
    to: &End,
    target: &Entry,
    now: Timestamp,
) -> Result<(), Stop> {
    if source.ino == target.ino {
        return Ok(());
    }
    let (moves_dir, over_dir) = (tree.node(source.ino)?.is_dir(), tree.node(target.ino)?.is_dir());
    match (moves_dir, over_dir) {
        (true, false) => return Err(FsError::NotDirectory.into()),
        (false, true) => return Err(FsError::IsDirectory.into()),
        (true, true) => expect_empty_dir(tree, target.ino)?,
        (false, false) => {}
    }
    let source = &owned(tree, from, source.clone(), now)?;
    let leaving = company::leaving(tree, from.dir, source, false)?;
    if is_save(tree, source, target)? {
        leaving.settle(tree, from.dir, source, now);
        return save_over(tree, from, source, to, target, now);
    }
    let removal = removal(tree, to.dir, target)?;
    leaving.settle(tree, from.dir, source, now);
    removal.apply(tree, to.dir, target, now);
    tree.touch_dir(to.dir, -1, -i32::from(over_dir), now);
    leave(tree, from, source, now)?;
    arrive(tree, to, source, now);
    Ok(())
}

/// Is this an editor's save: two regular files of one name each?
fn is_save(tree: &mut Tree, source: &Entry, target: &Entry) -> Result<bool, Stop> {
    let is_plain = |rec: &NodeRecord| rec.kind == Kind::Regular && rec.nlink == 1;
    let own = tree.pending.journal();
    let old = tree.node(target.ino)?;
    if !is_plain(&old.rec) || old.rec.head.is_none() || old.rec.is_sibling() {
        return Ok(false);
    }
    let old_head = if old.body.is_some() { None } else { old.rec.file.zip(old.rec.head) };
    let new = tree.node(source.ino)?;
    // Another device may know the file by itself, unless this one made it and wrote all of it.
    let is_own = |id: crate::types::OpId| id.journal() == own;
    let is_temporary = new.rec.file.is_some_and(|file| is_own(file.0))
        && new.rec.head.is_none_or(|head| is_own(head.0));
    if !is_plain(&new.rec) || !is_temporary {
        return Ok(false);
    }
    if new.body.is_none() {
        let head = new.rec.file.zip(new.rec.head);
        return Err(Miss::Body(source.ino, head).into());
    }
    // The old content stays behind without an identity by which it could be read later on.
    if old_head.is_some() {
        return Err(Miss::Body(target.ino, old_head).into());
    }
    Ok(true)
}

fn save_over(
    tree: &mut Tree,
    from: &End,
    source: &Entry,
    to: &End,
    target: &Entry,
    now: Timestamp,
) -> Result<(), Stop> {
    let old = tree.node(target.ino)?.rec.clone();
    let document = old.file.ok_or(FsError::NotFound)?;
    let new = tree.node(source.ino)?.rec.clone();
    for change in attr_changes(&old, &new) {
        tree.emit(Op::Attr { file: document, change });
    }
    company::drop_twins(tree, target.ino, None);
    company::drop_twins(tree, source.ino, None);
    let seen_heads: Vec<VersionId> = new.head.into_iter().collect();
    tree.emit(Op::Unlink { entry: source.id, seen_place: source.place, seen_heads });

    let hash = tree.hash(from.name.as_bytes());
    tree.take_entry(from.dir, hash, source.id);
    tree.touch_dir(from.dir, -1, 0, now);
    let hash = tree.hash(to.name.as_bytes());
    tree.put_entry(to.dir, hash, Entry { ino: source.ino, ..target.clone() });
    tree.touch_dir(to.dir, 0, 0, now);

    let node = tree.change(target.ino);
    node.rec.file = None;
    node.rec.head = None;
    node.rec.nlink = 0;
    node.rec.ctime = now;
    let company = node.rec.company.take();
    let resolved = std::mem::take(&mut node.resolved);
    let node = tree.change(source.ino);
    (node.rec.company, node.resolved) = (company, resolved);
    node.rec.file = Some(document);
    node.rec.head = old.head;
    node.rec.ctime = now;
    if let Some(body) = &mut node.body {
        body.changed = true;
        body.head_is_interim = false;
        // The head is the document's now; what lies below must not be taken for it.
        body.rebase = true;
    }
    tree.live_nodes = tree.live_nodes.saturating_sub(1);
    tree.drop_if_unreachable(target.ino);
    Ok(())
}

/// What must be told so that `old` gets the attributes of `new`.
fn attr_changes(old: &NodeRecord, new: &NodeRecord) -> Vec<AttrChange> {
    let mut changes = Vec::new();
    if old.mode != new.mode {
        changes.push(AttrChange::Mode(new.mode));
    }
    if old.uid != new.uid {
        changes.push(AttrChange::Uid(new.uid));
    }
    if old.gid != new.gid {
        changes.push(AttrChange::Gid(new.gid));
    }
    for (key, value) in &new.xattrs {
        if old.xattrs.get(key) != Some(value) {
            changes.push(AttrChange::Xattr(key.clone(), Some(value.clone())));
        }
    }
    for key in old.xattrs.keys().filter(|key| !new.xattrs.contains_key(*key)) {
        changes.push(AttrChange::Xattr(key.clone(), None));
    }
    changes
}

fn exchange(
    tree: &mut Tree,
    from: &End,
    source: &Entry,
    to: &End,
    target: &Entry,
    now: Timestamp,
) -> Result<(), Stop> {
    if source.ino == target.ino {
        return Ok(());
    }
    tree.node(source.ino)?;
    tree.node(target.ino)?;
    let settled = company::leaving(tree, from.dir, source, false)?;
    let other = company::leaving(tree, to.dir, target, false)?;
    settled.settle(tree, from.dir, source, now);
    other.settle(tree, to.dir, target, now);
    leave(tree, from, source, now)?;
    leave(tree, to, target, now)?;
    arrive(tree, to, source, now);
    arrive(tree, from, target, now);
    Ok(())
}

fn leave(tree: &mut Tree, from: &End, entry: &Entry, now: Timestamp) -> Result<(), Stop> {
    let is_dir = tree.node(entry.ino)?.is_dir();
    let hash = tree.hash(from.name.as_bytes());
    tree.take_entry(from.dir, hash, entry.id);
    tree.touch_dir(from.dir, -1, -i32::from(is_dir), now);
    Ok(())
}

fn arrive(tree: &mut Tree, to: &End, entry: &Entry, now: Timestamp) {
    let parent = to.home.enter(tree);
    let op = tree.emit(Op::Place { entry: entry.id, parent, name: to.name.clone() });
    let mut places = vec![(entry.id, PlaceId(op))];
    let others = tree.peek(entry.ino).filter(|node| node.is_dir());
    for part in others.map(|node| company::other_parts(&node.rec, entry.id)).unwrap_or_default() {
        let name = to.name.clone();
        let op = tree.emit(Op::Place { entry: part.entry, parent, name });
        places.push((part.entry, PlaceId(op)));
    }
    company::moved_parts(tree, entry.ino, &places);
    company::drop_twins(tree, entry.ino, Some(entry.id));
    let hash = tree.hash(to.name.as_bytes());
    let entry = Entry { place: PlaceId(op), name: to.name.clone(), ..entry.clone() };
    let node = tree.change(entry.ino);
    node.rec.ctime = now;
    let is_dir = node.is_dir();
    if is_dir {
        node.rec.parent = to.dir;
        node.dir.get_or_insert_with(Dir::default);
    }
    tree.put_entry(to.dir, hash, entry);
    tree.touch_dir(to.dir, 1, i32::from(is_dir), now);
    tree.trim_dir(to.dir);
}
