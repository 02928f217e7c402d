//! The model's words in the library's, and back.

use tidefs::fs::{Allocate, FsError, RenameMode, XattrMode as LibraryXattrMode};
use tidefs::types::{Kind as LibraryKind, NameError};

use crate::model::words::{Errno, Fallocate, Kind, Rename, XattrMode};

pub fn allocate(how: Fallocate) -> Allocate {
    match how {
        Fallocate::Reserve { keep_size } => Allocate::Reserve { keep_size },
        Fallocate::Punch => Allocate::PunchHole,
        Fallocate::Zero { keep_size } => Allocate::Zero { keep_size },
    }
}

pub fn rename(how: Rename) -> RenameMode {
    match how {
        Rename::Replace => RenameMode::Replace,
        Rename::NoReplace => RenameMode::NoReplace,
        Rename::Exchange => RenameMode::Exchange,
    }
}

pub fn xattr(how: XattrMode) -> LibraryXattrMode {
    match how {
        XattrMode::Set => LibraryXattrMode::Set,
        XattrMode::Create => LibraryXattrMode::Create,
        XattrMode::Replace => LibraryXattrMode::Replace,
    }
}

pub fn kind(kind: &LibraryKind) -> Kind {
    match kind {
        LibraryKind::Directory => Kind::Dir,
        LibraryKind::Regular => Kind::File,
        LibraryKind::Symlink(_) => Kind::Symlink,
        _ => Kind::Fifo,
    }
}

pub fn errno(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::NoEnt,
        FsError::Exists => Errno::Exist,
        FsError::NotDirectory => Errno::NotDir,
        FsError::IsDirectory => Errno::IsDir,
        FsError::NotEmpty => Errno::NotEmpty,
        FsError::Invalid(_) | FsError::Name(NameError::Malformed) => Errno::Inval,
        FsError::Name(NameError::TooLong(_)) => Errno::NameTooLong,
        FsError::NotPermitted(_) => Errno::Perm,
        FsError::NoXattr => Errno::NoData,
        FsError::BeyondEnd => Errno::Other(6),
        other => panic!("the library fails: {other:?}"),
    }
}
