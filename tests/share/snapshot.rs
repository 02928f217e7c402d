//! A device that is filled from one moment of another's store.

use tidefs::engine::sync::Replica;
use tidefs::types::ConflictResolution;

use super::devices::{exchange, found, join, join_filled};

#[test]
fn a_device_filled_from_a_snapshot_shows_the_same_tree_and_goes_on_with_it() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.mkdir("docs");
    ada.mkdir("docs/empty");
    ada.write("docs/plan.txt", b"one");
    ada.write("docs/large.bin", &vec![7; 300_000]);
    ada.link("docs/plan.txt", "docs/again.txt");
    ada.symlink("docs/link", "plan.txt");
    ada.symlink("gone", "plan.txt");
    for n in 0..700 {
        ada.write(&format!("docs/file {n}"), format!("file {n}").as_bytes());
    }
    ada.unlink("gone");
    ada.unlink("docs/file 5");
    ada.rename("docs/file 6", "renamed");
    ada.write("renamed", b"written again");
    let bob = join_filled(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    assert_eq!(bob.tree(), ada.tree());
    bob.write("docs/plan.txt", b"two, and longer");
    bob.rename("docs", "papers");
    ada.write("docs/large.bin", b"short now");
    bob.unlink("papers/file 7");
    bob.chmod("papers/file 8", 0o600);
    exchange(&[&ada, &bob]);
    assert_eq!(ada.tree(), bob.tree());
    assert_eq!(ada.read("papers/again.txt"), b"two, and longer");
    assert_eq!(bob.read("papers/large.bin"), b"short now");
    ada.finish();
    bob.finish();
}

#[test]
fn what_was_changed_apart_is_shown_alike_by_a_device_filled_later() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.write("note", b"draft");
    ada.mkdir("d");
    let bob = join(home.path(), "bob", &ada);
    exchange(&[&ada, &bob]);
    ada.write("note", b"by ada");
    bob.write("note", b"by bob, later");
    ada.mkdir("both");
    ada.write("both/a", b"a");
    bob.mkdir("both");
    bob.write("both/b", b"b");
    ada.write("twice", b"ada's");
    bob.write("twice", b"bob's");
    exchange(&[&ada, &bob]);
    let ada = ada.showing(ConflictResolution::KeepBoth);
    exchange(&[&ada, &bob]);
    let cay = join_filled(home.path(), "cay", &ada);
    exchange(&[&ada, &bob, &cay]);
    let bob = bob.showing(ConflictResolution::KeepBoth);
    exchange(&[&ada, &bob, &cay]);
    let cay = cay.showing(ConflictResolution::KeepBoth);
    exchange(&[&ada, &bob, &cay]);
    assert_eq!(cay.tree(), ada.tree());
    assert_eq!(cay.tree(), bob.tree());
    cay.write("note", b"settled by cay");
    cay.write("both/c", b"c");
    cay.unlink("both/a");
    cay.unlink("twice");
    exchange(&[&ada, &bob, &cay]);
    assert_eq!(cay.tree(), ada.tree());
    assert_eq!(cay.tree(), bob.tree());
    [ada, bob, cay].into_iter().for_each(super::devices::Device::finish);
}

#[test]
fn a_device_that_lacks_what_a_snapshot_stood_for_is_sent_nothing_that_leaves_a_gap() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    for n in 0..3 {
        ada.write(&format!("file {n}"), b"old");
        ada.sync();
    }
    let bob = join_filled(home.path(), "bob", &ada);
    let journal = ada.fs.replica().device();
    assert!(bob.fs.replica().batches(&journal, 0, 1 << 20).expect("are read").is_empty());
    let last = bob.fs.replica().frontier()[&journal];
    ada.write("file 4", b"new");
    exchange(&[&ada, &bob]);
    assert!(!bob.fs.replica().batches(&journal, last, 1 << 20).expect("are read").is_empty());
    ada.finish();
    bob.finish();
}

#[test]
fn a_workspace_with_more_to_fold_than_one_round_does_is_shared_as_it_is_shown() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    for dir in 0..9 {
        ada.mkdir(&format!("d{dir}"));
        for n in 0..1000 {
            ada.write(&format!("d{dir}/{n}"), b"first");
        }
        ada.sync();
    }
    ada.write("d0/1", b"second");
    ada.rename("d0/2", "d8/moved");
    ada.unlink("d0/3");
    ada.rename("d1", "d0/below");
    ada.sync();
    let before = ada.tree();
    ada.fs.replica().expect_company().expect("is made ready");
    assert_eq!(ada.tree(), before);
    let bob = join_filled(home.path(), "bob", &ada);
    assert_eq!(ada.tree(), before);
    assert_eq!(bob.tree(), before);
    bob.write("d0/1", b"third");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.read("d0/1"), b"third");
    assert_eq!(ada.tree(), bob.tree());
    ada.finish();
    bob.finish();
}
