//! A version's content, as the store keeps it: chunks, and patches laid over them.

use crate::chunk::{ChunkError, ExtentMap, Item, Manifest, Sealer};
use crate::store::{Store, StoreError};
use crate::types::{ChunkId, Content, FileId, PatchData, PatchExtent, VersionId, VersionRecord};

/// The layers of a committed version.
#[derive(Debug)]
pub struct VersionContent {
    /// Chunks.
    pub base: Manifest,
    /// Laid over them, as bytes that stand in versions' own records.
    pub patches: ExtentMap,
    /// How many versions `patches` stands for.
    pub patch_count: u32,
    /// Length in bytes.
    pub size_bytes: u64,
}

/// Reads a version's layers; `None` if the store does not have the version, or lacks one that it is
/// a patch of. `read` returns the sealed bytes of the nodes of its manifest.
///
/// # Errors
/// The store's, those of `read`, and a manifest's that is not one.
///
/// # Panics
/// Never: patches are counted, and there are fewer of them than a store can hold.
pub fn version_content<E: From<StoreError> + From<ChunkError>>(
    store: &Store,
    sealer: &Sealer,
    (file, id): (FileId, VersionId),
    read: &mut impl FnMut(&ChunkId) -> Result<Vec<u8>, E>,
) -> Result<Option<VersionContent>, E> {
    let mut layers = Vec::new();
    let mut at = id;
    let mut size_bytes = None;
    let bottom: VersionRecord = loop {
        let Some(version) = store.version(file, at)? else { return Ok(None) };
        size_bytes.get_or_insert(version.size_bytes);
        match version.content {
            Content::Patch { base, extents } => {
                layers.push(extents);
                at = base;
            }
            _ => break version,
        }
    };
    let mut patches = ExtentMap::default();
    let base = match bottom.content {
        Content::Inline(bytes) => {
            patches.write(0, &bytes);
            Manifest::default()
        }
        Content::Chunk(chunk) => Manifest::new(vec![Item::Chunk(chunk)]),
        Content::Manifest(root) => Manifest::load(&root, sealer, &mut |node| read(&node.id))?,
        Content::Patch { .. } => unreachable!("the loop has unrolled patches"),
    };
    let patch_count = u32::try_from(layers.len()).expect("a chain of patches is short");
    for extents in layers.into_iter().rev() {
        lay_patch(&mut patches, extents);
    }
    let size_bytes = size_bytes.expect("the loop has met a version");
    Ok(Some(VersionContent { base, patches, patch_count, size_bytes }))
}

/// Lays a patch's extents over what lies below.
fn lay_patch(over: &mut ExtentMap, extents: Vec<PatchExtent>) {
    for extent in extents {
        match extent.data {
            PatchData::Bytes(bytes) => over.write(extent.offset, &bytes),
            PatchData::Zero(len_bytes) => over.zero(extent.offset, len_bytes),
        }
    }
}
