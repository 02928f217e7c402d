//! Replication at work: the thread that drives `sync` and `net` for a workspace.
//!
//! The room's part owns tasks and their order: one task owns the machine, one serves each
//! connection, one each dial and request. It refuses to know how batches are merged and chunks kept:
//! that is behind [`Replica`], whose calls are made from threads that may block. Tasks tell the
//! driver through one bounded queue, and never wait for anything else that waits for it.

mod bootstrap;
mod config;
mod connection;
mod driver;
mod fetch;
mod handle;
mod history;
mod join;
mod meet;
mod push;
mod replica;
mod waiters;

pub use bootstrap::{Parts, ask};
pub use config::{SyncConfig, SyncError, WantError};
pub use handle::{PeerStatus, SyncHandle, SyncThread};
pub use join::join;
pub use push::{collect, fresh};
pub use replica::{Replica, ReplicaError, Snapshot};
