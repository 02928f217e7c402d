//! What changes in the view: the nodes and entries that this device shows.
//!
//! A directory is looked at name by name where each touched name is borne by one thing alone, and
//! as a whole otherwise. Content that a peer has changed comes under a new inode number, so that
//! files that are open keep what they opened.

mod company;
mod nodes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Folding, MergeError};
use crate::merge::{Policy, Records, Row, RowKind, list, list_name};
use crate::store::StoreError;
use crate::types::merged::Inode;
use crate::types::{
    AttrChange, DeviceId, DeviceNames, EntryId, EntryRecord, FileId, Ino, Kind, Name, NodeRecord,
    Timestamp,
};
use nodes::attributed_to;

/// Entries of a directory read at once.
const PAGE_ROWS: usize = 4096;

/// What stands beside a file's name.
#[derive(Default)]
struct Beside {
    /// The names of other files.
    names: Vec<Name>,
    /// The nodes of its siblings.
    siblings: Vec<Ino>,
}

/// What the tree in memory and the kernel have to hear of a round.
#[derive(Clone, Debug, Default)]
pub struct ViewChange {
    /// Nodes as they are now, or that are gone.
    pub nodes: Vec<(Ino, Option<NodeRecord>)>,
    /// Nodes whose content a peer's has replaced: open files keep them.
    pub detached: Vec<Ino>,
    /// Entries that came or changed.
    pub entries_put: Vec<EntryRecord>,
    /// Entries that went, each with its name.
    pub entries_removed: Vec<EntryRecord>,
    /// By how much the number of nodes with a name has changed.
    pub live_nodes: i64,
    /// Files that were touched, and have several heads.
    pub conflicted: Vec<FileId>,
}

impl ViewChange {
    /// Does nothing change?
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.entries_put.is_empty() && self.entries_removed.is_empty()
    }
}

/// Names to look at again in each directory; `None` for all of them.
type Touched = HashMap<FileId, Option<BTreeSet<Name>>>;

/// Works out the change, and puts what of it the store keeps into the round's commit.
pub fn change(folding: &mut Folding<'_>, now: Timestamp) -> Result<ViewChange, MergeError> {
    let names = device_names(folding.state.inode(FileId::ROOT)?);
    let mut viewing = Viewing {
        now,
        names,
        nodes: BTreeMap::new(),
        faces: HashMap::new(),
        links: HashMap::new(),
        placed: HashSet::new(),
        fresh_directories: HashSet::new(),
        queue: Vec::new(),
        done: HashSet::new(),
        emptied: HashSet::new(),
        change: ViewChange::default(),
        rows: BTreeMap::new(),
        crowded: BTreeMap::new(),
        folding,
    };
    viewing.run()?;
    viewing.finish()
}

struct Viewing<'a, 'b> {
    folding: &'a mut Folding<'b>,
    now: Timestamp,
    /// What devices are called, by all that is folded.
    names: DeviceNames,
    /// Nodes as this change leaves them.
    nodes: BTreeMap<Ino, Option<NodeRecord>>,
    faces: HashMap<FileId, Ino>,
    /// By how much each file's number of names changes.
    links: HashMap<Ino, i64>,
    /// Directories that were given a name in this change.
    placed: HashSet<Ino>,
    /// Directories of which the store shows nothing yet.
    fresh_directories: HashSet<Ino>,
    /// Directories to look at as a whole, met on the way.
    queue: Vec<Ino>,
    done: HashSet<Ino>,
    /// Directories whose content now shows under another number.
    emptied: HashSet<Ino>,
    change: ViewChange,
    /// Names that were looked at: what the store shows there, and what is to be shown.
    rows: BTreeMap<(Ino, Name), (Option<EntryRecord>, Option<EntryRecord>)>,
    crowded: BTreeMap<Ino, bool>,
}

impl Viewing<'_, '_> {
    fn run(&mut self) -> Result<(), MergeError> {
        let touched = self.touched()?;
        let mut directories = Vec::with_capacity(touched.len());
        for (directory, names) in touched {
            directories.push((self.depth(directory)?, directory, names));
        }
        directories.sort_by_key(|(depth, directory, _)| (*depth, *directory));
        for (_, directory, names) in directories {
            let ino = self.face(directory)?;
            self.directory(ino, names)?;
            while let Some(ino) = self.queue.pop() {
                self.directory(ino, None)?;
            }
        }
        self.renamed_devices()?;
        self.attributes()?;
        self.settle_rows()
    }

