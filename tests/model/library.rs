//! The library, as a subject: does what the kernel would do above it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tidefs::fs::{
    Attr, Caller, DirEntry, Filesystem, FsError, FsResult, Making, Options, RenameMode, Seek,
    SetAttr, SetTime, Wait, Writing,
};
use tidefs::types::{Ino, Kind as LibraryKind, Timestamp};

use crate::model::step::{At, Gave, Step, Subject};
use crate::model::words::{Answer, Errno, Fallocate, Kind, Open, Path, Rename, Stat};
use crate::translate::{self, errno};

/// What the kernel asks for at once, at most.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Numbers remembered at a time, about.
const HELD_MAX: usize = 60;

/// An open workspace, with its open files.
pub struct Library {
    /// Where it is opened again; none if others share it.
    state: Option<(PathBuf, Options)>,
    /// The directory that stands for the root.
    base: Ino,
    /// For what is no step.
    pub filesystem: Filesystem,
    caller: Caller,
    slots: BTreeMap<usize, (Ino, bool)>,
    /// Looked up and not yet given back, as the kernel's caches would.
    held: Vec<Ino>,
    /// How often a call would have had to wait.
    pub blocked_count: u64,
    dice: SmallRng,
}

impl Library {
    /// The workspace whose state is in `state`.
    pub fn new(state: PathBuf, options: Options, caller: Caller, seed: u64) -> Self {
        let filesystem = Filesystem::open(&state, &options).expect("the workspace opens");
        Self { state: Some((state, options)), ..Self::within(filesystem, Ino::ROOT, caller, seed) }
    }

    /// A directory of a workspace that others use too; a restart is but a sync.
    pub fn within(filesystem: Filesystem, base: Ino, caller: Caller, seed: u64) -> Self {
        let dice = SmallRng::seed_from_u64(seed ^ 0x5eed);
        let (slots, held) = (BTreeMap::new(), Vec::new());
        Self { state: None, base, filesystem, caller, slots, held, blocked_count: 0, dice }
    }

    /// Closes the workspace; the other way, dropping, need not commit.
    pub fn close(&mut self) {
        self.forget_all();
        self.filesystem.close().expect("the workspace closes");
    }

    /// Asks, at times first without leave to wait.
    fn ask<R>(&mut self, ask: impl Fn(&Filesystem, Wait) -> FsResult<R>) -> Answer<R> {
        if self.dice.random_ratio(1, 3) {
            match ask(&self.filesystem, Wait::Never) {
                Err(FsError::WouldBlock) => self.blocked_count += 1,
                result => return result.map_err(|error| errno(&error)),
            }
        }
        ask(&self.filesystem, Wait::May).map_err(|error| errno(&error))
    }

    fn lookup(&mut self, parent: Ino, name: &[u8]) -> Answer<Attr> {
        let attr = self.ask(|fs, wait| fs.lookup(parent, name, wait))?;
        self.held.push(attr.ino);
        Ok(attr)
    }

    fn find(&mut self, path: &Path) -> Answer<Ino> {
        path.0.iter().try_fold(self.base, |at, name| Ok(self.lookup(at, name)?.ino))
    }

    fn parent(&mut self, path: &Path) -> Answer<Ino> {
        let ino = self.find(&path.split().0)?;
        match self.attr(ino)?.kind {
            LibraryKind::Directory => Ok(ino),
            _ => Err(Errno::NotDir),
        }
    }

    fn attr(&mut self, ino: Ino) -> Answer<Attr> {
        self.ask(|fs, wait| fs.getattr(ino, wait))
    }

    fn forget_all(&mut self) {
        for ino in self.held.drain(..) {
            self.filesystem.forget(ino, 1);
        }
    }

    fn forget_some(&mut self) {
        if self.held.len() > HELD_MAX || self.dice.random_ratio(1, 3) {
            self.forget_all();
        } else if let Some(ino) = self.held.pop() {
            self.filesystem.forget(ino, 1);
        }
        if self.dice.random_ratio(1, 25) {
            self.filesystem.sync(None, Box::new(|done| done.expect("the disk is well")));
        }
    }

