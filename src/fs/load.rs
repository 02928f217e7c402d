//! What memory lacked, fetched from the store: outside the lock, then laid in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::body::Body;
use super::dir::{DIR_NAMES_MAX, Dir, Entry};
use super::tree::Tree;
use super::{FsError, FsResult, Inner, LOADING_WAIT};
use crate::chunk::{self, Item, Manifest};
use crate::engine::{VersionContent, version_content};
use crate::store::StoreError;
use crate::types::{ChunkId, ChunkRef, EntryRecord, FileId, Ino, NameHash, NodeRecord, VersionId};

/// Names fetched at once from a directory too large to be held whole.
pub const PAGE_NAMES: usize = 512;
/// Plain bytes of chunks that are opened on the thread that reads requests.
const BRIEF_BYTES_MAX: u64 = 256 << 10;
/// How long a writer waits for memory before it looks again.
const ROOM_WAIT: Duration = Duration::from_millis(500);

/// What an operation needed and memory did not have.
#[derive(Debug)]
pub enum Miss {
    /// A node.
    Node(Ino),
    /// Several nodes.
    Nodes(Vec<Ino>),
    /// One name of a large directory.
    Entry(Ino, NameHash),
    /// All names of a directory.
    Dir(Ino),
    /// The names that follow one, of a large directory.
    Page(Ino, Option<NameHash>),
    /// A file's content: which file, and its head.
    Body(Ino, Option<(FileId, VersionId)>),
    /// Opened chunks.
    Chunks(Vec<ChunkRef>),
    /// Every chunk of a file that is to be changed, on this device's disk.
    Local(Ino, Arc<Manifest>),
    /// Memory for a draft, which the next commit gives back.
    Room,
}

/// What was fetched for one operation alone.
#[derive(Default)]
pub struct Loaded {
    /// Opened chunks.
    pub chunks: HashMap<ChunkId, Arc<[u8]>>,
    /// The page that `readdir` asked for, and whether it is the directory's last.
    pub page: Option<(Vec<EntryRecord>, bool)>,
    /// [`Tree::forgotten`] when the page was read: once that has moved, the page may be old.
    pub forgotten: u64,
}

/// What was fetched for the tree.
pub enum Fetched {
    /// Nodes, and numbers that no table knows.
    Nodes(Vec<(Ino, Option<NodeRecord>)>),
    /// Names: the directory, the names, and the one name that was asked for or all.
    Names(Ino, Vec<EntryRecord>, Option<NameHash>),
    /// A file's content.
    Body(Ino, Body),
    /// A file's chunks are all here.
    Local(Ino),
    /// Nothing to lay in.
    Nothing,
}

impl Inner {
    /// Reads what was missed. May wait for the disk; holds no lock meanwhile.
    pub(super) fn fetch(&self, miss: Miss, loaded: &mut Loaded) -> FsResult<Fetched> {
        if let Miss::Entry(dir, _) | Miss::Dir(dir) | Miss::Page(dir, _) = &miss {
            self.wait_for_names(*dir)?;
        }
        match miss {
            Miss::Node(ino) => self.fetch_nodes(&[ino]),
            Miss::Nodes(inos) => self.fetch_nodes(&inos),
            Miss::Entry(dir, hash) => {
                Ok(Fetched::Names(dir, self.store.entry(dir, hash)?, Some(hash)))
            }
            Miss::Dir(dir) => {
                let names = self.store.entries_page(dir, None, DIR_NAMES_MAX + 1)?;
                Ok(Fetched::Names(dir, names, None))
            }
            Miss::Page(dir, after) => {
                let names = self.store.entries_page(dir, after, PAGE_NAMES)?;
                let last = names.len() < PAGE_NAMES;
                loaded.page = Some((names, last));
                Ok(Fetched::Nothing)
            }
            Miss::Body(ino, head) => {
                let mut read = |node: &ChunkId| self.read_chunk(node);
                Ok(Fetched::Body(ino, self.fetch_body(head, &mut read)?))
            }
            Miss::Chunks(chunks) => {
                for chunk in chunks {
                    loaded.chunks.insert(chunk.id, self.open_chunk(&chunk)?);
                }
                Ok(Fetched::Nothing)
            }
            Miss::Local(ino, manifest) => {
                self.fetch_whole(&manifest)?;
                Ok(Fetched::Local(ino))
            }
            Miss::Room => {
                self.wait_for_room()?;
                Ok(Fetched::Nothing)
            }
        }
    }

