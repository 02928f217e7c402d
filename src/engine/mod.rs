//! Running a workspace: its life on disk, the commit thread, upkeep.
//!
//! The room owns the order of things: the lock before the store, chunks before names, the journal's
//! chain. It refuses to know POSIX: the tree comes to it through [`Source`]. It is the only room
//! that starts threads, and it joins each before the store closes.

mod bootstrap;
mod commit;
mod conflicts;
mod content;
mod epochs;
mod error;
mod filling;
mod handle;
mod history;
mod invitations;
mod journal;
mod loading;
mod log;
mod members;
mod merger;
mod paths;
mod pending;
mod published;
mod references;
mod replica;
mod status;
pub mod sync;
mod verify;
mod workspace;

pub use bootstrap::{Hearing, SnapshotError, Telling};
pub use commit::{Changes, CommitThread, DraftTarget, Source, StoredDraft, TakenDraft};
pub use conflicts::{Conflict, ConflictVersion, conflicts};
pub use content::{VersionContent, version_content};
pub use error::{DeliverError, EngineError};
pub use filling::{FillError, Filling};
pub use handle::{CommitHandle, Urgency};
pub use history::{History, HistoryLine, VersionReader};
pub use invitations::Invitations;
pub use loading::Loading;
pub use log::{LogEnd, LogLine, VersionName, log};
pub use members::{Lag, Member, Members, members};
pub use merger::{MergeError, ViewChange};
pub use pending::{PENDING_OPS_MAX, PendingOps, TakenOps};
pub use published::Published;
pub use replica::LocalReplica;
pub use status::{Status, status};
pub use verify::{Problem, Progress, VerifyReport, verify};
pub use workspace::{NewWorkspace, OpenWorkspace, Workspace};
