//! Threads at the same files, in a memory that holds few of them: nobody may see what was true
//! before, once a later state was there to see.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tidefs::fs::{Caller, Filesystem, Making, SetAttr, SetTime, Wait, Writing};
use tidefs::types::{Ino, Kind, Timestamp};

const DIRS: usize = 12;
const FILES_PER_DIR: usize = 12;

/// A file that one thread changes and all look at.
struct Watched {
    ino: Ino,
    dir: Ino,
    name: String,
    /// The last state that is there for sure.
    state: AtomicI64,
}

/// Changes and looks for a while, from several threads.
pub fn watch(filesystem: &Filesystem, caller: Caller, seed: u64, changes: u32) {
    let mut files = Vec::new();
    let make = |parent, name: &str, kind| {
        let name = name.as_bytes();
        let making = Making { parent, name, kind, mode: 0o755, umask: 0, caller };
        let ino = filesystem.make(&making, Wait::May).expect("a new name").ino;
        filesystem.forget(ino, 1);
        ino
    };
    for dir in 0..DIRS {
        let dir = make(Ino::ROOT, &format!("shared {dir}"), Kind::Directory);
        for name in (0..FILES_PER_DIR).map(|i| format!("file {i}")) {
            let ino = make(dir, &name, Kind::Regular);
            files.push(Watched { ino, dir, name, state: AtomicI64::new(0) });
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let halves = files.split_at(files.len() / 2);
        let writers: Vec<_> = [halves.0, halves.1]
            .into_iter()
            .enumerate()
            .map(|(i, half)| {
                let rng = SmallRng::seed_from_u64(seed + i as u64);
                scope.spawn(move || change(filesystem, half, rng, changes))
            })
            .collect();
        for i in 0..3 {
            let (files, done) = (&files, &done);
            let rng = SmallRng::seed_from_u64(seed + 10 + i);
            scope.spawn(move || look(filesystem, files, rng, done));
        }
        let results: Vec<_> =
            writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::SeqCst);
        for result in results {
            result.expect("a writer that ends well");
        }
    });
}

fn change(filesystem: &Filesystem, files: &[Watched], mut rng: SmallRng, changes: u32) {
    for state in 1..=i64::from(changes) {
        let file = &files[rng.random_range(0..files.len())];
        let data = state.to_le_bytes();
        let writing = Writing { offset: 0, data: &data, append: false, kill_suid: false };
        filesystem.open_file(file.ino, true, false, Wait::May).expect("opens");
        filesystem.write(file.ino, &writing, Wait::May).expect("writes");
        filesystem.release(file.ino, true);
        let mtime = Some(SetTime::At(Timestamp { secs: state, nanos: 0 }));
        let change = SetAttr { mtime, ..SetAttr::default() };
        filesystem.setattr(file.ino, &change, Wait::May).expect("changes");
        let extra = format!("{} again", file.name);
        let extra = extra.as_bytes();
        if rng.random() {
            filesystem.link(file.ino, file.dir, extra, Wait::May).expect("links");
            filesystem.forget(file.ino, 1);
            let found = filesystem.lookup(file.dir, extra, Wait::May).expect("just linked");
            assert_eq!((found.ino, found.nlink), (file.ino, 2));
            filesystem.forget(file.ino, 1);
            filesystem.unlink(file.dir, extra, Wait::May).expect("just linked");
        }
        assert!(filesystem.lookup(file.dir, extra, Wait::May).is_err(), "a name came back");
        file.state.store(state, Ordering::SeqCst);
    }
}

fn look(filesystem: &Filesystem, files: &[Watched], mut rng: SmallRng, done: &AtomicBool) {
    while !done.load(Ordering::SeqCst) {
        let file = &files[rng.random_range(0..files.len())];
        let state = file.state.load(Ordering::SeqCst);
        let attr = if rng.random() {
            let found = filesystem.lookup(file.dir, file.name.as_bytes(), Wait::May);
            filesystem.forget(file.ino, 1);
            found
        } else {
            filesystem.getattr(file.ino, Wait::May)
        };
        let attr = attr.expect("it is there throughout");
        assert!(state == 0 || attr.mtime.secs >= state, "{attr:?} is older than {state}");
        let bytes = filesystem.read(file.ino, 0, 8, Wait::May).expect("reads");
        let found = bytes.try_into().map_or(0, i64::from_le_bytes);
        assert!(found >= state, "content {found} is older than {state}");
    }
}
