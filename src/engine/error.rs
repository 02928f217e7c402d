//! Why a workspace could not be run.

use std::path::PathBuf;

use crate::chunk::ChunkError;
use crate::codec::CodecError;
use crate::store::StoreError;

/// Why something about a workspace failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A chunk or a sealed record does not open.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A batch or record does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Another process serves the workspace.
    #[error("the workspace in {0} is in use by another process; unmount it first")]
    Locked(PathBuf),
    /// There is no workspace.
    #[error("there is no workspace in {0}; `tidefs mount` makes one")]
    Missing(PathBuf),
    /// There is one already.
    #[error("there is a workspace in {0} already")]
    Exists(PathBuf),
    /// A file of the workspace is not what it must be.
    #[error("{path} is damaged: {why}; put it back from a backup")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The system's error about a file of the workspace.
    #[error("{path}: {source}")]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A journal is not what its device signed.
    #[error("the journal of {name} is broken at change {seq}: {why}; run `tidefs log verify`")]
    Journal {
        /// What the device is called.
        name: String,
        /// The first change that is not proven.
        seq: u64,
        /// What is wrong.
        why: String,
    },
    /// A snapshot is not what it must be: nothing of it counts.
    #[error(transparent)]
    Snapshot(#[from] super::SnapshotError),
    /// An earlier failure: nothing is stored until the workspace is opened anew.
    #[error("{0}")]
    Latched(String),
    /// The workspace is closed.
    #[error("the workspace is closed")]
    Closed,
    /// The system gave no thread.
    #[error("no thread for the commit: {0}")]
    Thread(std::io::Error),
    /// A chunk cannot be read back.
    #[error("a chunk cannot be read: {0}")]
    Read(String),
}

impl EngineError {
    /// The same error for one more of those who wait: its kind where callers act by it, else its
    /// text.
    #[must_use]
    pub fn summary(&self) -> Self {
        match self {
            Self::Store(StoreError::Full { needed_bytes, free_bytes }) => {
                let (needed_bytes, free_bytes) = (*needed_bytes, *free_bytes);
                Self::Store(StoreError::Full { needed_bytes, free_bytes })
            }
            Self::Closed => Self::Closed,
            other => Self::Latched(other.to_string()),
        }
    }
}

/// Why what a peer sent was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// It is not what an honest device sends.
    #[error(transparent)]
    Refused(#[from] super::merger::MergeError),
    /// This device could not.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<StoreError> for DeliverError {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}
