use std::collections::HashMap;
use std::ops::Range;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::chunk::manifest::kit::{Chunks, noise};
use crate::chunk::{seek_data, seek_hole};
use crate::types::ChunkId;
use crate::types::limits::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn written(offset: u64, bytes: &[u8]) -> ExtentMap {
    let mut overlay = ExtentMap::default();
    overlay.write(offset, bytes);
    overlay
}

/// A file of these bytes.
fn file(chunks: &Chunks, bytes: &[u8]) -> Manifest {
    chunks.rebuild(&Manifest::default(), &written(0, bytes), bytes.len() as u64)
}

fn check(manifest: &Manifest, size: u64) {
    assert_eq!(manifest.len_bytes(), size);
    for (item, next) in manifest.items().iter().zip(manifest.items().iter().skip(1)) {
        assert!(!matches!((item, next), (Item::Hole(_), Item::Hole(_))), "neighboring holes");
    }
    for item in manifest.items() {
        match item {
            Item::Hole(len) => assert!(*len >= HOLE_BYTES_MIN),
            Item::Chunk(chunk) => {
                assert!((1..=CHUNK_BYTES_MAX).contains(&(chunk.plain_bytes as usize)));
            }
        }
    }
}

/// A file as layers and, beside them, as plain bytes.
struct Model {
    chunks: Chunks,
    random: SmallRng,
    bytes: Vec<u8>,
    base: Manifest,
    patches: ExtentMap,
    dirty: ExtentMap,
    others: Vec<(Arc<Manifest>, Vec<u8>)>,
}

impl Model {
    fn new(seed: u64) -> Self {
        Self {
            chunks: Chunks::new(),
            random: SmallRng::seed_from_u64(seed),
            bytes: Vec::new(),
            base: Manifest::default(),
            patches: ExtentMap::default(),
            dirty: ExtentMap::default(),
            others: Vec::new(),
        }
    }

    /// A place in the file, or a little behind it.
    fn range(&mut self, len_max: usize) -> Range<usize> {
        let start = self.random.random_range(0..=self.bytes.len() + 1000);
        let len_max = if self.random.random_ratio(1, 3) { 5000 } else { len_max };
        start..start + self.random.random_range(1..len_max)
    }

    fn put(&mut self, start: usize, bytes: &[u8]) {
        let end = start + bytes.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[start..end].copy_from_slice(bytes);
    }

    fn change(&mut self) {
        match self.random.random_range(0..12) {
            0..6 => {
                let range = self.range(300_000);
                let data = match self.random.random_range(0..4) {
                    0 => vec![0; range.len()],
                    1 => vec![7; range.len()],
                    _ => noise(self.random.random_range(0..9), range.len()),
                };
                self.dirty.write(range.start as u64, &data);
                self.put(range.start, &data);
            }
            6..8 => {
                let range = self.range(300_000);
                let end = range.end.min(self.bytes.len());
                if range.start < end {
                    self.dirty.zero(range.start as u64, (end - range.start) as u64);
                    self.bytes[range.start..end].fill(0);
                }
            }
            8 => {
                let size = self.random.random_range(0..=self.bytes.len());
                self.dirty.truncate(size as u64);
                let below = self.patches.end().max(self.base.len_bytes());
                self.dirty.zero(size as u64, below.saturating_sub(size as u64));
                self.bytes.truncate(size);
            }
            9 => {
                let more = self.random.random_range(0..200_000);
                self.bytes.resize(self.bytes.len() + more, 0);
            }
            _ if self.others.is_empty() => {}
            _ => {
                let which = self.random.random_range(0..self.others.len());
                let (manifest, bytes) = self.others[which].clone();
                let from = self.random.random_range(0..bytes.len());
                let to = self.random.random_range(from..bytes.len()) + 1;
                let start = self.range(2).start;
                // In two pieces, as a long copy arrives.
                let middle = self.random.random_range(from..=to);
                let at = (start + middle - from) as u64;
                let (first, second) = ((middle - from) as u64, (to - middle) as u64);
                self.dirty.share(start as u64, manifest.clone(), from as u64, first);
                self.dirty.share(at, manifest, middle as u64, second);
                self.put(start, &bytes[from..to]);
            }
        }
    }

    fn commit(&mut self) {
        let size = self.bytes.len() as u64;
        self.patches.merge_newer(std::mem::take(&mut self.dirty));
        if self.random.random_ratio(1, 3) {
            return;
        }
        let overlay = std::mem::take(&mut self.patches);
        let rebuilt = self.chunks.rebuild(&self.base, &overlay, size);
        check(&rebuilt, size);
        self.base = self.chunks.load(&self.chunks.save(&rebuilt)).expect("loads");
        assert_eq!(self.base.items(), rebuilt.items());
        if size > 0 && self.random.random_ratio(1, 2) {
            self.others.push((Arc::new(self.base.clone()), self.bytes.clone()));
        }
    }

