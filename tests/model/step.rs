//! One operation, in a form that any filesystem can do and a person can read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::fs::Model;
use super::words::{Answer, Errno, Fallocate, Open, Path, Rename, Stat, XattrMode};

/// A file, by name or by the slot of an open one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum At {
    /// Opened for this step alone.
    Path(Path),
    /// Opened before.
    Slot(usize),
}

/// Bytes to write, by recipe.
#[derive(Clone, PartialEq, Eq)]
pub struct Data {
    /// Length in bytes.
    pub len: usize,
    /// Of the generator; even: text that repeats, odd: noise.
    pub seed: u64,
}

impl Data {
    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut rng = SmallRng::seed_from_u64(self.seed);
        let mut bytes = vec![0; self.len];
        if self.seed.is_multiple_of(2) {
            let mut word = [0; 37];
            rng.fill_bytes(&mut word);
            word = word.map(|byte| b'a' + byte % 26);
            bytes.chunks_mut(37).for_each(|to| to.copy_from_slice(&word[..to.len()]));
        } else {
            rng.fill_bytes(&mut bytes);
        }
        bytes
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}b", self.len)
    }
}

/// One operation.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they are named after the system calls")]
pub enum Step {
    Mkdir(Path, u32),
    Symlink(Path, Vec<u8>),
    Fifo(Path, u32),
    /// Opens into a slot that is free.
    Open(usize, Path, Open),
    Close(usize),
    Link(Path, Path),
    Unlink(Path),
    Rmdir(Path),
    Rename(Path, Path, Rename),
    /// At an offset, or, with `O_APPEND`, at the end.
    Write(At, Option<u64>, Data),
    Truncate(At, u64),
    Fallocate(At, Fallocate, u64, u64),
    Copy(At, u64, At, u64, u64),
    SetXattr(Path, Vec<u8>, Data, XattrMode),
    RemoveXattr(Path, Vec<u8>),
    Chmod(Path, u32),
    Chown(Path, u32, u32),
    SetMtime(Path, i64, u32),
    Fsync(At),
    SyncAll,
    Read(At, u64, usize),
    Stat(At),
    List(Path),
    Readlink(Path),
    Xattrs(Path),
}

/// What a step gave, if it went well.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "they hold what they are called")]
pub enum Gave {
    Nothing,
    Count(u64),
    Bytes(Vec<u8>),
    Names(BTreeSet<Vec<u8>>),
    Xattrs(BTreeMap<Vec<u8>, Vec<u8>>),
    Stat(Stat),
}

impl fmt::Debug for Gave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Bytes(bytes) => {
                let start = bytes[..bytes.len().min(24)].escape_ascii();
                write!(f, "{} bytes, {start}..", bytes.len())
            }
            Self::Names(names) => names.iter().try_for_each(|name| {
                write!(f, "{}({}) ", name[..name.len().min(16)].escape_ascii(), name.len())
            }),
            Self::Xattrs(xattrs) => xattrs.iter().try_for_each(|(name, value)| {
                write!(f, "{}={:x?} ", name.escape_ascii(), &value[..value.len().min(8)])
            }),
            Self::Stat(stat) => write!(f, "{stat:?}"),
        }
    }
}

/// Something that steps can be done to.
pub trait Subject {
    /// Does a step.
    ///
    /// # Errors
    /// What the step would fail with on Linux.
    fn apply(&mut self, step: &Step) -> Answer<Gave>;

    /// Where `SEEK_DATA` and `SEEK_HOLE` say that a file's data is, from start to end of each.
    ///
    /// # Errors
    /// As [`Subject::apply`].
    fn data_ranges(&mut self, at: &At) -> Answer<Vec<(u64, u64)>>;

    /// Closes and opens the filesystem; no slot is open.
    fn restart(&mut self);
}

/// The model with its slots, as a subject.
#[derive(Debug)]
pub struct Reference {
    /// The filesystem.
    pub model: Model,
    /// Open files: the node, and whether writes go to the end.
    pub slots: BTreeMap<usize, (u64, bool)>,
}

