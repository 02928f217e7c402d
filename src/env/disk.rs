//! What the library asks of a disk.

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Space on the disk below a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreeSpace {
    /// Size of the filesystem, in bytes.
    pub total_bytes: u64,
    /// What this user may still write, in bytes.
    pub available_bytes: u64,
    /// What nobody uses, in bytes: some of it the system may keep from users.
    pub unused_bytes: u64,
}

/// Held as long as it lives: no other process has the same lock.
pub trait Lock: Send + Sync {}

/// Files and directories. All calls block.
pub trait Disk: Send + Sync {
    /// Makes a directory and those above it, readable by their owner alone.
    ///
    /// # Errors
    /// The system's.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// The system's.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Opens a file for reading and writing, and makes it if it is not there.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// A small file's bytes, at most 1 MiB.
    ///
    /// # Errors
    /// The system's; `NotFound` if it is not there.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Writes a small file, whole or not at all, readable by its owner alone; durable on return.
    ///
    /// # Errors
    /// The system's.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The system's; after one, what was written may be lost.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes an exclusive lock that ends with the process; `None` if another process has it.
    ///
    /// # Errors
    /// The system's.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;

    /// Space on the filesystem that holds `path`.
    ///
    /// # Errors
    /// The system's.
    fn free_space(&self, path: &Path) -> io::Result<FreeSpace>;
}

/// An open file, used at offsets from any thread.
pub trait DiskFile: Send + Sync {
    /// Reads exactly `buffer.len()` bytes.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof` where the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The system's.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The system's; after one, what was written may be lost.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// The system's.
    fn len_bytes(&self) -> io::Result<u64>;

    /// Cuts or extends.
    ///
    /// # Errors
    /// The system's.
    fn set_len(&self, len_bytes: u64) -> io::Result<()>;

    /// Gives a range's space back; it reads as zeros.
    ///
    /// # Errors
    /// The system's.
    fn punch(&self, offset: u64, len_bytes: u64) -> io::Result<()>;
}
