//! Directories listed while names come and go, then emptied, however large.

use std::collections::BTreeSet;

use tidefs::fs::{DirEntry, Filesystem, Wait};
use tidefs::types::Ino;

use crate::library::Library;
use crate::model::step::{At, Gave, Step, Subject};
use crate::model::words::{Path, Rename};

/// Removed between two looks at what is left: more than one look brings.
const NAMES_PER_LOOK: usize = 700;

fn at(name: impl AsRef<[u8]>) -> Path {
    Path::default().join(b"dir").join(name.as_ref())
}

fn apply(library: &mut Library, step: &Step) -> Gave {
    library.apply(step).expect("Linux would do it")
}

/// Makes a directory of `count` names that stay, and lists it while others come, go and move
/// between pages. Returns its number.
pub fn list_amid_changes(library: &mut Library, count: u32) -> Ino {
    let dir = Path::default().join(b"dir");
    apply(library, &Step::Mkdir(dir.clone(), 0o755));
    let stays = (0..count).map(|i| format!("stays {i}"));
    for name in stays.clone().chain((0..300).map(|i| format!("goes {i}"))) {
        apply(library, &Step::Fifo(at(name), 0));
    }
    library.restart();
    let Gave::Stat(stat) = apply(library, &Step::Stat(At::Path(dir))) else {
        panic!("stat gives a stat")
    };
    let (mut seen, mut offset, mut turn) = (Vec::new(), 0, 0);
    loop {
        let page = library.page(Ino(stat.ino), offset, turn % 2 == 0).expect("a page");
        let Some(last) = page.last() else { break };
        offset = last.next_offset;
        seen.extend(page.into_iter().map(|row| row.name));
        if turn < 100 {
            apply(library, &Step::Fifo(at(format!("comes {turn}")), 0));
            apply(library, &Step::Unlink(at(format!("goes {turn}"))));
            let (from, to) = (at(format!("goes {}", turn + 100)), at(format!("moves {turn}")));
            apply(library, &Step::Rename(from, to, Rename::Replace));
        }
        turn += 1;
    }
    let listed: BTreeSet<&[u8]> = seen.iter().map(Vec::as_slice).collect();
    assert_eq!(listed.len(), seen.len(), "a name is listed twice");
    for name in stays {
        assert!(listed.contains(name.as_bytes()), "{name} is not listed");
    }
    Ino(stat.ino)
}

/// Removes everything in the order of the listing, as `rm -r` does, faster than commits come, and
/// looks from the start again and again: what is first then is what was not removed yet.
pub fn remove_all(filesystem: &Filesystem, dir: Ino) {
    let names = list(filesystem, dir);
    for (index, name) in names.iter().enumerate() {
        if index % NAMES_PER_LOOK == 0 {
            assert_eq!(first(filesystem, dir).as_ref(), Some(name));
        }
        filesystem.unlink(dir, name, Wait::May).expect("it was listed");
    }
    assert_eq!(first(filesystem, dir), None);
}

fn rows(filesystem: &Filesystem, dir: Ino, offset: u64) -> Vec<DirEntry> {
    let mut rows = Vec::new();
    let mut take = |row| {
        rows.push(row);
        false
    };
    filesystem.readdir(dir, offset, false, Wait::May, &mut take).expect("it can be listed");
    rows
}

fn list(filesystem: &Filesystem, dir: Ino) -> Vec<Vec<u8>> {
    let mut all: Vec<DirEntry> = Vec::new();
    loop {
        let page = rows(filesystem, dir, all.last().map_or(2, |row| row.next_offset));
        if page.is_empty() {
            return all.into_iter().map(|row| row.name).collect();
        }
        all.extend(page);
    }
}

fn first(filesystem: &Filesystem, dir: Ino) -> Option<Vec<u8>> {
    rows(filesystem, dir, 2).into_iter().next().map(|row| row.name)
}
