//! What a device is in a workspace.

use super::Role;

/// What a device is in a workspace, as far as this one has heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// A member.
    Member(Role),
    /// An admin has taken it out.
    Revoked,
    /// Others have more of its journal than it has itself: it was restored from a backup, or another
    /// machine uses its key. A device knows this of itself alone.
    Overtaken,
    /// No member, or none yet.
    Unknown,
}

impl Standing {
    /// May it change files?
    pub fn may_write(self) -> bool {
        matches!(self, Self::Member(role) if role.may_write())
    }

    /// Does it take part: does it hear others, and do others hear it?
    pub fn takes_part(self) -> bool {
        matches!(self, Self::Member(_) | Self::Unknown)
    }
}
