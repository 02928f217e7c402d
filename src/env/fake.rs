//! Fakes: a clock that a test moves, randomness from a seed, and a disk whose power can be cut.
//!
//! The fake disk keeps two images of each file, written and synced. A cut chooses between them
//! sector by sector, as a disk's cache may, and lets unsynced names come or go.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{Clock, Disk, DiskFile, FreeSpace, Lock, Random};
use crate::types::Timestamp;

const SECTOR_BYTES: usize = 512;

/// A clock that stands until it is moved; each look moves it by a microsecond.
#[derive(Default)]
pub struct FakeClock {
    now: Mutex<Timestamp>,
}

impl FakeClock {
    /// A clock that shows `secs` since 1970.
    pub fn at(secs: i64) -> Self {
        Self { now: Mutex::new(Timestamp { secs, nanos: 0 }) }
    }

    /// Moves it forward by whole seconds.
    pub fn advance(&self, secs: i64) {
        self.now.lock().secs += secs;
    }

    /// Shows `now` from now on, be it earlier or later than what it showed.
    pub fn set(&self, now: Timestamp) {
        *self.now.lock() = now;
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        let mut now = self.now.lock();
        now.nanos += 1000;
        if now.nanos >= 1_000_000_000 {
            *now = Timestamp { secs: now.secs + 1, nanos: 0 };
        }
        *now
    }
}

/// Bytes that a seed gives again. Never for a real key.
pub struct SeededRandom {
    random: Mutex<SmallRng>,
}

impl SeededRandom {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: Mutex::new(SmallRng::seed_from_u64(seed)) }
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.random.lock().fill_bytes(bytes);
    }
}

/// A disk in memory, whose power can be cut before any call that changes it. Cheap to clone.
#[derive(Clone)]
pub struct FakeDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Image>,
    calls: u64,
    cut_before_call: Option<u64>,
    is_off: bool,
    free_bytes: u64,
}

#[derive(Clone, Default)]
struct Image {
    written: Vec<u8>,
    synced: Vec<u8>,
    /// Before this offset both are the same.
    unsynced_from: usize,
    name_is_synced: bool,
}

impl Image {
    /// All of it is on the disk.
    fn of(bytes: Vec<u8>) -> Self {
        let unsynced_from = bytes.len();
        Self { written: bytes.clone(), synced: bytes, unsynced_from, name_is_synced: true }
    }

    /// From here on, what is written is not yet synced.
    fn changed_from(&mut self, offset: usize) {
        self.unsynced_from = self.unsynced_from.min(offset);
    }

    fn sync(&mut self) {
        self.synced.truncate(self.unsynced_from);
        self.synced.extend_from_slice(&self.written[self.unsynced_from..]);
        self.unsynced_from = self.written.len();
    }
}

struct FakeFile {
    disk: FakeDisk,
    path: PathBuf,
}

struct NoLock;

impl Lock for NoLock {}

