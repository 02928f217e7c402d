//! Why a call failed. `mount/src/errno.rs` gives each its errno.

use crate::types::{Ino, NameError};

/// The result of a filesystem call.
pub type FsResult<T> = Result<T, FsError>;

/// Why a filesystem call failed; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The answer is not in memory, and the caller may not wait.
    #[error("would have to wait for the disk")]
    WouldBlock,
    /// No such name (`ENOENT`).
    #[error("no such file or directory")]
    NotFound,
    /// The kernel names a node that is gone (`ESTALE`).
    #[error("inode {0} is gone")]
    Stale(Ino),
    /// The name is taken (`EEXIST`).
    #[error("the name exists")]
    Exists,
    /// A directory was needed (`ENOTDIR`).
    #[error("not a directory")]
    NotDirectory,
    /// A directory will not do (`EISDIR`).
    #[error("is a directory")]
    IsDirectory,
    /// The directory holds something (`ENOTEMPTY`).
    #[error("the directory is not empty")]
    NotEmpty,
    /// No valid name (`ENAMETOOLONG` or `EINVAL`).
    #[error(transparent)]
    Name(#[from] NameError),
    /// A nonsensical argument (`EINVAL`).
    #[error("invalid: {0}")]
    Invalid(&'static str),
    /// Not allowed, whoever asks (`EPERM`).
    #[error("not permitted: {0}")]
    NotPermitted(&'static str),
    /// The reserved name `.tidefs` at the root, or an access refused (`EACCES`).
    #[error("access refused: {0}")]
    Access(&'static str),
    /// Past the greatest length (`EFBIG`).
    #[error("the file would become too large")]
    FileTooLarge,
    /// One hard link too many (`EMLINK`).
    #[error("too many links")]
    TooManyLinks,
    /// A symlink's target is too long (`ENAMETOOLONG`).
    #[error("the target is too long")]
    TargetTooLong,
    /// No such extended attribute (`ENODATA`).
    #[error("no such extended attribute")]
    NoXattr,
    /// Extended attributes too large (`ENOSPC`, as ext4).
    #[error("no room for the extended attribute")]
    XattrSpace,
    /// `lseek` found none (`ENXIO`).
    #[error("offset is beyond the end")]
    BeyondEnd,
    /// Cannot be done here (`EOPNOTSUPP`).
    #[error("not supported: {0}")]
    NotSupported(&'static str),
    /// The disk is full, save for the reserve (`ENOSPC`).
    #[error("disk full: {free_bytes} bytes free, {needed_bytes} needed; free some space")]
    NoSpace {
        /// Asked for.
        needed_bytes: u64,
        /// Left, above the reserve.
        free_bytes: u64,
    },
    /// Mounted read-only, or latched so after a failed disk sync (`EROFS`).
    #[error("read-only: {0}")]
    ReadOnly(String),
    /// The store failed (`EIO`).
    #[error("input/output error: {0}")]
    Io(String),
}
