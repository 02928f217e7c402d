//! Two and more devices that share a workspace, without a network between them: what one has
//! signed is handed to the others, in any order, and all must show the same tree.

#[path = "share/devices.rs"]
mod devices;
#[path = "share/hostile.rs"]
mod hostile;
#[path = "share/members.rs"]
mod members;
#[path = "share/oracle.rs"]
mod oracle;
#[path = "share/random.rs"]
mod random;
#[path = "merge/replica.rs"]
#[allow(dead_code, reason = "the model's tests use more of it")]
mod replica;
#[path = "share/snapshot.rs"]
mod snapshot;

use std::sync::{Arc, Mutex};

use tidefs::engine::sync::Replica;
use tidefs::engine::verify;
use tidefs::env::Env;
use tidefs::fs::{Fetch, FsError, Wait, Writing};
use tidefs::store::Store;
use tidefs::types::{ChunkId, ConflictResolution, Role};

use devices::{Bringing, Device, exchange, exchange_batches, found, join, join_as};

#[test]
fn what_one_device_does_is_seen_on_the_other() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join(home.path(), "bob", &ada);
    ada.mkdir("docs");
    ada.write("docs/plan.txt", b"one");
    ada.write("docs/large.bin", &vec![7; 300_000]);
    ada.symlink("docs/link", "plan.txt");
    exchange(&[&ada, &bob]);
    assert_eq!(bob.tree(), ada.tree());
    assert_eq!(bob.read("docs/plan.txt"), b"one");
    bob.write("docs/plan.txt", b"two, and longer");
    bob.rename("docs", "papers");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.tree(), bob.tree());
    assert_eq!(ada.read("papers/plan.txt"), b"two, and longer");
    ada.unlink("papers/plan.txt");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.tree(), bob.tree());
    assert!(bob.find("papers/plan.txt").is_none());
}

#[test]
fn an_edit_apart_outlives_a_removal() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.write("note", b"draft");
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    ada.unlink("note");
    bob.write("note", b"edited");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.read("note"), b"edited");
    assert_eq!(ada.tree(), bob.tree());
}

#[test]
fn of_two_edits_apart_the_newest_bears_the_name_everywhere() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.write("note", b"draft");
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    ada.write("note", b"by ada");
    ada.sync();
    bob.write("note", b"by bob, later");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.read("note"), b"by bob, later");
    assert_eq!(ada.tree(), bob.tree());
    ada.write("note", b"settled");
    exchange(&[&ada, &bob]);
    assert_eq!(bob.read("note"), b"settled");
}

#[test]
fn directories_of_one_name_made_apart_become_one_with_both_contents() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    ada.mkdir("d");
    ada.write("d/a", b"a");
    bob.mkdir("d");
    bob.write("d/b", b"b");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.tree(), bob.tree());
    assert_eq!(bob.read("d/a"), b"a");
    assert_eq!(ada.read("d/b"), b"b");
    ada.write("d/c", b"c");
    bob.write("d/e", b"e");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.tree(), bob.tree());
    assert_eq!(ada.tree().len(), 5);
}

#[test]
fn files_of_one_name_made_apart_stand_side_by_side() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    ada.write("x.txt", b"ada's");
    ada.sync();
    bob.write("x.txt", b"bob's");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.tree(), bob.tree());
    assert_eq!(ada.read("x.txt"), b"ada's");
    assert_eq!(ada.tree().len(), 2);
}

#[test]
fn a_file_that_is_open_keeps_its_bytes_and_what_it_writes_is_not_lost() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.write("note", b"opened");
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    let open = ada.open("note");
    bob.write("note", b"changed");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.read_open(open), b"opened");
    assert_eq!(ada.read("note"), b"changed");
    ada.write_open(open, b"written through the old handle");
    ada.close(open);
    exchange(&[&ada, &bob]);
    assert_eq!(ada.read("note"), b"written through the old handle");
    assert_eq!(ada.tree(), bob.tree());
}

