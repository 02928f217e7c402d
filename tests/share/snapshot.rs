//! A device that is filled from one moment of another's store.

use std::time::{Duration, Instant};

use tidefs::engine::Workspace;
use tidefs::engine::sync::Replica;
use tidefs::env::Env;
use tidefs::fs::{FsError, SetAttr, Wait};
use tidefs::types::{ConflictResolution, Ino, SnapshotPage};

use super::devices::{Joiner, exchange, found, join, join_filled, parts};

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

#[test]
fn half_a_directory_is_never_shown_and_changes_wait_until_all_is_here() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.mkdir("far");
    for n in 0..3000 {
        ada.write(&format!("far/{n}"), b"x");
    }
    ada.write("near", b"here");
    let joiner = Joiner::new(home.path(), "bob", &ada);
    let teller = ada.fs.replica().device();
    let mut hearing = Workspace::hearing(&joiner.dir, &Env::real(), teller).expect("a workspace");
    let mut pages = parts(&ada).into_iter().map(|part| hearing.hear(&part).expect("is heard"));
    let Some((SnapshotPage::Head(head), _)) = pages.next() else { panic!("no head") };
    let bob = joiner.fill(&head).expect("opens");
    let may_not = bob.fs.lookup(Ino::ROOT, b"near", Wait::Never);
    assert!(matches!(may_not, Err(FsError::WouldBlock)), "{may_not:?}");
    let mut lay = |(page, is_last)| {
        let SnapshotPage::Rows(rows) = page else { panic!("a second head") };
        bob.fs.replica().lay_page(rows, is_last).expect("is laid");
    };
    lay(pages.next().expect("a page"));
    assert_eq!(bob.read("near"), b"here");
    let far = bob.find("far").expect("is there").ino;
    let count = move |fs: &tidefs::fs::Filesystem| {
        let (mut names, mut offset) = (0, 0);
        loop {
            let before = names;
            let after = offset;
            let mut take = |row: tidefs::fs::DirEntry| {
                (names, offset) = (names + 1, row.next_offset);
                false
            };
            fs.readdir(far, after, false, Wait::May, &mut take).expect("lists");
            if names == before {
                return names;
            }
        }
    };
    let change = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let near = bob.find("near").expect("is there").ino;
    let (listed_at, changed_at, resumed) = std::thread::scope(|scope| {
        let listing = scope.spawn(|| (count(&bob.fs), Instant::now()));
        let changing = scope.spawn(|| {
            bob.fs.setattr(near, &change, Wait::May).expect("is changed");
            Instant::now()
        });
        std::thread::sleep(Duration::from_millis(100));
        let resumed = Instant::now();
        pages.by_ref().for_each(&mut lay);
        let (names, listed_at) = listing.join().expect("lists");
        assert_eq!(names, 3002);
        (listed_at, changing.join().expect("changes"), resumed)
    });
    assert!(listed_at > resumed && changed_at > resumed, "they waited");
    exchange(&[&ada, &bob]);
    assert_eq!(ada.tree(), bob.tree());
    ada.finish();
    bob.finish();
}

#[test]
fn what_ends_early_is_forgotten_and_comes_anew() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    for n in 0..3000 {
        ada.write(&format!("{n}"), b"x");
    }
    let joiner = Joiner::new(home.path(), "bob", &ada);
    let teller = ada.fs.replica().device();
    for is_cut in [true, false] {
        let mut hearing =
            Workspace::hearing(&joiner.dir, &Env::real(), teller).expect("a workspace");
        let mut pages = parts(&ada).into_iter().map(|part| hearing.hear(&part).expect("is heard"));
        let Some((SnapshotPage::Head(head), _)) = pages.next() else { panic!("no head") };
        let bob = joiner.fill(&head).expect("opens");
        let count = if is_cut { 2 } else { usize::MAX };
        for (page, is_last) in pages.take(count) {
            let SnapshotPage::Rows(rows) = page else { panic!("a second head") };
            bob.fs.replica().lay_page(rows, is_last).expect("is laid");
        }
        if is_cut {
            bob.fs.replica().loading().give_up("the cable was pulled");
            let told = bob.fs.lookup(Ino::ROOT, b"1", Wait::May);
            assert!(matches!(&told, Err(FsError::Io(why)) if why.contains("cable")), "{told:?}");
            bob.fs.close().expect("closes");
            assert!(Workspace::is_empty(&joiner.dir, &Env::real()).expect("is looked at"));
            ada.write("meanwhile", b"y");
            ada.unlink("7");
        } else {
            exchange(&[&ada, &bob]);
            assert_eq!(ada.tree(), bob.tree());
            bob.finish();
        }
    }
    ada.finish();
}

#[test]
fn what_came_before_a_snapshot_is_fetched_until_the_device_can_serve_all_of_it() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    for n in 0..20 {
        ada.write(&format!("file {n}"), b"old");
        ada.sync();
    }
    let bob = join_filled(home.path(), "bob", &ada);
    assert_eq!(bob.fs.replica().gaps().len(), 1);
    let ada_sync = ada.replicate(&[]);
    let bob_sync = bob.replicate(&[(ada.fs.replica().device(), ada_sync.addresses())]);
    let until = Instant::now() + Duration::from_mins(1);
    while !bob.fs.replica().gaps().is_empty() {
        assert!(Instant::now() < until, "the history has not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    ada_sync.finish();
    bob_sync.finish();
    // A third device hears everything from the one that was filled.
    let cay = join(home.path(), "cay", &ada);
    exchange(&[&ada, &bob]);
    exchange(&[&bob, &cay]);
    assert_eq!(cay.tree(), ada.tree());
    [ada, bob, cay].into_iter().for_each(super::devices::Device::finish);
}

#[test]
fn a_link_from_before_the_snapshot_comes_back_when_it_was_renamed_elsewhere() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.symlink("link", "somewhere");
    ada.mkdir("d");
    ada.sync();
    ada.write("note", b"later");
    let cay = join(home.path(), "cay", &ada);
    exchange(&[&ada, &cay]);
    let bob = join_filled(home.path(), "bob", &ada);
    exchange(&[&ada, &bob, &cay]);
    bob.unlink("link");
    bob.unlink("note");
    assert!(bob.try_rmdir("d"));
    bob.sync();
    cay.rename("link", "renamed");
    cay.rename("d", "e");
    cay.write("note", b"edited");
    exchange(&[&ada, &bob, &cay]);
    assert_eq!(bob.tree(), ada.tree());
    assert_eq!(cay.tree(), ada.tree());
    assert!(bob.find("renamed").is_some() && bob.find("e").is_some());
    [ada, bob, cay].into_iter().for_each(super::devices::Device::finish);
}