    /// Reads what was missed if that is little and on this device; else [`FsError::WouldBlock`].
    pub(super) fn fetch_briefly(&self, miss: Miss, loaded: &mut Loaded) -> FsResult<Fetched> {
        if self.replica.loading().is_coming() {
            return Err(FsError::WouldBlock);
        }
        match miss {
            Miss::Node(_) | Miss::Nodes(_) | Miss::Entry(..) | Miss::Dir(_) | Miss::Page(..) => {
                self.fetch(miss, loaded)
            }
            Miss::Body(ino, head) => {
                let mut read = |node: &ChunkId| self.read_here(node);
                Ok(Fetched::Body(ino, self.fetch_body(head, &mut read)?))
            }
            Miss::Chunks(chunks) => {
                let bytes: u64 = chunks.iter().map(|chunk| u64::from(chunk.plain_bytes)).sum();
                if bytes > BRIEF_BYTES_MAX {
                    return Err(FsError::WouldBlock);
                }
                for chunk in chunks {
                    let plain = self.open_chunk_by(&chunk, &mut |id| self.read_here(id))?;
                    loaded.chunks.insert(chunk.id, plain);
                }
                Ok(Fetched::Nothing)
            }
            Miss::Local(..) | Miss::Room => Err(FsError::WouldBlock),
        }
    }

    /// A chunk's sealed bytes, if they are here.
    fn read_here(&self, id: &ChunkId) -> FsResult<Vec<u8>> {
        match self.store.read_chunk(id) {
            Err(StoreError::MissingChunk(_)) => Err(FsError::WouldBlock),
            result => Ok(result?),
        }
    }

    /// Half a directory is never shown: while a workspace is being filled, its names may still come.
    fn wait_for_names(&self, dir: Ino) -> FsResult<()> {
        let loading = self.replica.loading();
        if !loading.is_coming() {
            return Ok(());
        }
        loading.wait_for_listing(&self.store, dir, LOADING_WAIT).map_err(FsError::Io)
    }

    /// Brings every chunk of a file to this device. May wait for each, within a bound.
    fn fetch_whole(&self, manifest: &Manifest) -> FsResult<()> {
        for item in manifest.items() {
            if let Item::Chunk(chunk) = item
                && !self.store.has_chunk(&chunk.id)?
            {
                self.read_chunk(&chunk.id)?;
            }
        }
        Ok(())
    }

    fn fetch_nodes(&self, inos: &[Ino]) -> FsResult<Fetched> {
        let read = |ino: &Ino| Ok((*ino, self.store.node(*ino)?));
        Ok(Fetched::Nodes(inos.iter().map(read).collect::<FsResult<_>>()?))
    }

    fn wait_for_room(&self) -> FsResult<()> {
        self.commit.now();
        let mut tree = self.tree.lock();
        // A commit that failed gives no room.
        self.check_writable()?;
        if tree.draft_bytes > self.draft_bytes_max || tree.pending.is_full() {
            self.room.wait_for(&mut tree, ROOM_WAIT);
        }
        Ok(())
    }

    /// A chunk's plain bytes, from the cache or the store.
    pub(super) fn open_chunk(&self, chunk: &ChunkRef) -> FsResult<Arc<[u8]>> {
        self.open_chunk_by(chunk, &mut |id| self.read_chunk(id))
    }

    fn open_chunk_by(
        &self,
        chunk: &ChunkRef,
        read: &mut impl FnMut(&ChunkId) -> FsResult<Vec<u8>>,
    ) -> FsResult<Arc<[u8]>> {
        if let Some(plain) = self.chunks.get(&chunk.id) {
            if plain.len() == chunk.plain_bytes as usize {
                return Ok(plain);
            }
            let why = "two references give it different lengths; run `tidefs verify`";
            return Err(FsError::Io(format!("chunk {}: {why}", chunk.id)));
        }
        let sealed = read(&chunk.id)?;
        let plain = self.sealer.open_owned(chunk, sealed);
        let plain: Arc<[u8]> = plain.map_err(|e| FsError::Io(e.to_string()))?.into();
        self.chunks.put(chunk.id, Arc::clone(&plain));
        Ok(plain)
    }

