//! The system calls, by theme. Each looks at everything it needs, then changes everything at once.

mod attrs;
mod company;
mod io;
mod list;
mod names;
mod rename;
mod xattr;

pub use io::Writing;
pub use names::Making;

use super::Attr;
use super::body::Body;
use super::tree::Node;
use crate::types::{Ino, Kind};

/// What `stat` shows as the length of a directory, in bytes.
const DIR_SIZE_BYTES: u64 = 4096;
/// Content takes room in units of this, as on most disks.
const ALLOCATION_BYTES: u64 = 4096;

/// A node's attributes.
fn attr_of(ino: Ino, node: &Node) -> Attr {
    let rec = &node.rec;
    let draft = node.body.as_ref().map_or(0, Body::draft_data_bytes);
    let stored = match rec.kind {
        Kind::Directory => DIR_SIZE_BYTES,
        _ => rec.stored_bytes + draft,
    };
    let size_bytes = match &rec.kind {
        Kind::Directory => DIR_SIZE_BYTES,
        Kind::Symlink(target) => target.len() as u64,
        _ => rec.size_bytes,
    };
    let stored = stored.min(size_bytes.next_multiple_of(ALLOCATION_BYTES));
    Attr {
        ino,
        kind: rec.kind.clone(),
        mode: rec.mode,
        uid: rec.uid,
        gid: rec.gid,
        nlink: rec.nlink,
        size_bytes,
        blocks: stored.div_ceil(ALLOCATION_BYTES) * (ALLOCATION_BYTES / 512),
        atime: rec.atime,
        mtime: rec.mtime,
        ctime: rec.ctime,
        btime: rec.btime,
    }
}
