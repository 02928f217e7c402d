//! One moment of the store, read and signed part by part.

use std::collections::VecDeque;
use std::sync::Arc;

use super::context;
use crate::chunk::Sealer;
use crate::codec::{
    encode_merged, encode_node, encode_page, encode_part, encode_unsigned_part, encode_version,
    part_hash,
};
use crate::engine::EngineError;
use crate::keys::DeviceKey;
use crate::store::{Store, StoreError};
use crate::types::limits::{
    PATCH_CHAIN_COUNT_MAX, SNAPSHOT_PAGE_BYTES, SNAPSHOT_PAGE_BYTES_HARD_MAX, SNAPSHOT_ROWS_MAX,
};
use crate::types::merged::{MemberOp, Move};
use crate::types::{
    Blob, Content, EntryId, FileId, Ino, Kind, NameHash, NodeRecord, OpId, SnapshotEntry,
    SnapshotHead, SnapshotPage, SnapshotPart, SnapshotRows, VersionId, WorkspaceId,
};

/// Rows read from the store in one go.
const READ_ROWS: usize = 256;
/// About what a row takes beside its record.
const ROW_BYTES: usize = 24;

/// Tells one moment of a store.
pub struct Telling {
    /// Pinned to that moment.
    store: Store,
    sealer: Arc<Sealer>,
    key: DeviceKey,
    workspace: WorkspaceId,
    next: u32,
    previous: [u8; 32],
    stage: Stage,
}

/// What is told next.
enum Stage {
    Head,
    /// The tree, from the root down: the directories whose names are still to be told, and how far
    /// the first of them is.
    Tree(VecDeque<Ino>, Option<NameHash>),
    /// Files whose names are gone, and which history keeps.
    Nameless(Option<Ino>),
    Versions(Option<(FileId, VersionId)>),
    Known(Box<Known>),
    Voids(Option<OpId>),
    Faces(Option<FileId>),
    Entries(Option<EntryId>),
    Inodes(Option<FileId>),
    MergedVersions(Option<(FileId, VersionId)>),
    End,
    Over,
}

/// What every device holds in memory all the time.
struct Known {
    journals: VecDeque<u16>,
    heard: VecDeque<(u16, u16, u64)>,
    folded: VecDeque<(u16, u64)>,
    members: VecDeque<MemberOp>,
    moves: VecDeque<Move>,
    crowded: VecDeque<Ino>,
}

/// A page that is being filled.
#[derive(Default)]
struct Page {
    rows: SnapshotRows,
    bytes: usize,
    count: usize,
}

impl Page {
    fn is_full(&self) -> bool {
        // A file brings its version and those that it lies over.
        self.bytes >= SNAPSHOT_PAGE_BYTES || self.count + 300 >= SNAPSHOT_ROWS_MAX
    }

    fn count(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes + ROW_BYTES;
    }

    /// Rows without a record.
    fn count_all(&mut self, rows: usize) {
        self.count += rows;
        self.bytes += rows * ROW_BYTES;
    }
}

impl Telling {
    /// Of `store`, which shows one moment, signed with `key`.
    pub fn new(store: Store, sealer: Arc<Sealer>, key: DeviceKey, workspace: WorkspaceId) -> Self {
        let stage = Stage::Head;
        Self { store, sealer, key, workspace, next: 0, previous: [0; 32], stage }
    }

    /// The next encoded part; none behind the last. Reads the disk.
    ///
    /// # Errors
    /// The store's.
    pub fn next_part(&mut self) -> Result<Option<Vec<u8>>, EngineError> {
        if matches!(self.stage, Stage::Over) {
            return Ok(None);
        }
        let page = if matches!(self.stage, Stage::Head) {
            self.stage = Stage::Tree(VecDeque::from([Ino::ROOT]), None);
            SnapshotPage::Head(Box::new(self.head()?))
        } else {
            let mut page = Page::default();
            while !page.is_full() && !matches!(self.stage, Stage::End) {
                self.step(&mut page)?;
            }
            SnapshotPage::Rows(Box::new(page.rows))
        };
        let is_last = matches!(self.stage, Stage::End);
        if is_last {
            self.stage = Stage::Over;
        }
        Ok(Some(self.sign(&page, is_last)?))
    }

