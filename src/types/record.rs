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
    /// The directory that a directory or a sibling stands in; the root is its own. Unused for others.
    pub parent: Ino,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What it is one with, or stands beside, where devices met; `None` nearly always.
    pub company: Option<Box<Company>>,
}

impl NodeRecord {
    /// Does it show another head than its file's name does?
    pub fn is_sibling(&self) -> bool {
        self.company.as_ref().is_some_and(|company| company.sibling.is_some())
    }

    /// Does history name it, so that it stays when its last name goes?
    pub fn is_in_history(&self) -> bool {
        let is_written = self.head.is_some() && self.file.is_some();
        self.kind == Kind::Regular && is_written && !self.is_sibling()
    }
}

/// What a change of a node has to take along (rules A3 to A6).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Company {
    /// All the directories that are one here, the first placed first; or the one entry of a
    /// directory or file that is removed, and visible. Empty for what is one alone.
    pub parts: Vec<Part>,
    /// Files of the same name and content that are one row with a name of this file.
    pub twins: Vec<Twin>,
    /// Names of other files that stand beside a name of this file, in the same directory.
    pub beside: Vec<(EntryId, Name)>,
    /// The nodes that show the file's other heads beside a name.
    pub siblings: Vec<(EntryId, Ino)>,
    /// It shows another head than its file's name does.
    pub sibling: Option<Sibling>,
}

impl Company {
    /// A name is gone, and what stood by it.
    pub fn forget(&mut self, gone: EntryId) {
        self.parts.retain(|part| part.entry != gone);
        self.twins.retain(|twin| twin.of != gone);
        self.beside.retain(|(of, _)| *of != gone);
        self.siblings.retain(|(of, _)| *of != gone);
    }

    /// Is there none?
    pub fn is_alone(&self) -> bool {
        *self == Self::default()
    }
}

/// An entry that makes, alone or with others, a directory (or a removed file) visible.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// The entry; a directory's has its id.
    pub entry: EntryId,
    /// What put it there.
    pub place: PlaceId,
    /// Its name and its directory, if it is removed: a change that uses it places it there again.
    pub removed: Option<(Ino, Name)>,
}

/// A file that is one row with another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Twin {
    /// The entry with which it is one row.
    pub of: EntryId,
    /// Its own.
    pub entry: EntryId,
    /// What put it there.
    pub place: PlaceId,
    /// The file's heads, if this is its last name.
    pub heads: Vec<VersionId>,
}

/// A head that is shown beside its file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sibling {
    /// The node that bears the file's name.
    pub of: Ino,
    /// The name under which it stands in its `parent`.
    pub name: Name,
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
