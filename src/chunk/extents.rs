//! Byte ranges laid over a file, the newest on top: drafts and patches.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::Manifest;

/// A sequential writer's extents grow to this, then the next begins.
const EXTENT_BYTES_MAX: usize = 1 << 20;
/// What an extent costs beside its bytes.
const EXTENT_OVERHEAD_BYTES: u64 = 64;

/// What lies in a range.
#[derive(Clone, Debug)]
pub enum Extent {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A hole of this many bytes.
    Zero(u64),
    /// Bytes of another file's chunks, from `offset` there.
    Shared {
        /// The chunks.
        manifest: Arc<Manifest>,
        /// Where in them, in bytes.
        offset: u64,
        /// How many bytes.
        len_bytes: u64,
    },
}

impl Extent {
    /// Its length in bytes.
    pub fn len_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zero(len_bytes) | Self::Shared { len_bytes, .. } => *len_bytes,
        }
    }

    fn memory_bytes(&self) -> u64 {
        EXTENT_OVERHEAD_BYTES
            + match self {
                Self::Bytes(bytes) => bytes.capacity() as u64,
                Self::Zero(_) | Self::Shared { .. } => 0,
            }
    }

    /// Its first `len` bytes stay; the rest is returned.
    fn split_off(&mut self, len: u64) -> Self {
        match self {
            Self::Bytes(bytes) => {
                Self::Bytes(bytes.split_off(usize::try_from(len).expect("inside the bytes")))
            }
            Self::Zero(len_bytes) => {
                let rest = *len_bytes - len;
                *len_bytes = len;
                Self::Zero(rest)
            }
            Self::Shared { manifest, offset, len_bytes } => {
                let rest = *len_bytes - len;
                *len_bytes = len;
                let (manifest, offset) = (Arc::clone(manifest), *offset + len);
                Self::Shared { manifest, offset, len_bytes: rest }
            }
        }
    }
}

/// Extents that do not overlap, by offset.
#[derive(Clone, Debug, Default)]
pub struct ExtentMap {
    extents: BTreeMap<u64, Extent>,
    memory_bytes: u64,
}

