//! The bytes of one node of a manifest's tree.
//!
//! Two bytes (version, level), then entries until the node ends, so no count stands
//! in it that could lie. Level 0 holds items, each other level the nodes of the level below.
//! Numbers are little-endian.
//!
//! | Entry | Bytes |
//! |---|---|
//! | hole | 0, length u64 |
//! | chunk | 1 (2 with a key), id, key if any, plain length u32 |
//! | child | as a chunk, then u64 bytes that it covers and u64 bytes of them in chunks |

use super::Item;
use crate::types::limits::{CHUNK_BYTES_MAX, FILE_BYTES_MAX};
use crate::types::{ChunkId, ChunkKey, ChunkRef};

const VERSION: u8 = 1;
const HOLE: u8 = 0;
const CHUNK: u8 = 1;
const CHUNK_WITH_KEY: u8 = 2;

/// A node has at least this many entries, unless it is the last of its level.
pub const NODE_ENTRIES_MIN: usize = 32;
const NODE_ENTRIES_MAX: usize = 512;
/// A node ends after an entry whose hash has these bits zero: one in 128.
const NODE_END_MASK: u64 = 127;
/// The longest node has 512 children with keys, 85 bytes each.
pub const NODE_BYTES_MAX: usize = 48 << 10;
/// Levels of a tree: with at least 32 entries in a node, six suffice for all items.
pub const LEVELS_MAX: u8 = 8;

/// A node as its parent names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    pub node: ChunkRef,
    /// What it covers of the file.
    pub len_bytes: u64,
    /// What of that is in chunks.
    pub stored_bytes: u64,
}

impl Child {
    pub fn hash(&self) -> u64 {
        id_hash(&self.node.id)
    }
}

/// What a node holds.
#[derive(Debug, PartialEq)]
pub enum Entries {
    Items(Vec<Item>),
    Children(Vec<Child>),
}

impl Entries {
    pub fn count(&self) -> usize {
        match self {
            Self::Items(items) => items.len(),
            Self::Children(children) => children.len(),
        }
    }

    /// Bytes that it covers, and those in chunks; none if no file is that long.
    pub fn totals(&self) -> Option<(u64, u64)> {
        let add = |(len, stored): (u64, u64), (more_len, more_stored)| {
            Some((len.checked_add(more_len)?, stored.checked_add(more_stored)?))
        };
        let totals = match self {
            Self::Items(items) => items.iter().try_fold((0, 0), |sum, item| {
                let len = item.len_bytes();
                add(sum, (len, if matches!(item, Item::Chunk(_)) { len } else { 0 }))
            }),
            Self::Children(children) => children
                .iter()
                .try_fold((0, 0), |sum, child| add(sum, (child.len_bytes, child.stored_bytes))),
        };
        totals.filter(|(len, _)| *len <= FILE_BYTES_MAX)
    }
}

/// A node, decoded.
#[derive(Debug, PartialEq)]
pub struct Node {
    pub level: u8,
    pub entries: Entries,
}

/// Splits one level's entries into nodes: at least one, and an empty one only of nothing.
pub fn split<T>(entries: &[T], hash: impl Fn(&T) -> u64) -> impl Iterator<Item = &[T]> {
    let mut rest = Some(entries);
    std::iter::from_fn(move || {
        let entries = rest?;
        let ends = |entry: &T| hash(entry) & NODE_END_MASK == 0;
        let longest = &entries[..entries.len().min(NODE_ENTRIES_MAX)];
        let found = longest.iter().skip(NODE_ENTRIES_MIN - 1).position(ends);
        let count = found.map_or(longest.len(), |index| index + NODE_ENTRIES_MIN);
        let (node, after) = entries.split_at(count);
        rest = (!after.is_empty()).then_some(after);
        Some(node)
    })
}

