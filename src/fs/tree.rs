//! The tree in memory: an LRU over the store's tables, with the changes that are not yet in them.
//!
//! Whatever a commit has not yet stored stays in memory; the rest may be forgotten at any time and
//! is read again when asked for. `forgotten` counts the times that happened: what was read from
//! the store before may be older than what was forgotten since, so it is then read anew.

use std::collections::HashMap;

use lru::LruCache;

use super::body::Body;
use super::dir::{DIR_NAMES_MAX, Dir, Entry, Known};
use super::load::Miss;
use super::{FsError, Stop};
use crate::engine::PendingOps;
use crate::types::limits::NAME_BYTES_MAX;
use crate::types::{
    AttrChange, EntryId, EntryRecord, FileId, Ino, Kind, Name, NameError, NameHash, NameHasher,
    NodeRecord, Op, OpId, Timestamp, VersionId,
};

/// Rough memory of a node with its LRU slot, in bytes.
const NODE_BYTES: u64 = 420;
/// Rough memory of a name in a directory, in bytes.
const SLOT_BYTES: u64 = 130;

/// A file or directory in memory.
#[derive(Debug)]
pub struct Node {
    /// What the store has or will have.
    pub rec: NodeRecord,
    /// The commit that will store it; `<=` the last commit done: the store has it.
    pub changed_in: u64,
    /// A directory's names.
    pub dir: Option<Dir>,
    /// A regular file's content.
    pub body: Option<Body>,
    /// Open file descriptions, all and those that may write.
    pub opens: u32,
    /// Those opened for writing.
    pub write_opens: u32,
    /// A peer's change has taken the file's name: only what was open before leads here, and what
    /// it writes stands beside the peer's.
    pub detached: bool,
    /// Heads that the next version takes the place of, beside the one below it.
    pub resolved: Vec<VersionId>,
}

impl Node {
    /// A node with this record and nothing else known.
    pub fn new(rec: NodeRecord) -> Self {
        Self {
            rec,
            changed_in: 0,
            dir: None,
            body: None,
            opens: 0,
            write_opens: 0,
            detached: false,
            resolved: Vec::new(),
        }
    }

    /// Is it a directory?
    pub fn is_dir(&self) -> bool {
        self.rec.kind == Kind::Directory
    }

    /// Its content.
    ///
    /// # Errors
    /// [`FsError::IsDirectory`] or [`FsError::Invalid`] if it has none.
    pub fn expect_regular(&self) -> Result<(), FsError> {
        match self.rec.kind {
            Kind::Regular => Ok(()),
            Kind::Directory => Err(FsError::IsDirectory),
            _ => Err(FsError::Invalid("not a regular file")),
        }
    }

    fn bytes(&self) -> u64 {
        NODE_BYTES
            + self.dir.as_ref().map_or(0, |dir| dir.len() as u64 * SLOT_BYTES)
            + self.body.as_ref().map_or(0, Body::clean_bytes)
    }
}

/// The tree in memory.
pub struct Tree {
    nodes: LruCache<Ino, Box<Node>>,
    /// How often the kernel was told of each number, less what it has given back.
    refs: HashMap<Ino, u64>,
    hasher: NameHasher,
    /// This device's ops that are not yet taken by a commit.
    pub pending: PendingOps,
    /// Nodes changed since the last commit took them.
    pub changed_nodes: Vec<Ino>,
    /// Names changed since, with their new entry or none.
    pub changed_entries: HashMap<(Ino, NameHash, EntryId), Option<EntryRecord>>,
    /// The number of the commit that will take what changes now; from 1.
    pub next_commit: u64,
    /// The last commit that is done.
    pub committed: u64,
    /// Counts what was forgotten.
    pub forgotten: u64,
    /// Memory of all drafts, in bytes.
    pub draft_bytes: u64,
    /// Nodes with a name, for `statfs`.
    pub live_nodes: u64,
    cache_bytes_max: u64,
    /// Manifests and patches taken in, at most; made exact by [`Tree::shrink`].
    content_bytes: u64,
    /// Memory at which shrinking is worth a walk over all nodes.
    shrink_at_bytes: u64,
}