    fn make(&mut self, path: &Path, kind: &LibraryKind, mode: u32) -> Answer<Gave> {
        let parent = self.parent(path)?;
        let (name, kind, caller) = (path.split().1, kind.clone(), self.caller);
        let making = Making { parent, name, kind, mode, umask: 0, caller };
        let attr = self.ask(|fs, wait| fs.make(&making, wait))?;
        self.held.push(attr.ino);
        Ok(Gave::Nothing)
    }

    /// `open(2)` for reading and writing; the caller releases.
    fn open(&mut self, path: &Path, how: Open) -> Answer<Ino> {
        let parent = self.parent(path)?;
        let name = path.split().1;
        let attr = match (self.lookup(parent, name), how.create) {
            (Err(Errno::NoEnt), Some(mode)) => {
                let (kind, caller) = (LibraryKind::Regular, self.caller);
                let making = Making { parent, name, kind, mode, umask: 0, caller };
                let attr = self.ask(|fs, wait| fs.create(&making, true, wait))?;
                self.held.push(attr.ino);
                return Ok(attr.ino);
            }
            (found, _) => found?,
        };
        if how.create.is_some() && how.exclusive {
            return Err(Errno::Exist);
        }
        if matches!(attr.kind, LibraryKind::Symlink(_)) {
            return Err(Errno::Loop);
        }
        self.ask(|fs, wait| fs.open_file(attr.ino, true, how.truncate, wait))?;
        Ok(attr.ino)
    }

    /// Does something to an open file, opening it for that if need be.
    fn with<R>(
        &mut self,
        at: &At,
        act: impl FnOnce(&mut Self, Ino, bool) -> Answer<R>,
    ) -> Answer<R> {
        match at {
            At::Slot(slot) => {
                let (ino, append) = self.slots[slot];
                act(self, ino, append)
            }
            At::Path(path) => {
                let ino = self.open(path, Open::default())?;
                let result = act(self, ino, false);
                self.filesystem.release(ino, true);
                result
            }
        }
    }

    fn write(&mut self, ino: Ino, offset: Option<u64>, data: &[u8]) -> Answer<Gave> {
        let mut done = 0;
        while done < data.len() {
            let end = data.len().min(done + self.piece());
            let (piece, at) = (&data[done..end], offset.map(|offset| offset + done as u64));
            let append = at.is_none();
            let writing =
                Writing { offset: at.unwrap_or(0), data: piece, append, kill_suid: false };
            done += self.ask(|fs, wait| fs.write(ino, &writing, wait))?;
        }
        Ok(Gave::Count(data.len() as u64))
    }

    fn piece(&mut self) -> usize {
        self.dice.random_range(REQUEST_BYTES_MAX / 8..=REQUEST_BYTES_MAX)
    }

