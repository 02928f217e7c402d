//! Content: opening, reading, writing, and the calls that rearrange it.

use std::sync::Arc;

use super::super::body::Body;
use super::super::load::{Loaded, Miss};
use super::super::tree::{Node, Tree};
use super::super::{
    Allocate, Filesystem, FsError, FsResult, Inner, Seek, SetAttr, SetTime, Stop, Wait,
};
use super::attrs::{resize, set_times, without_set_id};
use super::{ALLOCATION_BYTES, company};
use crate::chunk;
use crate::engine::Urgency;
use crate::types::limits::FILE_BYTES_MAX;
use crate::types::{AttrChange, Ino, Timestamp};

/// Shorter copies move bytes; longer ones share chunks.
const SHARE_BYTES_MIN: u64 = 64 * 1024;
/// What one call copies as bytes at most.
const COPY_BYTES_MAX: u64 = 4 << 20;

/// Bytes to lay into a file.
pub struct Writing<'a> {
    /// Where; ignored with `append`.
    pub offset: u64,
    /// What.
    pub data: &'a [u8],
    /// At the end of the file, wherever that is.
    pub append: bool,
    /// Clear the set-id bits.
    pub kill_suid: bool,
}

impl Filesystem {
    /// One more open file description; `release` takes it back. `write`: it may write.
    ///
    /// # Errors
    /// As `open(2)` of a file that exists.
    pub fn open_file(&self, ino: Ino, write: bool, truncate: bool, wait: Wait) -> FsResult<()> {
        let inner = &self.inner;
        if write || truncate {
            inner.begin_change(wait)?;
        }
        let now = inner.now();
        inner.run(wait, |tree, _| {
            tree.node(ino)?.expect_regular()?;
            if truncate {
                inner.check_turn(tree)?;
                company::own(inner, tree, ino, now)?;
                resize(tree, ino, 0, now);
            }
            let node = tree.node(ino)?;
            node.opens += 1;
            node.write_opens += u32::from(write);
            Ok(())
        })?;
        if truncate {
            inner.commit.nudge(Urgency::Soon);
        }
        Ok(())
    }

    /// One open file description less. Never waits.
    pub fn release(&self, ino: Ino, write: bool) {
        let mut tree = self.inner.tree.lock();
        let Some(node) = tree.peek(ino) else { return };
        node.opens = node.opens.saturating_sub(1);
        node.write_opens = node.write_opens.saturating_sub(u32::from(write));
        let quiet = node.write_opens == 0;
        let mut urgent = false;
        let size_bytes = node.rec.size_bytes;
        if let Some(body) = node.body.as_mut().filter(|_| write && quiet) {
            body.finish_head(size_bytes);
            urgent = body.changed || body.frozen.is_some();
            body.fold = body.patch_count > 0 || urgent;
            urgent |= body.patch_count > 0;
        }
        if urgent && node.rec.nlink > 0 {
            tree.change(ino);
            self.inner.commit.nudge(Urgency::Soon);
        }
        tree.drop_if_unreachable(ino);
    }

    /// At most `len_bytes` from `offset`; fewer only where the file ends.
    ///
    /// # Errors
    /// [`FsError::Io`] if a chunk cannot be read: never zeros in its place.
    pub fn read(&self, ino: Ino, offset: u64, len_bytes: u32, wait: Wait) -> FsResult<Vec<u8>> {
        let inner = &self.inner;
        inner.run(wait, |tree, loaded| {
            let node = tree.node(ino)?;
            node.expect_regular()?;
            let size = node.rec.size_bytes;
            if offset >= size {
                return Ok(Vec::new());
            }
            let len_bytes = u64::from(len_bytes).min(size - offset);
            read_node(inner, loaded, ino, node, offset, len_bytes)
        })
    }

