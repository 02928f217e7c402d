//! The tree that the journal alone tells of: what another device would come to have.
//!
//! One device's ops follow each other, so replaying them needs no rules for conflicts; each must
//! name just what its author had before it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path as StatePath;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tidefs::chunk::{Manifest, read_range};
use tidefs::codec::{decode_batch, decode_ops};
use tidefs::engine::OpenWorkspace;
use tidefs::env::Env;
use tidefs::types::limits::BATCH_BYTES_HARD_MAX;
use tidefs::types::{
    AttrChange, ChunkRef, Content, EntryId, FileId, Kind as LibraryKind, Op, OpId, PatchData,
    PlaceId, Timestamp, VersionId,
};

use crate::model::step::{At, Gave, Reference, Step, Subject};
use crate::model::words::{Kind, Path, Stat};

struct Entry {
    parent: FileId,
    name: Vec<u8>,
    file: FileId,
    place: PlaceId,
}

struct File {
    kind: LibraryKind,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    head: Option<VersionId>,
}

struct Version {
    size_bytes: u64,
    content: Content,
}

/// The replayed journal of a workspace that is not mounted.
pub struct Journal {
    workspace: OpenWorkspace,
    entries: BTreeMap<EntryId, Entry>,
    files: HashMap<FileId, File>,
    versions: HashMap<VersionId, Version>,
}

impl Journal {
    /// Replays the journal of the workspace in `state`.
    ///
    /// # Errors
    /// If a batch does not open, or an op does not fit those before it.
    pub fn replay(state: &StatePath) -> Result<Self> {
        let workspace = OpenWorkspace::open(state, &Env::real())?;
        let (entries, files, versions) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        let mut journal = Self { workspace, entries, files, versions };
        for (id, op) in journal.ops()? {
            let told = format!("op {}: {op:?}", id.seq());
            journal.apply(id, op).context(told)?;
        }
        Ok(journal)
    }

    fn ops(&self) -> Result<Vec<(OpId, Op)>> {
        let number = self.workspace.journal_number();
        let mut ops = Vec::new();
        for (seq, bytes) in self.workspace.store.batches(number, 1, usize::MAX >> 1)? {
            ensure!(seq == ops.len() as u64 + 1, "the batch at {seq} follows {} ops", ops.len());
            let batch = decode_batch(&bytes)?;
            let context = [&batch.journal.0[..], &seq.to_le_bytes()].concat();
            let sealer = &self.workspace.sealer;
            let plain = sealer.open_record(
                &context,
                (batch.epoch, &batch.sealed_ops),
                BATCH_BYTES_HARD_MAX,
            )?;
            let found = decode_ops(&plain, |_| Some(number))?;
            let first = ops.len() as u64 + 1;
            ops.extend((first..).map(|seq| OpId::new(number, seq)).zip(found));
        }
        Ok(ops)
    }

    fn apply(&mut self, id: OpId, op: Op) -> Result<()> {
        match op {
            Op::Found { mode, uid, gid, .. } => {
                ensure!(id == FileId::ROOT.0, "founded late");
                self.make(FileId(id), LibraryKind::Directory, (mode, uid, gid));
            }
            Op::Make { parent, name, kind, mode, uid, gid } => {
                self.make(FileId(id), kind, (mode, uid, gid));
                self.enter(id, parent, name.as_bytes(), FileId(id))?;
            }
            Op::Link { parent, name, file } => {
                ensure!(self.files.contains_key(&file), "no such file");
                self.enter(id, parent, name.as_bytes(), file)?;
            }
            Op::Place { entry, parent, name } => {
                ensure!(self.is_directory(parent), "the new parent is no directory");
                let entry = self.entries.get_mut(&entry).context("no such entry")?;
                (entry.parent, entry.place) = (parent, PlaceId(id));
                entry.name = name.as_bytes().to_vec();
            }
            Op::Unlink { entry, seen_place, seen_heads } => {
                let removed = self.entries.remove(&entry).context("no such entry")?;
                ensure!(removed.place == seen_place, "it stood at {:?}", removed.place);
                let is_last = self.entries.values().all(|entry| entry.file != removed.file);
                let head = self.files[&removed.file].head.filter(|_| is_last);
                let heads: Vec<VersionId> = head.into_iter().collect();
                ensure!(heads == seen_heads, "the heads that go with it are {heads:?}");
            }
            Op::Write { file, parents, size_bytes, content, mtime, .. } => {
                let file = self.files.get_mut(&file).context("no such file")?;
                let heads: Vec<VersionId> = file.head.into_iter().collect();
                ensure!(heads == parents, "the heads before are {heads:?}");
                (file.head, file.mtime) = (Some(VersionId(id)), mtime);
                self.versions.insert(VersionId(id), Version { size_bytes, content });
            }
            Op::Attr { file, change } => {
                let file = self.files.get_mut(&file).context("no such file")?;
                match change {
                    AttrChange::Mode(mode) => file.mode = mode,
                    AttrChange::Uid(uid) => file.uid = uid,
                    AttrChange::Gid(gid) => file.gid = gid,
                    AttrChange::Mtime(mtime) => file.mtime = mtime,
                    AttrChange::Xattr(key, Some(value)) => drop(file.xattrs.insert(key, value)),
                    AttrChange::Xattr(key, None) => drop(file.xattrs.remove(&key)),
                }
            }
            Op::Ack | Op::Role { .. } | Op::Cut { .. } | Op::Epoch { .. } => {
                anyhow::bail!("nobody asked for {op:?}")
            }
        }
        Ok(())
    }

