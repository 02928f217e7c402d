//! What a file holds, as ops and records say it.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{ChunkId, Kind, VersionId};

/// The key that opens one chunk. It travels only inside sealed manifests and sealed ops.
#[derive(
    Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Zeroize, ZeroizeOnDrop,
)]
pub struct ChunkKey(pub [u8; 32]);

impl std::fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChunkKey(secret)")
    }
}

/// Names a chunk and opens it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ChunkRef {
    /// The hash of the sealed bytes.
    pub id: ChunkId,
    /// Opens them; absent in a workspace without encryption.
    pub key: Option<ChunkKey>,
    /// Plain length, at most `CHUNK_BYTES_MAX`.
    pub plain_bytes: u32,
}

/// A version's content. Its length stands beside it, in the op or record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Content {
    /// The bytes themselves, at most `INLINE_BYTES_MAX`; empty for an empty file.
    Inline(Vec<u8>),
    /// All in one chunk.
    Chunk(ChunkRef),
    /// A tree of chunks; this is its root node.
    Manifest(ChunkRef),
    /// Another version of the same file, with these extents laid over it, then cut or extended to
    /// this version's length.
    Patch {
        /// The version below.
        base: VersionId,
        /// Ascending, not overlapping.
        extents: Vec<PatchExtent>,
    },
}

/// One changed byte range of a [`Content::Patch`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PatchExtent {
    /// Where it starts in the file, in bytes.
    pub offset: u64,
    /// What stands there now.
    pub data: PatchData,
}

/// What a patch lays over its base.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PatchData {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A hole of this many bytes.
    Zero(u64),
}

impl PatchExtent {
    /// Its length in bytes.
    pub fn len_bytes(&self) -> u64 {
        match &self.data {
            PatchData::Bytes(bytes) => bytes.len() as u64,
            PatchData::Zero(len_bytes) => *len_bytes,
        }
    }
}

/// Equal where two versions' contents are: so files that two devices took in apart are known for
/// the same.
///
/// It is of what the `Write` said, never of how this device stores it, and so the same everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// Of a symbolic link or special file, which no `Write` tells of; `None` for other kinds.
    pub fn of_special(kind: &Kind) -> Option<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"s").update(&[kind.bits()]);
        match kind {
            Kind::Regular | Kind::Directory => return None,
            Kind::Symlink(target) => hasher.update(target),
            Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                hasher.update(&device.to_le_bytes())
            }
            Kind::Fifo | Kind::Socket => &mut hasher,
        };
        Some(Self(*hasher.finalize().as_bytes()))
    }

    /// Of content as an op tells of it; `base` is that of the version below a patch.
    pub fn of(size_bytes: u64, content: &Content, base: Option<ContentHash>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&size_bytes.to_le_bytes());
        match content {
            Content::Inline(bytes) => {
                hasher.update(b"i").update(bytes);
            }
            Content::Chunk(chunk) => {
                hasher.update(b"c").update(&chunk.id.0);
            }
            Content::Manifest(root) => {
                hasher.update(b"m").update(&root.id.0);
            }
            Content::Patch { extents, .. } => {
                hasher.update(b"p").update(&base.map_or([0; 32], |base| base.0));
                for extent in extents {
                    hasher.update(&extent.offset.to_le_bytes());
                    hasher.update(&extent.len_bytes().to_le_bytes());
                    match &extent.data {
                        PatchData::Bytes(bytes) => hasher.update(b"b").update(bytes),
                        PatchData::Zero(_) => hasher.update(b"z"),
                    };
                }
            }
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// Of an empty file.
    pub fn empty() -> Self {
        Self::of(0, &Content::Inline(Vec::new()), None)
    }
}