#[test]
fn a_version_that_another_device_has_laid_a_patch_over_stays() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.write("note", &[b'o'; 5000]);
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    let change = |device: &Device, ino, data| {
        let writing = Writing { offset: 10, data, append: false, kill_suid: false };
        device.fs.write(ino, &writing, Wait::May).expect("is written");
        device.sync();
    };
    let open = ada.open("note");
    change(&ada, open, b"while it is open");
    exchange(&[&ada, &bob]);
    let ino = bob.open("note");
    change(&bob, ino, b"over that");
    bob.close(ino);
    exchange(&[&ada, &bob]);
    ada.write_open(open, b"anew");
    ada.sync();
    ada.close(open);
    exchange(&[&ada, &bob]);
    assert_eq!(ada.tree(), bob.tree());
    ada.finish();
    bob.finish();
}

#[test]
fn a_temporary_file_that_another_device_has_edited_comes_back_beside_the_saved_document() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.write("note", b"draft");
    let bob = join(home.path(), "bob", &ada);
    ada.write("note~", b"saved by ada");
    exchange(&[&ada, &bob]);
    ada.rename("note~", "note");
    ada.sync();
    bob.write("note~", b"edited by bob");
    bob.write("note", b"written by bob");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.tree(), bob.tree());
    assert_eq!(ada.read("note~"), b"edited by bob");
    assert_eq!(ada.read("note"), b"written by bob");
    ada.finish();
    bob.finish();
}

#[test]
fn a_removed_file_that_comes_back_has_its_content_whatever_was_written_without_a_name() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.write("note", b"one");
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    let open = ada.open("note");
    ada.unlink("note");
    ada.write_open(open, b"written without a name");
    bob.rename("note", "kept");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.read_open(open), b"written without a name");
    assert_eq!(ada.read("kept"), b"one");
    assert_eq!(ada.tree(), bob.tree());
    ada.close(open);
    assert_eq!(ada.tree(), bob.tree());
    ada.finish();
    bob.finish();
}

#[test]
fn what_is_written_to_an_open_file_after_a_peers_removal_brings_it_back() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.write("note", b"opened");
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    let ino = bob.open("note");
    ada.unlink("note");
    exchange(&[&ada, &bob]);
    assert!(bob.find("note").is_none());
    bob.write_open(ino, b"gone on");
    bob.close(ino);
    exchange(&[&ada, &bob]);
    assert_eq!(ada.read("note"), b"gone on");
    assert_eq!(ada.tree(), bob.tree());
    bob.finish();
}

#[test]
fn a_directory_that_leaves_those_it_was_one_with_takes_what_is_in_it_along() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join(home.path(), "bob", &ada);
    let cyd = join(home.path(), "cyd", &ada);
    ada.mkdir("x");
    ada.mkdir("x/y");
    let all = [&ada, &bob, &cyd];
    exchange(&all);
    ada.mkdir("d");
    ada.write("d/n", b"ada's");
    bob.mkdir("d");
    bob.write("d/n", b"bob's");
    bob.mkdir("d/b");
    bob.write("d/b/inside", b"it");
    exchange(&[&bob, &cyd]);
    cyd.rename("d", "x/y/d");
    exchange(&[&ada, &bob]);
    bob.write("d/more", b"beside it");
    exchange(&[&bob, &cyd]);
    exchange(&all);
    assert_eq!(ada.read("x/y/d/b/inside"), b"it");
    // Whatever is listed anew later changes nothing.
    cyd.write("d/later", b"1");
    cyd.write("x/y/d/later", b"2");
    exchange(&all);
    let tree = ada.tree();
    for device in [ada, bob, cyd] {
        assert_eq!(device.tree(), tree);
        device.finish();
    }
}

#[test]
fn a_change_of_a_file_whose_bytes_are_elsewhere_waits_for_them() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bytes: Vec<u8> = (0..900_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    ada.write("large", &bytes);
    let bob = join(home.path(), "bob", &ada);
    exchange_batches(&[&ada, &bob]);
    let ino = bob.open("large");
    let change = |offset| {
        let writing = Writing { offset, data: b"changed", append: false, kill_suid: false };
        bob.fs.write(ino, &writing, Wait::May)
    };
    assert!(change(70_000).is_err(), "nobody brings what is missing");
    let (from, to) = (ada.fs.replica().clone(), bob.fs.replica().clone());
    bob.fs.set_fetcher(std::sync::Arc::new(Bringing { from, to }));
    change(70_000).expect("is written");
    bob.close(ino);
    exchange(&[&ada, &bob]);
    let mut expected = bytes;
    expected[70_000..70_007].copy_from_slice(b"changed");
    let ino = ada.open("large");
    let found = ada.fs.read(ino, 0, u32::MAX, Wait::May).expect("is read");
    assert!(found == expected, "the bytes are as they were, but for the change");
    ada.close(ino);
    ada.finish();
    bob.finish();
}