impl Reference {
    /// An empty one.
    pub fn new(root_mode: u32, owner: (u32, u32)) -> Self {
        Self { model: Model::new(root_mode, owner), slots: BTreeMap::new() }
    }

    fn file(&mut self, at: &At) -> Answer<(u64, bool)> {
        match at {
            At::Path(path) => Ok((self.model.open(path, Open::default())?, false)),
            At::Slot(slot) => Ok(self.slots[slot]),
        }
    }

    fn on_content(&mut self, step: &Step) -> Answer<Gave> {
        match step {
            Step::Write(at, offset, data) => {
                let (ino, append) = self.file(at)?;
                let offset = offset.filter(|_| !append);
                self.model.write(ino, offset, &data.bytes()).map(Gave::Count)
            }
            Step::Truncate(at, size) => {
                let ino = self.file(at)?.0;
                self.model.truncate(ino, *size).map(|()| Gave::Nothing)
            }
            Step::Fallocate(at, how, offset, len) => {
                let ino = self.file(at)?.0;
                self.model.fallocate(ino, *how, *offset, *len).map(|()| Gave::Nothing)
            }
            Step::Copy(from, from_offset, to, to_offset, len) => {
                let from = (self.file(from)?.0, *from_offset);
                let (to, append) = self.file(to)?;
                if append {
                    return Err(Errno::Other(9));
                }
                self.model.copy(from, (to, *to_offset), *len).map(Gave::Count)
            }
            Step::Read(at, offset, len) => {
                let ino = self.file(at)?.0;
                self.model.read(ino, *offset, *len).map(Gave::Bytes)
            }
            Step::Stat(At::Path(path)) => {
                let ino = self.model.find(path)?;
                Ok(Gave::Stat(self.model.stat(ino)))
            }
            Step::Stat(at) => {
                let ino = self.file(at)?.0;
                Ok(Gave::Stat(self.model.stat(ino)))
            }
            Step::Fsync(at) => self.file(at).map(|_| Gave::Nothing),
            other => unreachable!("{other:?} is done elsewhere"),
        }
    }
}

impl Subject for Reference {
    fn apply(&mut self, step: &Step) -> Answer<Gave> {
        let model = &mut self.model;
        match step {
            Step::Mkdir(path, mode) => model.mkdir(path, *mode)?,
            Step::Symlink(path, target) => model.symlink(path, target)?,
            Step::Fifo(path, mode) => model.fifo(path, *mode)?,
            Step::Open(slot, path, how) => {
                let ino = model.open(path, *how)?;
                self.slots.insert(*slot, (ino, how.append));
            }
            Step::Close(slot) => drop(self.slots.remove(slot)),
            Step::Link(from, to) => model.link(from, to)?,
            Step::Unlink(path) => model.unlink(path)?,
            Step::Rmdir(path) => model.rmdir(path)?,
            Step::Rename(from, to, how) => model.rename(from, to, *how)?,
            Step::SetXattr(path, name, value, how) => {
                model.set_xattr(path, name, &value.bytes(), *how)?;
            }
            Step::RemoveXattr(path, name) => model.remove_xattr(path, name)?,
            Step::Chmod(path, mode) => model.chmod(path, *mode)?,
            Step::Chown(path, uid, gid) => model.chown(path, *uid, *gid)?,
            Step::SetMtime(path, secs, nanos) => model.set_mtime(path, *secs, *nanos)?,
            Step::SyncAll => {}
            Step::List(path) => return model.list(path).map(Gave::Names),
            Step::Readlink(path) => return model.readlink(path).map(Gave::Bytes),
            Step::Xattrs(path) => return model.xattrs(path).map(Gave::Xattrs),
            _ => return self.on_content(step),
        }
        Ok(Gave::Nothing)
    }

    fn data_ranges(&mut self, at: &At) -> Answer<Vec<(u64, u64)>> {
        let ino = self.file(at)?.0;
        Ok(vec![(0, self.model.stat(ino).size)])
    }

    fn restart(&mut self) {
        self.slots.clear();
    }
}
