//! Ids. Each noun has a type of its own, so that a file's id cannot stand where a version's belongs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The local, compact form of an op's id: which journal (16 bits) and which op in it (48 bits).
///
/// Journals are numbered by each device for itself, the founder's always 0, so this form is never
/// sent; `codec` translates it to and from the form with whole device ids. Op 1 of the founder's
/// journal made the root, so the root is 1 on every device, as FUSE asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "(u16, u64)", into = "(u16, u64)")]
pub struct OpId(u64);

impl From<OpId> for (u16, u64) {
    fn from(id: OpId) -> Self {
        (id.journal(), id.seq())
    }
}

impl TryFrom<(u16, u64)> for OpId {
    type Error = &'static str;

    fn try_from((journal, seq): (u16, u64)) -> Result<Self, Self::Error> {
        if seq < 1 << Self::SEQ_BITS {
            Ok(Self::new(journal, seq))
        } else {
            Err("an op's number needs more than 48 bits")
        }
    }
}

impl OpId {
    const SEQ_BITS: u32 = 48;
    /// The greatest number of an op in its journal.
    pub const SEQ_MAX: u64 = (1 << Self::SEQ_BITS) - 1;

    /// Op `seq` (from 1) of the journal numbered `journal` here.
    ///
    /// # Panics
    /// If `seq` needs more than 48 bits: at a million ops a second that takes nine years.
    pub fn new(journal: u16, seq: u64) -> Self {
        assert!(seq < 1 << Self::SEQ_BITS, "op seq {seq} fits 48 bits");
        Self(u64::from(journal) << Self::SEQ_BITS | seq)
    }

    /// The journal's local number.
    ///
    /// # Panics
    /// Never: 16 bits are left.
    pub fn journal(self) -> u16 {
        u16::try_from(self.0 >> Self::SEQ_BITS).expect("16 bits remain")
    }

    /// The op's number within its journal, from 1.
    pub fn seq(self) -> u64 {
        self.0 & Self::SEQ_MAX
    }

    /// The packed form, as stored.
    pub fn packed(self) -> u64 {
        self.0
    }

    /// From the packed form.
    pub fn from_packed(packed: u64) -> Self {
        Self(packed)
    }
}

macro_rules! op_named {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub struct $name(pub OpId);

        impl $name {
            /// The packed form of the op that made it, as stored.
            pub fn packed(self) -> u64 {
                self.0.packed()
            }

            /// From the packed form.
            pub fn from_packed(packed: u64) -> Self {
                Self(OpId::from_packed(packed))
            }
        }
    };
}

op_named!(
    /// The same file (or directory) on every device: the `Make` that made it.
    FileId
);
op_named!(
    /// A name in a directory: the `Make` that gave it. A file's first entry shares the file's id.
    EntryId
);
op_named!(
    /// One committed content of a file: its `Write`.
    VersionId
);
op_named!(
    /// What put an entry where it stands: its `Make` or its last `Place`.
    PlaceId
);

impl DeviceId {
    /// From its 64 hexadecimal digits.
    pub fn from_hex(digits: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[index * 2..index * 2 + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl FileId {
    /// The root directory of every workspace.
    pub const ROOT: FileId = FileId(OpId(1));
}

/// A file's number in this mount; never sent. Stable across remounts, never used twice.
///
/// It equals the packed [`FileId`] of the file, except after an editor's save by rename: the
/// kernel then knows the document under the number of the temporary file.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory (FUSE fixes the number).
    pub const ROOT: Ino = Ino(1);
}

impl From<FileId> for Ino {
    fn from(file: FileId) -> Self {
        Self(file.packed())
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

bytes_id!(
    /// BLAKE3 of a chunk's sealed bytes, so that anyone can check what it stores or sends.
    ChunkId, 32
);
bytes_id!(
    /// A device's Ed25519 public key.
    DeviceId, 32
);
bytes_id!(
    /// A workspace, drawn at random at its founding.
    WorkspaceId, 16
);

impl ChunkId {
    /// The id of these sealed bytes.
    pub fn of(sealed: &[u8]) -> Self {
        Self(*blake3::hash(sealed).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_op_id_keeps_its_journal_and_seq() {
        let id = OpId::new(7, (1 << 48) - 1);
        assert_eq!((id.journal(), id.seq()), (7, (1 << 48) - 1));
        assert_eq!(OpId::from_packed(id.packed()), id);
    }

    #[test]
    fn the_root_is_one_for_fuse_and_for_the_tree() {
        assert_eq!(Ino::from(FileId::ROOT), Ino::ROOT);
        assert_eq!(FileId::ROOT.0, OpId::new(0, 1));
    }
}
