//! A device that joins is filled from one moment of another's store, rather than by all that ever
//! happened.
//!
//! [`Telling`] reads that moment and signs it part by part, the tree from the root down first.
//! [`Hearing`] verifies each part before anything of it is looked at; [`check`] holds its rows to
//! what the store relies on. The commit thread lays them into the store (`commit/load.rs`).

mod check;
mod hear;
mod tell;

pub(super) use check::{commit_of, wrong_row};
pub use hear::Hearing;
pub use tell::Telling;

use crate::chunk::ChunkError;
use crate::codec::CodecError;

/// Why a snapshot is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Bytes are no part or no page.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A page does not open under this workspace's secret.
    #[error("a part of the snapshot does not open: {0}")]
    Sealed(#[from] ChunkError),
    /// It is another workspace's.
    #[error("the snapshot is of another workspace")]
    Workspace,
    /// The device that tells it has not signed a part.
    #[error("the signature of part {0} of the snapshot is wrong")]
    Signature(u32),
    /// A part does not follow the one before.
    #[error("part {found} of the snapshot came where part {expected} follows")]
    Order {
        /// What follows.
        expected: u32,
        /// What came.
        found: u32,
    },
    /// A row is not what it may be, or not where it may be.
    #[error("the snapshot's {what} {id} {why}")]
    Row {
        /// Which kind of row.
        what: &'static str,
        /// Its number.
        id: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Its end came, and not everything is here.
    #[error("the snapshot is not whole: {0}")]
    Incomplete(String),
    /// This device is no stranger to the workspace: it has ops of its own there.
    #[error("the snapshot does not suit this device: {0}")]
    Unsuited(&'static str),
}

/// What a sealed page is bound to.
fn context(index: u32) -> Vec<u8> {
    [&b"snapshot"[..], &index.to_le_bytes()].concat()
}
