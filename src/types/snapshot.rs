//! One moment of a device's store, as it is told to a device that joins: part by part, so that what
//! has come can be shown.

use serde::{Deserialize, Serialize};

use super::frame::bounded;
use super::limits::{FRONTIER_DEVICES_MAX, SNAPSHOT_ROWS_MAX};
use super::merged::{Entry, Inode, MemberOp, Move, Version};
use super::{
    Blob, DeviceId, EntryId, FileId, Ino, Kind, Name, NodeRecord, OpId, PlaceId, TreeRoot,
    VersionId, VersionRecord, WorkspaceId,
};

/// What is signed at once. Each part names the one before it, so none can be left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotPart {
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Which part, from 0.
    pub index: u32,
    /// Nothing follows.
    pub is_last: bool,
    /// BLAKE3 of the part before, its signature with it; zeros for the first.
    pub previous: [u8; 32],
    /// The page, as a sealed record.
    pub sealed: Vec<u8>,
    /// Of the device that tells it, over all above.
    pub signature: [u8; 64],
}

/// What a part holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SnapshotPage {
    /// The first.
    Head(Box<SnapshotHead>),
    /// Any other.
    Rows(Box<SnapshotRows>),
}

/// What must be known before the first row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// The journals in the order of their numbers, by which all rows name ops.
    #[serde(deserialize_with = "bounded::<_, _, FRONTIER_DEVICES_MAX>")]
    pub journals: Vec<DeviceId>,
    /// How many nodes have a name.
    pub live_nodes: u64,
    /// How the view shows files with several heads, by its number in the store.
    pub conflicts: u8,
    /// The root directory.
    pub root: NodeRecord,
    /// The root of the tree that the merge's records add up to.
    pub tree_root: TreeRoot,
    /// How often the view was folded anew: numbers in it tell.
    pub folds_anew: u64,
}

/// A name in a directory. Its hash and kind are worked out where it is taken in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotEntry {
    /// The directory.
    pub parent: Ino,
    /// The entry's shared identity.
    pub entry: EntryId,
    /// What put it here.
    pub place: PlaceId,
    /// What the name stands for.
    pub ino: Ino,
    /// The name.
    pub name: Name,
}

/// Rows of the store's tables.
///
/// The view comes first, directory by directory from the root down: a directory's names with what
/// they stand for, and then that the directory is listed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SnapshotRows {
    /// Nodes.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub nodes: Vec<(Ino, NodeRecord)>,
    /// Names, each with its node here or before.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub entries: Vec<SnapshotEntry>,
    /// Directories of which all names have been told.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub listed: Vec<Ino>,
    /// Versions of files.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub versions: Vec<(FileId, VersionId, VersionRecord)>,
    /// Encoded batches: the last of each journal, and those that the rows cannot do without.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub batches: Vec<(u16, Blob)>,
    /// How much of another journal each author had heard.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub heard: Vec<(u16, u16, u64)>,
    /// How far each journal is folded, which is as far as it is told of.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub folded: Vec<(u16, u64)>,
    /// Roles and Cuts.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub members: Vec<MemberOp>,
    /// Ops that do not count.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub voids: Vec<(OpId, u8)>,
    /// Entries as the merge keeps them.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub merged_entries: Vec<(EntryId, Entry)>,
    /// Inodes as the merge keeps them.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub merged_inodes: Vec<(FileId, Inode)>,
    /// Symbolic links and special files, which a removal leaves no node of: what they are.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub specials: Vec<(FileId, Kind)>,
    /// Versions as the merge keeps them.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub merged_versions: Vec<(FileId, VersionId, Version)>,
    /// The log of directory moves.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub moves: Vec<Move>,
    /// Numbers that are not a file's own.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub faces: Vec<(FileId, Ino)>,
    /// Directories in which something stands beside its name.
    #[serde(deserialize_with = "bounded::<_, _, SNAPSHOT_ROWS_MAX>")]
    pub crowded: Vec<Ino>,
}
