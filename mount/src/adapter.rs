//! FUSE requests, one by one: the kernel's numbers become our types, then `fs` is called.
//!
//! Each request is first tried on the thread that read it, which reads a little from the disk as long
//! as that answers at once (`pace.rs`); what would have to wait goes to the pool. A sync is answered by the commit thread itself.
//!
//! What the kernel keeps up to date by itself, so that nothing here has to tell it (Linux,
//! `fs/fuse/dir.c` and `file.c`): a directory's attributes after a change in it, link counts after
//! unlink and rename, length and times after a write.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use tidefs::fs::{
    Allocate, Attr, Caller, DirEntry, Filesystem, FsError, FsResult, Making, RenameMode, Seek,
    SetAttr, Wait, Writing, XattrMode,
};
use tidefs::types::{Ino, Kind};

use crate::asker::{Asker, clear_set_id, is_set_id};
use crate::attr::{
    BLOCK_BYTES, bare_directory, file_attr, kind_of_mode, listed_type, set_time, timestamp,
};
use crate::errno::told;
use crate::pace::Pace;
use crate::pool::Pool;

/// How long the kernel may believe what it was told: we are the only ones who change it.
const TTL: Duration = Duration::from_hours(24);
/// Set-id bits cleared by a write are the one thing that the kernel does not notice by itself.
const TTL_SET_ID: Duration = Duration::ZERO;
/// Inode numbers are never used twice.
const GENERATION: Generation = Generation(0);
/// The largest request, as Linux allows an ordinary user.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
const BACKGROUND_REQUESTS_MAX: u16 = 64;
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// File handles: the lowest bit tells whether it may write.
const MAY_WRITE: u64 = 1;

/// Mount-wide choices that are measured rather than known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Switches {
    /// The kernel collects writes.
    pub writeback: bool,
    /// OPEN is answered with `ENOSYS`, so the kernel stops asking.
    pub no_open: bool,
}

/// Answers the kernel's requests.
pub struct Adapter {
    fs: Filesystem,
    pool: Pool,
    pace: Pace,
    switches: Switches,
}

impl Adapter {
    /// An adapter with its pool of threads.
    ///
    /// # Errors
    /// The system's, if it gives no thread.
    pub fn new(fs: Filesystem, switches: Switches) -> std::io::Result<Self> {
        Ok(Self { fs, pool: Pool::start()?, pace: Pace::default(), switches })
    }

    /// Tries `call` without waiting, else on the pool; then gives `answer` the result.
    fn serve<R, Reply: Send + 'static>(
        &self,
        reply: Reply,
        call: impl Fn(&Filesystem, Wait) -> FsResult<R> + Send + 'static,
        answer: impl FnOnce(Reply, FsResult<R>) + Send + 'static,
    ) {
        match self.pace.keep(|wait| call(&self.fs, wait)) {
            Err(FsError::WouldBlock) => {
                let fs = self.fs.clone();
                self.pool.run(Box::new(move || answer(reply, call(&fs, Wait::May))));
            }
            result => answer(reply, result),
        }
    }

    fn make(&self, request: &Request, new: New, reply: ReplyEntry) {
        let caller = caller(request);
        self.serve(reply, move |fs, wait| fs.make(&new.making(caller), wait), entry);
    }
}

/// What is to be made, owned.
struct New {
    parent: Ino,
    name: Vec<u8>,
    kind: Kind,
    mode: u32,
    umask: u32,
}

impl New {
    fn making(&self, caller: Caller) -> Making<'_> {
        Making {
            parent: self.parent,
            name: &self.name,
            kind: self.kind.clone(),
            mode: self.mode & 0o7777,
            umask: self.umask,
            caller,
        }
    }
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

fn own(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

/// How long the kernel may believe these attributes.
fn ttl(attr: &Attr) -> Duration {
    if is_set_id(attr) { TTL_SET_ID } else { TTL }
}

fn entry(reply: ReplyEntry, result: FsResult<Attr>) {
    match result {
        Ok(attr) => reply.entry(&ttl(&attr), &file_attr(&attr), GENERATION),
        Err(error) => reply.error(told(&error)),
    }
}

/// As [`entry`]; that there is no such name is an answer too, which the kernel keeps (node 0).
fn found(reply: ReplyEntry, result: FsResult<Attr>) {
    match result {
        Err(FsError::NotFound) => reply.entry(&TTL, &bare_directory(Ino(0)), GENERATION),
        other => entry(reply, other),
    }
}

fn attributes(reply: ReplyAttr, result: FsResult<Attr>) {
    match result {
        Ok(attr) => reply.attr(&ttl(&attr), &file_attr(&attr)),
        Err(error) => reply.error(told(&error)),
    }
}

fn empty(reply: ReplyEmpty, result: FsResult<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(told(&error)),
    }
}