impl Tree {
    /// An empty memory over a store.
    pub fn new(hasher: NameHasher, pending: PendingOps, live_nodes: u64, cache_max: u64) -> Self {
        Self {
            nodes: LruCache::unbounded(),
            refs: HashMap::new(),
            hasher,
            pending,
            changed_nodes: Vec::new(),
            changed_entries: HashMap::new(),
            next_commit: 1,
            committed: 0,
            forgotten: 0,
            draft_bytes: 0,
            live_nodes,
            cache_bytes_max: cache_max,
            content_bytes: 0,
            shrink_at_bytes: cache_max,
        }
    }

    /// The hash of a name.
    pub fn hash(&self, name: &[u8]) -> NameHash {
        self.hasher.hash(name)
    }

    /// The node with this number.
    ///
    /// # Errors
    /// [`Miss::Node`] if it is not in memory.
    pub fn node(&mut self, ino: Ino) -> Result<&mut Node, Stop> {
        match self.nodes.get_mut(&ino) {
            Some(node) => Ok(node),
            None => Err(Miss::Node(ino).into()),
        }
    }

    /// The node if it is in memory, without moving it up in the LRU.
    pub fn peek(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.peek_mut(&ino).map(AsMut::as_mut)
    }

    /// The directory with this number.
    ///
    /// # Errors
    /// [`FsError::NotDirectory`], or a miss.
    pub fn dir(&mut self, ino: Ino) -> Result<&mut Node, Stop> {
        let node = self.node(ino)?;
        if node.is_dir() { Ok(node) } else { Err(FsError::NotDirectory.into()) }
    }

