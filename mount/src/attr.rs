//! Modes, times and attributes, from the kernel's form to ours and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use tidefs::fs::{Attr, SetTime};
use tidefs::types::{Ino, Kind, Timestamp};

/// What `st_blksize` says: the size that programs read and write in.
pub const BLOCK_BYTES: u32 = 4096;

/// Attributes as the kernel takes them.
pub fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size_bytes,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.btime),
        kind: file_type(&attr.kind),
        perm: u16::try_from(attr.mode & 0o7777).expect("twelve bits"),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: match attr.kind {
            Kind::CharDevice(number) | Kind::BlockDevice(number) => number,
            _ => 0,
        },
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// A directory of which only the number matters: `.` and `..` in a listing.
pub fn bare_directory(ino: Ino) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino.0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Regular => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice(_) => FileType::CharDevice,
        Kind::BlockDevice(_) => FileType::BlockDevice,
    }
}

/// The type of a listed row, by `S_IFMT >> 12`.
pub fn listed_type(kind_bits: u8) -> FileType {
    match kind_bits {
        1 => FileType::NamedPipe,
        2 => FileType::CharDevice,
        4 => FileType::Directory,
        6 => FileType::BlockDevice,
        10 => FileType::Symlink,
        12 => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

/// What `mknod` is to make; none if the mode names no such thing.
pub fn kind_of_mode(mode: u32, rdev: u32) -> Option<Kind> {
    match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => Some(Kind::Regular),
        libc::S_IFIFO => Some(Kind::Fifo),
        libc::S_IFSOCK => Some(Kind::Socket),
        libc::S_IFCHR => Some(Kind::CharDevice(rdev)),
        libc::S_IFBLK => Some(Kind::BlockDevice(rdev)),
        _ => None,
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let seconds = if time.secs < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    seconds + nanos
}

/// A time that the kernel sets.
pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(timestamp(time)),
    }
}

/// Back from what the FUSE library makes of the kernel's seconds and nanoseconds.
///
/// Before 1970 it takes the nanoseconds off rather than adds them (`fuser` 0.18,
/// `time::system_time_from_time`); seen from the epoch both numbers are then as the kernel sent
/// them.
pub fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp {
            secs: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanos: after.subsec_nanos(),
        },
        Err(error) => {
            let before = error.duration();
            Timestamp {
                secs: 0i64.saturating_sub_unsigned(before.as_secs()),
                nanos: before.subsec_nanos(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_shown_to_the_nanosecond() {
        let half_past = Timestamp { secs: -2, nanos: 500_000_000 };
        let before = UNIX_EPOCH.duration_since(system_time(half_past)).expect("before");
        assert_eq!(before, Duration::from_millis(1500));
    }

    #[test]
    fn a_time_before_1970_comes_in_as_the_kernel_sent_it() {
        let as_fuser_makes_it = UNIX_EPOCH - Duration::new(2, 500_000_000);
        assert_eq!(timestamp(as_fuser_makes_it), Timestamp { secs: -2, nanos: 500_000_000 });
    }
}
