use std::collections::HashSet;

use super::kit::Chunks;
use super::node::{Child, encode_children, encode_items};
use super::*;
use crate::chunk::WorkspaceSecret;
use crate::types::ChunkKey;
use crate::types::limits::FILE_BYTES_MAX;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// A chunk that no store has; `number` tells it from others.
fn chunk(number: usize, has_key: bool) -> ChunkRef {
    let id = ChunkId::of(&number.to_le_bytes());
    let plain_bytes = u32::try_from(1 + number % 100_000).expect("small");
    ChunkRef { id, key: has_key.then_some(ChunkKey(id.0)), plain_bytes }
}

fn items(count: usize, has_key: bool) -> Vec<Item> {
    let item = |number: usize| match number % 7 {
        3 => Item::Hole(number as u64 * 65536),
        _ => Item::Chunk(chunk(number, has_key)),
    };
    (0..count).map(item).collect()
}

#[test]
fn a_tree_of_any_size_comes_back_as_it_was() {
    let sealers = [Sealer::new(None, false), Sealer::new(Some(&WorkspaceSecret([1; 32])), true)];
    for sealer in sealers {
        let chunks = Chunks::with(sealer);
        for count in [0, 1, 31, 32, 33, 500, 5_000, 60_000] {
            let manifest = Manifest::new(items(count, true));
            let root = chunks.save(&manifest);
            let loaded = chunks.load(&root).expect("loads");
            assert_eq!(loaded.items(), manifest.items(), "{count} items");
            assert_eq!(loaded.starts, manifest.starts);
            assert_eq!(loaded.len_bytes(), manifest.len_bytes());
            assert_eq!(loaded.stored_bytes(), manifest.stored_bytes());
        }
    }
}

#[test]
fn references_name_every_node_and_every_chunk() {
    let chunks = Chunks::new();
    let manifest = Manifest::new(items(10_000, false));
    let root = chunks.save(&manifest);
    let mut visited = Vec::new();
    let mut fetch =
        |node: &ChunkRef| -> Result<_, ChunkError> { Ok(chunks.sealed.borrow()[&node.id].clone()) };
    let mut visit = |id: &ChunkId| visited.push(*id);
    Manifest::references(&root, &chunks.sealer, &mut fetch, &mut visit).expect("all is there");
    let mut expected: HashSet<ChunkId> = chunks.sealed.borrow().keys().copied().collect();
    expected.extend(manifest.chunks_in(0..u64::MAX).map(|chunk| chunk.id));
    assert_eq!(visited[0], root.id);
    assert_eq!(visited.len(), expected.len());
    assert_eq!(visited.into_iter().collect::<HashSet<_>>(), expected);
}

#[test]
fn a_small_change_of_a_long_manifest_makes_few_nodes() {
    let chunks = Chunks::new();
    let old = items(100_000, false);
    chunks.save(&Manifest::new(old.clone()));
    let nodes = chunks.new_count.replace(0);
    assert!((400..3_000).contains(&nodes), "{nodes} nodes of 100,000 items");
    for (what, replaced) in [("replaced", 50_000..50_001), ("inserted", 20_000..20_000)] {
        let mut new = old.clone();
        new.splice(replaced, [Item::Chunk(chunk(1_000_000, false))]);
        chunks.save(&Manifest::new(new));
        let nodes = chunks.new_count.replace(0);
        assert!(nodes <= 9, "an item {what} makes {nodes} nodes");
    }
}

#[test]
fn ranges_find_the_items_that_touch_them() {
    let manifest = Manifest::new(items(300, false));
    let len = manifest.len_bytes();
    for step in 0..500u64 {
        let from = step * 7_919 * 101 % (len + 10);
        let to = from + step * 4_999 % 300_000;
        let mut start = 0;
        let mut expected = Vec::new();
        for item in manifest.items() {
            if start < to && start + item.len_bytes() > from {
                expected.push((start, item));
            }
            start += item.len_bytes();
        }
        let found: Vec<_> = manifest.touching(from..to).collect();
        if from < to {
            assert_eq!(found, expected, "{from}..{to}");
        }
    }
}

#[test]
fn empty_items_vanish_and_neighboring_holes_join() {
    let holes = vec![Item::Hole(3), Item::Hole(0), Item::Hole(4), Item::Chunk(chunk(9, false))];
    let manifest = Manifest::new(holes);
    assert_eq!(manifest.items(), [Item::Hole(7), Item::Chunk(chunk(9, false))]);
    assert_eq!((manifest.len_bytes(), manifest.stored_bytes()), (17, 10));
    assert_eq!(manifest.start_of(1), 7);
}