    /// Names that say which device made them are given anew where a device is called otherwise now.
    fn renamed_devices(&mut self) -> Result<(), MergeError> {
        let store = &self.folding.merger.store;
        if device_names(store.merged_inode(FileId::ROOT)?) != self.names {
            for ino in store.crowded()? {
                self.directory(ino, None)?;
            }
            while let Some(ino) = self.queue.pop() {
                self.directory(ino, None)?;
            }
        }
        Ok(())
    }

    /// Every name on which what was folded may bear.
    fn touched(&self) -> Result<Touched, StoreError> {
        let mut touched = Touched::new();
        let mut touch = |parent: FileId, name: Name| -> bool {
            let names = touched.entry(parent).or_insert_with(|| Some(BTreeSet::new()));
            names.as_mut().is_some_and(|names| names.insert(name))
        };
        let state = &self.folding.state;
        let mut look: Vec<(FileId, Name)> = self.folding.shown.clone();
        for (id, entry) in &state.changed().entries {
            let before = self.folding.state.records().entry(*id)?;
            for place in [before.and_then(|entry| entry.place), entry.clone().and_then(|e| e.place)]
            {
                look.extend(place.map(|place| (place.parent, place.name)));
            }
        }
        for inode in state.changed().inodes.values().flatten().filter(|inode| !inode.is_directory) {
            for id in &inode.entries {
                let place = state.entry(*id)?.and_then(|entry| entry.place);
                look.extend(place.map(|place| (place.parent, place.name)));
            }
        }
        // What is inside decides whether a removed directory is visible (L4).
        while let Some((parent, name)) = look.pop() {
            if touch(parent, name) && parent != FileId::ROOT {
                let above =
                    state.entry(EntryId(parent.0))?.filter(|entry| !entry.removals.is_empty());
                look.extend(above.and_then(|e| e.place).map(|place| (place.parent, place.name)));
            }
        }
        Ok(touched)
    }

    fn depth(&self, mut directory: FileId) -> Result<u32, StoreError> {
        let mut depth = 0;
        while directory != FileId::ROOT {
            let Some(entry) = self.folding.state.entry(EntryId(directory.0))? else { break };
            let Some(place) = entry.place else { break };
            directory = place.parent;
            depth += 1;
        }
        Ok(depth)
    }

    /// The number by which a file or directory is known here.
    fn face(&self, file: FileId) -> Result<Ino, StoreError> {
        match self.faces.get(&file) {
            Some(ino) => Ok(*ino),
            None if self.folding.is_foreign_news(file.0) => Ok(Ino::from(file)),
            None => self.folding.merger.store.face(file),
        }
    }

    fn node(&self, ino: Ino) -> Result<Option<NodeRecord>, StoreError> {
        match self.nodes.get(&ino) {
            Some(record) => Ok(record.clone()),
            None => self.folding.merger.store.node(ino),
        }
    }

    /// All directories that are one under this number.
    fn merged_here(&self, ino: Ino, record: &NodeRecord) -> Result<Vec<FileId>, StoreError> {
        let mut all: BTreeSet<FileId> = record.file.into_iter().collect();
        all.extend(self.folding.merger.store.faced(ino)?);
        all.extend(self.faces.iter().filter(|(_, face)| **face == ino).map(|(file, _)| *file));
        let mut here = Vec::new();
        for file in all {
            if self.face(file)? == ino || Some(file) == record.file {
                here.push(file);
            }
        }
        Ok(here)
    }

    /// Brings the rows of one directory up to date: those of `names`, or all.
    fn directory(&mut self, ino: Ino, names: Option<BTreeSet<Name>>) -> Result<(), MergeError> {
        if self.done.contains(&ino) || self.emptied.contains(&ino) {
            return Ok(());
        }
        let Some(record) = self.node(ino)?.filter(|record| record.nlink > 0) else { return Ok(()) };
        let files = self.merged_here(ino, &record)?;
        let is_crowded = self.folding.merger.store.is_crowded(ino)?;
        if let Some(names) = names.filter(|_| !is_crowded) {
            let mut rows = Vec::with_capacity(names.len());
            let mut is_simple = true;
            for name in &names {
                match list_name(&self.folding.state, &files, name, self.policy())? {
                    Some(row) => rows.push((name.clone(), row)),
                    None => is_simple = false,
                }
            }
            if is_simple {
                for (name, row) in rows {
                    let shown = self.shown_at(ino, &name)?;
                    let row = row.map(|row| (row, Beside::default()));
                    self.row(ino, name, shown, row)?;
                }
                return Ok(());
            }
        }
        self.whole(ino, &files, is_crowded)
    }

