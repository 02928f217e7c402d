//! The model against the library: random operations, then everything equal, after a restart too.
//!
//! `SEED` repeats one run, `SEEDS` and `OPS` make more and longer ones, `TRACE` tells each step.

#[path = "model/journal.rs"]
mod journal;
#[path = "model/library.rs"]
mod library;
#[path = "model/listing.rs"]
mod listing;
#[path = "model/mod.rs"]
mod model;
#[path = "model/pressure.rs"]
mod pressure;
#[path = "model/shared.rs"]
mod shared;
#[path = "model/translate.rs"]
mod translate;

use journal::Journal;
use library::Library;
use model::generate::Abilities;
use model::run::{Run, env_number, run, seeds};
use tidefs::engine::{NewWorkspace, Workspace, verify};
use tidefs::env::Env;
use tidefs::fs::{Caller, Filesystem, Making, Options, Wait};
use tidefs::types::{Ino, Kind};

const CALLER: Caller = Caller { uid: 0, gid: 0 };

fn create(state: &std::path::Path, encryption: bool, compression: bool) {
    let new = NewWorkspace {
        name: "model".into(),
        encryption,
        compression,
        mode: 0o755,
        uid: CALLER.uid,
        gid: CALLER.gid,
    };
    Workspace::create(state, &new, &Env::real()).expect("a new workspace");
}

fn expect_clean(state: &std::path::Path, seed: u64) {
    let report = verify(state, &Env::real(), false, &mut |_| ()).expect("it can be verified");
    assert!(report.is_clean(), "SEED={seed} leaves {:#?}", report.problems);
}

/// One run in a new workspace; how many calls would have had to wait.
fn check(seed: u64, memory_bytes_max: u64, abilities: Abilities, steps: u64) -> u64 {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = dir.path().join("state");
    create(&state, seed & 1 != 0, seed & 2 != 0);
    let options = Options { memory_bytes_max, ..Options::default() };
    let mut library = Library::new(state.clone(), options, CALLER, seed);
    let steps = u32::try_from(env_number("OPS", steps)).expect("a few");
    let root = (0o755, (CALLER.uid, CALLER.gid));
    let (mut reference, ended) =
        run(&Run { seed, steps, abilities, root, inos_are_unique: true }, &mut library);
    library.close();
    let blocked_count = library.blocked_count;
    drop(library);
    expect_clean(&state, seed);
    let told = Journal::replay(&state).and_then(|it| it.expect_like(&mut reference, &ended));
    told.unwrap_or_else(|error| panic!("SEED={seed}: the journal: {error:#}"));
    blocked_count
}

#[test]
fn random_operations_end_as_in_the_reference_and_stay_so_over_restarts() {
    let abilities =
        Abilities { root: true, zero_range: true, file_bytes_max: 3 << 20, paths_max: 40 };
    for seed in seeds(8) {
        let memory_bytes_max = if seed % 3 == 0 { 1 << 20 } else { 512 << 20 };
        check(seed, memory_bytes_max, abilities, 600);
    }
}

#[test]
fn a_tree_larger_than_memory_is_forgotten_and_read_again_without_a_difference() {
    let abilities =
        Abilities { root: true, zero_range: true, file_bytes_max: 150_000, paths_max: 250 };
    for seed in seeds(4) {
        let blocked_count = check(seed, 128 << 10, abilities, 900);
        assert!(blocked_count > 500, "SEED={seed} finds all in memory, but {blocked_count} times");
    }
}

#[test]
fn threads_that_share_a_small_memory_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = dir.path().join("state");
    create(&state, true, true);
    let options = Options { memory_bytes_max: 256 << 10, ..Options::default() };
    let filesystem = Filesystem::open(&state, &options).expect("the workspace opens");
    let steps = u32::try_from(env_number("OPS", 400)).expect("a few");
    let abilities =
        Abilities { root: true, zero_range: true, file_bytes_max: 300_000, paths_max: 60 };
    std::thread::scope(|scope| {
        for seed in env_number("SEED", 1)..env_number("SEED", 1) + 6 {
            let name = format!("thread {seed}");
            let (name, kind) = (name.as_bytes(), Kind::Directory);
            let making =
                Making { parent: Ino::ROOT, name, kind, mode: 0o755, umask: 0, caller: CALLER };
            let base = filesystem.make(&making, Wait::May).expect("a new directory").ino;
            let mut library = Library::within(filesystem.clone(), base, CALLER, seed);
            let root = (0o755, (CALLER.uid, CALLER.gid));
            let one = Run { seed, steps, abilities, root, inos_are_unique: true };
            scope.spawn(move || drop(run(&one, &mut library)));
        }
    });
    filesystem.close().expect("the workspace closes");
    drop(filesystem);
    expect_clean(&state, 0);
    drop(Journal::replay(&state).expect("the journal can be replayed"));
}

#[test]
fn nobody_sees_an_older_state_of_a_file_that_was_forgotten_and_read_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = dir.path().join("state");
    create(&state, true, false);
    let options = Options { memory_bytes_max: 1 << 20, ..Options::default() };
    let filesystem = Filesystem::open(&state, &options).expect("the workspace opens");
    let changes = u32::try_from(env_number("OPS", 1_000)).expect("a few");
    shared::watch(&filesystem, CALLER, env_number("SEED", 1), changes);
    filesystem.close().expect("the workspace closes");
    drop(filesystem);
    expect_clean(&state, 0);
    drop(Journal::replay(&state).expect("the journal can be replayed"));
}

fn list_and_remove(count: u32) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = dir.path().join("state");
    create(&state, true, true);
    let options = Options { memory_bytes_max: 8 << 20, ..Options::default() };
    let mut library = Library::new(state.clone(), options, CALLER, u64::from(count));
    let ino = listing::list_amid_changes(&mut library, count);
    listing::remove_all(&library.filesystem, ino);
    library.close();
    drop(library);
    expect_clean(&state, 0);
}

#[test]
fn names_that_stay_are_listed_once_while_others_come_and_go() {
    list_and_remove(2_000);
}

#[test]
fn names_that_stay_are_listed_once_in_a_directory_too_large_for_memory() {
    list_and_remove(17_000);
}