#[test]
fn chunks_grow_with_their_place_in_the_file() {
    use SizeClass::{Large, Medium, Small};
    for (offset, expected) in [
        (0, Small),
        (64 * MIB - 1, Small),
        (64 * MIB, Medium),
        (GIB - 1, Medium),
        (GIB, Large),
        (FILE_BYTES_MAX, Large),
    ] {
        assert_eq!(SizeClass::at(offset), expected, "at {offset}");
    }
}

/// Loads a tree whose root has these plain bytes.
fn load_root(chunks: &Chunks, plain: &[u8]) -> Result<Manifest, ChunkError> {
    let root = chunks.sealer.seal(plain);
    let at = root.chunk.clone();
    chunks.emit(root);
    chunks.load(&at)
}

#[test]
fn damaged_nodes_give_errors_or_another_small_manifest() {
    for count in [40, 3_000] {
        let chunks = Chunks::new();
        let root = chunks.save(&Manifest::new(items(count, false)));
        let sealed = chunks.sealed.borrow()[&root.id].clone();
        let plain = chunks.sealer.open(&root, &sealed).expect("opens");
        let mut refused = 0;
        for bit in 0..plain.len() * 8 {
            let mut plain = plain.clone();
            plain[bit / 8] ^= 1 << (bit % 8);
            match load_root(&chunks, &plain) {
                Err(_) => refused += 1,
                Ok(other) => {
                    assert!(count == 40, "bit {bit}: an inner node fits its children");
                    assert!(other.items().len() <= count && other.len_bytes() <= FILE_BYTES_MAX);
                }
            }
        }
        assert!(refused >= if count == 40 { 600 } else { plain.len() * 8 }, "{refused} refused");
        for len in 0..plain.len() {
            if let Ok(other) = load_root(&chunks, &plain[..len]) {
                assert!(other.items().len() < count, "cut to {len}");
            }
        }
    }
}

fn child(chunks: &Chunks, plain: &[u8], len_bytes: u64, stored_bytes: u64) -> Child {
    let node = chunks.sealer.seal(plain);
    let child = Child { node: node.chunk.clone(), len_bytes, stored_bytes };
    chunks.emit(node);
    child
}

#[test]
fn a_tree_that_lies_is_refused() {
    let chunks = Chunks::new();
    let leaf = encode_items(&[Item::Chunk(chunk(9, false)), Item::Hole(5)]);
    let honest = child(&chunks, &leaf, 15, 10);
    let inner = |level, children: &[Child]| encode_children(level, children);
    let load = |plain: &[u8]| load_root(&chunks, plain);
    assert_eq!(load(&inner(1, std::slice::from_ref(&honest))).expect("honest").len_bytes(), 15);

    let longer = Child { len_bytes: 16, ..honest.clone() };
    assert!(load(&inner(1, &[longer])).is_err(), "a length");
    let fuller = Child { stored_bytes: 11, ..honest.clone() };
    assert!(load(&inner(1, &[fuller])).is_err(), "what is stored");
    assert!(load(&inner(2, std::slice::from_ref(&honest))).is_err(), "a level left out");
    assert!(load(&inner(1, &[honest.clone(), honest])).is_err(), "a short node before another");
    assert!(load(&inner(1, &[])).is_err(), "no children");
    assert!(load(&encode_items(&[Item::Hole(0)])).is_err(), "an empty hole");
    let endless = [Item::Hole(FILE_BYTES_MAX), Item::Hole(1)];
    assert!(load(&encode_items(&endless)).is_err(), "longer than a file");
    let wraps = [Item::Hole(u64::MAX), Item::Hole(2)];
    assert!(load(&encode_items(&wraps)).is_err(), "a sum that wraps");
    assert!(load(&encode_items(&vec![Item::Hole(1); 513])).is_err(), "too many entries");
    assert!(load(&vec![0; 1 << 20]).is_err(), "a node of a mebibyte");
}

#[test]
fn a_tree_is_refused_for_its_depth_or_its_items_before_they_take_memory() {
    let chunks = Chunks::new();
    let mut at = child(&chunks, &encode_items(&[Item::Hole(1)]), 1, 0);
    for level in 1..=20 {
        let plain = encode_children(level, std::slice::from_ref(&at));
        assert_eq!(load_root(&chunks, &plain).is_ok(), level < LEVELS_MAX, "level {level}");
        at = child(&chunks, &plain, 1, 0);
    }
    // 512 children, each the same node, down to the leaves: few bytes stored, many items named.
    let mut len_bytes = 512;
    let mut at = child(&chunks, &encode_items(&vec![Item::Hole(1); 512]), len_bytes, 0);
    for level in 1..=3 {
        let plain = encode_children(level, &vec![at; 512]);
        len_bytes *= 512;
        at = child(&chunks, &plain, len_bytes, 0);
    }
    assert!(chunks.load(&at.node).is_err());
}