#[test]
fn content_that_nobody_reads_arrives_by_itself() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join(home.path(), "bob", &ada);
    let ada_sync = ada.replicate(&[]);
    let bob_sync = bob.replicate(&[(ada.fs.replica().device(), ada_sync.addresses())]);
    // Too long for one chunk, so the batch names no more than the manifest.
    let bytes: Vec<u8> = (0..900_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    ada.write("large", &bytes);
    ada.sync();
    // Bob has nothing that would fetch for a reader.
    let is_there = || {
        if bob.find("large").is_none() {
            return false;
        }
        let ino = bob.open("large");
        let found = bob.fs.read(ino, 0, u32::MAX, Wait::May);
        bob.close(ino);
        found.is_ok_and(|found| found == bytes)
    };
    let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !is_there() {
        assert!(std::time::Instant::now() < until, "what nobody reads does not arrive");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    ada_sync.finish();
    bob_sync.finish();
    ada.finish();
    bob.finish();
}

#[test]
fn small_content_comes_with_its_batch_and_nothing_else_is_kept() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    let (from, to) = (ada.fs.replica(), bob.fs.replica());
    let noise = |count: u32| (0..count).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    let news = || {
        ada.sync();
        let after = to.frontier()[&from.device()];
        let batches = from.batches(&from.device(), after, 1 << 20).expect("are read");
        let chunks = from.fresh_chunks(after, from.frontier()[&from.device()], 1 << 20);
        (batches, chunks)
    };
    // Several chunks and the manifest that names them.
    let bytes: Vec<u8> = noise(150_000);
    ada.write("small", &bytes);
    let (batches, mut chunks) = news();
    assert!(chunks.len() > 2, "{} chunks", chunks.len());
    chunks.push(b"what nothing names".to_vec());
    let with_ids = |chunks: Vec<Vec<u8>>| -> Vec<(ChunkId, Vec<u8>)> {
        chunks.into_iter().map(|bytes| (ChunkId::of(&bytes), bytes)).collect()
    };
    to.deliver(&from.device(), batches, with_ids(chunks)).expect("are taken");
    assert_eq!(bob.read("small"), bytes);
    assert!(to.missing_chunks(9, &std::collections::HashSet::new()).is_empty());
    let unnamed = ChunkId::of(b"what nothing names");
    assert!(to.read_chunk(&unnamed).expect("reads").is_none());
    // More than goes along is asked for as a whole.
    ada.write("large", &noise(400_000));
    assert!(news().1.is_empty());
    ada.finish();
    bob.finish();
}

#[test]
fn what_a_large_file_is_while_it_is_written_crosses_only_if_it_stays_so() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    let to = bob.fs.replica();
    let missing = || to.missing_chunks(99, &std::collections::HashSet::new());
    let mut noise = 7u64;
    let mut bytes: Vec<u8> = Vec::new();
    let mut part = |ino| {
        let byte = || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (noise >> 56) as u8
        };
        let data: Vec<u8> = std::iter::repeat_with(byte).take(900_000).collect();
        ada.append(ino, bytes.len() as u64, &data);
        bytes.extend(&data);
    };
    ada.write("growing", b"");
    let ino = ada.open("growing");
    part(ino);
    part(ino);
    exchange_batches(&[&ada, &bob]);
    let own = ada.fs.replica();
    let first = own.frontier()[&own.device()];
    assert!(own.fresh_chunks(first - 1, first, 1 << 20).is_empty(), "nothing goes along");
    assert_eq!((missing().len(), to.missing_later_ms().is_some()), (0, true), "later");
    // The next takes its place before that.
    part(ino);
    exchange_batches(&[&ada, &bob]);
    assert_eq!((missing().len(), to.missing_later_ms().is_some()), (0, true), "later still");
    // Closed: a version of its own says so, though no byte has changed since.
    ada.close(ino);
    exchange_batches(&[&ada, &bob]);
    assert_eq!((missing().len(), to.missing_later_ms()), (1, None), "its root");
    exchange(&[&ada, &bob]);
    assert!(bob.read("growing") == bytes[..1 << 20]);
    ada.finish();
    bob.finish();
}