    fn make(&mut self, id: FileId, kind: LibraryKind, (mode, uid, gid): (u32, u32, u32)) {
        let (mtime, xattrs) = (Timestamp::default(), BTreeMap::new());
        self.files.insert(id, File { kind, mode, uid, gid, mtime, xattrs, head: None });
    }

    fn is_directory(&self, file: FileId) -> bool {
        self.files.get(&file).is_some_and(|file| file.kind == LibraryKind::Directory)
    }

    fn enter(&mut self, id: OpId, parent: FileId, name: &[u8], file: FileId) -> Result<()> {
        ensure!(self.is_directory(parent), "the parent is no directory");
        let entry = Entry { parent, name: name.to_vec(), file, place: PlaceId(id) };
        self.entries.insert(EntryId(id), entry);
        Ok(())
    }

    fn content(&self, version: VersionId) -> Result<Vec<u8>> {
        let Version { size_bytes, content } = &self.versions[&version];
        let size = usize::try_from(*size_bytes)?;
        let mut bytes = match content {
            Content::Inline(bytes) => bytes.clone(),
            Content::Chunk(chunk) => self.open(chunk)?.to_vec(),
            Content::Manifest(root) => {
                let store = &self.workspace.store;
                let mut fetch =
                    |node: &ChunkRef| -> Result<Vec<u8>> { Ok(store.read_chunk(&node.id)?) };
                let manifest = Manifest::load(root, &self.workspace.sealer, &mut fetch)?;
                let mut open = |chunk: &ChunkRef| self.open(chunk);
                read_range(&manifest, &[], 0, *size_bytes, *size_bytes, &mut open)?
            }
            Content::Patch { base, extents } => {
                let mut bytes = self.content(*base)?;
                for extent in extents {
                    let start = usize::try_from(extent.offset)?;
                    let end = usize::try_from(extent.offset + extent.len_bytes())?;
                    bytes.resize(bytes.len().max(end), 0);
                    match &extent.data {
                        PatchData::Bytes(data) => bytes[start..end].copy_from_slice(data),
                        PatchData::Zero(_) => bytes[start..end].fill(0),
                    }
                }
                bytes.resize(size, 0);
                bytes
            }
        };
        ensure!(bytes.len() <= size, "{version:?} holds more than its length");
        bytes.resize(size, 0);
        Ok(bytes)
    }

    fn open(&self, chunk: &ChunkRef) -> Result<Arc<[u8]>> {
        let sealed = self.workspace.store.read_chunk(&chunk.id)?;
        Ok(self.workspace.sealer.open(chunk, &sealed)?.into())
    }

    /// Compares with the reference; `stats` are what the filesystem said last.
    ///
    /// # Errors
    /// At the first difference.
    pub fn expect_like(&self, reference: &mut Reference, stats: &[(Path, Stat)]) -> Result<()> {
        let mut count = 0;
        for (path, stat) in stats {
            let file = self.find(path).with_context(|| format!("{path:?} is not told of"))?;
            self.expect_file_like(file, reference, path, stat)
                .with_context(|| format!("{path:?}"))?;
            count += usize::from(!path.0.is_empty());
        }
        let told = self.entries.values().filter(|entry| self.is_reachable(entry.parent)).count();
        ensure!(told == count, "{told} names are told of, {count} are there");
        Ok(())
    }

    fn find(&self, path: &Path) -> Option<FileId> {
        path.0.iter().try_fold(FileId::ROOT, |parent, name| {
            let fits = |entry: &&Entry| entry.parent == parent && entry.name == *name;
            self.entries.values().find(fits).map(|entry| entry.file)
        })
    }

    fn is_reachable(&self, directory: FileId) -> bool {
        let above = self.entries.values().find(|entry| entry.file == directory);
        directory == FileId::ROOT || above.is_some_and(|entry| self.is_reachable(entry.parent))
    }

    fn expect_file_like(
        &self,
        id: FileId,
        reference: &mut Reference,
        path: &Path,
        stat: &Stat,
    ) -> Result<()> {
        let file = &self.files[&id];
        let bits = (file.mode, file.uid, file.gid);
        ensure!(bits == (stat.mode, stat.uid, stat.gid), "{bits:?} against {stat:?}");
        let mut ask = |step: Step| reference.apply(&step);
        let xattrs = ask(Step::Xattrs(path.clone()));
        ensure!(xattrs == Ok(Gave::Xattrs(file.xattrs.clone())), "xattrs are {xattrs:?}");
        match (&file.kind, stat.kind) {
            (LibraryKind::Directory, Kind::Dir) | (LibraryKind::Fifo, Kind::Fifo) => {}
            (LibraryKind::Symlink(target), Kind::Symlink) => {
                let expected = ask(Step::Readlink(path.clone()));
                ensure!(expected == Ok(Gave::Bytes(target.clone())), "it leads to {expected:?}");
            }
            (LibraryKind::Regular, Kind::File) => {
                let bytes = file.head.map_or(Ok(Vec::new()), |head| self.content(head))?;
                let expected = ask(Step::Read(At::Path(path.clone()), 0, usize::MAX >> 1));
                ensure!(expected == Ok(Gave::Bytes(bytes)), "its content is {expected:?}");
                let links = self.entries.values().filter(|entry| entry.file == id).count();
                ensure!(links == stat.nlink as usize, "{links} links against {}", stat.nlink);
                let mtime = Some((file.mtime.secs, file.mtime.nanos));
                let is_told = file.head.is_some() || file.mtime != Timestamp::default();
                ensure!(!is_told || mtime == stat.mtime, "{mtime:?} against {:?}", stat.mtime);
            }
            (kind, found) => anyhow::bail!("{kind:?} against {found:?}"),
        }
        Ok(())
    }
}