    fn read(&mut self, ino: Ino, offset: u64, len: usize) -> Answer<Gave> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let wanted = self.piece().min(len - bytes.len());
            let wanted = u32::try_from(wanted).expect("a request is small");
            let at = offset + bytes.len() as u64;
            let piece = self.ask(|fs, wait| fs.read(ino, at, wanted, wait))?;
            let is_short = piece.len() < wanted as usize;
            bytes.extend(piece);
            if is_short {
                break;
            }
        }
        Ok(Gave::Bytes(bytes))
    }

    fn fallocate(&mut self, ino: Ino, how: Fallocate, offset: u64, len: u64) -> Answer<Gave> {
        let how = translate::allocate(how);
        self.ask(|fs, wait| fs.allocate(ino, how, offset, len, wait))?;
        Ok(Gave::Nothing)
    }

    /// As the kernel's: until nothing is left of what the source held at first.
    fn copy(&mut self, from: (Ino, u64), to: (Ino, u64), len: u64) -> Answer<Gave> {
        let wanted = len.min(self.attr(from.0)?.size_bytes.saturating_sub(from.1));
        let mut done = 0;
        loop {
            let left = if done == 0 { len } else { wanted - done };
            let ends = ((from.0, from.1 + done), (to.0, to.1 + done));
            let copied = self.ask(|fs, wait| fs.copy_range(ends.0, ends.1, left, wait))?;
            done += copied;
            if done >= wanted {
                return Ok(Gave::Count(done));
            }
            assert!(copied > 0, "the copy of {wanted} stops at {done}");
        }
    }

    fn stat(&mut self, ino: Ino) -> Answer<Gave> {
        let attr = self.attr(ino)?;
        assert_eq!(attr.ino, ino);
        let kind = translate::kind(&attr.kind);
        let is_sparse_or_full = attr.blocks * 512 <= attr.size_bytes.next_multiple_of(4096);
        assert!(is_sparse_or_full, "{} blocks for {} bytes", attr.blocks, attr.size_bytes);
        Ok(Gave::Stat(Stat {
            ino: attr.ino.0,
            kind,
            mode: attr.mode,
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink,
            size: if kind == Kind::Dir { 0 } else { attr.size_bytes },
            mtime: Some((attr.mtime.secs, attr.mtime.nanos)),
        }))
    }

    /// Lists in pages of random length, at times with attributes.
    fn list(&mut self, path: &Path) -> Answer<Gave> {
        let ino = self.find(path)?;
        let mut rows: Vec<DirEntry> = Vec::new();
        loop {
            let offset = rows.last().map_or(0, |row| row.next_offset);
            let plus = self.dice.random_ratio(1, 2);
            let page = self.page(ino, offset, plus)?;
            if page.is_empty() {
                break;
            }
            rows.extend(page);
        }
        assert_eq!([&rows[0].name[..], &rows[1].name[..]], [&b"."[..], b".."]);
        assert_eq!(rows[0].ino, ino);
        let mut names = BTreeSet::new();
        for row in rows.split_off(2) {
            if let Some(attr) = row.attr {
                let now = self.attr(row.ino)?;
                // A commit in between may find holes.
                assert_eq!(Attr { blocks: now.blocks, ..attr }, now);
            }
            if self.dice.random_ratio(1, 8) {
                assert_eq!(self.lookup(ino, &row.name)?.ino, row.ino);
            }
            assert!(names.insert(row.name), "a name is listed twice");
        }
        Ok(Gave::Names(names))
    }

    /// The rows after `offset` that fit one request.
    pub fn page(&mut self, ino: Ino, offset: u64, plus: bool) -> Answer<Vec<DirEntry>> {
        let rows_max = self.dice.random_range(1..700);
        let page = self.ask(|fs, wait| {
            let mut page = Vec::new();
            fs.readdir(ino, offset, plus, wait, &mut |row| {
                let is_full = page.len() == rows_max;
                if !is_full {
                    page.push(row);
                }
                is_full
            })?;
            Ok(page)
        })?;
        self.held.extend(page.iter().filter(|row| row.attr.is_some()).map(|row| row.ino));
        Ok(page)
    }

    fn rename(&mut self, from: &Path, to: &Path, how: Rename) -> Answer<Gave> {
        let (from_dir, to_dir) = (self.parent(from)?, self.parent(to)?);
        let ends = ((from_dir, from.split().1), (to_dir, to.split().1));
        let how = translate::rename(how);
        match self.ask(|fs, wait| fs.rename(ends.0, ends.1, how, wait)) {
            Ok(()) => Ok(Gave::Nothing),
            Err(errno) => Err(self.kernel_refusal(from, to, how).unwrap_or(errno)),
        }
    }

    /// What the kernel says to a rename before it asks, where several reasons stand against it.
    fn kernel_refusal(&mut self, from: &Path, to: &Path, how: RenameMode) -> Option<Errno> {
        let source = self.find(from).err();
        let target = self.find(to).err();
        match (how, source, target) {
            (_, Some(errno), _) => return Some(errno),
            (_, _, Some(Errno::NameTooLong)) => return Some(Errno::NameTooLong),
            (RenameMode::NoReplace, None, None) => return Some(Errno::Exist),
            (RenameMode::Exchange, None, Some(errno)) => return Some(errno),
            _ if to.0.len() > from.0.len() && to.0.starts_with(&from.0) => {
                return Some(Errno::Inval);
            }
            _ => {}
        }
        let is_above = from.0.len() > to.0.len() && from.0.starts_with(&to.0);
        let exchanges = how == RenameMode::Exchange;
        is_above.then_some(if exchanges { Errno::Inval } else { Errno::NotEmpty })
    }

    fn names(&mut self, step: &Step) -> Answer<Gave> {
        match step {
            Step::Mkdir(path, mode) => {
                return self.make(path, &LibraryKind::Directory, mode & 0o1777);
            }
            Step::Symlink(path, target) => {
                return self.make(path, &LibraryKind::Symlink(target.clone()), 0o777);
            }
            Step::Fifo(path, mode) => return self.make(path, &LibraryKind::Fifo, *mode),
            Step::Link(from, to) => {
                let (ino, parent) = (self.find(from)?, self.parent(to)?);
                let attr = self.ask(|fs, wait| fs.link(ino, parent, to.split().1, wait))?;
                self.held.push(attr.ino);
            }
            Step::Unlink(path) => {
                let parent = self.parent(path)?;
                self.ask(|fs, wait| fs.unlink(parent, path.split().1, wait))?;
            }
            Step::Rmdir(path) => {
                let parent = self.parent(path)?;
                self.ask(|fs, wait| fs.rmdir(parent, path.split().1, wait))?;
            }
            Step::Rename(from, to, how) => return self.rename(from, to, *how),
            Step::List(path) => return self.list(path),
            Step::Readlink(path) => {
                let ino = self.find(path)?;
                return self.ask(|fs, wait| fs.readlink(ino, wait)).map(Gave::Bytes);
            }
            other => return self.attributes(other),
        }
        Ok(Gave::Nothing)
    }

    fn attributes(&mut self, step: &Step) -> Answer<Gave> {
        let change = match step {
            Step::Chmod(_, mode) => SetAttr { mode: Some(*mode), ..SetAttr::default() },
            Step::Chown(path, uid, gid) => {
                let ino = self.find(path)?;
                let kill_suid = self.attr(ino)?.kind != LibraryKind::Directory;
                let (uid, gid) = (Some(*uid), Some(*gid));
                SetAttr { uid, gid, kill_suid, ..SetAttr::default() }
            }
            Step::SetMtime(_, secs, nanos) => {
                let mtime = SetTime::At(Timestamp { secs: *secs, nanos: *nanos });
                SetAttr { mtime: Some(mtime), ..SetAttr::default() }
            }
            other => return self.xattr(other),
        };
        let (Step::Chmod(path, _) | Step::Chown(path, ..) | Step::SetMtime(path, ..)) = step else {
            unreachable!("matched above")
        };
        let ino = self.find(path)?;
        self.ask(|fs, wait| fs.setattr(ino, &change, wait))?;
        Ok(Gave::Nothing)
    }

    fn xattr(&mut self, step: &Step) -> Answer<Gave> {
        match step {
            Step::SetXattr(path, name, value, how) => {
                let ino = self.xattr_holder(path)?;
                let (how, value) = (translate::xattr(*how), value.bytes());
                self.ask(|fs, wait| fs.setxattr(ino, name, &value, how, false, wait))?;
            }
            Step::RemoveXattr(path, name) => {
                let ino = self.xattr_holder(path)?;
                self.ask(|fs, wait| fs.removexattr(ino, name, wait))?;
            }
            Step::Xattrs(path) => {
                let ino = self.find(path)?;
                let names = self.ask(|fs, wait| fs.listxattr(ino, wait))?;
                let mut xattrs = BTreeMap::new();
                for name in names {
                    let value = self.ask(|fs, wait| fs.getxattr(ino, &name, wait))?;
                    xattrs.insert(name, value);
                }
                return Ok(Gave::Xattrs(xattrs));
            }
            other => unreachable!("{other:?} is done elsewhere"),
        }
        Ok(Gave::Nothing)
    }

    /// Linux refuses `user.` attributes to all but files and directories.
    fn xattr_holder(&mut self, path: &Path) -> Answer<Ino> {
        let ino = self.find(path)?;
        match self.attr(ino)?.kind {
            LibraryKind::Regular | LibraryKind::Directory => Ok(ino),
            _ => Err(Errno::Perm),
        }
    }

    fn step(&mut self, step: &Step) -> Answer<Gave> {
        match step {
            Step::Open(slot, path, how) => {
                let ino = self.open(path, *how)?;
                self.slots.insert(*slot, (ino, how.append));
            }
            Step::Close(slot) => {
                let (ino, _) = self.slots.remove(slot).expect("an open slot");
                self.filesystem.release(ino, true);
            }
            Step::Write(at, offset, data) => {
                return self.with(at, |library, ino, append| {
                    library.write(ino, offset.filter(|_| !append), &data.bytes())
                });
            }
            Step::Truncate(at, size) => {
                let change = SetAttr { size_bytes: Some(*size), ..SetAttr::default() };
                self.with(at, |library, ino, _| {
                    library.ask(|fs, wait| fs.setattr(ino, &change, wait))
                })?;
            }
            Step::Fallocate(at, how, offset, len) => {
                return self
                    .with(at, |library, ino, _| library.fallocate(ino, *how, *offset, *len));
            }
            Step::Copy(from, from_offset, to, to_offset, len) => {
                return self.with(from, |library, from, _| {
                    library.with(to, |library, to, append| {
                        if append {
                            return Err(Errno::Other(9));
                        }
                        library.copy((from, *from_offset), (to, *to_offset), *len)
                    })
                });
            }
            Step::Fsync(at) => self.with(at, |library, ino, _| {
                library.filesystem.sync_now(Some(ino)).map_err(|error| errno(&error))
            })?,
            Step::SyncAll => self.filesystem.sync_now(None).map_err(|error| errno(&error))?,
            Step::Read(at, offset, len) => {
                return self.with(at, |library, ino, _| library.read(ino, *offset, *len));
            }
            Step::Stat(At::Path(path)) => {
                let ino = self.find(path)?;
                return self.stat(ino);
            }
            Step::Stat(At::Slot(slot)) => return self.stat(self.slots[slot].0),
            other => return self.names(other),
        }
        Ok(Gave::Nothing)
    }
}

