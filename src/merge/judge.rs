//! The judge: whether an op counts (M1 to M6). An op that does not stays in its journal, is
//! delivered, has no effect, and is reported.

use super::membership::Membership;
use crate::types::merged::{Key, Stamp};
use crate::types::{FileId, Kind, Op, OpId};

/// Whether an op counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It does.
    Stands,
    /// Its author's role, in the author's own past, does not allow it (M1).
    Role,
    /// It is behind a Cut of its journal (M2).
    Cut,
    /// It contradicts itself (M5).
    Malformed,
    /// It names something made by an op that does not count (M6).
    Stranded,
}

/// What an op made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Made {
    /// An entry of a directory.
    pub is_directory: bool,
    /// An inode too, not only one more name.
    pub is_inode: bool,
}

/// What is known of the ops that were delivered.
pub trait Delivered {
    /// What an op made; `None` if it is no `Make` or `Link`.
    fn made(&self, op: OpId) -> Option<Made>;
    /// Was an op judged not to count?
    fn is_void(&self, op: OpId) -> bool;
    /// The greatest key of an op and its past.
    fn reach(&self, op: OpId) -> Option<Key>;
}

/// Judges an op whose past has been delivered.
pub fn judge(
    members: &Membership,
    delivered: &impl Delivered,
    stamp: &Stamp<'_>,
    op: &Op,
) -> Verdict {
    if members.is_cut(stamp.id) {
        Verdict::Cut
    } else if !is_well_formed(delivered, stamp, op) {
        Verdict::Malformed
    } else if !may_emit(members, stamp, op) {
        Verdict::Role
    } else if named(op).any(|id| id != FileId::ROOT.0 && delivered.is_void(id)) {
        Verdict::Stranded
    } else {
        Verdict::Stands
    }
}

fn may_emit(members: &Membership, stamp: &Stamp<'_>, op: &Op) -> bool {
    match op {
        Op::Ack => true,
        Op::Role { .. } | Op::Cut { .. } => members.stands(stamp.id),
        Op::Epoch { .. } => members.role_in_past(stamp) == Some(crate::types::Role::Admin),
        _ => members.role_in_past(stamp).is_some_and(crate::types::Role::may_write),
    }
}

/// Does an op agree with its own past (M5)?
pub fn is_well_formed(delivered: &impl Delivered, stamp: &Stamp<'_>, op: &Op) -> bool {
    if past_reach(delivered, stamp).is_some_and(|reach| stamp.key <= reach)
        || !cited(op).all(|id| stamp.has_seen(id))
    {
        return false;
    }
    let is_directory = |id: FileId| id == FileId::ROOT || made(delivered, id.0, true, true);
    let is_file = |id: FileId| id != FileId::ROOT && made(delivered, id.0, false, true);
    let is_entry = |id: OpId| id != FileId::ROOT.0 && delivered.made(id).is_some();
    match op {
        Op::Make { parent, .. } => is_directory(*parent),
        Op::Link { parent, file, .. } => is_directory(*parent) && is_file(*file),
        Op::Place { entry, parent, .. } => is_entry(entry.0) && is_directory(*parent),
        Op::Write { file, .. } => is_file(*file),
        Op::Attr { file, .. } => is_directory(*file) || is_file(*file),
        Op::Unlink { entry, .. } => is_entry(entry.0),
        Op::Cut { last, .. } => {
            last.journal() != stamp.id.journal() && last.seq() == stamp.heard_of(last.journal())
        }
        Op::Found { .. } => stamp.id == FileId::ROOT.0,
        Op::Ack | Op::Role { .. } | Op::Epoch { .. } => true,
    }
}

fn made(delivered: &impl Delivered, id: OpId, is_directory: bool, is_inode: bool) -> bool {
    delivered.made(id) == Some(Made { is_directory, is_inode })
}

/// The greatest key in an op's past; `None` if that is empty.
pub fn past_reach(delivered: &impl Delivered, stamp: &Stamp<'_>) -> Option<Key> {
    let own = OpId::new(stamp.id.journal(), stamp.id.seq() - 1);
    let others = stamp.frontier.iter().map(|(journal, seq)| OpId::new(*journal, *seq));
    std::iter::once(own)
        .chain(others)
        .filter(|last| last.seq() > 0)
        .filter_map(|last| delivered.reach(last))
        .max()
}

/// The entries, inodes and directories without which an op has nothing to act on.
fn named(op: &Op) -> impl Iterator<Item = OpId> {
    let named = match op {
        Op::Make { parent, .. } => [Some(parent.0), None],
        Op::Link { parent, file, .. } => [Some(parent.0), Some(file.0)],
        Op::Write { file, .. } | Op::Attr { file, .. } => [Some(file.0), None],
        Op::Place { entry, parent, .. } => [Some(entry.0), Some(parent.0)],
        Op::Unlink { entry, .. } => [Some(entry.0), None],
        Op::Found { .. } | Op::Ack | Op::Role { .. } | Op::Cut { .. } | Op::Epoch { .. } => {
            [None, None]
        }
    };
    named.into_iter().flatten()
}

/// Everything that an op refers to, versions and places included.
fn cited(op: &Op) -> impl Iterator<Item = OpId> {
    let more: Vec<OpId> = match op {
        Op::Write { parents, .. } => parents.iter().map(|parent| parent.0).collect(),
        Op::Unlink { seen_place, seen_heads, .. } => {
            seen_heads.iter().map(|head| head.0).chain([seen_place.0]).collect()
        }
        _ => Vec::new(),
    };
    named(op).chain(more)
}

impl Made {
    /// What an op makes.
    pub fn by(op: &Op) -> Option<Self> {
        match op {
            Op::Make { kind, .. } => {
                Some(Self { is_directory: *kind == Kind::Directory, is_inode: true })
            }
            Op::Link { .. } => Some(Self { is_directory: false, is_inode: false }),
            _ => None,
        }
    }
}