    /// What the store shows at a name.
    fn shown_at(&self, ino: Ino, name: &Name) -> Result<Option<EntryRecord>, StoreError> {
        if self.fresh_directories.contains(&ino) {
            return Ok(None);
        }
        let hash = self.folding.merger.hasher.hash(name.as_bytes());
        let shown = self.folding.merger.store.entry(ino, hash)?;
        Ok(shown.into_iter().find(|entry| entry.name == *name))
    }

    fn whole(&mut self, ino: Ino, files: &[FileId], was_crowded: bool) -> Result<(), MergeError> {
        self.done.insert(ino);
        let rows = list(&self.folding.state, files, self.policy(), &|device: &DeviceId| {
            self.names.label(device)
        })?;
        let is_crowded = rows.iter().any(|row| row.name != row.raw_name);
        if is_crowded != was_crowded || self.crowded.contains_key(&ino) {
            self.crowded.insert(ino, is_crowded);
        }
        let mut shown = self.shown(ino)?;
        let listed: HashSet<Name> = rows.iter().map(|row| row.name.clone()).collect();
        let mut names_beside: HashMap<Name, Vec<Name>> = HashMap::new();
        for row in rows.iter().filter(|row| row.kind == RowKind::File && row.name != row.raw_name) {
            names_beside.entry(row.raw_name.clone()).or_default().push(row.name.clone());
        }
        let (siblings, others): (Vec<Row>, Vec<Row>) =
            rows.into_iter().partition(|row| row.kind == RowKind::Sibling);
        let mut of_entry: HashMap<EntryId, Vec<Ino>> = HashMap::new();
        for row in &siblings {
            let number = self.sibling_node(ino, row)?;
            of_entry.entry(row.entries[0]).or_default().push(number);
        }
        // Files first: a sibling's node says which bears the name.
        for row in others.into_iter().chain(siblings) {
            let mut beside = Beside { names: Vec::new(), siblings: Vec::new() };
            if row.kind == RowKind::File {
                if row.name == row.raw_name {
                    beside.names = names_beside.remove(&row.name).unwrap_or_default();
                }
                beside.siblings = of_entry.remove(&row.entries[0]).unwrap_or_default();
            }
            let before = shown.remove(&row.name);
            self.row(ino, row.name.clone(), before, Some((row, beside)))?;
        }
        let fresh: Vec<Name> = self.rows_of(ino).filter(|name| !listed.contains(name)).collect();
        for name in fresh {
            self.row(ino, name, None, None)?;
        }
        for (name, entry) in shown {
            self.row(ino, name, Some(entry), None)?;
        }
        Ok(())
    }

