//! Ops: the signed changes that devices exchange, in their local form.
//!
//! The rules by which ops become a tree are the project's merge rules; an op says only what its
//! author did and what it had seen.

use serde::{Deserialize, Serialize};

use super::{
    Content, DeviceId, DeviceName, EntryId, FileId, Hlc, Name, OpId, PlaceId, Settings, Timestamp,
    VersionId, WrappedSecret, device_attr,
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

impl Kind {
    /// `S_IFMT >> 12` of it, as `readdir` tells.
    pub fn bits(&self) -> u8 {
        match self {
            Self::Fifo => 1,
            Self::CharDevice(_) => 2,
            Self::Directory => 4,
            Self::BlockDevice(_) => 6,
            Self::Regular => 8,
            Self::Symlink(_) => 10,
            Self::Socket => 12,
        }
    }
}

/// One change to the shared tree.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
    /// Nothing; its batch says what the author has heard.
    Ack,
    /// A device has this role from now on.
    Role {
        /// Its journal, by the local number.
        journal: u16,
        /// What it may do.
        role: Role,
    },
    /// Of a device's journal, nothing counts behind `last`.
    Cut {
        /// The last op that counts.
        last: OpId,
        /// The hash of the batch that ends with it.
        hash: BatchHash,
    },
    /// A new epoch: what is sealed from now on is sealed under another secret.
    Epoch {
        /// One more than the greatest heard of.
        number: u32,
        /// The secret, sealed for each device that is to have it, named by its journal.
        wrapped: Vec<(u16, WrappedSecret)>,
    },
}

/// What a member may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Write, and say who is a member.
    Admin,
    /// Write.
    Writer,
    /// Read.
    Reader,
    /// Store and serve what it cannot read.
    Keeper,
}

impl Role {
    /// May it change files?
    pub fn may_write(self) -> bool {
        matches!(self, Self::Admin | Self::Writer)
    }

    /// As the command line and the log have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Keeper => "keeper",
        }
    }
}

impl Op {
    /// The op with every id in it replaced by what `map` says, as between two devices' numbering
    /// of journals.
    ///
    /// # Errors
    /// The first that `map` returns.
    pub fn map_ids<E>(mut self, map: &mut impl FnMut(OpId) -> Result<OpId, E>) -> Result<Self, E> {
        let ids: Vec<&mut OpId> = match &mut self {
            Self::Make { parent, .. } => vec![&mut parent.0],
            Self::Link { parent, file, .. } => vec![&mut parent.0, &mut file.0],
            Self::Write { file, parents, content, .. } => {
                let mut ids = vec![&mut file.0];
                ids.extend(parents.iter_mut().map(|parent| &mut parent.0));
                if let Content::Patch { base, .. } = content {
                    ids.push(&mut base.0);
                }
                ids
            }
            Self::Place { entry, parent, .. } => vec![&mut entry.0, &mut parent.0],
            Self::Unlink { entry, seen_place, seen_heads } => {
                let mut ids = vec![&mut entry.0, &mut seen_place.0];
                ids.extend(seen_heads.iter_mut().map(|head| &mut head.0));
                ids
            }
            Self::Attr { file, .. } => vec![&mut file.0],
            Self::Found { .. } | Self::Ack => Vec::new(),
            Self::Role { journal, .. } => {
                *journal = map(OpId::new(*journal, 0))?.journal();
                Vec::new()
            }
            Self::Epoch { wrapped, .. } => {
                for (journal, _) in wrapped {
                    *journal = map(OpId::new(*journal, 0))?.journal();
                }
                Vec::new()
            }
            Self::Cut { last, .. } => vec![last],
        };
        for id in ids {
            *id = map(*id)?;
        }
        Ok(self)
    }
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

impl AttrChange {
    /// Of the root: what a device is called from now on.
    pub fn name_device(device: &DeviceId, name: &DeviceName) -> Self {
        Self::Xattr(device_attr(device), Some(name.as_str().into()))
    }
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
