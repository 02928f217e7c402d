//! If power fails before this very disk call, what is left?
//!
//! Segments, keys and settings live on the fake disk, whose power is cut before each of its calls
//! in turn; what was not synced survives sector by sector, as chance wants. SQLite does its own
//! I/O past that disk: its files are copied as they stand at the cut, and of the write-ahead log
//! what lies behind the last sync is cut off at a place that chance chooses.
//!
//! `SEEDS=n` runs more pieces of work, `SEED=n` one of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use tidefs::engine::{NewWorkspace, OpenWorkspace, Workspace, verify};
use tidefs::env::{Env, FakeDisk};
use tidefs::fs::{
    Caller, Filesystem, FsResult, Making, Options, RenameMode, SetAttr, Wait, Writing,
};
use tidefs::types::{Ino, Kind};

const OPS: usize = 60;
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

type Files = BTreeMap<&'static str, Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Create(&'static str),
    Write(&'static str, usize, Vec<u8>),
    Truncate(&'static str, usize),
    Rename(&'static str, &'static str),
    Unlink(&'static str),
    Sync(&'static str),
}

fn draw(random: &mut SmallRng, files: &Files) -> Step {
    let any = NAMES[random.random_range(0..NAMES.len())];
    let roll = random.random_range(0..100);
    if files.is_empty() || roll < 20 {
        return Step::Create(any);
    }
    let name = files.keys().nth(random.random_range(0..files.len())).expect("not empty");
    let len = files[name].len();
    match roll {
        20..55 => {
            let sizes = [1, 500, 3000, 20_000, 200_000];
            let mut data = vec![0; sizes[random.random_range(0..sizes.len())]];
            random.fill_bytes(&mut data);
            Step::Write(name, random.random_range(0..=len), data)
        }
        55..63 => Step::Truncate(name, random.random_range(0..len + 3000)),
        63..73 => Step::Rename(name, any),
        73..80 => Step::Unlink(name),
        _ => Step::Sync(name),
    }
}

fn apply(files: &mut Files, step: &Step) {
    match step {
        Step::Create(name) => drop(files.entry(name).or_default()),
        Step::Write(name, offset, data) => {
            let file = files.get_mut(name).expect("was drawn from them");
            file.resize(file.len().max(offset + data.len()), 0);
            file[*offset..offset + data.len()].copy_from_slice(data);
        }
        Step::Truncate(name, len) => files.get_mut(name).expect("drawn").resize(*len, 0),
        Step::Rename(from, to) => {
            let file = files.remove(from).expect("drawn");
            files.insert(to, file);
        }
        Step::Unlink(name) => drop(files.remove(name)),
        Step::Sync(_) => {}
    }
}

fn ino(fs: &Filesystem, name: &str) -> FsResult<Ino> {
    Ok(fs.lookup(Ino::ROOT, name.as_bytes(), Wait::May)?.ino)
}

fn perform(fs: &Filesystem, step: &Step) -> FsResult<()> {
    match step {
        Step::Create(name) => {
            if ino(fs, name).is_ok() {
                return Ok(());
            }
            let caller = Caller { uid: 0, gid: 0 };
            let (parent, name, kind) = (Ino::ROOT, name.as_bytes(), Kind::Regular);
            let making = Making { parent, name, kind, mode: 0o644, umask: 0, caller };
            fs.make(&making, Wait::May).map(drop)
        }
        Step::Write(name, offset, data) => {
            let offset = *offset as u64;
            let writing = Writing { offset, data, append: false, kill_suid: false };
            fs.write(ino(fs, name)?, &writing, Wait::May).map(drop)
        }
        Step::Truncate(name, len) => {
            let change = SetAttr { size_bytes: Some(*len as u64), ..SetAttr::default() };
            fs.setattr(ino(fs, name)?, &change, Wait::May).map(drop)
        }
        Step::Rename(from, to) if from == to => Ok(()),
        Step::Rename(from, to) => {
            let (from, to) = ((Ino::ROOT, from.as_bytes()), (Ino::ROOT, to.as_bytes()));
            fs.rename(from, to, RenameMode::Replace, Wait::May)
        }
        Step::Unlink(name) => fs.unlink(Ino::ROOT, name.as_bytes(), Wait::May),
        Step::Sync(name) => fs.sync_now(Some(ino(fs, name)?)),
    }
}

fn found(fs: &Filesystem) -> Files {
    let mut files = Files::new();
    for name in NAMES {
        if let Ok(attr) = fs.lookup(Ino::ROOT, name.as_bytes(), Wait::May) {
            let bytes =
                fs.read(attr.ino, 0, u32::MAX, Wait::May).expect("what is there is readable");
            assert_eq!(bytes.len() as u64, attr.size_bytes, "the length is the content's");
            files.insert(name, bytes);
        }
    }
    files
}

/// A workspace on a fake disk, with SQLite's files in a directory of their own.
struct Machine {
    disk: FakeDisk,
    dir: PathBuf,
    _top: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self::over(FakeDisk::default());
        let new = NewWorkspace {
            name: "crash".into(),
            encryption: true,
            compression: true,
            mode: 0o755,
            uid: 0,
            gid: 0,
        };
        Workspace::create(&machine.dir, &new, &machine.env()).expect("created");
        machine
    }

    fn over(disk: FakeDisk) -> Self {
        let top = tempfile::tempdir().expect("a directory");
        Self { disk, dir: top.path().to_owned(), _top: top }
    }

    fn env(&self) -> Env {
        Env { disk: Arc::new(self.disk.clone()), ..Env::real() }
    }

    fn open(&self) -> Filesystem {
        let workspace = OpenWorkspace::open(&self.dir, &self.env()).expect("opens");
        Filesystem::serve(workspace, &Options::default()).expect("serves")
    }

    fn wal(&self) -> PathBuf {
        self.dir.join("journal.db-wal")
    }

    fn wal_bytes(&self) -> u64 {
        std::fs::metadata(self.wal()).map_or(0, |meta| meta.len())
    }
}

/// What one life left behind.
struct Death {
    /// The files after each step; the first is before any.
    history: Vec<Files>,
    /// Everything up to this step was synced.
    synced: usize,
    database: Vec<u8>,
    wal: Vec<u8>,
    wal_synced_bytes: u64,
    disk_calls: u64,
}

/// Works until the power is cut before disk call `cut`, or to the end.
fn live(machine: &Machine, seed: u64, cut: Option<u64>) -> Death {
    let fs = machine.open();
    if let Some(cut) = cut {
        machine.disk.cut_before(cut);
    }
    let mut random = SmallRng::seed_from_u64(seed);
    let mut files = Files::new();
    let mut history = vec![files.clone()];
    let (mut synced, mut wal_synced_bytes) = (0, machine.wal_bytes());
    for number in 1..=OPS {
        let step = draw(&mut random, &files);
        if perform(&fs, &step).is_err() {
            assert!(machine.disk.is_off(), "seed {seed}: {step:?} fails only without power");
            // It may have been done in memory, and never told.
            apply(&mut files, &step);
            history.push(files.clone());
            break;
        }
        apply(&mut files, &step);
        history.push(files.clone());
        if matches!(step, Step::Sync(_)) {
            (synced, wal_synced_bytes) = (number, machine.wal_bytes());
        }
    }
    let read = |path: &Path| std::fs::read(path).unwrap_or_default();
    let database = read(&machine.dir.join("journal.db"));
    let wal = read(&machine.wal());
    let disk_calls = machine.disk.calls();
    let _ = fs.close();
    Death { history, synced, database, wal, wal_synced_bytes, disk_calls }
}

/// Starts anew on what the cut left, and looks.
fn look(machine: &Machine, death: &Death, random: &mut SmallRng, what: &str) {
    let keep = random.random_range(death.wal_synced_bytes..=death.wal.len() as u64);
    let keep = usize::try_from(keep).expect("small");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(machine.dir.join(format!("journal.db{suffix}")));
    }
    std::fs::write(machine.dir.join("journal.db"), &death.database).expect("writes");
    std::fs::write(machine.wal(), &death.wal[..keep]).expect("writes");
    // The fake disk knows files by their paths, so the new machine has the old directory.
    let disk = machine.disk.after_cut(random);
    let after = Machine { dir: machine.dir.clone(), ..Machine::over(disk) };
    let fs = after.open();
    let files = found(&fs);
    let kept = death.history[death.synced..].contains(&files);
    assert!(kept, "{what}: the tree is as after no step from {} on", death.synced);
    fs.close().expect("closes");
    drop(fs);
    let report = verify(&after.dir, &after.env(), false, &mut |_| ()).expect("verifies");
    assert!(report.is_clean(), "{what}: {:?}", report.problems);
}

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SEEDS").unwrap_or(2)).collect(),
    }
}

