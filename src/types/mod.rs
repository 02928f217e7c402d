//! The nouns of the shared tree and of this device's store.
//!
//! This room owns ids, ops, records and limits. It refuses to know how any of them is encoded,
//! stored or sent. Everything here is plain data: no clock, no disk, no task, no log.

mod content;
mod id;
pub mod limits;
mod name;
mod op;
mod record;
mod time;

pub use content::{ChunkKey, ChunkRef, Content, PatchData, PatchExtent};
pub use id::{ChunkId, DeviceId, EntryId, FileId, Ino, OpId, PlaceId, VersionId, WorkspaceId};
pub use name::{Name, NameError, NameHash, NameHasher};
pub use op::{AttrChange, Batch, BatchHash, Kind, Op};
pub use record::{EntryRecord, NodeRecord, Settings, VersionRecord};
pub use time::{Hlc, Timestamp};
