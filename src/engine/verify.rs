//! Reading a workspace through and through, and mending what can be mended on one machine.
//!
//! Nothing is believed: the database checks its file, every chunk is read and hashed, every
//! record decoded, every reference followed, the journal's chain and signatures checked. Memory
//! stays bounded by pages and temporary tables.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Serialize;

use super::journal::context;
use super::paths::Paths;
use super::references::references;
use super::{EngineError, OpenWorkspace};
use crate::codec::{decode_batch, decode_ops};
use crate::env::Env;
use crate::keys::Chain;
use crate::merge::add_records;
use crate::store::{Commit, Store, StoreError, Sync, Tally, Writer};
use crate::types::limits::BATCH_BYTES_HARD_MAX;
use crate::types::{
    ChunkId, Content, DeviceId, FileId, Hlc, Ino, Kind, NodeRecord, TreeRoot, VersionRecord,
};

const PAGE_ROWS: usize = 1024;
/// Problems kept for the report; the rest is counted.
const PROBLEMS_MAX: usize = 1000;

/// How far a long piece of work is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// What is being worked on.
    pub what: &'static str,
    /// How many are done.
    pub done: u64,
    /// Of how many.
    pub total: u64,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// What, and where.
    pub what: String,
    /// What to do about it.
    pub remedy: &'static str,
    /// Was it mended?
    pub repaired: bool,
}

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct VerifyReport {
    /// Chunks read.
    pub chunks: u64,
    /// Files and directories read.
    pub nodes: u64,
    /// Versions read.
    pub versions: u64,
    /// Batches read.
    pub batches: u64,
    /// Chunks that nothing names, and their bytes: no problem, room that a repair gives back.
    pub unnamed_chunks: u64,
    /// Their bytes.
    pub unnamed_bytes: u64,
    /// Everything wrong, up to a bound.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub problems_left_out: u64,
}

impl VerifyReport {
    /// Is nothing wrong that was not mended?
    pub fn is_clean(&self) -> bool {
        self.problems_left_out == 0 && self.problems.iter().all(|problem| problem.repaired)
    }

    fn add(&mut self, what: String, remedy: &'static str, repaired: bool) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { what, remedy, repaired });
        } else {
            self.problems_left_out += 1;
        }
    }
}

const RESTORE: &str = "restore the file from a backup, or remove it";
const REPAIR: &str = "run `tidefs verify --repair`";

struct Verifier<'a> {
    store: Store,
    writer: Writer,
    workspace: OpenWorkspace,
    repair: bool,
    report: VerifyReport,
    /// Chunks that do not read back, why, and whether a version was found that names them.
    damaged: HashMap<ChunkId, (String, bool)>,
    /// Where files with a damaged chunk stand.
    paths: Paths,
    progress: &'a mut dyn FnMut(Progress),
}

