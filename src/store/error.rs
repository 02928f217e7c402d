//! Why the store could not do it, and what helps.

use crate::types::ChunkId;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full; nothing was changed.
    #[error("disk full: need {needed_bytes} bytes, have {free_bytes}")]
    Full {
        /// Asked for.
        needed_bytes: u64,
        /// Left.
        free_bytes: u64,
    },
    /// A disk sync failed before: nothing is written until the workspace is opened anew.
    #[error("a disk sync failed, so nothing more is written; mount again")]
    Latched,
    /// A row or a file is not what it must be.
    #[error("the store is damaged: {0}; run `tidefs verify`")]
    Corrupt(String),
    /// A chunk that a version names is not in the store.
    #[error("chunk {0} is missing; run `tidefs verify`")]
    MissingChunk(ChunkId),
    /// A chunk's bytes have changed on the disk.
    #[error("chunk {chunk} reads back as {found}: the disk changed it; run `tidefs verify`")]
    CorruptChunk {
        /// Which.
        chunk: ChunkId,
        /// The id of what was read.
        found: ChunkId,
    },
    /// A newer build made this store.
    #[error("the store has format {found}, this build knows up to {known}; use a newer tidefs")]
    Version {
        /// The format found.
        found: i64,
        /// The newest known.
        known: i64,
    },
    /// The disk's own error.
    #[error("disk error: {0}")]
    Disk(#[from] std::io::Error),
    /// The database's own error.
    #[error("database error: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A record does not decode.
    #[error(transparent)]
    Record(#[from] crate::codec::CodecError),
}

/// What helps against an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remedy {
    /// Making room on the disk.
    FreeSpace,
    /// `verify`, then a copy from elsewhere.
    Verify,
    /// Nothing but to stop and look at the disk.
    Stop,
}

impl StoreError {
    /// What is wrong, without what to do about it: for those who do it.
    pub fn finding(&self) -> String {
        let text = self.to_string();
        text.strip_suffix("; run `tidefs verify`").unwrap_or(&text).to_owned()
    }

    /// What helps.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Full { .. } => Remedy::FreeSpace,
            Self::Corrupt(_)
            | Self::MissingChunk(_)
            | Self::CorruptChunk { .. }
            | Self::Record(_) => Remedy::Verify,
            Self::Latched | Self::Version { .. } | Self::Disk(_) | Self::Sqlite(_) => Remedy::Stop,
        }
    }

    /// The same error as [`StoreError::Full`] if it says that the disk is full.
    #[must_use]
    pub fn or_full(self, needed_bytes: u64, free_bytes: u64) -> Self {
        let full = match &self {
            Self::Disk(error) => matches!(
                error.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ),
            Self::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            _ => false,
        };
        if full { Self::Full { needed_bytes, free_bytes } } else { self }
    }
}
