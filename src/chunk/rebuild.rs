//! A new version's manifest: cut anew around what changed, the rest kept as it was.
//!
//! The cutter starts at an old cut before the change and goes on until one of its cuts falls on an
//! old one: from there the old chunks are right again. Holes are walls that no chunk crosses.

mod cutter;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use self::cutter::Cutter;
use self::view::{Piece, View};
use super::read::slice;
use super::{ExtentMap, Item, Manifest, SealedChunk, Sealer, SizeClass};
use crate::types::ChunkRef;

/// A shorter hole is stored as zeros.
const HOLE_BYTES_MIN: u64 = 64 << 10;
/// Written bytes are cut in steps of this, so that memory stays bounded.
const STEP_BYTES: usize = 1 << 20;
/// Content without features may never fall back in step: after so many mean chunks of unchanged
/// bytes the next old cut is taken.
const OUT_OF_STEP_CHUNKS_MAX: u64 = 16;
/// So many mean chunks of another file are taken over at once, without waiting for a cut that
/// falls on one of its own.
const SHARED_CHUNKS_MIN: u64 = 4;

/// Makes the manifest of the `size_bytes` that `overlay`, laid over `base`, shows.
///
/// Reads and seals only around the extents. `open` returns a chunk's plain bytes, as many as its reference says; `emit` gets each new chunk once per place,
/// in order, also if an equal one is stored. Memory: a few of the longest chunks, and the manifest.
///
/// # Errors
/// Those of `open` and `emit`; chunks handed out before are then of no use.
///
/// # Panics
/// If the items do not cover the file: a defect here.
pub fn rebuild<E>(
    base: &Manifest,
    overlay: &ExtentMap,
    size_bytes: u64,
    sealer: &Sealer,
    open: &mut impl FnMut(&ChunkRef) -> Result<Arc<[u8]>, E>,
    emit: &mut impl FnMut(SealedChunk) -> Result<(), E>,
) -> Result<Manifest, E> {
    let view = View { base, overlay, size_bytes };
    let mut rebuild = Rebuild {
        view,
        sealer,
        open,
        emit,
        opened: None,
        cutter: Cutter::new(sealer.chunk_bytes_max()),
        at: 0,
        unchanged_bytes: 0,
        done: Manifest::default(),
    };
    while rebuild.at < size_bytes {
        if !rebuild.keep_run()? {
            rebuild.step()?;
        }
    }
    rebuild.wall()?;
    assert_eq!(rebuild.done.len_bytes(), size_bytes, "the items cover the file");
    Ok(rebuild.done)
}

struct Rebuild<'a, O, S> {
    view: View<'a>,
    sealer: &'a Sealer,
    open: &'a mut O,
    emit: &'a mut S,
    /// The chunk opened last: the parts of it around an extent are asked for one by one.
    opened: Option<(ChunkRef, Arc<[u8]>)>,
    cutter: Cutter,
    /// Up to where the cutter was fed.
    at: u64,
    /// What it was fed of the base since the last change.
    unchanged_bytes: u64,
    done: Manifest,
}

impl<O, S, E> Rebuild<'_, O, S>
where
    O: FnMut(&ChunkRef) -> Result<Arc<[u8]>, E>,
    S: FnMut(SealedChunk) -> Result<(), E>,
{
    /// Keeps the old items that begin here, if we are in step, or have waited long enough.
    fn keep_run(&mut self) -> Result<bool, E> {
        let Some(run) = self.view.run(self.at) else { return Ok(false) };
        let in_step = self.cutter.len() == 0;
        let lengths = SizeClass::at(self.at).lengths(self.sealer.chunk_bytes_max());
        let average_bytes = lengths.average_bytes as u64;
        let forced = if run.is_shared {
            run.len_bytes >= average_bytes * SHARED_CHUNKS_MIN
        } else {
            self.unchanged_bytes >= average_bytes * OUT_OF_STEP_CHUNKS_MAX
        };
        if !in_step && !forced {
            return Ok(false);
        }
        self.wall()?;
        for item in run.items {
            self.done.push(item.clone());
        }
        self.at += run.len_bytes;
        self.unchanged_bytes = 0;
        Ok(true)
    }

    /// Feeds the cutter what shows here, and cuts.
    fn step(&mut self) -> Result<(), E> {
        match self.view.piece(self.at) {
            Piece::Hole(_) => self.hole(),
            Piece::Bytes(bytes) => {
                let bytes = &bytes[..bytes.len().min(STEP_BYTES)];
                self.cutter.feed(self.at, bytes);
                self.at += bytes.len() as u64;
                self.unchanged_bytes = 0;
                self.cut(false)
            }
            Piece::Chunk(chunk, range) => {
                let plain = self.opened(chunk)?;
                let len_bytes = range.end - range.start;
                let bytes = slice(&plain, &range);
                self.cutter.feed(self.at, bytes);
                self.at += bytes.len() as u64;
                let missing = len_bytes - bytes.len() as u64;
                self.feed_zeros(missing);
                self.unchanged_bytes += len_bytes;
                // Each further chunk that is read for nothing costs more than looking early.
                self.cut(range.end == u64::from(chunk.plain_bytes))
            }
        }
    }

    fn hole(&mut self) -> Result<(), E> {
        let len_bytes = self.view.hole_bytes(self.at);
        if len_bytes >= HOLE_BYTES_MIN {
            self.wall()?;
            self.at += len_bytes;
            self.done.push(Item::Hole(len_bytes));
            return Ok(());
        }
        self.feed_zeros(len_bytes);
        self.unchanged_bytes = 0;
        self.cut(false)
    }

    fn feed_zeros(&mut self, len_bytes: u64) {
        let count = usize::try_from(len_bytes).expect("a short hole, or inside a chunk");
        self.cutter.feed_zeros(self.at, count);
        self.at += len_bytes;
    }

    /// Cuts while cuts are certain (or, if `early`, while there are some), until one is in step
    /// with old items.
    fn cut(&mut self, early: bool) -> Result<(), E> {
        while early || self.cutter.is_full() {
            let Some(plain) = self.cutter.cut() else { break };
            let sealed = self.sealer.seal(plain);
            self.done.push(Item::Chunk(sealed.chunk.clone()));
            (self.emit)(sealed)?;
            let cut_at = self.at - self.cutter.len() as u64;
            if self.view.run(cut_at).is_some() {
                self.cutter.clear();
                self.at = cut_at;
                break;
            }
        }
        Ok(())
    }

    /// Cuts all that was fed: no chunk reaches further.
    fn wall(&mut self) -> Result<(), E> {
        while let Some(plain) = self.cutter.cut_at_end() {
            let sealed = self.sealer.seal(plain);
            self.done.push(Item::Chunk(sealed.chunk.clone()));
            (self.emit)(sealed)?;
        }
        self.unchanged_bytes = 0;
        Ok(())
    }

    fn opened(&mut self, chunk: &ChunkRef) -> Result<Arc<[u8]>, E> {
        if let Some((opened, plain)) = &self.opened
            && opened == chunk
        {
            return Ok(Arc::clone(plain));
        }
        let plain = (self.open)(chunk)?;
        self.opened = Some((chunk.clone(), Arc::clone(&plain)));
        Ok(plain)
    }
}
