//! Reading what layers over a manifest say, and finding their holes.

use std::ops::Range;
use std::sync::Arc;

use super::{Extent, ExtentMap, Item, Manifest};
use crate::types::ChunkRef;

/// Reads a file of `size_bytes`: `layers`, the newest first, laid over `base`. Returns `len_bytes`
/// bytes, fewer only where the file ends. Holes, and what nothing covers, read as zeros.
///
/// `open` returns a chunk's plain bytes, as many as the reference says. Each byte is copied once.
///
/// # Errors
/// Those of `open`.
pub fn read_range<E>(
    base: &Manifest,
    layers: &[&ExtentMap],
    offset: u64,
    len_bytes: u64,
    size_bytes: u64,
    open: &mut impl FnMut(&ChunkRef) -> Result<Arc<[u8]>, E>,
) -> Result<Vec<u8>, E> {
    let end = offset.saturating_add(len_bytes).min(size_bytes);
    let range = offset..end.max(offset);
    let mut out = Vec::with_capacity(count(&range));
    read_layers(&mut out, base, layers, range, open)?;
    Ok(out)
}

/// Where data begins at or after `offset`: what is in chunks or was written as bytes, zeros or
/// not. None if only holes follow.
pub fn seek_data(
    base: &Manifest,
    layers: &[&ExtentMap],
    size_bytes: u64,
    offset: u64,
) -> Option<u64> {
    seek(base, layers, size_bytes, offset, Kind::Data)
}

/// Where a hole begins at or after `offset`; every file ends in one, which begins at its end. None
/// only if `offset` lies beyond that.
pub fn seek_hole(
    base: &Manifest,
    layers: &[&ExtentMap],
    size_bytes: u64,
    offset: u64,
) -> Option<u64> {
    if offset > size_bytes {
        return None;
    }
    seek(base, layers, size_bytes, offset, Kind::Hole).or(Some(size_bytes))
}

fn count(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).expect("a read fits memory")
}

/// Appends `range` as the layers show it.
fn read_layers<E>(
    out: &mut Vec<u8>,
    base: &Manifest,
    layers: &[&ExtentMap],
    range: Range<u64>,
    open: &mut impl FnMut(&ChunkRef) -> Result<Arc<[u8]>, E>,
) -> Result<(), E> {
    let Some((top, below)) = layers.split_first() else {
        return read_items(out, base, range, open);
    };
    let mut at = range.start;
    for (start, extent) in top.touching(range.clone()) {
        if start > at {
            read_layers(out, base, below, at..start, open)?;
            at = start;
        }
        let to = range.end.min(start + extent.len_bytes());
        let inside = at - start..to - start;
        match extent {
            Extent::Bytes(bytes) => out.extend_from_slice(slice(bytes, &inside)),
            Extent::Zero(_) => out.resize(out.len() + count(&inside), 0),
            Extent::Shared { manifest, offset, .. } => {
                read_items(out, manifest, offset + inside.start..offset + inside.end, open)?;
            }
        }
        at = to;
    }
    if at < range.end {
        read_layers(out, base, below, at..range.end, open)?;
    }
    Ok(())
}

/// Appends `range` of a manifest, zeros beyond its end.
fn read_items<E>(
    out: &mut Vec<u8>,
    manifest: &Manifest,
    range: Range<u64>,
    open: &mut impl FnMut(&ChunkRef) -> Result<Arc<[u8]>, E>,
) -> Result<(), E> {
    let full = out.len() + count(&range);
    for (start, item) in manifest.touching(range.clone()) {
        let end = range.end.min(start + item.len_bytes());
        let inside = range.start.max(start) - start..end - start;
        let full = out.len() + count(&inside);
        if let Item::Chunk(chunk) = item {
            out.extend_from_slice(slice(&open(chunk)?, &inside));
        }
        out.resize(full, 0);
    }
    out.resize(full, 0);
    Ok(())
}

/// A part of bytes in memory. It is shorter than `range` where they end early: then two references
/// gave one chunk two lengths, and a cache knew it by the other.
pub(super) fn slice<'a>(bytes: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let index = |at| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    &bytes[index(range.start)..index(range.end)]
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Data,
    Hole,
}

fn seek(
    base: &Manifest,
    layers: &[&ExtentMap],
    size_bytes: u64,
    offset: u64,
    wanted: Kind,
) -> Option<u64> {
    let mut at = offset;
    while at < size_bytes {
        let (kind, end) = kind_at(base, layers, at..size_bytes);
        if kind == wanted {
            return Some(at);
        }
        at = end;
    }
    None
}

/// What lies at the start of `range`, and up to where at least.
fn kind_at(base: &Manifest, layers: &[&ExtentMap], range: Range<u64>) -> (Kind, u64) {
    let Some((top, below)) = layers.split_first() else {
        return kind_of_items(base, range);
    };
    let at = range.start;
    match top.touching(range.clone()).next() {
        None => kind_at(base, below, range),
        Some((start, _)) if start > at => kind_at(base, below, at..start),
        Some((start, extent)) => {
            let end = range.end.min(start + extent.len_bytes());
            match extent {
                Extent::Bytes(_) => (Kind::Data, end),
                Extent::Zero(_) => (Kind::Hole, end),
                Extent::Shared { manifest, offset, .. } => {
                    let there = offset + (at - start)..offset + (end - start);
                    let (kind, there_end) = kind_of_items(manifest, there);
                    (kind, there_end - offset + start)
                }
            }
        }
    }
}

fn kind_of_items(manifest: &Manifest, range: Range<u64>) -> (Kind, u64) {
    let mut items = manifest.touching(range.clone());
    match items.next() {
        None => (Kind::Hole, range.end),
        Some((start, Item::Hole(len_bytes))) => (Kind::Hole, range.end.min(start + len_bytes)),
        Some((_, Item::Chunk(_))) => {
            let hole = items.find(|(_, item)| matches!(item, Item::Hole(_)));
            let end = hole.map_or(manifest.len_bytes(), |(start, _)| start);
            (Kind::Data, range.end.min(end))
        }
    }
}
