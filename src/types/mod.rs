//! The nouns of the shared tree and of this device's store.
//!
//! This room owns ids, ops, records and limits. It refuses to know how any of them is encoded,
//! stored or sent. Everything here is plain data: no clock, no disk, no task, no log.

mod blob;
mod conflict;
mod content;
mod device_name;
mod epoch;
mod frame;
mod id;
pub mod limits;
pub mod merged;
mod name;
mod op;
mod pairing;
mod record;
mod snapshot;
mod standing;
mod time;
mod tree_root;

pub use blob::Blob;
pub use conflict::ConflictResolution;
pub use content::{ChunkKey, ChunkRef, Content, ContentHash, PatchData, PatchExtent};
pub use device_name::{DeviceName, DeviceNameError, DeviceNames, RESERVED_ATTRS, device_attr};
pub use epoch::{EpochId, EpochSecret, WrappedSecret};
pub use frame::{Addresses, ChunkRequest, Frame, Frontier, Held, PeerNote, Request};
pub use id::{ChunkId, DeviceId, EntryId, FileId, Ino, OpId, PlaceId, VersionId, WorkspaceId};
pub use name::{Name, NameError, NameHash, NameHasher};
pub use op::{AttrChange, Batch, BatchHash, Kind, Op, Role};
pub use pairing::{JoinRequest, Refusal, SharedSecret, Ticket, Token, Welcome};
pub use record::{Company, EntryRecord, NodeRecord, Part, Settings, Sibling, Twin, VersionRecord};
pub use snapshot::{SnapshotEntry, SnapshotHead, SnapshotPage, SnapshotPart, SnapshotRows};
pub use standing::Standing;
pub use time::{Hlc, Timestamp};
pub use tree_root::TreeRoot;