#[test]
fn of_a_version_that_was_passed_over_a_part_may_come_all_the_same() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    ada.write("growing", b"");
    let ino = ada.open("growing");
    let bytes: Vec<u8> = (0..700_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    ada.append(ino, 0, &bytes[..1_800_000]);
    exchange_batches(&[&ada, &bob]);
    // Somebody reads it: its root is under way while the next version takes its place.
    let (from, to) = (ada.fs.replica(), bob.fs.replica());
    let store = Store::look(&bob.dir, &Env::real()).expect("opens");
    let wanted = store.wanted_page(None, 9).expect("is read");
    let [root] = wanted[..] else { panic!("its root alone is wanted: {wanted:?}") };
    ada.append(ino, 1_800_000, &bytes[1_800_000..]);
    exchange_batches(&[&ada, &bob]);
    let sealed = from.read_chunk(&root).expect("reads").expect("is there");
    to.awaiting(&root, || to.store_chunks(vec![(root, sealed)])).expect("is kept");
    ada.close(ino);
    exchange(&[&ada, &bob]);
    assert!(to.read_chunk(&root).expect("reads").is_some(), "the root has come");
    assert!(bob.read("growing") == bytes[..1 << 20]);
    ada.finish();
    bob.finish();
}

/// Notes what is asked for, and brings nothing.
#[derive(Default)]
struct Asking(Mutex<Vec<ChunkId>>);

impl Fetch for Asking {
    fn fetch(&self, id: &ChunkId) -> Result<(), String> {
        self.0.lock().expect("no panic").push(*id);
        Err("it is nowhere".into())
    }
}

#[test]
fn what_is_behind_a_node_that_is_still_to_come_is_not_swept() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join(home.path(), "bob", &ada);
    ada.write("large", b"");
    let ino = ada.open("large");
    // Pieces with holes between: many items, so several nodes wherever they are cut.
    for piece in 0..2000u64 {
        let bytes: Vec<u8> = (0..1000).flat_map(|n: u64| (piece << 20 | n).to_le_bytes()).collect();
        ada.append(ino, piece << 20, &bytes);
    }
    ada.close(ino);
    exchange_batches(&[&ada, &bob]);
    let (from, to) = (ada.fs.replica(), bob.fs.replica());
    let bring = |ids: &[ChunkId]| {
        let read = |id: &ChunkId| (*id, from.read_chunk(id).expect("reads").expect("is there"));
        to.store_chunks(ids.iter().map(read).collect()).expect("are kept");
        bob.fs.sync_now(None).expect("commits");
    };
    let store = Store::look(&bob.dir, &Env::real()).expect("opens");
    let wanted = || store.wanted_page(None, 10_000).expect("is read");
    bring(&wanted());
    let nodes = wanted();
    assert!(nodes.len() > 1, "a root over several nodes: {}", nodes.len());
    // A reader asks in the order of the file. The first node is still to come, all behind it is here.
    let asked = Arc::new(Asking::default());
    bob.fs.set_fetcher(asked.clone());
    let ino = bob.open("large");
    bob.fs.read(ino, 0, 1, Wait::May).expect_err("is not here");
    bob.close(ino);
    let first = asked.0.lock().expect("no panic")[0];
    let others: Vec<ChunkId> = nodes.into_iter().filter(|node| *node != first).collect();
    bring(&others);
    let behind: Vec<ChunkId> = wanted().into_iter().filter(|id| *id != first).collect();
    bring(&behind);
    let dir = bob.closed();
    let report = verify(&dir, &Env::real(), true, &mut |_| ()).expect("verifies");
    assert!(report.is_clean(), "{:#?}", report.problems);
    for id in &behind {
        assert!(store.has_chunk(id).expect("looks"), "{id:?} was swept");
    }
    ada.finish();
}

#[test]
fn moves_into_each_other_close_no_cycle() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.mkdir("a");
    ada.mkdir("b");
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    ada.rename("a", "b/a");
    ada.sync();
    bob.rename("b", "a/b");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.tree(), bob.tree());
    assert!(ada.find("b/a").is_some());
}

#[test]
fn random_work_apart_ends_in_one_tree_and_a_clean_store() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or(1..=12, |seed: u64| seed..=seed) {
        eprintln!("seed {seed}");
        random::run(seed);
    }
}