    fn sign(&mut self, page: &SnapshotPage, is_last: bool) -> Result<Vec<u8>, EngineError> {
        let plain = encode_page(page);
        if plain.len() > SNAPSHOT_PAGE_BYTES_HARD_MAX {
            let why = format!("a row of a snapshot takes {} bytes", plain.len());
            return Err(StoreError::Corrupt(why).into());
        }
        let (_, sealed) = self.sealer.seal_record(&context(self.next), &plain);
        let mut part = SnapshotPart {
            workspace: self.workspace,
            index: self.next,
            is_last,
            previous: self.previous,
            sealed,
            signature: [0; 64],
        };
        part.signature = self.key.sign(&encode_unsigned_part(&part));
        let encoded = encode_part(&part);
        self.next += 1;
        self.previous = part_hash(&encoded);
        Ok(encoded)
    }

    fn head(&self) -> Result<SnapshotHead, StoreError> {
        let mut journals = self.store.journals()?;
        journals.sort_unstable();
        let conflicts = self.store.conflicts_shown()?;
        let known = crate::types::ConflictResolution::ALL.iter();
        let conflicts = known.take_while(|way| **way != conflicts).count();
        Ok(SnapshotHead {
            journals: journals.into_iter().map(|(_, device)| device).collect(),
            live_nodes: self.store.live_nodes()?,
            conflicts: u8::try_from(conflicts).unwrap_or(0),
            root: self.node(Ino::ROOT)?,
            tree_root: self.store.tree_root()?.0,
            folds_anew: self.store.folds_anew()?,
        })
    }

    fn node(&self, ino: Ino) -> Result<NodeRecord, StoreError> {
        let lacking = || StoreError::Corrupt(format!("inode {ino} is named and not here"));
        self.store.node(ino)?.ok_or_else(lacking)
    }

    /// Tells some rows of the stage, and goes on to the next where it ends.
    fn step(&mut self, page: &mut Page) -> Result<(), StoreError> {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        self.stage = match stage {
            Stage::Head | Stage::End | Stage::Over => stage,
            Stage::Tree(dirs, after) => self.tree(dirs, after, page)?,
            Stage::Nameless(after) => self.nameless(after, page)?,
            Stage::Versions(after) => self.versions(after, page)?,
            Stage::Known(mut known) => {
                if self.known(&mut known, page)? {
                    Stage::Voids(None)
                } else {
                    Stage::Known(known)
                }
            }
            Stage::Voids(after) => self.voids(after, page)?,
            Stage::Faces(after) => self.faces(after, page)?,
            Stage::Entries(after) => self.entries(after, page)?,
            Stage::Inodes(after) => self.inodes(after, page)?,
            Stage::MergedVersions(after) => self.merged_versions(after, page)?,
        };
        Ok(())
    }

    fn tree(
        &self,
        mut dirs: VecDeque<Ino>,
        mut after: Option<NameHash>,
        page: &mut Page,
    ) -> Result<Stage, StoreError> {
        let Some(dir) = dirs.front().copied() else { return Ok(Stage::Nameless(None)) };
        let entries = self.store.entries_page(dir, after, READ_ROWS)?;
        let is_end = entries.len() < READ_ROWS;
        for entry in entries {
            if page.is_full() {
                return Ok(Stage::Tree(dirs, after));
            }
            after = Some(entry.hash);
            let node = self.node(entry.ino)?;
            if node.kind == Kind::Directory && node.size_bytes > 0 {
                dirs.push_back(entry.ino);
            }
            self.head_version(&node, page)?;
            page.count(encode_node(&node).len());
            page.rows.nodes.push((entry.ino, node));
            page.count(entry.name.as_bytes().len() + ROW_BYTES);
            let (parent, entry, place, ino, name) =
                (entry.parent, entry.entry, entry.place, entry.ino, entry.name);
            page.rows.entries.push(SnapshotEntry { parent, entry, place, ino, name });
        }
        if is_end {
            dirs.pop_front();
            page.count(0);
            page.rows.listed.push(dir);
            return Ok(Stage::Tree(dirs, None));
        }
        Ok(Stage::Tree(dirs, after))
    }

