//! Attributes: reading and changing them, and the filesystem's own.

use super::super::body::Body;
use super::super::tree::Tree;
use super::super::{Attr, Filesystem, FsError, FsResult, SetAttr, SetTime, StatFs, Stop, Wait};
use super::xattr::chmod_acl;
use super::{attr_of, company};
use crate::types::limits::FILE_BYTES_MAX;
use crate::types::{AttrChange, Ino, Kind, Timestamp};

impl Filesystem {
    /// A node's attributes.
    ///
    /// # Errors
    /// [`FsError::Stale`], or the store's.
    pub fn getattr(&self, ino: Ino, wait: Wait) -> FsResult<Attr> {
        self.inner.run(wait, |tree, _| Ok(attr_of(ino, tree.node(ino)?)))
    }

    /// Changes attributes, all of them or none.
    ///
    /// # Errors
    /// As `chmod(2)`, `chown(2)`, `truncate(2)` and `utimensat(2)`.
    pub fn setattr(&self, ino: Ino, change: &SetAttr, wait: Wait) -> FsResult<Attr> {
        let now = self.inner.now();
        self.inner.run_change(wait, |tree, _| {
            tree.node(ino)?;
            if let Some(size_bytes) = change.size_bytes {
                expect_resizable(tree, ino, size_bytes)?;
            }
            self.inner.take_op_room(tree)?;
            company::own(&self.inner, tree, ino, now)?;
            if let Some(size_bytes) = change.size_bytes {
                resize(tree, ino, size_bytes, now);
            }
            set_owner_and_mode(tree, ino, change);
            set_times(tree, ino, change, now);
            Ok(attr_of(ino, tree.node(ino)?))
        })
    }

    /// A symbolic link's target.
    ///
    /// # Errors
    /// [`FsError::Invalid`] if it is none.
    pub fn readlink(&self, ino: Ino, wait: Wait) -> FsResult<Vec<u8>> {
        self.inner.run(wait, |tree, _| match &tree.node(ino)?.rec.kind {
            Kind::Symlink(target) => Ok(target.clone()),
            _ => Err(FsError::Invalid("not a symbolic link").into()),
        })
    }

    /// Sizes of the disk below, as `df` shows them: what is free here is what a write may take.
    ///
    /// # Errors
    /// The disk's.
    pub fn statfs(&self) -> FsResult<StatFs> {
        let space = self.inner.store.free_space()?;
        let tree = self.inner.tree.lock();
        let spoken_for = crate::types::limits::RESERVE_BYTES + tree.draft_bytes;
        Ok(StatFs {
            total_bytes: space.total_bytes,
            free_bytes: space.available_bytes.saturating_sub(spoken_for),
            unused_bytes: space.unused_bytes.saturating_sub(tree.draft_bytes),
            files: tree.live_nodes,
        })
    }
}

/// Checks that a node is a file whose length may be set, and that its content is at hand.
fn expect_resizable(tree: &mut Tree, ino: Ino, size_bytes: u64) -> Result<(), Stop> {
    if size_bytes > FILE_BYTES_MAX {
        return Err(FsError::FileTooLarge.into());
    }
    let node = tree.node(ino)?;
    node.expect_regular()?;
    if size_bytes > 0 {
        super::io::expect_local(tree, ino)?;
    }
    Ok(())
}

/// Sets a file's length. Its content is at hand, unless nothing of it will be read again.
pub fn resize(tree: &mut Tree, ino: Ino, size_bytes: u64, now: Timestamp) {
    let node = tree.change(ino);
    let body = node.body.get_or_insert_with(|| Body { rebase: true, ..Body::new_empty() });
    let before = body.draft_bytes();
    if size_bytes < node.rec.size_bytes {
        body.truncate(size_bytes);
    }
    body.changed = true;
    let after = body.draft_bytes();
    node.rec.size_bytes = size_bytes;
    node.rec.mtime = now;
    node.rec.ctime = now;
    tree.draft_bytes = (tree.draft_bytes + after).saturating_sub(before);
}

fn set_owner_and_mode(tree: &mut Tree, ino: Ino, change: &SetAttr) {
    let node = tree.change(ino);
    let mut changes = Vec::new();
    if let Some(uid) = change.uid.filter(|uid| *uid != node.rec.uid) {
        node.rec.uid = uid;
        changes.push(AttrChange::Uid(uid));
    }
    if let Some(gid) = change.gid.filter(|gid| *gid != node.rec.gid) {
        node.rec.gid = gid;
        changes.push(AttrChange::Gid(gid));
    }
    let mut mode = change.mode.unwrap_or(node.rec.mode) & 0o7777;
    if change.kill_suid && !node.is_dir() {
        mode = without_set_id(mode);
    }
    if mode != node.rec.mode {
        node.rec.mode = mode;
        changes.push(AttrChange::Mode(mode));
    }
    if change.mode.is_some()
        && let Some((key, value)) = chmod_acl(&mut node.rec.xattrs, mode)
    {
        changes.push(AttrChange::Xattr(key, Some(value)));
    }
    for change in changes {
        tree.emit_attr(ino, &change);
    }
}

/// Mode bits as a write by another user leaves them.
pub fn without_set_id(mode: u32) -> u32 {
    let group_executes = mode & 0o0010 != 0;
    mode & !0o4000 & if group_executes { !0o2000 } else { !0 }
}

/// Sets times, and tells others of the file's own.
pub fn set_times(tree: &mut Tree, ino: Ino, change: &SetAttr, now: Timestamp) {
    let node = tree.change(ino);
    let at = |time: SetTime| match time {
        SetTime::Now => now,
        SetTime::At(time) => time,
    };
    if let Some(atime) = change.atime {
        node.rec.atime = at(atime);
    }
    node.rec.ctime = change.ctime.unwrap_or(now);
    if let Some(mtime) = change.mtime.map(at) {
        node.rec.mtime = mtime;
        // A draft's Write carries the time; else it goes by itself.
        let with_draft = node.body.as_ref().is_some_and(|body| body.changed);
        if !with_draft {
            tree.emit_attr(ino, &AttrChange::Mtime(mtime));
        }
    }
}
