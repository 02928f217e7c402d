//! SQLite on the fake disk.
//!
//! SQLite takes its disk as a table of C functions (<https://sqlite.org/vfs.html>). This one hands
//! each call to the [`FakeDisk`] of the directory that the file is in, so that the power can be cut
//! before any of SQLite's own calls, what it has not synced is torn like everything else, and a
//! full disk is full for it too. Locks and the shared index of the write-ahead log live in memory,
//! as they do on a real system, and are gone with the power.
//!
//! A file is told from another machine's by its directory. One thread at a time may use a
//! directory's databases, which is how the simulation runs.

#![expect(unsafe_code, reason = "SQLite takes its disk as C functions, and in no other way")]

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, Once};

use parking_lot::Mutex;
use rusqlite::ffi;
use tidefs::env::{Disk, DiskFile, FakeDisk};

/// As the system's own VFS says of most disks.
const SECTOR_BYTES: c_int = 4096;
/// SQLite asks for the shared index in regions of this size.
const REGION_WORDS: usize = 32_768 / 8;

/// The disks, by directory.
static DISKS: Mutex<BTreeMap<PathBuf, Arc<Machine>>> = Mutex::new(BTreeMap::new());

/// One machine, from its start to the loss of its power.
struct Machine {
    disk: FakeDisk,
    databases: Mutex<BTreeMap<PathBuf, Arc<Mutex<Shared>>>>,
}

/// What all connections to one database share.
#[derive(Default)]
struct Shared {
    next: u64,
    levels: BTreeMap<u64, c_int>,
    /// By connection: which slots of the index it holds, with others and alone.
    slots: BTreeMap<u64, (u32, u32)>,
    regions: Vec<Box<[u64]>>,
}

struct Handle {
    id: u64,
    machine: Arc<Machine>,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    /// The file was made just now: its first sync makes its name durable too.
    is_new: bool,
    shared: Arc<Mutex<Shared>>,
}

/// What SQLite makes room for, for each open file.
#[repr(C)]
struct Slot {
    base: ffi::sqlite3_file,
    handle: *mut Handle,
}

/// A machine whose power is on.
pub struct PoweredOn(PathBuf);

impl Drop for PoweredOn {
    fn drop(&mut self) {
        DISKS.lock().remove(&self.0);
    }
}

/// From now on, SQLite finds the files of `dir` on `disk`.
pub fn power_on(dir: &Path, disk: &FakeDisk) -> PoweredOn {
    install();
    let machine = Machine { disk: disk.clone(), databases: Mutex::default() };
    let before = DISKS.lock().insert(dir.to_owned(), Arc::new(machine));
    assert!(before.is_none(), "{} is one machine's", dir.display());
    PoweredOn(dir.to_owned())
}

fn install() {
    static INSTALLED: Once = Once::new();
    // SAFETY: the system's own VFS lives for ever, and so do the copy of it and its name; of the
    // functions that stay as they are, none looks at the files that are opened here.
    INSTALLED.call_once(|| unsafe {
        let mut vfs = *ffi::sqlite3_vfs_find(ptr::null());
        vfs.iVersion = 2;
        vfs.szOsFile = c_int::try_from(size_of::<Slot>()).expect("small");
        vfs.zName = c"simulated".as_ptr();
        vfs.pNext = ptr::null_mut();
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        vfs.xAccess = Some(access);
        vfs.xFullPathname = Some(full_pathname);
        let result = ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 1);
        assert_eq!(result, ffi::SQLITE_OK, "SQLite takes the disk");
    });
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

fn code(error: &io::Error, otherwise: c_int) -> c_int {
    if error.kind() == ErrorKind::StorageFull { ffi::SQLITE_FULL } else { otherwise }
}

fn done(result: io::Result<()>, otherwise: c_int) -> c_int {
    result.map_or_else(|error| code(&error, otherwise), |()| ffi::SQLITE_OK)
}

/// The path that SQLite names.
///
/// # Safety
/// `name` is a C string.
unsafe fn path(name: *const c_char) -> PathBuf {
    // SAFETY: the caller's promise.
    PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()))
}

fn machine(path: &Path) -> Option<Arc<Machine>> {
    DISKS.lock().get(path.parent()?).cloned()
}

