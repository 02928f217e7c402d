//! Listing directories, in an order that stays while names come and go.

use std::collections::BTreeMap;

use super::super::dir::{DIR_NAMES_MAX, Entry};
use super::super::load::{Loaded, Miss};
use super::super::tree::Tree;
use super::super::{DirEntry, Filesystem, FsResult, Stop, Wait};
use super::attr_of;
use crate::types::{EntryRecord, Ino, NameHash};

/// Where `.` ends and `..` begins, and where `..` ends and the names begin.
const AFTER_DOT: u64 = 1;
const AFTER_DOT_DOT: u64 = 2;
/// Rows prepared at once; the kernel's buffer holds fewer.
const ROWS_MAX: usize = 512;
const DIR_BITS: u8 = 4;

impl Filesystem {
    /// Hands rows after `offset` (0: from the start) to `sink` until it returns `true`, which
    /// says that it did not take the row.
    ///
    /// With `plus`, rows carry attributes, and each one taken counts one kernel reference, but for
    /// `.` and `..`.
    ///
    /// # Errors
    /// [`super::super::FsError::NotDirectory`], or the store's.
    pub fn readdir(
        &self,
        ino: Ino,
        offset: u64,
        plus: bool,
        wait: Wait,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> FsResult<()> {
        let rows = self.inner.run(wait, |tree, loaded| {
            let rows = rows(tree, loaded, ino, offset, plus)?;
            if plus {
                // Counted before they are handed out, so that none can be forgotten in between.
                rows.iter().filter(|row| row.attr.is_some()).for_each(|row| tree.add_ref(row.ino));
            }
            Ok(rows)
        })?;
        let mut rows = rows.into_iter();
        for row in rows.by_ref() {
            let counted = row.attr.is_some().then_some(row.ino);
            if sink(row) {
                if let Some(ino) = counted {
                    self.forget(ino, 1);
                }
                break;
            }
        }
        if plus {
            let mut tree = self.inner.tree.lock();
            rows.filter(|row| row.attr.is_some()).for_each(|row| tree.drop_refs(row.ino, 1));
        }
        Ok(())
    }
}

fn rows(
    tree: &mut Tree,
    loaded: &Loaded,
    ino: Ino,
    offset: u64,
    plus: bool,
) -> Result<Vec<DirEntry>, Stop> {
    let parent = tree.dir(ino)?.rec.parent;
    let dot = |ino, next_offset, name: &[u8]| DirEntry {
        ino,
        next_offset,
        kind_bits: DIR_BITS,
        name: name.to_vec(),
        attr: None,
    };
    let mut rows = Vec::new();
    if offset < AFTER_DOT {
        rows.push(dot(ino, AFTER_DOT, b"."));
    }
    if offset < AFTER_DOT_DOT {
        rows.push(dot(parent, AFTER_DOT_DOT, b".."));
    }
    let names = names_after(tree, loaded, ino, NameHash(offset.max(AFTER_DOT_DOT)))?;
    let mut missing = Vec::new();
    for (hash, entry) in names {
        let attr = match (plus, tree.peek(entry.ino)) {
            (false, _) => None,
            (true, Some(node)) => Some(attr_of(entry.ino, node)),
            (true, None) => {
                missing.push(entry.ino);
                None
            }
        };
        rows.push(DirEntry {
            ino: entry.ino,
            next_offset: hash.0,
            kind_bits: entry.kind_bits,
            name: entry.name.as_bytes().to_vec(),
            attr,
        });
    }
    if missing.is_empty() { Ok(rows) } else { Err(Miss::Nodes(missing).into()) }
}

fn names_after(
    tree: &mut Tree,
    loaded: &Loaded,
    ino: Ino,
    after: NameHash,
) -> Result<Vec<(NameHash, Entry)>, Stop> {
    let node = tree.dir(ino)?;
    let small = node.rec.size_bytes <= DIR_NAMES_MAX as u64;
    match &node.dir {
        Some(dir) if dir.is_whole() => Ok(dir
            .after(after)
            .filter_map(|(hash, slot)| slot.entry.clone().map(|entry| (hash, entry)))
            .take(ROWS_MAX)
            .collect()),
        _ if small => Err(Miss::Dir(ino).into()),
        dir => {
            let Some((page, last)) = &loaded.page else {
                return Err(Miss::Page(ino, Some(after)).into());
            };
            let mut names: BTreeMap<NameHash, Entry> =
                page.iter().map(|record| (record.hash, entry_of(record))).collect();
            let end = if *last { None } else { page.last().map(|record| record.hash) };
            for (hash, slot) in dir.iter().flat_map(|dir| dir.after(after)) {
                if end.is_some_and(|end| hash > end) {
                    break;
                }
                match &slot.entry {
                    Some(entry) => names.insert(hash, entry.clone()),
                    None => names.remove(&hash),
                };
            }
            match end {
                // The whole page was removed, which no commit has stored yet: go on behind it.
                Some(end) if names.is_empty() => Err(Miss::Page(ino, Some(end)).into()),
                _ => Ok(names.into_iter().collect()),
            }
        }
    }
}

fn entry_of(record: &EntryRecord) -> Entry {
    Entry {
        id: record.entry,
        place: record.place,
        ino: record.ino,
        kind_bits: record.kind_bits,
        name: record.name.clone(),
    }
}