    /// Lays bytes into the file's draft. Returns how many: all of them.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] before the disk is full, [`FsError::FileTooLarge`].
    pub fn write(&self, ino: Ino, writing: &Writing<'_>, wait: Wait) -> FsResult<usize> {
        let inner = &self.inner;
        inner.begin_change(wait)?;
        let now = inner.now();
        let len_bytes = writing.data.len() as u64;
        inner.run(wait, |tree, _| {
            inner.check_turn(tree)?;
            let size = expect_local(tree, ino)?.rec.size_bytes;
            let offset = if writing.append { size } else { writing.offset };
            let end = end_of(offset, len_bytes)?;
            inner.take_draft_room(tree, len_bytes)?;
            company::own(inner, tree, ino, now)?;
            change_body(tree, ino, now, |body| body.write(offset, writing.data));
            let node = tree.change(ino);
            node.rec.size_bytes = size.max(end);
            if writing.kill_suid && node.rec.mode & 0o6000 != 0 {
                let mode = without_set_id(node.rec.mode);
                node.rec.mode = mode;
                tree.emit_attr(ino, &AttrChange::Mode(mode));
            }
            Ok(())
        })?;
        inner.commit.nudge(Urgency::Later);
        Ok(writing.data.len())
    }

    /// Makes room or zeros in a range.
    ///
    /// # Errors
    /// As `fallocate(2)`.
    ///
    /// # Panics
    /// Never: the content was just brought into memory.
    pub fn allocate(
        &self,
        ino: Ino,
        how: Allocate,
        offset: u64,
        len_bytes: u64,
        wait: Wait,
    ) -> FsResult<()> {
        if len_bytes == 0 {
            return Err(FsError::Invalid("an empty range"));
        }
        let end = end_of(offset, len_bytes)?;
        let inner = &self.inner;
        let now = inner.now();
        inner.run_change(wait, |tree, _| {
            let size = expect_local(tree, ino)?.rec.size_bytes;
            let (grows, zeroes) = match how {
                Allocate::Reserve { keep_size } => {
                    inner.take_op_room(tree)?;
                    inner.take_room(len_bytes, tree)?;
                    (!keep_size, false)
                }
                Allocate::PunchHole => (false, true),
                Allocate::Zero { keep_size } => (!keep_size, true),
            };
            company::own(inner, tree, ino, now)?;
            if zeroes && offset < size {
                change_body(tree, ino, now, |body| body.zero(offset, end.min(size) - offset));
            }
            let node = tree.change(ino);
            if grows && end > size {
                node.rec.size_bytes = end;
                node.body.as_mut().expect("expect_body has loaded it").changed = true;
            }
            // As ext4: every allocation counts as a change, even where no byte does.
            let times = SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() };
            set_times(tree, ino, &times, now);
            Ok(())
        })
    }

    /// The next data or hole at or after `offset`, in blocks of 4 KiB: one that holds a byte of
    /// data is data. Programs that work out the unit of a filesystem, and those that read what
    /// they find with direct I/O, take finer answers amiss.
    ///
    /// # Errors
    /// [`FsError::BeyondEnd`] if there is none.
    ///
    /// # Panics
    /// Never: the content was just brought into memory.
    pub fn seek(&self, ino: Ino, what: Seek, offset: u64, wait: Wait) -> FsResult<u64> {
        self.inner.run(wait, |tree, _| {
            let node = expect_body(tree, ino)?;
            let size = node.rec.size_bytes;
            let body = node.body.as_ref().expect("expect_body has loaded it");
            let layers = body.layers();
            let data = |at| chunk::seek_data(&body.base, &layers, size, at);
            let hole = |at| chunk::seek_hole(&body.base, &layers, size, at);
            let found = match what {
                _ if offset >= size => None,
                Seek::Data => next_data(offset, data),
                Seek::Hole => Some(next_hole(offset, size, data, hole)),
            };
            found.ok_or(Stop::Fail(FsError::BeyondEnd))
        })
    }

    /// Copies a range from one file to another, by sharing chunks where it is long. Returns how
    /// many bytes: fewer than asked where the source ends, and where a part is moved as bytes.
    ///
    /// # Errors
    /// As `copy_file_range(2)`.
    ///
    /// # Panics
    /// Never: the content was just brought into memory.
    pub fn copy_range(
        &self,
        from: (Ino, u64),
        to: (Ino, u64),
        len_bytes: u64,
        wait: Wait,
    ) -> FsResult<u64> {
        let inner = &self.inner;
        let now = inner.now();
        inner.run_change(wait, |tree, loaded| {
            expect_local(tree, to.0)?;
            let source = expect_body(tree, from.0)?;
            let size = source.rec.size_bytes;
            let len_bytes = len_bytes.min(size.saturating_sub(from.1));
            let to_end = end_of(to.1, len_bytes)?;
            if from.0 == to.0 && from.1 < to_end && to.1 < from.1 + len_bytes {
                return Err(FsError::Invalid("the ranges overlap").into());
            }
            if len_bytes == 0 {
                return Ok(0);
            }
            company::own(inner, tree, to.0, now)?;
            let source = expect_body(tree, from.0)?;
            let body = source.body.as_ref().expect("expect_body has loaded it");
            let copied = if len_bytes >= SHARE_BYTES_MIN && body.layers().is_empty() {
                let base = Arc::clone(&body.base);
                inner.take_draft_room(tree, 0)?;
                change_body(tree, to.0, now, |body| {
                    body.changed = true;
                    body.dirty.share(to.1, base, from.1, len_bytes);
                });
                len_bytes
            } else {
                let len_bytes = len_bytes.min(COPY_BYTES_MAX);
                let bytes = read_node(inner, loaded, from.0, source, from.1, len_bytes)?;
                inner.take_draft_room(tree, len_bytes)?;
                change_body(tree, to.0, now, |body| body.write(to.1, &bytes));
                len_bytes
            };
            let node = tree.change(to.0);
            node.rec.size_bytes = node.rec.size_bytes.max(to.1 + copied);
            Ok(copied)
        })
    }
}

