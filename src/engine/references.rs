//! Which chunks a manifest names, as far as it is here.

use std::collections::HashSet;

use super::EngineError;
use crate::chunk::{Manifest, Sealer};
use crate::store::{Store, StoreError};
use crate::types::{ChunkId, ChunkRef};

/// The ids of all nodes and chunks of a manifest. Of one of which nodes are still to come, or which was
/// passed over, of those that are here.
pub(super) fn references(
    root: &ChunkRef,
    sealer: &Sealer,
    store: &Store,
    may_lack: bool,
    ids: &mut Vec<ChunkId>,
) -> Result<(), EngineError> {
    let mut fetch =
        |node: &ChunkRef| -> Result<Vec<u8>, EngineError> { Ok(store.read_chunk(&node.id)?) };
    match Manifest::references(root, sealer, &mut fetch, &mut |id| ids.push(*id)) {
        Err(EngineError::Store(StoreError::MissingChunk(id)))
            if may_lack || store.may_lack(&id)? =>
        {
            references_here(root, sealer, store, ids)
        }
        result => result,
    }
}

fn references_here(
    root: &ChunkRef,
    sealer: &Sealer,
    store: &Store,
    ids: &mut Vec<ChunkId>,
) -> Result<(), EngineError> {
    ids.clear();
    let (mut nodes, mut seen) = (vec![root.clone()], HashSet::new());
    while let Some(node) = nodes.pop() {
        if !seen.insert(node.id) {
            continue;
        }
        ids.push(node.id);
        let sealed = match store.read_chunk(&node.id) {
            Err(StoreError::MissingChunk(_)) => continue,
            found => found?,
        };
        for (chunk, is_node) in Manifest::node_references(&node, sealer, &sealed)? {
            if is_node {
                nodes.push(chunk);
            } else {
                ids.push(chunk.id);
            }
        }
    }
    Ok(())
}
