//! What to tell and ask each peer.
//!
//! The room owns the decisions of replication: whom to dial and when again, which batches a peer
//! lacks, which chunk to ask of whom. It refuses to know how a batch is read or stored and how a
//! frame travels: [`Machine::handle`] takes what happened and returns what to do. No clock, disk,
//! task or log; the same inputs and seed give the same outputs.
//!
//! Invariants: at most one thing is being written to a connection at a time, so nothing queues
//! behind a slow peer; at most `ops_max` chunk requests are under way, and each chunk is in at most
//! one of them; what is known of a peer lasts as long as its connection.

mod backoff;
mod chunks;
mod links;
mod machine;
mod session;

pub use machine::{CloseReason, ConnId, Input, Loss, Machine, Output, RequestId, Tuning};
pub use session::PeerView;
