//! What must be true of each device at the end: its store is whole, and every content that a sync
//! has returned for is in it.

use std::collections::{HashMap, HashSet};

use tidefs::chunk::{ExtentMap, Item, Manifest, read_range};
use tidefs::engine::{EngineError, OpenWorkspace, verify};
use tidefs::types::{ChunkRef, Content, FileId, PatchData, VersionId, VersionRecord};

use super::device::Device;
use super::world::Acknowledged;

/// Reads a device through and through; `number` says which.
pub fn check(device: &Device, number: usize, acknowledged: &[Acknowledged]) {
    let report = verify(device.dir(), &device.env(), false, &mut |_| ()).expect("verifies");
    assert!(report.is_clean(), "device {number}: {:#?}", report.problems);
    let workspace = OpenWorkspace::open(device.dir(), &device.env()).expect("opens");
    let history = History::of(&workspace);
    let mut contents = HashSet::new();
    for (file, id) in history.versions.keys() {
        contents.insert(blake3::hash(&history.bytes(*file, *id)));
    }
    for what in acknowledged {
        assert!(
            contents.contains(&what.bytes),
            "device {number} has lost what device {} synced at {} ms at {}",
            what.device,
            what.at_ms,
            what.path
        );
    }
}

/// All versions that a device keeps.
struct History<'a> {
    workspace: &'a OpenWorkspace,
    versions: HashMap<(FileId, VersionId), VersionRecord>,
}

impl<'a> History<'a> {
    fn of(workspace: &'a OpenWorkspace) -> Self {
        let (mut versions, mut after) = (HashMap::new(), None);
        loop {
            let page = workspace.store.versions_page(after, 1000).expect("reads");
            let Some((file, id, _)) = page.last() else { break };
            after = Some((*file, *id));
            for (file, id, record) in page {
                versions.insert((file, id), record.expect("decodes"));
            }
        }
        Self { workspace, versions }
    }

    fn bytes(&self, file: FileId, id: VersionId) -> Vec<u8> {
        let record = &self.versions[&(file, id)];
        let size = record.size_bytes;
        let (mut base, mut over) = (Manifest::default(), ExtentMap::default());
        match &record.content {
            Content::Inline(bytes) => over.write(0, bytes),
            Content::Chunk(chunk) => base = Manifest::new(vec![Item::Chunk(chunk.clone())]),
            Content::Manifest(root) => base = self.manifest(root),
            Content::Patch { base, extents } => {
                over.write(0, &self.bytes(file, *base));
                over.truncate(size);
                for extent in extents {
                    match &extent.data {
                        PatchData::Bytes(bytes) => over.write(extent.offset, bytes),
                        PatchData::Zero(len_bytes) => over.zero(extent.offset, *len_bytes),
                    }
                }
            }
        }
        let mut open = |chunk: &ChunkRef| self.open(chunk);
        read_range(&base, &[&over], 0, size, size, &mut open).expect("reads")
    }

    fn manifest(&self, root: &ChunkRef) -> Manifest {
        let mut fetch = |node: &ChunkRef| self.sealed(node);
        Manifest::load(root, &self.workspace.sealer, &mut fetch).expect("loads")
    }

    fn sealed(&self, chunk: &ChunkRef) -> Result<Vec<u8>, EngineError> {
        Ok(self.workspace.store.read_chunk(&chunk.id)?)
    }

    fn open(&self, chunk: &ChunkRef) -> Result<std::sync::Arc<[u8]>, EngineError> {
        let sealed = self.sealed(chunk)?;
        Ok(self.workspace.sealer.open(chunk, &sealed).expect("opens").into())
    }
}