/// The hash by which [`split`] knows an item again.
pub fn item_hash(item: &Item) -> u64 {
    match item {
        Item::Chunk(chunk) => id_hash(&chunk.id),
        Item::Hole(len_bytes) => len_bytes.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32,
    }
}

fn id_hash(id: &ChunkId) -> u64 {
    u64::from_le_bytes(*id.0.first_chunk().expect("an id has 32 bytes"))
}

pub fn encode_items(items: &[Item]) -> Vec<u8> {
    let mut out = header(0, items.len());
    for item in items {
        match item {
            Item::Hole(len_bytes) => {
                out.push(HOLE);
                out.extend_from_slice(&len_bytes.to_le_bytes());
            }
            Item::Chunk(chunk) => encode_chunk(&mut out, chunk),
        }
    }
    out
}

pub fn encode_children(level: u8, children: &[Child]) -> Vec<u8> {
    let mut out = header(level, children.len());
    for child in children {
        encode_chunk(&mut out, &child.node);
        out.extend_from_slice(&child.len_bytes.to_le_bytes());
        out.extend_from_slice(&child.stored_bytes.to_le_bytes());
    }
    out
}

fn header(level: u8, count: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + count * 85);
    out.push(VERSION);
    out.push(level);
    out
}

fn encode_chunk(out: &mut Vec<u8>, chunk: &ChunkRef) {
    out.push(if chunk.key.is_some() { CHUNK_WITH_KEY } else { CHUNK });
    out.extend_from_slice(&chunk.id.0);
    if let Some(key) = &chunk.key {
        out.extend_from_slice(&key.0);
    }
    out.extend_from_slice(&chunk.plain_bytes.to_le_bytes());
}

/// Decodes a node; the error says what is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<Node, &'static str> {
    let mut input = Input(bytes);
    let [version, level] = input.array()?;
    if version != VERSION {
        return Err("it is no node of a manifest, or of a newer version");
    }
    let entries = if level == 0 {
        Entries::Items(input.entries(Input::item)?)
    } else {
        Entries::Children(input.entries(Input::child)?)
    };
    Ok(Node { level, entries })
}

/// The bytes that are still to be decoded.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (array, rest) = self.0.split_first_chunk().ok_or("it is cut short")?;
        self.0 = rest;
        Ok(*array)
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn entries<T>(
        &mut self,
        one: impl Fn(&mut Self) -> Result<T, &'static str>,
    ) -> Result<Vec<T>, &'static str> {
        let mut entries = Vec::new();
        while !self.0.is_empty() {
            if entries.len() == NODE_ENTRIES_MAX {
                return Err("it has too many entries");
            }
            entries.push(one(self)?);
        }
        Ok(entries)
    }

    fn item(&mut self) -> Result<Item, &'static str> {
        let [tag] = self.array()?;
        if tag != HOLE {
            return Ok(Item::Chunk(self.chunk(tag)?));
        }
        match self.number()? {
            0 => Err("a hole in it is empty"),
            len_bytes => Ok(Item::Hole(len_bytes)),
        }
    }

    fn child(&mut self) -> Result<Child, &'static str> {
        let [tag] = self.array()?;
        let node = self.chunk(tag)?;
        let (len_bytes, stored_bytes) = (self.number()?, self.number()?);
        Ok(Child { node, len_bytes, stored_bytes })
    }

    fn chunk(&mut self, tag: u8) -> Result<ChunkRef, &'static str> {
        let id = ChunkId(self.array()?);
        let key = match tag {
            CHUNK => None,
            CHUNK_WITH_KEY => Some(ChunkKey(self.array()?)),
            _ => return Err("an entry in it is of no known kind"),
        };
        let plain_bytes = u32::from_le_bytes(self.array()?);
        if plain_bytes == 0 || plain_bytes as usize > CHUNK_BYTES_MAX {
            return Err("a chunk in it is empty or too long");
        }
        Ok(ChunkRef { id, key, plain_bytes })
    }
}
