//! Content in pieces: cut, compressed, sealed; and back.
//!
//! The room owns chunks, manifests and the extents laid over them. It refuses to know where sealed
//! bytes are kept: callers hand in how to read and what to do with what was sealed. Invariants:
//! equal content seals to equal bytes inside one workspace; no key ever seals two contents; sealed
//! bytes are hostile until opened.

mod extents;
mod manifest;
mod read;
mod rebuild;
mod seal;

pub use extents::{Extent, ExtentMap};
pub use manifest::{ChunkLengths, Item, Manifest, SizeClass};
pub use read::{read_range, seek_data, seek_hole};
pub use rebuild::rebuild;
pub use seal::{SealedChunk, Sealer, WorkspaceSecret};

use crate::types::ChunkId;

/// Why sealed bytes did not give what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// The key does not fit, or the bytes were changed.
    #[error("chunk {0} does not open: wrong key or damaged bytes")]
    Sealed(ChunkId),
    /// The opened bytes are not what the reference or the manifest says.
    #[error("chunk {chunk} is malformed: {why}")]
    Malformed {
        /// Which chunk.
        chunk: ChunkId,
        /// What is wrong.
        why: &'static str,
    },
    /// A sealed record does not open.
    #[error("a sealed record does not open: {0}")]
    Record(&'static str),
}
