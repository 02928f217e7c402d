//! What the merge keeps of the tree: the records under the view.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    AttrChange, ContentHash, DeviceId, EntryId, FileId, Hlc, Name, OpId, PlaceId, Role, VersionId,
};

/// The order of all ops (rule O1): no two are equal, and none is below what its author had heard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Key {
    /// The op's clock.
    pub hlc: Hlc,
    /// Its author.
    pub device: DeviceId,
}

/// Where an entry stands, and which op put it there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// The op's key.
    pub key: Key,
    /// The op.
    pub op: PlaceId,
    /// The directory.
    pub parent: FileId,
    /// The name there.
    pub name: Name,
}

/// What is kept of an `Unlink`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removal {
    /// The op's key.
    pub key: Key,
    /// Where its author saw the entry.
    pub seen_place: PlaceId,
    /// The versions that its author let go with the last name.
    pub seen_heads: BTreeSet<VersionId>,
}

/// A name in a directory. A directory's entry and inode are one: they share the id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Is it a directory's?
    pub is_directory: bool,
    /// What the name stands for.
    pub inode: FileId,
    /// Where it stands; `None` only while the moves are rewound to before its making.
    pub place: Option<Standing>,
    /// Its removals, standing or not (F5).
    pub removals: Vec<Removal>,
}

impl Entry {
    /// Where it stands.
    ///
    /// # Panics
    /// In the middle of a rewind.
    pub fn place(&self) -> &Standing {
        self.place.as_ref().expect("an entry stands somewhere, but for a rewind")
    }

    /// The removals that count: the entry is where their authors saw it (L1).
    pub fn standing_removals(&self) -> impl Iterator<Item = &Removal> {
        let place = self.place().op;
        self.removals.iter().filter(move |removal| removal.seen_place == place)
    }

    /// Does a removal count?
    pub fn is_removed(&self) -> bool {
        self.standing_removals().next().is_some()
    }
}

/// Which attribute of an inode.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum AttrName {
    /// The low 12 mode bits.
    Mode,
    /// Owner.
    Uid,
    /// Group.
    Gid,
    /// Modification time, set by hand.
    Mtime,
    /// An extended attribute.
    Xattr(Vec<u8>),
}

impl AttrName {
    /// Of a change.
    pub fn of(change: &AttrChange) -> Self {
        match change {
            AttrChange::Mode(_) => Self::Mode,
            AttrChange::Uid(_) => Self::Uid,
            AttrChange::Gid(_) => Self::Gid,
            AttrChange::Mtime(_) => Self::Mtime,
            AttrChange::Xattr(name, _) => Self::Xattr(name.clone()),
        }
    }
}

/// What names stand for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Inode {
    /// Is it a directory?
    pub is_directory: bool,
    /// A symbolic link or special file: what it is, which is all that it holds.
    pub special: Option<ContentHash>,
    /// Its names.
    pub entries: BTreeSet<EntryId>,
    /// The versions that no other has superseded (F1).
    pub heads: BTreeSet<VersionId>,
    /// Each attribute's last change (F4).
    pub attrs: BTreeMap<AttrName, (Key, AttrChange)>,
    /// The heads that removals of names saw which are collected by now (C5).
    pub removed: BTreeSet<VersionId>,
    /// The number of the last arrival that bears on it (C2).
    pub touch: u64,
}

impl Inode {
    /// Was it changed on devices apart, and not settled since?
    pub fn is_conflicted(&self) -> bool {
        self.heads.len() > 1
    }
}

/// What the merge needs to know of a version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The `Write`'s key.
    pub key: Key,
    /// Equal where the contents are.
    pub content: ContentHash,
}

/// A directory's `Make` or `Place`, as the log of moves has it (F3).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Move {
    /// Where it puts the entry.
    pub to: Standing,
    /// Which entry.
    pub entry: EntryId,
    /// Where the entry stood when this was done.
    pub before: Option<Standing>,
    /// Whether it was done, or skipped because it would have closed a cycle.
    pub is_applied: bool,
}

/// An op with what surrounds it in its batch.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// Which op.
    pub id: OpId,
    /// Its place in the order.
    pub key: Key,
    /// How much its author had heard of each other journal.
    pub frontier: &'a BTreeMap<u16, u64>,
}

impl Stamp<'_> {
    /// How much of a journal is in the op's past.
    pub fn heard_of(&self, journal: u16) -> u64 {
        if journal == self.id.journal() {
            self.id.seq() - 1
        } else {
            self.frontier.get(&journal).copied().unwrap_or(0)
        }
    }

    /// Is `other` in the op's past?
    pub fn has_seen(&self, other: OpId) -> bool {
        other == FileId::ROOT.0 || (1..=self.heard_of(other.journal())).contains(&other.seq())
    }
}

/// A Role or a Cut.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberOp {
    /// Which op.
    pub id: OpId,
    /// Its place in the order.
    pub key: Key,
    /// How much its author had heard of each other journal.
    pub frontier: BTreeMap<u16, u64>,
    /// What it says.
    pub body: MemberChange,
}

/// What a Role or a Cut says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MemberChange {
    /// The device of this journal has this role from now on.
    Role(u16, Role),
    /// Of this op's journal, nothing counts behind this op.
    Cut(OpId),
    /// An epoch of this number begins.
    Epoch(u32),
}

impl MemberOp {
    /// The op with what surrounds it.
    pub fn stamp(&self) -> Stamp<'_> {
        Stamp { id: self.id, key: self.key, frontier: &self.frontier }
    }

    /// The role that it gives, and to which journal.
    pub fn role(&self) -> Option<(u16, Role)> {
        match self.body {
            MemberChange::Role(journal, role) => Some((journal, role)),
            MemberChange::Cut(_) | MemberChange::Epoch(_) => None,
        }
    }

    /// The number of the epoch that it begins.
    pub fn epoch(&self) -> Option<u32> {
        match self.body {
            MemberChange::Epoch(number) => Some(number),
            MemberChange::Role(..) | MemberChange::Cut(_) => None,
        }
    }

    /// The last op that it lets stand.
    pub fn cut(&self) -> Option<OpId> {
        match self.body {
            MemberChange::Cut(last) => Some(last),
            MemberChange::Role(..) | MemberChange::Epoch(_) => None,
        }
    }
}
