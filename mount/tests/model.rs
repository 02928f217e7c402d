//! The model against the kernel: random operations on a mount, and on any directory.
//!
//! `SEED` repeats one run, `SEEDS` and `OPS` make more and longer ones, `TRACE` tells each step.
//! `TIDEFS_MODEL_DIR` names an empty directory to hold against the reference, on any filesystem: on
//! ext4 that proves the reference. `TIDEFS_MODEL_MOUNT` adds words to `tidefs mount`.

#[path = "../../tests/model/directory.rs"]
mod directory;
mod kit;
#[path = "../../tests/model/mod.rs"]
mod model;

use std::collections::BTreeSet;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use directory::Directory;
use kit::Mount;
use model::generate::Abilities;
use model::run::{Run, env_number, run, seeds};

/// Random runs in a directory, each from empty to empty.
fn check(base: &Path, restart: Box<dyn FnMut()>, seeds: Vec<u64>, inos_are_unique: bool) {
    let mut directory = Directory::new(base.to_owned(), restart);
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let abilities = Abilities {
        root: uid.is_root(),
        zero_range: directory.zeroes_ranges(),
        file_bytes_max: 3 << 20,
        paths_max: 40,
    };
    let mode = std::fs::metadata(base).expect("it is there").permissions().mode() & 0o7777;
    let root = (mode, (uid.as_raw(), gid.as_raw()));
    let steps = u32::try_from(env_number("OPS", 400)).expect("a few");
    for seed in seeds {
        drop(run(&Run { seed, steps, abilities, root, inos_are_unique }, &mut directory));
        empty(base);
    }
}

fn empty(base: &Path) {
    for entry in std::fs::read_dir(base).expect("it is there") {
        let path = entry.expect("readable").path();
        let is_dir = path.symlink_metadata().expect("just listed").is_dir();
        let removed =
            if is_dir { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        removed.expect("it is ours");
    }
}

/// Lists a directory piece by piece through a small buffer, others coming and going in between.
fn list_amid_changes(base: &Path) {
    let dir = base.join("dir");
    std::fs::create_dir(&dir).expect("a new directory");
    let make = |name: String| drop(File::create(dir.join(name)).expect("a new file"));
    let stays: Vec<String> = (0..1_500).map(|i| format!("stays {i}")).collect();
    stays.iter().cloned().for_each(make);
    (0..300).map(|i| format!("goes {i}")).for_each(make);

    let listed_dir = File::open(&dir).expect("it is there");
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let mut rows = rustix::fs::RawDir::new(&listed_dir, &mut buffer);
    let (mut seen, mut turn) = (Vec::new(), 0);
    while let Some(row) = rows.next() {
        seen.push(row.expect("a row").file_name().to_string_lossy().into_owned());
        if rows.is_buffer_empty() && turn < 100 {
            make(format!("comes {turn}"));
            std::fs::remove_file(dir.join(format!("goes {turn}"))).expect("it was there");
            let from = dir.join(format!("goes {}", turn + 100));
            std::fs::rename(from, dir.join(format!("moves {turn}"))).expect("it was there");
            turn += 1;
        }
    }
    let names: BTreeSet<&str> = seen.iter().map(String::as_str).collect();
    assert_eq!(names.len(), seen.len(), "a name is listed twice");
    assert!(names.contains(".") && names.contains(".."));
    for name in &stays {
        assert!(names.contains(name.as_str()), "{name} is not listed");
    }
}

#[test]
fn the_reference_is_like_linux() {
    let named = std::env::var_os("TIDEFS_MODEL_DIR").map(PathBuf::from);
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let base = named.unwrap_or_else(|| temporary.path().to_owned());
    assert!(base.read_dir().expect("a directory").next().is_none(), "{base:?} is not empty");
    check(&base, Box::new(|| {}), seeds(3), false);
    list_amid_changes(&base);
    empty(&base);
}

#[test]
fn a_mount_is_like_the_reference_and_stays_so_over_remounts() {
    let Some(mount) = Mount::new() else { return };
    check(&mount.point(), mount.restart(), seeds(3), true);
}

#[test]
fn names_that_stay_are_listed_once_while_others_come_and_go() {
    let Some(mount) = Mount::new() else { return };
    list_amid_changes(&mount.point());
}