/// The name beside `x.txt`, which must be the same on all these devices.
fn beside(devices: &[&Device]) -> String {
    let is_beside = |name: &&String| name.as_str() != "x.txt";
    let names: Vec<String> = devices
        .iter()
        .map(|device| device.tree().keys().find(is_beside).expect("one stands beside it").clone())
        .collect();
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    names[0].clone()
}

#[test]
fn a_name_beside_another_says_which_device_made_it_and_follows_its_name() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join(home.path(), "bob-laptop", &ada);
    let cyd = join(home.path(), "cyd", &ada);
    exchange(&[&ada, &bob, &cyd]);
    ada.write("x.txt", b"ada's");
    ada.sync();
    bob.write("x.txt", b"bob's");
    exchange(&[&ada, &bob, &cyd]);
    let all = [&ada, &bob, &cyd];
    assert!(beside(&all).starts_with("x (conflict, bob-laptop, "), "{}", beside(&all));
    bob.name(&bob, "cyd");
    exchange(&all);
    let digits = &bob.fs.replica().device().to_string()[..8];
    assert!(beside(&all).starts_with(&format!("x (conflict, cyd {digits}, ")), "{}", beside(&all));
    ada.name(&cyd, "phone");
    exchange(&all);
    assert!(beside(&all).starts_with("x (conflict, cyd, "), "{}", beside(&all));
    let late = join(home.path(), "late", &ada);
    exchange(&[&ada, &bob, &cyd, &late]);
    beside(&[&ada, &bob, &cyd, &late]);
    for device in [ada, bob, cyd, late] {
        device.finish();
    }
}

#[test]
fn a_reader_changes_nothing_until_it_is_made_a_writer() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.write("note", b"to be read");
    let bob = join_as(home.path(), "bob", &ada, Role::Reader);
    exchange(&[&ada, &bob]);
    assert_eq!(bob.read("note"), b"to be read");
    let ino = bob.find("note").expect("is there").ino;
    let open = || bob.fs.open_file(ino, true, false, Wait::May);
    assert!(matches!(open(), Err(FsError::ReadOnly(_))));
    let write = || {
        let writing = Writing { offset: 0, data: b"changed", append: false, kill_suid: false };
        bob.fs.write(ino, &writing, Wait::May)
    };
    let refused = write();
    assert!(
        matches!(&refused, Err(FsError::ReadOnly(why)) if why.contains("a reader")),
        "{refused:?}"
    );
    let device = bob.fs.replica().device();
    ada.fs.replica().set_role(&device, Role::Writer).expect("is made a writer");
    exchange(&[&ada, &bob]);
    open().expect("opens");
    write().expect("is written");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.read("note"), b"changedead");
    ada.fs.replica().set_role(&device, Role::Reader).expect("is made a reader");
    write().expect("it has not heard of it");
    exchange(&[&ada, &bob]);
    assert!(matches!(write(), Err(FsError::ReadOnly(_))));
    bob.fs.release(ino, true);
    exchange(&[&ada, &bob]);
    assert_eq!(ada.tree(), bob.tree());
    ada.finish();
    bob.finish();
}

#[test]
fn a_second_link_to_a_removed_file_that_still_shows_leaves_its_name_to_it_and_not_to_its_twin() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.write("x", b"old");
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    // An edit that its remover has not seen outlives the removal, and a file of the same name and
    // content is one row with it.
    ada.write("x", b"new");
    bob.unlink("x");
    bob.write("x", b"new");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.tree(), bob.tree());
    ada.link("x", "y");
    let before = ada.tree();
    ada.settle();
    assert_eq!(ada.tree(), before);
    exchange(&[&ada, &bob]);
    assert_eq!((bob.tree(), ada.tree_root()), (before, bob.tree_root()));
    ada.finish();
    bob.finish();
}

#[test]
fn a_device_that_was_closed_before_it_heard_anything_has_the_root_that_the_others_have() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.write("note", b"one");
    let bob = join(home.path(), "bob", &ada);
    bob.settle();
    let bob = bob.showing(ConflictResolution::LastWriteWins);
    exchange(&[&ada, &bob]);
    ada.settle();
    bob.settle();
    assert!(ada.tree_root().is_some());
    assert_eq!(bob.tree_root(), ada.tree_root());
    ada.finish();
    bob.finish();
}