    fn verify(&mut self, what: &str) {
        let size = self.bytes.len() as u64;
        let layers = [&self.dirty, &self.patches];
        let read = |offset, len| self.chunks.read(&self.base, &layers, offset, len, size);
        assert!(read(0, u64::MAX) == self.bytes, "{what}: whole");
        for _ in 0..4 {
            let offset = self.random.random_range(0..=size + 10);
            let len = self.random.random_range(0..200_000);
            let range = offset.min(size)..(offset + len).min(size);
            let expected = &self.bytes[to_usize(range)];
            assert!(read(offset, len) == expected, "{what}: {len} at {offset}");
        }
        let data = |offset| seek_data(&self.base, &layers, size, offset);
        let hole = |offset| seek_hole(&self.base, &layers, size, offset);
        let mut at = 0;
        while let Some(start) = data(at) {
            assert!(self.bytes[to_usize(at..start)].iter().all(|byte| *byte == 0), "{what}");
            at = hole(start).expect("each file ends in a hole");
            assert!(start < at && at <= size, "{what}");
            let inside = self.random.random_range(start..at);
            assert_eq!((data(inside), hole(inside)), (Some(inside), Some(at)), "{what}");
        }
        assert!(self.bytes[to_usize(at..size)].iter().all(|byte| *byte == 0), "{what}");
        assert_eq!((data(at), hole(at), hole(size)), (None, Some(at), Some(size)), "{what}");
        assert_eq!((data(size), hole(size + 1)), (None, None), "{what}");
    }
}

fn to_usize(range: Range<u64>) -> Range<usize> {
    usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small")
}

#[test]
fn after_random_changes_every_read_equals_a_file_in_memory() {
    let one = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = one.map_or(0..40u64, |seed| seed..seed + 1);
    for seed in seeds {
        println!("seed {seed}");
        let mut model = Model::new(seed);
        for round in 0..8 {
            for _ in 0..model.random.random_range(1..6) {
                model.change();
            }
            model.verify(&format!("seed {seed} round {round} before the commit"));
            model.commit();
            model.verify(&format!("seed {seed} round {round} after it"));
        }
    }
}

#[test]
fn a_small_edit_of_a_big_file_makes_few_chunks_and_reads_few() {
    let chunks = Chunks::new();
    let size = 8 * MIB;
    let mut bytes = noise(1, 8 << 20);
    let mut base = file(&chunks, &bytes);
    chunks.save(&base);
    assert!((60..200).contains(&base.items().len()), "{} chunks", base.items().len());
    for step in 0..20u64 {
        let at = step * 411_007;
        bytes[to_usize(at..at + 10)].fill(1);
        chunks.new_count.set(0);
        chunks.open_count.set(0);
        base = chunks.rebuild(&base, &written(at, &[1; 10]), size);
        let (new, opened) = (chunks.new_count.get(), chunks.open_count.get());
        assert!(new <= 4, "the edit at {at} makes {new} chunks");
        assert!(opened <= 6, "the edit at {at} reads {opened} chunks");
        chunks.save(&base);
        assert!(chunks.new_count.get() - new <= 3, "nodes");
        check(&base, size);
    }
    assert!(chunks.read(&base, &[], 0, size, size) == bytes);
    let at_once = file(&chunks, &bytes);
    let known: std::collections::HashSet<_> = base.chunks_in(0..size).collect();
    let same = at_once.chunks_in(0..size).filter(|chunk| known.contains(chunk)).count();
    assert!(same * 10 > at_once.items().len() * 9, "history hardly shows in the cuts");
}

#[test]
fn a_file_that_grows_by_appends_gets_the_chunks_of_one_written_at_once() {
    let chunks = Chunks::new();
    let bytes = noise(2, 3 << 20);
    let mut base = Manifest::default();
    let mut at = 0;
    for step in 0.. {
        let end = bytes.len().min(at + 1 + step * 20_011);
        base = chunks.rebuild(&base, &written(at as u64, &bytes[at..end]), end as u64);
        at = end;
        if at == bytes.len() {
            break;
        }
    }
    assert_eq!(base.items(), file(&chunks, &bytes).items());
}

