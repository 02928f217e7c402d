//! Epochs: a workspace's content secret changes when somebody is not to read on.

use serde::{Deserialize, Serialize};

use super::{DeviceId, SharedSecret};

const PIECES: usize = 5;
const PIECE_BYTES: usize = 16;

/// A secret sealed for one device: an ephemeral key (32), the sealed secret (32) and a tag (16).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WrappedSecret([[u8; PIECE_BYTES]; PIECES]);

impl WrappedSecret {
    /// From its 80 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (pieces, rest) = bytes.as_chunks::<PIECE_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        Some(Self(pieces.try_into().ok()?))
    }

    /// Its 80 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.concat()
    }
}

/// The op that began an epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct EpochId {
    /// Its number: one more than the greatest that the author had heard of. Admins apart may have
    /// taken the same.
    pub number: u32,
    /// Its author.
    pub author: DeviceId,
    /// Its place in the author's journal.
    pub seq: u64,
}

impl EpochId {
    /// What a secret of this epoch is bound to when it is sealed for a device.
    pub fn context(&self) -> Vec<u8> {
        [&self.number.to_le_bytes()[..], &self.author.0].concat()
    }
}

/// An epoch and its secret, from one member to another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EpochSecret {
    /// Which.
    pub epoch: EpochId,
    /// Its secret.
    pub secret: SharedSecret,
}