fn exists(machine: &Machine, path: &Path) -> bool {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return false };
    machine.disk.list(dir).is_ok_and(|names| names.iter().any(|other| other == name))
}

/// The handle behind a file.
///
/// # Safety
/// `file` was opened by [`open`], and is not closed; nothing else of it is borrowed.
unsafe fn handle<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Handle {
    // SAFETY: the caller's promise.
    unsafe { &mut *(*file.cast::<Slot>()).handle }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let slot = file.cast::<Slot>();
    // SAFETY: SQLite gives room for a `Slot`, and a name or none.
    let path = unsafe {
        (*slot).base.pMethods = ptr::null();
        if name.is_null() {
            return ffi::SQLITE_CANTOPEN;
        }
        path(name)
    };
    let Some(machine) = machine(&path) else { return ffi::SQLITE_CANTOPEN };
    let is_new = !exists(&machine, &path);
    if is_new && flags & ffi::SQLITE_OPEN_CREATE == 0 {
        return ffi::SQLITE_CANTOPEN;
    }
    let opened = match machine.disk.open(&path) {
        Ok(opened) => opened,
        Err(error) => return code(&error, ffi::SQLITE_CANTOPEN),
    };
    let shared = Arc::clone(machine.databases.lock().entry(path.clone()).or_default());
    let id = {
        let mut shared = shared.lock();
        shared.next += 1;
        shared.next
    };
    let handle = Handle { id, machine, path, file: opened, is_new, shared };
    // SAFETY: as above; `flags_out` is a number or null.
    unsafe {
        (*slot).handle = Box::into_raw(Box::new(handle));
        (*slot).base.pMethods = &raw const METHODS;
        if !flags_out.is_null() {
            *flags_out = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes what it opened, once.
    let handle = unsafe { Box::from_raw((*file.cast::<Slot>()).handle) };
    handle.shared.lock().levels.remove(&handle.id);
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, _: c_int) -> c_int {
    // SAFETY: SQLite gives a name.
    let path = unsafe { path(name) };
    let Some(machine) = machine(&path) else { return ffi::SQLITE_IOERR_DELETE };
    match machine.disk.remove(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => ffi::SQLITE_IOERR_DELETE_NOENT,
        result => done(result, ffi::SQLITE_IOERR_DELETE),
    }
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    found: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a name, and a number to set.
    let (path, found) = unsafe { (path(name), &mut *found) };
    let is_there = machine(&path).is_some_and(|machine| {
        // As the system's own VFS has it: an empty file is none.
        let len = || machine.disk.open(&path).and_then(|file| file.len_bytes()).unwrap_or(0);
        exists(&machine, &path) && (flags != ffi::SQLITE_ACCESS_EXISTS || len() > 0)
    });
    *found = c_int::from(is_there);
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    full: *mut c_char,
) -> c_int {
    // SAFETY: SQLite gives a name, and `room` bytes for it.
    unsafe {
        let name = CStr::from_ptr(name).to_bytes_with_nul();
        if usize::try_from(room).is_ok_and(|room| name.len() <= room) {
            ptr::copy_nonoverlapping(name.as_ptr(), full.cast(), name.len());
            return ffi::SQLITE_OK;
        }
    }
    ffi::SQLITE_CANTOPEN
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    let (count, offset) = (usize::try_from(count), u64::try_from(offset));
    let (Ok(count), Ok(offset)) = (count, offset) else { return ffi::SQLITE_IOERR_READ };
    // SAFETY: an open file, and `count` bytes of room.
    let (handle, buffer) =
        unsafe { (handle(file), std::slice::from_raw_parts_mut(buffer.cast::<u8>(), count)) };
    let Ok(end) = handle.file.len_bytes() else { return ffi::SQLITE_IOERR_READ };
    let here = usize::try_from(end.saturating_sub(offset)).unwrap_or(count).min(count);
    buffer[here..].fill(0);
    if here > 0 && handle.file.read_at(&mut buffer[..here], offset).is_err() {
        return ffi::SQLITE_IOERR_READ;
    }
    if here < count { ffi::SQLITE_IOERR_SHORT_READ } else { ffi::SQLITE_OK }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    buffer: *const c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    let (count, offset) = (usize::try_from(count), u64::try_from(offset));
    let (Ok(count), Ok(offset)) = (count, offset) else { return ffi::SQLITE_IOERR_WRITE };
    // SAFETY: an open file, and `count` bytes.
    let (handle, buffer) =
        unsafe { (handle(file), std::slice::from_raw_parts(buffer.cast::<u8>(), count)) };
    done(handle.file.write_at(buffer, offset), ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len_bytes: i64) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let len_bytes = u64::try_from(len_bytes).unwrap_or(0);
    done(handle.file.set_len(len_bytes), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let mut result = handle.file.sync();
    if result.is_ok()
        && std::mem::take(&mut handle.is_new)
        && let Some(dir) = handle.path.parent()
    {
        result = handle.machine.disk.sync_dir(dir);
    }
    done(result, ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: an open file, and a number to set.
    let (handle, size) = unsafe { (handle(file), &mut *size) };
    match handle.file.len_bytes() {
        Ok(len_bytes) => {
            *size = i64::try_from(len_bytes).unwrap_or(i64::MAX);
            ffi::SQLITE_OK
        }
        Err(_) => ffi::SQLITE_IOERR_FSTAT,
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let mut shared = handle.shared.lock();
    let others = shared.levels.iter().filter(|(id, _)| **id != handle.id).map(|(_, level)| *level);
    let highest = others.max().unwrap_or(ffi::SQLITE_LOCK_NONE);
    let is_free = match level {
        ffi::SQLITE_LOCK_SHARED => highest < ffi::SQLITE_LOCK_PENDING,
        ffi::SQLITE_LOCK_RESERVED => highest < ffi::SQLITE_LOCK_RESERVED,
        _ => highest == ffi::SQLITE_LOCK_NONE,
    };
    if !is_free {
        return ffi::SQLITE_BUSY;
    }
    let own = shared.levels.entry(handle.id).or_insert(level);
    *own = level.max(*own);
    ffi::SQLITE_OK
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    handle.shared.lock().levels.insert(handle.id, level);
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(
    file: *mut ffi::sqlite3_file,
    reserved: *mut c_int,
) -> c_int {
    // SAFETY: an open file, and a number to set.
    let (handle, reserved) = unsafe { (handle(file), &mut *reserved) };
    let shared = handle.shared.lock();
    let is_reserved = shared.levels.values().any(|level| *level >= ffi::SQLITE_LOCK_RESERVED);
    *reserved = c_int::from(is_reserved);
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_BYTES
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    mapped: *mut *mut c_void,
) -> c_int {
    assert_eq!(usize::try_from(bytes), Ok(REGION_WORDS * 8), "regions have one size");
    // SAFETY: an open file, and a pointer to set.
    let (handle, mapped) = unsafe { (handle(file), &mut *mapped) };
    let mut shared = handle.shared.lock();
    shared.slots.entry(handle.id).or_default();
    let region = usize::try_from(region).expect("not negative");
    while extend != 0 && shared.regions.len() <= region {
        shared.regions.push(vec![0; REGION_WORDS].into_boxed_slice());
    }
    // A region stays where it is until the last connection has let go of all.
    let found = shared.regions.get_mut(region);
    *mapped = found.map_or(ptr::null_mut(), |region| region.as_mut_ptr().cast());
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let mask = ((1_u32 << count) - 1) << first;
    let mut shared = handle.shared.lock();
    let (mut with_others, mut alone) = (0, 0);
    for (_, slots) in shared.slots.iter().filter(|(id, _)| **id != handle.id) {
        (with_others, alone) = (with_others | slots.0, alone | slots.1);
    }
    let is_shared = flags & ffi::SQLITE_SHM_SHARED != 0;
    let own = shared.slots.entry(handle.id).or_default();
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        *own = (own.0 & !mask, own.1 & !mask);
        return ffi::SQLITE_OK;
    }
    let taken = if is_shared { alone } else { with_others | alone };
    if taken & mask != 0 {
        return ffi::SQLITE_BUSY;
    }
    if is_shared {
        own.0 |= mask;
    } else {
        own.1 |= mask;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let mut shared = handle.shared.lock();
    shared.slots.remove(&handle.id);
    if shared.slots.is_empty() {
        shared.regions.clear();
    }
    ffi::SQLITE_OK
}
