//! A directory of the kernel's, as a subject.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, SeekFrom, Timespec,
    Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno as Raw;

use crate::model::step::{At, Gave, Step, Subject};
use crate::model::words::{Answer, Errno, Fallocate, Kind, Open, Path, Rename, Stat, XattrMode};

/// A directory, with its open files.
pub struct Directory {
    base: PathBuf,
    slots: BTreeMap<usize, File>,
    restart: Box<dyn FnMut()>,
}

impl Directory {
    /// The directory `base`; `restart` takes its filesystem away and brings it back.
    pub fn new(base: PathBuf, restart: Box<dyn FnMut()>) -> Self {
        rustix::process::umask(Mode::empty());
        Self { base, slots: BTreeMap::new(), restart }
    }

    /// Can a range be zeroed here?
    pub fn zeroes_ranges(&self) -> bool {
        let path = self.base.join("probe");
        let file = File::create(&path).expect("the directory is writable");
        let done = rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE, 0, 4096);
        std::fs::remove_file(path).expect("just made");
        done.is_ok()
    }

    fn full(&self, path: &Path) -> PathBuf {
        let relative = path.bytes();
        if relative.is_empty() {
            return self.base.clone();
        }
        self.base.join(OsStr::from_bytes(&relative))
    }

    fn open(&self, path: &Path, how: Open) -> Answer<File> {
        let mut flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        flags.set(OFlags::CREATE, how.create.is_some());
        flags.set(OFlags::EXCL, how.create.is_some() && how.exclusive);
        flags.set(OFlags::TRUNC, how.truncate);
        flags.set(OFlags::APPEND, how.append);
        let mode = Mode::from_raw_mode(how.create.unwrap_or(0));
        Ok(rustix::fs::open(self.full(path), flags, mode).map_err(errno)?.into())
    }

    fn file(&self, at: &At, append: bool) -> Answer<File> {
        match at {
            At::Path(path) => self.open(path, Open { append, ..Open::default() }),
            At::Slot(slot) => Ok(self.slots[slot].try_clone().expect("enough file numbers")),
        }
    }

    fn stat(&self, at: &At) -> Answer<Stat> {
        let stat = match at {
            At::Path(path) => rustix::fs::lstat(self.full(path)),
            At::Slot(slot) => rustix::fs::fstat(&self.slots[slot]),
        };
        let stat = stat.map_err(errno)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Dir,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink,
            _ => Kind::Fifo,
        };
        let has_size = matches!(kind, Kind::File | Kind::Symlink);
        Ok(Stat {
            ino: stat.st_ino,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            nlink: u32::try_from(stat.st_nlink).expect("few links"),
            size: if has_size { u64::try_from(stat.st_size).expect("a size") } else { 0 },
            mtime: Some((stat.st_mtime, u32::try_from(stat.st_mtime_nsec).expect("nanoseconds"))),
        })
    }

    fn write(&self, at: &At, offset: Option<u64>, data: &[u8]) -> Answer<Gave> {
        let file = self.file(at, offset.is_none())?;
        // With O_APPEND Linux takes no notice of the offset; else this is the end.
        let end = self.file(at, false)?.metadata().map_err(io_errno)?.len();
        file.write_all_at(data, offset.unwrap_or(end)).map_err(io_errno)?;
        Ok(Gave::Count(data.len() as u64))
    }

    fn fallocate(&self, at: &At, how: Fallocate, offset: u64, len: u64) -> Answer<Gave> {
        let flags = match how {
            Fallocate::Reserve { .. } => FallocateFlags::empty(),
            Fallocate::Punch => FallocateFlags::PUNCH_HOLE,
            Fallocate::Zero { .. } => FallocateFlags::ZERO_RANGE,
        };
        let keep_size = match how {
            Fallocate::Reserve { keep_size } | Fallocate::Zero { keep_size } => keep_size,
            Fallocate::Punch => true,
        };
        let keep = if keep_size { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        let file = self.file(at, false)?;
        rustix::fs::fallocate(&file, flags | keep, offset, len).map_err(errno)?;
        Ok(Gave::Nothing)
    }

    fn copy(&self, from: (&At, u64), to: (&At, u64), len: u64) -> Answer<Gave> {
        let source = self.file(from.0, false)?;
        let target = self.file(to.0, false)?;
        let size = source.metadata().map_err(io_errno)?.len();
        let wanted = len.min(size.saturating_sub(from.1));
        let mut done = 0;
        loop {
            let (mut from_offset, mut to_offset) = (from.1 + done, to.1 + done);
            let left = if done == 0 { len } else { wanted - done };
            let left = usize::try_from(left).expect("contents are small");
            let ends = (Some(&mut from_offset), Some(&mut to_offset));
            let copied = rustix::fs::copy_file_range(&source, ends.0, &target, ends.1, left);
            done += copied.map_err(errno)? as u64;
            if done >= wanted {
                return Ok(Gave::Count(done));
            }
            assert!(copied != Ok(0), "the copy of {wanted} stops at {done}");
        }
    }

    fn read(&self, at: &At, offset: u64, len: usize) -> Answer<Gave> {
        let file = self.file(at, false)?;
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            match file.read_at(&mut bytes[done..], offset + done as u64).map_err(io_errno)? {
                0 => break,
                count => done += count,
            }
        }
        bytes.truncate(done);
        Ok(Gave::Bytes(bytes))
    }

    fn list(&self, path: &Path) -> Answer<Gave> {
        let entries = std::fs::read_dir(self.full(path)).map_err(io_errno)?;
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(io_errno)?.file_name().into_vec();
            assert!(names.insert(name), "a name is listed twice");
        }
        Ok(Gave::Names(names))
    }

    fn xattrs(&self, path: &Path) -> Answer<Gave> {
        let (path, mut buffer) = (self.full(path), vec![0; 65536]);
        let len = rustix::fs::llistxattr(&path, &mut buffer[..]).map_err(errno)?;
        let names: Vec<Vec<u8>> =
            buffer[..len].split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        let mut xattrs = BTreeMap::new();
        for name in names.into_iter().filter(|name| name.starts_with(b"user.")) {
            let len = rustix::fs::lgetxattr(&path, &name[..], &mut buffer[..]).map_err(errno)?;
            xattrs.insert(name, buffer[..len].to_vec());
        }
        Ok(Gave::Xattrs(xattrs))
    }

    fn names(&mut self, step: &Step) -> Result<(), Raw> {
        match step {
            Step::Mkdir(path, mode) => {
                rustix::fs::mkdir(self.full(path), Mode::from_raw_mode(*mode))
            }
            Step::Symlink(path, target) => rustix::fs::symlink(&target[..], self.full(path)),
            Step::Fifo(path, mode) => {
                let mode = Mode::from_raw_mode(*mode);
                rustix::fs::mknodat(CWD, self.full(path), FileType::Fifo, mode, 0)
            }
            Step::Link(from, to) => {
                rustix::fs::linkat(CWD, self.full(from), CWD, self.full(to), AtFlags::empty())
            }
            Step::Unlink(path) => rustix::fs::unlink(self.full(path)),
            Step::Rmdir(path) => rustix::fs::rmdir(self.full(path)),
            Step::Rename(from, to, how) => {
                let flags = match how {
                    Rename::Replace => RenameFlags::empty(),
                    Rename::NoReplace => RenameFlags::NOREPLACE,
                    Rename::Exchange => RenameFlags::EXCHANGE,
                };
                rustix::fs::renameat_with(CWD, self.full(from), CWD, self.full(to), flags)
            }
            other => self.attributes(other),
        }
    }

    fn attributes(&self, step: &Step) -> Result<(), Raw> {
        match step {
            Step::SetXattr(path, name, value, how) => {
                let flags = match how {
                    XattrMode::Set => XattrFlags::empty(),
                    XattrMode::Create => XattrFlags::CREATE,
                    XattrMode::Replace => XattrFlags::REPLACE,
                };
                rustix::fs::lsetxattr(self.full(path), &name[..], &value.bytes(), flags)
            }
            Step::RemoveXattr(path, name) => rustix::fs::lremovexattr(self.full(path), &name[..]),
            Step::Chmod(path, mode) => {
                rustix::fs::chmod(self.full(path), Mode::from_raw_mode(*mode))
            }
            Step::Chown(path, uid, gid) => {
                let owner = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(CWD, self.full(path), owner.0, owner.1, flags)
            }
            Step::SetMtime(path, secs, nanos) => {
                let times = Timestamps {
                    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                    last_modification: Timespec { tv_sec: *secs, tv_nsec: i64::from(*nanos) },
                };
                rustix::fs::utimensat(CWD, self.full(path), &times, AtFlags::SYMLINK_NOFOLLOW)
            }
            other => unreachable!("{other:?} is done elsewhere"),
        }
    }
}