#[test]
fn a_sparse_file_of_tebibytes_with_one_byte_costs_one_chunk() {
    let chunks = Chunks::new();
    let size = 4 << 40;
    let base = chunks.rebuild(&Manifest::default(), &written(3 << 40, b"x"), size);
    check(&base, size);
    assert_eq!(base.items().len(), 3);
    assert_eq!((base.stored_bytes(), chunks.new_count.get()), (1, 1));
    assert_eq!(seek_data(&base, &[], size, 0), Some(3 << 40));
    assert_eq!(seek_hole(&base, &[], size, 3 << 40), Some((3 << 40) + 1));
    let empty = chunks.rebuild(&Manifest::default(), &ExtentMap::default(), size);
    assert_eq!(empty.items(), [Item::Hole(size)]);
    let none = chunks.rebuild(&base, &ExtentMap::default(), 0);
    assert!(none.items().is_empty());
}

#[test]
fn punched_holes_become_items_join_and_fill_again() {
    let chunks = Chunks::new();
    let bytes = noise(3, 2 << 20);
    let size = 2 * MIB;
    let full = file(&chunks, &bytes);
    let mut overlay = ExtentMap::default();
    overlay.zero(500 * KIB, 100 * KIB);
    let one = chunks.rebuild(&full, &overlay, size);
    assert!(one.items().contains(&Item::Hole(100 * KIB)));
    let mut overlay = ExtentMap::default();
    overlay.zero(400 * KIB, 100 * KIB);
    overlay.zero(600 * KIB, 50 * KIB);
    overlay.zero(1500 * KIB, 10 * KIB);
    let two = chunks.rebuild(&one, &overlay, size);
    let holes: Vec<_> = two.items().iter().filter(|item| matches!(item, Item::Hole(_))).collect();
    assert_eq!(holes, [&Item::Hole(250 * KIB)], "a short hole is stored as zeros");
    check(&two, size);
    let mut overlay = written(400 * KIB, &bytes[400 << 10..650 << 10]);
    overlay.write(1500 * KIB, &bytes[1500 << 10..1510 << 10]);
    let again = chunks.rebuild(&two, &overlay, size);
    assert!(chunks.read(&again, &[], 0, size, size) == bytes);
    assert_eq!(again.items(), full.items(), "no scar stays");
}

#[test]
fn a_copy_shares_all_whole_chunks() {
    let chunks = Chunks::new();
    let bytes = noise(4, 6 << 20);
    let source = Arc::new(file(&chunks, &bytes));
    chunks.new_count.set(0);
    let mut overlay = ExtentMap::default();
    // As the kernel hands down a long copy.
    for piece in 0..6 {
        overlay.share(piece * MIB, Arc::clone(&source), piece * MIB, MIB);
    }
    chunks.open_count.set(0);
    let copy = chunks.rebuild(&Manifest::default(), &overlay, 6 * MIB);
    assert_eq!(copy.items(), source.items());
    assert_eq!((chunks.new_count.get(), chunks.open_count.get()), (0, 0));

    let mut overlay = ExtentMap::default();
    overlay.share(MIB + 1234, source, 567, 4 * MIB);
    let part = chunks.rebuild(&copy, &overlay, 6 * MIB);
    let mut expected = bytes.clone();
    expected.copy_within(567..567 + (4 << 20), (1 << 20) + 1234);
    assert!(chunks.read(&part, &[], 0, 6 * MIB, 6 * MIB) == expected);
    assert!(chunks.new_count.get() <= 8, "{} chunks around the ends", chunks.new_count.get());
}

#[test]
fn unchanged_content_without_features_is_not_cut_anew_to_its_end() {
    let chunks = Chunks::new();
    let size = 16 * MIB;
    let base = file(&chunks, &vec![9; 16 << 20]);
    chunks.open_count.set(0);
    let edited = chunks.rebuild(&base, &written(MIB + 100, &noise(5, 200_000)), size);
    check(&edited, size);
    assert!(chunks.open_count.get() < 16, "{} chunks read", chunks.open_count.get());
}

/// What of `new` is not in `old`, in bytes.
fn new_bytes(old: &Manifest, new: &Manifest) -> u64 {
    let known: std::collections::HashSet<_> = old.chunks_in(0..u64::MAX).collect();
    let fresh = new.chunks_in(0..u64::MAX).filter(|chunk| !known.contains(chunk));
    fresh.map(|chunk| u64::from(chunk.plain_bytes)).sum()
}

#[test]
fn a_file_that_outgrows_a_size_of_chunks_keeps_those_that_it_has() {
    let chunks = Chunks::new();
    let bytes = noise(6, 72 << 20);
    let small = file(&chunks, &bytes[..60 << 20]);
    let grown = chunks.rebuild(&small, &written(60 * MIB, &bytes[60 << 20..]), 72 * MIB);
    check(&grown, 72 * MIB);
    assert!(new_bytes(&small, &grown) < 13 * MIB, "what was added, and the chunk before it");
    assert_eq!(grown.items(), file(&chunks, &bytes).items(), "history does not show");
    let (first, last) = (grown.chunks_in(0..60 * MIB), grown.chunks_in(65 * MIB..72 * MIB));
    assert!(first.count() > 600 && last.count() < 80, "larger chunks, further on");
    let cut_off = chunks.rebuild(&grown, &ExtentMap::default(), 60 * MIB);
    assert_eq!(cut_off.items(), small.items());
}