#[test]
fn whatever_disk_call_the_power_fails_before_what_was_synced_is_there_and_the_rest_is_a_prefix() {
    for seed in seeds() {
        let whole = live(&Machine::new(), seed, None);
        let calls = whole.disk_calls;
        assert!(calls > 20, "seed {seed}: the work reaches the disk ({calls} calls)");
        let first = {
            let machine = Machine::new();
            drop(machine.open());
            machine.disk.calls() + 1
        };
        for cut in first..=calls {
            let machine = Machine::new();
            let death = live(&machine, seed, Some(cut));
            let mut random = SmallRng::seed_from_u64(seed ^ cut << 20);
            look(&machine, &death, &mut random, &format!("seed {seed}, cut before call {cut}"));
        }
        println!("seed {seed}: {} cuts", calls - first + 1);
    }
}

#[test]
fn a_full_disk_says_so_early_and_keeps_all_that_was_accepted() {
    let machine = Machine::new();
    let fs = machine.open();
    let making = |name| Making {
        parent: Ino::ROOT,
        name,
        kind: Kind::Regular,
        mode: 0o644,
        umask: 0,
        caller: Caller { uid: 0, gid: 0 },
    };
    machine.disk.set_free_bytes(tidefs::types::limits::RESERVE_BYTES + (8 << 20));
    let ino = fs.make(&making(b"a"), Wait::May).expect("there is room").ino;
    let mut random = SmallRng::seed_from_u64(1);
    let mut accepted = Vec::new();
    let refused = loop {
        let mut data = vec![0; 1 << 20];
        random.fill_bytes(&mut data);
        let offset = accepted.len() as u64;
        let writing = Writing { offset, data: &data, append: false, kill_suid: false };
        match fs.write(ino, &writing, Wait::May) {
            Ok(_) => accepted.extend_from_slice(&data),
            Err(error) => break error,
        }
        assert!(accepted.len() < 64 << 20, "a full disk refuses at some time");
    };
    assert!(matches!(refused, tidefs::fs::FsError::NoSpace { .. }), "{refused}");
    fs.sync_now(Some(ino)).expect("what was accepted has its room");
    assert!(fs.read(ino, 0, u32::MAX, Wait::May).expect("reads") == accepted);
    fs.unlink(Ino::ROOT, b"a", Wait::May).expect("removing works on a full disk");
    fs.close().expect("closes");
}
