//! The ordered chunks of one file version, in memory and as a tree of sealed nodes.
//!
//! A tree's node ends where a hash of its last entry says so, as a chunk ends where its bytes say
//! so: a small edit of a huge file makes a few new nodes per level and finds the others stored.

#[cfg(test)]
pub(super) mod kit;
mod node;
#[cfg(test)]
mod tests;

use std::mem::size_of;
use std::ops::Range;

use self::node::{Child, Entries, LEVELS_MAX, NODE_BYTES_MAX, NODE_ENTRIES_MIN};
use super::{ChunkError, SealedChunk, Sealer};
use crate::types::{ChunkId, ChunkRef};

/// Items of one manifest that a reader accepts: 64 TiB in chunks of 1 MiB. A test's hostile tree is
/// smaller.
const ITEMS_MAX: u64 = if cfg!(test) { 1 << 20 } else { 64 << 20 };

/// Where chunks of 64 KiB end in a file, and where those of 128 KiB do.
const SMALL_BYTES: u64 = 64 << 20;
const MEDIUM_BYTES: u64 = 1 << 30;

/// How large the chunks are, on average, in one part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeClass {
    /// 64 KiB.
    Small,
    /// 128 KiB.
    Medium,
    /// 1 MiB.
    Large,
}

impl SizeClass {
    /// The class of a chunk that begins at `offset`.
    ///
    /// Chunks grow with their place in the file, not with the file: so one that grows is never cut
    /// anew, and a copy, or the same with a little more in front, is cut alike and shares its chunks,
    /// however either was committed on the way.
    pub fn at(offset: u64) -> Self {
        match offset {
            0..SMALL_BYTES => Self::Small,
            SMALL_BYTES..MEDIUM_BYTES => Self::Medium,
            _ => Self::Large,
        }
    }

    /// How long its chunks are where none may be longer than `chunk_bytes_max` (`chunk_size`).
    pub fn lengths(self, chunk_bytes_max: usize) -> ChunkLengths {
        let average_bytes = match self {
            Self::Small => 64 << 10,
            Self::Medium => 128 << 10,
            Self::Large => 1 << 20,
        };
        let average_bytes = average_bytes.min(chunk_bytes_max / 4);
        let (min_bytes, max_bytes) = (average_bytes / 4, average_bytes * 4);
        ChunkLengths { min_bytes, average_bytes, max_bytes }
    }
}

/// How long chunks are cut, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLengths {
    /// A chunk is at least this long, unless a hole, the end or old content cuts it.
    pub min_bytes: usize,
    /// The mean.
    pub average_bytes: usize,
    /// No chunk is longer.
    pub max_bytes: usize,
}

/// One piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The bytes of a chunk, all of them.
    Chunk(ChunkRef),
    /// Zeros that are not stored, in bytes.
    Hole(u64),
}

impl Item {
    /// Its length in the file, in bytes.
    pub fn len_bytes(&self) -> u64 {
        match self {
            Self::Chunk(chunk) => u64::from(chunk.plain_bytes),
            Self::Hole(len_bytes) => *len_bytes,
        }
    }
}

/// The ordered items of one file version; by default those of an empty file.
///
/// No item is empty and no two holes are neighbors.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    items: Vec<Item>,
    /// Where each item starts in the file.
    starts: Vec<u64>,
    len_bytes: u64,
    stored_bytes: u64,
}

impl Manifest {
    /// The manifest of these items.
    pub fn new(items: Vec<Item>) -> Self {
        let mut manifest = Self::default();
        for item in items {
            manifest.push(item);
        }
        manifest
    }

    /// Adds an item at the end: an empty one is dropped, a hole joins the hole before it.
    pub(super) fn push(&mut self, item: Item) {
        let len_bytes = item.len_bytes();
        if len_bytes == 0 {
            return;
        }
        let start = self.len_bytes;
        self.len_bytes = start.saturating_add(len_bytes);
        if let (Some(Item::Hole(before)), Item::Hole(_)) = (self.items.last_mut(), &item) {
            *before = before.saturating_add(len_bytes);
            return;
        }
        if matches!(item, Item::Chunk(_)) {
            self.stored_bytes += len_bytes;
        }
        self.starts.push(start);
        self.items.push(item);
    }

    /// The items, in order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The sum of the items' lengths.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Plain bytes of all chunks; a chunk that occurs twice counts twice.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Memory that it takes.
    pub fn memory_bytes(&self) -> u64 {
        let items = self.items.capacity() * size_of::<Item>();
        let starts = self.starts.capacity() * size_of::<u64>();
        (size_of::<Self>() + items + starts) as u64
    }