impl Subject for Directory {
    fn apply(&mut self, step: &Step) -> Answer<Gave> {
        match step {
            Step::Open(slot, path, how) => {
                let file = self.open(path, *how)?;
                self.slots.insert(*slot, file);
            }
            Step::Close(slot) => drop(self.slots.remove(slot)),
            Step::Write(at, offset, data) => return self.write(at, *offset, &data.bytes()),
            Step::Truncate(at, size) => self.file(at, false)?.set_len(*size).map_err(io_errno)?,
            Step::Fallocate(at, how, offset, len) => {
                return self.fallocate(at, *how, *offset, *len);
            }
            Step::Copy(from, from_offset, to, to_offset, len) => {
                return self.copy((from, *from_offset), (to, *to_offset), *len);
            }
            Step::Fsync(at) => self.file(at, false)?.sync_all().map_err(io_errno)?,
            Step::SyncAll => {
                let dir = File::open(&self.base).expect("it is there");
                rustix::fs::syncfs(&dir).map_err(errno)?;
            }
            Step::Read(at, offset, len) => return self.read(at, *offset, *len),
            Step::Stat(at) => return self.stat(at).map(Gave::Stat),
            Step::List(path) => return self.list(path),
            Step::Readlink(path) => {
                let target = rustix::fs::readlink(self.full(path), Vec::new()).map_err(errno)?;
                return Ok(Gave::Bytes(target.into_bytes()));
            }
            Step::Xattrs(path) => return self.xattrs(path),
            other => self.names(other).map_err(errno)?,
        }
        Ok(Gave::Nothing)
    }