impl Inner {
    /// Takes room for a draft's bytes, on the disk and in memory.
    fn take_draft_room(&self, tree: &Tree, len_bytes: u64) -> Result<(), Stop> {
        if tree.draft_bytes > self.draft_bytes_max || tree.pending.held {
            return Err(Miss::Room.into());
        }
        if tree.draft_bytes > self.draft_bytes_max / 2 {
            self.commit.now();
        }
        Ok(self.take_room(len_bytes, tree)?)
    }
}

/// Where data begins at or after `offset`, given where it does to the byte.
fn next_data(offset: u64, data: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    Some(block_of(data(block_of(offset))?).max(offset))
}

/// Where a hole begins at or after `offset`, given where data and holes do to the byte.
fn next_hole(
    offset: u64,
    size: u64,
    data: impl Fn(u64) -> Option<u64>,
    hole: impl Fn(u64) -> Option<u64>,
) -> u64 {
    let mut at = offset;
    while at < size {
        match data(block_of(at)) {
            Some(start) if block_of(start) <= at => {
                at = hole(start.max(at)).unwrap_or(size).next_multiple_of(ALLOCATION_BYTES);
            }
            _ => return at,
        }
    }
    size
}

fn block_of(offset: u64) -> u64 {
    offset - offset % ALLOCATION_BYTES
}

fn end_of(offset: u64, len_bytes: u64) -> FsResult<u64> {
    offset.checked_add(len_bytes).filter(|end| *end <= FILE_BYTES_MAX).ok_or(FsError::FileTooLarge)
}

/// A regular file whose content is in memory.
fn expect_body(tree: &mut Tree, ino: Ino) -> Result<&mut Node, Stop> {
    let node = tree.node(ino)?;
    node.expect_regular()?;
    if node.body.is_none() {
        if let Some(file) = node.rec.file.zip(node.rec.head) {
            return Err(Miss::Body(ino, Some(file)).into());
        }
        node.body = Some(Body::new_empty());
    }
    Ok(node)
}

/// A regular file that is to be changed: its content is in memory, all its chunks on this device.
pub fn expect_local(tree: &mut Tree, ino: Ino) -> Result<&mut Node, Stop> {
    let node = expect_body(tree, ino)?;
    match &node.body {
        Some(body) if !body.is_local => Err(Miss::Local(ino, Arc::clone(&body.base)).into()),
        _ => Ok(node),
    }
}