impl ExtentMap {
    /// Lays bytes down.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() || self.write_inside(offset, data) {
            return;
        }
        self.cut(offset..offset + data.len() as u64);
        if !self.append(offset, data) {
            self.insert(offset, Extent::Bytes(data.to_vec()));
        }
    }

    /// Lays a hole down.
    pub fn zero(&mut self, offset: u64, len_bytes: u64) {
        if len_bytes > 0 {
            self.cut(offset..offset + len_bytes);
            self.insert(offset, Extent::Zero(len_bytes));
        }
    }

    /// Lays down bytes of another file's chunks.
    pub fn share(&mut self, offset: u64, manifest: Arc<Manifest>, from: u64, len_bytes: u64) {
        if len_bytes > 0 {
            self.cut(offset..offset + len_bytes);
            self.insert(offset, Extent::Shared { manifest, offset: from, len_bytes });
        }
    }

    /// Drops what lies at or beyond `size_bytes`.
    pub fn truncate(&mut self, size_bytes: u64) {
        self.cut(size_bytes..u64::MAX);
    }

    /// Lays a newer map over this one.
    pub fn merge_newer(&mut self, newer: ExtentMap) {
        for (offset, extent) in newer.extents {
            self.cut(offset..offset + extent.len_bytes());
            self.insert(offset, extent);
        }
    }

    /// The extents that touch a range, whole, in order.
    pub fn touching(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Extent)> {
        let from = self.at_or_before(range.start).unwrap_or(range.start);
        self.extents.range(from..range.end.max(from)).map(|(offset, extent)| (*offset, extent))
    }

    /// All extents, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Extent)> {
        self.extents.iter().map(|(offset, extent)| (*offset, extent))
    }

    /// Does it hold nothing?
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// Where the last extent ends; 0 if there is none.
    pub fn end(&self) -> u64 {
        self.extents.last_key_value().map_or(0, |(offset, extent)| offset + extent.len_bytes())
    }

    /// Memory that it takes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Bytes in it that are no holes.
    pub fn data_bytes(&self) -> u64 {
        let holes = |extent: &Extent| matches!(extent, Extent::Zero(_));
        self.extents.values().filter(|extent| !holes(extent)).map(Extent::len_bytes).sum()
    }

    /// Does it take bytes from other files' chunks?
    pub fn has_shared(&self) -> bool {
        self.extents.values().any(|extent| matches!(extent, Extent::Shared { .. }))
    }

    /// The start of an extent that begins before `offset` and reaches past it.
    fn at_or_before(&self, offset: u64) -> Option<u64> {
        let (start, extent) = self.extents.range(..=offset).next_back()?;
        (start + extent.len_bytes() > offset).then_some(*start)
    }

    fn insert(&mut self, offset: u64, extent: Extent) {
        self.memory_bytes += extent.memory_bytes();
        let old = self.extents.insert(offset, extent);
        assert!(old.is_none(), "the range was cut free");
    }

    fn remove(&mut self, offset: u64) -> Option<Extent> {
        let extent = self.extents.remove(&offset)?;
        self.memory_bytes -= extent.memory_bytes();
        Some(extent)
    }

    /// Overwrites inside one extent of bytes.
    fn write_inside(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some((start, Extent::Bytes(bytes))) = self.extents.range_mut(..=offset).next_back()
        else {
            return false;
        };
        let at = offset - start;
        if at + data.len() as u64 > bytes.len() as u64 {
            return false;
        }
        let at = usize::try_from(at).expect("inside the bytes");
        bytes[at..at + data.len()].copy_from_slice(data);
        true
    }

    /// Appends to the extent of bytes that ends at `offset`.
    fn append(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some((start, Extent::Bytes(bytes))) = self.extents.range_mut(..offset).next_back()
        else {
            return false;
        };
        if start + bytes.len() as u64 != offset || bytes.len() + data.len() > EXTENT_BYTES_MAX {
            return false;
        }
        let before = bytes.capacity();
        bytes.extend_from_slice(data);
        self.memory_bytes += (bytes.capacity() - before) as u64;
        true
    }

    /// Frees a range: what lies in it goes, what reaches over its ends is cut.
    fn cut(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let mut at = self.at_or_before(range.start).unwrap_or(range.start);
        while let Some(start) = self.extents.range(at..range.end).next().map(|(start, _)| *start) {
            let mut extent = self.remove(start).expect("just found");
            let end = start + extent.len_bytes();
            if end > range.end {
                let tail = extent.split_off(range.end - start);
                self.insert(range.end, tail);
            }
            if start < range.start {
                let _cut = extent.split_off(range.start - start);
                self.insert(start, extent);
            }
            at = start + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::read_range;

    fn flat(map: &ExtentMap, len: u64) -> Vec<u8> {
        let never = &mut |_: &crate::types::ChunkRef| -> Result<Arc<[u8]>, ()> { Err(()) };
        read_range(&Manifest::default(), &[map], 0, len, len, never).expect("no chunks")
    }

    #[test]
    fn the_newest_write_is_on_top_whatever_the_order() {
        use rand::{RngExt, SeedableRng};
        for seed in 0..200 {
            let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
            let mut map = ExtentMap::default();
            let mut expected = vec![0u8; 4096];
            for step in 1..60u8 {
                let start = random.random_range(0..4000usize);
                let len = random.random_range(0..96usize);
                let range = start..start + len;
                match random.random_range(0..10) {
                    0..7 => {
                        map.write(start as u64, &vec![step; len]);
                        expected[range].fill(step);
                    }
                    7..9 => {
                        map.zero(start as u64, len as u64);
                        expected[range].fill(0);
                    }
                    _ => {
                        let mut newer = ExtentMap::default();
                        newer.write(start as u64, &vec![step; len]);
                        map.merge_newer(newer);
                        expected[range].fill(step);
                    }
                }
                assert_eq!(flat(&map, 4096), expected, "seed {seed} step {step}");
                let memory: u64 = map.extents.values().map(Extent::memory_bytes).sum();
                assert_eq!(map.memory_bytes(), memory, "seed {seed} step {step}");
            }
        }
    }

    #[test]
    fn sequential_writes_make_few_extents() {
        let mut map = ExtentMap::default();
        for i in 0..1024u64 {
            map.write(i * 4096, &[1; 4096]);
        }
        assert_eq!(map.extents.len(), 4);
    }

    #[test]
    fn a_hole_of_many_tebibytes_costs_nothing() {
        let mut map = ExtentMap::default();
        map.zero(0, 1 << 50);
        map.write(1 << 49, b"x");
        map.truncate(1 << 49 | 1);
        assert_eq!(map.end(), (1 << 49) + 1);
        assert!(map.memory_bytes() < 1000);
    }
}
