//! How replication is set up, and why it does not start.

use std::net::SocketAddr;

use crate::net::{NetConfig, NetError};
use crate::types::limits::{BATCH_SIZE_DEFAULT, CONCURRENT_OPS_DEFAULT};
use crate::types::{Addresses, DeviceId, Refusal};

/// How replication is set up.
#[derive(Clone, Debug)]
pub struct SyncConfig {
    /// Where to listen; none: on any interface, at any port.
    pub bind: Vec<SocketAddr>,
    /// The relays to use; none: nobody but members is contacted.
    pub relays: Vec<String>,
    /// Where members were when last seen.
    pub peers: Vec<(DeviceId, Addresses)>,
    /// Chunk requests under way at once.
    pub max_concurrent_ops: usize,
    /// Chunks in one request.
    pub batch_size: usize,
    /// Find and be found on the local network.
    pub lan_discovery: bool,
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            bind: Vec::new(),
            relays: Vec::new(),
            peers: Vec::new(),
            max_concurrent_ops: CONCURRENT_OPS_DEFAULT,
            batch_size: BATCH_SIZE_DEFAULT,
            lan_discovery: false,
        }
    }
}

impl SyncConfig {
    /// The part of it that is about the network.
    pub(super) fn net(&self) -> NetConfig {
        let (bind, relays) = (self.bind.clone(), self.relays.clone());
        NetConfig { bind, relays, lan_discovery: self.lan_discovery }
    }
}

/// Why replication did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The network's.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The other device turned this one away.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// This device's journal goes on elsewhere.
    #[error("this device was restored from a backup, or its key is in use elsewhere")]
    Overtaken,
    /// Nothing came in time.
    #[error("the other device did not answer in time")]
    TimedOut,
    /// The answer is not one to what was asked.
    #[error("the other device answered something else than was asked")]
    Unexpected,
    /// The system gave no thread, or too few of something else.
    #[error("cannot run replication: {0}")]
    System(#[from] std::io::Error),
    /// Replication has ended.
    #[error("replication has ended")]
    Closed,
}

/// Why chunks that a reader waits for are not here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WantError {
    /// Not all came in time.
    #[error("no device that has the bytes answered in time")]
    TimedOut,
    /// Too many readers wait already.
    #[error("too many readers wait for other devices")]
    Busy,
    /// Replication has ended.
    #[error("replication has ended")]
    Closed,
}
