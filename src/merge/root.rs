//! The root of a tree: what devices compare that have heard the same changes.

use super::state::{Records, State};
use crate::types::merged::{AttrName, Entry, Inode, Key, Standing};
use crate::types::{DeviceId, EntryId, FileId, OpId, TreeRoot};

/// Brings `root` up to date with what the ops folded into `state` have changed. `device` tells whose
/// a journal is: its number differs from device to device, and what is hashed must not. A head stands
/// for its content, for it is the id of the signed op that says it.
///
/// # Errors
/// If a record cannot be read.
pub fn bring_up<R: Records>(
    root: &mut TreeRoot,
    state: &State<R>,
    device: impl Fn(u16) -> DeviceId,
) -> Result<(), R::Error> {
    let mut scribe = Scribe { device, bytes: Vec::new() };
    for (id, entry) in &state.changed().entries {
        let before = state.records().entry(*id)?;
        if let Some(before) = &before {
            root.remove(scribe.entry(*id, before));
        }
        if let Some(entry) = entry {
            root.add(scribe.entry(*id, entry));
        }
    }
    for (id, inode) in &state.changed().inodes {
        let before = state.records().inode(*id)?;
        if let Some(before) = &before {
            root.remove(scribe.inode(*id, before));
        }
        if let Some(inode) = inode {
            root.add(scribe.inode(*id, inode));
        }
    }
    Ok(())
}

/// Adds records that no other round has told of.
pub fn add_records<'a>(
    root: &mut TreeRoot,
    entries: impl IntoIterator<Item = (EntryId, &'a Entry)>,
    inodes: impl IntoIterator<Item = (FileId, &'a Inode)>,
    device: impl Fn(u16) -> DeviceId,
) {
    let mut scribe = Scribe { device, bytes: Vec::new() };
    for (id, entry) in entries {
        root.add(scribe.entry(id, entry));
    }
    for (id, inode) in inodes {
        root.add(scribe.inode(id, inode));
    }
}

/// Writes records as they are on every device: ids by their device, sets in the order of that, and
/// nothing that depends on the order of arrival.
struct Scribe<D> {
    device: D,
    bytes: Vec<u8>,
}

impl<D: Fn(u16) -> DeviceId> Scribe<D> {
    fn entry(&mut self, id: EntryId, entry: &Entry) -> &[u8] {
        self.begin(b'e', id.0);
        self.op(entry.inode.0);
        self.bytes.push(u8::from(entry.is_directory));
        if let Some(place) = &entry.place {
            self.place(place);
        }
        let mut removals: Vec<_> = entry.removals.iter().collect();
        removals.sort_unstable_by_key(|removal| removal.key);
        self.count(removals.len());
        for removal in removals {
            self.key(removal.key);
            self.op(removal.seen_place.0);
            self.ops(removal.seen_heads.iter().map(|head| head.0));
        }
        &self.bytes
    }

    fn inode(&mut self, id: FileId, inode: &Inode) -> &[u8] {
        self.begin(b'i', id.0);
        self.bytes.push(u8::from(inode.is_directory));
        self.bytes.extend(inode.special.iter().flat_map(|special| special.0));
        self.ops(inode.entries.iter().map(|entry| entry.0));
        self.ops(inode.heads.iter().map(|head| head.0));
        self.count(inode.attrs.len());
        for (name, (key, _)) in &inode.attrs {
            // The key says which change it was, and so its value.
            self.attr(name);
            self.key(*key);
        }
        self.ops(inode.removed.iter().map(|head| head.0));
        &self.bytes
    }

    fn begin(&mut self, kind: u8, id: OpId) {
        self.bytes.clear();
        self.bytes.push(kind);
        self.op(id);
    }

    fn place(&mut self, place: &Standing) {
        self.key(place.key);
        self.op(place.op.0);
        self.op(place.parent.0);
        self.count(place.name.as_bytes().len());
        self.bytes.extend(place.name.as_bytes());
    }

    fn attr(&mut self, name: &AttrName) {
        let (number, bytes): (u8, &[u8]) = match name {
            AttrName::Mode => (0, b""),
            AttrName::Uid => (1, b""),
            AttrName::Gid => (2, b""),
            AttrName::Mtime => (3, b""),
            AttrName::Xattr(name) => (4, name),
        };
        self.bytes.push(number);
        self.count(bytes.len());
        self.bytes.extend(bytes);
    }

    fn key(&mut self, key: Key) {
        self.bytes.extend(key.hlc.0.to_le_bytes());
        self.bytes.extend(key.device.0);
    }

    fn ops(&mut self, ops: impl Iterator<Item = OpId>) {
        let mut ids: Vec<[u8; 40]> = ops.map(|op| self.id(op)).collect();
        ids.sort_unstable();
        self.count(ids.len());
        self.bytes.extend(ids.iter().flatten());
    }

    fn op(&mut self, op: OpId) {
        let id = self.id(op);
        self.bytes.extend(id);
    }

    fn id(&self, op: OpId) -> [u8; 40] {
        let mut id = [0; 40];
        if op != FileId::ROOT.0 {
            id[..32].copy_from_slice(&(self.device)(op.journal()).0);
            id[32..].copy_from_slice(&op.seq().to_le_bytes());
        }
        id
    }

    fn count(&mut self, count: usize) {
        self.bytes.extend((count as u64).to_le_bytes());
    }
}