    /// The entries of a directory as the store has them.
    fn shown(&self, ino: Ino) -> Result<BTreeMap<Name, EntryRecord>, StoreError> {
        let mut shown = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.folding.merger.store.entries_page(ino, after, PAGE_ROWS)?;
            let Some(last) = page.last() else { return Ok(shown) };
            after = Some(last.hash);
            shown.extend(page.into_iter().map(|entry| (entry.name.clone(), entry)));
        }
    }

    /// The names of a directory that were looked at so far.
    fn rows_of(&self, ino: Ino) -> impl Iterator<Item = Name> {
        let rows = self.rows.keys().filter(move |(parent, _)| *parent == ino);
        rows.map(|(_, name)| name.clone())
    }

    /// One name: what the store shows there, and what is to be shown. The last word counts.
    fn row(
        &mut self,
        parent: Ino,
        name: Name,
        shown: Option<EntryRecord>,
        row: Option<(Row, Beside)>,
    ) -> Result<(), MergeError> {
        let wanted = match row {
            Some((row, beside)) => {
                let entry = self.entry(parent, &row)?;
                self.keep_company(entry.ino, parent, &row, beside)?;
                Some(entry)
            }
            None => None,
        };
        self.rows.entry((parent, name)).or_insert((shown, None)).1 = wanted;
        Ok(())
    }

    /// Counts what has changed in which directory.
    fn settle_rows(&mut self) -> Result<(), MergeError> {
        let rows = std::mem::take(&mut self.rows);
        let wanted = rows.values().filter_map(|(_, wanted)| wanted.as_ref());
        let stay: HashSet<(Ino, EntryId)> = wanted.map(|entry| (entry.ino, entry.entry)).collect();
        for ((parent, _), (shown, wanted)) in rows {
            if shown == wanted {
                continue;
            }
            if let Some(shown) = shown {
                self.count(parent, &shown, -1)?;
                if !stay.contains(&(shown.ino, shown.entry)) {
                    self.leave_company(&shown)?;
                }
                self.change.entries_removed.push(shown);
            }
            if let Some(wanted) = wanted {
                self.count(parent, &wanted, 1)?;
                self.change.entries_put.push(wanted);
            }
        }
        Ok(())
    }

    fn entry(&mut self, parent: Ino, row: &Row) -> Result<EntryRecord, MergeError> {
        let ino = match row.kind {
            RowKind::Directory => self.directory_node(parent, row)?,
            RowKind::File => self.file_node(row)?,
            RowKind::Sibling => self.sibling_node(parent, row)?,
        };
        let record = self.node(ino)?.expect("a row's node was just made or found");
        let entry = self.folding.state.entry(row.entries[0])?.expect("a row's entry is there");
        Ok(EntryRecord {
            parent,
            hash: self.folding.merger.hasher.hash(row.name.as_bytes()),
            entry: row.entries[0],
            place: entry.place().op,
            ino,
            kind_bits: record.kind.bits(),
            name: row.name.clone(),
        })
    }

    /// A name more or less of a node, in a directory.
    fn count(&mut self, parent: Ino, entry: &EntryRecord, by: i64) -> Result<(), StoreError> {
        let is_dir = entry.kind_bits == Kind::Directory.bits();
        if let Some(mut record) = self.node(parent)? {
            record.size_bytes = record.size_bytes.saturating_add_signed(by);
            if is_dir {
                let by = i32::try_from(by).unwrap_or(0);
                record.nlink = record.nlink.saturating_add_signed(by);
            }
            record.mtime = self.now;
            record.ctime = self.now;
            self.nodes.insert(parent, Some(record));
        }
        *self.links.entry(entry.ino).or_default() += by;
        if is_dir && by > 0 {
            self.placed.insert(entry.ino);
        }
        Ok(())
    }

    fn policy(&self) -> Policy {
        let keeps_both = self.folding.merger.conflicts.shows_siblings();
        Policy { keeps_both, is_caseless: false }
    }

    /// A directory whose content now shows under another number.
    fn empty_out(&mut self, ino: Ino) -> Result<(), MergeError> {
        self.emptied.insert(ino);
        let fresh: Vec<Name> = self.rows_of(ino).collect();
        for name in fresh {
            self.row(ino, name, None, None)?;
        }
        for (name, entry) in self.shown(ino)? {
            self.row(ino, name, Some(entry), None)?;
        }
        Ok(())
    }

    /// Settles link counts, and hands out the change.
    fn finish(mut self) -> Result<ViewChange, MergeError> {
        for (ino, by) in std::mem::take(&mut self.links) {
            let Some(mut record) = self.node(ino)? else { continue };
            if record.kind == Kind::Directory {
                if by < 0 && !self.placed.contains(&ino) {
                    self.nodes.insert(ino, None);
                    self.change.live_nodes -= 1;
                }
                continue;
            }
            let before = record.nlink;
            let after = i64::from(before) + by;
            record.nlink = u32::try_from(after.max(0)).unwrap_or(u32::MAX);
            record.ctime = self.now;
            self.change.live_nodes += i64::from(record.nlink > 0) - i64::from(before > 0);
            let is_kept = record.nlink > 0 || record.is_in_history();
            self.nodes.insert(ino, is_kept.then_some(record));
        }
        let inodes = self.folding.state.changed().inodes.iter();
        let conflicted =
            inodes.filter(|(_, inode)| inode.as_ref().is_some_and(Inode::is_conflicted));
        self.change.conflicted = conflicted.map(|(file, _)| *file).collect();
        let rows = &mut self.folding.commit;
        rows.merged.faces.extend(
            self.faces
                .iter()
                .map(|(file, ino)| (*file, (*ino != Ino::from(*file)).then_some(*ino))),
        );
        rows.merged.crowded.extend(self.crowded);
        self.change.nodes = self.nodes.into_iter().collect();
        rows.nodes.extend(self.change.nodes.iter().cloned());
        rows.entries_put.extend(self.change.entries_put.iter().cloned());
        rows.entries_removed
            .extend(self.change.entries_removed.iter().map(|e| (e.parent, e.hash, e.entry)));
        Ok(self.change)
    }
}

/// What devices are called, by the root's attributes.
fn device_names(root: Option<Inode>) -> DeviceNames {
    let attrs = root.map(|root| root.attrs).unwrap_or_default();
    DeviceNames::from_attrs(attrs.values().filter_map(|(_, change)| match change {
        AttrChange::Xattr(name, Some(value)) => Some((name.as_slice(), value.as_slice())),
        _ => None,
    }))
}
