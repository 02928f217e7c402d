//! The one place that spells errnos.

use fuser::Errno;
use tidefs::fs::FsError;
use tidefs::types::NameError;

/// The errno that ext4 gives for the same failure.
pub fn errno(error: &FsError) -> Errno {
    match error {
        FsError::WouldBlock => Errno::EAGAIN,
        FsError::NotFound => Errno::ENOENT,
        FsError::Stale(_) => Errno::ESTALE,
        FsError::Exists => Errno::EEXIST,
        FsError::NotDirectory => Errno::ENOTDIR,
        FsError::IsDirectory => Errno::EISDIR,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::Name(NameError::TooLong(_)) | FsError::TargetTooLong => Errno::ENAMETOOLONG,
        FsError::Name(NameError::Malformed) | FsError::Invalid(_) => Errno::EINVAL,
        FsError::NotPermitted(_) => Errno::EPERM,
        FsError::Access(_) => Errno::EACCES,
        FsError::FileTooLarge => Errno::EFBIG,
        FsError::TooManyLinks => Errno::EMLINK,
        FsError::NoXattr => Errno::ENODATA,
        FsError::XattrSpace | FsError::NoSpace { .. } => Errno::ENOSPC,
        FsError::BeyondEnd => Errno::ENXIO,
        FsError::NotSupported(_) => Errno::EOPNOTSUPP,
        FsError::ReadOnly(_) => Errno::EROFS,
        FsError::Io(_) => Errno::EIO,
    }
}

/// As [`errno`], noting in the log what a user cannot see: why it is `EIO`.
pub fn told(error: &FsError) -> Errno {
    if matches!(error, FsError::Io(_)) {
        tracing::error!("{error}");
    }
    errno(error)
}
