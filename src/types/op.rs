//! Ops: the signed changes that devices exchange, in their local form.
//!
//! The rules by which ops become a tree are the project's merge rules; an op says only what its
//! author did and what it had seen.

use serde::{Deserialize, Serialize};

use super::{
    Content, DeviceId, EntryId, FileId, Hlc, Name, PlaceId, Settings, Timestamp, VersionId,
};

/// What an inode is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// A file with content.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link and its target: 1 to 4095 bytes without NUL.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A Unix socket's name.
    Socket,
    /// A character device; its number as `dev_t`.
    CharDevice(u32),
    /// A block device; its number as `dev_t`.
    BlockDevice(u32),
}

/// One change to the shared tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Op 1 of the founder's journal: the workspace and its root directory.
    Found {
        /// The workspace's name and choices.
        settings: Settings,
        /// Permission bits of the root.
        mode: u32,
        /// Owner of the root.
        uid: u32,
        /// Group of the root.
        gid: u32,
    },
    /// A new file or directory, under its first name. The op's id names both entry and inode.
    Make {
        /// The directory it stands in.
        parent: FileId,
        /// Its name there.
        name: Name,
        /// What it is.
        kind: Kind,
        /// The low 12 mode bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// One more name of a file that exists.
    Link {
        /// The directory it stands in.
        parent: FileId,
        /// Its name there.
        name: Name,
        /// The file.
        file: FileId,
    },
    /// A new version of a regular file.
    Write {
        /// The file.
        file: FileId,
        /// The versions that this one replaces; none for the first.
        parents: Vec<VersionId>,
        /// Length in bytes.
        size_bytes: u64,
        /// What it holds.
        content: Content,
        /// The file's modification time.
        mtime: Timestamp,
        /// The file was still being written: history need not keep this version once a later one
        /// by the same author replaces it.
        interim: bool,
    },
    /// A move or rename.
    Place {
        /// Which entry.
        entry: EntryId,
        /// The directory it moves to.
        parent: FileId,
        /// Its name there.
        name: Name,
    },
    /// The removal of a name, as far as its author had seen it.
    Unlink {
        /// Which entry.
        entry: EntryId,
        /// Where it stood.
        seen_place: PlaceId,
        /// The versions that go with a file's last name; none while it has another.
        seen_heads: Vec<VersionId>,
    },
    /// One attribute set.
    Attr {
        /// Whose.
        file: FileId,
        /// Which, and to what.
        change: AttrChange,
    },
}

/// One attribute and its new value. Each is last-writer-wins by itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AttrChange {
    /// The low 12 mode bits.
    Mode(u32),
    /// Owner.
    Uid(u32),
    /// Group.
    Gid(u32),
    /// Modification time, set by hand.
    Mtime(Timestamp),
    /// An extended attribute; `None` removes it.
    Xattr(Vec<u8>, Option<Vec<u8>>),
}

/// BLAKE3 of an encoded batch with its signature: the link to the next one.
pub type BatchHash = [u8; 32];

/// What one device signs at once: consecutive ops of its journal, sealed.
///
/// Op `i` (from 0) has seq `seq + i` and clock `hlc + i`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Whose journal.
    pub journal: DeviceId,
    /// The first op's number, from 1.
    pub seq: u64,
    /// How many ops, at least 1.
    pub count: u32,
    /// The first op's clock.
    pub hlc: Hlc,
    /// Which content key sealed the ops.
    pub epoch: u32,
    /// The hash of the journal's batch before this one; zeros for the first.
    pub previous: BatchHash,
    /// How much of other journals the author has heard since its last batch.
    pub frontier_delta: Vec<(DeviceId, u64)>,
    /// The encoded ops, sealed (or plain in a workspace without encryption).
    pub sealed_ops: Vec<u8>,
    /// Ed25519 over all of the above.
    pub signature: [u8; 64],
}
