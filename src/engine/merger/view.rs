//! What changes in the view: the nodes and entries that this device shows.
//!
//! A directory is looked at name by name where each touched name is borne by one thing alone, and
//! as a whole otherwise. Content that a peer has changed comes under a new inode number, so that
//! files that are open keep what they opened.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Folding, MergeError};
use crate::merge::{Policy, Records, Row, RowKind, is_visible, list, list_name};
use crate::store::StoreError;
use crate::types::merged::{AttrName, Inode, Key};
use crate::types::{
    AttrChange, Company, DeviceId, DeviceNames, EntryId, EntryRecord, FileId, Ino, Kind, Name,
    NodeRecord, Op, Part, Sibling, Timestamp, Twin, VersionId, VersionRecord,
};

/// Entries of a directory read at once.
const PAGE_ROWS: usize = 4096;

/// Set in the number of a node that shows a sibling; no journal has so many ops.
const SIBLING_BIT: u64 = 1 << 47;
/// Siblings of one head that a file with several names may have.
const SIBLING_NAMES_MAX: u64 = 1 << 6;
const SIBLING_NAMES_SHIFT: u32 = 41;

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

    /// The node of directories that are one, which may be several numbers' until now.
    fn directory_node(&mut self, parent: Ino, row: &Row) -> Result<Ino, MergeError> {
        let files: Vec<FileId> = row.entries.iter().map(|entry| FileId(entry.0)).collect();
        let mut own = None;
        for file in &files {
            let ino = self.face(*file)?;
            let is_live = self.node(ino)?.is_some_and(|node| {
                node.nlink > 0 && node.file.is_some_and(|owner| files.contains(&owner))
            });
            if is_live && own.is_none() {
                own = Some(ino);
            } else if is_live && own != Some(ino) {
                self.empty_out(ino)?;
            } else if !is_live && ino != Ino::from(*file) {
                // It stood merged with another, which now is without it.
                self.list_anew(ino);
            }
        }
        let ino = own.unwrap_or(Ino::from(files[0]));
        for file in &files {
            if self.face(*file)? != ino {
                self.faces.insert(*file, ino);
                self.list_anew(ino);
            }
        }
        if let Some(mut node) = self.node(ino)?.filter(|_| own.is_some()) {
            if node.parent != parent {
                node.parent = parent;
                self.nodes.insert(ino, Some(node));
            }
        } else {
            let mut node = self.fresh(files[0], None)?;
            node.parent = parent;
            self.nodes.insert(ino, Some(node));
            let was_shown = self.folding.merger.store.node(ino)?.is_some_and(|node| node.nlink > 0);
            self.change.live_nodes += i64::from(!was_shown);
            self.emptied.remove(&ino);
            if files.len() == 1 && self.folding.is_foreign_news(files[0].0) {
                self.fresh_directories.insert(ino);
            }
            self.list_anew(ino);
        }
        Ok(ino)
    }

    /// Which directories are one under this number has changed, perhaps after it was listed.
    fn list_anew(&mut self, ino: Ino) {
        self.done.remove(&ino);
        self.queue.push(ino);
    }

    /// The number of the node that shows a sibling in a directory: made of the head's, in a range
    /// that no op's id reaches; where a file has several names, each has siblings of its own.
    fn sibling_number(&self, parent: Ino, row: &Row) -> Result<Ino, StoreError> {
        let head = row.head.expect("a sibling is a head");
        for attempt in 0..SIBLING_NAMES_MAX {
            let ino = Ino(head.packed() | SIBLING_BIT | attempt << SIBLING_NAMES_SHIFT);
            let Some(node) = self.node(ino)? else { return Ok(ino) };
            let sibling = node.company.and_then(|company| company.sibling);
            if node.parent == parent && sibling.is_some_and(|sibling| sibling.name == row.name) {
                return Ok(ino);
            }
        }
        Err(StoreError::Corrupt(format!("{:?} has too many names", row.inode)))
    }

    /// The node that shows a head beside its file.
    fn sibling_node(&mut self, parent: Ino, row: &Row) -> Result<Ino, MergeError> {
        let ino = self.sibling_number(parent, row)?;
        if self.node(ino)?.is_none() {
            let mut node = self.fresh(row.inode, row.head)?;
            (node.parent, node.nlink) = (parent, 0);
            let (of, name) = (self.face(row.inode)?, row.name.clone());
            let sibling = Some(Sibling { of, name });
            node.company = Some(Box::new(Company { sibling, ..Company::default() }));
            self.nodes.insert(ino, Some(node));
        }
        Ok(ino)
    }

    /// Notes with a row's node what a change of it has to take along.
    fn keep_company(
        &mut self,
        ino: Ino,
        parent: Ino,
        row: &Row,
        beside: Beside,
    ) -> Result<(), MergeError> {
        let Some(mut node) = self.node(ino)? else { return Ok(()) };
        let mut company = node.company.as_deref().cloned().unwrap_or_default();
        let first = row.entries[0];
        match row.kind {
            RowKind::Sibling => {
                let (of, name) = (self.face(row.inode)?, row.name.clone());
                company = Company { sibling: Some(Sibling { of, name }), ..Company::default() };
            }
            RowKind::Directory => company.parts = self.parts(parent, row, &row.entries)?,
            RowKind::File => {
                company.sibling = None;
                company.forget(first);
                company.parts.extend(self.parts(parent, row, &row.entries[..1])?);
                company.twins.extend(self.twins(row)?);
                company.beside.extend(beside.names.into_iter().map(|name| (first, name)));
                company.siblings.extend(beside.siblings.into_iter().map(|ino| (first, ino)));
            }
        }
        let company = Some(Box::new(company)).filter(|company| !company.is_alone());
        if company != node.company {
            node.company = company;
            if let Some(file) = attributed_to(&node) {
                self.attribute(file, &mut node)?;
            }
            self.nodes.insert(ino, Some(node));
        }
        Ok(())
    }

    /// A file's name that goes takes its company with it. (A directory's parts are noted anew with
    /// each row.)
    fn leave_company(&mut self, entry: &EntryRecord) -> Result<(), StoreError> {
        let node = self.node(entry.ino)?.filter(|node| node.kind != Kind::Directory);
        let Some(mut node) = node else { return Ok(()) };
        let Some(mut company) = node.company.take().filter(|company| company.sibling.is_none())
        else {
            return Ok(());
        };
        company.forget(entry.entry);
        node.company = Some(company).filter(|company| !company.is_alone());
        self.nodes.insert(entry.ino, Some(node));
        Ok(())
    }

    /// The entries that make a row, where that is more than one which is simply there.
    fn parts(&self, parent: Ino, row: &Row, entries: &[EntryId]) -> Result<Vec<Part>, StoreError> {
        let mut parts = Vec::with_capacity(entries.len());
        for id in entries {
            let Some(entry) = self.folding.state.entry(*id)? else { continue };
            let removed = entry.is_removed().then(|| (parent, row.name.clone()));
            parts.push(Part { entry: *id, place: entry.place().op, removed });
        }
        let is_simple = matches!(&parts[..], [only] if only.removed.is_none());
        Ok(if is_simple { Vec::new() } else { parts })
    }

    fn twins(&self, row: &Row) -> Result<Vec<Twin>, StoreError> {
        let state = &self.folding.state;
        let mut twins = Vec::new();
        for id in &row.entries[1..] {
            let Some(entry) = state.entry(*id)? else { continue };
            let inode = state.inode(entry.inode)?.unwrap_or_default();
            let mut is_last = true;
            for other in inode.entries.iter().filter(|other| *other != id) {
                is_last &= !is_visible(state, *other)?;
            }
            let heads = if is_last { inode.heads.into_iter().collect() } else { Vec::new() };
            twins.push(Twin { of: row.entries[0], entry: *id, place: entry.place().op, heads });
        }
        Ok(twins)
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

    /// The node that shows a file's head.
    fn file_node(&mut self, row: &Row) -> Result<Ino, MergeError> {
        let file = row.inode;
        let face = self.face(file)?;
        let is_news = self.folding.is_foreign_news(file.0) && !self.nodes.contains_key(&face);
        let node = if is_news { None } else { self.node(face)? };
        let node = node.filter(|node| node.file == Some(file));
        match node {
            // Shown, or given back in this round.
            Some(node)
                if node.head == row.head && (node.nlink > 0 || self.nodes.contains_key(&face)) =>
            {
                Ok(face)
            }
            Some(node) if node.head == row.head => self.file_back(row, face, &node),
            // Written again by who decided between heads: nothing changes for who reads it.
            Some(mut node) if node.nlink > 0 && self.is_equal(file, node.head, row.head)? => {
                node.head = row.head;
                self.nodes.insert(face, Some(node));
                Ok(face)
            }
            Some(node) => {
                let head = row.head.expect("a file's head is superseded by a head alone");
                let ino = Ino(head.packed());
                self.faces.insert(file, ino);
                let mut fresh = self.fresh(file, Some(head))?;
                (fresh.btime, fresh.nlink) = (node.btime, 0);
                self.nodes.insert(ino, Some(fresh));
                self.nodes.insert(face, None);
                self.change.live_nodes -= i64::from(node.nlink > 0);
                self.change.detached.push(face);
                // Names come over one by one; the old number's go with it.
                Ok(ino)
            }
            None => {
                let none_free =
                    || StoreError::Corrupt(format!("no inode number is free for {file:?}"));
                let ino = self.free_number(row)?.ok_or_else(none_free)?;
                if ino != face {
                    self.faces.insert(file, ino);
                }
                let mut node = self.fresh(file, row.head)?;
                node.nlink = 0;
                self.nodes.insert(ino, Some(node));
                Ok(ino)
            }
        }
    }

    /// The node of a file whose last name had gone, with its head as before. What is still open under
    /// the old number may hold bytes that no version has: it keeps that number, if there is another.
    fn file_back(&mut self, row: &Row, face: Ino, old: &NodeRecord) -> Result<Ino, MergeError> {
        let mut fresh = self.fresh(row.inode, row.head)?;
        (fresh.btime, fresh.nlink) = (old.btime, 0);
        let Some(ino) = self.free_number(row)? else {
            self.nodes.insert(face, Some(fresh));
            return Ok(face);
        };
        self.faces.insert(row.inode, ino);
        self.nodes.insert(ino, Some(fresh));
        self.nodes.insert(face, None);
        self.change.detached.push(face);
        Ok(ino)
    }

    /// A number for a file that is not shown yet: its own if it is new, else that of the op which
    /// brought it back. None is used twice, for the kernel may still know what bore it before.
    fn free_number(&self, row: &Row) -> Result<Option<Ino>, StoreError> {
        let is_free = |ino: Ino| -> Result<bool, StoreError> {
            Ok(!self.nodes.contains_key(&ino) && self.folding.merger.store.node(ino)?.is_none())
        };
        let own = Ino::from(row.inode);
        if self.folding.makes.contains_key(&row.inode) && is_free(own)? {
            return Ok(Some(own));
        }
        let state = &self.folding.state;
        let mut ops = Vec::with_capacity(2);
        ops.extend(state.entry(row.entries[0])?.map(|e| (e.place().key, e.place().op.packed())));
        if let Some(head) = row.head {
            let version = state.version(row.inode, head)?;
            ops.extend(version.map(|version| (version.key, head.packed())));
        }
        ops.sort_unstable();
        for number in ops.into_iter().rev().map(|(_, number)| Ino(number)).chain([own]) {
            if is_free(number)? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Do two heads of a file hold the same?
    fn is_equal(
        &self,
        file: FileId,
        one: Option<VersionId>,
        other: Option<VersionId>,
    ) -> Result<bool, StoreError> {
        let (Some(one), Some(other)) = (one, other) else { return Ok(false) };
        let one = self.folding.state.version(file, one)?;
        let other = self.folding.state.version(file, other)?;
        Ok(one.zip(other).is_some_and(|(one, other)| one.content == other.content))
    }

    /// A node's record from the merge, the version and the op that made it.
    fn fresh(&self, file: FileId, head: Option<VersionId>) -> Result<NodeRecord, MergeError> {
        let (kind, made_at) = self.made(file)?;
        let version = match head {
            Some(head) => self.version(file, head)?,
            None => None,
        };
        let is_dir = kind == Kind::Directory;
        let mut record = NodeRecord {
            file: Some(file),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: if is_dir { 2 } else { 0 },
            size_bytes: version.as_ref().map_or(0, |version| version.size_bytes),
            stored_bytes: version.as_ref().map_or(0, |version| version.size_bytes),
            atime: made_at,
            mtime: version.as_ref().map_or(made_at, |version| version.mtime),
            ctime: self.now,
            btime: made_at,
            head,
            parent: Ino::ROOT,
            xattrs: BTreeMap::new(),
            company: None,
        };
        self.attribute(file, &mut record)?;
        Ok(record)
    }

    /// Lays the shared attributes into a record.
    fn attribute(&self, file: FileId, record: &mut NodeRecord) -> Result<(), MergeError> {
        let Some(inode) = self.folding.state.inode(file)? else { return Ok(()) };
        let written: Option<Key> = match record.head {
            Some(head) => self.folding.state.version(file, head)?.map(|version| version.key),
            None => None,
        };
        record.xattrs.clear();
        for (name, (key, change)) in inode.attrs {
            match change {
                AttrChange::Mode(mode) => record.mode = mode & 0o7777,
                AttrChange::Uid(uid) => record.uid = uid,
                AttrChange::Gid(gid) => record.gid = gid,
                AttrChange::Mtime(mtime) if written.is_none_or(|written| key > written) => {
                    record.mtime = mtime;
                }
                AttrChange::Mtime(_) => {}
                AttrChange::Xattr(_, value) => {
                    if let (AttrName::Xattr(name), Some(value)) = (name, value) {
                        record.xattrs.insert(name, value);
                    }
                }
            }
        }
        Ok(())
    }

    /// Lays attributes that ops of this round changed into the nodes that are shown.
    fn attributes(&mut self) -> Result<(), MergeError> {
        let files: Vec<FileId> = self.folding.state.changed().inodes.keys().copied().collect();
        for file in files {
            let ino = self.face(file)?;
            let node = self.node(ino)?.filter(|node| attributed_to(node) == Some(file));
            let Some(node) = node else { continue };
            let siblings = node.company.map_or_else(Vec::new, |company| company.siblings);
            for ino in std::iter::once(ino).chain(siblings.into_iter().map(|(_, ino)| ino)) {
                let Some(before) = self.node(ino)? else { continue };
                let mut after = before.clone();
                self.attribute(file, &mut after)?;
                if after != before {
                    after.ctime = self.now;
                    self.nodes.insert(ino, Some(after));
                }
            }
        }
        Ok(())
    }

    fn version(&self, file: FileId, id: VersionId) -> Result<Option<VersionRecord>, StoreError> {
        match self.folding.versions.get(&id) {
            Some(at) => Ok(Some(self.folding.commit.versions_put[*at].2.clone())),
            None => self.folding.merger.store.version(file, id),
        }
    }

    /// What a file or directory is, and when it was made: from this round, or from its journal.
    fn made(&self, file: FileId) -> Result<(Kind, Timestamp), MergeError> {
        if file == FileId::ROOT {
            return Ok((Kind::Directory, self.now));
        }
        if let Some(Op::Make { kind, .. }) = self.folding.makes.get(&file) {
            return Ok((kind.clone(), self.now));
        }
        match self.folding.merger.op(file.0)? {
            Some(Op::Make { kind, .. }) => Ok((kind, self.now)),
            _ => Err(StoreError::Corrupt(format!("the op that made {file:?} is not here")).into()),
        }
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
            let is_sibling = record.company.as_ref().is_some_and(|c| c.sibling.is_some());
            let in_history = record.kind == Kind::Regular && record.head.is_some() && !is_sibling;
            let is_kept = record.nlink > 0 || in_history;
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

/// Whose attributes a node shows: of directories that are one, those of the first placed.
fn attributed_to(node: &NodeRecord) -> Option<FileId> {
    let first = node.company.as_ref().and_then(|company| company.parts.first());
    let first = first.filter(|_| node.kind == Kind::Directory);
    first.map(|part| FileId(part.entry.0)).or(node.file)
}

/// What devices are called, by the root's attributes.
fn device_names(root: Option<Inode>) -> DeviceNames {
    let attrs = root.map(|root| root.attrs).unwrap_or_default();
    DeviceNames::from_attrs(attrs.values().filter_map(|(_, change)| match change {
        AttrChange::Xattr(name, Some(value)) => Some((name.as_slice(), value.as_slice())),
        _ => None,
    }))
}
