//! Calls that must wait for memory wait for it, and do not fail, nor does another's need hit them.

use std::sync::mpsc;
use std::time::Duration;

use tidefs::engine::{NewWorkspace, Workspace};
use tidefs::env::Env;
use tidefs::fs::{Caller, Filesystem, Making, Options, SetAttr, Wait, Writing};
use tidefs::types::{Ino, Kind};

const CALLER: Caller = Caller { uid: 0, gid: 0 };

fn open(state: &std::path::Path, memory_bytes_max: u64) -> Filesystem {
    if !Workspace::exists(state, &Env::real()) {
        let name = "pressure".into();
        let new =
            NewWorkspace { name, encryption: true, compression: true, mode: 0o755, uid: 0, gid: 0 };
        Workspace::create(state, &new, &Env::real()).expect("a new workspace");
    }
    let options = Options { memory_bytes_max, ..Options::default() };
    Filesystem::open(state, &options).expect("the workspace opens")
}

fn make(filesystem: &Filesystem, name: &str) -> Ino {
    let (parent, name, kind) = (Ino::ROOT, name.as_bytes(), Kind::Regular);
    let making = Making { parent, name, kind, mode: 0o644, umask: 0, caller: CALLER };
    let ino = filesystem.make(&making, Wait::May).expect("a new file").ino;
    filesystem.forget(ino, 1);
    ino
}

/// Keeps commits from happening: what a slow disk does.
fn hold_commits(filesystem: &Filesystem, time: Duration) {
    let (started, wait_for_start) = mpsc::channel();
    let hold = move |_| {
        started.send(()).expect("somebody waits");
        std::thread::sleep(time);
    };
    filesystem.sync(None, Box::new(hold));
    wait_for_start.recv().expect("the commit thread answers");
}

#[test]
fn changes_of_names_and_attributes_wait_while_too_many_are_not_yet_stored() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let filesystem = open(&dir.path().join("state"), 512 << 20);
    let ino = make(&filesystem, "a");
    hold_commits(&filesystem, Duration::from_millis(1500));
    for i in 0..70_000 {
        let change = SetAttr { mode: Some(0o600 + i % 8), ..SetAttr::default() };
        filesystem.setattr(ino, &change, Wait::May).expect("it waits for the disk");
    }
    filesystem.close().expect("the workspace closes");
}

#[test]
fn writes_wait_while_memory_is_full_of_drafts() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let filesystem = open(&dir.path().join("state"), 4 << 20);
    let ino = make(&filesystem, "a");
    hold_commits(&filesystem, Duration::from_secs(1));
    for i in 0..40 {
        let (offset, data) = (i << 18, vec![7; 1 << 18]);
        let writing = Writing { offset, data: &data, append: false, kill_suid: false };
        filesystem.write(ino, &writing, Wait::May).expect("it waits for the disk");
    }
    filesystem.close().expect("the workspace closes");
}

#[test]
fn what_was_forgotten_is_read_while_more_is_not_yet_stored_than_memory_should_hold() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = dir.path().join("state");
    let filesystem = open(&state, 512 << 20);
    let old: Vec<(String, Ino)> = (0..50)
        .map(|i| format!("old {i}"))
        .map(|name| (name.clone(), make(&filesystem, &name)))
        .collect();
    filesystem.close().expect("the workspace closes");
    drop(filesystem);

    let filesystem = open(&state, 1 << 20);
    hold_commits(&filesystem, Duration::from_millis(1500));
    for i in 0..2_000 {
        make(&filesystem, &format!("new {i}"));
    }
    for (name, ino) in old {
        assert_eq!(filesystem.getattr(ino, Wait::May).expect("it is there").ino, ino);
        assert_eq!(filesystem.lookup(Ino::ROOT, name.as_bytes(), Wait::May).expect("it").ino, ino);
        assert_eq!(filesystem.read(ino, 0, 10, Wait::May).expect("it is there"), b"");
    }
    let mut names = 0;
    let mut count = |_| {
        names += 1;
        false
    };
    filesystem.readdir(Ino::ROOT, 0, true, Wait::May, &mut count).expect("it can be listed");
    assert!(names > 100);
    filesystem.close().expect("the workspace closes");
}