    /// A chunk's sealed bytes, from the store, or from a peer if it is not here. May wait for it,
    /// within a bound.
    fn read_chunk(&self, id: &ChunkId) -> FsResult<Vec<u8>> {
        match (self.store.read_chunk(id), self.fetcher.get()) {
            (Err(StoreError::MissingChunk(_)), Some(fetcher)) => {
                self.replica.awaiting(id, || fetcher.fetch(id)).map_err(FsError::Io)?;
                Ok(self.store.read_chunk(id)?)
            }
            (result, _) => Ok(result?),
        }
    }

    fn fetch_body(
        &self,
        head: Option<(FileId, VersionId)>,
        read: &mut impl FnMut(&ChunkId) -> FsResult<Vec<u8>>,
    ) -> FsResult<Body> {
        let Some((file, head)) = head else { return Ok(Body::new_empty()) };
        let content = self.content(file, head, read)?;
        let is_local = !self.store.wants_chunks()?;
        let base = Arc::new(content.base);
        Ok(Body { is_local, ..Body::of(base, content.patches, content.patch_count) })
    }

    /// The whole content of a version. May wait for a peer's chunks, as reading does.
    pub(super) fn read_version(&self, file: FileId, id: VersionId) -> FsResult<Vec<u8>> {
        let content = self.content(file, id, &mut |node| self.read_chunk(node))?;
        let (size, layers) = (content.size_bytes, [&content.patches]);
        let mut open = |chunk: &ChunkRef| self.open_chunk(chunk);
        chunk::read_range(&content.base, &layers, 0, size, size, &mut open)
    }

    fn content(
        &self,
        file: FileId,
        id: VersionId,
        read: &mut impl FnMut(&ChunkId) -> FsResult<Vec<u8>>,
    ) -> FsResult<VersionContent> {
        let content = version_content(&self.store, &self.sealer, (file, id), read)?;
        content.ok_or_else(|| {
            FsError::Io(format!("version {id:?} of {file:?} is not in the store; run verify"))
        })
    }

    /// Lays what was fetched into the tree.
    pub(super) fn install(tree: &mut Tree, fetched: Fetched) -> FsResult<()> {
        match fetched {
            Fetched::Nodes(nodes) => {
                for (ino, record) in nodes {
                    match record {
                        Some(record) => tree.learn_node(ino, record),
                        None if tree.peek(ino).is_none() => return Err(FsError::Stale(ino)),
                        None => {}
                    }
                }
            }
            Fetched::Names(dir, names, asked) => install_names(tree, dir, names, asked),
            Fetched::Body(ino, body) => {
                let clean_bytes = body.clean_bytes();
                if let Some(node) = tree.peek(ino) {
                    node.body.get_or_insert(body);
                    tree.count_content(clean_bytes);
                }
            }
            Fetched::Local(ino) => {
                if let Some(body) = tree.peek(ino).and_then(|node| node.body.as_mut()) {
                    body.is_local = true;
                }
            }
            Fetched::Nothing => {}
        }
        Ok(())
    }
}

fn install_names(tree: &mut Tree, ino: Ino, names: Vec<EntryRecord>, asked: Option<NameHash>) {
    let whole = asked.is_none() && names.len() <= DIR_NAMES_MAX;
    let Some(node) = tree.peek(ino) else { return };
    let dir: &mut Dir = node.dir.get_or_insert_default();
    for record in names {
        let entry = Entry {
            id: record.entry,
            place: record.place,
            ino: record.ino,
            kind_bits: record.kind_bits,
            name: record.name,
        };
        dir.learn(record.hash, Some(entry));
    }
    if let Some(hash) = asked {
        dir.learn(hash, None);
    }
    if whole {
        dir.set_whole();
    }
    if asked.is_some() {
        tree.trim_dir(ino);
    }
}