#[test]
fn a_large_file_with_a_byte_in_front_shares_its_chunks() {
    let chunks = Chunks::new();
    let mut bytes = noise(8, 72 << 20);
    let old = file(&chunks, &bytes);
    bytes.insert(0, b'!');
    let new = file(&chunks, &bytes);
    assert!(new_bytes(&old, &new) < 2 * MIB, "{} bytes are new", new_bytes(&old, &new));
}

#[test]
fn a_chunk_that_is_shorter_than_one_of_its_references_says_reads_as_zeros_behind_its_end() {
    let sealer = Sealer::new(None, false);
    let chunk = sealer.seal(b"four").chunk;
    let lie = ChunkRef { plain_bytes: 9, ..chunk };
    let base = Manifest::new(vec![Item::Chunk(lie)]);
    let mut cached = |_: &ChunkRef| -> Result<Arc<[u8]>, ()> { Ok(b"four".as_slice().into()) };
    let read = crate::chunk::read_range(&base, &[], 2, 9, 9, &mut cached).expect("no error");
    assert_eq!(read, b"ur\0\0\0\0\0");
    let overlay = written(8, b"x");
    let mut emit = |_| Ok(());
    let rebuilt = rebuild(&base, &overlay, 9, &sealer, &mut cached, &mut emit).expect("no error");
    assert_eq!(rebuilt.len_bytes(), 9);
}

#[test]
fn no_chunk_is_longer_than_the_workspace_wants_and_files_cut_otherwise_before_stay_whole() {
    let sealer = Sealer::new(None, false);
    let bytes = noise(11, 3 << 20);
    let mut stored: HashMap<ChunkId, Vec<u8>> = HashMap::new();
    let mut base = Manifest::default();
    // Where chunks are longest.
    let at = 1 << 30;
    let mut overlay = written(at, &bytes);
    let mut longest = Vec::new();
    for chunk_bytes_max in [CHUNK_BYTES_MAX, CHUNK_BYTES_MIN] {
        sealer.set_chunk_bytes_max(chunk_bytes_max);
        let mut fresh = 0;
        let mut sealed = Vec::new();
        let known = stored.clone();
        let mut open = |chunk: &ChunkRef| -> Result<Arc<[u8]>, ()> {
            Ok(sealer.open(chunk, &known[&chunk.id]).expect("sealed here").into())
        };
        let mut emit = |chunk: SealedChunk| {
            fresh = fresh.max(chunk.chunk.plain_bytes as usize);
            sealed.push((chunk.chunk.id, chunk.bytes));
            Ok(())
        };
        let size = 2 << 30;
        base = rebuild(&base, &overlay, size, &sealer, &mut open, &mut emit).expect("no error");
        assert!(fresh <= chunk_bytes_max, "{fresh} bytes in a chunk of {chunk_bytes_max}");
        longest.push(fresh);
        stored.extend(sealed);
        overlay = written(at + (512 << 10), &bytes[..1 << 20]);
    }
    assert!(longest[0] > CHUNK_BYTES_MIN, "the first way cuts longer chunks: {longest:?}");
    let mut open = |chunk: &ChunkRef| -> Result<Arc<[u8]>, ()> {
        Ok(sealer.open(chunk, &stored[&chunk.id]).expect("sealed here").into())
    };
    let none = ExtentMap::default();
    let read = crate::chunk::read_range(&base, &[&none], at, 3 << 20, 2 << 30, &mut open);
    let mut expected = bytes.clone();
    expected.copy_within(..1 << 20, 512 << 10);
    assert!(read.expect("no error") == expected);
}

#[test]
fn the_cutter_holds_a_few_chunks_however_long_the_stream() {
    for begin in [0, 1 << 30] {
        let lengths = SizeClass::at(begin).lengths(CHUNK_BYTES_MAX);
        let mut cutter = Cutter::new(CHUNK_BYTES_MAX);
        let bytes = noise(7, 1 << 20);
        let mut cut_bytes = 0;
        for step in 0..48 {
            cutter.feed(begin + step * MIB, &bytes);
            while cutter.is_full() {
                cut_bytes += cutter.cut().expect("a full window has a cut").len();
            }
            assert!(cutter.capacity() <= 4 * lengths.max_bytes + 4 * STEP_BYTES);
        }
        assert_eq!(cut_bytes + cutter.len(), 48 << 20);
    }
}
