//! What an overlay over a manifest shows at an offset, and which old chunks show whole.

use std::ops::Range;
use std::sync::Arc;

use super::HOLE_BYTES_MIN;
use crate::chunk::{Extent, ExtentMap, Item, Manifest};
use crate::types::ChunkRef;

/// A file as it is to become.
pub struct View<'a> {
    pub base: &'a Manifest,
    pub overlay: &'a ExtentMap,
    pub size_bytes: u64,
}

/// What shows at an offset, up to where one thing shows.
pub enum Piece<'a> {
    Bytes(&'a [u8]),
    /// A hole of so many bytes.
    Hole(u64),
    /// A part of a chunk.
    Chunk(&'a ChunkRef, Range<u64>),
}

/// Old items that can stay: a chunk first, a chunk last, holes only between.
pub struct Run<'a> {
    pub items: &'a [Item],
    pub len_bytes: u64,
    /// Do they come from another file?
    pub is_shared: bool,
}

/// A manifest that shows at an offset.
struct Shown<'a> {
    manifest: &'a Manifest,
    /// Which part of it.
    range: Range<u64>,
    is_shared: bool,
}

impl<'a> View<'a> {
    /// What shows at `at`, which is inside the file.
    pub fn piece(&self, at: u64) -> Piece<'a> {
        let (extent, until) = self.top(at);
        match extent {
            None => first_piece(self.base, at..until),
            Some((start, Extent::Bytes(bytes))) => {
                let index = |at: u64| usize::try_from(at - start).expect("inside bytes in memory");
                Piece::Bytes(&bytes[index(at)..index(until)])
            }
            Some((_, Extent::Zero(_))) => Piece::Hole(until - at),
            Some((start, Extent::Shared { manifest, offset, .. })) => {
                first_piece(manifest, offset + (at - start)..offset + (until - start))
            }
        }
    }

    /// How long the hole at `at` is, whatever it is made of; 0 if there is data.
    pub fn hole_bytes(&self, at: u64) -> u64 {
        let mut end = at;
        while end < self.size_bytes
            && let Piece::Hole(len_bytes) = self.piece(end)
        {
            end += len_bytes;
        }
        end - at
    }

    /// The longest run of old items that begins at `at` and can stay.
    ///
    /// A chunk that ended where its file or its data ended was not cut by its content: it stays
    /// only if there is no data behind it now either. So a file that grows gets the chunks that it
    /// would have got if written at once.
    pub fn run(&self, at: u64) -> Option<Run<'a>> {
        if at >= self.size_bytes {
            return None;
        }
        let Shown { manifest, range, is_shared } = self.shown(at)?;
        let items = manifest.items();
        let first = manifest.index_at(range.start)?;
        if manifest.start_of(first) != range.start || matches!(items[first], Item::Hole(_)) {
            return None;
        }
        let end_of = |last: usize| at + (manifest.start_of(last) - range.start);
        let mut last = manifest.index_at(range.end).unwrap_or(items.len());
        last = first + without_last_holes(&items[first..last]).len();
        let content_cut = matches!(items.get(last), Some(Item::Chunk(_)));
        if last > first && !content_cut && self.data_follows(end_of(last)) {
            last = first + without_last_holes(&items[first..last - 1]).len();
        }
        let len_bytes = end_of(last) - at;
        (last > first).then(|| Run { items: &items[first..last], len_bytes, is_shared })
    }

    fn data_follows(&self, at: u64) -> bool {
        at < self.size_bytes && self.hole_bytes(at) < HOLE_BYTES_MIN
    }

    /// The extent that shows at `at`, if one does, and up to where nothing else shows.
    fn top(&self, at: u64) -> (Option<(u64, &'a Extent)>, u64) {
        match self.overlay.touching(at..self.size_bytes).next() {
            None => (None, self.size_bytes),
            Some((start, _)) if start > at => (None, start),
            Some((start, extent)) => {
                (Some((start, extent)), self.size_bytes.min(start + extent.len_bytes()))
            }
        }
    }

    fn shown(&self, at: u64) -> Option<Shown<'a>> {
        let (extent, until) = self.top(at);
        match extent {
            None => Some(Shown { manifest: self.base, range: at..until, is_shared: false }),
            Some((start, Extent::Shared { manifest, offset, .. })) => {
                let from = offset + (at - start);
                let until = self.shared_until(manifest, *offset, start, until);
                let range = from..from + (until - at);
                Some(Shown { manifest, range, is_shared: true })
            }
            Some((_, Extent::Bytes(_) | Extent::Zero(_))) => None,
        }
    }

    /// Up to where the extents that follow go on in the same manifest: a long copy arrives in
    /// pieces.
    fn shared_until(
        &self,
        manifest: &Arc<Manifest>,
        offset: u64,
        start: u64,
        mut until: u64,
    ) -> u64 {
        for (next, extent) in self.overlay.touching(until..self.size_bytes) {
            match extent {
                Extent::Shared { manifest: other, offset: from, len_bytes }
                    if next == until
                        && Arc::ptr_eq(manifest, other)
                        && *from == offset + (next - start) =>
                {
                    until = self.size_bytes.min(next + len_bytes);
                }
                _ => break,
            }
        }
        until
    }
}

fn without_last_holes(items: &[Item]) -> &[Item] {
    let last = items.iter().rposition(|item| matches!(item, Item::Chunk(_)));
    &items[..last.map_or(0, |index| index + 1)]
}

fn first_piece(manifest: &Manifest, range: Range<u64>) -> Piece<'_> {
    let Some((start, item)) = manifest.touching(range.clone()).next() else {
        return Piece::Hole(range.end - range.start);
    };
    let end = range.end.min(start + item.len_bytes());
    match item {
        Item::Hole(_) => Piece::Hole(end - range.start),
        Item::Chunk(chunk) => Piece::Chunk(chunk, range.start - start..end - start),
    }
}