fn data(reply: ReplyData, result: FsResult<Vec<u8>>) {
    match result {
        Ok(bytes) => reply.data(&bytes),
        Err(error) => reply.error(told(&error)),
    }
}

fn written(reply: ReplyWrite, result: FsResult<u64>) {
    match result {
        Ok(count) => reply.written(u32::try_from(count).expect("a request is bounded")),
        Err(error) => reply.error(told(&error)),
    }
}

/// An attribute's value, or its length if the caller asks for no bytes.
fn value(reply: ReplyXattr, size: u32, result: FsResult<Vec<u8>>) {
    match result {
        Ok(bytes) => match u32::try_from(bytes.len()).expect("attributes are bounded") {
            len if size == 0 => reply.size(len),
            len if len > size => reply.error(Errno::ERANGE),
            _ => reply.data(&bytes),
        },
        Err(error) => reply.error(told(&error)),
    }
}

fn opened_flags() -> FopenFlags {
    FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
}

fn may_write(flags: i32) -> bool {
    OpenFlags(flags).acc_mode() != OpenAccMode::O_RDONLY
}

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let mut wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_BIG_WRITES
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_EXPORT_SUPPORT;
        // Not FUSE_ASYNC_DIO: the kernel drops no cached page once an asynchronous direct write is
        // done (`fuse_aio_complete`), so a read that came between would show old bytes for good.
        if self.switches.writeback {
            wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
        }
        if self.switches.no_open {
            wanted |= InitFlags::FUSE_NO_OPEN_SUPPORT;
        }
        let offered = config.capabilities();
        if let Err(refused) = config.add_capabilities(wanted & offered) {
            tracing::warn!("the kernel refuses {refused:?}");
        }
        // A kernel that takes less says how much it takes.
        let _less = config.set_max_write(REQUEST_BYTES_MAX);
        let _less = config.set_max_readahead(REQUEST_BYTES_MAX);
        let _less = config.set_max_background(BACKGROUND_REQUESTS_MAX);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = own(name);
        self.serve(reply, move |fs, wait| fs.lookup(ino(parent), &name, wait), found);
    }

    fn forget(&self, _request: &Request, number: INodeNo, count: u64) {
        self.fs.forget(ino(number), count);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(reply, move |fs, wait| fs.getattr(ino(number), wait), attributes);
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _birth: Option<SystemTime>,
        _change: Option<SystemTime>,
        _backup: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // The kernel says so with a bit that the library does not hand on: a change of owner
        // always clears the set-id bits, a change of length does if an ordinary user makes it.
        let by_user = size.is_some() && request.uid() != 0;
        let change = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size_bytes: size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            ctime: ctime.filter(|_| self.switches.writeback).map(timestamp),
            kill_suid: mode.is_none() && (uid.is_some() || gid.is_some() || by_user),
        };
        self.serve(reply, move |fs, wait| fs.setattr(ino(number), &change, wait), attributes);
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        self.serve(reply, move |fs, wait| fs.readlink(ino(number), wait), data);
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let Some(kind) = kind_of_mode(mode, rdev) else { return reply.error(Errno::EINVAL) };
        let new = New { parent: ino(parent), name: own(name), kind, mode, umask };
        self.make(request, new, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let kind = Kind::Directory;
        self.make(request, New { parent: ino(parent), name: own(name), kind, mode, umask }, reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let kind = Kind::Symlink(own(target.as_os_str()));
        let (mode, umask) = (0o777, 0);
        self.make(request, New { parent: ino(parent), name: own(name), kind, mode, umask }, reply);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = own(name);
        self.serve(reply, move |fs, wait| fs.unlink(ino(parent), &name, wait), empty);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = own(name);
        self.serve(reply, move |fs, wait| fs.rmdir(ino(parent), &name, wait), empty);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = if flags.is_empty() {
            RenameMode::Replace
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            RenameMode::NoReplace
        } else if flags == RenameFlags::RENAME_EXCHANGE {
            RenameMode::Exchange
        } else {
            return reply.error(Errno::EINVAL);
        };
        let (name, new_name) = (own(name), own(new_name));
        let call = move |fs: &Filesystem, wait| {
            fs.rename((ino(parent), &name), (ino(new_parent), &new_name), mode, wait)
        };
        self.serve(reply, call, empty);
    }

    fn link(
        &self,
        _request: &Request,
        number: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let name = own(name);
        self.serve(reply, move |fs, wait| fs.link(ino(number), ino(parent), &name, wait), entry);
    }

    fn open(&self, _request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.switches.no_open {
            return reply.error(Errno::ENOSYS);
        }
        let write = may_write(flags.0);
        let handle = FileHandle(if write { MAY_WRITE } else { 0 });
        self.serve(
            reply,
            move |fs, wait| fs.open_file(ino(number), write, false, wait),
            move |reply: ReplyOpen, result| match result {
                Ok(()) => reply.opened(handle, opened_flags()),
                Err(error) => reply.error(told(&error)),
            },
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let write = may_write(flags);
        let handle = FileHandle(if write { MAY_WRITE } else { 0 });
        let (kind, caller) = (Kind::Regular, caller(request));
        let new = New { parent: ino(parent), name: own(name), kind, mode, umask };
        self.serve(
            reply,
            move |fs, wait| fs.create(&new.making(caller), write, wait),
            move |reply: ReplyCreate, result| match result {
                Ok(attr) => {
                    let ttl = ttl(&attr);
                    reply.created(&ttl, &file_attr(&attr), GENERATION, handle, opened_flags());
                }
                Err(error) => reply.error(told(&error)),
            },
        );
    }

    fn release(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.fs.release(ino(number), handle.0 & MAY_WRITE != 0);
        reply.ok();
    }

    fn flush(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Nothing to do, and the kernel need not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.serve(reply, move |fs, wait| fs.read(ino(number), offset, size, wait), data);
    }

    fn write(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // The kernel, which alone changes lengths, has worked out where an append belongs; a
        // single write can ask to be none (`RWF_NOAPPEND`), of which the open flags say nothing.
        let append = false;
        let kill_suid = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let number = ino(number);
        let writing = Writing { offset, data: bytes, append, kill_suid };
        match self.pace.keep(|wait| self.fs.write(number, &writing, wait)) {
            Err(FsError::WouldBlock) => {
                let fs = self.fs.clone();
                let bytes = bytes.to_vec();
                self.pool.run(Box::new(move || {
                    let writing = Writing { offset, data: &bytes, append, kill_suid };
                    let result = fs.write(number, &writing, Wait::May);
                    written(reply, result.map(|count| count as u64));
                }));
            }
            result => written(reply, result.map(|count| count as u64)),
        }
    }

    fn fsync(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.fs.sync(Some(ino(number)), Box::new(move |result| empty(reply, result)));
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.fs.sync(None, Box::new(move |result| empty(reply, result)));
    }

    fn opendir(&self, _request: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // The kernel then opens directories by itself, and keeps what it has read of them.
        reply.error(Errno::ENOSYS);
    }

    fn readdir(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let add = |reply: &mut ReplyDirectory, row: DirEntry| {
            let (number, kind) = (INodeNo(row.ino.0), listed_type(row.kind_bits));
            reply.add(number, row.next_offset, kind, OsStr::from_bytes(&row.name))
        };
        let finish = |reply: ReplyDirectory, result: FsResult<()>| match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(told(&error)),
        };
        self.list(ino(number), offset, false, reply, add, finish);
    }

    fn readdirplus(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let add = |reply: &mut ReplyDirectoryPlus, row: DirEntry| {
            let ttl = row.attr.as_ref().map_or(TTL, ttl);
            let attr = row.attr.as_ref().map_or_else(|| bare_directory(row.ino), file_attr);
            let name = OsStr::from_bytes(&row.name);
            reply.add(INodeNo(row.ino.0), row.next_offset, name, &ttl, &attr, GENERATION)
        };
        let finish = |reply: ReplyDirectoryPlus, result: FsResult<()>| match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(told(&error)),
        };
        self.list(ino(number), offset, true, reply, add, finish);
    }

    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        let Ok(stat) = self.fs.statfs() else { return reply.error(Errno::EIO) };
        let block = u64::from(BLOCK_BYTES);
        let (blocks, free) = (stat.total_bytes / block, stat.free_bytes / block);
        let unused = stat.unused_bytes / block;
        // There is room for files as long as there is room for bytes.
        let files_free = free;
        let name_bytes_max = 255;
        reply.statfs(
            blocks,
            unused,
            free,
            stat.files + files_free,
            files_free,
            BLOCK_BYTES,
            name_bytes_max,
            BLOCK_BYTES,
        );
    }

    fn setxattr(
        &self,
        request: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        const BOTH: i32 = libc::XATTR_CREATE | libc::XATTR_REPLACE;
        let mode = match flags {
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            0 => XattrMode::Set,
            BOTH => XattrMode::CreateAndReplace,
            _ => return reply.error(Errno::EINVAL),
        };
        let (number, name, value) = (ino(number), own(name), value.to_vec());
        let (sets_acl, asker) = (name == ACCESS_ACL, Asker::of(request));
        let call = move |fs: &Filesystem, wait| {
            let kill_sgid = sets_acl && {
                let attr = fs.getattr(number, wait)?;
                attr.mode & libc::S_ISGID != 0 && !asker.is_in_group(attr.gid)
            };
            fs.setxattr(number, &name, &value, mode, kill_sgid, wait)
        };
        self.serve(reply, call, empty);
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = own(name);
        self.serve(
            reply,
            move |fs, wait| fs.getxattr(ino(number), &name, wait),
            move |reply, result| value(reply, size, result),
        );
    }

    fn listxattr(&self, request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        // Who may not read them is not told of them either (`xattr(7)`).
        let shows_trusted = request.uid() == 0;
        self.serve(
            reply,
            move |fs, wait| {
                let mut names = fs.listxattr(ino(number), wait)?;
                names.retain(|name| shows_trusted || !name.starts_with(b"trusted."));
                Ok(names.into_iter().flat_map(|name| [name, vec![0]].concat()).collect())
            },
            move |reply, result| value(reply, size, result),
        );
    }

    fn removexattr(&self, _request: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = own(name);
        self.serve(reply, move |fs, wait| fs.removexattr(ino(number), &name, wait), empty);
    }

    fn access(&self, _request: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks by itself (default_permissions).
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _output_bytes: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let how = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => Allocate::Reserve { keep_size },
            libc::FALLOC_FL_ZERO_RANGE => Allocate::Zero { keep_size },
            libc::FALLOC_FL_PUNCH_HOLE if keep_size => Allocate::PunchHole,
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        let (number, asker) = (ino(number), Asker::of(request));
        let call = move |fs: &Filesystem, wait| {
            clear_set_id(fs, number, asker, wait)?;
            fs.allocate(number, how, offset, length, wait)
        };
        self.serve(reply, call, empty);
    }

    fn lseek(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        self.serve(
            reply,
            move |fs, wait| fs.seek(ino(number), what, offset, wait),
            |reply: ReplyLseek, result| match result {
                Ok(found) => reply.offset(found.cast_signed()),
                Err(error) => reply.error(told(&error)),
            },
        );
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _from_handle: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _to_handle: FileHandle,
        to_offset: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The answer has 32 bits, and the kernel asks again for the rest.
        let len = len.min(u64::from(u32::MAX) & !0xfff);
        let (from, to) = ((ino(from), from_offset), (ino(to), to_offset));
        let asker = Asker::of(request);
        let call = move |fs: &Filesystem, wait| {
            clear_set_id(fs, to.0, asker, wait)?;
            fs.copy_range(from, to, len, wait)
        };
        self.serve(reply, call, written);
    }
}

impl Adapter {
    /// Fills a listing's buffer, from memory or on the pool.
    ///
    /// What does not wait has either listed all that fits or nothing, so the same buffer goes on.
    fn list<Reply: Send + 'static>(
        &self,
        dir: Ino,
        offset: u64,
        plus: bool,
        mut reply: Reply,
        add: impl Fn(&mut Reply, DirEntry) -> bool + Send + 'static,
        finish: impl FnOnce(Reply, FsResult<()>) + Send + 'static,
    ) {
        let mut take = |row| add(&mut reply, row);
        match self.pace.keep(|wait| self.fs.readdir(dir, offset, plus, wait, &mut take)) {
            Err(FsError::WouldBlock) => {
                let fs = self.fs.clone();
                self.pool.run(Box::new(move || {
                    let mut take = |row| add(&mut reply, row);
                    let result = fs.readdir(dir, offset, plus, Wait::May, &mut take);
                    finish(reply, result);
                }));
            }
            result => finish(reply, result),
        }
    }
}