impl Default for FakeDisk {
    fn default() -> Self {
        let state = State { free_bytes: 1 << 40, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

impl FakeDisk {
    /// How many calls have changed it.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Fails the `call`-th change (from 1) and all that follow, as a dead disk does.
    pub fn cut_before(&self, call: u64) {
        self.state.lock().cut_before_call = Some(call);
    }

    /// Has the power been cut?
    pub fn is_off(&self) -> bool {
        self.state.lock().is_off
    }

    /// Space that is left from now on, in bytes.
    pub fn set_free_bytes(&self, free_bytes: u64) {
        self.state.lock().free_bytes = free_bytes;
    }

    /// What a new start finds after the cut: what was synced, and of the rest whatever `random`
    /// lets through.
    #[must_use]
    pub fn after_cut(&self, random: &mut SmallRng) -> Self {
        let state = self.state.lock();
        let mut files = BTreeMap::new();
        for (path, image) in &state.files {
            if !image.name_is_synced && random.random_bool(0.5) {
                continue;
            }
            files.insert(path.clone(), Image::of(torn(image, random)));
        }
        let state = State { files, free_bytes: state.free_bytes, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// What a new start finds after the process was killed and the power stayed: all that was
    /// written, synced or not. This disk takes no more changes.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let mut state = self.state.lock();
        state.is_off = true;
        let (files, free_bytes) = (state.files.clone(), state.free_bytes);
        let state = State { files, free_bytes, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        let mut state = self.state.lock();
        state.calls += 1;
        if state.cut_before_call.is_some_and(|call| state.calls >= call) {
            state.is_off = true;
        }
        if state.is_off {
            return Err(io::Error::other("the power was cut"));
        }
        change(&mut state)
    }

    fn look<R>(&self, path: &Path, look: impl FnOnce(&Image) -> R) -> io::Result<R> {
        let state = self.state.lock();
        state.files.get(path).map(look).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Sector by sector the synced or the written bytes, at one length or the other.
fn torn(image: &Image, random: &mut SmallRng) -> Vec<u8> {
    let len = if random.random_bool(0.5) { image.written.len() } else { image.synced.len() };
    let mut bytes = image.synced.clone();
    bytes.resize(len, 0);
    for start in (0..len).step_by(SECTOR_BYTES) {
        let end = (start + SECTOR_BYTES).min(len).min(image.written.len());
        if start < end && random.random_bool(0.5) {
            bytes[start..end].copy_from_slice(&image.written[start..end]);
        }
    }
    bytes
}

impl Disk for FakeDisk {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let state = self.state.lock();
        let inside = state.files.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_owned())).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let is_new = !self.state.lock().files.contains_key(path);
        if is_new {
            self.change(|state| {
                state.files.insert(path.to_owned(), Image::default());
                Ok(())
            })?;
        }
        Ok(Box::new(FakeFile { disk: self.clone(), path: path.to_owned() }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.look(path, |image| image.written.clone())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.change(|state| {
            state.files.insert(path.to_owned(), Image::of(bytes.to_vec()));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            state.files.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|state| {
            let inside = state.files.iter_mut().filter(|(path, _)| path.parent() == Some(dir));
            inside.for_each(|(_, image)| image.name_is_synced = true);
            Ok(())
        })
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(Some(Box::new(NoLock)))
    }

    fn free_space(&self, _path: &Path) -> io::Result<FreeSpace> {
        let available_bytes = self.state.lock().free_bytes;
        Ok(FreeSpace { total_bytes: 1 << 40, available_bytes, unused_bytes: available_bytes })
    }
}

impl DiskFile for FakeFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let found = self.disk.look(&self.path, |image| {
            let start = usize::try_from(offset).ok()?;
            let bytes = image.written.get(start..start + buffer.len())?;
            buffer.copy_from_slice(bytes);
            Some(())
        })?;
        found.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.change(|state| {
            if state.free_bytes < bytes.len() as u64 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.free_bytes -= bytes.len() as u64;
            let image = state.files.entry(self.path.clone()).or_default();
            let start = usize::try_from(offset).expect("the fake disk fits in memory");
            image.changed_from(start.min(image.written.len()));
            if image.written.len() < start + bytes.len() {
                image.written.resize(start + bytes.len(), 0);
            }
            image.written[start..start + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.change(|state| {
            state.files.entry(self.path.clone()).or_default().sync();
            Ok(())
        })
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.disk.look(&self.path, |image| image.written.len() as u64)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.disk.change(|state| {
            let len = usize::try_from(len_bytes).expect("the fake disk fits in memory");
            let image = state.files.entry(self.path.clone()).or_default();
            image.changed_from(len.min(image.written.len()));
            image.written.resize(len, 0);
            Ok(())
        })
    }

    fn punch(&self, offset: u64, len_bytes: u64) -> io::Result<()> {
        self.disk.change(|state| {
            let image = state.files.entry(self.path.clone()).or_default();
            let end = image.written.len() as u64;
            let at = |offset: u64| usize::try_from(offset.min(end)).expect("inside the file");
            image.written[at(offset)..at(offset + len_bytes)].fill(0);
            image.changed_from(at(offset));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_every_cut() {
        for seed in 0..50 {
            let mut random = SmallRng::seed_from_u64(seed);
            let disk = FakeDisk::default();
            let path = Path::new("/d/file");
            let file = disk.open(path).expect("opens");
            file.write_at(&[1; 3000], 0).expect("writes");
            file.sync().expect("syncs");
            disk.sync_dir(Path::new("/d")).expect("syncs");
            file.write_at(&[2; 3000], 3000).expect("writes");
            disk.cut_before(disk.calls() + 1);
            assert!(file.sync().is_err() && disk.is_off());
            let after = disk.after_cut(&mut random).read(path).expect("is there");
            assert_eq!(after[..2560], [1; 2560], "seed {seed}");
            assert!(after[..3000].iter().all(|b| *b == 1), "seed {seed}");
        }
    }
}