    /// The version that a node shows, and those that it lies over.
    fn head_version(&self, node: &NodeRecord, page: &mut Page) -> Result<(), StoreError> {
        let (Some(file), Some(head)) = (node.file, node.head) else { return Ok(()) };
        let mut at = head;
        for _ in 0..=PATCH_CHAIN_COUNT_MAX {
            let Some(version) = self.store.version(file, at)? else { break };
            let base = match &version.content {
                Content::Patch { base, .. } => Some(*base),
                _ => None,
            };
            page.count(encode_version(&version).len());
            page.rows.versions.push((file, at, version));
            match base {
                Some(base) => at = base,
                None => break,
            }
        }
        Ok(())
    }

    fn nameless(&self, mut after: Option<Ino>, page: &mut Page) -> Result<Stage, StoreError> {
        let nodes = self.store.nodes_page(after, READ_ROWS)?;
        if nodes.is_empty() {
            return Ok(Stage::Versions(None));
        }
        for (ino, node) in nodes {
            if page.is_full() {
                break;
            }
            after = Some(ino);
            let node = node?;
            if node.nlink == 0 && node.file.is_some() {
                page.count(encode_node(&node).len());
                page.rows.nodes.push((ino, node));
            }
        }
        Ok(Stage::Nameless(after))
    }

    fn versions(
        &self,
        mut after: Option<(FileId, VersionId)>,
        page: &mut Page,
    ) -> Result<Stage, StoreError> {
        let versions = self.store.versions_page(after, READ_ROWS)?;
        if versions.is_empty() {
            return Ok(Stage::Known(Box::new(self.all_known()?)));
        }
        for (file, id, version) in versions {
            if page.is_full() {
                break;
            }
            after = Some((file, id));
            // What the tree shows was told with it.
            let shown = self.store.node(Ino::from(file))?;
            let is_told = shown.is_some_and(|node| {
                node.nlink > 0 && node.file == Some(file) && node.head == Some(id)
            });
            if !is_told {
                let version = version?;
                page.count(encode_version(&version).len());
                page.rows.versions.push((file, id, version));
            }
        }
        Ok(Stage::Versions(after))
    }

    fn all_known(&self) -> Result<Known, StoreError> {
        let mut journals: Vec<u16> =
            self.store.journals()?.into_iter().map(|(number, _)| number).collect();
        journals.sort_unstable();
        Ok(Known {
            journals: journals.into(),
            heard: self.store.heard()?.into(),
            folded: self.store.folded()?.into(),
            members: self.store.member_ops()?.into(),
            moves: self.store.moves()?.into(),
            crowded: self.store.crowded()?.into(),
        })
    }

    /// True once all is told.
    fn known(&self, known: &mut Known, page: &mut Page) -> Result<bool, StoreError> {
        while !page.is_full() {
            let rows = &mut page.rows;
            let bytes = if let Some(journal) = known.journals.pop_front() {
                let batch = self.store.last_batch(journal)?;
                let bytes = batch.as_ref().map_or(0, Vec::len);
                rows.batches.extend(batch.map(|batch| (journal, Blob(batch))));
                bytes
            } else if let Some(heard) = known.heard.pop_front() {
                rows.heard.push(heard);
                0
            } else if let Some(folded) = known.folded.pop_front() {
                rows.folded.push(folded);
                0
            } else if let Some(member) = known.members.pop_front() {
                let bytes = encode_merged(&member).len();
                rows.members.push(member);
                bytes
            } else if let Some(line) = known.moves.pop_front() {
                let bytes = encode_merged(&line).len();
                rows.moves.push(line);
                bytes
            } else if let Some(ino) = known.crowded.pop_front() {
                rows.crowded.push(ino);
                0
            } else {
                return Ok(true);
            };
            page.count(bytes);
        }
        Ok(false)
    }

