//! How a device becomes a member: the ticket, what it shows, what it is told.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Addresses, DeviceId, Role, Settings, WorkspaceId};

macro_rules! secret_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(secret)"))
            }
        }
    };
}

secret_bytes!(
    /// What makes an invitation good, once.
    Token, 16
);
secret_bytes!(
    /// A workspace's secret on its way to a new member.
    SharedSecret, 32
);

/// An invitation, as a person passes it on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ticket {
    /// Into which workspace.
    pub workspace: WorkspaceId,
    /// The device that made it and can admit.
    pub inviter: DeviceId,
    /// Where that device is.
    pub addresses: Addresses,
    /// Good once.
    pub token: Token,
    /// Seconds since 1970 until which it is good.
    pub expires_unix_s: u64,
    /// What the new member may do.
    pub role: Role,
}

/// What a joiner shows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The ticket's.
    pub token: Token,
    /// How the joiner wants to be called: a `DeviceName`.
    pub name: String,
}

/// What a new member is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// What the workspace is.
    pub settings: Settings,
    /// Its secret; none for a keeper, or without encryption.
    pub secret: Option<SharedSecret>,
    /// Whose journal is the first.
    pub founder: DeviceId,
    /// What the new member may do.
    pub role: Role,
    /// The name of the device that admitted it.
    pub inviter_name: String,
}

/// Why a device is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// It is no member, or no longer.
    #[error("this device is not a member of the workspace")]
    Stranger,
    /// Another workspace is served here.
    #[error("the other device does not serve this workspace")]
    OtherWorkspace,
    /// No such invitation was made there.
    #[error("the invitation is not known there; ask for a new one")]
    UnknownInvitation,
    /// It has served already.
    #[error("the invitation was used already; ask for a new one")]
    UsedInvitation,
    /// Its time is over.
    #[error("the invitation has expired; ask for a new one")]
    ExpiredInvitation,
    /// It was a member, and an admin has revoked it.
    #[error("this device was revoked: an admin has taken it out of the workspace")]
    Revoked,
    /// It failed there for another reason, which that device's log tells.
    #[error("the other device failed to answer; its log says why")]
    Failed,
}

impl Token {
    /// What an invitation is kept under, so that whoever reads the list cannot use it.
    pub fn digest(&self) -> String {
        blake3::hash(&self.0).to_hex().to_string()
    }
}