    /// The items that touch a range, whole, each with its start.
    pub fn touching(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Item)> {
        let from = self.index_at(range.start).unwrap_or(self.items.len());
        let starts = self.starts[from..].iter().copied();
        starts.zip(&self.items[from..]).take_while(move |(start, _)| *start < range.end)
    }

    /// The chunks that touch a range, in order.
    pub fn chunks_in(&self, range: Range<u64>) -> impl Iterator<Item = &ChunkRef> {
        self.touching(range).filter_map(|(_, item)| match item {
            Item::Chunk(chunk) => Some(chunk),
            Item::Hole(_) => None,
        })
    }

    /// Which item `offset` lies in; none beyond the end.
    pub(super) fn index_at(&self, offset: u64) -> Option<usize> {
        let inside = offset < self.len_bytes;
        inside.then(|| self.starts.partition_point(|start| *start <= offset) - 1)
    }

    /// Where item `index` starts; the end, if it is the first that does not exist.
    pub(super) fn start_of(&self, index: usize) -> u64 {
        self.starts.get(index).copied().unwrap_or(self.len_bytes)
    }

    /// Seals the tree and hands out every node, children first; returns the root.
    ///
    /// Nodes that an older version had are handed out too: they seal equally, so a store knows them
    /// by their ids.
    ///
    /// # Errors
    /// Those of `emit`; what was handed out before is then of no use.
    pub fn save<E>(
        &self,
        sealer: &Sealer,
        emit: &mut impl FnMut(SealedChunk) -> Result<(), E>,
    ) -> Result<ChunkRef, E> {
        let mut put = |plain: &[u8]| -> Result<ChunkRef, E> {
            let node = sealer.seal(plain);
            let chunk = node.chunk.clone();
            emit(node)?;
            Ok(chunk)
        };
        let mut nodes = Vec::new();
        for items in node::split(&self.items, node::item_hash) {
            nodes.push(Child {
                node: put(&node::encode_items(items))?,
                len_bytes: items.iter().map(Item::len_bytes).sum(),
                stored_bytes: stored_bytes(items),
            });
        }
        for level in 1.. {
            if let [root] = nodes.as_slice() {
                return Ok(root.node.clone());
            }
            let mut parents = Vec::new();
            for children in node::split(&nodes, Child::hash) {
                parents.push(Child {
                    node: put(&node::encode_children(level, children))?,
                    len_bytes: children.iter().map(|child| child.len_bytes).sum(),
                    stored_bytes: children.iter().map(|child| child.stored_bytes).sum(),
                });
            }
            nodes = parents;
        }
        unreachable!("each level has fewer nodes than the one below")
    }

    /// Reads the tree under `root`. `fetch` returns sealed bytes that were checked against the id.
    ///
    /// # Errors
    /// [`ChunkError`] if a node is not what this module writes, whoever made it; those of `fetch`.
    pub fn load<E: From<ChunkError>>(
        root: &ChunkRef,
        sealer: &Sealer,
        fetch: &mut impl FnMut(&ChunkRef) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let mut manifest = Self::default();
        walk(root, sealer, fetch, &mut |found| {
            if let Found::Item(item) = found {
                manifest.push(item);
            }
        })?;
        manifest.items.shrink_to_fit();
        manifest.starts.shrink_to_fit();
        Ok(manifest)
    }

    /// What one node names, chunks (false) and nodes of the level below (true), from its sealed
    /// bytes, which were checked against the id.
    ///
    /// # Errors
    /// As [`Manifest::load`].
    pub fn node_references(
        node: &ChunkRef,
        sealer: &Sealer,
        sealed: &[u8],
    ) -> Result<Vec<(ChunkRef, bool)>, ChunkError> {
        let malformed = |why| ChunkError::Malformed { chunk: node.id, why };
        if node.plain_bytes as usize > NODE_BYTES_MAX {
            return Err(malformed("it is too long for a node of a manifest"));
        }
        let found = node::decode(&sealer.open(node, sealed)?).map_err(malformed)?;
        Ok(match found.entries {
            Entries::Items(items) => items
                .into_iter()
                .filter_map(|item| match item {
                    Item::Chunk(chunk) => Some((chunk, false)),
                    Item::Hole(_) => None,
                })
                .collect(),
            Entries::Children(children) => {
                children.into_iter().map(|child| (child.node, true)).collect()
            }
        })
    }