    fn data_ranges(&mut self, at: &At) -> Answer<Vec<(u64, u64)>> {
        let file = self.file(at, false)?;
        let mut ranges = Vec::new();
        let mut offset = 0;
        loop {
            match rustix::fs::seek(&file, SeekFrom::Data(offset)) {
                Ok(start) => {
                    offset = rustix::fs::seek(&file, SeekFrom::Hole(start)).map_err(errno)?;
                    ranges.push((start, offset));
                }
                Err(Raw::NXIO) => return Ok(ranges),
                Err(other) => return Err(errno(other)),
            }
        }
    }

    fn restart(&mut self) {
        assert!(self.slots.is_empty(), "an open file would hold the mount");
        (self.restart)();
    }
}

#[allow(clippy::needless_pass_by_value, reason = "`map_err` hands it over")]
fn io_errno(error: std::io::Error) -> Errno {
    errno(Raw::from_io_error(&error).unwrap_or_else(|| panic!("{error}")))
}

fn errno(raw: Raw) -> Errno {
    match raw {
        Raw::NOENT => Errno::NoEnt,
        Raw::EXIST => Errno::Exist,
        Raw::NOTDIR => Errno::NotDir,
        Raw::ISDIR => Errno::IsDir,
        Raw::NOTEMPTY => Errno::NotEmpty,
        Raw::INVAL => Errno::Inval,
        Raw::NAMETOOLONG => Errno::NameTooLong,
        Raw::LOOP => Errno::Loop,
        Raw::PERM => Errno::Perm,
        Raw::NODATA => Errno::NoData,
        other => Errno::Other(other.raw_os_error()),
    }
}