/// Changes content that `expect_body` has brought, and what goes with it.
fn change_body(tree: &mut Tree, ino: Ino, now: Timestamp, change: impl FnOnce(&mut Body)) {
    let node = tree.change(ino);
    node.rec.mtime = now;
    node.rec.ctime = now;
    let body = node.body.as_mut().expect("expect_body has loaded it");
    let before = body.draft_bytes();
    change(body);
    let after = body.draft_bytes();
    tree.draft_bytes = (tree.draft_bytes + after).saturating_sub(before);
}

fn read_node(
    inner: &Inner,
    loaded: &Loaded,
    ino: Ino,
    node: &Node,
    offset: u64,
    len_bytes: u64,
) -> Result<Vec<u8>, Stop> {
    let size = node.rec.size_bytes;
    let Some(body) = &node.body else {
        return Err(Miss::Body(ino, node.rec.file.zip(node.rec.head)).into());
    };
    let mut missing = Vec::new();
    let mut held = std::collections::HashMap::new();
    for chunk in body.base.chunks_in(offset..offset + len_bytes) {
        let known = loaded.chunks.get(&chunk.id).cloned().or_else(|| inner.chunks.get(&chunk.id));
        match known {
            Some(plain) => drop(held.insert(chunk.id, plain)),
            None => missing.push(chunk.clone()),
        }
    }
    if !missing.is_empty() {
        return Err(Miss::Chunks(missing).into());
    }
    // A shared extent may need chunks of another manifest.
    let mut open = |chunk: &crate::types::ChunkRef| -> Result<Arc<[u8]>, Stop> {
        held.get(&chunk.id)
            .or_else(|| loaded.chunks.get(&chunk.id))
            .cloned()
            .or_else(|| inner.chunks.get(&chunk.id))
            .ok_or_else(|| Miss::Chunks(vec![chunk.clone()]).into())
    };
    chunk::read_range(&body.base, &body.layers(), offset, len_bytes, size, &mut open)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `next_data` and `next_hole` of a file of 30,000 bytes with data in these ranges.
    fn seek(extents: &[(u64, u64)], what: Seek, offset: u64) -> Option<u64> {
        let size = 30_000;
        let inside = |at: u64| extents.iter().find(|(start, end)| (*start..*end).contains(&at));
        let data = |at| {
            let later = extents.iter().map(|(start, _)| *start).filter(|start| *start >= at).min();
            if inside(at).is_some() { Some(at) } else { later }
        };
        let hole = |at| {
            let mut at = at;
            while let Some((_, end)) = inside(at) {
                at = *end;
            }
            Some(at.min(size))
        };
        match what {
            Seek::Data => next_data(offset, data),
            Seek::Hole => Some(next_hole(offset, size, data, hole)),
        }
    }

    #[test]
    fn a_block_with_a_byte_of_data_is_data() {
        let extents = [(5000, 5001), (8000, 12_288), (20_000, 20_001), (21_000, 30_000)];
        let data = |offset| seek(&extents, Seek::Data, offset);
        let hole = |offset| seek(&extents, Seek::Hole, offset).expect("the end is one");
        assert_eq!((data(0), hole(0)), (Some(4096), 0));
        assert_eq!((data(4100), hole(4100)), (Some(4100), 12_288));
        assert_eq!((data(6000), hole(6000)), (Some(6000), 12_288));
        assert_eq!((data(12_288), hole(12_288)), (Some(16_384), 12_288));
        assert_eq!((data(16_000), hole(16_000)), (Some(16_384), 16_000));
        assert_eq!((data(16_385), hole(16_385)), (Some(16_385), 30_000));
        assert_eq!((data(29_999), hole(29_999)), (Some(29_999), 30_000));
        assert_eq!(seek(&[(0, 10)], Seek::Data, 4096), None);
        assert_eq!(seek(&[(0, 10)], Seek::Hole, 5), Some(4096));
    }
}
