//! What the store keeps of the tree: one record a node, an entry, a version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Content, EntryId, FileId, Hlc, Ino, Kind, Name, NameHash, PlaceId, Timestamp, VersionId,
    WorkspaceId,
};

/// What is fixed when a workspace is founded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Its name, as shown.
    pub name: String,
    /// Whether chunks and ops are encrypted.
    pub encryption: bool,
    /// Whether chunks are compressed where that helps.
    pub compression: bool,
}

/// A file or directory as this device has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The shared identity; `None` for what only open handles still reach.
    pub file: Option<FileId>,
    /// What it is.
    pub kind: Kind,
    /// The low 12 mode bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names that lead here; for a directory 2 and one for each subdirectory. 0: no name is left.
    pub nlink: u32,
    /// Length in bytes; for a directory the number of its entries.
    pub size_bytes: u64,
    /// Bytes that are not holes, for `st_blocks`.
    pub stored_bytes: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last modification.
    pub mtime: Timestamp,
    /// Last change of attributes.
    pub ctime: Timestamp,
    /// Birth.
    pub btime: Timestamp,
    /// Its newest version; `None` if never written, or no regular file.
    pub head: Option<VersionId>,
    /// A directory's parent; the root is its own. Unused for others.
    pub parent: Ino,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryRecord {
    /// The directory.
    pub parent: Ino,
    /// Its place in the directory's order.
    pub hash: NameHash,
    /// The entry's shared identity.
    pub entry: EntryId,
    /// What put it here.
    pub place: PlaceId,
    /// What the name stands for.
    pub ino: Ino,
    /// `S_IFMT >> 12` of it, as `readdir` tells.
    pub kind_bits: u8,
    /// The name.
    pub name: Name,
}

/// One committed content of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The op's clock.
    pub hlc: Hlc,
    /// Length in bytes.
    pub size_bytes: u64,
    /// The file's modification time.
    pub mtime: Timestamp,
    /// What it holds.
    pub content: Content,
    /// Written while the file was still open for writing; dropped once replaced.
    pub interim: bool,
}
