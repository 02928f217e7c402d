//! What callers hand in and get back: attributes, changes of them, listings.

use crate::types::{Ino, Kind, Timestamp};

/// May this call wait for the disk?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Answer from memory, or with [`super::FsError::WouldBlock`] having changed nothing.
    Never,
    /// As [`Wait::Never`], but read a little from this device's store: what its disk, or the memory
    /// before it, mostly answers within some microseconds.
    Briefly,
    /// Read the store if need be.
    May,
}

/// Who makes something: the owner of what is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// A node's attributes, as `stat` shows them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attr {
    /// Number in this mount.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// The low 12 mode bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names.
    pub nlink: u32,
    /// Length in bytes.
    pub size_bytes: u64,
    /// 512-byte units that are not holes.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last modification.
    pub mtime: Timestamp,
    /// Last change of attributes.
    pub ctime: Timestamp,
    /// Birth.
    pub btime: Timestamp,
}

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// The present.
    Now,
    /// This one.
    At(Timestamp),
}

/// What `setattr` is to change; `None` leaves a field as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// The low 12 mode bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size_bytes: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last modification.
    pub mtime: Option<SetTime>,
    /// Last change of attributes (the kernel sends it under its writeback cache).
    pub ctime: Option<Timestamp>,
    /// Clear set-user-id, and set-group-id where the group may execute.
    pub kill_suid: bool,
}

/// How `rename` treats a name that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// Replaces it.
    Replace,
    /// Fails (`RENAME_NOREPLACE`).
    NoReplace,
    /// Swaps the two (`RENAME_EXCHANGE`).
    Exchange,
}

/// What `fallocate` does to a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocate {
    /// Makes room; grows the file unless `keep_size`.
    Reserve {
        /// Leave the length alone.
        keep_size: bool,
    },
    /// Makes a hole; the length stays.
    PunchHole,
    /// Makes it read as zeros; grows the file unless `keep_size`.
    Zero {
        /// Leave the length alone.
        keep_size: bool,
    },
}

/// What `lseek` looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// `SEEK_DATA`.
    Data,
    /// `SEEK_HOLE`.
    Hole,
}

/// How `setxattr` treats a name that exists or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// Either way.
    Set,
    /// `XATTR_CREATE`.
    Create,
    /// `XATTR_REPLACE`.
    Replace,
    /// Both, which nothing meets: the error says which of them failed.
    CreateAndReplace,
}

/// One row of a directory listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Number in this mount.
    pub ino: Ino,
    /// Where the next call goes on after this row.
    pub next_offset: u64,
    /// `S_IFMT >> 12` of it.
    pub kind_bits: u8,
    /// Raw name; `.` and `..` come first.
    pub name: Vec<u8>,
    /// Its attributes, if asked for and for rows other than `.` and `..`.
    pub attr: Option<Attr>,
}

/// What `statfs` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatFs {
    /// Size of the disk below, in bytes.
    pub total_bytes: u64,
    /// Free for users' writes, in bytes: the disk's less the reserve and what is accepted already.
    pub free_bytes: u64,
    /// Used by nobody, in bytes: the disk's less what is accepted already.
    pub unused_bytes: u64,
    /// Files and directories.
    pub files: u64,
}