/// Verifies the workspace in `dir`, which nothing else may have open. With `repair`, mends
/// counters and names that disagree, and gives back the room of chunks that nothing names.
///
/// # Errors
/// [`EngineError::Locked`] while it is mounted; the store's, if it cannot be read at all.
pub fn verify(
    dir: &Path,
    env: &Env,
    repair: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, EngineError> {
    let mut workspace = OpenWorkspace::open(dir, env)?;
    let mut verifier = Verifier {
        store: workspace.store.clone(),
        paths: Paths::new(workspace.store.clone()),
        writer: workspace.take_writer(),
        workspace,
        repair,
        report: VerifyReport::default(),
        damaged: HashMap::new(),
        progress,
    };
    verifier.database()?;
    verifier.chunks()?;
    verifier.writer.sweep_begin()?;
    verifier.versions()?;
    verifier.tree()?;
    verifier.tree_root()?;
    verifier.journal()?;
    verifier.unnamed()?;
    verifier.writer.checkpoint()?;
    Ok(verifier.report)
}

impl Verifier<'_> {
    fn database(&mut self) -> Result<(), EngineError> {
        (self.progress)(Progress { what: "database", done: 0, total: 1 });
        for line in self.store.database_problems()? {
            let remedy = "restore the workspace's directory from a backup";
            self.report.add(format!("the database: {line}"), remedy, false);
        }
        (self.progress)(Progress { what: "database", done: 1, total: 1 });
        Ok(())
    }

    fn chunks(&mut self) -> Result<(), EngineError> {
        let total = self.store.counts()?.chunks;
        let mut after = None;
        loop {
            let page = self.store.chunks_page(after, PAGE_ROWS)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(*last);
            for id in &page {
                if let Err(error) = self.store.read_chunk(id) {
                    self.damage(*id, &error);
                }
                self.report.chunks += 1;
            }
            (self.progress)(Progress { what: "chunks", done: self.report.chunks, total });
        }
    }

    /// Which file it is of is found out with the versions.
    fn damage(&mut self, id: ChunkId, error: &StoreError) {
        if self.damaged.len() < PROBLEMS_MAX {
            self.damaged.insert(id, (error.finding(), false));
        } else {
            self.report.add(error.finding(), RESTORE, false);
        }
    }

    fn versions(&mut self) -> Result<(), EngineError> {
        let total = self.store.counts()?.versions;
        let mut after = None;
        loop {
            let page = self.store.versions_page(after, PAGE_ROWS)?;
            let Some((file, id, _)) = page.last() else { return Ok(()) };
            after = Some((*file, *id));
            for (file, id, record) in page {
                self.report.versions += 1;
                let found = match record {
                    Ok(record) => {
                        let found = self.version(file, &record);
                        found.map_err(|error| (error, Some(record.hlc)))
                    }
                    Err(error) => Err((error.into(), None)),
                };
                let wrong = match found {
                    Ok(damaged) => damaged,
                    Err((EngineError::Store(error), clock)) => vec![(error.finding(), clock)],
                    Err((error, clock)) => vec![(error.to_string(), clock)],
                };
                for (why, clock) in wrong {
                    let of = clock.map_or_else(|| id.0.seq().to_string(), moment);
                    let what = format!("{}, version of {of}: {why}", self.path(file));
                    self.report.add(what, RESTORE, false);
                }
            }
            (self.progress)(Progress { what: "versions", done: self.report.versions, total });
        }
    }

    /// Follows a version's references and marks the chunks that it names; says which of them are
    /// damaged.
    fn version(
        &mut self,
        file: FileId,
        record: &VersionRecord,
    ) -> Result<Vec<(String, Option<Hlc>)>, EngineError> {
        let mut ids: Vec<ChunkId> = Vec::new();
        let mut found = Vec::new();
        // Of a version that was passed over, whatever has come, nothing has to be here.
        let mut may_lack_all = false;
        match &record.content {
            Content::Inline(_) => {}
            Content::Chunk(chunk) => ids.push(chunk.id),
            Content::Manifest(root) => {
                let (store, sealer) = (&self.store, &self.workspace.sealer);
                may_lack_all = store.is_passed(&root.id)?;
                let followed = references(root, sealer, store, may_lack_all, &mut ids);
                if let Err(EngineError::Store(StoreError::CorruptChunk { chunk, .. })) = &followed {
                    self.damaged.entry(*chunk).and_modify(|damage| damage.1 = true);
                }
                followed?;
            }
            Content::Patch { base, .. } => {
                if self.store.version(file, *base)?.is_none() {
                    let why = format!("its base, version {}, is missing", base.0.seq());
                    return Err(EngineError::Read(why));
                }
            }
        }
        for id in ids {
            // What is still to come from a peer is not missing.
            if !may_lack_all && !self.store.has_chunk(&id)? && !self.store.may_lack(&id)? {
                return Err(EngineError::Store(StoreError::MissingChunk(id)));
            }
            self.writer.sweep_mark(&id)?;
            if let Some((why, is_named)) = self.damaged.get_mut(&id) {
                *is_named = true;
                found.push((why.clone(), Some(record.hlc)));
            }
        }
        Ok(found)
    }

    /// Where a file stands, as far as a damaged store can tell.
    fn path(&mut self, file: FileId) -> String {
        self.paths.of_file(file).unwrap_or_else(|_| format!("file {}", file.packed()))
    }

    /// The merge's records add up to the root that devices compare.
    fn tree_root(&mut self) -> Result<(), EngineError> {
        let devices: BTreeMap<u16, DeviceId> = self.store.journals()?.into_iter().collect();
        let device = |number: u16| devices.get(&number).copied().unwrap_or(DeviceId([0; 32]));
        let mut sum = TreeRoot::default();
        let mut after = None;
        loop {
            let page = self.store.merged_entries_page(after, PAGE_ROWS)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            add_records(&mut sum, page.iter().map(|(id, entry)| (*id, entry)), [], device);
        }
        let mut after = None;
        loop {
            let page = self.store.merged_inodes_page(after, PAGE_ROWS)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            add_records(&mut sum, [], page.iter().map(|(id, inode)| (*id, inode)), device);
        }
        let (root, _) = self.store.tree_root()?;
        if sum != root {
            let what = format!("the root of the tree is {root:?}, its records add up to {sum:?}");
            self.report.add(what, REPAIR, self.repair);
            if self.repair {
                let mut commit = Commit::default();
                commit.merged.root = Some(sum);
                self.writer.commit(&commit, Sync::Durable)?;
            }
        }
        Ok(())
    }

    fn tree(&mut self) -> Result<(), EngineError> {
        self.dangling()?;
        self.writer.tally_begin()?;
        let total = self.store.counts()?.files;
        let mut live_nodes = 0;
        let mut after = None;
        loop {
            let page = self.store.nodes_page(after, PAGE_ROWS)?;
            let Some((ino, _)) = page.last() else { break };
            after = Some(*ino);
            for (ino, record) in page {
                self.report.nodes += 1;
                match record {
                    Ok(record) => live_nodes += self.node(ino, &record)?,
                    Err(error) => {
                        let remedy = "restore the workspace's directory from a backup";
                        self.report.add(format!("inode {ino}: {error}"), remedy, false);
                    }
                }
            }
            (self.progress)(Progress { what: "files", done: self.report.nodes, total });
        }
        if live_nodes != total {
            let what = format!("{live_nodes} files have a name, the count says {total}");
            self.report.add(what, REPAIR, self.repair);
            if self.repair {
                let commit = Commit { live_nodes: Some(live_nodes), ..Commit::default() };
                self.writer.commit(&commit, Sync::Durable)?;
            }
        }
        Ok(())
    }

    /// Names that lead nowhere.
    fn dangling(&mut self) -> Result<(), EngineError> {
        loop {
            let entries = self.writer.dangling_entries(PAGE_ROWS)?;
            for (parent, _, entry) in &entries {
                let seq = entry.0.seq();
                let what = format!("entry {seq} in directory {parent} leads nowhere");
                self.report.add(what, REPAIR, self.repair);
            }
            if entries.is_empty() || !self.repair {
                return Ok(());
            }
            let commit = Commit { entries_removed: entries, ..Commit::default() };
            self.writer.commit(&commit, Sync::Durable)?;
        }
    }

    /// Checks a node against what the entries say; 1 if it has a name.
    fn node(&mut self, ino: Ino, record: &NodeRecord) -> Result<u64, EngineError> {
        let tally = self.writer.tally(ino)?;
        if let (Some(file), Some(head)) = (record.file, record.head)
            && self.store.version(file, head)?.is_none()
        {
            let what = format!("inode {ino}: its version {} is missing", head.0.seq());
            self.report.add(what, RESTORE, false);
        }
        let mut right = record.clone();
        right.nlink = expected_links(ino, record, &tally);
        if record.kind == Kind::Directory {
            right.size_bytes = tally.entries;
            if ino != Ino::ROOT && tally.names == 1 {
                right.parent = tally.parent;
            }
            if tally.names > 1 {
                let what = format!("directory {ino} has {} names", tally.names);
                self.report.add(what, "remove one of them", false);
            }
        }
        let live = u64::from(right.nlink > 0);
        if right != *record {
            let what = format!(
                "inode {ino}: {} names and {} entries recorded, {} and {} found",
                record.nlink, record.size_bytes, right.nlink, right.size_bytes
            );
            self.report.add(what, REPAIR, self.repair);
            if self.repair {
                let nodes = vec![(ino, Some(right))];
                self.writer.commit(&Commit { nodes, ..Commit::default() }, Sync::Later)?;
            }
        }
        Ok(live)
    }

    fn journal(&mut self) -> Result<(), EngineError> {
        let total = self.store.counts()?.batches;
        let known = self.store.journals()?;
        let journals = known.iter().map(|(number, device)| (*device, *number)).collect();
        for (number, device) in known {
            let mut chain = Chain::new(device);
            // Of a journal that a snapshot stood for, the beginning may still be missing.
            let mut base = self.store.base(number)?;
            loop {
                if let Some(base) = base.take_if(|base| base.upto < chain.next_seq()) {
                    let Some(bytes) = self.store.batch_with(number, base.seq)? else { break };
                    chain = Chain::before(&decode_batch(&bytes)?);
                }
                let page = self.store.batches(number, chain.next_seq(), PAGE_ROWS)?;
                if page.is_empty() {
                    break;
                }
                for (seq, bytes) in page {
                    if base.is_some_and(|base| base.upto < chain.next_seq()) {
                        break;
                    }
                    self.report.batches += 1;
                    if let Err(why) = self.batch(&journals, &mut chain, seq, &bytes) {
                        let what = format!("journal {number}, batch at op {seq}: {why}");
                        let remedy = "restore the workspace's directory from a backup";
                        self.report.add(what, remedy, false);
                        return Ok(());
                    }
                }
                (self.progress)(Progress { what: "journal", done: self.report.batches, total });
            }
        }
        Ok(())
    }

    fn batch(
        &self,
        journals: &HashMap<DeviceId, u16>,
        chain: &mut Chain,
        seq: u64,
        bytes: &[u8],
    ) -> Result<(), String> {
        let batch = decode_batch(bytes).map_err(|error| error.to_string())?;
        if batch.seq != seq {
            return Err(format!("it says that it starts at op {}", batch.seq));
        }
        chain.accept(&batch).map_err(|error| error.to_string())?;
        let plain = self
            .workspace
            .sealer
            .open_record(
                &context(&batch.journal, seq),
                (batch.epoch, &batch.sealed_ops),
                BATCH_BYTES_HARD_MAX,
            )
            .map_err(|error| error.to_string())?;
        let known = |device: &DeviceId| journals.get(device).copied();
        let ops = decode_ops(&plain, known).map_err(|error| error.to_string())?;
        if ops.len() == batch.count as usize {
            Ok(())
        } else {
            Err(format!("it says {} ops and holds {}", batch.count, ops.len()))
        }
    }

    fn unnamed(&mut self) -> Result<(), EngineError> {
        let (chunks, bytes) = self.writer.sweep_unmarked()?;
        (self.report.unnamed_chunks, self.report.unnamed_bytes) = (chunks, bytes);
        let is_swept = self.repair && chunks > 0 && self.report.is_clean();
        if is_swept {
            self.writer.sweep_remove()?;
        }
        for (why, is_named) in std::mem::take(&mut self.damaged).into_values() {
            if !is_named {
                self.report.add(format!("{why}; nothing names it"), REPAIR, is_swept);
            }
        }
        Ok(())
    }
}

/// A clock's time, to the second.
fn moment(clock: Hlc) -> String {
    let micros = i64::try_from(clock.0).unwrap_or(i64::MAX);
    let moment = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX);
    moment.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn expected_links(ino: Ino, record: &NodeRecord, tally: &Tally) -> u32 {
    let names = if record.kind != Kind::Directory {
        tally.names
    } else if ino == Ino::ROOT || tally.names > 0 {
        2 + tally.subdirs
    } else {
        0
    };
    u32::try_from(names).unwrap_or(u32::MAX)
}