    /// What stands at `name` in a directory.
    ///
    /// # Errors
    /// [`FsError::NotDirectory`], or a miss.
    pub fn entry(&mut self, parent: Ino, name: &[u8]) -> Result<Option<Entry>, Stop> {
        let hash = self.hash(name);
        let node = self.dir(parent)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(FsError::Name(NameError::TooLong(name.len())).into());
        }
        let small = node.rec.size_bytes <= DIR_NAMES_MAX as u64;
        match node.dir.as_ref().map_or(Known::Unknown, |dir| dir.get(hash)) {
            Known::Here(entry) if entry.name.as_bytes() == name => Ok(Some(entry.clone())),
            Known::Here(_) | Known::Absent => Ok(None),
            Known::Unknown if small => Err(Miss::Dir(parent).into()),
            Known::Unknown => Err(Miss::Entry(parent, hash).into()),
        }
    }

    /// What stands at `name`, which must exist.
    ///
    /// # Errors
    /// [`FsError::NotFound`], [`FsError::NotDirectory`], or a miss.
    pub fn existing(&mut self, parent: Ino, name: &[u8]) -> Result<Entry, Stop> {
        self.entry(parent, name)?.ok_or(Stop::Fail(FsError::NotFound))
    }

    /// Checks that `name` may be made in `parent`, a directory that has a name itself.
    ///
    /// # Errors
    /// What `open(2)` with `O_CREAT | O_EXCL` would say.
    pub fn vacant(&mut self, parent: Ino, name: &[u8]) -> Result<(Name, NameHash), Stop> {
        let checked = Name::new(name).map_err(FsError::from)?;
        if self.dir(parent)?.rec.nlink == 0 {
            return Err(FsError::NotFound.into());
        }
        if self.entry(parent, name)?.is_some() {
            return Err(FsError::Exists.into());
        }
        let hash = self.hash(name);
        let known = self.dir(parent)?.dir.as_ref().map(|dir| dir.get(hash));
        if matches!(known, Some(Known::Here(_))) {
            // One in 10^18 for a pair of names; refusing is all that is needed.
            return Err(FsError::Invalid("the name's hash is taken; choose another name").into());
        }
        Ok((checked, hash))
    }

    /// Puts an entry into a directory, in memory and for the next commit.
    pub fn put_entry(&mut self, parent: Ino, hash: NameHash, entry: Entry) {
        let record = EntryRecord {
            parent,
            hash,
            entry: entry.id,
            place: entry.place,
            ino: entry.ino,
            kind_bits: entry.kind_bits,
            name: entry.name.clone(),
        };
        self.changed_entries.insert((parent, hash, entry.id), Some(record));
        self.set_slot(parent, hash, Some(entry));
    }

    /// Takes an entry out of a directory, in memory and for the next commit.
    pub fn take_entry(&mut self, parent: Ino, hash: NameHash, id: EntryId) {
        self.changed_entries.insert((parent, hash, id), None);
        self.set_slot(parent, hash, None);
    }

    fn set_slot(&mut self, parent: Ino, hash: NameHash, entry: Option<Entry>) {
        let commit = self.next_commit;
        let node = self.peek(parent).expect("a directory being changed is in memory");
        node.dir.get_or_insert_default().set(hash, entry, commit);
    }

    /// Takes in that a name in a directory now stands for this, or nothing, which the store knows.
    pub fn learn_change(&mut self, parent: Ino, hash: NameHash, entry: Option<Entry>) {
        if let Some(dir) = self.peek(parent).and_then(|node| node.dir.as_mut()) {
            dir.set(hash, entry, 0);
        }
    }

    /// Changes a node for the next commit.
    ///
    /// # Panics
    /// If it is not in memory: the caller has just looked at it.
    pub fn change(&mut self, ino: Ino) -> &mut Node {
        let commit = self.next_commit;
        let node = self.nodes.peek_mut(&ino).expect("a node being changed is in memory");
        if node.changed_in != commit {
            node.changed_in = commit;
            self.changed_nodes.push(ino);
        }
        node
    }

    /// A directory gained or lost a name.
    pub fn touch_dir(&mut self, ino: Ino, names: i64, subdirs: i32, now: Timestamp) {
        let rec = &mut self.change(ino).rec;
        rec.size_bytes = rec.size_bytes.saturating_add_signed(names);
        rec.nlink = rec.nlink.saturating_add_signed(subdirs);
        rec.mtime = now;
        rec.ctime = now;
    }

    /// Puts a new node into memory and the next commit.
    pub fn add_node(&mut self, ino: Ino, node: Node) {
        self.nodes.push(ino, Box::new(node));
        self.live_nodes += 1;
        self.change(ino);
    }

    /// Takes in a node that was read from the store, unless memory knows it.
    pub fn learn_node(&mut self, ino: Ino, rec: NodeRecord) {
        if !self.nodes.contains(&ino) {
            self.nodes.push(ino, Box::new(Node::new(rec)));
        }
    }

    /// Tells of an attribute that was changed, of each of the directories that are one here.
    pub fn emit_attr(&mut self, ino: Ino, change: &AttrChange) {
        let Some(rec) = self.peek(ino).map(|node| &node.rec).filter(|rec| rec.nlink > 0) else {
            return;
        };
        let parts = rec.company.iter().flat_map(|company| &company.parts);
        let mut files: Vec<FileId> = match rec.kind {
            Kind::Directory => parts.map(|part| FileId(part.entry.0)).collect(),
            _ => Vec::new(),
        };
        if files.is_empty() {
            files.extend(rec.file);
        }
        for file in files {
            self.emit(Op::Attr { file, change: change.clone() });
        }
    }

    /// Appends an op to this device's journal.
    pub fn emit(&mut self, op: Op) -> OpId {
        self.pending.push(op)
    }

    /// The kernel was told of a node once more.
    pub fn add_ref(&mut self, ino: Ino) {
        *self.refs.entry(ino).or_insert(0) += 1;
    }

    /// The kernel gives back `count` references.
    pub fn drop_refs(&mut self, ino: Ino, count: u64) {
        let left = self.refs.get(&ino).map_or(0, |held| held.saturating_sub(count));
        if left > 0 {
            self.refs.insert(ino, left);
        } else {
            self.refs.remove(&ino);
            self.drop_if_unreachable(ino);
        }
    }

    /// Forgets a node without a name once nothing holds it any more, and its draft with it.
    pub fn drop_if_unreachable(&mut self, ino: Ino) {
        let held = self.refs.contains_key(&ino);
        let committed = self.committed;
        let Some(node) = self.peek(ino) else { return };
        if node.rec.nlink > 0 || held || node.opens > 0 || node.changed_in > committed {
            return;
        }
        let draft_bytes = node.body.as_ref().map_or(0, Body::draft_bytes);
        self.draft_bytes = self.draft_bytes.saturating_sub(draft_bytes);
        self.nodes.pop(&ino);
        self.forgotten += 1;
    }

    /// Forgets what was used longest ago and the store knows, until memory is within its bound.
    pub fn shrink(&mut self) {
        let committed = self.committed;
        let mut bytes: u64 = self.nodes.iter().map(|(_, node)| node.bytes()).sum();
        for _ in 0..self.nodes.len() {
            if bytes <= self.cache_bytes_max * 3 / 4 {
                break;
            }
            let Some((ino, mut node)) = self.nodes.pop_lru() else { break };
            bytes -= node.bytes();
            if self.must_stay(ino, &node) {
                if node.dir.as_mut().is_some_and(|dir| dir.forget_clean(committed)) {
                    self.forgotten += 1;
                }
                bytes += node.bytes();
                self.nodes.push(ino, node);
            } else {
                self.forgotten += 1;
            }
        }
        let content = |node: &Node| node.body.as_ref().map_or(0, Body::clean_bytes);
        self.content_bytes = self.nodes.iter().map(|(_, node)| content(node)).sum();
        // What must stay is not walked over again before it has grown by an eighth.
        self.shrink_at_bytes = self.cache_bytes_max.max(bytes + bytes / 8);
    }

    /// Counts content that a node has just taken in.
    pub fn count_content(&mut self, bytes: u64) {
        self.content_bytes += bytes;
    }

    /// A cheap estimate whether [`Tree::shrink`] has work to do.
    pub fn is_large(&self) -> bool {
        let nodes_bytes = self.nodes.len() as u64 * (NODE_BYTES + SLOT_BYTES);
        nodes_bytes + self.content_bytes > self.shrink_at_bytes
    }

    /// Drops the clean names of a directory that has grown too large to be held whole.
    pub fn trim_dir(&mut self, ino: Ino) {
        let committed = self.committed;
        let Some(dir) = self.peek(ino).and_then(|node| node.dir.as_mut()) else { return };
        if dir.len() > DIR_NAMES_MAX * 2 && dir.forget_clean(committed) {
            self.forgotten += 1;
        }
    }

    fn must_stay(&self, ino: Ino, node: &Node) -> bool {
        node.changed_in > self.committed
            || node.opens > 0
            || node.dir.as_ref().is_some_and(|dir| dir.is_dirty(self.committed))
            || node.body.as_ref().is_some_and(|body| body.changed || body.frozen.is_some())
            || (node.rec.nlink == 0 && self.refs.contains_key(&ino))
    }
}

/// A node record for something made now.
pub fn new_record(file: FileId, kind: Kind, parent: Ino, now: Timestamp) -> NodeRecord {
    NodeRecord {
        file: Some(file),
        nlink: if kind == Kind::Directory { 2 } else { 1 },
        kind,
        mode: 0,
        uid: 0,
        gid: 0,
        size_bytes: 0,
        stored_bytes: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        head: None,
        parent,
        xattrs: std::collections::BTreeMap::new(),
        company: None,
    }
}