    fn voids(&self, after: Option<OpId>, page: &mut Page) -> Result<Stage, StoreError> {
        let voids = self.store.voids_page(after, READ_ROWS)?;
        let Some((last, _)) = voids.last().copied() else { return Ok(Stage::Faces(None)) };
        page.count_all(voids.len());
        page.rows.voids.extend(voids);
        Ok(Stage::Voids(Some(last)))
    }

    fn faces(&self, after: Option<FileId>, page: &mut Page) -> Result<Stage, StoreError> {
        let faces = self.store.faces_page(after, READ_ROWS)?;
        let Some((last, _)) = faces.last().copied() else { return Ok(Stage::Entries(None)) };
        page.count_all(faces.len());
        page.rows.faces.extend(faces);
        Ok(Stage::Faces(Some(last)))
    }

    fn entries(&self, mut after: Option<EntryId>, page: &mut Page) -> Result<Stage, StoreError> {
        let entries = self.store.merged_entries_page(after, READ_ROWS)?;
        if entries.is_empty() {
            return Ok(Stage::Inodes(None));
        }
        for (id, entry) in entries {
            if page.is_full() {
                break;
            }
            after = Some(id);
            page.count(encode_merged(&entry).len());
            page.rows.merged_entries.push((id, entry));
        }
        Ok(Stage::Entries(after))
    }

    fn inodes(&self, mut after: Option<FileId>, page: &mut Page) -> Result<Stage, StoreError> {
        let inodes = self.store.merged_inodes_page(after, READ_ROWS)?;
        if inodes.is_empty() {
            return Ok(Stage::MergedVersions(None));
        }
        for (id, inode) in inodes {
            if page.is_full() {
                break;
            }
            after = Some(id);
            if inode.special.is_some() {
                self.special(id, page)?;
            }
            page.count(encode_merged(&inode).len());
            page.rows.merged_inodes.push((id, inode));
        }
        Ok(Stage::Inodes(after))
    }

    /// What it is stands nowhere but in its node, as long as it has a name, and in the op that made it.
    fn special(&self, file: FileId, page: &mut Page) -> Result<(), StoreError> {
        let node = self.store.node(self.store.face(file)?)?;
        let node = node.filter(|node| node.file == Some(file));
        let kind = match node {
            Some(node) => Some(node.kind),
            None => self.store.special(file)?,
        };
        if let Some(kind) = kind {
            page.count(encode_merged(&kind).len());
            page.rows.specials.push((file, kind));
        } else {
            let batch = self.store.batch_with(file.0.journal(), file.0.seq())?;
            page.count(batch.as_ref().map_or(0, Vec::len));
            page.rows.batches.extend(batch.map(|batch| (file.0.journal(), Blob(batch))));
        }
        Ok(())
    }

    fn merged_versions(
        &self,
        mut after: Option<(FileId, VersionId)>,
        page: &mut Page,
    ) -> Result<Stage, StoreError> {
        let versions = self.store.merged_versions_page(after, READ_ROWS)?;
        if versions.is_empty() {
            return Ok(Stage::End);
        }
        for (file, id, version) in versions {
            if page.is_full() {
                break;
            }
            after = Some((file, id));
            page.count(encode_merged(&version).len());
            page.rows.merged_versions.push((file, id, version));
        }
        Ok(Stage::MergedVersions(after))
    }
}
