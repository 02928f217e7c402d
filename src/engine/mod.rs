//! Running a workspace: its life on disk, the commit thread, upkeep.
//!
//! The room owns the order of things: the lock before the store, chunks before names, the journal's
//! chain. It refuses to know POSIX: the tree comes to it through [`Source`]. It is the only room
//! that starts threads, and it joins each before the store closes.

mod commit;
mod epochs;
mod error;
mod handle;
mod invitations;
mod journal;
mod members;
mod merger;
mod pending;
mod published;
mod replica;
mod status;
pub mod sync;
mod verify;
mod workspace;

pub use commit::{Changes, CommitThread, DraftTarget, Source, StoredDraft, TakenDraft};
pub use error::{DeliverError, EngineError};
pub use handle::{CommitHandle, Urgency};
pub use invitations::Invitations;
pub use members::{Lag, Member, Members, members};
pub use merger::{MergeError, ViewChange};
pub use pending::{PENDING_OPS_MAX, PendingOps, TakenOps};
pub use published::Published;
pub use replica::LocalReplica;
pub use status::{Status, status};
pub use verify::{Problem, Progress, VerifyReport, verify};
pub use workspace::{NewWorkspace, OpenWorkspace, Workspace};