    /// Visits the ids of all nodes and chunks under `root`, itself first. An id that occurs twice
    /// is visited twice. Memory does not grow with the tree.
    ///
    /// # Errors
    /// As [`Manifest::load`]; some ids were visited then.
    pub fn references<E: From<ChunkError>>(
        root: &ChunkRef,
        sealer: &Sealer,
        fetch: &mut impl FnMut(&ChunkRef) -> Result<Vec<u8>, E>,
        visit: &mut impl FnMut(&ChunkId),
    ) -> Result<(), E> {
        walk(root, sealer, fetch, &mut |found| match found {
            Found::Node(node) => visit(&node.id),
            Found::Item(Item::Chunk(chunk)) => visit(&chunk.id),
            Found::Item(Item::Hole(_)) => {}
        })
    }
}

fn stored_bytes(items: &[Item]) -> u64 {
    let chunks = items.iter().filter(|item| matches!(item, Item::Chunk(_)));
    chunks.map(Item::len_bytes).sum()
}

/// What a walk meets, in the order of the file.
enum Found<'a> {
    Node(&'a ChunkRef),
    Item(Item),
}

/// A walk through a tree that may be hostile: its depth, its items and each node are bounded before
/// anything is allocated for them.
struct Walk<'a, F, V> {
    sealer: &'a Sealer,
    fetch: &'a mut F,
    visit: &'a mut V,
    item_count: u64,
}

/// What a node must be, as its parent says.
struct Expected {
    level: Option<u8>,
    /// Nothing follows it on its level, so it may be short.
    is_last: bool,
}

fn walk<E: From<ChunkError>>(
    root: &ChunkRef,
    sealer: &Sealer,
    fetch: &mut impl FnMut(&ChunkRef) -> Result<Vec<u8>, E>,
    visit: &mut impl FnMut(Found<'_>),
) -> Result<(), E> {
    let mut walk = Walk { sealer, fetch, visit, item_count: 0 };
    walk.node(root, &Expected { level: None, is_last: true })?;
    Ok(())
}

impl<F, V> Walk<'_, F, V> {
    /// Visits what is below a node; returns how many bytes it covers and how many are stored.
    fn node<E>(&mut self, at: &ChunkRef, expected: &Expected) -> Result<(u64, u64), E>
    where
        E: From<ChunkError>,
        F: FnMut(&ChunkRef) -> Result<Vec<u8>, E>,
        V: FnMut(Found<'_>),
    {
        let malformed = |why| ChunkError::Malformed { chunk: at.id, why };
        if at.plain_bytes as usize > NODE_BYTES_MAX {
            return Err(malformed("it is too long for a node of a manifest").into());
        }
        (self.visit)(Found::Node(at));
        let sealed = (self.fetch)(at)?;
        let node = node::decode(&self.sealer.open(at, &sealed)?).map_err(malformed)?;
        drop(sealed);
        let level_fits = expected.level.map_or(node.level < LEVELS_MAX, |is| is == node.level);
        if !level_fits {
            return Err(malformed("its level does not fit its place").into());
        }
        let short = node.entries.count() < NODE_ENTRIES_MIN;
        let empty_root = expected.level.is_none() && node.level == 0;
        if short && !expected.is_last || node.entries.count() == 0 && !empty_root {
            return Err(malformed("it has too few entries").into());
        }
        let (len_bytes, stored_bytes) =
            node.entries.totals().ok_or_else(|| malformed("it covers more than a file"))?;
        match node.entries {
            Entries::Items(items) => {
                self.item_count += items.len() as u64;
                if self.item_count > ITEMS_MAX {
                    return Err(malformed("its manifest has too many items").into());
                }
                for item in items {
                    (self.visit)(Found::Item(item));
                }
            }
            Entries::Children(children) => {
                self.children(at, node.level - 1, &children, expected.is_last)?;
            }
        }
        Ok((len_bytes, stored_bytes))
    }

    fn children<E>(
        &mut self,
        parent: &ChunkRef,
        level: u8,
        children: &[Child],
        is_last: bool,
    ) -> Result<(), E>
    where
        E: From<ChunkError>,
        F: FnMut(&ChunkRef) -> Result<Vec<u8>, E>,
        V: FnMut(Found<'_>),
    {
        for (index, child) in children.iter().enumerate() {
            let is_last = is_last && index + 1 == children.len();
            let found = self.node(&child.node, &Expected { level: Some(level), is_last })?;
            if found != (child.len_bytes, child.stored_bytes) {
                let why = "its children are not as long as it says";
                return Err(ChunkError::Malformed { chunk: parent.id, why }.into());
            }
        }
        Ok(())
    }
}