impl Subject for Library {
    fn apply(&mut self, step: &Step) -> Answer<Gave> {
        let result = self.step(step);
        self.forget_some();
        result
    }

    fn data_ranges(&mut self, at: &At) -> Answer<Vec<(u64, u64)>> {
        self.with(at, |library, ino, _| {
            let blocks_before = library.attr(ino)?.blocks;
            let mut ranges = Vec::new();
            let mut offset = 0;
            loop {
                match library.ask(|fs, wait| fs.seek(ino, Seek::Data, offset, wait)) {
                    Ok(start) => {
                        offset = library.ask(|fs, wait| fs.seek(ino, Seek::Hole, start, wait))?;
                        ranges.push((start, offset));
                    }
                    Err(Errno::Other(6)) => break,
                    Err(errno) => return Err(errno),
                }
            }
            // Programs that copy or archive skip what has no blocks. A commit may be in between.
            let blocks = library.attr(ino)?.blocks;
            let has_blocks = blocks > 0 || blocks_before > 0;
            assert!(has_blocks || ranges.is_empty(), "data at {ranges:?} in no blocks");
            Ok(ranges)
        })
    }

    fn restart(&mut self) {
        assert!(self.slots.is_empty());
        let Some((state, options)) = self.state.clone() else {
            self.forget_all();
            return self.filesystem.sync_now(None).expect("the disk is well");
        };
        // A kernel that is gone gives nothing back.
        if self.dice.random() {
            self.held.clear();
        }
        self.close();
        self.filesystem = Filesystem::open(&state, &options).expect("the workspace opens");
    }
}
